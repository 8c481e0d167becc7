/* What the small C examples share: mailboxes whose records are one number each. Records 1, 2, 3 and so on
 * are pushed from, and popped into, pinned memory: the CPU and kernels reach it at the same address. */
#ifndef NUMBERS_H
#define NUMBERS_H

#include "check.h"

/* Most numbers in one push or pop. */
#define MOST 16

/* A row of records is a multiple of 16 bytes. */
typedef struct row {
  uint64_t number;
  uint64_t unused;
} row;

typedef struct desk {
  gmb_context context;
  gmb_stream stream;
  gmb_token token;
  row *out; /* to be pushed */
  row *in;  /* popped */
} desk;

static inline desk open_desk(void) {
  desk d;
  void *rows;
  CHECK(gmb_context_create(NULL, &d.context));
  CHECK(gmb_stream_create(d.context, GMB_PRIORITY_NORMAL, &d.stream));
  CHECK(gmb_token_create(d.context, &d.token));
  CHECK(gmb_pinned_allocate(d.context, 2 * MOST * sizeof(row), &rows));
  d.out = rows;
  d.in = d.out + MOST;
  return d;
}

static inline void close_desk(desk d) {
  CHECK(gmb_pinned_free(d.context, d.out));
  CHECK(gmb_token_destroy(d.token));
  CHECK(gmb_stream_destroy(d.context, d.stream));
  CHECK(gmb_context_destroy(d.context));
}

static inline gmb_mailbox_options options_of(uint64_t capacity, gmb_full_policy policy, uint32_t readers) {
  gmb_mailbox_options options = GMB_MAILBOX_OPTIONS_INIT;
  options.capacity = capacity;
  options.payload_bytes = sizeof(uint64_t);
  options.full_policy = policy;
  options.readers = readers;
  return options;
}

static inline gmb_mailbox make_mailbox(desk d, uint64_t capacity, gmb_full_policy policy, uint32_t readers) {
  const gmb_mailbox_options options = options_of(capacity, policy, readers);
  gmb_mailbox mailbox;
  CHECK(gmb_mailbox_create(d.context, &options, &mailbox));
  return mailbox;
}

/* Pushes the numbers from `first` to `last` and waits for the outcome; all of `accepted` must go in. */
static inline void push_numbers(desk d, gmb_mailbox mailbox, uint64_t first, uint64_t last, uint32_t accepted) {
  gmb_push push = GMB_PUSH_INIT;
  push.count = (uint32_t)(last - first + 1);
  MUST(push.count <= MOST, "%u numbers are more than there are rows for", push.count);
  for (uint32_t i = 0; i < push.count; ++i) d.out[i].number = first + i;
  push.records = d.out;
  push.length = sizeof(uint64_t);
  CHECK(gmb_mailbox_push(mailbox, &push, d.stream, d.token));

  gmb_result pushed;
  CHECK(gmb_token_wait(d.token, GMB_EPOCH_LAST, GMB_WAIT_FOREVER, &pushed));
  printf("push %" PRIu64 " to %" PRIu64 ": %u accepted\n", first, last, pushed.count);
  MUST(pushed.status == GMB_OK, "the push ended with %s", gmb_status_name(pushed.status));
  MUST(pushed.count == accepted, "%u should have been accepted", accepted);
  MUST(!(pushed.flags & GMB_RESULT_PARTIAL) == (accepted == push.count), "the result's partial flag");
}

/* Pops all there is for a reader: `count` numbers from `first` on, after `lost` that it missed. */
static inline void pop_numbers(desk d, gmb_mailbox mailbox, uint32_t reader, uint64_t first, uint32_t count,
                               uint64_t lost) {
  gmb_pop pop = GMB_POP_INIT;
  pop.max = MOST;
  pop.records = d.in;
  pop.reader = reader;
  CHECK(gmb_mailbox_pop(mailbox, &pop, d.stream, d.token));

  gmb_result popped;
  CHECK(gmb_token_wait(d.token, GMB_EPOCH_LAST, GMB_WAIT_FOREVER, &popped));
  printf("reader %u pops:", reader);
  for (uint32_t i = 0; i < popped.count; ++i) printf(" %" PRIu64, d.in[i].number);
  printf("%s; %" PRIu64 " lost\n", popped.count == 0 ? " nothing" : "", popped.lost);
  MUST(popped.status == GMB_OK, "the pop ended with %s", gmb_status_name(popped.status));
  MUST(popped.count == count, "%u numbers should have come", count);
  for (uint32_t i = 0; i < count; ++i) {
    MUST(d.in[i].number == first + i, "%" PRIu64 " should have come next", first + i);
  }
  MUST(popped.lost == lost && !(popped.flags & GMB_RESULT_LOST) == (lost == 0), "%" PRIu64 " are lost", lost);
}

#endif
