// Three modules on one device, two mailboxes between them.
//
//   module 1: a file, cut into records  ->  mailbox 1  ->  module 2: a transform of each byte
//   ->  mailbox 2  ->  module 3: every byte, length, type and sequence checked against the file
//
// Each module has a thread and a stream of its own; nobody waits with a sleep.
#include "three_modules_transform.h"

#include <gpumailbox.hpp>

#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <charconv>
#include <chrono>
#include <cinttypes>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <mutex>
#include <random>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#if defined(GMB_EXAMPLE_CUDA)
constexpr bool has_cuda = true;
#else
constexpr bool has_cuda = false;
#endif

namespace {

using steady = std::chrono::steady_clock;
using bytes = std::vector<unsigned char>;

// A wrong command line: exit code 2. Any other exception: 1.
struct usage_error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

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

struct options {
  gmb_backend backend = GMB_BACKEND_AUTO;
  uint64_t capacity = 1024;
  uint32_t payload = 240;
  uint32_t batch = 256;
  double seconds = 2;
  uint64_t seed = std::random_device{}();
  std::string input;
};

constexpr const char *usage =
    "three_modules [options]\n"
    "  --backend auto|host|cuda  where it runs (auto)\n"
    "  --capacity N              records in each mailbox, a power of two (1024)\n"
    "  --payload N               most bytes of a record (240)\n"
    "  --batch N                 most records in one push or pop (256)\n"
    "  --seconds S               how long to loop over the input; 0 is one pass (2)\n"
    "  --seed N                  of the records' lengths and types (random)\n"
    "  --input FILE              what to send (the repository's documentation)\n"
    "  --help                    this text\n";

uint64_t number(const std::string &name, const std::string &text, uint64_t least, uint64_t most) {
  uint64_t value = 0;
  const char *end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc{} || stop != end || value < least || value > most) {
    throw usage_error(name + " " + text + ": a number from " + std::to_string(least) + " to " +
                      std::to_string(most) + " is needed");
  }
  return value;
}

options parse(int argc, char **argv) {
  options wanted;
  for (int i = 1; i < argc; i += 2) {
    const std::string name = argv[i];
    if (i + 1 == argc) throw usage_error(name + ": unknown option or no value");
    const std::string value = argv[i + 1];
    if (name == "--backend" && (value == "auto" || value == "host" || value == "cuda")) {
      if (value != "auto") wanted.backend = value == "host" ? GMB_BACKEND_HOST : GMB_BACKEND_CUDA;
    } else if (name == "--capacity") {
      wanted.capacity = number(name, value, 1, GMB_MAX_RECORDS);
      if ((wanted.capacity & (wanted.capacity - 1)) != 0) throw usage_error(name + " is no power of two");
    } else if (name == "--payload") {
      wanted.payload = static_cast<uint32_t>(number(name, value, 1, 1 << 24));
    } else if (name == "--batch") {
      wanted.batch = static_cast<uint32_t>(number(name, value, 1, 1 << 24));
    } else if (name == "--seconds") {
      char *end = nullptr;
      wanted.seconds = std::strtod(value.c_str(), &end);
      if (end == value.c_str() || *end != '\0' || !(wanted.seconds >= 0 && wanted.seconds < 1e6)) {
        throw usage_error(name + " " + value + ": seconds from 0 on are needed");
      }
    } else if (name == "--seed") {
      wanted.seed = number(name, value, 0, UINT64_MAX);
    } else if (name == "--input") {
      wanted.input = value;
    } else {
      throw usage_error(name + " " + value + ": no such option or value");
    }
  }
  if (!has_cuda && wanted.backend == GMB_BACKEND_CUDA) {
    throw usage_error("--backend cuda: built without a CUDA compiler, so module 2 has no kernel");
  }
  if (!has_cuda) wanted.backend = GMB_BACKEND_HOST;
  return wanted;
}

bool append_file(const std::filesystem::path &path, bytes &to) {
  std::error_code none;
  std::ifstream file(path, std::ios::binary);
  if (!file || std::filesystem::is_directory(path, none)) return false;
  to.insert(to.end(), std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
  return !file.bad();
}

// The repository's README, CHANGELOG and docs; without them this source file.
bytes documentation() {
  namespace fs = std::filesystem;
  std::error_code none;
  std::vector<fs::path> roots;
#if defined(GMB_DOCS_DIR)
  roots.emplace_back(GMB_DOCS_DIR);
#endif
  const fs::path self = fs::canonical("/proc/self/exe", none);
  for (fs::path up = self.parent_path(); up.has_relative_path(); up = up.parent_path()) roots.push_back(up);
  bytes found;
  for (const fs::path &root : roots) {
    const fs::path source = root / "c_examples" / "three_modules.cpp";
    if (!fs::exists(source, none)) continue;
    std::vector<fs::path> files{root / "README.md", root / "CHANGELOG.md"};
    for (const auto &entry : fs::directory_iterator(root / "docs", none)) {
      if (entry.path().extension() == ".md") files.push_back(entry.path());
    }
    std::sort(files.begin() + 2, files.end());
    for (const fs::path &file : files) append_file(file, found);
    if (!found.empty() || append_file(source, found)) return found;
  }
  append_file(__FILE__, found);
  return found;
}

// Cuts the input into records. Modules 1 and 3 each have one: the same seed gives the same records.
class cutter {
 public:
  struct record {
    const unsigned char *data;
    uint32_t length;
    uint32_t type;
  };

  cutter(const bytes &input, const options &wanted)
      : input_(input), most_(wanted.payload), random_(wanted.seed) {}

  bool at_end() const { return at_ == input_.size(); }
  record next() {
    if (at_end()) at_ = 0;
    const uint64_t draw = random_();
    const auto length = static_cast<uint32_t>(std::min<uint64_t>(1 + draw % most_, input_.size() - at_));
    const record cut{input_.data() + at_, length, static_cast<uint32_t>(draw >> 32)};
    at_ += length;
    return cut;
  }

 private:
  const bytes &input_;
  uint64_t most_;
  std::mt19937_64 random_;
  size_t at_ = 0;
};

// Counts of nanoseconds in steps of 6 %, so that no sample needs to be kept.
class histogram {
 public:
  void add(uint64_t ns) {
    const int exponent = ns < 16 ? 0 : 63 - __builtin_clzll(ns) - 4;
    ++counts_[static_cast<size_t>(exponent) * 16 + (ns >> exponent)];
    ++total_;
  }
  double quantile_us(double part) const {
    const auto rank = static_cast<uint64_t>(std::ceil(part * static_cast<double>(total_)));
    uint64_t seen = 0;
    for (size_t i = 0; i < counts_.size(); ++i) {
      seen += counts_[i];
      if (seen < rank || seen == 0) continue;
      const size_t exponent = i < 32 ? 0 : i / 16 - 1;
      return std::ldexp(static_cast<double>(i - exponent * 16) + 0.5, static_cast<int>(exponent)) / 1000;
    }
    return 0;
  }

 private:
  std::array<uint64_t, 64 * 16> counts_{};
  uint64_t total_ = 0;
};

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

// What must arrive, computed from the input and the transform's description, not with its code:
// the key moves on by addition, and the checksum is summed from the last byte back.
class checker {
 public:
  checker(const bytes &input, const options &wanted) : cut_(input, wanted) {}

  void check_next(const gmb_record_header &header, const unsigned char *got) {
    const cutter::record record = cut_.next();
    ++index_;
    same("sequence", 0, index_, header.sequence);
    same("length", 0, record.length + 4, header.length);
    same("type", 0, static_cast<uint32_t>(record.type + record.length + 4), header.msg_type);
    wanted_.assign(record.data, record.data + record.length);
    uint64_t key = (index_ * 0xd1342543de82ef95u) ^ (record.type * 0xaf251af3b0f025b5u);
    for (unsigned char &byte : wanted_) {
      key += 0x9e3779b97f4a7c15u;
      byte = static_cast<unsigned char>(byte ^ (key >> 56));
    }
    uint32_t suffix = 0, sum = 0;
    for (auto byte = wanted_.rbegin(); byte != wanted_.rend(); ++byte) sum += suffix += *byte;
    for (int i = 0; i < 4; ++i, sum /= 256) wanted_.push_back(static_cast<unsigned char>(sum % 256));
    if (std::equal(wanted_.begin(), wanted_.end(), got)) return;
    for (size_t p = 0; p < wanted_.size(); ++p) same("byte", p, wanted_[p], got[p]);
  }

 private:
  void same(const char *what, size_t offset, uint64_t wanted, uint64_t got) const {
    if (wanted == got) return;
    throw std::runtime_error("mismatch: record " + std::to_string(index_ - 1) + ", " + what + " at offset " +
                             std::to_string(offset) + ": expected " + std::to_string(wanted) + ", got " +
                             std::to_string(got));
  }

  cutter cut_;
  bytes wanted_;
  uint64_t index_ = 0;
};

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
