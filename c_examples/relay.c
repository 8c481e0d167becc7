/* A relay: a sensor module passes readings to a monitor module through one mailbox, each on a stream
 * of its own. relay.cpp and ../examples/relay.rs do the same and print the same. */
#include "check.h"

#define BATCH 4
#define ROUNDS 3

/* Records are a multiple of 16 bytes. */
typedef struct reading {
  _Alignas(16) uint64_t number;
  double celsius;
} reading;

typedef struct sensor {
  gmb_stream stream;
  gmb_event sent;
  reading *readings; /* pinned memory */
  void *on_device;
  uint64_t made;
} sensor;

typedef struct monitor {
  gmb_stream stream;
  gmb_token received;
  reading *readings; /* pinned memory */
  uint64_t seen;
} monitor;

static reading *pinned_readings(gmb_context context, uint64_t count) {
  void *memory;
  CHECK(gmb_pinned_allocate(context, count * sizeof(reading), &memory));
  return memory;
}

/* Enqueues a batch and does not wait for it. */
static void send(sensor *from, gmb_context context, gmb_mailbox mailbox) {
  gmb_stream_guard guard;
  CHECK(gmb_stream_guard_create(context, from->stream, &guard));
  /* The rows may be written again once the last push is done; the first time there was none. */
  CHECK(gmb_event_synchronize(from->sent, GMB_WAIT_FOREVER));
  for (int i = 0; i < BATCH; ++i) {
    from->readings[i].number = from->made;
    from->readings[i].celsius = 20 + 0.25 * (double)from->made;
    ++from->made;
  }
  CHECK(gmb_memory_copy(context, from->on_device, from->readings, BATCH * sizeof(reading), GMB_STREAM_CURRENT));
  gmb_push push = GMB_PUSH_INIT;
  push.count = BATCH;
  push.records = from->on_device;
  push.length = sizeof(reading);
  CHECK(gmb_mailbox_push(mailbox, &push, GMB_STREAM_CURRENT, (gmb_token){0}));
  CHECK(gmb_event_record(from->sent, GMB_STREAM_CURRENT));
  CHECK(gmb_stream_guard_destroy(guard));
}

/* Takes what has come; the mailbox orders its pops after its pushes, whatever their streams. */
static void receive(monitor *to, gmb_context context, gmb_mailbox mailbox, int round) {
  gmb_stream_guard guard;
  CHECK(gmb_stream_guard_create(context, to->stream, &guard));
  gmb_pop pop = GMB_POP_INIT;
  pop.max = 2 * BATCH;
  pop.records = to->readings;
  CHECK(gmb_mailbox_pop(mailbox, &pop, GMB_STREAM_CURRENT, to->received));
  gmb_result popped;
  CHECK(gmb_token_wait(to->received, GMB_EPOCH_LAST, GMB_WAIT_FOREVER, &popped));
  MUST(popped.status == GMB_OK, "the pop should have found nothing wrong");
  MUST(popped.count == BATCH, "a batch should have come");
  double sum = 0;
  for (uint32_t i = 0; i < popped.count; ++i) {
    MUST(to->readings[i].number == to->seen++, "the readings should come in order");
    sum += to->readings[i].celsius;
  }
  printf("round %u: %u readings, %u to %u, mean %.3f\n", (unsigned)round, popped.count,
         (unsigned)(to->seen - popped.count), (unsigned)(to->seen - 1), sum / popped.count);
  CHECK(gmb_stream_guard_destroy(guard));
}

int main(void) {
  gmb_context context;
  CHECK(gmb_context_create(NULL, &context));
  gmb_mailbox_options options = GMB_MAILBOX_OPTIONS_INIT;
  options.capacity = 8;
  options.payload_bytes = sizeof(reading);
  gmb_mailbox mailbox;
  CHECK(gmb_mailbox_create(context, &options, &mailbox));

  sensor from = {.readings = pinned_readings(context, BATCH)};
  CHECK(gmb_stream_create(context, GMB_PRIORITY_NORMAL, &from.stream));
  CHECK(gmb_event_create(context, GMB_EVENT_UNTIMED, &from.sent));
  CHECK(gmb_memory_allocate(context, BATCH * sizeof(reading), &from.on_device));
  monitor to = {.readings = pinned_readings(context, 2 * BATCH)};
  CHECK(gmb_stream_create(context, GMB_PRIORITY_NORMAL, &to.stream));
  CHECK(gmb_token_create(context, &to.received));

  for (int round = 0; round < ROUNDS; ++round) {
    send(&from, context, mailbox);
    receive(&to, context, mailbox, round);
  }
  MUST(from.made == to.seen, "every reading should have come");
  printf("ok: %u readings passed\n", (unsigned)to.seen);

  CHECK(gmb_mailbox_destroy(mailbox));
  CHECK(gmb_token_destroy(to.received));
  CHECK(gmb_stream_destroy(context, to.stream));
  CHECK(gmb_pinned_free(context, to.readings));
  CHECK(gmb_memory_free(context, from.on_device));
  CHECK(gmb_event_destroy(from.sent));
  CHECK(gmb_stream_destroy(context, from.stream));
  CHECK(gmb_pinned_free(context, from.readings));
  CHECK(gmb_context_destroy(context));
  return 0;
}
