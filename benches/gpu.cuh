// What the measuring programs for a GPU share: errors, owners, a gate, and GPU and host times of a piece of work.
#ifndef GMB_BENCHES_GPU_CUH
#define GMB_BENCHES_GPU_CUH

#include "report.h"

#include <cuda_runtime.h>

#include <memory>

namespace {

using bench::failure;
using bench::now_us;
using bench::report;
using bench::samples;

using word64 = unsigned long long;

__device__ inline word64 nanoseconds() {
  word64 now;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now)::"memory");
  return now;
}

// Asks for the time at every 256th poll only: the clock would be part of what is measured.
struct patience {
  const word64 end = nanoseconds() + 2000000000ull;
  unsigned polls = 0;
  __device__ bool over() { return (++polls & 255) == 0 && nanoseconds() > end; }
  // The same answer in all lanes; all of them must ask.
  __device__ bool over_in_warp() { return (++polls & 255) == 0 && __any_sync(~0u, nanoseconds() > end); }
};

// Accesses as the memory model has them. All addresses are of global memory (mapped memory is).
using place = size_t;
__device__ inline place global(const void *at) { return __cvta_generic_to_global(at); }
__device__ inline unsigned load_system(place at) {
  unsigned v;
  asm volatile("ld.relaxed.sys.global.u32 %0, [%1];" : "=r"(v) : "l"(at) : "memory");
  return v;
}
__device__ inline void store_system(place at, unsigned v) {
  asm volatile("st.relaxed.sys.global.u32 [%0], %1;" ::"l"(at), "r"(v) : "memory");
}
__global__ void nothing() {}

struct arguments {
  word64 *sink;
  word64 rest[15];
};
static_assert(sizeof(arguments) == 128, "the arguments are of 128 bytes");
__global__ void take_arguments(const __grid_constant__ arguments values) {
  if (values.rest[14] != 0) *values.sink = values.rest[0];
}

__global__ void keep_busy(unsigned ns) {
  const word64 end = nanoseconds() + ns;
  while (nanoseconds() < end) {
  }
}

struct stamps {
  word64 begin, end;
  unsigned gave_up;
};
__global__ void gate(const unsigned *flag, stamps *times) {
  patience limit;
  bool open = true;
  while (open && load_system(global(flag)) == 0) open = !limit.over();
  if (!open) times->gave_up = 1;
  times->begin = nanoseconds();
}
__global__ void stamp(stamps *times) { times->end = nanoseconds(); }

// Words without a pattern, so that nothing on the way can make less of them.
__global__ void scramble(unsigned *words, size_t count) {
  for (size_t i = blockIdx.x * size_t{256} + threadIdx.x; i < count; i += gridDim.x * size_t{256}) {
    unsigned x = static_cast<unsigned>(i) * 0x9e3779b1u;
    x = (x ^ x >> 15) * 0x85ebca6bu;
    words[i] = x ^ x >> 13;
  }
}

void check(cudaError_t status, const char *call, int line) {
  if (status == cudaSuccess) return;
  throw failure(std::string(call) + " (line " + std::to_string(line) + "): " + cudaGetErrorName(status) + ", " +
                cudaGetErrorString(status));
}
#define CHECK(call) check((call), #call, __LINE__)

void synchronize(cudaStream_t stream) { CHECK(cudaStreamSynchronize(stream)); }

// cudaLaunchKernel and not <<<>>>, which adds two calls of its own.
template <class T> struct same {
  using type = T;
};
template <class... P>
void launch(void (*kernel)(P...), unsigned blocks, unsigned threads, cudaStream_t on,
            typename same<P>::type... values) {
  void *list[] = {static_cast<void *>(&values)..., nullptr};
  CHECK(cudaLaunchKernel(reinterpret_cast<const void *>(kernel), dim3(blocks), dim3(threads), list, 0, on));
}

// Owners. Memory waits for the device before it goes: a kernel may still use it.
struct stream {
  cudaStream_t raw = nullptr;
  stream() { CHECK(cudaStreamCreateWithFlags(&raw, cudaStreamNonBlocking)); }
  ~stream() { cudaStreamDestroy(raw); }
  stream(const stream &) = delete;
  stream &operator=(const stream &) = delete;
  operator cudaStream_t() const { return raw; }
};
struct event {
  cudaEvent_t raw = nullptr;
  explicit event(unsigned flags = cudaEventDisableTiming) { CHECK(cudaEventCreateWithFlags(&raw, flags)); }
  ~event() { cudaEventDestroy(raw); }
  event(const event &) = delete;
  event &operator=(const event &) = delete;
  operator cudaEvent_t() const { return raw; }
};
template <class T> struct device {
  T *at = nullptr;
  explicit device(size_t count = 1) {
    CHECK(cudaMalloc(reinterpret_cast<void **>(&at), count * sizeof(T)));
    CHECK(cudaMemset(at, 0, count * sizeof(T)));
    CHECK(cudaDeviceSynchronize());
  }
  ~device() {
    cudaDeviceSynchronize();
    cudaFree(at);
  }
  device(const device &) = delete;
  device &operator=(const device &) = delete;
};
template <class T> struct pinned {
  T *host = nullptr, *mapped = nullptr;
  explicit pinned(size_t count = 1) {
    CHECK(cudaHostAlloc(reinterpret_cast<void **>(&host), count * sizeof(T), cudaHostAllocMapped));
    for (size_t i = 0; i < count; ++i) host[i] = T{};
    CHECK(cudaHostGetDevicePointer(reinterpret_cast<void **>(&mapped), host, 0));
  }
  ~pinned() {
    cudaDeviceSynchronize();
    cudaFreeHost(host);
  }
  pinned(const pinned &) = delete;
  pinned &operator=(const pinned &) = delete;
};

template <class T> T seen(const T *host) { return __atomic_load_n(host, __ATOMIC_ACQUIRE); }
template <class T> void tell(T *host, T value) { __atomic_store_n(host, value, __ATOMIC_RELEASE); }

int multiprocessors() {
  int count = 0;
  CHECK(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, 0));
  return count;
}

// GPU time of `work`, which is submitted behind a kernel that keeps the stream busy meanwhile: what the host needs
// to submit is not in it.
template <class F> double gpu_us(cudaStream_t on, unsigned busy_us, F &&work) {
  const event begin(cudaEventDefault), end(cudaEventDefault);
  launch(keep_busy, 1, 1, on, busy_us * 1000u);
  CHECK(cudaEventRecord(begin, on));
  work();
  CHECK(cudaEventRecord(end, on));
  CHECK(cudaEventSynchronize(end));
  float ms = 0;
  CHECK(cudaEventElapsedTime(&ms, begin, end));
  return ms * 1e3;
}

// Host time of one call, from a loop of 256; `before` runs ahead of it and is not counted.
constexpr int loop = 256;
template <class B, class F> double host_us(B &&before, F &&call) {
  before();
  const double start = now_us();
  for (int i = 0; i < loop; ++i) call(i);
  return (now_us() - start) / loop;
}
template <class B, class F> samples host_cost(const report &out, B &&before, F &&call) {
  samples all = out.repeat(20, 400, [&](int) { return host_us(before, call); });
  CHECK(cudaDeviceSynchronize());
  return all;
}

using events = std::vector<std::unique_ptr<event>>;
events make_events(int count) {
  events all;
  for (int i = 0; i < count; ++i) all.push_back(std::make_unique<event>());
  return all;
}

// `hop` again and again, from stream to stream and back. A gate holds all of it until the host has submitted
// everything, which must stay far from the 1,024 entries at which a submission to a stream would block.
template <class F> samples chained(const report &out, int count, F &&hop) {
  const stream first, second;
  const events all = make_events(count);
  const pinned<unsigned> flag;
  const pinned<stamps> times;
  return out.repeat(3, 40, [&](int) {
    *times.host = stamps{};
    tell(flag.host, out.chosen().open ? 1u : 0u);
    launch(gate, 1, 1, first, static_cast<const unsigned *>(flag.mapped), times.mapped);
    cudaStream_t from = first, to = second;
    for (int i = 0; i < count; ++i) {
      hop(from, to, *all[i]);
      std::swap(from, to);
    }
    launch(stamp, 1, 1, from, times.mapped);
    tell(flag.host, 1u);
    synchronize(first);
    synchronize(second);
    if (times.host->gave_up) throw failure("the gate was not opened within 2 s: did a submission block?");
    return static_cast<double>(times.host->end - times.host->begin) * 1e-3 / count;
  });
}

// Begins a program: eager loading, for a kernel that is loaded at its first launch may wait for the one that holds the
// stream; and the clocks rise.
inline void begin_on_gpu() {
  setenv("CUDA_MODULE_LOADING", "EAGER", 1);
  CHECK(cudaSetDevice(0));
  CHECK(cudaFree(nullptr));
  launch(keep_busy, 1, 1, nullptr, 300000000u);
  CHECK(cudaDeviceSynchronize());
}

}  // namespace

#endif
