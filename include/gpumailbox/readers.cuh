/* Readers that come and go while a mailbox is in use. */
#ifndef GPUMAILBOX_READERS_CUH
#define GPUMAILBOX_READERS_CUH

#include "overwrite.cuh"

namespace gmb {
namespace ring {

enum class reader_action { add_next, add_oldest, remove };

/* Where both sides report. */
struct reader_report {
  uint64_t *writer_progress;
  uint64_t *reader_progress;
};

/* Lets a reader in or out, on one thread. No push, and no pop of this reader, may run beside it. */
GMB_HD inline void change_reader(gmb_ring_header *ring, uint32_t reader, reader_action action,
                                 const reader_report &to) {
  if (check_header(ring) != GMB_OK) return;
  gmb_ring_side *side = &ring->reader[reader & (GMB_MAX_READERS - 1)];
  const uint32_t bit = 1u << (reader & (GMB_MAX_READERS - 1));
  const uint64_t published = load_acquire(&ring->writer.committed);
  if (action == reader_action::remove) {
    store_relaxed(&ring->reader_mask, load_relaxed(&ring->reader_mask) & ~bit);
  } else {
    uint64_t start = published;
    if (action == reader_action::add_oldest) {
      if (ring->full_policy == GMB_FULL_OVERWRITE_OLDEST) start = oldest_intact(ring);
      else if (ring->full_policy == GMB_FULL_LATEST) start = published == ring->initial_index ? published : published - 1;
      else start = published - most_unread(ring, load_relaxed(&ring->reader_mask), published);
      if (behind(published, start)) start = published;
    }
    /* Counts are of this reader, not of the one that had the number before. */
    store_relaxed(&side->refused, static_cast<uint64_t>(0));
    store_relaxed(&side->empty, static_cast<uint64_t>(0));
    store_relaxed(&side->lost, static_cast<uint64_t>(0));
    store_relaxed(&side->claimed, start);
    store_release(&side->committed, start);
    store_relaxed(&ring->reader_mask, load_relaxed(&ring->reader_mask) | bit);
  }
  const uint64_t writes = load_relaxed(&ring->writer.operations) + 1;
  const uint64_t reads = load_relaxed(&side->operations) + 1;
  store_relaxed(&ring->writer.operations, writes);
  store_relaxed(&side->operations, reads);
  fence_system();
  if (to.writer_progress) store_system(to.writer_progress, (published << 24) | (writes & 0xffffff));
  if (to.reader_progress) store_system(to.reader_progress, (load_relaxed(&side->committed) << 24) | (reads & 0xffffff));
}

}  // namespace ring
}  // namespace gmb

#endif
