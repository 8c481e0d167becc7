/* An operation's turn on its side of a ring: the header is read, blocks arrive,
 * the last one publishes, counts and reports. What is done in between is in
 * ring.cuh and overwrite.cuh.
 *
 * Each block reads the opposite index with acquire and may see another value
 * than its neighbours, so each copies what it sees, combines its grant into the
 * side's word with an atomic minimum and arrives; the last block publishes the
 * minimum. What was copied beyond it is not published. */
#ifndef GPUMAILBOX_TURN_CUH
#define GPUMAILBOX_TURN_CUH

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

/* Where the outcome is reported; each may be null. */
struct report {
  gmb_result *device_result;
  uint64_t *host_slot;     /* {epoch, count, partial}, {lost, status, tag}; of a borrow also {first, tag}, {slot, tag} */
  uint64_t *host_progress; /* index << 24 | operations & 0xffffff */
  uint32_t operation;      /* tells this operation's blocks from those of another */
  uint32_t epoch;          /* of the result; zero for one more than what the device's result has */
};

/* In a host slot's first word, above the count. */
constexpr uint64_t slot_partial = 1ull << 62;

/* In its other words: the low bits of the operation's epoch. They are stored at once, so that nobody waits in between, and
 * may be seen apart: words of one operation have the same. */
constexpr int slot_tag = 48;
constexpr int slot_status = 40;
constexpr uint64_t most_lost = (1ull << slot_status) - 1; /* that the second word can tell */
GMB_HD inline uint64_t tagged(uint64_t word, uint32_t epoch) { return word | static_cast<uint64_t>(epoch) << slot_tag; }

/* A grant and the error that ended it, ordered by grant first. */
GMB_HD inline uint64_t grant_word(uint64_t count, int32_t status) {
  return (count << 8) | static_cast<uint64_t>(static_cast<uint32_t>(-status) & 0xffu);
}
GMB_HD inline uint64_t grant_count(uint64_t word) { return word >> 8; }
GMB_HD inline int32_t grant_status(uint64_t word) { return -static_cast<int32_t>(word & 0xff); }

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
  uint64_t claimed;    /* the same, but for a reader that has borrowed */
  uint64_t operations; /* of the side, with this one */
  uint64_t lost;
  uint32_t epoch;

  GMB_HD uint32_t flags() const {
    return (count < asked ? GMB_RESULT_PARTIAL : 0) | (lost != 0 ? GMB_RESULT_LOST : 0);
  }
};

GMB_HD inline ending ended(const books &kept, uint64_t count, uint64_t asked, int32_t status, uint64_t index,
                           uint64_t lost) {
  return {count, asked, status, index, index, kept.operations + 1, lost, kept.epoch + 1};
}

/* Tells of an operation in steps, so that the waits for them overlap. First what the device is told; then, behind a
 * fence_device, its epoch; then, behind a fence at system scope, the words of the host: whoever sees them sees the
 * records, and all else that the operation has stored. A borrow and its release tell the host after all of that. */
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

GMB_HD inline uint64_t progress_word(const ending &e) { return (e.index << 24) | (e.operations & 0xffffff); }
GMB_HD inline uint64_t claimed_word(const ending &e) { return (e.claimed << 24) | (e.operations & 0xffffff); }
GMB_HD inline uint64_t count_word(const ending &e) {
  return e.epoch | (e.count << 32) | (e.count < e.asked ? slot_partial : 0);
}
GMB_HD inline uint64_t detail_word(const ending &e) {
  const uint64_t status = static_cast<uint32_t>(e.status) & 0xffu;
  return tagged((e.lost < most_lost ? e.lost : most_lost) | status << slot_status, e.epoch);
}

/* Two sectors of 32 bytes in all. */
GMB_HD inline void tell_host(const report &to, const ending &e) {
  if (to.host_progress) store_system(to.host_progress, progress_word(e));
  if (to.host_slot) store_pair_system(to.host_slot, count_word(e), detail_word(e));
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
constexpr int word_first = 1, word_status = 2, word_unread = 3, word_books = 4, word_drawn = 10, word_room = 12;
static_assert(word_books + 6 == word_drawn, "the books have six words");
static_assert(word_drawn + 2 == word_room, "two words take turns");
static_assert(word_room + 1 == block_words, "that is all");

/* The books for a leader at the end: it found them at the beginning where it was sure to be the last to arrive. */
template <class Block>
GMB_HD inline books books_at_end(const Block &block, gmb_ring_side *side, const report &to) {
  if (block.blocks() != 1) return open_books(side, to);
  const uint64_t *at = block.word + word_books;
  return {at[0], at[1], at[2], at[3], at[4], static_cast<uint32_t>(at[5])};
}

/* The leader's reading of the header, made known to the whole block. `ahead` loads what `room` needs, with the
 * header: all of it is one trip to memory. Where operations overlap it acquires, and comes last: nothing that is loaded
 * behind it is on its way before it. */
template <class Block, class Ahead, class Room>
GMB_HD inline turn take_turn(const Block &block, gmb_ring_header *ring, gmb_ring_side *side, bool ordered,
                             const report &to, const Ahead &ahead, const Room &room) {
  turn t;
  if (block.thread() == 0) {
    GMB_CHAOS_POINT(6);
    const uint64_t magic = load_relaxed(&ring->magic);
    const uint32_t version = load_relaxed(&ring->version);
    const int32_t stopped = load_relaxed(&ring->fault);
    const uint64_t committed = load_relaxed(&side->committed);
    const uint64_t arrivals = block.blocks() == 1 ? load_relaxed(&side->arrivals) : 0;
    const uint64_t claimed = ordered ? load_relaxed(&side->claimed) : committed;
    /* Apart: a second load into a register waits for the first. */
    decltype(ahead.plain()) plain, acquired;
    if (ordered) plain = ahead.plain();
    if (block.blocks() == 1) {
      const books found = open_books(side, to);
      uint64_t *at = block.word + word_books;
      at[0] = found.operations, at[1] = found.refused, at[2] = found.empty;
      at[3] = found.high_water, at[4] = found.lost, at[5] = found.epoch;
    }
    if (!ordered) acquired = ahead.acquiring();
    const int32_t good = check_words(magic, version);
    const bool violated = arrivals != 0 || claimed != committed;
    const int32_t fault = violated ? static_cast<int32_t>(GMB_ERROR_ORDER_VIOLATION) : stopped;
    uint64_t word = 0;
    block.word[word_unread] = 0;
    if (good == GMB_OK) word = fault != GMB_OK ? grant_word(0, fault) : grant_word(ordered ? room(committed, plain) : room(committed, acquired), GMB_OK);
    block.word[0] = word;
    block.word[word_first] = committed;
    block.word[word_status] = grant_word(0, good);
    /* Apart from the grant, which another thread may have lowered already: all threads must agree. */
    block.word[word_room] = good == GMB_OK ? grant_count(word) : 0;
  }
  block.sync();
  t.first = block.word[word_first];
  t.status = grant_status(block.word[word_status]);
  t.room = block.word[word_room];
  return t;
}

/* For `take_turn`, where `room` looks for itself. */
struct nothing_ahead {
  GMB_HD int plain() const { return 0; }
  GMB_HD int acquiring() const {
    fence_acquire();
    return 0;
  }
};

/* The side's arrivals: blocks in the low 16 bits, those among them that lowered the grant in the next 16, the sum of
 * their operations' numbers in the high half. Blocks of two operations at once show in the sum. */
GMB_HD inline uint64_t arrival(uint32_t operation, uint32_t blocks) {
  return (static_cast<uint64_t>(operation * blocks) << 32) | blocks;
}
constexpr uint64_t arrived_blocks = 0xffff;
constexpr uint64_t lowering_block = arrived_blocks + 1;
constexpr uint64_t lowering_blocks = arrived_blocks << 16;

GMB_HD inline ending violated(const books &kept, uint64_t before, uint64_t asked) {
  return ended(kept, 0, asked, GMB_ERROR_ORDER_VIOLATION, before, 0);
}

/* Stops the mailbox: two operations of one side ran at once. Nothing of this
 * one is published. */
GMB_HD GMB_RARE inline void violation(gmb_ring_header *ring, gmb_ring_side *side, uint64_t before, uint64_t asked,
                                      books kept, report to) {
  store_relaxed(&ring->fault, static_cast<int32_t>(GMB_ERROR_ORDER_VIOLATION));
  store_relaxed(&side->operations, kept.operations + 1);
  tell(to, violated(kept, before, asked));
}

/* Combines a block's grant with those of the others. True for the last block to arrive, with the minimum in
 * `word`; its errors are those of the whole operation. A grant of all that was asked for lowers nothing. */
GMB_HD inline bool arrive_last(uint32_t blocks, gmb_ring_side *side, uint32_t operation, uint64_t asked,
                               uint64_t &word) {
  if (blocks <= 1) return true;
  const bool lowers = word != grant_word(asked, GMB_OK);
  if (lowers) lower_relaxed(&side->grant, word);
  GMB_CHAOS_POINT(2);
  const uint64_t mine = arrival(operation, 1) + (lowers ? lowering_block : 0);
  const uint64_t arrived = fetch_add_acq_rel(&side->arrivals, mine) + mine;
  if ((arrived & arrived_blocks) < blocks) return false;
  /* The arrivals stay then, so that every block that comes later sees it too
   * and the result of every operation is told; but they must not wrap. */
  if ((arrived & ~lowering_blocks) != arrival(operation, blocks)) {
    if ((arrived & arrived_blocks) > arrived_blocks / 2) add_relaxed(&side->arrivals, -mine);
    word = grant_word(0, GMB_ERROR_ORDER_VIOLATION);
    return true;
  }
  word = grant_word(asked, GMB_OK);
  if ((arrived & lowering_blocks) != 0) {
    const uint64_t least = load_relaxed(&side->grant);
    store_relaxed(&side->grant, ~static_cast<uint64_t>(0));
    /* What lowers is less than this: another operation has taken the word away. */
    word = least < word ? least : grant_word(0, GMB_ERROR_ORDER_VIOLATION);
  }
  add_relaxed(&side->arrivals, -arrived);
  return true;
}

/* Of what could be moved. */
GMB_HD inline uint64_t taken(bool whole, uint64_t count, uint64_t asked) { return whole && count < asked ? 0 : count; }

/* Counts an operation. `held` is what lies in the ring then, zero for a pop. */
GMB_HD inline void write_books(gmb_ring_side *side, const books &kept, const ending &e, uint64_t held) {
  store_fenced(&side->claimed, e.claimed);
  store_relaxed(&side->operations, e.operations);
  if (e.count < e.asked) store_relaxed(&side->refused, kept.refused + (e.asked - e.count));
  if (e.count == 0) store_relaxed(&side->empty, kept.empty + 1);
  if (e.lost != 0) store_relaxed(&side->lost, kept.lost + e.lost);
  if (held > kept.high_water) store_relaxed(&side->high_water, held);
}

/* Publishes that the side's index went from `before` to where `e` says, and tells of it. One fence orders all that came
 * before it for the device and the host. With `ordered` the index is before it, too: nobody reads it before this operation
 * has ended. Should another one run all the same, both have added, and the next one finds that the indices differ.
 * Else the index is behind the fence, and none between it and the host's words: the exchange has answered by then, which
 * on the machines that we know means that whatever the host launches finds it. PTX itself promises that only to work
 * ordered by a stream or event. False, and told, if another operation of the side ran. */
GMB_HD inline bool publish_turn(gmb_ring_header *ring, gmb_ring_side *side, uint64_t before, const books &kept,
                                const ending &e, bool ordered, const report &to) {
  tell_device(to, e);
  if (ordered) add_fenced(&side->committed, e.index - before);
  if (to.host_slot || to.host_progress) fence_system();
  else if (!ordered || to.device_result) fence_device();
  if (!ordered) {
    /* If the side's index moved meanwhile, another operation of it ran. */
    const bool alone = replace_fenced(&side->committed, before, e.index);
    GMB_CHAOS_POINT(3);
    if (!alone) {
      violation(ring, side, before, e.asked, kept, to);
      return false;
    }
  }
  tell_epoch(to, e);
  tell_host(to, e);
  return true;
}

GMB_HD inline bool close_turn(gmb_ring_header *ring, gmb_ring_side *side, uint64_t before, const books &kept,
                              const ending &e, uint64_t held, bool ordered, const report &to) {
  write_books(side, kept, e, held);
  return publish_turn(ring, side, before, kept, e, ordered, to);
}

/* Ends an operation for this block, and for all if it is the last to arrive. */
template <class Block>
GMB_HD inline void end_turn(const Block &block, gmb_ring_header *ring, gmb_ring_side *side, const turn &t,
                            uint64_t asked, bool whole, bool drew, bool ordered, const report &to) {
  block.sync();
  if (block.thread() != 0) return;
  GMB_CHAOS_POINT(1);
  uint64_t word = block.word[0];
  /* On their way while the block arrives. */
  const books kept = books_at_end(block, side, to);
  if (!arrive_last(block.blocks(), side, to.operation, asked, word)) return;
  const uint64_t count = taken(whole, grant_count(word), asked);
  const uint64_t end = t.first + count;
  if (grant_status(word) == GMB_ERROR_ORDER_VIOLATION) return violation(ring, side, t.first, asked, kept, to);
  GMB_CHAOS_POINT(3);
  if (drew) {
    store_relaxed(&side->drawn, static_cast<uint64_t>(0));
    store_relaxed(&side->agreed, static_cast<uint64_t>(0));
  }
  const uint64_t held = side == &ring->writer ? block.word[word_unread] + count : 0;
  close_turn(ring, side, t.first, kept, ended(kept, count, asked, grant_status(word), end, 0), held, ordered, to);
}

/* A header that is not ours names no side to arrive at: one block reports. */
GMB_HD GMB_RARE inline void refuse(int32_t status, uint64_t asked, report to) {
  /* The side's own counts are out of reach: go on from what the host was told last. */
  const uint64_t told = to.host_progress ? *to.host_progress : 0;
  const uint32_t epoch = to.epoch != 0 ? to.epoch : to.device_result ? to.device_result->epoch + 1 : 1;
  tell(to, {0, asked, status, told >> 24, told >> 24, told + 1, 0, epoch});
}

template <class Block>
GMB_HD inline void refuse(const Block &block, int32_t status, uint64_t asked, const report &to) {
  if (block.block() == 0 && block.thread() == 0) refuse(status, asked, to);
}

}  // namespace ring
}  // namespace gmb

#endif
