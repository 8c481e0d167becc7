// The same entry points for the host backend: one call runs one block on the calling thread.
#include "entry.h"

#define GMB_ENTRY(name, type)                                                                       \
  extern "C" void gmb_host_##name(const void *args, uint32_t block, uint32_t blocks) {              \
    uint64_t word[gmb::ring::block_words] = {};                                                     \
    run_##name(gmb::ring::host_block{word, block, blocks}, *static_cast<const type *>(args));       \
  }

/* As on a GPU, a block that is alone runs the kernel for that. */
#define GMB_ENTRY_OR_ALONE(name, type)                                                              \
  extern "C" void gmb_host_##name(const void *args, uint32_t block, uint32_t blocks) {              \
    uint64_t word[gmb::ring::block_words] = {};                                                     \
    const gmb::ring::host_block all{word, block, blocks};                                           \
    if (blocks == 1) run_##name##_alone(all, *static_cast<const type *>(args));                     \
    else run_##name(all, *static_cast<const type *>(args));                                         \
  }

GMB_ENTRY_OR_ALONE(push, gmb_push_args)
GMB_ENTRY_OR_ALONE(pop, gmb_pop_args)
GMB_ENTRY(push_over, gmb_push_args)
GMB_ENTRY(pop_over, gmb_pop_args)
GMB_ENTRY(push_latest, gmb_push_args)
GMB_ENTRY(pop_latest, gmb_pop_args)
GMB_ENTRY(reader, gmb_reader_args)
GMB_ENTRY(borrow, gmb_borrow_args)
GMB_ENTRY(release, gmb_borrow_args)
GMB_ENTRY(tensor, gmb_tensor_args)
