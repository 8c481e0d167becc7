/* What the table of arguments.c leaves open of modes: which two go together, and what there may be to attach to. */

static void says(const char *what, gmb_status got, gmb_status wanted) {
  ++calls;
  if (got == wanted && (got >= 0 || has_message())) return;
  if (++failures <= 40) printf("modes: %s: status %d, wanted %s\n", what, got, gmb_status_name(wanted));
}

static void make_of_mode(const char *what, uint32_t flags, gmb_full_policy policy, uint32_t payload, uint32_t readers,
                         gmb_status wanted) {
  gmb_mailbox_options options = options_of(CAPACITY);
  gmb_mailbox made = {GARBAGE};
  gmb_mailbox_info info = {0};
  uint64_t bytes = GARBAGE;
  options.flags = flags;
  options.full_policy = policy;
  options.payload_bytes = payload;
  options.readers = readers;
  says(what, gmb_mailbox_get_required_bytes(&options, &bytes), wanted);
  says(what, gmb_mailbox_create(context, &options, &made), wanted);
  if (wanted != GMB_OK) {
    if (made.id != GARBAGE || bytes != GARBAGE) says("written output", GMB_OK, wanted);
    return;
  }
  CHECK(gmb_mailbox_get_info(made, &info, sizeof info));
  if (info.ring_bytes != bytes || info.mode != (gmb_mode)(flags >> 1)) says("another mailbox", BAD, GMB_OK);
  CHECK(gmb_mailbox_destroy(made));
}

static void modes_and_policies(void) {
  const uint32_t both = GMB_MAILBOX_SHARED | GMB_MAILBOX_EXPRESS;
  make_of_mode("shared", GMB_MAILBOX_SHARED, GMB_FULL_REJECT, PAYLOAD, GMB_MAX_READERS, GMB_OK);
  make_of_mode("shared, WAIT", GMB_MAILBOX_SHARED, GMB_FULL_WAIT, PAYLOAD, 2, GMB_OK);
  make_of_mode("shared, OVERWRITE_OLDEST", GMB_MAILBOX_SHARED, GMB_FULL_OVERWRITE_OLDEST, PAYLOAD, 1, E(NOT_SUPPORTED));
  make_of_mode("shared, LATEST", GMB_MAILBOX_SHARED, GMB_FULL_LATEST, PAYLOAD, 1, E(NOT_SUPPORTED));
  make_of_mode("shared, 17 readers", GMB_MAILBOX_SHARED, GMB_FULL_REJECT, PAYLOAD, GMB_MAX_READERS + 1, BAD);
  make_of_mode("express", GMB_MAILBOX_EXPRESS, GMB_FULL_REJECT, 1, 0, GMB_OK);
  make_of_mode("express, all it can", GMB_MAILBOX_EXPRESS, GMB_FULL_REJECT, GMB_EXPRESS_BYTES, 1, GMB_OK);
  make_of_mode("express, a byte more", GMB_MAILBOX_EXPRESS, GMB_FULL_REJECT, GMB_EXPRESS_BYTES + 1, 1, BAD);
  make_of_mode("express, 2 readers", GMB_MAILBOX_EXPRESS, GMB_FULL_REJECT, PAYLOAD, 2, E(NOT_SUPPORTED));
  make_of_mode("express, WAIT", GMB_MAILBOX_EXPRESS, GMB_FULL_WAIT, PAYLOAD, 1, E(NOT_SUPPORTED));
  make_of_mode("express, OVERWRITE_OLDEST", GMB_MAILBOX_EXPRESS, GMB_FULL_OVERWRITE_OLDEST, PAYLOAD, 1, E(NOT_SUPPORTED));
  make_of_mode("express, LATEST", GMB_MAILBOX_EXPRESS, GMB_FULL_LATEST, PAYLOAD, 1, E(NOT_SUPPORTED));
  says("its only reader", gmb_mailbox_remove_reader(express, 0, stream), E(NOT_SUPPORTED));
  make_of_mode("both", both, GMB_FULL_REJECT, PAYLOAD, 1, BAD);
  make_of_mode("both, LATEST", both, GMB_FULL_LATEST, PAYLOAD, 1, BAD);
}

/* A shared mailbox with a record in it is left in memory, and a byte there changes. */
static void attach_to_shared(const char *what, uint64_t offset, uint8_t byte, gmb_status wanted) {
  gmb_mailbox_options options = options_of(CAPACITY);
  gmb_mailbox made, found = {GARBAGE};
  gmb_mailbox_info info = {0};
  gmb_result result;
  uint64_t bytes;
  void *own;
  options.flags = GMB_MAILBOX_SHARED;
  CHECK(gmb_mailbox_get_required_bytes(&options, &bytes));
  CHECK(gmb_memory_allocate(context, bytes, &own));
  CHECK(gmb_mailbox_create_in(context, &options, own, bytes, &made));
  CHECK(gmb_mailbox_push_from_host_blocking(made, 1, host_rows, PAYLOAD, host_lengths, NULL, 0, &result));
  CHECK(gmb_mailbox_destroy(made));
  if (offset < bytes) CHECK(gmb_memory_fill(context, (char *)own + offset, byte, 1, stream));
  CHECK(gmb_stream_synchronize(context, stream));
  if (wanted == GMB_OK) says("a byte too few", gmb_mailbox_attach(context, own, bytes - 1, NULL, &found), E(TRUNCATED));
  says(what, gmb_mailbox_attach(context, own, bytes, NULL, &found), wanted);
  if (wanted == GMB_OK) {
    CHECK(gmb_mailbox_get_info(found, &info, sizeof info));
    if (info.mode != GMB_MODE_SHARED || info.published != 1 || info.ring_bytes != bytes) says(what, BAD, GMB_OK);
    CHECK(gmb_mailbox_destroy(found));
  } else if (found.id != GARBAGE) {
    says("written output", GMB_OK, wanted);
  }
  CHECK(gmb_memory_free(context, own));
}

#define IN_HEADER(field) offsetof(gmb_ring_header, field)

static void attached_modes(void) {
  const uint64_t states = sizeof(gmb_ring_header) + CAPACITY * (PAYLOAD + sizeof(gmb_record_header));
  attach_to_shared("as it was left", UINT64_MAX, 0, GMB_OK);
  attach_to_shared("mode 3", IN_HEADER(mode), 3, E(CORRUPT));
  attach_to_shared("mode 255", IN_HEADER(mode), 255, E(CORRUPT));
  attach_to_shared("mode below zero", IN_HEADER(mode) + 3, 128, E(CORRUPT));
  attach_to_shared("one that overwrites", IN_HEADER(full_policy), GMB_FULL_LATEST, E(CORRUPT));
  attach_to_shared("taken without end", IN_HEADER(writer.claimed) + 7, 1, E(CORRUPT));
  attach_to_shared("a reader far ahead", IN_HEADER(reader[0].claimed) + 7, 1, E(CORRUPT));
  attach_to_shared("room that is not there", IN_HEADER(writer.credits), CAPACITY, E(BUSY));
  attach_to_shared("records that are not there", IN_HEADER(reader[0].credits), 2, E(BUSY));
  attach_to_shared("a slot that is taken", IN_HEADER(writer.claimed), 2, E(BUSY));
  attach_to_shared("a record that nobody will release", states, 0, E(BUSY));
}

/* With operations under way that nobody waits for: a destroy does, also on another thread. */
static void *destroys(void *which) {
  return pointer_of((uint64_t)(int64_t)gmb_mailbox_destroy(*(gmb_mailbox *)which));
}

static void destroyed_under_way(void) {
  for (int round = 0; round < 20; ++round) {
    gmb_mailbox_options options = options_of(CAPACITY);
    gmb_mailbox made;
    gmb_stream other;
    gmb_borrow kept;
    pthread_t thread;
    void *status = NULL;
    options.flags = GMB_MAILBOX_SHARED;
    options.arbitration = round % 2;
    const gmb_push push = push_of(memory, 3);
    const gmb_pop pop = pop_of((char *)memory + BYTES / 2, 2);
    CHECK(gmb_mailbox_create(context, &options, &made));
    CHECK(gmb_stream_create(context, GMB_PRIORITY_NORMAL, &other));
    for (int i = 0; i < 8; ++i) {
      CHECK(gmb_mailbox_push(made, &push, i % 2 ? stream : other, (gmb_token){0}));
      CHECK(gmb_mailbox_pop(made, &pop, i % 3 ? stream : other, (gmb_token){0}));
    }
    if (round % 3 == 0) CHECK(gmb_mailbox_borrow(made, 0, 2, other, &kept));
    if (pthread_create(&thread, NULL, destroys, &made) != 0 || pthread_join(thread, &status) != 0) abort();
    says("destroyed under way", (gmb_status)(intptr_t)status, GMB_OK);
    says("and again", gmb_mailbox_destroy(made), E(INVALID_HANDLE));
    says("its pushes", gmb_mailbox_push(made, &push, stream, (gmb_token){0}), E(INVALID_HANDLE));
    if (round % 3 == 0) says("its borrow", gmb_borrow_release(kept, stream), GMB_OK);
    CHECK(gmb_stream_destroy(context, other));
  }
}

static void mode_rules(void) {
  static struct function rules = {.name = "mode rules"};
  f = &rules;
  modes_and_policies();
  attached_modes();
  destroyed_under_way();
  round_trip();
}
