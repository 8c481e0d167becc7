// The same entry points for the host backend: one call runs one block on the calling thread.
#include <string.h>

#include "entry.h"
#include "list.h"

#define GMB_ENTRY(name, type, ...)                                                            \
  static void run_host_##name(const void *args, uint32_t block, uint32_t blocks) {            \
    uint64_t word[words_for<type>] = {};                                               \
    run_##name(gmb::ring::host_block{word, block, blocks}, *static_cast<const type *>(args)); \
  }
GMB_KERNELS(GMB_ENTRY)

typedef void (*gmb_host_entry)(const void *args, uint32_t block, uint32_t blocks);

/* Finds an entry point by its name, as the CUDA driver does; null for another name. */
extern "C" gmb_host_entry gmb_host_kernel(const char *name) {
#define GMB_NAMED(entry, ...) \
  if (strcmp(name, "gmb_kernel_" #entry) == 0) return run_host_##entry;
  GMB_KERNELS(GMB_NAMED)
  return nullptr;
}
