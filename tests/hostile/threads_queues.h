/* Work queues and workers for threads.c. Whatever happens to a worker, its items are in one of its queues afterwards, and those
 * that have left the first were counted up once. */

enum { QUEUE_ITEMS = 8, WORK_ITEMS = 4096 };

static gmb_queue queue, work_queues[3];
static gmb_worker worker;
static atomic_long items_sent;
static long items_seen, items_worked;

static gmb_queue queue_of(uint64_t capacity) {
  gmb_queue_options options = GMB_QUEUE_OPTIONS_INIT;
  gmb_queue made = {0};
  options.item_bytes = sizeof(uint32_t);
  options.capacity = capacity;
  CHECK(gmb_queue_create(context, &options, &made));
  return made;
}

static void make_queue(void) { queue = queue_of(QUEUE_ITEMS); }

/* Workers that others make over the queue keep it for a moment. */
static gmb_status end_queue(void) {
  gmb_status got;
  do got = gmb_queue_destroy(queue);
  while (got == GMB_ERROR_BUSY);
  return got;
}

static void use_queue(int thread, int turn) {
  gmb_queue_info info;
  gmb_queue_measurement measurement;
  gmb_worker_options options = GMB_WORKER_OPTIONS_INIT;
  gmb_worker made;
  gmb_worker_result result;
  uint32_t items[QUEUE_ITEMS] = {0};
  uint64_t moved;
  gmb_status got;
  const gmb_token none = {0};
  switch ((thread + turn) % 8) {
    case 0: RACING(gmb_queue_push(queue, records[thread], 3, streams[turn % 4], none)); break;
    case 1: RACING(gmb_queue_pop(queue, records[thread], 3, streams[turn % 4], none)); break;
    case 2: RACING(gmb_queue_get_info(queue, &info, sizeof info)); break;
    case 3: RACING(gmb_queue_push_from_host_blocking(queue, items, 5, &moved)); break;
    case 4: RACING(gmb_queue_pop_to_host_blocking(queue, items, QUEUE_ITEMS, &moved)); break;
    case 5: RACING(gmb_queue_measure(queue, 4, 2, &measurement)); break;
    default:
      if (turn % 4 != 0) break;
      options.active = queue;
      options.idle_threshold = 4;
      got = gmb_worker_create(&options, &made);
      RACING(got);
      if (got != GMB_OK) break;
      /* It has the queue, whoever destroys the handle. */
      CHECK(gmb_worker_start(made));
      if (turn % 8 == 0) CHECK(gmb_worker_wait(made, GMB_WAIT_FOREVER, &result));
      CHECK(gmb_worker_destroy(made));
  }
}

/* All that was sent so far, nothing twice: the values say how often an item was counted up. */
static void count_items(void) {
  uint32_t items[64];
  uint64_t moved = 0;
  for (int i = 0; i < 3; ++i) {
    do {
      CHECK(gmb_queue_pop_to_host_blocking(work_queues[i], items, 64, &moved));
      for (uint64_t n = 0; n < moved; ++n) {
        if (items[n] != (i > 0) && ++failures <= 20) printf("an item of queue %d was counted up %u times\n", i, items[n]);
      }
      items_seen += (long)moved;
      items_worked += i > 0 ? (long)moved : 0;
    } while (moved > 0 && failures == 0);
  }
  if (items_seen != items_sent && ++failures <= 20) printf("%ld items were sent, %ld seen\n", (long)items_sent, items_seen);
}

static void make_worker(void) {
  gmb_worker_options options = GMB_WORKER_OPTIONS_INIT;
  static int round;
  if (round == 0) {
    for (int i = 0; i < 3; ++i) work_queues[i] = queue_of(WORK_ITEMS);
  }
  count_items();
  options.active = work_queues[0];
  options.finished = work_queues[1];
  options.spawn = work_queues[2];
  options.spawn_interval = 3;
  options.grid_blocks = 1 + (uint32_t)round % 3;
  options.idle_threshold = round % 2 ? 0 : 16;
  options.slice_ns = round % 4 < 2 ? 20000 : GMB_WAIT_FOREVER;
  ++round;
  CHECK(gmb_worker_create(&options, &worker));
}
static gmb_status end_worker(void) { return gmb_worker_destroy(worker); }

static void use_worker(int thread, int turn) {
  static const uint32_t items[4];
  gmb_worker_info info;
  gmb_worker_result result;
  uint64_t moved = 0;
  switch ((thread + turn) % 8) {
    case 0: RACING(gmb_worker_start(worker)); break;
    /* Every eighth thread waits without limit: the destroy must wake it. */
    case 1: RACING(gmb_worker_wait(worker, thread % 8 == 2 ? GMB_WAIT_FOREVER : 100000, &result)); break;
    case 2: RACING(gmb_worker_stop(worker)); break;
    case 3: RACING(gmb_worker_pause(worker)); break;
    case 4: RACING(gmb_worker_resume(worker)); break;
    case 5: RACING(gmb_worker_get_info(worker, &info, sizeof info)); break;
    default:
      CHECK(gmb_queue_push_from_host_blocking(work_queues[0], items, 4, &moved));
      items_sent += (long)moved;
  }
}

static void check_queues(void) {
  count_items();
  if (items_worked == 0 && ++failures <= 20) printf("no worker ever worked\n");
  for (int i = 0; i < 3; ++i) CHECK(gmb_queue_destroy(work_queues[i]));
}
