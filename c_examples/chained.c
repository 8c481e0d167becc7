/* Three operations, each after the one before: an upload, a kernel and a download, queued at once and waited for once. Then the
 * same with a computation that fails: the download behind it fails, too, and says whose fault it is; the upload does not.
 *
 *   chained [--backend auto|host|cuda] */
#include "check.h"
#include "pipeline.h"

#define COUNT 100000u
#define FACTOR 7u
#define LIMIT_NS UINT64_C(60000000000)

/* On the host backend, in the kernel's place. */
static void scale_block(const gmb_kernel_block *block, const void *const *arguments) {
  uint32_t *to = *(uint32_t *const *)arguments[0];
  const uint32_t *from = *(const uint32_t *const *)arguments[1];
  const uint32_t count = *(const uint32_t *)arguments[2], factor = *(const uint32_t *)arguments[3];
  const elements mine = elements_of(block, count);
  for (uint32_t n = mine.begin; n < mine.end; ++n) to[n] = scaled(from[n], factor);
}

/* A callback that enqueues nothing, and says that it cannot. */
static gmb_status refuse(gmb_stream stream, void *address, void *user) {
  (void)stream, (void)address;
  ++*(uint32_t *)user;
  return GMB_ERROR_NOT_SUPPORTED;
}

static gmb_operation queue_kernel(gmb_coordinator coordinator, gmb_kernel kernel, void *data, gmb_operation after) {
  const uint32_t count = COUNT, factor = FACTOR;
  const gmb_argument arguments[] = {
      {&data, sizeof data}, {&data, sizeof data}, {&count, sizeof count}, {&factor, sizeof factor}};
  gmb_launch how = GMB_LAUNCH_INIT;
  how.grid[0] = blocks_for(COUNT);
  how.block[0] = PIPELINE_THREADS;
  how.argument_count = 4;
  how.arguments = arguments;
  gmb_compute compute = GMB_COMPUTE_INIT;
  compute.kernel = kernel;
  compute.launch = &how;
  gmb_operation computed;
  CHECK(gmb_coordinator_queue_compute(coordinator, &compute, &after, 1, &computed));
  return computed;
}

static const char *name_of(gmb_operation_kind kind) {
  return kind == GMB_OPERATION_UPLOAD ? "upload" : kind == GMB_OPERATION_COMPUTE ? "compute" : "download";
}

/* What was done, in the order in which it came to be. */
static void poll_all(gmb_coordinator coordinator, const gmb_operation operations[3], gmb_completion completions[3]) {
  uint32_t told;
  CHECK(gmb_coordinator_poll(coordinator, 3, completions, &told));
  MUST(told == 3, "%" PRIu32 " of three operations were told", told);
  for (uint32_t n = 0; n < told; ++n) {
    printf("  %s: %s\n", name_of(completions[n].kind), gmb_status_name(completions[n].status));
    MUST(completions[n].operation.id == operations[n].id, "what comes after another is told after it");
    MUST(completions[n].kind == (gmb_operation_kind)n, "the kinds");
  }
}

int main(int count, char **argument) {
  gmb_context_options wanted = GMB_CONTEXT_OPTIONS_INIT;
  wanted.backend = backend_of(count, argument);
  gmb_context context;
  CHECK(gmb_context_create(&wanted, &context));
  gmb_context_info where;
  CHECK(gmb_context_get_info(context, &where, sizeof where));
  gmb_module module;
  gmb_kernel kernel;
  CHECK(gmb_module_load_file(context, PIPELINE_KERNELS, &module));
  CHECK(gmb_module_register(module, "scale", scale_block, NULL));
  CHECK(gmb_module_get_kernel(module, "scale", &kernel));
  const gmb_coordinator_options options = GMB_COORDINATOR_OPTIONS_INIT;
  gmb_coordinator coordinator;
  CHECK(gmb_coordinator_create(context, &options, &coordinator));
  void *data;
  const uint64_t bytes = COUNT * sizeof(uint32_t);
  CHECK(gmb_memory_allocate(context, bytes, &data));
  /* Pageable memory: it goes through pinned memory of the library's, and no call waits for it. */
  static uint32_t input[COUNT], output[COUNT];
  for (uint32_t n = 0; n < COUNT; ++n) input[n] = n;

  gmb_operation chain[3];
  gmb_completion told[3];
  CHECK(gmb_coordinator_queue_upload(coordinator, data, input, bytes, NULL, 0, &chain[0]));
  chain[1] = queue_kernel(coordinator, kernel, data, chain[0]);
  CHECK(gmb_coordinator_queue_download(coordinator, output, data, bytes, &chain[1], 1, &chain[2]));
  CHECK(gmb_coordinator_wait(coordinator, chain[2], LIMIT_NS, NULL));
  for (uint32_t n = 0; n < COUNT; ++n) MUST(output[n] == scaled(n, FACTOR), "number %" PRIu32 " is %" PRIu32, n, output[n]);
  printf("a chain of three:\n");
  poll_all(coordinator, chain, told);
  for (int n = 0; n < 3; ++n) MUST(told[n].status == GMB_OK && told[n].cause.id == 0, "all three should be well");

  uint32_t calls = 0;
  gmb_compute compute = GMB_COMPUTE_INIT;
  compute.callback = refuse;
  compute.user = &calls;
  CHECK(gmb_coordinator_queue_upload(coordinator, data, input, bytes, NULL, 0, &chain[0]));
  CHECK(gmb_coordinator_queue_compute(coordinator, &compute, &chain[0], 1, &chain[1]));
  MUST(calls == 1, "the callback is called before the call returns");
  CHECK(gmb_coordinator_queue_download(coordinator, output, data, bytes, &chain[1], 1, &chain[2]));
  const gmb_status failed = gmb_coordinator_wait(coordinator, chain[2], LIMIT_NS, NULL);
  char message[512] = "";
  gmb_last_error_message(message, sizeof message, NULL);
  MUST(failed == GMB_ERROR_NOT_SUPPORTED, "the download should fail as the callback did, not with %s", gmb_status_name(failed));
  printf("the same with a callback that fails: %s\n", message);
  poll_all(coordinator, chain, told);
  MUST(told[0].status == GMB_OK, "the upload comes after nothing that failed");
  MUST(told[1].status == GMB_ERROR_NOT_SUPPORTED && told[1].cause.id == chain[1].id, "the callback is its own cause");
  MUST(told[2].status == GMB_ERROR_NOT_SUPPORTED && told[2].cause.id == chain[1].id, "and that of the download");
  printf("ok: %u numbers are right, and a failure has its cause; backend=%s\n", COUNT,
         where.backend == GMB_BACKEND_CUDA ? "cuda" : "host");

  CHECK(gmb_coordinator_destroy(coordinator));
  CHECK(gmb_memory_free(context, data));
  CHECK(gmb_kernel_destroy(kernel));
  CHECK(gmb_module_destroy(module));
  CHECK(gmb_context_destroy(context));
  return 0;
}
