// The kernels of own_worker.
#include "own_worker.h"

#include <cuda_runtime.h>

GMB_WORKER_KERNEL(halve_on_the_gpu, uint32_t, own_worker::halve)
GMB_WORKER_KERNEL(endless_on_the_gpu, uint32_t, own_worker::endless)

namespace {
const void *function_of(const void *kernel) {
  // A function of the runtime is one of the driver.
  cudaFunction_t found = nullptr;
  return cudaGetFuncBySymbol(&found, kernel) == cudaSuccess ? found : nullptr;
}
}  // namespace

const void *own_worker::halving_kernel() { return function_of(reinterpret_cast<const void *>(halve_on_the_gpu)); }
const void *own_worker::endless_kernel() { return function_of(reinterpret_cast<const void *>(endless_on_the_gpu)); }
