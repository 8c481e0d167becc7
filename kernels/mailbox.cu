// CUDA entry points of the bulk operations.
#include "entry.h"

#define GMB_BLOCK_THREADS 256

/* `least` blocks run on a multiprocessor at once, so each takes few registers: what many threads have under way hides
 * the latency of memory. In fewer they would spill. Where so many threads do not fit, ptxas takes no notice. */
#define GMB_ENTRY(name, what, block, type, least)                        \
  extern "C" __global__ void __launch_bounds__(GMB_BLOCK_THREADS, least) \
      gmb_kernel_##name(const __grid_constant__ type args) {             \
    __shared__ uint64_t word[gmb::ring::block_words];                    \
    run_##what(gmb::ring::block{word}, args);                            \
  }

GMB_ENTRY(push, push, thread_block, gmb_push_args, 6)
GMB_ENTRY(pop, pop, thread_block, gmb_pop_args, GMB_RESIDENT_BLOCKS)
GMB_ENTRY(push_over, push_over, thread_block, gmb_push_args, 6)
GMB_ENTRY(pop_over, pop_over, thread_block, gmb_pop_args, 6)
GMB_ENTRY(push_latest, push_latest, thread_block, gmb_push_args, 1)
GMB_ENTRY(pop_latest, pop_latest, thread_block, gmb_pop_args, 1)
GMB_ENTRY(reader, reader, thread_block, gmb_reader_args, 1)
GMB_ENTRY(borrow, borrow, lone_block, gmb_borrow_args, 1)
GMB_ENTRY(release, release, lone_block, gmb_borrow_args, 1)

/* Each thread has one record under way. In a graph such a kernel is launched while the one before it still runs: it waits
 * for that one here, and lets the next be launched. */
#define GMB_ALONE_THREADS 512

#define GMB_ENTRY_ALONE(name, type)                                                                     \
  extern "C" __global__ void __launch_bounds__(GMB_ALONE_THREADS) gmb_kernel_##name##_alone(            \
      const __grid_constant__ type args) {                                                              \
    __shared__ uint64_t word[gmb::ring::block_words];                                                   \
    GMB_AFTER_OTHERS();                                                                                 \
    run_##name##_alone(gmb::ring::lone_block{word}, args);                                              \
  }

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
#define GMB_AFTER_OTHERS() asm volatile("griddepcontrol.wait; griddepcontrol.launch_dependents;" ::: "memory")
#else
#define GMB_AFTER_OTHERS() ((void)0)
#endif

GMB_ENTRY_ALONE(push, gmb_push_args)
GMB_ENTRY_ALONE(pop, gmb_pop_args)
