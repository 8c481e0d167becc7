/* Items a second through a work queue and back: a batch is pushed and popped again, many times, and what comes out is held
 * against what went in.
 *
 *   queue_measure [BATCH [ITERATIONS]]   items of each push (16384), round trips (200) */
#include "check.h"

static uint32_t number(const char *text, uint32_t most) {
  char *end;
  const unsigned long long value = strtoull(text, &end, 10);
  MUST(end != text && *end == '\0' && value >= 1 && value <= most, "%s: a number from 1 to %" PRIu32 " is needed", text, most);
  return (uint32_t)value;
}

int main(int count, char **argument) {
  MUST(count <= 3, "queue_measure [BATCH [ITERATIONS]]");
  const uint32_t batch = count > 1 ? number(argument[1], 1 << 24) : 16384;
  const uint32_t iterations = count > 2 ? number(argument[2], UINT32_MAX) : 200;

  gmb_context context;
  CHECK(gmb_context_create(NULL, &context));
  gmb_context_info where;
  CHECK(gmb_context_get_info(context, &where, sizeof where));
  const uint32_t widths[] = {4, 8, 16};
  for (int w = 0; w < 3; ++w) {
    gmb_queue_options options = GMB_QUEUE_OPTIONS_INIT;
    options.item_bytes = widths[w];
    options.capacity = 1;
    while (options.capacity < batch) options.capacity *= 2;
    gmb_queue queue;
    CHECK(gmb_queue_create(context, &options, &queue));
    gmb_queue_measurement found;
    CHECK(gmb_queue_measure(queue, batch, iterations, &found));
    MUST(found.items == (uint64_t)batch * iterations, "%" PRIu64 " items made the round trip, not all", found.items);
    printf("items of %2" PRIu32 " bytes: %.0f items/s, %.3f us for a batch of %" PRIu32 " and back\n", widths[w],
           found.items_per_second, found.seconds / iterations * 1e6, batch);
    CHECK(gmb_queue_destroy(queue));
  }
  printf("ok: %" PRIu32 " round trips each, backend=%s\n", iterations, where.backend == GMB_BACKEND_CUDA ? "cuda" : "host");
  CHECK(gmb_context_destroy(context));
  return 0;
}
