/* Triple buffers, modules, kernels and coordinators for threads.c: each ends while many use it, alone and together. Nobody may have
 * a buffer that another one has, and no operation is told of twice. */

enum { ELEMENTS = 16, TRIPLE_BYTES = 64, MOST_OPERATIONS = 32, MOST_TOLD = 1 << 14 };

static const gmb_dtype bytes_of_one = {1, 32, 1};
static gmb_triple_buffer triple;
static gmb_module module;
static gmb_kernel kernel;
static gmb_coordinator coordinator, lasting;
static atomic_int holders[3];
static atomic_uchar told[MOST_TOLD];
static _Atomic uint64_t operation_ids[8];
static atomic_long turns_had, operations_told, operations_failed, blocks_run, kernels_launched;
static unsigned char host_bytes[THREADS][TRIPLE_BYTES];

static void bad(const char *what) {
  if (++failures <= 20) printf("%s: %s\n", kind->name, what);
}

/* ---- Triple buffers ---- */

static void make_triple(void) {
  gmb_triple_buffer_options options = GMB_TRIPLE_BUFFER_OPTIONS_INIT;
  options.dtype = bytes_of_one;
  options.elements = ELEMENTS;
  for (int i = 0; i < 3; ++i) holders[i] = 0;
  CHECK(gmb_triple_buffer_create(context, &options, &triple));
}
static gmb_status end_triple(void) { return gmb_triple_buffer_destroy(triple); }

/* It is this thread's, until it is submitted or given up. */
static void have_slot(gmb_status got, const gmb_triple_slot *slot, int turn) {
  racing("to ask for a buffer", got);
  if (got != GMB_OK) return;
  ++turns_had;
  if (slot->index > 2 || slot->bytes != TRIPLE_BYTES || slot->address == NULL || slot->turn % 3 != slot->index) bad("no such buffer");
  if (holders[slot->index % 3]++ != 0) bad("a buffer that somebody else has");
  --holders[slot->index % 3];
  if (turn % 5 == 0) RACING(gmb_triple_buffer_give_up(triple, slot));
  else RACING(gmb_triple_buffer_submit(triple, slot, streams[turn % 4]));
}

static void use_triple(int thread, int turn) {
  gmb_triple_slot slot = {0};
  gmb_triple_buffer_info info = {0};
  const gmb_step step = (thread / 2 + turn) % 3;
  uint32_t passed;
  switch ((thread + turn) % 8) {
    case 0: RACING(gmb_triple_buffer_advance(triple, &passed)); break;
    case 1:
      RACING(gmb_triple_buffer_get_info(triple, &info, sizeof info));
      break;
    case 2:
      slot.step = step;
      slot.turn = UINT32_MAX;
      RACING(gmb_triple_buffer_submit(triple, &slot, streams[turn % 4]));
      break;
    case 3:
      /* Every eighth thread waits without limit: the destroy must wake it. */
      have_slot(gmb_triple_buffer_wait(triple, step, thread % 8 == 2 ? GMB_WAIT_FOREVER : 20000, &slot), &slot, turn);
      break;
    case 4: have_slot(gmb_triple_buffer_acquire_on(triple, step, streams[thread % 4], &slot), &slot, turn); break;
    default: have_slot(gmb_triple_buffer_acquire(triple, step, &slot), &slot, turn);
  }
}

/* ---- Modules and kernels ---- */

static void count_block(const gmb_kernel_block *block, const void *const *arguments) {
  (void)arguments;
  if (block->user == &blocks_run) ++blocks_run;
}

static const char ptx[] =
    ".version 6.3\n.target sm_75\n.address_size 64\n.visible .entry touch(.param .u64 touch_param_0)\n{\n  ret;\n}\n";

static void make_module(void) {
  CHECK(gmb_module_create(context, ptx, sizeof ptx, &module));
  CHECK(gmb_module_register(module, "touch", count_block, &blocks_run));
}
static gmb_status end_module(void) { return gmb_module_destroy(module); }

static gmb_launch launch_of(const gmb_argument *argument, int turn) {
  gmb_launch launch = GMB_LAUNCH_INIT;
  launch.grid[0] = 1 + (uint32_t)turn % 4;
  launch.shared_bytes = turn % 3 == 0 ? 256 : 0;
  launch.arguments = argument;
  launch.argument_count = 1;
  return launch;
}

static void use_module(int thread, int turn) {
  const uint64_t value = 7;
  const gmb_argument argument = {&value, sizeof value};
  const gmb_launch launch = launch_of(&argument, turn);
  gmb_kernel found;
  gmb_status got;
  if ((thread + turn) % 3 == 0) {
    RACING(gmb_module_register(module, "touch", count_block, &blocks_run));
    return;
  }
  got = gmb_module_get_kernel(module, "touch", &found);
  RACING(got);
  if (got != GMB_OK) return;
  /* It has the module, whoever destroys the handle. */
  CHECK(gmb_kernel_launch(found, &launch, streams[turn % 4]));
  ++kernels_launched;
  CHECK(gmb_kernel_destroy(found));
}

static void make_kernel(void) {
  make_module();
  CHECK(gmb_module_get_kernel(module, "touch", &kernel));
  CHECK(gmb_module_destroy(module));
}
static gmb_status end_kernel(void) { return gmb_kernel_destroy(kernel); }

static gmb_coordinator coordinator_of(uint32_t max_operations) {
  gmb_coordinator_options options = GMB_COORDINATOR_OPTIONS_INIT;
  gmb_coordinator made = {0};
  options.max_operations = max_operations;
  CHECK(gmb_coordinator_create(context, &options, &made));
  return made;
}

static void use_kernel(int thread, int turn) {
  const uint64_t value = 7;
  const gmb_argument argument = {&value, sizeof value};
  const gmb_launch launch = launch_of(&argument, turn);
  gmb_compute compute = GMB_COMPUTE_INIT;
  gmb_kernel_info info;
  gmb_operation made;
  compute.kernel = kernel;
  compute.launch = &launch;
  switch ((thread + turn) % 4) {
    case 0: RACING(gmb_kernel_get_info(kernel, &info, sizeof info)); break;
    case 1: RACING(gmb_coordinator_queue_compute(lasting, &compute, NULL, 0, &made)); break;
    default: RACING(gmb_kernel_launch(kernel, &launch, streams[turn % 4]));
  }
}

/* ---- Coordinators ---- */

static void make_coordinator(void) {
  for (int i = 0; i < MOST_TOLD; ++i) told[i] = 0;
  for (int i = 0; i < 8; ++i) operation_ids[i] = 0;
  coordinator = coordinator_of(MOST_OPERATIONS);
}
static gmb_status end_coordinator(void) { return gmb_coordinator_destroy(coordinator); }

static gmb_status fills(gmb_stream on, void *address, void *user) {
  return gmb_memory_fill(context, address ? address : user, 7, TRIPLE_BYTES, on);
}
static gmb_status refuses(gmb_stream on, void *address, void *user) { return (void)on, (void)address, (void)user, GMB_ERROR_CORRUPT; }

static void note(gmb_status got, gmb_operation made, int turn) {
  racing("to queue", got);
  if (got == GMB_OK) operation_ids[turn % 8] = made.id;
}

static void tell(gmb_coordinator of) {
  gmb_completion completions[8];
  uint32_t count = 0;
  const gmb_status got = gmb_coordinator_poll(of, 8, completions, &count);
  racing("to poll", got);
  if (got != GMB_OK) return;
  for (uint32_t i = 0; i < count; ++i) {
    ++operations_told;
    operations_failed += completions[i].status < 0;
    if ((completions[i].status < 0) != (completions[i].cause.id != 0)) bad("a failure without a cause, or the other way round");
    if (of.id == coordinator.id && told[completions[i].operation.id % MOST_TOLD]++ != 0) bad("an operation was told of twice");
  }
}

static void use_operations(gmb_coordinator of, int thread, int turn) {
  const gmb_operation after = {operation_ids[(thread + turn) % 8]};
  const uint32_t count = after.id != 0 && turn % 2 ? 1 : 0;
  gmb_operation made = {0}, both[2] = {{0}, {0}};
  gmb_completion completion;
  gmb_compute compute = GMB_COMPUTE_INIT;
  gmb_coordinator_info info;
  gmb_stream stream;
  gmb_task tasks[2] = {GMB_TASK_INIT, GMB_TASK_INIT};
  const gmb_task_after first = {{0}, 0, 0};
  const gmb_push push = push_of(records[thread], 1);
  const gmb_pop pop = pop_of(records[thread], 2);
  compute.callback = turn % 7 == 0 ? refuses : fills;
  compute.user = records[thread];
  switch ((thread + turn) % 12) {
    case 0: note(gmb_coordinator_queue_upload(of, records[thread], host_bytes[thread], TRIPLE_BYTES, &after, count, &made), made, turn); break;
    case 1: note(gmb_coordinator_queue_download(of, host_bytes[thread], records[thread], TRIPLE_BYTES, &after, count, &made), made, turn); break;
    case 2: note(gmb_coordinator_queue_compute(of, &compute, &after, count, &made), made, turn); break;
    case 3: note(gmb_coordinator_queue_push(of, mailbox, &push, turn % 3, &after, count, &made), made, turn); break;
    case 4: note(gmb_coordinator_queue_pop(of, mailbox, &pop, turn % 3, &after, count, &made), made, turn); break;
    case 5:
      tasks[0].kind = GMB_OPERATION_COMPUTE, tasks[0].compute = &compute;
      tasks[1].to = records[thread], tasks[1].from = host_bytes[thread], tasks[1].bytes = TRIPLE_BYTES;
      tasks[1].after = &first, tasks[1].after_count = 1;
      note(gmb_coordinator_queue_graph(of, tasks, 2, both), both[1], turn);
      break;
    case 6: RACING(gmb_coordinator_wait(of, after, thread % 8 == 2 ? GMB_WAIT_FOREVER : 20000, &completion)); break;
    case 7: RACING(gmb_coordinator_synchronize(of, thread % 8 == 2 ? GMB_WAIT_FOREVER : 20000)); break;
    case 8: RACING(gmb_coordinator_get_info(of, &info, sizeof info)); break;
    case 9: RACING(gmb_coordinator_get_stream(of, turn % 3, &stream)); break;
    default: tell(of);
  }
}
static void use_coordinator(int thread, int turn) { use_operations(coordinator, thread, turn); }
static void make_coordinator_and_mailbox(void) {
  const gmb_mailbox_options options = options_of(CAPACITY);
  static bool there;
  if (!there) CHECK(gmb_mailbox_create(context, &options, &mailbox));
  there = true;
  make_coordinator();
}

/* Operations on a triple buffer that goes, and on one whose coordinator goes. */
static void use_triple_in(gmb_coordinator of, int thread, int turn) {
  gmb_operation made = {0};
  gmb_compute compute = GMB_COMPUTE_INIT;
  compute.callback = fills;
  compute.triple = triple;
  switch ((thread + turn) % 4) {
    case 0: RACING(gmb_coordinator_queue_triple_upload(of, triple, bytes_of_one, host_bytes[thread], TRIPLE_BYTES, NULL, 0, &made)); break;
    case 1: RACING(gmb_coordinator_queue_compute(of, &compute, NULL, 0, &made)); break;
    case 2: RACING(gmb_coordinator_queue_triple_download(of, triple, bytes_of_one, host_bytes[thread], TRIPLE_BYTES, NULL, 0, &made)); break;
    default: tell(of);
  }
}
static void use_triple_of_a_coordinator(int thread, int turn) { use_triple_in(lasting, thread, turn); }
static void use_coordinator_of_a_triple(int thread, int turn) { use_triple_in(coordinator, thread, turn); }
static void make_lasting_and_triple(void) {
  if (lasting.id == 0) lasting = coordinator_of(MOST_OPERATIONS);
  make_triple();
}
static void make_lasting_and_kernel(void) {
  if (lasting.id == 0) lasting = coordinator_of(MOST_OPERATIONS);
  make_kernel();
}
static gmb_status end_coordinator_of_a_triple(void) {
  const gmb_status got = gmb_coordinator_destroy(coordinator);
  if (got == GMB_OK) CHECK(gmb_triple_buffer_destroy(triple));
  return got;
}
static void make_both(void) { make_triple(), make_coordinator(); }

static void check_pipeline(void) {
  CHECK(gmb_coordinator_synchronize(lasting, GMB_WAIT_FOREVER));
  if (turns_had == 0) bad("nobody ever had a buffer");
  if (operations_told == 0 || operations_failed == 0) bad("no operation was ever told of, or none failed");
  if (kernels_launched == 0) bad("no kernel was ever launched");
  CHECK(gmb_coordinator_destroy(lasting));
  CHECK(gmb_mailbox_destroy(mailbox));
}
