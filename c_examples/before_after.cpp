// Before and after: chunks of numbers go to the device, through a kernel and back, first in a loop that waits for each step,
// then with a coordinator and a triple buffer, so that uploads, kernels and downloads of different chunks overlap. The results
// must be the same; both are timed.
#include "check.hpp"
#include "pipeline.h"

#include <chrono>
#include <cinttypes>
#include <string>
#include <vector>

namespace {

constexpr const char *usage =
    "before_after [options]\n"
    "  --backend auto|host|cuda  where it runs (auto)\n"
    "  --chunks N                how many (24)\n"
    "  --kibibytes N             of each chunk (1024)\n"
    "  --rounds N                of the kernel: its work on each number (20)\n";

struct options {
  gmb_backend backend = PIPELINE_BACKEND;
  uint32_t chunks = 24, kibibytes = 1024, rounds = 20;
};

[[noreturn]] void wrong_usage() {
  std::fputs(usage, stderr);
  std::exit(2);
}

options parse(int argc, char **argv) {
  options wanted;
  for (int i = 1; i < argc; i += 2) {
    const std::string name = argv[i], value = i + 1 < argc ? argv[i + 1] : "";
    if (name == "--backend") {
      char *alone[] = {argv[0], argv[i], argv[i + 1]};
      wanted.backend = backend_of(i + 1 < argc ? 3 : 2, alone);
      continue;
    }
    char *end = nullptr;
    const unsigned long number = std::strtoul(value.c_str(), &end, 10);
    if (value.empty() || *end != '\0' || number < 1 || number > 1'000'000) wrong_usage();
    if (name == "--chunks" && number <= 1000) wanted.chunks = static_cast<uint32_t>(number);
    else if (name == "--kibibytes") wanted.kibibytes = static_cast<uint32_t>(number);
    else if (name == "--rounds") wanted.rounds = static_cast<uint32_t>(number);
    else wrong_usage();
  }
  return wanted;
}

// In the kernel's place on the host backend, with the kernel's arguments.
void stir_block(const gmb_kernel_block &block, uint32_t *data, uint32_t count, uint32_t rounds) {
  const elements mine = elements_of(&block, count);
  for (uint32_t n = mine.begin; n < mine.end; ++n) data[n] = stirred(data[n], rounds);
}

class job {
 public:
  explicit job(const options &wanted)
      : wanted_(wanted),
        chunk_(wanted.kibibytes * 1024 / sizeof(uint32_t)),
        context_(check(gmb::context::create(wanted.backend))),
        module_(check(gmb::module::load_file(context_, PIPELINE_KERNELS))),
        stir_(check(module_.kernel("stir", stir_block))),
        input_(check(gmb::pinned_buffer<uint32_t>::create(context_, size_t{chunk_} * wanted.chunks))),
        buffer_(check(gmb::device_buffer<uint32_t>::create(context_, chunk_))),
        triple_(check(gmb::triple_buffer<uint32_t>::create(context_, chunk_))),
        stream_(check(gmb::stream::create(context_))),
        coordinator_(check(gmb::coordinator::create(context_))) {
    uint32_t word = 20250716;
    for (uint32_t &x : input_) x = word = word * 1664525u + 1013904223u;
  }

  gmb::pinned_buffer<uint32_t> room() const { return check(gmb::pinned_buffer<uint32_t>::create(context_, input_.size())); }
  bool is_on_gpu() const { return check(context_.info()).backend == GMB_BACKEND_CUDA; }
  const gmb::pinned_buffer<uint32_t> &input() const { return input_; }

  // Before: one step after the other, and the thread waits for all of them.
  void one_by_one(const gmb::pinned_buffer<uint32_t> &output) const {
    const auto shape = gmb::launch_shape::covering(chunk_);
    for (uint32_t n = 0; n < wanted_.chunks; ++n) {
      const gmb::span<uint32_t> from = part(input_, n), to = part(output, n);
      check(context_.copy(buffer_.data(), from.data(), buffer_.bytes(), stream_));
      check(stir_.launch(shape, stream_, buffer_.data(), chunk_, wanted_.rounds));
      check(context_.copy(to.data(), buffer_.data(), buffer_.bytes(), stream_));
      check(stream_.synchronize());
    }
  }

  // After: the same steps; nobody waits but for the end, and the device does what it can at once.
  void overlapped(const gmb::pinned_buffer<uint32_t> &output) const {
    const auto shape = gmb::launch_shape::covering(chunk_);
    for (uint32_t n = 0; n < wanted_.chunks; ++n) {
      const auto up = check(coordinator_.queue(gmb::upload(triple_, part(input_, n))));
      const auto work = check(coordinator_.queue(gmb::compute(triple_, stir_, shape, chunk_, wanted_.rounds), up));
      check(coordinator_.queue(gmb::download(part(output, n), triple_), work));
    }
    check(coordinator_.synchronize());
  }

  // That no operation has failed.
  void check_completions() const {
    std::vector<gmb_completion> told(3 * size_t{wanted_.chunks} + 1);
    told.resize(check(coordinator_.poll(told)));
    must(told.size() == 3 * size_t{wanted_.chunks}, "each operation is told once");
    for (const gmb_completion &one : told) check(gmb::status(one.status, "an operation has failed"));
  }

 private:
  gmb::span<uint32_t> part(const gmb::pinned_buffer<uint32_t> &of, uint32_t chunk) const {
    return {of.data() + size_t{chunk} * chunk_, chunk_};
  }

  options wanted_;
  uint32_t chunk_;
  gmb::context context_;
  gmb::module module_;
  gmb::kernel<uint32_t *, uint32_t, uint32_t> stir_;
  gmb::pinned_buffer<uint32_t> input_;
  gmb::device_buffer<uint32_t> buffer_;
  gmb::triple_buffer<uint32_t> triple_;
  gmb::stream stream_;
  gmb::coordinator coordinator_;
};

template <class Function> double milliseconds(const Function &function) {
  const auto begin = std::chrono::steady_clock::now();
  function();
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count();
}

}  // namespace

int main(int argc, char **argv) {
  const options wanted = parse(argc, argv);
  const job work(wanted);
  const auto before = work.room(), after = work.room();
  // The first round of each finds everything cold, and the better of the others counts.
  double before_ms = 1e300, after_ms = 1e300;
  for (int round = 0; round < 3; ++round) {
    const double first = milliseconds([&] { work.one_by_one(before); });
    const double second = milliseconds([&] { work.overlapped(after); });
    work.check_completions();
    if (round == 0) continue;
    before_ms = std::min(before_ms, first);
    after_ms = std::min(after_ms, second);
  }
  for (size_t n = 0; n < before.size(); ++n) {
    must(before[n] == stirred(work.input()[n], wanted.rounds), "a number of the synchronous loop");
    must(before[n] == after[n], "a number that the two loops have made differently");
  }
  std::printf("%" PRIu32 " chunks of %" PRIu32 " KiB, %" PRIu32 " rounds: one by one %.2f ms, overlapped %.2f ms, %.2f times as fast\n",
              wanted.chunks, wanted.kibibytes, wanted.rounds, before_ms, after_ms, before_ms / after_ms);
  std::printf("ok: %zu numbers are the same both ways; backend=%s\n", before.size(), work.is_on_gpu() ? "cuda" : "host");
}
