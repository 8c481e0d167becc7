/* Hostile endings of tensors, for process.c. */

static void child_of_fork_with_tensors(struct world *w) {
  struct tensors *t = &w->tensors;
  gmb_tensor_mailbox_options options = GMB_TENSOR_MAILBOX_OPTIONS_INIT;
  gmb_tensor_mailbox made;
  gmb_tensor_mailbox_info info;
  gmb_tensor_view view;
  gmb_lease popped;
  DLManagedTensorVersioned pushed = *t->exported, *exported;
  DLManagedTensor pushed_legacy = *t->legacy, *legacy;
  struct ArrowDeviceArray array = t->array;
  struct ArrowSchema schema = t->schema;
  const int before = given_back;
  options.capacity = 4;
  FORKED(g.tensor_mailbox_create(w->context, &options, &made));
  FORKED(g.tensor_mailbox_get_info(t->mailbox, &info, sizeof info));
  FORKED(g.tensor_mailbox_push(t->mailbox, &pushed, NULL, w->stream));
  pushed.version.major = 2;
  FORKED(g.tensor_mailbox_push(t->mailbox, &pushed, NULL, w->stream));
  FORKED(g.tensor_mailbox_push_legacy(t->mailbox, &pushed_legacy, NULL, w->stream));
  FORKED(g.tensor_mailbox_push_arrow(t->mailbox, &array, &schema, NULL, w->stream));
  FORKED(g.tensor_mailbox_pop(t->mailbox, w->stream, GMB_WAIT_FOREVER, &popped, NULL));
  FORKED(g.tensor_mailbox_pop_dlpack(t->mailbox, w->stream, GMB_WAIT_FOREVER, &exported));
  FORKED(g.tensor_mailbox_get_view(t->device_mailbox, w->stream, &view));
  FORKED(g.lease_use(t->lease, w->stream));
  FORKED(g.lease_to_dlpack(t->lease, &exported));
  FORKED(g.lease_to_dlpack_legacy(t->lease, &legacy));
  FORKED(g.lease_to_arrow(t->lease, &array, &schema));
  /* What was exported is ended everywhere, as programs do that know nothing of forks: it does nothing here. */
  end_exported(t);
  FORKED(g.lease_release(t->lease));
  FORKED(g.tensor_mailbox_destroy(t->mailbox));
  FORKED(g.tensor_mailbox_destroy(t->device_mailbox));
  usleep(5000);
  CHECK(given_back == before);
}

/* Tensors that nobody needs, whose stream has work to do. */
static void retire_some(struct world *w, gmb_host_function function) {
  struct tensors *t = &w->tensors;
  gmb_tensor_mailbox_info info;
  t->released = lease_of_one(t, w->context, w->memory, w->stream);
  in_flight(w, function);
  OK(g.lease_release(t->released));
  OK(g.tensor_mailbox_get_info(t->mailbox, &info, sizeof info));
  CHECK(info.retiring > 0 && info.leases == 2);
}

static void fork_while_tensors_retire(void) {
  struct world w;
  gmb_lease unread;
  make(&w);
  /* The tensors queued before come first. */
  for (int i = 0; i < QUEUED; ++i) {
    OK(g.tensor_mailbox_pop(w.tensors.mailbox, w.stream, 0, &unread, NULL));
    OK(g.lease_release(unread));
  }
  wait_for(handed - given_back == 2 + QUEUED);
  OK(g.stream_guard_create(w.context, w.stream, &w.guard));
  retire_some(&w, sleeps);
  fork_and_wait(&w, exit);
  OK(g.stream_guard_destroy(w.guard));
  OK(g.stream_synchronize(w.context, w.stream));
  end(&w);
  wait_for_tensors();
}

static void exit_with_tensors_retiring(void) {
  struct world w;
  make(&w);
  end_exported(&w.tensors);
  in_flight(&w, never_ends);
  /* Waits for what never ends. */
  OK(g.lease_release(w.tensors.lease));
  hand_over(w.tensors.mailbox, w.context, w.memory, w.stream);
  OK(g.tensor_mailbox_destroy(w.tensors.mailbox));
  OK(g.tensor_mailbox_destroy(w.tensors.device_mailbox));
}

static void deleter_that_stays(DLManagedTensorVersioned *self) {
  (void)self;
  never_ends(NULL);
}

static void exit_while_a_deleter_runs(void) {
  struct world w;
  gmb_tensor_mailbox_info info;
  make(&w);
  DLManagedTensorVersioned *stays = tensor_at(w.context, w.memory);
  stays->deleter = deleter_that_stays;
  OK(g.tensor_mailbox_push(w.tensors.mailbox, stays, NULL, w.stream));
  OK(g.tensor_mailbox_destroy(w.tensors.mailbox));
  while (!entered) usleep(100);
  /* It holds nothing that others need. */
  use(&w);
  OK(g.tensor_mailbox_get_info(w.tensors.device_mailbox, &info, sizeof info));
  hand_over(w.tensors.device_mailbox, w.context, w.memory, w.stream);
}

static void exec_with_leases_out(void) {
  struct world w;
  make(&w);
  use(&w);
  retire_some(&w, never_ends);
  execl("/bin/true", "true", (char *)NULL);
  CHECK(false);
}

static void close_with_leases_out(void) {
  struct world w;
  make(&w);
  OK(g.stream_synchronize(w.context, w.stream));
  CHECK(dlclose(library) == 0);
  /* Deleters are not asked for by name. */
  const int before = given_back;
  end_exported(&w.tensors);
  wait_for(given_back == before + 1);
  open_library();
  OK(g.lease_release(w.tensors.lease));
  wait_for(given_back == before + 2);
  w.tensors.lease = lease_of_one(&w.tensors, w.context, w.memory, w.stream);
  OK(g.lease_to_dlpack_legacy(w.tensors.lease, &w.tensors.legacy));
  OK(g.lease_to_dlpack(w.tensors.lease, &w.tensors.exported));
  OK(g.lease_to_arrow(w.tensors.lease, &w.tensors.array, &w.tensors.schema));
  end(&w);
}

/* A deleter that does what a producer would: gives the memory back, asks, and sends the next tensor. */
static struct world *producer;
static atomic_int links;
enum { LINKS = 20 };

static void send_next(void);

static void deleter_that_calls(DLManagedTensorVersioned *self) {
  gmb_tensor_mailbox_info info;
  gmb_lease other;
  OK(g.tensor_mailbox_get_info(producer->tensors.mailbox, &info, sizeof info));
  CHECK(info.retiring > 0);
  OK(g.memory_free(producer->context, self->dl_tensor.data));
  OK(g.stream_synchronize(producer->context, producer->stream));
  /* A lease of its own begins and ends in here. */
  other = lease_of_one(&producer->tensors, producer->context, producer->memory, producer->stream);
  OK(g.lease_use(other, NULL));
  OK(g.lease_release(other));
  free(self);
  if (++links < LINKS) send_next();
}

static void send_next(void) {
  void *memory;
  gmb_lease leased;
  OK(g.memory_allocate(producer->context, 64, &memory));
  DLManagedTensorVersioned *next = tensor_at(producer->context, memory);
  next->deleter = deleter_that_calls;
  OK(g.tensor_mailbox_push(producer->tensors.mailbox, next, NULL, producer->stream));
  OK(g.tensor_mailbox_pop(producer->tensors.mailbox, producer->stream, 0, &leased, NULL));
  OK(g.lease_release(leased));
}

static void deleters_that_call_the_library(void) {
  struct world w;
  gmb_lease unread;
  make(&w);
  for (int i = 0; i < QUEUED; ++i) {
    OK(g.tensor_mailbox_pop(w.tensors.mailbox, w.stream, 0, &unread, NULL));
    OK(g.lease_release(unread));
  }
  producer = &w;
  send_next();
  wait_for(links == LINKS);
  use(&w);
  end(&w);
  wait_for_tensors();
}

/* The last that a context is needed for is a deleter, which ends its handle, too. */
static atomic_int last_words;
static void deleter_that_destroys(DLManagedTensorVersioned *self) {
  OK(g.context_destroy(*(gmb_context *)self->manager_ctx));
  last_words = 1;
}

static void deleter_that_destroys_its_context(void) {
  gmb_tensor_mailbox_options options = GMB_TENSOR_MAILBOX_OPTIONS_INIT;
  options.capacity = 1;
  for (int i = 0; i < 50; ++i) {
    gmb_context context;
    gmb_tensor_mailbox mailbox;
    void *memory;
    last_words = 0;
    OK(g.context_create(NULL, &context));
    OK(g.memory_allocate(context, 64, &memory));
    OK(g.tensor_mailbox_create(context, &options, &mailbox));
    DLManagedTensorVersioned *last = tensor_at(context, memory), *exported;
    last->deleter = deleter_that_destroys;
    last->manager_ctx = &context;
    OK(g.tensor_mailbox_push(mailbox, last, NULL, NULL));
    OK(g.tensor_mailbox_pop_dlpack(mailbox, NULL, 0, &exported));
    OK(g.tensor_mailbox_destroy(mailbox));
    exported->deleter(exported);
    wait_for(last_words);
    CHECK(g.context_destroy(context) == GMB_ERROR_INVALID_HANDLE);
    free(last);
  }
}

static void destroy_before_leases_end(void) {
  for (int order = 0; order < 4; ++order) {
    struct world w;
    DLManagedTensorVersioned *more;
    make(&w);
    OK(g.tensor_mailbox_destroy(w.tensors.mailbox));
    OK(g.tensor_mailbox_destroy(w.tensors.device_mailbox));
    wait_for(handed - given_back == 2);
    CHECK(g.tensor_mailbox_destroy(w.tensors.mailbox) == GMB_ERROR_INVALID_HANDLE);
    end_queues(&w.queues);
    end_pipeline(&w.pipeline);
    end_others(&w, false);
    CHECK(g.context_destroy(w.context) == GMB_ERROR_INVALID_HANDLE);
    OK(g.lease_use(w.tensors.lease, NULL));
    OK(g.lease_to_dlpack(w.tensors.lease, &more));
    if (order % 2) end_exported(&w.tensors);
    OK(g.lease_release(w.tensors.lease));
    CHECK(g.lease_release(w.tensors.lease) == GMB_ERROR_INVALID_HANDLE);
    if (order / 2) more->deleter(more);
    if (order % 2 == 0) end_exported(&w.tensors);
    if (order / 2 == 0) more->deleter(more);
    wait_for_tensors();
  }
}
