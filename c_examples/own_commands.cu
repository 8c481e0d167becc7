// The kernels of own_commands.
#include "own_commands.h"

#include <cuda_runtime.h>

GMB_WORKER_KERNEL(sort_out_on_the_gpu, uint32_t, own_commands::sort_out)

namespace {
__global__ void __launch_bounds__(32) serving_kernel(const own_commands::job all) {
  own_commands::serve(gmb::device::one_warp{}, all);
}
}  // namespace

const void *own_commands::sorting_kernel() {
  // A function of the runtime is one of the driver.
  cudaFunction_t found = nullptr;
  return cudaGetFuncBySymbol(&found, reinterpret_cast<const void *>(sort_out_on_the_gpu)) == cudaSuccess ? found : nullptr;
}

const char *own_commands::launch(const job &all, gmb_stream stream) {
  serving_kernel<<<1, 32, 0, (cudaStream_t)stream>>>(all);
  const cudaError_t error = cudaGetLastError();
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}
