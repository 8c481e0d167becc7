/* Hostile endings of triple buffers, modules and coordinators, for process.c. */

static void child_of_fork_with_a_pipeline(struct world *w) {
  struct pipeline *p = &w->pipeline;
  unsigned char bytes[TRIPLE_BYTES] = {0};
  gmb_triple_buffer_options options = GMB_TRIPLE_BUFFER_OPTIONS_INIT;
  gmb_coordinator_options coordinator_options = GMB_COORDINATOR_OPTIONS_INIT;
  gmb_triple_buffer triple;
  gmb_triple_buffer_info info;
  gmb_triple_slot slot = {0};
  gmb_module module;
  gmb_kernel kernel;
  gmb_kernel_info kernel_info;
  gmb_launch launch = GMB_LAUNCH_INIT;
  gmb_compute compute = GMB_COMPUTE_INIT;
  gmb_task task = GMB_TASK_INIT;
  gmb_coordinator coordinator;
  gmb_coordinator_info coordinator_info;
  gmb_operation made;
  gmb_completion completion;
  gmb_stream stream;
  uint32_t count;
  const gmb_push push = push_of(w->memory, 1);
  const gmb_pop pop = pop_of(w->memory, 1);
  options.dtype = words;
  options.elements = ELEMENTS;
  compute.callback = turns_bytes;
  FORKED(g.triple_buffer_create(w->context, &options, &triple));
  FORKED(g.triple_buffer_get_info(p->triple, &info, sizeof info));
  FORKED(g.triple_buffer_acquire(p->triple, GMB_STEP_UPLOAD, &slot));
  FORKED(g.triple_buffer_acquire_on(p->triple, GMB_STEP_UPLOAD, w->stream, &slot));
  FORKED(g.triple_buffer_wait(p->triple, GMB_STEP_UPLOAD, GMB_WAIT_FOREVER, &slot));
  FORKED(g.triple_buffer_submit(p->triple, &slot, w->stream));
  FORKED(g.triple_buffer_give_up(p->triple, &slot));
  FORKED(g.triple_buffer_advance(p->triple, &count));
  FORKED(g.triple_buffer_destroy(p->triple));
  FORKED(g.module_create(w->context, ptx, sizeof ptx, &module));
  FORKED(g.module_load_file(w->context, "/nowhere", &module));
  FORKED(g.module_register(p->module, "touch", count_block, NULL));
  FORKED(g.module_get_kernel(p->module, "touch", &kernel));
  FORKED(g.kernel_get_info(p->kernel, &kernel_info, sizeof kernel_info));
  FORKED(g.kernel_launch(p->kernel, &launch, w->stream));
  FORKED(g.kernel_destroy(p->kernel));
  FORKED(g.module_destroy(p->module));
  FORKED(g.coordinator_create(w->context, &coordinator_options, &coordinator));
  FORKED(g.coordinator_get_info(p->coordinator, &coordinator_info, sizeof coordinator_info));
  FORKED(g.coordinator_get_stream(p->coordinator, GMB_STEP_UPLOAD, &stream));
  FORKED(g.coordinator_queue_upload(p->coordinator, w->memory, bytes, sizeof bytes, NULL, 0, &made));
  FORKED(g.coordinator_queue_download(p->coordinator, bytes, w->memory, sizeof bytes, NULL, 0, &made));
  FORKED(g.coordinator_queue_triple_upload(p->coordinator, p->triple, words, bytes, sizeof bytes, NULL, 0, &made));
  FORKED(g.coordinator_queue_triple_download(p->coordinator, p->triple, words, bytes, sizeof bytes, NULL, 0, &made));
  FORKED(g.coordinator_queue_compute(p->coordinator, &compute, NULL, 0, &made));
  FORKED(g.coordinator_queue_push(p->coordinator, w->mailbox, &push, GMB_STEP_UPLOAD, NULL, 0, &made));
  FORKED(g.coordinator_queue_pop(p->coordinator, w->mailbox, &pop, GMB_STEP_DOWNLOAD, NULL, 0, &made));
  FORKED(g.coordinator_queue_graph(p->coordinator, &task, 1, &made));
  FORKED(g.coordinator_poll(p->coordinator, 1, &completion, &count));
  FORKED(g.coordinator_wait(p->coordinator, p->done, GMB_WAIT_FOREVER, &completion));
  FORKED(g.coordinator_synchronize(p->coordinator, GMB_WAIT_FOREVER));
  FORKED(g.coordinator_destroy(p->coordinator));
}

/* Operations behind a function that is never done, or is after a while: of each kind, with a callback of this program's, and one
 * that runs block by block. */
static unsigned char in_flight_bytes[1 << 20];
static void queue_behind(struct world *w, gmb_host_function function) {
  struct pipeline *p = &w->pipeline;
  gmb_compute compute = GMB_COMPUTE_INIT;
  gmb_launch launch = GMB_LAUNCH_INIT;
  gmb_push push = push_of(w->memory, 1);
  const uint64_t value = 7;
  const gmb_argument argument = {&value, sizeof value};
  gmb_operation made, first;
  gmb_stream stream;
  push.length = 0;
  entered = 0;
  OK(g.coordinator_get_stream(p->coordinator, GMB_STEP_PROCESS, &stream));
  OK(g.stream_host_function(w->context, stream, function, NULL));
  launch.grid[0] = 5;
  launch.arguments = &argument;
  launch.argument_count = 1;
  compute.kernel = p->kernel;
  compute.launch = &launch;
  OK(g.coordinator_queue_compute(p->coordinator, &compute, NULL, 0, &first));
  OK(g.coordinator_queue_upload(p->coordinator, w->memory, in_flight_bytes, 4096, &first, 1, &made));
  OK(g.coordinator_queue_download(p->coordinator, in_flight_bytes, w->memory, 4096, &made, 1, &made));
  OK(g.coordinator_queue_push(p->coordinator, w->mailbox, &push, GMB_STEP_UPLOAD, &first, 1, &made));
  OK(g.coordinator_queue_triple_upload(p->coordinator, p->triple, words, in_flight_bytes, TRIPLE_BYTES, &first, 1, &made));
  compute = (gmb_compute)GMB_COMPUTE_INIT;
  compute.callback = turns_bytes;
  compute.user = &w->context;
  compute.triple = p->triple;
  OK(g.coordinator_queue_compute(p->coordinator, &compute, NULL, 0, &made));
  OK(g.coordinator_queue_triple_download(p->coordinator, p->triple, words, in_flight_bytes, TRIPLE_BYTES, NULL, 0, &p->done));
  while (!entered) usleep(100);
}

static void exit_with_operations_in_flight(void) {
  static struct world w;
  make(&w);
  use(&w);
  queue_behind(&w, never_ends);
}

static void *waits_for_an_operation(void *argument) {
  struct world *w = argument;
  g.coordinator_wait(w->pipeline.coordinator, w->pipeline.done, GMB_WAIT_FOREVER, NULL);
  return NULL;
}

static void *waits_for_a_buffer(void *argument) {
  struct world *w = argument;
  gmb_triple_slot slot;
  g.triple_buffer_wait(w->pipeline.triple, GMB_STEP_DOWNLOAD, GMB_WAIT_FOREVER, &slot);
  return NULL;
}

static void *destroys_a_coordinator(void *argument) {
  struct world *w = argument;
  g.coordinator_destroy(w->pipeline.coordinator);
  return NULL;
}

/* Of threads that wait for what never comes, one is inside a destroy. */
static void exit_while_threads_wait_for_operations(void) {
  static struct world w[2];
  pthread_t thread;
  for (int i = 0; i < 2; ++i) {
    make(&w[i]);
    queue_behind(&w[i], never_ends);
    CHECK(pthread_create(&thread, NULL, waits_for_an_operation, &w[i]) == 0);
    CHECK(pthread_create(&thread, NULL, waits_for_a_buffer, &w[i]) == 0);
  }
  CHECK(pthread_create(&thread, NULL, destroys_a_coordinator, &w[1]) == 0);
  usleep(20000);
  leaving = true;
}

static void *use_pipeline_until_exit(void *argument) {
  struct world *w = argument;
  for (;;) use_pipeline(&w->pipeline, w->context, w->stream);
  return NULL;
}

static void exit_while_threads_queue(void) {
  static struct world w[3];
  pthread_t thread;
  for (int i = 0; i < 3; ++i) {
    make(&w[i]);
    CHECK(pthread_create(&thread, NULL, use_pipeline_until_exit, &w[i]) == 0);
  }
  usleep(20000);
  leaving = true;
}

/* The process ends inside a callback, while its coordinator is called. */
static gmb_status leaves(gmb_stream on, void *address, void *user) {
  (void)on, (void)address, (void)user;
  leaving = true;
  exit(0);
}

static void exit_inside_a_callback(void) {
  static struct world w;
  gmb_compute compute = GMB_COMPUTE_INIT;
  gmb_operation made;
  make(&w);
  use(&w);
  compute.callback = leaves;
  g.coordinator_queue_compute(w.pipeline.coordinator, &compute, NULL, 0, &made);
  CHECK(false);
}

/* Its children know nothing of what is in flight, and here it is done. */
static void fork_with_operations_in_flight(void) {
  static struct world w;
  make(&w);
  use(&w);
  OK(g.stream_guard_create(w.context, w.stream, &w.guard));
  queue_behind(&w, sleeps);
  fork_and_wait(&w, exit);
  fork_and_wait(&w, _exit);
  OK(g.stream_guard_destroy(w.guard));
  OK(g.coordinator_wait(w.pipeline.coordinator, w.pipeline.done, GMB_WAIT_FOREVER, NULL));
  use(&w);
  end(&w);
  wait_for_tensors();
}

/* A child that is made inside a callback finds the same, and the call here goes on. */
static gmb_status forks(gmb_stream on, void *address, void *user) {
  (void)on, (void)address;
  fork_and_wait(user, _exit);
  return GMB_OK;
}

static void fork_inside_a_callback(void) {
  static struct world w;
  gmb_compute compute = GMB_COMPUTE_INIT;
  gmb_operation made;
  make(&w);
  use(&w);
  OK(g.stream_guard_create(w.context, w.stream, &w.guard));
  compute.callback = forks;
  compute.user = &w;
  OK(g.coordinator_queue_compute(w.pipeline.coordinator, &compute, NULL, 0, &made));
  OK(g.coordinator_wait(w.pipeline.coordinator, made, GMB_WAIT_FOREVER, NULL));
  OK(g.stream_guard_destroy(w.guard));
  use(&w);
  end(&w);
  wait_for_tensors();
}

/* The library is closed and opened again, and what it has made stays. */
static void close_with_operations_in_flight(void) {
  static struct world w;
  make(&w);
  queue_behind(&w, sleeps);
  CHECK(dlclose(library) == 0);
  open_library();
  OK(g.coordinator_wait(w.pipeline.coordinator, w.pipeline.done, GMB_WAIT_FOREVER, NULL));
  use(&w);
  end(&w);
  wait_for_tensors();
}

/* The last that a context has are operations under way, and their memory. */
static void context_that_ends_before_its_coordinator(void) {
  static struct world w;
  make(&w);
  queue_behind(&w, sleeps);
  OK(g.kernel_destroy(w.pipeline.kernel));
  OK(g.module_destroy(w.pipeline.module));
  OK(g.triple_buffer_destroy(w.pipeline.triple));
  OK(g.coordinator_wait(w.pipeline.coordinator, w.pipeline.done, GMB_WAIT_FOREVER, NULL));
  OK(g.coordinator_synchronize(w.pipeline.coordinator, GMB_WAIT_FOREVER));
  end_tensors(&w.tensors);
  end_queues(&w.queues);
  end_others(&w, true);
  OK(g.coordinator_destroy(w.pipeline.coordinator));
  wait_for_tensors();
}

/* Another process dies in the middle of it; the one here goes on. */
static void kill_another_process_with_operations(void) {
  static struct world w;
  int ready[2], status;
  char byte = 0;
  CHECK(pipe(ready) == 0);
  const pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    alarm(CASE_SECONDS / 2);
    make(&w);
    CHECK(write(ready[1], "!", 1) == 1);
    use_pipeline_until_exit(&w);
  }
  make(&w);
  close(ready[1]);
  CHECK(read(ready[0], &byte, 1) == 1);
  for (int i = 0; i < 20; ++i) use_pipeline(&w.pipeline, w.context, w.stream);
  CHECK(kill(child, SIGKILL) == 0);
  use_pipeline(&w.pipeline, w.context, w.stream);
  CHECK(waitpid(child, &status, 0) == child && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
  use(&w);
  end(&w);
  wait_for_tensors();
}
