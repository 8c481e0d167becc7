/* What the protocol's tests share: threads that run the blocks of a launch, a ring
 * made by hand, reports, and records that are functions of their number. */
#ifndef GMB_TESTS_PROTOCOL_FIXTURE_H
#define GMB_TESTS_PROTOCOL_FIXTURE_H

#include <gpumailbox/alone.cuh>
#include <gpumailbox/readers.cuh>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <random>
#include <thread>
#include <vector>

using gmb::ring::host_block;
using gmb::ring::report;
using gmb::ring::sink;
using gmb::ring::source;

namespace {

std::atomic<int> failures{0};

#define EXPECT(what)                                                          \
  do {                                                                        \
    if (!(what)) {                                                            \
      std::printf("%s:%d: not true: %s\n", __FILE__, __LINE__, #what);        \
      ++failures;                                                             \
      return;                                                                 \
    }                                                                         \
  } while (0)

/* Threads that run the blocks of one launch at once. */
class team {
 public:
  explicit team(uint32_t most) {
    for (uint32_t i = 0; i < most; ++i) threads_.emplace_back([this, i] { work(i); });
  }
  ~team() {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      closed_ = true;
    }
    changed_.notify_all();
    for (auto &thread : threads_) thread.join();
  }
  void start(uint32_t blocks, std::function<void(host_block)> body) {
    std::lock_guard<std::mutex> lock(mutex_);
    body_ = std::move(body);
    blocks_ = left_ = blocks;
    ++round_;
    changed_.notify_all();
  }
  void finish() {
    std::unique_lock<std::mutex> lock(mutex_);
    done_.wait(lock, [this] { return left_ == 0; });
  }

 private:
  void work(uint32_t index) {
    uint64_t seen = 0;
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      changed_.wait(lock, [&] { return closed_ || (round_ != seen && index < blocks_); });
      if (closed_) return;
      seen = round_;
      const uint32_t blocks = blocks_;
      lock.unlock();
      uint64_t word[gmb::ring::block_words];
      body_(host_block{word, index, blocks});
      lock.lock();
      if (--left_ == 0) done_.notify_all();
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_, done_;
  std::function<void(host_block)> body_;
  uint32_t blocks_ = 0, left_ = 0;
  uint64_t round_ = 0;
  bool closed_ = false;
  std::vector<std::thread> threads_;
};

/* A ring made by hand: the library's own initialization is not trusted here. */
class ring_memory {
 public:
  ring_memory(uint64_t capacity, uint32_t payload, uint64_t first, gmb_full_policy policy = GMB_FULL_REJECT,
              size_t behind = 0) {
    const uint32_t stride = 16 + (payload + 15) / 16 * 16;
    const size_t bytes = (sizeof(gmb_ring_header) + capacity * stride + behind + 127) / 128 * 128;
    memory_.reset(static_cast<unsigned char *>(std::aligned_alloc(128, bytes)));
    std::memset(memory_.get(), 0, bytes);
    gmb_ring_header *h = header();
    h->magic = GMB_MAGIC;
    h->version = GMB_LAYOUT_VERSION;
    h->header_bytes = sizeof *h;
    h->capacity = capacity;
    h->capacity_bytes = capacity * stride;
    h->stride = stride;
    h->payload_bytes = payload;
    h->reader_mask = 1;
    h->full_policy = static_cast<uint32_t>(policy);
    h->initial_index = first;
    reset(&h->writer, first);
    for (auto &side : h->reader) reset(&side, first);
  }
  gmb_ring_header *header() const { return reinterpret_cast<gmb_ring_header *>(memory_.get()); }

 private:
  static void reset(gmb_ring_side *side, uint64_t first) {
    side->claimed = side->committed = side->floor = first;
    side->grant = ~0ull;
  }
  struct freed {
    void operator()(unsigned char *p) const { std::free(p); }
  };
  std::unique_ptr<unsigned char, freed> memory_;
};

/* Where one side's operations report, as the host sees it. */
struct outcome {
  gmb_result device{};
  alignas(32) uint64_t slot[4] = {0, 0, 0, 0};
  alignas(16) uint64_t progress = 0;
  uint32_t operation = 0;

  report next() { return report{&device, slot, &progress, ++operation, 0}; }
  /* Waits for the slot alone, as a host does. */
  gmb_result wait(uint32_t before) {
    const auto word = [&](int i) { return gmb::ring::load_acquire(&slot[i]); };
    uint64_t count = word(0), detail = word(1);
    while (static_cast<uint32_t>(count) == before || detail >> 48 != (count & 0xffff)) {
      std::this_thread::yield();
      count = word(0), detail = word(1);
    }
    gmb_result r{};
    r.epoch = static_cast<uint32_t>(count);
    r.count = static_cast<uint32_t>(count >> 32) & 0x3fffffffu;
    r.status = static_cast<int8_t>(detail >> 40 & 0xff);
    r.lost = detail & gmb::ring::most_lost;
    if (count & gmb::ring::slot_partial) r.flags |= GMB_RESULT_PARTIAL;
    if (r.lost != 0) r.flags |= GMB_RESULT_LOST;
    return r;
  }
};

/* Record n's length, type and bytes, all functions of n. */
uint32_t length_of(uint64_t n, uint32_t payload) {
  return static_cast<uint32_t>((n * 0x9e3779b97f4a7c15ull >> 33) % (payload + 1));
}
uint32_t type_of(uint64_t n) { return static_cast<uint32_t>(n * 2654435761u + 17); }
unsigned char byte_of(uint64_t n, uint32_t i) { return static_cast<unsigned char>((n * 31 + i * 7) ^ (n >> 8)); }

constexpr uint32_t payload = 40, row = 48, most = 96;

/* Rows, lengths and types of records that are functions of their number. */
struct batch {
  std::vector<gmb::ring::unit> rows = std::vector<gmb::ring::unit>(most * row / 16);
  std::vector<uint32_t> lengths = std::vector<uint32_t>(most), types = std::vector<uint32_t>(most);

  void fill(uint64_t first, uint32_t count) {
    for (uint32_t r = 0; r < count; ++r) {
      lengths[r] = length_of(first + r, payload);
      types[r] = type_of(first + r);
      auto *to = reinterpret_cast<unsigned char *>(rows.data()) + r * row;
      for (uint32_t i = 0; i < lengths[r]; ++i) to[i] = byte_of(first + r, i);
    }
  }
  source of(uint32_t count) const {
    return {reinterpret_cast<const unsigned char *>(rows.data()), row, lengths.data(), types.data(), count, 0, 0, payload,
            false, 1};
  }
};

/* Where a pop's records go. */
struct room {
  std::vector<gmb::ring::unit> rows = std::vector<gmb::ring::unit>(most * row / 16);
  std::vector<gmb_record_header> headers = std::vector<gmb_record_header>(most);

  sink of(uint32_t count) { return {reinterpret_cast<unsigned char *>(rows.data()), row, headers.data(), count}; }
  /* Whether what came at place r is record n, when record 0 had the index `first`. */
  bool holds(uint32_t r, uint64_t n, uint64_t first) const {
    const gmb_record_header &h = headers[r];
    const auto *bytes = reinterpret_cast<const unsigned char *>(rows.data()) + r * row;
    bool same = h.sequence == first + n + 1 && h.length == length_of(n, payload) && h.msg_type == type_of(n);
    for (uint32_t i = 0; same && i < h.length; ++i) same = bytes[i] == byte_of(n, i);
    return same;
  }
};

/* Runs tests and counts them; the arguments are a seed and a number of records. */
class suite {
 public:
  suite(int argc, char **argv) {
    const uint64_t now = static_cast<uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count());
    seed = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : now;
    total = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 50000;
    std::setvbuf(stdout, nullptr, _IOLBF, 0);
    std::printf("seed %llu\n", static_cast<unsigned long long>(seed));
  }
  template <class Body> void test(const char *name, Body body) {
    const int before = failures;
    body();
    ++run_;
    failed_ += failures != before;
    std::printf("%s %s\n", failures == before ? "ok  " : "FAIL", name);
  }
  int finish() const {
    std::printf("%d passed, %d failed\n", run_ - failed_, failed_);
    return failed_ != 0;
  }
  uint64_t seed, total;

 private:
  int run_ = 0, failed_ = 0;
};

}  // namespace

#endif
