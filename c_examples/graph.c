/* A graph: pushes and pops captured once and launched many times, beside work that is not captured. */
#include "numbers.h"

enum { RECORDS = 64, LAUNCHES = 1000 };

int main(void) {
  gmb_context context;
  gmb_mailbox mailbox;
  gmb_stream stream, other;
  gmb_token popped, counted;
  gmb_graph graph;
  void *rows, *out;
  const gmb_context_options options = GMB_CONTEXT_OPTIONS_INIT;
  gmb_mailbox_options shape = GMB_MAILBOX_OPTIONS_INIT;
  shape.capacity = 4 * RECORDS;
  shape.payload_bytes = 16;
  CHECK(gmb_context_create(&options, &context));
  CHECK(gmb_mailbox_create(context, &shape, &mailbox));
  CHECK(gmb_stream_create(context, GMB_PRIORITY_NORMAL, &stream));
  CHECK(gmb_stream_create(context, GMB_PRIORITY_NORMAL, &other));
  CHECK(gmb_token_create(context, &popped));
  CHECK(gmb_token_create(context, &counted));
  CHECK(gmb_memory_allocate(context, 16 * RECORDS, &rows));
  CHECK(gmb_memory_allocate(context, 2 * 16 * RECORDS, &out));
  CHECK(gmb_memory_fill(context, rows, 7, 16 * RECORDS, stream));

  gmb_push push = GMB_PUSH_INIT;
  push.count = RECORDS;
  push.records = rows;
  push.length = 16;
  gmb_pop pop = GMB_POP_INIT;
  pop.max = RECORDS / 2;
  pop.records = out;

  /* Nothing runs yet: the work goes into the graph. */
  CHECK(gmb_stream_begin_capture(context, stream, GMB_CAPTURE_THREAD_LOCAL));
  CHECK(gmb_mailbox_push(mailbox, &push, stream, (gmb_token){0}));
  CHECK(gmb_mailbox_pop(mailbox, &pop, stream, popped));
  CHECK(gmb_stream_end_capture(context, stream, &graph));

  /* Each launch pushes 64 records and pops 32. The other half is popped on another stream, without a graph: it waits
   * for the launch by itself. */
  gmb_pop rest = pop;
  rest.records = (char *)out + 16 * RECORDS;
  for (uint32_t launch = 1; launch <= LAUNCHES; ++launch) {
    gmb_result result;
    CHECK(gmb_graph_launch(graph, stream));
    CHECK(gmb_mailbox_pop(mailbox, &rest, other, counted));
    CHECK(gmb_token_wait(popped, launch - 1, GMB_WAIT_FOREVER, &result));
    MUST(result.epoch == launch && result.count == RECORDS / 2, "launch %u: epoch %u, count %u", launch, result.epoch,
         result.count);
    CHECK(gmb_token_wait(counted, GMB_EPOCH_LAST, GMB_WAIT_FOREVER, &result));
    MUST(result.count == RECORDS / 2, "launch %u left %u records", launch, result.count);
  }
  printf("%d launches: %d records in, %d out in graphs, %d beside them\n", LAUNCHES, LAUNCHES * RECORDS,
         LAUNCHES * RECORDS / 2, LAUNCHES * RECORDS / 2);

  /* The graph keeps the mailbox: it may go first. */
  CHECK(gmb_mailbox_destroy(mailbox));
  CHECK(gmb_graph_launch(graph, stream));
  CHECK(gmb_stream_synchronize(context, stream));
  CHECK(gmb_graph_destroy(graph));
  CHECK(gmb_token_destroy(popped));
  CHECK(gmb_token_destroy(counted));
  CHECK(gmb_memory_free(context, rows));
  CHECK(gmb_memory_free(context, out));
  CHECK(gmb_stream_destroy(context, stream));
  CHECK(gmb_stream_destroy(context, other));
  CHECK(gmb_context_destroy(context));
  return 0;
}
