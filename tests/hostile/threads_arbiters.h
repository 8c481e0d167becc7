/* Arbiters for threads.c: one that ends while many ask it and others come and go; a mailbox that ends beneath many. */

static gmb_arbiter arbiter;
static gmb_mailbox watched[2];
static atomic_long arbiters_made, arbiters_seen;

static gmb_arbiter_options arbiter_options_of(const gmb_arbitrated *mailboxes, uint32_t count, int round) {
  gmb_arbiter_options options = GMB_ARBITER_OPTIONS_INIT;
  options.count = count;
  options.mailboxes = mailboxes;
  options.slice_ns = round % 3 == 0 ? 20000 : round % 3 == 1 ? 1 : GMB_WAIT_FOREVER;
  return options;
}

/* One that a thread makes, asks and ends. */
static void use_own_arbiter(const gmb_arbitrated *mailboxes, uint32_t count, int round) {
  const gmb_arbiter_options options = arbiter_options_of(mailboxes, count, round);
  gmb_arbiter made;
  gmb_arbiter_info info = {0};
  const gmb_status got = gmb_arbiter_create(context, &options, &made);
  RACING(got);
  if (got != GMB_OK) return;
  ++arbiters_made;
  CHECK(gmb_arbiter_get_info(made, &info, sizeof info));
  if ((info.mailboxes != count || info.focus != count - 1) && ++failures <= 20) printf("another arbiter: %u mailboxes\n", info.mailboxes);
  CHECK(gmb_arbiter_destroy(made));
}

static void make_arbiter(void) {
  static int round;
  const gmb_mailbox_options options = options_of(CAPACITY);
  for (int i = 0; round == 0 && i < 2; ++i) CHECK(gmb_mailbox_create(context, &options, &watched[i]));
  const gmb_arbitrated mailboxes[] = {{watched[0], 0, GMB_CLASS_PERIPHERAL}, {watched[1], 0, GMB_CLASS_FOCUS}};
  const gmb_arbiter_options of = arbiter_options_of(mailboxes, 2, round++);
  CHECK(gmb_arbiter_create(context, &of, &arbiter));
}
static gmb_status end_arbiter(void) { return gmb_arbiter_destroy(arbiter); }
static void use_arbiter(int thread, int turn) {
  const gmb_arbitrated mailboxes[] = {{watched[0], 0, GMB_CLASS_PERIPHERAL}, {watched[1], 0, GMB_CLASS_FOCUS}};
  const gmb_push push = push_of(records[thread], 2);
  const gmb_pop pop = pop_of(records[thread], 2);
  gmb_arbiter_info info = {0};
  gmb_status got;
  switch ((thread + turn) % 6) {
    case 0: RACING(gmb_mailbox_push(watched[turn % 2], &push, streams[turn % 4], (gmb_token){0})); break;
    case 1: RACING(gmb_mailbox_pop(watched[turn % 2], &pop, streams[turn % 4], (gmb_token){0})); break;
    case 2:
      if (turn % 3 == 0) use_own_arbiter(mailboxes, 2, thread);
      break;
    default:
      got = gmb_arbiter_get_info(arbiter, &info, sizeof info);
      RACING(got);
      if (got != GMB_OK) break;
      arbiters_seen += info.heartbeat != 0 || info.slices != 0;
      if ((info.mailboxes != 2 || info.focus != 1) && ++failures <= 20) printf("another arbiter: %u mailboxes\n", info.mailboxes);
  }
}

/* The arbiter that was made over the mailbox of the round before ends with the next one. It leaves by itself: the end of a mailbox
 * that the host has pushed to waits for that. */
static void make_watched_mailbox(void) {
  static int round;
  if (round > 0) CHECK(gmb_arbiter_destroy(arbiter));
  make_mailbox();
  const gmb_arbitrated mailboxes[] = {{mailbox, 0, GMB_CLASS_FOCUS}, {watched[0], 0, GMB_CLASS_PERIPHERAL}};
  const gmb_arbiter_options of = arbiter_options_of(mailboxes, 2, round++ % 2);
  CHECK(gmb_arbiter_create(context, &of, &arbiter));
}
static void use_watched_mailbox(int thread, int turn) {
  const gmb_arbitrated mailboxes[] = {{watched[1], 0, GMB_CLASS_FOCUS}, {mailbox, 0, GMB_CLASS_PERIPHERAL}};
  gmb_arbiter_info info;
  switch ((thread + turn) % 8) {
    case 3:
      if (turn % 3 == 0) use_own_arbiter(mailboxes, 2, thread);
      break;
    case 7: CHECK(gmb_arbiter_get_info(arbiter, &info, sizeof info)); break;
    default: use_mailbox(thread, turn);
  }
}

static void check_arbiters(void) {
  if (arbiters_seen == 0 && ++failures <= 20) printf("no arbiter ever came\n");
  if (arbiters_made == 0 && ++failures <= 20) printf("no arbiter was made beside others\n");
  CHECK(gmb_arbiter_destroy(arbiter));
  for (int i = 0; i < 2; ++i) CHECK(gmb_mailbox_destroy(watched[i]));
}
