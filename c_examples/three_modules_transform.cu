// Module 2's kernel: a warp for each record, on a stream that came through the library.
#include "three_modules_transform.h"

#include <cuda_runtime.h>

namespace {

constexpr uint32_t warp = 32;
constexpr uint32_t block_threads = 256;
constexpr uint32_t most_blocks = 1024;

__global__ void __launch_bounds__(block_threads) transform_records(const transform::job work) {
  const uint32_t lane = threadIdx.x % warp;
  const uint32_t warps = gridDim.x * (block_threads / warp);
  // A whole warp takes the same turns, so that its shuffles have all lanes.
  for (uint32_t i = (blockIdx.x * block_threads + threadIdx.x) / warp; i < work.count; i += warps) {
    uint32_t sum = transform::bytes_of_lane(work, i, lane, warp);
    for (uint32_t distance = warp / 2; distance > 0; distance /= 2) {
      sum += __shfl_down_sync(0xffffffffu, sum, distance);
    }
    if (lane == 0) transform::finish_record(work, i, sum);
  }
}

}  // namespace

const char *transform::run_on_gpu(const job &work, gmb_stream stream) {
  const uint32_t wanted = (work.count + block_threads / warp - 1) / (block_threads / warp);
  const uint32_t blocks = wanted < most_blocks ? wanted : most_blocks;
  transform_records<<<blocks, block_threads, 0, (cudaStream_t)stream>>>(work);
  const cudaError_t error = cudaGetLastError();
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}
