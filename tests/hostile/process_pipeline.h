/* Triple buffers, modules and coordinators in the worlds of process.c: a function that takes a kernel's place, operations that go
 * through a triple buffer, and what they leave behind. */

enum { ELEMENTS = 16, TRIPLE_BYTES = 64 };

/* What a world has of them. */
struct pipeline {
  gmb_triple_buffer triple;
  gmb_module module;
  gmb_kernel kernel;
  gmb_coordinator coordinator;
  gmb_operation done;
};

static const gmb_dtype words = {1, 32, 1};
static const char ptx[] =
    ".version 6.3\n.target sm_75\n.address_size 64\n.visible .entry touch(.param .u64 touch_param_0)\n{\n  ret;\n}\n";

static atomic_int blocks_run;
static void count_block(const gmb_kernel_block *block, const void *const *arguments) {
  (void)arguments;
  CHECK(block->user == &blocks_run);
  ++blocks_run;
}

static void make_pipeline(struct pipeline *p, gmb_context context) {
  gmb_triple_buffer_options options = GMB_TRIPLE_BUFFER_OPTIONS_INIT;
  gmb_coordinator_options coordinator_options = GMB_COORDINATOR_OPTIONS_INIT;
  options.dtype = words;
  options.elements = ELEMENTS;
  coordinator_options.max_operations = 64;
  OK(g.triple_buffer_create(context, &options, &p->triple));
  OK(g.module_create(context, ptx, sizeof ptx, &p->module));
  OK(g.module_register(p->module, "touch", count_block, &blocks_run));
  OK(g.module_get_kernel(p->module, "touch", &p->kernel));
  OK(g.coordinator_create(context, &coordinator_options, &p->coordinator));
}

static gmb_status turns_bytes(gmb_stream on, void *address, void *user) {
  return g.memory_fill(*(gmb_context *)user, address, 0x5A, TRIPLE_BYTES / 2, on);
}

/* There and back: half of it is changed on the way. */
static void use_pipeline(struct pipeline *p, gmb_context context, gmb_stream stream) {
  unsigned char sent[TRIPLE_BYTES], got[TRIPLE_BYTES] = {0};
  const uint64_t value = 7;
  const gmb_argument argument = {&value, sizeof value};
  gmb_launch launch = GMB_LAUNCH_INIT;
  gmb_compute compute = GMB_COMPUTE_INIT;
  gmb_operation up, kernel, done;
  gmb_completion told[8];
  uint32_t count = 0;
  memset(sent, 0x33, sizeof sent);
  compute.callback = turns_bytes;
  compute.user = &context;
  compute.triple = p->triple;
  OK(g.coordinator_queue_triple_upload(p->coordinator, p->triple, words, sent, sizeof sent, NULL, 0, &up));
  OK(g.coordinator_queue_compute(p->coordinator, &compute, NULL, 0, &done));
  launch.grid[0] = 3;
  launch.arguments = &argument;
  launch.argument_count = 1;
  compute = (gmb_compute)GMB_COMPUTE_INIT;
  compute.kernel = p->kernel;
  compute.launch = &launch;
  OK(g.coordinator_queue_compute(p->coordinator, &compute, &up, 1, &kernel));
  OK(g.kernel_launch(p->kernel, &launch, stream));
  OK(g.coordinator_queue_triple_download(p->coordinator, p->triple, words, got, sizeof got, &kernel, 1, &p->done));
  OK(g.coordinator_wait(p->coordinator, p->done, GMB_WAIT_FOREVER, NULL));
  CHECK(got[0] == 0x5A && got[TRIPLE_BYTES - 1] == 0x33);
  OK(g.coordinator_synchronize(p->coordinator, GMB_WAIT_FOREVER));
  OK(g.coordinator_poll(p->coordinator, 8, told, &count));
  CHECK(count > 0);
}

static void end_pipeline(struct pipeline *p) {
  OK(g.coordinator_destroy(p->coordinator));
  OK(g.triple_buffer_destroy(p->triple));
  OK(g.module_destroy(p->module));
  OK(g.kernel_destroy(p->kernel));
}
