// three_modules without the CPU: the same input, transform and check, but the three modules are kernels that run all the
// time and hand each other records by themselves. Three launches in all; then the CPU waits for the end.
//
//   module 1  ->  mailbox 1  ->  module 2  ->  mailbox 2  ->  module 3
//
// On the host backend the same functions are run by CPU threads.
#include "running.hpp"
#include "three_modules_device.h"
#include "three_modules_expected.h"
#include "three_modules_input.h"

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

namespace {

constexpr uint32_t most_workers = 64;
constexpr uint32_t most_tries = 10'000'000;

constexpr const char *device_usage =
    "three_modules_device [options]\n"
    "  --backend auto|host|cuda  where it runs (auto)\n"
    "  --records N               records to send (100000)\n"
    "  --workers N               warps, or threads, of each module (8 on a GPU, else 1)\n"
    "  --limit S                 seconds after which all are told to stop (60)\n"
    "  --capacity N              records in each mailbox, a power of two (1024)\n"
    "  --payload N               most bytes of a record (240)\n"
    "  --seed N                  of the records' lengths and types (random)\n"
    "  --input FILE              what to send (the repository's documentation)\n"
    "  --help                    this text\n";

struct device_options {
  options common;
  uint64_t records = 100'000;
  uint32_t workers = 0;
  std::chrono::seconds limit{60};
};

device_options parse_all(int argc, char **argv) {
  device_options wanted;
  std::vector<char *> rest{argv[0]};
  for (int i = 1; i < argc; i += 2) {
    const std::string name = argv[i];
    const bool own = name == "--records" || name == "--workers" || name == "--limit";
    if (name == "--batch" || name == "--seconds") throw usage_error(name + ": no such option");
    if (own && i + 1 == argc) throw usage_error(name + ": no value");
    if (name == "--records") wanted.records = number(name, argv[i + 1], 1, 100'000'000);
    if (name == "--workers") wanted.workers = static_cast<uint32_t>(number(name, argv[i + 1], 1, most_workers));
    if (name == "--limit") wanted.limit = std::chrono::seconds(number(name, argv[i + 1], 0, 86400));
    if (own) continue;
    rest.push_back(argv[i]);
    if (i + 1 < argc) rest.push_back(argv[i + 1]);
  }
  wanted.common = parse(static_cast<int>(rest.size()), rest.data());
  return wanted;
}

// Device memory with the contents of a vector.
template <class T> gmb::device_buffer<T> on_device(const gmb::context &context, const std::vector<T> &from) {
  auto made = check(gmb::device_buffer<T>::create(context, from.size()));
  check(context.copy(made.data(), from.data(), made.bytes(), nullptr));
  check(gmb::status(gmb_stream_synchronize(context.get(), nullptr)));
  return made;
}
template <class T> std::vector<T> from_device(const gmb::context &context, const gmb::device_buffer<T> &from) {
  std::vector<T> made(from.size());
  check(context.copy(made.data(), from.data(), from.bytes(), nullptr));
  check(gmb::status(gmb_stream_synchronize(context.get(), nullptr)));
  return made;
}

std::vector<stages::cut> cut_all(const bytes &input, const device_options &wanted) {
  std::vector<stages::cut> cuts(wanted.records);
  cutter cut(input, wanted.common);
  for (stages::cut &to : cuts) {
    const cutter::record record = cut.next();
    to = {static_cast<uint64_t>(record.data - input.data()), record.length, record.type};
  }
  return cuts;
}

// Runs all workers to their end.
void run_stages(const gmb::context &context, const stages::job &all) {
  const bool on_gpu = running::is_on_gpu(context);
#if defined(GMB_EXAMPLE_CUDA)
  if (on_gpu) {
    const gmb::stream streams[] = {check(gmb::stream::create(context)), check(gmb::stream::create(context)),
                                   check(gmb::stream::create(context))};
    const gmb_stream raw[] = {streams[0].get(), streams[1].get(), streams[2].get()};
    const char *error = stages::launch(all, raw);
    for (const gmb::stream &stream : streams) check(stream.synchronize());
    if (error != nullptr) throw std::runtime_error(std::string("the kernels: ") + error);
    return;
  }
#endif
  static_cast<void>(on_gpu);
  std::vector<std::thread> threads;
  for (uint32_t which = 0; which < stages::stage_count; ++which) {
    for (uint32_t worker = 0; worker < all.workers; ++worker) {
      threads.emplace_back([&all, which, worker] {
        stages::run_worker(running::worker{}, all, static_cast<stages::stage>(which), worker);
      });
    }
  }
  for (std::thread &thread : threads) thread.join();
}

int run(const device_options &wanted) {
  bytes input;
  if (wanted.common.input.empty()) {
    input = documentation();
  } else if (!append_file(wanted.common.input, input)) {
    throw usage_error("--input " + wanted.common.input + ": cannot be read");
  }
  if (input.empty()) throw usage_error("the input is empty: name a file with --input");

  const gmb::context context = check(gmb::context::create(wanted.common.backend));
  const gmb_context_info device = check(context.info());
  const bool on_gpu = running::is_on_gpu(context);
  const uint32_t workers = wanted.workers > 0 ? wanted.workers : on_gpu ? 8 : 1;
  const uint32_t payload = wanted.common.payload, stamp = sizeof(stages::stamp), checksum = transform::checksum_bytes;
  std::printf("backend %s: %s\ninput %zu bytes, capacity %" PRIu64 ", payload %u, %u workers a module, seed %" PRIu64 "\n",
              on_gpu ? "cuda" : "host", device.name, input.size(), wanted.common.capacity, payload, workers,
              wanted.common.seed);

  auto made_with = gmb::mailbox_options(wanted.common.capacity, stamp + payload).with_shared();
  const gmb::mailbox first = check(gmb::mailbox::create(context, made_with.with_arbitration(GMB_ARBITRATION_DEVICE)));
  made_with.payload_bytes += checksum;
  const gmb::mailbox second = check(gmb::mailbox::create(context, made_with));
  const auto bytes_in = on_device(context, input);
  const auto cuts = on_device(context, cut_all(input, wanted));
  const uint32_t row = payload + checksum;
  const auto rows = running::zeroed<unsigned char>(context, wanted.records * row);
  const auto arrivals = running::zeroed<stages::arrival>(context, wanted.records);
  const auto tallies = running::zeroed<running::tally>(context, size_t{stages::stage_count} * workers);
  const running::stop_word stop(context);
  const stages::job all{check(first.info()).ring, check(second.info()).ring, bytes_in.data(), cuts.data(), rows.data(),
                        arrivals.data(), tallies.data(), {stop.get(), most_tries}, wanted.records, row, workers};

  running::run_at_most(wanted.limit, stop, [&] { run_stages(context, all); });

  // First what the workers say of themselves, then every record.
  const char *const names[] = {"module 1, worker", "module 2, worker", "module 3, worker"};
  const auto told = from_device(context, tallies);
  running::tally sums[stages::stage_count] = {};
  uint64_t began = UINT64_MAX, ended = 0;
  bool good = true;
  for (size_t i = 0; i < told.size(); ++i) {
    running::tally &sum = sums[i / workers];
    good = running::did_all(names[i / workers], i % workers, told[i], stages::share_of(all, i % workers)) && good;
    sum.records += told[i].records;
    sum.bytes += told[i].bytes;
    sum.tries_in_vain += told[i].tries_in_vain;
    began = std::min(began, told[i].began_ns);
    ended = std::max(ended, told[i].ended_ns);
  }
  if (!good) throw std::runtime_error("not all records went through");

  const auto got = from_device(context, arrivals);
  const auto contents = from_device(context, rows);
  checker expected(input, wanted.common);
  histogram latency;
  for (uint64_t i = 0; i < wanted.records; ++i) {
    if (got[i].times != 1) {
      throw std::runtime_error("record " + std::to_string(i) + " came " + std::to_string(got[i].times) + " times");
    }
    if (got[i].length > row) throw std::runtime_error("record " + std::to_string(i) + " is longer than can be");
    expected.check_next({i + 1, got[i].length, got[i].type}, contents.data() + i * row);
    latency.add(got[i].latency_ns);
  }
  const double seconds = static_cast<double>(std::max<uint64_t>(ended - began, 1)) / 1e9;
  std::printf("tries in vain: module 1 %" PRIu64 ", module 2 %" PRIu64 ", module 3 %" PRIu64 "\n", sums[0].tries_in_vain,
              sums[1].tries_in_vain, sums[2].tries_in_vain);
  std::printf("end to end: latency p50 %.1f us, p99 %.1f us; %.0f records/s, %.2f MB/s in %.4f s\n",
              latency.quantile_us(0.5), latency.quantile_us(0.99), static_cast<double>(wanted.records) / seconds,
              static_cast<double>(sums[0].bytes) / seconds / 1e6, seconds);
  std::printf("ok: %" PRIu64 " records, %" PRIu64 " bytes, 3 %s, 2 mailboxes, backend=%s\n", sums[2].records, sums[0].bytes,
              on_gpu ? "launches" : "modules", on_gpu ? "cuda" : "host");
  return 0;
}

}  // namespace

int main(int argc, char **argv) {
  if (std::find(argv + 1, argv + argc, std::string_view("--help")) != argv + argc) {
    return std::fputs(device_usage, stdout) < 0 ? 1 : 0;
  }
  try {
    return run(parse_all(argc, argv));
  } catch (const usage_error &error) {
    std::fprintf(stderr, "three_modules_device: %s\n%s", error.what(), device_usage);
    return 2;
  } catch (const std::exception &error) {
    std::fflush(stdout);
    std::fprintf(stderr, "three_modules_device: %s\n", error.what());
    return 1;
  }
}
