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

  GMB_HD uint32_t length_of(uint64_t i) const { return lengths ? lengths[i] : length; }
  GMB_HD uint32_t type_of(uint64_t i) const { return types ? types[i] : type; }
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

/* Units that so many bytes take in a slot, the header's among them: it is the first, and one access. */
static_assert(sizeof(gmb_record_header) == sizeof(unit), "whatever counts units from 1 counts the header");
GMB_HD inline uint32_t units_of(uint32_t bytes) { return 1 + (bytes + 15) / 16; }

/* Which records a thread works on, and which part of each: a group of `lanes`
 * threads, a power of two that divides the block, moves one record together:
 * one for each of its units, or a whole warp for a record of more. */
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

/* Units a thread moves in a step: more would keep fewer threads on a multiprocessor, and move less. Of a wide record, one
 * with more units than the widest group has threads, both are of that record, one after the other; else they are of two
 * records. What is under way at once lies close together then, which memory likes better. */
constexpr int units_in_flight = 2;

/* Records that a block moves at once. */
template <bool wide> GMB_HD inline uint32_t at_once(const share &mine) {
  return wide ? mine.in_block : units_in_flight * mine.in_block;
}

/* Records of a tile: what a block moves without looking up. A power of two, and on a GPU no more than it moves at once. */
template <bool wide, class Block> GMB_HD inline uint32_t tile_of(const Block &, uint32_t tile, const share &mine) {
  const uint32_t most = 1u << log2_of(at_once<wide>(mine));
  return tile == 0 || (Block::small_tiles && tile > most) ? most : 1u << log2_of(tile);
}
GMB_HD inline uint32_t tiles_of(uint32_t records, uint32_t tile) { return (records + tile - 1) >> log2_of(tile); }

/* What a block moves next: units from `unit` on of the records from `first` on, up to `end`. */
struct step {
  uint32_t first;
  uint32_t end;
  uint32_t unit;
};

/* Takes a block through its tiles, of `tile` records each, all of `room` together. Either every block has an equal share,
 * or blocks draw a tile whenever they are done with one: then nobody waits for the slowest multiprocessor, and what is
 * under way at once lies close together. Drawn ones may come in reverse, and then all blocks must agree on `room`; else
 * each may see its own. With `ahead` a step is loaded between the `look` at the one before it, which waits for what that
 * has loaded, and its `store`: they are called with 0 and 1 in turn, so that each step has its own of two. */
template <bool wide, bool ahead, class Block, class Load, class Look, class Store>
GMB_HD inline void for_steps(const Block &block, gmb_ring_side *side, uint32_t room, uint32_t tile, uint32_t units,
                             const share &mine, bool draw, bool reverse, const Load &load, const Look &look,
                             const Store &store) {
  const uint32_t blocks = block.blocks();
  const uint32_t tiles = tiles_of(room, tile);
  const auto begin = [&](uint32_t number) {
    const uint32_t first = (reverse && draw ? tiles - 1 - number : number) * tile;
    return step{first, room - first < tile ? room : first + tile, 0};
  };
  if (block.block() >= tiles) return;
  step now = begin(block.block());
  /* The tile after this one: with `ahead` it must be known before this one is stored, so it is drawn one tile earlier. */
  uint32_t then = block.block() + blocks;
  if (ahead) load(0, now);
  GMB_NO_UNROLL
  for (uint32_t n = 0;;) {
    GMB_UNROLL
    for (int k = 0; k < (ahead ? 2 : 1); ++k) {
      step next = now;
      bool goes_on = false;
      if (wide) {
        next.unit += units_in_flight * Block::widest;
        goes_on = next.unit < units;
      }
      if (!goes_on && !Block::small_tiles) {
        next.unit = 0;
        next.first += at_once<wide>(mine);
        goes_on = next.first < next.end;
      }
      uint32_t drawn = 0;
      if (draw && !goes_on && block.thread() == 0) drawn = draw_next(&side->drawn);
      if (ahead) {
        look(k, now);
        if (!goes_on && then < tiles) next = begin(then);
        if (goes_on || then < tiles) load(1 - k, next);
      } else {
        load(k, now);
        look(k, now);
      }
      store(k, now);
      if (!goes_on) {
        if (ahead && then >= tiles) return;
        uint32_t after = then + blocks;
        if (draw) {
          /* Two words in turn: the leader writes the one while others still read the other. */
          if (block.thread() == 0) block.word[word_drawn + (n & 1)] = drawn;
          block.sync();
          after = (ahead ? 2 : 1) * blocks + static_cast<uint32_t>(block.word[word_drawn + (n & 1)]);
          ++n;
          if (!ahead) then = after;
        }
        if (!ahead) {
          if (then >= tiles) return;
          next = begin(then);
        }
        then = after;
      }
      now = next;
    }
  }
}

GMB_HD inline const unit *row_of(const unsigned char *rows, uint32_t i, uint64_t stride) {
  return reinterpret_cast<const unit *>(rows + i * stride);
}
GMB_HD inline unit *row_of(unsigned char *rows, uint32_t i, uint64_t stride) {
  return reinterpret_cast<unit *>(rows + i * stride);
}

/* Of a thread's units the `k`-th: its record beyond the first one's, and its place in the record. */
template <bool wide> GMB_HD inline uint32_t record_of(const share &mine, uint32_t k) { return wide ? 0 : k * mine.in_block; }
template <bool wide, class Block> GMB_HD inline uint32_t unit_of(const Block &, const share &mine, uint32_t unit, uint32_t k) {
  return wide ? unit + mine.lane + k * Block::widest : mine.lane;
}

/* What a thread has under way from rows to slots. */
template <bool wide, int n> struct in_flight_in {
  uint32_t length[n];
  uint32_t type[n]; /* apart from the unit that it goes into: a second load into a register waits for the first */
  unit moved[n];

  /* Not only as much as the length says: that would be a second trip to memory. Nothing is looked at here, so that all
   * loads are under way at once. */
  template <class Block>
  GMB_HD void load(const Block &block, const source &from, const share &mine, const step &s, uint32_t units) {
    GMB_UNROLL
    for (int k = 0; k < n; ++k) {
      const uint32_t i = s.first + mine.local + record_of<wide>(mine, k), u = unit_of<wide>(block, mine, s.unit, k);
      const bool there = i < s.end && u < units;
      moved[k] = load_unit_if(there && u > 0, row_of(from.records, i, from.stride) + (u - 1));
      if (wide && k > 0) continue;
      type[k] = load_word_if(there && u == 0 && from.types, from.types + i);
      length[k] = load_word_if(there && from.lengths, from.lengths + i);
    }
    loads_under_way();
  }

  /* Lowers `bad` to the first record that is too long. */
  template <class Block>
  GMB_HD void store(const Block &block, const geometry &at, uint64_t first, const source &from, const share &mine,
                    const step &s, uint32_t units, uint32_t &bad) {
    GMB_UNROLL
    for (int k = 0; k < n; ++k) {
      const uint32_t i = s.first + mine.local + record_of<wide>(mine, k), u = unit_of<wide>(block, mine, s.unit, k);
      const uint32_t bytes = from.lengths ? length[wide ? 0 : k] : from.length;
      if (!(wide && k > 0) && u == 0) moved[k] = header_unit(first + i + 1, bytes, from.types ? type[k] : from.type);
      const bool there = i < s.end && u < units, fits = bytes <= from.max_length;
      store_unit_if(there && fits && u < units_of(bytes), at.slot(first + i) + u, moved[k]);
      if (there && !fits && i < bad) bad = i;
    }
  }
};

/* The same from slots to rows. */
template <bool wide, int n> struct in_flight_out {
  unit moved[n];

  template <class Block>
  GMB_HD void load(const Block &block, const geometry &at, uint64_t first, const share &mine, const step &s,
                   uint32_t units) {
    GMB_UNROLL
    for (int k = 0; k < n; ++k) {
      const uint32_t i = s.first + mine.local + record_of<wide>(mine, k), u = unit_of<wide>(block, mine, s.unit, k);
      moved[k] = load_unit_if(i < s.end && u < units, at.slot(first + i) + u);
    }
    loads_under_way();
  }

  /* With a record's first units all threads of its group learn of its header, which the group's first thread has:
   * `wanted` are the units that the record has then, none if it is not the one it should be. Lowers `bad` to the first
   * of these. */
  GMB_HD void look(const geometry &at, uint64_t first, const share &mine, uint32_t lanes, const step &s,
                   uint32_t (&wanted)[n], uint32_t &bad) const {
    GMB_UNROLL
    for (int k = 0; k < (wide ? 1 : n); ++k) {
      const uint32_t i = s.first + mine.local + record_of<wide>(mine, k);
      const uint32_t length = from_first(header_length(moved[k]), lanes);
      const bool good = from_first(moved[k].lo, lanes) == first + i + 1 && length <= at.payload_bytes;
      if (wide && s.unit != 0) continue;
      wanted[k] = i < s.end && good ? units_of(length) : 0;
      if (i < s.end && !good && i < bad) bad = i;
    }
  }

  template <class Block>
  GMB_HD void store(const Block &block, const sink &into, const share &mine, const step &s,
                    const uint32_t (&wanted)[n]) const {
    GMB_UNROLL
    for (int k = 0; k < n; ++k) {
      const uint32_t i = s.first + mine.local + record_of<wide>(mine, k), u = unit_of<wide>(block, mine, s.unit, k);
      const bool is_header = !(wide && k > 0) && u == 0;
      unit *to = is_header ? reinterpret_cast<unit *>(into.headers + i) : row_of(into.records, i, into.stride) + (u - 1);
      store_unit_if(u < wanted[wide ? 0 : k] && (!is_header || into.headers), to, moved[k]);
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

struct cursors_ahead {
  gmb_ring_header *ring;
  uint32_t readers;

  GMB_HD cursors plain() const {
    cursors seen;
    seen.mask = load_relaxed(&ring->reader_mask);
    GMB_UNROLL
    for (uint32_t r = 0; r < cursors_in_flight; ++r) {
      if (readers >> r & 1) seen.first[r] = load_ahead(&ring->reader[r].committed);
    }
    return seen;
  }
  /* Of one cursor the load itself acquires: that takes less than a fence. */
  GMB_HD cursors acquiring() const {
    if ((readers & (readers - 1)) != 0 || readers >> cursors_in_flight != 0) {
      const cursors seen = plain();
      fence_acquire();
      return seen;
    }
    cursors seen;
    seen.mask = load_relaxed(&ring->reader_mask);
    const uint64_t only = load_acquire(&ring->reader[log2_of(readers | 1)].committed);
    GMB_UNROLL
    for (uint32_t r = 0; r < cursors_in_flight; ++r) seen.first[r] = only;
    return seen;
  }
};

/* Up to where records have been published. */
struct published_ahead {
  gmb_ring_header *ring;

  GMB_HD uint64_t plain() const { return load_ahead(&ring->writer.committed); }
  GMB_HD uint64_t acquiring() const { return load_acquire(&ring->writer.committed); }
};

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

/* Moves a block's share of the records; says which is the first that is too long, or `room`. */
template <bool wide, class Block>
GMB_HD inline uint32_t push_tiles(const Block &block, gmb_ring_side *side, const geometry &at, uint64_t first,
                                  uint32_t room, const source &from, uint32_t lanes, uint32_t units) {
  const share mine(block, lanes);
  uint32_t bad = room;
  in_flight_in<wide, units_in_flight> moving;
  for_steps<wide, false>(
      block, side, room, tile_of<wide>(block, from.tile, mine), units, mine, from.draw, false,
      [&](int, const step &s) { moving.load(block, from, mine, s, units); }, [](int, const step &) {},
      [&](int, const step &s) {
        moving.store(block, at, first, from, mine, s, units, bad);
        GMB_CHAOS_POINT(4);
      });
  return bad;
}

/* Pushes up to `from.count` records: the first so many that fit, or those
 * before the first bad length; of a whole push all or none. */
template <class Block>
GMB_HD inline void push(const Block &block, gmb_ring_header *ring, const geometry &at, const source &from,
                        uint32_t lanes, const report &to) {
  gmb_ring_side *side = &ring->writer;
  const turn t = take_turn(
      block, ring, side, from.ordered, to, cursors_ahead{ring, from.readers},
      [&](uint64_t first, const cursors &seen) {
        const uint32_t unread = unread_by(ring, seen, from.readers, first);
        block.word[word_unread] = unread;
        return static_cast<uint64_t>(fitting(from, at, unread));
      });
  if (t.status != GMB_OK) return refuse(block, t.status, from.count, to);

  const uint32_t units = units_of(from.max_length);
  const uint32_t room = static_cast<uint32_t>(t.room);
  const uint32_t bad = units > Block::widest ? push_tiles<true>(block, side, at, t.first, room, from, Block::widest, units)
                                             : push_tiles<false>(block, side, at, t.first, room, from, lanes, units);
  if (bad < room) block.lower_word(grant_word(bad, GMB_ERROR_BAD_LENGTH));
  end_turn(block, ring, side, t, from.count, from.whole, from.draw, from.ordered, to);
}

template <class Block>
GMB_HD inline void push(const Block &block, gmb_ring_header *ring, const source &from, uint32_t lanes,
                        const report &to) {
  push(block, ring, geometry(ring), from, lanes, to);
}

/* The same of a pop: which is the first that is not the record it should be. */
template <bool wide, class Block>
GMB_HD inline uint32_t pop_tiles(const Block &block, gmb_ring_side *side, const geometry &at, uint64_t first,
                                 uint32_t room, const sink &into, uint32_t lanes, uint32_t units) {
  const share mine(block, lanes);
  uint32_t bad = room;
  in_flight_out<wide, units_in_flight> moving[2];
  uint32_t wanted[units_in_flight] = {};
  for_steps<wide, true>(
      block, side, room, tile_of<wide>(block, into.tile, mine), units, mine, into.draw, true,
      [&](int k, const step &s) { moving[k].load(block, at, first, mine, s, units); },
      [&](int k, const step &s) { moving[k].look(at, first, mine, lanes, s, wanted, bad); },
      [&](int k, const step &s) {
        moving[k].store(block, into, mine, s, wanted);
        GMB_CHAOS_POINT(5);
      });
  return bad;
}

/* Pops up to `into.max` records for one reader: those published, or those
 * before the first slot that does not hold the record it should. */
template <class Block>
GMB_HD inline void pop(const Block &block, gmb_ring_header *ring, const geometry &at, uint32_t reader,
                       const sink &into, uint32_t lanes, const report &to) {
  gmb_ring_side *side = &ring->reader[reader & (GMB_MAX_READERS - 1)];
  const turn t = take_turn(
      block, ring, side, into.ordered, to, published_ahead{ring},
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

  const uint32_t units = units_of(at.payload_bytes);
  const uint32_t room = static_cast<uint32_t>(t.room);
  /* More than a cache holds: the newest first, which are the likeliest to be there still. */
  const uint32_t bad = units > Block::widest ? pop_tiles<true>(block, side, at, t.first, room, into, Block::widest, units)
                                             : pop_tiles<false>(block, side, at, t.first, room, into, lanes, units);
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
