/* Persistent workers: a kernel that stays on the device, takes items from one queue, and routes what becomes of them to two
 * others, until it is stopped, has nothing to do, or has gone round so many times. The library starts it, lets it leave and
 * come again, and watches it (gmb_worker_create); what happens to an item is a functor of yours:
 *
 *     struct halve {
 *       static constexpr uint32_t most_spawned = 1;   // of an item, at most
 *       template <class Hand> GMB_HD gmb::worker::route operator()(uint32_t &item, Hand &hand) const {
 *         if (item % 2 != 0) return gmb::worker::finished;
 *         item /= 2;
 *         hand.spawn(item);
 *         return gmb::worker::dropped;
 *       }
 *     };
 *     GMB_WORKER_KERNEL(halve_worker, uint32_t, halve)        // for a GPU; its CUfunction goes into gmb_worker_options.function
 *     GMB_WORKER_FUNCTION(halve_on_the_host, uint32_t, halve) // for the host backend; its address does
 *
 * Each thread of a block calls the functor with an item of its own, all of a block at about the same time; threads that have
 * no item wait for them, so no functor may wait for other threads of its block. Room in both outputs is taken before an item
 * is: one place in `finished`, `most_spawned` places in `spawn`. So nothing is ever held that has no place to go, and a worker
 * that leaves, for whatever reason, leaves all items in queues.
 *
 * A worker with a doorbell (gmb_worker_options.doorbell) has one block more, which answers commands and takes no items. A
 * functor that says `takes_commands` has those from GMB_COMMAND_USER on, one at a time, beside the items:
 *
 *     static constexpr bool takes_commands = true;
 *     template <class Desk> GMB_HD void command(const gmb_command &what, gmb_answer &answer, Desk &desk) const {
 *       answer.value[0] = desk.template user<state>()->set(what.argument[0]);
 *     }
 *
 * A functor that works for long looks at hand.must_leave() now and then, and returns `again`: the item goes back to the
 * queue's end. One that never returns cannot be stopped; the watchdog says which block does not come back. */
#ifndef GPUMAILBOX_WORKER_CUH
#define GPUMAILBOX_WORKER_CUH

#include "doorbell.cuh"

namespace gmb {
namespace ring {

/* A block's heartbeat is a time, in a word of the host's memory: this much apart, in nanoseconds, so that the way there is
 * rarely gone. */
constexpr uint64_t beat_ns = 100000;

/* What a worker shall do is another word there, which all blocks read: many at once would wait for each other. Each looks so
 * rarely that one of them does every few microseconds, and tells the others in device memory. */
constexpr uint64_t look_ns = 4000;
GMB_HD inline uint64_t look_every(uint32_t blocks) {
  const uint64_t all = look_ns * blocks;
  return all > beat_ns ? all : beat_ns;
}
GMB_HD inline bool is_told(const gmb_worker_args &args) { return load_relaxed(args.told) != 0; }
GMB_HD inline bool look(const gmb_worker_args &args) {
  if (load_system(args.command) == 0) return false;
  store_relaxed(args.told, static_cast<uint64_t>(1));
  return true;
}

/* When a functor shall come to an end: the slice is over, or the host says so. */
class leaving {
 public:
  GMB_HD leaving(const gmb_worker_args &args, uint64_t leave_at, uint64_t look_every)
      : args_(args), leave_at_(leave_at), look_every_(look_every) {}
  GMB_HD bool now() {
    const uint64_t time = clock_ns();
    if (time >= leave_at_ || is_told(args_)) return true;
    if (looked_ == 0) looked_ = time;
    if (time - looked_ < look_every_) return false;
    looked_ = time;
    return look(args_);
  }

 private:
  const gmb_worker_args &args_;
  uint64_t leave_at_;
  uint64_t look_every_;
  uint64_t looked_ = 0;
};
/* When a slice that began then is over. */
GMB_HD inline uint64_t end_of(const gmb_worker_args &args, uint64_t began) {
  return began + args.slice_ns < began ? ~0ull : began + args.slice_ns;
}

}  // namespace ring

namespace worker {

/* Where an item goes from the functor's hands: to the queue `finished`, nowhere, or to the end of the queue it came from. */
enum route : uint32_t { finished, dropped, again };

/* What the functor has of an item besides the item. */
template <class T, uint32_t most> class hand {
 public:
  GMB_HD hand(const gmb_worker_args &args, uint64_t ticket, uint64_t leave_at, uint64_t look_every)
      : args_(args), ticket_(ticket), leaving_(args, leave_at, look_every) {}

  /* Number of the item in the queue that it came from, since that was made. */
  GMB_HD uint64_t ticket() const { return ticket_; }
  /* gmb_worker_options.user. */
  template <class User> GMB_HD User *user() const { return static_cast<User *>(args_.user); }
  GMB_HD const gmb_worker_args &args() const { return args_; }
  /* One item more for the queue `spawn`; false, and it is not taken, beyond `most_spawned` of them, or where there is no such
   * queue. */
  GMB_HD bool spawn(const T &item) {
    if (count_ == most || args_.spawn == nullptr) return false;
    GMB_UNROLL
    for (uint32_t i = 0; i < most; ++i) {
      if (i == count_) spawned_[i] = item;
    }
    ++count_;
    return true;
  }
  /* Whether the worker was asked to leave, or its slice is over: soon nobody else waits for anything but this functor. */
  GMB_HD bool must_leave() { return leaving_.now(); }

  GMB_HD uint32_t count() const { return count_; }
  GMB_HD const T &spawned(uint32_t i) const { return spawned_[i]; }

 private:
  const gmb_worker_args &args_;
  uint64_t ticket_;
  ring::leaving leaving_;
  uint32_t count_ = 0;
  T spawned_[most > 0 ? most : 1] = {};
};

/* What the functor has of a command besides the command. */
class desk {
 public:
  GMB_HD desk(const gmb_worker_args &args, const device::doorbell &bell, uint64_t ticket, const ring::leaving &leaving)
      : args_(args), bell_(bell), ticket_(ticket), leaving_(leaving) {}

  /* gmb_worker_options.user. */
  template <class User> GMB_HD User *user() const { return static_cast<User *>(args_.user); }
  /* Whether the command is not wanted any more: a trip to the host's memory. */
  GMB_HD bool is_cancelled() const { return bell_.is_cancelled(ticket_); }
  /* As of an item's hand: who takes long and does not look keeps the worker from leaving. */
  GMB_HD bool must_leave() { return leaving_.now(); }

 private:
  const gmb_worker_args &args_;
  const device::doorbell &bell_;
  uint64_t ticket_;
  ring::leaving leaving_;
};

}  // namespace worker

namespace ring {

/* What a block's leader decides before each turn of the loop. */
struct work_turn {
  uint64_t ticket;
  uint32_t count;
  bool leave;
};

/* 64-bit variables of a worker's block: those of every block, and behind them what its leader counts, which would take
 * registers of all threads. */
constexpr int worker_words = 12 + static_cast<int>(sizeof(gmb_worker_block) / sizeof(uint64_t));
static_assert(worker_words > block_words, "the words of a block come first");

/* The leader's side of the loop. */
template <uint32_t most_spawned> struct work_leader {
  const gmb_worker_args &args;
  gmb_worker_block &at;
  uint32_t block;
  uint32_t width;
  uint64_t began;
  uint64_t look_every;
  uint64_t beaten;
  uint64_t looked;
  bool turned;

  GMB_HD void beat(uint64_t now) {
    beaten = now;
    store_system(args.beats + block, now | 1);
    if (args.doorbell) keep();
  }

  /* For the time after this slice, and for the block that tells the host of it. */
  GMB_HD void keep() const {
    gmb_worker_block *to = args.blocks + block;
    store_relaxed(&to->iterations, at.iterations);
    store_relaxed(&to->idle, at.idle);
    store_relaxed(&to->processed, at.processed);
    store_relaxed(&to->finished, at.finished);
    store_relaxed(&to->spawned, at.spawned);
    store_relaxed(&to->idle_polls, at.idle_polls);
    store_relaxed(&to->rejected, at.rejected);
    store_relaxed(&to->returned, at.returned);
    store_relaxed(&to->reason, at.reason);
  }

  GMB_HD bool must_leave(uint64_t now) {
    if (is_told(args)) return true;
    if (now - looked >= look_every) {
      looked = now;
      if (look(args)) return true;
    }
    if (args.max_iterations != 0 && at.iterations >= args.max_iterations) at.reason = GMB_WORKER_ITERATIONS;
    else if (args.idle_threshold != 0 && at.idle >= args.idle_threshold) at.reason = GMB_WORKER_IDLE;
    if (at.reason != GMB_WORKER_RUNNING) return true;
    /* A slice has a turn at least. */
    return turned && now - began >= args.slice_ns;
  }

  /* Room in the outputs first, then items: nothing is taken that would have to be held. */
  GMB_HD work_turn decide() {
    const uint64_t now = clock_ns();
    if (must_leave(now)) return {0, 0, true};
    if (now - beaten >= beat_ns) beat(now);
    turned = true;
    ++at.iterations;
    if (credits_left(&args.active->items) == 0) return idle();
    GMB_CHAOS_POINT(36);
    const uint32_t places = args.finished ? take_some(&args.finished->space, width) : width;
    const uint32_t spawns =
        places > 0 && args.spawn && most_spawned > 0 ? take_some(&args.spawn->space, width * most_spawned) : 0;
    uint32_t wanted = places;
    if (args.spawn && most_spawned > 0 && spawns / (most_spawned > 0 ? most_spawned : 1) < wanted)
      wanted = spawns / (most_spawned > 0 ? most_spawned : 1);
    const claim mine = take_claim(&args.active->items, &args.active->head, wanted);
    if (args.finished && places > mine.count) add_relaxed(&args.finished->space, static_cast<uint64_t>(places - mine.count));
    if (spawns > mine.count * most_spawned)
      add_relaxed(&args.spawn->space, static_cast<uint64_t>(spawns - mine.count * most_spawned));
    if (wanted == 0) {
      at.idle = 0;
      ++at.rejected;
      return {0, 0, false};
    }
    if (mine.count == 0) return idle();
    at.idle = 0;
    at.processed += mine.count;
    return {mine.first, mine.count, false};
  }

  GMB_HD work_turn idle() {
    ++at.idle;
    ++at.idle_polls;
    return {0, 0, false};
  }

  /* Room that the items of a turn did not come to use, and what there is now. */
  GMB_HD void settle(uint32_t count, uint32_t finished, uint32_t spawned, uint32_t again) {
    at.finished += finished;
    at.spawned += spawned;
    at.returned += again;
    at.processed -= again;
    if (args.finished) give(args.finished, finished, count - finished);
    if (args.spawn && most_spawned > 0) give(args.spawn, spawned, count * most_spawned - spawned);
    give(args.active, again, count - again);
  }
  GMB_HD static void give(gmb_queue_header *queue, uint32_t items, uint32_t space) {
    if (items > 0) add_relaxed(&queue->items, static_cast<uint64_t>(items));
    if (space > 0) add_relaxed(&queue->space, static_cast<uint64_t>(space));
  }
};

/* Puts the items of those lanes that have one behind each other; room for them was taken before. How many. */
template <class Group, class T>
GMB_HD inline uint32_t put_each(const Group &group, gmb_queue_header *queue, const T &item, bool has) {
  uint32_t total;
  const uint32_t rank = rank_of(group, has, total);
  if (total == 0) return 0;
  const uint64_t first = group.from_leader(group.lane() == 0 ? fetch_add_relaxed(&queue->tail, static_cast<uint64_t>(total)) : 0);
  const item_ring<T> ring(queue);
  ring.put(first + rank, item, has);
  return total;
}

#if GMB_ON_DEVICE
typedef one_warp serving_group;
GMB_HD inline gmb_answer of_leader(const one_warp &group, gmb_answer answer) {
  answer.status = static_cast<int32_t>(group.of_leader(static_cast<uint32_t>(answer.status)));
  answer.flags = group.of_leader(answer.flags);
  GMB_UNROLL
  for (uint32_t i = 0; i < 3; ++i) answer.value[i] = group.of_leader(answer.value[i]);
  return answer;
}
#else
typedef one_thread serving_group;
GMB_HD inline gmb_answer of_leader(const one_thread &, const gmb_answer &answer) { return answer; }
#endif

/* Commands of the user's own, for functors that say that they take them. */
template <bool takes> struct own_commands {
  template <class Functor, class Desk>
  GMB_HD static void answer(const Functor &, const gmb_command &, gmb_answer &with, Desk &) {
    with.status = GMB_ERROR_NOT_SUPPORTED;
  }
};
template <> struct own_commands<true> {
  template <class Functor, class Desk>
  GMB_HD static void answer(const Functor &functor, const gmb_command &what, gmb_answer &with, Desk &desk) {
    functor.command(what, with, desk);
  }
};
template <class F> GMB_HD constexpr auto takes_commands_of(int) -> decltype(F::takes_commands) { return F::takes_commands; }
template <class F> GMB_HD constexpr bool takes_commands_of(...) { return false; }

/* What a command of the library's own comes to. */
GMB_HD inline void answer_known(const gmb_worker_args &args, uint32_t workers, const gmb_command &what, gmb_answer &with) {
  if (what.code == GMB_COMMAND_PING) {
    for (uint32_t i = 0; i < 3; ++i) with.value[i] = what.argument[i];
  } else if (what.code == GMB_COMMAND_COUNTS) {
    GMB_NO_UNROLL
    for (uint32_t b = 0; b < workers; ++b) {
      with.value[0] += load_relaxed(&args.blocks[b].processed);
      with.value[1] += load_relaxed(&args.blocks[b].finished);
      with.value[2] += load_relaxed(&args.blocks[b].spawned);
    }
  } else {
    with.status = GMB_ERROR_NOT_SUPPORTED;
  }
}

/* The block of a worker that answers commands: one warp of it. It leaves when the others have. */
template <class Block, class Functor>
GMB_HD inline void serve(const Block &block, const gmb_worker_args &args, const Functor &functor) {
  if (block.thread() >= serving_group::width) return;
  const serving_group group;
  device::doorbell bell(args.doorbell);
  look_ahead ahead;
  const uint32_t workers = block.blocks() - 1;
  const uint64_t began = clock_ns(), every = look_every(block.blocks());
  uint64_t beaten = began, looked = began;
  /* It is here, however long its first command takes. */
  if (group.lane() == 0) store_system(args.beats + workers, began | 1);
  /* However late it comes, and however short its slice is, it takes what is there first. */
  for (uint32_t polls = 1;; ++polls) {
    /* Each poll is a trip to the host's memory; that the others are still there is looked up now and then. */
    if (polls % 8 == 0) {
      uint32_t leaves = 0;
      if (group.lane() == 0) {
        const uint64_t now = clock_ns();
        if (now - beaten >= beat_ns) store_system(args.beats + workers, (beaten = now) | 1);
        leaves = is_told(args) || load_relaxed(args.left) == workers || now - began >= args.slice_ns;
        if (now - looked >= every) {
          looked = now;
          if (look(args)) leaves = 1;
        }
      }
      if (group.of_leader(leaves) != 0) break;
    }
    device::command got;
    if (!bell.try_take(group, got, ahead)) {
      if (bell.status() != GMB_OK) break;
#if !GMB_ON_DEVICE
      back_off(polls);
#endif
      continue;
    }
    gmb_answer with = {GMB_OK, 0, {0, 0, 0}};
    if (group.lane() == 0) {
      worker::desk desk(args, bell, got.ticket, leaving(args, end_of(args, began), every));
      if (got.what.code < GMB_COMMAND_USER) answer_known(args, workers, got.what, with);
      else own_commands<takes_commands_of<Functor>(0)>::answer(functor, got.what, with, desk);
    }
    bell.answer(group, got.ticket, of_leader(group, with));
  }
  if (group.lane() != 0) return;
  if (bell.status() != GMB_OK) {
    store_relaxed(&args.blocks[workers].reason, static_cast<int32_t>(GMB_WORKER_SPOILT_DOORBELL));
    store_relaxed(args.told, static_cast<uint64_t>(1));
  }
  store_system(args.beats + workers, static_cast<uint64_t>(0));
}

/* One block of a worker, from when it comes until it leaves. */
template <class T, class Block, class Functor>
GMB_HD inline void work(const Block &block, const gmb_worker_args &args, const Functor &functor) {
  if (args.doorbell && block.block() + 1 == block.blocks()) return serve(block, args, functor);
  constexpr uint32_t most = Functor::most_spawned;
  const block_group<Block> group{block};
  const bool leads = block.thread() == 0;
  gmb_worker_block &counted = *reinterpret_cast<gmb_worker_block *>(block.word + 12);
  const uint64_t every = look_every(block.blocks());
  work_leader<most> leader = {args, counted, block.block(), block.threads(), clock_ns(), every, 0, 0, false};
  /* One after the other: the first at once, the last when that looks again. */
  leader.looked = leader.began - every + every / block.blocks() * block.block();
  if (leads) {
    leader.at = args.blocks[block.block()];
    if (args.item_bytes != sizeof(T)) leader.at.reason = GMB_WORKER_WRONG_ITEMS;
    else if (most > 0 && args.spawn && args.spawn->capacity <= most - 1) leader.at.reason = GMB_WORKER_SMALL_SPAWN;
    leader.beat(leader.began);
  }
  const bool ended = group.from_leader(leads && leader.at.reason != GMB_WORKER_RUNNING ? 1 : 0) != 0;
  const uint64_t leave_at = end_of(args, leader.began);
  const item_ring<T> active(args.active);
  for (uint32_t tries = 0; !ended;) {
    if (leads) {
      const work_turn next = leader.decide();
      block.word[1] = next.ticket;
      block.word[2] = static_cast<uint64_t>(next.leave) << 32 | next.count;
    }
    block.sync();
    const uint64_t ticket = block.word[1];
    const uint32_t count = static_cast<uint32_t>(block.word[2]);
    const bool leaves = block.word[2] >> 32 != 0;
    /* Before the leader writes the words again. */
    block.sync();
    if (leaves) break;
    if (count == 0) {
      back_off_longer(tries++);
      continue;
    }
    tries = 0;
    const bool has = block.thread() < count;
    T item = active.get(ticket + block.thread(), has);
    fence_acquire();
    worker::hand<T, most> hand(args, ticket + block.thread(), leave_at, every);
    worker::route to = worker::dropped;
    if (has) to = functor(item, hand);
    fence_device();
    GMB_CHAOS_POINT(37);
    uint32_t finished = 0, spawned = 0;
    if (args.finished) finished = put_each(group, args.finished, item, has && to == worker::finished);
    if (args.spawn) {
      for (uint32_t s = 0; s != most; ++s) spawned += put_each(group, args.spawn, hand.spawned(s), s < hand.count());
    }
    const uint32_t again = put_each(group, args.active, item, has && to == worker::again);
    if (leads) leader.settle(count, finished, spawned, again);
  }
  if (!leads) return;
  leader.keep();
  if (args.doorbell) add_relaxed(args.left, static_cast<uint64_t>(1));
  /* Zero: not here. */
  store_system(args.beats + block.block(), static_cast<uint64_t>(0));
}

}  // namespace ring

namespace worker {

/* The library's own: adds the increment to an item, modulo two to the power of its bits (of 16 bytes: to the first 8), and
 * routes it to `finished`; each `spawn_interval`-th of the queue, by its ticket, to `spawn` instead. */
template <class T> struct count_up {
  static constexpr uint32_t most_spawned = 1;
  template <class Hand> GMB_HD route operator()(T &item, Hand &hand) const {
    const gmb_worker_args &args = hand.args();
    add(item, args.increment);
    if (args.spawn_interval == 0 || (hand.ticket() + 1) % args.spawn_interval != 0) return finished;
    hand.spawn(item);
    return dropped;
  }

 private:
  GMB_HD static void add(uint32_t &item, uint64_t n) { item += static_cast<uint32_t>(n); }
  GMB_HD static void add(uint64_t &item, uint64_t n) { item += n; }
  GMB_HD static void add(ring::unit &item, uint64_t n) { item.lo += n; }
};

}  // namespace worker
}  // namespace gmb

/* A worker's kernel, whose CUfunction (cuModuleGetFunction, cudaGetFuncBySymbol) goes into gmb_worker_options.function. */
#if defined(__CUDACC__)
#define GMB_WORKER_KERNEL(name, type, functor)                                        \
  extern "C" __global__ void name(const __grid_constant__ gmb_worker_args args) {     \
    __shared__ uint64_t word[::gmb::ring::worker_words];                              \
    ::gmb::ring::work<type>(::gmb::ring::thread_block{word}, args, functor());        \
  }
#endif
/* The same for the host backend: a function whose address goes there, and of which one call is one block, a thread. */
#define GMB_WORKER_FUNCTION(name, type, functor)                                                     \
  extern "C" void name(const gmb_worker_args *args, uint32_t block, uint32_t blocks) {               \
    uint64_t word[::gmb::ring::worker_words] = {};                                                   \
    ::gmb::ring::work<type>(::gmb::ring::host_block{word, block, blocks}, *args, functor());         \
  }

#endif
