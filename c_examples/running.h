/* How the loops of running kernels end: when their work is done, when they have tried too often, or when a word tells them to
 * stop. One source for kernels and for CPU threads on the host backend. */
#ifndef RUNNING_H
#define RUNNING_H

#include <gpumailbox/device.cuh>

/* What kernels and CPU threads both run, and how. */
#if defined(__CUDACC__)
#define DEVICE_SIDE __device__
#else
#define DEVICE_SIDE
#include <chrono>
#endif

namespace running {

/* A worker: a group for the mailboxes' functions, with a clock that all workers share, words that others read and write
 * meanwhile, and for its leader the sum over its lanes. */
#if defined(__CUDACC__)
struct worker : gmb::device::one_warp {
  __device__ uint64_t now_ns() const {
    uint64_t ns;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(ns));
    return ns;
  }
  __device__ uint32_t load(const uint32_t *word) const { return *static_cast<const volatile uint32_t *>(word); }
  __device__ void store(uint32_t *word, uint32_t value) const { *static_cast<volatile uint32_t *>(word) = value; }
  __device__ void count_up(uint32_t *word) const { atomicAdd(word, 1u); }
  __device__ uint32_t sum(uint32_t v) const {
    for (uint32_t distance = 16; distance > 0; distance /= 2) v += __shfl_down_sync(0xffffffffu, v, distance);
    return v;
  }
};
#else
struct worker : gmb::device::one_thread {
  uint64_t now_ns() const {
    const auto now = std::chrono::steady_clock::now().time_since_epoch();
    return static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(now).count());
  }
  uint32_t load(const uint32_t *word) const { return __atomic_load_n(word, __ATOMIC_RELAXED); }
  void store(uint32_t *word, uint32_t value) const { __atomic_store_n(word, value, __ATOMIC_RELAXED); }
  void count_up(uint32_t *word) const { __atomic_fetch_add(word, 1u, __ATOMIC_RELAXED); }
  uint32_t sum(uint32_t v) const { return v; }
};
#endif

enum ending : uint32_t { did_not_run, done, found_no_room, found_no_record, told_to_stop, bad_mailbox, strange_record };

struct limits {
  uint32_t *stop;      /* in device memory: not zero ends all loops */
  uint32_t most_tries; /* in a row that found nothing */
};

/* What one group has done; the CPU reads it afterwards. */
struct tally {
  uint64_t records;
  uint64_t bytes;
  uint64_t tries_in_vain;
  uint64_t began_ns;
  uint64_t ended_ns;
  uint64_t processor; /* where it ran, of those that say so */
  ending how;
  int32_t status; /* of a bad mailbox */
};

/* Ends this group's work, and with it that of all others: they would wait for it. */
template <class Group> DEVICE_SIDE inline bool give_up(const Group &group, const limits &until, tally &mine, ending why) {
  mine.how = why;
  if (group.lane() == 0) group.store(until.stop, 1);
  return false;
}

/* Whether a mailbox can be used at all. */
template <class Group, class Mailbox>
DEVICE_SIDE inline bool usable(const Group &group, const limits &until, tally &mine, const Mailbox &box) {
  if (box.status() == GMB_OK) return true;
  mine.status = box.status();
  return give_up(group, until, mine, bad_mailbox);
}

/* One lane looks: lanes that saw different values would part for good. */
template <class Group> DEVICE_SIDE inline bool stopped(const Group &group, const limits &until) {
  return group.from_leader(group.lane() == 0 ? group.load(until.stop) : 0u) != 0;
}

/* Repeats an attempt, which has the same outcome for all of the group, until it succeeds. False if it has to end before. */
template <class Group, class Attempt>
DEVICE_SIDE inline bool keep_trying(const Group &group, const limits &until, tally &mine, ending missing,
                                    const Attempt &attempt) {
  for (uint32_t n = 0;; ++n) {
    /* Now and then also while all goes well. */
    if ((n > 0 || mine.records % 64 == 0) && stopped(group, until)) {
      mine.how = told_to_stop;
      return false;
    }
    if (attempt()) return true;
    ++mine.tries_in_vain;
    if (n >= until.most_tries) return give_up(group, until, mine, missing);
    gmb::device::back_off(n);
  }
}

}  // namespace running

#endif
