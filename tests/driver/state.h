/* What the made-up driver knows: counts, contexts, late reports, handles, memory. */
#ifndef GMB_TESTS_DRIVER_STATE_H
#define GMB_TESTS_DRIVER_STATE_H

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <unordered_map>
#include <utility>

#define EXPORT extern "C" __attribute__((visibility("default")))

enum {
#define SYMBOL(name) index_of_##name,
#include "symbols.h"
#undef SYMBOL
  symbols
};

static const char *const names[symbols] = {
#define SYMBOL(name) #name,
#include "symbols.h"
#undef SYMBOL
};

static std::atomic<uint64_t> counts[symbols];

EXPORT uint64_t gmb_driver_calls(const char *name) {
  for (int i = 0; i < symbols; ++i) {
    if (std::strcmp(names[i], name) == 0) return counts[i].load(std::memory_order_relaxed);
  }
  return ~static_cast<uint64_t>(0);
}

enum {
  success = 0,
  invalid_value = 1,
  out_of_memory = 2,
  invalid_image = 200,
  invalid_context = 201,
  invalid_handle = 400,
  not_found = 500,
  not_supported = 801,
};

/* There is one device and one context: the primary one of that device. */
static int primary;

/* Without a destructor: calls still come while a thread ends. */
struct context_stack {
  void *contexts[64];
  int depth;
  void *top() const { return depth > 0 ? contexts[depth - 1] : nullptr; }
};
static thread_local context_stack current;

#define COUNT(name) counts[index_of_##name].fetch_add(1, std::memory_order_relaxed)
/* What every call answers once the device is broken; zero while it is not. */
static std::atomic<int> broken{0};

static std::atomic<unsigned long long> context_id{7};
/* For calls that need a context to be current. */
#define ENTER(name)              \
  COUNT(name);                   \
  if (broken != 0) return broken; \
  if (current.top() != &primary) return invalid_context

/* Reports without a token reach the host late, as they may on a GPU: at the next launch of
 * their side or with a token, or with the next question to the driver. Without this nobody would
 * ever find an operation under way and wait for it. */
static std::mutex late_gate;
static auto &late = *new std::unordered_map<uint64_t *, uint64_t>;

static void tell(uint64_t *word, uint64_t value) { __atomic_store_n(word, value, __ATOMIC_RELEASE); }

static void tell_all() {
  std::lock_guard<std::mutex> gate(late_gate);
  for (const auto &report : late) tell(report.first, report.second);
  late.clear();
}

/* Handles keep their memory when they end, so that stale ones are known as such. */
struct stream {
  uint64_t id;
  int priority;
  std::atomic<bool> alive;
};

static stream legacy{1, 0, {true}}, per_thread{2, 0, {true}};
static std::atomic<uint64_t> last_id{16};

static stream *stream_of(void *handle) {
  if (reinterpret_cast<uintptr_t>(handle) <= 1) return &legacy;
  if (reinterpret_cast<uintptr_t>(handle) == 2) return &per_thread;
  stream *found = static_cast<stream *>(handle);
  return found->alive ? found : nullptr;
}

#define STREAM(handle) \
  if (!stream_of(handle)) return invalid_handle

struct event {
  bool timed;
  std::atomic<bool> alive;
  /* When it was recorded; zero if it never was. */
  std::atomic<int64_t> nanoseconds;
};

static int64_t now() { return std::chrono::steady_clock::now().time_since_epoch() / std::chrono::nanoseconds(1); }

static event *event_of(void *handle) {
  event *found = static_cast<event *>(handle);
  return found && found->alive ? found : nullptr;
}

struct pool {
  std::mutex gate;
  uint64_t used = 0, reserved = 0, threshold = 0;
  bool alive = true;
};

/* Stands in front of each allocation. */
struct allocation {
  uint64_t magic;
  uint64_t bytes;
  pool *from;
};

constexpr uint64_t living = 0x676d622d6d656d31;
constexpr size_t alignment = 256;

static int allocate(uint64_t *address, size_t bytes, pool *from) {
  if (bytes == 0) return invalid_value;
  if (bytes > PTRDIFF_MAX - 2 * alignment) return out_of_memory;
  const size_t rounded = (bytes + alignment - 1) / alignment * alignment;
  char *memory = static_cast<char *>(std::aligned_alloc(alignment, alignment + rounded));
  if (!memory) return out_of_memory;
  /* Fresh memory is not zero; of large memory that would touch every page. */
  if (rounded <= 1 << 20) std::memset(memory + alignment, 0xCB, rounded);
  *reinterpret_cast<allocation *>(memory) = {living, rounded, from};
  if (from) {
    std::lock_guard<std::mutex> gate(from->gate);
    from->used += rounded;
    if (from->reserved < from->used) from->reserved = from->used;
  }
  *address = reinterpret_cast<uint64_t>(memory + alignment);
  return success;
}

static int release(uint64_t address) {
  if (address == 0) return success;
  tell_all();
  allocation *found = reinterpret_cast<allocation *>(address - alignment);
  if (found->magic != living) return invalid_value;
  found->magic = 0;
  if (found->from) {
    std::lock_guard<std::mutex> gate(found->from->gate);
    found->from->used -= found->bytes;
  }
  std::free(found);
  return success;
}

#endif
