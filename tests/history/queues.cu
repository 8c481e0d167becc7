// Histories of work queues on a GPU: threads, warps and blocks that push and pop at once, all of it checked on the CPU. With
// GMB_CHAOS there are random delays inside.
//   nvcc -arch=native -O3 -std=c++17 -Iinclude tests/history/queues.cu -o queues && ./queues SEED OPERATIONS
#include "check.h"

#include <gpumailbox/queue.cuh>

#include <cuda_runtime.h>

#include <cstdio>
#include <cstdlib>
#include <random>
#include <stdexcept>

namespace {

using gmb::ring::claim;
using gmb::ring::item_ring;
using gmb::ring::one_block;
using gmb::ring::one_thread;
using gmb::ring::one_warp;
using gmb::ring::unit;
using history::event;

#define CHECK(call)                                                                                        \
  do {                                                                                                     \
    const cudaError_t told = (call);                                                                       \
    if (told != cudaSuccess) throw std::runtime_error(std::string(#call ": ") + cudaGetErrorString(told)); \
  } while (0)

/* Of all multiprocessors; what comes before it in the program has happened before it. */
__device__ uint64_t now() {
  uint64_t t;
  asm volatile("fence.acq_rel.gpu; mov.u64 %0, %globaltimer; fence.acq_rel.gpu;" : "=l"(t)::"memory");
  return t;
}

__host__ __device__ uint64_t mix(uint64_t x) {
  x ^= x >> 30;
  x *= 0xbf58476d1ce4e5b9ull;
  x ^= x >> 27;
  x *= 0x94d049bb133111ebull;
  return x ^ x >> 31;
}

/* An item that holds a number, and whether it is whole. */
__device__ void make(uint32_t &item, uint64_t n) { item = static_cast<uint32_t>(n); }
__device__ void make(uint64_t &item, uint64_t n) { item = n | mix(n) << 32; }
__device__ void make(unit &item, uint64_t n) {
  item.lo = n;
  item.hi = mix(n);
}
__device__ bool whole(const uint32_t &, uint64_t) { return true; }
__device__ bool whole(const uint64_t &item, uint64_t n) { return item >> 32 == (mix(n) & 0xffffffffu); }
__device__ bool whole(const unit &item, uint64_t n) { return item.hi == mix(n); }
__device__ uint64_t number_in(const uint32_t &item) { return item; }
__device__ uint64_t number_in(const uint64_t &item) { return item & 0xffffffffu; }
__device__ uint64_t number_in(const unit &item) { return item.lo; }

/* Items of an operation, of memory: few, so that many operations meet. Where each lane has its own: as many as lanes. */
constexpr uint32_t most = 8;

struct job {
  gmb_queue_header *queue;
  event *events; /* a group's pushes from the front of its part on, its pops from its back on */
  uint32_t part, attempts;
  uint64_t seed;
  uint32_t *pushed, *popped;
  unsigned long long *succeeded, *torn;
};

/* Logs the items of a claim, the first of which is the `n`-th of the group. */
__device__ event told(uint64_t start, uint64_t end, uint64_t ticket, uint64_t value) { return {start, end, ticket, value}; }

/* Tries operations, pushes and pops by chance, of items in memory and of an item of each lane. The same steps as those of
 * work_queue's functions, which do not tell tickets. Nobody waits: what does not succeed is not tried again. */
template <class T, class Group> __device__ void try_all(const Group &group, const job &j, uint32_t number, T *items) {
  const item_ring<T> ring(j.queue);
  event *events = j.events + static_cast<uint64_t>(number) * j.part;
  uint32_t pushed = 0, popped = 0, succeeded = 0;
  for (uint32_t k = 0; k < j.attempts; ++k) {
    const uint64_t dice = mix(j.seed + (static_cast<uint64_t>(number) << 32) + k);
    const bool each = (dice & 2) != 0, pushes = (dice & 1) != 0;
    const bool takes_part = mix(dice + group.lane()) % 4 != 0;
    uint32_t total = 1 + static_cast<uint32_t>(dice >> 8) % most, rank = 0;
    group.sync();
    const uint64_t start = now();
    if (each) rank = gmb::ring::rank_of(group, takes_part, total);
    if (pushed + popped + total > j.part) break;
    uint64_t *credits = pushes ? &j.queue->space : &j.queue->items, *tickets = pushes ? &j.queue->tail : &j.queue->head;
    claim mine = {0, 0};
    if (group.lane() == 0 && total > 0) mine = gmb::ring::take_claim(credits, tickets, total);
    mine = gmb::ring::told_by_leader(group, mine);
    const uint64_t base = static_cast<uint64_t>(number) * j.part + pushed;
    T item = T();
    const bool moves = each && takes_part && rank < mine.count;
    if (pushes && each) {
      make(item, base + rank);
      ring.put(mine.first + rank, item, moves);
    } else if (pushes) {
      for (uint32_t i = group.lane(); i < mine.count; i += group.lanes()) make(items[i], base + i);
      group.sync();
      gmb::ring::put_items(group, ring, mine, items);
    } else if (each) {
      item = ring.get(mine.first + rank, moves);
    } else {
      gmb::ring::get_items(group, ring, mine, items);
    }
    if (group.lane() == 0 && mine.count > 0)
      gmb::ring::add_relaxed(pushes ? &j.queue->items : &j.queue->space, static_cast<uint64_t>(mine.count));
    group.sync();
    const uint64_t end = now();
    const auto log = [&](uint32_t i, const T &what) {
      const uint64_t value = pushes ? base + i : number_in(what);
      if (!pushes && !whole(what, value)) atomicAdd(j.torn, 1ull);
      events[pushes ? pushed + i : j.part - 1 - popped - i] = told(start, end, mine.first + i, value);
    };
    if (moves) log(rank, item);
    for (uint32_t i = group.lane(); !each && i < mine.count; i += group.lanes()) log(i, items[i]);
    (pushes ? pushed : popped) += mine.count;
    succeeded += mine.count > 0;
    group.sync();
  }
  if (group.lane() != 0) return;
  j.pushed[number] = pushed;
  j.popped[number] = popped;
  atomicAdd(j.succeeded, static_cast<unsigned long long>(succeeded));
}

template <class T> __global__ void by_thread(job j) {
  T items[most];
  try_all(one_thread{}, j, blockIdx.x * blockDim.x + threadIdx.x, items);
}
template <class T> __global__ void by_warp(job j) {
  __shared__ T items[8][most];
  try_all(one_warp{}, j, blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, items[threadIdx.x / 32]);
}
template <class T> __global__ void by_block(job j) {
  __shared__ T items[most];
  __shared__ uint64_t word;
  try_all(one_block{&word}, j, blockIdx.x, items);
}

/* What is left. */
template <class T> __global__ void drain(job j) {
  const item_ring<T> ring(j.queue);
  uint32_t popped = 0;
  for (;;) {
    const uint64_t start = now();
    const claim mine = gmb::ring::take_claim(&j.queue->items, &j.queue->head, 1);
    if (mine.count == 0) break;
    const T item = ring.get(mine.first, true);
    gmb::ring::add_relaxed(&j.queue->space, static_cast<uint64_t>(1));
    if (!whole(item, number_in(item))) atomicAdd(j.torn, 1ull);
    j.events[popped++] = told(start, now(), mine.first, number_in(item));
  }
  *j.popped = popped;
}

__global__ void make_queue(gmb_queue_header *queue, uint64_t capacity, uint32_t item_bytes) {
  queue->magic = GMB_QUEUE_MAGIC;
  queue->version = GMB_LAYOUT_VERSION;
  queue->item_bytes = item_bytes;
  queue->capacity = capacity;
  queue->space = capacity;
}

template <class T> struct device {
  T *at = nullptr;
  size_t bytes;
  explicit device(size_t count) : bytes(count * sizeof(T)) { CHECK(cudaMalloc(&at, bytes)); }
  ~device() { cudaFree(at); }
  device(const device &) = delete;
  device &operator=(const device &) = delete;
  void zero() const { CHECK(cudaMemset(at, 0, bytes)); }
  std::vector<T> get(size_t count) const {
    std::vector<T> all(count);
    CHECK(cudaMemcpy(all.data(), at, count * sizeof(T), cudaMemcpyDeviceToHost));
    return all;
  }
};

constexpr uint32_t most_groups = 1u << 18, most_events = 1u << 23;
constexpr uint64_t most_capacity = 1u << 16;

struct room {
  const device<event> events{most_events};
  const device<event> rest{most_capacity};
  const device<uint32_t> pushed{most_groups}, popped{most_groups}, left{1};
  const device<unsigned long long> counts{2};
  const device<unsigned char> memory{sizeof(gmb_queue_header) + most_capacity * 32};
};

/* One round: what it was, how much it did, and what is wrong with it. */
struct outcome {
  std::string name, wrong;
  uint64_t succeeded, records;
};

template <class T> outcome run(std::mt19937_64 &random, uint32_t units, const room &in) {
  const char *kinds[] = {"threads", "warps", "blocks"};
  const uint32_t kind = static_cast<uint32_t>(random() % 3);
  const uint32_t per_block = kind == 0 ? 256 : kind == 1 ? 8 : 1;
  /* One block, as many as there are multiprocessors, all that run at once, or more than that. */
  const uint32_t grids[] = {1, units, units * 8, units * 64};
  uint32_t blocks = grids[random() % 4];
  while (blocks * per_block > most_groups) blocks /= 2;
  const uint32_t groups = blocks * per_block, threads = kind == 2 ? 96 : 256;
  const uint64_t capacity = 1ull << (random() % 4 == 0 ? random() % 7 : 7 + random() % 10);
  const uint32_t part = std::min(most_events / groups, 1u << 15);
  const uint32_t attempts = std::max(1u, part / (kind == 0 ? 4 : 24));
  outcome told{};
  told.name = std::to_string(groups) + " " + kinds[kind] + " in " + std::to_string(blocks) + " blocks, " +
              std::to_string(capacity) + " slots, items of " + std::to_string(sizeof(T)) + " bytes";
  auto *queue = reinterpret_cast<gmb_queue_header *>(in.memory.at);
  in.memory.zero();
  in.counts.zero();
  make_queue<<<1, 1>>>(queue, capacity, sizeof(T));
  const job all{queue, in.events.at, part, attempts, random(), in.pushed.at, in.popped.at, in.counts.at, in.counts.at + 1};
  if (kind == 0) by_thread<T><<<blocks, threads>>>(all);
  else if (kind == 1) by_warp<T><<<blocks, threads>>>(all);
  else by_block<T><<<blocks, threads>>>(all);
  CHECK(cudaGetLastError());
  CHECK(cudaDeviceSynchronize());
  job end = all;
  end.events = in.rest.at;
  end.popped = in.left.at;
  drain<T><<<1, 1>>>(end);
  CHECK(cudaGetLastError());
  CHECK(cudaDeviceSynchronize());
  const auto pushed = in.pushed.get(groups), popped = in.popped.get(groups), left = in.left.get(1);
  const auto counts = in.counts.get(2);
  std::vector<event> events = in.events.get(static_cast<size_t>(groups) * part), rest = in.rest.get(left[0]);
  std::vector<history::log> logs;
  for (uint32_t g = 0; g < groups; ++g) {
    event *mine = events.data() + static_cast<size_t>(g) * part;
    /* Those from the back on, in their order. */
    std::reverse(mine + part - popped[g], mine + part);
    logs.push_back({true, 0, mine, pushed[g]});
    logs.push_back({false, 0, mine + part - popped[g], popped[g]});
    told.records += pushed[g];
  }
  logs.push_back({false, 0, rest.data(), rest.size()});
  told.succeeded = counts[0];
  gmb_queue_header header;
  CHECK(cudaMemcpy(&header, queue, sizeof header, cudaMemcpyDeviceToHost));
  if (counts[1] != 0) told.wrong = std::to_string(counts[1]) + " items came out torn";
  else if (header.tail != told.records || header.head != told.records || header.space != capacity || header.items != 0)
    told.wrong = "the tickets and credits are not those of an empty queue";
  else told.wrong = history::check(logs, 0, 1, 0);
  return told;
}

int check_all(uint64_t seed, uint64_t operations) {
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  cudaDeviceProp properties;
  CHECK(cudaGetDeviceProperties(&properties, 0));
  const uint32_t units = static_cast<uint32_t>(properties.multiProcessorCount);
  std::mt19937_64 random(seed);
  const room in;
  std::printf("seed %llu\n", static_cast<unsigned long long>(seed));
  uint64_t done = 0, records = 0;
  int rounds = 0, failed = 0;
  while (done < operations && failed == 0) {
    const uint32_t kind = static_cast<uint32_t>(random() % 3);
    const outcome one = kind == 0   ? run<uint32_t>(random, units, in)
                        : kind == 1 ? run<uint64_t>(random, units, in)
                                    : run<unit>(random, units, in);
    done += one.succeeded;
    records += one.records;
    ++rounds;
    if (one.wrong.empty()) continue;
    std::printf("FAIL %s: %s\n", one.name.c_str(), one.wrong.c_str());
    ++failed;
  }
  std::printf("%llu operations succeeded in %d rounds, %llu records; 0 of them were launches; %d failed\n",
              static_cast<unsigned long long>(done), rounds, static_cast<unsigned long long>(records), failed);
  return failed != 0;
}

}  // namespace

int main(int argc, char **argv) {
  try {
    return check_all(argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 1, argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 10000000);
  } catch (const std::exception &problem) {
    std::fprintf(stderr, "error: %s\n", problem.what());
    return 1;
  }
}
