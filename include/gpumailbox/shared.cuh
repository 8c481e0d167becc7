/* The ring protocol, shared mode: any number of producers and of consumers at once, each a thread, a warp or a block of
 * any kernel, or a CPU thread where the ring lies in host memory.
 *
 * Who wants slots, or records, first takes credits for them, then with one addition as many tickets, which are indices.
 * A credit is for a slot that is free, or for a record that is there, so whoever has a ticket waits for nobody. Producers
 * publish their slots in any order, each with its sequence; the records up to the first slot that is not published are
 * there for consumers, and whoever publishes moves that limit on. Slots come free in the same way: a record that its last
 * reader has released is marked, and whoever marks moves the limit on up to which slots are free. So no operation waits
 * for another one's progress, whatever fits the device. The price: a producer that takes a ticket and neither commits nor
 * abandons it, because its kernel was ended, say, holds back whatever comes after it.
 *
 * Tickets and credits: "The Broker Queue" (Kerbl, Kenzel, Mueller, Schmalstieg and Steinberger, ICS 2018); sequences in the
 * slots: the bounded queue of D. Vyukov (1024cores.net, 2010). */
#ifndef GPUMAILBOX_SHARED_CUH
#define GPUMAILBOX_SHARED_CUH

#include "ring.cuh"

namespace gmb {
namespace ring {

/* The length of a slot whose producer had nothing to put there. */
constexpr uint32_t tombstone = ~0u;

/* A ring in shared mode. Behind its slots each has a word: the readers that have not released its record. */
struct shared_ring {
  gmb_ring_header *header;
  geometry at;

  GMB_HD explicit shared_ring(gmb_ring_header *ring) : header(ring), at(ring) {}
  GMB_HD uint64_t *unreleased(uint64_t index) const {
    return reinterpret_cast<uint64_t *>(at.slots + at.capacity() * at.stride) + (static_cast<uint32_t>(index) & at.mask);
  }
  GMB_HD uint64_t *sequence(uint64_t index) const { return &at.slot(index)->lo; }
};

/* Bytes of such a ring. */
GMB_HD inline uint64_t shared_bytes(uint64_t header_bytes, uint64_t capacity, uint64_t stride) {
  return header_bytes + capacity * (stride + sizeof(uint64_t));
}

/* Slots that are an operation's own, from taking the tickets to giving them on. */
struct claim {
  uint64_t first;
  uint32_t count;
};

/* As many of the credits as there are, `wanted` at most. */
GMB_HD inline uint32_t take_credits(uint64_t *credits, uint32_t wanted) {
  /* Who sees that there are none takes none: he would only keep others from those that come. */
  const int64_t seen = static_cast<int64_t>(load_relaxed(credits));
  if (seen <= 0) return 0;
  if (seen < static_cast<int64_t>(wanted)) wanted = static_cast<uint32_t>(seen);
  GMB_CHAOS_POINT(8);
  const int64_t found = static_cast<int64_t>(fetch_add_acq_rel(credits, ~static_cast<uint64_t>(wanted) + 1));
  if (found >= static_cast<int64_t>(wanted)) return wanted;
  const uint32_t got = found > 0 ? static_cast<uint32_t>(found) : 0;
  GMB_CHAOS_POINT(9);
  add_relaxed(credits, static_cast<uint64_t>(wanted - got));
  return got;
}

/* The leader's part: credits, and tickets for them. */
GMB_HD inline claim take_tickets(gmb_ring_side *side, uint32_t wanted) {
  claim mine = {0, take_credits(&side->credits, wanted)};
  GMB_CHAOS_POINT(10);
  /* Acquires, too: what made this ticket's slot free may have been seen only by whoever took the ticket before it. */
  if (mine.count > 0) mine.first = fetch_add_acq_rel(&side->claimed, static_cast<uint64_t>(mine.count));
  return mine;
}

template <class Group> GMB_HD inline claim take_together(const Group &group, gmb_ring_side *side, uint32_t wanted) {
  claim mine = {0, 0};
  if (group.lane() == 0) mine = take_tickets(side, wanted);
  return {group.from_leader(mine.first), group.from_leader(mine.count)};
}

/* Moves the limit `*upto` over what is `done` behind it, as far as that goes, and calls `moved(count)` for each move.
 * Called by whoever has made something done, after a fence_in_one_order: of several that did, the one whose fence is the
 * last sees what all of them did, and goes over it if nobody else has. */
template <class Done, class Moved> GMB_HD inline void move_limit(uint64_t *upto, const Done &done, const Moved &moved) {
  for (;;) {
    const uint64_t from = load_acquire(upto);
    uint32_t count = 0;
    while (count < GMB_MAX_RECORDS && done(from + count)) ++count;
    if (count == 0) return;
    GMB_CHAOS_POINT(11);
    if (replace_limit(upto, from, from + count)) moved(count);
  }
}

/* Slots that nobody reads any more are free. The writer's `floor` is the index up to which all are. */
GMB_HD inline void move_free(const shared_ring &ring) {
  gmb_ring_side *writer = &ring.header->writer;
  move_limit(
      &writer->floor,
      [&](uint64_t index) {
        return static_cast<int64_t>(index - load_acquire(&writer->committed)) < 0 && load_acquire(ring.unreleased(index)) == 0;
      },
      [&](uint32_t count) { fetch_add_acq_rel(&writer->credits, static_cast<uint64_t>(count)); });
}

/* Records are there up to the first that is not. */
GMB_HD inline void move_published(const shared_ring &ring) {
  gmb_ring_header *header = ring.header;
  const uint32_t readers = load_relaxed(&header->reader_mask);
  bool any = false;
  move_limit(
      &header->writer.committed, [&](uint64_t index) { return load_acquire(ring.sequence(index)) == index + 1; },
      [&](uint32_t count) {
        any = true;
        for (uint32_t r = 0; readers >> r != 0; ++r) {
          if (readers >> r & 1) fetch_add_acq_rel(&header->reader[r].credits, static_cast<uint64_t>(count));
        }
      });
  if (any && readers == 0) {
    fence_in_one_order();
    move_free(ring);
  }
}

/* Takes slots: as many as are free, `wanted` at most. They must be committed or abandoned, all of them. Does not block. */
template <class Group> GMB_HD inline claim reserve(const Group &group, const shared_ring &ring, uint32_t wanted) {
  return take_together(group, &ring.header->writer, wanted);
}

/* Gives the slots of a claim, all written, to the readers. */
template <class Group> GMB_HD inline void publish(const Group &group, const shared_ring &ring, const claim &mine) {
  uint32_t readers = 0;
  for (uint32_t mask = load_relaxed(&ring.header->reader_mask); mask != 0; mask &= mask - 1) ++readers;
  group.sync();
  fence_device();
  for (uint32_t i = group.lane(); i < mine.count; i += group.lanes()) {
    const uint64_t index = mine.first + i;
    store_relaxed(ring.unreleased(index), static_cast<uint64_t>(readers));
    GMB_CHAOS_POINT(12);
    store_release(ring.sequence(index), index + 1);
  }
  /* The leader's fence is for what the others published, too. */
  group.sync();
  if (group.lane() != 0) return;
  fence_in_one_order();
  move_published(ring);
}

/* A record's slot but for its sequence, which publishes it. */
GMB_HD inline void write_label(const shared_ring &ring, uint64_t index, uint32_t length, uint32_t type) {
  store_relaxed(&ring.at.slot(index)->hi, header_unit(0, length, type).hi);
}

/* What was reserved is not needed: readers pass it over. */
template <class Group> GMB_HD inline void abandon(const Group &group, const shared_ring &ring, const claim &mine) {
  if (mine.count == 0) return;
  for (uint32_t i = group.lane(); i < mine.count; i += group.lanes()) write_label(ring, mine.first + i, tombstone, 0);
  publish(group, ring, mine);
}

/* Pushes up to `from.count` records: the first so many that fit, or those before the first that is too long, which
 * `status` says. Which ones they became. Does not block. */
template <class Group>
GMB_HD inline claim push_shared(const Group &group, const shared_ring &ring, const source &from, int32_t &status) {
  uint32_t good = from.count;
  for (uint32_t i = group.lane(); i < good; i += group.lanes()) {
    if (from.length_of(i) > from.max_length) good = i;
  }
  good = group.least(good);
  status = good < from.count ? static_cast<int32_t>(GMB_ERROR_BAD_LENGTH) : static_cast<int32_t>(GMB_OK);
  const claim mine = good == 0 ? claim{0, 0} : reserve(group, ring, good);
  if (mine.count == 0) return mine;
  const uint32_t units = units_of(from.max_length);
  for (uint64_t n = group.lane(); n < static_cast<uint64_t>(mine.count) * units; n += group.lanes()) {
    const uint32_t i = static_cast<uint32_t>(n / units), u = static_cast<uint32_t>(n % units);
    const uint64_t index = mine.first + i;
    const uint32_t length = from.length_of(i) < from.max_length ? from.length_of(i) : from.max_length;
    if (u == 0) write_label(ring, index, length, from.type_of(i));
    else if (u < units_of(length)) ring.at.slot(index)[u] = row_of(from.records, i, from.stride)[u - 1];
  }
  publish(group, ring, mine);
  return mine;
}

/* Ends the reading of records by a reader. */
template <class Group> GMB_HD inline void release(const Group &group, const shared_ring &ring, const claim &mine) {
  group.sync();
  fence_device();
  bool last = false;
  for (uint32_t i = group.lane(); i < mine.count; i += group.lanes()) {
    GMB_CHAOS_POINT(13);
    last |= fetch_add_acq_rel(ring.unreleased(mine.first + i), ~static_cast<uint64_t>(0)) == 1;
  }
  if (group.least(last ? 0 : 1) != 0) return;
  group.sync();
  if (group.lane() != 0) return;
  fence_in_one_order();
  move_free(ring);
}

/* Pops up to `into.max` records of a reader, dense: those that are there, without those that were abandoned; so there may
 * be more when it gives fewer. How many. Does not block. `status` is CORRUPT when a slot did not hold its record: that
 * one is left out. */
template <class Group>
GMB_HD inline uint32_t pop_shared(const Group &group, const shared_ring &ring, uint32_t reader, const sink &into,
                                  int32_t &status) {
  const claim mine = take_together(group, &ring.header->reader[reader & (GMB_MAX_READERS - 1)], into.max);
  status = GMB_OK;
  uint32_t count = 0;
  for (uint32_t i = 0; i < mine.count; ++i) {
    const uint64_t index = mine.first + i;
    const unit *slot = ring.at.slot(index);
    const unit header = {load_relaxed(&slot->lo), load_relaxed(&slot->hi)};
    const uint32_t length = header_length(header);
    if (length == tombstone) continue;
    if (header.lo != index + 1 || length > ring.at.payload_bytes) {
      status = GMB_ERROR_CORRUPT;
      continue;
    }
    if (group.lane() == 0 && into.headers) *reinterpret_cast<unit *>(into.headers + count) = header;
    for (uint32_t u = 1 + group.lane(); u < units_of(length); u += group.lanes()) {
      row_of(into.records, count, into.stride)[u - 1] = slot[u];
    }
    ++count;
    GMB_CHAOS_POINT(14);
  }
  if (mine.count > 0) release(group, ring, mine);
  return count;
}

}  // namespace ring
}  // namespace gmb

#endif
