// The kernels of triple_loop, chained, fork_join and before_after, to be loaded as a module: one thread for each element.
#include "pipeline.h"

namespace {
__device__ uint32_t element() { return blockIdx.x * blockDim.x + threadIdx.x; }
}  // namespace

// C names, so that they are found by these.
extern "C" {

__global__ void scale(uint32_t *to, const uint32_t *from, uint32_t count, uint32_t factor) {
  const uint32_t n = element();
  if (n < count) to[n] = scaled(from[n], factor);
}

__global__ void shift(uint32_t *to, const uint32_t *from, uint32_t count, uint32_t by) {
  const uint32_t n = element();
  if (n < count) to[n] = shifted(from[n], by);
}

__global__ void add(uint32_t *sum, const uint32_t *left, const uint32_t *right, uint32_t count) {
  const uint32_t n = element();
  if (n < count) sum[n] = added(left[n], right[n]);
}

__global__ void stir(uint32_t *data, uint32_t count, uint32_t rounds) {
  const uint32_t n = element();
  if (n < count) data[n] = stirred(data[n], rounds);
}
}
