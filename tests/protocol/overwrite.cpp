// Writers that never wait, on host threads: the oldest records are overwritten while readers copy
// them. Every record that comes out is whole and in order, and every other one is counted as lost.
#include "fixture.h"

namespace {

/* Up to three readers, each popping beside the pushes and the other readers. */
void overtaking(gmb_full_policy policy, uint64_t capacity, uint64_t first, uint64_t total, uint32_t readers,
                uint64_t seed) {
  ring_memory memory(capacity, payload, first, policy);
  gmb_ring_header *ring = memory.header();
  ring->reader_mask = (1u << readers) - 1;
  const bool latest = policy == GMB_FULL_LATEST;
  std::atomic<bool> done{false};
  std::thread producer([&] {
    std::mt19937_64 random(seed);
    team blocks(4);
    outcome told;
    batch records;
    for (uint64_t sent = 0; sent < total && failures == 0;) {
      const uint32_t count = static_cast<uint32_t>(std::min<uint64_t>(1 + random() % most, total - sent));
      records.fill(sent, count);
      /* Now and then the push ends early: what it wrote over is lost, what follows is not. */
      const uint32_t good = random() % 8 == 0 ? static_cast<uint32_t>(random() % count) : count;
      if (good < count) records.lengths[good] = payload + 1;
      const source from = records.of(count);
      const report to = told.next();
      const uint32_t before = told.device.epoch;
      blocks.start(latest ? 1 : 1 + random() % 4, [&](host_block b) {
        if (latest) gmb::ring::push_latest(b, ring, from, to);
        else gmb::ring::push_over(b, ring, from, 1, to);
      });
      const gmb_result result = told.wait(before);
      blocks.finish();
      EXPECT(result.count == good && result.status == (good < count ? GMB_ERROR_BAD_LENGTH : GMB_OK));
      sent += good;
      EXPECT(told.progress >> 24 == ((first + sent) & 0xffffffffffull));
    }
    done = true;
  });
  std::vector<std::thread> consumers;
  for (uint32_t reader = 0; reader < readers; ++reader) {
    consumers.emplace_back([&, reader] {
      std::mt19937_64 random(seed + 1 + reader);
      team blocks(3);
      outcome told;
      room records;
      uint64_t next = 0, got = 0;
      for (bool last = false; !last && failures == 0;) {
        const bool finished = done;
        const uint32_t wanted = 1 + static_cast<uint32_t>(random() % most);
        const sink into = records.of(wanted);
        for (auto &header : records.headers) header.msg_type = 0xdeadbeef;
        const report to = told.next();
        const uint32_t before = told.device.epoch;
        blocks.start(latest ? 1 : 1 + random() % 3, [&](host_block b) {
          if (latest) gmb::ring::pop_latest(b, ring, reader, into, to);
          else gmb::ring::pop_over(b, ring, reader, into, 1, to);
        });
        const gmb_result result = told.wait(before);
        EXPECT(result.status == GMB_OK && result.count <= (latest ? 1 : wanted));
        EXPECT(((result.flags & GMB_RESULT_LOST) != 0) == (result.lost != 0));
        next += result.lost;
        for (uint32_t r = 0; r < result.count; ++r, ++next) EXPECT(records.holds(r, next, first));
        got += result.count;
        blocks.finish();
        /* Whatever the blocks saw, no more rows than the ring holds are written. */
        for (uint64_t r = capacity; r < most; ++r) EXPECT(records.headers[r].msg_type == 0xdeadbeef);
        last = finished && result.count == 0;
      }
      EXPECT(next == total && got > 0);
    });
  }
  producer.join();
  for (auto &consumer : consumers) consumer.join();
  EXPECT(ring->writer.committed == first + total && ring->fault == GMB_OK);
  for (uint32_t reader = 0; reader < readers; ++reader) {
    EXPECT(ring->reader[reader].grant == ~0ull && ring->reader[reader].arrivals == 0 && ring->reader[reader].agreed == 0);
  }
}

/* A slot that something else wrote to is reported, not taken for an overwritten one. */
void corrupt_slot(uint64_t seed) {
  std::mt19937_64 random(seed);
  team blocks(4);
  for (int round = 0; round < 300; ++round) {
    ring_memory memory(128, payload, round % 2 ? 0 : ~0ull - 50, GMB_FULL_OVERWRITE_OLDEST);
    gmb_ring_header *ring = memory.header();
    outcome pushed, popped;
    std::vector<gmb::ring::unit> rows(most * row / 16);
    const source from{reinterpret_cast<unsigned char *>(rows.data()), row, nullptr, nullptr, most, payload, 9,
                      payload, false, 1};
    for (uint32_t pass = 0; pass < 2; ++pass) {
      const report to = pushed.next();
      blocks.start(4, [&](host_block b) { gmb::ring::push_over(b, ring, from, 1, to); });
      EXPECT(pushed.wait(pass).count == most);
      blocks.finish();
    }
    const uint64_t oldest = 2 * most - 128, broken = random() % 90;
    const gmb::ring::geometry at(ring);
    at.slot(ring->initial_index + oldest + broken)->lo ^= 1ull << (random() % 64);
    const sink into{reinterpret_cast<unsigned char *>(rows.data()), row, nullptr, most};
    const report back = popped.next();
    blocks.start(3, [&](host_block b) { gmb::ring::pop_over(b, ring, 0, into, 1, back); });
    const gmb_result result = popped.wait(0);
    blocks.finish();
    EXPECT(result.status == GMB_ERROR_CORRUPT && result.count == broken && result.lost == oldest);
  }
}

}  // namespace

int main(int argc, char **argv) {
  suite s(argc, argv);
  const uint64_t edge = 0ull - s.total / 2;
  s.test("overtaken readers from index 0", [&] { overtaking(GMB_FULL_OVERWRITE_OLDEST, 64, 0, s.total, 2, s.seed); });
  s.test("overtaken readers across 2^64", [&] { overtaking(GMB_FULL_OVERWRITE_OLDEST, 32, edge, s.total, 3, s.seed + 9); });
  s.test("a ring of one slot", [&] { overtaking(GMB_FULL_OVERWRITE_OLDEST, 1, 7, s.total / 4, 1, s.seed + 18); });
  s.test("the latest record", [&] { overtaking(GMB_FULL_LATEST, 64, 0, s.total, 2, s.seed + 27); });
  s.test("the latest of two slots across 2^64", [&] { overtaking(GMB_FULL_LATEST, 2, edge, s.total, 3, s.seed + 36); });
  s.test("corrupt slots end a pop there", [&] { corrupt_slot(s.seed + 45); });
  return s.finish();
}
