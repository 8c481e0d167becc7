/* What the tests of shared mode share: a ring made by hand, records that say which they are, and many producers and
 * consumers, whose history is checked. */
#ifndef GMB_TESTS_PROTOCOL_SHARED_H
#define GMB_TESTS_PROTOCOL_SHARED_H

#include "../history/check.h"
#include "fixture.h"

#include <gpumailbox/shared_bulk.cuh>

#include <optional>

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
    h->mode = GMB_MODE_SHARED;
    h->writer.credits = capacity;
  }
  shared_ring ring() const { return shared_ring(memory_.header()); }

 private:
  ring_memory memory_;
};

uint64_t number_of(uint32_t producer, uint64_t n) { return static_cast<uint64_t>(producer) << 40 | n; }

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

/* How one producer, or consumer, does its operations: with `count` records at most; how many moved, and the index of the
 * first. A consumer's records tell their indices themselves. */
struct party {
  virtual ~party() = default;
  virtual claim push(const source &from, int32_t &status) = 0;
  virtual uint32_t pop(uint32_t reader, const sink &into, int32_t &status) = 0;
};

/* As device code does. */
struct one_of_a_kernel : party {
  shared_ring ring;
  explicit one_of_a_kernel(const shared_ring &at) : ring(at) {}
  claim push(const source &from, int32_t &status) override { return gmb::ring::push_shared(me, ring, from, status); }
  uint32_t pop(uint32_t reader, const sink &into, int32_t &status) override {
    return gmb::ring::pop_shared(me, ring, reader, into, status);
  }
};

/* As the CPU does it: a launch of several blocks, waited for. */
struct launcher : party {
  shared_ring ring;
  uint32_t blocks;
  team threads;
  gmb::ring::meeting meeting{};
  outcome told;
  launcher(const shared_ring &at, uint32_t size) : ring(at), blocks(size), threads(size) {}
  gmb_result run(const std::function<void(const host_block &, const report &)> &body) {
    report to = told.next();
    to.host_progress = nullptr;
    threads.start(blocks, [&](host_block block) { body(block, to); });
    threads.finish();
    const gmb_result result = told.device;
    if (meeting.arrived != 0 || meeting.finished != 0 || meeting.told != 0 || meeting.last != 0) ++failures;
    return result;
  }
  /* Which ones they became nobody tells: the history finds them by their numbers. */
  claim push(const source &from, int32_t &status) override {
    const gmb_result result = run([&](const host_block &block, const report &to) {
      gmb::ring::push_bulk(block, ring, from, false, 1, &meeting, to);
    });
    status = result.status;
    return {0, result.count};
  }
  uint32_t pop(uint32_t reader, const sink &into, int32_t &status) override {
    const gmb_result result = run([&](const host_block &block, const report &to) {
      gmb::ring::pop_bulk(block, ring, reader, into, 1, &meeting, to);
    });
    status = result.status;
    return result.count;
  }
};

/* Operations that moved something and whose history was checked. */
std::atomic<uint64_t> operations{0};

/* What a test of many is made of. */
struct crowd {
  uint64_t capacity, first;
  uint32_t producers, consumers, readers; /* consumers of each reader */
  uint32_t launching = 0;                 /* the first so many of the producers, and of the consumers, launch */
  uint32_t blocks = 3;
};

/* All of them at once until `each` producer has pushed so many records; the history of it is checked. */
inline void many(const crowd &all, uint64_t each, uint64_t seed) {
  shared_memory memory(all.capacity, all.first, all.readers);
  const shared_ring ring = memory.ring();
  std::atomic<uint32_t> at_work{all.producers};
  std::atomic<uint64_t> abandoned{0}, clock{0};
  std::vector<std::thread> threads;
  const auto join = [&](uint32_t number) -> std::unique_ptr<party> {
    if (number < all.launching) return std::make_unique<launcher>(ring, all.blocks);
    return std::make_unique<one_of_a_kernel>(ring);
  };
  /* When each record was pushed, by producer and number; where it went is known when it is popped. */
  std::vector<std::vector<history::event>> pushed(all.producers);
  for (uint32_t p = 0; p < all.producers; ++p) {
    threads.emplace_back([&, p] {
      std::mt19937_64 random(seed + p);
      const auto mine = join(p);
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
        const uint64_t start = clock++;
        const uint32_t accepted = mine->push(records.of(count), status).count;
        const uint64_t end = clock++;
        if (accepted > count || status != GMB_OK) ++failures;
        for (uint32_t r = 0; r < accepted; ++r) pushed[p].push_back({start, end, 0, number_of(p, sent + r)});
        if (accepted == 0) std::this_thread::yield();
        sent += accepted;
      }
      --at_work;
    });
  }
  std::vector<std::vector<history::event>> popped(all.readers * all.consumers);
  for (uint32_t c = 0; c < all.readers * all.consumers; ++c) {
    threads.emplace_back([&, c] {
      std::mt19937_64 random(seed + 1000 + c);
      const auto mine = join(c / all.readers);
      const uint32_t reader = c % all.readers;
      room records;
      while (failures == 0) {
        const bool over = at_work == 0;
        int32_t status = -1;
        const uint32_t wanted = 1 + static_cast<uint32_t>(random() % 12);
        const uint64_t start = clock++;
        const uint32_t count = mine->pop(reader, records.of(wanted), status);
        const uint64_t end = clock++;
        if (count > wanted || status != GMB_OK) ++failures;
        for (uint32_t r = 0; r < count && failures == 0; ++r) {
          const auto number = record_at(records, r);
          if (!number) ++failures;
          popped[c].push_back({start, end, records.headers[r].sequence - 1, number.value_or(0)});
        }
        const gmb_ring_side &side = ring.header->reader[reader];
        if (count == 0 && over && gmb::ring::load_acquire(&side.claimed) == gmb::ring::load_acquire(&ring.header->writer.claimed)) break;
        if (count == 0) std::this_thread::yield();
      }
    });
  }
  for (auto &thread : threads) thread.join();
  EXPECT(failures == 0);
  const uint64_t end = all.first + all.producers * each + abandoned;
  const gmb_ring_side &writer = ring.header->writer;
  EXPECT(writer.claimed == end && writer.committed == end && writer.floor == end);
  EXPECT(writer.credits == all.capacity && writer.abandoned == 0);
  /* Where reader 0 found it is where it was pushed to. */
  for (const auto &log : popped) {
    for (const history::event &e : log) {
      const uint32_t p = static_cast<uint32_t>(e.value >> 40);
      const uint64_t n = e.value & ((1ull << 40) - 1);
      EXPECT(p < all.producers && n < pushed[p].size());
      if ((&log - popped.data()) % all.readers == 0) pushed[p][n].index = e.index;
    }
  }
  std::vector<history::log> logs;
  for (const auto &log : pushed) logs.push_back({true, 0, log.data(), log.size()});
  for (uint32_t c = 0; c < popped.size(); ++c) logs.push_back({false, c % all.readers, popped[c].data(), popped[c].size()});
  for (uint32_t r = 0; r < all.readers; ++r) {
    EXPECT(ring.header->reader[r].credits == 0 && ring.header->reader[r].claimed == end);
  }
  for (const auto &log : logs) {
    for (size_t i = 0; i < log.count; ++i) operations += i == 0 || log.events[i].start != log.events[i - 1].start;
  }
  const std::string wrong = history::check(logs, all.first, all.readers, abandoned);
  if (!wrong.empty()) std::printf("%s\n", wrong.c_str());
  EXPECT(wrong.empty());
}

}  // namespace

#endif
