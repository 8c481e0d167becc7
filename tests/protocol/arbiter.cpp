// Arbiters on host threads: once things have settled the bits say what is in the mailboxes, and `next` gives what a model gives
// that knows classes and turns only.
#include "shared.h"

#include <gpumailbox/arbiter.cuh>
#include <gpumailbox/device.cuh>

#include <array>
#include <deque>

namespace {

using gmb::device::shared_mailbox;

constexpr uint32_t none = gmb::device::arbiter::none;
constexpr uint32_t sizes[] = {1, 31, 32, 33, 64, 1000, 1024};

/* What an arbiter is given, made by hand; the mailboxes' numbers are those of `focus`. */
struct arbitrated {
  std::vector<bool> focus;
  gmb_arbiter_header header{};
  std::vector<gmb_arbiter_entry> entries;
  uint64_t command = 0, told = 0, beat = 0;

  explicit arbitrated(std::vector<bool> classes) : focus(std::move(classes)), entries(focus.size()) {
    header.magic = GMB_ARBITER_MAGIC;
    header.version = GMB_LAYOUT_VERSION;
    header.count = static_cast<uint32_t>(focus.size());
    uint16_t place = 0;
    for (const bool now : {true, false}) {
      for (uint32_t n = 0; n < header.count; ++n) {
        if (focus[n] != now) continue;
        header.focus += now;
        header.number[place] = static_cast<uint16_t>(n);
        header.place[n] = place++;
      }
    }
  }
  void looks_at(uint32_t number, const uint64_t *published, const uint64_t *claimed) {
    entries[header.place[number]] = {published, claimed};
  }
  gmb_arbiter_args args(uint64_t slice_ns) { return {&header, entries.data(), &command, &told, &beat, slice_ns}; }
  void run(uint64_t slice_ns = 0) {
    uint64_t word[gmb::ring::block_words] = {};
    gmb::ring::arbitrate(host_block{word, 0, 1}, args(slice_ns));
  }
  bool bit(uint32_t place) const { return (gmb::ring::load_relaxed(&header.ready[place / 32]) >> place % 32 & 1) != 0; }
  /* The bits are those of the mailboxes, and there are no others. */
  template <class Has> bool says(const Has &has) const {
    const gmb::device::arbiter asked(const_cast<gmb_arbiter_header *>(&header));
    for (uint32_t place = header.count; place < 1024; ++place) {
      if (bit(place)) return false;
    }
    for (uint32_t n = 0; n < header.count; ++n) {
      if (bit(header.place[n]) != has(n) || asked.is_ready(n) != has(n)) return false;
    }
    return !asked.is_ready(header.count) && !asked.is_ready(none);
  }
};

std::vector<bool> classes_of(uint32_t count, uint32_t focus, std::mt19937_64 &random) {
  std::vector<bool> made(count);
  std::fill_n(made.begin(), focus, true);
  std::shuffle(made.begin(), made.end(), random);
  return made;
}
uint32_t below(uint64_t limit, std::mt19937_64 &random) { return static_cast<uint32_t>(random() % limit); }

/* A turn sees every move of the indices, whatever the bits were before, and tells nothing of mailboxes that it does not have. */
void bits_follow_indices(uint64_t seed) {
  std::mt19937_64 random(seed);
  for (const uint32_t count : sizes) {
    arbitrated all(classes_of(count, below(count + 1, random), random));
    std::vector<std::array<uint64_t, 2>> index(count);
    for (uint32_t n = 0; n < count; ++n) {
      index[n].fill(n % 3 == 0 ? ~0ull - 5 : (1ull << 32) - 3); /* low halves that are the same, and indices that begin anew */
      all.looks_at(n, &index[n][0], &index[n][1]);
    }
    for (int round = 0; round < 60; ++round) {
      for (uint32_t k = below(count + 1, random); k > 0; --k) {
        auto &of = index[below(count, random)];
        if (random() % 2 == 0) of[0] += random() % 3 == 0 ? 1ull << 32 : 1 + random() % 9;
        else of[1] = of[0];
      }
      if (round % 8 == 7) {
        for (uint32_t word = 0; word * 32 < count; ++word) all.header.ready[word] = static_cast<uint32_t>(random());
      }
      all.run();
      EXPECT(all.says([&](uint32_t n) { return index[n][0] != index[n][1]; }));
      EXPECT(all.header.turns == static_cast<uint64_t>(round + 1) && all.beat == 0 && all.told == 0);
    }
  }
}

/* Mailboxes in memory, each reader of each with a number of its own. */
struct boxes {
  uint32_t readers;
  std::vector<std::unique_ptr<shared_memory>> memory;
  arbitrated arbiter;

  boxes(uint32_t count, uint32_t readers_of_each, uint64_t capacity, std::mt19937_64 &random)
      : readers(readers_of_each), arbiter(classes_of(count * readers, below(count * readers + 1, random), random)) {
    for (uint32_t b = 0; b < count; ++b) {
      memory.push_back(std::make_unique<shared_memory>(capacity, b % 2 == 0 ? 0 : ~0u - 9ull, readers));
      const gmb_ring_header *ring = header(b);
      for (uint32_t r = 0; r < readers; ++r) arbiter.looks_at(b * readers + r, &ring->writer.committed, &ring->reader[r].claimed);
    }
  }
  uint32_t count() const { return static_cast<uint32_t>(memory.size()); }
  gmb_ring_header *header(uint32_t b) const { return memory[b]->ring().header; }
  shared_mailbox at(uint32_t b) const { return shared_mailbox(header(b)); }
};

/* One thread pushes, pops and abandons; after each turn the bits are what is there, for each reader. */
void bits_are_what_is_there(uint32_t count, uint32_t readers, uint64_t seed) {
  std::mt19937_64 random(seed);
  boxes all(count, readers, 4, random);
  /* What each reader has still to take: records, and what was abandoned. */
  std::vector<std::deque<bool>> left(count * readers);
  const auto has = [&](uint32_t n) { return !left[n].empty(); };
  batch records;
  room into;
  records.fill(1, 8);
  for (int k = 0; k < 1500; ++k) {
    const uint32_t b = below(count, random), r = below(readers, random), many = 1 + below(5, random);
    if (random() % 2 == 0) {
      const auto reserved = random() % 8 == 0 ? all.at(b).reserve(me, many) : gmb::device::claim{0, 0};
      all.arbiter.run();
      /* What is reserved is not there yet. */
      EXPECT(all.arbiter.says(has));
      all.at(b).abandon(me, reserved);
      const gmb::device::rows_in rows{records.rows.data(), row, many, 0, 0, records.lengths.data(), records.types.data()};
      const uint32_t pushed = all.at(b).try_push(me, rows);
      for (uint32_t n = b * readers; n < (b + 1) * readers; ++n) {
        left[n].insert(left[n].end(), reserved.count, false);
        left[n].insert(left[n].end(), pushed, true);
      }
    } else {
      const uint32_t popped = all.at(b).try_pop(me, gmb::device::rows_out{into.rows.data(), row, many, into.headers.data()}, r);
      auto &mine = left[b * readers + r];
      uint32_t records_taken = 0;
      while (records_taken == 0 && !mine.empty()) {
        for (uint32_t i = 0; i < many && !mine.empty(); ++i) records_taken += mine.front(), mine.pop_front();
      }
      EXPECT(popped == records_taken);
    }
    all.arbiter.run();
    EXPECT(all.arbiter.says(has));
  }
}

/* Producers and consumers at work, who take what they are told of. When they pause the bits come to say what is there, and go on
 * saying so; each record has come once. */
void beside_each_other(uint32_t count, uint32_t producers, uint32_t consumers, uint64_t each, uint64_t seed) {
  std::mt19937_64 dice(seed);
  boxes all(count, 1, 8, dice);
  constexpr int rounds = 6;
  std::atomic<uint64_t> leaves{0};
  std::thread arbiter([&] {
    while (gmb::ring::load_acquire(&all.arbiter.command) == 0) all.arbiter.run(2000000), ++leaves;
  });
  std::vector<std::atomic<uint8_t>> seen(rounds * producers * each);
  uint64_t pushed = 0;
  std::atomic<uint64_t> popped{0};
  for (int round = 0; round < rounds && failures == 0; ++round) {
    /* All but some records are taken before the pause. */
    const uint64_t enough = pushed + producers * each - (round + 1 < rounds ? below(2 * count, dice) : 0);
    std::vector<std::thread> threads;
    for (uint32_t p = 0; p < producers; ++p) {
      threads.emplace_back([&, p] {
        std::mt19937_64 random(seed + 10 * static_cast<uint64_t>(round) + p);
        batch records;
        for (uint64_t i = 0; i < each && failures == 0; ++i) {
          fill(records, 0, (static_cast<uint64_t>(round) * producers + p) * each + i);
          while (!all.at(below(count, random)).try_push(me, records.rows.data(), records.lengths[0], records.types[0])) {
            std::this_thread::yield();
          }
        }
      });
    }
    for (uint32_t c = 0; c < consumers; ++c) {
      threads.emplace_back([&, c] {
        std::mt19937_64 random(seed + 1000 + 10 * static_cast<uint64_t>(round) + c);
        const gmb::device::arbiter ready(&all.arbiter.header);
        room into;
        for (uint32_t last = none; popped < enough && failures == 0;) {
          const uint32_t n = ready.next(me, last);
          if (n == none) std::this_thread::yield();
          if (n >= count && n != none) ++failures;
          /* The last one again, now and then: that there is nothing must be told, too. */
          const uint32_t from = n == none ? last : n;
          if (from >= count) continue;
          last = from;
          const uint32_t got = all.at(from).try_pop(me, gmb::device::rows_out{into.rows.data(), row, 1 + below(3, random), into.headers.data()});
          for (uint32_t r = 0; r < got; ++r) {
            const auto number = record_at(into, r);
            if (!number || *number >= seen.size() || seen[*number]++ != 0) ++failures;
          }
          popped += got;
        }
      });
    }
    for (auto &thread : threads) thread.join();
    pushed += producers * each;
    const auto has = [&](uint32_t b) {
      const gmb_ring_header *ring = all.header(b);
      return gmb::ring::load_acquire(&ring->writer.committed) != gmb::ring::load_acquire(&ring->reader[0].claimed);
    };
    const auto late = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (!all.arbiter.says(has) && std::chrono::steady_clock::now() < late) std::this_thread::yield();
    for (int look = 0; look < 20 && failures == 0; ++look) {
      if (!all.arbiter.says(has)) ++failures, std::printf("round %d: the bits are not what is there\n", round);
      std::this_thread::sleep_for(std::chrono::microseconds(100));
    }
  }
  gmb::ring::store_release(&all.arbiter.command, static_cast<uint64_t>(1));
  arbiter.join();
  EXPECT(failures == 0 && popped == pushed && leaves > 0 && all.arbiter.says([](uint32_t) { return false; }));
  for (const auto &times : seen) EXPECT(times == 1);
}

/* What comes next by classes and turns: of the lists as they were given, with no places and no words. */
uint32_t next_of(const std::vector<bool> &focus, const std::vector<bool> &ready, uint32_t last) {
  for (const bool now : {true, false}) {
    std::vector<uint32_t> line;
    for (uint32_t n = 0; n < focus.size(); ++n) {
      if (focus[n] == now) line.push_back(n);
    }
    const auto was = std::find(line.begin(), line.end(), last);
    if (was != line.end()) std::rotate(line.begin(), was + 1, line.end());
    for (const uint32_t n : line) {
      if (ready[n]) return n;
    }
  }
  return none;
}

void next_is_the_models(uint64_t seed) {
  std::mt19937_64 random(seed);
  for (const uint32_t count : sizes) {
    std::vector<uint32_t> splits = {0, 1, count / 2, count - 1, count, std::min(count, 32u), std::min(count, 33u)};
    for (int k = 0; k < 6; ++k) splits.push_back(below(count + 1, random));
    for (const uint32_t focus : splits) {
      arbitrated all(classes_of(count, focus, random));
      const gmb::device::arbiter asked(&all.header);
      EXPECT(asked.status() == GMB_OK && asked.count() == count);
      for (const uint64_t rare : {1u, 2u, 10u, 300u, 4000u}) {
        /* Bits of places that nobody has are nobody's. */
        for (uint32_t &word : all.header.ready) word = count % 32 == 0 ? 0 : static_cast<uint32_t>(random());
        std::vector<bool> ready(count);
        for (uint32_t n = 0; n < count; ++n) {
          ready[n] = random() % rare == 0;
          uint32_t &word = all.header.ready[all.header.place[n] / 32];
          const uint32_t bit = 1u << all.header.place[n] % 32;
          word = ready[n] ? word | bit : word & ~bit;
        }
        for (const uint32_t last : {none, 0u, count - 1, count, none - 1, below(count, random), below(count, random)}) {
          EXPECT(asked.next(me, last) == next_of(all.focus, ready, last));
        }
        EXPECT(asked.next(me) == next_of(all.focus, ready, none));
        for (uint32_t k = 0, last = none; k < 40; ++k) {
          const uint32_t n = asked.next(me, last);
          EXPECT(n == next_of(all.focus, ready, last));
          last = n;
        }
        for (uint32_t k = 0; k < 20; ++k) {
          const uint32_t n = below(count + 3, random);
          EXPECT(asked.is_ready(n) == (n < count && ready[n]));
        }
      }
    }
  }
}

/* A slice ends by its time or by the command, after a turn at least; it beats meanwhile, and not afterwards. */
void slices(uint64_t seed) {
  std::mt19937_64 random(seed);
  boxes all(40, 1, 4, random);
  arbitrated &arbiter = all.arbiter;
  for (const uint64_t slice_ns : {3000000ull, 0ull, 1ull}) {
    const uint64_t began = gmb::ring::clock_ns(), turns = arbiter.header.turns;
    arbiter.run(slice_ns);
    EXPECT(gmb::ring::clock_ns() - began >= slice_ns && arbiter.header.turns > turns && arbiter.beat == 0);
  }
  unsigned char record[48] = {};
  EXPECT(all.at(3).try_push(me, record, 40));
  gmb::ring::store_release(&arbiter.command, static_cast<uint64_t>(1));
  arbiter.run(~0ull);
  EXPECT(arbiter.says([](uint32_t n) { return n == 3; }) && arbiter.beat == 0);
  gmb::ring::store_release(&arbiter.command, static_cast<uint64_t>(0));
  std::thread stays([&] { arbiter.run(~0ull); });
  /* It says when, and says it again. */
  uint64_t first = 0, now = 0;
  while ((first = gmb::ring::load_acquire(&arbiter.beat)) == 0) std::this_thread::yield();
  while ((now = gmb::ring::load_acquire(&arbiter.beat)) == first) std::this_thread::yield();
  const bool beats = first % 2 == 1 && now % 2 == 1 && now > first;
  EXPECT(all.at(17).try_push(me, record, 40));
  while (!arbiter.bit(arbiter.header.place[17])) std::this_thread::yield();
  gmb::ring::store_release(&arbiter.command, static_cast<uint64_t>(1));
  stays.join();
  EXPECT(beats && arbiter.beat == 0 && arbiter.says([](uint32_t n) { return n == 3 || n == 17; }));
}

/* The warps of a block as a GPU has them, each here a thread: all tell, one hears the host, and all leave. */
void warps(uint32_t count, uint64_t seed) {
  std::mt19937_64 random(seed);
  boxes all(count, 1, 4, random);
  arbitrated &arbiter = all.arbiter;
  const auto run = [&](uint64_t slice_ns, const std::function<void()> &meanwhile) {
    std::vector<std::thread> threads;
    const uint64_t began = gmb::ring::clock_ns();
    for (uint32_t share = 0; share * 32 < count; ++share) {
      threads.emplace_back([&, share] { gmb::ring::watch_some(arbiter.args(slice_ns), share, began, false); });
    }
    meanwhile();
    for (auto &thread : threads) thread.join();
  };
  unsigned char data[48] = {};
  gmb_record_header header;
  std::vector<bool> has(count);
  run(~0ull, [&] {
    for (int k = 0; k < 60; ++k) {
      const uint32_t n = below(count, random);
      if (!(has[n] ? all.at(n).try_pop(me, data, &header) : all.at(n).try_push(me, data, 40))) ++failures;
      has[n] = !has[n];
      while (arbiter.bit(arbiter.header.place[n]) != has[n] && failures == 0) std::this_thread::yield();
    }
    while (gmb::ring::load_acquire(&arbiter.beat) == 0 || gmb::ring::load_relaxed(&arbiter.header.turns) == 0) std::this_thread::yield();
    gmb::ring::store_release(&arbiter.command, static_cast<uint64_t>(1));
  });
  EXPECT(failures == 0 && arbiter.told == 1 && arbiter.beat % 2 == 1);
  EXPECT(arbiter.says([&](uint32_t n) { return has[n]; }));
  arbiter.command = arbiter.told = 0;
  const uint64_t began = gmb::ring::clock_ns();
  run(2000000, [] {});
  EXPECT(gmb::ring::clock_ns() - began >= 2000000 && arbiter.told == 0 && arbiter.says([&](uint32_t n) { return has[n]; }));
}

void what_is_no_arbiter_is_told() {
  arbitrated all({true, false});
  all.header.ready[0] = 3;
  EXPECT(gmb::device::arbiter(&all.header).next(me) == 0);
  const auto refuses = [&](int32_t status) {
    const gmb::device::arbiter asked(&all.header);
    return asked.status() == status && asked.count() == 0 && asked.next(me) == none && asked.next(me, 1) == none && !asked.is_ready(0);
  };
  all.header.version = GMB_LAYOUT_VERSION + 1;
  EXPECT(refuses(GMB_ERROR_BAD_VERSION));
  all.header.magic = GMB_MAGIC;
  EXPECT(refuses(GMB_ERROR_BAD_MAGIC));
}

}  // namespace

int main(int argc, char **argv) {
  suite tests(argc, argv);
  const uint64_t each = std::max<uint64_t>(50, tests.total / 20);
  tests.test("bits follow the indices", [&] { bits_follow_indices(tests.seed); });
  tests.test("bits are what is there", [&] { bits_are_what_is_there(33, 1, tests.seed); });
  tests.test("bits of three readers", [&] { bits_are_what_is_there(20, 3, tests.seed + 1); });
  tests.test("a producer and a consumer", [&] { beside_each_other(3, 1, 1, each, tests.seed); });
  tests.test("three producers, three consumers", [&] { beside_each_other(70, 3, 3, each, tests.seed + 1); });
  tests.test("what is next is the model's", [&] { next_is_the_models(tests.seed); });
  tests.test("slices, and the word that stops", [&] { slices(tests.seed); });
  tests.test("warps of a block", [&] { warps(65, tests.seed); });
  tests.test("what is no arbiter is told", what_is_no_arbiter_is_told);
  return tests.finish();
}
