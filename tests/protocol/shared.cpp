// Shared mode, on host threads: any number of producers and consumers at once. Every record reaches every reader once and
// whole, those of a producer in their order; what succeeds is linearizable; nobody waits for anybody.
#include "shared.h"

#include <set>

namespace {

/* One operation that succeeded: when it was called and when it returned, by one clock. */
struct operation {
  bool push;
  uint64_t value, start, end;
};

/* Whether the operations have an order that a queue could have done them in, one after the other, in which none comes
 * before one that had returned when it was called (Wing and Gong, "Testing and verifying concurrent objects", 1993). */
bool linearizable(const std::vector<operation> &history, uint32_t done, std::vector<uint64_t> &queue,
                  std::set<std::pair<uint32_t, std::vector<uint64_t>>> &failed) {
  if (done + 1 == 1u << history.size()) return true;
  if (failed.count({done, queue})) return false;
  uint64_t soonest = ~0ull;
  for (size_t i = 0; i < history.size(); ++i) {
    if (!(done >> i & 1)) soonest = std::min(soonest, history[i].end);
  }
  for (size_t i = 0; i < history.size(); ++i) {
    const operation &next = history[i];
    if (done >> i & 1 || next.start > soonest) continue;
    std::vector<uint64_t> then = queue;
    if (next.push) then.push_back(next.value);
    else if (then.empty() || then.front() != next.value) continue;
    else then.erase(then.begin());
    if (linearizable(history, done | 1u << i, then, failed)) return true;
  }
  failed.insert({done, queue});
  return false;
}

/* Few operations at once, over and over: what succeeded must have been possible one after the other. */
void small_histories(uint64_t rounds, uint64_t seed) {
  constexpr uint32_t threads = 4, each = 4;
  team together(threads);
  std::mt19937_64 random(seed);
  for (uint64_t done = 0; done < rounds && failures == 0; ++done) {
    const uint64_t capacity = 1ull << random() % 3;
    shared_memory memory(capacity, random(), 1);
    const shared_ring ring = memory.ring();
    std::atomic<uint64_t> clock{0};
    std::atomic<uint32_t> ready{0};
    std::vector<operation> saw[threads];
    const uint64_t dice = random();
    together.start(threads, [&](host_block block) {
      const uint32_t t = block.block();
      batch from;
      room into;
      ++ready;
      while (ready < threads) std::this_thread::yield();
      for (uint32_t k = 0; k < each; ++k) {
        const bool push = dice >> (t * each + k) & 1;
        const uint64_t value = t * each + k + 1;
        int32_t status = -1;
        if (push) fill(from, 0, value);
        const uint64_t start = clock++;
        const uint32_t count = push ? gmb::ring::push_shared(me, ring, from.of(1), status).count
                                    : gmb::ring::pop_shared(me, ring, 0, into.of(1), status);
        const uint64_t end = clock++;
        if (count == 1) saw[t].push_back({push, push ? value : record_at(into, 0).value_or(0), start, end});
      }
    });
    together.finish();
    /* Whoever was last has moved the limits over what all did. */
    const gmb_ring_side &writer = ring.header->writer, &reader = ring.header->reader[0];
    EXPECT(writer.committed == writer.claimed && writer.floor == reader.claimed);
    EXPECT(writer.credits == capacity - (writer.claimed - writer.floor) && reader.credits == writer.committed - reader.claimed);
    std::vector<operation> history;
    for (const auto &one : saw) history.insert(history.end(), one.begin(), one.end());
    std::vector<uint64_t> queue;
    std::set<std::pair<uint32_t, std::vector<uint64_t>>> failed;
    EXPECT(linearizable(history, 0, queue, failed));
  }
}

/* The checker itself: a history that no queue can have, and the same one with its order turned round. */
void the_checker_can_say_no() {
  const auto say = [](std::vector<operation> history) {
    std::vector<uint64_t> queue;
    std::set<std::pair<uint32_t, std::vector<uint64_t>>> failed;
    return linearizable(history, 0, queue, failed);
  };
  EXPECT(!say({{true, 1, 0, 1}, {true, 2, 2, 3}, {false, 2, 4, 5}, {false, 1, 6, 7}}));
  EXPECT(say({{true, 1, 0, 1}, {true, 2, 2, 3}, {false, 1, 4, 5}, {false, 2, 6, 7}}));
  EXPECT(say({{true, 1, 0, 3}, {true, 2, 1, 2}, {false, 2, 4, 5}, {false, 1, 6, 7}}));
  EXPECT(!say({{false, 1, 0, 1}, {true, 1, 2, 3}}));
  EXPECT(!say({{true, 1, 0, 1}, {false, 1, 2, 3}, {false, 1, 4, 5}}));
}

/* Slots that were reserved hold back what comes after them, and nobody waits for them. */
void a_reserved_slot_stops_nobody() {
  constexpr uint64_t capacity = 8;
  shared_memory memory(capacity, 100, 2);
  const shared_ring ring = memory.ring();
  batch from;
  room into;
  int32_t status = -1;
  for (uint32_t r = 0; r < 10; ++r) fill(from, r, r);
  const auto pop = [&](uint32_t reader, uint32_t wanted) { return gmb::ring::pop_shared(me, ring, reader, into.of(wanted), status); };
  EXPECT(gmb::ring::push_shared(me, ring, from.of(2), status).count == 2);
  const claim held = gmb::ring::reserve(me, ring, 3);
  EXPECT(held.first == 102 && held.count == 3);
  EXPECT(gmb::ring::push_shared(me, ring, from.of(10), status).count == 3 && status == GMB_OK);
  EXPECT(gmb::ring::push_shared(me, ring, from.of(1), status).count == 0 && status == GMB_OK);
  EXPECT(pop(0, 8) == 2 && pop(0, 8) == 0);
  /* The other reader has not released them. */
  EXPECT(gmb::ring::push_shared(me, ring, from.of(1), status).count == 0);
  EXPECT(pop(1, 1) == 1 && record_at(into, 0) == 0u && into.headers[0].sequence == 101);
  EXPECT(gmb::ring::push_shared(me, ring, from.of(10), status).count == 1);
  gmb::ring::abandon(me, ring, held);
  EXPECT(pop(0, 8) == 4 && into.headers[0].sequence == 106 && into.headers[3].sequence == 109);
  EXPECT(pop(1, 2) == 1 && into.headers[0].sequence == 102);
  EXPECT(pop(1, 8) == 4 && into.headers[0].sequence == 106 && pop(1, 8) == 0);
  EXPECT(ring.header->writer.credits == capacity && ring.header->writer.floor == 109);
}

/* A length that is too long ends the push before it; a slot that somebody wrote to is left out, and freed. */
void what_is_wrong_is_said() {
  shared_memory memory(8, 0, 1);
  const shared_ring ring = memory.ring();
  batch from;
  room into;
  int32_t status = -1;
  for (uint32_t r = 0; r < 4; ++r) fill(from, r, r);
  from.lengths[2] = payload + 1;
  EXPECT(gmb::ring::push_shared(me, ring, from.of(4), status).count == 2 && status == GMB_ERROR_BAD_LENGTH);
  from.lengths[0] = payload + 1;
  EXPECT(gmb::ring::push_shared(me, ring, from.of(4), status).count == 0 && status == GMB_ERROR_BAD_LENGTH);
  ring.at.slot(0)->hi = payload + 1;
  EXPECT(gmb::ring::pop_shared(me, ring, 0, into.of(4), status) == 1 && status == GMB_ERROR_CORRUPT);
  EXPECT(record_at(into, 0) == 1u);
  EXPECT(ring.header->writer.credits == 8);
}

/* Without a reader records are accepted, and gone. */
void nobody_reads() {
  shared_memory memory(4, 0, 0);
  const shared_ring ring = memory.ring();
  batch from;
  int32_t status = -1;
  for (uint32_t r = 0; r < 4; ++r) fill(from, r, r);
  for (int round = 0; round < 5; ++round) EXPECT(gmb::ring::push_shared(me, ring, from.of(3), status).count == 3);
}

/* A launch takes what fits, beside what kernels do, and leaves out what was abandoned. */
void launches_and_kernels_together() {
  shared_memory memory(16, ~0ull - 9, 2);
  const shared_ring ring = memory.ring();
  launcher host(ring, 3);
  batch from;
  room into;
  int32_t status = -1;
  for (uint32_t r = 0; r < 20; ++r) fill(from, r, r);
  EXPECT(host.push(from.of(3), status).count == 3 && status == GMB_OK);
  gmb::ring::abandon(me, ring, gmb::ring::reserve(me, ring, 1));
  EXPECT(gmb::ring::push_shared(me, ring, from.of(2), status).count == 2);
  gmb::ring::abandon(me, ring, gmb::ring::reserve(me, ring, 2));
  EXPECT(host.push(from.of(20), status).count == 8 && status == GMB_OK);
  EXPECT(host.push(from.of(1), status).count == 0 && status == GMB_OK);
  EXPECT(ring.header->writer.abandoned == 3 && ring.header->writer.refused == 13 && ring.header->writer.high_water == 16);
  EXPECT(host.pop(0, into.of(9), status) == 6 && status == GMB_OK);
  const uint64_t numbers[] = {0, 1, 2, 0, 1, 0};
  for (uint32_t r = 0; r < 6; ++r) EXPECT(record_at(into, r) == numbers[r]);
  EXPECT(into.headers[3].sequence == ~0ull - 9 + 5 && into.headers[5].sequence == ~0ull - 9 + 9);
  EXPECT(host.pop(1, into.of(20), status) == 13 && ring.header->writer.abandoned == 0);
  EXPECT(ring.header->writer.credits == 9);
  EXPECT(host.pop(0, into.of(20), status) == 7 && ring.header->writer.credits == 16);
  EXPECT(host.pop(0, into.of(20), status) == 0 && status == GMB_OK && ring.header->reader[0].empty == 1);
  /* All or none, and room that was taken before. */
  source whole = from.of(20);
  whole.whole = true;
  const auto credit = [&](uint32_t count) {
    return host.run([&](const host_block &block, const report &to) { gmb::ring::credit_bulk(block, ring, count, false, to); });
  };
  const auto credited = [&](const source &records) {
    return host.run([&](const host_block &block, const report &to) {
      gmb::ring::push_bulk(block, ring, records, true, 1, &host.meeting, to);
    });
  };
  EXPECT(credit(17).count == 0 && credit(10).count == 10 && credit(7).count == 0);
  EXPECT(host.push(from.of(20), status).count == 6);
  whole.count = 10;
  EXPECT(credited(whole).count == 10 && ring.header->writer.credits == 0);
  EXPECT(host.pop(0, into.of(20), status) == 16 && host.pop(1, into.of(20), status) == 16);
  /* A bad length ends it: nothing of a whole push is there, and its room is free again. */
  from.lengths[2] = payload + 1;
  EXPECT(credit(10).count == 10);
  const gmb_result bad = credited(whole);
  EXPECT(bad.count == 0 && bad.status == GMB_ERROR_BAD_LENGTH && ring.header->writer.credits == 16);
  EXPECT(host.push(from.of(4), status).count == 2 && status == GMB_ERROR_BAD_LENGTH);
  /* A slot that somebody wrote to ends the pop; what comes after it is gone. */
  ring.at.slot(ring.header->writer.claimed - 2)->hi = payload + 1;
  EXPECT(host.pop(0, into.of(4), status) == 0 && status == GMB_ERROR_CORRUPT);
  EXPECT(gmb::ring::pop_shared(me, ring, 1, into.of(4), status) == 1 && ring.header->writer.credits == 16);
  /* A ring in the other mode, or none at all, is left alone. */
  ring.header->mode = GMB_MODE_ORDERED;
  EXPECT(host.push(from.of(1), status).count == 0 && status == GMB_ERROR_WRONG_MODE);
  ring.header->magic = 0;
  EXPECT(host.pop(0, into.of(1), status) == 0 && status == GMB_ERROR_BAD_MAGIC);
}

/* Who moves a limit goes on over what was done meanwhile: nobody else may come past there. */
void a_limit_moves_on_over_what_comes_meanwhile() {
  uint64_t limit = 0;
  uint32_t looks = 0;
  std::vector<uint64_t> moves;
  /* Slot 1 is done just after it was looked at; then slot 2 is, too. */
  const auto done = [&](uint64_t index) { return index == 0 || (index == 1 && ++looks > 1) || (index == 2 && looks > 1); };
  gmb::ring::move_limit(me, &limit, claim{0, 0}, done, [&](uint64_t count) { moves.push_back(count); });
  EXPECT(limit == 3 && moves == (std::vector<uint64_t>{1, 2}));
}

/* Readers come and go while nothing else runs, and records are borrowed in place. */
void readers_and_borrows() {
  shared_memory memory(8, 1000, 1);
  const shared_ring ring = memory.ring();
  launcher host(ring, 1);
  batch from;
  room into;
  int32_t status = -1;
  for (uint32_t r = 0; r < 8; ++r) fill(from, r, r);
  const auto change = [&](uint32_t reader, gmb::ring::reader_action action) {
    host.run([&](const host_block &block, const report &) { gmb::ring::change_reader_bulk(block, ring, reader, action); });
  };
  EXPECT(host.push(from.of(4), status).count == 4);
  gmb::ring::abandon(me, ring, gmb::ring::reserve(me, ring, 1));
  change(1, gmb::ring::reader_action::add_oldest);
  change(2, gmb::ring::reader_action::add_next);
  EXPECT(ring.header->reader_mask == 7);
  EXPECT(host.pop(0, into.of(8), status) == 4 && host.pop(2, into.of(8), status) == 0);
  EXPECT(ring.header->writer.credits == 3 && ring.header->writer.abandoned == 1);
  gmb_spans spans{};
  gmb::ring::held entry{};
  const auto borrow = [&](uint32_t reader, uint32_t count) {
    return host.run([&](const host_block &block, const report &to) {
      gmb::ring::borrow_bulk(block, ring, reader, count, &entry, &spans, to);
    });
  };
  const auto release = [&] {
    host.run([&](const host_block &block, const report &) { gmb::ring::release_bulk(block, ring, &entry); });
  };
  EXPECT(borrow(1, 3).count == 3 && spans.first == 1000 && spans.count[0] + spans.count[1] == 3);
  EXPECT(std::memcmp(spans.records[0], from.rows.data(), from.lengths[0]) == 0 && ring.header->writer.credits == 3);
  release();
  EXPECT(ring.header->writer.credits == 6);
  /* What it has not read takes no space any more, the one that was abandoned neither. */
  change(1, gmb::ring::reader_action::remove);
  EXPECT(ring.header->writer.credits == 8 && ring.header->writer.abandoned == 0 && ring.header->reader_mask == 5);
  EXPECT(host.push(from.of(8), status).count == 8);
  EXPECT(host.pop(0, into.of(8), status) == 8 && host.pop(2, into.of(3), status) == 3 && record_at(into, 2) == 2u);
  EXPECT(borrow(2, 8).count == 5 && spans.first == 1008 && borrow(2, 8).count == 0);
}

}  // namespace

int main(int argc, char **argv) {
  suite tests(argc, argv);
  const uint64_t each = tests.total / 8;
  tests.test("the history checker can say no", the_checker_can_say_no);
  tests.test("small histories are linearizable", [&] { small_histories(tests.total / 10, tests.seed); });
  tests.test("two producers, two consumers, a slot", [&] { many({1, 0, 2, 2, 1}, each, tests.seed + 1); });
  tests.test("four producers, four consumers", [&] { many({16, 0, 4, 4, 1}, each, tests.seed + 2); });
  tests.test("three readers with two consumers each", [&] { many({8, 0, 2, 2, 3}, each, tests.seed + 3); });
  tests.test("across index 2^32", [&] { many({4, (1ull << 32) - 1000, 3, 2, 1}, each, tests.seed + 4); });
  tests.test("across index 2^64", [&] { many({64, ~0ull - 1000, 2, 2, 2}, each, tests.seed + 5); });
  tests.test("the first record has index 2^64 - 1", [&] { many({2, ~0ull, 2, 2, 1}, each, tests.seed + 6); });
  tests.test("launches beside kernels", [&] { many({32, ~0ull - 1000, 3, 3, 1, 2}, each / 4, tests.seed + 7); });
  tests.test("launches beside kernels, two readers", [&] { many({8, 5, 3, 2, 2, 1}, each / 4, tests.seed + 8); });
  std::printf("%llu operations checked\n", static_cast<unsigned long long>(operations.load()));
  tests.test("launches and kernels together", launches_and_kernels_together);
  tests.test("readers come and go, and borrow", readers_and_borrows);
  tests.test("a slot that is reserved stops nobody", a_reserved_slot_stops_nobody);
  tests.test("what is wrong is said", what_is_wrong_is_said);
  tests.test("nobody reads", nobody_reads);
  tests.test("a limit moves on over what comes meanwhile", a_limit_moves_on_over_what_comes_meanwhile);
  return tests.finish();
}
