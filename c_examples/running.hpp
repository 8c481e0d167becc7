// What the CPU does about kernels that wait for each other: it starts them, tells them to stop should they take too long,
// and says what ended them.
#ifndef RUNNING_HPP
#define RUNNING_HPP

#include "check.hpp"
#include "running.h"

#include <chrono>
#include <cinttypes>
#include <cstdio>
#include <future>

#if defined(GMB_EXAMPLE_CUDA)
constexpr bool has_kernels = true;
#else
constexpr bool has_kernels = false;
#endif

namespace running {

inline bool is_on_gpu(const gmb::context &context) { return check(context.info()).backend == GMB_BACKEND_CUDA; }

// Device memory, zeroed.
template <class T> gmb::device_buffer<T> zeroed(const gmb::context &context, size_t count) {
  auto made = check(gmb::device_buffer<T>::create(context, count));
  check(context.fill(made.data(), 0, made.bytes(), nullptr));
  check(gmb::status(gmb_stream_synchronize(context.get(), nullptr)));
  return made;
}

// In device memory, so that kernels do not read over the bus. Another stream's copy reaches it while they run.
class stop_word {
 public:
  explicit stop_word(const gmb::context &context)
      : context_(context),
        on_gpu_(is_on_gpu(context)),
        word_(zeroed<uint32_t>(context, 1)),
        one_(check(gmb::pinned_buffer<uint32_t>::create(context, 1))),
        stream_(check(gmb::stream::create(context))) {
    one_[0] = 1;
  }
  uint32_t *get() const { return word_.data(); }
  void raise() const {
    if (!on_gpu_) return worker{}.store(word_.data(), 1);
    check(context_.copy(word_.data(), one_.data(), sizeof(uint32_t), stream_));
    check(stream_.synchronize());
  }

 private:
  const gmb::context &context_;
  bool on_gpu_;
  gmb::device_buffer<uint32_t> word_;
  gmb::pinned_buffer<uint32_t> one_;
  gmb::stream stream_;
};

// Runs a function that comes back when all groups have ended. After so long they are told to.
template <class Function> void run_at_most(std::chrono::seconds limit, const stop_word &stop, const Function &all) {
  auto ended = std::async(std::launch::async, all);
  if (ended.wait_for(limit) != std::future_status::ready) {
    std::fprintf(stderr, "not done after %lld s: told to stop\n", static_cast<long long>(limit.count()));
    stop.raise();
  }
  ended.get();
}

// Whether a group did all its work; else says what was missing.
inline bool did_all(const char *who, size_t number, const tally &got, uint64_t wanted) {
  if (got.how == done && got.records == wanted) return true;
  const char *why = got.how == found_no_room     ? "found no room"
                    : got.how == found_no_record ? "found no record"
                    : got.how == told_to_stop    ? "was told to stop"
                    : got.how == bad_mailbox     ? gmb_status_string(got.status)
                    : got.how == strange_record  ? "got a record that nobody has sent"
                    : got.how == did_not_run     ? "did not run"
                                                 : "ended";
  std::fprintf(stderr, "%s %zu: %s after %" PRIu64 " of %" PRIu64 " records, %" PRIu64 " tries in vain\n", who, number, why,
               got.records, wanted, got.tries_in_vain);
  return false;
}

}  // namespace running

#endif
