// Three modules in a row, wired in three ways: by the CPU, which launches each step of each message; by kernels that stay and are
// told by an arbiter which mailbox has something for them; and by kernels that stay and look at their mailboxes themselves. How
// long a message takes, and what each way holds of the GPU and of the CPU meanwhile.
//
//   arbitration [--backend host|cuda] [--messages N] [--pause MICROSECONDS] [--json FILE]
#include "arbitration.h"

#include "running.hpp"

#include <sys/resource.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <set>
#include <string>
#include <thread>
#include <vector>

#if !defined(GMB_EXAMPLE_CUDA)
const char *arbitration::load() { return "this program was built without kernels: configure it where nvcc is found"; }
const char *arbitration::launch_all(const job &, const gmb_stream *) { return load(); }
const char *arbitration::launch_step(const job &, module, uint32_t, gmb_stream) { return load(); }
#endif

namespace {

using namespace arbitration;

struct options {
  gmb_backend backend = GMB_BACKEND_AUTO;
  uint32_t messages = 2000;
  uint32_t pause_us = 100;
  const char *json = nullptr;
};

struct outcome {
  const char *way;
  uint32_t held; // multiprocessors that what stays was on; threads on the host backend
  double p50_us, p99_us, cpu_percent;
};

double cpu_seconds() {
  rusage used{};
  getrusage(RUSAGE_SELF, &used);
  const auto seconds = [](const timeval &t) { return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) * 1e-6; };
  return seconds(used.ru_utime) + seconds(used.ru_stime);
}

// A meeting of three modules: their mailboxes, their memory, and what they measured.
class modules_in_a_row {
 public:
  modules_in_a_row(const gmb::context &context, const options &wanted)
      : context_(context),
        wanted_(wanted),
        on_gpu_(running::is_on_gpu(context)),
        rows_(running::zeroed<message>(context, modules)),
        latencies_(running::zeroed<uint64_t>(context, wanted.messages)),
        words_(running::zeroed<uint32_t>(context, 2)),
        tallies_(running::zeroed<running::tally>(context, modules)),
        stop_(context) {
    for (auto &stream : streams_) stream.reset(new gmb::stream(check(gmb::stream::create(context))));
    if (on_gpu_) must_run(load());
  }

  outcome by_the_cpu() {
    // The CPU looks after the order: the mailboxes need not be shared.
    boxes(gmb::mailbox_options::of<message>(64));
    const job all = work(nullptr);
    const auto popped = check(gmb::token::create(context_));
    return measured("by the CPU", all, [&] {
      for (uint32_t n = 0; n < wanted_.messages; ++n) {
        step(all, sense, n);
        hand_over(0, sense, think, nullptr);
        step(all, think, n);
        hand_over(1, think, act, &popped);
        step(all, act, n);
        check(gmb::status::of(check(popped.wait())));
        check(streams_[act]->synchronize());
        pause();
      }
    });
  }

  outcome by_the_device(bool asks_an_arbiter) {
    boxes(gmb::mailbox_options::of<message>(64).with_arbitration(GMB_ARBITRATION_DEVICE));
    gmb::arbiter arbiter;
    if (asks_an_arbiter) {
      arbiter = check(gmb::arbiter::create(context_, {{boxes_[0]->get(), 0, GMB_CLASS_FOCUS}, {boxes_[1]->get(), 0, GMB_CLASS_FOCUS}}));
    }
    const job all = work(asks_an_arbiter ? check(arbiter.info()).arbiter : nullptr);
    outcome found = measured(asks_an_arbiter ? "by an arbiter on the device" : "by the device, each looks itself", all,
                             [&] { run_all(all); });
    std::array<running::tally, modules> did{};
    read(did.data(), tallies_.data(), sizeof did);
    bool whole = true;
    const char *names[] = {"sense", "think", "act"};
    std::set<uint64_t> held;
    for (uint32_t m = 0; m < modules; ++m) {
      whole = running::did_all(names[m], m, did[m], wanted_.messages) && whole;
      held.insert(did[m].processor);
    }
    must(whole, "a module did not do all its work");
    if (asks_an_arbiter) {
      gmb_arbiter_header header;
      read(&header, all.arbiter, sizeof header);
      must(header.processor != 0, "the arbiter has not come");
      held.insert(header.processor - 1);
    }
    found.held = static_cast<uint32_t>(held.size());
    return found;
  }

 private:
  static void must_run(const char *error) { must(error == nullptr, error ? error : ""); }

  void boxes(const gmb::mailbox_options &how) {
    for (auto &box : boxes_) box.reset(new gmb::mailbox(check(gmb::mailbox::create(context_, how))));
  }

  job work(gmb_arbiter_header *arbiter) {
    check(context_.fill(words_.data(), 0, words_.bytes(), nullptr));
    check(context_.fill(latencies_.data(), 0xff, latencies_.bytes(), nullptr));
    check(gmb::status(gmb_stream_synchronize(context_.get(), nullptr)));
    return {check(boxes_[0]->info()).ring, check(boxes_[1]->info()).ring, arbiter, rows_.data(), latencies_.data(), words_.data(),
            words_.data() + 1, tallies_.data(), {stop_.get(), 2'000'000'000}, wanted_.messages, wanted_.pause_us * 1000};
  }

  void step(const job &all, module which, uint32_t n) const {
    if (on_gpu_) return must_run(launch_step(all, which, n, streams_[which]->get()));
    // On the host backend what a stream has been given is done first, and device memory is the host's.
    check(streams_[which]->synchronize());
#if !defined(__CUDACC__)
    const running::worker group;
    if (which == sense) give_birth(group, all, n);
    else if (which == think) think_about(group, all.rows[which]);
    else act_upon(group, all, all.rows[which], n);
#endif
  }

  void hand_over(uint32_t box, module from, module to, const gmb::token *told) const {
    gmb_push push = GMB_PUSH_INIT;
    push.count = 1;
    push.records = rows_.data() + from;
    push.length = sizeof(message);
    gmb_pop pop = GMB_POP_INIT;
    pop.max = 1;
    pop.records = rows_.data() + to;
    check(gmb::status(gmb_mailbox_push(boxes_[box]->get(), &push, streams_[from]->get(), gmb_token{0})));
    check(gmb::status(gmb_mailbox_pop(boxes_[box]->get(), &pop, streams_[to]->get(), told ? told->get() : gmb_token{0})));
  }

  void pause() const { std::this_thread::sleep_for(std::chrono::microseconds(wanted_.pause_us)); }

  void run_all(const job &all) {
    running::run_at_most(std::chrono::seconds(60), stop_, [&] {
      if (on_gpu_) {
        const gmb_stream raw[] = {streams_[sense]->get(), streams_[think]->get(), streams_[act]->get()};
        must_run(launch_all(all, raw));
        // synchronize() spins, and what the CPU has to do is measured here.
        for (const auto &stream : streams_)
          while (!check(stream->query())) std::this_thread::sleep_for(std::chrono::milliseconds(1));
        return;
      }
      std::vector<std::thread> living;
      for (const module which : {sense, think, act})
        living.emplace_back([&all, which] { live(running::worker{}, all, which); });
      for (auto &each : living) each.join();
    });
  }

  template <class Work> outcome measured(const char *way, const job &all, const Work &work) {
    const auto began = std::chrono::steady_clock::now();
    const double used = cpu_seconds();
    work();
    const double cpu = cpu_seconds() - used;
    const double wall = std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
    std::vector<uint64_t> took(wanted_.messages);
    uint32_t words[2];
    read(took.data(), all.latencies_ns, took.size() * sizeof took[0]);
    read(words, words_.data(), sizeof words);
    must(words[0] == wanted_.messages, "not all messages came through");
    must(words[1] == 0, "a message was not what it should be");
    std::sort(took.begin(), took.end());
    const auto at = [&](size_t percent) { return static_cast<double>(took[(took.size() - 1) * percent / 100]) * 1e-3; };
    return {way, 0, at(50), at(99), 100 * cpu / wall};
  }

  void read(void *into, const void *from, size_t bytes) const {
    check(context_.copy(into, from, bytes, *streams_[act]));
    check(streams_[act]->synchronize());
  }

  const gmb::context &context_;
  options wanted_;
  bool on_gpu_;
  gmb::device_buffer<message> rows_;
  gmb::device_buffer<uint64_t> latencies_;
  gmb::device_buffer<uint32_t> words_;
  gmb::device_buffer<running::tally> tallies_;
  running::stop_word stop_;
  std::array<std::unique_ptr<gmb::stream>, modules> streams_;
  std::array<std::unique_ptr<gmb::mailbox>, 2> boxes_;
};

options read_options(int argc, char **argv) {
  options wanted;
  for (int i = 1; i < argc; i += 2) {
    const std::string name = argv[i];
    must(i + 1 < argc, "an option has a value: --backend host|cuda, --messages N, --pause MICROSECONDS, --json FILE");
    if (name == "--backend") wanted.backend = std::strcmp(argv[i + 1], "cuda") == 0 ? GMB_BACKEND_CUDA : GMB_BACKEND_HOST;
    else if (name == "--messages") wanted.messages = static_cast<uint32_t>(std::strtoul(argv[i + 1], nullptr, 10));
    else if (name == "--pause") wanted.pause_us = static_cast<uint32_t>(std::strtoul(argv[i + 1], nullptr, 10));
    else if (name == "--json") wanted.json = argv[i + 1];
    else must(false, "there is no such option");
  }
  must(wanted.messages > 0 && wanted.messages <= 10'000'000 && wanted.pause_us <= 1'000'000, "so many messages, or such a pause, take too long");
  return wanted;
}

void write_json(const char *path, const options &wanted, const char *backend, const std::array<outcome, 3> &found) {
  FILE *file = std::fopen(path, "w");
  must(file != nullptr, "the file cannot be written");
  std::fprintf(file, "{\"backend\":\"%s\",\"messages\":%u,\"pause_us\":%u,\"ways\":[", backend, wanted.messages, wanted.pause_us);
  for (size_t i = 0; i < found.size(); ++i)
    std::fprintf(file, "%s\n {\"way\":\"%s\",\"held\":%u,\"p50_us\":%.3f,\"p99_us\":%.3f,\"cpu_percent\":%.1f}", i ? "," : "", found[i].way,
                 found[i].held, found[i].p50_us, found[i].p99_us, found[i].cpu_percent);
  std::fprintf(file, "\n]}\n");
  must(std::fclose(file) == 0, "the file cannot be written");
}

}  // namespace

int main(int argc, char **argv) {
  const options wanted = read_options(argc, argv);
  const gmb::context context = check(gmb::context::create(wanted.backend));
  modules_in_a_row row(context, wanted);
  const std::array<outcome, 3> found = {row.by_the_cpu(), row.by_the_device(true), row.by_the_device(false)};
  const bool on_gpu = running::is_on_gpu(context);
  std::printf("%-34s %10s %10s %16s %12s\n", "wired", "p50, us", "p99, us", on_gpu ? "SMs held" : "threads held", "CPU, % of one");
  for (const outcome &one : found)
    std::printf("%-34s %10.2f %10.2f %16u %12.1f\n", one.way, one.p50_us, one.p99_us, one.held, one.cpu_percent);
  const char *backend = on_gpu ? "cuda" : "host";
  if (wanted.json) write_json(wanted.json, wanted, backend, found);
  std::printf("ok: %u messages through three modules, wired in three ways; backend=%s\n", wanted.messages, backend);
  return 0;
}
