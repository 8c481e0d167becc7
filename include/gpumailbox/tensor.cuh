/* Tensors handed to device code: who takes one gets its record, reads the elements where they lie, and says when it is
 * done. For kernels, and as plain C++ for the host backend.
 *
 *   __global__ void consume(gmb_tensor_view inbox) {
 *     __shared__ gmb::ring::taken_tensor one;
 *     __shared__ bool some;
 *     if (threadIdx.x == 0) some = gmb::ring::try_take(inbox, one);
 *     __syncthreads();
 *     if (!some) return;
 *     ...                                     // one.tensor->address, ->shape, ->strides
 *     __syncthreads();                        // nobody reads any more
 *     if (threadIdx.x == 0) gmb::ring::release(inbox, one);
 *   }
 *
 * A tensor is published by a kernel on its producer's stream, behind the work that made it. Tensors are taken in the order
 * of their pushes, each by one consumer; any number of threads, blocks and kernels may take at once. They are released in
 * any order. Only then may the slot, and the producer's memory, be used again. */
#ifndef GPUMAILBOX_TENSOR_CUH
#define GPUMAILBOX_TENSOR_CUH

#include <gpumailbox.h>

#include "platform.cuh"

static_assert(sizeof(gmb_tensor) == 176 && sizeof(gmb_tensor_slot) == 192 && sizeof(gmb_tensor_ring) == 128,
              "the layout of gpumailbox.h");

namespace gmb {
namespace ring {

GMB_HD inline gmb_tensor_slot *tensor_slot(gmb_tensor_ring *ring, uint64_t capacity, uint64_t index) {
  return reinterpret_cast<gmb_tensor_slot *>(ring + 1) + (index & (capacity - 1));
}

/* A tensor that this consumer has taken: `tensor` stays as it is until it is released. */
struct taken_tensor {
  const gmb_tensor *tensor;
  uint64_t index;
};

/* Takes the next tensor, on one thread: false when none is published. Does not wait. What the producer's stream held before
 * the push is visible to this thread, and to those that it synchronizes with. */
GMB_HD inline bool try_take(const gmb_tensor_view &view, taken_tensor &taken) {
  uint64_t index = load_relaxed(&view.ring->taken);
  for (;;) {
    gmb_tensor_slot *slot = tensor_slot(view.ring, view.capacity, index);
    const bool there = load_acquire(&slot->sequence) == index + 1;
    GMB_CHAOS_POINT(21);
    if (there && replace_fenced(&view.ring->taken, index, index + 1)) {
      taken.tensor = &slot->tensor;
      taken.index = index;
      return true;
    }
    /* Somebody else was before us, or there is nothing. */
    const uint64_t now = load_relaxed(&view.ring->taken);
    if (now == index && !there) return false;
    index = now;
  }
}

/* Releases a tensor, on one thread that all its readers have synchronized with. Once for each; the record must not be read
 * afterwards either. */
GMB_HD inline void release(const gmb_tensor_view &view, const taken_tensor &taken) {
  fence_system();
  store_system(view.released + (taken.index & (view.capacity - 1)), taken.index + 1);
}

/* The library's side: one block puts a tensor into its slot, which the host knows to be free. */
template <class Block>
GMB_HD inline void publish(const Block &block, gmb_tensor_ring *ring, uint64_t capacity, uint64_t index,
                           const gmb_tensor &tensor) {
  constexpr uint32_t words = sizeof(gmb_tensor) / sizeof(uint64_t);
  gmb_tensor_slot *slot = tensor_slot(ring, capacity, index);
  const uint64_t *from = reinterpret_cast<const uint64_t *>(&tensor);
  uint64_t *to = reinterpret_cast<uint64_t *>(&slot->tensor);
  for (uint32_t i = block.thread(); i < words; i += block.threads()) {
    store_relaxed(to + i, from[i]);
    GMB_CHAOS_POINT(22);
  }
  block.sync();
  if (block.thread() == 0) store_release(&slot->sequence, index + 1);
}

}  // namespace ring
}  // namespace gmb

#endif
