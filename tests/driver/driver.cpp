/* A made-up libcuda.so.1 that works without a GPU: kernels are the host entry
 * points, and every call has done its work when it returns. It counts the calls
 * by name, as the shim does.
 *
 * symbols.h, which the test writes, has SYMBOL(name) for each function that a
 * driver must have. */
#include <gpumailbox.h>

#include "state.h"

/* The driver, its device and its context. */

EXPORT int cuInit(unsigned) {
  COUNT(cuInit);
  return success;
}

EXPORT int cuDriverGetVersion(int *version) {
  COUNT(cuDriverGetVersion);
  /* Newer than any toolkit. */
  *version = 99000;
  return success;
}

EXPORT int cuDeviceGetCount(int *count) {
  COUNT(cuDeviceGetCount);
  *count = 1;
  return success;
}

EXPORT int cuDeviceGet(int *device, int ordinal) {
  COUNT(cuDeviceGet);
  *device = 0;
  return ordinal == 0 ? success : 101;
}

EXPORT int cuDeviceGetName(char *name, int bytes, int) {
  COUNT(cuDeviceGetName);
  if (bytes < 1) return invalid_value;
  std::strncpy(name, "made-up device", static_cast<size_t>(bytes));
  name[bytes - 1] = 0;
  return success;
}

EXPORT int cuDeviceGetAttribute(int *value, int attribute, int) {
  COUNT(cuDeviceGetAttribute);
  constexpr int multiprocessor_count = 16, memory_pools_supported = 115;
  constexpr int registered_at_its_own_address = 91, host_register_supported = 99;
  const bool host_pointers = attribute == host_register_supported || attribute == registered_at_its_own_address;
  *value = attribute == multiprocessor_count ? 4 : attribute == memory_pools_supported || host_pointers;
  /* Threads of a block in x, y and z, and its shared memory; blocks of a launch. */
  constexpr struct { int attribute, value; } limits[] = {{2, 1024}, {3, 1024}, {4, 64}, {97, 227 << 10}, {5, 0x7fffffff}, {6, 65535}, {7, 65535}};
  for (const auto &limit : limits) {
    if (attribute == limit.attribute) *value = limit.value;
  }
  return success;
}

EXPORT int cuDevicePrimaryCtxRetain(void **context, int) {
  COUNT(cuDevicePrimaryCtxRetain);
  *context = &primary;
  return success;
}

EXPORT int cuDevicePrimaryCtxRelease_v2(int) {
  COUNT(cuDevicePrimaryCtxRelease_v2);
  return success;
}

EXPORT int cuCtxGetCurrent(void **context) {
  COUNT(cuCtxGetCurrent);
  *context = current.top();
  return success;
}

EXPORT int cuCtxGetId(void *context, unsigned long long *id) {
  COUNT(cuCtxGetId);
  if (context != &primary) return invalid_context;
  *id = context_id;
  return success;
}

EXPORT int cuCtxPushCurrent_v2(void *context) {
  COUNT(cuCtxPushCurrent_v2);
  if (context != &primary || current.depth == 64) return invalid_context;
  current.contexts[current.depth++] = context;
  return success;
}

EXPORT int cuCtxPopCurrent_v2(void **context) {
  COUNT(cuCtxPopCurrent_v2);
  if (current.depth == 0) return invalid_context;
  *context = current.contexts[--current.depth];
  return success;
}

EXPORT int cuCtxSynchronize() {
  ENTER(cuCtxSynchronize);
  tell_all();
  return success;
}

EXPORT int cuCtxGetStreamPriorityRange(int *least, int *greatest) {
  ENTER(cuCtxGetStreamPriorityRange);
  *least = 0;
  *greatest = -5;
  return success;
}

EXPORT int cuGetErrorName(int, const char **name) {
  COUNT(cuGetErrorName);
  *name = "CUDA_ERROR_MADE_UP";
  return success;
}

EXPORT int cuGetErrorString(int, const char **text) {
  COUNT(cuGetErrorString);
  *text = "an error of the made-up driver";
  return success;
}

/* Streams and events. */

EXPORT int cuStreamCreateWithPriority(void **handle, unsigned, int priority) {
  ENTER(cuStreamCreateWithPriority);
  *handle = new stream{last_id.fetch_add(1), priority, {true}};
  return success;
}

EXPORT int cuStreamCreate(void **handle, unsigned) {
  ENTER(cuStreamCreate);
  *handle = new stream{last_id.fetch_add(1), 0, {true}};
  return success;
}

EXPORT int cuStreamDestroy_v2(void *handle) {
  ENTER(cuStreamDestroy_v2);
  if (reinterpret_cast<uintptr_t>(handle) <= 2) return invalid_handle;
  return static_cast<stream *>(handle)->alive.exchange(false) ? success : invalid_handle;
}

EXPORT int cuStreamGetId(void *handle, unsigned long long *id) {
  ENTER(cuStreamGetId);
  STREAM(handle);
  *id = stream_of(handle)->id;
  return success;
}

EXPORT int cuStreamGetCtx(void *handle, void **context) {
  ENTER(cuStreamGetCtx);
  STREAM(handle);
  *context = &primary;
  return success;
}

EXPORT int cuStreamGetPriority(void *handle, int *priority) {
  ENTER(cuStreamGetPriority);
  STREAM(handle);
  *priority = stream_of(handle)->priority;
  return success;
}

EXPORT int cuStreamIsCapturing(void *handle, int *status) {
  ENTER(cuStreamIsCapturing);
  STREAM(handle);
  *status = 0;
  return success;
}

EXPORT int cuThreadExchangeStreamCaptureMode(int *mode) {
  COUNT(cuThreadExchangeStreamCaptureMode);
  static thread_local int now;
  std::swap(now, *mode);
  return success;
}

/* There are no graphs here. */
#define WITHOUT(name)          \
  EXPORT int name() {          \
    COUNT(name);               \
    return not_supported;      \
  }
WITHOUT(cuEventRecordWithFlags)
WITHOUT(cuGraphDestroy)
WITHOUT(cuGraphExecDestroy)
WITHOUT(cuGraphInstantiateWithFlags)
WITHOUT(cuGraphLaunch)
WITHOUT(cuGraphRetainUserObject)
WITHOUT(cuStreamBeginCapture_v2)
WITHOUT(cuStreamEndCapture)
WITHOUT(cuStreamGetCaptureInfo_v2)
WITHOUT(cuStreamUpdateCaptureDependencies)
WITHOUT(cuUserObjectCreate)
WITHOUT(cuUserObjectRelease)

EXPORT int cuStreamQuery(void *handle) {
  ENTER(cuStreamQuery);
  STREAM(handle);
  tell_all();
  return success;
}

EXPORT int cuStreamSynchronize(void *handle) {
  ENTER(cuStreamSynchronize);
  STREAM(handle);
  tell_all();
  return success;
}

EXPORT int cuStreamWaitEvent(void *handle, void *awaited, unsigned) {
  ENTER(cuStreamWaitEvent);
  STREAM(handle);
  /* Whatever was recorded is done. */
  return event_of(awaited) ? success : invalid_handle;
}

EXPORT int cuLaunchHostFunc(void *handle, void (*function)(void *), void *data) {
  ENTER(cuLaunchHostFunc);
  STREAM(handle);
  tell_all();
  function(data);
  return success;
}

EXPORT int cuEventCreate(void **handle, unsigned flags) {
  ENTER(cuEventCreate);
  constexpr unsigned disable_timing = 2;
  *handle = new event{(flags & disable_timing) == 0, {true}, {0}};
  return success;
}

EXPORT int cuEventDestroy_v2(void *handle) {
  ENTER(cuEventDestroy_v2);
  event *found = event_of(handle);
  return found && found->alive.exchange(false) ? success : invalid_handle;
}

EXPORT int cuEventRecord(void *handle, void *on) {
  ENTER(cuEventRecord);
  STREAM(on);
  event *found = event_of(handle);
  if (!found) return invalid_handle;
  found->nanoseconds = now();
  return success;
}

EXPORT int cuEventQuery(void *handle) {
  ENTER(cuEventQuery);
  tell_all();
  return event_of(handle) ? success : invalid_handle;
}

EXPORT int cuEventSynchronize(void *handle) {
  ENTER(cuEventSynchronize);
  tell_all();
  return event_of(handle) ? success : invalid_handle;
}

EXPORT int cuEventElapsedTime(float *milliseconds, void *start, void *end) {
  ENTER(cuEventElapsedTime);
  event *const first = event_of(start), *const last = event_of(end);
  for (const event *each : {first, last}) {
    if (!each || !each->timed || each->nanoseconds == 0) return invalid_handle;
  }
  *milliseconds = static_cast<float>(last->nanoseconds - first->nanoseconds) / 1e6f;
  return success;
}

/* Memory. */

EXPORT int cuMemAlloc_v2(uint64_t *address, size_t bytes) {
  ENTER(cuMemAlloc_v2);
  return allocate(address, bytes, nullptr);
}

EXPORT int cuMemFree_v2(uint64_t address) {
  ENTER(cuMemFree_v2);
  return release(address);
}

/* All memory is one allocation: here nobody asks whether an address is good. */
EXPORT int cuPointerGetAttribute(void *value, int attribute, uint64_t) {
  ENTER(cuPointerGetAttribute);
  enum { start = 11, size = 12 };
  if (attribute != start && attribute != size) return invalid_value;
  *static_cast<uint64_t *>(value) = attribute == start ? 0 : PTRDIFF_MAX;
  return success;
}

EXPORT int cuMemHostRegister_v2(void *, size_t, unsigned) {
  ENTER(cuMemHostRegister_v2);
  return success;
}

EXPORT int cuMemHostUnregister(void *) {
  ENTER(cuMemHostUnregister);
  return success;
}

/* As if the primary context was reset, and made again by somebody. */
EXPORT void gmb_driver_renew() { ++context_id; }
/* From now on every call gives this error. */
EXPORT void gmb_driver_break(int error) { broken = error; }

EXPORT int cuMemHostAlloc(void **address, size_t bytes, unsigned) {
  ENTER(cuMemHostAlloc);
  uint64_t found = 0;
  const int result = allocate(&found, bytes, nullptr);
  *address = reinterpret_cast<void *>(found);
  return result;
}

EXPORT int cuMemFreeHost(void *address) {
  ENTER(cuMemFreeHost);
  return release(reinterpret_cast<uint64_t>(address));
}

EXPORT int cuMemcpyAsync(uint64_t to, uint64_t from, size_t bytes, void *handle) {
  ENTER(cuMemcpyAsync);
  STREAM(handle);
  std::memmove(reinterpret_cast<void *>(to), reinterpret_cast<const void *>(from), bytes);
  return success;
}

EXPORT int cuMemsetD8Async(uint64_t to, unsigned char value, size_t bytes, void *handle) {
  ENTER(cuMemsetD8Async);
  STREAM(handle);
  std::memset(reinterpret_cast<void *>(to), value, bytes);
  return success;
}

EXPORT int cuMemPoolCreate(void **handle, const void *) {
  ENTER(cuMemPoolCreate);
  *handle = new pool;
  return success;
}

EXPORT int cuMemPoolDestroy(void *handle) {
  ENTER(cuMemPoolDestroy);
  pool *found = static_cast<pool *>(handle);
  std::lock_guard<std::mutex> gate(found->gate);
  if (!found->alive) return invalid_handle;
  found->alive = false;
  return success;
}

enum { release_threshold = 4, reserved_current = 5, used_current = 7 };

EXPORT int cuMemPoolGetAttribute(void *handle, int attribute, uint64_t *value) {
  ENTER(cuMemPoolGetAttribute);
  pool *found = static_cast<pool *>(handle);
  std::lock_guard<std::mutex> gate(found->gate);
  switch (attribute) {
    case release_threshold: *value = found->threshold; return success;
    case reserved_current: *value = found->reserved; return success;
    case used_current: *value = found->used; return success;
    default: return invalid_value;
  }
}

EXPORT int cuMemPoolSetAttribute(void *handle, int attribute, const uint64_t *value) {
  ENTER(cuMemPoolSetAttribute);
  if (attribute != release_threshold) return invalid_value;
  pool *found = static_cast<pool *>(handle);
  std::lock_guard<std::mutex> gate(found->gate);
  found->threshold = *value;
  return success;
}

EXPORT int cuMemPoolTrimTo(void *handle, size_t keep) {
  ENTER(cuMemPoolTrimTo);
  pool *found = static_cast<pool *>(handle);
  std::lock_guard<std::mutex> gate(found->gate);
  const uint64_t least = found->used > keep ? found->used : keep;
  if (found->reserved > least) found->reserved = least;
  return success;
}

EXPORT int cuMemAllocFromPoolAsync(uint64_t *address, size_t bytes, void *from, void *handle) {
  ENTER(cuMemAllocFromPoolAsync);
  STREAM(handle);
  if (!from) return invalid_value;
  return allocate(address, bytes, static_cast<pool *>(from));
}

EXPORT int cuMemFreeAsync(uint64_t address, void *handle) {
  ENTER(cuMemFreeAsync);
  STREAM(handle);
  return release(address);
}

#include "kernels.h"

/* A function that the list names and this file lacks stops the build here. */
#define SYMBOL(name) (void)&name;
__attribute__((unused)) static void all_are_there() {
#include "symbols.h"
}
#undef SYMBOL
