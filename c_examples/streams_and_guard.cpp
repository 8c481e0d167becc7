// Streams with a priority, streams of others, and a guard that makes one of them current, so that code
// further down need not be told.
#include "check.hpp"

#include <atomic>
#include <cstdio>
#include <thread>

// Knows nothing of streams: its work goes to the one that is current.
static void enqueue_work(const gmb::context &context, const gmb::device_buffer<char> &memory) {
  check(context.fill(memory.data(), 1, memory.bytes(), gmb::current_stream));
}

static bool current_is_idle(const gmb::context &context) { return check(gmb::current_stream.query(context)); }

int main() {
  const auto context = check(gmb::context::create());
  const auto urgent = check(gmb::stream::create(context, GMB_PRIORITY_FOCUS));
  const auto patient = check(gmb::stream::create(context, GMB_PRIORITY_PERIPHERAL));
  const auto memory = check(gmb::device_buffer<char>::create(context, 4096));
  const auto more = check(gmb::device_buffer<char>::create(context, 4096));
  const int32_t first = check(urgent.priority()), last = check(patient.priority());
  std::printf("priorities are in the device's numbers, less is more urgent: %s\n",
              first < last ? "focus before peripheral" : "all the same here");
  must(first <= last, "focus should not come after peripheral");

  // The urgent stream is held, so it shows which stream work goes to: only this one stays busy.
  std::atomic<bool> open{false};
  check(urgent.run([&open] {
    while (!open) std::this_thread::yield();
  }));
  must(current_is_idle(context), "without a guard the default stream is current, and it has no work");
  {
    auto outer = check(gmb::stream_guard::create(context, urgent));
    enqueue_work(context, memory);
    must(!current_is_idle(context), "the urgent stream should be current, and held");
    {
      const auto inner = check(gmb::stream_guard::create(context, patient));
      enqueue_work(context, more);
      check(gmb::current_stream.synchronize(context));
      std::printf("inner guard: the patient stream is current, and done\n");
    }
    must(!current_is_idle(context), "the urgent stream should be current again");
    std::printf("outer guard: the urgent stream is current, and held\n");

    // Which stream is current is a matter of each thread, and a guard ends on the thread that made it.
    std::thread([&context, &outer] {
      must(current_is_idle(context), "on another thread no guard is in force");
      outer.reset();
      must(static_cast<bool>(outer), "the guard should not end on another thread");
    }).join();
    must(!current_is_idle(context), "the guard should still be in force");
    open = true;
  }
  must(current_is_idle(context), "the default stream should be current again");

  // A stream of somebody else, a cudaStream_t say, is used as it is. This one is the legacy default stream.
  const gmb::stream_ref foreign = nullptr;
  const auto done = check(gmb::event::create(context));
  check(done.record(urgent));
  check(foreign.wait(done));
  check(foreign.synchronize(context));
  must(check(done.query()), "the default stream should have waited for the urgent one");
  std::printf("no guard: a foreign stream has waited for the urgent one\n");
}
