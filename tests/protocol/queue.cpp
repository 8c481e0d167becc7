// Work queues and the loop of workers, on host threads: every item comes once and whole, in its order; what succeeds is
// linearizable; a worker that leaves, for whatever reason, leaves every item in a queue.
#include "../history/check.h"
#include "fixture.h"

#include <gpumailbox/worker.cuh>

namespace {

using gmb::ring::claim;
using gmb::ring::item_ring;
using gmb::ring::one_thread;
using gmb::ring::unit;

constexpr one_thread me;

/* A queue made by hand, as the library must make one. */
template <class T> class queue_memory {
 public:
  explicit queue_memory(uint64_t capacity, uint64_t first = 0) {
    const size_t bytes = (sizeof(gmb_queue_header) + capacity * 2 * sizeof(T) + 127) / 128 * 128;
    memory_.reset(static_cast<unsigned char *>(std::aligned_alloc(128, bytes)));
    std::memset(memory_.get(), 0, bytes);
    gmb_queue_header *h = at();
    h->magic = GMB_QUEUE_MAGIC;
    h->version = GMB_LAYOUT_VERSION;
    h->item_bytes = sizeof(T);
    h->capacity = capacity;
    h->space = capacity;
    h->tail = h->head = first;
    /* As if so many tickets had been taken: slots are free for the round that comes. */
    const item_ring<T> ring(h);
    for (uint64_t t = first; t < first + capacity; ++t) set_turn(ring.slot(t), ring.free_turn(t));
  }
  gmb_queue_header *at() const { return reinterpret_cast<gmb_queue_header *>(memory_.get()); }
  gmb::device::work_queue<T> queue() const { return gmb::device::work_queue<T>(at()); }
  bool is_empty(uint64_t moved) const {
    return at()->tail == moved && at()->head == moved && at()->items == 0 && at()->space == at()->capacity;
  }

 private:
  static void set_turn(gmb::ring::narrow_part *part, uint32_t turn) { part->word = static_cast<uint64_t>(turn) << 32; }
  static void set_turn(gmb::ring::wide_part *part, uint32_t turn) {
    for (uint32_t p = 0; p < gmb::ring::item_parts<T>::count; ++p) part[p].both.hi = turn;
  }
  struct freed {
    void operator()(unsigned char *p) const { std::free(p); }
  };
  std::unique_ptr<unsigned char, freed> memory_;
};

/* An item that holds a number, and whether it is whole. */
template <class T> T item_of(uint64_t n) {
  unit made;
  made.lo = n;
  made.hi = n * 0x9e3779b97f4a7c15ull;
  T item;
  std::memcpy(&item, &made, sizeof item);
  return item;
}
template <class T> uint64_t number_in(const T &item) {
  uint64_t n = 0;
  std::memcpy(&n, &item, std::min(sizeof n, sizeof item));
  return n;
}
template <class T> bool is_whole(const T &item) {
  const T wanted = item_of<T>(number_in(item));
  return std::memcmp(&item, &wanted, sizeof item) == 0;
}

/* All operations of one thread do what a list does. */
template <class T> void as_a_list_does(uint64_t first, uint64_t seed) {
  for (const uint64_t capacity : {1, 2, 8, 64}) {
    queue_memory<T> memory(capacity, first);
    const auto queue = memory.queue();
    EXPECT(queue.status() == GMB_OK && queue.capacity() == capacity);
    std::vector<uint64_t> list;
    std::mt19937_64 random(seed);
    uint64_t next = 1;
    for (int k = 0; k < 3000; ++k) {
      const uint32_t count = static_cast<uint32_t>(random() % (capacity + 3));
      std::vector<T> items(count + 1);
      if (random() % 2 == 0) {
        for (uint32_t i = 0; i < count; ++i) items[i] = item_of<T>(next + i);
        const uint32_t pushed = count == 1 ? queue.try_push(items[0]) : queue.try_push(me, items.data(), count);
        EXPECT(pushed == std::min<uint64_t>(count, capacity - list.size()));
        for (uint32_t i = 0; i < pushed; ++i) list.push_back(next++);
      } else {
        const uint32_t popped = count == 1 ? queue.try_pop(items[0]) : queue.try_pop(me, items.data(), count);
        EXPECT(popped == std::min<uint64_t>(count, list.size()));
        for (uint32_t i = 0; i < popped; ++i) EXPECT(is_whole(items[i]) && number_in(items[i]) == number_in(item_of<T>(list[i])));
        list.erase(list.begin(), list.begin() + popped);
      }
      EXPECT(queue.size() == list.size());
    }
    T none = item_of<T>(7);
    EXPECT(!queue.try_push_each(me, none, false) && !queue.try_pop_each(me, none, false) && number_in(none) == 7);
  }
}

/* Many at once; the tickets tell the order, which is checked. */
template <class T> void many(uint64_t capacity, uint64_t first, uint32_t producers, uint32_t consumers, uint64_t each, uint64_t seed) {
  queue_memory<T> memory(capacity, first);
  const item_ring<T> ring(memory.at());
  gmb_queue_header *queue = memory.at();
  std::atomic<uint64_t> clock{0}, popped{0};
  std::vector<std::vector<history::event>> events(producers + consumers);
  std::vector<std::thread> threads;
  const auto party = [&](uint32_t number, bool pushes) {
    std::mt19937_64 random(seed + number);
    std::vector<T> items(8);
    for (uint64_t done = 0; failures == 0 && (pushes ? done < each : popped < producers * each);) {
      const uint32_t count = static_cast<uint32_t>(pushes ? std::min<uint64_t>(1 + random() % 8, each - done) : 1 + random() % 8);
      for (uint32_t i = 0; pushes && i < count; ++i) items[i] = item_of<T>(number << 24 | (done + i));
      const uint64_t start = clock++;
      const claim mine = pushes ? gmb::ring::take_claim(&queue->space, &queue->tail, count)
                                : gmb::ring::take_claim(&queue->items, &queue->head, count);
      if (pushes) gmb::ring::put_items(me, ring, mine, items.data());
      else gmb::ring::get_items(me, ring, mine, items.data());
      if (mine.count > 0) gmb::ring::add_relaxed(pushes ? &queue->items : &queue->space, static_cast<uint64_t>(mine.count));
      const uint64_t end = clock++;
      for (uint32_t i = 0; i < mine.count; ++i) {
        if (!is_whole(items[i])) ++failures;
        events[number].push_back({start, end, mine.first + i, number_in(items[i])});
      }
      if (!pushes) popped += mine.count;
      done += mine.count;
      if (mine.count == 0) std::this_thread::yield();
    }
  };
  for (uint32_t n = 0; n < producers + consumers; ++n) threads.emplace_back([&, n] { party(n, n < producers); });
  for (auto &thread : threads) thread.join();
  EXPECT(failures == 0 && memory.is_empty(first + producers * each));
  std::vector<history::log> logs;
  for (uint32_t n = 0; n < events.size(); ++n) logs.push_back({n < producers, 0, events[n].data(), events[n].size()});
  const std::string wrong = history::check(logs, first, 1, 0);
  if (!wrong.empty()) std::printf("%s\n", wrong.c_str());
  EXPECT(wrong.empty());
}

/* What an item refers to is seen by who pops it. */
void what_items_refer_to(uint64_t each) {
  queue_memory<uint32_t> memory(16);
  std::vector<uint64_t> cells(each);
  std::thread producer([&] {
    const auto queue = memory.queue();
    for (uint32_t i = 0; i < each; ++i) {
      cells[i] = i * 3 + 1;
      while (!queue.try_push(i)) std::this_thread::yield();
    }
  });
  const auto queue = memory.queue();
  bool good = true;
  for (uint32_t i = 0; i < each;) {
    uint32_t item = 0;
    if (!queue.try_pop(item)) std::this_thread::yield();
    else good = good && item == i && cells[item] == item * 3 + 1, ++i;
  }
  producer.join();
  EXPECT(good);
}

/* Several blocks of a launch keep the order of the items, and stop at the first that does not fit. */
template <class T> void launches(uint64_t seed) {
  queue_memory<T> memory(256);
  std::mt19937_64 random(seed);
  team blocks(4);
  gmb::ring::meeting meeting{};
  outcome told;
  std::vector<uint64_t> list;
  uint64_t next = 0;
  for (int k = 0; k < 400; ++k) {
    const uint32_t count = 1 + static_cast<uint32_t>(random() % 300), tile = 1 + static_cast<uint32_t>(random() % 40);
    const uint32_t size = 1 + static_cast<uint32_t>(random() % 4);
    std::vector<T> items(count);
    const bool pushes = random() % 2 == 0;
    for (uint32_t i = 0; pushes && i < count; ++i) items[i] = item_of<T>(next + i);
    report to = told.next();
    to.host_progress = nullptr;
    blocks.start(size, [&](host_block block) {
      if (pushes) gmb::ring::push_queue<T>(block, memory.at(), items.data(), count, tile, &meeting, to);
      else gmb::ring::pop_queue<T>(block, memory.at(), items.data(), count, tile, &meeting, to);
    });
    blocks.finish();
    EXPECT(meeting.arrived == 0 && meeting.finished == 0 && meeting.first == 0 && meeting.told == 0);
    const uint64_t wanted = std::min<uint64_t>(count, pushes ? 256 - list.size() : list.size());
    EXPECT(told.device.status == GMB_OK && told.device.count == wanted);
    for (uint32_t i = 0; i < wanted; ++i) {
      if (pushes) list.push_back(next + i);
      else EXPECT(is_whole(items[i]) && number_in(items[i]) == number_in(item_of<T>(list[i])));
    }
    if (pushes) next += wanted;
    else list.erase(list.begin(), list.begin() + static_cast<long>(wanted));
  }
}

void what_is_no_queue_is_told() {
  queue_memory<uint32_t> memory(8);
  EXPECT(gmb::device::work_queue<uint64_t>(memory.at()).status() == GMB_ERROR_WRONG_MODE);
  EXPECT(!gmb::device::work_queue<uint64_t>(memory.at()).try_push(1));
  memory.at()->version = 1;
  EXPECT(memory.queue().status() == GMB_ERROR_BAD_VERSION && !memory.queue().try_push(1));
  memory.at()->magic = GMB_MAGIC;
  EXPECT(memory.queue().status() == GMB_ERROR_BAD_MAGIC);
  EXPECT(memory.at()->tail == 0 && memory.at()->space == 8);
}

/* Collatz: what is even is halved and spawned, what is odd is finished if it is 1 or spawns two; now and then an item goes
 * back. A worker whose outputs are full takes nothing. */
struct split {
  static constexpr uint32_t most_spawned = 2;
  template <class Hand> gmb::worker::route operator()(uint64_t &item, Hand &hand) const {
    auto *seen = hand.template user<std::atomic<uint64_t>>();
    if (hand.ticket() % 7 == 3 && item < 1u << 20) {
      item += 1u << 20;
      return gmb::worker::again;
    }
    item &= (1u << 20) - 1;
    ++*seen;
    if (item == 1) return gmb::worker::finished;
    hand.spawn(item / 2);
    hand.spawn(item - item / 2);
    if (hand.spawn(0)) ++failures; /* a third one is not taken */
    return gmb::worker::dropped;
  }
};

struct crew {
  std::vector<gmb_worker_block> blocks;
  std::vector<uint64_t> beats;
  alignas(8) uint64_t command = 0, told = 0;
  gmb_worker_args args{};

  crew(uint32_t size, gmb_queue_header *active, gmb_queue_header *finished, gmb_queue_header *spawn) : blocks(size), beats(size) {
    args.active = active;
    args.finished = finished;
    args.spawn = spawn;
    args.blocks = blocks.data();
    args.command = &command;
    args.told = &told;
    args.beats = beats.data();
    args.slice_ns = ~0ull;
  }
  template <class T, class Functor> void run(const Functor &functor, uint32_t item_bytes = sizeof(T)) {
    args.item_bytes = item_bytes;
    std::vector<std::thread> threads;
    for (uint32_t b = 0; b < blocks.size(); ++b) {
      threads.emplace_back([&, b] {
        uint64_t word[gmb::ring::worker_words] = {};
        gmb::ring::work<T>(host_block{word, b, static_cast<uint32_t>(blocks.size())}, args, functor);
      });
    }
    for (auto &thread : threads) thread.join();
  }
};

/* Generation after generation, until nothing is left: a number n ends as n ones. */
void workers_split_numbers(uint32_t size, uint64_t seed) {
  queue_memory<uint64_t> first(1024), second(1024), ones(1 << 14);
  std::mt19937_64 random(seed);
  uint64_t sum = 0;
  for (uint32_t i = 0; i < 40; ++i) {
    const uint64_t n = 1 + random() % 60;
    sum += n;
    EXPECT(first.queue().try_push(n));
  }
  std::atomic<uint64_t> seen{0};
  uint64_t processed = 0, returned = 0;
  for (int generation = 0; first.queue().size() > 0; ++generation) {
    EXPECT(generation < 20);
    crew all(size, first.at(), ones.at(), second.at());
    all.args.idle_threshold = 20;
    all.args.user = &seen;
    all.run<uint64_t>(split());
    for (const auto &block : all.blocks) {
      EXPECT(block.reason == GMB_WORKER_IDLE && block.idle >= 20 && block.rejected == 0);
      processed += block.processed;
      returned += block.returned;
    }
    for (const uint64_t beat : all.beats) EXPECT(beat == 0);
    EXPECT(first.queue().size() == 0);
    std::swap(first, second);
  }
  EXPECT(ones.queue().size() == sum && processed == seen && returned > 0);
  EXPECT(first.at()->space == 1024 && second.at()->space == 1024 && ones.at()->space == (1 << 14) - sum);
}

/* Outputs that are nearly full: nothing is taken that has no place to go, and room that is not used is given back. */
void full_outputs(uint32_t size) {
  queue_memory<uint32_t> active(256), finished(16), spawn(4);
  for (uint32_t i = 0; i < 200; ++i) EXPECT(active.queue().try_push(i));
  std::vector<uint32_t> done;
  for (int round = 0; done.size() < 200; ++round) {
    EXPECT(round < 500);
    crew all(size, active.at(), finished.at(), spawn.at());
    all.args.max_iterations = 30;
    all.args.increment = 1000;
    all.args.spawn_interval = 5;
    all.run<uint32_t>(gmb::worker::count_up<uint32_t>());
    uint64_t rejected = 0, moved = 0;
    for (const auto &block : all.blocks) {
      EXPECT(block.reason == GMB_WORKER_ITERATIONS && block.iterations == 30 && block.processed == block.finished + block.spawned);
      rejected += block.rejected;
      moved += block.processed;
    }
    EXPECT(active.queue().size() + finished.queue().size() + spawn.queue().size() + done.size() == 200);
    EXPECT(finished.at()->space + finished.at()->items == 16 && spawn.at()->space + spawn.at()->items == 4);
    EXPECT(round > 0 || (rejected > 0 && moved < 40));
    uint32_t item = 0;
    while (finished.queue().try_pop(item)) done.push_back(item);
    while (spawn.queue().try_pop(item)) done.push_back(item);
  }
  std::sort(done.begin(), done.end());
  for (uint32_t i = 0; i < 200; ++i) EXPECT(done[i] == i + 1000);
}

/* A functor that would not end gives its item back when it must leave. */
struct endless {
  static constexpr uint32_t most_spawned = 0;
  template <class Hand> gmb::worker::route operator()(uint32_t &, Hand &hand) const {
    ++*hand.template user<std::atomic<uint64_t>>();
    while (!hand.must_leave()) std::this_thread::yield();
    return gmb::worker::again;
  }
};

void asked_to_leave() {
  queue_memory<uint32_t> active(8);
  for (uint32_t i = 0; i < 5; ++i) EXPECT(active.queue().try_push(i));
  std::atomic<uint64_t> begun{0};
  crew all(2, active.at(), nullptr, nullptr);
  all.args.user = &begun;
  std::thread stops([&] {
    while (begun < 2) std::this_thread::yield();
    gmb::ring::store_release(&all.command, static_cast<uint64_t>(1));
  });
  all.run<uint32_t>(endless());
  stops.join();
  EXPECT(all.told == 1);
  EXPECT(active.queue().size() == 5 && active.at()->space == 3);
  EXPECT(all.blocks[0].reason == GMB_WORKER_RUNNING && all.blocks[0].returned + all.blocks[1].returned == 2);
  /* Over at once, a slice has one turn; the next one goes on counting. */
  all.command = all.told = 0;
  all.args.slice_ns = 0;
  begun = 0;
  all.run<uint32_t>(endless());
  EXPECT(begun == 2 && active.queue().size() == 5 && all.blocks[0].iterations == 2 && all.blocks[1].iterations == 2);
  /* A functor for items of another size touches none. */
  all.run<uint32_t>(endless(), 8);
  EXPECT(all.blocks[0].reason == GMB_WORKER_WRONG_ITEMS && begun == 2 && active.queue().size() == 5 && active.at()->head == 4);
}

/* A functor that may spawn more than there is ever room for is not begun with. */
struct many_at_once {
  static constexpr uint32_t most_spawned = 4;
  template <class Hand> gmb::worker::route operator()(uint32_t &, Hand &) const { return gmb::worker::dropped; }
};

void what_a_worker_cannot_do() {
  queue_memory<uint32_t> active(8), small(2), enough(4), full(2);
  EXPECT(active.queue().try_push(1));
  crew all(1, active.at(), nullptr, small.at());
  all.args.idle_threshold = 3;
  all.run<uint32_t>(many_at_once());
  EXPECT(all.blocks[0].reason == GMB_WORKER_SMALL_SPAWN && active.queue().size() == 1 && small.at()->space == 2);
  crew more(1, active.at(), nullptr, enough.at());
  more.args.idle_threshold = 3;
  more.run<uint32_t>(many_at_once());
  EXPECT(more.blocks[0].reason == GMB_WORKER_IDLE && more.blocks[0].processed == 1 && enough.at()->space == 4);
  /* To find no room for an item is not to find nothing to do. */
  for (uint32_t i = 0; i < 2; ++i) EXPECT(full.queue().try_push(i) && active.queue().try_push(i));
  crew waits(1, active.at(), full.at(), nullptr);
  waits.args.idle_threshold = 3;
  waits.args.max_iterations = 10;
  waits.blocks[0].idle = 2;
  waits.run<uint32_t>(gmb::worker::count_up<uint32_t>());
  EXPECT(waits.blocks[0].reason == GMB_WORKER_ITERATIONS && waits.blocks[0].rejected == 10 && waits.blocks[0].idle == 0);
}

}  // namespace

int main(int argc, char **argv) {
  suite tests(argc, argv);
  const uint64_t each = tests.total / 4;
  tests.test("items of 4 bytes do as a list", [&] { as_a_list_does<uint32_t>(0, tests.seed); });
  tests.test("items of 8 bytes do as a list, across turn 2^32", [&] { as_a_list_does<uint64_t>((1ull << 31) - 1000, tests.seed); });
  tests.test("items of 16 bytes do as a list", [&] { as_a_list_does<unit>(64, tests.seed); });
  tests.test("two producers, two consumers, a slot", [&] { many<uint32_t>(1, 0, 2, 2, each, tests.seed + 1); });
  tests.test("four producers, four consumers", [&] { many<uint64_t>(16, 0, 4, 4, each, tests.seed + 2); });
  tests.test("wide items", [&] { many<unit>(4, 0, 3, 2, each, tests.seed + 3); });
  tests.test("turns across 2^32", [&] { many<uint32_t>(2, (1ull << 32) - 2000, 2, 3, each, tests.seed + 4); });
  tests.test("what items refer to is seen", [&] { what_items_refer_to(each); });
  tests.test("launches keep the order", [&] { launches<uint32_t>(tests.seed); });
  tests.test("launches of wide items", [&] { launches<unit>(tests.seed + 1); });
  tests.test("what is no queue is told", what_is_no_queue_is_told);
  tests.test("a worker splits numbers", [&] { workers_split_numbers(1, tests.seed); });
  tests.test("workers split numbers", [&] { workers_split_numbers(4, tests.seed); });
  tests.test("full outputs", [&] { full_outputs(1); });
  tests.test("full outputs of three blocks", [&] { full_outputs(3); });
  tests.test("asked to leave", asked_to_leave);
  tests.test("what a worker cannot do", what_a_worker_cannot_do);
  return tests.finish();
}
