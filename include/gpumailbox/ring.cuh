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
GMB_HD inline uint32_t units_of(uint32_t bytes) { return 1 + bytes / 16 + (bytes % 16 != 0); }

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
    lane = block.thread() & (lanes - 1);
    local = block.thread() >> shift;
    in_block = block.threads() >> shift;
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
    if (draw && block.thread() == 0) {
      next = static_cast<uint32_t>(fetch_add_relaxed(&side->drawn, static_cast<uint64_t>(1)));
    }
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
  const uint32_t tile = tile_of(block, from.tile, mine.in_block);
  for_tiles(block, side, tiles_of(room, tile), from.draw, false, [&](uint32_t number) {
    const uint32_t end = room - number * tile < tile ? room : (number + 1) * tile;
    GMB_NO_UNROLL
    for (uint32_t base = number * tile + mine.local; base < end; base = next_base(block, base, end, mine)) {
      GMB_NO_UNROLL
      for (uint32_t u = mine.lane; u < units; u += lanes) {
        uint32_t length[records_in_flight];
        unit moved[records_in_flight];
        GMB_UNROLL
        for (int k = 0; k < records_in_flight; ++k) {
          const uint32_t i = base + k * mine.in_block;
          if (i >= end) continue;
          /* Not only as much as the length says: that would be a second trip to memory. Nothing is looked at here, so
           * that all loads are under way at once. */
          if (u > 0) moved[k] = load_unit(row_of(from.records, i, from.stride) + (u - 1));
          else moved[k].hi = from.types ? from.types[i] : from.type;
          length[k] = from.lengths ? from.lengths[i] : from.length;
        }
        GMB_UNROLL
        for (int k = 0; k < records_in_flight; ++k) {
          const uint32_t i = base + k * mine.in_block;
          if (i >= end) continue;
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
  });
  end_turn(block, ring, side, t, from.count, from.whole, from.draw, to);
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
  for_tiles(block, side, tiles_of(room, tile), into.draw, true, [&](uint32_t number) {
    const uint32_t end = room - number * tile < tile ? room : (number + 1) * tile;
    GMB_NO_UNROLL
    for (uint32_t base = number * tile + mine.local; base < end; base = next_base(block, base, end, mine)) {
      GMB_NO_UNROLL
      for (uint32_t u = mine.lane; u < units; u += lanes) {
        unit header[records_in_flight];
        unit moved[records_in_flight];
        GMB_UNROLL
        for (int k = 0; k < records_in_flight; ++k) {
          const uint32_t i = base + k * mine.in_block;
          if (i >= end) continue;
          const unit *slot = at.slot(t.first + i);
          header[k] = load_unit(slot);
          moved[k] = load_unit(slot + u);
        }
        GMB_UNROLL
        for (int k = 0; k < records_in_flight; ++k) {
          const uint32_t i = base + k * mine.in_block;
          if (i >= end) continue;
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
  });
  end_turn(block, ring, side, t, into.max, false, into.draw, to);
}

template <class Block>
GMB_HD inline void pop(const Block &block, gmb_ring_header *ring, uint32_t reader, const sink &into, uint32_t lanes,
                       const report &to) {
  pop(block, ring, geometry(ring), reader, into, lanes, to);
}

}  // namespace ring
}  // namespace gmb

#endif
