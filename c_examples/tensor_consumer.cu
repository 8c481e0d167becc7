// Tensors for a kernel: it runs beside the producer's stream, polls for tensors, sums each of them up and releases it.
// tensor_consumer.cpp does the same on the host backend.
#include "check.h"

#include <gpumailbox/dlpack.h>
#include <gpumailbox/tensor.cuh>

#include <cuda_runtime.h>

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <thread>
#include <vector>

namespace {

constexpr uint64_t tensors = 2000;
constexpr uint64_t capacity = 16;
constexpr size_t pieces = 24;
constexpr int64_t most_rows = 32, pitch = 40;  // elements from row to row; a row's last ones are nobody's
constexpr unsigned blocks = 4, threads = 128, warp = 32;
// Of all blocks together: half a minute or so.
constexpr unsigned long long most_device_polls = 30000000;
constexpr int most_host_polls = 100000000;
constexpr uint64_t limit_ns = 60000000000;

int64_t rows_of(uint64_t number) { return static_cast<int64_t>(1 + number % most_rows); }
int64_t columns_of(uint64_t number) { return static_cast<int64_t>(1 + 7 * number % (pitch - 1)); }
__host__ __device__ float element_of(uint64_t number, int64_t row, int64_t column) {
  return static_cast<float>((number + 3 * static_cast<uint64_t>(row) + static_cast<uint64_t>(column)) % 16);
}

__global__ void make_elements(float *elements, uint64_t number, int64_t rows, int64_t columns) {
  for (int64_t i = threadIdx.x; i < rows * pitch; i += blockDim.x) {
    const int64_t row = i / pitch, column = i % pitch;
    elements[i] = column < columns ? element_of(number, row, column) : -1000;
  }
}

struct outcome {
  uint64_t tag;
  float sum;  // exact: of small whole numbers
};

// What all blocks do together, in device memory.
struct progress {
  unsigned long long taken, polls;
};

// On one thread of a block: the next tensor; false when all have been taken, or after too many polls.
__device__ bool take_next(const gmb_tensor_view &inbox, gmb::ring::taken_tensor &one, progress *all) {
  while (atomicAdd(&all->polls, 1ull) < most_device_polls) {
    if (gmb::ring::try_take(inbox, one)) {
      atomicAdd(&all->taken, 1ull);
      return true;
    }
    if (atomicAdd(&all->taken, 0ull) == tensors) return false;
    __nanosleep(500);
  }
  return false;
}

__global__ void consume(gmb_tensor_view inbox, outcome *outcomes, progress *all) {
  __shared__ gmb::ring::taken_tensor one;
  __shared__ bool some;
  __shared__ float sum;
  for (;;) {
    if (threadIdx.x == 0) {
      some = take_next(inbox, one, all);
      sum = 0;
    }
    __syncthreads();
    if (!some) return;
    const gmb_tensor &tensor = *one.tensor;
    const float *elements = reinterpret_cast<const float *>(tensor.address + tensor.byte_offset);
    const int64_t rows = tensor.shape[0], columns = tensor.shape[1];
    float local = 0;
    for (int64_t i = threadIdx.x; i < rows * columns; i += blockDim.x) {
      local += elements[i / columns * tensor.strides[0] + i % columns * tensor.strides[1]];
    }
    for (unsigned distance = warp / 2; distance > 0; distance /= 2) {
      local += __shfl_down_sync(0xffffffffu, local, distance);
    }
    if (threadIdx.x % warp == 0) atomicAdd(&sum, local);
    __syncthreads();  // nobody reads the tensor any more
    if (threadIdx.x == 0) {
      outcomes[one.index] = {tensor.tag, sum};
      gmb::ring::release(inbox, one);
    }
  }
}

// The producer's memory, in pieces that are used again and again: a tensor's deleter puts its piece back.
class shelf {
 public:
  struct piece {
    DLManagedTensorVersioned managed;
    int64_t shape[2], strides[2];
    float *elements;
    shelf *home;
  };

  shelf() : all_(pieces) {
    CHECK_CUDA(cudaMalloc(&memory_, pieces * most_rows * pitch * sizeof(float)));
    for (size_t i = 0; i < pieces; ++i) {
      all_[i].elements = memory_ + i * most_rows * pitch;
      all_[i].home = this;
      free_.push_back(&all_[i]);
    }
  }
  ~shelf() { cudaFree(memory_); }
  shelf(const shelf &) = delete;
  shelf &operator=(const shelf &) = delete;

  // Waits until one is there.
  piece *take() {
    std::unique_lock<std::mutex> lock(mutex_);
    const auto some = [this] { return !free_.empty(); };
    MUST(came_back_.wait_for(lock, std::chrono::nanoseconds(limit_ns), some), "no tensor came back");
    piece *taken = free_.back();
    free_.pop_back();
    return taken;
  }

  // The deleter. It frees nothing: cudaFree waits for the device, that is for the consumer, which waits for tensors.
  static void put_back(DLManagedTensorVersioned *self) {
    piece *back = static_cast<piece *>(self->manager_ctx);
    shelf &home = *back->home;
    const std::lock_guard<std::mutex> lock(home.mutex_);
    home.free_.push_back(back);
    home.came_back_.notify_one();
  }

 private:
  float *memory_ = nullptr;
  std::vector<piece> all_;
  std::mutex mutex_;
  std::condition_variable came_back_;
  std::vector<piece *> free_;
};

DLManagedTensorVersioned *describe(shelf::piece *of, uint64_t number) {
  of->shape[0] = rows_of(number);
  of->shape[1] = columns_of(number);
  of->strides[0] = pitch;
  of->strides[1] = 1;
  of->managed = {};
  of->managed.version = {DLPACK_MAJOR_VERSION, DLPACK_MINOR_VERSION};
  of->managed.manager_ctx = of;
  of->managed.deleter = shelf::put_back;
  DLTensor &tensor = of->managed.dl_tensor;
  tensor.data = of->elements;
  tensor.device = {kDLCUDA, 0};
  tensor.dtype = {kDLFloat, 32, 1};
  tensor.ndim = 2;
  tensor.shape = of->shape;
  tensor.strides = of->strides;
  return &of->managed;
}

float expected_sum(uint64_t number) {
  float sum = 0;
  for (int64_t row = 0; row < rows_of(number); ++row) {
    for (int64_t column = 0; column < columns_of(number); ++column) sum += element_of(number, row, column);
  }
  return sum;
}

}  // namespace

int main() {
  // A kernel that is loaded when it is first launched may wait for those that run, and the consumer runs all the time.
  setenv("CUDA_MODULE_LOADING", "EAGER", 1);
  CHECK_CUDA(cudaSetDevice(0));
  gmb_context_options backend = GMB_CONTEXT_OPTIONS_INIT;
  backend.backend = GMB_BACKEND_CUDA;
  gmb_context context;
  CHECK(gmb_context_create(&backend, &context));
  gmb_tensor_mailbox_options options = GMB_TENSOR_MAILBOX_OPTIONS_INIT;
  options.capacity = capacity;
  options.consumer = GMB_CONSUMER_DEVICE;
  options.full_policy = GMB_FULL_WAIT;
  gmb_tensor_mailbox mailbox;
  CHECK(gmb_tensor_mailbox_create(context, &options, &mailbox));

  // Allocated before the consumer runs: that may wait for the device. Neither stream waits for the default stream.
  shelf memory;
  cudaStream_t making, taking;
  progress *all;
  void *pinned;
  CHECK_CUDA(cudaStreamCreateWithFlags(&making, cudaStreamNonBlocking));
  CHECK_CUDA(cudaStreamCreateWithFlags(&taking, cudaStreamNonBlocking));
  CHECK_CUDA(cudaMalloc(&all, sizeof *all));
  CHECK_CUDA(cudaMemset(all, 0, sizeof *all));
  CHECK(gmb_pinned_allocate(context, tensors * sizeof(outcome), &pinned));
  outcome *outcomes = static_cast<outcome *>(pinned);
  CHECK_CUDA(cudaDeviceSynchronize());

  // Few blocks: beside them the GPU has room for the producer's kernels.
  gmb_tensor_view inbox;
  CHECK(gmb_tensor_mailbox_get_view(mailbox, taking, &inbox));
  consume<<<blocks, threads, 0, taking>>>(inbox, outcomes, all);
  CHECK_CUDA(cudaGetLastError());

  for (uint64_t number = 0; number < tensors; ++number) {
    shelf::piece *piece = memory.take();
    make_elements<<<1, threads, 0, making>>>(piece->elements, number, rows_of(number), columns_of(number));
    CHECK_CUDA(cudaGetLastError());
    gmb_tensor_push push = GMB_TENSOR_PUSH_INIT;
    push.tag = number;
    push.timeout_ns = limit_ns;
    CHECK(gmb_tensor_mailbox_push(mailbox, describe(piece, number), &push, making));
  }
  CHECK_CUDA(cudaStreamSynchronize(taking));

  gmb_tensor_mailbox_info info;
  int polls = 0;
  do {
    CHECK(gmb_tensor_mailbox_get_info(mailbox, &info, sizeof info));
    std::this_thread::yield();
  } while (info.released != info.pushed && ++polls < most_host_polls);
  progress done;
  CHECK_CUDA(cudaMemcpy(&done, all, sizeof done, cudaMemcpyDeviceToHost));
  uint64_t right = 0;
  for (uint64_t number = 0; number < tensors; ++number) {
    right += outcomes[number].tag == number && outcomes[number].sum == expected_sum(number);
  }
  std::printf("%llu tensors through %llu slots to %u blocks, %llu sums right, %llu given back\n", done.taken,
              static_cast<unsigned long long>(capacity), blocks, static_cast<unsigned long long>(right),
              static_cast<unsigned long long>(info.released));
  MUST(done.taken == tensors && right == tensors, "every tensor should have been summed up");
  MUST(info.released == tensors, "every tensor should have gone back");

  CHECK(gmb_tensor_mailbox_destroy(mailbox));
  CHECK_CUDA(cudaStreamDestroy(making));
  CHECK_CUDA(cudaStreamDestroy(taking));
  CHECK_CUDA(cudaFree(all));
  CHECK(gmb_pinned_free(context, pinned));
  CHECK(gmb_context_destroy(context));
  return 0;
}
