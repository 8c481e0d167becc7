/* Events: order between streams, time on the device, and the pool that they come from. */
#include "numbers.h"

#include <stdatomic.h>
#include <threads.h>

#define BYTES (1 << 20)

/* Holds a stream until it is opened, so that what is seen meanwhile does not depend on luck. */
typedef struct gate {
  atomic_bool open;
} gate;

static void hold(void *argument) {
  gate *at = argument;
  while (!atomic_load_explicit(&at->open, memory_order_acquire)) thrd_yield();
}

static void open_gate(gate *at) { atomic_store_explicit(&at->open, 1, memory_order_release); }

static gmb_event make_event(gmb_context context, gmb_event_kind kind) {
  gmb_event event;
  CHECK(gmb_event_create(context, kind, &event));
  return event;
}

static gmb_event_pool_info pool_of(gmb_context context, gmb_event_kind kind) {
  gmb_event_pool_info info;
  CHECK(gmb_event_pool_get_info(context, kind, &info, sizeof info));
  return info;
}

/* What one stream makes another one copies, and only after it was made. */
static void order_and_time(gmb_context context, gmb_stream producer, gmb_stream consumer) {
  const gmb_event made = make_event(context, GMB_EVENT_UNTIMED);
  const gmb_event start = make_event(context, GMB_EVENT_TIMED), end = make_event(context, GMB_EVENT_TIMED);
  void *on_device, *seen;
  CHECK(gmb_memory_allocate(context, BYTES, &on_device));
  CHECK(gmb_pinned_allocate(context, BYTES, &seen));
  static gate before;

  CHECK(gmb_event_record(start, producer));
  CHECK(gmb_stream_host_function(context, producer, hold, &before));
  CHECK(gmb_memory_fill(context, on_device, 7, BYTES, producer));
  CHECK(gmb_event_record(made, producer));
  CHECK(gmb_event_record(end, producer));
  CHECK(gmb_stream_wait_event(context, consumer, made));
  CHECK(gmb_memory_copy(context, seen, on_device, BYTES, consumer));

  double milliseconds = -1;
  MUST(gmb_event_query(made) == GMB_NOT_READY, "the event cannot be reached yet");
  MUST(gmb_event_synchronize(made, 1000) == GMB_ERROR_TIMEOUT, "a wait of a microsecond should run out");
  MUST(gmb_event_elapsed_ms(start, end, &milliseconds) == GMB_NOT_READY, "there cannot be a time yet");
  MUST(gmb_stream_query(context, consumer) == GMB_NOT_READY, "the consumer should wait for the producer");
  printf("the producer is held, and the consumer waits for it\n");

  open_gate(&before);
  CHECK(gmb_event_synchronize(made, GMB_WAIT_FOREVER));
  CHECK(gmb_stream_synchronize(context, consumer));
  const unsigned char *bytes = seen;
  for (size_t i = 0; i < BYTES; ++i) MUST(bytes[i] == 7, "byte %zu was copied before it was made", i);
  printf("all of %d bytes came after they were made\n", BYTES);

  CHECK(gmb_event_synchronize(end, GMB_WAIT_FOREVER));
  CHECK(gmb_event_elapsed_ms(start, end, &milliseconds));
  printf("from start to end: %.3f ms on the device\n", milliseconds);
  MUST(milliseconds >= 0, "time goes forward");

  CHECK(gmb_memory_free(context, on_device));
  CHECK(gmb_pinned_free(context, seen));
  CHECK(gmb_event_destroy(made));
  CHECK(gmb_event_destroy(start));
  CHECK(gmb_event_destroy(end));
}

/* An event that is given back is used again, but not before the device has reached it. */
static void reuse(gmb_context context, gmb_stream stream) {
  for (int i = 0; i < 1000; ++i) {
    const gmb_event event = make_event(context, GMB_EVENT_TIMED);
    CHECK(gmb_event_record(event, stream));
    CHECK(gmb_event_synchronize(event, GMB_WAIT_FOREVER));
    CHECK(gmb_event_destroy(event));
  }
  gmb_event_pool_info pool = pool_of(context, GMB_EVENT_TIMED);
  printf("1000 events later the pool has made %" PRIu64 ", of which %" PRIu64 " were held at once\n", pool.size,
         pool.high_water);
  MUST(pool.size == 2 && pool.high_water == 2 && pool.in_use == 0, "two events should have been enough");

  static gate before;
  CHECK(gmb_stream_host_function(context, stream, hold, &before));
  for (int i = 0; i < 2; ++i) {
    const gmb_event event = make_event(context, GMB_EVENT_TIMED);
    CHECK(gmb_event_record(event, stream));
    CHECK(gmb_event_destroy(event));
  }
  pool = pool_of(context, GMB_EVENT_TIMED);
  printf("given back too early: %" PRIu64 " events wait until the device has reached them\n", pool.pending);
  MUST(pool.size == 2 && pool.pending == 2, "both events should be pending");
  const gmb_event another = make_event(context, GMB_EVENT_TIMED);
  MUST(pool_of(context, GMB_EVENT_TIMED).size == 3, "an event that is not reached must not be given out");
  open_gate(&before);
  CHECK(gmb_stream_synchronize(context, stream));
  CHECK(gmb_event_destroy(another));
}

int main(void) {
  gmb_context context;
  gmb_stream producer, consumer;
  CHECK(gmb_context_create(NULL, &context));
  CHECK(gmb_stream_create(context, GMB_PRIORITY_NORMAL, &producer));
  CHECK(gmb_stream_create(context, GMB_PRIORITY_NORMAL, &consumer));
  order_and_time(context, producer, consumer);
  reuse(context, producer);
  CHECK(gmb_stream_destroy(context, consumer));
  CHECK(gmb_stream_destroy(context, producer));
  CHECK(gmb_context_destroy(context));
  return 0;
}
