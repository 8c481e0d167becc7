// What the programs that measure mailboxes share: owners of the library's objects, and how fast handles are looked up.
#ifndef GMB_BENCHES_MAILBOX_H
#define GMB_BENCHES_MAILBOX_H

#include "report.h"

#include <gpumailbox.h>
#include <gpumailbox/dlpack.h>

#include <atomic>
#include <memory>
#include <thread>

namespace bench {

inline void check_status(gmb_status status, const char *call, int line) {
  if (status == GMB_OK) return;
  char words[512] = "";
  gmb_last_error_message(words, sizeof words, nullptr);
  throw failure(std::string(call) + " (line " + std::to_string(line) + "): " + gmb_status_name(status) + ": " + words);
}
#define OK(call) bench::check_status((call), #call, __LINE__)

inline uint64_t power_of_two(uint64_t least) {
  uint64_t power = 1;
  while (power < least) power *= 2;
  return power;
}

struct library {
  gmb_context id{};
  explicit library(gmb_backend backend) {
    gmb_context_options options = GMB_CONTEXT_OPTIONS_INIT;
    options.backend = backend;
    OK(gmb_context_create(&options, &id));
  }
  ~library() { gmb_context_destroy(id); }
  library(const library &) = delete;
  library &operator=(const library &) = delete;
};

struct library_stream {
  const library &lib;
  gmb_stream raw = nullptr;
  explicit library_stream(const library &of, gmb_priority priority = GMB_PRIORITY_NORMAL) : lib(of) {
    OK(gmb_stream_create(lib.id, priority, &raw));
  }
  ~library_stream() { gmb_stream_destroy(lib.id, raw); }
  library_stream(const library_stream &) = delete;
  library_stream &operator=(const library_stream &) = delete;
};

struct mailbox {
  gmb_mailbox id{};
  mailbox(const library &lib, const gmb_mailbox_options &options) { OK(gmb_mailbox_create(lib.id, &options, &id)); }
  ~mailbox() { gmb_mailbox_destroy(id); }
  mailbox(const mailbox &) = delete;
  mailbox &operator=(const mailbox &) = delete;
};

struct token {
  gmb_token id{};
  explicit token(const library &lib) { OK(gmb_token_create(lib.id, &id)); }
  ~token() { gmb_token_destroy(id); }
  token(const token &) = delete;
  token &operator=(const token &) = delete;
  gmb_result wait() const {
    gmb_result result{};
    OK(gmb_token_wait(id, GMB_EPOCH_LAST, 5000000000ull, &result));
    if (result.status != GMB_OK) throw failure(std::string("an operation ended with ") + gmb_status_name(result.status));
    return result;
  }
};

inline gmb_mailbox_options box_of(uint32_t payload, uint64_t capacity) {
  gmb_mailbox_options options = GMB_MAILBOX_OPTIONS_INIT;
  options.payload_bytes = payload;
  options.capacity = capacity;
  return options;
}
// 1,024 records of 240 bytes.
inline gmb_mailbox_options small_box() { return box_of(240, 1024); }

// A call that does little more than look its handle up, from so many threads at once; per call in each thread.
inline samples look_ups(const report &out, const library &lib, unsigned threads, bool one_object) {
  constexpr int calls = 20000;
  std::vector<std::unique_ptr<token>> objects;
  for (unsigned i = 0; i < (one_object ? 1 : threads); ++i) objects.push_back(std::make_unique<token>(lib));
  samples all;
  for (int run = -3; run < out.runs(60); ++run) {
    std::atomic<unsigned> ready{0}, failed{0};
    std::vector<double> took(threads);
    std::vector<std::thread> at_work;
    for (unsigned i = 0; i < threads; ++i) {
      at_work.emplace_back([&, i] {
        const gmb_token id = objects[one_object ? 0 : i]->id;
        const gmb_result *address = nullptr;
        ++ready;
        while (ready < threads) std::this_thread::yield();
        const double start = now_us();
        unsigned bad = 0;
        for (int call = 0; call < calls; ++call) bad += gmb_token_get_device_result(id, &address) != GMB_OK;
        took[i] = (now_us() - start) / calls;
        failed += bad;
      });
    }
    for (auto &each : at_work) each.join();
    if (failed != 0) throw failure("a look-up failed");
    if (run >= 0) all.insert(all.end(), took.begin(), took.end());
  }
  return all;
}

inline void measure_look_ups(report &out, const library &lib) {
  out.add("call_alone", [&] {
    constexpr int calls = 20000;
    return out.repeat(3, 60, [&](int) {
      const double start = now_us();
      for (int call = 0; call < calls; ++call) OK(gmb_last_error_message(nullptr, 0, nullptr));
      return (now_us() - start) / calls;
    });
  });
  for (unsigned threads : {1u, 4u, 16u}) {
    // More threads than cores would measure the scheduler.
    if (threads > std::thread::hardware_concurrency()) continue;
    const std::string tail = std::to_string(threads) + (threads == 1 ? "_thread" : "_threads");
    const auto look_up = [&](const char *id) { return row(id + tail).beside("call_alone", "a call that looks nothing up"); };
    out.add(look_up("look_up_"), [&] { return look_ups(out, lib, threads, false); });
    if (threads > 1) out.add(look_up("look_up_one_object_"), [&] { return look_ups(out, lib, threads, true); });
  }
}

// Rows of a push and of a pop of so many bytes at once: `bulk(payload, bytes)` gives the samples of both.
template <class F> void add_bulk(report &out, uint32_t payload, size of, F &&bulk) {
  const std::string tail = std::to_string(payload) + "B_" + of.name;
  const size_t moved = whole_records(of, payload);
  const auto moving = [&](const char *id) {
    return row(id + tail, "µs", moved).beside(copy_of(moved).id, "memcpy of the same payload");
  };
  out.together<2>({moving("bulk_push_"), moving("bulk_pop_")}, [&] { return bulk(payload, of.bytes); });
}

}  // namespace bench

#endif
