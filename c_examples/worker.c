/* A persistent worker of the library's own: 100,000 items go through it, each fifth to the queue spawn, the others to finished,
 * all of them one more than they were. Afterwards both queues hold exactly what a model that takes one item after the other
 * gives; only their order is the worker's.
 *
 *   worker [--backend auto|host|cuda] [GRID]   blocks of the worker (1) */
#include "check.h"

#include <string.h>

#define ITEMS 100000
#define CAPACITY (1 << 17)
#define SPAWN_INTERVAL 5
#define INCREMENT 1
#define ITERATIONS 200000
#define IDLE_THRESHOLD 2048
#define BLOCK 128
#define LIMIT_NS UINT64_C(60000000000)

typedef struct items {
  uint32_t *item;
  uint64_t count;
} items;

static items room_for(uint64_t most) {
  const items made = {malloc(most * sizeof(uint32_t)), 0};
  MUST(made.item != NULL, "there should be memory for %" PRIu64 " items", most);
  return made;
}

static int by_size(const void *a, const void *b) {
  const uint32_t left = *(const uint32_t *)a, right = *(const uint32_t *)b;
  return (left > right) - (left < right);
}

static gmb_queue make_queue(gmb_context context) {
  gmb_queue_options options = GMB_QUEUE_OPTIONS_INIT;
  options.item_bytes = sizeof(uint32_t);
  options.capacity = CAPACITY;
  gmb_queue queue;
  CHECK(gmb_queue_create(context, &options, &queue));
  return queue;
}

/* All that is in a queue. */
static items all_of(gmb_queue queue) {
  items found = room_for(CAPACITY);
  CHECK(gmb_queue_pop_to_host_blocking(queue, found.item, CAPACITY, &found.count));
  return found;
}

/* What the worker should do, item after item. */
static void follow_model(const items *given, items *finished, items *spawned) {
  for (uint64_t k = 0; k < given->count; ++k) {
    items *to = (k + 1) % SPAWN_INTERVAL == 0 ? spawned : finished;
    to->item[to->count++] = given->item[k] + INCREMENT;
  }
}

/* Whether a queue holds what it should, in any order. Ends both lists. */
static int is_same(const char *name, items found, items wanted) {
  int same = found.count == wanted.count;
  if (!same) {
    fprintf(stderr, "wrong: %s holds %" PRIu64 " items, and the model gives %" PRIu64 "\n", name, found.count, wanted.count);
  }
  qsort(found.item, found.count, sizeof(uint32_t), by_size);
  qsort(wanted.item, wanted.count, sizeof(uint32_t), by_size);
  for (uint64_t i = 0; same && i < wanted.count; ++i) {
    if (found.item[i] == wanted.item[i]) continue;
    fprintf(stderr, "wrong: %s: of the sorted items number %" PRIu64 " is %" PRIu32 ", and the model gives %" PRIu32 "\n", name,
            i, found.item[i], wanted.item[i]);
    same = 0;
  }
  free(found.item);
  free(wanted.item);
  return same;
}

static int usage(void) {
  fprintf(stderr, "worker [--backend auto|host|cuda] [GRID], with 1 to 65535 blocks\n");
  return 2;
}

int main(int count, char **argument) {
  gmb_context_options wanted = GMB_CONTEXT_OPTIONS_INIT;
  uint32_t grid = 1;
  for (int i = 1; i < count; ++i) {
    if (strcmp(argument[i], "--backend") == 0) {
      if (++i == count) return usage();
      if (strcmp(argument[i], "host") == 0) wanted.backend = GMB_BACKEND_HOST;
      else if (strcmp(argument[i], "cuda") == 0) wanted.backend = GMB_BACKEND_CUDA;
      else if (strcmp(argument[i], "auto") != 0) return usage();
      continue;
    }
    char *end;
    const long blocks = strtol(argument[i], &end, 10);
    if (end == argument[i] || *end != '\0' || blocks < 1 || blocks > 65535) return usage();
    grid = (uint32_t)blocks;
  }

  gmb_context context;
  CHECK(gmb_context_create(&wanted, &context));
  gmb_context_info where;
  CHECK(gmb_context_get_info(context, &where, sizeof where));
  const gmb_queue active = make_queue(context), finished = make_queue(context), spawn = make_queue(context);

  /* In no order, and some twice: by a linear congruential generator. */
  items given = room_for(ITEMS);
  for (uint32_t word = 20250716; given.count < ITEMS; word = word * 1664525u + 1013904223u) {
    given.item[given.count++] = word >> 12;
  }
  uint64_t pushed;
  CHECK(gmb_queue_push_from_host_blocking(active, given.item, ITEMS, &pushed));
  MUST(pushed == ITEMS, "only %" PRIu64 " items were pushed", pushed);

  gmb_worker_options options = GMB_WORKER_OPTIONS_INIT;
  options.active = active;
  options.finished = finished;
  options.spawn = spawn;
  options.spawn_interval = SPAWN_INTERVAL;
  options.increment = INCREMENT;
  options.max_iterations = ITERATIONS;
  options.idle_threshold = IDLE_THRESHOLD;
  options.block_threads = BLOCK;
  options.grid_blocks = grid;
  gmb_worker worker;
  CHECK(gmb_worker_create(&options, &worker));
  CHECK(gmb_worker_start(worker));
  gmb_worker_result did;
  CHECK(gmb_worker_wait(worker, LIMIT_NS, &did));

  const char *why = did.reason == GMB_WORKER_IDLE         ? "idle"
                    : did.reason == GMB_WORKER_ITERATIONS ? "iterations"
                    : did.reason == GMB_WORKER_STOPPED    ? "stopped"
                                                          : "running";
  printf("reason %s, processed %" PRIu64 ", spawned %" PRIu64 ", idle polls %" PRIu64 ", rejected %" PRIu64
         "; %" PRIu32 " blocks, %" PRIu64 " slices\n",
         why, did.processed, did.spawned, did.idle_polls, did.rejected, grid, did.slices);

  items should_be_finished = room_for(ITEMS), should_be_spawned = room_for(ITEMS);
  follow_model(&given, &should_be_finished, &should_be_spawned);
  MUST(did.reason == GMB_WORKER_IDLE, "the worker should have ended because it had nothing to do, not: %s", why);
  MUST(did.processed == ITEMS, "%d items should have been processed", ITEMS);
  MUST(did.finished == should_be_finished.count && did.spawned == should_be_spawned.count,
       "the counts of finished and spawned items are not the model's");
  gmb_queue_info left;
  CHECK(gmb_queue_get_info(active, &left, sizeof left));
  MUST(left.size == 0, "%" PRIu64 " items are left in active", left.size);
  const int finished_is_same = is_same("finished", all_of(finished), should_be_finished);
  const int spawn_is_same = is_same("spawn", all_of(spawn), should_be_spawned);
  if (!finished_is_same || !spawn_is_same) return 1;
  printf("ok: %d items, each where the model has it; backend=%s\n", ITEMS, where.backend == GMB_BACKEND_CUDA ? "cuda" : "host");

  free(given.item);
  CHECK(gmb_worker_destroy(worker));
  CHECK(gmb_queue_destroy(active));
  CHECK(gmb_queue_destroy(finished));
  CHECK(gmb_queue_destroy(spawn));
  CHECK(gmb_context_destroy(context));
  return 0;
}
