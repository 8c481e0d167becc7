/* GMB_FULL_LATEST: a pop gives the newest record, each reader once. For states, where what was before
 * does not matter. */
#include "numbers.h"

int main(void) {
  const desk d = open_desk();
  const gmb_mailbox mailbox = make_mailbox(d, 2, GMB_FULL_LATEST, 2);

  pop_numbers(d, mailbox, 0, 0, 0, 0);
  push_numbers(d, mailbox, 1, 1, 1);
  push_numbers(d, mailbox, 2, 5, 4);
  pop_numbers(d, mailbox, 0, 5, 1, 4);
  pop_numbers(d, mailbox, 0, 0, 0, 0);
  push_numbers(d, mailbox, 6, 6, 1);
  pop_numbers(d, mailbox, 0, 6, 1, 0);
  pop_numbers(d, mailbox, 1, 6, 1, 5);

  CHECK(gmb_mailbox_destroy(mailbox));
  close_desk(d);
  return 0;
}
