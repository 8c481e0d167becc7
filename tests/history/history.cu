// Histories of mailboxes in shared mode on a GPU: threads, warps and blocks that push and pop at once, all of it checked on
// the CPU. With GMB_CHAOS there are random delays inside.
//   nvcc -arch=native -O3 -std=c++17 -Iinclude tests/history/history.cu -o history && ./history SEED OPERATIONS
#include "check.h"

#include <gpumailbox/shared.cuh>

#include <cuda_runtime.h>

#include <cstdio>
#include <cstdlib>
#include <future>
#include <memory>
#include <random>
#include <stdexcept>

namespace {

using gmb::ring::claim;
using gmb::ring::one_block;
using gmb::ring::one_thread;
using gmb::ring::one_warp;
using gmb::ring::shared_ring;
using gmb::ring::sink;
using gmb::ring::source;
using history::event;

constexpr uint32_t payload = 48, most = 4; /* bytes of a record, records of an operation */
constexpr uint32_t words = payload / 8;

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

__device__ uint64_t mix(uint64_t x) {
  x ^= x >> 30;
  x *= 0xbf58476d1ce4e5b9ull;
  x ^= x >> 27;
  x *= 0x94d049bb133111ebull;
  return x ^ x >> 31;
}

/* What a group did: its pushes from the front of its part on, its pops from its back on. */
struct told {
  event *events;
  uint32_t part; /* events of a group */
  uint32_t *pushed, *popped;
  unsigned long long *succeeded, *abandoned, *torn;
};

struct work {
  gmb_ring_header *ring;
  uint32_t readers, attempts;
  uint64_t seed;
  told to;
};

/* Tries `attempts` operations of one to four records, pushes and pops by chance. Nobody waits: what does not succeed is
 * not tried again. */
template <class Group>
__device__ void try_all(const Group &group, const work &w, uint32_t number, uint64_t *rows, gmb_record_header *headers) {
  const shared_ring ring(w.ring);
  event *events = w.to.events + static_cast<uint64_t>(number) * w.to.part;
  uint32_t pushed = 0, popped = 0, succeeded = 0;
  const uint32_t reader = number % w.readers;
  for (uint32_t k = 0; k < w.attempts; ++k) {
    const uint64_t dice = mix(w.seed + (static_cast<uint64_t>(number) << 32) + k);
    const uint32_t count = 1 + static_cast<uint32_t>(dice >> 8) % most;
    int32_t status = GMB_OK;
    group.sync();
    const uint64_t start = now();
    if ((dice & 63) == 0) {
      const claim mine = gmb::ring::reserve(group, ring, count);
      gmb::ring::abandon(group, ring, mine);
      if (group.lane() == 0) atomicAdd(w.to.abandoned, static_cast<unsigned long long>(mine.count));
    } else if (dice & 1) {
      for (uint32_t i = group.lane(); i < count * words; i += group.lanes()) {
        const uint64_t value = static_cast<uint64_t>(number) << 32 | (pushed + i / words);
        rows[i] = i % words == 0 ? value : mix(value + i % words);
      }
      group.sync();
      const source from = {reinterpret_cast<const unsigned char *>(rows), payload, nullptr, nullptr, count, payload, number, payload,
                           false, 1};
      const claim mine = gmb::ring::push_shared(group, ring, from, status);
      group.sync();
      const uint64_t end = now();
      for (uint32_t i = group.lane(); i < mine.count; i += group.lanes()) {
        events[pushed + i] = {start, end, mine.first + i, static_cast<uint64_t>(number) << 32 | (pushed + i)};
      }
      pushed += mine.count;
      succeeded += mine.count > 0;
    } else {
      const sink into = {reinterpret_cast<unsigned char *>(rows), payload, headers, count};
      const uint32_t got = gmb::ring::pop_shared(group, ring, reader, into, status);
      group.sync();
      const uint64_t end = now();
      bool whole = status == GMB_OK && got <= count;
      for (uint32_t i = group.lane(); i < got * words; i += group.lanes()) {
        const uint64_t value = rows[i / words * words];
        whole = whole && (i % words == 0 || rows[i] == mix(value + i % words)) && headers[i / words].msg_type == value >> 32 &&
                headers[i / words].length == payload;
      }
      if (!whole) atomicAdd(w.to.torn, 1ull);
      for (uint32_t i = group.lane(); i < got; i += group.lanes()) {
        events[w.to.part - 1 - popped - i] = {start, end, headers[i].sequence - 1, rows[i * words]};
      }
      popped += got;
      succeeded += got > 0;
    }
  }
  if (group.lane() != 0) return;
  w.to.pushed[number] = pushed;
  w.to.popped[number] = popped;
  atomicAdd(w.to.succeeded, static_cast<unsigned long long>(succeeded));
}

__global__ void by_thread(work w) {
  alignas(16) uint64_t rows[most * words];
  alignas(16) gmb_record_header headers[most];
  try_all(one_thread{}, w, blockIdx.x * blockDim.x + threadIdx.x, rows, headers);
}

__global__ void by_warp(work w) {
  __shared__ alignas(16) uint64_t rows[8][most * words];
  __shared__ alignas(16) gmb_record_header headers[8][most];
  const uint32_t warp = threadIdx.x / 32;
  try_all(one_warp{}, w, blockIdx.x * (blockDim.x / 32) + warp, rows[warp], headers[warp]);
}

__global__ void by_block(work w) {
  __shared__ alignas(16) uint64_t rows[most * words], word;
  __shared__ alignas(16) gmb_record_header headers[most];
  try_all(one_block{&word}, w, blockIdx.x, rows, headers);
}

/* What is left, for each reader by one warp. */
__global__ void drain(work w) {
  __shared__ alignas(16) uint64_t rows[most * words];
  __shared__ alignas(16) gmb_record_header headers[most];
  const one_warp group;
  const shared_ring ring(w.ring);
  event *events = w.to.events + static_cast<uint64_t>(blockIdx.x) * w.to.part;
  uint32_t popped = 0;
  const sink into = {reinterpret_cast<unsigned char *>(rows), payload, headers, most};
  gmb_ring_side *side = &w.ring->reader[blockIdx.x];
  for (;;) {
    const uint64_t start = now();
    int32_t status = GMB_OK;
    const uint32_t got = gmb::ring::pop_shared(group, ring, blockIdx.x, into, status);
    group.sync();
    const uint64_t end = now();
    for (uint32_t i = group.lane(); i < got; i += 32) events[popped + i] = {start, end, headers[i].sequence - 1, rows[i * words]};
    popped += got;
    if (status != GMB_OK && group.lane() == 0) atomicAdd(w.to.torn, 1ull);
    group.sync();
    if (got == 0 && static_cast<int64_t>(gmb::ring::load_acquire(&side->credits)) <= 0) break;
  }
  if (group.lane() == 0) w.to.popped[blockIdx.x] = popped;
}

/* Puts the groups' events close together, each's pushes before its pops, in their order: from `begin[group]` on. */
__global__ void pack(const event *events, uint32_t part, const uint32_t *pushed, const uint32_t *popped, const uint64_t *begin,
                     event *packed) {
  const event *mine = events + static_cast<uint64_t>(blockIdx.x) * part;
  event *to = packed + begin[blockIdx.x];
  const uint32_t front = pushed[blockIdx.x], back = popped[blockIdx.x];
  for (uint32_t i = threadIdx.x; i < front + back; i += blockDim.x) to[i] = i < front ? mine[i] : mine[part - 1 - (i - front)];
}

__global__ void make_ring(gmb_ring_header *ring, uint64_t capacity, uint64_t first, uint32_t readers) {
  if (blockIdx.x == 0 && threadIdx.x == 0) {
    ring->magic = GMB_MAGIC;
    ring->version = GMB_LAYOUT_VERSION;
    ring->header_bytes = sizeof *ring;
    ring->capacity = capacity;
    ring->stride = 16 + payload;
    ring->payload_bytes = payload;
    ring->reader_mask = (1u << readers) - 1;
    ring->initial_index = first;
    ring->writer.claimed = ring->writer.committed = ring->writer.floor = first;
    ring->writer.credits = capacity;
    for (gmb_ring_side &side : ring->reader) side.claimed = side.committed = first;
    ring->mode = GMB_MODE_SHARED;
  }
}

/* The least step that the clock makes. */
__global__ void measure_tick(uint64_t *least) {
  uint64_t before = now();
  for (int i = 0; i < 2000; ++i) {
    const uint64_t after = now();
    if (after > before && after - before < *least) *least = after - before;
    before = after;
  }
}

/* Memory of the device and, for what is checked, of the host. */
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

/* All of a round that is checked on the host. */
struct round_history {
  std::string name;
  uint64_t first, capacity;
  uint32_t readers, groups, drained;
  std::vector<event> events, rest;
  std::vector<uint64_t> begin;
  std::vector<uint32_t> pushed, popped, left;
  std::vector<unsigned long long> counts;
  gmb_ring_header header;

  std::string wrong() const {
    if (counts[2] != 0) return std::to_string(counts[2]) + " operations gave torn records, or an error";
    std::vector<history::log> logs;
    uint64_t all = counts[1];
    for (uint32_t g = 0; g < groups; ++g) {
      const event *mine = events.data() + begin[g];
      logs.push_back({true, 0, mine, pushed[g]});
      logs.push_back({false, g % readers, mine + pushed[g], popped[g]});
      all += pushed[g];
    }
    for (uint32_t r = 0; r < readers; ++r) logs.push_back({false, r, rest.data() + static_cast<size_t>(r) * drained, left[r]});
    const gmb_ring_side &writer = header.writer;
    const uint64_t end = first + all;
    if (writer.claimed != end || writer.committed != end || writer.floor != end || writer.credits != capacity)
      return "the indices and credits are not those of an empty ring";
    return history::check(logs, first, readers, counts[1]);
  }
};

constexpr uint32_t most_groups = 1u << 18, most_attempts = 1u << 21;
constexpr uint64_t most_capacity = 1u << 16;

/* What the rounds take turns with. */
struct room {
  const device<event> events{static_cast<size_t>(most_attempts + most_groups) * most};
  const device<event> packed{static_cast<size_t>(most_attempts + most_groups) * most};
  const device<event> rest{3 * most_capacity};
  const device<uint64_t> begin{most_groups};
  const device<uint32_t> pushed{most_groups}, popped{most_groups}, left{3};
  const device<unsigned long long> counts{3};
  const device<unsigned char> memory{gmb::ring::shared_bytes(sizeof(gmb_ring_header), most_capacity, 16 + payload)};
};

round_history run(std::mt19937_64 &random, uint32_t units, const room &in) {
  round_history round{};
  const char *kinds[] = {"threads", "warps", "blocks"};
  const uint32_t kind = static_cast<uint32_t>(random() % 3);
  const uint32_t per_block = kind == 0 ? 256 : kind == 1 ? 8 : 1;
  /* One block, as many as there are multiprocessors, all that run at once, or more than that. */
  const uint32_t grids[] = {1, units, units * 8, units * 64};
  uint32_t blocks = grids[random() % 4];
  while (blocks * per_block > most_groups) blocks /= 2;
  round.groups = blocks * per_block;
  round.capacity = 1ull << random() % 17;
  round.readers = 1 + static_cast<uint32_t>(random() % 3);
  /* Also across 2^32 and 2^64. */
  const uint64_t firsts[] = {0, (1ull << 32) - 50000, ~0ull - 50000, random()};
  round.first = firsts[random() % 4];
  uint32_t attempts = most_attempts / round.groups;
  if (blocks == 1 && kind == 2) attempts = 1u << 14;
  if (attempts > (1u << 15)) attempts = 1u << 15;
  if (attempts == 0) attempts = 1;
  const uint32_t part = attempts * most;
  round.drained = static_cast<uint32_t>(most_capacity);
  round.name = std::to_string(round.groups) + " " + kinds[kind] + " in " + std::to_string(blocks) + " blocks, " +
               std::to_string(round.capacity) + " slots, " + std::to_string(round.readers) + " readers, from index " +
               std::to_string(round.first);
  gmb_ring_header *ring = reinterpret_cast<gmb_ring_header *>(in.memory.at);
  in.memory.zero();
  in.counts.zero();
  make_ring<<<1, 1>>>(ring, round.capacity, round.first, round.readers);
  const work all{ring, round.readers, attempts, random(),
                 {in.events.at, part, in.pushed.at, in.popped.at, in.counts.at, in.counts.at + 1, in.counts.at + 2}};
  if (kind == 0) by_thread<<<blocks, 256>>>(all);
  else if (kind == 1) by_warp<<<blocks, 256>>>(all);
  else by_block<<<blocks, 64>>>(all);
  CHECK(cudaGetLastError());
  work end = all;
  end.to.events = in.rest.at;
  end.to.part = round.drained;
  end.to.popped = in.left.at;
  drain<<<round.readers, 32>>>(end);
  CHECK(cudaDeviceSynchronize());
  round.pushed = in.pushed.get(round.groups);
  round.popped = in.popped.get(round.groups);
  round.left = in.left.get(round.readers);
  round.counts = in.counts.get(3);
  uint64_t all_events = 0;
  for (uint32_t g = 0; g < round.groups; ++g) {
    round.begin.push_back(all_events);
    all_events += round.pushed[g] + round.popped[g];
  }
  CHECK(cudaMemcpy(in.begin.at, round.begin.data(), round.groups * sizeof round.begin[0], cudaMemcpyHostToDevice));
  pack<<<round.groups, 64>>>(in.events.at, part, in.pushed.at, in.popped.at, in.begin.at, in.packed.at);
  CHECK(cudaGetLastError());
  round.events = in.packed.get(all_events);
  round.rest = in.rest.get(static_cast<size_t>(round.readers) * round.drained);
  CHECK(cudaMemcpy(&round.header, ring, sizeof round.header, cudaMemcpyDeviceToHost));
  return round;
}

int check_all(uint64_t seed, uint64_t operations) {
  cudaDeviceProp properties;
  CHECK(cudaGetDeviceProperties(&properties, 0));
  std::mt19937_64 random(seed);
  const room in;
  const device<uint64_t> tick(1);
  const uint64_t far = ~0ull;
  CHECK(cudaMemcpy(tick.at, &far, sizeof far, cudaMemcpyHostToDevice));
  measure_tick<<<1, 1>>>(tick.at);
  std::printf("seed %llu, the clock ticks every %llu ns\n", static_cast<unsigned long long>(seed),
              static_cast<unsigned long long>(tick.get(1)[0]));
  uint64_t done = 0, records = 0;
  int rounds = 0, failed = 0;
  std::vector<std::future<std::pair<std::string, std::string>>> checking;
  const auto collect = [&](size_t leave) {
    while (checking.size() > leave) {
      const auto [name, wrong] = checking.front().get();
      checking.erase(checking.begin());
      if (wrong.empty()) continue;
      std::printf("FAIL %s: %s\n", name.c_str(), wrong.c_str());
      ++failed;
    }
  };
  while (done < operations && failed == 0) {
    auto round = std::make_shared<round_history>(run(random, static_cast<uint32_t>(properties.multiProcessorCount), in));
    done += round->counts[0];
    for (uint32_t g = 0; g < round->groups; ++g) records += round->pushed[g];
    ++rounds;
    checking.push_back(std::async(std::launch::async, [round] { return std::make_pair(round->name, round->wrong()); }));
    collect(8);
  }
  collect(0);
  std::printf("%llu operations succeeded in %d rounds, %llu records; %d failed\n", static_cast<unsigned long long>(done), rounds,
              static_cast<unsigned long long>(records), failed);
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
