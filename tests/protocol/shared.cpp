// Shared mode, on host threads: any number of producers and consumers at once. Every record reaches every reader once and
// whole, those of a producer in their order; what succeeds is linearizable; nobody waits for anybody.
#include "fixture.h"

#include <gpumailbox/shared.cuh>

#include <optional>
#include <set>

namespace {

using gmb::ring::claim;
using gmb::ring::one_thread;
using gmb::ring::shared_ring;

constexpr one_thread me;

/* A ring made by hand, as the library must make one. */
class shared_memory {
 public:
  shared_memory(uint64_t capacity, uint64_t first, uint32_t readers)
      : memory_(capacity, payload, first, GMB_FULL_REJECT, capacity * sizeof(uint64_t)) {
    gmb_ring_header *h = memory_.header();
    h->reader_mask = (1u << readers) - 1;
    h->writer.credits = capacity;
    /* No slot may look as if its first record were there: one of index -1 has the sequence 0. */
    shared_ring ring(h);
    for (uint64_t i = first; i - first < capacity; ++i) *ring.sequence(i) = i + 1 - capacity;
  }
  shared_ring ring() const { return shared_ring(memory_.header()); }

 private:
  ring_memory memory_;
};

uint64_t number_of(uint32_t producer, uint64_t n) { return static_cast<uint64_t>(producer) << 40 | n; }

/* What a consumer saw, in its order. */
struct seen {
  uint32_t reader;
  std::vector<uint64_t> indices, numbers;
};

/* Which record lies at place r of a room: its number stands in its first bytes, the rest follows from that. */
std::optional<uint64_t> record_at(const room &from, uint32_t r) {
  const auto *bytes = reinterpret_cast<const unsigned char *>(from.rows.data()) + r * row;
  const gmb_record_header &h = from.headers[r];
  uint64_t n;
  std::memcpy(&n, bytes, sizeof n);
  bool same = h.length == 8 + length_of(n, payload - 8) && h.msg_type == type_of(n);
  for (uint32_t i = 8; same && i < h.length; ++i) same = bytes[i] == byte_of(n, i);
  return same ? std::optional<uint64_t>(n) : std::nullopt;
}

void fill(batch &records, uint32_t r, uint64_t n) {
  auto *bytes = reinterpret_cast<unsigned char *>(records.rows.data()) + r * row;
  records.lengths[r] = 8 + length_of(n, payload - 8);
  records.types[r] = type_of(n);
  std::memcpy(bytes, &n, sizeof n);
  for (uint32_t i = 8; i < records.lengths[r]; ++i) bytes[i] = byte_of(n, i);
}

void many(uint64_t capacity, uint64_t first, uint32_t producers, uint32_t consumers, uint32_t readers, uint64_t each,
          uint64_t seed) {
  shared_memory memory(capacity, first, readers);
  const shared_ring ring = memory.ring();
  std::atomic<uint32_t> at_work{producers};
  std::atomic<uint64_t> abandoned{0};
  std::vector<std::thread> threads;
  for (uint32_t p = 0; p < producers; ++p) {
    threads.emplace_back([&, p] {
      std::mt19937_64 random(seed + p);
      batch records;
      for (uint64_t sent = 0; sent < each && failures == 0;) {
        if (random() % 16 == 0) {
          const claim slots = gmb::ring::reserve(me, ring, 1 + static_cast<uint32_t>(random() % 3));
          GMB_CHAOS_POINT(15);
          gmb::ring::abandon(me, ring, slots);
          abandoned += slots.count;
        }
        const uint32_t count = static_cast<uint32_t>(std::min<uint64_t>(1 + random() % 12, each - sent));
        for (uint32_t r = 0; r < count; ++r) fill(records, r, number_of(p, sent + r));
        int32_t status = -1;
        const uint32_t accepted = gmb::ring::push_shared(me, ring, records.of(count), status).count;
        if (accepted > count || status != GMB_OK) ++failures;
        if (accepted == 0) std::this_thread::yield();
        sent += accepted;
      }
      --at_work;
    });
  }
  std::vector<seen> saw(readers * consumers);
  for (uint32_t c = 0; c < readers * consumers; ++c) {
    saw[c].reader = c % readers;
    threads.emplace_back([&, c] {
      std::mt19937_64 random(seed + 1000 + c);
      room records;
      seen &mine = saw[c];
      while (failures == 0) {
        const bool over = at_work == 0;
        int32_t status = -1;
        const uint32_t wanted = 1 + static_cast<uint32_t>(random() % 12);
        const uint32_t count = gmb::ring::pop_shared(me, ring, mine.reader, records.of(wanted), status);
        if (count > wanted || status != GMB_OK) ++failures;
        for (uint32_t r = 0; r < count && failures == 0; ++r) {
          const auto number = record_at(records, r);
          if (!number) ++failures;
          mine.numbers.push_back(number.value_or(0));
          mine.indices.push_back(records.headers[r].sequence - 1);
        }
        const gmb_ring_side &side = ring.header->reader[mine.reader];
        if (count == 0 && over && gmb::ring::load_acquire(&side.claimed) == gmb::ring::load_acquire(&ring.header->writer.claimed)) break;
        if (count == 0) std::this_thread::yield();
      }
    });
  }
  for (auto &thread : threads) thread.join();
  EXPECT(failures == 0);
  const uint64_t end = first + producers * each + abandoned;
  EXPECT(ring.header->writer.claimed == end && ring.header->writer.committed == end && ring.header->writer.floor == end);
  EXPECT(ring.header->writer.credits == capacity);
  for (uint32_t reader = 0; reader < readers; ++reader) {
    EXPECT(ring.header->reader[reader].credits == 0 && ring.header->reader[reader].claimed == end);
    /* By index: every record once, those of a producer in their order. */
    std::vector<std::pair<uint64_t, uint64_t>> all;
    for (const seen &one : saw) {
      if (one.reader != reader) continue;
      for (size_t i = 0; i < one.indices.size(); ++i) {
        EXPECT(i == 0 || one.indices[i] - first > one.indices[i - 1] - first);
        all.emplace_back(one.indices[i] - first, one.numbers[i]);
      }
    }
    std::sort(all.begin(), all.end());
    EXPECT(all.size() == producers * each);
    std::vector<uint64_t> next(producers);
    for (size_t i = 0; i < all.size(); ++i) {
      EXPECT(i == 0 || all[i].first != all[i - 1].first);
      const uint32_t p = static_cast<uint32_t>(all[i].second >> 40);
      EXPECT(p < producers && all[i].second == number_of(p, next[p]));
      ++next[p];
    }
  }
}

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

}  // namespace

int main(int argc, char **argv) {
  suite tests(argc, argv);
  const uint64_t each = tests.total / 8;
  tests.test("the history checker can say no", the_checker_can_say_no);
  tests.test("small histories are linearizable", [&] { small_histories(tests.total / 10, tests.seed); });
  tests.test("two producers, two consumers, a slot", [&] { many(1, 0, 2, 2, 1, each, tests.seed + 1); });
  tests.test("four producers, four consumers", [&] { many(16, 0, 4, 4, 1, each, tests.seed + 2); });
  tests.test("three readers with two consumers each", [&] { many(8, 0, 2, 2, 3, each, tests.seed + 3); });
  tests.test("across index 2^32", [&] { many(4, (1ull << 32) - 1000, 3, 2, 1, each, tests.seed + 4); });
  tests.test("across index 2^64", [&] { many(64, ~0ull - 1000, 2, 2, 2, each, tests.seed + 5); });
  tests.test("the first record has index 2^64 - 1", [&] { many(2, ~0ull, 2, 2, 1, each, tests.seed + 6); });
  tests.test("a slot that is reserved stops nobody", a_reserved_slot_stops_nobody);
  tests.test("what is wrong is said", what_is_wrong_is_said);
  tests.test("nobody reads", nobody_reads);
  return tests.finish();
}
