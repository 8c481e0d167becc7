/* Commands to a persistent worker while it runs, with no launch between: pings, whose round trips are timed, what it has done
 * so far, a command that is cancelled, a doorbell that is full, answers that an event loop hears of, and what becomes of
 * commands when nobody is there to do them.
 *
 *   commands [--backend auto|host|cuda] */
#define _POSIX_C_SOURCE 200809L /* clock_gettime */
#include "check.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>

#define AT_ONCE 8
#define PINGS 2000
#define ITEMS 1000
#define ROUNDS 50
#define LIMIT_NS UINT64_C(60000000000)

/* What the steps below share. */
typedef struct setting {
  gmb_queue active, finished;
  gmb_doorbell bell;
  gmb_worker worker;
} setting;

static gmb_command ping(uint64_t n) {
  const gmb_command made = {GMB_COMMAND_PING, 0, {n, ~n, n * n}};
  return made;
}

static int is_pong(gmb_answer answer, uint64_t n) {
  return answer.status == GMB_OK && answer.value[0] == n && answer.value[1] == ~n && answer.value[2] == n * n;
}

static gmb_command_id submit(setting s, gmb_command command) {
  gmb_command_id id;
  CHECK(gmb_doorbell_submit(s.bell, &command, LIMIT_NS, &id));
  return id;
}

static gmb_answer answer_to(setting s, gmb_command_id id) {
  gmb_answer answer;
  CHECK(gmb_doorbell_wait(s.bell, id, LIMIT_NS, &answer));
  return answer;
}

static gmb_answer call(setting s, gmb_command command) {
  gmb_answer answer;
  CHECK(gmb_doorbell_call(s.bell, &command, LIMIT_NS, &answer));
  return answer;
}

static uint64_t now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void must_end_before(uint64_t limit_ns, const char *what) { MUST(now_ns() < limit_ns, "%s, for a minute", what); }

static int by_size(const void *a, const void *b) {
  const uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;
  return (left > right) - (left < right);
}

/* Before the worker runs: as many commands as there is room for, and no more. One of them is cancelled. */
static void fill_and_cancel(setting s) {
  gmb_command_id ids[AT_ONCE], none;
  for (uint64_t n = 0; n < AT_ONCE; ++n) ids[n] = submit(s, ping(n));
  const gmb_command more = ping(AT_ONCE);
  MUST(gmb_doorbell_submit(s.bell, &more, 0, &none) == GMB_ERROR_FULL, "there is room for %d commands", AT_ONCE);
  CHECK(gmb_doorbell_cancel(s.bell, ids[2]));

  CHECK(gmb_worker_start(s.worker));
  /* Answers wait for whoever collects them, and hold their room until then. */
  MUST(is_pong(answer_to(s, ids[AT_ONCE - 1]), AT_ONCE - 1), "the last answer is another one");
  CHECK(gmb_doorbell_submit(s.bell, &more, 0, &none));
  MUST(gmb_doorbell_submit(s.bell, &more, 0, &none) == GMB_ERROR_FULL, "one answer was collected, and there is room for two");
  for (uint64_t n = 0; n < AT_ONCE - 1; ++n) {
    const gmb_answer answer = answer_to(s, ids[n]);
    if (n == 2) MUST(answer.status == GMB_ERROR_CANCELLED, "it was cancelled: %s", gmb_status_name(answer.status));
    else MUST(is_pong(answer, n), "answer %" PRIu64 " is another one", n);
  }
  MUST(is_pong(answer_to(s, none), AT_ONCE), "the answer to the command that was too many at first is another one");
  gmb_answer twice;
  MUST(gmb_doorbell_wait(s.bell, ids[0], 0, &twice) == GMB_ERROR_INVALID_ARGUMENT, "an answer is collected once");
}

static void time_pings(setting s) {
  static uint64_t took_ns[PINGS];
  for (uint64_t n = 0; n < PINGS; ++n) {
    const uint64_t began = now_ns();
    const gmb_answer answer = call(s, ping(n));
    took_ns[n] = now_ns() - began;
    MUST(is_pong(answer, n), "the answer to ping %" PRIu64 " is another one", n);
  }
  qsort(took_ns, PINGS, sizeof took_ns[0], by_size);
  printf("%d pings: round trip p50 %.2f us, p99 %.2f us\n", PINGS, (double)took_ns[PINGS / 2] / 1e3,
         (double)took_ns[PINGS * 99 / 100] / 1e3);
}

/* How far it is, asked while it works. */
static void ask_for_counts(setting s) {
  static uint32_t items[ITEMS];
  for (uint32_t i = 0; i < ITEMS; ++i) items[i] = i;
  uint64_t moved;
  CHECK(gmb_queue_push_from_host_blocking(s.active, items, ITEMS, &moved));
  MUST(moved == ITEMS, "only %" PRIu64 " items were pushed", moved);
  const gmb_command counts = {GMB_COMMAND_COUNTS, 0, {0, 0, 0}};
  const uint64_t limit_ns = now_ns() + LIMIT_NS;
  uint64_t processed = 0, finished = 0;
  while (processed < ITEMS || finished < ITEMS) {
    const gmb_answer answer = call(s, counts);
    MUST(answer.status == GMB_OK && answer.value[0] >= processed && answer.value[0] <= ITEMS && answer.value[1] >= finished &&
             answer.value[1] <= ITEMS && answer.value[2] == 0,
         "it says that of %d items it processed %" PRIu64 " and finished %" PRIu64, ITEMS, answer.value[0], answer.value[1]);
    processed = answer.value[0];
    finished = answer.value[1];
    must_end_before(limit_ns, "not all items were processed");
    thrd_yield();
  }
  CHECK(gmb_queue_pop_to_host_blocking(s.finished, items, ITEMS, &moved));
  MUST(moved == ITEMS, "%" PRIu64 " items are finished", moved);

  const gmb_command unknown = {GMB_COMMAND_USER, 0, {0, 0, 0}};
  MUST(call(s, unknown).status == GMB_ERROR_NOT_SUPPORTED, "the library's own functor takes no such command");
}

/* A descriptor says when all answers of a round are there: no thread waits in the library. */
static void watch_for_answers(setting s) {
  gmb_watch watch;
  int descriptor;
  CHECK(gmb_doorbell_create_watch(s.bell, &watch));
  CHECK(gmb_watch_get_fd(watch, &descriptor));
  for (uint64_t round = 0; round < ROUNDS; ++round) {
    gmb_command_id ids[AT_ONCE / 2];
    CHECK(gmb_watch_arm(watch, AT_ONCE / 2));
    for (uint64_t n = 0; n < AT_ONCE / 2; ++n) ids[n] = submit(s, ping(round << 8 | n));
    /* What nobody will ask for is no answer to be collected. */
    const gmb_command unasked = ping(0);
    CHECK(gmb_doorbell_submit(s.bell, &unasked, LIMIT_NS, NULL));
    struct pollfd waiting = {.fd = descriptor, .events = POLLIN};
    int ready;
    do ready = poll(&waiting, 1, (int)(LIMIT_NS / 1000000));
    while (ready < 0 && errno == EINTR);
    MUST(ready == 1, "no answers, for a minute");
    for (uint64_t n = 0; n < AT_ONCE / 2; ++n) {
      gmb_answer answer;
      CHECK(gmb_doorbell_wait(s.bell, ids[n], 0, &answer));
      MUST(is_pong(answer, round << 8 | n), "in round %" PRIu64 " answer %" PRIu64 " is another one", round, n);
    }
  }
  CHECK(gmb_watch_destroy(watch));
  close(descriptor);
}

static void pause_worker(setting s) {
  CHECK(gmb_worker_pause(s.worker));
  gmb_worker_info info;
  const uint64_t limit_ns = now_ns() + LIMIT_NS;
  do {
    CHECK(gmb_worker_get_info(s.worker, &info, sizeof info));
    must_end_before(limit_ns, "the worker does not pause");
    thrd_yield();
  } while (info.state != GMB_WORKER_STATE_PAUSED);
}

/* A paused worker leaves commands where they are; one that has ended does not. */
static void leave_some_behind(setting s) {
  pause_worker(s);
  const gmb_command_id before = submit(s, ping(1));
  gmb_answer answer;
  MUST(gmb_doorbell_wait(s.bell, before, 1000000, &answer) == GMB_ERROR_TIMEOUT, "a paused worker answers nothing");
  CHECK(gmb_worker_resume(s.worker));
  MUST(is_pong(answer_to(s, before), 1), "the answer from after the pause is another one");

  pause_worker(s);
  const gmb_command_id too_late = submit(s, ping(2));
  CHECK(gmb_worker_stop(s.worker));
  gmb_worker_result did;
  CHECK(gmb_worker_wait(s.worker, LIMIT_NS, &did));
  MUST(did.reason == GMB_WORKER_STOPPED && did.processed == ITEMS, "it was stopped after %d items", ITEMS);
  answer = answer_to(s, too_late);
  MUST(answer.status == GMB_ERROR_NOT_SERVED, "nobody was there: %s", gmb_status_name(answer.status));
}

static int usage(void) {
  fprintf(stderr, "commands [--backend auto|host|cuda]\n");
  return 2;
}

int main(int count, char **argument) {
  gmb_context_options wanted = GMB_CONTEXT_OPTIONS_INIT;
  for (int i = 1; i < count; ++i) {
    if (strcmp(argument[i], "--backend") != 0 || ++i == count) return usage();
    if (strcmp(argument[i], "host") == 0) wanted.backend = GMB_BACKEND_HOST;
    else if (strcmp(argument[i], "cuda") == 0) wanted.backend = GMB_BACKEND_CUDA;
    else if (strcmp(argument[i], "auto") != 0) return usage();
  }
  gmb_context context;
  CHECK(gmb_context_create(&wanted, &context));
  gmb_context_info where;
  CHECK(gmb_context_get_info(context, &where, sizeof where));

  setting s;
  gmb_queue_options items = GMB_QUEUE_OPTIONS_INIT;
  items.item_bytes = sizeof(uint32_t);
  items.capacity = 1024;
  CHECK(gmb_queue_create(context, &items, &s.active));
  CHECK(gmb_queue_create(context, &items, &s.finished));
  gmb_doorbell_options bell = GMB_DOORBELL_OPTIONS_INIT;
  bell.capacity = AT_ONCE;
  CHECK(gmb_doorbell_create(context, &bell, &s.bell));
  gmb_worker_options options = GMB_WORKER_OPTIONS_INIT;
  options.active = s.active;
  options.finished = s.finished;
  options.doorbell = s.bell;
  CHECK(gmb_worker_create(&options, &s.worker));

  fill_and_cancel(s);
  time_pings(s);
  ask_for_counts(s);
  watch_for_answers(s);
  leave_some_behind(s);

  gmb_doorbell_info rung;
  CHECK(gmb_doorbell_get_info(s.bell, &rung, sizeof rung));
  MUST(gmb_doorbell_destroy(s.bell) == GMB_ERROR_BUSY, "a worker serves it");
  CHECK(gmb_worker_destroy(s.worker));
  CHECK(gmb_doorbell_destroy(s.bell));
  CHECK(gmb_queue_destroy(s.active));
  CHECK(gmb_queue_destroy(s.finished));
  CHECK(gmb_context_destroy(context));
  printf("ok: %" PRIu64 " commands, each answered as it should be; backend=%s\n", rung.submitted,
         where.backend == GMB_BACKEND_CUDA ? "cuda" : "host");
  return 0;
}
