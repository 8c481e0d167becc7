/* One mailbox, several readers: every record reaches each of them, and the slowest one holds the
 * space. Readers come and go while the mailbox is in use. */
#include "numbers.h"

int main(void) {
  const desk d = open_desk();
  const gmb_mailbox mailbox = make_mailbox(d, 8, GMB_FULL_REJECT, 3);

  push_numbers(d, mailbox, 1, 4, 4);
  for (uint32_t reader = 0; reader < 3; ++reader) pop_numbers(d, mailbox, reader, 1, 4, 0);

  /* A late reader begins with the next record. */
  uint32_t late;
  CHECK(gmb_mailbox_add_reader(mailbox, GMB_READER_NEXT, d.stream, &late));
  MUST(late == 3, "the late reader is number 3, not %u", late);
  push_numbers(d, mailbox, 5, 6, 2);
  pop_numbers(d, mailbox, late, 5, 2, 0);
  pop_numbers(d, mailbox, 0, 5, 2, 0);

  /* Another one begins with the oldest record that somebody still holds: readers 1 and 2 hold 5 and 6. */
  uint32_t later;
  CHECK(gmb_mailbox_add_reader(mailbox, GMB_READER_OLDEST, d.stream, &later));
  pop_numbers(d, mailbox, later, 5, 2, 0);
  pop_numbers(d, mailbox, 1, 5, 2, 0);

  /* Reader 2 no longer reads, so two of the eight places stay taken until it is let out. */
  push_numbers(d, mailbox, 7, 14, 6);
  CHECK(gmb_mailbox_remove_reader(mailbox, 2, d.stream));
  printf("reader 2 is out\n");
  push_numbers(d, mailbox, 13, 14, 2);
  const uint32_t left[] = {0, 1, late, later};
  for (int i = 0; i < 4; ++i) pop_numbers(d, mailbox, left[i], 7, 8, 0);

  gmb_pop pop = GMB_POP_INIT;
  pop.max = 1;
  pop.records = d.in;
  pop.reader = 2;
  const gmb_status refused = gmb_mailbox_pop(mailbox, &pop, d.stream, d.token);
  printf("a pop of reader 2: %s\n", gmb_status_name(refused));
  MUST(refused == GMB_ERROR_INVALID_ARGUMENT, "a reader that is out cannot pop");

  CHECK(gmb_mailbox_destroy(mailbox));
  close_desk(d);
  return 0;
}
