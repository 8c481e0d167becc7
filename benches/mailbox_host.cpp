// What mailboxes take on the host backend, for the same rows as limits_host.cpp measures their limits.
//   c++ -O3 -std=c++17 -pthread -Iinclude benches/mailbox_host.cpp -lgpumailbox -o mailbox_host
#include "mailbox.h"

#include <cstring>

namespace {

using bench::failure;
using bench::library;
using bench::library_stream;
using bench::mailbox;
using bench::now_us;
using bench::report;
using bench::samples;
using bench::token;

// A push of a whole array of records and its pop, each from the call to the result.
struct bulk_times {
  samples push, pop;
};
bulk_times bulk(const report &out, const library &lib, uint32_t payload, size_t bytes) {
  const uint32_t count = static_cast<uint32_t>(bytes / payload);
  gmb_mailbox_options options = GMB_MAILBOX_OPTIONS_INIT;
  options.payload_bytes = payload;
  options.capacity = bench::power_of_two(count);
  const library_stream on(lib);
  const mailbox box(lib, options);
  const token told(lib);
  const size_t words = size_t{count} * payload / 8;
  std::vector<uint64_t> records(words), popped(words);
  for (size_t i = 0; i < words; ++i) records[i] = i * 0x9e3779b97f4a7c15;
  gmb_push push = GMB_PUSH_INIT;
  push.count = count;
  push.records = records.data();
  push.length = payload;
  gmb_pop pop = GMB_POP_INIT;
  pop.max = count;
  pop.records = popped.data();
  bulk_times times;
  for (int run = -2; run < out.runs(50); ++run) {
    const double start = now_us();
    OK(gmb_mailbox_push(box.id, &push, on.raw, told.id));
    const bool all_pushed = told.wait().count == count;
    const double between = now_us();
    OK(gmb_mailbox_pop(box.id, &pop, on.raw, told.id));
    const bool all_popped = told.wait().count == count;
    const double end = now_us();
    if (!all_pushed || !all_popped) throw failure("an operation did not move all records");
    if (run < 0) continue;
    times.push.push_back(between - start);
    times.pop.push_back(end - between);
  }
  if (records != popped) throw failure("what was popped is not what was pushed");
  return times;
}

struct record {
  uint64_t number;
  unsigned char rest[232];
};

// A producer and a consumer thread, batches of 256, as the mutexed queue has them.
samples queue(const report &out, const library &lib) {
  constexpr uint32_t batch = 256;
  constexpr uint64_t total = batch * 2048;
  samples all;
  for (int run = -1; run < out.runs(30); ++run) {
    gmb_mailbox_options options = bench::small_box();
    options.capacity = 4096;
    options.full_policy = GMB_FULL_WAIT;
    options.arbitration = GMB_ARBITRATION_DEVICE;
    const mailbox box(lib, options);
    std::atomic<bool> failed{false};
    const double start = now_us();
    std::thread producer([&] {
      try {
        const library_stream on(lib);
        const token told(lib);
        std::vector<record> records(batch);
        gmb_push push = GMB_PUSH_INIT;
        push.count = batch;
        push.records = records.data();
        push.length = sizeof records[0];
        for (uint64_t sent = 0; sent < total; sent += batch) {
          for (uint32_t i = 0; i < batch; ++i) records[i].number = sent + i;
          OK(gmb_mailbox_push(box.id, &push, on.raw, told.id));
          told.wait();
        }
      } catch (const failure &) {
        failed = true;
      }
    });
    bool wrong = false;
    {
      const library_stream on(lib);
      const token told(lib);
      std::vector<record> records(batch);
      gmb_pop pop = GMB_POP_INIT;
      pop.max = batch;
      pop.records = records.data();
      for (uint64_t got = 0; got < total && !failed;) {
        OK(gmb_mailbox_pop(box.id, &pop, on.raw, told.id));
        const uint32_t count = told.wait().count;
        for (uint32_t i = 0; i < count; ++i) wrong |= records[i].number != got + i;
        got += count;
      }
    }
    const double took = now_us() - start;
    producer.join();
    if (failed || wrong) throw failure("a record is not the one that was sent");
    if (run >= 0) all.push_back(static_cast<double>(total) / took * 1e6);
  }
  return all;
}

}  // namespace

int main(int argc, char **argv) {
  report out(bench::parse(argc, argv));
  try {
    const library lib(GMB_BACKEND_HOST);
    const std::pair<const char *, size_t> sizes[] = {{"1MB", 983040}, {"16MB", 15728640}, {"63MB", 62914560}};
    for (uint32_t payload : {48u, 240u, 4080u}) {
      for (const auto &[name, bytes] : sizes) {
        const std::string tail = std::to_string(payload) + "B_" + name;
        const bulk_times times = bulk(out, lib, payload, bytes);
        out.latency("bulk_push_" + tail, [&] { return times.push; }, bytes / payload * payload);
        out.latency("bulk_pop_" + tail, [&] { return times.pop; }, bytes / payload * payload);
      }
    }
    out.rate("queue_240B", "records/s", [&] { return queue(out, lib); });
    bench::measure_look_ups(out, lib);
  } catch (const std::exception &problem) {
    std::fprintf(stderr, "error: %s\n", problem.what());
    return 1;
  }
  return out.print();
}
