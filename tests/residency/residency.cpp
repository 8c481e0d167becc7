// Proof that nothing leaves the GPU: what CUPTI records while pushes and pops run, in every mode. Between the operations
// of 1,000 cycles there must be no copy and no fill, exactly one kernel for each, and all payload in device memory.
//   residency [--cycles N] [--plant copy|mapped] [--plain] [--silent]
// A plant is a fault made on purpose: the program must find it, and exits with 3 then. 1 is a failure. With --plain
// nothing is recorded: a profiler does that. With --silent no result is asked for, in the one mode where kernels tell the
// host nothing then: what a profiler counts there is its own.
#include <gpumailbox.h>

#include <cuda.h>
#include <cupti.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

namespace {

constexpr uint32_t records = 64, payload = 112, capacity = 256;

#define GMB(call)                                                                       \
  do {                                                                                  \
    const gmb_status status_ = (call);                                                  \
    if (status_ != GMB_OK) {                                                            \
      char text_[1024] = "";                                                            \
      gmb_last_error_message(text_, sizeof text_, nullptr);                             \
      std::fprintf(stderr, "error: %s: %d: %s\n", #call, status_, text_);               \
      std::exit(1);                                                                     \
    }                                                                                   \
  } while (0)
#define CUPTI(call)                                                                     \
  do {                                                                                  \
    const CUptiResult result_ = (call);                                                 \
    if (result_ != CUPTI_SUCCESS) {                                                     \
      std::fprintf(stderr, "error: %s: %d\n", #call, static_cast<int>(result_));        \
      std::exit(1);                                                                     \
    }                                                                                   \
  } while (0)

#if CUPTI_API_VERSION >= 130000
using kernel_record = CUpti_ActivityKernel10;
#else
using kernel_record = CUpti_ActivityKernel9;
#endif

bool plain = false, silent = false;

struct counts {
  std::atomic<long> copies{0}, fills{0}, kernels{0}, others{0};
} seen;

void CUPTIAPI give(uint8_t **buffer, size_t *size, size_t *most) {
  *size = 8u << 20;
  *most = 0;
  *buffer = static_cast<uint8_t *>(std::aligned_alloc(8, *size));
}

void CUPTIAPI take(CUcontext, uint32_t, uint8_t *buffer, size_t, size_t valid) {
  CUpti_Activity *record = nullptr;
  while (cuptiActivityGetNextRecord(buffer, valid, &record) == CUPTI_SUCCESS) {
    switch (record->kind) {
      case CUPTI_ACTIVITY_KIND_MEMCPY: ++seen.copies; break;
      case CUPTI_ACTIVITY_KIND_MEMCPY2: ++seen.copies; break;
      case CUPTI_ACTIVITY_KIND_MEMSET: ++seen.fills; break;
      case CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL: {
        const char *name = reinterpret_cast<const kernel_record *>(record)->name;
        if (name && std::strncmp(name, "gmb_kernel_", 11) == 0) ++seen.kernels;
        else ++seen.others;
        break;
      }
      default: break;
    }
  }
  std::free(buffer);
}

void collect() {
  if (plain) return;
  CUPTI(cuptiActivityFlushAll(CUPTI_ACTIVITY_FLAG_FLUSH_FORCED));
}

struct mode {
  const char *name;
  gmb_full_policy policy;
  gmb_arbitration arbitration;
  uint32_t readers, flags;
  bool graph;
};

const mode modes[] = {
    {"reject", GMB_FULL_REJECT, GMB_ARBITRATION_CPU, 1, 0, false},
    {"reject, device-arbitrated", GMB_FULL_REJECT, GMB_ARBITRATION_DEVICE, 1, 0, false},
    {"reject, single stream", GMB_FULL_REJECT, GMB_ARBITRATION_CPU, 1, GMB_MAILBOX_SINGLE_STREAM, false},
    {"reject, three readers", GMB_FULL_REJECT, GMB_ARBITRATION_CPU, 3, 0, false},
    {"wait", GMB_FULL_WAIT, GMB_ARBITRATION_CPU, 1, 0, false},
    {"overwrite the oldest", GMB_FULL_OVERWRITE_OLDEST, GMB_ARBITRATION_CPU, 1, 0, false},
    {"latest", GMB_FULL_LATEST, GMB_ARBITRATION_CPU, 1, 0, false},
    {"graph", GMB_FULL_REJECT, GMB_ARBITRATION_CPU, 1, 0, true},
    {"graph, single stream", GMB_FULL_REJECT, GMB_ARBITRATION_CPU, 1, GMB_MAILBOX_SINGLE_STREAM, true},
    {"graph, overwrite the oldest", GMB_FULL_OVERWRITE_OLDEST, GMB_ARBITRATION_CPU, 1, 0, true},
};

bool on_device(const void *address) {
  unsigned type = 0;
  const CUresult result =
      cuPointerGetAttribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, reinterpret_cast<CUdeviceptr>(address));
  return result == CUDA_SUCCESS && type == CU_MEMORYTYPE_DEVICE;
}

/* What is wrong with a mode, or nothing. */
std::vector<std::string> run(gmb_context context, const mode &mode, long cycles, const std::string &plant) {
  gmb_mailbox_options options = GMB_MAILBOX_OPTIONS_INIT;
  options.capacity = capacity;
  options.payload_bytes = payload;
  options.full_policy = mode.policy;
  options.arbitration = mode.arbitration;
  options.readers = mode.readers;
  options.flags = mode.flags;
  gmb_mailbox box;
  gmb_stream streams[2];
  gmb_token pushed, popped;
  void *rows, *out, *lengths, *types, *headers, *seen_by_host;
  GMB(gmb_mailbox_create(context, &options, &box));
  for (gmb_stream &stream : streams) GMB(gmb_stream_create(context, GMB_PRIORITY_NORMAL, &stream));
  GMB(gmb_token_create(context, &pushed));
  GMB(gmb_token_create(context, &popped));
  GMB(gmb_memory_allocate(context, records * payload, &rows));
  GMB(gmb_memory_allocate(context, records * 4, &lengths));
  GMB(gmb_memory_allocate(context, records * 4, &types));
  GMB(gmb_memory_allocate(context, records * sizeof(gmb_record_header), &headers));
  GMB(gmb_pinned_allocate(context, records * payload, &seen_by_host));
  if (plant == "mapped") out = seen_by_host;
  else GMB(gmb_memory_allocate(context, records * payload, &out));
  std::vector<uint32_t> all(records, payload);
  GMB(gmb_memory_copy(context, lengths, all.data(), records * 4, streams[0]));
  GMB(gmb_memory_fill(context, types, 0, records * 4, streams[0]));
  GMB(gmb_memory_fill(context, rows, 7, records * payload, streams[0]));
  GMB(gmb_stream_synchronize(context, streams[0]));
  const gmb_stream left = streams[0], right = mode.flags || mode.graph ? streams[0] : streams[1];

  gmb_push push = GMB_PUSH_INIT;
  push.count = records;
  push.records = rows;
  push.lengths = static_cast<const uint32_t *>(lengths);
  push.types = static_cast<const uint32_t *>(types);
  gmb_pop pop = GMB_POP_INIT;
  pop.max = records;
  pop.records = out;
  pop.headers = static_cast<gmb_record_header *>(headers);
  const auto cycle = [&] {
    GMB(gmb_mailbox_push(box, &push, left, silent ? gmb_token{0} : pushed));
    for (pop.reader = 0; pop.reader < mode.readers; ++pop.reader) {
      const bool last = pop.reader + 1 == mode.readers;
      GMB(gmb_mailbox_pop(box, &pop, right, last && !silent ? popped : gmb_token{0}));
    }
  };
  gmb_graph graph{};
  if (mode.graph) {
    GMB(gmb_stream_begin_capture(context, left, GMB_CAPTURE_THREAD_LOCAL));
    cycle();
    GMB(gmb_stream_end_capture(context, left, &graph));
  }
  const uint32_t expected = mode.policy == GMB_FULL_LATEST ? 1 : records;
  std::vector<std::string> wrong;
  uint32_t launches = 0;
  const auto once = [&] {
    gmb_result result;
    if (mode.graph) GMB(gmb_graph_launch(graph, left));
    else cycle();
    if (plant == "copy") GMB(gmb_memory_copy(context, seen_by_host, out, 16, right));
    if (silent) {
      GMB(gmb_stream_synchronize(context, right));
      return;
    }
    GMB(gmb_token_wait(popped, mode.graph ? launches : GMB_EPOCH_LAST, 10000000000ull, &result));
    ++launches;
    if (result.count != expected || result.status != GMB_OK) wrong.push_back("a pop gave " + std::to_string(result.count));
  };
  for (int i = 0; i < (plain ? 2 : 20); ++i) once();
  for (gmb_stream stream : streams) GMB(gmb_stream_synchronize(context, stream));
  collect();
  seen.copies = seen.fills = seen.kernels = seen.others = 0;
  for (long i = 0; i < cycles; ++i) once();
  for (gmb_stream stream : streams) GMB(gmb_stream_synchronize(context, stream));
  collect();

  const long operations = cycles * (1 + mode.readers);
  if (seen.copies != 0) wrong.push_back(std::to_string(seen.copies) + " copies");
  if (seen.fills != 0) wrong.push_back(std::to_string(seen.fills) + " fills");
  if (seen.others != 0) wrong.push_back(std::to_string(seen.others) + " kernels of others");
  if (!plain && seen.kernels != operations)
    wrong.push_back(std::to_string(seen.kernels) + " kernels for " + std::to_string(operations) + " operations");
  gmb_mailbox_info info;
  GMB(gmb_mailbox_get_info(box, &info, sizeof info));
  const struct {
    const char *name;
    const void *address;
  } all_payload[] = {{"the ring", info.ring}, {"what is pushed", rows}, {"what is popped", out}, {"headers", headers},
                     {"lengths", lengths},    {"types", types}};
  for (const auto &each : all_payload)
    if (!on_device(each.address)) wrong.push_back(std::string(each.name) + " is not in device memory");
  std::printf("%-28s %ld operations: %ld kernels, %ld copies, %ld fills%s\n", mode.name, operations, seen.kernels.load(),
              seen.copies.load(), seen.fills.load(), wrong.empty() ? "" : "  WRONG");

  if (mode.graph) GMB(gmb_graph_destroy(graph));
  GMB(gmb_mailbox_destroy(box));
  GMB(gmb_token_destroy(pushed));
  GMB(gmb_token_destroy(popped));
  for (gmb_stream stream : streams) GMB(gmb_stream_destroy(context, stream));
  if (plant != "mapped") GMB(gmb_memory_free(context, out));
  for (void *memory : {rows, lengths, types, headers}) GMB(gmb_memory_free(context, memory));
  GMB(gmb_pinned_free(context, seen_by_host));
  return wrong;
}

}  // namespace

int main(int argc, char **argv) {
  long cycles = 1000;
  std::string plant;
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--plain") == 0) plain = true;
    else if (std::strcmp(argv[i], "--silent") == 0) silent = true;
    else if (i + 1 < argc && std::strcmp(argv[i], "--cycles") == 0) cycles = std::atol(argv[++i]);
    else if (i + 1 < argc && std::strcmp(argv[i], "--plant") == 0) plant = argv[++i];
    else return std::fprintf(stderr, "error: no option %s\n", argv[i]), 2;
  }
  if (!plain) {
    CUPTI(cuptiActivityRegisterCallbacks(give, take));
    for (CUpti_ActivityKind kind : {CUPTI_ACTIVITY_KIND_MEMCPY, CUPTI_ACTIVITY_KIND_MEMCPY2,
                                    CUPTI_ACTIVITY_KIND_MEMSET, CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL})
      CUPTI(cuptiActivityEnable(kind));
  }
  gmb_context_options options = GMB_CONTEXT_OPTIONS_INIT;
  options.backend = GMB_BACKEND_CUDA;
  gmb_context context;
  GMB(gmb_context_create(&options, &context));
  long bad = 0, tried = 0;
  for (const mode &mode : modes) {
    if (silent && !(mode.graph && mode.flags & GMB_MAILBOX_SINGLE_STREAM)) continue;
    const std::vector<std::string> wrong = run(context, mode, cycles, plant);
    ++tried;
    bad += !wrong.empty();
    for (const std::string &each : wrong) {
      std::printf("  %s\n", each.c_str());
      if (&each - wrong.data() > 4) break;
    }
  }
  GMB(gmb_context_destroy(context));
  if (!plant.empty()) {
    std::printf("planted (%s): found in %ld of %ld modes\n", plant.c_str(), bad, tried);
    return bad == tried ? 3 : 1;
  }
  std::printf("residency: %ld modes, %ld cycles each, %ld wrong\n", tried, cycles, bad);
  return bad == 0 ? 0 : 1;
}
