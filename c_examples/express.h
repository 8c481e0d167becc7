/* A ping-pong over two express mailboxes: one warp asks, one answers, each in a kernel of its own; or two CPU threads on the
 * host backend. */
#ifndef EXPRESS_H
#define EXPRESS_H

#include "running.h"

#include <gpumailbox/express.cuh>

namespace express {

constexpr uint32_t words = GMB_EXPRESS_BYTES / 4;

/* All device memory. */
struct job {
  gmb_ring_header *there;
  gmb_ring_header *back;
  const uint32_t *questions; /* `words` for each trip */
  uint32_t *answers;
  uint32_t *row;      /* room for one record, for who answers */
  uint64_t *trips_ns; /* how long each took */
  running::tally *tallies; /* of who asks, and of who answers */
  running::limits until;
  uint32_t trips;
};

DEVICE_SIDE inline uint32_t answer_to(uint32_t word, uint32_t trip) { return word * 2654435761u + trip; }

/* A record of the right length and trip, or nobody goes on. */
template <class Group>
DEVICE_SIDE inline bool fits(const Group &group, const job &all, const gmb_record_header &header, uint32_t trip,
                             running::tally &mine) {
  if (header.length == GMB_EXPRESS_BYTES && header.msg_type == trip) return true;
  return running::give_up(group, all.until, mine, running::strange_record);
}

template <class Group> DEVICE_SIDE inline void ask(const Group &group, const job &all, running::tally &mine) {
  gmb::device::express_producer out(all.there);
  gmb::device::express_consumer in(all.back);
  if (!running::usable(group, all.until, mine, out) || !running::usable(group, all.until, mine, in)) return;
  for (uint32_t trip = 0; trip < all.trips; ++trip) {
    const uint64_t began = group.now_ns();
    gmb_record_header header;
    const auto push = [&] { return out.try_push(group, all.questions + uint64_t{trip} * words, GMB_EXPRESS_BYTES, trip); };
    const auto pop = [&] { return in.try_pop(group, all.answers + uint64_t{trip} * words, header); };
    if (!running::keep_trying(group, all.until, mine, running::found_no_room, push)) return;
    if (!running::keep_trying(group, all.until, mine, running::found_no_record, pop)) return;
    if (!fits(group, all, header, trip, mine)) return;
    if (group.lane() == 0) all.trips_ns[trip] = group.now_ns() - began;
    ++mine.records;
    mine.bytes += header.length;
  }
}

template <class Group> DEVICE_SIDE inline void answer(const Group &group, const job &all, running::tally &mine) {
  gmb::device::express_consumer in(all.there);
  gmb::device::express_producer out(all.back);
  if (!running::usable(group, all.until, mine, in) || !running::usable(group, all.until, mine, out)) return;
  for (uint32_t trip = 0; trip < all.trips; ++trip) {
    gmb_record_header header;
    const auto pop = [&] { return in.try_pop(group, all.row, header); };
    const auto push = [&] { return out.try_push(group, all.row, header.length, header.msg_type); };
    if (!running::keep_trying(group, all.until, mine, running::found_no_record, pop)) return;
    if (!fits(group, all, header, trip, mine)) return;
    for (uint32_t w = group.lane(); w < words; w += group.lanes()) all.row[w] = answer_to(all.row[w], trip);
    /* The push reads what other lanes have written, and the next pop writes there. */
    group.sync();
    if (!running::keep_trying(group, all.until, mine, running::found_no_room, push)) return;
    group.sync();
    ++mine.records;
    mine.bytes += header.length;
  }
}

/* One side's whole life. */
template <class Group> DEVICE_SIDE inline void run_side(const Group &group, const job &all, bool asks) {
  running::tally mine = {};
  mine.began_ns = group.now_ns();
  mine.how = running::done;
  if (asks) ask(group, all, mine);
  else answer(group, all, mine);
  mine.ended_ns = group.now_ns();
  if (group.lane() == 0) all.tallies[asks ? 0 : 1] = mine;
}

/* Launches both kernels, each on a stream of its own; null, or what went wrong. In express.cu. */
const char *launch(const job &all, gmb_stream asking, gmb_stream answering);

}  // namespace express

#endif
