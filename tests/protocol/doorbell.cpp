// Doorbells, FIFOs, and workers with a doorbell, on host threads. Every command is taken once and whole, in its order, and has its
// own answer; every record comes once and whole, those of a producer in their order.
#include "doorbell.h"

#include <deque>

namespace {

using gmb::ring::one_thread;

constexpr one_thread me;

/* One group takes, several answer in whatever order, the host submits into slots that it has the answer of. */
void many_commands(uint64_t capacity, uint64_t first, uint32_t answering, uint64_t each, uint64_t seed, bool cancels) {
  bell_memory bell(capacity, first);
  struct mutex_queue {
    std::mutex mutex;
    std::deque<uint64_t> tickets;
  } taken;
  std::atomic<bool> over{false};
  std::atomic<uint64_t> seen{0};
  std::vector<std::atomic<uint8_t>> cancelled(each);
  std::vector<std::thread> threads;
  threads.emplace_back([&] {
    gmb::device::doorbell side(&bell.header);
    uint64_t expected = first;
    for (gmb::device::command got; !over;) {
      if (!side.try_take(me, got)) {
        if (side.status() != GMB_OK) ++failures;
        std::this_thread::yield();
        continue;
      }
      /* Cancelled ones are left out, and no others. */
      for (; expected != got.ticket && failures == 0; ++expected) {
        if (expected > got.ticket || !cancelled[expected - first]) ++failures;
      }
      ++expected;
      gmb_command wanted = command_of(got.ticket);
      if (!same(got.what, wanted)) ++failures;
      if (side.is_cancelled(got.ticket) && !cancelled[got.ticket - first]) ++failures;
      ++seen;
      std::lock_guard<std::mutex> lock(taken.mutex);
      taken.tickets.push_back(got.ticket);
    }
  });
  for (uint32_t t = 0; t < answering; ++t) {
    threads.emplace_back([&, t] {
      const gmb::device::doorbell side(&bell.header);
      std::mt19937_64 random(seed + 10 + t);
      while (!over) {
        uint64_t ticket;
        {
          std::lock_guard<std::mutex> lock(taken.mutex);
          if (taken.tickets.empty()) ticket = ~0ull;
          else {
            const size_t which = random() % taken.tickets.size();
            ticket = taken.tickets[which];
            taken.tickets.erase(taken.tickets.begin() + static_cast<long>(which));
          }
        }
        if (ticket == ~0ull) std::this_thread::yield();
        else side.answer(me, ticket, answer_to(ticket));
      }
    });
  }
  std::mt19937_64 random(seed);
  std::vector<uint64_t> out;
  uint64_t answered = 0, refused = 0;
  while (answered < each && failures == 0) {
    /* The slot of the next one is free when the answer to the one a round before was collected. */
    const bool free = std::none_of(out.begin(), out.end(), [&](uint64_t n) { return n + capacity <= bell.next; });
    if (free && bell.next - first < each) {
      out.push_back(bell.submit(command_of(bell.next), random));
      if (cancels && random() % 4 == 0) {
        cancelled[out.back() - first] = 1;
        if (random() % 2 == 0) std::this_thread::yield();
        bell.cancel(out.back());
      }
      if (random() % 2 == 0) continue;
    }
    if (out.empty()) continue;
    const size_t which = random() % out.size();
    gmb_answer got;
    if (!bell.answers.read(out[which], got, random)) {
      std::this_thread::yield();
      continue;
    }
    const uint64_t n = out[which];
    const gmb_answer never = {GMB_ERROR_CANCELLED, 0, {0, 0, 0}};
    if (same(got, never) && cancelled[n - first]) ++refused;
    else if (!same(got, answer_to(n))) ++failures;
    out.erase(out.begin() + static_cast<long>(which));
    ++answered;
  }
  over = true;
  for (auto &thread : threads) thread.join();
  EXPECT(failures == 0 && answered == each && seen + refused == each && bell.header.taken == first + each);
  EXPECT(cancels ? refused > 0 : refused == 0);
}

void what_was_cancelled() {
  std::mt19937_64 random(1);
  bell_memory bell(8, 5);
  gmb::device::doorbell side(&bell.header);
  gmb::device::command got{};
  gmb_answer told;
  for (uint64_t n = 5; n < 10; ++n) EXPECT(bell.submit(command_of(n), random) == n);
  for (const uint64_t n : {5, 6, 9}) bell.cancel(n);
  EXPECT(side.try_take(me, got) && got.ticket == 7 && same(got.what, command_of(7)) && !side.is_cancelled(7));
  for (const uint64_t n : {5, 6}) EXPECT(bell.answers.read(n, told, random) && told.status == GMB_ERROR_CANCELLED);
  EXPECT(!bell.answers.read(9, told, random));
  /* Too late for the one that was taken, which may look. */
  bell.cancel(7);
  EXPECT(side.is_cancelled(7) && !side.is_cancelled(8));
  side.answer(me, 7, answer_to(7));
  EXPECT(bell.answers.read(7, told, random) && same(told, answer_to(7)));
  EXPECT(side.try_take(me, got) && got.ticket == 8);
  /* The last one is answered by a look that finds nothing else. */
  EXPECT(!side.try_take(me, got) && bell.answers.read(9, told, random) && told.status == GMB_ERROR_CANCELLED);
  EXPECT(bell.header.taken == 10);
  /* Another one, which takes from where the first was. */
  bell.submit(command_of(10), random);
  gmb::device::doorbell later(&bell.header);
  EXPECT(later.try_take(me, got) && got.ticket == 10 && same(got.what, command_of(10)));
}

/* A word of a turn that cannot be; a slot that is not whole is no such thing. */
void spoilt_commands(uint64_t first) {
  std::mt19937_64 random(2);
  for (uint32_t word = 0; word < GMB_COMMAND_WORDS; ++word) {
    for (const uint32_t turns : {1u, 2u, 0x80000000u, static_cast<uint32_t>(-2), static_cast<uint32_t>(-3)}) {
      bell_memory bell(2, first);
      gmb::device::doorbell side(&bell.header);
      gmb::device::command got{};
      gmb_answer told;
      bell.submit(command_of(first), random);
      EXPECT(side.try_take(me, got) && got.ticket == first);
      bell.submit(command_of(first + 1), random);
      uint64_t &spoilt = bell.commands.at(first + 1, word);
      const uint64_t before = spoilt;
      /* One word is still to come. */
      spoilt = static_cast<uint64_t>(static_cast<uint32_t>(before >> 32) - 1) << 32 | 99;
      EXPECT(!side.try_take(me, got) && side.status() == GMB_OK);
      spoilt = before + (static_cast<uint64_t>(turns) << 32);
      EXPECT(!side.try_take(me, got) && side.status() == GMB_ERROR_CORRUPT);
      EXPECT(bell.header.taken == first + 1);
      /* What was taken before is answered, and nothing more is taken. */
      side.answer(me, first, answer_to(first));
      EXPECT(bell.answers.read(first, told, random) && same(told, answer_to(first)));
      spoilt = before;
      EXPECT(!side.try_take(me, got) && side.status() == GMB_ERROR_CORRUPT);
      EXPECT(!bell.answers.read(first + 1, told, random));
    }
  }
}

void many_records(uint64_t capacity, uint64_t first, uint32_t producers, uint64_t each, uint64_t seed) {
  fifo_memory memory(capacity, first);
  std::vector<std::thread> threads;
  std::atomic<uint64_t> full{0};
  for (uint32_t p = 0; p < producers; ++p) {
    threads.emplace_back([&, p] {
      const gmb::device::fifo fifo(&memory.header);
      std::mt19937_64 random(seed + 1 + p);
      for (uint64_t n = 0; n < each && failures == 0;) {
        const uint32_t count = static_cast<uint32_t>(std::min<uint64_t>(1 + random() % 6, each - n));
        gmb_fifo_record batch[6];
        for (uint32_t i = 0; i < count; ++i) batch[i] = record_of(p, n + i, i);
        const uint32_t pushed = count == 1 ? fifo.try_push(batch[0]) : fifo.try_push(me, batch, count);
        if (pushed > count || pushed > capacity) ++failures;
        if (pushed < count) ++full, std::this_thread::yield();
        n += pushed;
      }
    });
  }
  std::mt19937_64 random(seed);
  std::vector<uint64_t> next(producers);
  uint64_t taken = first, before = 0;
  while (taken < first + producers * each && failures == 0) {
    /* It tells of what it has taken rarely, sometimes after a while. */
    const uint64_t burst = 1 + random() % (2 * capacity);
    for (uint64_t i = 0; i < burst; ++i) {
      gmb_fifo_record got;
      if (!memory.pop(taken, got, random)) break;
      ++taken;
      const uint64_t word = got.word[0], producer = word >> 56, place = word >> 48 & 0xff, n = word & 0xffffffffffffull;
      if (producer >= producers || got.word[1] != mixed(word) || n != next[producer]++) {
        ++failures;
        break;
      }
      /* What was pushed together follows each other. */
      if (place > 0 && before != record_of(producer, n - 1, place - 1).word[0]) ++failures;
      before = word;
    }
    if (random() % 4 == 0) std::this_thread::yield();
    memory.tell(taken);
  }
  if (failures != 0) memory.tell(taken);
  for (auto &thread : threads) thread.join();
  EXPECT(failures == 0 && full > 0);
  gmb_fifo_record none;
  EXPECT(!memory.pop(taken, none, random));
  EXPECT(memory.header.tail == taken && memory.header.space + (memory.drained - memory.header.known) == capacity);
}

void a_full_fifo(uint64_t capacity, uint64_t first) {
  fifo_memory memory(capacity, first);
  const gmb::device::fifo fifo(&memory.header);
  std::vector<gmb_fifo_record> batch(capacity + 3);
  std::mt19937_64 random(4);
  gmb_fifo_record got;
  uint64_t pushed = 0, popped = 0;
  const auto push = [&](uint32_t count) {
    for (uint32_t i = 0; i < count; ++i) batch[i] = record_of(1, pushed + i, 0);
    const uint32_t accepted = fifo.try_push(me, batch.data(), count);
    pushed += accepted;
    return accepted;
  };
  const auto pop = [&] {
    if (!memory.pop(first + popped, got, random) || !same(got, record_of(1, popped, 0))) return false;
    ++popped;
    return true;
  };
  EXPECT(push(0) == 0 && memory.header.tail == first);
  EXPECT(push(static_cast<uint32_t>(capacity) + 3) == capacity && push(1) == 0);
  EXPECT(!fifo.try_push(record_of(1, pushed, 0)));
  EXPECT(!fifo.try_push_each(me, record_of(2, 0, 0), false));
  /* Room is what the host has told of. */
  EXPECT(pop() && push(1) == 0);
  memory.tell(first + popped);
  EXPECT(push(2) == 1 && push(1) == 0);
  while (popped < pushed) EXPECT(pop());
  memory.tell(first + popped);
  /* Some as it is known, and some as it is told. */
  EXPECT(push(1) == 1 && pop());
  memory.tell(first + popped);
  EXPECT(push(static_cast<uint32_t>(capacity) + 1) == capacity && memory.header.known == first + popped);
  while (popped < pushed) EXPECT(pop());
  /* A number that is behind what is known changes nothing. */
  const uint64_t space = memory.header.space, known = memory.header.known;
  memory.tell(first + popped - capacity - 1);
  EXPECT(push(1) == 0 && memory.header.space == space && memory.header.known == known);
}

void what_is_none_is_told() {
  bell_memory bell(2);
  fifo_memory memory(2);
  std::mt19937_64 random(3);
  gmb::device::command got;
  gmb_answer told;
  bell.submit(command_of(0), random);
  bell.header.version = memory.header.version = GMB_LAYOUT_VERSION + 1;
  gmb::device::doorbell later(&bell.header);
  EXPECT(later.status() == GMB_ERROR_BAD_VERSION && !later.try_take(me, got));
  later.answer(me, 0, answer_to(0));
  EXPECT(!bell.answers.read(0, told, random) && bell.header.taken == 0);
  const gmb::device::fifo other(&memory.header);
  EXPECT(other.status() == GMB_ERROR_BAD_VERSION && !other.try_push(record_of(0, 0, 0)));
  bell.header.magic = GMB_FIFO_MAGIC;
  memory.header.magic = GMB_DOORBELL_MAGIC;
  EXPECT(gmb::device::doorbell(&bell.header).status() == GMB_ERROR_BAD_MAGIC);
  EXPECT(gmb::device::fifo(&memory.header).status() == GMB_ERROR_BAD_MAGIC && memory.header.tail == 0);
}

/* ---- Workers ---- */

/* A queue of 4-byte items made by hand. */
class queue_memory {
 public:
  explicit queue_memory(uint64_t capacity) : words_((sizeof(gmb_queue_header) + capacity * 8 + 127) / 8 + 16) {
    at()->magic = GMB_QUEUE_MAGIC;
    at()->version = GMB_LAYOUT_VERSION;
    at()->item_bytes = 4;
    at()->capacity = at()->space = capacity;
  }
  gmb_queue_header *at() { return reinterpret_cast<gmb_queue_header *>((reinterpret_cast<uintptr_t>(words_.data()) + 127) / 128 * 128); }
  gmb::device::work_queue<uint32_t> queue() { return gmb::device::work_queue<uint32_t>(at()); }

 private:
  std::vector<uint64_t> words_;
};

struct shared_state {
  std::atomic<uint64_t> worked{0}, sum{0}, asked{0};
};

/* Counts items, and takes commands beside them. */
struct takes {
  static constexpr uint32_t most_spawned = 0;
  static constexpr bool takes_commands = true;
  template <class Hand> gmb::worker::route operator()(uint32_t &item, Hand &hand) const {
    auto *state = hand.template user<shared_state>();
    ++state->worked;
    item += 1000;
    return gmb::worker::finished;
  }
  template <class Desk> void command(const gmb_command &what, gmb_answer &answer, Desk &desk) const {
    auto *state = desk.template user<shared_state>();
    ++state->asked;
    state->sum += what.argument[0];
    answer.flags = desk.is_cancelled() ? 1 : 0;
    answer.value[0] = mixed(what.argument[0]);
  }
};

struct no_commands {
  static constexpr uint32_t most_spawned = 0;
  template <class Hand> gmb::worker::route operator()(uint32_t &, Hand &) const { return gmb::worker::dropped; }
};

/* Blocks of a worker, the last of them for the doorbell. */
struct crew {
  std::vector<gmb_worker_block> blocks;
  std::vector<uint64_t> beats;
  alignas(8) uint64_t command = 0, told = 0, left = 0;
  gmb_worker_args args{};

  crew(uint32_t workers, gmb_queue_header *active, gmb_queue_header *finished, gmb_doorbell_header *bell)
      : blocks(workers + 1), beats(workers + 1) {
    args.active = active;
    args.finished = finished;
    args.blocks = blocks.data();
    args.command = &command;
    args.told = &told;
    args.left = &left;
    args.beats = beats.data();
    args.doorbell = bell;
    args.slice_ns = ~0ull;
    args.item_bytes = 4;
  }
  /* The kernel comes once; `late` is how long after the others the block of the doorbell does. */
  template <class Functor> void slice(const Functor &functor, uint32_t late = 0) {
    told = left = 0;
    std::fill(beats.begin(), beats.end(), 1);
    std::vector<std::thread> threads;
    for (uint32_t b = 0; b < blocks.size(); ++b) {
      threads.emplace_back([&, b] {
        if (late != 0 && b + 1 == blocks.size()) std::this_thread::sleep_for(std::chrono::microseconds(late));
        uint64_t word[gmb::ring::worker_words] = {};
        gmb::ring::work<uint32_t>(host_block{word, b, static_cast<uint32_t>(blocks.size())}, args, functor);
      });
    }
    for (auto &thread : threads) thread.join();
  }
  bool all_left() const {
    return left == blocks.size() - 1 && std::all_of(beats.begin(), beats.end(), [](uint64_t beat) { return beat == 0; });
  }
};

/* Commands are answered while items are worked, over many slices, until it is stopped; what is left then was not taken. */
void serves_while_others_work(uint32_t workers, uint64_t slice_ns, uint64_t commands, uint64_t seed) {
  bell_memory bell(4);
  queue_memory active(1024), finished(1024);
  shared_state state;
  crew all(workers, active.at(), finished.at(), &bell.header);
  all.args.user = &state;
  all.args.slice_ns = slice_ns;
  uint64_t answered = 0, own = 0, sum = 0, slices = 0, sent = 0, left = 0;
  std::atomic<bool> over{false};
  std::thread host([&] {
    std::mt19937_64 random(seed);
    std::deque<std::pair<uint64_t, gmb_command>> out;
    while ((answered < commands || sent < 500) && failures == 0) {
      if (sent < 500 && active.queue().try_push(static_cast<uint32_t>(sent))) ++sent;
      if (answered >= commands) continue;
      if (out.size() < 4 && random() % 2 == 0) {
        const uint32_t codes[] = {GMB_COMMAND_PING, GMB_COMMAND_COUNTS, GMB_COMMAND_USER, GMB_COMMAND_USER + 7, 3};
        const gmb_command what = {codes[random() % 5], 0, {random(), random(), random()}};
        if (what.code >= GMB_COMMAND_USER) ++own, sum += what.argument[0];
        out.push_back({bell.submit(what, random), what});
        continue;
      }
      gmb_answer got;
      if (out.empty() || !bell.answers.read(out.front().first, got, random)) {
        std::this_thread::yield();
        continue;
      }
      const gmb_command what = out.front().second;
      gmb_answer wanted = {GMB_OK, 0, {0, 0, 0}};
      if (what.code == GMB_COMMAND_PING) std::memcpy(wanted.value, what.argument, sizeof wanted.value);
      if (what.code == 3) wanted.status = GMB_ERROR_NOT_SUPPORTED;
      if (what.code >= GMB_COMMAND_USER) wanted.value[0] = mixed(what.argument[0]);
      if (what.code == GMB_COMMAND_COUNTS) {
        if (got.value[0] > sent || got.value[1] != got.value[0] || got.value[2] != 0) ++failures;
        wanted = got;
      }
      if (!same(got, wanted)) ++failures;
      out.pop_front();
      ++answered;
    }
    gmb::ring::store_release(&all.command, static_cast<uint64_t>(1));
    /* Some that may come too late. */
    for (; out.size() < 4; ++left) out.push_back({bell.submit({GMB_COMMAND_PING, 0, {1, 2, 3}}, random), {}});
    left = out.size();
    over = true;
  });
  do {
    all.slice(takes());
    ++slices;
    if (!all.all_left()) ++failures;
  } while (!over && failures == 0);
  host.join();
  EXPECT(failures == 0 && answered == commands);
  /* Whatever was taken was answered, whatever was not is still there. */
  std::mt19937_64 random(seed);
  gmb_answer got;
  uint64_t known = 0;
  for (uint64_t n = bell.next - left; n < bell.next; ++n) {
    const bool there = bell.answers.read(n, got, random);
    EXPECT(there == (n < bell.header.taken));
    known += there;
  }
  EXPECT(bell.header.taken == bell.next - left + known);
  EXPECT(active.queue().size() + finished.queue().size() == 500 && state.worked == finished.queue().size());
  EXPECT(slice_ns == ~0ull || slices > 2);
  EXPECT(all.blocks[workers].processed == 0 && all.blocks[workers].iterations == 0);
  /* One more, with nothing to stop it: the rest is answered, and it ends when the others have nothing to do. */
  all.command = 0;
  all.args.slice_ns = ~0ull;
  all.args.idle_threshold = 100000;
  for (int i = 0; i == 0 || (i < 100 && (bell.header.taken < bell.next || active.queue().size() > 0)); ++i) {
    for (auto &block : all.blocks) block.reason = GMB_WORKER_RUNNING, block.idle = 0;
    all.slice(takes());
    EXPECT(all.all_left() && all.blocks[0].reason == GMB_WORKER_IDLE && all.blocks[workers].reason == GMB_WORKER_RUNNING);
  }
  EXPECT(bell.header.taken == bell.next && bell.answers.read(bell.next - 1, got, random));
  EXPECT(state.asked == own && state.sum == sum);
  EXPECT(active.queue().size() == 0 && finished.queue().size() == 500);
  std::vector<uint32_t> items(500);
  EXPECT(finished.queue().try_push(0) && finished.queue().try_pop(me, items.data(), 500) == 500);
  std::sort(items.begin(), items.end());
  for (uint32_t i = 0; i < 500; ++i) EXPECT(items[i] == i + 1000);
}

/* However short a slice is, and however late the block comes that serves: it looks for commands. */
void the_shortest_slices(uint32_t late) {
  bell_memory bell(2);
  queue_memory active(8);
  std::mt19937_64 random(5);
  gmb_answer got;
  crew all(1, active.at(), nullptr, &bell.header);
  all.args.slice_ns = 1;
  bell.submit({GMB_COMMAND_PING, 0, {7, 8, 9}}, random);
  for (int i = 0; i < 20; ++i) all.slice(no_commands(), late);
  EXPECT(bell.answers.read(0, got, random) && got.status == GMB_OK && got.value[0] == 7);
}

/* Answers when its block was last seen. */
struct tells_of_beats : no_commands {
  static constexpr bool takes_commands = true;
  template <class Desk> void command(const gmb_command &, gmb_answer &answer, Desk &desk) const {
    answer.value[0] = gmb::ring::load_system(desk.template user<uint64_t>());
  }
};

/* Who waits for the block that serves knows that it is here, however long its first command takes. */
void a_beat_before_the_first_command() {
  bell_memory bell(2);
  queue_memory active(8);
  std::mt19937_64 random(8);
  gmb_answer got;
  crew all(1, active.at(), nullptr, &bell.header);
  all.args.user = &all.beats[1];
  all.args.slice_ns = 1;
  bell.submit({GMB_COMMAND_USER, 0, {0, 0, 0}}, random);
  all.slice(tells_of_beats());
  EXPECT(bell.answers.read(0, got, random) && got.status == GMB_OK && got.value[0] > 1);
}

/* A functor that takes none says so, and codes that the library may use one day are not the user's. */
void commands_that_nobody_takes() {
  bell_memory bell(8);
  queue_memory active(8);
  std::mt19937_64 random(6);
  gmb_answer got;
  crew all(1, active.at(), nullptr, &bell.header);
  const uint32_t codes[] = {0, 3, GMB_COMMAND_USER - 1, GMB_COMMAND_USER, ~0u};
  for (const uint32_t code : codes) bell.submit({code, 0, {1, 2, 3}}, random);
  all.args.slice_ns = 20000000;
  all.slice(no_commands());
  const gmb_answer refused = {GMB_ERROR_NOT_SUPPORTED, 0, {0, 0, 0}};
  for (uint64_t n = 0; n < 5; ++n) EXPECT(bell.answers.read(n, got, random) && same(got, refused));
}

/* A doorbell that was spoilt ends the worker; all items are in a queue. */
void a_spoilt_doorbell(bool is_none) {
  bell_memory bell(2);
  queue_memory active(64), finished(64);
  std::mt19937_64 random(7);
  shared_state state;
  crew all(3, active.at(), finished.at(), &bell.header);
  all.args.user = &state;
  for (uint32_t i = 0; i < 50; ++i) EXPECT(active.queue().try_push(i));
  bell.submit(command_of(0), random);
  if (is_none) bell.header.magic = 1;
  else bell.commands.at(0, 3) = 77ull << 32;
  all.slice(takes());
  EXPECT(all.all_left() && all.told == 1 && all.blocks[3].reason == GMB_WORKER_SPOILT_DOORBELL);
  EXPECT(all.blocks[0].reason == GMB_WORKER_RUNNING && bell.header.taken == 0 && state.asked == 0);
  EXPECT(active.queue().size() + finished.queue().size() == 50);
}

}  // namespace

int main(int argc, char **argv) {
  suite tests(argc, argv);
  const uint64_t each = tests.total / 4, across = (1ull << 32) - 500;
  tests.test("commands through one slot", [&] { many_commands(1, 0, 2, each, tests.seed, false); });
  tests.test("commands through two slots, turns across 2^32",
             [&] { many_commands(2, across * 2, 3, each, tests.seed + 1, false); });
  tests.test("commands through 16 slots, some cancelled", [&] { many_commands(16, 40, 4, each, tests.seed + 2, true); });
  tests.test("commands through one slot, some cancelled, turns across 2^32",
             [&] { many_commands(1, across, 1, each, tests.seed + 3, true); });
  tests.test("what was cancelled", what_was_cancelled);
  tests.test("spoilt commands", [&] { spoilt_commands(0); });
  tests.test("spoilt commands in later turns", [&] { spoilt_commands((1ull << 33) - 4); });
  tests.test("records through one slot", [&] { many_records(1, 0, 3, each / 2, tests.seed + 4); });
  tests.test("records through two slots, turns across 2^32", [&] { many_records(2, across * 2, 4, each / 2, tests.seed + 5); });
  tests.test("records through 16 slots", [&] { many_records(16, 0, 4, each, tests.seed + 6); });
  for (const uint64_t capacity : {1, 2, 16}) {
    tests.test("a full FIFO", [&] { a_full_fifo(capacity, 0); });
    tests.test("a full FIFO, turns across 2^32", [&] { a_full_fifo(capacity, ((1ull << 32) - 2) * capacity + capacity / 2); });
  }
  tests.test("what is none is told", what_is_none_is_told);
  tests.test("a worker serves a doorbell", [&] { serves_while_others_work(1, ~0ull, 600, tests.seed + 7); });
  tests.test("a worker serves over many slices", [&] { serves_while_others_work(3, 100000, 600, tests.seed + 8); });
  tests.test("the shortest slices", [&] { the_shortest_slices(0); });
  tests.test("a block that comes late", [&] { the_shortest_slices(300); });
  tests.test("a beat before the first command", a_beat_before_the_first_command);
  tests.test("commands that nobody takes", commands_that_nobody_takes);
  tests.test("a spoilt doorbell", [&] { a_spoilt_doorbell(false); });
  tests.test("no doorbell", [&] { a_spoilt_doorbell(true); });
  return tests.finish();
}
