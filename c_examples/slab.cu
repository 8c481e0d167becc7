// The kernel of slab.
#include "slab.h"

#include <cuda_runtime.h>

GMB_WORKER_KERNEL(follow_on_the_gpu, slab::photon, slab::follow)

const void *slab::kernel() {
  // A function of the runtime is one of the driver.
  cudaFunction_t found = nullptr;
  const cudaError_t error = cudaGetFuncBySymbol(&found, reinterpret_cast<const void *>(follow_on_the_gpu));
  return error == cudaSuccess ? found : nullptr;
}
