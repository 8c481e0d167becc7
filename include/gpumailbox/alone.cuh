/* Small operations, by a block that is alone in its launch. Nothing is shared out among blocks, what memory is asked
 * for is under way at once, and the leader keeps what it found: a launch of so few records spends most of its time
 * on waiting for memory and on fetching instructions, so there are few of both. */
#ifndef GPUMAILBOX_ALONE_CUH
#define GPUMAILBOX_ALONE_CUH

#include "ring.cuh"

namespace gmb {
namespace ring {

/* What the leader found; the others know of `first`, `room` and `ours`. */
struct opening {
  uint64_t first; /* index of the operation's first record */
  uint32_t room;  /* records that may be moved */
  int32_t ours;   /* whether the header is */
  int32_t fault;  /* why there is no room, if an error is why */
  books kept;
};

/* As take_turn, of a block that keeps its books itself. `meanwhile` is what all threads can do while the header is on its
 * way. */
template <class Block, class Ahead, class Meanwhile, class Room>
GMB_HD inline opening open_alone(const Block &block, gmb_ring_header *ring, gmb_ring_side *side, bool ordered,
                                 const report &to, const Ahead &ahead, const Meanwhile &meanwhile, const Room &room) {
  opening found;
  uint64_t magic, committed, claimed, arrivals;
  uint32_t version;
  int32_t stopped;
  /* Apart: a second load into a register waits for the first. */
  decltype(ahead.plain()) plain, acquired;
  block.begin();
  if (block.thread() == 0) {
    GMB_CHAOS_POINT(6);
    magic = load_relaxed(&ring->magic);
    version = load_relaxed(&ring->version);
    stopped = load_relaxed(&ring->fault);
    committed = load_relaxed(&side->committed);
    claimed = load_relaxed(&side->claimed);
    arrivals = load_relaxed(&side->arrivals);
    if (ordered) plain = ahead.plain();
    found.kept = open_books(side, to);
  }
  if (block.thread() >= Block::aside) meanwhile();
  if (block.thread() == 0) {
    if (!ordered) acquired = ahead.acquiring();
    look_from_here(claimed);
    found.ours = check_words(magic, version);
    found.fault = arrivals != 0 || (ordered && claimed != committed) ? GMB_ERROR_ORDER_VIOLATION : stopped;
    uint32_t granted = 0;
    if (found.ours == GMB_OK && found.fault == GMB_OK) granted = ordered ? room(committed, plain) : room(committed, acquired);
    block.word[0] = granted; /* the first record that is bad lowers it */
    block.word[word_first] = committed;
    block.word[word_room] = granted | static_cast<uint64_t>(static_cast<uint32_t>(found.ours)) << 32;
  }
  block.sync();
  found.first = block.word[word_first];
  const uint64_t told = block.word[word_room];
  found.room = static_cast<uint32_t>(told);
  found.ours = static_cast<int32_t>(told >> 32);
  return found;
}

/* As end_turn. `bad` is the status of a record that ends the operation, `before` what lay in the ring before a push. With
 * `early` the leader writes the books while the others still move records: as a rule all of them are good. */
template <bool early, class Block>
GMB_HD inline void close_alone(const Block &block, gmb_ring_header *ring, gmb_ring_side *side, const opening &found,
                               uint32_t asked, bool whole, int32_t bad, uint32_t before, bool ordered,
                               const report &to) {
  const bool push = side == &ring->writer;
  ending e = {};
  const auto write = [&](uint32_t good, int32_t status) {
    const uint64_t count = taken(whole, good, asked);
    e = ended(found.kept, count, asked, status, found.first + count, 0);
    write_books(side, found.kept, e, push ? before + count : 0);
  };
  if (early && block.thread() == 0 && found.fault != GMB_ERROR_ORDER_VIOLATION) write(found.room, found.fault);
  block.sync();
  if (block.thread() != 0) return;
  GMB_CHAOS_POINT(1);
  if (found.fault == GMB_ERROR_ORDER_VIOLATION) return violation(ring, side, found.first, asked, found.kept, to);
  const uint32_t good = static_cast<uint32_t>(block.word[0]);
  if (early && good < found.room) {
    store_relaxed(&side->high_water, found.kept.high_water);
    write(good, bad);
  }
  if (!early) write(good, good < found.room ? bad : found.fault);
  GMB_CHAOS_POINT(3);
  publish_turn(ring, side, found.first, found.kept, e, ordered, to);
}

/* As push: of few records. */
template <class Block>
GMB_HD inline void push_alone(const Block &block, gmb_ring_header *ring, const geometry &at, const source &from,
                              uint32_t lanes, const report &to) {
  gmb_ring_side *side = &ring->writer;
  const share mine(block, lanes);
  const uint32_t units = units_of(from.max_length);
  in_flight_in<true, 1> moving;
  uint32_t unread = 0;
  const opening found = open_alone(
      block, ring, side, from.ordered, to, cursors_ahead{ring, from.readers},
      /* Rows can be read whatever room there is. */
      [&] { moving.load(block, from, mine, {0, from.count, 0}, units); },
      [&](uint64_t first, const cursors &seen) {
        unread = unread_by(ring, seen, from.readers, first);
        return fitting(from, at, unread);
      });
  if (found.ours != GMB_OK) return refuse(block, found.ours, from.count, to);

  uint32_t bad = found.room;
  GMB_NO_UNROLL
  for (step s = {0, found.room, 0}; s.first + mine.local < found.room; s.first += mine.in_block) {
    GMB_NO_UNROLL
    for (s.unit = 0; s.unit + mine.lane < units; s.unit += lanes) {
      if (s.first != 0 || s.unit != 0) moving.load(block, from, mine, s, units);
      moving.store(block, at, found.first, from, mine, s, units, bad);
    }
    GMB_CHAOS_POINT(4);
  }
  if (bad < found.room) block.lower_half(bad);
  close_alone<true>(block, ring, side, found, from.count, from.whole, GMB_ERROR_BAD_LENGTH, unread, from.ordered, to);
}

/* As pop: of few records. */
template <class Block>
GMB_HD inline void pop_alone(const Block &block, gmb_ring_header *ring, const geometry &at, uint32_t reader,
                             const sink &into, uint32_t lanes, const report &to) {
  gmb_ring_side *side = &ring->reader[reader & (GMB_MAX_READERS - 1)];
  const opening found = open_alone(
      block, ring, side, into.ordered, to, published_ahead{ring}, [] {},
      [&](uint64_t first, uint64_t published) {
        const uint32_t ready = static_cast<uint32_t>(published) - static_cast<uint32_t>(first);
        return into.max < ready ? into.max : ready;
      });
  if (found.ours != GMB_OK) return refuse(block, found.ours, into.max, to);

  const share mine(block, lanes);
  const uint32_t units = units_of(at.payload_bytes);
  uint32_t bad = found.room;
  GMB_NO_UNROLL
  for (uint32_t i = mine.local; i < found.room; i += mine.in_block) {
    GMB_NO_UNROLL
    for (uint32_t u = mine.lane; u < units; u += lanes) {
      const unit *slot = at.slot(found.first + i);
      const unit header = load_unit_if(true, slot), moved = load_unit_if(true, slot + u);
      loads_under_way();
      const bool good = header.lo == found.first + i + 1 && header_length(header) <= at.payload_bytes;
      unit *to = u == 0 ? reinterpret_cast<unit *>(into.headers + i) : row_of(into.records, i, into.stride) + (u - 1);
      store_unit_if(good && (u == 0 ? into.headers != nullptr : u < units_of(header_length(header))), to, moved);
      if (!good && i < bad) bad = i;
    }
    GMB_CHAOS_POINT(5);
  }
  if (bad < found.room) block.lower_half(bad);
  close_alone<false>(block, ring, side, found, into.max, false, GMB_ERROR_CORRUPT, 0, into.ordered, to);
}

}  // namespace ring
}  // namespace gmb

#endif
