/* Reading records where they lie: no row is copied, and the ring's slots are free again when they are released. */
#include "numbers.h"

/* A record's number, seen through its span: the payload's first bytes. */
static void look(desk d, gmb_spans spans, uint64_t first) {
  for (int span = 0; span < 2; ++span) {
    for (uint32_t i = 0; i < spans.count[span]; ++i, ++first) {
      const char *record = (const char *)spans.records[span] + (size_t)i * spans.stride;
      /* Any kernel on a stream behind the borrow may read there; this one copy stands for it. */
      CHECK(gmb_memory_copy(d.context, d.in, record, sizeof(uint64_t), d.stream));
      CHECK(gmb_stream_synchronize(d.context, d.stream));
      printf(" %" PRIu64, d.in[0].number);
      MUST(d.in[0].number == first, "%" PRIu64 " should lie there", first);
    }
  }
}

static gmb_borrow borrow_numbers(desk d, gmb_mailbox mailbox, uint32_t max, uint64_t first, uint32_t count) {
  gmb_borrow borrow;
  gmb_result result;
  gmb_spans spans;
  CHECK(gmb_mailbox_borrow(mailbox, 0, max, d.stream, &borrow));
  CHECK(gmb_borrow_wait(borrow, GMB_WAIT_FOREVER, &result, &spans));
  printf("borrowed:");
  MUST(result.count == count, "%u records came, not %u", result.count, count);
  look(d, spans, first);
  printf("; in %d span%s\n", spans.count[1] ? 2 : 1, spans.count[1] ? "s" : "");
  return borrow;
}

int main(void) {
  desk d = open_desk();
  const gmb_mailbox mailbox = make_mailbox(d, 8, GMB_FULL_REJECT, 1);
  push_numbers(d, mailbox, 1, 6, 6);
  pop_numbers(d, mailbox, 0, 1, 6, 0);

  /* The ring ends after two of these and goes on at its begin. */
  push_numbers(d, mailbox, 7, 11, 5);
  const gmb_borrow five = borrow_numbers(d, mailbox, 16, 7, 5);
  push_numbers(d, mailbox, 12, 14, 3);
  const gmb_borrow three = borrow_numbers(d, mailbox, 16, 12, 3);
  /* All eight slots are borrowed. */
  push_numbers(d, mailbox, 15, 15, 0);

  /* In any order; but space comes free in the order of the records. */
  CHECK(gmb_borrow_release(three, d.stream));
  push_numbers(d, mailbox, 15, 15, 0);
  CHECK(gmb_borrow_release(five, d.stream));
  push_numbers(d, mailbox, 15, 22, 8);
  CHECK(gmb_borrow_release(borrow_numbers(d, mailbox, 16, 15, 8), d.stream));

  CHECK(gmb_mailbox_destroy(mailbox));
  close_desk(d);
  return 0;
}
