// The kernels of crowd: a warp for each member, in as many blocks as it takes.
#include "crowd.h"

#include <cuda_runtime.h>

#include <cstdint>

namespace {

constexpr uint32_t warp = 32;
constexpr uint32_t warps = 4;

template <bool Produces> __global__ void __launch_bounds__(warp *warps) member_kernel(const crowd::job all) {
  __shared__ crowd::scratch rows[warps];
  const uint32_t in_block = threadIdx.x / warp, me = blockIdx.x * warps + in_block;
  if (me >= all.members) return;
  if (Produces) crowd::produce(running::worker{}, all, me, rows[in_block]);
  else crowd::consume(running::worker{}, all, me, rows[in_block]);
}

}  // namespace

const char *crowd::launch(const job &all, gmb_stream producing, gmb_stream consuming) {
  const uint32_t blocks = (all.members + warps - 1) / warps;
  member_kernel<true><<<blocks, warp * warps, 0, (cudaStream_t)producing>>>(all);
  cudaError_t error = cudaGetLastError();
  if (error == cudaSuccess) {
    member_kernel<false><<<blocks, warp * warps, 0, (cudaStream_t)consuming>>>(all);
    error = cudaGetLastError();
  }
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}
