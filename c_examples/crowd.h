/* A crowd on one shared mailbox: warps of kernels, or CPU threads on the host backend, that push and pop with a bounded number
 * of tries. Nobody waits for anybody, so the crowd may be larger than what fits the device at once. */
#ifndef CROWD_H
#define CROWD_H

#include "running.h"

namespace crowd {

constexpr uint32_t words = 12;
constexpr uint32_t batch = 4; /* most records in one push or pop */

/* Who pushed it and the how manieth of theirs it is, then ten words that follow from these. */
struct alignas(16) record {
  uint32_t word[words];
};

DEVICE_SIDE inline uint32_t word_of(uint32_t who, uint32_t number, uint32_t w) {
  return w == 0 ? who : w == 1 ? number : (who * 0x9e3779b9u ^ number * 0x85ebca6bu) + w * 0xc2b2ae35u;
}

/* What was popped with one index: at that index in the log. */
struct found {
  uint64_t sum; /* of (w + 1) * word w */
  uint32_t who;
  uint32_t number;
  uint32_t times;
};

/* What one member did. */
struct tally {
  uint32_t moved;
  uint32_t tries_in_vain;
  uint32_t strange; /* records that cannot be */
  int32_t status;
};

/* All device memory. */
struct job {
  gmb_ring_header *ring;
  found *log;
  uint64_t log_size;
  tally *producers;
  tally *consumers;
  uint32_t members; /* on each side */
  uint32_t each;    /* records that each pushes */
  uint32_t most_tries;
};

/* A member's rows, which all of its lanes reach. */
struct scratch {
  record rows[batch];
  gmb_record_header headers[batch];
};

/* Pushes its records in order; ends when all are in, or after so many tries that found no room. */
template <class Group> DEVICE_SIDE inline void produce(const Group &group, const job &all, uint32_t me, scratch &mine) {
  const gmb::device::shared_mailbox box(all.ring);
  tally done = {};
  done.status = box.status();
  while (done.status == GMB_OK && done.moved < all.each && done.tries_in_vain < all.most_tries) {
    const uint32_t left = all.each - done.moved, count = left < batch ? left : batch;
    for (uint32_t i = group.lane(); i < count * words; i += group.lanes()) {
      mine.rows[i / words].word[i % words] = word_of(me, done.moved + i / words, i % words);
    }
    /* The push reads what other lanes have written. */
    group.sync();
    const gmb::device::rows_in rows = {mine.rows, sizeof(record), count, sizeof(record), me, nullptr, nullptr};
    const uint32_t pushed = box.try_push(group, rows, &done.status);
    done.moved += pushed;
    if (pushed == 0) gmb::device::back_off(done.tries_in_vain++);
    group.sync();
  }
  if (group.lane() == 0) all.producers[me] = done;
}

/* Pops until so many tries in a row found nothing. */
template <class Group> DEVICE_SIDE inline void consume(const Group &group, const job &all, uint32_t me, scratch &mine) {
  const gmb::device::shared_mailbox box(all.ring);
  const gmb::device::rows_out rows = {mine.rows, sizeof(record), batch, mine.headers};
  tally done = {};
  done.status = box.status();
  for (uint32_t in_vain = 0; done.status == GMB_OK && in_vain < all.most_tries;) {
    const uint32_t popped = box.try_pop(group, rows, 0, &done.status);
    if (popped == 0) {
      ++done.tries_in_vain;
      gmb::device::back_off(in_vain++);
      continue;
    }
    in_vain = 0;
    done.moved += popped;
    /* A lane for each record. */
    for (uint32_t i = group.lane(); i < popped; i += group.lanes()) {
      const gmb_record_header &header = mine.headers[i];
      if (header.sequence - 1 >= all.log_size || header.length != sizeof(record) || header.msg_type != mine.rows[i].word[0]) {
        group.count_up(&all.consumers[me].strange);
        continue;
      }
      found &entry = all.log[header.sequence - 1];
      uint64_t sum = 0;
      for (uint32_t w = 0; w < words; ++w) sum += (w + uint64_t{1}) * mine.rows[i].word[w];
      entry.sum = sum;
      entry.who = header.msg_type;
      entry.number = mine.rows[i].word[1];
      group.count_up(&entry.times);
    }
    /* Before the next pop writes there. */
    group.sync();
  }
  if (group.lane() != 0) return;
  all.consumers[me].moved = done.moved;
  all.consumers[me].tries_in_vain = done.tries_in_vain;
  all.consumers[me].status = done.status;
}

/* Launches both kernels, each on a stream of its own; null, or what went wrong. In crowd.cu. */
const char *launch(const job &all, gmb_stream producing, gmb_stream consuming);

}  // namespace crowd

#endif
