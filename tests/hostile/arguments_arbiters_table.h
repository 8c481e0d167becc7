/* Arbiters for arguments.c: what the calls need, the rows, and what is certain. One that runs takes the processor's time: the rows
 * come first, and then it ends. */

enum { ARBITRATED = 3, SLICE = 1000000 };

static gmb_arbiter stale_arbiter, fresh_arbiter;
static gmb_mailbox foreign_mailbox;
/* As many as an arbiter takes: the first three are looked at, and of these the last is the hostile one. */
typedef gmb_arbitrated arbitrated_list[GMB_MOST_ARBITRATED];
static arbitrated_list good_list, hostile_lists[32];
static size_t hostile_count;

static gmb_arbiter_options arbiter_options_of(const gmb_arbitrated *mailboxes, uint32_t count, uint64_t slice_ns) {
  gmb_arbiter_options options = GMB_ARBITER_OPTIONS_INIT;
  options.count = count;
  options.mailboxes = mailboxes;
  options.slice_ns = slice_ns;
  return options;
}

static gmb_arbiter make_an_arbiter(void) {
  const gmb_arbiter_options options = arbiter_options_of(good_list, ARBITRATED, SLICE);
  gmb_arbiter made;
  CHECK(gmb_arbiter_create(context, &options, &made));
  return made;
}

static void make_arbiters(void) {
  CHECK(gmb_mailbox_create(foreign_context, &mailbox_options, &foreign_mailbox));
  for (uint32_t i = 0; i < GMB_MOST_ARBITRATED; ++i) {
    good_list[i] = (gmb_arbitrated){i % 2 ? shared : mailbox, 0, i % 3 ? GMB_CLASS_FOCUS : GMB_CLASS_PERIPHERAL};
  }
  arbiter = make_an_arbiter();
  stale_arbiter = make_an_arbiter();
  CHECK(gmb_arbiter_destroy(stale_arbiter));
}

#define ARBITER(i) ((gmb_arbiter){a[i]})
CALL(arbiter_create) { return gmb_arbiter_create(CONTEXT(0), P(1), P(2)); }
CALL(arbiter_destroy) { return gmb_arbiter_destroy(ARBITER(0)); }
CALL(arbiter_get_info) { return gmb_arbiter_get_info(ARBITER(0), P(1), a[2]); }
UNDO(arbiter_create) { if (status == GMB_OK) CHECK(gmb_arbiter_destroy(*(gmb_arbiter *)P(2))); }
MAKE(arbiter) { fresh_arbiter = make_an_arbiter(), a[0] = fresh_arbiter.id; }
UNDO(arbiter) { (void)a, (void)status, gmb_arbiter_destroy(fresh_arbiter); }

static void arbiter_arg(void) { handle("arbiter", arbiter.id, stale_arbiter.id, E(INVALID_HANDLE)); }

/* A list with one hostile entry, among the values of the slot before. */
static void hostile_list(gmb_mailbox of, uint32_t reader, gmb_class class, gmb_status wanted, unsigned how) {
  if (hostile_count == sizeof hostile_lists / sizeof *hostile_lists) abort();
  gmb_arbitrated *list = hostile_lists[hostile_count++];
  memcpy(list, good_list, sizeof good_list);
  list[ARBITRATED - 1] = (gmb_arbitrated){of, reader, class};
  add(&f->slot[f->slots - 1], VALUES({bits_of(list), wanted, how}));
}

static void describe_arbiters(void) {
  static gmb_arbiter_options options;
  const gmb_status gone = E(INVALID_HANDLE);
  const gmb_mailbox no_mailboxes[] = {{0}, stale_mailbox, {1}, {UINT64_MAX}, {mailbox.id ^ HIGH_BIT}, {GARBAGE}, {context.id},
                                      {token.id}, {arbiter.id}};
  const uint32_t no_readers[] = {1, GMB_MAX_READERS - 1, GMB_MAX_READERS, 0x80000000u, UINT32_MAX};
  const gmb_class no_classes[] = {-1, 2, INT32_MIN, INT32_MAX};
  options = arbiter_options_of(good_list, ARBITRATED, SLICE);
  FUNCTION(arbiter_create, arbiter_create, GMB_OK, NULL, undo_arbiter_create);
  context_arg();
  add(&f->slot[0], VALUES({foreign_context.id, BAD, 0}));
  input("options", &options, sizeof options, 8, E(NULL_POINTER));
  FIELD(gmb_arbiter_options, count, {0, E(ZERO_COUNT), 0}, {1, GMB_OK, 0}, {ARBITRATED - 1, GMB_OK, 0},
        {GMB_MOST_ARBITRATED, GMB_OK, 0}, {GMB_MOST_ARBITRATED + 1, BAD, 0}, {0x80000000u, BAD, 0}, {UINT32_MAX, BAD, 0});
  FIELD(gmb_arbiter_options, slice_ns, {0, GMB_OK, 0}, {1, GMB_OK, 0}, {20000, GMB_OK, ALONE}, {HIGH_BIT, GMB_OK, ALONE},
        {UINT64_MAX - 1, GMB_OK, ALONE}, {GMB_WAIT_FOREVER, GMB_OK, 0});
  FIELD(gmb_arbiter_options, mailboxes, {0, E(NULL_POINTER), 0}, {at(good_list, 1), E(MISALIGNED), 0},
        {at(good_list, 2), E(MISALIGNED), 0}, {at(good_list, 4), E(MISALIGNED), 0}, {UINT64_MAX, E(MISALIGNED), 0},
        {UINT64_MAX - 7, E(OVERFLOW), 0}, {HIGH_BIT, E(OVERFLOW), 0}, {HIGH_BIT - 8, E(OVERFLOW), 0});
  for (size_t i = 0; i < sizeof no_mailboxes / sizeof *no_mailboxes; ++i) {
    hostile_list(no_mailboxes[i], 0, GMB_CLASS_FOCUS, gone, i < 2 ? 0 : ALONE);
  }
  for (size_t i = 0; i < sizeof no_readers / sizeof *no_readers; ++i) {
    hostile_list(shared, no_readers[i], GMB_CLASS_FOCUS, BAD, i < 1 ? 0 : ALONE);
  }
  for (size_t i = 0; i < sizeof no_classes / sizeof *no_classes; ++i) {
    hostile_list(mailbox, 0, no_classes[i], BAD, i < 1 ? 0 : ALONE);
  }
  hostile_list(foreign_mailbox, 0, GMB_CLASS_FOCUS, BAD, 0);
  hostile_list(express, 0, GMB_CLASS_FOCUS, E(NOT_SUPPORTED), 0);
  hostile_list(express, 1, 2, BAD, ALONE);
  output("arbiter", 8);
  /* Fewer may leave the hostile one out. */
  ALSO(GMB_OK);
  FUNCTION(arbiter_get_info, arbiter_get_info, GMB_OK, NULL, NULL);
  arbiter_arg();
  info_args(sizeof(gmb_arbiter_info));
  FUNCTION(arbiter_destroy, arbiter_destroy, GMB_OK, make_arbiter, undo_arbiter);
  arbiter_arg();
}

/* After the rows. */
static void end_arbiters(const struct function *done) {
  if (done->call != call_arbiter_destroy) return;
  CHECK(gmb_arbiter_destroy(arbiter));
  CHECK(gmb_mailbox_destroy(foreign_mailbox));
}

/* ---- What is certain ---- */

/* What it tells of a mailbox, by its number. The device's memory is the host's there. */
static bool tells(const gmb_arbiter_info *info, uint32_t number) {
  const gmb_arbiter_header *header = info->arbiter;
  const uint32_t place = header->place[number];
  return (__atomic_load_n(&header->ready[place / 32], __ATOMIC_ACQUIRE) >> place % 32 & 1) != 0;
}

static void must_tell(const char *what, const gmb_arbiter_info *info, uint32_t number, bool ready) {
  if (!on_the_host()) return;
  give_time(tells(info, number) == ready);
  if (tells(info, number) != ready) says(what, BAD, GMB_OK);
}

/* It tells of records whatever its slices are, outlives its mailboxes' handles and its context's, and ends at once. */
static void arbitrating_in_slices(uint64_t slice_ns) {
  gmb_context own;
  gmb_mailbox boxes[2];
  gmb_mailbox_options options = options_of(CAPACITY);
  gmb_arbiter watching;
  gmb_arbiter_info info = {0};
  gmb_result result;
  gmb_record_header headers[1];
  unsigned char row[PAYLOAD] = {0};
  uint32_t length = PAYLOAD;
  CHECK(gmb_context_create(NULL, &own));
  CHECK(gmb_mailbox_create(own, &options, &boxes[0]));
  options.flags = GMB_MAILBOX_SHARED;
  options.readers = 2;
  CHECK(gmb_mailbox_create(own, &options, &boxes[1]));
  gmb_arbitrated list[] = {{boxes[0], 0, GMB_CLASS_PERIPHERAL}, {boxes[1], 1, GMB_CLASS_FOCUS}, {boxes[1], 1, GMB_CLASS_PERIPHERAL}};
  const gmb_arbiter_options of = arbiter_options_of(list, 3, slice_ns);
  CHECK(gmb_arbiter_create(own, &of, &watching));
  /* Not needed after the call. */
  memset(list, CANARY, sizeof list);
  CHECK(gmb_arbiter_get_info(watching, &info, sizeof info));
  if (info.mailboxes != 3 || info.focus != 1 || info.arbiter == NULL) says("another info", BAD, GMB_OK);
  give_time((gmb_arbiter_get_info(watching, &info, sizeof info), info.heartbeat != 0 || info.slices > 1));
  if (info.heartbeat == 0 && info.slices < 2) says("it never came", BAD, GMB_OK);
  for (uint32_t n = 0; n < 2; ++n) {
    must_tell("before", &info, n, false);
    CHECK(gmb_mailbox_push_from_host_blocking(boxes[n], 1, row, PAYLOAD, &length, NULL, GMB_WAIT_FOREVER, &result));
    must_tell("a record", &info, n, true);
    must_tell("of others", &info, 1 - n, false);
    CHECK(gmb_mailbox_pop_to_host_blocking(boxes[n], n, 1, row, PAYLOAD, headers, &result));
    must_tell("when it was taken", &info, n, false);
  }
  CHECK(gmb_mailbox_push_from_host_blocking(boxes[1], 1, row, PAYLOAD, &length, NULL, GMB_WAIT_FOREVER, &result));
  must_tell("the same one twice", &info, 1, true);
  must_tell("the same one twice, again", &info, 2, true);
  CHECK(gmb_context_destroy(own));
  /* A mailbox that the host has pushed to frees its staging buffer, which waits for all kernels, so for one that stays for ever. */
  for (uint32_t n = 2; n-- > 0 && slice_ns != GMB_WAIT_FOREVER;) {
    CHECK(gmb_mailbox_destroy(boxes[n]));
    must_tell("of a mailbox that is gone", &info, 1, true);
  }
  says("when nobody is left", gmb_arbiter_get_info(watching, &info, sizeof info), GMB_OK);
  says("to destroy", gmb_arbiter_destroy(watching), GMB_OK);
  says("and again", gmb_arbiter_destroy(watching), E(INVALID_HANDLE));
  says("what is gone", gmb_arbiter_get_info(watching, &info, sizeof info), E(INVALID_HANDLE));
  for (uint32_t n = 0; n < 2 && slice_ns == GMB_WAIT_FOREVER; ++n) CHECK(gmb_mailbox_destroy(boxes[n]));
}

/* More than there is room for: which of them fails says why, and room that is given back is there again. */
static void arbiters_without_room(const char *what, uint64_t memory_limit, uint32_t percent, gmb_status wanted) {
  enum { MANY = 200 };
  gmb_context_options small = GMB_CONTEXT_OPTIONS_INIT;
  gmb_mailbox_options options = options_of(CAPACITY);
  gmb_context own;
  gmb_mailbox box;
  gmb_arbiter made[MANY];
  gmb_status got = GMB_OK;
  uint32_t count = 0;
  small.memory_limit = memory_limit;
  small.resident_percent = percent;
  CHECK(gmb_context_create(&small, &own));
  CHECK(gmb_mailbox_create(own, &options, &box));
  const gmb_arbitrated list[] = {{box, 0, GMB_CLASS_FOCUS}};
  const gmb_arbiter_options of = arbiter_options_of(list, 1, SLICE);
  while (count < MANY && (got = gmb_arbiter_create(own, &of, &made[count])) == GMB_OK) ++count;
  says(what, got, wanted);
  if (count == 0) says(what, BAD, GMB_OK);
  else CHECK(gmb_arbiter_destroy(made[--count]));
  says("when there is room again", gmb_arbiter_create(own, &of, &made[count]), GMB_OK);
  for (uint32_t i = 0; i <= count; ++i) CHECK(gmb_arbiter_destroy(made[i]));
  CHECK(gmb_mailbox_destroy(box));
  CHECK(gmb_context_destroy(own));
}

static void arbiter_rules(void) {
  static struct function rules = {.name = "arbiter rules"};
  f = &rules;
  arbitrating_in_slices(0);
  arbitrating_in_slices(1);
  arbitrating_in_slices(20000);
  arbitrating_in_slices(GMB_WAIT_FOREVER);
  arbiters_without_room("beyond the memory", (uint64_t)1 << 16, 0, E(MEMORY_LIMIT));
  if (on_the_host()) arbiters_without_room("beyond the budget", 0, 1, E(BUSY));
}
