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

#include "ordered.cuh"

namespace gmb {
namespace ring {

/* The length of a slot whose producer had nothing to put there. */
constexpr uint32_t tombstone = ~0u;

/* A ring in shared mode. Behind its slots each has a word, its state. */
struct shared_ring {
  gmb_ring_header *header;
  geometry at;

  GMB_HD explicit shared_ring(gmb_ring_header *ring) : header(ring), at(ring) {}
  GMB_HD shared_ring(gmb_ring_header *ring, const geometry &slots) : header(ring), at(slots) {}
  GMB_HD uint64_t *state(uint64_t index) const {
    return reinterpret_cast<uint64_t *>(at.slots + at.capacity() * at.stride) + (static_cast<uint32_t>(index) & at.mask);
  }
};

/* A slot's state: which record was published there last, and how many readers have not released that. Zero before the
 * first: that is nobody's, whatever the indices begin with. */
constexpr uint64_t unreleased_readers = 31, was_published = 32;
GMB_HD inline uint64_t published_state(uint64_t index, uint32_t readers) { return (index + 1) << 6 | was_published | readers; }
GMB_HD inline bool is_published(uint64_t state, uint64_t index) {
  return (state | unreleased_readers) == published_state(index, static_cast<uint32_t>(unreleased_readers));
}
static_assert(GMB_MAX_READERS <= unreleased_readers, "their number fits a state");

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

/* All of the credits that are wanted, or none. */
GMB_HD inline bool take_all_credits(uint64_t *credits, uint32_t wanted) {
  if (static_cast<int64_t>(load_relaxed(credits)) < static_cast<int64_t>(wanted)) return false;
  GMB_CHAOS_POINT(8);
  if (static_cast<int64_t>(fetch_add_acq_rel(credits, ~static_cast<uint64_t>(wanted) + 1)) >= static_cast<int64_t>(wanted)) return true;
  add_relaxed(credits, static_cast<uint64_t>(wanted));
  return false;
}

/* Tickets for credits. Acquires, too: what made a ticket's slot free may have been seen only by whoever took the ticket
 * before it. */
GMB_HD inline claim take_tickets(gmb_ring_side *side, uint32_t credits) {
  GMB_CHAOS_POINT(10);
  return {credits > 0 ? fetch_add_acq_rel(&side->claimed, static_cast<uint64_t>(credits)) : 0, credits};
}

template <class Group> GMB_HD inline claim take_together(const Group &group, gmb_ring_side *side, uint32_t wanted) {
  claim mine = {0, 0};
  if (group.lane() == 0) mine = take_tickets(side, take_credits(&side->credits, wanted));
  return {group.from_leader(mine.first), group.from_leader(mine.count)};
}

/* States that a lane looks at in one trip to memory. */
constexpr uint32_t states_in_flight = 4;

/* Moves the limit `*upto` over what is `done` behind it, as far as that goes, and the leader calls `moved(count)` for each
 * move. Called by whoever has made something done, its leader after a fence_in_one_order: of several that did, the one
 * whose fence is the last sees what all of them did, and goes over it if nobody else has. What is `known` to be done is
 * not looked at. */
template <class Group, class Done, class Moved>
GMB_HD inline void move_limit(const Group &group, uint64_t *upto, const claim &known, const Done &done, const Moved &moved) {
  for (;;) {
    const uint64_t from = group.from_leader(group.lane() == 0 ? load_acquire(upto) : 0);
    uint64_t to = from - known.first < known.count ? known.first + known.count : from;
    const uint32_t each = states_in_flight * group.lanes();
    for (uint32_t run = each; run == each && to - from < GMB_MAX_RECORDS;) {
      uint32_t first_not = each;
      GMB_UNROLL
      for (uint32_t k = 0; k < states_in_flight; ++k) {
        const uint32_t i = k * group.lanes() + group.lane();
        if (!done(to + i) && i < first_not) first_not = i;
      }
      run = group.least(first_not);
      to += run;
    }
    fence_acquire();
    if (to == from) return;
    GMB_CHAOS_POINT(11);
    if (group.lane() == 0 && replace_limit(upto, from, to)) moved(to - from);
  }
}

/* Slots that nobody reads any more are free. The writer's `floor` is the index up to which all are. */
template <class Group> GMB_HD inline void move_free(const Group &group, const shared_ring &ring, const claim &known) {
  gmb_ring_side *writer = &ring.header->writer;
  /* A reader has taken what it has released. Without one, no slot may be written again that the other limit is not past. */
  const bool read = load_relaxed(&ring.header->reader_mask) != 0;
  move_limit(
      group, &writer->floor, known,
      [&](uint64_t index) {
        const uint64_t state = load_ahead(ring.state(index));
        return is_published(state, index) && (state & unreleased_readers) == 0 &&
               (read || static_cast<int64_t>(index - load_ahead(&writer->committed)) < 0);
      },
      [&](uint64_t count) { fetch_add_acq_rel(&writer->credits, count); });
}

/* Records are there up to the first that is not. */
template <class Group> GMB_HD inline void move_published(const Group &group, const shared_ring &ring, const claim &known) {
  gmb_ring_header *header = ring.header;
  const uint32_t readers = load_relaxed(&header->reader_mask);
  move_limit(
      group, &header->writer.committed, known, [&](uint64_t index) { return is_published(load_ahead(ring.state(index)), index); },
      [&](uint64_t count) {
        for (uint32_t r = 0; readers >> r != 0; ++r) {
          if (readers >> r & 1) fetch_add_acq_rel(&header->reader[r].credits, count);
        }
      });
  if (readers != 0) return;
  if (group.lane() == 0) fence_in_one_order();
  move_free(group, ring, claim{0, 0});
}

/* Takes slots: as many as are free, `wanted` at most. They must be committed or abandoned, all of them. Does not block. */
template <class Group> GMB_HD inline claim reserve(const Group &group, const shared_ring &ring, uint32_t wanted) {
  return take_together(group, &ring.header->writer, wanted);
}

/* Marks slots of a claim that are written as published. Behind a sync and each lane's fence_device. */
GMB_HD inline void mark_published(const shared_ring &ring, const claim &part, uint32_t lane, uint32_t lanes) {
  uint32_t readers = 0;
  for (uint32_t mask = load_relaxed(&ring.header->reader_mask); mask != 0; mask &= mask - 1) ++readers;
  for (uint32_t i = lane; i < part.count; i += lanes) {
    GMB_CHAOS_POINT(12);
    store_release(ring.state(part.first + i), published_state(part.first + i, readers));
  }
}

/* Gives the slots of a claim, all written, to the readers. */
template <class Group> GMB_HD inline void publish(const Group &group, const shared_ring &ring, const claim &mine) {
  group.sync();
  fence_device();
  mark_published(ring, mine, group.lane(), group.lanes());
  /* The leader's fence is for what the others published, too. */
  group.sync();
  if (group.lane() == 0) fence_in_one_order();
  move_published(group, ring, mine);
}

/* A record's first unit. */
GMB_HD inline void write_label(const shared_ring &ring, uint64_t index, uint32_t length, uint32_t type) {
  *ring.at.slot(index) = header_unit(index + 1, length, type);
}

/* Before they are published: whoever finds one knows that there are some. */
GMB_HD inline void count_abandoned(const shared_ring &ring, uint32_t count) {
  if (load_relaxed(&ring.header->reader_mask) != 0) add_relaxed(&ring.header->writer.abandoned, static_cast<uint64_t>(count));
}

/* What was reserved is not needed: readers pass it over. */
template <class Group> GMB_HD inline void abandon(const Group &group, const shared_ring &ring, const claim &mine) {
  if (mine.count == 0) return;
  for (uint32_t i = group.lane(); i < mine.count; i += group.lanes()) write_label(ring, mine.first + i, tombstone, 0);
  if (group.lane() == 0) count_abandoned(ring, mine.count);
  publish(group, ring, mine);
}

/* Pushes up to `from.count` records: the first so many that fit, or those before the first that is too long, which
 * `status` says; of a whole push all or none. Which ones they became. Does not block. */
template <class Group>
GMB_HD inline claim push_shared(const Group &group, const shared_ring &ring, const source &from, int32_t &status) {
  const uint32_t good = first_too_long(group, from);
  status = good < from.count ? static_cast<int32_t>(GMB_ERROR_BAD_LENGTH) : static_cast<int32_t>(GMB_OK);
  claim mine = {0, 0};
  if (group.lane() == 0 && good > 0 && !(from.whole && good < from.count)) {
    gmb_ring_side *side = &ring.header->writer;
    const uint32_t credits = from.whole ? (take_all_credits(&side->credits, good) ? good : 0) : take_credits(&side->credits, good);
    mine = take_tickets(side, credits);
  }
  mine = {group.from_leader(mine.first), group.from_leader(mine.count)};
  if (mine.count == 0) return mine;
  write_records(group, ring.at, mine.first, mine.count, from);
  publish(group, ring, mine);
  return mine;
}

/* Marks records of a claim as released by one reader; how many of them this was the last one of. Behind a sync and each
 * lane's fence_device. */
GMB_HD inline uint32_t mark_released(const shared_ring &ring, const claim &part, uint32_t lane, uint32_t lanes) {
  uint32_t last = 0;
  for (uint32_t i = lane; i < part.count; i += lanes) {
    const uint64_t index = part.first + i;
    const bool abandoned = header_length(*ring.at.slot(index)) == tombstone;
    GMB_CHAOS_POINT(13);
    const uint64_t before = fetch_add_acq_rel(ring.state(index), ~static_cast<uint64_t>(0));
    if ((before & unreleased_readers) != 1) continue;
    ++last;
    if (abandoned) add_relaxed(&ring.header->writer.abandoned, ~static_cast<uint64_t>(0));
  }
  return last;
}

/* Ends the reading of records by a reader. */
template <class Group> GMB_HD inline void release(const Group &group, const shared_ring &ring, const claim &mine) {
  group.sync();
  fence_device();
  const uint32_t last = mark_released(ring, mine, group.lane(), group.lanes());
  if (group.least(last > 0 ? 0 : 1) != 0) return;
  group.sync();
  if (group.lane() == 0) fence_in_one_order();
  move_free(group, ring, claim{0, 0});
}

/* Pops up to `into.max` records of a reader, dense: those that are there, without those that were abandoned; so there may
 * be more when it gives fewer. How many. Does not block. `status` is CORRUPT when a slot did not hold its record: that
 * one is left out. */
template <class Group>
GMB_HD inline uint32_t pop_shared(const Group &group, const shared_ring &ring, uint32_t reader, const sink &into,
                                  int32_t &status) {
  status = GMB_OK;
  uint32_t count = 0;
  /* Not nothing while there is something behind what was abandoned. */
  while (count == 0) {
    const claim mine = take_together(group, &ring.header->reader[reader & (GMB_MAX_READERS - 1)], into.max);
    if (mine.count == 0) break;
    for (uint32_t i = 0; i < mine.count; ++i) {
      const unit header = *ring.at.slot(mine.first + i);
      if (header_length(header) == tombstone) continue;
      if (read_record(group, ring.at, mine.first + i, header, into, count)) ++count;
      else status = GMB_ERROR_CORRUPT;
      GMB_CHAOS_POINT(14);
    }
    release(group, ring, mine);
    if (status != GMB_OK) break;
  }
  return count;
}

}  // namespace ring
}  // namespace gmb

#endif
