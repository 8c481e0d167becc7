/* Hostile endings of queues and workers, for process.c. */

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
  end_others(&w, true);
  use_worker(&w.queues);
  end_queues(&w.queues);
}
