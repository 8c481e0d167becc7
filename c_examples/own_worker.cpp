// Workers with functors of one's own: numbers that are halved until they are odd, by two workers that feed each other, and a
// functor that does not come back until it must: the watchdog says so, the worker stops, and its item is still there.
//
//   own_worker [--backend host|cuda]
#include "own_worker.h"

#include "running.hpp"

#include <cstring>
#include <vector>

GMB_WORKER_FUNCTION(halve_on_the_host, uint32_t, own_worker::halve)
GMB_WORKER_FUNCTION(endless_on_the_host, uint32_t, own_worker::endless)

#if !defined(GMB_EXAMPLE_CUDA)
const void *own_worker::halving_kernel() { return nullptr; }
const void *own_worker::endless_kernel() { return nullptr; }
#endif

namespace {

using queue = gmb::queue<uint32_t>;
constexpr uint32_t numbers = 4000;

const void *function_for(bool on_gpu, const void *kernel, const void *on_the_host) {
  must(!on_gpu || kernel != nullptr, "this program was built without kernels: configure it where nvcc is found");
  return on_gpu ? kernel : on_the_host;
}

void halve_all(const gmb::context &context, bool on_gpu) {
  const void *function = function_for(on_gpu, own_worker::halving_kernel(), reinterpret_cast<const void *>(halve_on_the_host));
  const queue there = check(queue::create(context, 4096)), back = check(queue::create(context, 4096));
  const queue odd = check(queue::create(context, 4096));
  std::vector<uint32_t> given(numbers);
  for (uint32_t i = 0; i < numbers; ++i) given[i] = i + 1;
  must(check(there.push_from_host_blocking(given)) == numbers, "all numbers have room");
  const auto worker = [&](const queue &from, const queue &to) {
    return check(gmb::persistent_worker::create(
        gmb::worker_options(from).with_finished(odd).with_spawn(to).with_function(function).with_grid(2, 64)));
  };
  const gmb::persistent_worker first = worker(there, back), second = worker(back, there);
  check(first.start());
  check(second.start());
  while (check(odd.info()).size < numbers) std::this_thread::yield();
  uint64_t finished = 0, spawned = 0;
  for (const auto *each : {&first, &second}) {
    check(each->stop());
    const gmb_worker_result did = check(each->wait());
    must(did.reason == GMB_WORKER_STOPPED, "it was stopped");
    finished += did.finished;
    spawned += did.spawned;
  }
  std::vector<uint32_t> found(numbers), wanted;
  must(check(odd.pop_to_host_blocking(found)) == numbers && finished == numbers, "each number ends once");
  uint64_t halvings = 0;
  for (uint32_t n : given) {
    for (; n % 2 == 0; n /= 2) ++halvings;
    wanted.push_back(n);
  }
  std::sort(found.begin(), found.end());
  std::sort(wanted.begin(), wanted.end());
  must(found == wanted && spawned == halvings, "each number is halved until it is odd");
  must(check(there.info()).size == 0 && check(back.info()).size == 0, "nothing is left");
  std::printf("%u numbers, %" PRIu64 " halvings\n", numbers, halvings);
}

void stop_what_does_not_end(const gmb::context &context, bool on_gpu) {
  const void *function = function_for(on_gpu, own_worker::endless_kernel(), reinterpret_cast<const void *>(endless_on_the_host));
  const queue active = check(queue::create(context, 64));
  must(check(active.push_from_host_blocking(std::vector<uint32_t>{1, 2, 3})) == 3, "three items have room");
  const auto worker = check(gmb::persistent_worker::create(gmb::worker_options(active)
                                                               .with_function(function)
                                                               .with_slice(std::chrono::hours(1))
                                                               .with_watchdog(std::chrono::milliseconds(20))));
  check(worker.start());
  while (check(worker.info()).stalled_blocks == 0) std::this_thread::yield();
  const auto early = worker.wait_for(std::chrono::milliseconds(0));
  must(!early.ok() && early.status().code() == GMB_ERROR_TIMEOUT, "it does not end by itself");
  std::printf("the watchdog: %s\n", early.status().message().c_str());
  must(early.status().message().find("block 0") != std::string::npos, "the watchdog names the block");
  check(worker.stop());
  const gmb_worker_result did = check(worker.wait());
  must(did.reason == GMB_WORKER_STOPPED && did.processed == 0 && did.returned >= 1, "it gives its items back");
  must(check(active.info()).size == 3, "they are still there");
  must(check(worker.info()).stalled_blocks == 0, "nobody is waited for any more");
}

void items_of_another_size(const gmb::context &context, bool on_gpu) {
  const void *function = function_for(on_gpu, own_worker::halving_kernel(), reinterpret_cast<const void *>(halve_on_the_host));
  const auto wide = check(gmb::queue<uint64_t>::create(context, 64));
  must(check(wide.push_from_host_blocking(std::vector<uint64_t>{4})) == 1, "an item has room");
  const auto worker = check(gmb::persistent_worker::create(gmb::worker_options(wide).with_function(function)));
  check(worker.start());
  const auto ended = worker.wait();
  must(!ended.ok() && ended.status().code() == GMB_ERROR_WRONG_MODE, "a functor for items of another size is told");
  must(check(wide.info()).size == 1, "and touches none");
}

}  // namespace

int main(int argc, char **argv) {
  gmb_backend backend = GMB_BACKEND_AUTO;
  if (argc == 3 && std::strcmp(argv[1], "--backend") == 0)
    backend = std::strcmp(argv[2], "cuda") == 0 ? GMB_BACKEND_CUDA : GMB_BACKEND_HOST;
  const gmb::context context = check(gmb::context::create(backend));
  const bool on_gpu = running::is_on_gpu(context);
  halve_all(context, on_gpu);
  stop_what_does_not_end(context, on_gpu);
  items_of_another_size(context, on_gpu);
  std::printf("ok: functors of one's own, on %s\n", on_gpu ? "the GPU" : "the host");
  return 0;
}
