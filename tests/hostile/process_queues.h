/* Work queues and workers in the worlds of process.c: a queue that is used by itself, and two with a worker over them. */

enum { ITEM = 4, ITEMS = 16 };

/* What a world has of queues. */
struct queues {
  gmb_queue plain, active, finished;
  gmb_worker worker;
};

static gmb_queue make_queue(gmb_context context) {
  gmb_queue_options options = GMB_QUEUE_OPTIONS_INIT;
  gmb_queue made;
  options.item_bytes = ITEM;
  options.capacity = ITEMS;
  OK(g.queue_create(context, &options, &made));
  return made;
}

/* It works until it is stopped. */
static void make_queues(struct queues *q, gmb_context context) {
  gmb_worker_options options = GMB_WORKER_OPTIONS_INIT;
  q->plain = make_queue(context);
  options.active = q->active = make_queue(context);
  options.finished = q->finished = make_queue(context);
  OK(g.worker_create(&options, &q->worker));
}

/* An item that the worker must have counted up. */
static void use_worker(struct queues *q) {
  uint32_t item = 7;
  uint64_t moved = 0;
  OK(g.queue_push_from_host_blocking(q->active, &item, 1, &moved));
  CHECK(moved == 1);
  for (moved = 0; moved == 0;) OK(g.queue_pop_to_host_blocking(q->finished, &item, 1, &moved));
  CHECK(item == 8);
}

static void use_queues(struct queues *q, void *memory, gmb_stream stream, gmb_token token) {
  gmb_result result;
  OK(g.queue_push(q->plain, memory, ITEMS, stream, token));
  OK(g.token_wait(token, GMB_EPOCH_LAST, GMB_WAIT_FOREVER, &result));
  CHECK(result.count == ITEMS);
  OK(g.queue_pop(q->plain, memory, ITEMS, stream, token));
  OK(g.token_wait(token, GMB_EPOCH_LAST, GMB_WAIT_FOREVER, &result));
  CHECK(result.count == ITEMS);
}

static void end_queues(struct queues *q) {
  CHECK(g.queue_destroy(q->active) == GMB_ERROR_BUSY);
  OK(g.worker_destroy(q->worker));
  OK(g.queue_destroy(q->active));
  OK(g.queue_destroy(q->finished));
  OK(g.queue_destroy(q->plain));
}
