/* Work queues: items of 4, 8 or 16 bytes in device memory, first in, first out, for any number of producers and consumers
 * at once: threads, warps and blocks of running kernels, launches of the library, CPU threads where the queue lies in host
 * memory.
 *
 *   __global__ void produce(gmb_queue_header *queue, uint32_t n) {   // gmb_queue_info.queue
 *     gmb::device::work_queue<uint32_t> work(queue);
 *     gmb::device::one_warp warp;
 *     const uint32_t item = blockIdx.x * blockDim.x + threadIdx.x;
 *     bool left = item < n;
 *     for (uint32_t tries = 0; __any_sync(~0u, left); ++tries) {
 *       if (work.try_push_each(warp, item, left)) left = false;
 *       else gmb::device::back_off_longer(tries);
 *     }
 *   }
 *
 * A group takes credits for as many items as it has, or wants, and then with one addition as many tickets, which are indices.
 * A slot holds an item and its turn in one access: even while it is free, odd while it is full, two more in each round of the
 * ring; so neither an item nor a free slot needs a fence. Whoever has a ticket waits for its slot, that is for operations
 * with older tickets, which run already: never for a kernel that is still to start. Credits count what is certain to come:
 * room comes back with each pop, items with each push, when the slots are written.
 *
 * Tickets, credits and a turn for each slot: "The Broker Queue" (Kerbl, Kenzel, Mueller, Schmalstieg and Steinberger, ICS
 * 2018); its one count is two words here, so that room can be taken before an item is there for it.
 *
 * All threads of a group call each function together. What a group has written before a push is visible to the group that
 * pops the items (release and acquire, at device scope; of try_pop_each: to the lane that has the item), unless the queue is
 * used as `items_alone`: that says that the items are all there is, and saves a fence on either side.
 *
 * A loop that waits for room or items must not keep those out who would bring them: launch both so that they are resident
 * together, and give loops a limit or a word that stops them. */
#ifndef GPUMAILBOX_QUEUE_CUH
#define GPUMAILBOX_QUEUE_CUH

#include "shared_bulk.cuh"

namespace gmb {
namespace ring {

/* Parts of an item that lie in an access of their own. */
template <class T> struct item_parts {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8 || sizeof(T) == 16, "items have 4, 8 or 16 bytes");
  static constexpr uint32_t count = sizeof(T) == 16 ? 2 : 1;
  uint64_t part[count];

  GMB_HD item_parts() : part{} {}
  GMB_HD explicit item_parts(const T &item) : part{} { copy(part, &item); }
  GMB_HD T item() const {
    T made;
    copy(&made, part);
    return made;
  }

 private:
  GMB_HD static void copy(void *to, const void *from) {
    unsigned char *into = static_cast<unsigned char *>(to);
    const unsigned char *of = static_cast<const unsigned char *>(from);
    GMB_UNROLL
    for (uint32_t i = 0; i < sizeof(T); ++i) into[i] = of[i];
  }
};

/* One part of a slot: of a narrow item half of a word, of others half of a unit; the other half is the turn. */
struct narrow_part {
  uint64_t word;
  GMB_HD bool put(uint32_t free, uint64_t bits) {
    if (static_cast<uint32_t>(load_ahead(&word) >> 32) != free) return false;
    GMB_CHAOS_POINT(30);
    store_fenced(&word, static_cast<uint64_t>(free + 1) << 32 | bits);
    return true;
  }
  GMB_HD bool get(uint32_t full, uint64_t &bits) {
    const uint64_t found = load_ahead(&word);
    if (static_cast<uint32_t>(found >> 32) != full) return false;
    bits = static_cast<uint32_t>(found);
    GMB_CHAOS_POINT(31);
    store_fenced(&word, static_cast<uint64_t>(full + 1) << 32);
    return true;
  }
};
struct wide_part {
  unit both;
  GMB_HD bool put(uint32_t free, uint64_t bits) {
    if (load_unit_at_once(&both).hi != free) return false;
    GMB_CHAOS_POINT(30);
    unit filled;
    filled.lo = bits;
    filled.hi = free + 1;
    store_unit_at_once(&both, filled);
    return true;
  }
  GMB_HD bool get(uint32_t full, uint64_t &bits) {
    const unit found = load_unit_at_once(&both);
    if (found.hi != full) return false;
    bits = found.lo;
    GMB_CHAOS_POINT(31);
    store_fenced(&both.hi, static_cast<uint64_t>(full + 1));
    return true;
  }
};
template <class T, bool narrow = sizeof(T) == 4> struct part_of { typedef wide_part type; };
template <class T> struct part_of<T, true> { typedef narrow_part type; };

/* GMB_OK, or why the memory is no queue of such items. */
GMB_HD inline int32_t check_queue(const gmb_queue_header *queue, uint32_t item_bytes) {
  if (queue->magic != GMB_QUEUE_MAGIC) return GMB_ERROR_BAD_MAGIC;
  if (queue->version != GMB_LAYOUT_VERSION) return GMB_ERROR_BAD_VERSION;
  return queue->item_bytes == item_bytes ? GMB_OK : GMB_ERROR_WRONG_MODE;
}

/* A queue's slots, and the words that all share. */
template <class T> struct item_ring {
  typedef typename part_of<T>::type part;
  gmb_queue_header *header;
  part *slots;
  uint32_t mask;
  uint32_t turn_shift;

  GMB_HD explicit item_ring(gmb_queue_header *queue)
      : header(queue),
        slots(reinterpret_cast<part *>(reinterpret_cast<unsigned char *>(queue) + sizeof(gmb_queue_header))),
        mask(static_cast<uint32_t>(queue->capacity) - 1),
        turn_shift(log2_of(static_cast<uint32_t>(queue->capacity))) {}

  GMB_HD part *slot(uint64_t ticket) const { return slots + (static_cast<uint32_t>(ticket) & mask) * item_parts<T>::count; }
  GMB_HD uint32_t free_turn(uint64_t ticket) const { return static_cast<uint32_t>(ticket >> turn_shift) << 1; }

  /* What one lane has still to do in a slot: a bit for each part. */
  struct visit {
    part *at;
    uint32_t turn, left;
    item_parts<T> of;
  };
  GMB_HD visit to_put(uint64_t ticket, const T &item, bool mine) const {
    return {slot(ticket), free_turn(ticket), mine ? (1u << item_parts<T>::count) - 1 : 0, item_parts<T>(item)};
  }
  GMB_HD visit to_get(uint64_t ticket, bool mine) const {
    return {slot(ticket), free_turn(ticket) + 1, mine ? (1u << item_parts<T>::count) - 1 : 0, item_parts<T>()};
  }
  /* Does what can be done now. */
  template <bool puts> GMB_HD static void attempt(visit &v) {
    GMB_UNROLL
    for (uint32_t p = 0; p < item_parts<T>::count; ++p) {
      if ((v.left >> p & 1) != 0 && (puts ? v.at[p].put(v.turn, v.of.part[p]) : v.at[p].get(v.turn, v.of.part[p])))
        v.left &= ~(1u << p);
    }
  }
  /* As soon as the slot is free, or full. The store is in the loop: threads of a warp that wait stay together, and none may
   * hold up what another warp waits for. */
  template <bool puts> GMB_HD static void finish(visit &v) {
    for (uint32_t n = 0;; ++n) {
      attempt<puts>(v);
      if (!any_here(v.left != 0)) return;
      back_off(n);
    }
  }
  /* Puts an item into the slot of its ticket, where it is `mine` to do so. */
  GMB_HD void put(uint64_t ticket, const T &item, bool mine) const {
    visit v = to_put(ticket, item, mine);
    finish<true>(v);
  }
  /* Takes one out. */
  GMB_HD T get(uint64_t ticket, bool mine) const {
    visit v = to_get(ticket, mine);
    finish<false>(v);
    return v.of.item();
  }
};

/* Those that found too few may not have given back yet what they took. */
GMB_HD inline uint64_t credits_left(const uint64_t *credits) {
  const int64_t seen = static_cast<int64_t>(load_relaxed(credits));
  return seen > 0 ? static_cast<uint64_t>(seen) : 0;
}

/* As many of the credits as there are, `wanted` at most. Who `looks` first and sees that there are none takes none: he would
 * only keep others from those that come. */
GMB_HD inline uint32_t take_some(uint64_t *credits, uint32_t wanted, bool looks = true) {
  if (looks) {
    const int64_t seen = static_cast<int64_t>(load_relaxed(credits));
    if (seen <= 0) return 0;
    if (seen < static_cast<int64_t>(wanted)) wanted = static_cast<uint32_t>(seen);
  }
  GMB_CHAOS_POINT(32);
  const int64_t found = static_cast<int64_t>(fetch_add_relaxed(credits, ~static_cast<uint64_t>(wanted) + 1));
  if (found >= static_cast<int64_t>(wanted)) return wanted;
  const uint32_t got = found > 0 ? static_cast<uint32_t>(found) : 0;
  GMB_CHAOS_POINT(33);
  add_relaxed(credits, static_cast<uint64_t>(wanted - got));
  return got;
}

/* Credits, and tickets for them. */
GMB_HD inline claim take_claim(uint64_t *credits, uint64_t *tickets, uint32_t wanted, bool looks = true) {
  const uint32_t got = wanted > 0 ? take_some(credits, wanted, looks) : 0;
  GMB_CHAOS_POINT(34);
  return {got > 0 ? fetch_add_relaxed(tickets, static_cast<uint64_t>(got)) : 0, got};
}

/* What the group's leader has. */
template <class Group> GMB_HD inline claim told_by_leader(const Group &group, const claim &mine) {
  return {group.from_leader(mine.first), static_cast<uint32_t>(group.from_leader(static_cast<uint64_t>(mine.count)))};
}
#if defined(__CUDACC__)
GMB_HD inline claim told_by_leader(const one_warp &group, const claim &mine) {
  return {group.of_leader(mine.first), group.of_leader(mine.count)};
}
#endif
/* What one lane has written before the group's leader told something, another one's fence covers: so it is behind the
 * barriers of a block, and not behind a shuffle. */
template <class Group> GMB_HD inline void order_lanes(const Group &) {}
#if defined(__CUDACC__)
GMB_HD inline void order_lanes(const one_warp &group) { group.sync(); }
#endif

/* The same of a claim of a block's lanes, in one word while that has all bits of the ticket that a slot and its turn need. */
constexpr uint32_t lane_bits = 11, most_turn_shift = 64 - lane_bits - 31;
template <class Group> GMB_HD inline claim told_to_each(const Group &group, const claim &mine, uint32_t) { return told_by_leader(group, mine); }
#if defined(__CUDACC__)
GMB_HD inline claim told_to_each(const one_block &group, const claim &mine, uint32_t turn_shift) {
  if (turn_shift > most_turn_shift) return told_by_leader(group, mine);
  const uint64_t both = group.from_leader(mine.first << lane_bits | mine.count);
  return {both >> lane_bits, static_cast<uint32_t>(both) & ((1u << lane_bits) - 1)};
}
#endif

/* Of the lanes of a group that say so, how many come before this one, and how many there are. */
#if GMB_ON_DEVICE
__device__ inline uint32_t rank_in_warp(uint32_t lanes, bool has, uint32_t &total) {
  const uint32_t those = __ballot_sync(lanes, has);
  total = __popc(those);
  return __popc(those & ((1u << (threadIdx.x & 31)) - 1));
}
/* The lanes of this thread's warp that the block has. */
__device__ inline uint32_t lanes_here() {
  const uint32_t rest = blockDim.x - (threadIdx.x & ~31u);
  return rest < 32 ? (1u << rest) - 1 : 0xffffffff;
}
__device__ inline uint32_t rank_of(const one_warp &, bool has, uint32_t &total) { return rank_in_warp(0xffffffff, has, total); }
/* With the one word that such a group has its warps come in any order. Each call of the group that uses that begins with a
 * barrier, so none is needed behind the last look. */
__device__ inline uint32_t rank_of(const one_block &group, bool has, uint32_t &total) {
  if (__syncthreads_and(has)) {
    total = blockDim.x;
    return threadIdx.x;
  }
  unsigned *counted = reinterpret_cast<unsigned *>(group.word);
  if (threadIdx.x == 0) *counted = 0;
  __syncthreads();
  uint32_t in_warp, before = 0;
  const uint32_t rank = rank_in_warp(lanes_here(), has, in_warp);
  if ((threadIdx.x & 31) == 0) before = atomicAdd(counted, in_warp);
  before = __shfl_sync(lanes_here(), before, 0);
  __syncthreads();
  total = *counted;
  return before + rank;
}
/* In the order of the threads. */
template <class Block> __device__ inline uint32_t rank_of(const block_group<Block> &group, bool has, uint32_t &total) {
  static_assert(block_words * sizeof(uint64_t) >= 8 * sizeof(uint64_t) + 32, "a byte for each warp behind the words of the block");
  if (__syncthreads_and(has)) {
    total = blockDim.x;
    return threadIdx.x;
  }
  unsigned char *counts = reinterpret_cast<unsigned char *>(group.block.word + 8);
  uint32_t in_warp, before = 0;
  const uint32_t rank = rank_in_warp(lanes_here(), has, in_warp);
  if ((threadIdx.x & 31) == 0) counts[threadIdx.x / 32] = static_cast<unsigned char>(in_warp);
  __syncthreads();
  total = 0;
  for (uint32_t w = 0; w < (blockDim.x + 31) / 32; ++w) {
    if (w < threadIdx.x / 32) before += counts[w];
    total += counts[w];
  }
  return before + rank;
}
__device__ inline uint32_t rank_of(const one_thread &, bool has, uint32_t &total) {
  total = has;
  return 0;
}
#else
/* Each group is a thread. */
template <class Group> GMB_HD inline uint32_t rank_of(const Group &, bool has, uint32_t &total) {
  total = has;
  return 0;
}
#endif

template <bool puts, class T> GMB_HD inline void store_item(const T *, uint32_t, const item_parts<T> &) {}
template <bool puts, class T> GMB_HD inline void store_item(T *items, uint32_t i, const item_parts<T> &of) {
  if (!puts) items[i] = of.item();
}

/* Moves the items of a claim between memory and slots. No lane waits for another one's slot before it goes on to its next
 * item: of threads that each have a claim of their own, one's next item may be what another one waits for. */
template <bool puts, class Group, class T, class Items>
GMB_HD inline void move_items(const Group &group, const item_ring<T> &ring, const claim &mine, Items *items) {
  uint32_t i = group.lane();
  const auto begin = [&] {
    const bool has = i < mine.count;
    return puts ? ring.to_put(mine.first + i, has ? items[i] : T(), has) : ring.to_get(mine.first + i, has);
  };
  auto v = begin();
  for (uint32_t n = 0;; ++n) {
    item_ring<T>::template attempt<puts>(v);
    if (v.left == 0 && i < mine.count) {
      store_item<puts>(items, i, v.of);
      i += group.lanes();
      v = begin();
      n = 0;
    } else if (v.left != 0) {
      back_off(n);
    }
    if (!any_here(v.left != 0)) return;
  }
}
template <class Group, class T>
GMB_HD inline void put_items(const Group &group, const item_ring<T> &ring, const claim &mine, const T *items) {
  move_items<true>(group, ring, mine, items);
}
template <class Group, class T>
GMB_HD inline void get_items(const Group &group, const item_ring<T> &ring, const claim &mine, T *items) {
  move_items<false>(group, ring, mine, items);
}

/* What the blocks of one launched operation share, in its meeting: `arrived` tiles are drawn, `first` have their tickets,
 * `told` items have moved in all, and no more do once `told_alone` is set there.
 *
 * Blocks draw tiles and take the tickets of each in turn, so that the items keep their order and an operation that gets
 * fewer moves the first so many. Nobody has a ticket before it runs: whoever waits for a slot waits for running blocks. */
template <class Block, class Take, class Move, class Give>
GMB_HD inline void move_in_turn(const Block &block, uint32_t count, uint32_t tile, meeting *at, const Take &take, const Move &move,
                                const Give &give) {
  const block_group<Block> group{block};
  if (block.blocks() == 1) {
    const claim mine = told_by_leader(group, block.thread() == 0 ? take(count) : claim{0, 0});
    move(mine, 0u);
    block.sync();
    if (block.thread() == 0) {
      if (mine.count > 0) give(mine.count);
      at->told = mine.count;
    }
    return;
  }
  for (;;) {
    const uint64_t n = group.from_leader(block.thread() == 0 ? fetch_add_relaxed(&at->arrived, static_cast<uint64_t>(1)) : 0);
    if (n * tile >= count) return;
    claim mine = {0, 0};
    uint64_t before = 0;
    if (block.thread() == 0) {
      GMB_CHAOS_POINT(35);
      for (uint32_t tries = 0; load_acquire(&at->first) != n; ++tries) back_off(tries);
      const uint64_t told = load_relaxed(&at->told);
      const uint32_t wanted = count - static_cast<uint32_t>(n) * tile < tile ? count - static_cast<uint32_t>(n) * tile : tile;
      before = told & ~told_alone;
      if ((told & told_alone) == 0) mine = take(wanted);
      store_relaxed(&at->told, (before + mine.count) | (mine.count < wanted ? told_alone : 0));
      store_release(&at->first, n + 1);
    }
    mine = told_by_leader(group, mine);
    before = group.from_leader(before);
    move(mine, static_cast<uint32_t>(before));
    block.sync();
    if (block.thread() == 0 && mine.count > 0) give(mine.count);
  }
}

/* The blocks of a launched operation: the last one reports. */
template <class Block, class Body>
GMB_HD inline void queue_operation(const Block &block, int32_t status, uint32_t asked, meeting *at, const report &to,
                                   const Body &body) {
  if (status == GMB_OK) body();
  if (!finish_last(block, at) || block.thread() != 0) return;
  const uint64_t count = status == GMB_OK ? load_relaxed(&at->told) & ~told_alone : 0;
  tell_shared(at, count, asked, status, to);
}

/* Pushes the first so many of `count` items as there is room for. */
template <class T, class Block>
GMB_HD inline void push_queue(const Block &block, gmb_queue_header *queue, const T *items, uint32_t count, uint32_t tile,
                              meeting *at, const report &to) {
  const block_group<Block> group{block};
  queue_operation(block, check_queue(queue, sizeof(T)), count, at, to, [&] {
    const item_ring<T> ring(queue);
    move_in_turn(
        block, count, tile, at, [&](uint32_t wanted) { return take_claim(&queue->space, &queue->tail, wanted); },
        [&](const claim &mine, uint32_t before) {
          fence_device();
          put_items(group, ring, mine, items + before);
        },
        [&](uint32_t moved) { add_relaxed(&queue->items, static_cast<uint64_t>(moved)); });
  });
}

/* Pops up to `max` items. */
template <class T, class Block>
GMB_HD inline void pop_queue(const Block &block, gmb_queue_header *queue, T *items, uint32_t max, uint32_t tile, meeting *at,
                             const report &to) {
  const block_group<Block> group{block};
  queue_operation(block, check_queue(queue, sizeof(T)), max, at, to, [&] {
    const item_ring<T> ring(queue);
    move_in_turn(
        block, max, tile, at, [&](uint32_t wanted) { return take_claim(&queue->items, &queue->head, wanted); },
        [&](const claim &mine, uint32_t before) {
          get_items(group, ring, mine, items + before);
          fence_acquire();
        },
        [&](uint32_t moved) { add_relaxed(&queue->space, static_cast<uint64_t>(moved)); });
  });
}

}  // namespace ring

namespace device {

/* What a queue's user promises of its items. */
struct what_items_refer_to {
  static constexpr bool fences = true;
};
struct items_alone {
  static constexpr bool fences = false;
};

/* A queue of items of type T, of 4, 8 or 16 bytes and trivially copyable, as a kernel holds it: cheap to make, and to copy;
 * reads the header once. No function blocks longer than operations with older tickets take. */
template <class T, class Promise = what_items_refer_to> class work_queue {
 public:
  GMB_HD explicit work_queue(gmb_queue_header *queue)
      : ring_(queue), state_(static_cast<uint32_t>(-ring::check_queue(queue, sizeof(T))) << status_shift) {}

  /* GMB_OK, or why every operation gives nothing: GMB_ERROR_BAD_MAGIC, _BAD_VERSION, _WRONG_MODE (items of another size). */
  GMB_HD int32_t status() const { return -static_cast<int32_t>(state_ >> status_shift); }
  GMB_HD uint64_t capacity() const { return static_cast<uint64_t>(ring_.mask) + 1; }
  /* Items that nobody has taken, at some moment of the call. */
  GMB_HD uint64_t size() const { return ring::credits_left(&ring_.header->items); }

  /* Pushes the first so many items that there is room for: how many. They follow each other, and all lanes may write the
   * array again. */
  template <class Group> GMB_HD uint32_t try_push(const Group &group, const T *items, uint32_t count) const {
    const ring::claim mine = ring::told_by_leader(group, take(group, pushes_look, count));
    note(pushes_look, mine.count < count);
    if (mine.count == 0) return 0;
    release(group);
    ring::put_items(group, ring_, mine, items);
    give(group, &ring_.header->items, mine.count);
    group.sync();
    return mine.count;
  }
  /* Pops up to `max` items: how many. All lanes see them. */
  template <class Group> GMB_HD uint32_t try_pop(const Group &group, T *items, uint32_t max) const {
    const ring::claim mine = ring::told_by_leader(group, take(group, pops_look, max));
    note(pops_look, mine.count < max);
    if (mine.count == 0) return 0;
    ring::get_items(group, ring_, mine, items);
    give(group, &ring_.header->space, mine.count);
    acquire();
    group.sync();
    return mine.count;
  }

  /* Each lane that `has` one pushes its item, one behind the other in the order of the lanes (of a block: of each warp's);
   * the last ones get no room where there is too little. Whether this lane's was pushed. */
  template <class Group> GMB_HD bool try_push_each(const Group &group, const T &item, bool has = true) const {
    uint32_t total;
    const uint32_t rank = ring::rank_of(group, has, total);
    const ring::claim mine = ring::told_to_each(group, take(group, pushes_look, total), ring_.turn_shift);
    note(pushes_look, mine.count < total);
    if (mine.count == 0) return false;
    release(group);
    const bool pushes = has && rank < mine.count;
    ring_.put(mine.first + rank, item, pushes);
    give(group, &ring_.header->items, mine.count);
    return pushes;
  }
  /* Each lane that `wants` one pops an item, where there are enough of them. Whether this lane has one. */
  template <class Group> GMB_HD bool try_pop_each(const Group &group, T &item, bool wants = true) const {
    uint32_t total;
    const uint32_t rank = ring::rank_of(group, wants, total);
    const ring::claim mine = ring::told_to_each(group, take(group, pops_look, total), ring_.turn_shift);
    note(pops_look, mine.count < total);
    if (mine.count == 0) return false;
    const bool pops = wants && rank < mine.count;
    const T got = ring_.get(mine.first + rank, pops);
    give(group, &ring_.header->space, mine.count);
    acquire();
    if (pops) item = got;
    return pops;
  }

  /* One thread. */
  GMB_HD bool try_push(const T &item) const { return try_push_each(ring::one_thread(), item); }
  GMB_HD bool try_pop(T &item) const { return try_pop_each(ring::one_thread(), item); }

 private:
  /* In the state, below the status: who got fewer than it wanted looks first the next time. A look costs a trip to memory, a
   * failed attempt two visits to a word that all share. */
  static constexpr uint32_t pushes_look = 1, pops_look = 2, status_shift = 2;

  template <class Group> GMB_HD ring::claim take(const Group &group, uint32_t side, uint32_t wanted) const {
    gmb_queue_header *queue = ring_.header;
    if (group.lane() != 0 || state_ >> status_shift != 0) return {0, 0};
    const bool looks = (state_ & side) != 0;
    return side == pushes_look ? ring::take_claim(&queue->space, &queue->tail, wanted, looks)
                               : ring::take_claim(&queue->items, &queue->head, wanted, looks);
  }
  GMB_HD void note(uint32_t side, bool looks) const { state_ = looks ? state_ | side : state_ & ~side; }
  template <class Group> GMB_HD static void give(const Group &group, uint64_t *credits, uint32_t count) {
    if (group.lane() == 0) ring::add_relaxed(credits, static_cast<uint64_t>(count));
  }
  template <class Group> GMB_HD static void release(const Group &group) {
    if (!Promise::fences) return;
    ring::order_lanes(group);
    ring::fence_device();
  }
  GMB_HD static void acquire() {
    if (Promise::fences) ring::fence_acquire();
  }

  ring::item_ring<T> ring_;
  mutable uint32_t state_;
};

}  // namespace device
}  // namespace gmb

#endif
