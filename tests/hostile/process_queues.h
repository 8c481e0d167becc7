/* Work queues, workers, doorbells and FIFOs in the worlds of process.c: a queue that is used by itself, two with a worker over
 * them that serves a doorbell, a doorbell that nobody serves, and a FIFO. */

enum { ITEM = 4, ITEMS = 16, COMMANDS = 4 };

/* What a world has of queues. */
struct queues {
  gmb_queue plain, active, finished;
  gmb_worker worker;
  gmb_doorbell bell, unserved;
  gmb_fifo fifo;
};

static gmb_queue make_queue(gmb_context context) {
  gmb_queue_options options = GMB_QUEUE_OPTIONS_INIT;
  gmb_queue made;
  options.item_bytes = ITEM;
  options.capacity = ITEMS;
  OK(g.queue_create(context, &options, &made));
  return made;
}

static gmb_doorbell make_doorbell(gmb_context context) {
  gmb_doorbell_options options = GMB_DOORBELL_OPTIONS_INIT;
  gmb_doorbell made;
  options.capacity = COMMANDS;
  OK(g.doorbell_create(context, &options, &made));
  return made;
}

/* It works until it is stopped. */
static void make_queues(struct queues *q, gmb_context context) {
  gmb_worker_options options = GMB_WORKER_OPTIONS_INIT;
  gmb_fifo_options fifo_options = GMB_FIFO_OPTIONS_INIT;
  fifo_options.capacity = ITEMS;
  OK(g.fifo_create(context, &fifo_options, &q->fifo));
  options.doorbell = q->bell = make_doorbell(context);
  q->unserved = make_doorbell(context);
  q->plain = make_queue(context);
  options.active = q->active = make_queue(context);
  options.finished = q->finished = make_queue(context);
  OK(g.worker_create(&options, &q->worker));
}

static const gmb_command ping = {GMB_COMMAND_PING, 0, {5, 6, 7}};

/* An item that the worker must have counted up, and a command that it answers. */
static void use_worker(struct queues *q) {
  uint32_t item = 7;
  gmb_answer answer = {0};
  uint64_t moved = 0;
  OK(g.queue_push_from_host_blocking(q->active, &item, 1, &moved));
  CHECK(moved == 1);
  for (moved = 0; moved == 0;) OK(g.queue_pop_to_host_blocking(q->finished, &item, 1, &moved));
  CHECK(item == 8);
  OK(g.doorbell_call(q->bell, &ping, GMB_WAIT_FOREVER, &answer));
  CHECK(answer.status == GMB_OK && answer.value[0] == 5 && answer.value[2] == 7);
}

static void use_queues(struct queues *q, void *memory, gmb_stream stream, gmb_token token) {
  gmb_result result;
  OK(g.queue_push(q->plain, memory, ITEMS, stream, token));
  OK(g.token_wait(token, GMB_EPOCH_LAST, GMB_WAIT_FOREVER, &result));
  CHECK(result.count == ITEMS);
  OK(g.queue_pop(q->plain, memory, ITEMS, stream, token));
  OK(g.token_wait(token, GMB_EPOCH_LAST, GMB_WAIT_FOREVER, &result));
  CHECK(result.count == ITEMS);
  gmb_fifo_record records[ITEMS];
  uint64_t popped = 0;
  OK(g.fifo_push(q->fifo, memory, ITEMS, stream, token));
  for (uint64_t got = 0; got < ITEMS; got += popped) OK(g.fifo_pop_to_host(q->fifo, records, ITEMS, GMB_WAIT_FOREVER, &popped));
}

static void end_queues(struct queues *q) {
  CHECK(g.queue_destroy(q->active) == GMB_ERROR_BUSY);
  CHECK(g.doorbell_destroy(q->bell) == GMB_ERROR_BUSY);
  OK(g.worker_destroy(q->worker));
  OK(g.doorbell_destroy(q->bell));
  OK(g.doorbell_destroy(q->unserved));
  OK(g.fifo_destroy(q->fifo));
  OK(g.queue_destroy(q->active));
  OK(g.queue_destroy(q->finished));
  OK(g.queue_destroy(q->plain));
}
