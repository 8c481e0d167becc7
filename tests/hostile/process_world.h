/* What each case of process.c starts from: the library opened by hand, and a little of everything, alive. */
#include "hostile.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/wait.h>
#include <time.h>

#include "functions.h"

/* Far more than a case takes: beside other programs a driver makes contexts one after the other, and a case a hundred. */
enum { CASE_SECONDS = 60 };

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
#define wait_for(condition) \
  do {                      \
    give_time(condition);   \
    CHECK(condition);       \
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
#include "process_queues.h"
#include "process_pipeline.h"

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
  struct queues queues;
  struct pipeline pipeline;
  gmb_arbiter arbiter;
};

static void make(struct world *w) {
  const gmb_mailbox_options options = options_of(16);
  OK(g.context_create(NULL, &w->context));
  OK(g.mailbox_create(w->context, &options, &w->mailbox));
  OK(g.token_create(w->context, &w->token));
  OK(g.event_create(w->context, GMB_EVENT_TIMED, &w->event));
  OK(g.stream_create(w->context, GMB_PRIORITY_NORMAL, &w->stream));
  OK(g.memory_allocate(w->context, 4096, &w->memory));
  OK(g.pinned_allocate(w->context, 4096, &w->pinned));
  const gmb_push push = push_of(w->memory, 4);
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
  make_queues(&w->queues, w->context);
  make_pipeline(&w->pipeline, w->context);
  w->arbiter = (gmb_arbiter){0};
}

static void use(struct world *w) {
  const gmb_push push = push_of(w->memory, 4);
  const gmb_pop pop = pop_of((char *)w->memory + 2048, 4);
  gmb_result result;
  OK(g.mailbox_push(w->mailbox, &push, w->stream, w->token));
  OK(g.token_wait(w->token, GMB_EPOCH_LAST, GMB_WAIT_FOREVER, &result));
  CHECK(result.count == 4);
  OK(g.graph_launch(w->graph, w->stream));
  for (int i = 0; i < 2; ++i) {
    OK(g.mailbox_pop(w->mailbox, &pop, w->stream, w->token));
    OK(g.token_wait(w->token, GMB_EPOCH_LAST, GMB_WAIT_FOREVER, &result));
    CHECK(result.count == 4);
  }
  use_queues(&w->queues, w->memory, w->stream, w->token);
  use_pipeline(&w->pipeline, w->context, w->stream);
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
  end_queues(&w->queues);
  end_pipeline(&w->pipeline);
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
  gmb_push push = push_of(w->memory, 4);
  push.length = 0;
  OK(g.stream_host_function(w->context, w->stream, function, NULL));
  OK(g.mailbox_push(w->mailbox, &push, w->stream, w->token));
  while (!entered) usleep(100);
}

