/* The three modules of three_modules as kernels that run all the time, or as CPU threads on the host backend: each worker, a
 * warp or a thread, pushes and pops by itself.
 *
 * Both mailboxes are shared ones, and their records say which one they are. So workers of a stage need not know of each
 * other, and whichever is free takes the next record. With ordered mailboxes the numbers would follow from the order, but
 * each stage could have one worker only. */
#ifndef THREE_MODULES_DEVICE_H
#define THREE_MODULES_DEVICE_H

#include "running.h"
#include "three_modules_transform.h"

namespace stages {

enum stage : uint32_t { source, transformer, sink, stage_count };

/* In front of the bytes of each record: which one it is, and when it was written. */
struct alignas(16) stamp {
  uint64_t number;
  uint64_t born_ns;
};

/* A record to send: where its bytes lie in the input. */
struct cut {
  uint64_t at;
  uint32_t length;
  uint32_t type;
};

/* What came of it: its bytes are in row `number`. */
struct arrival {
  uint64_t latency_ns;
  uint32_t times;
  uint32_t length;
  uint32_t type;
};

/* All device memory. */
struct job {
  gmb_ring_header *first;
  gmb_ring_header *second;
  const unsigned char *input;
  const cut *cuts;
  unsigned char *rows;
  arrival *arrivals;
  running::tally *tallies; /* of each stage's workers */
  running::limits until;
  uint64_t records;
  uint32_t row_bytes;
  uint32_t workers; /* in each stage */
};

/* How many of the records are a worker's: any, but so many. So all stages end without counting together. */
DEVICE_SIDE inline uint64_t share_of(const job &all, uint32_t worker) {
  return all.records / all.workers + (worker < all.records % all.workers ? 1 : 0);
}

/* Module 1: records `worker`, `worker + workers`, ... from the input. */
template <class Group>
DEVICE_SIDE inline void run_source(const Group &group, const job &all, uint32_t worker, running::tally &mine) {
  const gmb::device::shared_mailbox out(all.first);
  if (!running::usable(group, all.until, mine, out)) return;
  for (uint64_t number = worker; number < all.records; number += all.workers) {
    gmb::device::claim slot = {0, 0};
    const auto reserve = [&] { return (slot = out.reserve(group, 1)).count == 1; };
    if (!running::keep_trying(group, all.until, mine, running::found_no_room, reserve)) return;
    const cut from = all.cuts[number];
    auto *payload = static_cast<unsigned char *>(out.payload(slot.first));
    for (uint32_t p = group.lane(); p < from.length; p += group.lanes()) payload[sizeof(stamp) + p] = all.input[from.at + p];
    if (group.lane() == 0) {
      *reinterpret_cast<stamp *>(payload) = {number, group.now_ns()};
      out.label(slot.first, static_cast<uint32_t>(sizeof(stamp)) + from.length, from.type);
    }
    out.commit(group, slot);
    ++mine.records;
    mine.bytes += from.length;
  }
}

/* A record of a mailbox, read where it lies. */
struct arrived {
  gmb::device::claim slot;
  stamp front;
  const unsigned char *bytes; /* behind the stamp */
  uint32_t length;            /* of these bytes */
  uint32_t type;
};

/* Takes the next record, whichever it is; it must be released. False: there was none, or none that can be. */
template <class Group>
DEVICE_SIDE inline bool take_next(const Group &group, const job &all, const gmb::device::shared_mailbox &in, arrived &got,
                                   running::tally &mine) {
  const auto take = [&] { return (got.slot = in.take(group, 1)).count == 1; };
  if (!running::keep_trying(group, all.until, mine, running::found_no_record, take)) return false;
  const gmb_record_header header = in.header(got.slot.first);
  const auto *payload = static_cast<const unsigned char *>(in.payload(got.slot.first));
  got.front = *reinterpret_cast<const stamp *>(payload);
  got.bytes = payload + sizeof(stamp);
  got.length = header.length - static_cast<uint32_t>(sizeof(stamp));
  got.type = header.msg_type;
  /* An abandoned one, too, has a length that cannot be. */
  if (header.length >= sizeof(stamp) && header.length <= in.payload_bytes() && got.front.number < all.records) return true;
  in.release(group, got.slot);
  return running::give_up(group, all.until, mine, running::strange_record);
}

/* Module 2: from the slot of one mailbox into a slot of the other. */
template <class Group>
DEVICE_SIDE inline void run_transformer(const Group &group, const job &all, uint32_t worker, running::tally &mine) {
  const gmb::device::shared_mailbox in(all.first), out(all.second);
  if (!running::usable(group, all.until, mine, in) || !running::usable(group, all.until, mine, out)) return;
  for (uint64_t left = share_of(all, worker); left > 0; --left) {
    arrived got;
    if (!take_next(group, all, in, got, mine)) return;
    /* Only now, with something to put there: a slot that is reserved holds back all that come behind it. */
    gmb::device::claim slot = {0, 0};
    const auto reserve = [&] { return (slot = out.reserve(group, 1)).count == 1; };
    if (!running::keep_trying(group, all.until, mine, running::found_no_room, reserve)) {
      in.release(group, got.slot);
      return;
    }
    auto *payload = static_cast<unsigned char *>(out.payload(slot.first));
    const gmb_record_header header = {got.front.number + 1, got.length, got.type};
    uint32_t length = 0, type = 0;
    const transform::job work{got.bytes, &header, payload + sizeof(stamp), &length, &type, 0, 0, 1};
    const uint32_t sum = group.sum(transform::bytes_of_lane(work, 0, group.lane(), group.lanes()));
    if (group.lane() == 0) {
      transform::finish_record(work, 0, sum);
      *reinterpret_cast<stamp *>(payload) = got.front;
      out.label(slot.first, static_cast<uint32_t>(sizeof(stamp)) + length, type);
    }
    out.commit(group, slot);
    in.release(group, got.slot);
    ++mine.records;
    mine.bytes += got.length;
  }
}

/* Module 3: each record to its row. */
template <class Group>
DEVICE_SIDE inline void run_sink(const Group &group, const job &all, uint32_t worker, running::tally &mine) {
  const gmb::device::shared_mailbox in(all.second);
  if (!running::usable(group, all.until, mine, in)) return;
  for (uint64_t left = share_of(all, worker); left > 0; --left) {
    arrived got;
    if (!take_next(group, all, in, got, mine)) return;
    const uint64_t now = group.now_ns();
    /* A byte by each lane: a row ends where its record does. */
    unsigned char *row = all.rows + got.front.number * all.row_bytes;
    for (uint32_t p = group.lane(); p < got.length; p += group.lanes()) row[p] = got.bytes[p];
    if (group.lane() == 0) {
      arrival &what = all.arrivals[got.front.number];
      what.latency_ns = now > got.front.born_ns ? now - got.front.born_ns : 0;
      what.length = got.length;
      what.type = got.type;
      group.count_up(&what.times);
    }
    in.release(group, got.slot);
    ++mine.records;
    mine.bytes += got.length;
  }
}

/* A worker's whole life. */
template <class Group> DEVICE_SIDE inline void run_worker(const Group &group, const job &all, stage which, uint32_t worker) {
  running::tally mine = {};
  mine.began_ns = group.now_ns();
  mine.how = running::done;
  if (which == source) run_source(group, all, worker, mine);
  else if (which == transformer) run_transformer(group, all, worker, mine);
  else run_sink(group, all, worker, mine);
  mine.ended_ns = group.now_ns();
  if (group.lane() == 0) all.tallies[which * all.workers + worker] = mine;
}

/* Launches the three kernels, each on a stream of its own; null, or what went wrong. In three_modules_device.cu. */
const char *launch(const job &all, const gmb_stream streams[stage_count]);

}  // namespace stages

#endif
