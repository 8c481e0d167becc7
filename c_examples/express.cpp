// A thousand round trips of 240 bytes over two express mailboxes, between two kernels of one warp each: two launches in all.
// On the host backend two CPU threads run the same functions.
#include "express.h"
#include "running.hpp"

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <random>
#include <thread>
#include <vector>

namespace {

constexpr uint32_t trips = 1000;
constexpr uint64_t capacity = 16;
constexpr uint32_t most_tries = 10'000'000;
constexpr std::chrono::seconds limit{60};

void run_both(const gmb::context &context, const express::job &all) {
  const bool on_gpu = running::is_on_gpu(context);
#if defined(GMB_EXAMPLE_CUDA)
  if (on_gpu) {
    const gmb::stream asking = check(gmb::stream::create(context)), answering = check(gmb::stream::create(context));
    const char *error = express::launch(all, asking.get(), answering.get());
    check(asking.synchronize());
    check(answering.synchronize());
    must(error == nullptr, error);
    return;
  }
#endif
  static_cast<void>(on_gpu);
  std::thread answering([&all] { express::run_side(running::worker{}, all, false); });
  express::run_side(running::worker{}, all, true);
  answering.join();
}

}  // namespace

int main() {
  const auto context = check(gmb::context::create(has_kernels ? GMB_BACKEND_AUTO : GMB_BACKEND_HOST));
  const auto options = gmb::mailbox_options(capacity, GMB_EXPRESS_BYTES).with_express();
  const auto there = check(gmb::mailbox::create(context, options)), back = check(gmb::mailbox::create(context, options));
  std::vector<uint32_t> asked(size_t{trips} * express::words), answered(asked.size());
  std::mt19937 random(20241122);
  std::generate(asked.begin(), asked.end(), [&] { return static_cast<uint32_t>(random()); });

  const auto questions = running::zeroed<uint32_t>(context, asked.size());
  const auto answers = running::zeroed<uint32_t>(context, asked.size());
  const auto row = running::zeroed<uint32_t>(context, express::words);
  const auto trips_ns = running::zeroed<uint64_t>(context, trips);
  const auto tallies = running::zeroed<running::tally>(context, 2);
  const running::stop_word stop(context);
  const auto stream = check(gmb::stream::create(context));
  check(context.copy(questions.data(), asked.data(), questions.bytes(), stream));
  check(stream.synchronize());
  const express::job all{check(there.info()).ring, check(back.info()).ring, questions.data(), answers.data(), row.data(),
                         trips_ns.data(), tallies.data(), {stop.get(), most_tries}, trips};
  running::run_at_most(limit, stop, [&] { run_both(context, all); });

  running::tally told[2];
  std::vector<uint64_t> took(trips);
  check(context.copy(told, tallies.data(), sizeof told, stream));
  check(context.copy(took.data(), trips_ns.data(), trips_ns.bytes(), stream));
  check(context.copy(answered.data(), answers.data(), answers.bytes(), stream));
  check(stream.synchronize());
  const bool asked_all = running::did_all("asking", 0, told[0], trips);
  must(running::did_all("answering", 0, told[1], trips) && asked_all, "not all records went there and back");
  for (size_t i = 0; i < asked.size(); ++i) {
    // Undone, not done once more: this number times that of answer_to is 1.
    const uint32_t back_again = (answered[i] - static_cast<uint32_t>(i / express::words)) * 244002641u;
    if (back_again == asked[i]) continue;
    std::fprintf(stderr, "trip %zu, word %zu: %u was asked, and the answer is to %u\n", i / express::words, i % express::words,
                 asked[i], back_again);
    return 1;
  }
  std::sort(took.begin(), took.end());
  std::printf("ok: %u round trips of %d bytes: p50 %.2f us, p99 %.2f us; tries in vain: %" PRIu64 " asking, %" PRIu64
              " answering; backend=%s\n",
              trips, GMB_EXPRESS_BYTES, static_cast<double>(took[trips / 2]) / 1e3,
              static_cast<double>(took[trips * 99 / 100]) / 1e3, told[0].tries_in_vain, told[1].tries_in_vain,
              running::is_on_gpu(context) ? "cuda" : "host");
  return 0;
}
