/* Forks, for process.c: in the child every function says GMB_ERROR_FORKED, and hurts nobody. */

#define FORKED(call) CHECK((call) == GMB_ERROR_FORKED)

static void child_of_fork_with_tensors(struct world *w);
static void child_of_fork_with_queues(struct world *w);
static void child_of_fork_with_arbiters(struct world *w);
static void child_of_fork_with_a_pipeline(struct world *w);
static void child_of_fork(struct world *w) {
  unsigned char bytes[4096] = {0};
  uint32_t lengths[4] = {0}, reader = 0;
  uint64_t size = 0;
  size_t needed = 0;
  int32_t priority;
  double milliseconds;
  void *memory = NULL;
  gmb_stream stream;
  gmb_event event;
  gmb_token token;
  gmb_mailbox mailbox;
  gmb_context context;
  gmb_stream_guard guard;
  gmb_graph graph;
  gmb_watch watch;
  gmb_borrow borrow;
  gmb_spans spans;
  const gmb_spans *on_device;
  int32_t descriptor;
  gmb_result result;
  const gmb_result *address;
  gmb_record_header headers[4];
  const gmb_mailbox_options options = options_of(16);
  const gmb_push push = push_of(w->memory, 1);
  const gmb_pop pop = pop_of(w->memory, 1);
  FORKED(g.context_create(NULL, &context));
  FORKED(g.context_get_info(w->context, (gmb_context_info *)(void *)bytes, sizeof(gmb_context_info)));
  FORKED(g.event_create(w->context, GMB_EVENT_TIMED, &event));
  FORKED(g.event_record(w->event, w->stream));
  FORKED(g.event_query(w->event));
  FORKED(g.event_synchronize(w->event, GMB_WAIT_FOREVER));
  FORKED(g.event_elapsed_ms(w->event, w->event, &milliseconds));
  FORKED(g.event_pool_get_info(w->context, GMB_EVENT_TIMED, (gmb_event_pool_info *)(void *)bytes, sizeof(gmb_event_pool_info)));
  FORKED(g.stream_guard_create(w->context, w->stream, &guard));
  FORKED(g.stream_guard_destroy(w->guard));
  FORKED(g.mailbox_push_from_host_blocking(w->mailbox, 1, bytes, PAYLOAD, lengths, NULL, GMB_WAIT_FOREVER, &result));
  FORKED(g.mailbox_pop_to_host_blocking(w->mailbox, 0, 1, bytes, PAYLOAD, headers, &result));
  FORKED(g.set_log_function(GMB_LOG_INFO, no_log, NULL));
  FORKED(g.mailbox_create(w->context, &options, &mailbox));
  FORKED(g.mailbox_create_in(w->context, &options, w->memory, 4096, &mailbox));
  FORKED(g.mailbox_attach(w->context, w->memory, 4096, NULL, &mailbox));
  FORKED(g.mailbox_get_required_bytes(&options, &size));
  FORKED(g.mailbox_get_info(w->mailbox, (gmb_mailbox_info *)(void *)bytes, sizeof(gmb_mailbox_info)));
  FORKED(g.mailbox_push(w->mailbox, &push, w->stream, w->token));
  FORKED(g.mailbox_pop(w->mailbox, &pop, w->stream, w->token));
  FORKED(g.mailbox_add_reader(w->mailbox, GMB_READER_NEXT, w->stream, &reader));
  FORKED(g.mailbox_remove_reader(w->mailbox, 0, w->stream));
  FORKED(g.mailbox_get_reader_info(w->mailbox, 0, (gmb_reader_info *)(void *)bytes, sizeof(gmb_reader_info)));
  FORKED(g.memory_allocate(w->context, 64, &memory));
  FORKED(g.memory_allocate_async(w->context, 64, w->stream, &memory));
  FORKED(g.pinned_allocate(w->context, 64, &memory));
  FORKED(g.memory_copy(w->context, w->memory, bytes, 64, w->stream));
  FORKED(g.memory_fill(w->context, w->memory, 0, 64, w->stream));
  FORKED(g.memory_get_info(w->context, (gmb_memory_info *)(void *)bytes, sizeof(gmb_memory_info)));
  FORKED(g.memory_trim(w->context, 0));
  FORKED(g.memory_free_async(w->context, w->memory, w->stream));
  FORKED(g.memory_free(w->context, w->memory));
  FORKED(g.pinned_free(w->context, w->pinned));
  FORKED(g.stream_create(w->context, GMB_PRIORITY_NORMAL, &stream));
  FORKED(g.stream_get_priority(w->context, w->stream, &priority));
  FORKED(g.stream_query(w->context, w->stream));
  FORKED(g.stream_is_capturing(w->context, w->stream, &priority));
  FORKED(g.stream_synchronize(w->context, w->stream));
  FORKED(g.stream_host_function(w->context, w->stream, no_function, NULL));
  FORKED(g.stream_wait_event(w->context, w->stream, w->event));
  FORKED(g.stream_destroy(w->context, w->stream));
  FORKED(g.stream_begin_capture(w->context, w->stream, GMB_CAPTURE_RELAXED));
  FORKED(g.stream_end_capture(w->context, w->stream, &graph));
  FORKED(g.graph_launch(w->graph, w->stream));
  FORKED(g.graph_destroy(w->graph));
  FORKED(g.mailbox_wait_readable(w->mailbox, 0, 1, GMB_WAIT_FOREVER, NULL));
  FORKED(g.mailbox_wait_writable(w->mailbox, 1, GMB_WAIT_FOREVER, NULL));
  FORKED(g.watch_create(w->mailbox, GMB_INTEREST_READABLE, 0, &watch));
  FORKED(g.watch_arm(w->watch, 1));
  FORKED(g.watch_get_fd(w->watch, &descriptor));
  FORKED(g.watch_destroy(w->watch));
  FORKED(g.mailbox_borrow(w->lent, 0, 1, w->stream, &borrow));
  FORKED(g.borrow_poll(w->borrow, &result, &spans));
  FORKED(g.borrow_wait(w->borrow, GMB_WAIT_FOREVER, &result, &spans));
  FORKED(g.borrow_get_device_spans(w->borrow, &on_device));
  FORKED(g.borrow_release(w->borrow, w->stream));
  child_of_fork_with_tensors(w);
  child_of_fork_with_queues(w);
  child_of_fork_with_arbiters(w);
  child_of_fork_with_a_pipeline(w);
  FORKED(g.token_create(w->context, &token));
  FORKED(g.token_poll(w->token, &result));
  FORKED(g.token_wait(w->token, GMB_EPOCH_LAST, GMB_WAIT_FOREVER, &result));
  FORKED(g.token_get_device_result(w->token, &address));
  FORKED(g.token_destroy(w->token));
  FORKED(g.event_destroy(w->event));
  FORKED(g.mailbox_destroy(w->mailbox));
  FORKED(g.context_destroy(w->context));
  /* What asks the library nothing works on. */
  CHECK(g.version() != 0 && *g.version_string() && *g.status_string(GMB_ERROR_FORKED));
  CHECK(strcmp(g.status_name(GMB_ERROR_FORKED), "GMB_ERROR_FORKED") == 0);
  const gmb_status told = g.last_error_message((char *)bytes, sizeof bytes, &needed);
  CHECK(told == GMB_ERROR_FORKED || (told == GMB_OK && needed > 1));
}

static void fork_and_wait(struct world *w, void (*leave)(int)) {
  const pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    alarm(CASE_SECONDS / 2);
    child_of_fork(w);
    leave(0);
  }
  int status;
  CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void fork_when_idle(void) {
  struct world w;
  make(&w);
  use(&w);
  OK(g.stream_guard_create(w.context, w.stream, &w.guard));
  fork_and_wait(&w, exit);
  fork_and_wait(&w, _exit);
  OK(g.stream_guard_destroy(w.guard));
  use(&w);
  end(&w);
  wait_for_tensors();
}

static void fork_when_busy(void) {
  struct world w;
  make(&w);
  OK(g.stream_guard_create(w.context, w.stream, &w.guard));
  in_flight(&w, sleeps);
  fork_and_wait(&w, exit);
  OK(g.stream_guard_destroy(w.guard));
  OK(g.stream_synchronize(w.context, w.stream));
  end(&w);
}

static void fork_before_use(void) {
  const pid_t child = fork();
  struct world w;
  CHECK(child >= 0);
  make(&w);
  use(&w);
  end(&w);
  if (child == 0) _exit(0);
  int status;
  CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
}
