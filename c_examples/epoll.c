/* An event loop over two mailboxes: epoll sleeps until one of them has records, and no thread polls. */
#include "numbers.h"

#include <errno.h>
#include <sys/epoll.h>
#include <threads.h>
#include <unistd.h>

enum { MAILBOXES = 2, ROUNDS = 20, BATCH = 5 };

typedef struct inbox {
  gmb_mailbox mailbox;
  gmb_watch watch;
  int descriptor;
  uint64_t next; /* number that must come next */
} inbox;

typedef struct outbox {
  gmb_context context;
  const inbox *to;
} outbox;

/* Another module: pushes to both mailboxes, whenever there is room. */
static int produce(void *argument) {
  const outbox *from = argument;
  gmb_stream stream;
  gmb_token token;
  void *rows;
  CHECK(gmb_stream_create(from->context, GMB_PRIORITY_NORMAL, &stream));
  CHECK(gmb_token_create(from->context, &token));
  CHECK(gmb_pinned_allocate(from->context, BATCH * sizeof(row), &rows));
  for (int round = 0; round < ROUNDS; ++round) {
    row *at = rows;
    for (uint64_t i = 0; i < BATCH; ++i) at[i].number = (uint64_t)round * BATCH + i + 1;
    for (int i = 0; i < MAILBOXES; ++i) {
      gmb_push push = GMB_PUSH_INIT;
      gmb_result pushed;
      push.count = BATCH;
      push.records = rows;
      push.length = sizeof(uint64_t);
      CHECK(gmb_mailbox_wait_writable(from->to[i].mailbox, BATCH, GMB_WAIT_FOREVER, NULL));
      CHECK(gmb_mailbox_push(from->to[i].mailbox, &push, stream, token));
      CHECK(gmb_token_wait(token, GMB_EPOCH_LAST, GMB_WAIT_FOREVER, &pushed));
      MUST(pushed.count == BATCH, "there was room for %u only", pushed.count);
    }
  }
  CHECK(gmb_pinned_free(from->context, rows));
  CHECK(gmb_token_destroy(token));
  CHECK(gmb_stream_destroy(from->context, stream));
  return 0;
}

/* Takes what there is, and asks to be told of more. */
static uint64_t drain(desk d, inbox *box) {
  gmb_pop pop = GMB_POP_INIT;
  gmb_result popped;
  pop.max = MOST;
  pop.records = d.in;
  CHECK(gmb_mailbox_pop(box->mailbox, &pop, d.stream, d.token));
  CHECK(gmb_token_wait(d.token, GMB_EPOCH_LAST, GMB_WAIT_FOREVER, &popped));
  MUST(popped.count > 0, "woken for nothing");
  for (uint32_t i = 0; i < popped.count; ++i, ++box->next) {
    MUST(d.in[i].number == box->next, "%" PRIu64 " should have come next", box->next);
  }
  CHECK(gmb_watch_arm(box->watch, 1));
  return popped.count;
}

int main(void) {
  desk d = open_desk();
  inbox boxes[MAILBOXES];
  const int loop = epoll_create1(EPOLL_CLOEXEC);
  MUST(loop >= 0, "epoll_create1: %d", errno);
  for (int i = 0; i < MAILBOXES; ++i) {
    boxes[i].mailbox = make_mailbox(d, 8, GMB_FULL_REJECT, 1);
    boxes[i].next = 1;
    CHECK(gmb_watch_create(boxes[i].mailbox, GMB_INTEREST_READABLE, 0, &boxes[i].watch));
    CHECK(gmb_watch_get_fd(boxes[i].watch, &boxes[i].descriptor));
    struct epoll_event event = {.events = EPOLLIN, .data = {.ptr = &boxes[i]}};
    MUST(epoll_ctl(loop, EPOLL_CTL_ADD, boxes[i].descriptor, &event) == 0, "epoll_ctl: %d", errno);
    CHECK(gmb_watch_arm(boxes[i].watch, 1));
  }
  outbox from = {d.context, boxes};
  thrd_t producer;
  MUST(thrd_create(&producer, produce, &from) == thrd_success, "no thread");

  uint64_t records = 0;
  while (records < MAILBOXES * ROUNDS * BATCH) {
    struct epoll_event events[MAILBOXES];
    const int ready = epoll_wait(loop, events, MAILBOXES, -1);
    MUST(ready > 0 || errno == EINTR, "epoll_wait: %d", errno);
    for (int i = 0; i < ready; ++i) records += drain(d, events[i].data.ptr);
  }
  thrd_join(producer, NULL);
  printf("%" PRIu64 " records from %d mailboxes, all in order\n", records, MAILBOXES);

  for (int i = 0; i < MAILBOXES; ++i) {
    CHECK(gmb_watch_destroy(boxes[i].watch));
    close(boxes[i].descriptor);
    CHECK(gmb_mailbox_destroy(boxes[i].mailbox));
  }
  close(loop);
  close_desk(d);
  return 0;
}
