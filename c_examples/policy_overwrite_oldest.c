/* GMB_FULL_OVERWRITE_OLDEST: a push never fails, the oldest records make room. Each reader finds out
 * how many it lost. */
#include "numbers.h"

int main(void) {
  const desk d = open_desk();
  const gmb_mailbox mailbox = make_mailbox(d, 4, GMB_FULL_OVERWRITE_OLDEST, 2);

  push_numbers(d, mailbox, 1, 3, 3);
  pop_numbers(d, mailbox, 0, 1, 3, 0);
  push_numbers(d, mailbox, 4, 10, 7);
  pop_numbers(d, mailbox, 0, 7, 4, 3);
  pop_numbers(d, mailbox, 1, 7, 4, 6);

  /* Who keeps up loses nothing. */
  push_numbers(d, mailbox, 11, 12, 2);
  pop_numbers(d, mailbox, 0, 11, 2, 0);
  pop_numbers(d, mailbox, 1, 11, 2, 0);

  for (uint32_t reader = 0; reader < 2; ++reader) {
    gmb_reader_info info;
    CHECK(gmb_mailbox_get_reader_info(mailbox, reader, &info, sizeof info));
    printf("reader %u lost %" PRIu64 " of 12\n", reader, info.lost);
    MUST(info.lost == (reader == 0 ? 3 : 6) && info.unread == 0, "the reader's counts");
  }

  CHECK(gmb_mailbox_destroy(mailbox));
  close_desk(d);
  return 0;
}
