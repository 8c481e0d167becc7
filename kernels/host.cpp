// The same entry points for the host backend: one call runs one block on the calling thread.
#include "entry.h"

extern "C" {

void gmb_host_push(const gmb_push_args *args, uint32_t block, uint32_t blocks) {
  uint64_t word = 0;
  run_push(gmb::ring::host_block{&word, block, blocks}, *args);
}

void gmb_host_pop(const gmb_pop_args *args, uint32_t block, uint32_t blocks) {
  uint64_t word = 0;
  run_pop(gmb::ring::host_block{&word, block, blocks}, *args);
}
}
