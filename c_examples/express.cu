// The kernels of express: one warp each.
#include "express.h"

#include <cuda_runtime.h>

namespace {

template <bool Asks> __global__ void __launch_bounds__(32) side_kernel(const express::job all) {
  express::run_side(running::worker{}, all, Asks);
}

}  // namespace

const char *express::launch(const job &all, gmb_stream asking, gmb_stream answering) {
  // Loads both kernels: what is loaded only at its launch may wait for the kernel that runs, and that one for it.
  cudaFuncAttributes loaded;
  cudaError_t error = cudaFuncGetAttributes(&loaded, reinterpret_cast<const void *>(side_kernel<true>));
  if (error == cudaSuccess) error = cudaFuncGetAttributes(&loaded, reinterpret_cast<const void *>(side_kernel<false>));
  if (error != cudaSuccess) return cudaGetErrorString(error);
  side_kernel<false><<<1, 32, 0, (cudaStream_t)answering>>>(all);
  error = cudaGetLastError();
  if (error != cudaSuccess) return cudaGetErrorString(error);
  side_kernel<true><<<1, 32, 0, (cudaStream_t)asking>>>(all);
  error = cudaGetLastError();
  if (error == cudaSuccess) return nullptr;
  // The one that runs waits for this one.
  cudaMemsetAsync(all.until.stop, 1, sizeof *all.until.stop, (cudaStream_t)asking);
  return cudaGetErrorString(error);
}
