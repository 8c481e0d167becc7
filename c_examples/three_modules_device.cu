// The kernels of three_modules_device: one for each module, launched once.
#include "three_modules_device.h"

#include <cuda_runtime.h>

#include <cstdint>

namespace {

constexpr uint32_t warp = 32;
constexpr uint32_t block_threads = 256;

template <stages::stage Which> __global__ void __launch_bounds__(block_threads) module_kernel(const stages::job all) {
  const uint32_t worker = (blockIdx.x * block_threads + threadIdx.x) / warp;
  if (worker < all.workers) stages::run_worker(running::worker{}, all, Which, worker);
}

using kernel = void (*)(stages::job);
const kernel kernels[stages::stage_count] = {module_kernel<stages::source>, module_kernel<stages::transformer>,
                                             module_kernel<stages::sink>};

}  // namespace

const char *stages::launch(const job &all, const gmb_stream streams[stage_count]) {
  int device = 0, processors = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess) error = cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device);
  const uint32_t blocks = (all.workers + block_threads / warp - 1) / (block_threads / warp);
  // All blocks must be resident together: each waits for others. This also loads each kernel: what is loaded only at its
  // launch may wait for the kernels that run, and they for it.
  int needed = 0;
  for (const kernel one : kernels) {
    cudaFuncAttributes loaded;
    int on_each = 0;
    if (error == cudaSuccess) error = cudaFuncGetAttributes(&loaded, reinterpret_cast<const void *>(one));
    if (error == cudaSuccess) {
      error = cudaOccupancyMaxActiveBlocksPerMultiprocessor(&on_each, reinterpret_cast<const void *>(one), block_threads, 0);
    }
    if (error != cudaSuccess) return cudaGetErrorString(error);
    if (on_each == 0) return "a block does not fit the device";
    needed += static_cast<int>((blocks + static_cast<uint32_t>(on_each) - 1) / static_cast<uint32_t>(on_each));
  }
  if (needed > processors) return "too many workers: they do not fit the device together";
  for (uint32_t which = 0; which < stage_count; ++which) {
    kernels[which]<<<blocks, block_threads, 0, (cudaStream_t)streams[which]>>>(all);
    error = cudaGetLastError();
    if (error != cudaSuccess) {
      // Those that run already wait for this one.
      cudaMemsetAsync(all.until.stop, 1, sizeof *all.until.stop, (cudaStream_t)streams[which]);
      return cudaGetErrorString(error);
    }
  }
  return nullptr;
}
