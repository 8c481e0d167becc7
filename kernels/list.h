/* Every kernel: a row here, its body in entry.h, its name in src/backend/kernels.rs. */
#ifndef GMB_KERNELS_LIST_H
#define GMB_KERNELS_LIST_H

#define GMB_WARP 32

/* Name, arguments, and for a GPU: the block that it runs in, at most so many threads, at least so many blocks on a
 * multiprocessor. At least so many blocks run at once, so each takes few registers: what many threads have under way
 * hides the latency of memory. In fewer they would spill. Where so many threads do not fit, ptxas takes no notice. */
#define GMB_KERNELS(ROW)                                                                       \
  ROW(push, gmb_push_args, thread_block, GMB_DRAWING_THREADS, 3)                               \
  ROW(pop, gmb_pop_args, thread_block, GMB_DRAWING_THREADS, 2)                                 \
  ROW(push_alone, gmb_push_args, launched<led_block>, GMB_ALONE_THREADS + GMB_WARP, 1)         \
  ROW(pop_alone, gmb_pop_args, launched<lone_block>, GMB_ALONE_THREADS + GMB_WARP, 1)          \
  ROW(push_over, gmb_push_args, thread_block, GMB_BLOCK_THREADS, 6)                            \
  ROW(pop_over, gmb_pop_args, thread_block, GMB_BLOCK_THREADS, 6)                              \
  ROW(push_latest, gmb_push_args, thread_block, GMB_BLOCK_THREADS, 1)                          \
  ROW(pop_latest, gmb_pop_args, thread_block, GMB_BLOCK_THREADS, 1)                            \
  ROW(reader, gmb_reader_args, thread_block, GMB_BLOCK_THREADS, 1)                             \
  ROW(borrow, gmb_borrow_args, lone_block, GMB_BLOCK_THREADS, 1)                               \
  ROW(release, gmb_borrow_args, lone_block, GMB_BLOCK_THREADS, 1)                              \
  ROW(push_shared, gmb_push_args, thread_block, GMB_BLOCK_THREADS, 4)                          \
  ROW(pop_shared, gmb_pop_args, thread_block, GMB_BLOCK_THREADS, GMB_BLOCKS_OF_MANY_REGISTERS) \
  ROW(credit, gmb_push_args, lone_block, GMB_BLOCK_THREADS, 1)                                 \
  ROW(borrow_shared, gmb_borrow_args, lone_block, GMB_BLOCK_THREADS, 1)                        \
  ROW(release_shared, gmb_borrow_args, lone_block, GMB_BLOCK_THREADS, 1)                       \
  ROW(reader_shared, gmb_reader_args, lone_block, GMB_BLOCK_THREADS, 1)                        \
  ROW(tensor, gmb_tensor_args, lone_block, GMB_BLOCK_THREADS, 1)                               \
  ROW(queue_push, gmb_queue_args, thread_block, GMB_MOST_THREADS, 1)                           \
  ROW(queue_pop, gmb_queue_args, thread_block, GMB_MOST_THREADS, 1)                            \
  ROW(arbiter, gmb_arbiter_args, lone_block, GMB_MOST_THREADS, 1)                              \
  ROW(fifo_push, gmb_queue_args, lone_block, GMB_BLOCK_THREADS, 1)                             \
  ROW(worker, gmb_worker_args, thread_block, GMB_MOST_THREADS, 1)

#endif
