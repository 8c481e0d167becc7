// The queue rows: items of 4 bytes through a queue that as many threads as are resident share, and the same through the
// yardstick of broker.cuh, in turns. Only pushes and pops that succeed count. Ours is used as `items_alone`: an item is all
// there is, and nobody needs to see what was written before it. Part of mailbox.cu.
#ifndef GMB_BENCHES_QUEUE_CUH
#define GMB_BENCHES_QUEUE_CUH

#include "broker.cuh"

using our_queue = gmb::device::work_queue<uint32_t, gmb::device::items_alone>;

// What a run moved. The sums are of the items themselves, of which no two are the same.
struct queue_tally {
  word64 pushed, popped, drained;
  unsigned pushed_sum, popped_sum;
  // Popped as far as consumers have told, and whether that is enough.
  alignas(128) word64 through;
  alignas(128) unsigned stop;
};

constexpr unsigned queue_block = 256, queue_blocks_of_sm = 2048 / queue_block;

// Items that a thread has pushed, or popped.
struct queue_count {
  unsigned items = 0, sum = 0;
  __device__ void add(bool done, unsigned item) {
    items += done;
    sum += done ? item : 0;
  }
};
// Added up for the block and then for all; all threads of the block call it once.
__device__ inline void tell_counts(const queue_count &pushed, const queue_count &popped, queue_tally *tally,
                                   word64 *popped_in_all) {
  __shared__ unsigned sum[4];
  if (threadIdx.x < 4) sum[threadIdx.x] = 0;
  __syncthreads();
  const unsigned mine[] = {pushed.items, popped.items, pushed.sum, popped.sum};
#pragma unroll
  for (int i = 0; i < 4; ++i) atomicAdd(&sum[i], mine[i]);
  __syncthreads();
  if (threadIdx.x != 0) return;
  atomicAdd(&tally->pushed, static_cast<word64>(sum[0]));
  atomicAdd(popped_in_all, static_cast<word64>(sum[1]));
  atomicAdd(&tally->pushed_sum, sum[2]);
  atomicAdd(&tally->popped_sum, sum[3]);
}

template <class Group> __device__ Group queue_group(uint64_t *word) {
  if constexpr (std::is_same_v<Group, one_block>) return one_block{word};
  else return Group{};
}

// Each group pushes an item a thread and then pops as many, so many times. `first` makes the items of each run new.
template <class Queue, class Group, class Memory>
__global__ void __launch_bounds__(queue_block, queue_blocks_of_sm)
    queue_in_balance(Memory *memory, unsigned rounds, unsigned first, queue_tally *tally) {
  __shared__ uint64_t word;
  const Group group = queue_group<Group>(&word);
  const Queue queue(memory);
  queue_count pushed, popped;
  unsigned item = first + blockIdx.x * blockDim.x + threadIdx.x;
  for (unsigned round = 0; round < rounds; ++round, item += gridDim.x * blockDim.x) {
    pushed.add(queue.try_push_each(group, item), item);
    unsigned got = 0;
    const bool done = queue.try_pop_each(group, got);
    popped.add(done, got);
  }
  tell_counts(pushed, popped, tally, &tally->popped);
}

// So many quarters of the warps push and the others pop, until enough items are through. Whoever fails backs off, from
// one failure in a row to the next for longer. A warp that has tried so often ends: the row is an error then.
template <class Queue, class Memory>
__global__ void __launch_bounds__(queue_block, queue_blocks_of_sm)
    queue_out_of_balance(Memory *memory, unsigned quarters, word64 enough, unsigned first, queue_tally *tally) {
  constexpr unsigned most_tries = 1u << 18, told_at_once = 256;
  const one_warp warp;
  const Queue queue(memory);
  queue_count mine;
  // Pairs of warps: every fourth one alone would be of one scheduler.
  const bool produces = threadIdx.x / 64 % 4 < quarters;
  unsigned failed = 0, untold = 0;
  for (unsigned tries = 0; tries < most_tries; ++tries) {
    // Not at each try: the look at this word is not what is measured. All lanes must see the same.
    if (tries % 16 == 15 && __any_sync(~0u, *static_cast<volatile unsigned *>(&tally->stop) != 0)) break;
    unsigned moved;
    if (produces) {
      const unsigned item = first + (mine.items * gridDim.x + blockIdx.x) * blockDim.x + threadIdx.x;
      const bool done = queue.try_push_each(warp, item);
      mine.add(done, item);
      moved = __ballot_sync(~0u, done);
    } else {
      unsigned got = 0;
      const bool done = queue.try_pop_each(warp, got);
      mine.add(done, got);
      moved = __ballot_sync(~0u, done);
      untold += static_cast<unsigned>(__popc(moved));
      if (untold >= told_at_once) {
        if (threadIdx.x % 32 == 0 && atomicAdd(&tally->through, static_cast<word64>(untold)) + untold >= enough)
          *static_cast<volatile unsigned *>(&tally->stop) = 1;
        untold = 0;
      }
    }
    if (moved != 0) failed = 0;
    else back_off(failed++);
  }
  const queue_count none;
  tell_counts(produces ? mine : none, produces ? none : mine, tally, &tally->popped);
}

// What a run has left, after it: not part of what is timed. Few warps, that stop when they found nothing so many times.
template <class Queue, class Memory> __global__ void drain_queue(Memory *memory, queue_tally *tally) {
  const one_warp warp;
  const Queue queue(memory);
  queue_count popped;
  for (unsigned failed = 0, tries = 0; failed < 16 && tries < 1u << 16; ++tries) {
    unsigned got = 0;
    const bool done = queue.try_pop_each(warp, got);
    popped.add(done, got);
    if (__any_sync(~0u, done)) failed = 0;
    else back_off(failed++);
  }
  tell_counts(queue_count(), popped, tally, &tally->drained);
}

// A queue of the library, and what it must look like after a run.
class our_items {
public:
  using queue = our_queue;
  using its_memory = gmb_queue_header;
  explicit our_items(const library &lib) {
    gmb_queue_options options = GMB_QUEUE_OPTIONS_INIT;
    options.item_bytes = 4;
    options.capacity = broker_memory::capacity;
    OK(gmb_queue_create(lib.id, &options, &id));
    before_ = info();
  }
  ~our_items() { gmb_queue_destroy(id); }
  our_items(const our_items &) = delete;
  our_items &operator=(const our_items &) = delete;
  gmb_queue_header *memory() const { return before_.queue; }
  // Its rounds go on from run to run: nothing is cleared.
  void clear(cudaStream_t) const {}
  void verify(word64 pushed) {
    const gmb_queue_info now = info();
    if (now.size != 0 || now.pushed != now.popped) throw failure("the queue is not empty after a run");
    if (now.pushed - before_.pushed != pushed) throw failure("the queue counts other pushes than its producers");
    before_ = now;
  }
  gmb_queue id{};

private:
  gmb_queue_info before_{};
  gmb_queue_info info() const {
    gmb_queue_info all{};
    OK(gmb_queue_get_info(id, &all, sizeof all));
    return all;
  }
};

template <bool looks> class broker_items {
public:
  using queue = broker_queue<looks>;
  using its_memory = broker_memory;
  broker_memory *memory() const { return at_.at; }
  void clear(cudaStream_t on) const { CHECK(cudaMemsetAsync(at_.at, 0, sizeof(broker_memory), on)); }
  void verify(word64 pushed) const {
    unsigned words[4];
    const void *const from[] = {&at_.at->count, &at_.at->tail, &at_.at->head, &at_.at->stuck};
    for (int i = 0; i < 4; ++i) CHECK(cudaMemcpy(&words[i], from[i], sizeof words[i], cudaMemcpyDeviceToHost));
    if (words[3] != 0) throw failure("a slot's turn did not come");
    if (words[0] != 0 || words[1] != words[2]) throw failure("the yardstick is not empty after a run");
    if (words[1] != static_cast<unsigned>(pushed)) throw failure("the yardstick counts other pushes than its producers");
  }

private:
  const device<broker_memory> at_;
};

// The blocks of a kernel that are resident at once.
template <class F> unsigned resident_blocks(F *kernel) {
  int each = 0;
  CHECK(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&each, kernel, queue_block, 0));
  if (each < 1) throw failure("the kernel does not fit on a multiprocessor");
  return static_cast<unsigned>(each * multiprocessors());
}

// One run of a kernel, which `start(its items, where it tells)` launches: billions of successful operations in a second.
template <class Items, class Start> double queue_rate(Items &items, cudaStream_t on, bool stops, const Start &start) {
  static unsigned run = 0;
  const device<queue_tally> tally;
  items.clear(on);
  // What an older run left behind would be noticed: its items were others.
  const unsigned first = ++run * 0x9e3779b1u;
  const double us = gpu_us(on, 50, [&] { start(first, tally.at); });
  launch(drain_queue<typename Items::queue, typename Items::its_memory>, 1, queue_block, on, items.memory(), tally.at);
  synchronize(on);
  queue_tally seen{};
  CHECK(cudaMemcpy(&seen, tally.at, sizeof seen, cudaMemcpyDeviceToHost));
  if (seen.pushed == 0) throw failure("nothing was pushed");
  if (stops && seen.stop == 0) throw failure("the warps gave up before enough items were through");
  if (seen.pushed != seen.popped + seen.drained) throw failure("more or fewer items were popped than pushed");
  if (seen.pushed_sum != seen.popped_sum) throw failure("other items were popped than pushed");
  items.verify(seen.pushed);
  return static_cast<double>(seen.pushed + seen.popped) / us * 1e-3;
}

// Some milliseconds each.
template <class Group, class Items> double balanced_rate(Items &items, cudaStream_t on) {
  constexpr unsigned rounds = std::is_same_v<Group, one_block> ? 400 : 100;
  auto *const kernel = queue_in_balance<typename Items::queue, Group, typename Items::its_memory>;
  const unsigned blocks = resident_blocks(kernel);
  return queue_rate(items, on, false, [&](unsigned first, queue_tally *tally) {
    launch(kernel, blocks, queue_block, on, items.memory(), rounds, first, tally);
  });
}
// So many quarters of the warps push. There are far more items than consumers have popped and not told yet.
template <class Items> double unbalanced_rate(Items &items, cudaStream_t on, unsigned quarters) {
  constexpr word64 enough = 1u << 25;
  auto *const kernel = queue_out_of_balance<typename Items::queue, typename Items::its_memory>;
  const unsigned blocks = resident_blocks(kernel);
  return queue_rate(items, on, true, [&](unsigned first, queue_tally *tally) {
    launch(kernel, blocks, queue_block, on, items.memory(), quarters, enough, first, tally);
  });
}

// Of rates.
double middle_of(samples all) {
  std::nth_element(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(all.size() / 2), all.end());
  return all[all.size() / 2];
}
const samples &slower(const samples &a, const samples &b) { return middle_of(a) < middle_of(b) ? a : b; }
const samples &faster(const samples &a, const samples &b) { return middle_of(a) < middle_of(b) ? b : a; }

// Ours and the yardstick in turns: `rates(items, stream)` gives one or more rates of either.
template <size_t count, class Rates>
std::array<samples, 3 * count> beside_broker(const report &out, const library &lib, const Rates &rates) {
  const stream on;
  our_items ours(lib);
  broker_items<false> plain;
  broker_items<true> looking;
  return out.repeat_together<3 * count>(3, 30, [&](int) {
    const std::array<double, count> all[] = {rates(ours, on), rates(plain, on), rates(looking, on)};
    std::array<double, 3 * count> flat;
    for (size_t i = 0; i < 3 * count; ++i) flat[i] = all[i / count][i % count];
    return flat;
  });
}
template <class Group> std::array<samples, 2> in_balance(const report &out, const library &lib) {
  const auto all = beside_broker<1>(out, lib, [](auto &items, cudaStream_t on) {
    return std::array<double, 1>{balanced_rate<Group>(items, on)};
  });
  return {all[0], faster(all[1], all[2])};
}
// The worse way of ours and of the yardstick, and both ways of ours.
std::array<samples, 4> out_of_balance(const report &out, const library &lib) {
  const auto all = beside_broker<2>(out, lib, [](auto &items, cudaStream_t on) {
    return std::array<double, 2>{unbalanced_rate(items, on, 1), unbalanced_rate(items, on, 3)};
  });
  return {slower(all[0], all[1]), faster(slower(all[2], all[3]), slower(all[4], all[5])), all[0], all[1]};
}

// Batches that a launch pushes and a launch pops, as the library measures them itself.
samples queue_round_trips(const report &out, const library &lib) {
  const our_items items(lib);
  return out.repeat(1, 10, [&](int) {
    constexpr uint32_t batch = 1u << 16, times = 100;
    gmb_queue_measurement found{};
    OK(gmb_queue_measure(items.id, batch, times, &found));
    if (found.items != uint64_t{batch} * times) throw failure("the library measured another number of items");
    return found.items_per_second * 1e-6;
  });
}

void measure_queues(report &out, const library &lib) {
  constexpr const char *unit = "G operations/s";
  constexpr const char *as_published = "a count, tickets and turns as published, one atomic for a group";
  const auto beside = [&](const std::string &tail) -> std::array<row, 2> {
    return {row("queue_" + tail, unit).beside("broker_" + tail, as_published), row("broker_" + tail, unit)};
  };
  out.together<2>(beside("warp_balanced"), [&] { return in_balance<one_warp>(out, lib); });
  out.together<2>(beside("block_balanced"), [&] { return in_balance<one_block>(out, lib); });
  const auto worse = beside("warp_25_75");
  out.together<4>({worse[0], worse[1], row("queue_warp_25_produce", unit), row("queue_warp_75_produce", unit)},
                  [&] { return out_of_balance(out, lib); });
  out.add({"queue_round_trip", "M items/s"}, [&] { return queue_round_trips(out, lib); });
}

#endif
