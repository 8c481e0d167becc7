/* The ring protocol, ordered mode, for kernels of one's own: one group of threads pushes and one pops, each for as long as
 * it likes. Only the two indices say what is there. */
#ifndef GPUMAILBOX_ORDERED_CUH
#define GPUMAILBOX_ORDERED_CUH

#include "ring.cuh"

namespace gmb {
namespace ring {

/* The first record of several that is too long, or their number. All of the group call it. */
template <class Group> GMB_HD inline uint32_t first_too_long(const Group &group, const source &from) {
  uint32_t good = from.count;
  for (uint32_t i = group.lane(); i < good; i += group.lanes()) {
    if (from.length_of(i) > from.max_length) good = i;
  }
  return group.least(good);
}

/* Copies records into the slots from index `first` on. */
template <class Group>
GMB_HD inline void write_records(const Group &group, const geometry &at, uint64_t first, uint32_t count, const source &from) {
  const uint32_t units = units_of(from.max_length);
  for (uint64_t n = group.lane(); n < static_cast<uint64_t>(count) * units; n += group.lanes()) {
    const uint32_t i = static_cast<uint32_t>(n / units), u = static_cast<uint32_t>(n % units);
    const uint32_t length = from.length_of(i);
    if (u == 0) *at.slot(first + i) = header_unit(first + i + 1, length, from.type_of(i));
    else if (u < units_of(length)) at.slot(first + i)[u] = row_of(from.records, i, from.stride)[u - 1];
  }
}

/* Copies a record out to row `i`; all of the group. False if the slot does not hold it. */
template <class Group>
GMB_HD inline bool read_record(const Group &group, const geometry &at, uint64_t index, const unit &header, const sink &into,
                               uint32_t i) {
  const uint32_t length = header_length(header);
  if (header.lo != index + 1 || length > at.payload_bytes) return false;
  if (group.lane() == 0 && into.headers) *reinterpret_cast<unit *>(into.headers + i) = header;
  const unit *slot = at.slot(index);
  for (uint32_t u = 1 + group.lane(); u < units_of(length); u += group.lanes()) row_of(into.records, i, into.stride)[u - 1] = slot[u];
  return true;
}

/* Moves a side's index on, by its only operation. */
template <class Group>
GMB_HD inline bool hand_over(const Group &group, gmb_ring_header *ring, gmb_ring_side *side, uint64_t first, uint32_t count) {
  group.sync();
  uint64_t alone = 1;
  if (group.lane() == 0 && count > 0) {
    fence_device();
    store_fenced(&side->claimed, first + count);
    alone = replace_fenced(&side->committed, first, first + count);
    if (!alone) store_relaxed(&ring->fault, static_cast<int32_t>(GMB_ERROR_ORDER_VIOLATION));
  }
  return group.from_leader(alone) != 0;
}

/* Pushes up to `from.count` records: the first so many that fit, or those before the first that is too long; of a whole push
 * all or none. How many; `status` says why not all. Does not block. */
template <class Group>
GMB_HD inline uint32_t push_ordered(const Group &group, gmb_ring_header *ring, const geometry &at, const source &from, int32_t &status) {
  gmb_ring_side *side = &ring->writer;
  const uint32_t good = first_too_long(group, from);
  status = good < from.count ? static_cast<int32_t>(GMB_ERROR_BAD_LENGTH) : static_cast<int32_t>(GMB_OK);
  uint64_t first = 0, count = 0;
  int32_t fault = GMB_OK;
  if (group.lane() == 0) {
    first = load_relaxed(&side->committed);
    fault = load_relaxed(&ring->fault);
    const uint64_t unread = most_unread(ring, load_relaxed(&ring->reader_mask), first);
    fence_acquire();
    const uint64_t room = at.capacity() - unread;
    count = good < room ? good : room;
    if (fault != GMB_OK || (from.whole && count < from.count)) count = 0;
  }
  first = group.from_leader(first);
  count = group.from_leader(count);
  fault = static_cast<int32_t>(group.from_leader(static_cast<uint32_t>(fault)));
  if (fault != GMB_OK) status = fault;
  write_records(group, at, first, static_cast<uint32_t>(count), from);
  GMB_CHAOS_POINT(4);
  if (hand_over(group, ring, side, first, static_cast<uint32_t>(count))) return static_cast<uint32_t>(count);
  status = GMB_ERROR_ORDER_VIOLATION;
  return 0;
}

/* Pops up to `into.max` records of a reader: those that are there, or those before the first slot that does not hold the
 * record it should. How many; `status` says what was wrong. Does not block. */
template <class Group>
GMB_HD inline uint32_t pop_ordered(const Group &group, gmb_ring_header *ring, const geometry &at, uint32_t reader, const sink &into,
                                   int32_t &status) {
  gmb_ring_side *side = &ring->reader[reader & (GMB_MAX_READERS - 1)];
  uint64_t first = 0, count = 0;
  int32_t fault = GMB_OK;
  if (group.lane() == 0) {
    first = load_relaxed(&side->committed);
    fault = load_relaxed(&ring->fault);
    const uint64_t ready = load_acquire(&ring->writer.committed) - first;
    count = fault != GMB_OK ? 0 : ready < into.max ? ready : into.max;
  }
  first = group.from_leader(first);
  count = group.from_leader(count);
  status = static_cast<int32_t>(group.from_leader(static_cast<uint32_t>(fault)));
  uint32_t done = 0;
  while (done < count && read_record(group, at, first + done, *at.slot(first + done), into, done)) ++done;
  if (done < count) status = GMB_ERROR_CORRUPT;
  GMB_CHAOS_POINT(5);
  if (hand_over(group, ring, side, first, done)) return done;
  status = GMB_ERROR_ORDER_VIOLATION;
  return 0;
}

}  // namespace ring
}  // namespace gmb

#endif
