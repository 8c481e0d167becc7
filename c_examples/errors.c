/* What errors look like: each call below is wrong in one way, and says so. */
#include "check.h"

#include <stdatomic.h>
#include <stddef.h>
#include <threads.h>

#define PAYLOAD 64

static int shown, wrong;

/* One row: what was done, the code, its general text, and what exactly was wrong. */
static void show(const char *what, gmb_status got, gmb_status wanted, const char *name, const char *detail) {
  ++shown;
  if (got != wanted) {
    ++wrong;
    printf("%-34s MISMATCH: wanted %s (%d), got %d\n", what, name, wanted, got);
  } else {
    printf("%-34s %-27s %s\n", what, name, gmb_status_string(got));
  }
  printf("%-34s %s\n", "", detail);
}

static void expect(const char *what, gmb_status got, gmb_status wanted, const char *name) {
  char detail[1024] = "";
  if (got < 0) gmb_last_error_message(detail, sizeof detail, NULL);
  if (got < 0 && detail[0] == '\0') {
    ++wrong;
    printf("%-34s MISMATCH: no message\n", what);
  }
  show(what, got, wanted, name, detail);
}

#define EXPECT(code, what, call) expect(what, (call), code, #code)

/* Holds a stream until it is opened: what is enqueued behind it cannot be done before. */
static atomic_bool gate_is_open;

static void hold_at_gate(void *unused) {
  (void)unused;
  while (!atomic_load_explicit(&gate_is_open, memory_order_acquire)) thrd_yield();
}

static void bad_contexts(void) {
  gmb_context context;
  gmb_context_options options = GMB_CONTEXT_OPTIONS_INIT;
  options.backend = 7;
  EXPECT(GMB_ERROR_INVALID_ARGUMENT, "a context on backend 7", gmb_context_create(&options, &context));

  options = (gmb_context_options)GMB_CONTEXT_OPTIONS_INIT;
  options.device = 4096;
  EXPECT(GMB_ERROR_INVALID_DEVICE, "a context on device 4096", gmb_context_create(&options, &context));

  EXPECT(GMB_ERROR_NULL_POINTER, "a context into a null pointer", gmb_context_create(NULL, NULL));
}

static void bad_memory(void) {
  gmb_context context;
  gmb_context_options options = GMB_CONTEXT_OPTIONS_INIT;
  options.memory_limit = 1 << 20;
  CHECK(gmb_context_create(&options, &context));
  void *memory;
  EXPECT(GMB_ERROR_MEMORY_LIMIT, "2 MiB where the limit is 1 MiB", gmb_memory_allocate(context, 2 << 20, &memory));
  EXPECT(GMB_ERROR_ZERO_COUNT, "memory of 0 bytes", gmb_memory_allocate(context, 0, &memory));
  CHECK(gmb_memory_allocate(context, 64, &memory));
  CHECK(gmb_memory_free(context, memory));
  EXPECT(GMB_ERROR_INVALID_ARGUMENT, "memory freed twice", gmb_memory_free(context, memory));
  CHECK(gmb_context_destroy(context));
}

static void bad_mailboxes(gmb_context context) {
  gmb_mailbox mailbox;
  gmb_mailbox_options options = GMB_MAILBOX_OPTIONS_INIT;
  options.payload_bytes = PAYLOAD;

  options.capacity = 1000;
  EXPECT(GMB_ERROR_INVALID_ARGUMENT, "a mailbox of 1000 records",
         gmb_mailbox_create(context, &options, &mailbox));

  options.capacity = (uint64_t)1 << 40;
  EXPECT(GMB_ERROR_OVERFLOW, "a mailbox of 2^40 records", gmb_mailbox_create(context, &options, &mailbox));

  options.capacity = 1024;
  options.payload_bytes = 0;
  EXPECT(GMB_ERROR_INVALID_ARGUMENT, "a mailbox without payload",
         gmb_mailbox_create(context, &options, &mailbox));

  options.payload_bytes = PAYLOAD;
  options.readers = GMB_MAX_READERS + 1;
  EXPECT(GMB_ERROR_INVALID_ARGUMENT, "a mailbox with 17 readers",
         gmb_mailbox_create(context, &options, &mailbox));

  options.readers = 1;
  options.flags = GMB_MAILBOX_SHARED;
  options.full_policy = GMB_FULL_LATEST;
  EXPECT(GMB_ERROR_NOT_SUPPORTED, "a shared mailbox that overwrites",
         gmb_mailbox_create(context, &options, &mailbox));
  options.full_policy = GMB_FULL_REJECT;

  options.flags = 0;
  options.struct_size = 3;
  EXPECT(GMB_ERROR_STRUCT_SIZE, "options with struct_size 3",
         gmb_mailbox_create(context, &options, &mailbox));
}

static void bad_handles(gmb_mailbox stale, gmb_token token) {
  gmb_mailbox_info info;
  const gmb_mailbox zero = {0}, garbage = {0x123456789abcdef0u}, other_type = {token.id};
  EXPECT(GMB_ERROR_INVALID_HANDLE, "a mailbox handle of zero",
         gmb_mailbox_get_info(zero, &info, sizeof info));
  EXPECT(GMB_ERROR_INVALID_HANDLE, "a garbage handle", gmb_mailbox_get_info(garbage, &info, sizeof info));
  EXPECT(GMB_ERROR_INVALID_HANDLE, "a token's id as a mailbox",
         gmb_mailbox_get_info(other_type, &info, sizeof info));
  EXPECT(GMB_ERROR_INVALID_HANDLE, "a mailbox destroyed before", gmb_mailbox_destroy(stale));
}

static void bad_operations(gmb_mailbox mailbox, gmb_stream stream, gmb_token token, unsigned char *records) {
  gmb_pop pop = GMB_POP_INIT;
  pop.records = records;
  EXPECT(GMB_ERROR_ZERO_COUNT, "a pop of max 0", gmb_mailbox_pop(mailbox, &pop, stream, token));

  pop.max = 8;
  pop.records = NULL;
  EXPECT(GMB_ERROR_NULL_POINTER, "a pop into null", gmb_mailbox_pop(mailbox, &pop, stream, token));

  pop.records = records + 8;
  EXPECT(GMB_ERROR_MISALIGNED, "a pop to an address off by 8", gmb_mailbox_pop(mailbox, &pop, stream, token));

  gmb_mailbox_info info;
  CHECK(gmb_mailbox_get_info(mailbox, &info, sizeof info));
  pop.records = info.ring;
  EXPECT(GMB_ERROR_OVERLAP, "a pop into the ring itself", gmb_mailbox_pop(mailbox, &pop, stream, token));

  gmb_push push = GMB_PUSH_INIT;
  push.records = records;
  push.count = 1;
  push.length = PAYLOAD + 1;
  EXPECT(GMB_ERROR_BAD_LENGTH, "a push of payload size + 1", gmb_mailbox_push(mailbox, &push, stream, token));

  push.length = PAYLOAD;
  push.count = GMB_MAX_RECORDS + 1;
  EXPECT(GMB_ERROR_OVERFLOW, "a push of 2^29 + 1 records", gmb_mailbox_push(mailbox, &push, stream, token));

  gmb_result result;
  EXPECT(GMB_ERROR_INVALID_ARGUMENT, "a poll of a token never used", gmb_token_poll(token, &result));
}

/* A mailbox in memory of the caller's, who may hand over anything. */
static void bad_placement(gmb_context context, gmb_stream stream) {
  gmb_mailbox mailbox;
  gmb_mailbox_options options = GMB_MAILBOX_OPTIONS_INIT;
  options.capacity = 8;
  options.payload_bytes = PAYLOAD;
  uint64_t bytes;
  void *memory;
  CHECK(gmb_mailbox_get_required_bytes(&options, &bytes));
  CHECK(gmb_memory_allocate(context, bytes + 64, &memory));
  unsigned char *at = memory;
  EXPECT(GMB_ERROR_MISALIGNED, "a mailbox at an address off by 64",
         gmb_mailbox_create_in(context, &options, at + 64, bytes, &mailbox));
  EXPECT(GMB_ERROR_TRUNCATED, "a mailbox in too little memory",
         gmb_mailbox_create_in(context, &options, memory, bytes - 1, &mailbox));

  CHECK(gmb_memory_fill(context, memory, 0, bytes, stream));
  CHECK(gmb_stream_synchronize(context, stream));
  EXPECT(GMB_ERROR_BAD_MAGIC, "attaching where no mailbox is",
         gmb_mailbox_attach(context, memory, bytes, NULL, &mailbox));

  CHECK(gmb_mailbox_create_in(context, &options, memory, bytes, &mailbox));
  CHECK(gmb_mailbox_destroy(mailbox));
  EXPECT(GMB_ERROR_TRUNCATED, "attaching to a part of a mailbox",
         gmb_mailbox_attach(context, memory, bytes - 1, NULL, &mailbox));

  const uint32_t damaged = 99, version = GMB_LAYOUT_VERSION;
  CHECK(gmb_memory_copy(context, at + offsetof(gmb_ring_header, version), &damaged, sizeof damaged, stream));
  CHECK(gmb_stream_synchronize(context, stream));
  EXPECT(GMB_ERROR_BAD_VERSION, "attaching to another layout",
         gmb_mailbox_attach(context, memory, bytes, NULL, &mailbox));

  CHECK(gmb_memory_copy(context, at + offsetof(gmb_ring_header, version), &version, sizeof version, stream));
  CHECK(gmb_memory_copy(context, at + offsetof(gmb_ring_header, stride), &damaged, sizeof damaged, stream));
  CHECK(gmb_stream_synchronize(context, stream));
  EXPECT(GMB_ERROR_CORRUPT, "attaching to a damaged mailbox",
         gmb_mailbox_attach(context, memory, bytes, NULL, &mailbox));
  CHECK(gmb_memory_free(context, memory));
}

static void bad_readers(gmb_mailbox mailbox, gmb_stream stream, gmb_token token, unsigned char *records) {
  gmb_pop pop = GMB_POP_INIT;
  pop.max = 1;
  pop.records = records;
  pop.reader = 1;
  EXPECT(GMB_ERROR_INVALID_ARGUMENT, "a pop of a reader not in use",
         gmb_mailbox_pop(mailbox, &pop, stream, token));

  uint32_t reader = 0;
  while (reader < GMB_MAX_READERS - 1) CHECK(gmb_mailbox_add_reader(mailbox, GMB_READER_NEXT, stream, &reader));
  EXPECT(GMB_ERROR_OVERFLOW, "a 17th reader",
         gmb_mailbox_add_reader(mailbox, GMB_READER_NEXT, stream, &reader));
  for (; reader > 0; --reader) CHECK(gmb_mailbox_remove_reader(mailbox, reader, stream));
  EXPECT(GMB_ERROR_INVALID_ARGUMENT, "a reader removed twice", gmb_mailbox_remove_reader(mailbox, 1, stream));
}

static void bad_streams(gmb_context context, gmb_stream stream, gmb_token token, unsigned char *records) {
  gmb_mailbox_options options = GMB_MAILBOX_OPTIONS_INIT;
  options.capacity = 1;
  options.payload_bytes = PAYLOAD;
  options.full_policy = GMB_FULL_WAIT;
  options.flags = GMB_MAILBOX_SINGLE_STREAM;
  gmb_mailbox mailbox;
  gmb_stream other;
  CHECK(gmb_mailbox_create(context, &options, &mailbox));
  CHECK(gmb_stream_create(context, GMB_PRIORITY_NORMAL, &other));

  gmb_push push = GMB_PUSH_INIT;
  push.count = 1;
  push.records = records;
  push.length = PAYLOAD;
  gmb_result result;
  CHECK(gmb_mailbox_push(mailbox, &push, stream, token));
  CHECK(gmb_token_wait(token, GMB_EPOCH_LAST, GMB_WAIT_FOREVER, &result));
  push.timeout_ns = 0;
  EXPECT(GMB_ERROR_INVALID_STREAM, "a single-stream mailbox's second", gmb_mailbox_push(mailbox, &push, other, token));
  EXPECT(GMB_ERROR_TIMEOUT, "a push that waits 0 ns for room", gmb_mailbox_push(mailbox, &push, stream, token));
  push.count = 2;
  EXPECT(GMB_ERROR_INVALID_ARGUMENT, "a push that can never fit", gmb_mailbox_push(mailbox, &push, stream, token));

  CHECK(gmb_mailbox_destroy(mailbox));
  CHECK(gmb_stream_destroy(context, other));
  EXPECT(GMB_ERROR_INVALID_STREAM, "destroying the default stream", gmb_stream_destroy(context, NULL));
}

static void bad_events(gmb_context context, gmb_stream stream) {
  gmb_event untimed, timed, captured;
  CHECK(gmb_event_create(context, GMB_EVENT_UNTIMED, &untimed));
  CHECK(gmb_event_create(context, GMB_EVENT_TIMED, &timed));
  CHECK(gmb_event_create(context, GMB_EVENT_CAPTURE, &captured));
  CHECK(gmb_event_record(untimed, stream));
  double milliseconds;
  EXPECT(GMB_ERROR_INVALID_ARGUMENT, "the time of an untimed event",
         gmb_event_elapsed_ms(untimed, timed, &milliseconds));
  EXPECT(GMB_ERROR_INVALID_ARGUMENT, "the time of one never recorded",
         gmb_event_elapsed_ms(timed, timed, &milliseconds));
  EXPECT(GMB_ERROR_NOT_SUPPORTED, "asking an event for captures", gmb_event_query(captured));
  CHECK(gmb_event_destroy(captured));
  CHECK(gmb_event_destroy(timed));
  CHECK(gmb_event_destroy(untimed));
  EXPECT(GMB_ERROR_INVALID_HANDLE, "an event destroyed before", gmb_event_record(untimed, stream));
}

static int end_elsewhere(void *argument) {
  const gmb_stream_guard *guard = argument;
  EXPECT(GMB_ERROR_WRONG_THREAD, "a guard ended on another thread", gmb_stream_guard_destroy(*guard));
  return 0;
}

static void bad_guards(gmb_context context, gmb_stream stream) {
  gmb_stream_guard guards[64], one_more;
  for (int i = 0; i < 64; ++i) CHECK(gmb_stream_guard_create(context, stream, &guards[i]));
  EXPECT(GMB_ERROR_OVERFLOW, "a 65th guard on a thread", gmb_stream_guard_create(context, stream, &one_more));
  thrd_t thread;
  if (thrd_create(&thread, end_elsewhere, &guards[0]) != thrd_success || thrd_join(thread, NULL) != thrd_success) {
    fprintf(stderr, "no thread to end a guard on\n");
    exit(1);
  }
  for (int i = 64; i-- > 0;) CHECK(gmb_stream_guard_destroy(guards[i]));
}

static void busy_and_late(gmb_context context, gmb_mailbox mailbox, gmb_stream stream, gmb_token token,
                          unsigned char *records) {
  gmb_pop pop = GMB_POP_INIT;
  pop.max = 1;
  pop.records = records;
  CHECK(gmb_stream_host_function(context, stream, hold_at_gate, NULL));
  CHECK(gmb_mailbox_pop(mailbox, &pop, stream, token));

  gmb_result result;
  EXPECT(GMB_ERROR_BUSY, "a token used while it waits", gmb_mailbox_pop(mailbox, &pop, stream, token));
  EXPECT(GMB_ERROR_TIMEOUT, "a wait of one microsecond",
         gmb_token_wait(token, GMB_EPOCH_LAST, 1000, &result));

  atomic_store_explicit(&gate_is_open, 1, memory_order_release);
  CHECK(gmb_token_wait(token, GMB_EPOCH_LAST, GMB_WAIT_FOREVER, &result));
}

/* Lengths in device memory are seen by the device first: the call succeeds, the result does not. */
static void late_bad_length(gmb_context context, gmb_mailbox mailbox, gmb_stream stream, gmb_token token,
                            unsigned char *records) {
  const uint32_t lengths[3] = {1, PAYLOAD + 1, 1};
  void *on_device;
  CHECK(gmb_memory_allocate(context, sizeof lengths, &on_device));
  CHECK(gmb_memory_copy(context, on_device, lengths, sizeof lengths, stream));
  gmb_push push = GMB_PUSH_INIT;
  push.count = 3;
  push.records = records;
  push.lengths = on_device;
  CHECK(gmb_mailbox_push(mailbox, &push, stream, token));
  gmb_result result;
  CHECK(gmb_token_wait(token, GMB_EPOCH_LAST, GMB_WAIT_FOREVER, &result));
  char detail[100];
  snprintf(detail, sizeof detail, "in the result: %u of 3 records were pushed before it", result.count);
  show("a bad length in device memory", result.status, GMB_ERROR_BAD_LENGTH, "GMB_ERROR_BAD_LENGTH", detail);
  if (result.count != 1) ++wrong;
  CHECK(gmb_memory_free(context, on_device));
}

int main(void) {
  printf("%-34s %-27s %s\n", "what was done", "code", "text, and the thread's message");
  bad_contexts();
  bad_memory();

  gmb_context context;
  CHECK(gmb_context_create(NULL, &context));
  bad_mailboxes(context);

  gmb_mailbox_options options = GMB_MAILBOX_OPTIONS_INIT;
  options.capacity = 1024;
  options.payload_bytes = PAYLOAD;
  gmb_mailbox mailbox, stale;
  gmb_stream stream;
  gmb_token token;
  void *records;
  CHECK(gmb_mailbox_create(context, &options, &mailbox));
  CHECK(gmb_mailbox_create(context, &options, &stale));
  CHECK(gmb_mailbox_destroy(stale));
  CHECK(gmb_stream_create(context, GMB_PRIORITY_NORMAL, &stream));
  CHECK(gmb_token_create(context, &token));
  CHECK(gmb_memory_allocate(context, 16 * PAYLOAD, &records));

  bad_handles(stale, token);
  bad_operations(mailbox, stream, token, records);
  bad_placement(context, stream);
  bad_readers(mailbox, stream, token, records);
  bad_streams(context, stream, token, records);
  bad_events(context, stream);
  bad_guards(context, stream);
  busy_and_late(context, mailbox, stream, token, records);
  late_bad_length(context, mailbox, stream, token, records);

  CHECK(gmb_memory_free(context, records));
  CHECK(gmb_token_destroy(token));
  CHECK(gmb_stream_destroy(context, stream));
  CHECK(gmb_mailbox_destroy(mailbox));
  CHECK(gmb_context_destroy(context));
  if (wrong > 0) {
    printf("%d of %d errors are not as documented\n", wrong, shown);
    return 1;
  }
  printf("ok: %d errors as documented\n", shown);
  return 0;
}
