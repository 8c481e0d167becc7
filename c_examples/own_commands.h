// What own_commands runs: a functor whose state is changed by commands while it works, and a kernel that does what commands say
// and sends the host records meanwhile. The same source for a GPU and for the host backend.
#ifndef OWN_COMMANDS_H
#define OWN_COMMANDS_H

#include "running.h"

#include <gpumailbox/worker.cuh>

namespace own_commands {

enum code : uint32_t { set_threshold = GMB_COMMAND_USER, ask, send, leave };

constexpr uint32_t most_threshold = 1000;

// The worker's `user`: all blocks use it at once.
struct state {
  uint32_t threshold;
  uint32_t small;
  uint32_t large;
};

// Items below the threshold are finished, the others go to `spawn`.
struct sort_out {
  static constexpr uint32_t most_spawned = 1;
  static constexpr bool takes_commands = true;

  template <class Hand> DEVICE_SIDE gmb::worker::route operator()(uint32_t &item, Hand &hand) const {
    const running::worker self{};
    state *all = hand.template user<state>();
    if (item < self.load(&all->threshold)) {
      self.count_up(&all->small);
      return gmb::worker::finished;
    }
    self.count_up(&all->large);
    hand.spawn(item);
    return gmb::worker::dropped;
  }

  template <class Desk> DEVICE_SIDE void command(const gmb_command &what, gmb_answer &answer, Desk &desk) const {
    const running::worker self{};
    state *all = desk.template user<state>();
    if (what.code == set_threshold) {
      if (what.argument[0] > most_threshold) {
        answer.status = GMB_ERROR_INVALID_ARGUMENT;
        return;
      }
      answer.value[0] = self.load(&all->threshold);
      self.store(&all->threshold, static_cast<uint32_t>(what.argument[0]));
      // Who has the answer, and pushes items then, counts on it; the answer alone hands over nothing but itself.
      gmb::ring::fence_system();
    } else if (what.code == ask) {
      // Who asks may have seen items come out.
      gmb::ring::fence_system();
      answer.value[0] = self.load(&all->threshold);
      answer.value[1] = self.load(&all->small);
      answer.value[2] = self.load(&all->large);
    } else {
      answer.status = GMB_ERROR_NOT_SUPPORTED;
    }
  }
};

// What the kernel gets.
struct job {
  gmb_doorbell_header *bell;
  gmb_fifo_header *fifo;
  uint32_t *stop;  // in device memory: not zero ends it
};

// Sends numbers and their squares until all are sent or nobody wants them any more. How many it sent.
template <class Group>
DEVICE_SIDE inline uint64_t send_squares(const Group &group, const job &all, const gmb::device::doorbell &bell,
                                         const gmb::device::command &got, int32_t &status) {
  const running::worker self{};
  const gmb::device::fifo fifo(all.fifo);
  const uint64_t first = got.what.argument[0], count = got.what.argument[1];
  uint64_t sent = 0;
  for (uint32_t rounds = 0, in_vain = 0; sent < count; ++rounds) {
    // Each look is a trip to the host's memory: now and then.
    if (rounds % 16 == 0) {
      const bool ends = group.lane() == 0 && (bell.is_cancelled(got.ticket) || self.load(all.stop) != 0);
      if (group.from_leader(uint32_t{ends}) != 0) {
        status = GMB_ERROR_CANCELLED;
        break;
      }
    }
    const uint64_t number = first + sent + group.lane();
    const gmb_fifo_record record = {{number, number * number}};
    const bool pushed = fifo.try_push_each(group, record, sent + group.lane() < count);
    const uint32_t came = group.from_leader(self.sum(pushed ? 1 : 0));
    sent += came;
    // The host makes room when it drains.
    if (came == 0) gmb::device::back_off_longer(in_vain++);
    else in_vain = 0;
  }
  return sent;
}

// Does what commands say until one of them says to leave.
template <class Group> DEVICE_SIDE inline void serve(const Group &group, const job &all) {
  const running::worker self{};
  gmb::device::doorbell bell(all.bell);
  gmb::device::command got;
  for (;;) {
    if (!bell.try_take(group, got)) {
      const bool ends = group.lane() == 0 && self.load(all.stop) != 0;
      if (bell.status() != GMB_OK || group.from_leader(uint32_t{ends}) != 0) return;
      continue;
    }
    gmb_answer answer = {GMB_OK, 0, {0, 0, 0}};
    if (got.what.code == send) answer.value[0] = send_squares(group, all, bell, got, answer.status);
    else if (got.what.code != leave) answer.status = GMB_ERROR_NOT_SUPPORTED;
    bell.answer(group, got.ticket, answer);
    if (got.what.code == leave) return;
  }
}

// The worker's kernel for a GPU, or null.
const void *sorting_kernel();
// Launches the other one; null, or what went wrong.
const char *launch(const job &all, gmb_stream stream);

}  // namespace own_commands

#endif
