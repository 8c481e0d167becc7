/* Doorbells: commands from the host to a kernel that runs, and its answers, with no launch between. FIFOs: records from
 * running kernels to the host. Both are rings in pinned memory, which each side writes in one direction only.
 *
 *   __global__ void serve(gmb_doorbell_header *header) {   // gmb_doorbell_info.doorbell; one warp
 *     gmb::device::one_warp warp;
 *     gmb::device::doorbell bell(header);
 *     for (gmb::device::command got;;) {
 *       if (!bell.try_take(warp, got)) continue;
 *       gmb_answer answer = {GMB_OK, 0, {2 * got.what.argument[0], 0, 0}};
 *       bell.answer(warp, got.ticket, answer);
 *       if (got.what.code == GMB_COMMAND_USER) return;
 *     }
 *   }
 *
 * Each word of a slot holds four bytes and its turn, which is another one in each round of the ring: so a command, an answer or
 * a record needs one trip over the bus, in whatever order its words come, and no fence. What else was written before it need
 * not be visible: fence_system() before an answer or a push, and after a take, sees to that.
 *
 * All threads of a group call each function together; one group at a time takes from a doorbell, any number of groups answer
 * commands and push to a FIFO. Nothing waits for the host. */
#ifndef GPUMAILBOX_DOORBELL_CUH
#define GPUMAILBOX_DOORBELL_CUH

#include "queue.cuh"

#include <string.h>

namespace gmb {
namespace ring {

/* A word of a slot in pinned memory. */
GMB_HD inline uint64_t mapped_word(uint32_t turn, uint32_t bits) { return static_cast<uint64_t>(turn) << 32 | bits; }
GMB_HD inline uint32_t mapped_turn(uint64_t word) { return static_cast<uint32_t>(word >> 32); }

/* The turn of a slot in the round of an index; before the first round a slot is all zero. */
GMB_HD inline uint32_t mapped_turn_of(uint64_t index, uint32_t shift) { return static_cast<uint32_t>(index >> shift) + 1; }

/* What a look at a slot finds. */
enum mapped_state : uint32_t { mapped_not_yet, mapped_there, mapped_spoilt };

/* Of words that each have the turn before, or this one: all this one, not yet all, or something else. */
GMB_HD inline mapped_state state_of(uint64_t word, uint32_t turn) {
  const uint32_t found = mapped_turn(word);
  return found == turn ? mapped_there : found == turn - 1 ? mapped_not_yet : mapped_spoilt;
}

/* By one thread: the last word alone, until that is there. */
template <uint32_t words> GMB_HD inline mapped_state read_alone(const uint64_t *slot, uint32_t turn, uint32_t *bits) {
  mapped_state worst = state_of(load_system(slot + words - 1), turn);
  if (worst != mapped_there) return worst;
  for (uint32_t i = 0; i < words; ++i) {
    const uint64_t word = load_system(slot + i);
    const mapped_state here = state_of(word, turn);
    if (here == mapped_spoilt || worst == mapped_there) worst = here;
    bits[i] = static_cast<uint32_t>(word);
  }
  return worst;
}

/* All words of a slot, for all of a group. */
template <uint32_t words, class Group>
GMB_HD inline mapped_state read_mapped(const Group &group, const uint64_t *slot, uint32_t turn, uint32_t *bits) {
  const uint32_t seen = group.lane() == 0 ? read_alone<words>(slot, turn, bits) : mapped_not_yet;
  const mapped_state found = static_cast<mapped_state>(group.from_leader(seen));
  if (found != mapped_there) return found;
  for (uint32_t i = 0; i < words; ++i) bits[i] = group.from_leader(bits[i]);
  return found;
}
/* A warp's look that is under way while what the one before it found is looked at: so a slot is seen twice as often as a trip over
 * the bus takes. What is found is as old as the call before: only for who looks again and again, and does nothing else. */
struct look_ahead {
  uint64_t word = 0;
  bool under_way = false;
};
template <uint32_t words, class Group>
GMB_HD inline mapped_state read_mapped(const Group &group, const uint64_t *slot, uint32_t turn, uint32_t *bits, look_ahead &) {
  return read_mapped<words>(group, slot, turn, bits);
}
template <uint32_t words, class Group>
GMB_HD inline void write_mapped(const Group &group, uint64_t *slot, uint32_t turn, const uint32_t *bits) {
  if (group.lane() != 0) return;
  for (uint32_t i = 0; i < words; ++i) store_system(slot + i, mapped_word(turn, bits[i]));
}
#if GMB_ON_DEVICE
/* Each lane of a warp has one of them: one request. */
template <uint32_t words> __device__ inline mapped_state told_by_lanes(uint64_t word, uint32_t turn, uint32_t *bits) {
  if (__all_sync(0xffffffff, mapped_turn(word) == turn)) {
    GMB_UNROLL
    for (uint32_t i = 0; i < words; ++i) bits[i] = __shfl_sync(0xffffffff, static_cast<uint32_t>(word), i);
    return mapped_there;
  }
  return __any_sync(0xffffffff, state_of(word, turn) == mapped_spoilt) ? mapped_spoilt : mapped_not_yet;
}
template <uint32_t words>
__device__ inline mapped_state read_mapped(const one_warp &group, const uint64_t *slot, uint32_t turn, uint32_t *bits) {
  return told_by_lanes<words>(load_system(slot + group.lane() % words), turn, bits);
}
template <uint32_t words>
__device__ inline mapped_state read_mapped(const one_warp &group, const uint64_t *slot, uint32_t turn, uint32_t *bits,
                                           look_ahead &ahead) {
  const uint64_t *mine = slot + group.lane() % words;
  const uint64_t word = ahead.under_way ? ahead.word : load_system(mine);
  ahead.word = load_system(mine);
  const mapped_state found = told_by_lanes<words>(word, turn, bits);
  /* The next one is of another slot. */
  ahead.under_way = found != mapped_there;
  return found;
}
template <uint32_t words>
__device__ inline void write_mapped(const one_warp &group, uint64_t *slot, uint32_t turn, const uint32_t *bits) {
  uint32_t mine = bits[0];
  GMB_UNROLL
  for (uint32_t i = 1; i < words; ++i) {
    if (group.lane() == i) mine = bits[i];
  }
  if (group.lane() < words) store_system(slot + group.lane(), mapped_word(turn, mine));
}
#endif

/* The bytes of a command, an answer or a record as words, and back. */
template <uint32_t words, class T> GMB_HD inline void to_bits(const T &from, uint32_t *bits) {
  static_assert(sizeof(T) == 4 * words, "a slot holds it whole");
  memcpy(bits, &from, sizeof(T));
}
template <uint32_t words, class T> GMB_HD inline void from_bits(const uint32_t *bits, T &to) {
  static_assert(sizeof(T) == 4 * words, "a slot holds it whole");
  memcpy(&to, bits, sizeof(T));
}

}  // namespace ring

namespace device {

/* A command as it was taken. */
struct command {
  gmb_command what;
  /* For the answer. */
  uint64_t ticket;
};

/* One side of a doorbell, as a kernel holds it: reads the header once. Who takes is the only one to, from when it is made
 * until it is gone; who only answers need not be. */
class doorbell {
 public:
  GMB_HD explicit doorbell(gmb_doorbell_header *header) : header_(header) {
    if (header->magic != GMB_DOORBELL_MAGIC) status_ = GMB_ERROR_BAD_MAGIC;
    else if (header->version != GMB_LAYOUT_VERSION) status_ = GMB_ERROR_BAD_VERSION;
    if (status_ != GMB_OK) return;
    mask_ = header->capacity - 1;
    shift_ = ring::log2_of(header->capacity);
    commands_ = header->commands;
    answers_ = header->answers;
    taken_ = header->taken;
  }

  /* GMB_OK, or why nothing comes any more: GMB_ERROR_BAD_MAGIC, _BAD_VERSION, _CORRUPT (something else wrote into a slot). */
  GMB_HD int32_t status() const { return status_; }

  /* The next command, if it is there now: whatever was submitted before this call is found. Cancelled ones are answered here, by
   * GMB_ERROR_CANCELLED. */
  template <class Group> GMB_HD bool try_take(const Group &group, command &got) { return take(group, got); }
  /* As a worker's own loop looks: by a warp, twice as often; but it finds what was there at the call before, with the same `ahead`,
   * which may be long ago for who does something else in between. */
  template <class Group> GMB_HD bool try_take(const Group &group, command &got, ring::look_ahead &ahead) {
    return take(group, got, ahead);
  }

  /* Whether a command that was taken is not wanted any more: a trip to the host's memory. */
  GMB_HD bool is_cancelled(uint64_t ticket) const {
    return (static_cast<uint32_t>(ring::load_system(slot(commands_, ticket) + 1)) & GMB_COMMAND_CANCELLED) != 0;
  }

  /* Answers a command, once. */
  template <class Group> GMB_HD void answer(const Group &group, uint64_t ticket, const gmb_answer &with) const {
    if (status_ != GMB_OK && status_ != GMB_ERROR_CORRUPT) return;
    uint32_t bits[GMB_COMMAND_WORDS];
    ring::to_bits<GMB_COMMAND_WORDS>(with, bits);
    GMB_CHAOS_POINT(40);
    ring::write_mapped<GMB_COMMAND_WORDS>(group, slot(answers_, ticket), ring::mapped_turn_of(ticket, shift_), bits);
  }

 private:
  template <class Group, class... Ahead> GMB_HD bool take(const Group &group, command &got, Ahead &...ahead) {
    for (;;) {
      if (status_ != GMB_OK) return false;
      uint32_t bits[GMB_COMMAND_WORDS];
      const uint32_t turn = ring::mapped_turn_of(taken_, shift_);
      const ring::mapped_state found = ring::read_mapped<GMB_COMMAND_WORDS>(group, slot(commands_, taken_), turn, bits, ahead...);
      if (found == ring::mapped_spoilt) status_ = GMB_ERROR_CORRUPT;
      if (found != ring::mapped_there) return false;
      got.ticket = taken_++;
      ring::from_bits<GMB_COMMAND_WORDS>(bits, got.what);
      if (group.lane() == 0) ring::store_relaxed(&header_->taken, taken_);
      if ((got.what.flags & GMB_COMMAND_CANCELLED) == 0) return true;
      const gmb_answer never = {GMB_ERROR_CANCELLED, 0, {0, 0, 0}};
      answer(group, got.ticket, never);
    }
  }
  template <class Word> GMB_HD Word *slot(Word *ring, uint64_t ticket) const {
    return ring + (static_cast<uint32_t>(ticket) & mask_) * GMB_COMMAND_WORDS;
  }

  gmb_doorbell_header *header_;
  const uint64_t *commands_ = nullptr;
  uint64_t *answers_ = nullptr;
  uint64_t taken_ = 0;
  uint32_t mask_ = 0, shift_ = 0;
  int32_t status_ = GMB_OK;
};

/* The device's side of a FIFO: any number of groups push, the host drains. */
class fifo {
 public:
  GMB_HD explicit fifo(gmb_fifo_header *header) : header_(header) {
    if (header->magic != GMB_FIFO_MAGIC) status_ = GMB_ERROR_BAD_MAGIC;
    else if (header->version != GMB_LAYOUT_VERSION) status_ = GMB_ERROR_BAD_VERSION;
    if (status_ != GMB_OK) return;
    records_ = header->records;
    mask_ = header->capacity - 1;
    shift_ = ring::log2_of(header->capacity);
  }

  /* GMB_OK, or why nothing is pushed: GMB_ERROR_BAD_MAGIC, _BAD_VERSION. */
  GMB_HD int32_t status() const { return status_; }

  /* Pushes the first so many records that there is room for: how many. They follow each other. */
  template <class Group> GMB_HD uint32_t try_push(const Group &group, const gmb_fifo_record *records, uint32_t count) const {
    const ring::claim mine = ring::told_by_leader(group, group.lane() == 0 ? take(count) : ring::claim{0, 0});
    /* Word by word, so that lanes next to each other write next to each other. */
    for (uint32_t i = group.lane(); i < mine.count * GMB_FIFO_WORDS; i += group.lanes()) {
      const uint64_t ticket = mine.first + i / GMB_FIFO_WORDS, both = records[i / GMB_FIFO_WORDS].word[i % GMB_FIFO_WORDS / 2];
      const uint32_t bits = static_cast<uint32_t>(i % 2 == 0 ? both : both >> 32);
      GMB_CHAOS_POINT(42);
      ring::store_system(slot(ticket) + i % GMB_FIFO_WORDS, ring::mapped_word(ring::mapped_turn_of(ticket, shift_), bits));
    }
    group.sync();
    return mine.count;
  }
  /* Each lane that `has` one pushes its record, in the order of the lanes. Whether this lane's was pushed. */
  template <class Group> GMB_HD bool try_push_each(const Group &group, const gmb_fifo_record &record, bool has = true) const {
    uint32_t total;
    const uint32_t rank = ring::rank_of(group, has, total);
    const ring::claim mine = ring::told_by_leader(group, group.lane() == 0 ? take(total) : ring::claim{0, 0});
    const bool pushes = has && rank < mine.count;
    if (pushes) put(mine.first + rank, record);
    return pushes;
  }
  /* One thread. */
  GMB_HD bool try_push(const gmb_fifo_record &record) const { return try_push_each(ring::one_thread(), record); }

 private:
  /* Credits as far as the device knows; then as the host does, which is a trip over the bus. */
  GMB_HD ring::claim take(uint32_t wanted) const {
    if (status_ != GMB_OK || wanted == 0) return {0, 0};
    uint32_t got = ring::take_some(&header_->space, wanted);
    if (got < wanted && learn()) got += ring::take_some(&header_->space, wanted - got);
    GMB_CHAOS_POINT(41);
    return {got > 0 ? ring::fetch_add_relaxed(&header_->tail, static_cast<uint64_t>(got)) : 0, got};
  }
  GMB_HD bool learn() const {
    const uint64_t drained = ring::load_system(header_->drained);
    const uint64_t known = ring::load_relaxed(&header_->known);
    if (drained == known || static_cast<int64_t>(drained - known) < 0) return false;
    GMB_CHAOS_POINT(44);
    /* Of those that learn it one gives it to all. */
    if (!ring::replace_limit(&header_->known, known, drained)) return true;
    ring::add_relaxed(&header_->space, drained - known);
    return true;
  }
  GMB_HD void put(uint64_t ticket, const gmb_fifo_record &record) const {
    uint32_t bits[GMB_FIFO_WORDS];
    ring::to_bits<GMB_FIFO_WORDS>(record, bits);
    GMB_CHAOS_POINT(42);
    ring::write_mapped<GMB_FIFO_WORDS>(ring::one_thread(), slot(ticket), ring::mapped_turn_of(ticket, shift_), bits);
  }
  GMB_HD uint64_t *slot(uint64_t ticket) const { return records_ + (static_cast<uint32_t>(ticket) & mask_) * GMB_FIFO_WORDS; }

  gmb_fifo_header *header_;
  uint64_t *records_ = nullptr;
  uint32_t mask_ = 0, shift_ = 0;
  int32_t status_ = GMB_OK;
};

}  // namespace device
}  // namespace gmb

#endif
