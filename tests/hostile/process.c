/* Hostile endings: forks, exits with work in flight, threads that leave things behind, and a library that is
 * closed and opened again. Each case runs in a process of its own, which must end as the table says within
 * its time and print nothing. The library is opened with dlopen: the path is the first argument. */
#include <gpumailbox.h>

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "functions.h"

enum { PAYLOAD = 64, CASE_SECONDS = 20 };

#define DECLARE(name) __typeof__(gmb_##name) *name;
static struct { FUNCTIONS(DECLARE) } g;

static const char *library_path;
static void *library;

/* Set where the process is about to leave. CUDA ends before what still calls the library then: calls may
 * fail from there on, and still must not crash, hang or print. */
static atomic_bool leaving;

static bool on_a_gpu(void) {
  const char *backend = getenv("GMB_BACKEND");
  return backend != NULL && strcmp(backend, "cuda") == 0;
}

/* The reason why a case failed, for the process that started it. */
static void fail(int line) {
  if (leaving && on_a_gpu()) {
    if (getpid() == gettid()) _exit(0);
    for (;;) pause();
  }
  dprintf(1, "line %d\n", line);
  _exit(1);
}
#define CHECK(condition) \
  do {                   \
    if (!(condition)) fail(__LINE__); \
  } while (0)
#define OK(call)                                                                  \
  do {                                                                            \
    if ((call) != GMB_OK) {                                                       \
      char why_[512] = "";                                                        \
      if (!leaving) g.last_error_message(why_, sizeof why_, NULL);                \
      if (why_[0] != 0) dprintf(1, "%s\n", why_);                                 \
      fail(__LINE__);                                                             \
    }                                                                             \
  } while (0)

/* Until something that other threads do. */
#define wait_for(condition)                                                 \
  do {                                                                      \
    for (int i_ = 0; i_ < 50000 && !(condition); ++i_) usleep(100);         \
    CHECK(condition);                                                       \
  } while (0)

static void open_library(void) {
  library = dlopen(library_path, RTLD_NOW | RTLD_LOCAL);
  CHECK(library != NULL);
#define LOAD(name) *(void **)&g.name = dlsym(library, "gmb_" #name); \
  CHECK(g.name != NULL);
  FUNCTIONS(LOAD)
}

/* ---- A little of everything, alive ---- */

#include "process_tensors.h"

struct world {
  gmb_context context;
  gmb_mailbox mailbox;
  gmb_token token;
  gmb_event event;
  gmb_stream stream;
  gmb_stream_guard guard;
  gmb_graph graph;
  gmb_watch watch;
  gmb_mailbox lent;
  gmb_borrow borrow;
  void *memory, *pinned;
  struct tensors tensors;
};

static void make(struct world *w) {
  gmb_mailbox_options options = GMB_MAILBOX_OPTIONS_INIT;
  options.payload_bytes = PAYLOAD;
  options.capacity = 16;
  OK(g.context_create(NULL, &w->context));
  OK(g.mailbox_create(w->context, &options, &w->mailbox));
  OK(g.token_create(w->context, &w->token));
  OK(g.event_create(w->context, GMB_EVENT_TIMED, &w->event));
  OK(g.stream_create(w->context, GMB_PRIORITY_NORMAL, &w->stream));
  OK(g.memory_allocate(w->context, 4096, &w->memory));
  OK(g.pinned_allocate(w->context, 4096, &w->pinned));
  gmb_push push = GMB_PUSH_INIT;
  push.count = 4;
  push.records = w->memory;
  push.length = PAYLOAD;
  OK(g.stream_begin_capture(w->context, w->stream, GMB_CAPTURE_THREAD_LOCAL));
  OK(g.mailbox_push(w->mailbox, &push, w->stream, (gmb_token){0}));
  OK(g.stream_end_capture(w->context, w->stream, &w->graph));
  /* Never released before the end. */
  OK(g.mailbox_create(w->context, &options, &w->lent));
  OK(g.mailbox_borrow(w->lent, 0, 4, w->stream, &w->borrow));
  /* It is never that full: somebody watches for ever. */
  OK(g.watch_create(w->mailbox, GMB_INTEREST_READABLE, 0, &w->watch));
  OK(g.watch_arm(w->watch, 16));
  make_tensors(&w->tensors, w->context, w->memory, w->stream);
}

static void use(struct world *w) {
  gmb_push push = GMB_PUSH_INIT;
  gmb_pop pop = GMB_POP_INIT;
  gmb_result result;
  push.count = pop.max = 4;
  push.records = w->memory;
  pop.records = (char *)w->memory + 2048;
  push.length = PAYLOAD;
  OK(g.mailbox_push(w->mailbox, &push, w->stream, w->token));
  OK(g.token_wait(w->token, GMB_EPOCH_LAST, GMB_WAIT_FOREVER, &result));
  CHECK(result.count == 4);
  OK(g.graph_launch(w->graph, w->stream));
  for (int i = 0; i < 2; ++i) {
    OK(g.mailbox_pop(w->mailbox, &pop, w->stream, w->token));
    OK(g.token_wait(w->token, GMB_EPOCH_LAST, GMB_WAIT_FOREVER, &result));
    CHECK(result.count == 4);
  }
  OK(g.event_record(w->event, w->stream));
  OK(g.event_synchronize(w->event, GMB_WAIT_FOREVER));
}

/* A stream that leases are of must outlive them: it ends with its context. */
static void end_others(struct world *w, bool and_stream) {
  OK(g.watch_destroy(w->watch));
  OK(g.graph_destroy(w->graph));
  OK(g.borrow_release(w->borrow, w->stream));
  OK(g.mailbox_destroy(w->lent));
  OK(g.pinned_free(w->context, w->pinned));
  OK(g.memory_free(w->context, w->memory));
  if (and_stream) OK(g.stream_destroy(w->context, w->stream));
  OK(g.event_destroy(w->event));
  OK(g.token_destroy(w->token));
  OK(g.mailbox_destroy(w->mailbox));
  OK(g.context_destroy(w->context));
}

static void end(struct world *w) {
  end_tensors(&w->tensors);
  end_others(w, true);
}

static atomic_int entered;

static void never_ends(void *unused) {
  (void)unused;
  entered = 1;
  for (;;) pause();
}

static void sleeps(void *unused) {
  (void)unused;
  entered = 1;
  nanosleep(&(struct timespec){0, 100000000}, NULL);
}

static void in_flight(struct world *w, gmb_host_function function) {
  gmb_push push = GMB_PUSH_INIT;
  push.count = 4;
  push.records = w->memory;
  OK(g.stream_host_function(w->context, w->stream, function, NULL));
  OK(g.mailbox_push(w->mailbox, &push, w->stream, w->token));
  while (!entered) usleep(100);
}

/* ---- Forks ---- */

#define FORKED(call) CHECK((call) == GMB_ERROR_FORKED)

static void no_function(void *unused) { (void)unused; }
static void no_log(gmb_log_level level, const char *text, void *unused) { (void)level, (void)text, (void)unused; }

static void child_of_fork_with_tensors(struct world *w);
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
  gmb_mailbox_options options = GMB_MAILBOX_OPTIONS_INIT;
  gmb_push push = GMB_PUSH_INIT;
  gmb_pop pop = GMB_POP_INIT;
  options.payload_bytes = PAYLOAD;
  options.capacity = 16;
  push.count = pop.max = 1;
  push.records = pop.records = w->memory;
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
