/* Doorbells and FIFOs for threads.c: one that nobody serves, whose end wakes who waits; a worker that ends while many talk to it;
 * records whose FIFO goes. */

enum { BELL_COMMANDS = 4, FIFO_RECORDS = 8 };

static gmb_doorbell bell, worker_bell;
static gmb_fifo fifo;
static gmb_queue bell_queue;
static gmb_worker server;
/* Commands that somebody submitted, for others to ask for. */
static _Atomic uint64_t command_ids[8];
static atomic_long commands_answered, records_popped;

static gmb_doorbell bell_of(uint64_t capacity) {
  gmb_doorbell_options options = GMB_DOORBELL_OPTIONS_INIT;
  gmb_doorbell made = {0};
  options.capacity = capacity;
  CHECK(gmb_doorbell_create(context, &options, &made));
  return made;
}

static void use_bell(gmb_doorbell of, int thread, int turn, uint64_t limit) {
  const uint64_t n = (uint64_t)(thread << 16 | turn);
  const gmb_command ping = {GMB_COMMAND_PING, 0, {n, ~n, 7}};
  gmb_doorbell_info info;
  gmb_answer answer = {0};
  gmb_command_id id = {0};
  gmb_watch watches;
  gmb_status got;
  const gmb_command_id other = {command_ids[(thread + turn) % 8]};
  switch ((thread + turn) % 8) {
    case 0:
      got = gmb_doorbell_submit(of, &ping, 1000, &id);
      RACING(got);
      if (got == GMB_OK) command_ids[turn % 8] = id.id;
      break;
    case 1: RACING(gmb_doorbell_submit(of, &ping, 1000, NULL)); break;
    case 2: RACING(gmb_doorbell_wait(of, other, limit, &answer)); break;
    case 3: RACING(turn % 3 == 0 ? gmb_doorbell_forget(of, other) : gmb_doorbell_cancel(of, other)); break;
    case 4: RACING(gmb_doorbell_get_info(of, &info, sizeof info)); break;
    case 5:
      got = gmb_doorbell_create_watch(of, &watches);
      RACING(got);
      if (got != GMB_OK) break;
      RACING(gmb_watch_arm(watches, 1 + n % BELL_COMMANDS));
      CHECK(gmb_watch_destroy(watches));
      break;
    default:
      got = gmb_doorbell_call(of, &ping, limit < 100000 ? limit : 100000, &answer);
      RACING(got);
      if (got != GMB_OK || answer.status == GMB_ERROR_NOT_SERVED) break;
      ++commands_answered;
      if ((answer.status != GMB_OK || answer.value[0] != n || answer.value[1] != ~n) && ++failures <= 20) {
        printf("another answer: status %d\n", answer.status);
      }
  }
}

static void make_bell(void) { bell = bell_of(BELL_COMMANDS); }
static gmb_status end_bell(void) { return gmb_doorbell_destroy(bell); }
/* Every eighth thread waits without limit: the destroy must wake it. */
static void use_unserved_bell(int thread, int turn) { use_bell(bell, thread, turn, thread % 8 == 2 ? GMB_WAIT_FOREVER : 1000); }

/* The doorbell stays, and with it the commands that one worker leaves to the next. */
static void make_server(void) {
  gmb_worker_options options = GMB_WORKER_OPTIONS_INIT;
  gmb_command_id id;
  gmb_answer answer;
  const gmb_command ping = {GMB_COMMAND_PING, 0, {1, 2, 3}};
  static int round;
  if (round == 0) bell_queue = queue_of(QUEUE_ITEMS), worker_bell = bell_of(BELL_COMMANDS);
  options.active = bell_queue;
  options.doorbell = worker_bell;
  options.slice_ns = round % 3 == 0 ? 20000 : round % 3 == 1 ? 1 : GMB_WAIT_FOREVER;
  ++round;
  CHECK(gmb_worker_create(&options, &server));
  CHECK(gmb_worker_start(server));
  /* Answers that nobody collects make no room. */
  for (int i = 0; i < 8; ++i) {
    id.id = command_ids[i];
    gmb_doorbell_wait(worker_bell, id, 1000000000, &answer);
    command_ids[i] = 0;
  }
  for (gmb_status got = GMB_ERROR_FULL; got != GMB_OK;) {
    got = gmb_doorbell_call(worker_bell, &ping, 1000000000, &answer);
    if (got == GMB_OK) break;
    if (got != GMB_ERROR_FULL) CHECK(got);
    /* What nobody noted: its number is one of the last. */
    gmb_doorbell_info info = {0};
    CHECK(gmb_doorbell_get_info(worker_bell, &info, sizeof info));
    for (uint64_t n = info.submitted; n > 0 && n + 4096 > info.submitted; --n) {
      id.id = n;
      gmb_doorbell_wait(worker_bell, id, 0, &answer);
    }
    if (failures > 20) return;
  }
}
static gmb_status end_server(void) { return gmb_worker_destroy(server); }
static void use_server(int thread, int turn) {
  gmb_worker_result result;
  switch ((thread + turn) % 24) {
    case 3: RACING(gmb_worker_stop(server)); break;
    case 9: RACING(gmb_worker_start(server)); break;
    case 15: RACING(gmb_worker_pause(server)); break;
    case 16: RACING(gmb_worker_resume(server)); break;
    case 21: RACING(gmb_worker_wait(server, 1000, &result)); break;
    default: use_bell(worker_bell, thread, turn, 20000);
  }
}

static void make_fifo(void) {
  gmb_fifo_options options = GMB_FIFO_OPTIONS_INIT;
  options.capacity = FIFO_RECORDS;
  CHECK(gmb_fifo_create(context, &options, &fifo));
}
static gmb_status end_fifo(void) { return gmb_fifo_destroy(fifo); }
static void use_fifo(int thread, int turn) {
  gmb_fifo_record into[FIFO_RECORDS];
  gmb_fifo_info info;
  gmb_watch watches;
  uint64_t popped = 0;
  gmb_status got;
  switch ((thread + turn) % 6) {
    case 0: RACING(gmb_fifo_get_info(fifo, &info, sizeof info)); break;
    case 1:
      got = gmb_fifo_create_watch(fifo, &watches);
      RACING(got);
      if (got != GMB_OK) break;
      RACING(gmb_watch_arm(watches, 1 + (uint32_t)turn % FIFO_RECORDS));
      CHECK(gmb_watch_destroy(watches));
      break;
    case 2:
    case 3:
      RACING(gmb_fifo_pop_to_host(fifo, into, FIFO_RECORDS, thread % 8 == 2 ? GMB_WAIT_FOREVER : 10000, &popped));
      records_popped += (long)popped;
      break;
    default: RACING(gmb_fifo_push(fifo, (const gmb_fifo_record *)(const void *)records[thread], 3, streams[turn % 4], (gmb_token){0}));
  }
}

static void check_doorbells(void) {
  if (commands_answered == 0 && ++failures <= 20) printf("no command was ever answered\n");
  if (records_popped == 0 && ++failures <= 20) printf("no record ever came\n");
  CHECK(gmb_doorbell_destroy(worker_bell));
  CHECK(gmb_queue_destroy(bell_queue));
}
