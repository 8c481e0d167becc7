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
std::array<samples, 2> bulk(const report &out, const library &lib, uint32_t payload, size_t bytes) {
  const uint32_t count = static_cast<uint32_t>(bytes / payload);
  const library_stream on(lib);
  const mailbox box(lib, bench::box_of(payload, bench::power_of_two(count)));
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
  const auto times = out.repeat_together<2>(2, 50, [&](int) -> std::array<double, 2> {
    const double start = now_us();
    OK(gmb_mailbox_push(box.id, &push, on.raw, told.id));
    const bool all_pushed = told.wait().count == count;
    const double between = now_us();
    OK(gmb_mailbox_pop(box.id, &pop, on.raw, told.id));
    const bool all_popped = told.wait().count == count;
    const double end = now_us();
    if (!all_pushed || !all_popped) throw failure("an operation did not move all records");
    return {between - start, end - between};
  });
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
  return out.repeat(1, 30, [&](int) {
    gmb_mailbox_options options = bench::box_of(240, 4096);
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
    return static_cast<double>(total) / took * 1e6;
  });
}

void measure(report &out) {
  const library lib(GMB_BACKEND_HOST);
  for (uint32_t payload : {48u, 240u, 4080u})
    for (const auto &size : bench::sizes) {
      if (size.bytes > 62914560) continue;
      bench::add_bulk(out, payload, size, [&](uint32_t of, size_t bytes) { return bulk(out, lib, of, bytes); });
    }
  const bench::row queued{"queue_240B", "records/s"};
  out.add(queued.beside("mutexed_queue_240B", "ring of a mutex and two condition variables"), [&] { return queue(out, lib); });
  bench::measure_look_ups(out, lib);
}

}  // namespace

int main(int argc, char **argv) { return bench::run(argc, argv, measure); }
