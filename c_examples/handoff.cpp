// Tensors handed over by pointer: a producer makes them in its own stream, a consumer uses each on two streams,
// and it goes back to the producer when both are done with it. handoff.c and ../examples/handoff.rs do the same
// and print the same.
#include "check.hpp"

#include <gpumailbox/dlpack.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdio>
#include <functional>
#include <memory>
#include <thread>

constexpr uint64_t tensors = 200;
constexpr uint64_t capacity = 16;
constexpr int32_t most_dimensions = 4;
constexpr uint64_t most_size = 8;  // of a dimension
constexpr uint64_t most_elements = most_size * most_size * most_size * most_size;
constexpr uint64_t most_polls = 100'000'000;

static std::atomic<unsigned> given_back{0};

// A tensor and what it points to.
struct owned {
  DLManagedTensorVersioned managed{};
  std::array<int64_t, most_dimensions> shape{};
  gmb::device_buffer<float> memory;

  ~owned() { ++given_back; }
};

static uint8_t content_of(uint64_t number) { return static_cast<uint8_t>(1 + number % 250); }
static int32_t dimensions_of(uint64_t number) { return static_cast<int32_t>(1 + number % most_dimensions); }
static int64_t size_of(uint64_t number, int32_t dimension) {
  return static_cast<int64_t>(1 + (number + 3 * static_cast<uint64_t>(dimension)) % most_size);
}
static uint64_t elements_of(uint64_t number) {
  uint64_t elements = 1;
  for (int32_t i = 0; i < dimensions_of(number); ++i) elements *= static_cast<uint64_t>(size_of(number, i));
  return elements;
}

static gmb::managed_tensor make(const gmb::context &context, DLDevice device, uint64_t number) {
  auto made = std::make_unique<owned>();
  made->memory = check(gmb::device_buffer<float>::create(context, elements_of(number)));
  made->managed.version = {DLPACK_MAJOR_VERSION, DLPACK_MINOR_VERSION};
  made->managed.manager_ctx = made.get();
  // The library calls this, on a thread of its own, when nobody uses the tensor any more.
  made->managed.deleter = [](DLManagedTensorVersioned *self) { delete static_cast<owned *>(self->manager_ctx); };
  DLTensor &tensor = made->managed.dl_tensor;
  tensor.data = made->memory.data();
  tensor.device = device;
  tensor.dtype = {kDLFloat, 32, 1};
  tensor.ndim = dimensions_of(number);
  for (int32_t i = 0; i < tensor.ndim; ++i) made->shape[i] = size_of(number, i);
  tensor.shape = made->shape.data();  // no strides: rows one behind the other
  return gmb::managed_tensor(&made.release()->managed);
}

struct producer {
  const gmb::context &context;
  const gmb::tensor_mailbox &mailbox;
  DLDevice device;
  std::array<uint64_t, tensors> pushed{};  // addresses; each is written before its push, and read after its pop

  void operator()() {
    const auto stream = check(gmb::stream::create(context));
    for (uint64_t number = 0; number < tensors; ++number) {
      auto tensor = make(context, device, number);
      void *elements = tensor->dl_tensor.data;
      pushed[number] = reinterpret_cast<uintptr_t>(elements);
      check(context.fill(elements, content_of(number), elements_of(number) * sizeof(float), stream));
      // The fill may still be under way: the consumer's streams will wait for it, no thread does.
      check(mailbox.push(tensor, stream, number));
    }
  }
};

// Those under way come back when a thread of the library has seen that their streams are done.
static gmb_tensor_mailbox_info when_all_are_back(const gmb::tensor_mailbox &mailbox) {
  auto info = check(mailbox.info());
  for (uint64_t polls = 0; (info.released != info.pushed || info.leases > 0) && polls < most_polls; ++polls) {
    std::this_thread::yield();
    info = check(mailbox.info());
  }
  return info;
}

int main() {
  const auto context = check(gmb::context::create());
  const auto backend = check(context.info());
  const bool on_cuda = backend.backend == GMB_BACKEND_CUDA;
  const DLDevice device{on_cuda ? kDLCUDA : kDLCPU, on_cuda ? static_cast<int32_t>(backend.device) : 0};
  const auto mailbox = check(gmb::tensor_mailbox::create(context, capacity, GMB_FULL_WAIT));
  const gmb::stream streams[2] = {check(gmb::stream::create(context)), check(gmb::stream::create(context))};
  const gmb::pinned_buffer<uint8_t> seen[2] = {
      check(gmb::pinned_buffer<uint8_t>::create(context, most_elements * sizeof(float))),
      check(gmb::pinned_buffer<uint8_t>::create(context, most_elements * sizeof(float)))};
  producer from{context, mailbox, device};
  std::thread thread(std::ref(from));

  uint64_t elements = 0, equal = 0;
  for (uint64_t number = 0; number < tensors; ++number) {
    const uint64_t bytes = elements_of(number) * sizeof(float);
    {
      const auto lease = check(mailbox.pop(streams[0], gmb::forever));
      const gmb_tensor &tensor = lease.tensor();
      must(tensor.tag == number, "the tensors should come in order");
      must(tensor.ndim == dimensions_of(number), "it should have its dimensions");
      for (int32_t i = 0; i < tensor.ndim; ++i) must(tensor.shape[i] == size_of(number, i), "it should have its shape");
      equal += tensor.address == from.pushed[number];
      elements += elements_of(number);

      // The second stream comes after the producer's work, too, and its use of the tensor is waited for.
      check(lease.use(streams[1]));
      for (int i = 0; i < 2; ++i) check(context.copy(seen[i].data(), lease.data<float>(), bytes, streams[i]));
      // The lease ends, and both copies may still be under way: the memory stays until they are done.
    }
    for (int i = 0; i < 2; ++i) {
      check(streams[i].synchronize());
      const auto end = seen[i].begin() + bytes;
      must(std::count(seen[i].begin(), end, content_of(number)) == end - seen[i].begin(), "it should be filled");
    }
  }
  thread.join();
  const auto info = when_all_are_back(mailbox);
  std::printf("%llu tensors handed over, %llu elements, all seen on two streams\n",
              static_cast<unsigned long long>(info.popped), static_cast<unsigned long long>(elements));
  std::printf("%llu pointers equal, %u given back, %llu leases out\n", static_cast<unsigned long long>(equal),
              given_back.load(), static_cast<unsigned long long>(info.leases));
  must(info.popped == tensors && equal == tensors && info.leases == 0, "every tensor should have come as it was pushed");
  must(info.released == tensors && given_back == tensors, "every tensor should have gone back");
}
