/* Doorbells and FIFOs made by hand, for doorbell.cpp. The host's side is written here by itself: it writes and reads the words of
 * a slot in any order, as a bus may. */
#ifndef GMB_TESTS_PROTOCOL_DOORBELL_H
#define GMB_TESTS_PROTOCOL_DOORBELL_H

#include "fixture.h"

#include <gpumailbox/worker.cuh>

namespace {

uint64_t mixed(uint64_t n) {
  n = (n ^ n >> 31) * 0xbf58476d1ce4e5b9ull;
  return n ^ n >> 29;
}

/* A ring of slots of so many words, made by hand. */
template <uint32_t words> class slots {
 public:
  slots(uint64_t capacity, uint64_t first) : capacity_(capacity), memory_(capacity * words) {
    /* As if so many had gone through: what lies there has the turn before. */
    for (uint64_t n = first; n < first + capacity; ++n) {
      for (uint32_t w = 0; w < words; ++w) at(n, w) = static_cast<uint64_t>(turn(n) - 1) << 32 | 0xabcd;
    }
  }
  uint64_t *memory() { return memory_.data(); }
  uint64_t &at(uint64_t n, uint32_t word) { return memory_[n % capacity_ * words + word]; }
  uint32_t turn(uint64_t n) const { return static_cast<uint32_t>(n / capacity_ + 1); }
  void store(uint64_t n, uint32_t word, uint32_t bits) {
    __atomic_store_n(&at(n, word), static_cast<uint64_t>(turn(n)) << 32 | bits, __ATOMIC_RELAXED);
  }
  /* In any order, now and then with a pause in between. */
  template <class T> void write(uint64_t n, const T &what, std::mt19937_64 &random) {
    uint32_t bits[words];
    std::memcpy(bits, &what, sizeof bits);
    const uint32_t from = static_cast<uint32_t>(random() % words), step = random() % 2 * 2 + 1;
    for (uint32_t i = 0; i < words; ++i) {
      const uint32_t w = (from + i * step) % words;
      store(n, w, bits[w]);
      if (random() % 64 == 0) std::this_thread::yield();
    }
  }
  /* False while it is not whole; a turn that is neither this one nor the one before fails. */
  template <class T> bool read(uint64_t n, T &into, std::mt19937_64 &random) {
    uint32_t bits[words];
    const uint32_t from = static_cast<uint32_t>(random() % words);
    bool whole = true;
    for (uint32_t i = 0; i < words; ++i) {
      const uint32_t w = (from + i) % words;
      const uint64_t found = __atomic_load_n(&at(n, w), __ATOMIC_ACQUIRE);
      const uint32_t before = turn(n) - 1;
      bits[w] = static_cast<uint32_t>(found);
      if (found >> 32 == before) whole = false;
      else if (found >> 32 != turn(n) && ++failures < 10) std::printf("slot %llu: a word of another turn\n", static_cast<unsigned long long>(n));
    }
    std::memcpy(&into, bits, sizeof bits);
    return whole;
  }

 private:
  uint64_t capacity_;
  std::vector<uint64_t> memory_;
};

gmb_command command_of(uint64_t n) {
  return {static_cast<uint32_t>(mixed(n)), 0, {n, mixed(n + 1), mixed(n + 2)}};
}
gmb_answer answer_to(uint64_t n) {
  return {static_cast<int32_t>(mixed(n) >> 3 & 0xffff), static_cast<uint32_t>(mixed(n + 3)), {mixed(n + 4), n, ~mixed(n + 5)}};
}
template <class T> bool same(const T &a, const T &b) { return std::memcmp(&a, &b, sizeof a) == 0; }

/* The host's side of a doorbell. */
struct bell_memory {
  slots<GMB_COMMAND_WORDS> commands, answers;
  gmb_doorbell_header header{};
  uint64_t capacity, next;

  explicit bell_memory(uint64_t size, uint64_t first = 0) : commands(size, first), answers(size, first), capacity(size), next(first) {
    header.magic = GMB_DOORBELL_MAGIC;
    header.version = GMB_LAYOUT_VERSION;
    header.capacity = static_cast<uint32_t>(size);
    header.commands = commands.memory();
    header.answers = answers.memory();
    header.taken = first;
  }
  uint64_t submit(const gmb_command &what, std::mt19937_64 &random) {
    commands.write(next, what, random);
    return next++;
  }
  void cancel(uint64_t n) { commands.store(n, 1, GMB_COMMAND_CANCELLED); }
};

/* The device's side of a FIFO, and the host's. */
struct fifo_memory {
  slots<GMB_FIFO_WORDS> records;
  gmb_fifo_header header{};
  uint64_t capacity, drained;

  explicit fifo_memory(uint64_t size, uint64_t first = 0) : records(size, first), capacity(size), drained(first) {
    header.magic = GMB_FIFO_MAGIC;
    header.version = GMB_LAYOUT_VERSION;
    header.capacity = static_cast<uint32_t>(size);
    header.records = records.memory();
    header.drained = &drained;
    header.space = size;
    header.known = header.tail = first;
  }
  bool pop(uint64_t n, gmb_fifo_record &into, std::mt19937_64 &random) { return records.read(n, into, random); }
  void tell(uint64_t n) { __atomic_store_n(&drained, n, __ATOMIC_RELEASE); }
};

/* Of a producer, its number of the record, and which one of its push. */
gmb_fifo_record record_of(uint64_t producer, uint64_t n, uint64_t place) {
  gmb_fifo_record made = {{producer << 56 | place << 48 | n, 0}};
  made.word[1] = mixed(made.word[0]);
  return made;
}

}  // namespace

#endif
