/* Tensors for device code: one side publishes as the library does, into slots that it knows to be free; several others take
 * and release. Each tensor is taken once, in order, with all that its producer wrote.
 *
 * The ring's protocol is what is shown; the producer's bytes are plain memory that it uses again, so that a sanitizer sees
 * who looks at them without order. */
#include "fixture.h"

#include <gpumailbox/tensor.cuh>

namespace {

using gmb::ring::taken_tensor;

constexpr uint64_t elements = 32;

struct shared_ring {
  explicit shared_ring(uint64_t capacity)
      : memory(sizeof(gmb_tensor_ring) + capacity * sizeof(gmb_tensor_slot), 0), released(capacity, 0),
        bytes(capacity * elements, 0), view{reinterpret_cast<gmb_tensor_ring *>(memory.data()), released.data(), capacity} {}

  std::vector<unsigned char> memory;
  std::vector<uint64_t> released;
  std::vector<uint64_t> bytes;
  const gmb_tensor_view view;
};

void many_takers(uint64_t capacity, uint64_t total, int takers) {
  shared_ring r(capacity);
  std::atomic<uint64_t> taken{0}, wrong{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < takers; ++t) {
    threads.emplace_back([&] {
      uint64_t last = 0;
      while (taken.load(std::memory_order_relaxed) < total) {
        taken_tensor one{};
        if (!gmb::ring::try_take(r.view, one)) {
          std::this_thread::yield();
          continue;
        }
        ++taken;
        bool good = one.tensor->tag == one.index && one.index + 1 > last && one.tensor->ndim == 1 &&
                    one.tensor->shape[0] == static_cast<int64_t>(elements) && one.tensor->strides[7] == -7;
        last = one.index + 1;
        const uint64_t *from = reinterpret_cast<const uint64_t *>(one.tensor->address);
        for (uint64_t i = 0; i < elements; ++i) good = good && from[i] == one.index * 1000 + i;
        if (!good) ++wrong;
        gmb::ring::release(r.view, one);
      }
    });
  }
  for (uint64_t index = 0; index < total; ++index) {
    const uint64_t slot = index & (capacity - 1);
    /* Whoever had it says that it is done. */
    if (index >= capacity) {
      while (__atomic_load_n(&r.released[slot], __ATOMIC_ACQUIRE) != index - capacity + 1) std::this_thread::yield();
    }
    uint64_t *to = &r.bytes[slot * elements];
    for (uint64_t i = 0; i < elements; ++i) to[i] = index * 1000 + i;
    gmb_tensor tensor{};
    tensor.address = reinterpret_cast<uint64_t>(to);
    tensor.tag = index;
    tensor.ndim = 1;
    tensor.shape[0] = static_cast<int64_t>(elements);
    tensor.strides[7] = -7;
    uint64_t word[gmb::ring::block_words] = {};
    gmb::ring::publish(host_block{word, 0, 1}, r.view.ring, capacity, index, tensor);
  }
  for (auto &thread : threads) thread.join();
  EXPECT(taken == total);
  EXPECT(wrong == 0);
}

/* Nothing published, nothing taken; and what is published behind a gap waits for it. */
void in_order() {
  shared_ring r(4);
  taken_tensor one{};
  EXPECT(!gmb::ring::try_take(r.view, one));
  uint64_t word[gmb::ring::block_words] = {};
  gmb_tensor tensor{};
  const auto publish = [&](uint64_t index) {
    tensor.tag = index;
    gmb::ring::publish(host_block{word, 0, 1}, r.view.ring, 4, index, tensor);
  };
  publish(1);
  EXPECT(!gmb::ring::try_take(r.view, one));
  publish(0);
  EXPECT(gmb::ring::try_take(r.view, one) && one.tensor->tag == 0 && one.index == 0);
  gmb::ring::release(r.view, one);
  EXPECT(r.released[0] == 1 && r.released[1] == 0);
  EXPECT(gmb::ring::try_take(r.view, one) && one.tensor->tag == 1);
  EXPECT(!gmb::ring::try_take(r.view, one));
}

}  // namespace

int main(int argc, char **argv) {
  suite s(argc, argv);
  s.test("tensors in order", in_order);
  s.test("one taker", [&] { many_takers(4, s.total / 4, 1); });
  s.test("takers beside takers", [&] { many_takers(8, s.total / 4, 3); });
  s.test("a ring of one slot", [&] { many_takers(1, s.total / 8, 2); });
  return s.finish();
}
