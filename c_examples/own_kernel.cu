// A user's own kernels around a mailbox, on CUDA streams and memory of the user's own.
//
// One stream makes records with a kernel and pushes them; another pops them and sums them up with a
// kernel that takes the number of records from device memory. The host enqueues rounds ahead and
// asks for counts only to know what the sum must be.
#include "check.h"

#include <gpumailbox/ring.cuh>

#include <cuda_runtime.h>

#include <cstdint>
#include <cstdio>
#include <deque>
#include <random>

namespace {

constexpr uint64_t capacity = 1024;
constexpr uint32_t payload_bytes = 100;
constexpr uint32_t row_bytes = 112;  // the payload rounded up to 16
constexpr uint32_t most_records = 700;
constexpr uint32_t rounds = 200;
constexpr size_t most_under_way = 8;
constexpr uint32_t warp = 32;

// What the device sums up over all rounds.
struct totals {
  unsigned long long checksum;
  unsigned long long records;
  unsigned long long failed_pops;
  unsigned long long unpublished;  // records popped beyond the ring's published index: must stay zero
};

// Records of a round: record r has the type round << 16 | r and a length and bytes that depend on both.
__global__ void make_records(unsigned char *records, uint32_t *lengths, uint32_t *types, uint32_t round,
                             uint32_t count) {
  const uint32_t step = gridDim.x * blockDim.x;
  for (uint32_t i = blockIdx.x * blockDim.x + threadIdx.x; i < count * row_bytes; i += step) {
    const uint32_t record = i / row_bytes, position = i % row_bytes;
    records[i] = static_cast<unsigned char>(37 * round + 11 * record + 5 * position);
    if (position == 0) {
      lengths[record] = 1 + (29 * record + 17 * round) % payload_bytes;
      types[record] = round << 16 | record;
    }
  }
}

// Sums up what a pop left, a warp for each record. The count comes from the pop's result in device
// memory: the host does not know it yet.
__global__ void sum_records(const unsigned char *records, const gmb_record_header *headers,
                            const gmb_result *popped, gmb_ring_header *ring, totals *sum) {
  const uint32_t count = popped->count;
  const uint32_t thread = blockIdx.x * blockDim.x + threadIdx.x;
  const uint32_t lane = thread % warp;
  // The index only grows, so it is at or beyond every record popped so far.
  const uint64_t published = gmb::ring::load_acquire(&ring->writer.committed);
  unsigned long long local = 0;
  for (uint32_t i = thread / warp; i < count; i += gridDim.x * blockDim.x / warp) {
    const gmb_record_header header = headers[i];
    const unsigned char *bytes = records + uint64_t{i} * row_bytes;
    for (uint32_t p = lane; p < header.length; p += warp) {
      local += (header.sequence * 131 + p) * (bytes[p] + 1ull);
    }
    if (lane == 0) {
      local += header.sequence * header.msg_type;
      if (header.sequence > published) atomicAdd(&sum->unpublished, 1ull);
    }
  }
  for (uint32_t distance = warp / 2; distance > 0; distance /= 2) {
    local += __shfl_down_sync(0xffffffffu, local, distance);
  }
  if (lane == 0) atomicAdd(&sum->checksum, local);
  if (thread == 0) {
    atomicAdd(&sum->records, static_cast<unsigned long long>(count));
    if (popped->status != GMB_OK) atomicAdd(&sum->failed_pops, 1ull);
  }
}

// The same sum on the CPU: bytes by repeated addition, nothing shared with the kernels.
uint64_t sum_of_record(uint32_t round, uint32_t record, uint64_t sequence) {
  uint32_t length = (29 * record + 17 * round) % payload_bytes;
  uint64_t sum = sequence * ((uint64_t{round} << 16) + record);
  uint64_t factor = sequence * 131;
  unsigned char byte = static_cast<unsigned char>(37 * round + 11 * record);
  for (++length; length > 0; --length, ++factor, byte = static_cast<unsigned char>(byte + 5)) {
    sum += factor * (uint64_t{byte} + 1);
  }
  return sum;
}

// A round under way. `pushes` is 0 when it only pops.
struct round_under_way {
  gmb_token pushed;
  gmb_token popped;
  uint32_t number;
  uint32_t pushes;
  uint32_t pops;
};

// What the tokens told and what the device must have summed up.
struct expectation {
  uint64_t pushed = 0;
  uint64_t popped = 0;
  uint64_t checksum = 0;
  uint64_t partial_pushes = 0;
  uint64_t partial_pops = 0;
};

uint32_t count_of(gmb_token token) {
  gmb_result result;
  CHECK(gmb_token_wait(token, GMB_EPOCH_LAST, GMB_WAIT_FOREVER, &result));
  MUST(result.status == GMB_OK, "an operation failed on the device: %s", gmb_status_string(result.status));
  return result.count;
}

// Waits for a round's tokens: its accepted records get the next indices, the others are dropped.
void collect(const round_under_way &done, expectation &expected) {
  if (done.pushes > 0) {
    const uint32_t accepted = count_of(done.pushed);
    for (uint32_t r = 0; r < accepted; ++r) {
      expected.checksum += sum_of_record(done.number, r, ++expected.pushed);
    }
    expected.partial_pushes += accepted < done.pushes;
  }
  const uint32_t taken = count_of(done.popped);
  expected.popped += taken;
  expected.partial_pops += taken < done.pops;
}

bool same(const char *what, uint64_t wanted, uint64_t got) {
  if (wanted != got) {
    std::printf("%s: expected %llu, got %llu\n", what, static_cast<unsigned long long>(wanted),
                static_cast<unsigned long long>(got));
  }
  return wanted == got;
}

}  // namespace

int main() {
  gmb_context_options wanted = GMB_CONTEXT_OPTIONS_INIT;
  wanted.backend = GMB_BACKEND_CUDA;
  gmb_context context;
  const gmb_status opened = gmb_context_create(&wanted, &context);
  if (opened == GMB_ERROR_NO_DRIVER || opened == GMB_ERROR_NO_DEVICE) {
    char message[1024] = "";
    gmb_last_error_message(message, sizeof message, nullptr);
    std::printf("no CUDA device: %s\n", message);
    return 77;
  }
  CHECK(opened);

  gmb_mailbox_options options = GMB_MAILBOX_OPTIONS_INIT;
  options.capacity = capacity;
  options.payload_bytes = payload_bytes;
  gmb_mailbox mailbox;
  gmb_mailbox_info info;
  CHECK(gmb_mailbox_create(context, &options, &mailbox));
  CHECK(gmb_mailbox_get_info(mailbox, &info, sizeof info));
  round_under_way slots[most_under_way] = {};
  for (round_under_way &slot : slots) {
    CHECK(gmb_token_create(context, &slot.pushed));
    CHECK(gmb_token_create(context, &slot.popped));
  }

  cudaStream_t making, taking;
  unsigned char *made, *taken;
  uint32_t *lengths, *types;
  gmb_record_header *headers;
  totals *sum;
  CHECK_CUDA(cudaStreamCreate(&making));
  CHECK_CUDA(cudaStreamCreate(&taking));
  CHECK_CUDA(cudaMalloc(&made, most_records * row_bytes));
  CHECK_CUDA(cudaMalloc(&lengths, most_records * sizeof *lengths));
  CHECK_CUDA(cudaMalloc(&types, most_records * sizeof *types));
  CHECK_CUDA(cudaMalloc(&taken, most_records * row_bytes));
  CHECK_CUDA(cudaMalloc(&headers, most_records * sizeof *headers));
  CHECK_CUDA(cudaMalloc(&sum, sizeof *sum));
  CHECK_CUDA(cudaMemsetAsync(sum, 0, sizeof *sum, taking));

  std::mt19937 random(20240607);
  std::deque<round_under_way> under_way;
  expectation expected;
  // After the last push, rounds that only pop until nothing can be left.
  const uint32_t drains = static_cast<uint32_t>((capacity + most_records - 1) / most_records);
  for (uint32_t round = 0; round < rounds + drains; ++round) {
    round_under_way now = slots[round % most_under_way];
    if (under_way.size() == most_under_way) {
      collect(under_way.front(), expected);
      under_way.pop_front();
    }
    now.number = round;
    now.pushes = round < rounds ? 1 + random() % most_records : 0;
    now.pops = round < rounds ? 1 + random() % most_records : most_records;
    if (now.pushes > 0) {
      // Overwrites what the push of the last round reads: later in the same stream, so after it.
      make_records<<<128, 256, 0, making>>>(made, lengths, types, round, now.pushes);
      CHECK_CUDA(cudaGetLastError());
      gmb_push push = GMB_PUSH_INIT;
      push.count = now.pushes;
      push.records = made;
      push.lengths = lengths;
      push.types = types;
      CHECK(gmb_mailbox_push(mailbox, &push, making, now.pushed));
    }
    gmb_pop pop = GMB_POP_INIT;
    pop.max = now.pops;
    pop.records = taken;
    pop.headers = headers;
    CHECK(gmb_mailbox_pop(mailbox, &pop, taking, now.popped));
    const gmb_result *popped;
    CHECK(gmb_token_get_device_result(now.popped, &popped));
    sum_records<<<64, 256, 0, taking>>>(taken, headers, popped, info.ring, sum);
    CHECK_CUDA(cudaGetLastError());
    under_way.push_back(now);
  }
  for (const round_under_way &last : under_way) collect(last, expected);

  totals got;
  CHECK_CUDA(cudaMemcpyAsync(&got, sum, sizeof got, cudaMemcpyDeviceToHost, taking));
  CHECK_CUDA(cudaStreamSynchronize(taking));
  bool good = same("records popped of those pushed", expected.pushed, expected.popped);
  good = same("records summed up", expected.popped, got.records) && good;
  good = same("checksum", expected.checksum, got.checksum) && good;
  good = same("failed pops", 0, got.failed_pops) && good;
  good = same("records popped before they were published", 0, got.unpublished) && good;

  for (const round_under_way &slot : slots) {
    CHECK(gmb_token_destroy(slot.pushed));
    CHECK(gmb_token_destroy(slot.popped));
  }
  CHECK(gmb_mailbox_destroy(mailbox));
  CHECK_CUDA(cudaStreamDestroy(making));
  CHECK_CUDA(cudaStreamDestroy(taking));
  CHECK_CUDA(cudaFree(made));
  CHECK_CUDA(cudaFree(lengths));
  CHECK_CUDA(cudaFree(types));
  CHECK_CUDA(cudaFree(taken));
  CHECK_CUDA(cudaFree(headers));
  CHECK_CUDA(cudaFree(sum));
  CHECK(gmb_context_destroy(context));
  if (!good) return 1;
  std::printf("ok: %llu records in %u rounds, %.1f times around the ring, %llu pushes and %llu pops partial"
              "\n",
              static_cast<unsigned long long>(expected.popped), rounds,
              static_cast<double>(expected.pushed) / static_cast<double>(capacity),
              static_cast<unsigned long long>(expected.partial_pushes),
              static_cast<unsigned long long>(expected.partial_pops));
  return 0;
}
