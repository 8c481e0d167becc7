/* A mailbox in the caller's own device memory, which may as well be a tensor's. Whoever finds the
 * memory later goes on where the mailbox stopped. */
#include "numbers.h"

int main(void) {
  const desk d = open_desk();
  const gmb_mailbox_options options = options_of(8, GMB_FULL_REJECT, 1);
  uint64_t bytes;
  void *memory;
  CHECK(gmb_mailbox_get_required_bytes(&options, &bytes));
  CHECK(gmb_memory_allocate(d.context, bytes, &memory));

  gmb_mailbox mailbox;
  CHECK(gmb_mailbox_create_in(d.context, &options, memory, bytes, &mailbox));
  push_numbers(d, mailbox, 1, 3, 3);
  pop_numbers(d, mailbox, 0, 1, 3, 0);
  push_numbers(d, mailbox, 4, 8, 5);
  CHECK(gmb_mailbox_destroy(mailbox));
  printf("destroyed; the records are still in the memory\n");

  CHECK(gmb_mailbox_attach(d.context, memory, bytes, NULL, &mailbox));
  gmb_mailbox_info info;
  CHECK(gmb_mailbox_get_info(mailbox, &info, sizeof info));
  printf("attached: %" PRIu64 " records pushed so far, %" PRIu64 " of them popped\n", info.published, info.released);
  MUST(info.published == 8 && info.released == 3, "8 were pushed and 3 popped");
  MUST(info.ring == memory && info.ring_bytes == bytes, "the ring should be the caller's memory");
  push_numbers(d, mailbox, 9, 10, 2);
  pop_numbers(d, mailbox, 0, 4, 7, 0);
  CHECK(gmb_mailbox_destroy(mailbox));

  /* Memory without a mailbox is recognised. */
  CHECK(gmb_memory_fill(d.context, memory, 0, bytes, d.stream));
  CHECK(gmb_stream_synchronize(d.context, d.stream));
  const gmb_status none = gmb_mailbox_attach(d.context, memory, bytes, NULL, &mailbox);
  printf("attaching to zeroes: %s\n", gmb_status_name(none));
  MUST(none == GMB_ERROR_BAD_MAGIC, "there is no mailbox in zeroes");

  CHECK(gmb_memory_free(d.context, memory));
  close_desk(d);
  return 0;
}
