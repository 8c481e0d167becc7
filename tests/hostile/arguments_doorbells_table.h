/* Doorbells and FIFOs for arguments.c: what the calls need, and the rows. Nothing serves a doorbell here until the rules at the
 * end: so what is submitted stays, and a doorbell that is submitted to is a new one each time. */

enum { COMMANDS = 4, FIFO_RECORDS = 16, RECORD = sizeof(gmb_fifo_record), MOST_SLOTS_MAPPED = GMB_MOST_MAPPED };

static gmb_doorbell stale_bell, foreign_bell, full_bell, served_bell;
static gmb_fifo stale_fifo, empty_fifo;
static gmb_command_id under_way, collected;
static gmb_worker serving;
static gmb_fifo_record host_records[32];

static gmb_doorbell make_a_bell(gmb_context of, uint64_t capacity) {
  gmb_doorbell_options options = GMB_DOORBELL_OPTIONS_INIT;
  gmb_doorbell made;
  options.capacity = capacity;
  CHECK(gmb_doorbell_create(of, &options, &made));
  return made;
}

static gmb_fifo make_a_fifo(gmb_context of) {
  gmb_fifo_options options = GMB_FIFO_OPTIONS_INIT;
  gmb_fifo made;
  options.capacity = FIFO_RECORDS;
  CHECK(gmb_fifo_create(of, &options, &made));
  return made;
}

static gmb_worker worker_of_bell(gmb_doorbell of, uint64_t slice_ns) {
  gmb_worker_options options = GMB_WORKER_OPTIONS_INIT;
  gmb_worker made;
  options.active = used;
  options.doorbell = of;
  options.slice_ns = slice_ns;
  CHECK(gmb_worker_create(&options, &made));
  return made;
}

static const gmb_command ping = {GMB_COMMAND_PING, 0, {1, 2, 3}};

static void make_doorbells(void) {
  gmb_worker_result result;
  gmb_answer answer;
  bell = make_a_bell(context, COMMANDS);
  full_bell = make_a_bell(context, 1);
  served_bell = make_a_bell(context, COMMANDS);
  foreign_bell = make_a_bell(foreign_context, COMMANDS);
  stale_bell = make_a_bell(context, COMMANDS);
  CHECK(gmb_doorbell_destroy(stale_bell));
  CHECK(gmb_doorbell_submit(full_bell, &ping, 0, NULL));
  /* One that was collected, and one that stays. */
  CHECK(gmb_doorbell_submit(bell, &ping, 0, &collected));
  serving = worker_of_bell(bell, 0);
  CHECK(gmb_worker_start(serving));
  CHECK(gmb_doorbell_wait(bell, collected, GMB_WAIT_FOREVER, &answer));
  CHECK(gmb_worker_stop(serving));
  CHECK(gmb_worker_wait(serving, GMB_WAIT_FOREVER, &result));
  CHECK(gmb_worker_destroy(serving));
  CHECK(gmb_doorbell_submit(bell, &ping, 0, &under_way));
  serving = worker_of_bell(served_bell, 0);
  fifo = make_a_fifo(context);
  empty_fifo = make_a_fifo(context);
  stale_fifo = make_a_fifo(context);
  CHECK(gmb_fifo_destroy(stale_fifo));
}

/* ---- The calls ---- */

#define BELL(i) ((gmb_doorbell){a[i]})
#define COMMAND(i) ((gmb_command_id){a[i]})
#define FIFO(i) ((gmb_fifo){a[i]})

CALL(doorbell_create) { return gmb_doorbell_create(CONTEXT(0), P(1), P(2)); }
CALL(doorbell_destroy) { return gmb_doorbell_destroy(BELL(0)); }
CALL(doorbell_get_info) { return gmb_doorbell_get_info(BELL(0), P(1), a[2]); }
CALL(doorbell_submit) { return gmb_doorbell_submit(BELL(0), P(1), a[2], P(3)); }
CALL(doorbell_wait) { return gmb_doorbell_wait(BELL(0), COMMAND(1), a[2], P(3)); }
CALL(doorbell_call) { return gmb_doorbell_call(BELL(0), P(1), a[2], P(3)); }
CALL(doorbell_cancel) { return gmb_doorbell_cancel(BELL(0), COMMAND(1)); }
CALL(doorbell_forget) { return gmb_doorbell_forget(BELL(0), COMMAND(1)); }
CALL(doorbell_create_watch) { return gmb_doorbell_create_watch(BELL(0), P(1)); }
CALL(fifo_create) { return gmb_fifo_create(CONTEXT(0), P(1), P(2)); }
CALL(fifo_destroy) { return gmb_fifo_destroy(FIFO(0)); }
CALL(fifo_get_info) { return gmb_fifo_get_info(FIFO(0), P(1), a[2]); }
CALL(fifo_push) { return gmb_fifo_push(FIFO(0), P(1), U32(2), P(3), TOKEN(4)); }
CALL(fifo_pop_to_host) { return gmb_fifo_pop_to_host(FIFO(0), P(1), U32(2), a[3], P(4)); }
CALL(fifo_create_watch) { return gmb_fifo_create_watch(FIFO(0), P(1)); }

static gmb_doorbell fresh_bell;
static gmb_fifo fresh_fifo;
MAKE(bell) { fresh_bell = make_a_bell(context, COMMANDS), a[0] = fresh_bell.id; }
UNDO(bell) { (void)a, (void)status, gmb_doorbell_destroy(fresh_bell); }
/* One that can be forgotten; those of other doorbells are no numbers of this one's. */
MAKE(forgotten) {
  gmb_command_id id;
  make_bell(a);
  CHECK(gmb_doorbell_submit(fresh_bell, &ping, 0, &id));
  a[1] = id.id;
}
UNDO(doorbell_create) { if (status == GMB_OK) CHECK(gmb_doorbell_destroy(*(gmb_doorbell *)P(2))); }
MAKE(fifo) { fresh_fifo = make_a_fifo(context), a[0] = fresh_fifo.id; }
UNDO(fifo) { (void)a, (void)status, gmb_fifo_destroy(fresh_fifo); }
UNDO(fifo_create) { if (status == GMB_OK) CHECK(gmb_fifo_destroy(*(gmb_fifo *)P(2))); }
UNDO(create_watch) { if (status == GMB_OK) CHECK(gmb_watch_destroy(*(gmb_watch *)P(1))); }

/* ---- The rows ---- */

static void bell_arg(void) { handle("doorbell", bell.id, stale_bell.id, E(INVALID_HANDLE)); }
static void fifo_arg(gmb_fifo good) { handle("fifo", good.id, stale_fifo.id, E(INVALID_HANDLE)); }

static void command_arg(gmb_status good) {
  structure("command", &ping, sizeof ping, 8, E(NULL_POINTER));
  FIELD(gmb_command, code, {0, good, 0}, {GMB_COMMAND_COUNTS, good, 0}, {GMB_COMMAND_USER - 1, good, 0},
        {GMB_COMMAND_USER, good, 0}, {UINT32_MAX, good, 0});
  FIELD(gmb_command, flags, {1, BAD, 0}, {0x80000000u, BAD, 0}, {UINT32_MAX, BAD, 0});
  add(new_slot("argument", f->args - 1, (int)offsetof(gmb_command, argument), 8), VALUES({UINT64_MAX, good, 0}));
}

static void id_arg(void) {
  WORD("id", under_way.id, {0, BAD, 0}, {collected.id, BAD, 0}, {under_way.id + 1, BAD, 0}, {under_way.id ^ HIGH_BIT, BAD, 0},
       {under_way.id | (uint64_t)1 << 32, BAD, 0}, {UINT64_MAX, BAD, 0}, {UINT64_MAX - 1, BAD, 0}, {bell.id, BAD, ALONE});
}

/* Capacities of what lies in pinned memory; the largest is made once, for its time. */
#define CAPACITIES                                                                                                     \
  {0, BAD, 0}, {1, GMB_OK, 0}, {3, BAD, 0}, {MOST_SLOTS_MAPPED - 1, BAD, 0}, {MOST_SLOTS_MAPPED, GMB_OK, ALONE}, \
      {MOST_SLOTS_MAPPED + 1, E(OVERFLOW), 0}, {MOST_SLOTS_MAPPED * 2, E(OVERFLOW), 0},                               \
      {(uint64_t)1 << 32, E(OVERFLOW), 0}, {HIGH_BIT, E(OVERFLOW), 0}, {UINT64_MAX, E(OVERFLOW), 0}

static void describe_doorbells(void) {
  static gmb_doorbell_options options = GMB_DOORBELL_OPTIONS_INIT;
  FUNCTION(doorbell_create, doorbell_create, GMB_OK, NULL, undo_doorbell_create);
  context_arg();
  input("options", &options, sizeof options, 8, E(NULL_POINTER));
  FIELD(gmb_doorbell_options, reserved, {1, BAD, 0}, {UINT32_MAX, BAD, 0});
  FIELD(gmb_doorbell_options, capacity, CAPACITIES);
  output("doorbell", 8);
  FUNCTION(doorbell_destroy, doorbell_destroy, GMB_OK, make_bell, undo_bell);
  bell_arg();
  /* A worker serves it. */
  add(&f->slot[0], VALUES({served_bell.id, E(BUSY), 0}));
  FUNCTION(doorbell_get_info, doorbell_get_info, GMB_OK, NULL, NULL);
  bell_arg();
  add(&f->slot[0], VALUES({served_bell.id, GMB_OK, 0}));
  info_args(sizeof(gmb_doorbell_info));
  FUNCTION(doorbell_submit, doorbell_submit, GMB_OK, make_bell, undo_bell);
  bell_arg();
  add(&f->slot[0], VALUES({full_bell.id, E(FULL), 0}));
  command_arg(GMB_OK);
  WORD("timeout_ns", 0, {1, GMB_OK, 0}, {1000, GMB_OK, 0}, {HIGH_BIT, GMB_OK, ALONE}, {UINT64_MAX - 1, GMB_OK, ALONE},
       {GMB_WAIT_FOREVER, GMB_OK, ALONE});
  output("id", 8);
  f->slot[f->slots - 1].values[0].wanted = GMB_OK;
  FUNCTION(doorbell_wait, doorbell_wait, E(TIMEOUT), NULL, NULL);
  bell_arg();
  id_arg();
  WORD("timeout_ns", 0, {1, E(TIMEOUT), 0}, {1000, E(TIMEOUT), 0});
  output("answer", 8);
  FUNCTION(doorbell_call, doorbell_call, E(TIMEOUT), make_bell, undo_bell);
  bell_arg();
  add(&f->slot[0], VALUES({full_bell.id, E(FULL), 0}));
  command_arg(E(TIMEOUT));
  WORD("timeout_ns", 0, {1, E(TIMEOUT), 0}, {1000, E(TIMEOUT), 0});
  output("answer", 8);
  FUNCTION(doorbell_cancel, doorbell_cancel, GMB_OK, NULL, NULL);
  bell_arg();
  id_arg();
  FUNCTION(doorbell_forget, doorbell_forget, GMB_OK, make_forgotten, undo_bell);
  bell_arg();
  WORD("id", 1, {0, BAD, 0}, {1000, BAD, 0}, {HIGH_BIT + 1, BAD, 0}, {UINT64_MAX, BAD, 0}, {UINT64_MAX - 1, BAD, 0});
  FUNCTION(doorbell_create_watch, doorbell_create_watch, GMB_OK, NULL, undo_create_watch);
  bell_arg();
  output("watch", 8);
}

/* The field of gmb_worker_options, which its first version did not have. */
static void describe_worker_doorbells(void) {
  const gmb_status gone = E(INVALID_HANDLE), wrong = E(STRUCT_SIZE);
  const uint64_t first = offsetof(gmb_worker_options, doorbell), size = sizeof(gmb_worker_options);
  for (size_t i = 0; i < function_count; ++i) {
    if (functions[i].call == call_worker_create) f = &functions[i];
  }
  struct slot *sizes = &f->slot[1];
  for (size_t i = 0; i < sizes->count; ++i) {
    if (sizes->values[i].bits == size - 1) sizes->values[i] = (struct value){first - 1, wrong, 0};
  }
  add(sizes, VALUES({first, GMB_OK, ALONE}, {size - 1, GMB_OK, ALONE}));
  add(new_slot("doorbell", 0, (int)first, 8),
      VALUES({stale_bell.id, gone, 0}, {1, gone, 0}, {UINT64_MAX, gone, 0}, {bell.id ^ HIGH_BIT, gone, 0}, {GARBAGE, gone, 0},
             {queue.id, gone, ALONE}, {fifo.id, gone, 0}, {foreign_bell.id, BAD, 0}, {served_bell.id, E(BUSY), 0},
             {bell.id, GMB_OK, 0}));
}

static void describe_fifos(void) {
  static gmb_fifo_options options = GMB_FIFO_OPTIONS_INIT;
  FUNCTION(fifo_create, fifo_create, GMB_OK, NULL, undo_fifo_create);
  context_arg();
  input("options", &options, sizeof options, 8, E(NULL_POINTER));
  FIELD(gmb_fifo_options, reserved, {1, BAD, 0}, {UINT32_MAX, BAD, 0});
  FIELD(gmb_fifo_options, capacity, CAPACITIES);
  output("fifo", 8);
  FUNCTION(fifo_destroy, fifo_destroy, GMB_OK, make_fifo, undo_fifo);
  fifo_arg(fifo);
  FUNCTION(fifo_get_info, fifo_get_info, GMB_OK, NULL, NULL);
  fifo_arg(fifo);
  info_args(sizeof(gmb_fifo_info));
  /* It fills, and then takes none. */
  FUNCTION(fifo_push, fifo_push, GMB_OK, NULL, undo_submission);
  fifo_arg(fifo);
  WORD("records", at(memory, 0), {0, E(NULL_POINTER), 0}, {at(memory, 1), E(MISALIGNED), 0}, {at(memory, 4), E(MISALIGNED), 0},
       {at(memory, 8), GMB_OK, 0}, {UINT64_MAX, E(MISALIGNED), 0}, {UINT64_MAX - 7, E(OVERFLOW), 0}, {HIGH_BIT, E(OVERFLOW), 0},
       {GARBAGE, BAD, 0}, {at(memory, BYTES - RECORD), BAD, 0}, {bits_of(host_records), BAD, ALONE});
  WORD("count", ROWS, {0, E(ZERO_COUNT), 0}, {1, GMB_OK, 0}, {FIFO_RECORDS + 1, GMB_OK, 0}, {BYTES / RECORD - 1, GMB_OK, 0},
       {BYTES / RECORD + 1, BAD, 0}, {RECORDS_TOO_MANY, E(OVERFLOW), 0}, {HIGH_BIT >> 32, E(OVERFLOW), 0},
       {UINT32_MAX, E(OVERFLOW), 0});
  stream_arg(GMB_OK);
  token_arg(GMB_OK, GMB_OK, BAD);
  /* One record fits anywhere, and what does not fit may go beyond all. */
  ALSO(GMB_OK, BAD, E(OVERFLOW));
  FUNCTION(fifo_pop_to_host, fifo_pop_to_host, GMB_OK, NULL, NULL);
  fifo_arg(empty_fifo);
  WORD("records", bits_of(host_records), {0, E(NULL_POINTER), 0}, {at(host_records, 1), E(MISALIGNED), 0},
       {at(host_records, 4), E(MISALIGNED), 0}, {at(host_records, 8), GMB_OK, 0}, {UINT64_MAX - 7, E(OVERFLOW), 0},
       {HIGH_BIT, E(OVERFLOW), 0}, {HIGH_BIT - 8, E(OVERFLOW), 0});
  WORD("max", ROWS, {0, E(ZERO_COUNT), 0}, {1, GMB_OK, 0}, {FIFO_RECORDS + 1, GMB_OK, 0}, {RECORDS_TOO_MANY, E(OVERFLOW), 0},
       {HIGH_BIT >> 32, E(OVERFLOW), 0}, {UINT32_MAX, E(OVERFLOW), 0});
  WORD("timeout_ns", 0, {1, GMB_OK, 0}, {1000, GMB_OK, 0});
  output("popped", 8);
  FUNCTION(fifo_create_watch, fifo_create_watch, GMB_OK, NULL, undo_create_watch);
  fifo_arg(fifo);
  output("watch", 8);
}

/* ---- What is certain ---- */

enum { SECOND = 1000000000 };

static void says_answer(const char *what, gmb_status got, const gmb_answer *answer, int32_t status, uint64_t value) {
  says(what, got, GMB_OK);
  if (got == GMB_OK && (answer->status != status || answer->value[0] != value)) says(what, answer->status, status);
}

/* However short the slices are, commands are answered; what is left when the worker ends, too. */
static void serving_in_slices(uint64_t slice_ns) {
  const gmb_doorbell own = make_a_bell(context, COMMANDS), other = make_a_bell(context, COMMANDS);
  const gmb_worker worker = worker_of_bell(own, slice_ns);
  gmb_worker_result result;
  gmb_doorbell_info info = {0};
  gmb_command what = ping;
  gmb_command_id ids[COMMANDS];
  gmb_answer answer = {0};
  for (uint64_t n = 0; n < COMMANDS; ++n) {
    what.argument[0] = n + 1;
    CHECK(gmb_doorbell_submit(own, &what, 0, &ids[n]));
  }
  says("one too many", gmb_doorbell_submit(own, &what, 0, NULL), E(FULL));
  says("one too many, to wait for", gmb_doorbell_call(own, &what, 1000, &answer), E(FULL));
  says("a command of another", gmb_doorbell_wait(other, ids[0], 0, &answer), BAD);
  says("to cancel", gmb_doorbell_cancel(own, ids[1]), GMB_OK);
  says("to cancel again", gmb_doorbell_cancel(own, ids[1]), GMB_OK);
  CHECK(gmb_worker_start(worker));
  says_answer("the last first", gmb_doorbell_wait(own, ids[3], (uint64_t)10 * SECOND, &answer), &answer, GMB_OK, 4);
  says_answer("a cancelled one", gmb_doorbell_wait(own, ids[1], 0, &answer), &answer, E(CANCELLED), 0);
  says("a collected one", gmb_doorbell_wait(own, ids[1], 0, &answer), BAD);
  says("a collected one, to cancel", gmb_doorbell_cancel(own, ids[3]), BAD);
  /* Its slot goes to another one, which is answered, too. */
  CHECK(gmb_doorbell_submit(own, &what, SECOND, &ids[3]));
  what.code = GMB_COMMAND_USER;
  says_answer("of the user's own", gmb_doorbell_call(own, &what, (uint64_t)10 * SECOND, &answer), &answer, E(NOT_SUPPORTED), 0);
  says("a kept one, to cancel", gmb_doorbell_cancel(own, ids[0]), GMB_OK);
  says("one to forget", gmb_doorbell_forget(own, ids[2]), GMB_OK);
  says("and again", gmb_doorbell_forget(own, ids[2]), BAD);
  says("a forgotten one", gmb_doorbell_wait(own, ids[2], 0, &answer), BAD);
  says_answer("and to collect", gmb_doorbell_wait(own, ids[0], 0, &answer), &answer, GMB_OK, 1);
  says_answer("what has its slot", gmb_doorbell_wait(own, ids[3], 0, &answer), &answer, GMB_OK, 4);
  CHECK(gmb_doorbell_get_info(own, &info, sizeof info));
  if (info.outstanding > 1 || info.submitted != COMMANDS + 2 || info.served != 1) says("other counts", BAD, GMB_OK);
  says("while it is served", gmb_doorbell_destroy(own), E(BUSY));
  CHECK(gmb_worker_stop(worker));
  CHECK(gmb_worker_wait(worker, GMB_WAIT_FOREVER, &result));
  /* Nobody takes these: they wait for the next run, which ends before it serves, or does. */
  CHECK(gmb_doorbell_submit(own, &ping, 0, &ids[0]));
  says("with nobody there", gmb_doorbell_wait(own, ids[0], 1000, &answer), E(TIMEOUT));
  CHECK(gmb_worker_start(worker));
  CHECK(gmb_worker_stop(worker));
  CHECK(gmb_worker_wait(worker, GMB_WAIT_FOREVER, &result));
  says("when it has ended", gmb_doorbell_wait(own, ids[0], 0, &answer), GMB_OK);
  if (answer.status != GMB_OK && answer.status != E(NOT_SERVED)) says("its answer", answer.status, E(NOT_SERVED));
  CHECK(gmb_doorbell_submit(own, &ping, 0, &ids[0]));
  CHECK(gmb_worker_destroy(worker));
  says("when none serves it", gmb_doorbell_destroy(own), GMB_OK);
  says("and again", gmb_doorbell_destroy(own), E(INVALID_HANDLE));
  says("of none", gmb_doorbell_wait(own, ids[0], GMB_WAIT_FOREVER, &answer), E(INVALID_HANDLE));
  CHECK(gmb_doorbell_destroy(other));
}

static void records_of_a_fifo(void) {
  const gmb_fifo own = make_a_fifo(context);
  gmb_stream capturing;
  gmb_graph empty;
  gmb_token reports;
  gmb_result result = {0};
  gmb_watch watches = {0};
  uint64_t popped = GARBAGE;
  CHECK(gmb_memory_fill(context, memory, 7, BYTES, stream));
  CHECK(gmb_token_create(context, &reports));
  CHECK(gmb_stream_create(context, GMB_PRIORITY_NORMAL, &capturing));
  CHECK(gmb_stream_begin_capture(context, capturing, GMB_CAPTURE_RELAXED));
  says("into a capture", gmb_fifo_push(own, memory, ROWS, capturing, reports), E(NOT_SUPPORTED));
  CHECK(gmb_stream_end_capture(context, capturing, &empty));
  CHECK(gmb_graph_destroy(empty));
  CHECK(gmb_stream_destroy(context, capturing));
  for (uint32_t rest = FIFO_RECORDS; rest > 0;) {
    const uint32_t count = rest < 7 ? rest : 7;
    CHECK(gmb_fifo_push(own, memory, 7, stream, reports));
    CHECK(gmb_token_wait(reports, GMB_EPOCH_LAST, GMB_WAIT_FOREVER, &result));
    if (result.count != count || !(result.flags & GMB_RESULT_PARTIAL) != (count == 7)) says("another count", BAD, GMB_OK);
    rest -= count;
  }
  for (uint32_t i = 0; i < FIFO_RECORDS; ++i) {
    memset(host_records, 0, sizeof host_records);
    CHECK(gmb_fifo_pop_to_host(own, host_records, 1, GMB_WAIT_FOREVER, &popped));
    if (popped != 1 || host_records[0].word[0] != 0x0707070707070707 || host_records[1].word[0] != 0) says("another record", BAD, GMB_OK);
  }
  says("an empty one", gmb_fifo_pop_to_host(own, host_records, 1, 1000, &popped), GMB_OK);
  if (popped != 0) says("what was not there", BAD, GMB_OK);
  CHECK(gmb_fifo_create_watch(own, &watches));
  says("to watch for none", gmb_watch_arm(watches, 0), E(ZERO_COUNT));
  says("to watch for too many", gmb_watch_arm(watches, FIFO_RECORDS + 1), BAD);
  CHECK(gmb_watch_arm(watches, FIFO_RECORDS));
  CHECK(gmb_fifo_destroy(own));
  says("to watch what is gone", gmb_watch_arm(watches, 1), E(INVALID_HANDLE));
  CHECK(gmb_watch_destroy(watches));
  says("to pop from what is gone", gmb_fifo_pop_to_host(own, host_records, 1, GMB_WAIT_FOREVER, &popped), E(INVALID_HANDLE));
  CHECK(gmb_token_destroy(reports));
}

static void doorbell_rules(void) {
  static struct function rules = {.name = "doorbell rules"};
  gmb_watch watches = {0};
  f = &rules;
  serving_in_slices(0);
  serving_in_slices(1);
  serving_in_slices(20000);
  serving_in_slices(GMB_WAIT_FOREVER);
  records_of_a_fifo();
  CHECK(gmb_worker_destroy(serving));
  CHECK(gmb_doorbell_destroy(served_bell));
  CHECK(gmb_doorbell_create_watch(bell, &watches));
  says("to watch for too many answers", gmb_watch_arm(watches, COMMANDS + 1), BAD);
  CHECK(gmb_watch_arm(watches, COMMANDS));
  CHECK(gmb_doorbell_destroy(bell));
  says("to watch a doorbell that is gone", gmb_watch_arm(watches, 1), E(INVALID_HANDLE));
  CHECK(gmb_watch_destroy(watches));
}
