/* GMB_FULL_REJECT: a push accepts the first so many records that fit and says how many. The rest
 * stays with the caller. */
#include "numbers.h"

int main(void) {
  const desk d = open_desk();
  const gmb_mailbox mailbox = make_mailbox(d, 4, GMB_FULL_REJECT, 1);

  push_numbers(d, mailbox, 1, 6, 4);
  push_numbers(d, mailbox, 5, 6, 0);
  pop_numbers(d, mailbox, 0, 1, 4, 0);
  push_numbers(d, mailbox, 5, 6, 2);
  pop_numbers(d, mailbox, 0, 5, 2, 0);
  pop_numbers(d, mailbox, 0, 0, 0, 0);

  gmb_mailbox_info info;
  CHECK(gmb_mailbox_get_info(mailbox, &info, sizeof info));
  printf("%" PRIu64 " records came in, %" PRIu64 " were rejected\n", info.published, info.rejected);
  MUST(info.published == 6 && info.rejected == 4, "6 should have come in, and 4 been rejected");

  CHECK(gmb_mailbox_destroy(mailbox));
  close_desk(d);
  return 0;
}
