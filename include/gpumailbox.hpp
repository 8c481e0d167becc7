/* libgpumailbox for C++17: header-only owners over the C API.
 *
 * Owners are move-only and destroy what they hold. No call throws: each gives
 * a gmb::status or a gmb::expected, so the header also builds with
 * -fno-exceptions -fno-rtti. Ownership, blocking and stream order are those of
 * the C functions named the same in gpumailbox.h. */
#ifndef GPUMAILBOX_HPP
#define GPUMAILBOX_HPP

#include <gpumailbox.h>

#include <chrono>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <string>
#include <string_view>
#include <utility>

namespace gmb {

/* The outcome of a call: a code, and for a failed one the thread's message. */
class [[nodiscard]] status {
 public:
  status() = default;
  /* Takes the thread's message at once: a later call may replace it. */
  explicit status(gmb_status code) : code_(code) {
    if (code >= 0) return;
    size_t needed = 0;
    if (gmb_last_error_message(nullptr, 0, &needed) != GMB_OK || needed == 0) return;
    message_.resize(needed);
    if (gmb_last_error_message(message_.data(), needed, nullptr) != GMB_OK) message_.clear();
    if (!message_.empty()) message_.pop_back();
  }

  /* The status that the device wrote into a result. */
  static status of(const gmb_result &result) {
    status found;
    found.code_ = result.status;
    return found;
  }

  bool ok() const { return code_ == GMB_OK; }
  explicit operator bool() const { return ok(); }
  gmb_status code() const { return code_; }
  /* What was wrong with what; the code's own text if there is no more to say. */
  std::string message() const { return message_.empty() ? gmb_status_string(code_) : message_; }

 private:
  gmb_status code_ = GMB_OK;
  std::string message_;
};

/* A value, or the status that tells why there is none. */
template <class T>
class [[nodiscard]] expected {
 public:
  expected(T value) : value_(std::move(value)) {}
  expected(gmb::status why) : status_(std::move(why)) {}

  bool ok() const { return status_.ok(); }
  explicit operator bool() const { return ok(); }
  const gmb::status &status() const { return status_; }
  gmb_status code() const { return status_.code(); }
  std::string message() const { return status_.message(); }

  /* Only after ok(). */
  T &operator*() & { return value_; }
  const T &operator*() const & { return value_; }
  T &&operator*() && { return std::move(value_); }
  T *operator->() { return &value_; }
  const T *operator->() const { return &value_; }

 private:
  gmb::status status_;
  T value_{};
};

namespace detail {

/* A move-only handle with its destroy function. */
template <class Handle, gmb_status (*Destroy)(Handle)>
class owner {
 public:
  owner() = default;
  explicit owner(Handle handle) : handle_(handle) {}
  owner(owner &&other) noexcept : handle_(other.release()) {}
  owner &operator=(owner &&other) noexcept {
    if (this != &other) {
      reset();
      handle_ = other.release();
    }
    return *this;
  }
  owner(const owner &) = delete;
  owner &operator=(const owner &) = delete;
  ~owner() { reset(); }

  Handle get() const { return handle_; }
  explicit operator bool() const { return handle_.id != 0; }
  Handle release() { return std::exchange(handle_, Handle{}); }
  void reset() {
    if (handle_.id != 0) (void)Destroy(release());
  }

 private:
  Handle handle_{};
};

template <class T, class Handle>
expected<T> made(gmb_status code, Handle handle) {
  if (code != GMB_OK) return gmb::status(code);
  return T(handle);
}

}  // namespace detail

/* gmb_context: one device, one backend. */
class context : public detail::owner<gmb_context, gmb_context_destroy> {
 public:
  using owner::owner;

  static expected<context> create(gmb_backend backend = GMB_BACKEND_AUTO, uint32_t device = 0) {
    gmb_context_options options = GMB_CONTEXT_OPTIONS_INIT;
    options.backend = backend;
    options.device = device;
    gmb_context handle{};
    const gmb_status code = gmb_context_create(&options, &handle);
    return detail::made<context>(code, handle);
  }

  expected<gmb_context_info> info() const {
    gmb_context_info value{};
    const gmb_status code = gmb_context_get_info(get(), &value, sizeof value);
    if (code != GMB_OK) return gmb::status(code);
    return value;
  }

  gmb::status copy(void *to, const void *from, uint64_t bytes, gmb_stream stream) const {
    return gmb::status(gmb_memory_copy(get(), to, from, bytes, stream));
  }
  gmb::status fill(void *memory, uint8_t value, uint64_t bytes, gmb_stream stream) const {
    return gmb::status(gmb_memory_fill(get(), memory, value, bytes, stream));
  }
};

/* A stream of the library. It must not outlive its context's handle. */
class stream {
 public:
  stream() = default;
  stream(stream &&other) noexcept
      : context_(other.context_), stream_(std::exchange(other.stream_, nullptr)) {}
  stream &operator=(stream &&other) noexcept {
    if (this != &other) {
      reset();
      context_ = other.context_;
      stream_ = std::exchange(other.stream_, nullptr);
    }
    return *this;
  }
  stream(const stream &) = delete;
  stream &operator=(const stream &) = delete;
  ~stream() { reset(); }

  static expected<stream> create(const context &owner, gmb_priority priority = GMB_PRIORITY_NORMAL) {
    stream made;
    const gmb_status code = gmb_stream_create(owner.get(), priority, &made.stream_);
    if (code != GMB_OK) return gmb::status(code);
    made.context_ = owner.get();
    return made;
  }

  gmb_stream get() const { return stream_; }
  /* What the device made of the class: less is more urgent. */
  expected<int32_t> priority() const {
    int32_t value = 0;
    const gmb_status code = gmb_stream_get_priority(context_, stream_, &value);
    if (code != GMB_OK) return gmb::status(code);
    return value;
  }
  gmb::status synchronize() const { return gmb::status(gmb_stream_synchronize(context_, stream_)); }

  /* Runs `function()` once in stream order, on another thread. It must not call CUDA; what it
   * throws is dropped. */
  template <class Function>
  gmb::status run(Function function) const {
    auto *boxed = new (std::nothrow) Function(std::move(function));
    if (boxed == nullptr) return gmb::status(GMB_ERROR_OUT_OF_HOST_MEMORY);
    const gmb_status code = gmb_stream_host_function(context_, stream_, &call<Function>, boxed);
    if (code != GMB_OK) delete boxed;
    return gmb::status(code);
  }

  void reset() {
    if (stream_ != nullptr) (void)gmb_stream_destroy(context_, std::exchange(stream_, nullptr));
  }

 private:
  template <class Function>
  static void call(void *boxed) {
    std::unique_ptr<Function> function(static_cast<Function *>(boxed));
#if defined(__cpp_exceptions)
    try {
      (*function)();
    } catch (...) {
    }
#else
    (*function)();
#endif
  }

  gmb_context context_{};
  gmb_stream stream_ = nullptr;
};

/* Memory of T, freed with its owner; it must not outlive its context's handle. */
template <class T, gmb_status (*Allocate)(gmb_context, uint64_t, void **), gmb_status (*Free)(gmb_context, void *)>
class memory {
 public:
  memory() = default;
  memory(memory &&other) noexcept
      : context_(other.context_), data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  memory &operator=(memory &&other) noexcept {
    if (this != &other) {
      reset();
      context_ = other.context_;
      data_ = std::exchange(other.data_, nullptr);
      size_ = std::exchange(other.size_, 0);
    }
    return *this;
  }
  memory(const memory &) = delete;
  memory &operator=(const memory &) = delete;
  ~memory() { reset(); }

  static expected<memory> create(const context &owner, size_t count) {
    void *address = nullptr;
    const uint64_t bytes = count > UINT64_MAX / sizeof(T) ? UINT64_MAX : uint64_t{count} * sizeof(T);
    const gmb_status code = Allocate(owner.get(), bytes, &address);
    if (code != GMB_OK) return gmb::status(code);
    memory made;
    made.context_ = owner.get();
    made.data_ = static_cast<T *>(address);
    made.size_ = count;
    return made;
  }

  T *data() const { return data_; }
  size_t size() const { return size_; }
  size_t bytes() const { return size_ * sizeof(T); }
  void reset() {
    if (data_ != nullptr) (void)Free(context_, std::exchange(data_, nullptr));
    size_ = 0;
  }

 private:
  gmb_context context_{};
  T *data_ = nullptr;
  size_t size_ = 0;
};

/* Device memory: only kernels and copies may touch it. */
template <class T>
using device_buffer = memory<T, gmb_memory_allocate, gmb_memory_free>;
/* Zeroed host memory that kernels reach at the same address. */
template <class T>
using pinned_buffer = memory<T, gmb_pinned_allocate, gmb_pinned_free>;

/* gmb_token: the result of one operation at a time. */
class token : public detail::owner<gmb_token, gmb_token_destroy> {
 public:
  using owner::owner;

  static expected<token> create(const context &owner) {
    gmb_token handle{};
    const gmb_status code = gmb_token_create(owner.get(), &handle);
    return detail::made<token>(code, handle);
  }

  /* The result if it is ready; else code() is GMB_NOT_READY or an error. */
  expected<gmb_result> poll() const {
    gmb_result value{};
    const gmb_status code = gmb_token_poll(get(), &value);
    if (code != GMB_OK) return gmb::status(code);
    return value;
  }

  /* Blocks until the operation submitted last has reported. The call's success is not the
   * operation's: see status::of(result). */
  expected<gmb_result> wait() const { return wait_ns(GMB_WAIT_FOREVER); }
  /* As wait(), for so long at most; then code() is GMB_ERROR_TIMEOUT. */
  template <class Rep, class Period>
  expected<gmb_result> wait_for(std::chrono::duration<Rep, Period> limit) const {
    const auto ns = std::chrono::duration_cast<std::chrono::nanoseconds>(limit).count();
    return wait_ns(ns < 0 ? 0 : static_cast<uint64_t>(ns));
  }

  /* Where kernels find the result. */
  expected<const gmb_result *> device_result() const {
    const gmb_result *address = nullptr;
    const gmb_status code = gmb_token_device_result(get(), &address);
    if (code != GMB_OK) return gmb::status(code);
    return address;
  }

 private:
  expected<gmb_result> wait_ns(uint64_t limit) const {
    gmb_result value{};
    const gmb_status code = gmb_token_wait(get(), GMB_EPOCH_LAST, limit, &value);
    if (code != GMB_OK) return gmb::status(code);
    return value;
  }
};

/* gmb_mailbox: records in a ring in device memory. */
class mailbox : public detail::owner<gmb_mailbox, gmb_mailbox_destroy> {
 public:
  using owner::owner;

  static expected<mailbox> create(const context &owner, const gmb_mailbox_options &options) {
    gmb_mailbox handle{};
    const gmb_status code = gmb_mailbox_create(owner.get(), &options, &handle);
    return detail::made<mailbox>(code, handle);
  }
  static expected<mailbox> create(const context &owner, uint64_t capacity, uint32_t payload_bytes) {
    gmb_mailbox_options options = GMB_MAILBOX_OPTIONS_INIT;
    options.capacity = capacity;
    options.payload_bytes = payload_bytes;
    return create(owner, options);
  }

  gmb::status push(const gmb_push &what, gmb_stream stream, const token &result) const {
    return gmb::status(gmb_mailbox_push(get(), &what, stream, result.get()));
  }
  gmb::status push(const gmb_push &what, gmb_stream stream) const {
    return gmb::status(gmb_mailbox_push(get(), &what, stream, gmb_token{0}));
  }
  gmb::status pop(const gmb_pop &where, gmb_stream stream, const token &result) const {
    return gmb::status(gmb_mailbox_pop(get(), &where, stream, result.get()));
  }

  /* Convenient, blocking and slow: one record from and to host memory. */
  expected<gmb_result> push_from_host_blocking(std::string_view record, uint32_t type = 0) const {
    gmb_result value{};
    const auto length = static_cast<uint32_t>(record.size());
    const gmb_status code =
        gmb_mailbox_push_from_host_blocking(get(), 1, record.data(), record.size(), &length, &type,
                                            GMB_WAIT_FOREVER, &value);
    if (code != GMB_OK) return gmb::status(code);
    return value;
  }

  expected<gmb_mailbox_info> info() const {
    gmb_mailbox_info value{};
    const gmb_status code = gmb_mailbox_get_info(get(), &value, sizeof value);
    if (code != GMB_OK) return gmb::status(code);
    return value;
  }
};

}  // namespace gmb

#endif
