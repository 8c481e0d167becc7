/* The ring protocol, ordered mode: one pushing and, per reader, one popping
 * operation at a time; a push and a pop may overlap.
 *
 * An operation is run by all threads of all blocks of a launch. Each block
 * reads the opposite index with acquire and may see another value than its
 * neighbours, so each copies what it sees, combines its grant into the side's
 * word with an atomic minimum and arrives; the last block publishes the
 * minimum. What was copied beyond it is not published. Indices are 64-bit,
 * monotonic and may wrap; slot i holds records i, i + capacity, ... */
#ifndef GPUMAILBOX_RING_CUH
#define GPUMAILBOX_RING_CUH

#include <gpumailbox.h>

#include "platform.cuh"

static_assert(sizeof(gmb_record_header) == 16, "record header");
static_assert(sizeof(gmb_result) == 24, "result");
static_assert(sizeof(gmb_ring_side) == 512, "ring side");
static_assert(offsetof(gmb_ring_side, committed) == 128, "ring side");
static_assert(offsetof(gmb_ring_side, grant) == 256, "ring side");
static_assert(offsetof(gmb_ring_side, operations) == 384, "ring side");
static_assert(offsetof(gmb_ring_header, writer) == 128, "ring header");
static_assert(offsetof(gmb_ring_header, reader) == 640, "ring header");
static_assert(sizeof(gmb_ring_header) == 128 + 17 * 512, "ring header");

namespace gmb {
namespace ring {

/* Records to push. `lengths` and `types` may be null: then `length` and `type` hold for all. */
struct source {
  const unsigned char *records;
  uint64_t stride;
  const uint32_t *lengths;
  const uint32_t *types;
  uint32_t count;
  uint32_t length;
  uint32_t type;
  uint32_t max_length; /* at most the payload size */
  bool whole;          /* all of them or none */
};

/* Where popped records go. `headers` may be null. */
struct sink {
  unsigned char *records;
  uint64_t stride;
  gmb_record_header *headers;
  uint32_t max;
};

/* Where the outcome is reported; each may be null. */
struct report {
  gmb_result *device_result;
  uint64_t *host_slot;     /* {epoch, count | bits}, {status, flags, epoch}, {lost, epoch} */
  uint64_t *host_progress; /* index << 24 | operations & 0xffffff */
  uint32_t operation;      /* tells this operation's blocks from those of another */
};

/* Bits of the count in a host slot's first word. */
constexpr uint64_t slot_partial = 1ull << 62;
constexpr uint64_t slot_detail = 1ull << 63; /* the second word holds status and flags, the third what was lost */

constexpr uint64_t most_lost = (1ull << 40) - 1; /* that the third word can tell */

/* A grant and the error that ended it, ordered by grant first. */
GMB_HD inline uint64_t grant_word(uint64_t count, int32_t status) {
  return (count << 8) | static_cast<uint64_t>(static_cast<uint32_t>(-status) & 0xffu);
}
GMB_HD inline uint64_t grant_count(uint64_t word) { return word >> 8; }
GMB_HD inline int32_t grant_status(uint64_t word) { return -static_cast<int32_t>(word & 0xff); }

/* The header's constants, read once: stores to slots could alias the header. */
struct geometry {
  unsigned char *slots;
  uint64_t mask;
  uint64_t stride;
  uint32_t payload_bytes;

  GMB_HD explicit geometry(gmb_ring_header *ring)
      : slots(reinterpret_cast<unsigned char *>(ring) + ring->header_bytes),
        mask(ring->capacity - 1),
        stride(ring->stride),
        payload_bytes(ring->payload_bytes) {}
  GMB_HD unit *slot(uint64_t index) const { return reinterpret_cast<unit *>(slots + (index & mask) * stride); }
  /* Units of the largest record, its header among them. */
  GMB_HD uint32_t most_units() const { return 1 + (payload_bytes + 15) / 16; }
};

/* Which records a thread works on, and which part of each: `lanes` threads, a
 * power of two that divides the block, move one record together. */
struct share {
  uint32_t lane;
  uint64_t group;
  uint64_t groups;

  template <class Block>
  GMB_HD share(const Block &block, uint32_t lanes) {
    const uint32_t per_block = block.threads() / lanes;
    lane = block.thread() & (lanes - 1);
    group = static_cast<uint64_t>(block.block()) * per_block + block.thread() / lanes;
    groups = static_cast<uint64_t>(block.blocks()) * per_block;
  }
};

GMB_HD inline int32_t check_header(const gmb_ring_header *ring) {
  if (ring->magic != GMB_MAGIC) return GMB_ERROR_BAD_MAGIC;
  if (ring->version != GMB_LAYOUT_VERSION) return GMB_ERROR_BAD_VERSION;
  return GMB_OK;
}

/* Index before which every reader in use has released its records; without one, all are. */
GMB_HD inline uint64_t slowest_reader(gmb_ring_header *ring, uint64_t writer) {
  const uint32_t readers = load_relaxed(&ring->reader_mask);
  uint64_t most = 0;
  for (uint32_t r = 0; r < GMB_MAX_READERS; ++r) {
    if ((readers >> r & 1) == 0) continue;
    const uint64_t behind = writer - load_acquire(&ring->reader[r].committed);
    if (behind > most) most = behind;
  }
  return writer - most;
}

/* Tells device, then host. The host's words are written last: whoever sees
 * them sees the records. */
GMB_HD inline void tell(const report &to, uint64_t count, uint64_t asked, int32_t status, uint64_t index,
                        uint64_t operations, uint64_t lost = 0) {
  const uint32_t flags = (count < asked ? GMB_RESULT_PARTIAL : 0) | (lost != 0 ? GMB_RESULT_LOST : 0);
  uint32_t epoch = 1;
  if (to.device_result) {
    epoch = to.device_result->epoch + 1;
    to.device_result->count = static_cast<uint32_t>(count);
    to.device_result->status = status;
    to.device_result->flags = flags;
    to.device_result->lost = lost;
    store_release(&to.device_result->epoch, epoch);
  }
  if (!to.host_slot && !to.host_progress) return;
  fence_system();
  if (to.host_progress) store_system(to.host_progress, (index << 24) | (operations & 0xffffff));
  if (to.host_slot) {
    uint64_t word = static_cast<uint64_t>(epoch) | (count << 32);
    if (flags & GMB_RESULT_PARTIAL) word |= slot_partial;
    if (status != GMB_OK || lost != 0) {
      word |= slot_detail;
      /* Tagged with the epoch, so that nobody takes them for those of another operation. */
      const uint64_t tag = static_cast<uint64_t>(epoch & 0xffffff) << 40;
      store_system(to.host_slot + 2, (lost < most_lost ? lost : most_lost) | tag);
      store_system(to.host_slot + 1, static_cast<uint64_t>(static_cast<uint32_t>(status)) |
                                         (static_cast<uint64_t>(flags) << 32) | tag);
      fence_system();
    }
    store_system(to.host_slot, word);
  }
}

/* One side's part of an operation as a block holds it. */
struct turn {
  uint64_t first; /* index of the operation's first record */
  uint64_t room;  /* records this block may move */
  int32_t status; /* why room is zero, if an error is why */
};

/* The leader's reading of the header, made known to the whole block. */
template <class Block, class Room>
GMB_HD inline turn take_turn(const Block &block, gmb_ring_header *ring, gmb_ring_side *side, const Room &room) {
  turn t;
  t.status = check_header(ring);
  t.first = 0;
  t.room = 0;
  if (t.status != GMB_OK) return t;
  t.first = load_relaxed(&side->committed);
  if (block.thread() == 0) {
    GMB_CHAOS_POINT(6);
    int32_t fault = load_relaxed(&ring->fault);
    if (block.blocks() == 1 && load_relaxed(&side->arrivals) != 0) fault = GMB_ERROR_ORDER_VIOLATION;
    *block.word = fault != GMB_OK ? grant_word(0, fault) : grant_word(room(t.first), GMB_OK);
  }
  block.sync();
  t.room = grant_count(*block.word);
  block.sync();
  return t;
}

/* The side's arrivals: blocks in the low half, the sum of their operations'
 * numbers in the high half. Blocks of two operations at once show in the sum. */
GMB_HD inline uint64_t arrival(uint32_t operation, uint32_t blocks) {
  return (static_cast<uint64_t>(operation * blocks) << 32) | blocks;
}

/* Stops the mailbox: two operations of one side ran at once. Nothing of this
 * one is published. */
GMB_HD inline void violation(gmb_ring_header *ring, gmb_ring_side *side, const turn &t, uint64_t asked,
                             const report &to) {
  store_relaxed(&ring->fault, static_cast<int32_t>(GMB_ERROR_ORDER_VIOLATION));
  const uint64_t operations = load_relaxed(&side->operations) + 1;
  store_relaxed(&side->operations, operations);
  tell(to, 0, asked, GMB_ERROR_ORDER_VIOLATION, t.first, operations);
}

/* Combines a block's grant with those of the others. True for the last block to
 * arrive, with the minimum in `word`; its errors are those of the whole operation. */
GMB_HD inline bool arrive_last(uint32_t blocks, gmb_ring_side *side, uint32_t operation, uint64_t &word) {
  if (blocks <= 1) return true;
  fetch_min_relaxed(&side->grant, word);
  GMB_CHAOS_POINT(2);
  const uint64_t mine = arrival(operation, 1);
  const uint64_t all = arrival(operation, blocks);
  const uint64_t arrived = fetch_add_acq_rel(&side->arrivals, mine) + mine;
  if (static_cast<uint32_t>(arrived) < blocks) return false;
  /* The arrivals stay then, so that every block that comes later sees it too
   * and the result of every operation is told. */
  if (arrived != all) {
    word = grant_word(0, GMB_ERROR_ORDER_VIOLATION);
    return true;
  }
  word = load_relaxed(&side->grant);
  store_relaxed(&side->grant, ~static_cast<uint64_t>(0));
  fetch_sub_relaxed(&side->arrivals, all);
  return true;
}

/* Counts an operation that ended, and tells of it. */
GMB_HD inline void account(gmb_ring_header *ring, gmb_ring_side *side, uint64_t count, uint64_t asked, int32_t status,
                           uint64_t end, const report &to, uint64_t lost = 0) {
  const uint64_t operations = load_relaxed(&side->operations) + 1;
  store_relaxed(&side->operations, operations);
  if (count < asked) store_relaxed(&side->refused, load_relaxed(&side->refused) + (asked - count));
  if (count == 0) store_relaxed(&side->empty, load_relaxed(&side->empty) + 1);
  if (lost != 0) store_relaxed(&side->lost, load_relaxed(&side->lost) + lost);
  if (side == &ring->writer) {
    uint64_t held = end - slowest_reader(ring, end);
    if (held > ring->capacity) held = ring->capacity;
    if (held > load_relaxed(&side->high_water)) store_relaxed(&side->high_water, held);
  }
  tell(to, count, asked, status, end, operations, lost);
}

/* Ends an operation for this block, and for all if it is the last to arrive. */
template <class Block>
GMB_HD inline void end_turn(const Block &block, gmb_ring_header *ring, gmb_ring_side *side, const turn &t,
                            uint64_t asked, bool whole, const report &to) {
  block.sync();
  if (block.thread() != 0) return;
  GMB_CHAOS_POINT(1);
  uint64_t word = *block.word;
  if (!arrive_last(block.blocks(), side, to.operation, word)) return;
  const uint64_t count = whole && grant_count(word) < asked ? 0 : grant_count(word);
  const uint64_t end = t.first + count;
  GMB_CHAOS_POINT(3);
  /* If the side's index moved meanwhile, another operation of it ran. */
  if (grant_status(word) == GMB_ERROR_ORDER_VIOLATION || !replace_release(&side->committed, t.first, end)) {
    return violation(ring, side, t, asked, to);
  }
  GMB_CHAOS_POINT(3);
  store_relaxed(&side->claimed, end);
  account(ring, side, count, asked, grant_status(word), end, to);
}

/* A header that is not ours names no side to arrive at: one block reports. */
template <class Block>
GMB_HD inline void refuse(const Block &block, int32_t status, uint64_t asked, const report &to) {
  if (block.block() != 0 || block.thread() != 0) return;
  /* The side's own counts are out of reach: go on from what the host was told last. */
  const uint64_t told = to.host_progress ? *to.host_progress : 0;
  tell(to, 0, asked, status, told >> 24, told + 1);
}

/* Records a thread moves at once, to keep several loads in flight. */
constexpr int records_in_flight = 4;

/* Pushes up to `from.count` records: the first so many that fit, or those
 * before the first bad length; of a whole push all or none. */
template <class Block>
GMB_HD inline void push(const Block &block, gmb_ring_header *ring, const source &from, uint32_t lanes,
                        const report &to) {
  gmb_ring_side *side = &ring->writer;
  const turn t = take_turn(block, ring, side, [&](uint64_t first) {
    const uint64_t free = ring->capacity - (first - slowest_reader(ring, first));
    return from.count < free ? static_cast<uint64_t>(from.count) : free;
  });
  if (t.status != GMB_OK) return refuse(block, t.status, from.count, to);

  const geometry at(ring);
  const share mine(block, lanes);

  for (uint64_t base = mine.group; base < t.room; base += mine.groups * records_in_flight) {
    uint32_t length[records_in_flight];
    uint32_t units[records_in_flight]; /* zero: no record to move */
    GMB_UNROLL
    for (int k = 0; k < records_in_flight; ++k) {
      const uint64_t i = base + k * mine.groups;
      length[k] = units[k] = 0;
      if (i >= t.room) continue;
      length[k] = from.lengths ? from.lengths[i] : from.length;
      if (length[k] > from.max_length) {
        block.lower_word(grant_word(i, GMB_ERROR_BAD_LENGTH));
      } else {
        units[k] = 1 + (length[k] + 15) / 16;
      }
    }
    for (uint32_t u = mine.lane; u < at.most_units(); u += lanes) {
      unit moved[records_in_flight];
    GMB_UNROLL
      for (int k = 0; k < records_in_flight; ++k) {
        const uint64_t i = base + k * mine.groups;
        if (u >= units[k]) continue;
        moved[k] = u == 0 ? header_unit(t.first + i + 1, length[k], from.types ? from.types[i] : from.type)
                          : *reinterpret_cast<const unit *>(from.records + i * from.stride + (u - 1) * 16);
      }
    GMB_UNROLL
      for (int k = 0; k < records_in_flight; ++k) {
        const uint64_t i = base + k * mine.groups;
        if (u >= units[k]) continue;
        at.slot(t.first + i)[u] = moved[k];
      }
    }
    GMB_CHAOS_POINT(4);
  }
  end_turn(block, ring, side, t, from.count, from.whole, to);
}

/* Pops up to `into.max` records for one reader: those published, or those
 * before the first slot that does not hold the record it should. */
template <class Block>
GMB_HD inline void pop(const Block &block, gmb_ring_header *ring, uint32_t reader, const sink &into, uint32_t lanes,
                       const report &to) {
  gmb_ring_side *side = &ring->reader[reader & (GMB_MAX_READERS - 1)];
  const turn t = take_turn(block, ring, side, [&](uint64_t first) {
    const uint64_t ready = load_acquire(&ring->writer.committed) - first;
    return into.max < ready ? static_cast<uint64_t>(into.max) : ready;
  });
  if (t.status != GMB_OK) return refuse(block, t.status, into.max, to);

  const geometry at(ring);
  const share mine(block, lanes);

  for (uint64_t base = mine.group; base < t.room; base += mine.groups * records_in_flight) {
    unit header[records_in_flight];
    bool good[records_in_flight];
    GMB_UNROLL
    for (int k = 0; k < records_in_flight; ++k) {
      const uint64_t i = base + k * mine.groups;
      good[k] = i < t.room;
      if (good[k]) header[k] = *at.slot(t.first + i);
    }
    for (uint32_t u = mine.lane; u < at.most_units(); u += lanes) {
      unit moved[records_in_flight];
    GMB_UNROLL
      for (int k = 0; k < records_in_flight; ++k) {
        const uint64_t i = base + k * mine.groups;
        if (good[k] && u > 0) moved[k] = at.slot(t.first + i)[u];
      }
    GMB_UNROLL
      for (int k = 0; k < records_in_flight; ++k) {
        const uint64_t i = base + k * mine.groups;
        if (!good[k]) continue;
        if (header[k].lo != t.first + i + 1 || header_length(header[k]) > at.payload_bytes) {
          block.lower_word(grant_word(i, GMB_ERROR_CORRUPT));
          good[k] = false;
        } else if (u == 0) {
          if (into.headers) *reinterpret_cast<unit *>(into.headers + i) = header[k];
        } else if (u <= (header_length(header[k]) + 15) / 16) {
          *reinterpret_cast<unit *>(into.records + i * into.stride + (u - 1) * 16) = moved[k];
        }
      }
    }
    GMB_CHAOS_POINT(5);
  }
  end_turn(block, ring, side, t, into.max, false, to);
}

}  // namespace ring
}  // namespace gmb

#endif
