/* Hostile endings of arbiters, for process.c. Worlds have none at first: while one runs, nothing else finds the device idle. */

enum { ARBITER_SLICE = 1000000 };

static void child_of_fork_with_arbiters(struct world *w) {
  gmb_arbiter_options options = GMB_ARBITER_OPTIONS_INIT;
  const gmb_arbitrated one = {w->mailbox, 0, GMB_CLASS_FOCUS};
  gmb_arbiter made;
  gmb_arbiter_info info;
  options.count = 1;
  options.mailboxes = &one;
  FORKED(g.arbiter_create(w->context, &options, &made));
  FORKED(g.arbiter_get_info(w->arbiter, &info, sizeof info));
  FORKED(g.arbiter_destroy(w->arbiter));
}

/* It is there, and tells what is so. */
static void use_arbiter(struct world *w) {
  gmb_arbiter_info before = {0}, info = {0};
  OK(g.arbiter_get_info(w->arbiter, &before, sizeof before));
  CHECK(before.mailboxes == 2 && before.focus == 1 && before.arbiter != NULL);
  wait_for((g.arbiter_get_info(w->arbiter, &info, sizeof info), info.slices > before.slices || info.heartbeat != before.heartbeat));
}

static void make_with_arbiter(struct world *w) {
  gmb_arbiter_options options = GMB_ARBITER_OPTIONS_INIT;
  make(w);
  const gmb_arbitrated mailboxes[] = {{w->mailbox, 0, GMB_CLASS_PERIPHERAL}, {w->lent, 0, GMB_CLASS_FOCUS}};
  options.count = 2;
  options.mailboxes = mailboxes;
  options.slice_ns = ARBITER_SLICE;
  OK(g.arbiter_create(w->context, &options, &w->arbiter));
  use_arbiter(w);
}

static void end_with_arbiter(struct world *w) {
  gmb_arbiter_info info;
  OK(g.arbiter_destroy(w->arbiter));
  CHECK(g.arbiter_destroy(w->arbiter) == GMB_ERROR_INVALID_HANDLE);
  CHECK(g.arbiter_get_info(w->arbiter, &info, sizeof info) == GMB_ERROR_INVALID_HANDLE);
  end(w);
  wait_for_tensors();
}

static void exit_with_a_running_arbiter(void) {
  struct world w;
  make_with_arbiter(&w);
}

/* One that never leaves by itself. */
static void exit_with_an_arbiter_that_stays(void) {
  struct world w;
  gmb_arbiter_options options = GMB_ARBITER_OPTIONS_INIT;
  gmb_arbiter stays;
  make_with_arbiter(&w);
  const gmb_arbitrated one = {w.mailbox, 0, GMB_CLASS_FOCUS};
  options.count = 1;
  options.mailboxes = &one;
  options.slice_ns = GMB_WAIT_FOREVER;
  OK(g.arbiter_create(w.context, &options, &stays));
}

static void *use_arbiters_until_exit(void *argument) {
  struct world *w = argument;
  gmb_arbiter_options options = GMB_ARBITER_OPTIONS_INIT;
  const gmb_arbitrated one = {w->mailbox, 0, GMB_CLASS_FOCUS};
  gmb_arbiter own;
  options.count = 1;
  options.mailboxes = &one;
  for (;;) {
    use_arbiter(w);
    OK(g.arbiter_create(w->context, &options, &own));
    OK(g.arbiter_destroy(own));
  }
  return NULL;
}

static void exit_while_threads_use_arbiters(void) {
  static struct world w[2];
  pthread_t thread;
  for (int i = 0; i < 2; ++i) {
    make_with_arbiter(&w[i]);
    CHECK(pthread_create(&thread, NULL, use_arbiters_until_exit, &w[i]) == 0);
  }
  usleep(20000);
  leaving = true;
}

/* Its children know nothing of it, and it goes on. */
static void fork_while_an_arbiter_runs(void) {
  struct world w;
  make_with_arbiter(&w);
  OK(g.stream_guard_create(w.context, w.stream, &w.guard));
  fork_and_wait(&w, exit);
  fork_and_wait(&w, _exit);
  OK(g.stream_guard_destroy(w.guard));
  use_arbiter(&w);
  use(&w);
  end_with_arbiter(&w);
}

static void close_with_a_running_arbiter(void) {
  struct world w;
  make_with_arbiter(&w);
  CHECK(dlclose(library) == 0);
  open_library();
  use_arbiter(&w);
  end_with_arbiter(&w);
}

/* The last that a context has, and that its mailboxes have, is an arbiter. */
static void context_that_ends_before_its_arbiter(void) {
  struct world w;
  make_with_arbiter(&w);
  end(&w);
  wait_for_tensors();
  use_arbiter(&w);
  OK(g.arbiter_destroy(w.arbiter));
}

/* Another process dies while its arbiters run and come and go; the one here goes on. */
static void kill_another_process_with_an_arbiter(void) {
  static struct world w;
  int ready[2], status;
  char byte = 0;
  CHECK(pipe(ready) == 0);
  const pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    alarm(CASE_SECONDS / 2);
    make_with_arbiter(&w);
    CHECK(write(ready[1], "!", 1) == 1);
    use_arbiters_until_exit(&w);
  }
  make_with_arbiter(&w);
  close(ready[1]);
  CHECK(read(ready[0], &byte, 1) == 1);
  for (int i = 0; i < 5; ++i) use_arbiter(&w);
  CHECK(kill(child, SIGKILL) == 0);
  use_arbiter(&w);
  CHECK(waitpid(child, &status, 0) == child && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
  for (int i = 0; i < 5; ++i) use_arbiter(&w);
  use(&w);
  end_with_arbiter(&w);
}
