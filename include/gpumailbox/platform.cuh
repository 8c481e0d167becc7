/* What the ring needs from the machine: atomics with a scope, 16-byte units,
 * and the block that runs it. The same names mean device instructions under
 * nvcc's device pass and compiler atomics everywhere else; this is the only
 * file that asks which. */
#ifndef GPUMAILBOX_PLATFORM_CUH
#define GPUMAILBOX_PLATFORM_CUH

#include <stddef.h>
#include <stdint.h>

#if defined(__CUDACC__)
#define GMB_HD __host__ __device__
#else
#define GMB_HD
#endif

/* A function that is rarely called: what is always run stays close together. */
#if defined(__CUDACC__)
#define GMB_RARE __noinline__
#else
#define GMB_RARE __attribute__((noinline))
#endif

#if defined(__CUDA_ARCH__)
#define GMB_ON_DEVICE 1
#define GMB_UNROLL _Pragma("unroll")
#define GMB_NO_UNROLL _Pragma("unroll 1")
#else
#define GMB_ON_DEVICE 0
#define GMB_NO_UNROLL
#if defined(__CUDACC__)
#define GMB_UNROLL
#else
#define GMB_UNROLL _Pragma("GCC unroll 4")
#endif
#endif

/* Blocks that a multiprocessor is to hold of a kernel that takes many registers. Assembled for 10.0 and later, the same code
 * takes a few more of them. */
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1000
#define GMB_BLOCKS_OF_MANY_REGISTERS 3
#else
#define GMB_BLOCKS_OF_MANY_REGISTERS 4
#endif

/* A build with GMB_CHAOS delays at random where another block or side could
 * come between; tests only. */
#if !GMB_ON_DEVICE
#include <pthread.h>
#include <sched.h>
#include <time.h>
#endif
#if defined(GMB_CHAOS)
#define GMB_CHAOS_POINT(where) ::gmb::ring::chaos_delay(where)
#else
#define GMB_CHAOS_POINT(where) ((void)0)
#endif

namespace gmb {
namespace ring {

/* One access of the ring: 16 bytes. Not single-copy atomic. */
struct alignas(16) unit {
  uint64_t lo;
  uint64_t hi;
};

/* A record header as the unit it occupies in a slot. */
GMB_HD inline unit header_unit(uint64_t sequence, uint32_t length, uint32_t type) {
  unit u;
  u.lo = sequence;
  u.hi = static_cast<uint64_t>(length) | (static_cast<uint64_t>(type) << 32);
  return u;
}
GMB_HD inline uint32_t header_length(unit u) { return static_cast<uint32_t>(u.hi); }

/* Of a power of two. To divide by one that only the host knew takes a GPU thread longer than a shift. */
GMB_HD inline uint32_t log2_of(uint32_t power) {
#if GMB_ON_DEVICE
  return 31 - __clz(static_cast<int>(power));
#else
  return 31 - static_cast<uint32_t>(__builtin_clz(power));
#endif
}

#if GMB_ON_DEVICE

/* Instructions of their own, for global memory: the atomics of a C++ library allow for pointers into shared and local
 * memory, and a small operation spends more time on fetching instructions than on running them. */
#define GMB_ACCESSES(type, width, letter)                                                                    \
  __device__ inline type load_relaxed(const type *p) {                                                       \
    type v;                                                                                                  \
    asm volatile("ld.relaxed.gpu.global." width " %0, [%1];" : "=" letter(v) : "l"(p));                      \
    return v;                                                                                                \
  }                                                                                                          \
  __device__ inline type load_acquire(const type *p) {                                                       \
    type v;                                                                                                  \
    asm volatile("ld.acquire.gpu.global." width " %0, [%1];" : "=" letter(v) : "l"(p) : "memory");           \
    return v;                                                                                                \
  }                                                                                                          \
  __device__ inline void store_relaxed(type *p, type v) {                                                    \
    asm volatile("st.relaxed.gpu.global." width " [%0], %1;" ::"l"(p), letter(v) : "memory");                \
  }                                                                                                          \
  __device__ inline type load_system(const type *p) {                                                        \
    type v;                                                                                                  \
    asm volatile("ld.relaxed.sys.global." width " %0, [%1];" : "=" letter(v) : "l"(p));                      \
    return v;                                                                                                \
  }                                                                                                          \
  __device__ inline void store_system(type *p, type v) {                                                     \
    asm volatile("st.relaxed.sys.global." width " [%0], %1;" ::"l"(p), letter(v) : "memory");                \
  }
GMB_ACCESSES(uint64_t, "u64", "l")
GMB_ACCESSES(uint32_t, "u32", "r")
GMB_ACCESSES(int32_t, "s32", "r")
#undef GMB_ACCESSES
/* Both in one transaction; whoever reads must not rely on that. */
__device__ inline void store_pair_system(uint64_t *p, uint64_t lo, uint64_t hi) {
  asm volatile("st.relaxed.sys.global.v2.u64 [%0], {%1, %2};" ::"l"(p), "l"(lo), "l"(hi) : "memory");
}

/* For several loads that are under way at once: a fence_acquire after them does what each load_acquire would. */
__device__ inline uint64_t load_ahead(const uint64_t *p) { return load_relaxed(p); }
/* Orders accesses on both sides of it as the device's other blocks see them. */
__device__ inline void fence_device() { asm volatile("fence.acq_rel.gpu;" ::: "memory"); }
__device__ inline void fence_acquire() { fence_device(); }
/* The same, and all of these fences come in one order, in which each sees what was stored before the earlier ones. */
__device__ inline void fence_in_one_order() { asm volatile("fence.sc.gpu;" ::: "memory"); }
/* Everything before it is visible to the CPU before anything after it. */
__device__ inline void fence_system() { asm volatile("fence.acq_rel.sys;" ::: "memory"); }
__device__ inline void store_release(uint64_t *p, uint64_t v) {
  asm volatile("st.release.gpu.global.u64 [%0], %1;" ::"l"(p), "l"(v) : "memory");
}
__device__ inline uint64_t fetch_add_acq_rel(uint64_t *p, uint64_t v) {
  uint64_t seen;
  asm volatile("atom.acq_rel.gpu.global.add.u64 %0, [%1], %2;" : "=l"(seen) : "l"(p), "l"(v) : "memory");
  return seen;
}
__device__ inline uint64_t fetch_add_relaxed(uint64_t *p, uint64_t v) {
  uint64_t seen;
  asm volatile("atom.relaxed.gpu.global.add.u64 %0, [%1], %2;" : "=l"(seen) : "l"(p), "l"(v) : "memory");
  return seen;
}
__device__ inline void add_relaxed(uint64_t *p, uint64_t v) {
  asm volatile("red.relaxed.gpu.global.add.u64 [%0], %1;" ::"l"(p), "l"(v) : "memory");
}
__device__ inline void raise_relaxed(uint64_t *p, uint64_t v) {
  asm volatile("red.relaxed.gpu.global.max.u64 [%0], %1;" ::"l"(p), "l"(v) : "memory");
}
__device__ inline void lower_relaxed(uint64_t *p, uint64_t v) {
  asm volatile("red.relaxed.gpu.global.min.u64 [%0], %1;" ::"l"(p), "l"(v) : "memory");
}
/* Counts in the word's low half, without a limit. No addition: for that the assembler gathers what a warp adds, and
 * waits for the answer at once. */
__device__ inline uint32_t draw_next(uint64_t *p) {
  uint32_t seen;
  asm volatile("atom.relaxed.gpu.global.inc.u32 %0, [%1], 0x7fffffff;" : "=r"(seen) : "l"(p) : "memory");
  return seen;
}
/* Behind a fence, which makes each of these a release, or where none is needed. */
__device__ inline void store_fenced(uint64_t *p, uint64_t v) { store_relaxed(p, v); }
__device__ inline void store_fenced(uint32_t *p, uint32_t v) { store_relaxed(p, v); }
__device__ inline void add_fenced(uint64_t *p, uint64_t v) { add_relaxed(p, v); }
__device__ inline bool replace_fenced(uint64_t *p, uint64_t expected, uint64_t v) {
  uint64_t seen;
  asm volatile("atom.relaxed.gpu.global.cas.b64 %0, [%1], %2, %3;" : "=l"(seen) : "l"(p), "l"(expected), "l"(v) : "memory");
  return seen == expected;
}
/* The same by itself; whoever sees it, or replaces it in turn, sees what was seen before. */
__device__ inline bool replace_limit(uint64_t *p, uint64_t expected, uint64_t v) {
  uint64_t seen;
  asm volatile("atom.acq_rel.gpu.global.cas.b64 %0, [%1], %2, %3;" : "=l"(seen) : "l"(p), "l"(expected), "l"(v) : "memory");
  return seen == expected;
}
/* Stores `v` where zero stood; gives what stands there then. */
__device__ inline uint64_t settle_relaxed(uint64_t *p, uint64_t v) {
  uint64_t seen;
  asm volatile("atom.relaxed.gpu.global.cas.b64 %0, [%1], 0, %2;" : "=l"(seen) : "l"(p), "l"(v) : "memory");
  return seen == 0 ? v : seen;
}
/* The same; who gets another block's value sees what that block had seen. */
__device__ inline uint64_t settle_acq_rel(uint64_t *p, uint64_t v) {
  uint64_t seen;
  asm volatile("atom.acq_rel.gpu.global.cas.b64 %0, [%1], 0, %2;" : "=l"(seen) : "l"(p), "l"(v) : "memory");
  return seen == 0 ? v : seen;
}
/* A kernel that was launched while the one before it still ran goes on when that one has ended and all see what it has
 * stored; then the next may be launched. Of kernels that were launched one after the other, nothing. */
__device__ inline void await_launch_before() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait; griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
/* Before what was not there is looked at again, for the n-th time. */
__device__ inline void back_off(uint32_t n) { __nanosleep(8u << (n < 5 ? n : 5)); }
/* The same of what may take longer, and what many look at: up to 4 us. */
__device__ inline void back_off_longer(uint32_t n) { __nanosleep(8u << (n < 9 ? n : 9)); }
/* Whether one of the threads of the warp that are here together says so: until none does, all of them stay. */
__device__ inline bool any_here(bool v) { return __any_sync(__activemask(), v) != 0; }
/* The number of this multiprocessor. */
__device__ inline uint64_t processor() {
  uint32_t number;
  asm volatile("mov.u32 %0, %%smid;" : "=r"(number));
  return number;
}
/* Nanoseconds since some moment, the same for the whole device; it ticks every 32 ns to 1 us. */
__device__ inline uint64_t clock_ns() {
  uint64_t t;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(t));
  return t;
}
/* Accesses of several units that are under way at once. Where not `wanted`, what is loaded is undefined. They are
 * predicated and no branches: what is loaded for one of two ways only, the assembler moves into it, behind the wait for
 * whatever decides. No cache hint: streaming loads made large operations slower (docs/performance.md). */
__device__ inline unit load_unit_if(bool wanted, const unit *p) {
  unit u;
  asm volatile("{ .reg .pred p; setp.ne.u32 p, %3, 0; @p ld.global.v2.u64 {%0, %1}, [%2]; }"
               : "=l"(u.lo), "=l"(u.hi) : "l"(p), "r"(static_cast<uint32_t>(wanted)));
  return u;
}
__device__ inline uint32_t load_word_if(bool wanted, const uint32_t *p) {
  uint32_t v;
  asm volatile("{ .reg .pred p; setp.ne.u32 p, %2, 0; @p ld.global.u32 %0, [%1]; }"
               : "=r"(v) : "l"(p), "r"(static_cast<uint32_t>(wanted)));
  return v;
}
/* What the first of every `lanes` threads has. All threads of a warp that are there take part. */
__device__ inline uint32_t from_first(uint32_t v, uint32_t lanes) { return __shfl_sync(0xffffffff, v, 0, static_cast<int>(lanes)); }
__device__ inline uint64_t from_first(uint64_t v, uint32_t lanes) {
  return __shfl_sync(0xffffffff, static_cast<unsigned long long>(v), 0, static_cast<int>(lanes));
}
/* What was loaded is not looked at before: a compiler would, and wait for it before it goes on loading. */
__device__ inline void look_from_here(uint64_t &v) { asm volatile("" : "+l"(v)); }
/* Between loads and what looks at them: the assembler does not move a load behind it. */
__device__ inline void loads_under_way() { __syncwarp(__activemask()); }
__device__ inline void store_unit_if(bool wanted, unit *p, unit u) {
  asm volatile("{ .reg .pred p; setp.ne.u32 p, %3, 0; @p st.global.v2.u64 [%0], {%1, %2}; }" ::"l"(p), "l"(u.lo),
               "l"(u.hi), "r"(static_cast<uint32_t>(wanted)) : "memory");
}
/* Units that another block may be writing: each half is one relaxed access. */
__device__ inline unit load_shared(const unit *p) {
  unit u;
  asm volatile("ld.relaxed.gpu.v2.u64 {%0, %1}, [%2];" : "=l"(u.lo), "=l"(u.hi) : "l"(p) : "memory");
  return u;
}
/* A unit in one access that nothing comes between. */
__device__ inline unit load_unit_at_once(const unit *p) {
  unit u;
  asm volatile("{ .reg .b128 v; ld.relaxed.gpu.global.b128 v, [%2]; mov.b128 {%0, %1}, v; }" : "=l"(u.lo), "=l"(u.hi) : "l"(p) : "memory");
  return u;
}
__device__ inline void store_unit_at_once(unit *p, unit u) {
  asm volatile("{ .reg .b128 v; mov.b128 v, {%1, %2}; st.relaxed.gpu.global.b128 [%0], v; }" ::"l"(p), "l"(u.lo), "l"(u.hi) : "memory");
}
__device__ inline void store_shared(unit *p, unit u) {
  asm volatile("st.relaxed.gpu.v2.u64 [%0], {%1, %2};" ::"l"(p), "l"(u.lo), "l"(u.hi) : "memory");
}

#ifdef GMB_CHAOS
/* Up to some 30 microseconds, different for each block, place and moment. */
__device__ inline void chaos_delay(int where) {
  unsigned long long x = clock64() ^ (blockIdx.x * 0x9e3779b97f4a7c15ull) ^ (static_cast<unsigned long long>(where) << 40);
  x ^= x >> 31;
  x *= 0xbf58476d1ce4e5b9ull;
  x ^= x >> 29;
  if ((x & 3) == 0) {
    for (unsigned i = 0; i < ((x >> 8) & 127); ++i) __nanosleep(256);
  }
}
#endif

#else

template <class T> inline T load_relaxed(T *p) { return __atomic_load_n(p, __ATOMIC_RELAXED); }
template <class T> inline T load_acquire(T *p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
/* ThreadSanitizer does not follow fences, so here each load acquires by itself. */
template <class T> inline T load_ahead(T *p) { return load_acquire(p); }
inline void fence_acquire() {}
template <class T> inline void store_relaxed(T *p, T v) { __atomic_store_n(p, v, __ATOMIC_RELAXED); }
template <class T> inline void store_release(T *p, T v) { __atomic_store_n(p, v, __ATOMIC_RELEASE); }
template <class T> inline void store_fenced(T *p, T v) { store_release(p, v); }
template <class T> inline T fetch_add_acq_rel(T *p, T v) {
  return __atomic_fetch_add(p, v, __ATOMIC_ACQ_REL);
}
template <class T> inline T fetch_add_relaxed(T *p, T v) { return __atomic_fetch_add(p, v, __ATOMIC_RELAXED); }
inline uint32_t draw_next(uint64_t *p) { return static_cast<uint32_t>(__atomic_fetch_add(p, uint64_t{1}, __ATOMIC_RELAXED)); }
template <class T> inline bool replace_fenced(T *p, T expected, T v) {
  return __atomic_compare_exchange_n(p, &expected, v, false, __ATOMIC_RELEASE, __ATOMIC_RELAXED);
}
template <class T> inline bool replace_limit(T *p, T expected, T v) {
  return __atomic_compare_exchange_n(p, &expected, v, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
}
template <class T> inline T settle_relaxed(T *p, T v) {
  T seen = 0;
  return __atomic_compare_exchange_n(p, &seen, v, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED) ? v : seen;
}
template <class T> inline T settle_acq_rel(T *p, T v) {
  T seen = 0;
  return __atomic_compare_exchange_n(p, &seen, v, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE) ? v : seen;
}
template <class T> inline void add_relaxed(T *p, T v) { __atomic_fetch_add(p, v, __ATOMIC_RELAXED); }
template <class T> inline void add_fenced(T *p, T v) { __atomic_fetch_add(p, v, __ATOMIC_RELEASE); }
template <class T> inline void raise_relaxed(T *p, T v) {
  T seen = load_relaxed(p);
  while (v > seen && !__atomic_compare_exchange_n(p, &seen, v, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
}
template <class T> inline void lower_relaxed(T *p, T v) {
  T seen = load_relaxed(p);
  while (v < seen && !__atomic_compare_exchange_n(p, &seen, v, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
}
/* The host's stores below carry the release themselves: ThreadSanitizer does
 * not follow fences. */
inline void fence_system() {}
template <class T> inline T load_system(const T *p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
template <class T> inline void store_system(T *p, T v) { __atomic_store_n(p, v, __ATOMIC_RELEASE); }
inline void store_pair_system(uint64_t *p, uint64_t lo, uint64_t hi) {
  store_system(p + 1, hi);
  store_system(p, lo);
}
inline void fence_in_one_order() { __sync_synchronize(); }
inline void back_off(uint32_t) { sched_yield(); }
inline void back_off_longer(uint32_t) { sched_yield(); }
inline bool any_here(bool v) { return v; }
inline uint64_t processor() { return static_cast<uint64_t>(pthread_self()); }
inline uint64_t clock_ns() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<uint64_t>(t.tv_sec) * 1000000000u + static_cast<uint64_t>(t.tv_nsec);
}
#if defined(__SANITIZE_THREAD__)
/* ThreadSanitizer refuses fences; what they order here is atomic, so there is nothing for it to miss. */
inline void fence_device() { __sync_synchronize(); }
#else
inline void fence_device() { __atomic_thread_fence(__ATOMIC_ACQ_REL); }
#endif
inline unit load_unit_if(bool wanted, const unit *p) { return wanted ? *p : unit{0, 0}; }
inline uint32_t load_word_if(bool wanted, const uint32_t *p) { return wanted ? *p : 0; }
template <class T> inline T from_first(T v, uint32_t) { return v; } /* a block is one thread */
inline void look_from_here(uint64_t &) {}
inline void loads_under_way() {}
inline void store_unit_if(bool wanted, unit *p, unit u) {
  if (wanted) *p = u;
}
inline unit load_shared(const unit *p) {
  unit u;
  u.lo = __atomic_load_n(&p->lo, __ATOMIC_RELAXED);
  u.hi = __atomic_load_n(&p->hi, __ATOMIC_RELAXED);
  return u;
}
/* In two: what stands in the high half is there after the low one. */
inline unit load_unit_at_once(const unit *p) {
  unit u;
  u.hi = __atomic_load_n(&p->hi, __ATOMIC_ACQUIRE);
  u.lo = __atomic_load_n(&p->lo, __ATOMIC_RELAXED);
  return u;
}
inline void store_unit_at_once(unit *p, unit u) {
  __atomic_store_n(&p->lo, u.lo, __ATOMIC_RELAXED);
  __atomic_store_n(&p->hi, u.hi, __ATOMIC_RELEASE);
}
inline void store_shared(unit *p, unit u) {
  __atomic_store_n(&p->lo, u.lo, __ATOMIC_RELAXED);
  __atomic_store_n(&p->hi, u.hi, __ATOMIC_RELAXED);
}

#ifdef GMB_CHAOS
/* Now and then gives way to other threads, or spins for some microseconds. */
inline void chaos_delay(int where) {
  static thread_local uint64_t state = 0;
  if (state == 0) state = reinterpret_cast<uintptr_t>(&state) | 1;
  state = state * 6364136223846793005ull + static_cast<uint64_t>(where) + 1442695040888963407ull;
  const uint64_t dice = state >> 40;
  if ((dice & 7) == 0) sched_yield();
  if ((dice & 7) == 1) {
    for (uint64_t i = 0; i < ((dice >> 3) & 1023); ++i) __atomic_signal_fence(__ATOMIC_SEQ_CST);
  }
}
#endif

#endif

/* 64-bit variables of a block. What its leader keeps until the end lies there, too: it takes no registers. */
constexpr int block_words = 13;

/* The threads that run one block of an operation. `word` is `block_words` 64-bit
 * variables that all of them see. */
#if defined(__CUDACC__)
/* A CUDA thread block; `word` lies in shared memory. Blocks and threads are one-dimensional. One that is known to be
 * alone in its launch has less to do. `Aside` threads move nothing: the leader's warp, or none. */
template <bool Alone, uint32_t Aside = 0> struct cuda_block {
  static constexpr bool small_tiles = true; /* no larger than what the block moves at once */
  static constexpr uint32_t widest = 32; /* threads of the widest group that moves a record */
  static constexpr uint32_t aside = Aside;
  uint64_t *word;

  /* Before anything is looked at. */
  GMB_HD void begin() const {}
#if GMB_ON_DEVICE
  __device__ uint32_t thread() const { return threadIdx.x; }
  __device__ uint32_t threads() const { return blockDim.x; }
  __device__ uint32_t block() const { return Alone ? 0 : blockIdx.x; }
  __device__ uint32_t blocks() const { return Alone ? 1 : gridDim.x; }
  __device__ void sync() const { __syncthreads(); }
  /* The low half of the first word, and all of it. */
  __device__ void lower_half(uint32_t v) const { atomicMin(reinterpret_cast<unsigned *>(word), v); }
  __device__ void add_half(uint32_t v) const { atomicAdd(reinterpret_cast<unsigned *>(word), v); }
  __device__ void lower_word(uint64_t v) const {
    atomicMin(reinterpret_cast<unsigned long long *>(word), static_cast<unsigned long long>(v));
  }
#else
  GMB_HD uint32_t thread() const { return 0; }
  GMB_HD uint32_t threads() const { return 1; }
  GMB_HD uint32_t block() const { return 0; }
  GMB_HD uint32_t blocks() const { return 1; }
  GMB_HD void sync() const {}
  GMB_HD void lower_half(uint32_t) const {}
  GMB_HD void add_half(uint32_t) const {}
  GMB_HD void lower_word(uint64_t) const {}
#endif
};
using thread_block = cuda_block<false>;
using lone_block = cuda_block<true>;
using led_block = cuda_block<true, 32>;
#endif

/* The threads that do one operation of a kernel's own together; all of them call it, with the same arguments. On the CPU
 * each is one thread. */
struct one_thread {
  static constexpr uint32_t width = 1;
  GMB_HD uint32_t lane() const { return 0; }
  GMB_HD uint32_t lanes() const { return 1; }
  GMB_HD void sync() const {}
  template <class T> GMB_HD T from_leader(T v) const { return v; }
  GMB_HD uint32_t least(uint32_t v) const { return v; }
  /* Of these there are none for a block: whether all lanes say so, and what the leader has, in no order. */
  GMB_HD bool all(bool v) const { return v; }
  template <class T> GMB_HD T of_leader(T v) const { return v; }
};
#if defined(__CUDACC__)
/* A whole warp. */
struct one_warp {
  static constexpr uint32_t width = 32;
#if GMB_ON_DEVICE
  __device__ uint32_t lane() const { return threadIdx.x & 31; }
  __device__ uint32_t lanes() const { return 32; }
  __device__ void sync() const { __syncwarp(); }
  __device__ bool all(bool v) const { return __all_sync(0xffffffff, v) != 0; }
  /* What the leader has seen, all see from here on: a shuffle alone orders nothing. */
  template <class T> __device__ T from_leader(T v) const {
    v = of_leader(v);
    __syncwarp();
    return v;
  }
  __device__ uint32_t of_leader(uint32_t v) const { return __shfl_sync(0xffffffff, v, 0); }
  __device__ uint64_t of_leader(uint64_t v) const { return __shfl_sync(0xffffffff, static_cast<unsigned long long>(v), 0); }
  __device__ uint32_t least(uint32_t v) const {
#if __CUDA_ARCH__ >= 800
    return __reduce_min_sync(0xffffffff, v);
#else
    GMB_UNROLL
    for (int step = 16; step > 0; step /= 2) {
      const uint32_t other = __shfl_xor_sync(0xffffffff, v, step);
      if (other < v) v = other;
    }
    return v;
#endif
  }
#else
  GMB_HD uint32_t lane() const { return 0; }
  GMB_HD uint32_t lanes() const { return 1; }
  GMB_HD void sync() const {}
  template <class T> GMB_HD T from_leader(T v) const { return v; }
  GMB_HD uint32_t least(uint32_t v) const { return v; }
  GMB_HD bool all(bool v) const { return v; }
  template <class T> GMB_HD T of_leader(T v) const { return v; }
#endif
};
/* A whole one-dimensional block; `word` lies in its shared memory. */
struct one_block {
  uint64_t *word;
#if GMB_ON_DEVICE
  __device__ uint32_t lane() const { return threadIdx.x; }
  __device__ uint32_t lanes() const { return blockDim.x; }
  __device__ void sync() const { __syncthreads(); }
  template <class T> __device__ T from_leader(T v) const {
    __syncthreads();
    if (threadIdx.x == 0) *word = v;
    __syncthreads();
    return static_cast<T>(*word);
  }
  __device__ uint32_t least(uint32_t v) const {
    __syncthreads();
    if (threadIdx.x == 0) *word = v;
    __syncthreads();
    atomicMin(reinterpret_cast<unsigned *>(word), v);
    __syncthreads();
    return static_cast<uint32_t>(*word);
  }
#else
  GMB_HD uint32_t lane() const { return 0; }
  GMB_HD uint32_t lanes() const { return 1; }
  GMB_HD void sync() const {}
  template <class T> GMB_HD T from_leader(T v) const { return v; }
  GMB_HD uint32_t least(uint32_t v) const { return v; }
#endif
};
#endif

/* A block of one CPU thread; other blocks of the operation run beside it. */
struct host_block {
  static constexpr bool small_tiles = false;
  static constexpr uint32_t widest = 1;
  static constexpr uint32_t aside = 0;
  uint64_t *word;
  uint32_t index;
  uint32_t count;

  GMB_HD void begin() const {}
  GMB_HD uint32_t thread() const { return 0; }
  GMB_HD uint32_t threads() const { return 1; }
  GMB_HD uint32_t block() const { return index; }
  GMB_HD uint32_t blocks() const { return count; }
  GMB_HD void sync() const {}
  GMB_HD void lower_half(uint32_t v) const {
    if (v < static_cast<uint32_t>(*word)) *word = v;
  }
  GMB_HD void add_half(uint32_t v) const { *word += v; }
  GMB_HD void lower_word(uint64_t v) const {
    if (v < *word) *word = v;
  }
};

}  // namespace ring

namespace device {

/* Groups: `one_thread{}`, `one_warp{}` (all 32 lanes), `one_block{&word}` (a one-dimensional block, with a 64-bit word in its
 * shared memory). On the CPU each is a thread. */
using ring::one_thread;
#if defined(__CUDACC__)
using ring::one_block;
using ring::one_warp;
#endif
using ring::back_off; /* between attempts, with the number of the attempt: 8 to 256 ns, or gives way on the CPU */
using ring::fence_system;    /* what was written before it is visible to the CPU before what is written after it */
using ring::back_off_longer; /* the same where many look at the same words: up to 4 us */
using ring::processor;       /* the number of the multiprocessor, or of the CPU thread, on which the caller runs */

}  // namespace device
}  // namespace gmb

#endif
