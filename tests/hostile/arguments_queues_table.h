/* Work queues and workers for arguments.c: what the calls need, and the rows. Few workers run: one that idles for a moment,
 * and one that is paused for as long as it can be. */

enum { ITEM = 4, ITEMS = 16 };

static gmb_queue stale_queue, wide_queue, foreign_queue, empty_queue, active, finished, spawn, used;
static gmb_worker idle, ended_worker, paused, stale_worker;
static gmb_queue_info queue_shape;
static uint32_t most_blocks;
static gmb_worker_options worker_options = GMB_WORKER_OPTIONS_INIT;

static gmb_queue make_a_queue(gmb_context of, uint32_t item_bytes) {
  gmb_queue_options options = GMB_QUEUE_OPTIONS_INIT;
  gmb_queue made;
  options.item_bytes = item_bytes;
  options.capacity = ITEMS;
  CHECK(gmb_queue_create(of, &options, &made));
  return made;
}

/* A worker of a queue that the calls leave alone, which soon finds nothing to do. */
static gmb_worker make_a_worker(void) {
  gmb_worker_options options = GMB_WORKER_OPTIONS_INIT;
  gmb_worker made;
  options.active = used;
  options.idle_threshold = 1;
  CHECK(gmb_worker_create(&options, &made));
  return made;
}

static void pause_again(void) {
  gmb_worker_info info = {0};
  CHECK(gmb_worker_pause(paused));
  for (;;) {
    CHECK(gmb_worker_get_info(paused, &info, sizeof info));
    if (info.state == GMB_WORKER_STATE_PAUSED || failures > 0) return;
    usleep(20);
  }
}

static void make_queues(void) {
  gmb_worker_options options = GMB_WORKER_OPTIONS_INIT;
  gmb_worker_result result;
  gmb_worker_info info = {0};
  queue = make_a_queue(context, ITEM);
  empty_queue = make_a_queue(context, ITEM);
  active = make_a_queue(context, ITEM);
  finished = make_a_queue(context, ITEM);
  spawn = make_a_queue(context, ITEM);
  used = make_a_queue(context, ITEM);
  wide_queue = make_a_queue(context, 2 * ITEM);
  foreign_queue = make_a_queue(foreign_context, ITEM);
  stale_queue = make_a_queue(context, ITEM);
  CHECK(gmb_queue_destroy(stale_queue));
  CHECK(gmb_queue_get_info(queue, &queue_shape, sizeof queue_shape));
  ready = make_a_worker();
  idle = make_a_worker();
  stale_worker = make_a_worker();
  CHECK(gmb_worker_destroy(stale_worker));
  ended_worker = make_a_worker();
  CHECK(gmb_worker_start(ended_worker));
  CHECK(gmb_worker_wait(ended_worker, GMB_WAIT_FOREVER, &result));
  CHECK(gmb_worker_get_info(ready, &info, sizeof info));
  most_blocks = info.most_blocks;
  options.active = used;
  CHECK(gmb_worker_create(&options, &paused));
  CHECK(gmb_worker_start(paused));
  pause_again();
  worker_options.active = active;
  worker_options.finished = finished;
  worker_options.spawn = spawn;
  worker_options.spawn_interval = 2;
}

/* ---- The calls ---- */

#define QUEUE(i) ((gmb_queue){a[i]})
#define WORKER(i) ((gmb_worker){a[i]})

CALL(queue_create) { return gmb_queue_create(CONTEXT(0), P(1), P(2)); }
CALL(queue_destroy) { return gmb_queue_destroy(QUEUE(0)); }
CALL(queue_get_info) { return gmb_queue_get_info(QUEUE(0), P(1), a[2]); }
CALL(queue_push) { return gmb_queue_push(QUEUE(0), P(1), U32(2), P(3), TOKEN(4)); }
CALL(queue_pop) { return gmb_queue_pop(QUEUE(0), P(1), U32(2), P(3), TOKEN(4)); }
CALL(queue_push_from_host) { return gmb_queue_push_from_host_blocking(QUEUE(0), P(1), U32(2), P(3)); }
CALL(queue_pop_to_host) { return gmb_queue_pop_to_host_blocking(QUEUE(0), P(1), U32(2), P(3)); }
CALL(queue_measure) { return gmb_queue_measure(QUEUE(0), U32(1), U32(2), P(3)); }
CALL(worker_create) { return gmb_worker_create(P(0), P(1)); }
CALL(worker_destroy) { return gmb_worker_destroy(WORKER(0)); }
CALL(worker_start) { return gmb_worker_start(WORKER(0)); }
CALL(worker_stop) { return gmb_worker_stop(WORKER(0)); }
CALL(worker_pause) { return gmb_worker_pause(WORKER(0)); }
CALL(worker_resume) { return gmb_worker_resume(WORKER(0)); }
CALL(worker_wait) { return gmb_worker_wait(WORKER(0), a[1], P(2)); }
CALL(worker_get_info) { return gmb_worker_get_info(WORKER(0), P(1), a[2]); }

static gmb_queue fresh_queue;
static gmb_worker fresh_worker;
UNDO(queue_create) { if (status == GMB_OK) CHECK(gmb_queue_destroy(*(gmb_queue *)P(2))); }
MAKE(queue) { fresh_queue = make_a_queue(context, ITEM), a[0] = fresh_queue.id; }
UNDO(queue) { (void)a, (void)status, gmb_queue_destroy(fresh_queue); }
UNDO(worker_create) { if (status == GMB_OK) CHECK(gmb_worker_destroy(*(gmb_worker *)P(1))); }
MAKE(worker) { fresh_worker = make_a_worker(), a[0] = fresh_worker.id; }
UNDO(worker) { (void)a, (void)status, gmb_worker_destroy(fresh_worker); }
UNDO(worker_start) {
  gmb_worker_result result;
  if (status == GMB_OK) CHECK(gmb_worker_wait(WORKER(0), GMB_WAIT_FOREVER, &result));
}
UNDO(worker_resume) { (void)a, (void)(status == GMB_OK ? pause_again() : (void)0); }

/* ---- The rows ---- */

static void queue_arg(void) { handle("queue", queue.id, stale_queue.id, E(INVALID_HANDLE)); }
static void worker_arg(gmb_worker good) { handle("worker", good.id, stale_worker.id, E(INVALID_HANDLE)); }

/* Items in device memory, a stream and a token. */
static void queue_operation(void) {
  queue_arg();
  WORD("items", at(memory, 0), {0, E(NULL_POINTER), 0}, {at(memory, 1), E(MISALIGNED), 0}, {at(memory, 2), E(MISALIGNED), 0},
       {UINT64_MAX, E(MISALIGNED), 0}, {UINT64_MAX - 3, E(OVERFLOW), 0}, {HIGH_BIT, E(OVERFLOW), 0}, {GARBAGE, BAD, 0},
       {at(memory, BYTES - ITEM), BAD, 0}, {bits_of(host_lengths), BAD, ALONE}, {at(queue_shape.queue, 0), E(OVERLAP), 0},
       {at(queue_shape.queue, 128), E(OVERLAP), 0}, {at(queue_shape.queue, queue_shape.queue_bytes - ITEM), E(OVERLAP), 0});
  WORD("count", ROWS, {0, E(ZERO_COUNT), 0}, {1, GMB_OK, 0}, {ITEMS + 1, GMB_OK, 0}, {BYTES / ITEM, GMB_OK, 0},
       {BYTES / ITEM + 1, BAD, 0}, {RECORDS_TOO_MANY, E(OVERFLOW), 0}, {HIGH_BIT >> 32, E(OVERFLOW), 0},
       {UINT32_MAX, E(OVERFLOW), 0});
  stream_arg(GMB_OK);
  token_arg(GMB_OK, GMB_OK, BAD);
  /* One item fits anywhere, and what does not fit may go beyond all. */
  ALSO(GMB_OK, BAD, E(OVERFLOW), E(OVERLAP));
}

/* Host memory must be as large as the counts say: only what no memory can be is hostile. */
static void host_operation(void) {
  queue_arg();
  WORD("items", bits_of(host_rows), {0, E(NULL_POINTER), 0}, {bits_of(host_rows) + 1, GMB_OK, 0},
       {UINT64_MAX - 3, E(OVERFLOW), 0}, {UINT64_MAX, E(OVERFLOW), 0}, {HIGH_BIT, E(OVERFLOW), 0},
       {HIGH_BIT - 1, E(OVERFLOW), 0});
  WORD("count", ROWS, COUNT_VALUES, {ITEMS + 1, GMB_OK, 0});
  output("moved", 8);
}

static void describe_queues(void) {
  static gmb_queue_options options = GMB_QUEUE_OPTIONS_INIT;
  options.item_bytes = ITEM;
  options.capacity = ITEMS;
  FUNCTION(queue_create, queue_create, GMB_OK, NULL, undo_queue_create);
  context_arg();
  input("options", &options, sizeof options, 8, E(NULL_POINTER));
  FIELD(gmb_queue_options, item_bytes, {0, BAD, 0}, {1, BAD, 0}, {2, BAD, 0}, {3, BAD, 0}, {5, BAD, 0}, {8, GMB_OK, 0},
        {12, BAD, 0}, {16, GMB_OK, 0}, {32, BAD, 0}, {HIGH_BIT >> 32, BAD, 0}, {UINT32_MAX, BAD, 0});
  FIELD(gmb_queue_options, capacity, {0, BAD, 0}, {1, GMB_OK, 0}, {3, BAD, 0}, {ITEMS + 1, BAD, 0},
        {GMB_MAX_RECORDS, E(MEMORY_LIMIT), 0}, {GMB_MAX_RECORDS - 1, BAD, 0}, {RECORDS_TOO_MANY, E(OVERFLOW), 0},
        {(uint64_t)1 << 40, E(OVERFLOW), 0}, {HIGH_BIT, E(OVERFLOW), 0}, {UINT64_MAX, E(OVERFLOW), 0});
  FIELD(gmb_queue_options, block_threads, {1, BAD, 0}, {32, GMB_OK, 0}, {33, BAD, 0}, {1024, GMB_OK, 0}, {1056, BAD, 0},
        {2048, BAD, 0}, {HIGH_BIT >> 32, BAD, 0}, {UINT32_MAX, BAD, 0});
  FIELD(gmb_queue_options, max_blocks, {1, GMB_OK, 0}, {UINT32_MAX, GMB_OK, 0});
  FIELD(gmb_queue_options, reserved, {1, BAD, 0}, {HIGH_BIT, BAD, 0}, {UINT64_MAX, BAD, 0});
  output("queue", 8);
  FUNCTION(queue_destroy, queue_destroy, GMB_OK, make_queue, undo_queue);
  queue_arg();
  /* A worker uses it. */
  add(&f->slot[0], VALUES({used.id, E(BUSY), 0}));
  FUNCTION(queue_get_info, queue_get_info, GMB_OK, NULL, NULL);
  queue_arg();
  add(&f->slot[0], VALUES({used.id, GMB_OK, 0}));
  info_args(sizeof(gmb_queue_info));
  FUNCTION(queue_push, queue_push, GMB_OK, NULL, undo_submission);
  queue_operation();
  FUNCTION(queue_pop, queue_pop, GMB_OK, NULL, undo_submission);
  queue_operation();
  FUNCTION(queue_push_from_host_blocking, queue_push_from_host, GMB_OK, NULL, NULL);
  host_operation();
  FUNCTION(queue_pop_to_host_blocking, queue_pop_to_host, GMB_OK, NULL, NULL);
  host_operation();

  uint64_t pushed = 0;
  CHECK(gmb_queue_push_from_host_blocking(wide_queue, host_rows, 1, &pushed));
  FUNCTION(queue_measure, queue_measure, GMB_OK, NULL, NULL);
  handle("queue", empty_queue.id, stale_queue.id, E(INVALID_HANDLE));
  add(&f->slot[0], VALUES({used.id, E(BUSY), 0}, {wide_queue.id, BAD, 0}));
  WORD("batch", ROWS, {0, E(ZERO_COUNT), 0}, {1, GMB_OK, 0}, {ITEMS, GMB_OK, 0}, {ITEMS + 1, BAD, 0}, {GMB_MAX_RECORDS, BAD, 0},
       {RECORDS_TOO_MANY, E(OVERFLOW), 0}, {UINT32_MAX, E(OVERFLOW), 0});
  WORD("iterations", 2, {0, E(ZERO_COUNT), 0}, {1, GMB_OK, 0}, {RECORDS_TOO_MANY, E(OVERFLOW), 0}, {UINT32_MAX, E(OVERFLOW), 0});
  output("measurement", 8);
}

static void describe_workers(void) {
  const gmb_status gone = E(INVALID_HANDLE);
#define OPTION(field, ...) FIELD(gmb_worker_options, field, __VA_ARGS__)
#define NO_QUEUES {stale_queue.id, gone, 0}, {1, gone, 0}, {UINT64_MAX, gone, 0}, {queue.id ^ HIGH_BIT, gone, 0}, \
    {GARBAGE, gone, 0}, {context.id, gone, ALONE}, {mailbox.id, gone, ALONE}, {token.id, gone, ALONE}, {ready.id, gone, 0}
#define UNFIT_QUEUES {wide_queue.id, BAD, 0}, {foreign_queue.id, BAD, 0}
#define ODD_COUNTS {1, GMB_OK, 0}, {HIGH_BIT, GMB_OK, 0}, {UINT64_MAX - 1, GMB_OK, 0}, {UINT64_MAX, GMB_OK, 0}
  FUNCTION(worker_create, worker_create, GMB_OK, NULL, undo_worker_create);
  input("options", &worker_options, sizeof worker_options, 8, E(NULL_POINTER));
  OPTION(block_threads, {1, BAD, 0}, {32, GMB_OK, 0}, {33, BAD, 0}, {1024, GMB_OK, 0}, {1056, BAD, 0}, {2048, BAD, 0},
         {HIGH_BIT >> 32, BAD, 0}, {UINT32_MAX, BAD, 0});
  OPTION(active, {0, gone, 0}, NO_QUEUES, UNFIT_QUEUES, {finished.id, BAD, 0}, {spawn.id, BAD, 0}, {queue.id, GMB_OK, 0});
  OPTION(finished, {0, GMB_OK, 0}, NO_QUEUES, UNFIT_QUEUES, {active.id, BAD, 0}, {spawn.id, BAD, 0}, {queue.id, GMB_OK, 0});
  /* Without it there is nowhere for each second item to go. */
  OPTION(spawn, {0, BAD, 0}, NO_QUEUES, UNFIT_QUEUES, {active.id, BAD, 0}, {finished.id, BAD, 0}, {queue.id, GMB_OK, 0});
  OPTION(max_iterations, ODD_COUNTS);
  OPTION(idle_threshold, ODD_COUNTS);
  OPTION(spawn_interval, {0, GMB_OK, 0}, ODD_COUNTS);
  OPTION(increment, {0, GMB_OK, 0}, ODD_COUNTS);
  OPTION(grid_blocks, {1, GMB_OK, 0}, {most_blocks, GMB_OK, 0}, {most_blocks + 1, BAD, 0}, {HIGH_BIT >> 32, BAD, 0},
         {UINT32_MAX, BAD, 0});
  OPTION(reserved, {1, BAD, 0}, {UINT32_MAX, BAD, 0});
  OPTION(slice_ns, ODD_COUNTS);
  OPTION(watchdog_ns, ODD_COUNTS);
  /* Never started. On a GPU the driver takes the address for a function's. */
  if (on_the_host()) OPTION(function, {GARBAGE, GMB_OK, 0}, {UINT64_MAX, GMB_OK, 0});
  OPTION(user, {GARBAGE, GMB_OK, 0}, {UINT64_MAX, GMB_OK, 0});
  output("worker", 8);
  /* Queues that fit together again; blocks of other threads, of which another number fits. */
  ALSO(GMB_OK, BAD);

  FUNCTION(worker_destroy, worker_destroy, GMB_OK, make_worker, undo_worker);
  worker_arg(ready);
  FUNCTION(worker_start, worker_start, GMB_OK, NULL, undo_worker_start);
  worker_arg(idle);
  add(&f->slot[0], VALUES({paused.id, E(BUSY), 0}, {ended_worker.id, GMB_OK, 0}));
  FUNCTION(worker_stop, worker_stop, GMB_OK, NULL, NULL);
  worker_arg(ready);
  add(&f->slot[0], VALUES({ended_worker.id, GMB_OK, 0}));
  FUNCTION(worker_pause, worker_pause, GMB_OK, NULL, NULL);
  worker_arg(paused);
  add(&f->slot[0], VALUES({ready.id, BAD, 0}, {ended_worker.id, BAD, 0}));
  FUNCTION(worker_resume, worker_resume, GMB_OK, NULL, undo_worker_resume);
  worker_arg(paused);
  add(&f->slot[0], VALUES({ready.id, BAD, 0}, {ended_worker.id, BAD, 0}));
  FUNCTION(worker_wait, worker_wait, GMB_OK, NULL, NULL);
  worker_arg(ended_worker);
  add(&f->slot[0], VALUES({ready.id, BAD, 0}, {paused.id, E(TIMEOUT), ALONE}));
  WORD("timeout_ns", 0, {1, GMB_OK, 0}, {1000, GMB_OK, 0}, {HIGH_BIT, GMB_OK, 0}, {UINT64_MAX - 1, GMB_OK, 0},
       {GMB_WAIT_FOREVER, GMB_OK, 0});
  output("result", 8);
  FUNCTION(worker_get_info, worker_get_info, GMB_OK, NULL, NULL);
  worker_arg(ready);
  add(&f->slot[0], VALUES({paused.id, GMB_OK, 0}));
  info_args(sizeof(gmb_worker_info));
}

/* ---- What is certain ---- */

static uint64_t items_in(gmb_queue of) {
  gmb_queue_info info = {0};
  CHECK(gmb_queue_get_info(of, &info, sizeof info));
  return info.size;
}

/* Items go where the options say, also where the options are extreme; what finds no room stays. */
static void items_of_extremes(void) {
  static const uint32_t sent[ITEMS] = {UINT32_MAX, 0, 1, INT32_MAX};
  const struct { uint64_t interval, increment, slice; } all[] = {
      {1, 0, 1}, {2, 1, GMB_WAIT_FOREVER}, {UINT64_MAX, UINT64_MAX, 1}, {0, HIGH_BIT, UINT64_MAX - 1}, {7, (uint64_t)1 << 32, 0},
  };
  for (size_t i = 0; i < sizeof all / sizeof *all; ++i) {
    gmb_worker_options options = worker_options;
    gmb_worker_result result = {0};
    gmb_worker made;
    uint64_t moved = 0, at_end[2] = {0, 0};
    uint32_t got[2][ITEMS] = {{0}};
    gmb_queue_info before = {0};
    options.spawn_interval = all[i].interval;
    options.increment = all[i].increment;
    options.slice_ns = all[i].slice;
    options.idle_threshold = 8;
    CHECK(gmb_queue_get_info(active, &before, sizeof before));
    CHECK(gmb_queue_push_from_host_blocking(active, sent, ITEMS, &moved));
    CHECK(gmb_worker_create(&options, &made));
    says("its queue", gmb_queue_destroy(active), E(BUSY));
    CHECK(gmb_worker_start(made));
    CHECK(gmb_worker_wait(made, GMB_WAIT_FOREVER, &result));
    CHECK(gmb_worker_destroy(made));
    if (result.reason != GMB_WORKER_IDLE || result.processed != ITEMS) says("another result", BAD, GMB_OK);
    CHECK(gmb_queue_pop_to_host_blocking(finished, got[0], ITEMS, &at_end[0]));
    CHECK(gmb_queue_pop_to_host_blocking(spawn, got[1], ITEMS, &at_end[1]));
    if (at_end[0] + at_end[1] != ITEMS || items_in(active) != 0) says("lost or doubled items", BAD, GMB_OK);
    for (uint64_t n = 0, seen[2] = {0, 0}; n < ITEMS; ++n) {
      const int to = all[i].interval != 0 && (before.popped + n + 1) % all[i].interval == 0;
      if (got[to][seen[to]++] != (uint32_t)(sent[n] + all[i].increment)) says("another item", BAD, GMB_OK);
    }
  }
}

/* Two workers that may not run at once: the device's budget is that of one. */
static void budget_of_one(void) {
  gmb_worker_options options = worker_options;
  gmb_worker_result result;
  gmb_worker one, two;
  /* On a GPU so many blocks may take a moment to come. */
  options.grid_blocks = most_blocks;
  options.idle_threshold = 1;
  CHECK(gmb_worker_create(&options, &one));
  CHECK(gmb_worker_create(&options, &two));
  /* The paused one holds a part. */
  says("with a paused one", gmb_worker_start(one), E(BUSY));
  CHECK(gmb_worker_stop(paused));
  CHECK(gmb_worker_wait(paused, GMB_WAIT_FOREVER, &result));
  if (result.reason != GMB_WORKER_STOPPED) says("stopped while paused", BAD, GMB_OK);
  says("with one that has ended", gmb_worker_start(one), GMB_OK);
  CHECK(gmb_worker_wait(one, GMB_WAIT_FOREVER, &result));
  says("one after the other", gmb_worker_start(two), GMB_OK);
  CHECK(gmb_worker_wait(two, GMB_WAIT_FOREVER, &result));
  CHECK(gmb_worker_destroy(one));
  CHECK(gmb_worker_destroy(two));
  CHECK(gmb_worker_start(paused));
  pause_again();
}

/* A graph holds the queue that it uses: it can be launched after the handle is gone. */
static void graph_outlives_queue(void) {
  const gmb_queue captured_queue = make_a_queue(context, ITEM);
  gmb_token reports;
  gmb_result result = {0};
  gmb_graph both;
  CHECK(gmb_token_create(context, &reports));
  CHECK(gmb_stream_begin_capture(context, stream, GMB_CAPTURE_RELAXED));
  CHECK(gmb_queue_push(captured_queue, memory, ROWS, stream, (gmb_token){0}));
  CHECK(gmb_queue_pop(captured_queue, (char *)memory + BYTES / 2, ITEMS, stream, reports));
  CHECK(gmb_stream_end_capture(context, stream, &both));
  for (int i = 0; i < 3; ++i) {
    if (i == 1) says("a queue that a graph uses", gmb_queue_destroy(captured_queue), GMB_OK);
    says("its graph", gmb_graph_launch(both, stream), GMB_OK);
    settle();
    CHECK(gmb_token_poll(reports, &result));
    if (result.status != GMB_OK || result.count != ROWS) says("items of a launch", BAD, GMB_OK);
  }
  CHECK(gmb_graph_destroy(both));
  CHECK(gmb_token_destroy(reports));
}

static void queue_rules(void) {
  static struct function rules = {.name = "queue rules"};
  f = &rules;
  graph_outlives_queue();
  items_of_extremes();
  budget_of_one();
  says("a queue that a worker uses", gmb_queue_destroy(used), E(BUSY));
  const gmb_worker all[] = {ready, idle, ended_worker, paused};
  for (int i = 0; i < 4; ++i) {
    says("a worker, running or not", gmb_worker_destroy(all[i]), GMB_OK);
    says("and again", gmb_worker_destroy(all[i]), E(INVALID_HANDLE));
  }
  says("a queue that none uses", gmb_queue_destroy(used), GMB_OK);
}
