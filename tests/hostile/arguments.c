/* Hostile arguments: every function of the library is called with every wrong value that the table below
 * knows, one at a time and in pairs. Each call must return the status that the table says, leave its outputs
 * alone when it fails, and leave a message; afterwards a round trip must still work.
 * `--list` prints the functions in the table. */
#include "arguments.h"

#define CHECK(call)                                                             \
  do {                                                                          \
    const gmb_status status_ = (call);                                          \
    if (status_ != GMB_OK) {                                                    \
      char text_[1024] = "";                                                    \
      gmb_last_error_message(text_, sizeof text_, NULL);                        \
      printf("%s:%d: %s: %d: %s\n", __FILE__, __LINE__, #call, status_, text_); \
      exit(1);                                                                  \
    }                                                                           \
  } while (0)

enum { CAPACITY = 16, ROWS = 4, BYTES = 16384 };
#define E(name) GMB_ERROR_##name
#define BAD E(INVALID_ARGUMENT)
#define GARBAGE 0x555500001230u
#define RECORDS_TOO_MANY ((uint64_t)GMB_MAX_RECORDS + 1)
#define HIGH_BIT ((uint64_t)1 << 63)

/* What a world has one of each, for good calls. */
static gmb_context context, foreign_context, stale_context;
static gmb_mailbox mailbox, stale_mailbox, unused_mailbox, shared, express;
static gmb_token token, unused_token, foreign_token, stale_token;
static gmb_graph graph, stale_graph;
static gmb_watch watch, stale_watch;
static gmb_mailbox lent;
static gmb_borrow borrow, stale_borrow;
static gmb_tensor_mailbox tensors;
static gmb_lease lease;
static gmb_queue queue;
static gmb_worker ready;
static gmb_doorbell bell;
static gmb_fifo fifo;
static gmb_arbiter arbiter;
static gmb_triple_buffer triple;
static gmb_module module;
static gmb_kernel kernel;
static gmb_coordinator coordinator;
static gmb_event untimed, timed, timed_later, captured, foreign_event, stale_event;
static gmb_stream_guard stale_guard;
static gmb_stream stream, foreign_stream, stale_stream;
static void *memory, *foreign_memory, *pinned, *place;
static uint64_t place_bytes;
static gmb_mailbox_info shape, unused_shape;
static gmb_mailbox_options mailbox_options;
static uint32_t host_lengths[32], host_types[32];
static unsigned char host_rows[32 * PAYLOAD];
static gmb_record_header host_headers[32];

static uint64_t at(const void *base, uint64_t offset) { return bits_of(base) + offset; }

static void make_world(void) {
  gmb_context_options small = GMB_CONTEXT_OPTIONS_INIT;
  small.memory_limit = (uint64_t)64 << 20;
  CHECK(gmb_context_create(&small, &context));
  CHECK(gmb_context_create(&small, &foreign_context));
  CHECK(gmb_context_create(&small, &stale_context));
  CHECK(gmb_context_destroy(stale_context));
  mailbox_options = options_of(CAPACITY);
  CHECK(gmb_mailbox_create(context, &mailbox_options, &mailbox));
  CHECK(gmb_mailbox_get_info(mailbox, &shape, sizeof shape));
  CHECK(gmb_mailbox_create(context, &mailbox_options, &unused_mailbox));
  CHECK(gmb_mailbox_get_info(unused_mailbox, &unused_shape, sizeof unused_shape));
  CHECK(gmb_mailbox_create(context, &mailbox_options, &stale_mailbox));
  CHECK(gmb_mailbox_destroy(stale_mailbox));
  gmb_mailbox_options other = mailbox_options;
  other.flags = GMB_MAILBOX_SHARED;
  CHECK(gmb_mailbox_create(context, &other, &shared));
  other.flags = GMB_MAILBOX_EXPRESS;
  CHECK(gmb_mailbox_create(context, &other, &express));
  CHECK(gmb_token_create(context, &token));
  CHECK(gmb_token_create(context, &unused_token));
  CHECK(gmb_token_create(foreign_context, &foreign_token));
  CHECK(gmb_token_create(context, &stale_token));
  CHECK(gmb_token_destroy(stale_token));
  CHECK(gmb_stream_create(context, GMB_PRIORITY_NORMAL, &stream));
  CHECK(gmb_stream_create(foreign_context, GMB_PRIORITY_NORMAL, &foreign_stream));
  CHECK(gmb_stream_create(context, GMB_PRIORITY_NORMAL, &stale_stream));
  CHECK(gmb_stream_destroy(context, stale_stream));
  CHECK(gmb_stream_guard_create(context, stream, &stale_guard));
  CHECK(gmb_stream_guard_destroy(stale_guard));
  CHECK(gmb_event_create(context, GMB_EVENT_UNTIMED, &untimed));
  CHECK(gmb_event_create(context, GMB_EVENT_TIMED, &timed));
  CHECK(gmb_event_create(context, GMB_EVENT_TIMED, &timed_later));
  CHECK(gmb_event_create(context, GMB_EVENT_CAPTURE, &captured));
  CHECK(gmb_event_create(foreign_context, GMB_EVENT_TIMED, &foreign_event));
  CHECK(gmb_event_create(context, GMB_EVENT_UNTIMED, &stale_event));
  CHECK(gmb_event_destroy(stale_event));
  CHECK(gmb_event_record(untimed, stream));
  CHECK(gmb_event_record(timed, stream));
  CHECK(gmb_event_record(timed_later, stream));
  CHECK(gmb_stream_begin_capture(context, stream, GMB_CAPTURE_RELAXED));
  CHECK(gmb_stream_end_capture(context, stream, &graph));
  CHECK(gmb_stream_begin_capture(context, stream, GMB_CAPTURE_RELAXED));
  CHECK(gmb_stream_end_capture(context, stream, &stale_graph));
  CHECK(gmb_graph_destroy(stale_graph));
  CHECK(gmb_watch_create(mailbox, GMB_INTEREST_WRITABLE, 0, &watch));
  CHECK(gmb_watch_create(mailbox, GMB_INTEREST_WRITABLE, 0, &stale_watch));
  CHECK(gmb_watch_destroy(stale_watch));
  CHECK(gmb_mailbox_create(context, &mailbox_options, &lent));
  CHECK(gmb_mailbox_borrow(lent, 0, 1, stream, &borrow));
  CHECK(gmb_mailbox_borrow(lent, 0, 1, stream, &stale_borrow));
  CHECK(gmb_borrow_release(stale_borrow, stream));
  CHECK(gmb_memory_allocate(context, BYTES, &memory));
  CHECK(gmb_memory_allocate(foreign_context, BYTES, &foreign_memory));
  CHECK(gmb_pinned_allocate(context, BYTES, &pinned));
  CHECK(gmb_mailbox_get_required_bytes(&mailbox_options, &place_bytes));
  CHECK(gmb_memory_allocate(context, place_bytes + 128, &place));
  gmb_mailbox left;
  CHECK(gmb_mailbox_create_in(context, &mailbox_options, place, place_bytes, &left));
  CHECK(gmb_mailbox_destroy(left));
  CHECK(gmb_memory_fill(context, memory, 7, BYTES, stream));
  CHECK(gmb_stream_synchronize(context, stream));
  for (int i = 0; i < 32; ++i) host_lengths[i] = 16;
}

static void settle(void) {
  CHECK(gmb_stream_synchronize(context, stream));
  CHECK(gmb_stream_synchronize(context, NULL));
  CHECK(gmb_stream_synchronize(context, (gmb_stream)2));
}

/* Four records in, four records out, and they are the same. */
static void round_trip(void) {
  static unsigned char sent[ROWS * PAYLOAD], got[CAPACITY * PAYLOAD];
  static uint32_t lengths[ROWS];
  gmb_record_header headers[CAPACITY];
  gmb_result result;
  settle();
  do CHECK(gmb_mailbox_pop_to_host_blocking(mailbox, 0, CAPACITY, got, PAYLOAD, headers, &result));
  while (result.count > 0);
  for (size_t i = 0; i < sizeof sent; ++i) sent[i] = (unsigned char)(calls + (long)i);
  for (int i = 0; i < ROWS; ++i) lengths[i] = PAYLOAD;
  CHECK(gmb_mailbox_push_from_host_blocking(mailbox, ROWS, sent, PAYLOAD, lengths, NULL, GMB_WAIT_FOREVER, &result));
  CHECK(gmb_mailbox_pop_to_host_blocking(mailbox, 0, CAPACITY, got, PAYLOAD, headers, &result));
  if (result.status != GMB_OK || result.count != ROWS || memcmp(sent, got, sizeof sent) != 0) {
    ++failures;
    printf("%s: the round trip afterwards gave status %d, count %u\n", f->name, result.status, result.count);
  }
}

/* ---- Arguments that many functions have ---- */

static void handle(const char *name, uint64_t good, uint64_t stale, gmb_status zero) {
  struct slot *slot = arg(name, good);
  const gmb_status bad = E(INVALID_HANDLE);
  add(slot, VALUES({0, zero, 0}, {stale, bad, 0}, {1, bad, ALONE}, {UINT64_MAX, bad, 0}, {good ^ HIGH_BIT, bad, 0},
                   {0x0123456789abcdef, bad, ALONE}, {0xfedcba9876543210, bad, ALONE}, {0x0300000000ffffff, bad, ALONE}));
  const uint64_t others[] = {context.id, mailbox.id, token.id, untimed.id, stale_guard.id, tensors.id, lease.id,       queue.id,
                             ready.id,   bell.id,    fifo.id,  arbiter.id, triple.id,      module.id,  kernel.id, coordinator.id};
  for (size_t i = 0; i < sizeof others / sizeof *others; ++i) {
    if (others[i] >> 56 != good >> 56) add(slot, VALUES({others[i], bad, i > 1 ? ALONE : 0}));
  }
  /* The bits below could name another living object of the type. */
  for (int bit = 6; bit < 63; ++bit) add(slot, VALUES({good ^ (uint64_t)1 << bit, bad, ALONE}));
}

static void context_arg(void) { handle("context", context.id, stale_context.id, E(INVALID_HANDLE)); }
static void mailbox_arg(void) { handle("mailbox", mailbox.id, stale_mailbox.id, E(INVALID_HANDLE)); }

/* Mailboxes of the other modes, in the argument before. */
static void or_of_mode(gmb_status of_shared, gmb_status of_express) {
  add(&f->slot[f->slots - 1], VALUES({shared.id, of_shared, 0}, {express.id, of_express, 0}));
}

static void token_arg(gmb_status zero, gmb_status unused, gmb_status foreign) {
  handle("token", token.id, stale_token.id, zero);
  add(&f->slot[f->slots - 1], VALUES({unused_token.id, unused, 0}, {foreign_token.id, foreign, 0}));
}

static void event_arg(const char *name, gmb_event good, gmb_status of_untimed, gmb_status of_captured,
                      gmb_status of_foreign) {
  handle(name, good.id, stale_event.id, E(INVALID_HANDLE));
  add(&f->slot[f->slots - 1],
      VALUES({untimed.id, of_untimed, 0}, {captured.id, of_captured, 0}, {foreign_event.id, of_foreign, 0}));
}

static int on_the_host(void) {
  gmb_context_info info = {0};
  CHECK(gmb_context_get_info(context, &info, sizeof info));
  return is_host(&info);
}

static void stream_like(gmb_status legacy, gmb_status per_thread) {
  const gmb_status bad = E(INVALID_STREAM);
  const uint64_t own = bits_of(stream);
  struct slot *slot = arg("stream", own);
  add(slot, VALUES({0, legacy, 0}, {1, legacy, ALONE}, {2, per_thread, ALONE}, {UINTPTR_MAX, legacy, 0}));
  /* On CUDA another stream is the driver's to judge, and garbage its death. */
  if (!on_the_host()) return;
  add(slot, VALUES({3, bad, 0}, {own + 1, bad, 0}, {own + 8, bad, ALONE}, {GARBAGE, bad, 0}, {HIGH_BIT, bad, ALONE},
                   {UINTPTR_MAX - 1, bad, 0}, {bits_of(stale_stream), bad, 0}, {bits_of(foreign_stream), bad, 0},
                   {at(memory, 0), bad, ALONE}));
}

static void stream_arg(gmb_status sentinel) { stream_like(sentinel, sentinel); }

static void info_args(uint64_t size) {
  output("info", 4);
  WORD("info_size", size, {0, E(STRUCT_SIZE), 0}, {1, GMB_OK, 0}, {size - 1, GMB_OK, 0}, {size + 1, GMB_OK, 0},
       {4096, GMB_OK, 0}, {4097, E(STRUCT_SIZE), 0}, {UINT32_MAX, E(STRUCT_SIZE), 0}, {HIGH_BIT, E(STRUCT_SIZE), 0},
       {UINT64_MAX, E(STRUCT_SIZE), 0});
}

#define OUT_OF_RANGE {(uint32_t)-1, BAD, 0}, {99, BAD, 0}, {(uint32_t)INT32_MIN, BAD, 0}, {INT32_MAX, BAD, 0}
#define ENUM(name, base, ...) WORD(name, base, OUT_OF_RANGE, __VA_ARGS__)
#define TOO_MANY_BYTES {HIGH_BIT, E(OVERFLOW), 0}, {SIZE_MAX / 2 + 2, E(OVERFLOW), 0}, {UINT64_MAX, E(OVERFLOW), 0}

/* ---- The calls: arguments as words, and what must be made before and undone after ---- */

#define CALL(name) static gmb_status call_##name(const uint64_t *a)
#define CONTEXT(i) ((gmb_context){a[i]})
#define MAILBOX(i) ((gmb_mailbox){a[i]})
#define TOKEN(i) ((gmb_token){a[i]})
#define EVENT(i) ((gmb_event){a[i]})
#define P(i) pointer_of(a[i])
#define U32(i) ((uint32_t)a[i])
#define I32(i) ((int32_t)(uint32_t)a[i])
#define UNDO(name) static void undo_##name(gmb_status status, const uint64_t *a)
#define MAKE(name) static void make_##name(uint64_t *a)

static gmb_status text_of(const char *text) { return text && *text ? GMB_OK : GMB_NOT_READY; }

CALL(version) { return (void)a, gmb_version() == 0 ? GMB_NOT_READY : GMB_OK; }
CALL(version_string) { return (void)a, text_of(gmb_version_string()); }
CALL(status_string) { return text_of(gmb_status_string(I32(0))); }
CALL(status_name) { return text_of(gmb_status_name(I32(0))); }
CALL(last_error_message) { return gmb_last_error_message(P(0), a[1], P(2)); }
CALL(set_log_function) { return gmb_set_log_function(I32(0), a[1] ? no_log : NULL, P(2)); }
CALL(context_create) { return gmb_context_create(P(0), P(1)); }
CALL(context_destroy) { return gmb_context_destroy(CONTEXT(0)); }
CALL(context_get_info) { return gmb_context_get_info(CONTEXT(0), P(1), a[2]); }
CALL(event_create) { return gmb_event_create(CONTEXT(0), I32(1), P(2)); }
CALL(event_destroy) { return gmb_event_destroy(EVENT(0)); }
CALL(event_record) { return gmb_event_record(EVENT(0), P(1)); }
CALL(event_query) { return gmb_event_query(EVENT(0)); }
CALL(event_synchronize) { return gmb_event_synchronize(EVENT(0), a[1]); }
CALL(event_elapsed_ms) { return gmb_event_elapsed_ms(EVENT(0), EVENT(1), P(2)); }
CALL(event_pool_get_info) { return gmb_event_pool_get_info(CONTEXT(0), I32(1), P(2), a[3]); }
CALL(stream_guard_create) { return gmb_stream_guard_create(CONTEXT(0), P(1), P(2)); }
CALL(stream_guard_destroy) { return gmb_stream_guard_destroy((gmb_stream_guard){a[0]}); }
CALL(push_from_host) { return gmb_mailbox_push_from_host_blocking(MAILBOX(0), U32(1), P(2), a[3], P(4), P(5), a[6], P(7)); }
CALL(pop_to_host) { return gmb_mailbox_pop_to_host_blocking(MAILBOX(0), U32(1), U32(2), P(3), a[4], P(5), P(6)); }
CALL(mailbox_create) { return gmb_mailbox_create(CONTEXT(0), P(1), P(2)); }
CALL(mailbox_destroy) { return gmb_mailbox_destroy(MAILBOX(0)); }
CALL(mailbox_get_info) { return gmb_mailbox_get_info(MAILBOX(0), P(1), a[2]); }
CALL(push) { return gmb_mailbox_push(MAILBOX(0), P(1), P(2), TOKEN(3)); }
CALL(pop) { return gmb_mailbox_pop(MAILBOX(0), P(1), P(2), TOKEN(3)); }
CALL(memory_allocate) { return gmb_memory_allocate(CONTEXT(0), a[1], P(2)); }
CALL(memory_allocate_async) { return gmb_memory_allocate_async(CONTEXT(0), a[1], P(2), P(3)); }
CALL(memory_free_async) { return gmb_memory_free_async(CONTEXT(0), P(1), P(2)); }
CALL(memory_free) { return gmb_memory_free(CONTEXT(0), P(1)); }
CALL(pinned_allocate) { return gmb_pinned_allocate(CONTEXT(0), a[1], P(2)); }
CALL(pinned_free) { return gmb_pinned_free(CONTEXT(0), P(1)); }
CALL(memory_copy) { return gmb_memory_copy(CONTEXT(0), P(1), P(2), a[3], P(4)); }
CALL(memory_fill) { return gmb_memory_fill(CONTEXT(0), P(1), (uint8_t)a[2], a[3], P(4)); }
CALL(memory_get_info) { return gmb_memory_get_info(CONTEXT(0), P(1), a[2]); }
CALL(memory_trim) { return gmb_memory_trim(CONTEXT(0), a[1]); }
CALL(required_bytes) { return gmb_mailbox_get_required_bytes(P(0), P(1)); }
CALL(create_in) { return gmb_mailbox_create_in(CONTEXT(0), P(1), P(2), a[3], P(4)); }
CALL(attach) { return gmb_mailbox_attach(CONTEXT(0), P(1), a[2], P(3), P(4)); }
CALL(add_reader) { return gmb_mailbox_add_reader(MAILBOX(0), I32(1), P(2), P(3)); }
CALL(remove_reader) { return gmb_mailbox_remove_reader(MAILBOX(0), U32(1), P(2)); }
CALL(get_reader_info) { return gmb_mailbox_get_reader_info(MAILBOX(0), U32(1), P(2), a[3]); }
CALL(stream_create) { return gmb_stream_create(CONTEXT(0), I32(1), P(2)); }
CALL(stream_get_priority) { return gmb_stream_get_priority(CONTEXT(0), P(1), P(2)); }
CALL(stream_destroy) { return gmb_stream_destroy(CONTEXT(0), P(1)); }
CALL(stream_is_capturing) { return gmb_stream_is_capturing(CONTEXT(0), P(1), P(2)); }
CALL(stream_query) { return gmb_stream_query(CONTEXT(0), P(1)); }
CALL(stream_synchronize) { return gmb_stream_synchronize(CONTEXT(0), P(1)); }
CALL(stream_host_function) { return gmb_stream_host_function(CONTEXT(0), P(1), a[2] ? no_function : NULL, P(3)); }
CALL(stream_wait_event) { return gmb_stream_wait_event(CONTEXT(0), P(1), EVENT(2)); }
CALL(stream_begin_capture) { return gmb_stream_begin_capture(CONTEXT(0), P(1), I32(2)); }
CALL(stream_end_capture) { return gmb_stream_end_capture(CONTEXT(0), P(1), P(2)); }
CALL(graph_launch) { return gmb_graph_launch((gmb_graph){a[0]}, P(1)); }
CALL(graph_destroy) { return gmb_graph_destroy((gmb_graph){a[0]}); }
CALL(wait_readable) { return gmb_mailbox_wait_readable(MAILBOX(0), U32(1), U32(2), a[3], P(4)); }
CALL(wait_writable) { return gmb_mailbox_wait_writable(MAILBOX(0), U32(1), a[2], P(3)); }
CALL(watch_create) { return gmb_watch_create(MAILBOX(0), I32(1), U32(2), P(3)); }
CALL(watch_arm) { return gmb_watch_arm((gmb_watch){a[0]}, U32(1)); }
CALL(watch_get_fd) { return gmb_watch_get_fd((gmb_watch){a[0]}, P(1)); }
CALL(mailbox_borrow) { return gmb_mailbox_borrow(MAILBOX(0), U32(1), U32(2), P(3), P(4)); }
CALL(borrow_poll) { return gmb_borrow_poll((gmb_borrow){a[0]}, P(1), P(2)); }
CALL(borrow_wait) { return gmb_borrow_wait((gmb_borrow){a[0]}, a[1], P(2), P(3)); }
CALL(borrow_get_device_spans) { return gmb_borrow_get_device_spans((gmb_borrow){a[0]}, P(1)); }
CALL(borrow_release) { return gmb_borrow_release((gmb_borrow){a[0]}, P(1)); }
CALL(watch_destroy) { return gmb_watch_destroy((gmb_watch){a[0]}); }
CALL(token_create) { return gmb_token_create(CONTEXT(0), P(1)); }
CALL(token_destroy) { return gmb_token_destroy(TOKEN(0)); }
CALL(token_poll) { return gmb_token_poll(TOKEN(0), P(1)); }
CALL(token_wait) { return gmb_token_wait(TOKEN(0), a[1], a[2], P(3)); }
CALL(token_get_device_result) { return gmb_token_get_device_result(TOKEN(0), P(1)); }

UNDO(nothing) { (void)a, (void)(status >= 0 ? settle() : (void)0); }
UNDO(log) { (void)a, (void)status, gmb_set_log_function(GMB_LOG_ERROR, NULL, NULL); }
UNDO(context_create) { if (status == GMB_OK) CHECK(gmb_context_destroy(*(gmb_context *)P(1))); }
UNDO(event_create) { if (status == GMB_OK) CHECK(gmb_event_destroy(*(gmb_event *)P(2))); }
UNDO(stream_guard_create) { if (status == GMB_OK) CHECK(gmb_stream_guard_destroy(*(gmb_stream_guard *)P(2))); }
UNDO(mailbox_create) { if (status == GMB_OK) CHECK(gmb_mailbox_destroy(*(gmb_mailbox *)P(2))); }
UNDO(mailbox_in_place) { if (status == GMB_OK) CHECK(gmb_mailbox_destroy(*(gmb_mailbox *)P(4))); }
UNDO(memory_allocate) { if (status == GMB_OK) CHECK(gmb_memory_free(context, *(void **)P(2))); }
UNDO(memory_allocate_async) { if (status == GMB_OK) CHECK(gmb_memory_free_async(context, *(void **)P(3), stream)); }
UNDO(pinned_allocate) { if (status == GMB_OK) CHECK(gmb_pinned_free(context, *(void **)P(2))); }
UNDO(add_reader) { if (status == GMB_OK) CHECK(gmb_mailbox_remove_reader(MAILBOX(0), *(uint32_t *)P(3), stream)); }
UNDO(stream_create) { if (status == GMB_OK) CHECK(gmb_stream_destroy(context, *(gmb_stream *)P(2))); }
UNDO(token_create) { if (status == GMB_OK) CHECK(gmb_token_destroy(*(gmb_token *)P(1))); }
UNDO(stream_begin_capture) {
  gmb_graph made;
  if (status != GMB_OK) return;
  CHECK(gmb_stream_end_capture(context, P(1), &made));
  CHECK(gmb_graph_destroy(made));
}
UNDO(mailbox_borrow) { if (status == GMB_OK) CHECK(gmb_borrow_release(*(gmb_borrow *)P(4), stream)); }
UNDO(watch_create) { if (status == GMB_OK) CHECK(gmb_watch_destroy(*(gmb_watch *)P(3))); }
UNDO(watch_get_fd) { if (status == GMB_OK) close(*(int32_t *)P(1)); }
UNDO(submission) {
  gmb_result result;
  (void)a;
  if (status != GMB_OK) return;
  settle();
  CHECK(gmb_token_wait(token, 0, GMB_WAIT_FOREVER, &result));
}

/* What the calls that end something end: a new one for each call, gone after it either way. */
static union {
  gmb_context context;
  gmb_event event;
  gmb_stream_guard guard;
  gmb_mailbox mailbox;
  gmb_token token;
  gmb_stream stream;
  gmb_graph graph;
  gmb_watch watch;
  gmb_borrow borrow;
  gmb_tensor_mailbox tensors;
  gmb_lease lease;
  void *memory;
  uint32_t reader;
} fresh;
MAKE(context) { CHECK(gmb_context_create(NULL, &fresh.context)); a[0] = fresh.context.id; }
UNDO(context) { (void)a, (void)status, gmb_context_destroy(fresh.context); }
MAKE(event) { CHECK(gmb_event_create(context, GMB_EVENT_TIMED, &fresh.event)); a[0] = fresh.event.id; }
UNDO(event) { (void)a, (void)status, gmb_event_destroy(fresh.event); }
MAKE(guard) { CHECK(gmb_stream_guard_create(context, stream, &fresh.guard)); a[0] = fresh.guard.id; }
UNDO(guard) { (void)a, (void)status, gmb_stream_guard_destroy(fresh.guard); }
MAKE(mailbox) { CHECK(gmb_mailbox_create(context, &mailbox_options, &fresh.mailbox)); a[0] = fresh.mailbox.id; }
UNDO(mailbox) { (void)a, (void)status, gmb_mailbox_destroy(fresh.mailbox); }
MAKE(token) { CHECK(gmb_token_create(context, &fresh.token)); a[0] = fresh.token.id; }
UNDO(token) { (void)a, (void)status, gmb_token_destroy(fresh.token); }
MAKE(stream) { CHECK(gmb_stream_create(context, GMB_PRIORITY_NORMAL, &fresh.stream)); a[1] = bits_of(fresh.stream); }
UNDO(stream) { (void)a, (void)status, gmb_stream_destroy(context, fresh.stream); }
MAKE(capture) {
  make_stream(a);
  CHECK(gmb_stream_begin_capture(context, fresh.stream, GMB_CAPTURE_THREAD_LOCAL));
}
UNDO(capture) {
  gmb_graph made = {0};
  if (status == GMB_OK) CHECK(gmb_graph_destroy(*(gmb_graph *)P(2)));
  else if (gmb_stream_end_capture(context, fresh.stream, &made) == GMB_OK) CHECK(gmb_graph_destroy(made));
  undo_stream(status, a);
}
MAKE(graph) {
  CHECK(gmb_stream_begin_capture(context, stream, GMB_CAPTURE_RELAXED));
  CHECK(gmb_stream_end_capture(context, stream, &fresh.graph));
  a[0] = fresh.graph.id;
}
UNDO(graph) { (void)a, (void)status, gmb_graph_destroy(fresh.graph); }
/* A reader has 64 borrows under way at most, and more of them follow each other here than a busy machine gets done. */
MAKE(borrows_done) {
  static int number;
  (void)a;
  if (++number % 32 == 0) settle();
}
MAKE(borrow) { make_borrows_done(a); CHECK(gmb_mailbox_borrow(lent, 0, 1, stream, &fresh.borrow)); a[0] = fresh.borrow.id; }
UNDO(borrow) { (void)a, (void)status, gmb_borrow_release(fresh.borrow, stream); }
MAKE(watch) { CHECK(gmb_watch_create(mailbox, GMB_INTEREST_WRITABLE, 0, &fresh.watch)); a[0] = fresh.watch.id; }
UNDO(watch) { (void)a, (void)status, gmb_watch_destroy(fresh.watch); }
MAKE(memory) { CHECK(gmb_memory_allocate(context, 512, &fresh.memory)); a[1] = bits_of(fresh.memory); }
UNDO(memory) { (void)a, (void)status, gmb_memory_free(context, fresh.memory); }
MAKE(pinned) { CHECK(gmb_pinned_allocate(context, 512, &fresh.memory)); a[1] = bits_of(fresh.memory); }
UNDO(pinned) { (void)a, (void)status, gmb_pinned_free(context, fresh.memory); }
MAKE(reader) { CHECK(gmb_mailbox_add_reader(mailbox, GMB_READER_NEXT, stream, &fresh.reader)); a[1] = fresh.reader; }
UNDO(reader) { (void)a, (void)status, gmb_mailbox_remove_reader(mailbox, fresh.reader, stream); }

#include "arguments_table.h"
#include "arguments_mailboxes_table.h"
#include "arguments_tensors.h"
#include "arguments_tensors_table.h"
#include "arguments_modes.h"
#include "arguments_queues_table.h"
#include "arguments_doorbells_table.h"
#include "arguments_arbiters_table.h"
#include "arguments_pipeline.h"
#include "arguments_pipeline_table.h"
#include "arguments_pipeline_rules.h"

int main(int argc, char **argv) {
  setenv("GMB_CHECK_POINTERS", "1", 0);
  alarm(120);
  setvbuf(stdout, NULL, _IOLBF, 0);
  make_world();
  make_tensors();
  make_queues();
  make_doorbells();
  make_arbiters();
  make_pipeline();
  describe_arbiters();
  describe();
  describe_tensors();
  describe_queues();
  describe_workers();
  describe_worker_doorbells();
  describe_doorbells();
  describe_fifos();
  describe_triples();
  describe_modules();
  describe_coordinators();
  describe_task_graphs();
  if (argc > 1 && strcmp(argv[1], "--list") == 0) {
    for (size_t i = 0; i < function_count; ++i) printf("%s\n", functions[i].name);
    unlink(module_path);
    return 0;
  }
  for (size_t i = 0; i < function_count; ++i) {
    run_function(&functions[i]);
    round_trip();
    end_arbiters(&functions[i]);
  }
  tensor_rules();
  mode_rules();
  doorbell_rules();
  arbiter_rules();
  queue_rules();
  pipeline_rules();
  end_pipeline();
  printf("hostile arguments: %zu functions, %ld calls, %ld failures\n", function_count, calls, failures);
  return failures > 0;
}
