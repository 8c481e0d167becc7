// Tensors for a consumer that is device code, on the host backend: functions in two streams take them out of the ring as
// kernels would, with the same header. tensor_consumer.cu does it with kernels.
#include "check.hpp"

#include <gpumailbox/dlpack.h>
#include <gpumailbox/tensor.cuh>

#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <mutex>
#include <thread>
#include <vector>

constexpr uint64_t tensors = 1000;
constexpr uint64_t capacity = 16;
constexpr size_t pieces = 24;
constexpr int64_t most_rows = 32, pitch = 40;  // elements from row to row; a row's last ones are nobody's
constexpr int consumers = 2;
constexpr auto limit = std::chrono::minutes(1);
constexpr uint64_t most_polls = 100'000'000;

static int64_t rows_of(uint64_t number) { return static_cast<int64_t>(1 + number % most_rows); }
static int64_t columns_of(uint64_t number) { return static_cast<int64_t>(1 + 7 * number % (pitch - 1)); }
static float element_of(uint64_t number, int64_t row, int64_t column) {
  return static_cast<float>((number + 3 * static_cast<uint64_t>(row) + static_cast<uint64_t>(column)) % 16);
}

// The producer's memory, in pieces that are used again and again: a tensor's deleter puts its piece back.
class shelf {
 public:
  struct piece {
    DLManagedTensorVersioned managed{};
    std::array<int64_t, 2> shape{}, strides{};
    float *elements = nullptr;
    shelf *home = nullptr;
  };

  explicit shelf(const gmb::context &context)
      : memory_(check(gmb::device_buffer<float>::create(context, pieces * most_rows * pitch))), all_(pieces) {
    for (size_t i = 0; i < pieces; ++i) {
      all_[i].elements = memory_.data() + i * most_rows * pitch;
      all_[i].home = this;
      free_.push_back(&all_[i]);
    }
  }

  // Waits until one is there.
  piece *take() {
    std::unique_lock<std::mutex> lock(mutex_);
    must(came_back_.wait_for(lock, limit, [this] { return !free_.empty(); }), "a tensor should have come back");
    piece *taken = free_.back();
    free_.pop_back();
    return taken;
  }

  // The deleter. Beside a consumer that runs all the time it must not wait for the device, as freeing memory does.
  static void put_back(DLManagedTensorVersioned *self) {
    auto *back = static_cast<piece *>(self->manager_ctx);
    shelf &home = *back->home;
    const std::lock_guard<std::mutex> lock(home.mutex_);
    home.free_.push_back(back);
    home.came_back_.notify_one();
  }

 private:
  gmb::device_buffer<float> memory_;
  std::vector<piece> all_;
  std::mutex mutex_;
  std::condition_variable came_back_;
  std::vector<piece *> free_;
};

static gmb::managed_tensor describe(shelf::piece &of, uint64_t number) {
  of.shape = {rows_of(number), columns_of(number)};
  of.strides = {pitch, 1};
  of.managed = {};
  of.managed.version = {DLPACK_MAJOR_VERSION, DLPACK_MINOR_VERSION};
  of.managed.manager_ctx = &of;
  of.managed.deleter = shelf::put_back;
  DLTensor &tensor = of.managed.dl_tensor;
  tensor.data = of.elements;
  tensor.device = {kDLCPU, 0};
  tensor.dtype = {kDLFloat, 32, 1};
  tensor.ndim = 2;
  tensor.shape = of.shape.data();
  tensor.strides = of.strides.data();
  return gmb::managed_tensor(&of.managed);
}

static void fill(float *elements, uint64_t number) {
  for (int64_t row = 0; row < rows_of(number); ++row) {
    for (int64_t column = 0; column < pitch; ++column) {
      elements[row * pitch + column] = column < columns_of(number) ? element_of(number, row, column) : -1000;
    }
  }
}

struct outcome {
  uint64_t tag;
  double sum;
};

// What all consumers do together.
struct progress {
  std::atomic<uint64_t> taken{0}, polls{0};
};

// Takes tensors until all have come; gives up after so many polls that found nothing.
static void consume(const gmb_tensor_view &inbox, std::vector<outcome> &outcomes, progress &all) {
  while (all.taken < tensors && all.polls < most_polls) {
    gmb::ring::taken_tensor one;
    if (!gmb::ring::try_take(inbox, one)) {
      ++all.polls;
      std::this_thread::yield();
      continue;
    }
    ++all.taken;
    const gmb_tensor &tensor = *one.tensor;
    const auto *elements = reinterpret_cast<const float *>(tensor.address + tensor.byte_offset);
    double sum = 0;
    for (int64_t row = 0; row < tensor.shape[0]; ++row) {
      for (int64_t column = 0; column < tensor.shape[1]; ++column) {
        sum += elements[row * tensor.strides[0] + column * tensor.strides[1]];
      }
    }
    outcomes[one.index] = {tensor.tag, sum};
    gmb::ring::release(inbox, one);
  }
}

static double expected_sum(uint64_t number) {
  double sum = 0;
  for (int64_t row = 0; row < rows_of(number); ++row) {
    for (int64_t column = 0; column < columns_of(number); ++column) sum += element_of(number, row, column);
  }
  return sum;
}

int main() {
  const auto context = check(gmb::context::create(GMB_BACKEND_HOST));
  shelf memory(context);
  const auto making = check(gmb::stream::create(context));
  const gmb::stream taking[consumers] = {check(gmb::stream::create(context)), check(gmb::stream::create(context))};
  const auto mailbox = check(gmb::tensor_mailbox::create(context, capacity, GMB_FULL_WAIT, GMB_CONSUMER_DEVICE));

  // In place of a kernel, a function that runs as long as one would: here each stream has a thread of its own.
  std::vector<outcome> outcomes(tensors);
  progress all;
  for (const gmb::stream &stream : taking) {
    const auto inbox = check(mailbox.view(stream));
    check(stream.run([inbox, &outcomes, &all] { consume(inbox, outcomes, all); }));
  }

  for (uint64_t number = 0; number < tensors; ++number) {
    shelf::piece *piece = memory.take();
    check(making.run([elements = piece->elements, number] { fill(elements, number); }));
    auto tensor = describe(*piece, number);
    check(mailbox.push(tensor, making, number, limit));
  }
  for (const gmb::stream &stream : taking) check(stream.synchronize());

  auto info = check(mailbox.info());
  for (uint64_t polls = 0; info.released != info.pushed && polls < most_polls; ++polls) {
    std::this_thread::yield();
    info = check(mailbox.info());
  }
  uint64_t right = 0;
  for (uint64_t number = 0; number < tensors; ++number) {
    right += outcomes[number].tag == number && outcomes[number].sum == expected_sum(number);
  }
  std::printf("%llu tensors through %llu slots, %llu sums right, %llu given back\n",
              static_cast<unsigned long long>(all.taken.load()), static_cast<unsigned long long>(capacity),
              static_cast<unsigned long long>(right), static_cast<unsigned long long>(info.released));
  must(all.taken == tensors && right == tensors, "every tensor should have been summed up");
  must(info.released == tensors, "every tensor should have gone back");
}
