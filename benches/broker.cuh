// The yardstick of the queue rows, without a queue of the library: one signed count, two tickets, and a turn for each slot,
// from the description of the broker queue (Kerbl, Kenzel, Mueller, Schmalstieg and Steinberger, ICS 2018). Where that has an
// atomic for each thread, here the leader of a warp or of a block does it for all, as in the rows beside it.
//
// The count says how many items are promised to consumers. A push adds to it and fails where that was full, a pop subtracts
// and fails where that was empty; who fails undoes it. Who does not has tickets: waits for the turns of those slots, writes or
// reads the items, fences, and sets the turns for the other side. Part of mailbox.cu.
#ifndef GMB_BENCHES_BROKER_CUH
#define GMB_BENCHES_BROKER_CUH

using gmb::device::back_off;
using gmb::device::one_block;
using gmb::device::one_warp;

// Each word that all change has a line of its own.
struct broker_memory {
  static constexpr unsigned capacity = 1u << 20;
  struct slot {
    unsigned item, turn;
  };
  alignas(128) int count;
  alignas(128) unsigned tail;
  alignas(128) unsigned head;
  // A slot did not become free, or full, for seconds.
  alignas(128) unsigned stuck;
  alignas(128) slot slots[capacity];
};

// With `looks`, whoever sees that the queue is full or empty fails without an atomic: that spares the others a wait where
// many fail, and is one trip more where nobody does. The better of both is the yardstick.
template <bool looks> class broker_queue {
public:
  __device__ explicit broker_queue(broker_memory *at) : at_(at) {}

  // Each lane that has an item pushes it, in the order of their ranks; the last ones get no room where there is too little.
  template <class Group> __device__ bool try_push_each(const Group &group, unsigned item, bool has = true) const {
    const place_in mine = take(group, has, [&](unsigned wanted) { return promise(wanted); });
    const unsigned turn = turn_of(mine.ticket);
    return wait(mine, turn, [&](broker_memory::slot *slot) { store(&slot->item, item); });
  }
  template <class Group> __device__ bool try_pop_each(const Group &group, unsigned &item, bool wants = true) const {
    const place_in mine = take(group, wants, [&](unsigned wanted) { return redeem(wanted); });
    const unsigned turn = turn_of(mine.ticket) + 1;
    return wait(mine, turn, [&](broker_memory::slot *slot) { item = load(&slot->item); });
  }

private:
  struct tickets {
    unsigned first, count;
  };
  struct place_in {
    unsigned ticket;
    bool has;
  };
  broker_memory *at_;

  __device__ static unsigned load(const unsigned *at) {
    unsigned v;
    asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];" : "=r"(v) : "l"(global(at)) : "memory");
    return v;
  }
  __device__ static void store(unsigned *at, unsigned v) {
    asm volatile("st.relaxed.gpu.global.u32 [%0], %1;" ::"l"(global(at)), "r"(v) : "memory");
  }
  __device__ static unsigned turn_of(unsigned ticket) { return ticket / broker_memory::capacity * 2; }

  // Of what was found, as many as were asked for; none where there is less than nothing.
  __device__ static int part_of(int found, int wanted) { return found < 0 ? 0 : found < wanted ? found : wanted; }

  __device__ tickets promise(unsigned wanted) const {
    constexpr int capacity = broker_memory::capacity;
    int asked = static_cast<int>(wanted);
    if (looks) asked = part_of(capacity - static_cast<int>(load(reinterpret_cast<const unsigned *>(&at_->count))), asked);
    if (asked == 0) return {0, 0};
    const int got = part_of(capacity - atomicAdd(&at_->count, asked), asked);
    if (got < asked) atomicSub(&at_->count, asked - got);
    return {got > 0 ? atomicAdd(&at_->tail, static_cast<unsigned>(got)) : 0, static_cast<unsigned>(got)};
  }
  __device__ tickets redeem(unsigned wanted) const {
    int asked = static_cast<int>(wanted);
    if (looks) asked = part_of(static_cast<int>(load(reinterpret_cast<const unsigned *>(&at_->count))), asked);
    if (asked == 0) return {0, 0};
    const int got = part_of(atomicSub(&at_->count, asked), asked);
    if (got < asked) atomicAdd(&at_->count, asked - got);
    return {got > 0 ? atomicAdd(&at_->head, static_cast<unsigned>(got)) : 0, static_cast<unsigned>(got)};
  }

  template <class Claim> __device__ static place_in take(const one_warp &, bool has, const Claim &claim) {
    const unsigned those = __ballot_sync(~0u, has), lane = threadIdx.x & 31;
    tickets all{0, 0};
    if (lane == 0 && those != 0) all = claim(static_cast<unsigned>(__popc(those)));
    all.first = __shfl_sync(~0u, all.first, 0);
    all.count = __shfl_sync(~0u, all.count, 0);
    const unsigned rank = static_cast<unsigned>(__popc(those & ((1u << lane) - 1)));
    return {all.first + rank, has && rank < all.count};
  }
  // The lanes of a block come in any order, where not all have something.
  template <class Claim> __device__ static place_in take(const one_block &, bool has, const Claim &claim) {
    __shared__ tickets all;
    __shared__ unsigned those;
    unsigned rank = threadIdx.x;
    const bool full = __syncthreads_and(has);
    if (!full) {
      if (threadIdx.x == 0) those = 0;
      __syncthreads();
      if (has) rank = atomicAdd(&those, 1u);
      __syncthreads();
    }
    if (threadIdx.x == 0) {
      const unsigned wanted = full ? blockDim.x : those;
      all = wanted > 0 ? claim(wanted) : tickets{0, 0};
    }
    __syncthreads();
    return {all.first + rank, has && rank < all.count};
  }

  // Whoever's turn it is moves its item and sets the next turn inside the loop: lanes that wait stay together, and what
  // another warp waits for must not be held up by them. Nobody waits longer than seconds, nor when another one has.
  template <class Move> __device__ bool wait(const place_in &mine, unsigned turn, const Move &move) const {
    broker_memory::slot *slot = at_->slots + mine.ticket % broker_memory::capacity;
    bool waits = mine.has;
#pragma unroll 1
    for (unsigned tries = 0; tries < 1u << 22; ++tries) {
      if (waits && load(&slot->turn) == turn) {
        move(slot);
        __threadfence();
        store(&slot->turn, turn + 1);
        waits = false;
      }
      if (!__any_sync(~0u, waits)) return mine.has;
      if (tries % 1024 == 1023 && load(&at_->stuck) != 0) break;
      back_off(tries);
    }
    store(&at_->stuck, 1);
    return mine.has && !waits;
  }
};

#endif
