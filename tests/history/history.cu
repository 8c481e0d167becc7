// Histories of mailboxes in shared mode on a GPU: threads, warps and blocks that push and pop at once, all of it checked on
// the CPU. With GMB_CHAOS there are random delays inside.
//   nvcc -arch=native -O3 -std=c++17 -Iinclude tests/history/history.cu -o history && ./history SEED OPERATIONS
#include "check.h"

#include <gpumailbox/shared_bulk.cuh>

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
  uint32_t readers, attempts, largest; /* records of an operation */
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
    const uint32_t count = 1 + static_cast<uint32_t>(dice >> 8) % w.largest;
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

/* What the CPU launches: pushes of rows, and pops to rows, by a whole grid. Each tells when its first block began, when its
 * last one ended, and its result. */
struct launch {
  gmb_ring_header *ring;
  unsigned char *rows;
  gmb_record_header *headers;
  gmb::ring::meeting *meeting;
  gmb_result *result;
  unsigned long long *times;
  uint32_t count, reader;
};

__device__ gmb::ring::report report_of(const launch &l) { return {l.result, nullptr, nullptr, 0, 1}; }

template <class Operation> __device__ void timed(const launch &l, const Operation &operation) {
  __shared__ uint64_t word[gmb::ring::block_words];
  if (threadIdx.x == 0) atomicMin(l.times, static_cast<unsigned long long>(now()));
  __syncthreads();
  operation(gmb::ring::thread_block{word});
  __syncthreads();
  if (threadIdx.x == 0) atomicMax(l.times + 1, static_cast<unsigned long long>(now()));
}

__global__ void push_all(launch l) {
  const source from = {l.rows, payload, nullptr, nullptr, l.count, payload, l.reader, payload, false, 1};
  timed(l, [&](const gmb::ring::thread_block &block) {
    gmb::ring::push_bulk(block, shared_ring(l.ring), from, false, 4, l.meeting, report_of(l));
  });
}

__global__ void pop_all(launch l) {
  const sink into = {l.rows, payload, l.headers, l.count};
  timed(l, [&](const gmb::ring::thread_block &block) {
    gmb::ring::pop_bulk(block, shared_ring(l.ring), l.reader, into, 4, l.meeting, report_of(l));
  });
}

/* Rows of records `first` on of a producer. */
__global__ void make_rows(unsigned char *rows, uint64_t first, uint32_t count) {
  uint64_t *const to = reinterpret_cast<uint64_t *>(rows);
  for (uint32_t i = blockIdx.x * blockDim.x + threadIdx.x; i < count * words; i += gridDim.x * blockDim.x) {
    const uint64_t value = first + i / words;
    to[i] = i % words == 0 ? value : mix(value + i % words);
  }
}

/* What a pop gave, as events. */
__global__ void log_pop(launch l, event *events, unsigned long long *torn) {
  for (uint32_t i = blockIdx.x * blockDim.x + threadIdx.x; i < l.result->count; i += gridDim.x * blockDim.x) {
    const uint64_t *row = reinterpret_cast<const uint64_t *>(l.rows) + static_cast<uint64_t>(i) * words;
    bool whole = l.headers[i].msg_type == row[0] >> 32 && l.headers[i].length == payload;
    for (uint32_t k = 1; k < words; ++k) whole = whole && row[k] == mix(row[0] + k);
    if (!whole) atomicAdd(torn, 1ull);
    events[i] = {l.times[0], l.times[1], l.headers[i].sequence - 1, row[0]};
  }
  if (blockIdx.x == 0 && threadIdx.x == 0 && l.result->status != GMB_OK) atomicAdd(torn, 1ull);
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
    ring->mode = GMB_MODE_SHARED;
    for (gmb_ring_side &side : ring->reader) side.claimed = side.committed = first;
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

/* Streams on which the CPU launches at most, so many pushes and pops in turn of so many records on each. */
constexpr uint32_t most_launching = 4, launch_operations = 60, launch_records = 3000;

/* All of a round that is checked on the host. */
struct round_history {
  std::string name;
  uint64_t first, capacity;
  uint32_t readers, groups, drained, launching;
  std::vector<event> events, rest;
  std::vector<uint64_t> begin;
  std::vector<uint32_t> pushed, popped, left;
  std::vector<unsigned long long> counts;
  /* Of launches: when, and how many, of each; where pushed records went is known when they are popped. */
  std::vector<unsigned long long> times;
  std::vector<gmb_result> results;
  std::vector<event> launched;
  uint64_t launches = 0;
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
    /* Operation k of a launching stream is a push or a pop, one after the other. */
    std::vector<std::vector<event>> pushes(launching);
    for (uint32_t p = 0; p < launching; ++p) pushes[p].resize(static_cast<size_t>(launch_operations) * launch_records);
    const auto find = [&](const event &e) {
      const uint64_t p = (e.value >> 32) - groups, n = e.value & 0xffffffffu;
      if (p < launching && n < pushes[p].size()) pushes[p][n].index = e.index;
    };
    for (const history::log &one : logs) {
      if (one.pushes || one.reader != 0) continue;
      for (size_t i = 0; i < one.count; ++i) find(one.events[i]);
    }
    for (uint32_t p = 0; p < launching; ++p) {
      for (uint32_t k = 0; k < launch_operations; ++k) {
        const size_t pop = p * 2 * launch_operations + 2 * k + 1;
        const event *got = launched.data() + (static_cast<size_t>(p) * launch_operations + k) * launch_records;
        if (results[pop].count > launch_records || results[pop].epoch != 1) return "a launch did not tell its result";
        if (p % readers == 0) std::for_each(got, got + results[pop].count, find);
        logs.push_back({false, p % readers, got, results[pop].count});
      }
    }
    std::vector<std::vector<event>> accepted(launching);
    for (uint32_t p = 0; p < launching; ++p) {
      for (uint32_t k = 0; k < launch_operations; ++k) {
        const size_t push = p * 2 * launch_operations + 2 * k;
        if (results[push].count > launch_records || results[push].epoch != 1) return "a launch did not tell its result";
        for (uint32_t i = 0; i < results[push].count; ++i) {
          const size_t n = static_cast<size_t>(k) * launch_records + i;
          accepted[p].push_back({times[2 * push], times[2 * push + 1], pushes[p][n].index,
                                 static_cast<uint64_t>(groups + p) << 32 | n});
        }
      }
      all += accepted[p].size();
      logs.push_back({true, 0, accepted[p].data(), accepted[p].size()});
    }
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
  const device<unsigned char> memory{sizeof(gmb_ring_header) + most_capacity * (16 + payload + 8)};
  /* Of launches. */
  static constexpr size_t launches = static_cast<size_t>(most_launching) * 2 * launch_operations;
  const device<unsigned char> rows{launches * launch_records * payload};
  const device<gmb_record_header> headers{launches / 2 * launch_records};
  const device<event> launched{launches / 2 * launch_records};
  const device<gmb::ring::meeting> meetings{most_launching};
  const device<gmb_result> results{launches};
  const device<unsigned long long> times{2 * launches};
  cudaStream_t streams[most_launching + 1];
  room() {
    for (cudaStream_t &stream : streams) CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  }
};

/* Pushes and pops of the CPU, each stream's in turn; all are enqueued before any of them runs. */
void launch_all(const round_history &round, const room &in, uint32_t blocks, bool pops) {
  gmb_ring_header *ring = reinterpret_cast<gmb_ring_header *>(in.memory.at);
  for (uint32_t k = 0; k < launch_operations; ++k) {
    for (uint32_t p = 0; p < round.launching; ++p) {
      const size_t push = p * 2 * launch_operations + 2 * k, pop = push + 1;
      const size_t log = static_cast<size_t>(p) * launch_operations + k;
      const auto of = [&](size_t operation, uint32_t tag) {
        return launch{ring, in.rows.at + operation * launch_records * payload, in.headers.at + log * launch_records,
                      in.meetings.at + p, in.results.at + operation, in.times.at + 2 * operation, launch_records, tag};
      };
      const cudaStream_t stream = in.streams[p];
      if (!pops) {
        make_rows<<<16, 256, 0, stream>>>(of(push, 0).rows, static_cast<uint64_t>(round.groups + p) << 32 | k * launch_records,
                                         launch_records);
        continue;
      }
      push_all<<<blocks, 256, 0, stream>>>(of(push, round.groups + p));
      pop_all<<<blocks, 256, 0, stream>>>(of(pop, p % round.readers));
      log_pop<<<8, 256, 0, stream>>>(of(pop, 0), in.launched.at + log * launch_records, in.counts.at + 2);
    }
  }
  CHECK(cudaGetLastError());
}

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
  /* A small one makes most attempts fail. */
  round.capacity = 1ull << (random() % 4 == 0 ? random() % 7 : 7 + random() % 10);
  round.readers = 1 + static_cast<uint32_t>(random() % 3);
  /* Also across 2^32 and 2^64. */
  const uint64_t firsts[] = {0, (1ull << 32) - 50000, ~0ull - 50000, random()};
  round.first = firsts[random() % 4];
  uint32_t attempts = most_attempts / round.groups;
  if (blocks == 1 && kind == 2) attempts = 1u << 14;
  if (attempts > (1u << 15)) attempts = 1u << 15;
  if (attempts == 0) attempts = 1;
  /* Every third round the CPU launches, too. */
  round.launching = random() % 3 == 0 ? 1 + static_cast<uint32_t>(random() % most_launching) : 0;
  const uint32_t launch_blocks[] = {1, 2, 7, units * 16};
  const uint32_t launched_blocks = launch_blocks[random() % 4];
  const uint32_t largest = random() % 2 == 0 ? 1 : most;
  const uint32_t part = attempts * most;
  round.drained = static_cast<uint32_t>(most_capacity);
  round.name = std::to_string(round.groups) + " " + kinds[kind] + " in " + std::to_string(blocks) + " blocks, " +
               std::to_string(round.capacity) + " slots, " + std::to_string(round.readers) + " readers, from index " +
               std::to_string(round.first) + ", operations of " + std::to_string(largest) + " at most, " +
               std::to_string(round.launching) + " streams that launch " + std::to_string(launched_blocks) + " blocks";
  gmb_ring_header *ring = reinterpret_cast<gmb_ring_header *>(in.memory.at);
  in.memory.zero();
  in.counts.zero();
  make_ring<<<1, 1>>>(ring, round.capacity, round.first, round.readers);
  in.meetings.zero();
  in.results.zero();
  CHECK(cudaMemset2D(in.times.at, 16, 0xff, 8, room::launches));
  CHECK(cudaMemset2D(in.times.at + 1, 16, 0, 8, room::launches));
  launch_all(round, in, launched_blocks, false);
  CHECK(cudaDeviceSynchronize());
  const cudaStream_t own = in.streams[most_launching];
  const work all{ring, round.readers, attempts, largest, random(),
                 {in.events.at, part, in.pushed.at, in.popped.at, in.counts.at, in.counts.at + 1, in.counts.at + 2}};
  if (kind == 0) by_thread<<<blocks, 256, 0, own>>>(all);
  else if (kind == 1) by_warp<<<blocks, 256, 0, own>>>(all);
  else by_block<<<blocks, 64, 0, own>>>(all);
  CHECK(cudaGetLastError());
  launch_all(round, in, launched_blocks, true);
  CHECK(cudaDeviceSynchronize());
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
  if (round.launching > 0) {
    const size_t launches = static_cast<size_t>(round.launching) * 2 * launch_operations;
    round.results = in.results.get(launches);
    round.times = in.times.get(2 * launches);
    round.launched = in.launched.get(launches / 2 * launch_records);
    for (const gmb_result &result : round.results) round.launches += result.count > 0;
  }
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

/* A kernel ends with a ticket taken: what comes before its slot comes out, what is behind it does not, and nobody hangs; then
 * another kernel abandons the slot. */
__global__ void leave_a_ticket(gmb_ring_header *ring, claim *left) {
  *left = gmb::ring::reserve(one_thread{}, shared_ring(ring), 1);
}
__global__ void abandon_ticket(gmb_ring_header *ring, const claim *left) {
  gmb::ring::abandon(one_thread{}, shared_ring(ring), *left);
}
std::string a_ticket_left(const room &in) {
  gmb_ring_header *ring = reinterpret_cast<gmb_ring_header *>(in.memory.at);
  in.memory.zero();
  in.counts.zero();
  in.meetings.zero();
  in.results.zero();
  make_ring<<<1, 1>>>(ring, 1024, 77, 1);
  const device<claim> left(1);
  uint32_t number = 0;
  const auto moved = [&](bool pushes, uint32_t count) {
    const launch one{ring, in.rows.at, in.headers.at, in.meetings.at, in.results.at + number, in.times.at, count, 0};
    if (pushes) push_all<<<3, 256>>>(one);
    else pop_all<<<3, 256>>>(one);
    return in.results.get(++number)[number - 1].count;
  };
  std::vector<uint32_t> seen = {moved(true, 100)};
  leave_a_ticket<<<1, 1>>>(ring, left.at);
  for (const auto [pushes, count] : {std::pair{true, 500u}, {false, 1000u}, {false, 1000u}, {true, 1000u}}) seen.push_back(moved(pushes, count));
  abandon_ticket<<<1, 1>>>(ring, left.at);
  for (const auto [pushes, count] : {std::pair{false, 1000u}, {false, 1000u}, {true, 1024u}}) seen.push_back(moved(pushes, count));
  CHECK(cudaDeviceSynchronize());
  /* 1,024 slots hold 500 and the one that was left, once the 100 are out. */
  const std::vector<uint32_t> wanted = {100, 500, 100, 0, 523, 999, 24, 1024};
  if (seen == wanted) return "";
  std::string told = "a ticket that was left:";
  for (uint32_t count : seen) told += " " + std::to_string(count);
  return told;
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
  const std::string left = a_ticket_left(in);
  if (!left.empty()) {
    std::printf("FAIL %s\n", left.c_str());
    return 1;
  }
  uint64_t done = 0, records = 0, launches = 0;
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
    done += round->counts[0] + round->launches;
    launches += round->launches;
    for (uint32_t g = 0; g < round->groups; ++g) records += round->pushed[g];
    ++rounds;
    checking.push_back(std::async(std::launch::async, [round] { return std::make_pair(round->name, round->wrong()); }));
    collect(8);
  }
  collect(0);
  std::printf("%llu operations succeeded in %d rounds, %llu records; %llu of them were launches; %d failed\n",
              static_cast<unsigned long long>(done), rounds, static_cast<unsigned long long>(records),
              static_cast<unsigned long long>(launches), failed);
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
