/* Hostile endings of queues, workers, doorbells and FIFOs, for process.c. */

static void child_of_fork_with_doorbells(struct world *w) {
  struct queues *q = &w->queues;
  gmb_doorbell_options options = GMB_DOORBELL_OPTIONS_INIT;
  gmb_fifo_options fifo_options = GMB_FIFO_OPTIONS_INIT;
  gmb_doorbell bell;
  gmb_fifo fifo;
  gmb_doorbell_info info;
  gmb_fifo_info fifo_info;
  gmb_command_id id = {1};
  gmb_answer answer;
  gmb_watch watch;
  gmb_fifo_record record;
  uint64_t popped;
  FORKED(g.doorbell_create(w->context, &options, &bell));
  FORKED(g.doorbell_get_info(q->bell, &info, sizeof info));
  FORKED(g.doorbell_submit(q->bell, &ping, GMB_WAIT_FOREVER, &id));
  FORKED(g.doorbell_wait(q->bell, id, GMB_WAIT_FOREVER, &answer));
  FORKED(g.doorbell_call(q->bell, &ping, GMB_WAIT_FOREVER, &answer));
  FORKED(g.doorbell_cancel(q->bell, id));
  FORKED(g.doorbell_forget(q->bell, id));
  FORKED(g.doorbell_create_watch(q->bell, &watch));
  FORKED(g.doorbell_destroy(q->bell));
  FORKED(g.doorbell_destroy(q->unserved));
  FORKED(g.fifo_create(w->context, &fifo_options, &fifo));
  FORKED(g.fifo_get_info(q->fifo, &fifo_info, sizeof fifo_info));
  FORKED(g.fifo_push(q->fifo, w->memory, 1, w->stream, w->token));
  FORKED(g.fifo_pop_to_host(q->fifo, &record, 1, GMB_WAIT_FOREVER, &popped));
  FORKED(g.fifo_create_watch(q->fifo, &watch));
  FORKED(g.fifo_destroy(q->fifo));
}

static void child_of_fork_with_queues(struct world *w) {
  struct queues *q = &w->queues;
  gmb_queue_options options = GMB_QUEUE_OPTIONS_INIT;
  gmb_worker_options worker_options = GMB_WORKER_OPTIONS_INIT;
  gmb_queue_info info;
  gmb_worker_info worker_info;
  gmb_queue_measurement measurement;
  gmb_worker_result result;
  gmb_queue queue;
  gmb_worker worker;
  uint32_t items[4] = {0};
  uint64_t moved;
  options.item_bytes = ITEM;
  options.capacity = ITEMS;
  worker_options.active = q->active;
  FORKED(g.queue_create(w->context, &options, &queue));
  FORKED(g.queue_get_info(q->plain, &info, sizeof info));
  FORKED(g.queue_push(q->plain, w->memory, 1, w->stream, w->token));
  FORKED(g.queue_pop(q->plain, w->memory, 1, w->stream, w->token));
  FORKED(g.queue_push_from_host_blocking(q->plain, items, 4, &moved));
  FORKED(g.queue_pop_to_host_blocking(q->plain, items, 4, &moved));
  FORKED(g.queue_measure(q->plain, 1, 1, &measurement));
  FORKED(g.worker_create(&worker_options, &worker));
  FORKED(g.worker_start(q->worker));
  FORKED(g.worker_pause(q->worker));
  FORKED(g.worker_resume(q->worker));
  FORKED(g.worker_wait(q->worker, GMB_WAIT_FOREVER, &result));
  FORKED(g.worker_get_info(q->worker, &worker_info, sizeof worker_info));
  FORKED(g.worker_stop(q->worker));
  FORKED(g.worker_destroy(q->worker));
  FORKED(g.queue_destroy(q->plain));
  FORKED(g.queue_destroy(q->active));
  child_of_fork_with_doorbells(w);
}

static void make_running(struct world *w) {
  make(w);
  OK(g.worker_start(w->queues.worker));
  use_worker(&w->queues);
}

static void exit_with_a_running_worker(void) {
  struct world w;
  make_running(&w);
}

static void *wait_for_worker(void *argument) {
  struct queues *q = argument;
  gmb_worker_result result;
  g.worker_wait(q->worker, GMB_WAIT_FOREVER, &result);
  return NULL;
}

static void *use_worker_until_exit(void *argument) {
  for (;;) use_worker(argument);
  return NULL;
}

static void exit_while_threads_use_a_worker(void) {
  static struct world w[2];
  pthread_t thread;
  for (int i = 0; i < 2; ++i) {
    make_running(&w[i]);
    CHECK(pthread_create(&thread, NULL, wait_for_worker, &w[i].queues) == 0);
    CHECK(pthread_create(&thread, NULL, use_worker_until_exit, &w[i].queues) == 0);
  }
  usleep(20000);
  leaving = true;
}

static void exit_with_a_paused_worker(void) {
  struct world w;
  gmb_worker_info info = {0};
  make_running(&w);
  OK(g.worker_pause(w.queues.worker));
  do OK(g.worker_get_info(w.queues.worker, &info, sizeof info));
  while (info.state != GMB_WORKER_STATE_PAUSED);
}

/* Its children know nothing of it, and it goes on. */
static void fork_while_a_worker_runs(void) {
  struct world w;
  gmb_worker_result result;
  make_running(&w);
  OK(g.stream_guard_create(w.context, w.stream, &w.guard));
  fork_and_wait(&w, exit);
  fork_and_wait(&w, _exit);
  OK(g.stream_guard_destroy(w.guard));
  use_worker(&w.queues);
  OK(g.worker_stop(w.queues.worker));
  OK(g.worker_wait(w.queues.worker, GMB_WAIT_FOREVER, &result));
  CHECK(result.reason == GMB_WORKER_STOPPED && result.processed == 2);
  end(&w);
  wait_for_tensors();
}

static void close_with_a_running_worker(void) {
  struct world w;
  make_running(&w);
  CHECK(dlclose(library) == 0);
  open_library();
  use_worker(&w.queues);
  end(&w);
  wait_for_tensors();
}

/* The last that a context has are its queues, and a worker that runs. */
static void context_that_ends_before_its_worker(void) {
  struct world w;
  make_running(&w);
  end_tensors(&w.tensors);
  end_pipeline(&w.pipeline);
  end_others(&w, true);
  use_worker(&w.queues);
  end_queues(&w.queues);
}

static void *wait_for_an_answer(void *argument) {
  struct queues *q = argument;
  gmb_answer answer;
  g.doorbell_call(q->unserved, &ping, GMB_WAIT_FOREVER, &answer);
  return NULL;
}

static void *wait_for_a_record(void *argument) {
  struct queues *q = argument;
  gmb_fifo_record record;
  uint64_t popped;
  g.fifo_pop_to_host(q->fifo, &record, 1, GMB_WAIT_FOREVER, &popped);
  return NULL;
}

/* Watches that look for what never comes, and threads that wait for it. */
static void wait_in_vain(struct world *w) {
  pthread_t thread;
  gmb_watch watches[2];
  OK(g.doorbell_create_watch(w->queues.unserved, &watches[0]));
  OK(g.fifo_create_watch(w->queues.fifo, &watches[1]));
  for (int i = 0; i < 2; ++i) OK(g.watch_arm(watches[i], 1));
  CHECK(pthread_create(&thread, NULL, wait_for_an_answer, &w->queues) == 0);
  CHECK(pthread_create(&thread, NULL, wait_for_a_record, &w->queues) == 0);
}

static void exit_with_commands_in_flight(void) {
  static struct world w;
  make_running(&w);
  wait_in_vain(&w);
  for (int i = 0; i < COMMANDS; ++i) OK(g.doorbell_submit(w.queues.bell, &ping, GMB_WAIT_FOREVER, NULL));
  usleep(2000);
}

/* The library goes, and what it has made stays: so do its threads. */
static void close_with_commands_in_flight(void) {
  static struct world w;
  make_running(&w);
  wait_in_vain(&w);
  CHECK(dlclose(library) == 0);
  open_library();
  use_worker(&w.queues);
  OK(g.doorbell_destroy(w.queues.unserved));
  leaving = true;
}

/* Commands that are under way when their worker goes are answered; the next ones wait until their doorbell goes. */
static void worker_that_ends_under_its_callers(void) {
  struct world w;
  gmb_answer answer = {0};
  gmb_command_id ids[COMMANDS];
  make_running(&w);
  for (int i = 0; i < COMMANDS; ++i) OK(g.doorbell_submit(w.queues.bell, &ping, GMB_WAIT_FOREVER, &ids[i]));
  OK(g.worker_destroy(w.queues.worker));
  for (int i = 0; i < COMMANDS; ++i) {
    OK(g.doorbell_wait(w.queues.bell, ids[i], 0, &answer));
    CHECK(answer.status == GMB_OK || answer.status == GMB_ERROR_NOT_SERVED);
  }
  CHECK(g.doorbell_call(w.queues.bell, &ping, 1000, &answer) == GMB_ERROR_TIMEOUT);
  OK(g.doorbell_destroy(w.queues.bell));
  CHECK(g.doorbell_call(w.queues.bell, &ping, GMB_WAIT_FOREVER, &answer) == GMB_ERROR_INVALID_HANDLE);
  leaving = true;
}

/* Another process dies in the middle of it: a worker that runs, commands under way, threads that wait. */
static void kill_another_process_in_flight(void) {
  static struct world w;
  int ready[2], status;
  char byte = 0;
  CHECK(pipe(ready) == 0);
  const pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    pthread_t thread;
    alarm(CASE_SECONDS / 2);
    make_running(&w);
    wait_in_vain(&w);
    CHECK(pthread_create(&thread, NULL, use_worker_until_exit, &w.queues) == 0);
    CHECK(write(ready[1], "!", 1) == 1);
    for (;;) OK(g.doorbell_submit(w.queues.bell, &ping, GMB_WAIT_FOREVER, NULL));
  }
  make_running(&w);
  close(ready[1]);
  CHECK(read(ready[0], &byte, 1) == 1);
  for (int i = 0; i < 20; ++i) use_worker(&w.queues);
  CHECK(kill(child, SIGKILL) == 0);
  use_worker(&w.queues);
  CHECK(waitpid(child, &status, 0) == child && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
  for (int i = 0; i < 20; ++i) use_worker(&w.queues);
  use(&w);
  end(&w);
  wait_for_tensors();
}
