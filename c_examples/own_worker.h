// Functors of own_worker: what its workers do with an item. The same source for a GPU and for the host backend.
#ifndef OWN_WORKER_H
#define OWN_WORKER_H

#include <gpumailbox/worker.cuh>

namespace own_worker {

// Halves even numbers until they are odd: what is left is finished.
struct halve {
  static constexpr uint32_t most_spawned = 1;
  template <class Hand> GMB_HD gmb::worker::route operator()(uint32_t &item, Hand &hand) const {
    if (item % 2 != 0) return gmb::worker::finished;
    hand.spawn(item / 2);
    return gmb::worker::dropped;
  }
};

// Never has enough: but for must_leave() nobody could stop it.
struct endless {
  static constexpr uint32_t most_spawned = 0;
  template <class Hand> GMB_HD gmb::worker::route operator()(uint32_t &, Hand &hand) const {
    for (uint32_t n = 0; !hand.must_leave(); ++n) gmb::device::back_off_longer(n);
    return gmb::worker::again;
  }
};

// The kernels for a GPU, or null.
const void *halving_kernel();
const void *endless_kernel();

}  // namespace own_worker

#endif
