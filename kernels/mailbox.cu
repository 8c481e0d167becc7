// CUDA entry points of the bulk operations.
#include "entry.h"

#define GMB_BLOCK_THREADS 256

/* `least` blocks run on a multiprocessor at once, so each takes few registers: what many threads have under way hides
 * the latency of memory. In fewer they would spill. Where so many threads do not fit, ptxas takes no notice. */
#define GMB_ENTRY(name, type, least)                                     \
  extern "C" __global__ void __launch_bounds__(GMB_BLOCK_THREADS, least) \
      gmb_kernel_##name(const __grid_constant__ type args) {             \
    __shared__ uint64_t word[gmb::ring::block_words];                    \
    run_##name(gmb::ring::thread_block{word}, args);                     \
  }

GMB_ENTRY(push, gmb_push_args, 6)
GMB_ENTRY(pop, gmb_pop_args, 6)
GMB_ENTRY(push_over, gmb_push_args, 6)
GMB_ENTRY(pop_over, gmb_pop_args, 6)
GMB_ENTRY(push_latest, gmb_push_args, 1)
GMB_ENTRY(pop_latest, gmb_pop_args, 1)
GMB_ENTRY(reader, gmb_reader_args, 1)
