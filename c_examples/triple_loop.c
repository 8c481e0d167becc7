/* A loop over chunks of numbers through a triple buffer: while a kernel works on one chunk, the next is uploaded and the one
 * before is downloaded, each on a stream of its own. The loop itself waits for nothing but a free buffer.
 *
 *   triple_loop [--backend auto|host|cuda] */
#include "check.h"
#include "pipeline.h"

#define CHUNKS 32
#define ELEMENTS (1u << 16)
#define ROUNDS 50u
#define LIMIT_NS UINT64_C(60000000000)

/* On the host backend, in the kernel's place. */
static void stir_block(const gmb_kernel_block *block, const void *const *arguments) {
  uint32_t *data = *(uint32_t *const *)arguments[0];
  const uint32_t count = *(const uint32_t *)arguments[1], rounds = *(const uint32_t *)arguments[2];
  const elements mine = elements_of(block, count);
  for (uint32_t n = mine.begin; n < mine.end; ++n) data[n] = stirred(data[n], rounds);
}

static gmb_kernel load_kernel(gmb_context context, gmb_module *module) {
  CHECK(gmb_module_load_file(context, PIPELINE_KERNELS, module));
  CHECK(gmb_module_register(*module, "stir", stir_block, NULL));
  gmb_kernel kernel;
  CHECK(gmb_module_get_kernel(*module, "stir", &kernel));
  return kernel;
}

static void launch(gmb_kernel kernel, void *data, gmb_stream stream) {
  const uint32_t count = ELEMENTS, rounds = ROUNDS;
  const gmb_argument arguments[] = {{&data, sizeof data}, {&count, sizeof count}, {&rounds, sizeof rounds}};
  gmb_launch how = GMB_LAUNCH_INIT;
  how.grid[0] = blocks_for(ELEMENTS);
  how.block[0] = PIPELINE_THREADS;
  how.argument_count = 3;
  how.arguments = arguments;
  CHECK(gmb_kernel_launch(kernel, &how, stream));
}

static uint32_t *pinned_numbers(gmb_context context) {
  void *memory;
  CHECK(gmb_pinned_allocate(context, (uint64_t)CHUNKS * ELEMENTS * sizeof(uint32_t), &memory));
  return memory;
}

static gmb_triple_buffer_info info_of(gmb_triple_buffer triple) {
  gmb_triple_buffer_info info;
  CHECK(gmb_triple_buffer_get_info(triple, &info, sizeof info));
  return info;
}

int main(int count, char **argument) {
  gmb_context_options wanted = GMB_CONTEXT_OPTIONS_INIT;
  wanted.backend = backend_of(count, argument);
  gmb_context context;
  CHECK(gmb_context_create(&wanted, &context));
  gmb_context_info where;
  CHECK(gmb_context_get_info(context, &where, sizeof where));

  gmb_triple_buffer_options options = GMB_TRIPLE_BUFFER_OPTIONS_INIT;
  options.dtype = (gmb_dtype){1, 32, 1}; /* uint32_t */
  options.elements = ELEMENTS;
  gmb_triple_buffer triple;
  CHECK(gmb_triple_buffer_create(context, &options, &triple));
  gmb_stream up, work, down;
  CHECK(gmb_stream_create(context, GMB_PRIORITY_NORMAL, &up));
  CHECK(gmb_stream_create(context, GMB_PRIORITY_NORMAL, &work));
  CHECK(gmb_stream_create(context, GMB_PRIORITY_NORMAL, &down));
  gmb_module module;
  const gmb_kernel kernel = load_kernel(context, &module);
  uint32_t *input = pinned_numbers(context), *output = pinned_numbers(context);
  for (uint32_t n = 0; n < CHUNKS * ELEMENTS; ++n) input[n] = n;

  const uint64_t bytes = ELEMENTS * sizeof(uint32_t);
  uint32_t waits = 0;
  for (uint32_t chunk = 0; chunk < CHUNKS; ++chunk) {
    gmb_triple_slot slot;
    /* The only place where this thread may wait: all three buffers are on their way. */
    gmb_status status = gmb_triple_buffer_acquire(triple, GMB_STEP_UPLOAD, &slot);
    if (status == GMB_NOT_READY) {
      ++waits;
      status = gmb_triple_buffer_wait(triple, GMB_STEP_UPLOAD, LIMIT_NS, &slot);
    }
    CHECK(status);
    MUST(slot.turn == chunk && slot.index == chunk % 3, "buffers should come in their order");
    CHECK(gmb_memory_copy(context, slot.address, input + chunk * ELEMENTS, bytes, up));
    CHECK(gmb_triple_buffer_submit(triple, &slot, up));

    /* The streams wait for each other; this thread does not. */
    CHECK(gmb_triple_buffer_acquire_on(triple, GMB_STEP_PROCESS, work, &slot));
    launch(kernel, slot.address, work);
    CHECK(gmb_triple_buffer_submit(triple, &slot, work));

    CHECK(gmb_triple_buffer_acquire_on(triple, GMB_STEP_DOWNLOAD, down, &slot));
    CHECK(gmb_memory_copy(context, output + slot.turn * ELEMENTS, slot.address, bytes, down));
    CHECK(gmb_triple_buffer_submit(triple, &slot, down));
  }
  CHECK(gmb_stream_synchronize(context, down));
  for (uint32_t n = 0; n < CHUNKS * ELEMENTS; ++n) {
    MUST(output[n] == stirred(n, ROUNDS), "number %" PRIu32 " is %" PRIu32 ", not %" PRIu32, n, output[n], stirred(n, ROUNDS));
  }
  printf("%d chunks of %u numbers went through three buffers; no buffer was free at once %" PRIu32 " times\n", CHUNKS, ELEMENTS,
         waits);

  /* A buffer that is asked for and not used after all becomes free again. */
  gmb_triple_slot slot;
  CHECK(gmb_triple_buffer_wait(triple, GMB_STEP_UPLOAD, LIMIT_NS, &slot));
  MUST(info_of(triple).states[slot.index] == GMB_BUFFER_UPLOADING, "the buffer should be with its uploader");
  MUST(gmb_triple_buffer_acquire(triple, GMB_STEP_PROCESS, &slot) == GMB_NOT_READY, "nothing was uploaded");
  CHECK(gmb_triple_buffer_give_up(triple, &slot));
  MUST(gmb_triple_buffer_submit(triple, &slot, up) == GMB_ERROR_WRONG_STATE, "it was given up");
  uint32_t passed;
  do {
    CHECK(gmb_triple_buffer_advance(triple, &passed));
  } while (passed > 0);
  const gmb_triple_buffer_info info = info_of(triple);
  for (int n = 0; n < 3; ++n) MUST(info.states[n] == GMB_BUFFER_FREE, "buffer %d should be free", n);
  MUST(info.completed == CHUNKS + 1, "%d turns should be over", CHUNKS + 1);
  printf("ok: every number is right, and all buffers are free again; backend=%s\n",
         where.backend == GMB_BACKEND_CUDA ? "cuda" : "host");

  CHECK(gmb_pinned_free(context, input));
  CHECK(gmb_pinned_free(context, output));
  CHECK(gmb_kernel_destroy(kernel));
  CHECK(gmb_module_destroy(module));
  CHECK(gmb_triple_buffer_destroy(triple));
  CHECK(gmb_stream_destroy(context, up));
  CHECK(gmb_stream_destroy(context, work));
  CHECK(gmb_stream_destroy(context, down));
  CHECK(gmb_context_destroy(context));
  return 0;
}
