/* The ring protocol, ordered mode: one pushing and, per reader, one popping
 * operation at a time; a push and a pop may overlap.
 *
 * An operation is run by all threads of all blocks of a launch, within a turn
 * (turn.cuh). Indices are 64-bit, monotonic and may wrap; slot i holds records
 * i, i + capacity, ... */
#ifndef GPUMAILBOX_RING_CUH
#define GPUMAILBOX_RING_CUH

#include "turn.cuh"

namespace gmb {
namespace ring {

struct held;

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
  uint32_t tile = 0;   /* records of a tile, a power of two; zero for as many as a block moves at once */
  bool draw = false;   /* blocks draw their tiles */
  bool ordered = false; /* all operations of the mailbox run one after the other */
  const held *borrowed = nullptr; /* tables of what readers have borrowed, if anything may be */
};

/* Where popped records go. `headers` may be null. */
struct sink {
  unsigned char *records;
  uint64_t stride;
  gmb_record_header *headers;
  uint32_t max;
  uint32_t tile = 0; /* as for a push */
  bool draw = false;
  bool ordered = false;
};

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
GMB_HD inline uint32_t units_of(uint32_t bytes) { return 1 + (bytes + 15) / 16; }

/* Which records a thread works on, and which part of each: a group of `lanes`
 * threads, a power of two that divides the block, moves one record together. */
struct share {
  uint32_t lane;
  uint32_t local;    /* the group's number in the block */
  uint32_t in_block; /* groups in a block */
  uint32_t group;    /* its number in the launch */
  uint32_t groups;   /* in the launch */

  template <class Block>
  GMB_HD share(const Block &block, uint32_t lanes) {
    const uint32_t shift = log2_of(lanes);
    /* Of threads set aside this wraps: to far more than a block that has such is ever given. */
    const uint32_t thread = block.thread() - Block::aside;
    lane = thread & (lanes - 1);
    local = thread >> shift;
    in_block = (block.threads() - Block::aside) >> shift;
    group = block.block() * in_block + local;
    groups = block.blocks() * in_block;
  }
};

/* Records a thread moves at once: more would keep fewer threads on a multiprocessor, and move less. */
constexpr int records_in_flight = 2;

/* Records of a tile: what a block moves without looking up. A power of two, and on a GPU no more than it moves at once. */
template <class Block> GMB_HD inline uint32_t tile_of(const Block &, uint32_t tile, uint32_t groups) {
  const uint32_t most = 1u << log2_of(groups * records_in_flight);
  return tile == 0 || (Block::small_tiles && tile > most) ? most : 1u << log2_of(tile);
}
GMB_HD inline uint32_t tiles_of(uint32_t records, uint32_t tile) { return (records + tile - 1) >> log2_of(tile); }

/* Calls `move` with the numbers of this block's tiles of `tiles`. Either every block has an equal share, or blocks draw
 * a tile whenever they are done with one: then nobody waits for the slowest multiprocessor, and what is under way at
 * once lies close together, which memory likes better. Those drawn may come in reverse, and then all blocks must agree
 * on `tiles`; else each may see its own. */
template <class Block, class Move>
GMB_HD inline void for_tiles(const Block &block, gmb_ring_side *side, uint32_t tiles, bool draw, bool reverse,
                             const Move &move) {
  const uint32_t blocks = block.blocks();
  uint32_t at = block.block();
  GMB_NO_UNROLL
  for (uint32_t n = 0; at < tiles; ++n) {
    uint32_t next = 0;
    if (draw && block.thread() == 0) next = draw_next(&side->drawn);
    move(reverse && draw ? tiles - 1 - at : at);
    at += blocks;
    if (!draw) continue;
    /* Two words in turn: the leader writes the one while others still read the other. */
    if (block.thread() == 0) block.word[word_drawn + (n & 1)] = next;
    block.sync();
    at = blocks + static_cast<uint32_t>(block.word[word_drawn + (n & 1)]);
  }
}

/* Where a thread goes on within a tile. */
template <class Block>
GMB_HD inline uint32_t next_base(const Block &, uint32_t base, uint32_t end, const share &mine) {
  return Block::small_tiles ? end : base + mine.in_block * records_in_flight;
}

GMB_HD inline const unit *row_of(const unsigned char *rows, uint32_t i, uint64_t stride) {
  return reinterpret_cast<const unit *>(rows + i * stride);
}
GMB_HD inline unit *row_of(unsigned char *rows, uint32_t i, uint64_t stride) {
  return reinterpret_cast<unit *>(rows + i * stride);
}

/* What a thread has under way from rows to slots: a unit each of `n` records. */
template <int n> struct in_flight_in {
  uint32_t length[n];
  unit moved[n];

  /* Not only as much as the length says: that would be a second trip to memory. Nothing is looked at here, so that all
   * loads are under way at once. */
  GMB_HD void load(const source &from, const share &mine, uint32_t base, uint32_t end, uint32_t u) {
    GMB_UNROLL
    for (int k = 0; k < n; ++k) {
      const uint32_t i = base + k * mine.in_block;
      moved[k] = load_unit_or_word(i < end && u > 0, row_of(from.records, i, from.stride) + (u - 1),
                                   i < end && u == 0 && from.types, from.types + i);
      length[k] = load_word_if(i < end && from.lengths, from.lengths + i);
    }
    loads_under_way();
  }

  /* Lowers `bad` to the first record that is too long. */
  GMB_HD void store(const geometry &at, uint64_t first, const source &from, const share &mine, uint32_t base,
                    uint32_t end, uint32_t u, uint32_t &bad) {
    GMB_UNROLL
    for (int k = 0; k < n; ++k) {
      const uint32_t i = base + k * mine.in_block;
      if (!from.lengths) length[k] = from.length;
      if (u == 0) {
        moved[k] = header_unit(first + i + 1, length[k],
                               from.types ? static_cast<uint32_t>(moved[k].hi >> 32) : from.type);
      }
      const bool fits = length[k] <= from.max_length;
      store_unit_if(i < end && fits && u < units_of(length[k]), at.slot(first + i) + u, moved[k]);
      if (i < end && !fits && i < bad) bad = i;
    }
  }
};

/* The same from slots to rows. */
template <int n> struct in_flight_out {
  unit header[n];
  unit moved[n];

  GMB_HD void load(const geometry &at, uint64_t first, const share &mine, uint32_t base, uint32_t end, uint32_t u) {
    GMB_UNROLL
    for (int k = 0; k < n; ++k) {
      const uint32_t i = base + k * mine.in_block;
      const unit *slot = at.slot(first + i);
      header[k] = load_unit_if(i < end, slot);
      moved[k] = load_unit_if(i < end, slot + u);
    }
    loads_under_way();
  }

  /* Lowers `bad` to the first slot that does not hold the record it should. */
  GMB_HD void store(const geometry &at, uint64_t first, const sink &into, const share &mine, uint32_t base,
                    uint32_t end, uint32_t u, uint32_t &bad) {
    GMB_UNROLL
    for (int k = 0; k < n; ++k) {
      const uint32_t i = base + k * mine.in_block;
      const bool good = header[k].lo == first + i + 1 && header_length(header[k]) <= at.payload_bytes;
      unit *to = u == 0 ? reinterpret_cast<unit *>(into.headers + i) : row_of(into.records, i, into.stride) + (u - 1);
      const bool wanted = u == 0 ? into.headers != nullptr : u < units_of(header_length(header[k]));
      store_unit_if(i < end && good && wanted, to, moved[k]);
      if (i < end && !good && i < bad) bad = i;
    }
  }
};

/* Indices of the readers' cursors that a push looks at in one trip. */
constexpr uint32_t cursors_in_flight = 4;

/* How much the slowest reader in use has not released. Without one, all is. */
GMB_HD GMB_RARE inline uint64_t most_unread(gmb_ring_header *ring, uint32_t readers, uint64_t writer) {
  uint64_t most = 0;
  GMB_NO_UNROLL
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

/* The cursors that are looked at first, and which readers there are. */
struct cursors {
  uint32_t mask;
  uint64_t first[cursors_in_flight];
};

GMB_HD inline cursors load_cursors(gmb_ring_header *ring, uint32_t readers) {
  cursors seen;
  seen.mask = load_relaxed(&ring->reader_mask);
  GMB_UNROLL
  for (uint32_t r = 0; r < cursors_in_flight; ++r) {
    if (readers >> r & 1) seen.first[r] = load_ahead(&ring->reader[r].committed);
  }
  return seen;
}

/* The same as most_unread, of which most has been loaded. There are at most GMB_MAX_RECORDS slots: half a word will do. */
GMB_HD inline uint32_t unread_by(gmb_ring_header *ring, const cursors &seen, uint32_t readers, uint64_t writer) {
  const uint32_t known = readers & seen.mask & ((1u << cursors_in_flight) - 1);
  uint32_t unread = 0;
  GMB_UNROLL
  for (uint32_t r = 0; r < cursors_in_flight; ++r) {
    const uint32_t behind = static_cast<uint32_t>(writer) - static_cast<uint32_t>(seen.first[r]);
    if ((known >> r & 1) && behind > unread) unread = behind;
  }
  if (known != seen.mask) {
    const uint32_t more = static_cast<uint32_t>(most_unread(ring, seen.mask & ~known, writer));
    fence_acquire();
    if (more > unread) unread = more;
  }
  return unread;
}

/* How many of the records there is room for. */
GMB_HD inline uint32_t fitting(const source &from, const geometry &at, uint32_t unread) {
  const uint32_t free = at.mask + 1 - unread;
  return from.count < free ? from.count : free;
}

/* Pushes up to `from.count` records: the first so many that fit, or those
 * before the first bad length; of a whole push all or none. */
template <class Block>
GMB_HD inline void push(const Block &block, gmb_ring_header *ring, const geometry &at, const source &from,
                        uint32_t lanes, const report &to) {
  gmb_ring_side *side = &ring->writer;
  const turn t = take_turn(
      block, ring, side, from.ordered, to, [&] { return load_cursors(ring, from.readers); },
      [&](uint64_t first, const cursors &seen) {
        const uint32_t unread = unread_by(ring, seen, from.readers, first);
        block.word[word_unread] = unread;
        return static_cast<uint64_t>(fitting(from, at, unread));
      });
  if (t.status != GMB_OK) return refuse(block, t.status, from.count, to);

  const share mine(block, lanes);
  const uint32_t units = units_of(from.max_length);
  const uint32_t room = static_cast<uint32_t>(t.room);
  const uint32_t tile = tile_of(block, from.tile, mine.in_block);
  uint32_t bad = room;
  for_tiles(block, side, tiles_of(room, tile), from.draw, false, [&](uint32_t number) {
    const uint32_t end = room - number * tile < tile ? room : (number + 1) * tile;
    GMB_NO_UNROLL
    for (uint32_t base = number * tile + mine.local; base < end; base = next_base(block, base, end, mine)) {
      GMB_NO_UNROLL
      for (uint32_t u = mine.lane; u < units; u += lanes) {
        in_flight_in<records_in_flight> moving;
        moving.load(from, mine, base, end, u);
        moving.store(at, t.first, from, mine, base, end, u, bad);
      }
      GMB_CHAOS_POINT(4);
    }
  });
  if (bad < room) block.lower_word(grant_word(bad, GMB_ERROR_BAD_LENGTH));
  end_turn(block, ring, side, t, from.count, from.whole, from.draw, from.ordered, to);
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
      block, ring, side, into.ordered, to, [&] { return load_ahead(&ring->writer.committed); },
      [&](uint64_t first, uint64_t published) {
        const uint64_t ready = published - first;
        const uint64_t room = into.max < ready ? static_cast<uint64_t>(into.max) : ready;
        /* Blocks that draw must see the same. */
        if (!into.draw) return room;
        const uint64_t agreed = settle_acq_rel(&side->agreed, room + 1) - 1;
        /* Never beyond the rows, even if another operation runs. */
        return into.max < agreed ? static_cast<uint64_t>(into.max) : agreed;
      });
  if (t.status != GMB_OK) return refuse(block, t.status, into.max, to);

  const share mine(block, lanes);
  const uint32_t units = units_of(at.payload_bytes);
  const uint32_t room = static_cast<uint32_t>(t.room);
  const uint32_t tile = tile_of(block, into.tile, mine.in_block);
  /* More than a cache holds: the newest first, which are the likeliest to be there still. */
  uint32_t bad = room;
  for_tiles(block, side, tiles_of(room, tile), into.draw, true, [&](uint32_t number) {
    const uint32_t end = room - number * tile < tile ? room : (number + 1) * tile;
    GMB_NO_UNROLL
    for (uint32_t base = number * tile + mine.local; base < end; base = next_base(block, base, end, mine)) {
      GMB_NO_UNROLL
      for (uint32_t u = mine.lane; u < units; u += lanes) {
        in_flight_out<records_in_flight> moving;
        moving.load(at, t.first, mine, base, end, u);
        moving.store(at, t.first, into, mine, base, end, u, bad);
      }
      GMB_CHAOS_POINT(5);
    }
  });
  if (bad < room) block.lower_word(grant_word(bad, GMB_ERROR_CORRUPT));
  end_turn(block, ring, side, t, into.max, false, into.draw, into.ordered, to);
}

template <class Block>
GMB_HD inline void pop(const Block &block, gmb_ring_header *ring, uint32_t reader, const sink &into, uint32_t lanes,
                       const report &to) {
  pop(block, ring, geometry(ring), reader, into, lanes, to);
}

}  // namespace ring
}  // namespace gmb

#endif
