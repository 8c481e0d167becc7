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
  uint32_t max_length; /* at most the payload size; so much of every row can be read */
  bool whole;          /* all of them or none */
  uint32_t readers;    /* those probably in use: they are looked at first */
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
  uint32_t epoch;          /* of the result; zero for one more than what the device's result has */
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

/* Where the slots lie. A kernel gets it as an argument: reading the header for it would take a trip to memory. */
struct geometry {
  unsigned char *slots;
  uint32_t mask; /* there are at most GMB_MAX_RECORDS slots */
  uint32_t stride;
  uint32_t payload_bytes;

  GMB_HD geometry(gmb_ring_header *ring, uint64_t header_bytes, uint64_t capacity, uint32_t stride_bytes,
                  uint32_t payload)
      : slots(reinterpret_cast<unsigned char *>(ring) + header_bytes),
        mask(static_cast<uint32_t>(capacity) - 1),
        stride(stride_bytes),
        payload_bytes(payload) {}
  GMB_HD explicit geometry(gmb_ring_header *ring)
      : geometry(ring, ring->header_bytes, ring->capacity, ring->stride, ring->payload_bytes) {}
  GMB_HD unit *slot(uint64_t index) const {
    return reinterpret_cast<unit *>(slots + static_cast<uint64_t>(static_cast<uint32_t>(index) & mask) * stride);
  }
  GMB_HD uint64_t capacity() const { return static_cast<uint64_t>(mask) + 1; }
};

/* Units that so many bytes take in a slot, the header's among them. */
GMB_HD inline uint32_t units_of(uint32_t bytes) { return 1 + bytes / 16 + (bytes % 16 != 0); }

/* Which records a thread works on, and which part of each: `lanes` threads, a
 * power of two that divides the block, move one record together. */
struct share {
  uint32_t lane;
  uint32_t group;
  uint32_t groups;

  template <class Block>
  GMB_HD share(const Block &block, uint32_t lanes) {
    const uint32_t per_block = block.threads() / lanes;
    lane = block.thread() & (lanes - 1);
    group = block.block() * per_block + block.thread() / lanes;
    groups = block.blocks() * per_block;
  }
};

GMB_HD inline int32_t check_words(uint64_t magic, uint32_t version) {
  if (magic != GMB_MAGIC) return GMB_ERROR_BAD_MAGIC;
  return version == GMB_LAYOUT_VERSION ? GMB_OK : GMB_ERROR_BAD_VERSION;
}
GMB_HD inline int32_t check_header(const gmb_ring_header *ring) { return check_words(ring->magic, ring->version); }

/* What a side has counted, and the epoch of the result it tells next. */
struct books {
  uint64_t operations;
  uint64_t refused;
  uint64_t empty;
  uint64_t high_water;
  uint64_t lost;
  uint32_t epoch;
};

/* Only the operations of this side change these, one after the other: they are loaded when there is time. */
GMB_HD inline books open_books(gmb_ring_side *side, const report &to) {
  books kept;
  kept.operations = load_relaxed(&side->operations);
  kept.refused = load_relaxed(&side->refused);
  kept.empty = load_relaxed(&side->empty);
  kept.high_water = load_relaxed(&side->high_water);
  kept.lost = load_relaxed(&side->lost);
  kept.epoch = to.epoch != 0 ? to.epoch - 1 : to.device_result ? load_relaxed(&to.device_result->epoch) : 0;
  return kept;
}

/* How an operation ended. */
struct ending {
  uint64_t count;
  uint64_t asked;
  int32_t status;
  uint64_t index;      /* of the side afterwards */
  uint64_t operations; /* of the side, with this one */
  uint64_t lost;
  uint32_t epoch;

  GMB_HD uint32_t flags() const {
    return (count < asked ? GMB_RESULT_PARTIAL : 0) | (lost != 0 ? GMB_RESULT_LOST : 0);
  }
};

GMB_HD inline ending ended(const books &kept, uint64_t count, uint64_t asked, int32_t status, uint64_t index,
                           uint64_t lost) {
  return {count, asked, status, index, kept.operations + 1, lost, kept.epoch + 1};
}

/* Tells of an operation in steps, so that the waits for them overlap. First what the device is told; then, behind a
 * fence_device, its epoch; then, behind a fence at system scope, the words of the host: whoever sees them sees the
 * records, and all else that the operation has stored. */
GMB_HD inline void tell_device(const report &to, const ending &e) {
  if (!to.device_result) return;
  to.device_result->count = static_cast<uint32_t>(e.count);
  to.device_result->status = e.status;
  to.device_result->flags = e.flags();
  to.device_result->lost = e.lost;
}

GMB_HD inline void tell_epoch(const report &to, const ending &e) {
  if (to.device_result) store_fenced(&to.device_result->epoch, e.epoch);
}

GMB_HD inline void tell_host(const report &to, const ending &e) {
  if (to.host_progress) store_system(to.host_progress, (e.index << 24) | (e.operations & 0xffffff));
  if (!to.host_slot) return;
  uint64_t word = static_cast<uint64_t>(e.epoch) | (e.count << 32);
  if (e.count < e.asked) word |= slot_partial;
  if (e.status != GMB_OK || e.lost != 0) {
    word |= slot_detail;
    /* Tagged with the epoch, so that nobody takes them for those of another operation. */
    const uint64_t tag = static_cast<uint64_t>(e.epoch & 0xffffff) << 40;
    store_system(to.host_slot + 2, (e.lost < most_lost ? e.lost : most_lost) | tag);
    store_system(to.host_slot + 1, static_cast<uint64_t>(static_cast<uint32_t>(e.status)) |
                                       (static_cast<uint64_t>(e.flags()) << 32) | tag);
    fence_system();
  }
  store_system(to.host_slot, word);
}

GMB_HD inline void tell(const report &to, const ending &e) {
  tell_device(to, e);
  fence_device();
  tell_epoch(to, e);
  if (!to.host_slot && !to.host_progress) return;
  fence_system();
  tell_host(to, e);
}

/* One side's part of an operation as a block holds it. */
struct turn {
  uint64_t first; /* index of the operation's first record */
  uint64_t room;  /* records this block may move */
  int32_t status; /* why room is zero, if an error is why */
};

/* Words of a block: its grant, and what the leader found. */
constexpr int word_first = 1, word_status = 2, word_unread = 3, word_books = 4;
static_assert(word_books + 6 == block_words, "the books have six words");

/* The books for a leader at the end: it found them at the beginning where it was sure to be the last to arrive. */
template <class Block>
GMB_HD inline books books_at_end(const Block &block, gmb_ring_side *side, const report &to) {
  if (block.blocks() != 1) return open_books(side, to);
  const uint64_t *at = block.word + word_books;
  return {at[0], at[1], at[2], at[3], at[4], static_cast<uint32_t>(at[5])};
}

constexpr uint64_t no_turn = ~static_cast<uint64_t>(0);

/* The leader's reading of the header, made known to the whole block. `ahead` loads what `room` needs, with the
 * header: all of it is one trip to memory. */
template <class Block, class Ahead, class Room>
GMB_HD inline turn take_turn(const Block &block, gmb_ring_header *ring, gmb_ring_side *side, const report &to,
                             const Ahead &ahead, const Room &room) {
  turn t;
  if (block.thread() == 0) {
    GMB_CHAOS_POINT(6);
    const uint64_t magic = load_relaxed(&ring->magic);
    const uint32_t version = load_relaxed(&ring->version);
    const int32_t stopped = load_relaxed(&ring->fault);
    const uint64_t committed = load_relaxed(&side->committed);
    const uint64_t arrivals = block.blocks() == 1 ? load_relaxed(&side->arrivals) : 0;
    const auto seen = ahead();
    if (block.blocks() == 1) {
      const books found = open_books(side, to);
      uint64_t *at = block.word + word_books;
      at[0] = found.operations, at[1] = found.refused, at[2] = found.empty;
      at[3] = found.high_water, at[4] = found.lost, at[5] = found.epoch;
    }
    fence_acquire();
    const int32_t good = check_words(magic, version);
    const int32_t fault = arrivals != 0 ? static_cast<int32_t>(GMB_ERROR_ORDER_VIOLATION) : stopped;
    uint64_t word = no_turn;
    block.word[word_unread] = 0;
    if (good == GMB_OK) word = fault != GMB_OK ? grant_word(0, fault) : grant_word(room(committed, seen), GMB_OK);
    block.word[0] = word;
    block.word[word_first] = committed;
    block.word[word_status] = grant_word(0, good);
  }
  block.sync();
  const uint64_t word = block.word[0];
  t.first = block.word[word_first];
  t.status = word == no_turn ? grant_status(block.word[word_status]) : static_cast<int32_t>(GMB_OK);
  /* Where another thread has lowered it already, there is nothing beyond to do. */
  t.room = word == no_turn ? 0 : grant_count(word);
  return t;
}

/* For `take_turn`, where `room` looks for itself. */
struct nothing_ahead {
  GMB_HD int operator()() const { return 0; }
};

/* The side's arrivals: blocks in the low half, the sum of their operations'
 * numbers in the high half. Blocks of two operations at once show in the sum. */
GMB_HD inline uint64_t arrival(uint32_t operation, uint32_t blocks) {
  return (static_cast<uint64_t>(operation * blocks) << 32) | blocks;
}

/* Stops the mailbox: two operations of one side ran at once. Nothing of this
 * one is published. */
GMB_HD inline void violation(gmb_ring_header *ring, gmb_ring_side *side, uint64_t before, uint64_t asked,
                             const books &kept, const report &to) {
  store_relaxed(&ring->fault, static_cast<int32_t>(GMB_ERROR_ORDER_VIOLATION));
  store_relaxed(&side->operations, kept.operations + 1);
  tell(to, ended(kept, 0, asked, GMB_ERROR_ORDER_VIOLATION, before, 0));
}

/* Combines a block's grant with those of the others. True for the last block to arrive, with the minimum in
 * `word`; its errors are those of the whole operation. A grant of all that was asked for lowers nothing. */
GMB_HD inline bool arrive_last(uint32_t blocks, gmb_ring_side *side, uint32_t operation, uint64_t asked,
                               uint64_t &word) {
  if (blocks <= 1) return true;
  if (word != grant_word(asked, GMB_OK)) fetch_min_relaxed(&side->grant, word);
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
  const uint64_t least = load_relaxed(&side->grant);
  word = least < grant_word(asked, GMB_OK) ? least : grant_word(asked, GMB_OK);
  store_relaxed(&side->grant, ~static_cast<uint64_t>(0));
  fetch_sub_relaxed(&side->arrivals, all);
  return true;
}

/* Publishes that the side's index went from `before` to where `e` says, counts the operation and tells of it. `held`
 * is what lies in the ring then, zero for a pop. Publishing and the counts are on their way at the same time. */
GMB_HD inline void close_turn(gmb_ring_header *ring, gmb_ring_side *side, uint64_t before, const books &kept,
                              const ending &e, uint64_t held, const report &to) {
  tell_device(to, e);
  fence_device();
  /* If the side's index moved meanwhile, another operation of it ran. */
  const bool alone = replace_fenced(&side->committed, before, e.index);
  GMB_CHAOS_POINT(3);
  store_fenced(&side->claimed, e.index);
  store_relaxed(&side->operations, e.operations);
  if (e.count < e.asked) store_relaxed(&side->refused, kept.refused + (e.asked - e.count));
  if (e.count == 0) store_relaxed(&side->empty, kept.empty + 1);
  if (e.lost != 0) store_relaxed(&side->lost, kept.lost + e.lost);
  if (held > kept.high_water) store_relaxed(&side->high_water, held);
  if (alone) tell_epoch(to, e);
  if (alone && !to.host_slot && !to.host_progress) return;
  fence_system();
  if (!alone) return violation(ring, side, before, e.asked, kept, to);
  tell_host(to, e);
}

/* Ends an operation for this block, and for all if it is the last to arrive. */
template <class Block>
GMB_HD inline void end_turn(const Block &block, gmb_ring_header *ring, gmb_ring_side *side, const turn &t,
                            uint64_t asked, bool whole, const report &to) {
  block.sync();
  if (block.thread() != 0) return;
  GMB_CHAOS_POINT(1);
  uint64_t word = block.word[0];
  if (!arrive_last(block.blocks(), side, to.operation, asked, word)) return;
  const books kept = books_at_end(block, side, to);
  const uint64_t count = whole && grant_count(word) < asked ? 0 : grant_count(word);
  const uint64_t end = t.first + count;
  if (grant_status(word) == GMB_ERROR_ORDER_VIOLATION) return violation(ring, side, t.first, asked, kept, to);
  GMB_CHAOS_POINT(3);
  const uint64_t held = side == &ring->writer ? block.word[word_unread] + count : 0;
  close_turn(ring, side, t.first, kept, ended(kept, count, asked, grant_status(word), end, 0), held, to);
}

/* A header that is not ours names no side to arrive at: one block reports. */
template <class Block>
GMB_HD inline void refuse(const Block &block, int32_t status, uint64_t asked, const report &to) {
  if (block.block() != 0 || block.thread() != 0) return;
  /* The side's own counts are out of reach: go on from what the host was told last. */
  const uint64_t told = to.host_progress ? *to.host_progress : 0;
  const uint32_t epoch = to.epoch != 0 ? to.epoch : to.device_result ? to.device_result->epoch + 1 : 1;
  tell(to, {0, asked, status, told >> 24, told + 1, 0, epoch});
}

/* Records a thread moves at once: more would keep fewer threads on a multiprocessor, and move less. */
constexpr int records_in_flight = 2;

GMB_HD inline const unit *row_of(const unsigned char *rows, uint32_t i, uint64_t stride) {
  return reinterpret_cast<const unit *>(rows + i * stride);
}
GMB_HD inline unit *row_of(unsigned char *rows, uint32_t i, uint64_t stride) {
  return reinterpret_cast<unit *>(rows + i * stride);
}

/* Indices of the readers' cursors that a push looks at in one trip. */
constexpr uint32_t cursors_in_flight = 4;

/* How much the slowest reader in use has not released. Without one, all is. */
GMB_HD inline uint64_t most_unread(gmb_ring_header *ring, uint32_t readers, uint64_t writer) {
  uint64_t most = 0;
  for (uint32_t base = 0; readers >> base != 0 && base < GMB_MAX_READERS; base += cursors_in_flight) {
    uint64_t cursor[cursors_in_flight];
    GMB_UNROLL
    for (uint32_t r = 0; r < cursors_in_flight; ++r) {
      cursor[r] = writer;
      if (readers >> (base + r) & 1) cursor[r] = load_ahead(&ring->reader[base + r].committed);
    }
    GMB_UNROLL
    for (uint32_t r = 0; r < cursors_in_flight; ++r) {
      if (writer - cursor[r] > most) most = writer - cursor[r];
    }
  }
  return most;
}

/* Pushes up to `from.count` records: the first so many that fit, or those
 * before the first bad length; of a whole push all or none. */
template <class Block>
GMB_HD inline void push(const Block &block, gmb_ring_header *ring, const geometry &at, const source &from,
                        uint32_t lanes, const report &to) {
  gmb_ring_side *side = &ring->writer;
  struct cursors {
    uint32_t mask;
    uint64_t first[cursors_in_flight];
  };
  const turn t = take_turn(
      block, ring, side, to,
      [&] {
        cursors seen;
        seen.mask = load_relaxed(&ring->reader_mask);
        GMB_UNROLL
        for (uint32_t r = 0; r < cursors_in_flight; ++r) {
          if (from.readers >> r & 1) seen.first[r] = load_ahead(&ring->reader[r].committed);
        }
        return seen;
      },
      [&](uint64_t first, const cursors &seen) {
        uint32_t others = seen.mask;
        uint64_t unread = 0;
        GMB_UNROLL
        for (uint32_t r = 0; r < cursors_in_flight; ++r) {
          if ((from.readers & seen.mask) >> r & 1) {
            others &= ~(1u << r);
            if (first - seen.first[r] > unread) unread = first - seen.first[r];
          }
        }
        if (others != 0) {
          const uint64_t more = most_unread(ring, others, first);
          fence_acquire();
          if (more > unread) unread = more;
        }
        block.word[word_unread] = unread;
        const uint64_t free = at.capacity() - unread;
        return from.count < free ? static_cast<uint64_t>(from.count) : free;
      });
  if (t.status != GMB_OK) return refuse(block, t.status, from.count, to);

  const share mine(block, lanes);
  const uint32_t units = units_of(from.max_length);
  const uint32_t room = static_cast<uint32_t>(t.room);
  GMB_NO_UNROLL
  for (uint32_t base = mine.group; base < room; base += mine.groups * records_in_flight) {
    GMB_NO_UNROLL
    for (uint32_t u = mine.lane; u < units; u += lanes) {
      uint32_t length[records_in_flight];
      unit moved[records_in_flight];
      GMB_UNROLL
      for (int k = 0; k < records_in_flight; ++k) {
        const uint32_t i = base + k * mine.groups;
        if (i >= room) continue;
        /* Not only as much as the length says: that would be a second trip to memory. Nothing is looked at here, so
         * that all loads are under way at once. */
        if (u > 0) moved[k] = load_once(row_of(from.records, i, from.stride) + (u - 1));
        else moved[k].hi = from.types ? from.types[i] : from.type;
        length[k] = from.lengths ? from.lengths[i] : from.length;
      }
      GMB_UNROLL
      for (int k = 0; k < records_in_flight; ++k) {
        const uint32_t i = base + k * mine.groups;
        if (i >= room) continue;
        if (length[k] > from.max_length) {
          block.lower_word(grant_word(i, GMB_ERROR_BAD_LENGTH));
        } else if (u < units_of(length[k])) {
          if (u == 0) moved[k] = header_unit(t.first + i + 1, length[k], static_cast<uint32_t>(moved[k].hi));
          at.slot(t.first + i)[u] = moved[k];
        }
      }
    }
    GMB_CHAOS_POINT(4);
  }
  end_turn(block, ring, side, t, from.count, from.whole, to);
}

template <class Block>
GMB_HD inline void push(const Block &block, gmb_ring_header *ring, const source &from, uint32_t lanes,
                        const report &to) {
  push(block, ring, geometry(ring), from, lanes, to);
}

/* Pops up to `into.max` records for one reader: those published, or those
 * before the first slot that does not hold the record it should. */
template <class Block>
GMB_HD inline void pop(const Block &block, gmb_ring_header *ring, const geometry &at, uint32_t reader,
                       const sink &into, uint32_t lanes, const report &to) {
  gmb_ring_side *side = &ring->reader[reader & (GMB_MAX_READERS - 1)];
  const turn t = take_turn(
      block, ring, side, to, [&] { return load_ahead(&ring->writer.committed); },
      [&](uint64_t first, uint64_t published) {
        const uint64_t ready = published - first;
        return into.max < ready ? static_cast<uint64_t>(into.max) : ready;
      });
  if (t.status != GMB_OK) return refuse(block, t.status, into.max, to);

  const share mine(block, lanes);
  const uint32_t units = units_of(at.payload_bytes);
  /* The newest first: of what was pushed just now they are the likeliest to be in a cache still. */
  const uint32_t room = static_cast<uint32_t>(t.room);
  const uint32_t step = mine.groups * records_in_flight;
  const uint32_t rounds = room > mine.group ? (room - mine.group + step - 1) / step : 0;
  GMB_NO_UNROLL
  for (uint32_t round = rounds; round-- > 0;) {
    const uint32_t base = mine.group + round * step;
    GMB_NO_UNROLL
    for (uint32_t u = mine.lane; u < units; u += lanes) {
      unit header[records_in_flight];
      unit moved[records_in_flight];
      GMB_UNROLL
      for (int k = 0; k < records_in_flight; ++k) {
        const uint32_t i = base + k * mine.groups;
        if (i >= room) continue;
        const unit *slot = at.slot(t.first + i);
        header[k] = load_once(slot);
        moved[k] = load_once(slot + u);
      }
      GMB_UNROLL
      for (int k = 0; k < records_in_flight; ++k) {
        const uint32_t i = base + k * mine.groups;
        if (i >= room) continue;
        if (header[k].lo != t.first + i + 1 || header_length(header[k]) > at.payload_bytes) {
          block.lower_word(grant_word(i, GMB_ERROR_CORRUPT));
        } else if (u == 0) {
          if (into.headers) *reinterpret_cast<unit *>(into.headers + i) = moved[k];
        } else if (u < units_of(header_length(header[k]))) {
          row_of(into.records, i, into.stride)[u - 1] = moved[k];
        }
      }
    }
    GMB_CHAOS_POINT(5);
  }
  end_turn(block, ring, side, t, into.max, false, to);
}

template <class Block>
GMB_HD inline void pop(const Block &block, gmb_ring_header *ring, uint32_t reader, const sink &into, uint32_t lanes,
                       const report &to) {
  pop(block, ring, geometry(ring), reader, into, lanes, to);
}

}  // namespace ring
}  // namespace gmb

#endif
