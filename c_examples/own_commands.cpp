// Commands of one's own: to a worker, which change where its items go while it works, and to a kernel that sends records
// through a FIFO until it was enough. On the host backend CPU threads run the same functions.
//
//   own_commands [--backend host|cuda]
#include "own_commands.h"

#include "running.hpp"

#include <cstring>
#include <numeric>
#include <thread>
#include <vector>

GMB_WORKER_FUNCTION(sort_out_on_the_host, uint32_t, own_commands::sort_out)

#if !defined(GMB_EXAMPLE_CUDA)
const void *own_commands::sorting_kernel() { return nullptr; }
const char *own_commands::launch(const job &, gmb_stream) { return "built without kernels"; }
#endif

namespace {

using queue = gmb::queue<uint32_t>;
constexpr uint32_t numbers = 1000;
constexpr uint64_t fifo_capacity = 64;
constexpr std::chrono::seconds limit{60};

std::vector<uint32_t> counted(uint32_t first, uint32_t end) {
  std::vector<uint32_t> made(end - first);
  std::iota(made.begin(), made.end(), first);
  return made;
}

// What is in a queue, by size.
std::vector<uint32_t> all_of(const queue &from) {
  std::vector<uint32_t> found(numbers);
  found.resize(check(from.pop_to_host_blocking(found)));
  std::sort(found.begin(), found.end());
  return found;
}

void change_a_worker(const gmb::context &context, bool on_gpu) {
  const void *kernel = own_commands::sorting_kernel();
  must(!on_gpu || kernel != nullptr, "this program was built without kernels: configure it where nvcc is found");
  const queue active = check(queue::create(context, 1024));
  const queue small = check(queue::create(context, 1024)), large = check(queue::create(context, 1024));
  const auto bell = check(gmb::doorbell::create(context, 16));
  const auto state = running::zeroed<own_commands::state>(context, 1);
  const auto worker = check(gmb::persistent_worker::create(
      gmb::worker_options(active)
          .with_finished(small)
          .with_spawn(large)
          .with_function(on_gpu ? kernel : reinterpret_cast<const void *>(sort_out_on_the_host), state.data())
          .with_doorbell(bell)
          .with_grid(2, 64)
          .with_slice(std::chrono::milliseconds(5))));
  check(worker.start());
  must(check(bell.info()).served == 1, "a worker serves it");

  uint64_t before = 0, below = 0, above = 0;
  for (const uint32_t threshold : {500, 0, 1000, 250, 1}) {
    const gmb_answer set = check(bell.call({own_commands::set_threshold, 0, {threshold}}, limit));
    must(set.status == GMB_OK && set.value[0] == before, "the threshold was that of the last command");
    before = threshold;
    must(check(active.push_from_host_blocking(counted(0, numbers))) == numbers, "all numbers have room");
    while (check(small.info()).size + check(large.info()).size < numbers) std::this_thread::yield();
    must(all_of(small) == counted(0, threshold), "below the threshold they are finished");
    must(all_of(large) == counted(threshold, numbers), "the others are not");
    below += threshold;
    above += numbers - threshold;
    const gmb_answer told = check(bell.call({own_commands::ask, 0, {}}, limit));
    must(told.status == GMB_OK && told.value[0] == threshold && told.value[1] == below && told.value[2] == above,
         "it tells what it did");
  }
  // Refused by the functor: the call itself is successful.
  const gmb_answer beyond = check(bell.call({own_commands::set_threshold, 0, {own_commands::most_threshold + 1}}, limit));
  must(beyond.status == GMB_ERROR_INVALID_ARGUMENT, "that is no threshold");
  const gmb_answer unknown = check(bell.call({own_commands::leave + 1, 0, {}}, limit));
  must(unknown.status == GMB_ERROR_NOT_SUPPORTED, "that is no command");
  must(check(bell.call({own_commands::ask, 0, {}}, limit)).value[0] == before, "neither has changed anything");
  check(worker.stop());
  const gmb_worker_result did = check(worker.wait());
  must(did.finished == below && did.spawned == above, "no item is lost");
  std::printf("a worker with five thresholds: %" PRIu64 " items below, %" PRIu64 " above, %" PRIu64 " slices\n", below, above,
              did.slices);
}

// Drains the FIFO: numbers and their squares, none left out.
class drain {
 public:
  explicit drain(const gmb::fifo &from) : from_(from) {}

  // Takes records until there were so many of them.
  void until(uint64_t first, uint64_t &seen, uint64_t count) {
    while (seen < count) {
      const uint64_t most = std::min<uint64_t>(count - seen, records_.size());
      const uint64_t came = check(from_.pop_to_host(gmb::span<gmb_fifo_record>(records_.data(), most), limit));
      must(came > 0, "no record came in a minute");
      for (uint64_t i = 0; i < came; ++i, ++seen) {
        const uint64_t number = first + seen;
        must(records_[i].word[0] == number && records_[i].word[1] == number * number, "records come in their order");
      }
    }
  }
  void must_be_empty() {
    must(check(from_.pop_to_host(records_, std::chrono::nanoseconds(0))) == 0, "nobody has sent more");
  }

 private:
  const gmb::fifo &from_;
  std::vector<gmb_fifo_record> records_ = std::vector<gmb_fifo_record>(50);
};

// Launches push, too: what there is room for.
void push_by_launch(const gmb::context &context, const gmb::fifo &fifo) {
  const auto stream = check(gmb::stream::create(context));
  const auto token = check(gmb::token::create(context));
  const auto records = check(gmb::pinned_buffer<gmb_fifo_record>::create(context, 100));
  for (uint64_t n = 0; n < records.size(); ++n) records[n] = {{n, n * n}};
  check(fifo.push(records.view(), stream, token));
  const gmb_result pushed = check(token.wait());
  check(gmb::status::of(pushed));
  must(pushed.count == fifo_capacity && (pushed.flags & GMB_RESULT_PARTIAL) != 0, "so many have room");
  drain from(fifo);
  uint64_t seen = 0;
  from.until(0, seen, pushed.count);
  from.must_be_empty();
}

// Runs the kernel, and beside it what the host has to say to it.
template <class Talk>
void run_kernel(const gmb::context &context, bool on_gpu, const own_commands::job &all, const Talk &talk) {
  if (on_gpu) {
    const auto stream = check(gmb::stream::create(context));
    const char *error = own_commands::launch(all, stream.get());
    must(error == nullptr, error);
    talk();
    return check(stream.synchronize());
  }
  std::thread kernel([&all] { own_commands::serve(gmb::device::one_thread{}, all); });
  talk();
  kernel.join();
}

void talk_to_a_kernel(const gmb::context &context, bool on_gpu) {
  const auto bell = check(gmb::doorbell::create(context, 4));
  const auto fifo = check(gmb::fifo::create(context, fifo_capacity));
  push_by_launch(context, fifo);
  const running::stop_word stop(context);
  const own_commands::job all{check(bell.info()).doorbell, check(fifo.info()).fifo, stop.get()};
  drain from(fifo);

  uint64_t sent = 0;
  const auto first_talk = [&] {
    // More than the FIFO holds: the kernel waits for room, not the host for the kernel's end.
    uint64_t seen = 0;
    const gmb_command_id some = check(bell.submit({own_commands::send, 0, {7, 3 * fifo_capacity}}, limit));
    from.until(7, seen, 3 * fifo_capacity);
    const gmb_answer all_sent = check(bell.wait_for(some, limit));
    must(all_sent.status == GMB_OK && all_sent.value[0] == seen, "it has sent all");
    // For ever, until it is enough. The answer may be there before the last records are.
    seen = 0;
    const gmb_command_id endless = check(bell.submit({own_commands::send, 0, {0, UINT64_MAX}}, limit));
    from.until(0, seen, 5000);
    check(bell.cancel(endless));
    const gmb_answer enough = check(bell.wait_for(endless, limit));
    must(enough.status == GMB_ERROR_CANCELLED && enough.value[0] >= seen, "it says how many it has sent");
    from.until(0, seen, sent = enough.value[0]);
    from.must_be_empty();
    must(check(bell.call({GMB_COMMAND_PING, 0, {}}, limit)).status == GMB_ERROR_NOT_SUPPORTED, "this kernel knows no ping");
    must(check(bell.call({own_commands::leave, 0, {}}, limit)).status == GMB_OK, "it leaves");
  };
  running::run_at_most(limit, stop, [&] { run_kernel(context, on_gpu, all, first_talk); });

  // Nobody answers for a kernel that is gone; the next one goes on where it was.
  const gmb_command_id late = check(bell.submit({own_commands::send, 0, {9, 1}}, limit));
  const auto early = bell.wait_for(late, std::chrono::milliseconds(1));
  must(!early.ok() && early.code() == GMB_ERROR_TIMEOUT, "there is no kernel");
  const auto second_talk = [&] {
    uint64_t seen = 0;
    from.until(9, seen, 1);
    must(check(bell.wait_for(late, limit)).value[0] == 1, "it has sent one");
    // What nobody wants any more makes room by itself.
    check(bell.forget(check(bell.submit({GMB_COMMAND_PING, 0, {}}, limit))));
    check(bell.post({own_commands::leave, 0, {}}, limit));
  };
  running::run_at_most(limit, stop, [&] { run_kernel(context, on_gpu, all, second_talk); });
  must(check(fifo.info()).drained == fifo_capacity + 3 * fifo_capacity + sent + 1, "each record was taken once");
  std::printf("a kernel that sends until it was enough: %" PRIu64 " records, cancelled after 5000 were seen\n", sent);
}

}  // namespace

int main(int argc, char **argv) {
  gmb_backend backend = GMB_BACKEND_AUTO;
  if (argc == 3 && std::strcmp(argv[1], "--backend") == 0)
    backend = std::strcmp(argv[2], "cuda") == 0 ? GMB_BACKEND_CUDA : GMB_BACKEND_HOST;
  const gmb::context context = check(gmb::context::create(backend));
  const bool on_gpu = running::is_on_gpu(context);
  change_a_worker(context, on_gpu);
  talk_to_a_kernel(context, on_gpu);
  std::printf("ok: commands of one's own, on %s\n", on_gpu ? "the GPU" : "the host");
  return 0;
}
