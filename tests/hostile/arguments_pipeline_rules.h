/* What is certain of triple buffers, modules and coordinators, for arguments.c, however hostile the sequence. */

/* A gate in a stream: what comes after it is under way until it is opened. */
static atomic_bool gate_is_open;
static void wait_at_the_gate(void *unused) {
  (void)unused;
  while (!gate_is_open) usleep(100);
}
static gmb_status enqueue_a_gate(gmb_stream on, void *address, void *user) {
  (void)address;
  gate_is_open = false;
  return gmb_stream_host_function(*(gmb_context *)user, on, wait_at_the_gate, NULL);
}

static void says_completion(const char *what, gmb_coordinator of, gmb_operation operation, gmb_status wanted, gmb_operation cause) {
  gmb_completion told[MOST_OPERATIONS] = {{{0}, {0}, 0, 0, 0, 0, 0, 0}};
  uint32_t count = 0;
  CHECK(gmb_coordinator_synchronize(of, GMB_WAIT_FOREVER));
  says(what, gmb_coordinator_wait(of, operation, 0, &told[0]), wanted);
  if (wanted < 0 && told[0].operation.id != 0) says("written output", GMB_OK, wanted);
  CHECK(gmb_coordinator_poll(of, MOST_OPERATIONS, told, &count));
  for (uint32_t i = 0; i < count; ++i) {
    if (told[i].operation.id != operation.id) continue;
    says(what, told[i].status, wanted);
    if (told[i].cause.id != cause.id || told[i].timed != 0) says("another cause", BAD, GMB_OK);
    return;
  }
  says("not told", E(NOT_FOUND), wanted);
}

/* ---- Triple buffers ---- */

static void states_are(const char *what, gmb_triple_buffer of, gmb_buffer_state first, gmb_buffer_state second, uint64_t completed) {
  gmb_triple_buffer_info info = {0};
  CHECK(gmb_triple_buffer_get_info(of, &info, sizeof info));
  if (info.states[0] != first || info.states[1] != second || info.completed != completed || info.elements != ELEMENTS ||
      info.bytes != TRIPLE_BYTES) {
    says(what, BAD, GMB_OK);
  }
}

static void turns_that_are_nobodys(void) {
  const gmb_triple_buffer own = make_a_triple(context);
  gmb_triple_slot slot, other, untouched;
  memset(&untouched, CANARY, sizeof untouched);
  slot = other = untouched;
  says("to process what was not uploaded", gmb_triple_buffer_acquire(own, GMB_STEP_PROCESS, &other), GMB_NOT_READY);
  says("to download it", gmb_triple_buffer_acquire_on(own, GMB_STEP_DOWNLOAD, stream, &other), GMB_NOT_READY);
  says("to wait for it", gmb_triple_buffer_wait(own, GMB_STEP_PROCESS, 1000, &other), E(TIMEOUT));
  if (memcmp(&other, &untouched, sizeof other) != 0) says("written output", BAD, GMB_NOT_READY);
  says("the first", gmb_triple_buffer_acquire(own, GMB_STEP_UPLOAD, &slot), GMB_OK);
  other = slot, other.step = GMB_STEP_PROCESS;
  says("for another step", gmb_triple_buffer_submit(own, &other, stream), E(WRONG_STATE));
  other = slot, other.turn += 3;
  says("of a later turn", gmb_triple_buffer_give_up(own, &other), E(WRONG_STATE));
  says("of another triple buffer", gmb_triple_buffer_submit(triple, &slot, stream), E(WRONG_STATE));
  says("on no stream", gmb_triple_buffer_submit(own, &slot, foreign_stream), on_the_host() ? E(INVALID_STREAM) : GMB_OK);
  states_are("after errors", own, GMB_BUFFER_UPLOADING, GMB_BUFFER_FREE, 0);
  if (on_the_host()) says("to submit", gmb_triple_buffer_submit(own, &slot, stream), GMB_OK);
  says("and again", gmb_triple_buffer_submit(own, &slot, stream), E(WRONG_STATE));
  says("and to give up", gmb_triple_buffer_give_up(own, &slot), E(WRONG_STATE));
  CHECK(gmb_stream_synchronize(context, stream));
  says("to process", gmb_triple_buffer_wait(own, GMB_STEP_PROCESS, GMB_WAIT_FOREVER, &other), GMB_OK);
  if (other.turn != slot.turn || other.address != slot.address || other.index != 0) says("another turn", BAD, GMB_OK);
  says("with the slot of the step before", gmb_triple_buffer_submit(own, &slot, stream), E(WRONG_STATE));
  says("to give it up", gmb_triple_buffer_give_up(own, &other), GMB_OK);
  says("twice", gmb_triple_buffer_give_up(own, &other), E(WRONG_STATE));
  for (uint32_t passed = 1; passed > 0;) CHECK(gmb_triple_buffer_advance(own, &passed));
  states_are("when it was given up", own, GMB_BUFFER_FREE, GMB_BUFFER_FREE, 1);
  for (int i = 0; i < 3; ++i) says("all three", gmb_triple_buffer_acquire(own, GMB_STEP_UPLOAD, &slot), GMB_OK);
  other = untouched;
  says("a fourth", gmb_triple_buffer_acquire(own, GMB_STEP_UPLOAD, &other), GMB_NOT_READY);
  if (memcmp(&other, &untouched, sizeof other) != 0) says("written output", BAD, GMB_NOT_READY);
  CHECK(gmb_stream_begin_capture(context, stream, GMB_CAPTURE_RELAXED));
  says("into a capture", gmb_triple_buffer_submit(own, &slot, stream), E(NOT_SUPPORTED));
  says("for a capture", gmb_triple_buffer_acquire_on(own, GMB_STEP_PROCESS, stream, &other), E(NOT_SUPPORTED));
  gmb_graph nothing;
  CHECK(gmb_stream_end_capture(context, stream, &nothing));
  CHECK(gmb_graph_destroy(nothing));
  says("with buffers in hand", gmb_triple_buffer_destroy(own), GMB_OK);
  says("of none", gmb_triple_buffer_submit(own, &slot, stream), E(INVALID_HANDLE));
  says("and again", gmb_triple_buffer_destroy(own), E(INVALID_HANDLE));
}

/* What does not fit leaves nothing behind. */
static void triples_without_room(void) {
  gmb_memory_info before = {0}, after = {0};
  gmb_event_pool_info events = {0}, events_after = {0};
  gmb_triple_buffer_options options = GMB_TRIPLE_BUFFER_OPTIONS_INIT;
  gmb_triple_buffer made = {GARBAGE};
  options.dtype = floats;
  CHECK(gmb_memory_get_info(context, &before, sizeof before));
  CHECK(gmb_event_pool_get_info(context, GMB_EVENT_UNTIMED, &events, sizeof events));
  /* One fits, two, and not three. */
  for (uint64_t part = 1; part < 3; ++part) {
    options.elements = (before.limit - before.used) / 4 / (part + 1) + 4096;
    says("beyond the limit", gmb_triple_buffer_create(context, &options, &made), E(MEMORY_LIMIT));
  }
  if (made.id != GARBAGE) says("written output", GMB_OK, E(MEMORY_LIMIT));
  CHECK(gmb_memory_get_info(context, &after, sizeof after));
  CHECK(gmb_event_pool_get_info(context, GMB_EVENT_UNTIMED, &events_after, sizeof events_after));
  if (after.used != before.used || after.allocations != before.allocations || events_after.in_use != events.in_use) {
    says("something is left", BAD, GMB_OK);
  }
}

/* ---- Modules ---- */

static atomic_int blocks_run;
static void count_block(const gmb_kernel_block *block, const void *const *arguments) {
  const unsigned char *shared = block->shared;
  for (uint32_t i = 0; i < block->shared_bytes; ++i) {
    if (shared[i] != 0) return;
  }
  if (*(const uint64_t *)arguments[0] == 0x1234 && block->user == &blocks_run) ++blocks_run;
}
static void never_block(const gmb_kernel_block *block, const void *const *arguments) { (void)block, (void)arguments, abort(); }

/* A kernel is what its name was when it was asked for, and outlives its module; its arguments are copied. */
static void kernels_of_a_module_that_is_gone(void) {
  const gmb_module own = make_a_module(context);
  uint64_t value = 0x1234;
  gmb_argument one = {&value, sizeof value};
  gmb_launch launch = GMB_LAUNCH_INIT;
  gmb_graph nothing;
  CHECK(gmb_module_register(own, "touch", count_block, &blocks_run));
  const gmb_kernel found = kernel_of(own);
  CHECK(gmb_module_register(own, "touch", never_block, NULL));
  CHECK(gmb_module_destroy(own));
  says("of what is gone", gmb_module_register(own, "touch", touch, NULL), E(INVALID_HANDLE));
  launch.grid[0] = 7, launch.grid[1] = 2, launch.grid[2] = 3;
  launch.shared_bytes = 4096;
  launch.arguments = &one, launch.argument_count = 1;
  says("a kernel of it", gmb_kernel_launch(found, &launch, stream), GMB_OK);
  value = 0, one = (gmb_argument){NULL, 0};
  CHECK(gmb_stream_synchronize(context, stream));
  if (on_the_host() && blocks_run != 42) says("other blocks", BAD, GMB_OK);
  one = (gmb_argument){&value, sizeof value};
  CHECK(gmb_stream_begin_capture(context, stream, GMB_CAPTURE_RELAXED));
  says("into a capture", gmb_kernel_launch(found, &launch, stream), on_the_host() ? E(NOT_SUPPORTED) : GMB_OK);
  CHECK(gmb_stream_end_capture(context, stream, &nothing));
  CHECK(gmb_graph_destroy(nothing));
  CHECK(gmb_kernel_launch(found, &launch, stream));
  says("that is under way", gmb_kernel_destroy(found), GMB_OK);
  says("and again", gmb_kernel_destroy(found), E(INVALID_HANDLE));
  says("and to launch", gmb_kernel_launch(found, &launch, stream), E(INVALID_HANDLE));
  CHECK(gmb_stream_synchronize(context, stream));
}

/* ---- Coordinators ---- */

/* Everything that a callback of a coordinator must not do to it is refused, and hurts nobody. */
struct inside {
  gmb_coordinator of, other;
  gmb_operation before;
};
static gmb_status nothing_inside(gmb_stream on, void *address, void *user) {
  struct inside *in = user;
  const gmb_compute compute = compute_of(enqueue_nothing, NULL);
  gmb_operation made = {GARBAGE};
  gmb_completion completion;
  gmb_task task = task_of(GMB_OPERATION_COMPUTE);
  task.compute = &compute;
  (void)on, (void)address;
  says("to upload inside", gmb_coordinator_queue_upload(in->of, memory, copied, COPIED, NULL, 0, &made), BAD);
  says("to download inside", gmb_coordinator_queue_download(in->of, copied, memory, COPIED, NULL, 0, &made), BAD);
  says("to compute inside", gmb_coordinator_queue_compute(in->of, &compute, NULL, 0, &made), BAD);
  says("a graph inside", gmb_coordinator_queue_graph(in->of, &task, 1, &made), BAD);
  says("to wait inside", gmb_coordinator_wait(in->of, in->before, GMB_WAIT_FOREVER, &completion), BAD);
  says("to synchronize inside", gmb_coordinator_synchronize(in->of, GMB_WAIT_FOREVER), BAD);
  if (made.id != GARBAGE) says("written output", GMB_OK, BAD);
  return GMB_OK;
}
static gmb_status goes_through_another(gmb_stream on, void *address, void *user) {
  struct inside *in = user;
  const gmb_compute compute = compute_of(nothing_inside, user);
  gmb_operation made = {0};
  (void)on, (void)address;
  /* Of another one it may: whose callback still is inside this one. */
  return gmb_coordinator_queue_compute(in->other, &compute, NULL, 0, &made);
}
static gmb_status ends_its_own(gmb_stream on, void *address, void *user) {
  struct inside *in = user;
  (void)on, (void)address;
  says("to end what is called", gmb_coordinator_destroy(in->of), GMB_OK);
  says("and again", gmb_coordinator_destroy(in->of), E(INVALID_HANDLE));
  return GMB_OK;
}

static void callbacks_that_call(void) {
  struct inside in = {make_a_coordinator(context, 8), make_a_coordinator(context, 8), {0}};
  gmb_operation made;
  in.before = queued(in.of, enqueue_nothing, NULL);
  queued(in.of, nothing_inside, &in);
  made = queued(in.of, goes_through_another, &in);
  says_completion("a callback that calls", in.of, made, GMB_OK, (gmb_operation){0});
  const gmb_operation codes[] = {queued(in.of, fails, NULL), queued(in.of, enqueue_nothing, NULL)};
  says_completion("a callback that fails", in.of, codes[0], E(CORRUPT), codes[0]);
  says("one after it in its stream", gmb_coordinator_wait(in.of, codes[1], 0, NULL), GMB_OK);
  queued(in.of, ends_its_own, &in);
  says("when it has ended itself", gmb_coordinator_synchronize(in.of, GMB_WAIT_FOREVER), E(INVALID_HANDLE));
  CHECK(gmb_coordinator_destroy(in.other));
}

static gmb_status answers_with(gmb_stream on, void *address, void *user) { return (void)on, (void)address, *(gmb_status *)user; }

/* A callback's answer is the operation's status, however odd, and that of all that come after it. */
static void statuses_of_callbacks(void) {
  const gmb_coordinator own = make_a_coordinator(context, 8);
  gmb_status answers[] = {E(TIMEOUT), -9999, INT32_MIN, GMB_NOT_READY, INT32_MAX};
  for (size_t i = 0; i < sizeof answers / sizeof *answers; ++i) {
    const gmb_status wanted = answers[i] < 0 ? answers[i] : GMB_OK;
    const gmb_operation first = queued(own, answers_with, &answers[i]), both[] = {first, first};
    gmb_operation second, third;
    CHECK(gmb_coordinator_queue_upload(own, memory, copied, COPIED, both, 2, &second));
    CHECK(gmb_coordinator_queue_download(own, copied, memory, COPIED, &second, 1, &third));
    says_completion("what comes after", own, third, wanted, answers[i] < 0 ? first : (gmb_operation){0});
  }
  CHECK(gmb_coordinator_destroy(own));
}

/* What fails because of one is not told before the other, which is under way. */
static void failures_in_their_order(void) {
  const gmb_coordinator own = make_a_coordinator(context, 8);
  const gmb_operation failed = queued(own, fails, NULL);
  gmb_operation both[2], last;
  gmb_completion told[8];
  uint32_t count = 0;
  CHECK(gmb_coordinator_synchronize(own, GMB_WAIT_FOREVER));
  both[0] = failed, both[1] = queued(own, enqueue_a_gate, &context);
  CHECK(gmb_coordinator_queue_upload(own, memory, copied, COPIED, both, 2, &last));
  CHECK(gmb_coordinator_poll(own, 8, told, &count));
  if (count != 1 || told[0].operation.id != failed.id) says("told before what it came after", BAD, GMB_OK);
  gate_is_open = true;
  says_completion("with the one that failed", own, last, E(CORRUPT), failed);
  CHECK(gmb_coordinator_destroy(own));
}

/* As many as may be, and no more; then the oldest are forgotten. */
static void coordinators_that_are_full(void) {
  const gmb_coordinator own = make_a_coordinator(context, 2);
  const gmb_operation gate = queued(own, enqueue_a_gate, &context);
  gmb_operation made, last = {GARBAGE};
  gmb_completion told[8];
  uint32_t count;
  CHECK(gmb_coordinator_queue_upload(own, memory, copied, COPIED, &gate, 1, &made));
  says("a third", gmb_coordinator_queue_upload(own, memory, copied, COPIED, NULL, 0, &last), E(FULL));
  gmb_task task = task_of(GMB_OPERATION_COMPUTE);
  const gmb_compute compute = compute_of(enqueue_nothing, NULL);
  task.compute = &compute;
  says("a graph of one", gmb_coordinator_queue_graph(own, &task, 1, &last), E(FULL));
  if (last.id != GARBAGE) says("written output", GMB_OK, E(FULL));
  says("what is under way", gmb_coordinator_wait(own, made, 1000, told), E(TIMEOUT));
  says("all that is", gmb_coordinator_synchronize(own, 1000), E(TIMEOUT));
  gate_is_open = true;
  CHECK(gmb_coordinator_synchronize(own, GMB_WAIT_FOREVER));
  for (int i = 0; i < 8; ++i) {
    last = queued(own, enqueue_nothing, NULL);
    CHECK(gmb_coordinator_wait(own, last, GMB_WAIT_FOREVER, NULL));
  }
  says("what is forgotten", gmb_coordinator_wait(own, gate, GMB_WAIT_FOREVER, told), E(INVALID_HANDLE));
  says("and the last", gmb_coordinator_wait(own, last, 0, told), GMB_OK);
  CHECK(gmb_coordinator_poll(own, 8, told, &count));
  if (count == 0 || count > 4 || told[count - 1].operation.id != last.id) says("other completions", BAD, GMB_OK);
  CHECK(gmb_coordinator_destroy(own));
}

/* Bad calls change nothing of a triple buffer: what was uploaded is still to be processed, and what was processed to be
 * downloaded. */
static void bad_calls_on_a_triple_buffer(void) {
  const gmb_triple_buffer own = make_a_triple(context);
  gmb_operation made;
  gmb_compute compute = good_compute;
  gmb_launch wide = good_launch;
  const gmb_dtype type = floats;
  wide.block[0] = 1025;
  compute.triple = own;
  says("nothing from there", gmb_coordinator_queue_triple_upload(coordinator, own, type, NULL, COPIED, NULL, 0, &made), E(NULL_POINTER));
  says("an upload of nothing", gmb_coordinator_queue_triple_upload(coordinator, own, type, copied, 0, NULL, 0, &made), E(ZERO_COUNT));
  for (uint64_t bytes = HIGH_BIT; bytes != 0; bytes = bytes == HIGH_BIT ? UINT64_MAX : 0) {
    /* More than the buffer has, and than any memory. */
    const gmb_status got = gmb_coordinator_queue_triple_upload(coordinator, own, type, copied, bytes, NULL, 0, &made);
    says("an upload beyond all", got == E(OVERFLOW) ? BAD : got, BAD);
  }
  states_are("after bad uploads", own, GMB_BUFFER_FREE, GMB_BUFFER_FREE, 0);
  says("an upload", gmb_coordinator_queue_triple_upload(coordinator, own, type, copied, COPIED, NULL, 0, &made), GMB_OK);
  compute.launch = &wide;
  says("a launch that is too wide", gmb_coordinator_queue_compute(coordinator, &compute, NULL, 0, &made), BAD);
  compute = compute_of(enqueue_nothing, NULL);
  compute.triple = own;
  says("and then a good one", gmb_coordinator_queue_compute(coordinator, &compute, NULL, 0, &made), GMB_OK);
  says("a download to nowhere", gmb_coordinator_queue_triple_download(coordinator, own, type, NULL, COPIED, NULL, 0, &made), E(NULL_POINTER));
  says("a download of nothing", gmb_coordinator_queue_triple_download(coordinator, own, type, copied, 0, NULL, 0, &made), E(ZERO_COUNT));
  says("and then a good one", gmb_coordinator_queue_triple_download(coordinator, own, type, copied, COPIED, NULL, 0, &made), GMB_OK);
  says("its handle goes first", gmb_triple_buffer_destroy(own), GMB_OK);
  CHECK(gmb_coordinator_synchronize(coordinator, GMB_WAIT_FOREVER));
}

/* Its streams are the coordinator's, and their capture is the caller's. */
static void streams_of_a_coordinator(void) {
  const gmb_coordinator own = make_a_coordinator(context, 8);
  gmb_stream its[3];
  gmb_operation made = {GARBAGE};
  gmb_graph nothing;
  gmb_context_info info = {0};
  for (gmb_step step = 0; step < 3; ++step) CHECK(gmb_coordinator_get_stream(own, step, &its[step]));
  CHECK(gmb_stream_begin_capture(context, its[0], GMB_CAPTURE_RELAXED));
  says("into a capture", gmb_coordinator_queue_upload(own, memory, copied, COPIED, NULL, 0, &made), E(NOT_SUPPORTED));
  if (made.id != GARBAGE) says("written output", GMB_OK, E(NOT_SUPPORTED));
  says("beside a capture", gmb_coordinator_queue_download(own, copied, memory, COPIED, NULL, 0, &made), GMB_OK);
  CHECK(gmb_coordinator_wait(own, made, GMB_WAIT_FOREVER, NULL));
  CHECK(gmb_stream_end_capture(context, its[0], &nothing));
  CHECK(gmb_graph_destroy(nothing));
  says("after a capture", gmb_coordinator_queue_upload(own, memory, copied, COPIED, &made, 1, &made), GMB_OK);
  for (gmb_step step = 0; step < 3; ++step) says("to destroy its stream", gmb_stream_destroy(context, its[step]), E(INVALID_STREAM));
  says("with its streams", gmb_coordinator_queue_upload(own, memory, copied, COPIED, NULL, 0, &made), GMB_OK);
  CHECK(gmb_coordinator_destroy(own));
  says("when it is gone", gmb_context_get_info(context, &info, sizeof info), GMB_OK);
  if (on_the_host()) says("a stream of what is gone", gmb_stream_query(context, its[1]), E(INVALID_STREAM));
}

static void *opens_the_gate(void *done) {
  usleep(20000);
  *(atomic_bool *)done = true;
  gate_is_open = true;
  return NULL;
}

/* A destroy waits for what was queued, also where a stream is being captured: the memory is the caller's again afterwards. */
static void destroyed_with_work_under_way(bool capture) {
  static atomic_bool opened;
  const gmb_coordinator own = make_a_coordinator(context, 8);
  gmb_operation made;
  gmb_stream down;
  pthread_t thread;
  opened = false;
  CHECK(gmb_coordinator_get_stream(own, GMB_STEP_DOWNLOAD, &down));
  CHECK(enqueue_a_gate(down, NULL, &context));
  CHECK(gmb_coordinator_queue_download(own, pinned, memory, BYTES, NULL, 0, &made));
  if (capture) CHECK(gmb_stream_begin_capture(context, down, GMB_CAPTURE_RELAXED));
  if (pthread_create(&thread, NULL, opens_the_gate, &opened) != 0) abort();
  says("destroyed with work under way", gmb_coordinator_destroy(own), GMB_OK);
  if (!opened) says(capture ? "it did not wait: captured" : "it did not wait", BAD, GMB_OK);
  if (pthread_join(thread, NULL) != 0) abort();
  says("an operation of it", gmb_coordinator_wait(own, made, GMB_WAIT_FOREVER, NULL), E(INVALID_HANDLE));
  settle();
}

/* What it came from is gone, and it goes on. */
static void coordinator_without_its_context(void) {
  gmb_context own;
  gmb_operation made;
  gmb_completion told;
  CHECK(gmb_context_create(NULL, &own));
  const gmb_coordinator left = make_a_coordinator(own, 0);
  const gmb_module its_module = make_a_module(own);
  const gmb_kernel its_kernel = kernel_of(its_module);
  gmb_compute compute = good_compute;
  compute.kernel = its_kernel;
  CHECK(gmb_coordinator_queue_compute(left, &compute, NULL, 0, &made));
  CHECK(gmb_context_destroy(own));
  CHECK(gmb_module_destroy(its_module));
  CHECK(gmb_kernel_destroy(its_kernel));
  says("without its context", gmb_coordinator_wait(left, made, GMB_WAIT_FOREVER, &told), GMB_OK);
  made = queued(left, enqueue_nothing, NULL);
  says("and again", gmb_coordinator_wait(left, made, GMB_WAIT_FOREVER, &told), GMB_OK);
  CHECK(gmb_coordinator_destroy(left));
}

static void pipeline_rules(void) {
  static struct function rules = {.name = "pipeline rules"};
  f = &rules;
  turns_that_are_nobodys();
  triples_without_room();
  kernels_of_a_module_that_is_gone();
  callbacks_that_call();
  statuses_of_callbacks();
  failures_in_their_order();
  coordinators_that_are_full();
  bad_calls_on_a_triple_buffer();
  streams_of_a_coordinator();
  destroyed_with_work_under_way(false);
  destroyed_with_work_under_way(true);
  coordinator_without_its_context();
  round_trip();
}

static void end_pipeline(void) {
  CHECK(gmb_coordinator_destroy(coordinator));
  CHECK(gmb_coordinator_destroy(other_coordinator));
  CHECK(gmb_coordinator_destroy(still_coordinator));
  CHECK(gmb_triple_buffer_destroy(triple));
  CHECK(gmb_triple_buffer_destroy(foreign_triple));
  CHECK(gmb_kernel_destroy(kernel));
  CHECK(gmb_kernel_destroy(foreign_kernel));
  CHECK(gmb_module_destroy(module));
  CHECK(gmb_mailbox_destroy(foreign_box));
  unlink(module_path);
}
