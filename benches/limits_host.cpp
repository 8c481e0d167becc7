// What this machine's processor can do: the limits that figures of the host backend stand beside. No library code.
//   c++ -O3 -std=c++17 -pthread benches/limits_host.cpp -o limits_host
#include "report.h"

#include <condition_variable>
#include <cstring>
#include <exception>
#include <mutex>
#include <thread>

namespace {

using bench::failure;
using bench::samples;

// One copy between the same two buffers again and again, as a mailbox uses its ring again: what the caches keep of
// the last one, they keep. --pairs N takes turns over N pairs of buffers instead.
samples copies(const bench::report &out, size_t bytes) {
  const int pairs = static_cast<int>(out.chosen().pairs);
  std::vector<std::vector<unsigned char>> sources(pairs, std::vector<unsigned char>(bytes, 1)), targets = sources;
  return out.repeat(2 * pairs, 50, [&](int run) {
    auto &from = sources[(run + 2 * pairs) % pairs], &to = targets[(run + 2 * pairs) % pairs];
    from[bytes / 2] = static_cast<unsigned char>(run);
    const double start = bench::now_us();
    std::memcpy(to.data(), from.data(), bytes);
    const double took = bench::now_us() - start;
    if (to[bytes / 2] != static_cast<unsigned char>(run)) throw failure("the copy is wrong");
    return took;
  });
}

// Runs `work` beside the calling thread; what it throws comes out of join().
class companion {
public:
  template <class F> explicit companion(F work) : thread_([this, work] {
    try {
      work();
    } catch (...) {
      problem_ = std::current_exception();
    }
  }) {}
  ~companion() {
    if (thread_.joinable()) thread_.join();
  }
  void join() {
    thread_.join();
    if (problem_) std::rethrow_exception(problem_);
  }

private:
  std::exception_ptr problem_;
  std::thread thread_;
};

template <class P> void wait(std::condition_variable &changed, std::unique_lock<std::mutex> &held, P until) {
  if (!changed.wait_for(held, std::chrono::seconds(2), until)) throw failure("a thread waited for 2 s");
}

struct record {
  uint64_t number;
  unsigned char rest[232];
};
static_assert(sizeof(record) == 240, "the records are of 240 bytes");

// What one writes without a library: a ring of records, a mutex, and a condition for each side.
class queue {
public:
  void push(const record *from, size_t count) {
    std::unique_lock<std::mutex> held(mutex_);
    wait(room_, held, [&] { return tail_ - head_ + count <= capacity; });
    for (size_t i = 0; i < count; ++i) ring_[(tail_ + i) % capacity] = from[i];
    tail_ += count;
    held.unlock();
    ready_.notify_one();
  }
  size_t pop(record *to, size_t most) {
    std::unique_lock<std::mutex> held(mutex_);
    wait(ready_, held, [&] { return tail_ != head_; });
    const size_t count = std::min(most, tail_ - head_);
    for (size_t i = 0; i < count; ++i) to[i] = ring_[(head_ + i) % capacity];
    head_ += count;
    held.unlock();
    room_.notify_one();
    return count;
  }

private:
  static constexpr size_t capacity = 4096;
  std::vector<record> ring_{capacity};
  std::mutex mutex_;
  std::condition_variable room_, ready_;
  size_t head_ = 0, tail_ = 0;
};

samples mutexed_queue(const bench::report &out) {
  constexpr size_t batch = 256, total = batch * 2048;
  return out.repeat(1, 30, [&](int) {
    queue between;
    const double start = bench::now_us();
    companion producer([&] {
      std::vector<record> records(batch);
      for (size_t sent = 0; sent < total; sent += batch) {
        for (size_t i = 0; i < batch; ++i) records[i].number = sent + i;
        between.push(records.data(), batch);
      }
    });
    std::vector<record> records(batch);
    for (size_t got = 0; got < total;) {
      const size_t count = between.pop(records.data(), batch);
      for (size_t i = 0; i < count; ++i)
        if (records[i].number != got + i) throw failure("a record is not the one that was sent");
      got += count;
    }
    const double took = bench::now_us() - start;
    producer.join();
    return static_cast<double>(total) / took * 1e6;
  });
}

// A number that two threads count up in turns. Half a round trip.
samples handoffs(const bench::report &out) {
  const int trips = out.runs(5000), warm = 100;
  std::mutex mutex;
  std::condition_variable changed;
  int turn = 0;
  companion other([&] {
    for (int trip = 0; trip < warm + trips; ++trip) {
      std::unique_lock<std::mutex> held(mutex);
      wait(changed, held, [&] { return turn == 2 * trip + 1; });
      ++turn;
      held.unlock();
      changed.notify_one();
    }
  });
  samples all;
  for (int trip = 0; trip < warm + trips; ++trip) {
    const double start = bench::now_us();
    std::unique_lock<std::mutex> held(mutex);
    ++turn;
    held.unlock();
    changed.notify_one();
    held.lock();
    wait(changed, held, [&] { return turn == 2 * trip + 2; });
    if (trip >= warm) all.push_back((bench::now_us() - start) / 2);
  }
  other.join();
  return all;
}

void measure(bench::report &out) {
  for (size_t bytes : out.chosen().copies) out.add(bench::copy_of(bytes), [&] { return copies(out, bytes); });
  out.add({"mutexed_queue_240B", "records/s"}, [&] { return mutexed_queue(out); });
  out.add("condvar_handoff", [&] { return handoffs(out); });
}

}  // namespace

int main(int argc, char **argv) { return bench::run(argc, argv, measure); }
