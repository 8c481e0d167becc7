// The kernels of limits.cu. Each one that waits gives up two seconds after it started.
#ifndef GMB_BENCHES_LIMITS_KERNELS_CUH
#define GMB_BENCHES_LIMITS_KERNELS_CUH

#include "gpu.cuh"

namespace {

__device__ inline unsigned load_acquire(place at) {
  unsigned v;
  asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(v) : "l"(at) : "memory");
  return v;
}
__device__ inline void store_release(place at, unsigned v) {
  asm volatile("st.release.gpu.global.u32 [%0], %1;" ::"l"(at), "r"(v) : "memory");
}

__global__ void increment(unsigned *counter) { *counter += 1; }

// An epoch and a count in one word, as a mailbox's report has them.
__host__ __device__ inline word64 count_word(unsigned number) {
  return static_cast<word64>(number) << 32 | (number & 1023);
}
// To the host's memory, where the host may look at once, with a release; to the device's without, for a copy follows.
template <bool to_host> __global__ void write_count(word64 *at, unsigned number) {
  if (threadIdx.x != 0) return;
  if (to_host)
    asm volatile("st.release.sys.global.u64 [%0], %1;" ::"l"(global(at)), "l"(count_word(number)) : "memory");
  else
    *at = count_word(number);
}

/* Ways to send 240 bytes, or a flag alone, from a warp to another. Each lane sends `word`, again in other forms beside
 * it so that a torn packet shows, and gets the partner's. `seq` grows by one from packet to packet: nothing has to be
 * cleared. The next packet may overwrite this one, for its sender has read the answer, and that was sent after this one
 * was read in all lanes. */

// The flag alone; the first lane does everything.
struct flag_wire {
  static constexpr unsigned lanes = 1;
  static constexpr bool carries = false;
  __device__ static void send(place at, unsigned, unsigned seq, unsigned) { store_release(at, seq); }
  __device__ static bool receive(place at, unsigned, unsigned seq, unsigned &, bool &, patience &limit) {
    while (load_acquire(at) != seq)
      if (limit.over()) return false;
    return true;
  }
};

// 30 units of 16 bytes. Each half of a unit is 4 bytes of payload and 4 of flag, because 8 bytes are what the memory
// model promises to keep together in a vector access.
struct flagged_wire {
  static constexpr unsigned lanes = 30;
  static constexpr bool carries = true;
  __device__ static void send(place at, unsigned lane, unsigned seq, unsigned word) {
    if (lane >= lanes) return;
    const word64 flag = static_cast<word64>(seq) << 32;
    asm volatile("st.relaxed.gpu.global.v2.u64 [%0], {%1, %2};" ::"l"(at + 16 * lane), "l"(flag | word),
                 "l"(flag | ~word)
                 : "memory");
  }
  __device__ static bool receive(place at, unsigned lane, unsigned seq, unsigned &word, bool &wrong, patience &limit) {
    for (;;) {
      bool here = true;
      if (lane < lanes) {
        word64 a, b;
        asm volatile("ld.relaxed.gpu.global.v2.u64 {%0, %1}, [%2];"
                     : "=l"(a), "=l"(b)
                     : "l"(at + 16 * lane)
                     : "memory");
        here = a >> 32 == seq && b >> 32 == seq;
        if (here) {
          word = static_cast<unsigned>(a);
          wrong |= static_cast<unsigned>(b) != ~word;
        }
      }
      if (__all_sync(~0u, here)) return true;
      if (limit.over_in_warp()) return false;
    }
  }
};

// 20 units of 16 bytes, each 12 of payload and 4 of flag, in single-copy atomic accesses of 16 bytes.
struct twelve_wire {
  static constexpr unsigned lanes = 20;
  static constexpr bool carries = true;
  __device__ static void send(place at, unsigned lane, unsigned seq, unsigned word) {
    if (lane >= lanes) return;
    const word64 low = static_cast<word64>(~word) << 32 | word;
    const word64 high = static_cast<word64>(seq) << 32 | (word ^ 0x55555555u);
    asm volatile(
        "{\n\t.reg .b128 unit;\n\tmov.b128 unit, {%1, %2};\n\tst.relaxed.gpu.global.b128 [%0], unit;\n\t}" ::"l"(
            at + 16 * lane),
        "l"(low), "l"(high)
        : "memory");
  }
  __device__ static bool receive(place at, unsigned lane, unsigned seq, unsigned &word, bool &wrong, patience &limit) {
    for (;;) {
      bool here = true;
      if (lane < lanes) {
        word64 low, high;
        asm volatile("{\n\t.reg .b128 unit;\n\tld.relaxed.gpu.global.b128 unit, [%2];\n\tmov.b128 {%0, %1}, unit;\n\t}"
                     : "=l"(low), "=l"(high)
                     : "l"(at + 16 * lane)
                     : "memory");
        here = high >> 32 == seq;
        if (here) {
          word = static_cast<unsigned>(low);
          wrong |= static_cast<unsigned>(low >> 32) != ~word || static_cast<unsigned>(high) != (word ^ 0x55555555u);
        }
      }
      if (__all_sync(~0u, here)) return true;
      if (limit.over_in_warp()) return false;
    }
  }
};

// 15 units of 16 bytes, all payload, then one flag: released by the first lane, acquired by the first lane.
struct then_flag_wire {
  static constexpr unsigned lanes = 15;
  static constexpr bool carries = true;
  static constexpr unsigned flag = 512;
  __device__ static void send(place at, unsigned lane, unsigned seq, unsigned word) {
    if (lane < lanes)
      asm volatile("st.global.v4.u32 [%0], {%1, %2, %1, %2};" ::"l"(at + 16 * lane), "r"(word), "r"(~word) : "memory");
    __syncwarp();
    if (lane == 0) store_release(at + flag, seq);
  }
  __device__ static bool receive(place at, unsigned lane, unsigned seq, unsigned &word, bool &wrong, patience &limit) {
    bool here = true;
    if (lane == 0)
      while (here && load_acquire(at + flag) != seq) here = !limit.over();
    here = __shfl_sync(~0u, here, 0);
    __syncwarp();
    if (here && lane < lanes) {
      unsigned b, c, d;
      asm volatile("ld.global.v4.u32 {%0, %1, %2, %3}, [%4];"
                   : "=r"(word), "=r"(b), "=r"(c), "=r"(d)
                   : "l"(at + 16 * lane)
                   : "memory");
      wrong |= b != ~word || c != word || d != ~word;
    }
    return here;
  }
};

// What a side tells the host at its end.
struct side {
  word64 ns;
  unsigned sm, finished, gave_up, wrong;
};

// Block 0 sends, block `partner` answers with each word plus one; the other blocks only keep the two on different SMs.
template <class Wire>
__global__ void ping_pong(unsigned char *there, unsigned char *back, unsigned partner, unsigned warm, unsigned trips,
                          side *sides) {
  const bool first = blockIdx.x == 0;
  const unsigned lane = threadIdx.x;
  if ((!first && blockIdx.x != partner) || (!Wire::carries && lane >= Wire::lanes)) return;
  const place in = global(first ? back : there), to = global(first ? there : back);
  patience limit;
  unsigned word = lane;
  bool wrong = false, here = true;
  word64 start = 0;
  for (unsigned seq = 1; here && seq <= warm + trips; ++seq) {
    if (first) {
      if (seq == warm + 1) start = nanoseconds();
      Wire::send(to, lane, seq, word);
      here = Wire::receive(in, lane, seq, word, wrong, limit);
    } else {
      here = Wire::receive(in, lane, seq, word, wrong, limit);
      if (here) Wire::send(to, lane, seq, word + 1);
    }
  }
  const word64 end = nanoseconds();
  if (Wire::carries && first && lane < Wire::lanes) wrong |= word != lane + warm + trips;
  side &mine = sides[first ? 0 : 1];
  if (wrong) mine.wrong = 1;
  if (lane != 0) return;
  asm volatile("mov.u32 %0, %%smid;" : "=r"(mine.sm));
  mine.ns = end - start;
  mine.gave_up = !here;
  mine.finished = 1;
}

__global__ void take_tickets(unsigned *tickets, unsigned each, unsigned *sink) {
  const unsigned lane = threadIdx.x & 31;
  unsigned sum = 0;
  for (unsigned i = 0; i < each; ++i) {
    unsigned ticket = 0;
    if (lane == 0) ticket = atomicAdd(tickets, 32u);
    sum += __shfl_sync(~0u, ticket, 0) + lane;
  }
  if (sum == 1) *sink = sum;
}

constexpr unsigned spread_sectors = 1u << 18;
__global__ void add_spread(unsigned *table, unsigned each, unsigned *sink) {
  const unsigned threads = gridDim.x * blockDim.x;
  unsigned number = blockIdx.x * blockDim.x + threadIdx.x, sum = 0;
#pragma unroll 4
  for (unsigned i = 0; i < each; ++i, number += threads) {
    const unsigned sector = (number * 0x9e3779b1u) >> 14;
    sum += atomicAdd(table + sector * 8, 1u);
  }
  if (sum == 1) *sink = sum;
}

// Numbers go up; this one ends it.
constexpr unsigned doorbell_stop = ~0u;
__global__ void answer_doorbell(const unsigned *ring, unsigned *answer) {
  if (threadIdx.x != 0) return;
  const place from = global(ring), to = global(answer);
  patience limit;
  unsigned last = 0;
  while (!limit.over()) {
    const unsigned now = load_system(from);
    if (now == last) continue;
    if (now == doorbell_stop) return;
    store_system(to, now);
    last = now;
  }
}

}  // namespace

#endif
