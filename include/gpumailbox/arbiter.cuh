/* Arbiters: a small kernel that stays looks at many mailboxes, and says in device memory which have records for their readers.
 * So a module that consumes from many, or waits for one, looks at one line, and takes what is urgent first:
 *
 *   __global__ void consume(gmb_arbiter_header *header) {   // gmb_arbiter_info.arbiter; one warp
 *     gmb::device::one_warp warp;
 *     gmb::device::arbiter ready(header);
 *     for (uint32_t tries = 0, last = 0; tries < 1000000; ++tries) {
 *       const uint32_t n = ready.next(warp, last);           // a number as given to gmb_arbiter_create
 *       if (n == gmb::device::arbiter::none) continue;
 *       last = n;
 *       ...                                                  // pop from mailbox n
 *     }
 *   }
 *
 * What it says was so a moment ago: a pop may find that somebody else was faster, and then gives nothing; and what was
 * published just now is said a microsecond or two later, or, while the arbiter's kernel is away between two slices, once it has come
 * again: that takes a tenth of a millisecond or two. */
#ifndef GPUMAILBOX_ARBITER_CUH
#define GPUMAILBOX_ARBITER_CUH

#include "worker.cuh"

namespace gmb {
namespace ring {

/* Those of 32 mailboxes that have something to take, a bit for each. `has` says whether there is such a mailbox. */
#if GMB_ON_DEVICE
__device__ inline uint32_t ready_of(const gmb_arbiter_entry &mine, bool has, const gmb_arbiter_entry *, uint32_t) {
  return __ballot_sync(0xffffffff, has && load_relaxed(mine.published) != load_relaxed(mine.claimed));
}
#else
GMB_HD inline uint32_t ready_of(const gmb_arbiter_entry &, bool, const gmb_arbiter_entry *all, uint32_t count) {
  uint32_t ready = 0;
  for (uint32_t i = 0; i < count; ++i) {
    if (load_acquire(all[i].published) != load_acquire(all[i].claimed)) ready |= 1u << i;
  }
  return ready;
}
#endif

/* One warp's share of the mailboxes: 32 of them. Each goes round by itself; the first also speaks with the host. */
GMB_HD inline void watch_some(const gmb_arbiter_args &args, uint32_t share, uint64_t began, bool once) {
  gmb_arbiter_header *arbiter = args.arbiter;
  const serving_group group;
  const uint32_t first = share * 32;
  const uint32_t count = arbiter->count - first < 32 ? arbiter->count - first : 32;
  const bool has = group.lane() < count;
  const gmb_arbiter_entry mine = has ? args.entries[first + group.lane()] : gmb_arbiter_entry{nullptr, nullptr};
  uint32_t told = group.of_leader(load_relaxed(&arbiter->ready[share]));
  const uint64_t before = load_relaxed(&arbiter->turns);
  uint64_t beaten = 0;
  for (uint64_t turn = 0;; ++turn) {
    const uint32_t ready = ready_of(mine, has, args.entries + first, count);
    if (ready != told && group.lane() == 0) {
      GMB_CHAOS_POINT(43);
      store_relaxed(&arbiter->ready[share], ready);
    }
    told = ready;
    if (once) return;
    if (turn % 64 != 63) continue;
    uint32_t leaves = 0;
    if (group.lane() == 0) {
      const uint64_t now = clock_ns();
      leaves = load_relaxed(args.told) != 0 || now - began >= args.slice_ns;
      if (share == 0 && (leaves != 0 || now - beaten >= beat_ns)) {
        beaten = now;
        store_system(args.beat, now | 1);
        store_relaxed(&arbiter->turns, before + turn + 1);
        if (load_system(args.command) != 0) {
          store_relaxed(args.told, static_cast<uint64_t>(1));
          leaves = 1;
        }
      }
    }
    if (group.of_leader(leaves) != 0) return;
  }
}

/* An arbiter's block, from when it comes until it leaves. */
template <class Block> GMB_HD inline void arbitrate(const Block &block, const gmb_arbiter_args &args) {
  const uint64_t began = clock_ns();
  const uint32_t shares = (args.arbiter->count + 31) / 32;
  if (block.thread() == 0) store_relaxed(&args.arbiter->processor, processor() + 1);
#if GMB_ON_DEVICE
  if (block.thread() / 32 < shares) watch_some(args, block.thread() / 32, began, false);
#else
  /* One thread looks at all of them, and has a turn at least. */
  for (uint64_t beaten = 0;; back_off(0)) {
    for (uint32_t share = 0; share < shares; ++share) watch_some(args, share, began, true);
    store_relaxed(&args.arbiter->turns, load_relaxed(&args.arbiter->turns) + 1);
    const uint64_t now = clock_ns();
    if (now - beaten >= beat_ns) store_system(args.beat, (beaten = now) | 1);
    if (load_system(args.command) != 0 || now - began >= args.slice_ns) break;
  }
#endif
  block.sync();
  if (block.thread() == 0) store_system(args.beat, static_cast<uint64_t>(0));
}

/* The lowest bit of a word that is set; 32 if there is none. */
GMB_HD inline uint32_t first_bit(uint32_t word) {
#if GMB_ON_DEVICE
  return word == 0 ? 32 : static_cast<uint32_t>(__ffs(static_cast<int>(word))) - 1;
#else
  return word == 0 ? 32 : static_cast<uint32_t>(__builtin_ctz(word));
#endif
}

}  // namespace ring

namespace device {

/* An arbiter as a consuming kernel holds it: cheap to make, and to copy; reads the header once. */
class arbiter {
 public:
  /* No mailbox has records. */
  static constexpr uint32_t none = 0xffffffff;

  GMB_HD explicit arbiter(gmb_arbiter_header *header) : header_(header) {
    if (header->magic != GMB_ARBITER_MAGIC) status_ = GMB_ERROR_BAD_MAGIC;
    else if (header->version != GMB_LAYOUT_VERSION) status_ = GMB_ERROR_BAD_VERSION;
    if (status_ != GMB_OK) return;
    count_ = header->count;
    focus_ = header->focus;
  }

  /* GMB_OK, or why nothing is ever ready: GMB_ERROR_BAD_MAGIC, _BAD_VERSION. */
  GMB_HD int32_t status() const { return status_; }
  /* Mailboxes. */
  GMB_HD uint32_t count() const { return count_; }

  /* Whether a mailbox, by its number, has records that nobody has taken. One load, and each thread's own: others of its warp may
   * see something else at the same time, so let one look, and tell the others. */
  GMB_HD bool is_ready(uint32_t number) const {
    if (number >= count_) return false;
    const uint32_t place = header_->place[number];
    return (ring::load_relaxed(&header_->ready[place / 32]) >> place % 32 & 1) != 0;
  }

  /* The number of a mailbox that has records: one of class focus while there is one, otherwise a peripheral one; of each class
   * in turns, the next behind `last`. */
  template <class Group> GMB_HD uint32_t next(const Group &group, uint32_t last = none) const {
    uint32_t found = none;
    if (group.lane() == 0 && status_ == GMB_OK) {
      const uint32_t behind = last < count_ ? header_->place[last] + 1u : 0;
      found = first_of(0, focus_, behind);
      if (found == none) found = first_of(focus_, count_, behind);
      if (found != none) found = header_->number[found];
    }
    return static_cast<uint32_t>(group.from_leader(found));
  }

 private:
  /* Of the places from `low` to `high` the first that is ready at or behind one, otherwise the first of all. */
  GMB_HD uint32_t first_of(uint32_t low, uint32_t high, uint32_t behind) const {
    if (behind <= low || behind >= high) return first_between(low, high);
    const uint32_t found = first_between(behind, high);
    return found != none ? found : first_between(low, behind);
  }
  GMB_HD uint32_t first_between(uint32_t low, uint32_t high) const {
    for (uint32_t word = low / 32; word * 32 < high; ++word) {
      uint32_t ready = ring::load_relaxed(&header_->ready[word]);
      if (word == low / 32) ready &= ~0u << low % 32;
      if (high - word * 32 < 32) ready &= (1u << (high - word * 32)) - 1;
      if (ready != 0) return word * 32 + ring::first_bit(ready);
    }
    return none;
  }

  gmb_arbiter_header *header_;
  uint32_t count_ = 0, focus_ = 0;
  int32_t status_ = GMB_OK;
};

}  // namespace device
}  // namespace gmb

#endif
