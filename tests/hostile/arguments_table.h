/* The table of arguments.c. A row is an argument or a field: its name, what is good, and pairs of a hostile
 * value and the status that it alone must give. GMB_OK is for odd values that are allowed. */

#define FUNCTION(name, call, base, make, undo) \
  (function("gmb_" #name, call_##call), f->base_status = base, f->before = make, f->after = undo)
#define ALSO(...)                                                \
  (memcpy(f->also, (gmb_status[4]){__VA_ARGS__}, sizeof f->also), \
   f->also_count = sizeof((gmb_status[]){__VA_ARGS__}) / sizeof(gmb_status))

static void describe_status(void) {
  FUNCTION(version, version, GMB_OK, NULL, NULL);
  FUNCTION(version_string, version_string, GMB_OK, NULL, NULL);
  FUNCTION(status_string, status_string, GMB_OK, NULL, NULL);
  WORD("status", 0, {1, GMB_OK, 0}, {99, GMB_OK, 0}, {(uint32_t)-1, GMB_OK, 0}, {(uint32_t)E(WRONG_MODE), GMB_OK, 0},
       {(uint32_t)E(WRONG_MODE) - 1, GMB_OK, 0}, {(uint32_t)INT32_MIN, GMB_OK, 0}, {INT32_MAX, GMB_OK, 0});
  FUNCTION(status_name, status_name, GMB_OK, NULL, NULL);
  WORD("status", 0, {1, GMB_OK, 0}, {99, GMB_OK, 0}, {(uint32_t)-1, GMB_OK, 0}, {(uint32_t)E(WRONG_MODE), GMB_OK, 0},
       {(uint32_t)E(WRONG_MODE) - 1, GMB_OK, 0}, {(uint32_t)INT32_MIN, GMB_OK, 0}, {INT32_MAX, GMB_OK, 0});
  FUNCTION(last_error_message, last_error_message, GMB_OK, NULL, NULL);
  output("buffer", 1);
  WORD("size", 16, {0, GMB_OK, 0}, {1, GMB_OK, 0}, {4096, GMB_OK, 0}, {HIGH_BIT, GMB_OK, 0}, {UINT64_MAX, GMB_OK, 0});
  output("needed", 8);
  f->slot[2].values[0].wanted = GMB_OK;
  FUNCTION(set_log_function, set_log_function, GMB_OK, NULL, undo_log);
  ENUM("level", GMB_LOG_ERROR, {0, BAD, 0}, {4, BAD, 0});
  WORD("function", 1, {0, GMB_OK, 0});
  WORD("argument", 0, {GARBAGE, GMB_OK, 0}, {UINT64_MAX, GMB_OK, 0});
}

static void describe_contexts(void) {
  static gmb_context_options options = GMB_CONTEXT_OPTIONS_INIT;
  FUNCTION(context_create, context_create, GMB_OK, NULL, undo_context_create);
  input("options", &options, sizeof options, 8, GMB_OK);
  FIELD(gmb_context_options, backend, OUT_OF_RANGE, {3, BAD, 0});
  FIELD(gmb_context_options, device, {4096, E(INVALID_DEVICE), 0}, {HIGH_BIT >> 32, E(INVALID_DEVICE), 0},
        {UINT32_MAX, E(INVALID_DEVICE), 0});
  FIELD(gmb_context_options, resident_percent, {1, GMB_OK, ALONE}, {100, GMB_OK, ALONE}, {101, BAD, 0}, {UINT32_MAX, BAD, 0});
  FIELD(gmb_context_options, memory_limit, {1, GMB_OK, 0}, {UINT64_MAX, GMB_OK, 0});
  output("context", 8);
  FUNCTION(context_destroy, context_destroy, GMB_OK, make_context, undo_context);
  context_arg();
#ifdef GMB_BROKEN /* a row that is wrong */
  FUNCTION(context_get_info, context_get_info, GMB_NOT_READY, NULL, NULL);
#else
  FUNCTION(context_get_info, context_get_info, GMB_OK, NULL, NULL);
#endif
  context_arg();
  info_args(sizeof(gmb_context_info));
}

static void describe_events(void) {
  FUNCTION(event_create, event_create, GMB_OK, NULL, undo_event_create);
  context_arg();
  ENUM("kind", GMB_EVENT_TIMED, {3, BAD, 0});
  output("event", 8);
  FUNCTION(event_destroy, event_destroy, GMB_OK, make_event, undo_event);
  handle("event", timed.id, stale_event.id, E(INVALID_HANDLE));
  FUNCTION(event_record, event_record, GMB_OK, NULL, undo_nothing);
  handle("event", timed.id, stale_event.id, E(INVALID_HANDLE));
  stream_arg(GMB_OK);
  FUNCTION(event_query, event_query, GMB_OK, NULL, NULL);
  event_arg("event", timed, GMB_OK, E(NOT_SUPPORTED), GMB_OK);
  FUNCTION(event_synchronize, event_synchronize, GMB_OK, NULL, NULL);
  event_arg("event", timed, GMB_OK, E(NOT_SUPPORTED), GMB_OK);
  WORD("timeout_ns", 1000000, {0, GMB_OK, 0}, {1, GMB_OK, 0}, {HIGH_BIT, GMB_OK, 0}, {UINT64_MAX - 1, GMB_OK, 0},
       {UINT64_MAX, GMB_OK, 0});
  FUNCTION(event_elapsed_ms, event_elapsed_ms, GMB_OK, NULL, NULL);
  event_arg("start", timed, BAD, BAD, BAD);
  event_arg("end", timed_later, BAD, BAD, BAD);
  /* Both of another context, but never recorded. */
  ALSO(BAD);
  output("milliseconds", 8);
  FUNCTION(event_pool_get_info, event_pool_get_info, GMB_OK, NULL, NULL);
  context_arg();
  ENUM("kind", GMB_EVENT_TIMED, {3, BAD, 0});
  info_args(sizeof(gmb_event_pool_info));
}

static void describe_streams(void) {
  FUNCTION(stream_guard_create, stream_guard_create, GMB_OK, NULL, undo_stream_guard_create);
  context_arg();
  stream_arg(GMB_OK);
  output("guard", 8);
  FUNCTION(stream_guard_destroy, stream_guard_destroy, GMB_OK, make_guard, undo_guard);
  handle("guard", stale_guard.id, stale_guard.id, E(INVALID_HANDLE));
  FUNCTION(stream_create, stream_create, GMB_OK, NULL, undo_stream_create);
  context_arg();
  ENUM("priority", GMB_PRIORITY_NORMAL, {3, BAD, 0});
  output("stream", 8);
  FUNCTION(stream_get_priority, stream_get_priority, GMB_OK, NULL, NULL);
  context_arg();
  stream_arg(GMB_OK);
  output("priority", 4);
  FUNCTION(stream_destroy, stream_destroy, GMB_OK, make_stream, undo_stream);
  context_arg();
  stream_arg(E(INVALID_STREAM));
  FUNCTION(stream_query, stream_query, GMB_OK, NULL, NULL);
  context_arg();
  stream_arg(GMB_OK);
  FUNCTION(stream_is_capturing, stream_is_capturing, GMB_OK, NULL, NULL);
  context_arg();
  stream_arg(GMB_OK);
  output("capturing", 4);
  FUNCTION(stream_synchronize, stream_synchronize, GMB_OK, NULL, NULL);
  context_arg();
  stream_arg(GMB_OK);
  FUNCTION(stream_host_function, stream_host_function, GMB_OK, NULL, undo_nothing);
  context_arg();
  stream_arg(GMB_OK);
  WORD("function", 1, {0, E(NULL_POINTER), 0});
  WORD("argument", 0, {GARBAGE, GMB_OK, 0}, {UINT64_MAX, GMB_OK, 0});
  FUNCTION(stream_wait_event, stream_wait_event, GMB_OK, NULL, undo_nothing);
  context_arg();
  stream_arg(GMB_OK);
  event_arg("event", timed, GMB_OK, GMB_OK, BAD);
}

static void describe_tokens(void) {
  FUNCTION(token_create, token_create, GMB_OK, NULL, undo_token_create);
  context_arg();
  output("token", 8);
  FUNCTION(token_destroy, token_destroy, GMB_OK, make_token, undo_token);
  handle("token", token.id, stale_token.id, E(INVALID_HANDLE));
  FUNCTION(token_poll, token_poll, GMB_OK, NULL, NULL);
  token_arg(E(INVALID_HANDLE), BAD, BAD);
  output("result", 8);
  FUNCTION(token_wait, token_wait, GMB_OK, NULL, NULL);
  token_arg(E(INVALID_HANDLE), BAD, BAD);
  WORD("after_epoch", 0, {GMB_EPOCH_LAST, GMB_OK, 0}, {UINT32_MAX, GMB_OK, 0}, {1 << 29, E(TIMEOUT), 0},
       {INT32_MAX, E(TIMEOUT), 0}, {(uint64_t)1 << 32, BAD, 0}, {HIGH_BIT, BAD, 0}, {UINT64_MAX - 1, BAD, 0});
  WORD("timeout_ns", 0, {1, GMB_OK, 0}, {1000, GMB_OK, 0}, {HIGH_BIT, GMB_OK, ALONE}, {UINT64_MAX - 1, GMB_OK, ALONE},
       {GMB_WAIT_FOREVER, GMB_OK, ALONE});
  output("result", 8);
  FUNCTION(token_get_device_result, token_get_device_result, GMB_OK, NULL, NULL);
  token_arg(E(INVALID_HANDLE), GMB_OK, GMB_OK);
  output("result", 8);
}

static void describe_graphs(void) {
  FUNCTION(stream_begin_capture, stream_begin_capture, GMB_OK, NULL, undo_stream_begin_capture);
  context_arg();
  stream_like(E(NOT_SUPPORTED), GMB_OK);
  ENUM("mode", GMB_CAPTURE_THREAD_LOCAL, {3, BAD, 0});
  FUNCTION(stream_end_capture, stream_end_capture, GMB_OK, make_capture, undo_capture);
  context_arg();
  stream_arg(E(CAPTURE));
  output("graph", 8);
  FUNCTION(graph_launch, graph_launch, GMB_OK, NULL, undo_nothing);
  handle("graph", graph.id, stale_graph.id, E(INVALID_HANDLE));
  stream_arg(GMB_OK);
  FUNCTION(graph_destroy, graph_destroy, GMB_OK, make_graph, undo_graph);
  handle("graph", graph.id, stale_graph.id, E(INVALID_HANDLE));
}

static void describe_readiness(void) {
  FUNCTION(mailbox_wait_readable, wait_readable, E(TIMEOUT), NULL, NULL);
  mailbox_arg();
  or_of_mode(E(TIMEOUT), E(NOT_SUPPORTED));
  WORD("reader", 0, {1, BAD, 0}, {16, BAD, 0}, {32, BAD, 0}, {HIGH_BIT >> 32, BAD, 0}, {UINT32_MAX, BAD, 0});
  WORD("count", 1, {0, E(ZERO_COUNT), 0}, {CAPACITY + 1, BAD, 0}, {UINT32_MAX, BAD, 0});
  WORD("timeout_ns", 0, {1, E(TIMEOUT), 0}, {1000, E(TIMEOUT), 0});
  output("ready", 8);
  f->slot[f->slots - 1].values[0].wanted = E(TIMEOUT);
  FUNCTION(mailbox_wait_writable, wait_writable, GMB_OK, NULL, NULL);
  mailbox_arg();
  or_of_mode(GMB_OK, E(NOT_SUPPORTED));
  WORD("count", 1, {0, E(ZERO_COUNT), 0}, {CAPACITY + 1, BAD, 0}, {UINT32_MAX, BAD, 0});
  WORD("timeout_ns", 0, {1, GMB_OK, 0}, {HIGH_BIT, GMB_OK, 0}, {GMB_WAIT_FOREVER, GMB_OK, 0});
  output("ready", 8);
  f->slot[f->slots - 1].values[0].wanted = GMB_OK;
  FUNCTION(watch_create, watch_create, GMB_OK, NULL, undo_watch_create);
  mailbox_arg();
  or_of_mode(GMB_OK, E(NOT_SUPPORTED));
  ENUM("interest", GMB_INTEREST_READABLE, {2, BAD, 0}, {GMB_INTEREST_WRITABLE, GMB_OK, 0});
  WORD("reader", 0, {1, BAD, 0}, {16, BAD, 0}, {UINT32_MAX, BAD, 0});
  output("watch", 8);
  FUNCTION(watch_arm, watch_arm, GMB_OK, NULL, NULL);
  handle("watch", watch.id, stale_watch.id, E(INVALID_HANDLE));
  WORD("count", 1, {0, E(ZERO_COUNT), 0}, {CAPACITY + 1, BAD, 0}, {UINT32_MAX, BAD, 0});
  FUNCTION(watch_get_fd, watch_get_fd, GMB_OK, NULL, undo_watch_get_fd);
  handle("watch", watch.id, stale_watch.id, E(INVALID_HANDLE));
  output("descriptor", 4);
  FUNCTION(watch_destroy, watch_destroy, GMB_OK, make_watch, undo_watch);
  handle("watch", watch.id, stale_watch.id, E(INVALID_HANDLE));
}

static void describe_borrows(void) {
  FUNCTION(mailbox_borrow, mailbox_borrow, GMB_OK, make_borrows_done, undo_mailbox_borrow);
  handle("mailbox", lent.id, stale_mailbox.id, E(INVALID_HANDLE));
  or_of_mode(GMB_OK, E(NOT_SUPPORTED));
  WORD("reader", 0, {1, BAD, 0}, {16, BAD, 0}, {32, BAD, 0}, {HIGH_BIT >> 32, BAD, 0}, {UINT32_MAX, BAD, 0});
  WORD("max", 1, {0, E(ZERO_COUNT), 0}, {CAPACITY + 1, GMB_OK, 0}, {RECORDS_TOO_MANY, E(OVERFLOW), 0},
       {UINT32_MAX, E(OVERFLOW), 0});
  stream_arg(GMB_OK);
  output("borrow", 8);
  FUNCTION(borrow_poll, borrow_poll, GMB_OK, NULL, NULL);
  handle("borrow", borrow.id, stale_borrow.id, E(INVALID_HANDLE));
  output("result", 8);
  output("spans", 8);
  FUNCTION(borrow_wait, borrow_wait, GMB_OK, NULL, NULL);
  handle("borrow", borrow.id, stale_borrow.id, E(INVALID_HANDLE));
  WORD("timeout_ns", 0, {1, GMB_OK, 0}, {HIGH_BIT, GMB_OK, 0}, {GMB_WAIT_FOREVER, GMB_OK, 0});
  output("result", 8);
  output("spans", 8);
  FUNCTION(borrow_get_device_spans, borrow_get_device_spans, GMB_OK, NULL, NULL);
  handle("borrow", borrow.id, stale_borrow.id, E(INVALID_HANDLE));
  output("spans", 8);
  FUNCTION(borrow_release, borrow_release, GMB_OK, make_borrow, undo_borrow);
  handle("borrow", borrow.id, stale_borrow.id, E(INVALID_HANDLE));
  stream_arg(GMB_OK);
}
