/* Triple buffers, modules and coordinators for arguments.c: what the calls need, and the calls. What a call queues is waited for
 * after it, so that none fills the coordinator; what changes a triple buffer gets a new one each time. */

enum { MOST_OPERATIONS = 64, ELEMENTS = 16, TRIPLE_BYTES = ELEMENTS * 4, COPIED = 64, MOST_ARGUMENTS = 4096, TASKS = 3 };

static gmb_triple_buffer stale_triple, foreign_triple, new_triple;
static gmb_module stale_module;
static gmb_kernel stale_kernel, foreign_kernel;
/* Nothing is ever queued on the still one again: its two operations stay known. */
static gmb_coordinator stale_coordinator, other_coordinator, still_coordinator;
static gmb_mailbox foreign_box;
static const gmb_dtype floats = {2, 32, 1};
static unsigned char copied[BYTES + COPIED];
static char module_path[] = "/tmp/gmb-hostile-XXXXXX";
/* Longer than any path or name, of two bytes each that are no UTF-8, and one with that in its middle. */
static char long_text[1 << 16], no_text[] = "\xff\xfe", half_text[] = "touch\xc3";

/* A kernel that does nothing, for a GPU; a function of its name takes its place on the host. */
static const char ptx[] =
    ".version 6.3\n.target sm_75\n.address_size 64\n.visible .entry touch(.param .u64 touch_param_0)\n{\n  ret;\n}\n";
static void touch(const gmb_kernel_block *block, const void *const *arguments) { (void)block, (void)arguments; }
static gmb_status enqueue_nothing(gmb_stream on, void *address, void *user) { return (void)on, (void)address, (void)user, GMB_OK; }

/* What operations come after: the first of each list is good, but for those that say otherwise. */
static gmb_operation done_operation, failed_operation, still_done, still_failed;
static gmb_operation good_after[2], after_lists[16][2];
static size_t after_count;

static const uint64_t one_argument;
static gmb_argument many_arguments[MOST_ARGUMENTS], hostile_arguments[8][1];
static gmb_launch good_launch, hostile_launches[16];
static gmb_compute good_compute;

static gmb_triple_buffer make_a_triple(gmb_context of) {
  gmb_triple_buffer_options options = GMB_TRIPLE_BUFFER_OPTIONS_INIT;
  gmb_triple_buffer made;
  options.dtype = floats;
  options.elements = ELEMENTS;
  CHECK(gmb_triple_buffer_create(of, &options, &made));
  return made;
}

static gmb_module make_a_module(gmb_context of) {
  gmb_module made;
  CHECK(gmb_module_create(of, ptx, sizeof ptx, &made));
  CHECK(gmb_module_register(made, "touch", touch, NULL));
  return made;
}

static gmb_kernel kernel_of(gmb_module of) {
  gmb_kernel found;
  CHECK(gmb_module_get_kernel(of, "touch", &found));
  return found;
}

static gmb_coordinator make_a_coordinator(gmb_context of, uint32_t max_operations) {
  gmb_coordinator_options options = GMB_COORDINATOR_OPTIONS_INIT;
  gmb_coordinator made;
  options.max_operations = max_operations;
  CHECK(gmb_coordinator_create(of, &options, &made));
  return made;
}

static gmb_status fails(gmb_stream on, void *address, void *user) { return (void)on, (void)address, (void)user, E(CORRUPT); }

static gmb_compute compute_of(gmb_enqueue_function callback, void *user) {
  gmb_compute compute = GMB_COMPUTE_INIT;
  compute.callback = callback;
  compute.user = user;
  return compute;
}

static gmb_operation queued(gmb_coordinator in, gmb_enqueue_function callback, void *user) {
  const gmb_compute compute = compute_of(callback, user);
  gmb_operation made;
  CHECK(gmb_coordinator_queue_compute(in, &compute, NULL, 0, &made));
  return made;
}

/* A list for `after`, which gives its address. */
static uint64_t list_of(gmb_operation first, gmb_operation second) {
  if (after_count == sizeof after_lists / sizeof *after_lists) abort();
  gmb_operation *list = after_lists[after_count++];
  list[0] = first, list[1] = second;
  return bits_of(list);
}

static void make_pipeline(void) {
  gmb_module own;
  triple = make_a_triple(context);
  foreign_triple = make_a_triple(foreign_context);
  stale_triple = make_a_triple(context);
  CHECK(gmb_triple_buffer_destroy(stale_triple));
  module = make_a_module(context);
  kernel = kernel_of(module);
  stale_module = make_a_module(context);
  stale_kernel = kernel_of(stale_module);
  CHECK(gmb_module_destroy(stale_module));
  CHECK(gmb_kernel_destroy(stale_kernel));
  own = make_a_module(foreign_context);
  foreign_kernel = kernel_of(own);
  CHECK(gmb_module_destroy(own));
  CHECK(gmb_mailbox_create(foreign_context, &mailbox_options, &foreign_box));
  coordinator = make_a_coordinator(context, MOST_OPERATIONS);
  other_coordinator = make_a_coordinator(context, 1);
  still_coordinator = make_a_coordinator(context, MOST_OPERATIONS);
  stale_coordinator = make_a_coordinator(context, 1);
  const gmb_operation stale = queued(stale_coordinator, enqueue_nothing, NULL);
  CHECK(gmb_coordinator_destroy(stale_coordinator));
  const gmb_operation of_another = queued(other_coordinator, enqueue_nothing, NULL);
  done_operation = queued(coordinator, enqueue_nothing, NULL);
  failed_operation = queued(coordinator, fails, NULL);
  still_done = queued(still_coordinator, enqueue_nothing, NULL);
  still_failed = queued(still_coordinator, fails, NULL);
  CHECK(gmb_coordinator_synchronize(coordinator, GMB_WAIT_FOREVER));
  CHECK(gmb_coordinator_synchronize(still_coordinator, GMB_WAIT_FOREVER));
  const gmb_operation no_operations[] = {{0}, stale, of_another, {done_operation.id + (1u << 30)}, {UINT64_MAX}, {1}, {GARBAGE},
                                         {done_operation.id ^ HIGH_BIT}, {context.id}};
  good_after[0] = good_after[1] = done_operation;
  for (size_t i = 0; i < sizeof no_operations / sizeof *no_operations; ++i) list_of(no_operations[i], done_operation);
  many_arguments[0] = (gmb_argument){&one_argument, sizeof one_argument};
  for (int i = 1; i < MOST_ARGUMENTS; ++i) many_arguments[i] = many_arguments[0];
  const gmb_argument hostile[] = {{NULL, 8}, {&one_argument, 0}, {&one_argument, MOST_ARGUMENTS + 1}, {&one_argument, UINT64_MAX},
                                  {NULL, 0}};
  for (size_t i = 0; i < sizeof hostile / sizeof *hostile; ++i) hostile_arguments[i][0] = hostile[i];
  good_launch = (gmb_launch)GMB_LAUNCH_INIT;
  good_launch.argument_count = 1;
  good_launch.arguments = many_arguments;
  good_compute = (gmb_compute)GMB_COMPUTE_INIT;
  good_compute.kernel = kernel;
  good_compute.launch = &good_launch;
  memset(long_text, 'a', sizeof long_text - 1);
  const int file = mkstemp(module_path);
  if (file < 0 || write(file, ptx, sizeof ptx) != sizeof ptx || close(file) != 0) abort();
}

/* ---- The calls ---- */

#define TRIPLE(i) ((gmb_triple_buffer){a[i]})
#define MODULE(i) ((gmb_module){a[i]})
#define KERNEL(i) ((gmb_kernel){a[i]})
#define COORDINATOR(i) ((gmb_coordinator){a[i]})
#define OPERATION(i) ((gmb_operation){a[i]})
/* code | bits | lanes */
#define DTYPE(i) ((gmb_dtype){(uint8_t)a[i], (uint8_t)(a[i] >> 8), (uint16_t)(a[i] >> 16)})
static uint64_t dtype_bits(gmb_dtype type) { return type.code | (uint64_t)type.bits << 8 | (uint64_t)type.lanes << 16; }

CALL(triple_create) { return gmb_triple_buffer_create(CONTEXT(0), P(1), P(2)); }
CALL(triple_destroy) { return gmb_triple_buffer_destroy(TRIPLE(0)); }
CALL(triple_get_info) { return gmb_triple_buffer_get_info(TRIPLE(0), P(1), a[2]); }
CALL(acquire) { return gmb_triple_buffer_acquire(TRIPLE(0), I32(1), P(2)); }
CALL(acquire_on) { return gmb_triple_buffer_acquire_on(TRIPLE(0), I32(1), P(2), P(3)); }
CALL(triple_wait) { return gmb_triple_buffer_wait(TRIPLE(0), I32(1), a[2], P(3)); }
CALL(submit) { return gmb_triple_buffer_submit(TRIPLE(0), P(1), P(2)); }
CALL(give_up) { return gmb_triple_buffer_give_up(TRIPLE(0), P(1)); }
CALL(advance) { return gmb_triple_buffer_advance(TRIPLE(0), P(1)); }
CALL(module_create) { return gmb_module_create(CONTEXT(0), P(1), a[2], P(3)); }
CALL(module_load_file) { return gmb_module_load_file(CONTEXT(0), P(1), P(2)); }
CALL(module_destroy) { return gmb_module_destroy(MODULE(0)); }
CALL(module_register) { return gmb_module_register(MODULE(0), P(1), a[2] ? touch : NULL, P(3)); }
CALL(module_get_kernel) { return gmb_module_get_kernel(MODULE(0), P(1), P(2)); }
CALL(kernel_destroy) { return gmb_kernel_destroy(KERNEL(0)); }
CALL(kernel_get_info) { return gmb_kernel_get_info(KERNEL(0), P(1), a[2]); }
CALL(kernel_launch) { return gmb_kernel_launch(KERNEL(0), P(1), P(2)); }
CALL(coordinator_create) { return gmb_coordinator_create(CONTEXT(0), P(1), P(2)); }
CALL(coordinator_destroy) { return gmb_coordinator_destroy(COORDINATOR(0)); }
CALL(coordinator_get_info) { return gmb_coordinator_get_info(COORDINATOR(0), P(1), a[2]); }
CALL(get_stream) { return gmb_coordinator_get_stream(COORDINATOR(0), I32(1), P(2)); }
CALL(queue_upload) { return gmb_coordinator_queue_upload(COORDINATOR(0), P(1), P(2), a[3], P(4), U32(5), P(6)); }
CALL(queue_download) { return gmb_coordinator_queue_download(COORDINATOR(0), P(1), P(2), a[3], P(4), U32(5), P(6)); }
CALL(triple_upload) { return gmb_coordinator_queue_triple_upload(COORDINATOR(0), TRIPLE(1), DTYPE(2), P(3), a[4], P(5), U32(6), P(7)); }
CALL(triple_download) {
  return gmb_coordinator_queue_triple_download(COORDINATOR(0), TRIPLE(1), DTYPE(2), P(3), a[4], P(5), U32(6), P(7));
}
CALL(queue_compute) { return gmb_coordinator_queue_compute(COORDINATOR(0), P(1), P(2), U32(3), P(4)); }
CALL(queue_push_of) { return gmb_coordinator_queue_push(COORDINATOR(0), MAILBOX(1), P(2), I32(3), P(4), U32(5), P(6)); }
CALL(queue_pop_of) { return gmb_coordinator_queue_pop(COORDINATOR(0), MAILBOX(1), P(2), I32(3), P(4), U32(5), P(6)); }
CALL(coordinator_poll) { return gmb_coordinator_poll(COORDINATOR(0), U32(1), P(2), P(3)); }
CALL(coordinator_wait) { return gmb_coordinator_wait(COORDINATOR(0), OPERATION(1), a[2], P(3)); }
CALL(coordinator_synchronize) { return gmb_coordinator_synchronize(COORDINATOR(0), a[1]); }
CALL(queue_graph) { return gmb_coordinator_queue_graph(COORDINATOR(0), P(1), U32(2), P(3)); }

static union {
  gmb_module module;
  gmb_kernel kernel;
  gmb_coordinator coordinator;
} made_pipeline;
/* A new triple buffer, some of whose buffers were asked for, submitted, or come to another step. */
static void asked_for(gmb_triple_buffer of, gmb_step step, gmb_triple_slot *slot) {
  CHECK(gmb_triple_buffer_acquire_on(of, step, stream, slot));
}
static void gone_through(gmb_triple_buffer of, gmb_step step) {
  gmb_triple_slot slot;
  asked_for(of, step, &slot);
  CHECK(gmb_triple_buffer_submit(of, &slot, stream));
}
MAKE(triple) { new_triple = make_a_triple(context), a[0] = new_triple.id; }
UNDO(triple) { (void)a, (void)status, gmb_triple_buffer_destroy(new_triple); }
MAKE(held) { make_triple(a), asked_for(new_triple, GMB_STEP_UPLOAD, (gmb_triple_slot *)(void *)area[1]); }
MAKE(uploaded) { (void)a, new_triple = make_a_triple(context), gone_through(new_triple, GMB_STEP_UPLOAD); }
MAKE(free_in_queue) { new_triple = make_a_triple(context), a[1] = new_triple.id; }
MAKE(processed_in_queue) { make_uploaded(a), gone_through(new_triple, GMB_STEP_PROCESS), a[1] = new_triple.id; }
UNDO(triple_create) { if (status == GMB_OK) CHECK(gmb_triple_buffer_destroy(*(gmb_triple_buffer *)P(2))); }
MAKE(module) { made_pipeline.module = make_a_module(context), a[0] = made_pipeline.module.id; }
UNDO(module) { (void)a, (void)status, gmb_module_destroy(made_pipeline.module); }
UNDO(module_create) { if (status == GMB_OK) CHECK(gmb_module_destroy(*(gmb_module *)P(3))); }
UNDO(module_load_file) { if (status == GMB_OK) CHECK(gmb_module_destroy(*(gmb_module *)P(2))); }
MAKE(kernel) { made_pipeline.kernel = kernel_of(module), a[0] = made_pipeline.kernel.id; }
UNDO(kernel) { (void)a, (void)status, gmb_kernel_destroy(made_pipeline.kernel); }
UNDO(get_kernel) { if (status == GMB_OK) CHECK(gmb_kernel_destroy(*(gmb_kernel *)P(2))); }
MAKE(coordinator) { made_pipeline.coordinator = make_a_coordinator(context, 4), a[0] = made_pipeline.coordinator.id; }
UNDO(coordinator) { (void)a, (void)status, gmb_coordinator_destroy(made_pipeline.coordinator); }
UNDO(coordinator_create) { if (status == GMB_OK) CHECK(gmb_coordinator_destroy(*(gmb_coordinator *)P(2))); }

/* What was queued is done; the operations of the lists, and those of the rows, stay known. */
UNDO(queued) {
  static gmb_completion completions[2 * MOST_OPERATIONS];
  uint32_t count;
  (void)a;
  if (status != GMB_OK) return;
  CHECK(gmb_coordinator_synchronize(coordinator, GMB_WAIT_FOREVER));
  CHECK(gmb_coordinator_synchronize(other_coordinator, GMB_WAIT_FOREVER));
  CHECK(gmb_coordinator_poll(coordinator, 2 * MOST_OPERATIONS, completions, &count));
}
UNDO(triple_queued) { undo_queued(status, a), undo_triple(status, a); }
