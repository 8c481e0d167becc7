// Proof that nothing leaves the GPU: what CUPTI records while pushes and pops run, in every mode. Between the operations
// of 1,000 cycles there must be no copy and no fill, exactly one kernel for each, and all payload in device memory. A cycle
// is a push, and a pop for each reader or a borrow and its release. A mode is a full policy, an arbitration, eager or in a
// graph, popped or borrowed, for one or three readers or on a single stream, of one block, of several, or of as many as draw.
//   residency [--cycles N] [--plant copy|mapped] [--plain] [--silent]
// A plant is a fault made on purpose: the program must find it, and exits with 3 then. 1 is a failure. With --plain
// nothing is recorded: a profiler does that. With --silent no result is asked for, in the modes where kernels tell
// the host nothing then: what a profiler counts there is its own.
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

constexpr uint32_t payload = 112;

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

/* Records of an operation of one block, of several with a tile each, and of those that draw their tiles. */
constexpr uint32_t sizes[] = {64, 4096, 1 << 19};
constexpr const char *sized[] = {"one block", "blocks", "drawing blocks"};

enum taking { by_pop, in_graph, by_borrow };

struct mode {
  gmb_full_policy policy;
  gmb_arbitration arbitration;
  taking how;
  uint32_t readers, flags;
  int size;

  uint32_t records() const { return sizes[size]; }
  bool graph() const { return how == in_graph; }
  std::string name() const {
    constexpr const char *policies[] = {"reject", "wait", "overwrite the oldest", "latest"};
    std::string all = policies[policy];
    if (arbitration == GMB_ARBITRATION_DEVICE) all += ", device-arbitrated";
    if (readers > 1) all += ", three readers";
    if (flags & GMB_MAILBOX_SINGLE_STREAM) all += ", single stream";
    if (how != by_pop) all += how == in_graph ? ", graph" : ", borrowed";
    return all + ", " + sized[size];
  }
};

/* All that docs/mailbox.md allows. */
std::vector<mode> all_modes() {
  std::vector<mode> all;
  for (gmb_full_policy policy : {GMB_FULL_REJECT, GMB_FULL_WAIT, GMB_FULL_OVERWRITE_OLDEST, GMB_FULL_LATEST})
    for (gmb_arbitration arbitration : {GMB_ARBITRATION_CPU, GMB_ARBITRATION_DEVICE})
      for (taking how : {by_pop, in_graph, by_borrow})
        for (int shape = 0; shape < 3; ++shape)
          for (int size = 0; size < 3; ++size) {
            const bool overwrites = policy == GMB_FULL_OVERWRITE_OLDEST || policy == GMB_FULL_LATEST;
            if (how == in_graph && policy == GMB_FULL_WAIT) continue;
            if (how == by_borrow && overwrites && arbitration == GMB_ARBITRATION_DEVICE) continue;
            /* One record is moved, whatever was pushed; a borrow is of one block. */
            if (size > 0 && policy == GMB_FULL_LATEST) continue;
            if (size > 1 && how == by_borrow) continue;
            all.push_back({policy, arbitration, how, shape == 1 ? 3u : 1u, shape == 2 ? GMB_MAILBOX_SINGLE_STREAM : 0u, size});
          }
  return all;
}

bool on_device(const void *address) {
  unsigned type = 0;
  const CUresult result =
      cuPointerGetAttribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, reinterpret_cast<CUdeviceptr>(address));
  return result == CUDA_SUCCESS && type == CU_MEMORYTYPE_DEVICE;
}

/* What is wrong with a mode, or nothing. */
std::vector<std::string> run(gmb_context context, const mode &mode, long cycles, const std::string &plant) {
  gmb_mailbox_options options = GMB_MAILBOX_OPTIONS_INIT;
  const uint32_t records = mode.records();
  options.capacity = records * 2;
  options.payload_bytes = payload;
  options.full_policy = mode.policy;
  options.arbitration = mode.arbitration;
  options.readers = mode.readers;
  options.flags = mode.flags;
  gmb_mailbox box;
  gmb_stream streams[2];
  gmb_token pushed, popped;
  void *device_rows, *out, *lengths, *types, *headers, *seen_by_host;
  GMB(gmb_mailbox_create(context, &options, &box));
  for (gmb_stream &stream : streams) GMB(gmb_stream_create(context, GMB_PRIORITY_NORMAL, &stream));
  GMB(gmb_token_create(context, &pushed));
  GMB(gmb_token_create(context, &popped));
  GMB(gmb_memory_allocate(context, records * payload, &device_rows));
  GMB(gmb_memory_allocate(context, records * 4, &lengths));
  GMB(gmb_memory_allocate(context, records * 4, &types));
  GMB(gmb_memory_allocate(context, records * sizeof(gmb_record_header), &headers));
  GMB(gmb_pinned_allocate(context, records * payload, &seen_by_host));
  GMB(gmb_memory_allocate(context, records * payload, &out));
  void *const device_out = out, *rows = device_rows;
  /* Nothing is moved by a borrow. */
  if (plant == "mapped") (mode.how == by_borrow ? rows : out) = seen_by_host;
  std::vector<uint32_t> all(records, payload);
  GMB(gmb_memory_copy(context, lengths, all.data(), records * 4, streams[0]));
  GMB(gmb_memory_fill(context, types, 0, records * 4, streams[0]));
  GMB(gmb_memory_fill(context, device_rows, 7, records * payload, streams[0]));
  GMB(gmb_stream_synchronize(context, streams[0]));
  const gmb_stream left = streams[0], right = mode.flags || mode.graph() || mode.arbitration == GMB_ARBITRATION_DEVICE ? streams[0] : streams[1];

  gmb_push push = GMB_PUSH_INIT;
  push.count = records;
  push.records = rows;
  push.lengths = static_cast<const uint32_t *>(lengths);
  push.types = static_cast<const uint32_t *>(types);
  gmb_pop pop = GMB_POP_INIT;
  pop.max = records;
  pop.records = out;
  pop.headers = static_cast<gmb_record_header *>(headers);
  const uint32_t expected = mode.policy == GMB_FULL_LATEST ? 1 : records;
  std::vector<std::string> wrong;
  const auto check = [&](const gmb_result &result) {
    if (result.count != expected || result.status != GMB_OK) wrong.push_back("it gave " + std::to_string(result.count));
  };
  const auto borrow = [&] {
    gmb_borrow held;
    gmb_result result;
    gmb_spans spans;
    GMB(gmb_mailbox_borrow(box, pop.reader, records, right, &held));
    GMB(gmb_borrow_wait(held, 10000000000ull, &result, &spans));
    check(result);
    if (!on_device(spans.records[0])) wrong.push_back("what is borrowed is not in device memory");
    GMB(gmb_borrow_release(held, right));
  };
  const auto cycle = [&] {
    GMB(gmb_mailbox_push(box, &push, left, silent ? gmb_token{0} : pushed));
    for (pop.reader = 0; pop.reader < mode.readers; ++pop.reader) {
      const bool last = pop.reader + 1 == mode.readers;
      if (mode.how == by_borrow) borrow();
      else GMB(gmb_mailbox_pop(box, &pop, right, last && !silent ? popped : gmb_token{0}));
    }
  };
  gmb_graph graph{};
  if (mode.graph()) {
    GMB(gmb_stream_begin_capture(context, left, GMB_CAPTURE_THREAD_LOCAL));
    cycle();
    GMB(gmb_stream_end_capture(context, left, &graph));
  }
  uint32_t launches = 0;
  const auto once = [&] {
    gmb_result result;
    if (mode.graph()) GMB(gmb_graph_launch(graph, left));
    else cycle();
    if (plant == "copy") GMB(gmb_memory_copy(context, seen_by_host, out, 16, right));
    if (silent) {
      GMB(gmb_stream_synchronize(context, right));
      return;
    }
    GMB(gmb_token_wait(mode.how == by_borrow ? pushed : popped, mode.graph() ? launches : GMB_EPOCH_LAST, 10000000000ull, &result));
    ++launches;
    if (mode.how != by_borrow) check(result);
  };
  for (int i = 0; i < (plain ? 1 : 20); ++i) once();
  for (gmb_stream stream : streams) GMB(gmb_stream_synchronize(context, stream));
  collect();
  seen.copies = seen.fills = seen.kernels = seen.others = 0;
  for (long i = 0; i < cycles; ++i) once();
  for (gmb_stream stream : streams) GMB(gmb_stream_synchronize(context, stream));
  collect();

  const long operations = cycles * (1 + mode.readers * (mode.how == by_borrow ? 2 : 1));
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
  std::printf("%-66s %ld operations: %ld kernels, %ld copies, %ld fills%s\n", mode.name().c_str(), operations, seen.kernels.load(),
              seen.copies.load(), seen.fills.load(), wrong.empty() ? "" : "  WRONG");

  if (mode.graph()) GMB(gmb_graph_destroy(graph));
  GMB(gmb_mailbox_destroy(box));
  GMB(gmb_token_destroy(pushed));
  GMB(gmb_token_destroy(popped));
  for (gmb_stream stream : streams) GMB(gmb_stream_destroy(context, stream));
  for (void *memory : {device_rows, device_out, lengths, types, headers}) GMB(gmb_memory_free(context, memory));
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
  for (const mode &mode : all_modes()) {
    if (silent && !(mode.graph() && mode.flags & GMB_MAILBOX_SINGLE_STREAM)) continue;
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
