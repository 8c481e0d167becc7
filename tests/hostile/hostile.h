/* What the hostile programs share: the structs that calls are given, and time for what other threads do. Nothing here calls
 * the library: process.c opens it itself. */
#ifndef GMB_HOSTILE_H
#define GMB_HOSTILE_H

#include <gpumailbox.h>
#include <gpumailbox/arrow.h>
#include <gpumailbox/dlpack.h>

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PAYLOAD = 64 };

static inline gmb_mailbox_options options_of(uint64_t capacity) {
  gmb_mailbox_options options = GMB_MAILBOX_OPTIONS_INIT;
  options.payload_bytes = PAYLOAD;
  options.capacity = capacity;
  return options;
}

static inline gmb_push push_of(const void *records, uint32_t count) {
  gmb_push push = GMB_PUSH_INIT;
  push.count = count;
  push.records = records;
  push.length = PAYLOAD;
  return push;
}

static inline gmb_pop pop_of(void *records, uint32_t max) {
  gmb_pop pop = GMB_POP_INIT;
  pop.max = max;
  pop.records = records;
  return pop;
}

static inline gmb_tensor_mailbox_options tensor_options_of(uint64_t capacity, gmb_consumer consumer, gmb_full_policy policy) {
  gmb_tensor_mailbox_options options = GMB_TENSOR_MAILBOX_OPTIONS_INIT;
  options.capacity = capacity;
  options.consumer = consumer;
  options.full_policy = policy;
  return options;
}

static inline bool is_host(const gmb_context_info *info) { return info->backend == GMB_BACKEND_HOST; }

/* The device of a context as DLPack has it. */
static inline DLDevice device_of(const gmb_context_info *info) {
  return is_host(info) ? (DLDevice){kDLCPU, 0} : (DLDevice){kDLCUDA, (int32_t)info->device};
}

static inline DLManagedTensorVersioned managed(DLTensor tensor, void (*deleter)(DLManagedTensorVersioned *), void *owner) {
  return (DLManagedTensorVersioned){{DLPACK_MAJOR_VERSION, DLPACK_MINOR_VERSION}, owner, deleter, 0, tensor};
}

/* A tensor of one dimension on the heap, which its deleter frees. */
static inline DLManagedTensorVersioned *new_tensor(void *memory, DLDevice device, int64_t *bytes,
                                                   void (*deleter)(DLManagedTensorVersioned *), void *owner) {
  DLManagedTensorVersioned *made = malloc(sizeof *made);
  if (made == NULL) abort();
  *made = managed((DLTensor){memory, device, 1, {kDLUInt, 8, 1}, bytes, NULL, 0}, deleter, owner);
  return made;
}

static inline void no_function(void *unused) { (void)unused; }
static inline void no_log(gmb_log_level level, const char *text, void *unused) { (void)level, (void)text, (void)unused; }

/* Ten seconds for what other threads do; whether it came, the condition says afterwards. */
#define give_time(condition) \
  for (int i_ = 0; i_ < 100000 && !(condition); ++i_) usleep(100)

#endif
