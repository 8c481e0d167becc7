/* The rows of triple buffers, modules and coordinators, for arguments.c. */

static void triple_arg(void) { handle("triple", triple.id, stale_triple.id, E(INVALID_HANDLE)); }
static void module_arg(void) { handle("module", module.id, stale_module.id, E(INVALID_HANDLE)); }
static void kernel_arg(void) { handle("kernel", kernel.id, stale_kernel.id, E(INVALID_HANDLE)); }
static void coordinator_arg(void) { handle("coordinator", coordinator.id, stale_coordinator.id, E(INVALID_HANDLE)); }

#define STEPS(upload, process, download)                                                                      \
  ENUM("step", GMB_STEP_UPLOAD, {3, BAD, 0}, {GMB_STEP_UPLOAD, upload, 0}, {GMB_STEP_PROCESS, process, 0}, \
       {GMB_STEP_DOWNLOAD, download, 0})

static void slot_arg(void) {
  static const gmb_triple_slot slot;
  const gmb_status wrong = E(WRONG_STATE);
  structure("slot", &slot, sizeof slot, 8, E(NULL_POINTER));
  FIELD(gmb_triple_slot, turn, {1, wrong, 0}, {3, wrong, 0}, {UINT32_MAX, wrong, 0}, {(uint64_t)1 << 48, wrong, 0},
        {HIGH_BIT, wrong, 0}, {UINT64_MAX, wrong, 0}, {UINT64_MAX - 2, wrong, 0});
  FIELD(gmb_triple_slot, step, {GMB_STEP_PROCESS, wrong, 0}, {GMB_STEP_DOWNLOAD, wrong, 0}, {3, BAD, 0}, {(uint32_t)-1, BAD, 0},
        {(uint32_t)INT32_MIN, BAD, 0}, {INT32_MAX, BAD, 0});
  /* For the caller to read: the turn says it all. */
  FIELD(gmb_triple_slot, address, {0, GMB_OK, 0}, {GARBAGE, GMB_OK, ALONE});
  FIELD(gmb_triple_slot, bytes, {UINT64_MAX, GMB_OK, ALONE});
  FIELD(gmb_triple_slot, index, {2, GMB_OK, 0}, {3, GMB_OK, ALONE}, {UINT32_MAX, GMB_OK, ALONE});
}

static void describe_triples(void) {
  static gmb_triple_buffer_options options = GMB_TRIPLE_BUFFER_OPTIONS_INIT;
  const gmb_status late = GMB_NOT_READY;
  options.dtype = floats;
  options.elements = ELEMENTS;
  FUNCTION(triple_buffer_create, triple_create, GMB_OK, NULL, undo_triple_create);
  context_arg();
  input("options", &options, sizeof options, 8, E(NULL_POINTER));
  add(new_slot("dtype", 1, (int)offsetof(gmb_triple_buffer_options, dtype), 4),
      VALUES({0, BAD, 0}, {dtype_bits((gmb_dtype){2, 0, 1}), BAD, 0}, {dtype_bits((gmb_dtype){2, 32, 0}), BAD, 0},
             {dtype_bits((gmb_dtype){99, 32, 1}), BAD, 0}, {UINT32_MAX, BAD, 0}, {dtype_bits((gmb_dtype){1, 1, 1}), GMB_OK, 0},
             {dtype_bits((gmb_dtype){1, 255, 65535}), E(MEMORY_LIMIT), ALONE}));
  FIELD(gmb_triple_buffer_options, elements, {0, E(ZERO_COUNT), 0}, {1, GMB_OK, 0}, {(uint64_t)1 << 23, E(MEMORY_LIMIT), 0},
        {(uint64_t)1 << 58, E(MEMORY_LIMIT), 0}, {HIGH_BIT, E(OVERFLOW), 0}, {UINT64_MAX, E(OVERFLOW), 0},
        {UINT64_MAX / 32, E(MEMORY_LIMIT), 0}, {UINT64_MAX / 32 + 1, E(OVERFLOW), 0});
  output("triple", 8);
  /* Of elements of one bit there may be more, and two limits. */
  ALSO(E(MEMORY_LIMIT), E(OUT_OF_MEMORY), E(OVERFLOW), GMB_OK);
  FUNCTION(triple_buffer_destroy, triple_destroy, GMB_OK, make_triple, undo_triple);
  triple_arg();
  FUNCTION(triple_buffer_get_info, triple_get_info, GMB_OK, NULL, NULL);
  triple_arg();
  info_args(sizeof(gmb_triple_buffer_info));
  FUNCTION(triple_buffer_acquire, acquire, GMB_OK, make_triple, undo_triple);
  triple_arg();
  STEPS(GMB_OK, late, late);
  output("slot", 8);
  FUNCTION(triple_buffer_acquire_on, acquire_on, GMB_OK, make_triple, undo_triple);
  triple_arg();
  STEPS(GMB_OK, late, late);
  stream_arg(GMB_OK);
  output("slot", 8);
  FUNCTION(triple_buffer_wait, triple_wait, GMB_OK, make_triple, undo_triple);
  triple_arg();
  STEPS(GMB_OK, E(TIMEOUT), E(TIMEOUT));
  WORD("timeout_ns", 0, {1, GMB_OK, 0}, {1000, GMB_OK, 0}, {HIGH_BIT, GMB_OK, ALONE}, {UINT64_MAX - 1, GMB_OK, ALONE},
       {GMB_WAIT_FOREVER, GMB_OK, ALONE});
  output("slot", 8);
  FUNCTION(triple_buffer_submit, submit, GMB_OK, make_held, undo_triple);
  triple_arg();
  slot_arg();
  stream_arg(GMB_OK);
  FUNCTION(triple_buffer_give_up, give_up, GMB_OK, make_held, undo_triple);
  triple_arg();
  slot_arg();
  FUNCTION(triple_buffer_advance, advance, GMB_OK, NULL, NULL);
  triple_arg();
  output("passed", 4);
  f->slot[f->slots - 1].values[0].wanted = GMB_OK;
}

static void launch_fields(void) {
  static const int axes[] = {offsetof(gmb_launch, grid), offsetof(gmb_launch, grid) + 4, offsetof(gmb_launch, grid) + 8,
                             offsetof(gmb_launch, block), offsetof(gmb_launch, block) + 4, offsetof(gmb_launch, block) + 8};
  static const char *names[] = {"grid.x", "grid.y", "grid.z", "block.x", "block.y", "block.z"};
  static const uint64_t beyond[] = {0x80000000u, 65536, 65536, 1025, 1025, 65};
  const gmb_status many = on_the_host() ? GMB_OK : BAD;
  FIELD(gmb_launch, shared_bytes, {1, GMB_OK, 0}, {(228 << 10) + 1, BAD, 0}, {0x80000000u, BAD, 0}, {UINT32_MAX, BAD, 0});
  for (int i = 0; i < 6; ++i) {
    add(new_slot(names[i], 1, axes[i], 4), VALUES({0, BAD, 0}, {beyond[i], BAD, 0}, {UINT32_MAX, BAD, ALONE}, {2, GMB_OK, 0}));
  }
  /* A function of the host takes any. */
  FIELD(gmb_launch, argument_count, {0, many, 0}, {2, many, ALONE}, {MOST_ARGUMENTS, many, ALONE}, {MOST_ARGUMENTS + 1, BAD, 0},
        {0x80000000u, BAD, ALONE}, {UINT32_MAX, BAD, 0});
  FIELD(gmb_launch, reserved, {1, BAD, 0}, {UINT32_MAX, BAD, 0});
  FIELD(gmb_launch, arguments, {0, E(NULL_POINTER), 0}, {at(many_arguments, 1), E(MISALIGNED), 0},
        {at(many_arguments, 4), E(MISALIGNED), 0}, {UINT64_MAX, E(MISALIGNED), 0}, {at(many_arguments, 16), GMB_OK, 0},
        {bits_of(hostile_arguments[0]), E(NULL_POINTER), 0}, {bits_of(hostile_arguments[1]), BAD, 0},
        {bits_of(hostile_arguments[2]), BAD, ALONE}, {bits_of(hostile_arguments[3]), BAD, ALONE},
        {bits_of(hostile_arguments[4]), E(NULL_POINTER), ALONE});
}

static void describe_modules(void) {
  const gmb_status none = on_the_host() ? GMB_OK : E(NO_KERNELS), odd = on_the_host() ? GMB_OK : E(NOT_FOUND);
  FUNCTION(module_create, module_create, GMB_OK, NULL, undo_module_create);
  context_arg();
  WORD("image", bits_of(ptx), {0, E(NULL_POINTER), 0});
  WORD("image_bytes", sizeof ptx, {0, none, 0}, {HIGH_BIT, E(OVERFLOW), 0}, {UINT64_MAX, E(OVERFLOW), 0});
  output("module", 8);
  /* No image of no bytes. */
  ALSO(none);
  FUNCTION(module_load_file, module_load_file, GMB_OK, NULL, undo_module_load_file);
  context_arg();
  WORD("path", bits_of(module_path), {0, E(NULL_POINTER), 0}, {bits_of(""), odd, 0}, {bits_of("/dev/null/none"), on_the_host() ? GMB_OK : E(SYSTEM), 0},
       {bits_of(no_text), odd, 0}, {bits_of("/nowhere"), odd, 0}, {bits_of(long_text), on_the_host() ? GMB_OK : E(SYSTEM), ALONE});
  output("module", 8);
  FUNCTION(module_destroy, module_destroy, GMB_OK, make_module, undo_module);
  module_arg();
  FUNCTION(module_register, module_register, GMB_OK, NULL, NULL);
  module_arg();
  WORD("name", bits_of("other"), {0, E(NULL_POINTER), 0}, {bits_of(""), BAD, 0}, {bits_of(no_text), BAD, 0},
       {bits_of(half_text), BAD, 0}, {bits_of(long_text), GMB_OK, ALONE}, {bits_of("touch"), GMB_OK, 0});
  WORD("function", 1, {0, E(NULL_POINTER), 0});
  WORD("user", 0, {GARBAGE, GMB_OK, 0}, {UINT64_MAX, GMB_OK, 0});
  FUNCTION(module_get_kernel, module_get_kernel, GMB_OK, NULL, undo_get_kernel);
  module_arg();
  WORD("name", bits_of("touch"), {0, E(NULL_POINTER), 0}, {bits_of(""), BAD, 0}, {bits_of(no_text), BAD, 0},
       {bits_of(half_text), BAD, 0}, {bits_of(long_text + 1), E(NOT_FOUND), ALONE}, {bits_of("Touch"), E(NOT_FOUND), 0});
  output("kernel", 8);
  FUNCTION(kernel_destroy, kernel_destroy, GMB_OK, make_kernel, undo_kernel);
  kernel_arg();
  FUNCTION(kernel_get_info, kernel_get_info, GMB_OK, NULL, NULL);
  kernel_arg();
  info_args(sizeof(gmb_kernel_info));
  FUNCTION(kernel_launch, kernel_launch, GMB_OK, NULL, undo_nothing);
  kernel_arg();
  /* On CUDA the stream is the driver's to judge. */
  if (on_the_host()) add(&f->slot[0], VALUES({foreign_kernel.id, E(INVALID_STREAM), ALONE}));
  input("launch", &good_launch, sizeof good_launch, 8, E(NULL_POINTER));
  launch_fields();
  stream_arg(GMB_OK);
  /* None, so none is looked at. */
  ALSO(GMB_OK);
}

/* ---- Coordinators ---- */

static void after_args(void) {
  const gmb_status gone = E(INVALID_HANDLE);
  struct slot *slot = arg("after", bits_of(good_after));
  add(slot, VALUES({0, E(NULL_POINTER), 0}, {at(good_after, 1), E(MISALIGNED), 0}, {at(good_after, 4), E(MISALIGNED), 0},
                   {UINT64_MAX, E(MISALIGNED), ALONE}));
  for (size_t i = 0; i < after_count; ++i) add(slot, VALUES({bits_of(after_lists[i]), gone, i > 1 ? ALONE : 0}));
  add(slot, VALUES({bits_of(&failed_operation), GMB_OK, ALONE}));
  /* The same one twice is as good as once. */
  WORD("after_count", 1, {0, GMB_OK, 0}, {2, GMB_OK, 0}, {0x80000000u, BAD, ALONE}, {UINT32_MAX, BAD, ALONE});
  output("operation", 8);
}

/* Addresses of host memory, of which so much is there; of device memory. */
static void host_address(const char *name) {
  WORD(name, bits_of(copied), {0, E(NULL_POINTER), 0}, {at(copied, 1), GMB_OK, 0}, {bits_of(pinned), GMB_OK, 0},
       {UINT64_MAX, E(OVERFLOW), 0}, {UINT64_MAX - 7, E(OVERFLOW), ALONE}, {HIGH_BIT, E(OVERFLOW), 0},
       {HIGH_BIT - 8, E(OVERFLOW), ALONE});
}
static void device_address(const char *name) {
  WORD(name, at(memory, 0), {0, E(NULL_POINTER), 0}, {at(memory, 1), GMB_OK, 0}, {UINT64_MAX, E(OVERFLOW), 0}, {HIGH_BIT, E(OVERFLOW), 0},
       {HIGH_BIT - 8, E(OVERFLOW), 0}, {GARBAGE, BAD, 0}, {at(memory, BYTES - COPIED + 1), BAD, 0}, {bits_of(copied), BAD, ALONE});
}
static void copied_bytes(void) {
  WORD("bytes", COPIED, {0, E(ZERO_COUNT), 0}, {1, GMB_OK, 0}, {BYTES, GMB_OK, 0}, {BYTES + 1, BAD, 0}, {INT64_MAX, E(OVERFLOW), 0},
       {HIGH_BIT, E(OVERFLOW), 0}, {UINT64_MAX, E(OVERFLOW), 0});
}
static void triple_args(void) {
  handle("triple", triple.id, stale_triple.id, E(INVALID_HANDLE));
  add(&f->slot[f->slots - 1], VALUES({foreign_triple.id, BAD, 0}));
  WORD("dtype", dtype_bits(floats), {0, E(WRONG_TYPE), 0}, {dtype_bits((gmb_dtype){1, 32, 1}), E(WRONG_TYPE), 0},
       {dtype_bits((gmb_dtype){2, 32, 2}), E(WRONG_TYPE), 0}, {UINT32_MAX, E(WRONG_TYPE), 0});
}
static void triple_bytes(void) {
  WORD("bytes", TRIPLE_BYTES, {0, E(ZERO_COUNT), 0}, {1, GMB_OK, 0}, {TRIPLE_BYTES + 1, BAD, 0}, {BYTES, BAD, 0},
       {UINT32_MAX, BAD, 0});
}

/* A launch that an operation must refuse. */
static uint64_t hostile_launch(int n, gmb_launch launch) {
  hostile_launches[n] = launch;
  return bits_of(&hostile_launches[n]);
}

static void describe_compute(void) {
  gmb_launch small = good_launch, wide = good_launch, counted = good_launch, empty = good_launch, listed = good_launch;
  small.struct_size = 4;
  wide.block[0] = 1025;
  counted.argument_count = MOST_ARGUMENTS + 1;
  empty.argument_count = 0;
  listed.arguments = hostile_arguments[0];
  FUNCTION(coordinator_queue_compute, queue_compute, GMB_OK, NULL, undo_queued);
  coordinator_arg();
  input("compute", &good_compute, sizeof good_compute, 8, E(NULL_POINTER));
  FIELD(gmb_compute, reserved, {1, BAD, 0}, {UINT32_MAX, BAD, 0});
  FIELD(gmb_compute, kernel, {0, BAD, 0}, {stale_kernel.id, E(INVALID_HANDLE), 0}, {1, E(INVALID_HANDLE), 0},
        {kernel.id ^ HIGH_BIT, E(INVALID_HANDLE), ALONE}, {module.id, E(INVALID_HANDLE), ALONE}, {UINT64_MAX, E(INVALID_HANDLE), 0},
        {foreign_kernel.id, BAD, 0});
  FIELD(gmb_compute, launch, {0, E(NULL_POINTER), 0}, {at(&good_launch, 1), E(MISALIGNED), 0}, {at(&good_launch, 4), E(MISALIGNED), 0},
        {hostile_launch(0, small), E(STRUCT_SIZE), 0}, {hostile_launch(1, wide), BAD, 0}, {hostile_launch(2, counted), BAD, 0},
        {hostile_launch(3, empty), on_the_host() ? GMB_OK : BAD, 0}, {hostile_launch(4, listed), E(NULL_POINTER), 0});
  FIELD(gmb_compute, callback, {(uintptr_t)enqueue_nothing, BAD, 0}, {(uintptr_t)fails, BAD, 0});
  FIELD(gmb_compute, user, {GARBAGE, GMB_OK, 0});
  FIELD(gmb_compute, triple, {triple.id, E(UNAVAILABLE), 0}, {stale_triple.id, E(INVALID_HANDLE), 0}, {UINT64_MAX, E(INVALID_HANDLE), 0},
        {foreign_triple.id, BAD, 0}, {kernel.id, E(INVALID_HANDLE), ALONE});
  after_args();
  /* A callback instead of the kernel, which has no launch. */
  ALSO(GMB_OK);
}

static void moved_args(void) {
  coordinator_arg();
  mailbox_arg();
  or_of_mode(GMB_OK, E(NOT_SUPPORTED));
  add(&f->slot[f->slots - 1], VALUES({foreign_box.id, BAD, 0}));
}

static void describe_moves(void) {
  static gmb_push push;
  static gmb_pop pop;
  push = push_of(memory, ROWS);
  push.timeout_ns = 0;
  pop = pop_of(memory, ROWS);
  FUNCTION(coordinator_queue_push, queue_push_of, GMB_OK, NULL, undo_queued);
  moved_args();
  input("push", &push, sizeof push, 8, E(NULL_POINTER));
  FIELD(gmb_push, count, {0, E(ZERO_COUNT), 0}, {1, GMB_OK, 0}, {RECORDS_TOO_MANY, E(OVERFLOW), 0}, {UINT32_MAX, E(OVERFLOW), 0});
  FIELD(gmb_push, records, {0, E(NULL_POINTER), 0}, {at(memory, 1), E(MISALIGNED), 0}, {GARBAGE & ~(uint64_t)15, BAD, 0},
        {HIGH_BIT, E(OVERFLOW), 0});
  FIELD(gmb_push, length, {PAYLOAD + 1, E(BAD_LENGTH), 0}, {UINT32_MAX, E(BAD_LENGTH), ALONE});
  STEPS(GMB_OK, GMB_OK, GMB_OK);
  after_args();
  FUNCTION(coordinator_queue_pop, queue_pop_of, GMB_OK, NULL, undo_queued);
  moved_args();
  input("pop", &pop, sizeof pop, 8, E(NULL_POINTER));
  FIELD(gmb_pop, max, {0, E(ZERO_COUNT), 0}, {1, GMB_OK, 0}, {RECORDS_TOO_MANY, E(OVERFLOW), 0}, {UINT32_MAX, E(OVERFLOW), 0});
  FIELD(gmb_pop, records, {0, E(NULL_POINTER), 0}, {at(memory, 1), E(MISALIGNED), 0}, {HIGH_BIT, E(OVERFLOW), 0});
  FIELD(gmb_pop, reader, {1, BAD, 0}, {GMB_MAX_READERS, BAD, 0}, {UINT32_MAX, BAD, 0});
  FIELD(gmb_pop, reserved, {1, BAD, 0});
  STEPS(GMB_OK, GMB_OK, GMB_OK);
  after_args();
}

static void describe_coordinators(void) {
  static gmb_coordinator_options options = GMB_COORDINATOR_OPTIONS_INIT;
  FUNCTION(coordinator_create, coordinator_create, GMB_OK, NULL, undo_coordinator_create);
  context_arg();
  input("options", &options, sizeof options, 4, E(NULL_POINTER));
  FIELD(gmb_coordinator_options, max_operations, {1, GMB_OK, 0}, {(1 << 20) + 1, BAD, 0}, {0x80000000u, BAD, 0}, {UINT32_MAX, BAD, 0});
  FIELD(gmb_coordinator_options, priority, OUT_OF_RANGE, {3, BAD, 0});
  FIELD(gmb_coordinator_options, flags, {4, BAD, 0}, {UINT32_MAX, BAD, 0});
  output("coordinator", 8);
  FUNCTION(coordinator_destroy, coordinator_destroy, GMB_OK, make_coordinator, undo_coordinator);
  coordinator_arg();
  FUNCTION(coordinator_get_info, coordinator_get_info, GMB_OK, NULL, NULL);
  coordinator_arg();
  info_args(sizeof(gmb_coordinator_info));
  FUNCTION(coordinator_get_stream, get_stream, GMB_OK, NULL, NULL);
  coordinator_arg();
  STEPS(GMB_OK, GMB_OK, GMB_OK);
  output("stream", 8);
  FUNCTION(coordinator_queue_upload, queue_upload, GMB_OK, NULL, undo_queued);
  coordinator_arg();
  device_address("to");
  host_address("from");
  copied_bytes();
  after_args();
  /* What fits alone may go beyond together. */
  ALSO(BAD, E(OVERFLOW));
  FUNCTION(coordinator_queue_download, queue_download, GMB_OK, NULL, undo_queued);
  coordinator_arg();
  host_address("to");
  device_address("from");
  copied_bytes();
  after_args();
  ALSO(BAD, E(OVERFLOW));
  FUNCTION(coordinator_queue_triple_upload, triple_upload, GMB_OK, make_free_in_queue, undo_triple_queued);
  coordinator_arg();
  triple_args();
  host_address("from");
  triple_bytes();
  after_args();
  FUNCTION(coordinator_queue_triple_download, triple_download, GMB_OK, make_processed_in_queue, undo_triple_queued);
  coordinator_arg();
  triple_args();
  add(&f->slot[1], VALUES({triple.id, E(UNAVAILABLE), 0}));
  host_address("to");
  triple_bytes();
  after_args();
  describe_compute();
  describe_moves();
  FUNCTION(coordinator_poll, coordinator_poll, GMB_OK, NULL, NULL);
  coordinator_arg();
  WORD("max", 1, {0, E(ZERO_COUNT), 0}, {GMB_MAX_RECORDS, GMB_OK, 0}, {RECORDS_TOO_MANY, E(OVERFLOW), 0}, {UINT32_MAX, E(OVERFLOW), 0});
  output("completions", 8);
  output("count", 4);
  FUNCTION(coordinator_wait, coordinator_wait, GMB_OK, NULL, NULL);
  handle("coordinator", still_coordinator.id, stale_coordinator.id, E(INVALID_HANDLE));
  add(&f->slot[0], VALUES({other_coordinator.id, E(INVALID_HANDLE), 0}));
  struct slot *slot = arg("operation", still_done.id);
  for (size_t i = 0; i < after_count; ++i) add(slot, VALUES({after_lists[i][0].id, E(INVALID_HANDLE), i > 1 ? ALONE : 0}));
  add(slot, VALUES({still_failed.id, E(CORRUPT), 0}, {still_failed.id + 1, E(INVALID_HANDLE), 0}, {done_operation.id, E(INVALID_HANDLE), 0}));
  WORD("timeout_ns", 0, {1, GMB_OK, 0}, {HIGH_BIT, GMB_OK, 0}, {UINT64_MAX - 1, GMB_OK, 0}, {GMB_WAIT_FOREVER, GMB_OK, 0});
  output("completion", 8);
  f->slot[f->slots - 1].values[0].wanted = GMB_OK;
  FUNCTION(coordinator_synchronize, coordinator_synchronize, GMB_OK, NULL, NULL);
  coordinator_arg();
  WORD("timeout_ns", 0, {1, GMB_OK, 0}, {HIGH_BIT, GMB_OK, 0}, {UINT64_MAX - 1, GMB_OK, 0}, {GMB_WAIT_FOREVER, GMB_OK, 0});
}

/* ---- Graphs ---- */

/* Tasks that lie so far apart as the first one says, and one more that is empty. */
static _Alignas(8) unsigned char graphs[64][(TASKS + 1) * 112];
static gmb_task_after task_afters[64][2];
static gmb_compute graph_computes[8];
static size_t graph_count, task_after_count;

static const gmb_task_after *comes_after(uint64_t operation, uint32_t task, uint32_t reserved) {
  if (task_after_count == sizeof task_afters / sizeof *task_afters) abort();
  gmb_task_after *list = task_afters[task_after_count++];
  list[0] = (gmb_task_after){{operation}, task, reserved};
  list[1] = (gmb_task_after){done_operation, UINT32_MAX, 0};
  return list;
}

static gmb_task task_of(gmb_operation_kind kind) {
  gmb_task task = GMB_TASK_INIT;
  task.kind = kind;
  return task;
}

/* An upload, a kernel after it, a download after that. */
static void good_tasks(gmb_task *tasks) {
  tasks[0] = task_of(GMB_OPERATION_UPLOAD);
  tasks[0].to = memory, tasks[0].from = copied, tasks[0].bytes = COPIED;
  tasks[1] = task_of(GMB_OPERATION_COMPUTE);
  tasks[1].compute = &good_compute;
  tasks[1].after = comes_after(0, 0, 0), tasks[1].after_count = 1;
  tasks[2] = task_of(GMB_OPERATION_DOWNLOAD);
  tasks[2].to = pinned, tasks[2].from = memory, tasks[2].bytes = COPIED;
  tasks[2].after = comes_after(0, 1, 0), tasks[2].after_count = 1;
}

static uint64_t laid_out(const gmb_task *tasks, size_t apart) {
  if (graph_count == sizeof graphs / sizeof *graphs) abort();
  unsigned char *graph = graphs[graph_count++];
  for (size_t i = 0; i < TASKS; ++i) memcpy(graph + i * apart, &tasks[i], sizeof *tasks);
  return bits_of(graph);
}

/* A graph whose second task is another one. */
static void with_task(gmb_task task, gmb_status wanted, unsigned how) {
  static gmb_task tasks[TASKS];
  if (tasks[0].struct_size == 0) good_tasks(tasks);
  gmb_task all[TASKS];
  memcpy(all, tasks, sizeof all);
  all[1] = task;
  add(&f->slot[1], VALUES({laid_out(all, sizeof(gmb_task)), wanted, how}));
}

static void with_after(const gmb_task_after *after, uint32_t count, gmb_status wanted) {
  gmb_task task = task_of(GMB_OPERATION_UPLOAD);
  task.to = memory, task.from = copied, task.bytes = COPIED;
  task.after = after, task.after_count = count;
  with_task(task, wanted, wanted == E(CYCLE) ? 0 : ALONE);
}

static void with_compute(int n, gmb_compute compute, gmb_status wanted) {
  gmb_task task = task_of(GMB_OPERATION_COMPUTE);
  graph_computes[n] = compute;
  task.compute = &graph_computes[n];
  with_task(task, wanted, ALONE);
}

static void sized_tasks(uint32_t first, uint32_t second, size_t apart, gmb_status wanted) {
  gmb_task tasks[TASKS];
  good_tasks(tasks);
  tasks[0].struct_size = first;
  tasks[1].struct_size = tasks[2].struct_size = second;
  add(&f->slot[1], VALUES({laid_out(tasks, apart), wanted, ALONE}));
}

static void hostile_tasks(void) {
  const gmb_status gone = E(INVALID_HANDLE), wrong = E(STRUCT_SIZE), null = E(NULL_POINTER);
  const uint32_t size = sizeof(gmb_task);
  static gmb_push push;
  gmb_task task = task_of(GMB_OPERATION_UPLOAD);
  /* These come after their ids are there: they fail, and what comes after them. */
  with_task(task, GMB_OK, 0);
  task.to = (void *)(uintptr_t)GARBAGE, task.from = copied, task.bytes = COPIED, with_task(task, GMB_OK, ALONE);
  task.to = memory, task.bytes = UINT64_MAX, with_task(task, GMB_OK, ALONE);
  task.bytes = COPIED, task.triple = triple, task.dtype = (gmb_dtype){1, 8, 1}, with_task(task, GMB_OK, ALONE);
  task.triple = foreign_triple, task.dtype = floats, with_task(task, GMB_OK, ALONE);
  /* And these before. */
  task.triple = stale_triple, with_task(task, gone, 0);
  task.triple = (gmb_triple_buffer){0}, task.reserved = 1, with_task(task, BAD, 0);
  const gmb_operation_kind kinds[] = {-1, 5, INT32_MIN, INT32_MAX};
  for (int i = 0; i < 4; ++i) with_task(task_of(kinds[i]), BAD, i > 1 ? ALONE : 0);
  with_task(task_of(GMB_OPERATION_COMPUTE), null, 0);
  with_task(task_of(GMB_OPERATION_PUSH), gone, ALONE);
  task = task_of(GMB_OPERATION_POP), task.mailbox = stale_mailbox, with_task(task, gone, ALONE);
  task.mailbox = mailbox, with_task(task, null, ALONE);
  task = task_of(GMB_OPERATION_PUSH), task.mailbox = mailbox, with_task(task, null, ALONE);
  push = push_of(memory, 1), task.push = &push, with_task(task, GMB_OK, 0);
  task.step = 3, with_task(task, BAD, ALONE);
  task.step = INT32_MIN, with_task(task, BAD, ALONE);
  task.step = GMB_STEP_DOWNLOAD, task.mailbox = foreign_box, with_task(task, GMB_OK, ALONE);
  task = task_of(GMB_OPERATION_COMPUTE);
  task.compute = (const gmb_compute *)(const void *)((const char *)&good_compute + 4), with_task(task, E(MISALIGNED), ALONE);
  gmb_compute compute = good_compute;
  compute.struct_size = 47, with_compute(0, compute, wrong);
  compute = good_compute, compute.kernel = stale_kernel, with_compute(1, compute, gone);
  compute.kernel = (gmb_kernel){0}, with_compute(2, compute, BAD);
  compute = good_compute, compute.callback = enqueue_nothing, with_compute(3, compute, BAD);
  compute.callback = NULL, compute.launch = NULL, with_compute(4, compute, null);
  compute = good_compute, compute.triple = stale_triple, with_compute(5, compute, gone);
  compute.triple = triple, with_compute(6, compute, GMB_OK);
  with_after(comes_after(0, 1, 0), 1, E(CYCLE));
  with_after(comes_after(0, 2, 0), 1, E(CYCLE));
  with_after(comes_after(0, TASKS, 0), 1, BAD);
  with_after(comes_after(0, UINT32_MAX, 0), 1, BAD);
  with_after(comes_after(0, 0, 1), 1, BAD);
  with_after(comes_after(0, 0, 0), 2, GMB_OK);
  with_after(comes_after(failed_operation.id, 0, 0), 1, GMB_OK);
  for (size_t i = 1; i < after_count; ++i) with_after(comes_after(after_lists[i][0].id, 0, 0), 1, gone);
  with_after(NULL, 1, null);
  with_after((const gmb_task_after *)(const void *)((const char *)task_afters[0] + 4), 1, E(MISALIGNED));
  with_after(comes_after(0, UINT32_MAX, 0), 0, GMB_OK);
  with_after(comes_after(0, 0, 0), UINT32_MAX, BAD);
  sized_tasks(0, size, size, wrong);
  sized_tasks(4, 4, size, wrong);
  sized_tasks(size - 1, size - 1, size, wrong);
  sized_tasks(size, size - 1, size, wrong);
  sized_tasks(size, size + 8, size, wrong);
  sized_tasks(size, 4097, size, wrong);
  sized_tasks(4097, 4097, size, wrong);
  sized_tasks(UINT32_MAX, UINT32_MAX, size, wrong);
  /* Of a newer library, and of one that has something to say there. */
  sized_tasks(size + 8, size + 8, size + 8, GMB_OK);
  sized_tasks(size + 8, size + 8, size + 8, wrong);
  graphs[graph_count - 1][2 * (size + 8) - 1] = 1;
  sized_tasks(size + 4, size + 4, size + 4, E(MISALIGNED));
}

static void describe_task_graphs(void) {
  gmb_task tasks[TASKS];
  good_tasks(tasks);
  FUNCTION(coordinator_queue_graph, queue_graph, GMB_OK, NULL, undo_queued);
  coordinator_arg();
  const uint64_t good = laid_out(tasks, sizeof(gmb_task));
  WORD("tasks", good, {0, E(NULL_POINTER), 0}, {good + 1, E(MISALIGNED), 0}, {good + 4, E(MISALIGNED), 0}, {UINT64_MAX, E(MISALIGNED), 0});
  WORD("count", TASKS, {0, E(ZERO_COUNT), 0}, {1, GMB_OK, 0}, {2, GMB_OK, 0}, {TASKS + 1, E(STRUCT_SIZE), 0},
       {MOST_OPERATIONS + 1, BAD, 0}, {0x80000000u, BAD, 0}, {UINT32_MAX, BAD, 0});
  output("operations", 8);
  hostile_tasks();
  /* Of fewer tasks none may be hostile, or one is not there. */
  ALSO(GMB_OK, BAD);
}
