// CUDA entry points of the bulk operations.
#include "entry.h"

#define GMB_BLOCK_THREADS 256
/* Blocks on a multiprocessor at once, at least: what is under way hides the latency of memory, so it takes few registers. */
#define GMB_BLOCKS_PER_UNIT 6

#define GMB_ENTRY(name, type)                                                          \
  extern "C" __global__ void __launch_bounds__(GMB_BLOCK_THREADS, GMB_BLOCKS_PER_UNIT) \
      gmb_kernel_##name(const __grid_constant__ type args) {                           \
    __shared__ uint64_t word[gmb::ring::block_words];                                  \
    run_##name(gmb::ring::thread_block{word}, args);                                   \
  }

GMB_ENTRY(push, gmb_push_args)
GMB_ENTRY(pop, gmb_pop_args)
GMB_ENTRY(push_over, gmb_push_args)
GMB_ENTRY(pop_over, gmb_pop_args)
GMB_ENTRY(push_latest, gmb_push_args)
GMB_ENTRY(pop_latest, gmb_pop_args)
GMB_ENTRY(reader, gmb_reader_args)
