/* Tensors in the worlds of process.c: one leased, one exported, some queued. */

enum { QUEUED = 2 };

/* What a world has of tensors. */
struct tensors {
  gmb_tensor_mailbox mailbox, device_mailbox;
  gmb_lease lease, released;
  DLManagedTensorVersioned *exported;
  DLManagedTensor *legacy;
  struct ArrowDeviceArray array;
  struct ArrowSchema schema;
};

static atomic_int handed, given_back;
static int64_t few[1] = {16};

/* A tensor of a process is never ended by its children. */
static void give_back(DLManagedTensorVersioned *self) {
  CHECK((pid_t)(intptr_t)self->manager_ctx == getpid());
  ++given_back;
  free(self);
}

static DLManagedTensorVersioned *tensor_at(gmb_context context, void *memory) {
  gmb_context_info info = {0};
  OK(g.context_get_info(context, &info, sizeof info));
  return new_tensor(memory, device_of(&info), few, give_back, (void *)(intptr_t)getpid());
}

static void hand_over(gmb_tensor_mailbox to, gmb_context context, void *memory, gmb_stream stream) {
  ++handed;
  OK(g.tensor_mailbox_push(to, tensor_at(context, memory), NULL, stream));
}

static gmb_lease lease_of_one(struct tensors *t, gmb_context context, void *memory, gmb_stream stream) {
  gmb_lease made;
  hand_over(t->mailbox, context, memory, stream);
  OK(g.tensor_mailbox_pop(t->mailbox, stream, 0, &made, NULL));
  return made;
}

static void make_tensors(struct tensors *t, gmb_context context, void *memory, gmb_stream stream) {
  gmb_tensor_mailbox_options options = tensor_options_of(16, GMB_CONSUMER_HOST, GMB_FULL_REJECT);
  OK(g.tensor_mailbox_create(context, &options, &t->mailbox));
  options.consumer = GMB_CONSUMER_DEVICE;
  OK(g.tensor_mailbox_create(context, &options, &t->device_mailbox));
  t->lease = lease_of_one(t, context, memory, stream);
  OK(g.lease_to_dlpack_legacy(t->lease, &t->legacy));
  OK(g.lease_to_arrow(t->lease, &t->array, &t->schema));
  /* Of this one there is but a managed tensor. */
  hand_over(t->mailbox, context, memory, stream);
  OK(g.tensor_mailbox_pop_dlpack(t->mailbox, stream, 0, &t->exported));
  for (int i = 0; i < QUEUED; ++i) {
    hand_over(t->mailbox, context, memory, stream);
    hand_over(t->device_mailbox, context, memory, stream);
  }
}

static void end_exported(struct tensors *t) {
  t->exported->deleter(t->exported);
  t->legacy->deleter(t->legacy);
  t->schema.release(&t->schema);
  t->array.array.release(&t->array.array);
}

/* A thread of the library gives them back. */
static void wait_for_tensors(void) {
  wait_for(given_back == handed);
}

static void end_tensors(struct tensors *t) {
  end_exported(t);
  OK(g.lease_release(t->lease));
  OK(g.tensor_mailbox_destroy(t->mailbox));
  OK(g.tensor_mailbox_destroy(t->device_mailbox));
}
