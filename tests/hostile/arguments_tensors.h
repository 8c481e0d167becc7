/* Tensors for arguments.c. What a call was given must be ended as often as the header says: never when it is still the
 * caller's, once when the library took it. */

enum { TENSORS = 4 };

static gmb_tensor_mailbox full_tensors, empty_tensors, stale_tensors, device_tensors, full_device_tensors;
static gmb_lease read_only_lease, gapped_lease, bfloat_lease, stale_lease;
static gmb_tensor_view device_view;

/* Deleters, and releases of schemas, that ran. */
static atomic_int ended, schemas_ended;
static int64_t two_by_three[8] = {2, 3, 1, 1, 1, 1, 1, 1}, steps[8] = {3, 1, 1, 1, 1, 1, 1, 1};
static DLManagedTensorVersioned versioned, counted, kept[4];
static DLManagedTensor legacy;
static struct ArrowDeviceArray array;
static struct ArrowSchema schema;

/* The structs as they were before the call: on an error they must be as they were. */
static unsigned char given[2][AREA];

static void end_versioned(DLManagedTensorVersioned *self) { (void)self, ++ended; }
static void end_legacy(DLManagedTensor *self) { (void)self, ++ended; }
static void end_array(struct ArrowArray *self) { self->release = NULL, ++ended; }
static void end_schema(struct ArrowSchema *self) { self->release = NULL, ++schemas_ended; }

static DLTensor good_tensor(void) {
  gmb_context_info info = {0};
  CHECK(gmb_context_get_info(context, &info, sizeof info));
  return (DLTensor){memory, device_of(&info), 2, {kDLFloat, 32, 1}, two_by_three, steps, 0};
}

static DLManagedTensorVersioned good_versioned(void) { return managed(good_tensor(), end_versioned, NULL); }

static gmb_tensor_mailbox_info info_of(gmb_tensor_mailbox of) {
  gmb_tensor_mailbox_info info = {0};
  CHECK(gmb_tensor_mailbox_get_info(of, &info, sizeof info));
  return info;
}

/* Until every tensor is in it, leased, or back at its producer. None overwrites. */
static void rest(gmb_tensor_mailbox of) {
  for (;;) {
    const gmb_tensor_mailbox_info info = info_of(of);
    if (info.released + info.queued + info.leases == info.pushed + info.dropped) return;
    usleep(20);
  }
}

/* Takes out what the call has pushed. */
static void empty_all(void) {
  gmb_lease popped;
  while (gmb_tensor_mailbox_pop(tensors, stream, 0, &popped, NULL) == GMB_OK) CHECK(gmb_lease_release(popped));
  if (info_of(device_tensors).queued > 0) {
    /* As the last line of a kernel would. */
    settle();
    const uint64_t pushed = info_of(device_tensors).pushed;
    for (uint64_t i = pushed > TENSORS ? pushed - TENSORS : 0; i < pushed; ++i) {
      __atomic_store_n(&device_view.released[i % TENSORS], i + 1, __ATOMIC_RELEASE);
    }
    while (info_of(device_tensors).queued > 0) usleep(20);
  }
  const gmb_tensor_mailbox all[] = {tensors, full_tensors, device_tensors, full_device_tensors};
  for (size_t i = 0; i < sizeof all / sizeof *all; ++i) rest(all[i]);
}

static void check_ended(int wanted, int wanted_schemas) {
  empty_all();
  if (ended != wanted) complain(NULL, NULL, NULL, NULL, "deleter calls:", ended);
  if (schemas_ended != wanted_schemas) complain(NULL, NULL, NULL, NULL, "schemas released:", schemas_ended);
  ended = schemas_ended = 0;
}

static gmb_tensor_mailbox make_tensor_mailbox(uint64_t capacity, gmb_consumer consumer, gmb_full_policy policy) {
  const gmb_tensor_mailbox_options options = tensor_options_of(capacity, consumer, policy);
  gmb_tensor_mailbox made;
  CHECK(gmb_tensor_mailbox_create(context, &options, &made));
  return made;
}

static gmb_lease lease_of(DLManagedTensorVersioned *tensor) {
  gmb_lease made;
  CHECK(gmb_tensor_mailbox_push(empty_tensors, tensor, NULL, stream));
  CHECK(gmb_tensor_mailbox_pop(empty_tensors, stream, 0, &made, NULL));
  return made;
}

/* Shapes and strides that are wrong, or odd. */
static int64_t negative_shape[8] = {2, -1, 1, 1, 1, 1, 1, 1}, least_shape[8] = {INT64_MIN, 1, 1, 1, 1, 1, 1, 1},
               vast_shape[8] = {INT64_MAX, INT64_MAX, 1, 1, 1, 1, 1, 1}, none_shape[8] = {0, 3, 1, 1, 1, 1, 1, 1},
               long_shape[8] = {1 << 20, 1 << 12, 1, 1, 1, 1, 1, 1}, back_steps[8] = {-3, -1, 1, 1, 1, 1, 1, 1},
               vast_steps[8] = {INT64_MAX, 1, 1, 1, 1, 1, 1, 1}, least_steps[8] = {INT64_MIN, INT64_MIN, 1, 1, 1, 1, 1, 1},
               no_steps[8], wide_steps[8] = {1 << 12, 1, 1, 1, 1, 1, 1, 1};

/* Children of arrays and of their types. */
static const void *no_validity[1], *some_validity[1], *numbers[2], *null_numbers[2], *far_numbers[2], *nulls[2];
static struct ArrowArray child, short_child, null_child, dictionary_child, bufferless_child, empty_child, far_child,
    looped_child;
static struct ArrowSchema child_schema, text_schema, list_schema, formatless_schema, looped_schema;
static struct ArrowArray *children[1] = {&child}, *short_children[1] = {&short_child}, *null_children[1] = {&null_child},
                         *dictionary_children[1] = {&dictionary_child}, *bufferless_children[1] = {&bufferless_child},
                         *empty_children[1] = {&empty_child}, *far_children[1] = {&far_child}, *no_children[1],
                         *crooked_children[1], *looped_children[1] = {&looped_child};
static struct ArrowSchema *schemas[1] = {&child_schema}, *text_schemas[1] = {&text_schema}, *no_schemas[1],
                          *list_schemas[1] = {&list_schema}, *crooked_schemas[1],
                          *formatless_schemas[1] = {&formatless_schema}, *looped_schemas[1] = {&looped_schema};

static struct ArrowArray good_array(int64_t length, int64_t buffers, const void **of, struct ArrowArray **its_children) {
  return (struct ArrowArray){length, 0, 0, buffers, its_children ? 1 : 0, of, its_children, NULL, end_array, NULL};
}

static struct ArrowSchema good_schema(const char *format, struct ArrowSchema **its_children) {
  return (struct ArrowSchema){format, NULL, NULL, 0, its_children ? 1 : 0, its_children, NULL, end_schema, NULL};
}

/* Two lists of three floats. */
static void make_arrow(void) {
  const DLTensor tensor = good_tensor();
  some_validity[0] = nulls[0] = nulls[1] = numbers[1] = null_numbers[0] = memory;
  far_numbers[1] = pointer_of(at(memory, BYTES - 16));
  child = good_array(6, 2, numbers, NULL);
  short_child = good_array(5, 2, numbers, NULL);
  null_child = good_array(6, 2, nulls, NULL);
  null_child.null_count = -1;
  dictionary_child = child;
  dictionary_child.dictionary = &child;
  bufferless_child = good_array(6, 1, numbers, NULL);
  empty_child = good_array(6, 2, no_validity, NULL);
  empty_child.buffers = null_numbers;
  far_child = good_array(6, 2, far_numbers, NULL);
  looped_child = good_array(6, 2, numbers, looped_children);
  crooked_children[0] = pointer_of(bits_of(&child) + 4);
  crooked_schemas[0] = pointer_of(bits_of(&child_schema) + 4);
  child_schema = good_schema("f", NULL);
  text_schema = good_schema("u", NULL);
  list_schema = good_schema("+w:1", NULL);
  formatless_schema = good_schema(NULL, NULL);
  looped_schema = good_schema("+w:1", looped_schemas);
  array = (struct ArrowDeviceArray){good_array(2, 1, some_validity, children), tensor.device.device_id,
                                    (ArrowDeviceType)tensor.device.device_type, NULL, {0}};
  schema = good_schema("+w:3", schemas);
}

static void make_tensors(void) {
  static int64_t apart[2] = {4, 1};
  versioned = good_versioned();
  legacy = (DLManagedTensor){versioned.dl_tensor, NULL, end_legacy};
  make_arrow();
  tensors = make_tensor_mailbox(TENSORS, GMB_CONSUMER_HOST, GMB_FULL_REJECT);
  full_tensors = make_tensor_mailbox(1, GMB_CONSUMER_HOST, GMB_FULL_REJECT);
  empty_tensors = make_tensor_mailbox(TENSORS, GMB_CONSUMER_HOST, GMB_FULL_REJECT);
  stale_tensors = make_tensor_mailbox(TENSORS, GMB_CONSUMER_HOST, GMB_FULL_REJECT);
  device_tensors = make_tensor_mailbox(TENSORS, GMB_CONSUMER_DEVICE, GMB_FULL_REJECT);
  full_device_tensors = make_tensor_mailbox(1, GMB_CONSUMER_DEVICE, GMB_FULL_REJECT);
  CHECK(gmb_tensor_mailbox_destroy(stale_tensors));
  CHECK(gmb_tensor_mailbox_get_view(device_tensors, stream, &device_view));
  CHECK(gmb_tensor_mailbox_push(full_tensors, &versioned, NULL, stream));
  CHECK(gmb_tensor_mailbox_push(full_device_tensors, &versioned, NULL, stream));
  for (int i = 0; i < 4; ++i) kept[i] = versioned;
  kept[1].flags = DLPACK_FLAG_BITMASK_READ_ONLY;
  kept[2].dl_tensor.strides = apart;
  kept[3].dl_tensor.dtype = (DLDataType){kDLBfloat, 16, 1};
  lease = lease_of(&kept[0]);
  read_only_lease = lease_of(&kept[1]);
  gapped_lease = lease_of(&kept[2]);
  bfloat_lease = lease_of(&kept[3]);
  stale_lease = lease_of(&versioned);
  CHECK(gmb_lease_release(stale_lease));
  rest(empty_tensors);
  ended = 0;
}

/* ---- The calls ---- */

#define TENSORS_OF(i) ((gmb_tensor_mailbox){a[i]})
#define LEASE(i) ((gmb_lease){a[i]})

CALL(tensors_create) { return gmb_tensor_mailbox_create(CONTEXT(0), P(1), P(2)); }
CALL(tensors_destroy) { return gmb_tensor_mailbox_destroy(TENSORS_OF(0)); }
CALL(tensors_get_info) { return gmb_tensor_mailbox_get_info(TENSORS_OF(0), P(1), a[2]); }
CALL(tensors_push) {
  memcpy(given, area[1], sizeof given);
  return gmb_tensor_mailbox_push(TENSORS_OF(0), P(1), P(2), P(3));
}
CALL(tensors_push_legacy) {
  memcpy(given, area[1], sizeof given);
  return gmb_tensor_mailbox_push_legacy(TENSORS_OF(0), P(1), P(2), P(3));
}
CALL(tensors_push_arrow) {
  memcpy(given, area[1], sizeof given);
  return gmb_tensor_mailbox_push_arrow(TENSORS_OF(0), P(1), P(2), P(3), P(4));
}
CALL(tensors_pop) { return gmb_tensor_mailbox_pop(TENSORS_OF(0), P(1), a[2], P(3), P(4)); }
CALL(tensors_pop_dlpack) { return gmb_tensor_mailbox_pop_dlpack(TENSORS_OF(0), P(1), a[2], P(3)); }
CALL(tensors_get_view) { return gmb_tensor_mailbox_get_view(TENSORS_OF(0), P(1), P(2)); }
CALL(lease_use) { return gmb_lease_use(LEASE(0), P(1)); }
CALL(lease_release) { return gmb_lease_release(LEASE(0)); }
CALL(lease_to_dlpack) { return gmb_lease_to_dlpack(LEASE(0), P(1)); }
CALL(lease_to_dlpack_legacy) { return gmb_lease_to_dlpack_legacy(LEASE(0), P(1)); }
CALL(lease_to_arrow) { return gmb_lease_to_arrow(LEASE(0), P(1), P(2)); }

UNDO(tensors_create) { if (status == GMB_OK) CHECK(gmb_tensor_mailbox_destroy(*(gmb_tensor_mailbox *)P(2))); }
MAKE(tensors_to_destroy) {
  fresh.tensors = make_tensor_mailbox(2, GMB_CONSUMER_HOST, GMB_FULL_REJECT);
  counted = versioned;
  CHECK(gmb_tensor_mailbox_push(fresh.tensors, &counted, NULL, stream));
  a[0] = fresh.tensors.id;
}
/* What was in it is given back, later. */
static void wait_for_end(int wanted) {
  while (ended < wanted) usleep(20);
}
UNDO(tensors) {
  (void)a, (void)status, gmb_tensor_mailbox_destroy(fresh.tensors);
  wait_for_end(1);
  check_ended(1, 0);
}

static bool is_as_given(int argument) { return memcmp(given[argument - 1], area[argument], AREA) == 0; }
static bool asks_to_drop(uint64_t push) {
  gmb_tensor_push how = GMB_TENSOR_PUSH_INIT;
  if (push) memcpy(&how, pointer_of(push), sizeof how);
  return how.flags & GMB_TENSOR_DROP;
}

UNDO(tensors_push) {
  const DLManagedTensorVersioned *now = (const void *)area[1];
  const bool taken = status == GMB_OK || status == E(BAD_VERSION) || (status == E(FULL) && asks_to_drop(a[2]));
  check_ended(taken && now->deleter, 0);
  if (!is_as_given(1)) complain(NULL, NULL, NULL, NULL, "changed the tensor, status", status);
}
UNDO(tensors_push_legacy) {
  const DLManagedTensor *now = (const void *)area[1];
  const bool taken = status == GMB_OK || (status == E(FULL) && asks_to_drop(a[2]));
  check_ended(taken && now->deleter, 0);
  if (!is_as_given(1)) complain(NULL, NULL, NULL, NULL, "changed the tensor, status", status);
}
UNDO(tensors_push_arrow) {
  const struct ArrowDeviceArray *now = (const void *)area[1];
  const struct ArrowSchema *its_type = (const void *)area[2];
  const bool taken = status == GMB_OK || (status == E(FULL) && asks_to_drop(a[3]));
  check_ended(taken, taken);
  const bool marked = !now->array.release && !its_type->release;
  if (taken ? !marked : !is_as_given(1) || !is_as_given(2)) {
    complain(NULL, NULL, NULL, NULL, "left array or schema wrong, status", status);
  }
}

MAKE(tensor_to_pop) {
  (void)a;
  gmb_tensor_push how = GMB_TENSOR_PUSH_INIT;
  counted = versioned;
  how.tag = 77;
  CHECK(gmb_tensor_mailbox_push(tensors, &counted, &how, stream));
}
static bool is_ours(const gmb_tensor *tensor) {
  return tensor->address == bits_of(memory) && tensor->tag == 77 && tensor->ndim == 2 && tensor->shape[0] == 2 &&
         tensor->shape[1] == 3 && tensor->shape[2] == 0 && tensor->strides[0] == 3 && tensor->strides[1] == 1 &&
         tensor->byte_offset == 0 && tensor->flags == 0;
}
UNDO(tensors_pop) {
  if (status == GMB_OK && a[4] && !is_ours(P(4))) complain(NULL, NULL, NULL, NULL, "gave another tensor, status", status);
  if (status == GMB_NOT_READY && !(is_clean(area[3], 0) && is_clean(area[4], 0))) {
    complain(NULL, NULL, NULL, NULL, "written output, status", status);
  }
  if (status == GMB_OK) CHECK(gmb_lease_release(*(gmb_lease *)P(3)));
  check_ended(1, 0);
}
UNDO(tensors_pop_dlpack) {
  if (status == GMB_NOT_READY && !is_clean(area[3], 0)) complain(NULL, NULL, NULL, NULL, "written output, status", status);
  if (status == GMB_OK) {
    DLManagedTensorVersioned *got = *(DLManagedTensorVersioned **)P(3);
    if (got->dl_tensor.data != memory || info_of(tensors).leases != 1) {
      complain(NULL, NULL, NULL, NULL, "gave another tensor, status", status);
    }
    got->deleter(got);
  }
  check_ended(1, 0);
}

MAKE(lease) {
  counted = versioned;
  fresh.lease = lease_of(&counted);
  a[0] = fresh.lease.id;
}
UNDO(lease) {
  (void)a, (void)status, gmb_lease_release(fresh.lease);
  wait_for_end(1);
  check_ended(1, 0);
}
UNDO(lease_to_dlpack) {
  if (status != GMB_OK) return;
  DLManagedTensorVersioned *got = *(DLManagedTensorVersioned **)P(1);
  if (got->dl_tensor.data != memory) complain(NULL, NULL, NULL, NULL, "gave another tensor, status", status);
  got->deleter(got);
}
UNDO(lease_to_dlpack_legacy) {
  if (status != GMB_OK) return;
  DLManagedTensor *got = *(DLManagedTensor **)P(1);
  if (got->dl_tensor.data != memory) complain(NULL, NULL, NULL, NULL, "gave another tensor, status", status);
  got->deleter(got);
}
UNDO(lease_to_arrow) {
  if (status != GMB_OK) return;
  struct ArrowDeviceArray *got = P(1);
  struct ArrowSchema *its_type = P(2);
  if (got->array.length != 2 || strcmp(its_type->format, "+w:3") != 0 || got->array.children[0]->buffers[1] != memory) {
    complain(NULL, NULL, NULL, NULL, "gave another array, status", status);
  }
  its_type->release(its_type);
  got->array.release(&got->array);
}
