/* The ring protocol for writers that never wait: the oldest records are
 * overwritten, and readers find out how many they lost.
 *
 * Every block of a push reserves the whole push (a store of the same value)
 * before it writes, so a record is intact while `reserved - index <= capacity`.
 * A reader copies, then looks at the reservation again: what it passed over is a
 * prefix of what was copied, which is dropped. This is a sequence lock (Lameter,
 * "Effective synchronization on Linux/NUMA systems", 2005) with one sequence for
 * the whole ring; the payload is accessed with relaxed 8-byte atomics. */
#ifndef GPUMAILBOX_OVERWRITE_CUH
#define GPUMAILBOX_OVERWRITE_CUH

#include "ring.cuh"

namespace gmb {
namespace ring {

/* True when index `a` lies behind `b`. */
GMB_HD inline bool behind(uint64_t a, uint64_t b) { return static_cast<int64_t>(a - b) < 0; }

/* Where a borrow stands in the table of its reader (borrow.cuh); `slot` is one more than that of its first record, zero
 * for nothing. */
struct held {
  uint64_t first;
  uint64_t slot;
};

/* Borrows that a reader can hold at once. */
constexpr uint32_t most_held = 64;

/* The oldest index that any reader has borrowed, or `writer` if none has. */
GMB_HD inline uint64_t oldest_held(const held *tables, uint64_t writer) {
  uint64_t oldest = writer;
  for (uint32_t i = 0; i < GMB_MAX_READERS * most_held; ++i) {
    if (tables[i].slot != 0 && behind(tables[i].first, oldest)) oldest = tables[i].first;
  }
  return oldest;
}

/* The slot of the newest record where only that is kept: its index tells it, unless slots were borrowed. */
GMB_HD inline uint64_t newest_slot(gmb_ring_header *ring, const geometry &at, uint64_t index) {
  const uint64_t named = load_relaxed(&ring->writer.newest);
  return named != 0 ? named - 1 : index & at.mask;
}

/* A slot for a record that replaces the newest, of those that nobody has borrowed; none if there is none. */
constexpr uint64_t no_slot = ~static_cast<uint64_t>(0);
GMB_HD inline uint64_t unborrowed_slot(gmb_ring_header *ring, const geometry &at, const held *tables, uint64_t newest) {
  const uint64_t last = newest_slot(ring, at, newest);
  for (uint64_t step = 1; step < at.capacity() && step <= GMB_MAX_READERS * most_held + 1; ++step) {
    const uint64_t slot = (last + step) & at.mask;
    bool taken = false;
    for (uint32_t i = 0; i < GMB_MAX_READERS * most_held && !taken; ++i) taken = tables[i].slot == slot + 1;
    if (!taken) return slot;
  }
  return no_slot;
}

/* The oldest index that is intact for certain. */
GMB_HD inline uint64_t oldest_intact(gmb_ring_header *ring) {
  /* A reservation is taken back only after the floor is up. */
  const uint64_t reached = load_acquire(&ring->writer.claimed) - ring->capacity;
  const uint64_t floor = load_relaxed(&ring->writer.floor);
  return behind(reached, floor) ? floor : reached;
}

/* Announces that everything up to `end` will be written. Every thread that writes fences after it. */
GMB_HD inline void reserve(gmb_ring_side *writer, uint64_t end) { store_release(&writer->claimed, end); }

/* Ends a push that reserved. What it wrote and does not publish has cost old records, too. */
template <class Block>
GMB_HD inline void end_reserved(const Block &block, gmb_ring_header *ring, const turn &t, uint64_t asked,
                                const report &to) {
  gmb_ring_side *side = &ring->writer;
  block.sync();
  if (block.thread() != 0) return;
  GMB_CHAOS_POINT(1);
  uint64_t word = *block.word;
  if (!arrive_last(block.blocks(), side, to.operation, asked, word)) return;
  const books kept = books_at_end(block, side, to);
  const uint64_t count = grant_count(word);
  const uint64_t end = t.first + count;
  const uint64_t gone = oldest_intact(ring);
  store_relaxed(&side->floor, behind(end, gone) ? end : gone);
  if (count < asked) fence_device(); /* before the reservation is taken back */
  if (grant_status(word) == GMB_ERROR_ORDER_VIOLATION) return violation(ring, side, t.first, asked, kept, to);
  uint64_t held = count + most_unread(ring, load_relaxed(&ring->reader_mask), t.first);
  if (held > ring->capacity) held = ring->capacity;
  close_turn(ring, side, t.first, kept, ended(kept, count, asked, grant_status(word), end, 0), held, false, to);
}

/* Writes record `i`, whose length has been looked at, into its slot; all lanes of a group call it. */
GMB_HD inline void write_record(unit *slot, uint64_t index, const source &from, uint64_t i, uint32_t length,
                                uint32_t lane, uint32_t lanes) {
  const uint32_t units = units_of(length);
  for (uint32_t u = lane; u < units; u += lanes) {
    store_shared(slot + u, u == 0 ? header_unit(index + 1, length, from.type_of(i))
                                  : row_of(from.records, static_cast<uint32_t>(i), from.stride)[u - 1]);
  }
}

/* Pushes all of `from.count` records over the oldest ones, or those before the
 * first bad length. Of more than the ring holds only the last are written. */
template <class Block>
GMB_HD inline void push_over(const Block &block, gmb_ring_header *ring, const source &from, uint32_t lanes,
                             const report &to) {
  gmb_ring_side *side = &ring->writer;
  const turn t = take_turn(block, ring, side, false, to, nothing_ahead(), [&](uint64_t first, int) {
    /* What is borrowed is not written over. No borrow begins or ends beside this, so all blocks see the same. */
    const uint64_t oldest = from.borrowed ? oldest_held(from.borrowed, first) : first;
    const uint64_t free = oldest != first ? ring->capacity - (first - oldest) : from.count;
    const uint64_t room = from.count < free ? from.count : free;
    reserve(side, first + room);
    return room;
  });
  if (t.status != GMB_OK) return refuse(block, t.status, from.count, to);

  fence_device();
  const geometry at(ring);
  const share mine(block, lanes);
  const uint64_t passed = t.room > ring->capacity ? t.room - ring->capacity : 0;
  /* Of what is passed over only the lengths are looked at. */
  const bool all_fit = !from.lengths && from.length <= from.max_length;
  for (uint64_t i = mine.group + (all_fit ? passed : 0); i < t.room; i += mine.groups) {
    const uint32_t length = from.length_of(i);
    if (length > from.max_length) {
      block.lower_word(grant_word(i, GMB_ERROR_BAD_LENGTH));
    } else if (i >= passed) {
      write_record(at.slot(t.first + i), t.first + i, from, i, length, mine.lane, lanes);
    }
    GMB_CHAOS_POINT(4);
  }
  end_reserved(block, ring, t, from.count, to);
}

/* Copies the record at `index`, which should lie in `slot`, into row `i`. False when the slot holds another
 * one, or a torn one: the caller finds out which. */
GMB_HD inline bool read_record(const geometry &at, const unit *slot, uint64_t index, const sink &into, uint64_t i,
                               uint32_t lane, uint32_t lanes) {
  const unit header = load_shared(slot);
  if (header.lo != index + 1 || header_length(header) > at.payload_bytes) return false;
  const uint32_t units = units_of(header_length(header));
  if (lane == 0 && into.headers) *reinterpret_cast<unit *>(into.headers + i) = header;
  GMB_CHAOS_POINT(7);
  for (uint32_t u = lane; u < units; u += lanes) {
    if (u > 0) row_of(into.records, static_cast<uint32_t>(i), into.stride)[u - 1] = load_shared(slot + u);
  }
  return true;
}

/* Moves rows [from, from + count) to the front; a whole block calls it. */
template <class Block>
GMB_HD inline void move_rows(const Block &block, const geometry &at, const sink &into, uint64_t from, uint64_t count) {
  const uint64_t units = (at.payload_bytes + 15) / 16;
  for (uint64_t i = 0; i < count; ++i) {
    for (uint64_t base = 0; base <= units; base += block.threads()) {
      const uint64_t u = base + block.thread();
      unit *to = nullptr;
      unit moved = {0, 0};
      if (u < units) {
        to = reinterpret_cast<unit *>(into.records + i * into.stride) + u;
        moved = reinterpret_cast<unit *>(into.records + (i + from) * into.stride)[u];
      } else if (u == units && into.headers) {
        to = reinterpret_cast<unit *>(into.headers + i);
        moved = *reinterpret_cast<unit *>(into.headers + i + from);
      }
      block.sync();
      if (to) *to = moved;
      block.sync();
    }
  }
}

/* Ends a pop that may have been overtaken: drops what was overwritten meanwhile. */
template <class Block>
GMB_HD inline void end_validated(const Block &block, gmb_ring_header *ring, gmb_ring_side *side, const turn &t,
                                 uint64_t before, const sink &into, const report &to) {
  fence_device();
  block.sync();
  uint64_t word = *block.word;
  block.sync();
  /* What the last block needs: the count that was copied, and how much of it is torn. */
  if (block.thread() == 0) {
    GMB_CHAOS_POINT(1);
    const bool last = arrive_last(block.blocks(), side, to.operation, into.max, word);
    *block.word = last ? word : ~static_cast<uint64_t>(0);
  }
  block.sync();
  word = *block.word;
  block.sync();
  if (word == ~static_cast<uint64_t>(0)) return;
  if (block.thread() == 0) {
    fence_device();
    const uint64_t intact = oldest_intact(ring);
    const uint64_t torn = behind(t.first, intact) ? intact - t.first : 0;
    *block.word = torn < grant_count(word) ? torn : grant_count(word);
  }
  block.sync();
  const uint64_t torn = *block.word;
  const uint64_t count = grant_count(word) - torn;
  if (torn > 0 && count > 0) move_rows(block, geometry(ring), into, torn, count);
  block.sync();
  if (block.thread() != 0) return;
  const books kept = books_at_end(block, side, to);
  const uint64_t end = t.first + torn + count;
  store_relaxed(&side->agreed, static_cast<uint64_t>(0));
  if (grant_status(word) == GMB_ERROR_ORDER_VIOLATION) return violation(ring, side, before, into.max, kept, to);
  const ending e = ended(kept, count, into.max, grant_status(word), end, t.first + torn - before);
  close_turn(ring, side, before, kept, e, 0, false, to);
}

/* Pops up to `into.max` records of a ring that is written over. The count's records are
 * dense from row 0; `lost` in the result tells how many the reader missed before them. */
template <class Block>
GMB_HD inline void pop_over(const Block &block, gmb_ring_header *ring, uint32_t reader, const sink &into,
                            uint32_t lanes, const report &to) {
  gmb_ring_side *side = &ring->reader[reader & (GMB_MAX_READERS - 1)];
  uint64_t skip = 0;
  turn t = take_turn(block, ring, side, false, to, nothing_ahead(), [&](uint64_t before, int) {
    const uint64_t published = load_acquire(&ring->writer.committed);
    uint64_t start = oldest_intact(ring);
    if (behind(published, start)) start = published;
    if (behind(start, before)) start = before;
    /* All blocks skip what the first one does, so that they agree on the rows. */
    skip = settle_relaxed(&side->agreed, start - before + 1) - 1;
    /* Of a block that looks later there may be more: no call gives more than the ring holds. */
    uint64_t ready = behind(published, before + skip) ? 0 : published - (before + skip);
    if (ready > ring->capacity) ready = ring->capacity;
    return into.max < ready ? static_cast<uint64_t>(into.max) : ready;
  });
  if (t.status != GMB_OK) return refuse(block, t.status, into.max, to);
  /* The leader's word held the grant; now it makes the skip known. */
  const uint64_t before = t.first;
  const uint64_t grant = *block.word;
  block.sync();
  if (block.thread() == 0) *block.word = skip;
  block.sync();
  t.first = before + *block.word;
  block.sync();
  if (block.thread() == 0) *block.word = grant;
  block.sync();

  const geometry at(ring);
  const share mine(block, lanes);
  for (uint64_t i = mine.group; i < t.room; i += mine.groups) {
    if (!read_record(at, at.slot(t.first + i), t.first + i, into, i, mine.lane, lanes)) {
      fence_device();
      /* Overwritten meanwhile: the end drops it. Else something foreign wrote here. */
      if (!behind(t.first + i, oldest_intact(ring))) block.lower_word(grant_word(i, GMB_ERROR_CORRUPT));
    }
    GMB_CHAOS_POINT(5);
  }
  end_validated(block, ring, side, t, before, into, to);
}

/* Replaces the newest record by the last of `from.count`. One block. */
template <class Block>
GMB_HD inline void push_latest(const Block &block, gmb_ring_header *ring, const source &from, const report &to) {
  gmb_ring_side *side = &ring->writer;
  const turn t =
      take_turn(block, ring, side, false, to, nothing_ahead(), [&](uint64_t, int) { return static_cast<uint64_t>(from.count); });
  if (t.status != GMB_OK) return refuse(block, t.status, from.count, to);
  for (uint64_t i = block.thread(); from.lengths && i < t.room; i += block.threads()) {
    if (from.lengths[i] > from.max_length) block.lower_word(grant_word(i, GMB_ERROR_BAD_LENGTH));
  }
  block.sync();
  const geometry at(ring);
  if (block.thread() == 0) {
    const uint64_t newest = t.first + grant_count(*block.word) - 1;
    const uint64_t slot = from.borrowed ? unborrowed_slot(ring, at, from.borrowed, t.first - 1) : newest & at.mask;
    /* All others are borrowed, and the newest stays. */
    if (slot == no_slot && grant_count(*block.word) > 0) *block.word = grant_word(0, GMB_OK);
    block.word[word_drawn] = slot;
  }
  block.sync();
  const uint64_t count = grant_count(*block.word);
  if (count > 0) {
    const uint64_t slot = block.word[word_drawn];
    if (block.thread() == 0) {
      reserve(side, t.first + count);
      store_relaxed(&side->newest, from.borrowed ? slot + 1 : 0);
    }
    block.sync();
    fence_device();
    const uint64_t i = count - 1;
    write_record(at.slot(slot), t.first + i, from, i, from.length_of(i), block.thread(), block.threads());
  }
  end_reserved(block, ring, t, from.count, to);
}

/* Tries to get a record that is not being replaced, before a pop gives up until the next one. */
constexpr int latest_attempts = 256;

/* Pops the newest record, if this reader has not had it. One block. */
template <class Block>
GMB_HD inline void pop_latest(const Block &block, gmb_ring_header *ring, uint32_t reader, const sink &into,
                              const report &to) {
  gmb_ring_side *side = &ring->reader[reader & (GMB_MAX_READERS - 1)];
  const turn t =
      take_turn(block, ring, side, false, to, nothing_ahead(), [](uint64_t, int) { return static_cast<uint64_t>(1); });
  if (t.status != GMB_OK) return refuse(block, t.status, into.max, to);
  uint64_t newest = t.first;
  bool found = false;
  int32_t status = grant_status(*block.word);
  for (int attempt = 0; t.room > 0 && attempt < latest_attempts && !found; ++attempt) {
    block.sync();
    if (block.thread() == 0) *block.word = load_acquire(&ring->writer.committed);
    block.sync();
    const uint64_t published = *block.word;
    if (published == t.first) break;
    newest = published - 1;
    const geometry at(ring);
    const unit *slot = at.slot(newest_slot(ring, at, newest));
    const bool whole = read_record(at, slot, newest, into, 0, block.thread(), block.threads());
    fence_device();
    block.sync();
    if (block.thread() == 0) {
      fence_device();
      *block.word = behind(newest, oldest_intact(ring)) ? 0 : 1;
    }
    block.sync();
    const bool intact = *block.word != 0;
    if (intact && !whole) {
      status = GMB_ERROR_CORRUPT;
      break;
    }
    found = intact;
  }
  block.sync();
  if (block.thread() != 0) return;
  const uint64_t end = found ? newest + 1 : t.first;
  const books kept = books_at_end(block, side, to);
  if (status == GMB_ERROR_ORDER_VIOLATION) return violation(ring, side, t.first, into.max, kept, to);
  /* One is all there can be: more were not refused. */
  const ending e = ended(kept, found ? 1 : 0, 1, status, end, found ? newest - t.first : 0);
  close_turn(ring, side, t.first, kept, e, 0, false, to);
}

}  // namespace ring
}  // namespace gmb

#endif
