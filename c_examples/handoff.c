/* Tensors handed over by pointer: a producer makes them in its own stream, a consumer uses each on two streams,
 * and it goes back to the producer when both are done with it. handoff.cpp and ../examples/handoff.rs do the same
 * and print the same. */
#include "numbers.h"

#include <gpumailbox/dlpack.h>

#include <stdatomic.h>
#include <string.h>
#include <threads.h>

enum {
  TENSORS = 200,
  CAPACITY = 16,
  DIMENSIONS = 4, /* at most */
  SIZE = 8,       /* of a dimension, at most */
  MOST_BYTES = SIZE * SIZE * SIZE * SIZE * (int)sizeof(float),
  POLLS = 100000000
};

/* A tensor and what it points to. */
typedef struct owned {
  DLManagedTensorVersioned managed;
  int64_t shape[DIMENSIONS];
  gmb_context context;
} owned;

typedef struct producer {
  gmb_context context;
  gmb_tensor_mailbox mailbox;
  DLDevice device;
  uint64_t pushed[TENSORS]; /* addresses; each is written before its push, and read after its pop */
} producer;

static atomic_uint given_back;

/* The library calls this, on a thread of its own, when nobody uses the tensor any more. */
static void give_back(DLManagedTensorVersioned *self) {
  owned *tensor = self->manager_ctx;
  CHECK(gmb_memory_free(tensor->context, self->dl_tensor.data));
  free(tensor);
  atomic_fetch_add(&given_back, 1);
}

static unsigned char content_of(uint64_t number) { return (unsigned char)(1 + number % 250); }
static int32_t dimensions_of(uint64_t number) { return (int32_t)(1 + number % DIMENSIONS); }
static int64_t size_of(uint64_t number, int32_t dimension) {
  return (int64_t)(1 + (number + 3 * (uint64_t)dimension) % SIZE);
}

static uint64_t elements_of(uint64_t number) {
  uint64_t elements = 1;
  for (int32_t i = 0; i < dimensions_of(number); ++i) elements *= (uint64_t)size_of(number, i);
  return elements;
}

static owned *make(const producer *from, uint64_t number) {
  owned *made = calloc(1, sizeof *made);
  MUST(made != NULL, "no memory for a tensor");
  made->context = from->context;
  made->managed.version = (DLPackVersion){DLPACK_MAJOR_VERSION, DLPACK_MINOR_VERSION};
  made->managed.manager_ctx = made;
  made->managed.deleter = give_back;
  DLTensor *tensor = &made->managed.dl_tensor;
  tensor->device = from->device;
  tensor->dtype = (DLDataType){kDLFloat, 32, 1};
  tensor->ndim = dimensions_of(number);
  for (int32_t i = 0; i < tensor->ndim; ++i) made->shape[i] = size_of(number, i);
  tensor->shape = made->shape; /* no strides: rows one behind the other */
  CHECK(gmb_memory_allocate(from->context, elements_of(number) * sizeof(float), &tensor->data));
  return made;
}

static int produce(void *argument) {
  producer *from = argument;
  gmb_stream stream;
  CHECK(gmb_stream_create(from->context, GMB_PRIORITY_NORMAL, &stream));
  for (uint64_t number = 0; number < TENSORS; ++number) {
    owned *tensor = make(from, number);
    void *elements = tensor->managed.dl_tensor.data;
    from->pushed[number] = (uintptr_t)elements;
    CHECK(gmb_memory_fill(from->context, elements, content_of(number), elements_of(number) * sizeof(float), stream));
    /* The fill may still be under way: the consumer's streams will wait for it, no thread does. */
    gmb_tensor_push push = GMB_TENSOR_PUSH_INIT;
    push.tag = number;
    CHECK(gmb_tensor_mailbox_push(from->mailbox, &tensor->managed, &push, stream));
  }
  CHECK(gmb_stream_destroy(from->context, stream));
  return 0;
}

static int is_filled(const unsigned char *bytes, uint64_t count, unsigned char with) {
  return bytes[0] == with && memcmp(bytes, bytes + 1, count - 1) == 0;
}

/* Those under way come back when a thread of the library has seen that their streams are done. */
static gmb_tensor_mailbox_info when_all_are_back(gmb_tensor_mailbox mailbox) {
  gmb_tensor_mailbox_info info;
  int polls = 0;
  do {
    CHECK(gmb_tensor_mailbox_get_info(mailbox, &info, sizeof info));
    thrd_yield();
  } while ((info.released != info.pushed || info.leases > 0) && ++polls < POLLS);
  return info;
}

int main(void) {
  static producer from;
  gmb_context_info device;
  CHECK(gmb_context_create(NULL, &from.context));
  CHECK(gmb_context_get_info(from.context, &device, sizeof device));
  const int on_cuda = device.backend == GMB_BACKEND_CUDA;
  from.device = (DLDevice){on_cuda ? kDLCUDA : kDLCPU, on_cuda ? (int32_t)device.device : 0};
  gmb_tensor_mailbox_options options = GMB_TENSOR_MAILBOX_OPTIONS_INIT;
  options.capacity = CAPACITY;
  options.full_policy = GMB_FULL_WAIT;
  CHECK(gmb_tensor_mailbox_create(from.context, &options, &from.mailbox));
  gmb_stream streams[2];
  void *seen[2];
  for (int i = 0; i < 2; ++i) {
    CHECK(gmb_stream_create(from.context, GMB_PRIORITY_NORMAL, &streams[i]));
    CHECK(gmb_pinned_allocate(from.context, MOST_BYTES, &seen[i]));
  }
  thrd_t thread;
  MUST(thrd_create(&thread, produce, &from) == thrd_success, "no thread");

  uint64_t elements = 0, equal = 0;
  for (uint64_t number = 0; number < TENSORS; ++number) {
    gmb_lease lease;
    gmb_tensor tensor;
    CHECK(gmb_tensor_mailbox_pop(from.mailbox, streams[0], GMB_WAIT_FOREVER, &lease, &tensor));
    MUST(tensor.tag == number, "tensor %" PRIu64 " came after %" PRIu64 " others", tensor.tag, number);
    MUST(tensor.ndim == dimensions_of(number), "it has %d dimensions", (int)tensor.ndim);
    for (int32_t i = 0; i < tensor.ndim; ++i) MUST(tensor.shape[i] == size_of(number, i), "it has another shape");
    equal += tensor.address == from.pushed[number];
    elements += elements_of(number);

    /* The second stream comes after the producer's work, too, and its use of the tensor is waited for. */
    CHECK(gmb_lease_use(lease, streams[1]));
    const void *at = (const char *)(uintptr_t)tensor.address + tensor.byte_offset;
    const uint64_t bytes = elements_of(number) * sizeof(float);
    for (int i = 0; i < 2; ++i) CHECK(gmb_memory_copy(from.context, seen[i], at, bytes, streams[i]));
    /* Both copies may still be under way: the memory stays until they are done. */
    CHECK(gmb_lease_release(lease));
    for (int i = 0; i < 2; ++i) {
      CHECK(gmb_stream_synchronize(from.context, streams[i]));
      MUST(is_filled(seen[i], bytes, content_of(number)), "tensor %" PRIu64 ", stream %d: wrong content", number, i);
    }
  }
  MUST(thrd_join(thread, NULL) == thrd_success, "the producer's thread");
  const gmb_tensor_mailbox_info info = when_all_are_back(from.mailbox);
  printf("%" PRIu64 " tensors handed over, %" PRIu64 " elements, all seen on two streams\n", info.popped, elements);
  printf("%" PRIu64 " pointers equal, %u given back, %" PRIu64 " leases out\n", equal, atomic_load(&given_back),
         info.leases);
  MUST(info.popped == TENSORS && equal == TENSORS && info.leases == 0, "every tensor should have come as it was pushed");
  MUST(info.released == TENSORS && atomic_load(&given_back) == TENSORS, "every tensor should have gone back");

  CHECK(gmb_tensor_mailbox_destroy(from.mailbox));
  for (int i = 0; i < 2; ++i) {
    CHECK(gmb_stream_destroy(from.context, streams[i]));
    CHECK(gmb_pinned_free(from.context, seen[i]));
  }
  CHECK(gmb_context_destroy(from.context));
  return 0;
}
