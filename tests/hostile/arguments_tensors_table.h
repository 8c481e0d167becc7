/* The rows of arguments.c for tensors, and `tensor_rules` for what pairs of values leave open. */

static void tensors_arg(gmb_status device) {
  handle("mailbox", tensors.id, stale_tensors.id, E(INVALID_HANDLE));
  add(&f->slot[f->slots - 1], VALUES({device_tensors.id, device, 0}));
}

static void lease_arg(gmb_status read_only, gmb_status gapped, gmb_status bfloat) {
  handle("lease", lease.id, stale_lease.id, E(INVALID_HANDLE));
  add(&f->slot[f->slots - 1],
      VALUES({read_only_lease.id, read_only, 0}, {gapped_lease.id, gapped, 0}, {bfloat_lease.id, bfloat, 0}));
}

/* Fields of the DLTensor that lies so far behind the beginning of the last argument. */
#define PART(field, ...)                                                                                            \
  add(new_slot(#field, f->args - 1, at_offset + (int)offsetof(DLTensor, field), (int)sizeof(((DLTensor *)0)->field)), \
      VALUES(__VA_ARGS__))
#define ODD(place) {bits_of(place) + 1, E(MISALIGNED), 0}, {bits_of(place) + 4, E(MISALIGNED), 0}

static void dltensor_fields(int at_offset) {
  const gmb_status elsewhere = E(INVALID_DEVICE);
  PART(data, {0, E(NULL_POINTER), 0}, {at(memory, 1), GMB_OK, 0}, {at(memory, BYTES - 1), BAD, 0}, {GARBAGE, BAD, 0},
       {bits_of(host_rows), BAD, 0}, {UINT64_MAX - 7, E(OVERFLOW), 0}, {HIGH_BIT, E(OVERFLOW), 0});
  PART(device.device_type, {0, elsewhere, 0}, {on_the_host() ? kDLCUDA : kDLCPU, elsewhere, 0}, {kDLCUDAHost, elsewhere, 0},
       {kDLCUDAManaged, elsewhere, 0}, {99, elsewhere, 0}, {HIGH_BIT >> 32, elsewhere, 0}, {UINT32_MAX, elsewhere, 0});
  PART(device.device_id, {4096, elsewhere, 0}, {HIGH_BIT >> 32, elsewhere, 0}, {UINT32_MAX, elsewhere, 0});
  PART(ndim, {0, GMB_OK, 0}, {1, GMB_OK, 0}, {8, GMB_OK, 0}, {9, E(NOT_SUPPORTED), 0}, {INT32_MAX, E(NOT_SUPPORTED), 0},
       {UINT32_MAX, BAD, 0}, {HIGH_BIT >> 32, BAD, 0});
  PART(dtype.code, {kDLFloat4_e2m1fn, GMB_OK, 0}, {18, BAD, 0}, {255, BAD, 0});
  PART(dtype.bits, {0, BAD, 0}, {1, GMB_OK, 0}, {255, GMB_OK, 0});
  PART(dtype.lanes, {0, BAD, 0}, {4, GMB_OK, 0}, {UINT16_MAX, BAD, 0});
  PART(shape, {0, E(NULL_POINTER), 0}, ODD(two_by_three), {bits_of(negative_shape), BAD, 0}, {bits_of(least_shape), BAD, 0},
       {bits_of(vast_shape), E(OVERFLOW), 0}, {bits_of(none_shape), GMB_OK, 0}, {bits_of(long_shape), BAD, 0});
  PART(strides, {0, GMB_OK, 0}, ODD(steps), {bits_of(back_steps), BAD, 0}, {bits_of(vast_steps), E(OVERFLOW), 0},
       {bits_of(least_steps), E(OVERFLOW), 0}, {bits_of(no_steps), GMB_OK, 0}, {bits_of(wide_steps), BAD, 0});
  /* Right behind it may lie memory of somebody else, which kernels reach as well. */
  PART(byte_offset, {16, GMB_OK, 0}, {1ull << 40, BAD, 0}, {HIGH_BIT, E(OVERFLOW), 0}, {UINT64_MAX - 7, E(OVERFLOW), 0},
       {UINT64_MAX, E(OVERFLOW), 0});
}

static void tensor_push_args(void) {
  static gmb_tensor_push push = GMB_TENSOR_PUSH_INIT;
  input("push", &push, sizeof push, 8, GMB_OK);
  FIELD(gmb_tensor_push, flags, {GMB_TENSOR_DROP, GMB_OK, 0}, {2, BAD, 0}, {3, BAD, 0}, {HIGH_BIT >> 32, BAD, 0},
        {UINT32_MAX, BAD, 0});
  FIELD(gmb_tensor_push, tag, {UINT64_MAX, GMB_OK, 0});
  FIELD(gmb_tensor_push, timeout_ns, {0, GMB_OK, 0}, {HIGH_BIT, GMB_OK, 0});
  stream_arg(GMB_OK);
}

static void describe_dlpack(void) {
  FUNCTION(tensor_mailbox_push, tensors_push, GMB_OK, NULL, undo_tensors_push);
  tensors_arg(GMB_OK);
  add(&f->slot[0], VALUES({full_tensors.id, E(FULL), 0}, {full_device_tensors.id, E(FULL), 0}));
  structure("tensor", &versioned, sizeof versioned, 8, E(NULL_POINTER));
  FIELD(DLManagedTensorVersioned, version.major, {0, E(BAD_VERSION), 0}, {2, E(BAD_VERSION), 0},
        {UINT32_MAX, E(BAD_VERSION), 0});
  FIELD(DLManagedTensorVersioned, version.minor, {0, GMB_OK, 0}, {UINT32_MAX, GMB_OK, 0});
  FIELD(DLManagedTensorVersioned, manager_ctx, {GARBAGE, GMB_OK, 0});
  FIELD(DLManagedTensorVersioned, deleter, {0, GMB_OK, 0});
  FIELD(DLManagedTensorVersioned, flags, {1, GMB_OK, 0}, {7, GMB_OK, 0}, {UINT64_MAX, GMB_OK, 0});
  dltensor_fields((int)offsetof(DLManagedTensorVersioned, dl_tensor));
  tensor_push_args();
  /* What is empty lies nowhere; other sizes reach where the memory ends, or the address space. */
  ALSO(GMB_OK, BAD, E(OVERFLOW));

  FUNCTION(tensor_mailbox_push_legacy, tensors_push_legacy, GMB_OK, NULL, undo_tensors_push_legacy);
  tensors_arg(GMB_OK);
  add(&f->slot[0], VALUES({full_tensors.id, E(FULL), 0}, {full_device_tensors.id, E(FULL), 0}));
  structure("tensor", &legacy, sizeof legacy, 8, E(NULL_POINTER));
  FIELD(DLManagedTensor, manager_ctx, {GARBAGE, GMB_OK, 0});
  FIELD(DLManagedTensor, deleter, {0, GMB_OK, 0});
  dltensor_fields((int)offsetof(DLManagedTensor, dl_tensor));
  tensor_push_args();
  ALSO(GMB_OK, BAD, E(OVERFLOW));
}

static void describe_arrow(void) {
  const gmb_status no = E(NOT_SUPPORTED), null = E(NULL_POINTER);
  FUNCTION(tensor_mailbox_push_arrow, tensors_push_arrow, GMB_OK, NULL, undo_tensors_push_arrow);
  tensors_arg(GMB_OK);
  add(&f->slot[0], VALUES({full_tensors.id, E(FULL), 0}));
  structure("array", &array, sizeof array, 8, null);
#define ARRAY(field, ...) FIELD(struct ArrowDeviceArray, field, __VA_ARGS__)
  ARRAY(array.length, {UINT64_MAX, BAD, 0}, {HIGH_BIT, BAD, 0}, {0, GMB_OK, 0}, {1, GMB_OK, 0}, {3, BAD, 0},
        {INT64_MAX, E(OVERFLOW), 0}, {INT64_MAX / 3, BAD, 0});
  ARRAY(array.null_count, {1, no, 0}, {UINT64_MAX, no, 0});
  ARRAY(array.offset, {1, BAD, 0}, {UINT64_MAX, BAD, 0}, {HIGH_BIT, BAD, 0}, {INT64_MAX, E(OVERFLOW), 0},
        {INT64_MAX / 3, BAD, 0});
  ARRAY(array.n_buffers, {0, BAD, 0}, {UINT64_MAX, BAD, 0}, {HIGH_BIT, BAD, 0});
  ARRAY(array.n_children, {0, BAD, 0}, {2, BAD, 0}, {UINT64_MAX, BAD, 0});
  ARRAY(array.buffers, {0, null, 0}, ODD(some_validity), {bits_of(no_validity), GMB_OK, 0});
  ARRAY(array.children, {0, null, 0}, ODD(children), {bits_of(no_children), null, 0},
        {bits_of(crooked_children), E(MISALIGNED), 0}, {bits_of(short_children), BAD, 0}, {bits_of(null_children), no, 0},
        {bits_of(dictionary_children), no, 0}, {bits_of(bufferless_children), BAD, 0}, {bits_of(empty_children), null, 0},
        {bits_of(far_children), BAD, 0}, {bits_of(looped_children), GMB_OK, 0});
  ARRAY(array.dictionary, {bits_of(&child), no, 0});
  ARRAY(array.release, {0, BAD, 0});
  ARRAY(array.private_data, {GARBAGE, GMB_OK, 0});
  ARRAY(device_type, {0, E(INVALID_DEVICE), 0}, {on_the_host() ? kDLCUDA : kDLCPU, E(INVALID_DEVICE), 0},
        {kDLCUDAHost, E(INVALID_DEVICE), 0}, {UINT32_MAX, E(INVALID_DEVICE), 0});
  /* On the CPU there are no ordinals, and no events. */
  if (on_the_host()) {
    ARRAY(device_id, {UINT64_MAX, GMB_OK, 0}, {4096, GMB_OK, 0}, {HIGH_BIT, GMB_OK, 0});
    ARRAY(sync_event, {GARBAGE, BAD, 0}, {UINT64_MAX, BAD, 0});
  } else {
    ARRAY(device_id, {UINT64_MAX, E(INVALID_DEVICE), 0}, {4096, E(INVALID_DEVICE), 0}, {HIGH_BIT, E(INVALID_DEVICE), 0},
          {(uint64_t)1 << 32, E(INVALID_DEVICE), 0});
  }
  structure("schema", &schema, sizeof schema, 8, null);
#define TYPE(field, ...) FIELD(struct ArrowSchema, field, __VA_ARGS__)
#define FORMAT(text, status) {bits_of(text), status, 0}
  TYPE(format, {0, null, 0}, FORMAT("", no), FORMAT("u", no), FORMAT("b", no), FORMAT("+l", no), FORMAT("+w", no),
       FORMAT("+w:", no), FORMAT("+w:x", no), FORMAT("+w:99999999999999999999", no), FORMAT("\xff\xfe", no),
       FORMAT("%s%n%n%n", no), FORMAT("+w:-1", BAD), FORMAT("+w:0", GMB_OK), FORMAT("+w:2", GMB_OK), FORMAT("+w:4", BAD),
       FORMAT("+w:9223372036854775807", E(OVERFLOW)), FORMAT("f", BAD));
  TYPE(name, {GARBAGE, GMB_OK, 0});
  TYPE(metadata, {GARBAGE, GMB_OK, 0});
  TYPE(flags, {UINT64_MAX, GMB_OK, 0});
  TYPE(n_children, {0, BAD, 0}, {2, BAD, 0}, {UINT64_MAX, BAD, 0});
  TYPE(children, {0, null, 0}, ODD(schemas), {bits_of(no_schemas), null, 0}, {bits_of(crooked_schemas), E(MISALIGNED), 0},
       {bits_of(text_schemas), no, 0}, {bits_of(list_schemas), BAD, 0}, {bits_of(formatless_schemas), null, 0});
  TYPE(dictionary, {bits_of(&child_schema), no, 0});
  TYPE(release, {0, BAD, 0});
  TYPE(private_data, {GARBAGE, GMB_OK, 0});
  tensor_push_args();
  ALSO(GMB_OK, BAD, E(OVERFLOW), no);
}

static void describe_tensors(void) {
  static gmb_tensor_mailbox_options options = GMB_TENSOR_MAILBOX_OPTIONS_INIT;
  options.capacity = TENSORS;
  FUNCTION(tensor_mailbox_create, tensors_create, GMB_OK, NULL, undo_tensors_create);
  context_arg();
  input("options", &options, sizeof options, 8, E(NULL_POINTER));
  FIELD(gmb_tensor_mailbox_options, consumer, OUT_OF_RANGE, {GMB_CONSUMER_DEVICE, GMB_OK, 0}, {2, BAD, 0});
  FIELD(gmb_tensor_mailbox_options, capacity, {0, BAD, 0}, {1, GMB_OK, 0}, {3, BAD, 0}, {(1 << 20) - 1, BAD, 0},
        {1 << 20, GMB_OK, 0}, {(1 << 20) + 1, E(OVERFLOW), 0}, {1 << 21, E(OVERFLOW), 0}, {HIGH_BIT, E(OVERFLOW), 0},
        {UINT64_MAX, E(OVERFLOW), 0});
  FIELD(gmb_tensor_mailbox_options, full_policy, OUT_OF_RANGE, {GMB_FULL_WAIT, GMB_OK, 0}, {GMB_FULL_LATEST, GMB_OK, 0},
        {4, BAD, 0});
  FIELD(gmb_tensor_mailbox_options, reserved, {1, BAD, 0}, {UINT32_MAX, BAD, 0});
  output("mailbox", 8);
  ALSO(E(NOT_SUPPORTED), E(MEMORY_LIMIT));
  FUNCTION(tensor_mailbox_destroy, tensors_destroy, GMB_OK, make_tensors_to_destroy, undo_tensors);
  tensors_arg(GMB_OK);
  /* This one stays. */
  f->slot[0].count -= 1;
  FUNCTION(tensor_mailbox_get_info, tensors_get_info, GMB_OK, NULL, NULL);
  tensors_arg(GMB_OK);
  info_args(sizeof(gmb_tensor_mailbox_info));
  describe_dlpack();
  describe_arrow();

  FUNCTION(tensor_mailbox_pop, tensors_pop, GMB_OK, make_tensor_to_pop, undo_tensors_pop);
  tensors_arg(E(NOT_SUPPORTED));
  add(&f->slot[0], VALUES({empty_tensors.id, GMB_NOT_READY, ALONE}));
  stream_arg(GMB_OK);
  WORD("timeout_ns", 0, {1, GMB_OK, 0}, {HIGH_BIT, GMB_OK, 0}, {GMB_WAIT_FOREVER, GMB_OK, 0});
  output("lease", 8);
  output("tensor", 8);
  f->slot[f->slots - 1].values[0].wanted = GMB_OK;
  FUNCTION(tensor_mailbox_pop_dlpack, tensors_pop_dlpack, GMB_OK, make_tensor_to_pop, undo_tensors_pop_dlpack);
  tensors_arg(E(NOT_SUPPORTED));
  add(&f->slot[0], VALUES({empty_tensors.id, GMB_NOT_READY, ALONE}));
  stream_arg(GMB_OK);
  WORD("timeout_ns", 0, {1, GMB_OK, 0}, {HIGH_BIT, GMB_OK, 0}, {GMB_WAIT_FOREVER, GMB_OK, 0});
  output("tensor", 8);
  FUNCTION(tensor_mailbox_get_view, tensors_get_view, GMB_OK, NULL, NULL);
  handle("mailbox", device_tensors.id, stale_tensors.id, E(INVALID_HANDLE));
  add(&f->slot[0], VALUES({tensors.id, E(NOT_SUPPORTED), 0}));
  stream_arg(GMB_OK);
  output("view", 8);

  FUNCTION(lease_use, lease_use, GMB_OK, NULL, NULL);
  lease_arg(GMB_OK, GMB_OK, GMB_OK);
  stream_arg(GMB_OK);
  FUNCTION(lease_release, lease_release, GMB_OK, make_lease, undo_lease);
  handle("lease", lease.id, stale_lease.id, E(INVALID_HANDLE));
  FUNCTION(lease_to_dlpack, lease_to_dlpack, GMB_OK, NULL, undo_lease_to_dlpack);
  lease_arg(GMB_OK, GMB_OK, GMB_OK);
  output("tensor", 8);
  FUNCTION(lease_to_dlpack_legacy, lease_to_dlpack_legacy, GMB_OK, NULL, undo_lease_to_dlpack_legacy);
  lease_arg(E(NOT_SUPPORTED), GMB_OK, GMB_OK);
  output("tensor", 8);
  FUNCTION(lease_to_arrow, lease_to_arrow, GMB_OK, NULL, undo_lease_to_arrow);
  lease_arg(GMB_OK, E(NOT_SUPPORTED), E(NOT_SUPPORTED));
  output("array", 8);
  output("schema", 8);
}

/* ---- What is certain ---- */

/* A call that must give this status, after which so many deleters have run, and so many are still to run. */
static void gives(const char *what, gmb_status got, gmb_status wanted, int ends) {
  ++calls;
  wait_for_end(ends);
  usleep(got == wanted && got == GMB_OK ? 0 : 200);
  if (got != wanted || ended != ends) {
    ++failures;
    printf("%s: status %d, wanted %s; %d deleter calls, wanted %d\n", what, got, gmb_status_name(wanted), (int)ended, ends);
  }
  ended = 0;
}
#define GIVES(call, wanted, ends) gives(#call, (call), (wanted), (ends))

static void empty_tensors_and_odd_ones(void) {
  DLManagedTensorVersioned nothing = versioned, nobodys = versioned, newer = versioned;
  nothing.dl_tensor.data = NULL;
  nothing.dl_tensor.shape = none_shape;
  GIVES(gmb_tensor_mailbox_push(tensors, &nothing, NULL, stream), GMB_OK, 0);
  GIVES((empty_all(), GMB_OK), GMB_OK, 1);
  nothing.dl_tensor.strides = NULL;
  nothing.dl_tensor.byte_offset = UINT64_MAX;
  nothing.deleter = NULL;
  GIVES(gmb_tensor_mailbox_push(tensors, &nothing, NULL, stream), GMB_OK, 0);
  nobodys.deleter = NULL;
  GIVES(gmb_tensor_mailbox_push(tensors, &nobodys, NULL, stream), GMB_OK, 0);
  GIVES((empty_all(), GMB_OK), GMB_OK, 0);
  /* Nothing of it may be read but its version and its deleter. */
  newer.version.major = 2;
  newer.flags = UINT64_MAX;
  memset(&newer.dl_tensor, 0xEE, sizeof newer.dl_tensor);
  GIVES(gmb_tensor_mailbox_push(tensors, &newer, NULL, stream), E(BAD_VERSION), 1);
  newer.deleter = NULL;
  GIVES(gmb_tensor_mailbox_push(tensors, &newer, NULL, stream), E(BAD_VERSION), 0);
}

static void want_of_room(void) {
  const gmb_tensor_mailbox patient = make_tensor_mailbox(1, GMB_CONSUMER_HOST, GMB_FULL_WAIT),
                           patient_device = make_tensor_mailbox(1, GMB_CONSUMER_DEVICE, GMB_FULL_WAIT),
                           newest = make_tensor_mailbox(4, GMB_CONSUMER_HOST, GMB_FULL_LATEST),
                           oldest = make_tensor_mailbox(1, GMB_CONSUMER_HOST, GMB_FULL_OVERWRITE_OLDEST);
  DLManagedTensorVersioned one = versioned, two = versioned;
  gmb_tensor_push how = GMB_TENSOR_PUSH_INIT, drop = GMB_TENSOR_PUSH_INIT;
  how.timeout_ns = drop.timeout_ns = 1000;
  drop.flags = GMB_TENSOR_DROP;
  const gmb_tensor_mailbox both[] = {full_tensors, full_device_tensors};
  for (int i = 0; i < 2; ++i) {
    GIVES(gmb_tensor_mailbox_push(both[i], &one, &how, stream), E(FULL), 0);
    GIVES(gmb_tensor_mailbox_push(both[i], &one, &drop, stream), E(FULL), 1);
    GIVES(gmb_tensor_mailbox_push_legacy(both[i], &legacy, &how, stream), E(FULL), 0);
    GIVES(gmb_tensor_mailbox_push_legacy(both[i], &legacy, &drop, stream), E(FULL), 1);
  }
  const gmb_tensor_mailbox waiting[] = {patient, patient_device};
  for (int i = 0; i < 2; ++i) {
    GIVES(gmb_tensor_mailbox_push(waiting[i], &one, NULL, stream), GMB_OK, 0);
    GIVES(gmb_tensor_mailbox_push(waiting[i], &two, &how, stream), E(TIMEOUT), 0);
    GIVES(gmb_tensor_mailbox_push(waiting[i], &two, &drop, stream), E(TIMEOUT), 1);
    GIVES(gmb_tensor_mailbox_destroy(waiting[i]), GMB_OK, 1);
  }
  GIVES(gmb_tensor_mailbox_push(newest, &one, &drop, stream), GMB_OK, 0);
  GIVES(gmb_tensor_mailbox_push(newest, &two, &drop, stream), GMB_OK, 1);
  GIVES(gmb_tensor_mailbox_destroy(newest), GMB_OK, 1);
  GIVES(gmb_tensor_mailbox_push(oldest, &one, &drop, stream), GMB_OK, 0);
  GIVES(gmb_tensor_mailbox_push(oldest, &two, &drop, stream), GMB_OK, 1);
  GIVES(gmb_tensor_mailbox_destroy(oldest), GMB_OK, 1);
}

/* A capture goes on whatever is asked of its stream. */
static void streams_in_capture(void) {
  gmb_tensor_view view;
  gmb_lease popped;
  gmb_graph made;
  gmb_stream capturing;
  DLManagedTensorVersioned *exported;
  DLManagedTensorVersioned one = versioned;
  CHECK(gmb_stream_create(context, GMB_PRIORITY_NORMAL, &capturing));
  CHECK(gmb_tensor_mailbox_push(tensors, &one, NULL, stream));
  CHECK(gmb_stream_begin_capture(context, capturing, GMB_CAPTURE_RELAXED));
  GIVES(gmb_tensor_mailbox_push(tensors, &versioned, NULL, capturing), E(NOT_SUPPORTED), 0);
  GIVES(gmb_tensor_mailbox_push(device_tensors, &versioned, NULL, capturing), E(NOT_SUPPORTED), 0);
  GIVES(gmb_tensor_mailbox_push_legacy(tensors, &legacy, NULL, capturing), E(NOT_SUPPORTED), 0);
  GIVES(gmb_tensor_mailbox_pop(tensors, capturing, 0, &popped, NULL), E(NOT_SUPPORTED), 0);
  GIVES(gmb_tensor_mailbox_pop_dlpack(tensors, capturing, 0, &exported), E(NOT_SUPPORTED), 0);
  GIVES(gmb_tensor_mailbox_get_view(device_tensors, capturing, &view), E(NOT_SUPPORTED), 0);
  GIVES(gmb_lease_use(lease, capturing), E(NOT_SUPPORTED), 0);
  CHECK(gmb_stream_end_capture(context, capturing, &made));
  CHECK(gmb_graph_destroy(made));
  CHECK(gmb_stream_destroy(context, capturing));
  GIVES((empty_all(), GMB_OK), GMB_OK, 1);
}

/* Arrays that never end, and what has no compact form. */
static void arrays_without_end(void) {
  static int64_t broad[2] = {INT64_MAX, INT64_MAX}, none[3] = {INT64_MAX, INT64_MAX, 0};
  struct ArrowDeviceArray endless = array, got;
  struct ArrowSchema its_type = schema, got_type;
  endless.array.children = looped_children;
  its_type.format = "+w:1";
  its_type.children = looped_schemas;
  GIVES(gmb_tensor_mailbox_push_arrow(tensors, &endless, &its_type, NULL, stream), E(NOT_SUPPORTED), 0);
  /* One element, seen very often; and none at all. */
  DLManagedTensorVersioned one = versioned, no_element = versioned;
  one.dl_tensor.shape = broad;
  one.dl_tensor.strides = no_steps;
  gmb_lease wide = lease_of(&one);
  GIVES(gmb_lease_to_arrow(wide, &got, &got_type), E(NOT_SUPPORTED), 0);
  GIVES(gmb_lease_release(wide), GMB_OK, 1);
  no_element.dl_tensor.ndim = 3;
  no_element.dl_tensor.shape = none;
  wide = lease_of(&no_element);
  const gmb_status status = gmb_lease_to_arrow(wide, &got, &got_type);
  if (status == GMB_OK) {
    got.array.release(&got.array);
    got_type.release(&got_type);
  } else {
    GIVES(status, E(NOT_SUPPORTED), 0);
  }
  GIVES(gmb_lease_release(wide), GMB_OK, 1);
}

/* Everything that is made of a lease holds its tensor, whatever ends first. */
static void ends_in_any_order(void) {
  for (int order = 0; order < 24; ++order) {
    DLManagedTensorVersioned one = versioned, *exported;
    DLManagedTensor *older;
    struct ArrowDeviceArray an_array;
    struct ArrowSchema its_type;
    const gmb_lease made = lease_of(&one);
    CHECK(gmb_lease_to_dlpack(made, &exported));
    CHECK(gmb_lease_to_dlpack_legacy(made, &older));
    CHECK(gmb_lease_to_arrow(made, &an_array, &its_type));
    for (int step = 0, which = order % 4; step < 4; ++step, which = (which + (order < 12 ? 1 : 3)) % 4) {
      if (ended != 0) complain(NULL, NULL, NULL, NULL, "ended too early, step", step);
      if (which == 0) CHECK(gmb_lease_release(made));
      if (which == 1) exported->deleter(exported);
      if (which == 2) older->deleter(older);
      if (which == 3) {
        /* Children may be moved out of their parents. */
        struct ArrowArray moved = *an_array.array.children[0];
        an_array.array.children[0]->release = NULL;
        an_array.array.release(&an_array.array);
        if (order % 2) its_type.release(&its_type);
        moved.release(&moved);
        if (!(order % 2)) its_type.release(&its_type);
        if (an_array.array.release || its_type.release || moved.release) {
          complain(NULL, NULL, NULL, NULL, "not marked as released, order", order);
        }
      }
    }
    GIVES(GMB_OK, GMB_OK, 1);
  }
}

static void tensor_rules(void) {
  static struct function rules = {.name = "tensor rules"};
  f = &rules;
  empty_all();
  ended = 0;
  empty_tensors_and_odd_ones();
  want_of_room();
  streams_in_capture();
  arrays_without_end();
  ends_in_any_order();
  settle();
}
