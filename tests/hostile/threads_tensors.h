/* Tensors for threads.c: each is a piece of the heap, counted when the library takes it and when it gives it back. */

static gmb_tensor_mailbox tensors;
static gmb_lease lease;
static atomic_long handed, given_back;
static DLDevice tensor_device;

static int64_t few[1] = {2};

/* Only ever called on a thread of the library, which waits for the work of streams first. */
static void give_back(DLManagedTensorVersioned *self) {
  if (is_caller && ++failures <= 20) printf("%s: a deleter ran inside a call\n", kind->name);
  ++given_back;
  free(self);
}

static DLManagedTensorVersioned *make_tensor(int thread) {
  return new_tensor(records[thread], tensor_device, few, give_back, NULL);
}

static void make_tensors(void) {
  gmb_context_info info = {0};
  static int round;
  CHECK(gmb_context_get_info(context, &info, sizeof info));
  tensor_device = device_of(&info);
  /* Nobody takes a device's tensors: the destroy gives them back. */
  const gmb_consumer consumer = round % 8 < 2 ? GMB_CONSUMER_DEVICE : GMB_CONSUMER_HOST;
  const gmb_tensor_mailbox_options options = tensor_options_of(CAPACITY, consumer, round++ % 4);
  CHECK(gmb_tensor_mailbox_create(context, &options, &tensors));
}
static gmb_status end_tensors(void) { return gmb_tensor_mailbox_destroy(tensors); }

static void push_tensor(int thread, int turn) {
  gmb_tensor_push how = GMB_TENSOR_PUSH_INIT;
  DLManagedTensorVersioned *made = make_tensor(thread);
  how.flags = turn % 3 == 0 ? GMB_TENSOR_DROP : 0;
  /* The other half waits for room without limit: the destroy must wake them. */
  if (thread % 2) how.timeout_ns = 100000;
  const gmb_status got = gmb_tensor_mailbox_push(tensors, made, &how, streams[turn % 4]);
  if (got == GMB_OK || (how.flags && (got == GMB_ERROR_FULL || got == GMB_ERROR_TIMEOUT))) ++handed;
  else free(made);
  RACING(got);
}

static void use_tensors(int thread, int turn) {
  const uint64_t limit = thread % 2 ? 100000 : GMB_WAIT_FOREVER;
  gmb_tensor_mailbox_info info;
  gmb_tensor_view view;
  gmb_tensor record;
  gmb_lease popped;
  DLManagedTensorVersioned *exported;
  gmb_status got;
  switch ((thread + turn) % 6) {
    case 0:
      got = gmb_tensor_mailbox_pop(tensors, streams[thread % 4], limit, &popped, &record);
      RACING(got);
      if (got == GMB_OK) CHECK(gmb_lease_release(popped));
      break;
    case 1:
      got = gmb_tensor_mailbox_pop_dlpack(tensors, streams[thread % 4], limit, &exported);
      RACING(got);
      if (got == GMB_OK) exported->deleter(exported);
      break;
    case 2: RACING(gmb_tensor_mailbox_get_info(tensors, &info, sizeof info)); break;
    case 3: RACING(gmb_tensor_mailbox_get_view(tensors, streams[turn % 4], &view)); break;
    default: push_tensor(thread, turn);
  }
}

/* A lease outlives its mailbox. */
static void make_lease(void) {
  make_tensors();
  CHECK(gmb_tensor_mailbox_destroy(tensors));
  const gmb_tensor_mailbox_options options = tensor_options_of(1, GMB_CONSUMER_HOST, GMB_FULL_REJECT);
  CHECK(gmb_tensor_mailbox_create(context, &options, &tensors));
  CHECK(gmb_tensor_mailbox_push(tensors, make_tensor(0), NULL, streams[0]));
  ++handed;
  CHECK(gmb_tensor_mailbox_pop(tensors, streams[1], 0, &lease, NULL));
  CHECK(gmb_tensor_mailbox_destroy(tensors));
}
static gmb_status end_lease(void) { return gmb_lease_release(lease); }
static void use_lease(int thread, int turn) {
  DLManagedTensorVersioned *exported;
  DLManagedTensor *older;
  struct ArrowDeviceArray array;
  struct ArrowSchema schema;
  gmb_status got;
  switch ((thread + turn) % 4) {
    case 0: RACING(gmb_lease_use(lease, streams[turn % 4])); break;
    case 1:
      got = gmb_lease_to_dlpack(lease, &exported);
      RACING(got);
      if (got == GMB_OK) exported->deleter(exported);
      break;
    case 2:
      got = gmb_lease_to_dlpack_legacy(lease, &older);
      RACING(got);
      if (got == GMB_OK) older->deleter(older);
      break;
    default:
      got = gmb_lease_to_arrow(lease, &array, &schema);
      RACING(got);
      if (got != GMB_OK) break;
      array.array.release(&array.array);
      schema.release(&schema);
  }
}

/* Every tensor that the library took went back, and none twice: then a piece of the heap would have been freed twice. */
static void check_tensors(void) {
  give_time(given_back >= handed);
  if (handed != given_back || handed == 0) {
    ++failures;
    printf("%ld tensors were handed over, %ld were given back\n", (long)handed, (long)given_back);
  }
}
