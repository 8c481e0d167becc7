// CUDA entry points of the bulk operations.
#include "entry.h"

#define GMB_BLOCK_THREADS 256
#define GMB_DRAWING_THREADS 512

/* `least` blocks of at most `threads` run on a multiprocessor at once, so each takes few registers: what many threads have
 * under way hides the latency of memory. In fewer they would spill. Where so many threads do not fit, ptxas takes no
 * notice. */
#define GMB_ENTRY(name, what, block, type, threads, least)                                                   \
  extern "C" __global__ void __launch_bounds__(threads, least) gmb_kernel_##name(const __grid_constant__ type args) { \
    __shared__ uint64_t word[gmb::ring::block_words];                                                        \
    run_##what(gmb::ring::block{word}, args);                                                                \
  }

GMB_ENTRY(push, push, thread_block, gmb_push_args, GMB_DRAWING_THREADS, 3)
GMB_ENTRY(pop, pop, thread_block, gmb_pop_args, GMB_DRAWING_THREADS, 2)
GMB_ENTRY(push_over, push_over, thread_block, gmb_push_args, GMB_BLOCK_THREADS, 6)
GMB_ENTRY(pop_over, pop_over, thread_block, gmb_pop_args, GMB_BLOCK_THREADS, 6)
GMB_ENTRY(push_latest, push_latest, thread_block, gmb_push_args, GMB_BLOCK_THREADS, 1)
GMB_ENTRY(pop_latest, pop_latest, thread_block, gmb_pop_args, GMB_BLOCK_THREADS, 1)
GMB_ENTRY(reader, reader, thread_block, gmb_reader_args, GMB_BLOCK_THREADS, 1)
GMB_ENTRY(borrow, borrow, lone_block, gmb_borrow_args, GMB_BLOCK_THREADS, 1)
GMB_ENTRY(release, release, lone_block, gmb_borrow_args, GMB_BLOCK_THREADS, 1)
GMB_ENTRY(tensor, tensor, lone_block, gmb_tensor_args, GMB_BLOCK_THREADS, 1)

/* The leader's warp, if it has one, and threads with one record under way each. */
#define GMB_ALONE_THREADS 544

/* In a graph it may be launched while the kernel before it still runs. */
template <class Block> struct launched : Block {
  __device__ explicit launched(uint64_t *word) : Block{word} {}
  __device__ void begin() const { gmb::ring::await_launch_before(); }
};

#define GMB_ENTRY_ALONE(name, block, type)                                                              \
  extern "C" __global__ void __launch_bounds__(GMB_ALONE_THREADS, 1) gmb_kernel_##name##_alone(         \
      const __grid_constant__ type args) {                                                              \
    __shared__ uint64_t word[gmb::ring::block_words];                                                   \
    run_##name##_alone(launched<gmb::ring::block>(word), args);                                         \
  }

GMB_ENTRY_ALONE(push, led_block, gmb_push_args)
GMB_ENTRY_ALONE(pop, lone_block, gmb_pop_args)
