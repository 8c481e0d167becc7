// CUDA entry points of the bulk operations.
#include "entry.h"
#include "list.h"

using gmb::ring::led_block;
using gmb::ring::lone_block;
using gmb::ring::thread_block;

/* In a graph it may be launched while the kernel before it still runs. */
template <class Block> struct launched : Block {
  __device__ explicit launched(uint64_t *word) : Block{word} {}
  __device__ void begin() const { gmb::ring::await_launch_before(); }
};

#define GMB_ENTRY(name, type, block, threads, least)                                                                  \
  extern "C" __global__ void __launch_bounds__(threads, least) gmb_kernel_##name(const __grid_constant__ type args) { \
    __shared__ uint64_t word[words_for<type>];                                                                        \
    run_##name(block{word}, args);                                                                                    \
  }

GMB_KERNELS(GMB_ENTRY)
