/* Records borrowed in place: taken by a reader, and not released until it says so.
 *
 * A reader's *claimed* index goes ahead of its *released* one by what is borrowed. Each borrow holds an entry of a
 * table with the index it begins at; the released index is the least of those, or the claimed one if there is none. So
 * borrows end in any order, and space comes free in order. No pop of the reader may run while one is held. */
#ifndef GPUMAILBOX_BORROW_CUH
#define GPUMAILBOX_BORROW_CUH

#include "readers.cuh"

static_assert(sizeof(gmb_spans) == 40, "spans");

namespace gmb {
namespace ring {

/* The index that a reader has released, with these held. */
GMB_HD inline uint64_t released(const held *table, uint64_t claimed) {
  uint64_t least = claimed;
  for (uint32_t i = 0; i < most_held; ++i) {
    if (table[i].slot != 0 && behind(table[i].first, least)) least = table[i].first;
  }
  return least;
}

/* The host makes the same from what it is told. */
GMB_HD inline void tell_spans(gmb_spans *to, const geometry &at, uint64_t first, uint64_t slot, uint64_t count) {
  const uint64_t before_end = at.capacity() - slot;
  const uint64_t one = count < before_end ? count : before_end;
  const uint64_t start = reinterpret_cast<uint64_t>(at.slots) + sizeof(gmb_record_header);
  uint64_t *words = reinterpret_cast<uint64_t *>(to);
  store_relaxed(words, count > 0 ? first : 0);
  store_relaxed(words + 1, count > 0 ? start + slot * at.stride : 0);
  store_relaxed(words + 2, count > one ? start : 0);
  store_relaxed(words + 3, one | (count - one) << 32);
  store_relaxed(words + 4, static_cast<uint64_t>(at.stride));
}

/* What the progress line tells of a side that borrows: behind the index that is released the one that is claimed, each
 * with the number of the operation. Nothing is stored to the line after these. */
GMB_HD inline void tell_claimed(const report &to, const ending &e) {
  if (to.host_progress) store_pair_system(to.host_progress, progress_word(e), claimed_word(e));
}

/* The words of a borrow's slot, one for each of the first threads: together they are one sector of 32 bytes; stored from
 * one thread each would be one. Whoever sees the first word on the host sees the others. */
template <class Block>
GMB_HD inline void tell_slot(const Block &block, const report &to, const uint64_t *words) {
  if (!to.host_slot) return;
  fence_system();
  for (uint32_t i = block.thread(); i < 4; i += block.threads()) {
    store_system(to.host_slot + (3 - i), words[3 - i]);
    GMB_CHAOS_POINT(3);
  }
}

/* Borrows up to `max` records for one reader, those before the first slot that does not hold the record it should; of a
 * mailbox with one newest record that one. One block. On a mailbox that overwrites no push may run beside it. */
template <class Block>
GMB_HD inline void borrow(const Block &block, gmb_ring_header *ring, const geometry &at, uint32_t reader, uint32_t max,
                          held *table, uint32_t place, gmb_spans *spans, const report &to) {
  gmb_ring_side *side = &ring->reader[reader & (GMB_MAX_READERS - 1)];
  uint64_t *const start = block.word + word_drawn, *const first_slot = start + 1;
  const turn t = take_turn(block, ring, side, false, to, nothing_ahead(), [&](uint64_t, int) {
    const uint64_t claimed = load_relaxed(&side->claimed);
    const uint64_t published = load_acquire(&ring->writer.committed);
    uint64_t first = claimed, ready = published - claimed;
    if (ring->full_policy == GMB_FULL_LATEST) {
      if (ready > 0) first = published - 1, ready = 1;
      *first_slot = newest_slot(ring, at, first) & at.mask;
    } else {
      if (ring->full_policy == GMB_FULL_OVERWRITE_OLDEST) {
        const uint64_t oldest = oldest_intact(ring);
        if (behind(first, oldest)) first = behind(published, oldest) ? published : oldest;
        ready = published - first;
      }
      *first_slot = first & at.mask;
    }
    *start = first;
    return max < ready ? static_cast<uint64_t>(max) : ready;
  });
  if (t.status != GMB_OK) return refuse(block, t.status, max, to);

  const uint64_t first = *start, slot = *first_slot;
  for (uint64_t i = block.thread(); i < t.room; i += block.threads()) {
    const unit header = load_shared(at.slot(slot + i));
    if (header.lo != first + i + 1 || header_length(header) > at.payload_bytes) {
      block.lower_word(grant_word(i, GMB_ERROR_CORRUPT));
    }
  }
  block.sync();
  uint64_t *const words = block.word + word_books;
  if (block.thread() == 0) {
    const uint64_t word = block.word[0], count = grant_count(word);
    const uint64_t claimed = load_relaxed(&side->claimed);
    /* What was lost before the first is known once something came. */
    const uint64_t end = count > 0 ? first + count : claimed;
    table[place] = {first, count > 0 ? slot + 1 : 0};
    const uint64_t asked = ring->full_policy == GMB_FULL_LATEST ? 1 : max;
    const books kept = books_at_end(block, side, to);
    ending e = ended(kept, count, asked, grant_status(word), released(table, end), count > 0 ? first - claimed : 0);
    e.claimed = end;
    if (spans) tell_spans(spans, at, first, slot, count);
    report device = to;
    device.host_slot = device.host_progress = nullptr;
    if (!close_turn(ring, side, t.first, kept, e, 0, false, device)) e = violated(kept, t.first, asked), e.claimed = claimed;
    words[0] = count_word(e);
    words[1] = detail_word(e);
    words[2] = tagged(first & ((1ull << slot_tag) - 1), e.epoch);
    words[3] = tagged(slot | first >> slot_tag << 32, e.epoch);
    fence_system();
    tell_claimed(to, e);
  }
  block.sync();
  /* Whoever knows of the records knows that they are taken. */
  tell_slot(block, to, words);
}

/* Ends a borrow: its records' space is free once those before it are. One block. */
template <class Block>
GMB_HD inline void release(const Block &block, gmb_ring_header *ring, uint32_t reader, held *table, uint32_t place,
                           const report &to) {
  gmb_ring_side *side = &ring->reader[reader & (GMB_MAX_READERS - 1)];
  const turn t =
      take_turn(block, ring, side, false, to, nothing_ahead(), [](uint64_t, int) { return static_cast<uint64_t>(1); });
  if (t.status != GMB_OK) return refuse(block, t.status, 1, to);
  if (block.thread() != 0) return;
  const uint64_t claimed = load_relaxed(&side->claimed);
  table[place].slot = 0;
  const books kept = books_at_end(block, side, to);
  ending e = ended(kept, 1, 1, GMB_OK, released(table, claimed), 0);
  e.claimed = claimed;
  report device = to;
  device.host_progress = nullptr;
  if (!close_turn(ring, side, t.first, kept, e, 0, false, device)) e = violated(kept, t.first, 1), e.claimed = claimed;
  fence_system();
  tell_claimed(to, e);
}

}  // namespace ring
}  // namespace gmb

#endif
