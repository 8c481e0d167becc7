// The kernels of stream_file, to be loaded as a module.
#include "stream_file.h"

namespace {

struct threads {
  __device__ uint32_t lane() const { return threadIdx.x; }
  __device__ uint32_t lanes() const { return blockDim.x; }
  __device__ uint32_t block() const { return blockIdx.x; }
  __device__ uint32_t blocks() const { return gridDim.x; }
  __device__ void barrier() const { __syncthreads(); }
  __device__ void add(uint64_t *to, uint64_t n) const { atomicAdd(reinterpret_cast<unsigned long long *>(to), n); }
  __device__ void add_shared(uint64_t *to, uint64_t n) const { add(to, n); }
  __device__ void add_shared(uint32_t *to, uint32_t n) const { atomicAdd(to, n); }
};

}  // namespace

extern "C" __global__ void measure(const uint64_t *words, stream_file::chunk what, stream_file::sums *all) {
  __shared__ stream_file::scratch mine;
  stream_file::measure(threads{}, words, what, all, &mine);
}

extern "C" __global__ void hide(uint64_t *words, stream_file::chunk what) { stream_file::hide(threads{}, words, what); }
