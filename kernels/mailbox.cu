// CUDA entry points of the bulk operations.
#include "entry.h"

#define GMB_BLOCK_THREADS 256

extern "C" __global__ void __launch_bounds__(GMB_BLOCK_THREADS)
    gmb_kernel_push(const __grid_constant__ gmb_push_args args) {
  __shared__ uint64_t word;
  run_push(gmb::ring::thread_block{&word}, args);
}

extern "C" __global__ void __launch_bounds__(GMB_BLOCK_THREADS)
    gmb_kernel_pop(const __grid_constant__ gmb_pop_args args) {
  __shared__ uint64_t word;
  run_pop(gmb::ring::thread_block{&word}, args);
}
