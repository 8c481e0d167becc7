// Three modules on one device, two mailboxes between them.
//
//   module 1: a file, cut into records  ->  mailbox 1  ->  module 2: a transform of each byte
//   ->  mailbox 2  ->  module 3: every byte, length, type and sequence checked against the file
//
// Each module has a thread and a stream of its own; nobody waits with a sleep.
#include "three_modules_expected.h"
#include "three_modules_input.h"
#include "three_modules_transform.h"

#include <gpumailbox.hpp>

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cinttypes>
#include <cstdio>
#include <mutex>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

namespace {

using steady = std::chrono::steady_clock;

// Thrown in a module when another one has failed.
struct stopped {};

void check(const gmb::status &status) {
  if (!status.ok()) throw std::runtime_error(status.message());
}
template <class T>
T check(gmb::expected<T> made) {
  check(made.status());
  return *std::move(made);
}

// What the modules share besides the mailboxes.
struct pipeline {
  const options &wanted;
  const bytes &input;
  const gmb::context &context;
  const gmb::mailbox &first;
  const gmb::mailbox &second;
  bool on_gpu;
  steady::time_point start;
  // When each record's push was first submitted; an entry is used again long after module 3 has read it.
  std::vector<std::atomic<int64_t>> submitted;
  // Records there will be; module 1 knows last.
  std::atomic<uint64_t> total{UINT64_MAX};
  std::atomic<bool> stop{false};
  std::mutex gate{};
  std::string failure{};

  int64_t now_ns() const { return std::chrono::nanoseconds(steady::now() - start).count(); }
  std::atomic<int64_t> &submitted_at(uint64_t index) { return submitted[index & (submitted.size() - 1)]; }
  void go_on() const {
    if (stop.load(std::memory_order_relaxed)) throw stopped{};
  }
  void fail(const std::string &why) {
    const std::lock_guard<std::mutex> hold(gate);
    if (failure.empty()) failure = why;
    stop = true;
  }
};

uint64_t row_bytes(uint32_t payload) { return (uint64_t{payload} + 15) / 16 * 16; }

// Room for a batch: 16 bytes of header (or length and type) for each record, then the records.
// They are one piece of memory, so one copy moves them.
template <class Memory>
class block {
 public:
  block(const gmb::context &context, uint32_t batch, uint32_t payload)
      : batch_(batch), row_(row_bytes(payload)), memory_(check(Memory::create(context, used(batch)))) {
    // A push reads records in whole 16-byte units, also where a record ends within one.
    check(context.fill(memory_.data(), 0, memory_.bytes(), nullptr));
    check(gmb::status(gmb_stream_synchronize(context.get(), nullptr)));
  }

  unsigned char *data() const { return memory_.data(); }
  gmb_record_header *headers() const { return reinterpret_cast<gmb_record_header *>(data()); }
  uint32_t *lengths() const { return reinterpret_cast<uint32_t *>(data()); }
  uint32_t *types() const { return lengths() + batch_; }
  unsigned char *record(uint32_t i) const { return data() + uint64_t{16} * batch_ + i * row_; }
  uint64_t used(uint32_t count) const { return uint64_t{16} * batch_ + count * row_; }
  uint64_t row() const { return row_; }

 private:
  uint32_t batch_;
  uint64_t row_;
  Memory memory_;
};
using device_block = block<gmb::device_buffer<unsigned char>>;
using pinned_block = block<gmb::pinned_buffer<unsigned char>>;

// A module's two sets: one is filled while the other is under way.
template <class From, class To>
struct buffer_set {
  From from;
  To to;

  buffer_set(const gmb::context &context, uint32_t batch, uint32_t from_payload, uint32_t to_payload)
      : from(context, batch, from_payload), to(context, batch, to_payload) {}
};

// Pushes batches; what a full mailbox left over is pushed again before anything else.
class pusher {
 public:
  pusher(pipeline &all, const gmb::mailbox &to, const gmb::stream &stream)
      : all_(all), to_(to), stream_(stream), token_(check(gmb::token::create(all.context))) {}

  // Until finish() is back, the block must stay as it is.
  void start(const device_block &from, uint32_t count) {
    left_ = GMB_PUSH_INIT;
    left_.count = count;
    left_.records = from.record(0);
    left_.stride = from.row();
    left_.lengths = from.lengths();
    left_.types = from.types();
    check(to_.push(left_, stream_.get(), token_));
  }
  void finish() {
    while (left_.count > 0) {
      const gmb_result result = check(token_.wait());
      check(gmb::status(result.status));
      left_.count -= result.count;
      if (left_.count == 0) return;
      left_.records = static_cast<const unsigned char *>(left_.records) + result.count * left_.stride;
      left_.lengths += result.count;
      left_.types += result.count;
      all_.go_on();
      if (result.count == 0) {
        ++full_;
        std::this_thread::yield();
      }
      check(to_.push(left_, stream_.get(), token_));
    }
  }
  uint64_t full() const { return full_; }

 private:
  pipeline &all_;
  const gmb::mailbox &to_;
  const gmb::stream &stream_;
  gmb::token token_;
  gmb_push left_ = GMB_PUSH_INIT;
  uint64_t full_ = 0;
};

// Pops a batch with its headers; the count is known when the token is.
void start_pop(const gmb::mailbox &from, const device_block &to, uint32_t most, const gmb::stream &stream,
               const gmb::token &token) {
  gmb_pop pop = GMB_POP_INIT;
  pop.max = most;
  pop.records = to.record(0);
  pop.stride = to.row();
  pop.headers = to.headers();
  check(from.pop(pop, stream.get(), token));
}
uint32_t finish_pop(const gmb::token &token) {
  const gmb_result result = check(token.wait());
  check(gmb::status(result.status));
  return result.count;
}

struct tally {
  uint64_t records = 0;
  uint64_t bytes = 0;
  uint64_t full_pushes = 0;
};

void read_module(pipeline &all, tally &done) {
  const options &wanted = all.wanted;
  const gmb::stream stream = check(gmb::stream::create(all.context));
  using set = buffer_set<pinned_block, device_block>;
  const set even(all.context, wanted.batch, wanted.payload, wanted.payload);
  const set odd(all.context, wanted.batch, wanted.payload, wanted.payload);
  pusher out(all, all.first, stream);
  cutter cut(all.input, wanted);
  const auto deadline = all.start + std::chrono::duration<double>(wanted.seconds);
  const auto over = [&] { return wanted.seconds > 0 ? steady::now() >= deadline : cut.at_end(); };
  for (size_t turn = 0; turn == 0 || !over(); ++turn) {
    all.go_on();
    // The push that read this set two turns ago is done, and with it the copy before that push.
    const set &now = turn % 2 == 0 ? even : odd;
    uint32_t count = 0;
    while (count < wanted.batch && (count == 0 || wanted.seconds > 0 || !cut.at_end())) {
      const cutter::record record = cut.next();
      std::copy_n(record.data, record.length, now.from.record(count));
      now.from.lengths()[count] = record.length;
      now.from.types()[count] = record.type;
      done.bytes += record.length;
      ++count;
    }
    check(all.context.copy(now.to.data(), now.from.data(), now.from.used(count), stream.get()));
    out.finish();
    const int64_t at = all.now_ns();
    for (uint32_t i = 0; i < count; ++i) {
      all.submitted_at(done.records + i).store(at, std::memory_order_release);
    }
    done.records += count;
    out.start(now.to, count);
  }
  out.finish();
  done.full_pushes = out.full();
  all.total.store(done.records, std::memory_order_release);
}

void transform_batch(const pipeline &all, const transform::job &work, const gmb::stream &stream) {
#if defined(GMB_EXAMPLE_CUDA)
  if (all.on_gpu) {
    const char *error = transform::run_on_gpu(work, stream.get());
    if (error != nullptr) throw std::runtime_error(std::string("the transform's kernel: ") + error);
    return;
  }
#endif
  static_cast<void>(all);
  check(stream.run([work] { transform::run_on_cpu(work); }));
}

void transform_module(pipeline &all, tally &done) {
  const options &wanted = all.wanted;
  const gmb::stream stream = check(gmb::stream::create(all.context));
  const gmb::token popped = check(gmb::token::create(all.context));
  using set = buffer_set<device_block, device_block>;
  const set even(all.context, wanted.batch, wanted.payload, wanted.payload + 16);
  const set odd(all.context, wanted.batch, wanted.payload, wanted.payload + 16);
  pusher out(all, all.second, stream);
  for (size_t turn = 0; done.records != all.total.load(std::memory_order_acquire);) {
    all.go_on();
    const set &now = turn % 2 == 0 ? even : odd;
    start_pop(all.first, now.from, wanted.batch, stream, popped);
    const uint32_t count = finish_pop(popped);
    if (count > 0) {
      const transform::job work{now.from.record(0), now.from.headers(), now.to.record(0), now.to.lengths(),
                                now.to.types(),     now.from.row(),     now.to.row(),     count};
      transform_batch(all, work, stream);
    }
    // What is left of the last push goes first, also when there was nothing to pop.
    out.finish();
    if (count == 0) {
      std::this_thread::yield();
      continue;
    }
    out.start(now.to, count);
    done.records += count;
    ++turn;
  }
  out.finish();
  done.full_pushes = out.full();
}

void check_module(pipeline &all, tally &done, histogram &latency) {
  const options &wanted = all.wanted;
  const gmb::stream stream = check(gmb::stream::create(all.context));
  const gmb::token popped = check(gmb::token::create(all.context));
  using set = buffer_set<device_block, pinned_block>;
  const set even(all.context, wanted.batch, wanted.payload + 16, wanted.payload + 16);
  const set odd(all.context, wanted.batch, wanted.payload + 16, wanted.payload + 16);
  checker expected(all.input, wanted);
  const bool shows = isatty(fileno(stderr)) != 0;
  auto shown = all.start;
  uint32_t before = 0;  // records of the other set, in pinned memory and not yet checked
  for (size_t turn = 0; before > 0 || done.records != all.total.load(std::memory_order_acquire); ++turn) {
    all.go_on();
    const set &now = turn % 2 == 0 ? even : odd;
    const pinned_block &last = turn % 2 == 0 ? odd.to : even.to;
    start_pop(all.second, now.from, wanted.batch, stream, popped);
    for (uint32_t i = 0; i < before; ++i) {
      expected.check_next(last.headers()[i], last.record(i));
      done.bytes += last.headers()[i].length;
    }
    const uint32_t idle = before;
    before = finish_pop(popped);
    const int64_t at = all.now_ns();
    for (uint32_t i = 0; i < before; ++i) {
      const int64_t from = all.submitted_at(done.records + i).load(std::memory_order_acquire);
      latency.add(static_cast<uint64_t>(std::max<int64_t>(at - from, 0)));
    }
    done.records += before;
    if (before > 0) {
      check(all.context.copy(now.to.data(), now.from.data(), now.from.used(before), stream.get()));
      check(stream.synchronize());
    } else if (idle == 0) {
      std::this_thread::yield();
    }
    if (shows && steady::now() - shown > std::chrono::milliseconds(200)) {
      shown = steady::now();
      const double seconds = std::chrono::duration<double>(shown - all.start).count();
      std::fprintf(stderr, "\r%6.1f s  %12" PRIu64 " records checked", seconds, done.records);
    }
  }
  if (shows) std::fprintf(stderr, "\r%50s\r", "");
}

void print_mailbox(const char *name, const gmb::mailbox &mailbox, uint64_t records, uint64_t bytes_in,
                   uint64_t full_pushes) {
  const gmb_mailbox_info info = check(mailbox.info());
  std::printf("%-10s %12" PRIu64 " %14" PRIu64 " %11" PRIu64 " %12" PRIu64 " %12" PRIu64 " %11" PRIu64 "\n",
              name, info.published, bytes_in, info.empty_pops, full_pushes, info.rejected, info.high_water);
  if (info.published != records || info.released != records) {
    throw std::runtime_error(std::string(name) + " counts other records than the modules do");
  }
}

int run(const options &wanted) {
  bytes input;
  if (wanted.input.empty()) {
    input = documentation();
  } else if (!append_file(wanted.input, input)) {
    throw usage_error("--input " + wanted.input + ": cannot be read");
  }
  if (input.empty()) throw usage_error("the input is empty: name a file with --input");

  const gmb::context context = check(gmb::context::create(wanted.backend));
  const gmb_context_info device = check(context.info());
  const gmb::mailbox first = check(gmb::mailbox::create(context, wanted.capacity, wanted.payload));
  const gmb::mailbox second = check(gmb::mailbox::create(context, wanted.capacity, wanted.payload + 16));
  const bool on_gpu = device.backend == GMB_BACKEND_CUDA;
  const char *backend = on_gpu ? "cuda" : "host";
  std::printf("backend %s: %s\ninput %zu bytes, capacity %" PRIu64 ", payload %u, batch %u, seed %" PRIu64
              "\n",
              backend, device.name, input.size(), wanted.capacity, wanted.payload, wanted.batch, wanted.seed);

  // Both mailboxes and the batches in the modules' hands are less than this.
  size_t under_way = 1;
  while (under_way < 2 * wanted.capacity + 8 * uint64_t{wanted.batch}) under_way *= 2;
  pipeline all{wanted, input, context, first, second, on_gpu, steady::now(),
               std::vector<std::atomic<int64_t>>(under_way)};
  tally read, transformed, checked;
  histogram latency;
  const auto start = [&all](auto module) {
    return std::thread([&all, module] {
      try {
        module();
      } catch (const stopped &) {
      } catch (const std::exception &error) {
        all.fail(error.what());
      }
    });
  };
  std::thread modules[] = {start([&] { read_module(all, read); }),
                           start([&] { transform_module(all, transformed); }),
                           start([&] { check_module(all, checked, latency); })};
  for (std::thread &module : modules) module.join();
  if (all.stop) throw std::runtime_error(all.failure);
  const double seconds = std::chrono::duration<double>(steady::now() - all.start).count();

  std::printf("%-10s %12s %14s %11s %12s %12s %11s\n", "", "records", "bytes", "empty pops", "full pushes",
              "rejected", "high water");
  print_mailbox("mailbox 1", first, read.records, read.bytes, read.full_pushes);
  print_mailbox("mailbox 2", second, checked.records, checked.bytes, transformed.full_pushes);
  std::printf("end to end: latency p50 %.1f us, p99 %.1f us; %.0f records/s, %.2f MB/s in %.2f s\n",
              latency.quantile_us(0.5), latency.quantile_us(0.99),
              static_cast<double>(read.records) / seconds,
              static_cast<double>(read.bytes) / seconds / 1e6, seconds);
  std::printf("ok: %" PRIu64 " records, %" PRIu64 " bytes, 3 modules, 2 mailboxes, backend=%s\n",
              read.records, read.bytes, backend);
  return 0;
}

}  // namespace

int main(int argc, char **argv) {
  if (std::find(argv + 1, argv + argc, std::string_view("--help")) != argv + argc) {
    return std::fputs(usage, stdout) < 0 ? 1 : 0;
  }
  try {
    return run(parse(argc, argv));
  } catch (const usage_error &error) {
    std::fprintf(stderr, "three_modules: %s\n%s", error.what(), usage);
    return 2;
  } catch (const std::exception &error) {
    std::fflush(stdout);
    std::fprintf(stderr, "three_modules: %s\n", error.what());
    return 1;
  }
}
