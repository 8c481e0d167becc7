// The interface for kernels of one's own, as CPU threads use it: ordered, shared and express mailboxes.
#include "shared.h"

#include <gpumailbox/device.cuh>
#include <gpumailbox/express.cuh>

namespace {

using gmb::device::express_consumer;
using gmb::device::express_producer;
using gmb::device::ordered_mailbox;
using gmb::device::rows_in;
using gmb::device::rows_out;
using gmb::device::shared_mailbox;

rows_in rows_of(const batch &records, uint32_t count) {
  return {records.rows.data(), row, count, 0, 0, records.lengths.data(), records.types.data()};
}
rows_out rows_of(room &records, uint32_t max) { return {records.rows.data(), row, max, records.headers.data()}; }

/* One producer and a consumer of each reader, in lots of random sizes. */
void ordered(uint64_t capacity, uint64_t first, uint32_t readers, gmb_full_policy policy, uint64_t total, uint64_t seed) {
  ring_memory memory(capacity, payload, first, policy);
  memory.header()->reader_mask = (1u << readers) - 1;
  std::vector<std::thread> threads;
  threads.emplace_back([&] {
    const ordered_mailbox box(memory.header());
    std::mt19937_64 random(seed);
    batch records;
    for (uint64_t sent = 0; sent < total && failures == 0;) {
      const uint64_t most = policy == GMB_FULL_WAIT ? std::min<uint64_t>(capacity, 12) : 12;
      const uint32_t count = static_cast<uint32_t>(std::min(1 + random() % most, total - sent));
      records.fill(sent, count);
      int32_t status = -1;
      const uint32_t accepted = box.try_push(me, rows_of(records, count), &status);
      if (status != GMB_OK || accepted > count || (policy == GMB_FULL_WAIT && accepted % count != 0)) ++failures;
      if (accepted == 0) gmb::device::back_off(0);
      sent += accepted;
    }
  });
  for (uint32_t reader = 0; reader < readers; ++reader) {
    threads.emplace_back([&, reader] {
      const ordered_mailbox box(memory.header());
      std::mt19937_64 random(seed + 1 + reader);
      room records;
      for (uint64_t got = 0; got < total && failures == 0;) {
        int32_t status = -1;
        const uint32_t count = box.try_pop(me, rows_of(records, 1 + static_cast<uint32_t>(random() % 12)), reader, &status);
        if (status != GMB_OK) ++failures;
        for (uint32_t r = 0; r < count; ++r) {
          if (!records.holds(r, got + r, first)) ++failures;
        }
        if (count == 0) gmb::device::back_off(0);
        got += count;
      }
    });
  }
  for (auto &thread : threads) thread.join();
  EXPECT(failures == 0);
  EXPECT(memory.header()->writer.committed == first + total && memory.header()->fault == GMB_OK);
}

/* An express ring made by hand. */
struct express_memory {
  ring_memory memory;
  express_memory(uint64_t capacity, uint32_t bytes, uint64_t first) : memory(capacity, 352, first) {
    gmb_ring_header *h = memory.header();
    h->mode = GMB_MODE_EXPRESS;
    h->payload_bytes = bytes;
    h->stride = 16 * gmb::ring::express_units(bytes);
  }
};

void express(uint64_t capacity, uint32_t bytes, uint64_t first, uint64_t total) {
  express_memory ring(capacity, bytes, first);
  const auto length_at = [&](uint64_t n) { return length_of(n, bytes); };
  std::thread producer([&] {
    uint32_t words[64];
    for (uint64_t n = 0; n < total && failures == 0;) {
      /* A new one goes on where the one before it ended. */
      express_producer out(ring.memory.header());
      for (const uint64_t end = std::min(total, n + 1000); n < end && failures == 0;) {
        auto *to = reinterpret_cast<unsigned char *>(words);
        for (uint32_t i = 0; i < sizeof words; ++i) to[i] = byte_of(n, i);
        if (out.try_push(me, words, length_at(n), type_of(n))) ++n;
        else gmb::device::back_off(0);
      }
    }
  });
  std::thread consumer([&] {
    uint32_t words[64];
    for (uint64_t n = 0; n < total && failures == 0;) {
      express_consumer in(ring.memory.header());
      for (const uint64_t end = std::min(total, n + 700); n < end && failures == 0;) {
        gmb_record_header header{};
        std::memset(words, 0xee, sizeof words);
        if (!in.try_pop(me, words, header)) {
          gmb::device::back_off(0);
          continue;
        }
        const auto *from = reinterpret_cast<const unsigned char *>(words);
        bool same = header.sequence == first + n + 1 && header.length == length_at(n) && header.msg_type == type_of(n);
        for (uint32_t i = 0; i < (header.length + 3) / 4 * 4; ++i) same = same && from[i] == byte_of(n, i);
        for (uint32_t i = (bytes + 3) / 4 * 4; i < sizeof words; ++i) same = same && from[i] == 0xee;
        if (!same) ++failures;
        ++n;
      }
    }
  });
  producer.join();
  consumer.join();
  EXPECT(failures == 0);
}

/* What does not fit is refused, and nothing of it is there. */
void express_limits() {
  express_memory ring(2, 240, 0);
  express_producer out(ring.memory.header());
  express_consumer in(ring.memory.header());
  uint32_t words[64] = {1, 2, 3};
  gmb_record_header header{};
  EXPECT(out.status() == GMB_OK && !in.try_pop(me, words, header));
  int32_t status = 0;
  EXPECT(!out.try_push(me, words, 241, 0, &status) && status == GMB_ERROR_BAD_LENGTH && !in.try_pop(me, words, header));
  EXPECT(out.try_push(me, words, 0, 9) && out.try_push(me, words, 240) && !out.try_push(me, words, 1));
  EXPECT(in.try_pop(me, words, header) && header.length == 0 && header.msg_type == 9 && header.sequence == 1);
  EXPECT(out.try_push(me, words, 1) && !out.try_push(me, words, 1));
  EXPECT(in.try_pop(me, words, header) && header.length == 240 && words[2] == 3);
  ring.memory.header()->mode = GMB_MODE_SHARED;
  EXPECT(express_producer(ring.memory.header()).status() == GMB_ERROR_WRONG_MODE);
  EXPECT(!express_consumer(ring.memory.header()).try_pop(me, words, header));
}

/* Slots written and read in place, and one whose length is too long. */
void in_place() {
  shared_memory memory(8, 50, 2);
  const shared_mailbox box(memory.ring().header);
  const claim mine = box.reserve(me, 3);
  EXPECT(mine.count == 3 && mine.first == 50);
  for (uint32_t i = 0; i < 3; ++i) std::memset(box.payload(50 + i), static_cast<int>(i + 1), payload);
  EXPECT(box.label(50, payload, 70) && !box.label(51, payload + 1, 71) && box.label(52, 4, 72));
  room into;
  EXPECT(box.try_pop(me, rows_of(into, 8)) == 0);
  box.commit(me, mine);
  const claim taken = box.take(me, 8, 1);
  EXPECT(taken.count == 3 && taken.first == 50);
  EXPECT(box.header(50).msg_type == 70 && box.header(52).length == 4 && shared_mailbox::is_abandoned(box.header(51)));
  EXPECT(*static_cast<unsigned char *>(box.payload(52)) == 3);
  /* A pop of one does not stop at what was abandoned. */
  gmb_record_header header{};
  EXPECT(box.try_pop(me, into.rows.data(), &header) && header.msg_type == 70);
  EXPECT(box.try_pop(me, into.rows.data(), &header) && header.msg_type == 72 && header.sequence == 53);
  EXPECT(!box.try_pop(me, into.rows.data(), &header));
  box.release(me, taken);
  EXPECT(memory.ring().header->writer.credits == 8 && memory.ring().header->writer.abandoned == 0);
  box.abandon(me, box.reserve(me, 5));
  EXPECT(box.try_push(me, into.rows.data(), 8, 1) && box.try_pop(me, into.rows.data(), &header, 1) && header.msg_type == 1);
}

/* What cannot be used says so, and gives nothing. */
void the_wrong_mailbox() {
  ring_memory memory(8, payload, 0);
  gmb_ring_header *h = memory.header();
  batch from;
  room into;
  from.fill(0, 4);
  int32_t status = 0;
  const shared_mailbox shared(h);
  EXPECT(shared.status() == GMB_ERROR_WRONG_MODE && shared.try_push(me, rows_of(from, 4), &status) == 0);
  EXPECT(status == GMB_ERROR_WRONG_MODE && shared.reserve(me, 1).count == 0 && shared.take(me, 1).count == 0);
  EXPECT(h->writer.committed == 0 && h->writer.claimed == 0);
  h->mode = GMB_MODE_SHARED;
  EXPECT(ordered_mailbox(h).try_push(me, rows_of(from, 4), &status) == 0 && status == GMB_ERROR_WRONG_MODE);
  h->mode = GMB_MODE_ORDERED;
  for (const uint32_t policy : {GMB_FULL_OVERWRITE_OLDEST, GMB_FULL_LATEST}) {
    h->full_policy = policy;
    EXPECT(ordered_mailbox(h).status() == GMB_ERROR_NOT_SUPPORTED);
  }
  h->full_policy = GMB_FULL_WAIT;
  const ordered_mailbox box(h);
  from.fill(0, 9);
  EXPECT(box.try_push(me, rows_of(from, 9), &status) == 0 && status == GMB_OK);
  from.lengths[1] = payload + 1;
  EXPECT(box.try_push(me, rows_of(from, 4), &status) == 0 && status == GMB_ERROR_BAD_LENGTH);
  h->full_policy = GMB_FULL_REJECT;
  EXPECT(ordered_mailbox(h).try_push(me, rows_of(from, 4), &status) == 1 && status == GMB_ERROR_BAD_LENGTH);
  EXPECT(ordered_mailbox(h).try_push(me, from.rows.data(), payload + 1) == false);
  ++h->magic;
  EXPECT(ordered_mailbox(h).status() == GMB_ERROR_BAD_MAGIC && ordered_mailbox(h).try_pop(me, rows_of(into, 4)) == 0);
  --h->magic;
  /* A second producer is found out. */
  h->fault = GMB_ERROR_ORDER_VIOLATION;
  EXPECT(ordered_mailbox(h).status() == GMB_ERROR_ORDER_VIOLATION && ordered_mailbox(h).try_pop(me, rows_of(into, 4)) == 0);
}

}  // namespace

int main(int argc, char **argv) {
  suite tests(argc, argv);
  const uint64_t total = tests.total;
  tests.test("ordered, one slot", [&] { ordered(1, 0, 1, GMB_FULL_REJECT, total / 4, tests.seed); });
  tests.test("ordered, across index 2^64", [&] { ordered(64, ~0ull - 100, 1, GMB_FULL_REJECT, total, tests.seed + 1); });
  tests.test("ordered, three readers", [&] { ordered(16, 7, 3, GMB_FULL_REJECT, total / 2, tests.seed + 2); });
  tests.test("ordered, all or none", [&] { ordered(8, (1ull << 32) - 20, 1, GMB_FULL_WAIT, total / 2, tests.seed + 3); });
  tests.test("express, one slot", [&] { express(1, 240, 0, total / 4); });
  tests.test("express, across index 2^32", [&] { express(8, 240, (1ull << 32) - 100, total / 2); });
  tests.test("express, across index 2^64", [&] { express(64, 100, ~0ull - 300, total); });
  tests.test("express, a record of one access", [&] { express(4, 4, 3, total); });
  tests.test("express, what does not fit", express_limits);
  tests.test("in place", in_place);
  tests.test("the wrong mailbox", the_wrong_mailbox);
  return tests.finish();
}
