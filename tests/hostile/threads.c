/* Destroy against use: in each round sixteen threads use and destroy one object at once. Every call must
 * succeed or say that the handle is gone, exactly one destroy must succeed, and when all is over the
 * context's pools must be as they were. */
#include "hostile.h"

enum { THREADS = 16, CAPACITY = 8, USES = 24 };

/* Of the library's failures only these may be seen besides GMB_ERROR_INVALID_HANDLE. */
struct kind {
  const char *name;
  int rounds;
  void (*make)(void);
  void (*use)(int thread, int turn);
  gmb_status (*end)(void);
  gmb_status allowed[4];
};

static gmb_context context, victim_context;
static gmb_mailbox mailbox;
static gmb_token token;
static gmb_event event, timed;
static gmb_graph graph;
static gmb_watch watch;
static _Atomic uint64_t guard_id;
static gmb_stream streams[4];
static unsigned char *records[THREADS];
static const struct kind *kind;
static pthread_barrier_t begin, end;
static atomic_long calls, gone, destroyed, failures;
static atomic_bool over;
/* On the threads that race. */
static _Thread_local bool is_caller;

static void check(const char *what, gmb_status got) {
  if (got == GMB_OK) return;
  if (++failures <= 20) {
    char text[1024] = "";
    gmb_last_error_message(text, sizeof text, NULL);
    printf("%s: %d: %s\n", what, got, text);
  }
}
#define CHECK(call) check(#call, (call))

/* A call that races with a destroy. */
static void racing(const char *what, gmb_status got) {
  ++calls;
  if (got == GMB_OK || got == GMB_NOT_READY) return;
  if (got == GMB_ERROR_INVALID_HANDLE) {
    ++gone;
    return;
  }
  for (int i = 0; i < 4; ++i) {
    if (kind->allowed[i] != GMB_OK && got == kind->allowed[i]) return;
  }
  check(what, got);
}
#define RACING(call) racing(#call, (call))

static void make_context(void) { CHECK(gmb_context_create(NULL, &victim_context)); }
static gmb_status end_context(void) { return gmb_context_destroy(victim_context); }
static void use_context(int thread, int turn) {
  gmb_context_info info;
  void *memory;
  gmb_token made;
  switch ((thread + turn) % 4) {
    case 0: RACING(gmb_context_get_info(victim_context, &info, sizeof info)); break;
    case 1:
      /* A mailbox or a token keeps its context: what is made in time can be used and ended. */
      if (gmb_token_create(victim_context, &made) == GMB_OK) CHECK(gmb_token_destroy(made));
      break;
    case 2:
      if (gmb_memory_allocate(victim_context, 256, &memory) == GMB_OK) RACING(gmb_memory_free(victim_context, memory));
      break;
    default: RACING(gmb_stream_synchronize(victim_context, NULL));
  }
}

static void make_mailbox(void) {
  gmb_mailbox_options options = options_of(CAPACITY);
  static int round;
  options.full_policy = round % 2 ? GMB_FULL_WAIT : GMB_FULL_REJECT;
  options.flags = round++ / 2 % 2 ? GMB_MAILBOX_SHARED : 0;
  CHECK(gmb_mailbox_create(context, &options, &mailbox));
}
static gmb_status end_mailbox(void) { return gmb_mailbox_destroy(mailbox); }
static void use_mailbox(int thread, int turn) {
  gmb_mailbox_info info;
  gmb_push push = push_of(records[thread], 2);
  const gmb_pop pop = pop_of(records[thread], 2);
  uint32_t lengths[2] = {4, 8}, reader;
  unsigned char rows[2 * PAYLOAD] = {0};
  gmb_result result;
  const gmb_token none = {0};
  /* The other half waits for room without limit: the destroy must wake them. */
  if (thread % 2) push.timeout_ns = 100000;
  switch ((thread + turn) % 6) {
    case 0: RACING(gmb_mailbox_pop(mailbox, &pop, streams[turn % 4], none)); break;
    case 1: RACING(gmb_mailbox_get_info(mailbox, &info, sizeof info)); break;
    case 2:
      RACING(gmb_mailbox_push_from_host_blocking(mailbox, 2, rows, PAYLOAD, lengths, NULL, 100000, &result));
      break;
    case 3:
      if (gmb_mailbox_add_reader(mailbox, GMB_READER_OLDEST, streams[turn % 4], &reader) == GMB_OK) {
        RACING(gmb_mailbox_remove_reader(mailbox, reader, streams[thread % 4]));
      }
      break;
    default: RACING(gmb_mailbox_push(mailbox, &push, streams[turn % 4], none));
  }
}

static void make_token(void) {
  make_mailbox();
  CHECK(gmb_token_create(context, &token));
}
static gmb_status end_token(void) { return gmb_token_destroy(token); }
static void use_token(int thread, int turn) {
  gmb_result result;
  const gmb_result *address;
  const gmb_pop pop = pop_of(records[thread], 2);
  switch ((thread + turn) % 4) {
    case 0: RACING(gmb_mailbox_pop(mailbox, &pop, streams[turn % 4], token)); break;
    case 1: RACING(gmb_token_poll(token, &result)); break;
    case 2: RACING(gmb_token_wait(token, GMB_EPOCH_LAST, GMB_WAIT_FOREVER, &result)); break;
    default: RACING(gmb_token_get_device_result(token, &address));
  }
}

static void make_event(void) {
  CHECK(gmb_event_create(context, GMB_EVENT_TIMED, &event));
  CHECK(gmb_event_record(event, streams[0]));
}
#ifdef GMB_BROKEN /* what leaks each event */
static gmb_status end_event(void) { return GMB_ERROR_INVALID_HANDLE; }
#else
static gmb_status end_event(void) { return gmb_event_destroy(event); }
#endif
static void use_event(int thread, int turn) {
  double milliseconds;
  switch ((thread + turn) % 5) {
    case 0: RACING(gmb_event_record(event, streams[turn % 4])); break;
    case 1: RACING(gmb_event_query(event)); break;
    case 2: RACING(gmb_stream_wait_event(context, streams[thread % 4], event)); break;
    case 3: RACING(gmb_event_elapsed_ms(timed, event, &milliseconds)); break;
    default: RACING(gmb_event_synchronize(event, GMB_WAIT_FOREVER));
  }
}

/* The graph pushes: its mailbox goes when both are gone. */
static void make_graph(void) {
  const gmb_push push = push_of(records[0], 1);
  const gmb_mailbox_options options = options_of(CAPACITY);
  CHECK(gmb_mailbox_create(context, &options, &mailbox));
  CHECK(gmb_stream_begin_capture(context, streams[0], GMB_CAPTURE_RELAXED));
  CHECK(gmb_mailbox_push(mailbox, &push, streams[0], (gmb_token){0}));
  CHECK(gmb_stream_end_capture(context, streams[0], &graph));
}
static gmb_status end_graph(void) { return gmb_graph_destroy(graph); }
static void use_graph(int thread, int turn) { RACING(gmb_graph_launch(graph, streams[(thread + turn) % 4])); }

static void make_watch(void) {
  make_mailbox();
  CHECK(gmb_watch_create(mailbox, GMB_INTEREST_WRITABLE, 0, &watch));
}
static gmb_status end_watch(void) { return gmb_watch_destroy(watch); }
static void use_watch(int thread, int turn) {
  int32_t descriptor;
  if ((thread + turn) % 4 != 0) RACING(gmb_watch_arm(watch, 1 + (uint32_t)turn % CAPACITY));
  else if (gmb_watch_get_fd(watch, &descriptor) == GMB_OK) close(descriptor);
}

/* A guard ends on its own thread only: the first of the sixteen makes it, and ends it last. */
static void use_guard(int thread, int turn) {
  if (thread == 0) {
    gmb_stream_guard own;
    CHECK(gmb_stream_guard_create(context, streams[turn % 4], &own));
    CHECK(gmb_stream_synchronize(context, GMB_STREAM_CURRENT));
    CHECK(gmb_stream_guard_destroy(own));
    guard_id = own.id;
  } else {
    const gmb_stream_guard seen = {guard_id};
    const gmb_status got = gmb_stream_guard_destroy(seen);
    RACING(got == GMB_OK ? GMB_ERROR_PANIC : got);
  }
}

#include "threads_tensors.h"
#include "threads_queues.h"
#include "threads_doorbells.h"
#include "threads_arbiters.h"
#include "threads_pipeline.h"

static const struct kind kinds[] = {
    {"context", 60, make_context, use_context, end_context, {0}},
    {"mailbox", 250, make_mailbox, use_mailbox, end_mailbox, {GMB_ERROR_TIMEOUT, GMB_ERROR_OVERFLOW, 0, 0}},
    {"token", 400, make_token, use_token, end_token, {GMB_ERROR_BUSY, GMB_ERROR_INVALID_ARGUMENT, 0, 0}},
    {"event", 1000, make_event, use_event, end_event, {0}},
    {"graph", 200, make_graph, use_graph, end_graph, {0}},
    {"watch", 200, make_watch, use_watch, end_watch, {0}},
    {"tensor mailbox", 400, make_tensors, use_tensors, end_tensors,
     {GMB_ERROR_FULL, GMB_ERROR_TIMEOUT, GMB_ERROR_NOT_SUPPORTED, 0}},
    {"lease", 400, make_lease, use_lease, end_lease, {0}},
    {"queue", 200, make_queue, use_queue, end_queue,
     {GMB_ERROR_BUSY, GMB_ERROR_INVALID_ARGUMENT, GMB_ERROR_CORRUPT, 0}},
    {"worker", 200, make_worker, use_worker, end_worker,
     {GMB_ERROR_BUSY, GMB_ERROR_INVALID_ARGUMENT, GMB_ERROR_TIMEOUT, 0}},
    {"doorbell", 200, make_bell, use_unserved_bell, end_bell,
     {GMB_ERROR_FULL, GMB_ERROR_INVALID_ARGUMENT, GMB_ERROR_TIMEOUT, 0}},
    {"worker that serves", 100, make_server, use_server, end_server,
     {GMB_ERROR_FULL, GMB_ERROR_INVALID_ARGUMENT, GMB_ERROR_TIMEOUT, GMB_ERROR_BUSY}},
    {"fifo", 200, make_fifo, use_fifo, end_fifo, {0}},
    {"arbiter", 100, make_arbiter, use_arbiter, end_arbiter, {0}},
    {"mailbox that arbiters look at", 100, make_watched_mailbox, use_watched_mailbox, end_mailbox,
     {GMB_ERROR_TIMEOUT, GMB_ERROR_OVERFLOW, 0, 0}},
    {"triple buffer", 300, make_triple, use_triple, end_triple, {GMB_ERROR_WRONG_STATE, GMB_ERROR_TIMEOUT, 0, 0}},
    {"module", 200, make_module, use_module, end_module, {0}},
    {"kernel", 200, make_lasting_and_kernel, use_kernel, end_kernel, {GMB_ERROR_FULL, 0, 0, 0}},
    {"coordinator", 200, make_coordinator_and_mailbox, use_coordinator, end_coordinator,
     {GMB_ERROR_FULL, GMB_ERROR_TIMEOUT, GMB_ERROR_CORRUPT, 0}},
    {"triple buffer of a coordinator", 200, make_lasting_and_triple, use_triple_of_a_coordinator, end_triple,
     {GMB_ERROR_FULL, GMB_ERROR_UNAVAILABLE, 0, 0}},
    {"coordinator of a triple buffer", 200, make_both, use_coordinator_of_a_triple, end_coordinator_of_a_triple,
     {GMB_ERROR_FULL, GMB_ERROR_UNAVAILABLE, 0, 0}},
    {"stream guard", 1000, NULL, use_guard, NULL, {GMB_ERROR_WRONG_THREAD, 0, 0, 0}},
};

static void *work(void *argument) {
  const int thread = (int)(intptr_t)argument;
  is_caller = true;
  for (unsigned round = 0;; ++round) {
    pthread_barrier_wait(&begin);
    if (over) return NULL;
    /* The turn at which a thread destroys differs from round to round. */
    const int last = (int)((round * 7 + (unsigned)thread * 5) % (8 * USES));
    for (int turn = 0; turn < USES; ++turn) {
      if (turn == last && kind->end) {
        const gmb_status got = kind->end();
        racing("destroy", got);
        destroyed += got == GMB_OK;
      }
      kind->use(thread, turn);
    }
    /* This one never waits without limit: it wakes those that do, if nobody else has. */
    if (thread == 1 && kind->end) {
      const gmb_status got = kind->end();
      racing("destroy", got);
      destroyed += got == GMB_OK;
    }
    pthread_barrier_wait(&end);
  }
}

struct counts {
  uint64_t used, allocations, events, timed_events;
};

static struct counts count(void) {
  gmb_memory_info memory = {0};
  gmb_event_pool_info events = {0}, timed_events = {0};
  for (int i = 0; i < 4; ++i) CHECK(gmb_stream_synchronize(context, streams[i]));
  CHECK(gmb_memory_get_info(context, &memory, sizeof memory));
  CHECK(gmb_event_pool_get_info(context, GMB_EVENT_UNTIMED, &events, sizeof events));
  CHECK(gmb_event_pool_get_info(context, GMB_EVENT_TIMED, &timed_events, sizeof timed_events));
  return (struct counts){memory.used, memory.allocations, events.in_use, timed_events.in_use};
}

int main(void) {
  pthread_t threads[THREADS];
  void *memory;
  alarm(60);
  setvbuf(stdout, NULL, _IOLBF, 0);
  CHECK(gmb_context_create(NULL, &context));
  for (int i = 0; i < 4; ++i) CHECK(gmb_stream_create(context, GMB_PRIORITY_NORMAL, &streams[i]));
  CHECK(gmb_event_create(context, GMB_EVENT_TIMED, &timed));
  CHECK(gmb_event_record(timed, streams[1]));
  for (int i = 0; i < THREADS; ++i) {
    CHECK(gmb_memory_allocate(context, 2 * PAYLOAD, &memory));
    records[i] = memory;
  }
  if (failures) return 1;
  pthread_barrier_init(&begin, NULL, THREADS + 1);
  pthread_barrier_init(&end, NULL, THREADS + 1);
  for (int i = 0; i < THREADS; ++i) pthread_create(&threads[i], NULL, work, (void *)(intptr_t)i);

  int rounds = 0;
  const struct counts before = count();
  for (size_t k = 0; k < sizeof kinds / sizeof *kinds; ++k) {
    kind = &kinds[k];
    for (int round = 0; round < kind->rounds; ++round, ++rounds) {
      destroyed = 0;
      if (kind->make) kind->make();
      pthread_barrier_wait(&begin);
      pthread_barrier_wait(&end);
      if (kind->end && destroyed != 1) {
        ++failures;
        if (failures <= 20) printf("%s, round %d: %ld destroys succeeded\n", kind->name, round, (long)destroyed);
      }
      const bool with_mailbox = kind->make == make_token || kind->make == make_graph || kind->make == make_watch;
      if (with_mailbox) CHECK(gmb_mailbox_destroy(mailbox));
    }
  }
  over = true;
  pthread_barrier_wait(&begin);
  for (int i = 0; i < THREADS; ++i) pthread_join(threads[i], NULL);
  check_tensors();
  check_queues();
  check_doorbells();
  check_arbiters();
  check_pipeline();
  /* What graphs and tensors held is given back by threads of the library. */
  struct counts after;
  give_time((after = count(), memcmp(&before, &after, sizeof after) == 0));
  if (memcmp(&before, &after, sizeof after) != 0) {
    ++failures;
    printf("pools before and after: %llu and %llu bytes, %llu and %llu allocations, %llu and %llu events, %llu and %llu timed\n",
           (unsigned long long)before.used, (unsigned long long)after.used, (unsigned long long)before.allocations,
           (unsigned long long)after.allocations, (unsigned long long)before.events, (unsigned long long)after.events,
           (unsigned long long)before.timed_events, (unsigned long long)after.timed_events);
  }
  /* Races that nobody lost were none. */
  if (gone == 0) {
    ++failures;
    printf("no call ever found its handle gone\n");
  }
  for (int i = 0; i < THREADS; ++i) CHECK(gmb_memory_free(context, records[i]));
  for (int i = 0; i < 4; ++i) CHECK(gmb_stream_destroy(context, streams[i]));
  CHECK(gmb_event_destroy(timed));
  CHECK(gmb_context_destroy(context));
  printf("hostile threads: %d rounds of %d threads, %ld calls, %ld found the handle gone, %ld failures\n", rounds, THREADS,
         (long)calls, (long)gone, (long)failures);
  return failures > 0;
}
