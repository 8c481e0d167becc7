/* Three modules in a row, sense -> think -> act, that hand each other messages: what the kernels of arbitration do. One source for
 * kernels and for CPU threads on the host backend. */
#ifndef ARBITRATION_H
#define ARBITRATION_H

#include "running.h"

#include <gpumailbox/arbiter.cuh>

namespace arbitration {

/* What goes from module to module: 64 bytes. */
struct alignas(16) message {
  uint64_t number;
  uint64_t born_ns;
  uint64_t word[6];
};
static_assert(sizeof(message) == 64, "a record");

DEVICE_SIDE inline uint64_t sensed(uint64_t number, uint32_t w) { return (number + 1) * 0x9e3779b97f4a7c15u ^ w; }
DEVICE_SIDE inline uint64_t thought(uint64_t word) { return (word ^ word >> 31) * 0xbf58476d1ce4e5b9u; }

enum module : uint32_t { sense, think, act, modules };

/* All device memory. */
struct job {
  gmb_ring_header *sensed;
  gmb_ring_header *thought;
  gmb_arbiter_header *arbiter; /* null: each module looks at its own mailbox */
  message *rows;               /* one for each module */
  uint64_t *latencies_ns;      /* of each message, from its birth until act has it */
  uint32_t *acted;             /* messages that act has had */
  uint32_t *strange;           /* those that were not what they should be */
  running::tally *tallies;
  running::limits until;
  uint32_t messages;
  uint32_t pause_ns; /* from one message's end to the next one's birth */
};

/* The number of a module's mailbox, as the arbiter has it. */
DEVICE_SIDE inline uint32_t mailbox_of(module which) { return which == act ? 1 : 0; }

/* One message comes into being. */
template <class Group> DEVICE_SIDE inline void give_birth(const Group &group, const job &all, uint32_t n) {
  if (group.lane() == 0) {
    message &row = all.rows[sense];
    row.number = n;
    for (uint32_t w = 0; w < 6; ++w) row.word[w] = arbitration::sensed(n, w);
    row.born_ns = group.now_ns();
  }
  group.sync();
}
template <class Group> DEVICE_SIDE inline void think_about(const Group &group, message &row) {
  for (uint32_t w = group.lane(); w < 6; w += group.lanes()) row.word[w] = arbitration::thought(row.word[w]);
  group.sync();
}
/* The end of its way. */
template <class Group> DEVICE_SIDE inline void act_upon(const Group &group, const job &all, const message &row, uint32_t n) {
  if (group.lane() != 0) return;
  all.latencies_ns[n] = group.now_ns() - row.born_ns;
  bool right = row.number == n;
  for (uint32_t w = 0; w < 6; ++w) right = right && row.word[w] == arbitration::thought(arbitration::sensed(n, w));
  if (!right) group.count_up(all.strange);
  group.store(all.acted, n + 1);
}

/* A module that stays, from its first message to its last; it tries to take what is said to be there. */
template <class Group, class IsThere>
DEVICE_SIDE inline void live_while(const Group &group, const job &all, module which, const IsThere &is_there) {
  running::tally mine = {};
  mine.how = running::done;
  mine.began_ns = group.now_ns();
  mine.processor = gmb::device::processor();
  /* One produces and one consumes: no more is needed, and it is faster. */
  const gmb::device::ordered_mailbox in(which == act ? all.thought : all.sensed), out(which == sense ? all.sensed : all.thought);
  gmb_record_header header;
  message &row = all.rows[which];
  bool goes_on = running::usable(group, all.until, mine, in) && running::usable(group, all.until, mine, out);
  for (uint32_t n = 0; goes_on && n < all.messages; ++n) {
    if (which == sense) {
      /* The one before is through, and a while has gone by. */
      const auto through = [&] { return group.from_leader(group.lane() == 0 ? group.load(all.acted) : 0u) == n; };
      if (!running::keep_trying(group, all.until, mine, running::found_no_record, through)) break;
      for (const uint64_t until = group.now_ns() + all.pause_ns; group.now_ns() < until;) gmb::device::back_off(0);
      give_birth(group, all, n);
    } else {
      const auto pop = [&] { return is_there() && in.try_pop(group, &row, &header); };
      if (!running::keep_trying(group, all.until, mine, running::found_no_record, pop)) break;
      group.sync();
      if (which == think) think_about(group, row);
      else act_upon(group, all, row, n);
    }
    if (which != act) {
      const auto push = [&] { return out.try_push(group, &row, sizeof(message)); };
      goes_on = running::keep_trying(group, all.until, mine, running::found_no_room, push);
    }
    group.sync();
    ++mine.records;
    mine.bytes += sizeof(message);
  }
  mine.ended_ns = group.now_ns();
  if (group.lane() == 0) all.tallies[which] = mine;
}

template <class Group> DEVICE_SIDE inline void live(const Group &group, const job &all, module which) {
  if (!all.arbiter) return live_while(group, all, which, [] { return true; });
  const gmb::device::arbiter ready(all.arbiter);
  /* One lane looks, and tells the others. */
  live_while(group, all, which,
             [&] { return group.from_leader(group.lane() == 0 && ready.is_ready(mailbox_of(which)) ? 1u : 0u) != 0; });
}

/* In arbitration.cu. Null, or what went wrong. */
const char *load();
/* All three stay, each on a stream of its own. */
const char *launch_all(const job &all, const gmb_stream *streams);
/* One step of one module, for one message. */
const char *launch_step(const job &all, module which, uint32_t number, gmb_stream stream);

}  // namespace arbitration

#endif
