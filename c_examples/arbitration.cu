// The kernels of arbitration: one warp each.
#include "arbitration.h"

#include <cuda_runtime.h>

namespace {

using arbitration::job;
using arbitration::module;

template <module Which> __global__ void __launch_bounds__(32) live_kernel(const job all) {
  arbitration::live(running::worker{}, all, Which);
}

template <module Which> __global__ void __launch_bounds__(32) step_kernel(const job all, uint32_t n) {
  const running::worker group;
  if (Which == arbitration::sense) arbitration::give_birth(group, all, n);
  else if (Which == arbitration::think) arbitration::think_about(group, all.rows[Which]);
  else arbitration::act_upon(group, all, all.rows[Which], n);
}

const char *text_of(cudaError_t error) { return error == cudaSuccess ? nullptr : cudaGetErrorString(error); }

}  // namespace

// What is loaded only at its launch may wait for a kernel that stays.
const char *arbitration::load() {
  cudaFuncAttributes loaded;
  for (const void *kernel : {reinterpret_cast<const void *>(live_kernel<sense>), reinterpret_cast<const void *>(live_kernel<think>),
                             reinterpret_cast<const void *>(live_kernel<act>), reinterpret_cast<const void *>(step_kernel<sense>),
                             reinterpret_cast<const void *>(step_kernel<think>), reinterpret_cast<const void *>(step_kernel<act>)}) {
    const cudaError_t error = cudaFuncGetAttributes(&loaded, kernel);
    if (error != cudaSuccess) return cudaGetErrorString(error);
  }
  return nullptr;
}

const char *arbitration::launch_all(const job &all, const gmb_stream *streams) {
  live_kernel<act><<<1, 32, 0, (cudaStream_t)streams[act]>>>(all);
  live_kernel<think><<<1, 32, 0, (cudaStream_t)streams[think]>>>(all);
  live_kernel<sense><<<1, 32, 0, (cudaStream_t)streams[sense]>>>(all);
  return text_of(cudaGetLastError());
}

const char *arbitration::launch_step(const job &all, module which, uint32_t number, gmb_stream stream) {
  const auto kernel = which == sense ? step_kernel<sense> : which == think ? step_kernel<think> : step_kernel<act>;
  kernel<<<1, 32, 0, (cudaStream_t)stream>>>(all, number);
  return text_of(cudaGetLastError());
}
