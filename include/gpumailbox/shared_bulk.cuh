/* Operations on a ring in shared mode that the CPU launches: all blocks of a launch do one, beside any others.
 *
 * The first block to arrive takes the tickets for all, and the others wait for that: it runs already, and waits for nobody.
 * Each then moves its tiles, marks them and is done; the last one moves the limit on and reports. */
#ifndef GPUMAILBOX_SHARED_BULK_CUH
#define GPUMAILBOX_SHARED_BULK_CUH

#include "borrow.cuh"
#include "shared.cuh"

namespace gmb {
namespace ring {

/* By which the blocks of one operation know each other; each operation that may run at once has its own. All zero between
 * operations. */
struct meeting {
  uint64_t arrived;
  uint64_t finished;
  uint64_t first;
  uint64_t told;    /* what the first block found, once it is there */
  uint64_t good;    /* of a pop: complement of the first record that is not the one it should be */
  uint64_t last;    /* of a pop: records that no other reader had still to release */
};

/* In `told`: it is there; the first block does all by itself; the status; the count. */
constexpr uint64_t told_there = 1ull << 63, told_alone = 1ull << 62;
constexpr int told_status = 32;

/* A block as one group. */
template <class Block> struct block_group {
  const Block &block;

  GMB_HD uint32_t lane() const { return block.thread(); }
  GMB_HD uint32_t lanes() const { return block.threads(); }
  GMB_HD void sync() const { block.sync(); }
  GMB_HD uint64_t from_leader(uint64_t v) const {
    block.sync();
    if (block.thread() == 0) block.word[0] = v;
    block.sync();
    return block.word[0];
  }
  GMB_HD uint32_t least(uint32_t v) const {
    from_leader(~0ull);
    block.lower_half(v);
    block.sync();
    return static_cast<uint32_t>(block.word[0]);
  }
};

/* One block of a launch as if it were alone. */
template <class Block> struct only_block : Block {
  GMB_HD explicit only_block(const Block &block) : Block(block) {}
  GMB_HD uint32_t block() const { return 0; }
  GMB_HD uint32_t blocks() const { return 1; }
};

/* What an operation may move, as all of its blocks know it. */
struct share_of_all {
  claim mine;
  int32_t status;
  bool alone; /* the first block does all by itself */
  bool leads; /* and this is it */
};

/* What keeps a kernel from using a ring in shared mode. */
GMB_HD inline int32_t check_shared(const gmb_ring_header *ring) {
  const int32_t good = check_header(ring);
  if (good != GMB_OK) return good;
  if (load_relaxed(&ring->mode) != GMB_MODE_SHARED) return GMB_ERROR_WRONG_MODE;
  return load_relaxed(&ring->fault);
}

/* The leader of the first block of all calls `take(status, alone)`, if the ring can be used; what it says is known to all. */
template <class Block, class Take>
GMB_HD inline share_of_all meet(const Block &block, const gmb_ring_header *ring, meeting *at, bool leads, const Take &take) {
  share_of_all all = {{0, 0}, GMB_OK, false, leads};
  if (block.thread() == 0) {
    if (leads) {
      all.status = check_shared(ring);
      if (all.status == GMB_OK) all.mine = take(all.status, all.alone);
      block.word[1] = all.mine.first;
      block.word[2] = told_there | (all.alone ? told_alone : 0) | grant_word(0, all.status) << told_status | all.mine.count;
      if (block.blocks() != 1) {
        store_relaxed(&at->first, block.word[1]);
        GMB_CHAOS_POINT(16);
        store_release(&at->told, block.word[2]);
      }
    } else {
      uint64_t told = load_acquire(&at->told);
      for (uint32_t n = 0; told == 0; ++n) {
        back_off(n);
        told = load_acquire(&at->told);
      }
      block.word[1] = load_relaxed(&at->first);
      block.word[2] = told;
    }
  }
  block.sync();
  const uint64_t told = block.word[2];
  all.mine = {block.word[1], static_cast<uint32_t>(told)};
  all.status = grant_status(told >> told_status & 0xff);
  all.alone = (told & told_alone) != 0;
  return all;
}

/* Whether this block is the first to arrive. */
template <class Block> GMB_HD inline bool arrive_first(const Block &block, meeting *at) {
  if (block.blocks() == 1) return true;
  GMB_CHAOS_POINT(17);
  const block_group<Block> group{block};
  return group.from_leader(block.thread() == 0 ? fetch_add_acq_rel(&at->arrived, static_cast<uint64_t>(1)) : 0) == 0;
}

/* Whether this block is the last to finish. What its leader has stored before, the last one sees. */
template <class Block> GMB_HD inline bool finish_last(const Block &block, meeting *at) {
  const block_group<Block> group{block};
  if (block.blocks() == 1) {
    block.sync();
    return true;
  }
  block.sync();
  GMB_CHAOS_POINT(18);
  const uint64_t before = block.thread() == 0 ? fetch_add_acq_rel(&at->finished, static_cast<uint64_t>(1)) : 0;
  return group.from_leader(before) + 1 == block.blocks();
}

/* Tells of an operation, and leaves the meeting as it was. */
GMB_HD inline void tell_shared(meeting *at, uint64_t count, uint64_t asked, int32_t status, const report &to) {
  if (at) *at = meeting{};
  const uint32_t epoch = to.epoch != 0 ? to.epoch : to.device_result ? load_relaxed(&to.device_result->epoch) + 1 : 0;
  tell(to, {count, asked, status, 0, 0, 0, 0, epoch});
}

/* The leader of the last block counts the operation, and tells of it. */
GMB_HD inline void end_shared(const shared_ring &ring, gmb_ring_side *side, meeting *at, uint64_t count, uint64_t asked,
                              int32_t status, const report &to) {
  if (check_shared(ring.header) != GMB_OK) return tell_shared(at, 0, asked, status, to);
  add_relaxed(&side->operations, static_cast<uint64_t>(1));
  if (count < asked) add_relaxed(&side->refused, asked - count);
  if (count == 0) add_relaxed(&side->empty, static_cast<uint64_t>(1));
  tell_shared(at, count, asked, status, to);
}

/* Calls `each(part)` for a block's tiles of `count` records, the same that it moved. */
template <bool wide, class Block, class Each>
GMB_HD inline void for_tiles(const Block &block, uint32_t count, uint32_t records, uint32_t lanes, const Each &each) {
  const uint32_t tile = tile_of<wide>(block, records, share(block, lanes));
  for (uint32_t n = block.block(), tiles = tiles_of(count, tile); n < tiles; n += block.blocks()) {
    const uint32_t first = n * tile;
    each(claim{first, count - first < tile ? count - first : tile});
  }
}

/* Pushes up to `from.count` records: the first so many that fit, or those before the first bad length; of a whole push all
 * or none. With `credited` the credits have been taken before. */
template <bool wide, class Block>
GMB_HD inline void push_bulk_as(const Block &block, const shared_ring &ring, const source &from, bool credited, uint32_t lanes,
                                meeting *at, const report &to) {
  gmb_ring_side *side = &ring.header->writer;
  const block_group<Block> group{block};
  const bool leads = arrive_first(block, at);
  uint32_t good = from.count;
  if (leads && from.lengths) {
    for (uint32_t i = block.thread(); i < good; i += block.threads()) {
      if (from.lengths[i] > from.max_length) good = i;
    }
    good = group.least(good);
  }
  const share_of_all all = meet(block, ring.header, at, leads, [&](int32_t &status, bool &) {
    if (good < from.count) status = GMB_ERROR_BAD_LENGTH;
    const uint32_t wanted = from.whole && good < from.count ? 0 : good;
    if (!credited) return take_tickets(side, wanted > 0 ? take_credits(&side->credits, wanted) : 0);
    if (wanted == 0) fetch_add_acq_rel(&side->credits, static_cast<uint64_t>(from.count));
    return take_tickets(side, wanted);
  });
  const uint32_t units = units_of(from.max_length);
  if (all.mine.count > 0) {
    push_tiles<wide>(block, side, ring.at, all.mine.first, all.mine.count, from, wide ? Block::widest : lanes, units);
    block.sync();
    fence_device();
    for_tiles<wide>(block, all.mine.count, from.tile, wide ? Block::widest : lanes, [&](const claim &tile) {
      mark_published(ring, {all.mine.first + tile.first, tile.count}, block.thread(), block.threads());
    });
  }
  if (!finish_last(block, at)) return;
  if (all.mine.count > 0) {
    if (block.thread() == 0) {
      const uint64_t held = all.mine.first + all.mine.count - load_relaxed(&side->floor);
      if (held <= ring.at.capacity()) raise_relaxed(&side->high_water, held);
      fence_in_one_order();
    }
    move_published(group, ring, all.mine);
  }
  if (block.thread() == 0) end_shared(ring, side, at, all.mine.count, from.count, all.status, to);
}

template <class Block>
GMB_HD inline void push_bulk(const Block &block, const shared_ring &ring, const source &from, bool credited, uint32_t lanes,
                             meeting *at, const report &to) {
  if (units_of(from.max_length) > Block::widest) push_bulk_as<true>(block, ring, from, credited, lanes, at, to);
  else push_bulk_as<false>(block, ring, from, credited, lanes, at, to);
}

/* Moves the records of a claim by one block, without those that were abandoned; how many. Lowers `bad` to the row of the
 * first record that is not the one it should be. */
template <bool wide, class Block>
GMB_HD inline uint32_t pop_around(const Block &block, gmb_ring_side *side, const shared_ring &ring, const claim &mine, sink into,
                                  uint32_t lanes, uint32_t units, uint32_t &bad) {
  const block_group<Block> group{block};
  uint32_t given = 0;
  for (uint32_t at = 0; at < mine.count;) {
    /* The next one that was abandoned, of so many. */
    const uint32_t left = mine.count - at, looked = left < 8 * group.lanes() ? left : 8 * group.lanes();
    uint32_t run = looked;
    for (uint32_t i = group.lane(); i < run; i += group.lanes()) {
      if (header_length(*ring.at.slot(mine.first + at + i)) == tombstone) run = i;
    }
    run = group.least(run);
    if (run > 0) {
      const uint32_t wrong = pop_tiles<wide>(only_block<Block>(block), side, ring.at, mine.first + at, run, into, lanes, units);
      if (wrong < run && given + wrong < bad) bad = given + wrong;
    }
    given += run;
    into.records += run * into.stride;
    if (into.headers) into.headers += run;
    at += run == looked ? run : run + 1;
  }
  return given;
}

/* Pops up to `into.max` records of a reader: those that are there, without those that were abandoned; or those before the
 * first slot that does not hold the record it should. */
template <bool wide, class Block>
GMB_HD inline void pop_bulk_as(const Block &block, const shared_ring &ring, uint32_t reader, const sink &into, uint32_t lanes,
                               meeting *at, const report &to) {
  gmb_ring_side *side = &ring.header->reader[reader & (GMB_MAX_READERS - 1)];
  const block_group<Block> group{block};
  const share_of_all all = meet(block, ring.header, at, arrive_first(block, at), [&](int32_t &, bool &alone) {
    const claim mine = take_tickets(side, take_credits(&side->credits, into.max));
    /* Whatever was abandoned among them was counted before it was published, and nobody is past it yet. */
    alone = load_relaxed(&ring.header->writer.abandoned) != 0;
    return mine;
  });
  const uint32_t units = units_of(ring.at.payload_bytes), width = wide ? Block::widest : lanes;
  const uint32_t count = all.mine.count;
  uint32_t given = count, bad = ~0u, last = 0;
  const auto release = [&](const auto &some) {
    block.sync();
    fence_device();
    for_tiles<wide>(some, count, into.tile, width, [&](const claim &tile) {
      last += mark_released(ring, {all.mine.first + tile.first, tile.count}, block.thread(), block.threads());
    });
  };
  if (count > 0 && !all.alone) {
    bad = pop_tiles<wide>(block, side, ring.at, all.mine.first, count, into, width, units);
    if (bad == count) bad = ~0u;
    release(block);
  } else if (count > 0 && all.leads) {
    given = pop_around<wide>(block, side, ring, all.mine, into, width, units, bad);
    release(only_block<Block>(block));
  }
  /* What the threads have found, for all. */
  if (count > 0) {
    bad = group.least(bad);
    if (block.thread() == 0) block.word[0] = 0;
    block.sync();
    block.add_half(last);
    block.sync();
    last = static_cast<uint32_t>(block.word[0]);
  }
  if (block.thread() == 0 && count > 0) {
    if (bad != ~0u) raise_relaxed(&at->good, static_cast<uint64_t>(~bad));
    if (all.alone && all.leads) store_relaxed(&at->first, static_cast<uint64_t>(given));
    if (last > 0) add_relaxed(&at->last, static_cast<uint64_t>(last));
  }
  if (!finish_last(block, at)) return;
  if (block.thread() == 0) {
    if (all.alone && count > 0) given = static_cast<uint32_t>(load_relaxed(&at->first));
    const uint64_t wrong = load_relaxed(&at->good);
    bad = wrong == 0 ? ~0u : ~static_cast<uint32_t>(wrong);
    fence_in_one_order();
  }
  if (count > 0) {
    const uint64_t none_left = group.from_leader(block.thread() == 0 ? load_relaxed(&at->last) : 0);
    if (none_left > 0) move_free(group, ring, none_left == count ? all.mine : claim{0, 0});
  }
  if (block.thread() != 0) return;
  const bool corrupt = bad < given;
  end_shared(ring, side, at, corrupt ? bad : given, into.max, corrupt ? static_cast<int32_t>(GMB_ERROR_CORRUPT) : all.status, to);
}

template <class Block>
GMB_HD inline void pop_bulk(const Block &block, const shared_ring &ring, uint32_t reader, const sink &into, uint32_t lanes,
                            meeting *at, const report &to) {
  if (units_of(ring.at.payload_bytes) > Block::widest) pop_bulk_as<true>(block, ring, reader, into, lanes, at, to);
  else pop_bulk_as<false>(block, ring, reader, into, lanes, at, to);
}

/* Takes credits for a push that comes later, all or none: the count says which; or gives so many back. One block. */
template <class Block>
GMB_HD inline void credit_bulk(const Block &block, const shared_ring &ring, uint32_t wanted, bool back, const report &to) {
  if (block.block() != 0 || block.thread() != 0) return;
  const int32_t status = check_shared(ring.header);
  if (back) {
    if (status == GMB_OK) fetch_add_acq_rel(&ring.header->writer.credits, static_cast<uint64_t>(wanted));
    return;
  }
  const bool got = status == GMB_OK && take_all_credits(&ring.header->writer.credits, wanted);
  tell_shared(nullptr, got ? wanted : 0, wanted, status, to);
}

/* Borrows up to `max` records for one reader, the abandoned ones among them: those have the length `tombstone`. The table's
 * entry says which, for the release. One block. */
template <class Block>
GMB_HD inline void borrow_bulk(const Block &block, const shared_ring &ring, uint32_t reader, uint32_t max, held *entry,
                               gmb_spans *spans, const report &to) {
  gmb_ring_side *side = &ring.header->reader[reader & (GMB_MAX_READERS - 1)];
  uint64_t *const words = block.word + word_books;
  if (block.thread() == 0) {
    const int32_t status = check_shared(ring.header);
    claim mine = {0, 0};
    if (status == GMB_OK) mine = take_tickets(side, take_credits(&side->credits, max));
    *entry = {mine.first, mine.count};
    const uint64_t slot = mine.first & ring.at.mask;
    if (spans) tell_spans(spans, ring.at, mine.first, slot, mine.count);
    report device = to;
    device.host_slot = nullptr;
    end_shared(ring, side, nullptr, mine.count, max, status, device);
    const ending e = {mine.count, max, status, 0, 0, 0, 0, to.epoch};
    words[0] = count_word(e);
    words[1] = detail_word(e);
    words[2] = tagged(mine.first & ((1ull << slot_tag) - 1), e.epoch);
    words[3] = tagged(slot | mine.first >> slot_tag << 32, e.epoch);
  }
  block.sync();
  tell_slot(block, to, words);
}

/* Ends a borrow. One block. */
template <class Block> GMB_HD inline void release_bulk(const Block &block, const shared_ring &ring, held *entry) {
  if (check_shared(ring.header) != GMB_OK) return;
  const block_group<Block> group{block};
  const claim mine = {entry->first, static_cast<uint32_t>(entry->slot)};
  block.sync();
  if (block.thread() == 0) entry->slot = 0;
  if (mine.count > 0) release(group, ring, mine);
}

/* Lets a reader in or out. No other operation may run beside it. One block. */
template <class Block>
GMB_HD inline void change_reader_bulk(const Block &block, const shared_ring &ring, uint32_t reader, reader_action action) {
  if (check_shared(ring.header) != GMB_OK) return;
  const block_group<Block> group{block};
  gmb_ring_header *header = ring.header;
  gmb_ring_side *side = &header->reader[reader & (GMB_MAX_READERS - 1)];
  const uint32_t bit = 1u << (reader & (GMB_MAX_READERS - 1));
  const uint64_t published = load_acquire(&header->writer.committed);
  const bool removes = action == reader_action::remove;
  const uint64_t first = removes                               ? load_relaxed(&side->claimed)
                         : action == reader_action::add_oldest ? load_relaxed(&header->writer.floor)
                                                               : published;
  block.sync();
  const claim unread = {first, static_cast<uint32_t>(published - first)};
  if (removes) {
    if (block.thread() == 0) {
      store_relaxed(&header->reader_mask, load_relaxed(&header->reader_mask) & ~bit);
      store_relaxed(&side->credits, static_cast<uint64_t>(0));
    }
    release(group, ring, unread);
    return;
  }
  for (uint32_t i = block.thread(); i < unread.count; i += block.threads()) {
    const uint64_t before = fetch_add_acq_rel(ring.state(first + i), static_cast<uint64_t>(1));
    /* The last one that was past it no longer is. */
    const bool again = (before & unreleased_readers) == 0 && header_length(*ring.at.slot(first + i)) == tombstone;
    if (again) add_relaxed(&header->writer.abandoned, static_cast<uint64_t>(1));
  }
  if (block.thread() != 0) return;
  store_relaxed(&side->refused, static_cast<uint64_t>(0));
  store_relaxed(&side->empty, static_cast<uint64_t>(0));
  store_relaxed(&side->claimed, first);
  store_relaxed(&side->credits, published - first);
  store_relaxed(&header->reader_mask, load_relaxed(&header->reader_mask) | bit);
}

}  // namespace ring
}  // namespace gmb

#endif
