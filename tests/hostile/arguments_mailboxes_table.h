/* The rows of arguments.c for memory, mailboxes and what moves records; and all rows together. */

static void describe_memory(void) {
  FUNCTION(memory_allocate, memory_allocate, GMB_OK, NULL, undo_memory_allocate);
  context_arg();
  WORD("bytes", 64, {0, E(ZERO_COUNT), 0}, {1, GMB_OK, 0}, {UINT32_MAX, E(MEMORY_LIMIT), 0},
       {GMB_MAX_RECORDS, E(MEMORY_LIMIT), 0}, {RECORDS_TOO_MANY, E(MEMORY_LIMIT), 0}, {SIZE_MAX / 2, E(MEMORY_LIMIT), 0},
       TOO_MANY_BYTES);
  output("memory", 8);
  FUNCTION(memory_allocate_async, memory_allocate_async, GMB_OK, NULL, undo_memory_allocate_async);
  context_arg();
  WORD("bytes", 64, {0, E(ZERO_COUNT), 0}, {1, GMB_OK, 0}, {UINT32_MAX, E(MEMORY_LIMIT), 0},
       {SIZE_MAX / 2, E(MEMORY_LIMIT), 0}, TOO_MANY_BYTES);
  stream_arg(GMB_OK);
  output("memory", 8);

  /* Memory that is not this context's to free: pieces, garbage, and what belongs to a mailbox or a token. */
  const gmb_result *result_of_token;
  CHECK(gmb_token_get_device_result(token, &result_of_token));
  const struct value not_yours[] = {
      {0, GMB_OK, 0},           {at(memory, 1), BAD, 0},       {at(memory, 256), BAD, 0},   {GARBAGE, BAD, 0},
      {HIGH_BIT, BAD, ALONE},   {UINT64_MAX, BAD, 0},          {bits_of(foreign_memory), BAD, 0},
      {at(shape.ring, 128), BAD, 0}, {bits_of(unused_shape.ring), BAD, 0}, {bits_of(result_of_token), BAD, 0},
      {bits_of(host_rows), BAD, 0},
  };
  const size_t count = sizeof not_yours / sizeof *not_yours;
  const struct value of_pinned = {bits_of(pinned), BAD, 0}, of_device = {bits_of(memory), BAD, 0};
  FUNCTION(memory_free_async, memory_free_async, GMB_OK, make_memory, undo_memory);
  context_arg();
  add(arg("memory", 0), not_yours, count);
  add(&f->slot[1], &of_pinned, 1);
  stream_arg(GMB_OK);
  FUNCTION(memory_free, memory_free, GMB_OK, make_memory, undo_memory);
  context_arg();
  add(arg("memory", 0), not_yours, count);
  add(&f->slot[1], &of_pinned, 1);
  FUNCTION(pinned_free, pinned_free, GMB_OK, make_pinned, undo_pinned);
  context_arg();
  add(arg("memory", 0), not_yours, count);
  add(&f->slot[1], &of_device, 1);

  /* Pinned memory has no limit: only sizes that no machine has. */
  FUNCTION(pinned_allocate, pinned_allocate, GMB_OK, NULL, undo_pinned_allocate);
  context_arg();
  WORD("bytes", 64, {0, E(ZERO_COUNT), 0}, {1, GMB_OK, 0}, {(uint64_t)1 << 50, E(OUT_OF_HOST_MEMORY), 0},
       {SIZE_MAX / 2, E(OUT_OF_HOST_MEMORY), 0}, TOO_MANY_BYTES);
  output("memory", 8);

  FUNCTION(memory_copy, memory_copy, GMB_OK, NULL, undo_nothing);
  context_arg();
  WORD("to", at(memory, 0), {0, E(NULL_POINTER), 0}, {at(memory, 1), GMB_OK, 0}, {at(memory, 4096), E(OVERLAP), 0},
       {at(memory, 4111), E(OVERLAP), 0}, {at(memory, 4112), GMB_OK, 0}, {UINT64_MAX - 7, E(OVERFLOW), 0},
       {HIGH_BIT, E(OVERFLOW), 0});
  WORD("from", at(memory, 4096), {0, E(NULL_POINTER), 0}, {at(memory, 4097), GMB_OK, 0}, {at(memory, 0), E(OVERLAP), 0},
       {at(memory, 15), E(OVERLAP), 0}, {at(memory, 16), GMB_OK, 0}, {UINT64_MAX - 7, E(OVERFLOW), 0},
       {HIGH_BIT, E(OVERFLOW), 0});
  WORD("bytes", 16, {0, E(ZERO_COUNT), 0}, {1, GMB_OK, 0}, {4097, E(OVERLAP), 0}, {UINT32_MAX, E(OVERLAP), 0},
       {RECORDS_TOO_MANY, E(OVERLAP), 0}, TOO_MANY_BYTES);
  stream_arg(GMB_OK);
  /* Moving both can make them overlap, or end their overlap. */
  ALSO(GMB_OK, E(OVERLAP));
  FUNCTION(memory_fill, memory_fill, GMB_OK, NULL, undo_nothing);
  context_arg();
  WORD("memory", at(memory, 0), {0, E(NULL_POINTER), 0}, {at(memory, 1), GMB_OK, 0}, {at(memory, BYTES - 1), BAD, 0},
       {GARBAGE, BAD, 0}, {bits_of(host_rows), BAD, 0},
       {UINT64_MAX - 7, E(OVERFLOW), 0}, {HIGH_BIT, E(OVERFLOW), 0});
  /* On a GPU other memory may begin there. */
  if (on_the_host()) add(&f->slot[1], VALUES({at(memory, BYTES), BAD, 0}));
  WORD("value", 7, {UINT64_MAX, GMB_OK, 0});
  WORD("bytes", 16, {0, E(ZERO_COUNT), 0}, {1, GMB_OK, 0}, {BYTES, GMB_OK, 0}, {BYTES + 1, BAD, 0}, {UINT32_MAX, BAD, 0},
       {GMB_MAX_RECORDS, BAD, 0}, TOO_MANY_BYTES);
  /* One byte at the end is good, all but one byte is not. */
  ALSO(GMB_OK, BAD);
  stream_arg(GMB_OK);
  FUNCTION(memory_get_info, memory_get_info, GMB_OK, NULL, NULL);
  context_arg();
  info_args(sizeof(gmb_memory_info));
  FUNCTION(memory_trim, memory_trim, GMB_OK, NULL, NULL);
  context_arg();
  WORD("keep_bytes", 0, {1, GMB_OK, 0}, {HIGH_BIT, GMB_OK, 0}, {UINT64_MAX, GMB_OK, 0});
}

/* Sizes that fit the address space give `vast`, those a little above the mailbox's own `more`. */
static void mailbox_options_arg(gmb_status vast, gmb_status more) {
  input("options", &mailbox_options, sizeof mailbox_options, 8, E(NULL_POINTER));
  FIELD(gmb_mailbox_options, payload_bytes, {0, BAD, 0}, {1, GMB_OK, 0}, {GMB_EXPRESS_BYTES + 1, more, 0}, {GMB_MAX_RECORDS, vast, 0},
        {UINT32_MAX - 31, vast, 0}, {UINT32_MAX - 15, E(OVERFLOW), 0}, {UINT32_MAX, E(OVERFLOW), 0});
  FIELD(gmb_mailbox_options, capacity, {0, BAD, 0}, {1, GMB_OK, 0}, {3, BAD, 0}, {17, BAD, 0}, {GMB_MAX_RECORDS, vast, 0},
        {RECORDS_TOO_MANY, E(OVERFLOW), 0}, {UINT32_MAX, E(OVERFLOW), 0}, {SIZE_MAX / 2 + 1, E(OVERFLOW), 0},
        {UINT64_MAX, E(OVERFLOW), 0});
  FIELD(gmb_mailbox_options, arbitration, OUT_OF_RANGE, {1, GMB_OK, 0}, {2, BAD, 0});
  FIELD(gmb_mailbox_options, full_policy, OUT_OF_RANGE, {3, GMB_OK, 0}, {4, BAD, 0});
  FIELD(gmb_mailbox_options, producer_id, {UINT32_MAX, GMB_OK, 0});
  FIELD(gmb_mailbox_options, consumer_id, {UINT32_MAX, GMB_OK, 0});
  FIELD(gmb_mailbox_options, initial_index, {HIGH_BIT, GMB_OK, 0}, {UINT64_MAX, GMB_OK, 0});
  FIELD(gmb_mailbox_options, flags, {1, GMB_OK, 0}, {2, more, 0}, {3, more, 0}, {4, more, 0}, {5, more, 0}, {6, BAD, 0},
        {7, BAD, 0}, {8, BAD, 0}, {HIGH_BIT >> 32, BAD, 0}, {UINT32_MAX, BAD, 0});
  FIELD(gmb_mailbox_options, readers, {16, GMB_OK, 0}, {17, BAD, 0}, {UINT32_MAX, BAD, 0});
  /* LATEST with room for one record; a vast payload with room for one; a mode that does not have a policy, or readers. */
  ALSO(BAD, vast, E(TRUNCATED), E(NOT_SUPPORTED));
}

static void describe_mailboxes(void) {
  FUNCTION(mailbox_create, mailbox_create, GMB_OK, NULL, undo_mailbox_create);
  context_arg();
  mailbox_options_arg(E(MEMORY_LIMIT), GMB_OK);
  output("mailbox", 8);
  FUNCTION(mailbox_get_required_bytes, required_bytes, GMB_OK, NULL, NULL);
  mailbox_options_arg(GMB_OK, GMB_OK);
  output("bytes", 8);

  const struct value bad_place[] = {
      {0, E(NULL_POINTER), 0}, {at(place, 1), E(MISALIGNED), 0}, {at(place, 64), E(MISALIGNED), 0}, {0x555500001280, BAD, 0},
      {UINT64_MAX, E(MISALIGNED), 0}, {UINT64_MAX - 127, E(OVERFLOW), 0}, {HIGH_BIT, E(OVERFLOW), 0},
  };
  const struct value bad_size[] = {
      {0, E(TRUNCATED), 0}, {1, E(TRUNCATED), 0}, {place_bytes - 1, E(TRUNCATED), 0}, {place_bytes + 128, GMB_OK, 0},
      {place_bytes + 129, BAD, 0}, {UINT32_MAX, BAD, 0}, {GMB_MAX_RECORDS, BAD, 0}, {HIGH_BIT, E(OVERFLOW), 0},
      {SIZE_MAX / 2 + 1, E(OVERFLOW), 0}, {UINT64_MAX, E(OVERFLOW), 0},
  };
  FUNCTION(mailbox_create_in, create_in, GMB_OK, NULL, undo_mailbox_in_place);
  context_arg();
  mailbox_options_arg(E(TRUNCATED), E(TRUNCATED));
  add(arg("memory", at(place, 0)), bad_place, sizeof bad_place / sizeof *bad_place);
  add(arg("memory_bytes", place_bytes), bad_size, sizeof bad_size / sizeof *bad_size);
  output("mailbox", 8);
  /* Less is needed with another option, and the place is then large enough. */
  ALSO(BAD, GMB_OK, E(TRUNCATED), E(NOT_SUPPORTED));

  static gmb_attach_options attach = GMB_ATTACH_OPTIONS_INIT;
  FUNCTION(mailbox_attach, attach, GMB_OK, NULL, undo_mailbox_in_place);
  context_arg();
  add(arg("memory", at(place, 0)), bad_place, sizeof bad_place / sizeof *bad_place);
  add(&f->slot[1], VALUES({at(memory, 0), E(BAD_MAGIC), 0}, {at(place, 128), E(BAD_MAGIC), 0}));
  add(arg("memory_bytes", place_bytes), bad_size, sizeof bad_size / sizeof *bad_size);
  input("options", &attach, sizeof attach, 4, GMB_OK);
  FIELD(gmb_attach_options, arbitration, OUT_OF_RANGE, {1, GMB_OK, 0}, {2, BAD, 0});
  FIELD(gmb_attach_options, flags, {1, GMB_OK, 0}, {2, BAD, 0}, {4, BAD, 0}, {UINT32_MAX, BAD, 0});
  FIELD(gmb_attach_options, reserved, {1, BAD, 0}, {UINT32_MAX, BAD, 0});
  output("mailbox", 8);
  /* Memory that begins later has too few bytes. */
  ALSO(BAD);

  FUNCTION(mailbox_destroy, mailbox_destroy, GMB_OK, make_mailbox, undo_mailbox);
  mailbox_arg();
  FUNCTION(mailbox_get_info, mailbox_get_info, GMB_OK, NULL, NULL);
  mailbox_arg();
  or_of_mode(GMB_OK, GMB_OK);
  info_args(sizeof(gmb_mailbox_info));
  FUNCTION(mailbox_add_reader, add_reader, GMB_OK, NULL, undo_add_reader);
  mailbox_arg();
  or_of_mode(GMB_OK, E(NOT_SUPPORTED));
  ENUM("start", GMB_READER_NEXT, {2, BAD, 0});
  stream_arg(GMB_OK);
  output("reader", 4);
  FUNCTION(mailbox_remove_reader, remove_reader, GMB_OK, make_reader, undo_reader);
  mailbox_arg();
  or_of_mode(BAD, E(NOT_SUPPORTED));
  WORD("reader", 1, {2, BAD, 0}, {15, BAD, 0}, {16, BAD, 0}, {32, BAD, 0}, {HIGH_BIT >> 32, BAD, 0}, {UINT32_MAX, BAD, 0});
  stream_arg(GMB_OK);
  FUNCTION(mailbox_get_reader_info, get_reader_info, GMB_OK, NULL, NULL);
  mailbox_arg();
  or_of_mode(GMB_OK, GMB_OK);
  WORD("reader", 0, {1, BAD, 0}, {16, BAD, 0}, {32, BAD, 0}, {HIGH_BIT >> 32, BAD, 0}, {UINT32_MAX, BAD, 0});
  info_args(sizeof(gmb_reader_info));
}

#define RING_VALUES                                                                                    \
  {at(shape.ring, 0), E(OVERLAP), 0}, {at(shape.ring, 128), E(OVERLAP), 0},                            \
      {at(shape.ring, shape.ring_bytes - 16), E(OVERLAP), 0}, {UINT64_MAX - 15, E(OVERFLOW), 0},       \
      {HIGH_BIT, E(OVERFLOW), 0}, {0x555500001230, BAD, 0}, {bits_of(host_rows) & ~(uint64_t)15, BAD, ALONE}
#define STRIDE_VALUES                                                                                     \
  {1, E(MISALIGNED), 0}, {72, E(MISALIGNED), 0}, {UINT64_MAX, E(MISALIGNED), 0}, {16, BAD, 0}, {48, BAD, 0}, \
      {1 << 29, BAD, 0}, {(1 << 29) + 1, E(MISALIGNED), 0}, {UINT64_MAX - 15, E(OVERFLOW), 0},            \
      {HIGH_BIT, E(OVERFLOW), 0}, {SIZE_MAX / 2 + 1, E(OVERFLOW), 0}
#define COUNT_VALUES                                                                             \
  {0, E(ZERO_COUNT), 0}, {1, GMB_OK, 0}, {RECORDS_TOO_MANY, E(OVERFLOW), 0}, {HIGH_BIT >> 32, E(OVERFLOW), 0}, \
      {UINT32_MAX, E(OVERFLOW), 0}

static void describe_operations(void) {
  static gmb_push push;
  push = push_of(memory, ROWS);
  FUNCTION(mailbox_push, push, GMB_OK, NULL, undo_submission);
  mailbox_arg();
  or_of_mode(GMB_OK, E(NOT_SUPPORTED));
  input("push", &push, sizeof push, 8, E(NULL_POINTER));
  FIELD(gmb_push, count, COUNT_VALUES, {BYTES / PAYLOAD + 1, BAD, 0}, {GMB_MAX_RECORDS, BAD, 0});
  FIELD(gmb_push, records, RING_VALUES, {0, E(NULL_POINTER), 0}, {at(memory, 8), E(MISALIGNED), 0},
        {at(memory, BYTES - PAYLOAD), BAD, 0}, {UINT64_MAX, E(MISALIGNED), 0});
  FIELD(gmb_push, stride, STRIDE_VALUES);
  FIELD(gmb_push, lengths, {at(memory, 2), E(MISALIGNED), 0}, {at(shape.ring, 64), E(OVERLAP), 0}, {0x555500001230, BAD, 0},
        {UINT64_MAX - 3, E(OVERFLOW), 0}, {at(memory, BYTES - 4), BAD, 0});
  FIELD(gmb_push, types, {at(memory, 1), E(MISALIGNED), 0}, {at(shape.ring, 64), E(OVERLAP), 0}, {0x555500001230, BAD, 0},
        {UINT64_MAX - 3, E(OVERFLOW), 0}, {at(memory, BYTES - 4), BAD, 0});
  FIELD(gmb_push, length, {0, GMB_OK, 0}, {PAYLOAD + 1, E(BAD_LENGTH), 0}, {GMB_MAX_RECORDS, E(BAD_LENGTH), 0},
        {UINT32_MAX, E(BAD_LENGTH), 0});
  FIELD(gmb_push, msg_type, {UINT32_MAX, GMB_OK, 0});
  FIELD(gmb_push, timeout_ns, {0, GMB_OK, 0}, {1, GMB_OK, 0}, {UINT64_MAX - 1, GMB_OK, 0});
  stream_arg(GMB_OK);
  token_arg(GMB_OK, GMB_OK, BAD);
  /* A length of 0 reads nothing, one record fits anywhere, and what does not fit may go beyond all. */
  ALSO(GMB_OK, BAD, E(OVERFLOW), E(OVERLAP));

  static gmb_pop pop;
  pop = pop_of(memory, ROWS);
  FUNCTION(mailbox_pop, pop, GMB_OK, NULL, undo_submission);
  mailbox_arg();
  or_of_mode(GMB_OK, E(NOT_SUPPORTED));
  input("pop", &pop, sizeof pop, 8, E(NULL_POINTER));
  /* Rows beyond the capacity are never written: many are fine. */
  FIELD(gmb_pop, max, COUNT_VALUES, {GMB_MAX_RECORDS, GMB_OK, 0});
  FIELD(gmb_pop, records, RING_VALUES, {0, E(NULL_POINTER), 0}, {at(memory, 8), E(MISALIGNED), 0},
        {at(memory, BYTES - PAYLOAD), BAD, 0}, {UINT64_MAX, E(MISALIGNED), 0});
  FIELD(gmb_pop, stride, STRIDE_VALUES);
  FIELD(gmb_pop, headers, RING_VALUES, {at(memory, 0), E(OVERLAP), 0}, {at(memory, 4), E(MISALIGNED), 0},
        {at(memory, 4 * PAYLOAD - 16), E(OVERLAP), 0}, {at(memory, BYTES - 16), BAD, 0});
  FIELD(gmb_pop, reader, {1, BAD, 0}, {16, BAD, 0}, {32, BAD, 0}, {UINT32_MAX, BAD, 0});
  FIELD(gmb_pop, reserved, {1, BAD, 0}, {UINT32_MAX, BAD, 0});
  stream_arg(GMB_OK);
  token_arg(GMB_OK, GMB_OK, BAD);
  ALSO(GMB_OK, BAD, E(OVERFLOW), E(OVERLAP));

  /* Host arrays must be as large as the counts say: only what no array can be is hostile. */
  FUNCTION(mailbox_push_from_host_blocking, push_from_host, GMB_OK, NULL, NULL);
  mailbox_arg();
  or_of_mode(GMB_OK, E(NOT_SUPPORTED));
  WORD("count", 2, COUNT_VALUES, {CAPACITY + 1, GMB_OK, 0});
  WORD("records", bits_of(host_rows), {0, E(NULL_POINTER), 0}, {bits_of(host_rows) + 1, GMB_OK, 0});
  WORD("stride", PAYLOAD, {0, E(BAD_LENGTH), 0}, {1, E(BAD_LENGTH), 0}, {15, E(BAD_LENGTH), 0}, {17, GMB_OK, 0},
       {HIGH_BIT - 1, E(OVERFLOW), ALONE}, {HIGH_BIT, E(OVERFLOW), 0}, {UINT64_MAX, E(OVERFLOW), 0});
  WORD("lengths", bits_of(host_lengths), {0, E(NULL_POINTER), 0}, {bits_of(host_lengths) + 1, E(MISALIGNED), 0},
       {bits_of(host_lengths) + 2, E(MISALIGNED), 0});
  WORD("types", bits_of(host_types), {0, GMB_OK, 0}, {bits_of(host_types) + 1, E(MISALIGNED), 0});
  WORD("timeout_ns", GMB_WAIT_FOREVER, {0, GMB_OK, 0}, {1, GMB_OK, 0}, {HIGH_BIT, GMB_OK, 0});
  output("result", 8);
  FUNCTION(mailbox_pop_to_host_blocking, pop_to_host, GMB_OK, NULL, NULL);
  mailbox_arg();
  or_of_mode(GMB_OK, E(NOT_SUPPORTED));
  WORD("reader", 0, {1, BAD, 0}, {16, BAD, 0}, {32, BAD, 0}, {HIGH_BIT >> 32, BAD, 0}, {UINT32_MAX, BAD, 0});
  WORD("max", ROWS, COUNT_VALUES, {CAPACITY + 1, GMB_OK, 0});
  WORD("records", bits_of(host_rows), {0, E(NULL_POINTER), 0}, {bits_of(host_rows) + 1, GMB_OK, 0});
  WORD("stride", PAYLOAD, {0, BAD, 0}, {PAYLOAD - 1, BAD, 0}, {HIGH_BIT - 1, E(OVERFLOW), ALONE},
       {HIGH_BIT, E(OVERFLOW), 0}, {UINT64_MAX, E(OVERFLOW), 0});
  WORD("headers", bits_of(host_headers), {0, E(NULL_POINTER), 0}, {bits_of(host_headers) + 1, E(MISALIGNED), 0},
       {bits_of(host_headers) + 4, E(MISALIGNED), 0});
  output("result", 8);
}

static void describe(void) {
  describe_status();
  describe_contexts();
  describe_events();
  describe_streams();
  describe_tokens();
  describe_graphs();
  describe_readiness();
  describe_borrows();
  describe_memory();
  describe_mailboxes();
  describe_operations();
  /* The library's last word on the token of the table must be that it was used. */
  gmb_result result;
  gmb_push first = GMB_PUSH_INIT;
  first.count = 1;
  first.records = memory;
  CHECK(gmb_mailbox_push(mailbox, &first, stream, token));
  CHECK(gmb_token_wait(token, GMB_EPOCH_LAST, GMB_WAIT_FOREVER, &result));
}
