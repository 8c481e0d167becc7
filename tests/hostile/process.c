/* Hostile endings: forks, exits with work in flight, threads that leave things behind, and a library that is
 * closed and opened again. Each case runs in a process of its own, which must end as the table says within
 * its time and print nothing. The library is opened with dlopen: the path is the first argument. */
#include "process_world.h"
#include "process_forks.h"

/* ---- Exits ---- */

static void exit_with_live_objects(void) {
  struct world w;
  make(&w);
  use(&w);
  OK(g.stream_guard_create(w.context, w.stream, &w.guard));
}

static void exit_with_work_in_flight(void) {
  struct world w;
  make(&w);
  in_flight(&w, never_ends);
}

static void call_library(void) {
  struct world w;
  make(&w);
  use(&w);
  end(&w);
  wait_for_tensors();
}

/* Handlers run after the threads' and libraries' own have been set up, and may still call the library. */
static void exit_handler_that_calls(void) {
  CHECK(atexit(call_library) == 0);
  call_library();
  leaving = true;
}

static void *leave_process(void *unused) {
  (void)unused;
  usleep(20000);
  _exit(0);
}

static void exit_from_another_thread(void) {
  struct world w;
  pthread_t thread;
  make(&w);
  CHECK(pthread_create(&thread, NULL, leave_process, NULL) == 0);
  for (;;) use(&w);
}

static void *use_until_exit(void *argument) {
  for (;;) use(argument);
  return NULL;
}

static void exit_while_threads_call(void) {
  static struct world w[4];
  pthread_t thread;
  for (int i = 0; i < 4; ++i) {
    make(&w[i]);
    CHECK(pthread_create(&thread, NULL, use_until_exit, &w[i]) == 0);
  }
  usleep(20000);
  leaving = true;
}

static atomic_int logged;
static void log_function(gmb_log_level level, const char *text, void *argument) {
  (void)level;
  CHECK(argument == &logged && *text);
  ++logged;
}

static void exit_with_a_log_function(void) {
  struct world w;
  OK(g.set_log_function(GMB_LOG_INFO, log_function, &logged));
  make(&w);
  in_flight(&w, never_ends);
  CHECK(logged > 0);
}

/* ---- Threads ---- */

static void *hold_guard(void *argument) {
  struct world *w = argument;
  OK(g.stream_guard_create(w->context, w->stream, &w->guard));
  OK(g.stream_synchronize(w->context, GMB_STREAM_CURRENT));
  return NULL;
}

static void thread_that_keeps_its_guard(void) {
  struct world w;
  make(&w);
  for (int i = 0; i < 200; ++i) {
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, hold_guard, &w) == 0 && pthread_join(thread, NULL) == 0);
    CHECK(g.stream_guard_destroy(w.guard) == GMB_ERROR_WRONG_THREAD);
  }
  use(&w);
  end(&w);
}

static void *fail_once(void *unused) {
  char text[256] = "";
  (void)unused;
  CHECK(g.context_destroy((gmb_context){7}) == GMB_ERROR_INVALID_HANDLE);
  OK(g.last_error_message(text, sizeof text, NULL));
  CHECK(text[0]);
  return NULL;
}

static void thread_outlives_close(void) {
  pthread_t thread;
  for (int i = 0; i < 100; ++i) CHECK(pthread_create(&thread, NULL, fail_once, NULL) == 0 && pthread_join(thread, NULL) == 0);
}

/* ---- The library closed and opened ---- */

static void open_a_hundred_times(void) {
  for (int i = 0; i < 100; ++i) {
    call_library();
    CHECK(dlclose(library) == 0);
    open_library();
  }
}

static void contexts_across_a_close(void) {
  struct world one, two;
  make(&one);
  make(&two);
  in_flight(&two, sleeps);
  CHECK(dlclose(library) == 0);
  open_library();
  OK(g.stream_synchronize(two.context, two.stream));
  use(&one);
  end(&one);
  end(&two);
}

static void exit_after_close(void) {
  struct world w;
  make(&w);
  in_flight(&w, never_ends);
  CHECK(dlclose(library) == 0);
}

#include "process_tensor_cases.h"
#include "process_queue_cases.h"
#include "process_arbiters.h"
#include "process_pipeline_cases.h"

static void broken_on_purpose(void) { CHECK(g.version() == 0); }
static void loud_on_purpose(void) { fprintf(stderr, "a word on stderr\n"); }

static const struct {
  const char *name;
  void (*run)(void);
} cases[] = {
#define CASE(name) {#name, name}
    CASE(fork_when_idle), CASE(fork_when_busy), CASE(fork_before_use), CASE(exit_with_live_objects),
    CASE(exit_with_work_in_flight), CASE(exit_handler_that_calls), CASE(exit_from_another_thread),
    CASE(exit_while_threads_call), CASE(exit_with_a_log_function), CASE(thread_that_keeps_its_guard),
    CASE(thread_outlives_close), CASE(open_a_hundred_times), CASE(contexts_across_a_close), CASE(exit_after_close),
    CASE(fork_while_tensors_retire), CASE(exit_with_tensors_retiring), CASE(exit_while_a_deleter_runs),
    CASE(exec_with_leases_out), CASE(close_with_leases_out), CASE(deleters_that_call_the_library),
    CASE(deleter_that_destroys_its_context), CASE(destroy_before_leases_end),
    CASE(exit_with_a_running_worker), CASE(exit_while_threads_use_a_worker), CASE(exit_with_a_paused_worker),
    CASE(fork_while_a_worker_runs), CASE(close_with_a_running_worker), CASE(context_that_ends_before_its_worker),
    CASE(exit_with_commands_in_flight), CASE(close_with_commands_in_flight), CASE(worker_that_ends_under_its_callers),
    CASE(kill_another_process_in_flight),
    CASE(exit_with_a_running_arbiter), CASE(exit_with_an_arbiter_that_stays), CASE(exit_while_threads_use_arbiters),
    CASE(fork_while_an_arbiter_runs), CASE(close_with_a_running_arbiter), CASE(context_that_ends_before_its_arbiter),
    CASE(kill_another_process_with_an_arbiter),
    CASE(exit_with_operations_in_flight), CASE(exit_while_threads_wait_for_operations), CASE(exit_while_threads_queue),
    CASE(exit_inside_a_callback), CASE(fork_with_operations_in_flight), CASE(fork_inside_a_callback),
    CASE(close_with_operations_in_flight), CASE(context_that_ends_before_its_coordinator),
    CASE(kill_another_process_with_operations),
    /* With `--broken` only: what a failure looks like. */
    CASE(broken_on_purpose), CASE(loud_on_purpose),
};
enum { BROKEN = 2, CASES = sizeof cases / sizeof *cases - BROKEN };

/* Runs a case in a child; its standard output and error come here, and must be empty. */
static int run_case(int which) {
  int ends[2], status;
  char said[512];
  ssize_t length;
  if (pipe(ends) != 0) return 1;
  fflush(NULL);
  const pid_t child = fork();
  if (child < 0) return 1;
  if (child == 0) {
    alarm(CASE_SECONDS);
    dup2(ends[1], 1);
    dup2(ends[1], 2);
    close(ends[0]);
    close(ends[1]);
    open_library();
    cases[which].run();
    exit(0);
  }
  close(ends[1]);
  size_t used = 0;
  while (used < sizeof said - 1 && (length = read(ends[0], said + used, sizeof said - 1 - used)) > 0) used += (size_t)length;
  said[used] = '\0';
  close(ends[0]);
  waitpid(child, &status, 0);
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0 && used == 0) return 0;
  if (WIFSIGNALED(status)) printf("%s: killed by signal %d; it said: %s\n", cases[which].name, WTERMSIG(status), said);
  else printf("%s: exit status %d; it said: %s\n", cases[which].name, WEXITSTATUS(status), said);
  return 1;
}

int main(int argc, char **argv) {
  int failures = 0;
  if (argc < 2) return 2;
  library_path = argv[1];
  const int count = CASES + (argc > 2 && strcmp(argv[2], "--broken") == 0 ? BROKEN : 0);
  for (int i = 0; i < count; ++i) {
    if (argc > 2 && count == CASES && strcmp(argv[2], cases[i].name) != 0) continue;
    failures += run_case(i);
  }
  printf("hostile processes: %d cases, %d failures\n", count, failures);
  return failures > 0;
}
