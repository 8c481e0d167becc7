/* libgpumailbox for C++17: header-only owners over the C API.
 *
 * Owners are move-only and destroy what they hold. No call throws: each gives
 * a gmb::status or a gmb::expected, so the header also builds with
 * -fno-exceptions -fno-rtti. Ownership, blocking and stream order are those of
 * the C functions named the same in gpumailbox.h. Where a stream is asked for,
 * a gmb::stream, a cudaStream_t, nullptr or gmb::current_stream will do. */
#ifndef GPUMAILBOX_HPP
#define GPUMAILBOX_HPP

#include <gpumailbox.h>
#include <gpumailbox/detail.hpp>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <string_view>
#include <type_traits>
#include <utility>

namespace gmb {

class context;
class event;

/* Any stream by value, the library's own or the caller's; not an owner. None is the legacy default stream. */
class stream_ref {
 public:
  stream_ref() = default;
  stream_ref(gmb_stream stream) : stream_(stream) {}

  gmb_stream get() const { return stream_; }
  /* Makes later work wait for what the event recorded last. */
  inline gmb::status wait(const event &what) const;
  inline gmb::status synchronize(const context &owner) const;
  /* Whether everything enqueued is done. */
  inline expected<bool> query(const context &owner) const;

 private:
  gmb_stream stream_ = nullptr;
};

/* The stream that a stream_guard made current for the calling thread. */
inline const stream_ref current_stream{GMB_STREAM_CURRENT};

/* gmb_context: one device, one backend. */
class context : public detail::owner<gmb_context, gmb_context_destroy> {
 public:
  using owner::owner;

  /* `memory_limit` in bytes, 0 for none. */
  static expected<context> create(gmb_backend backend = GMB_BACKEND_AUTO, uint32_t device = 0,
                                  uint64_t memory_limit = 0) {
    gmb_context_options options = GMB_CONTEXT_OPTIONS_INIT;
    options.backend = backend;
    options.device = device;
    options.memory_limit = memory_limit;
    gmb_context handle{};
    const gmb_status code = gmb_context_create(&options, &handle);
    return detail::made<context>(code, handle);
  }

  expected<gmb_context_info> info() const {
    gmb_context_info value{};
    return detail::give(gmb_context_get_info(get(), &value, sizeof value), value);
  }
  expected<gmb_event_pool_info> event_pool_info(gmb_event_kind kind) const {
    gmb_event_pool_info value{};
    return detail::give(gmb_event_pool_get_info(get(), kind, &value, sizeof value), value);
  }
  expected<gmb_memory_info> memory_info() const {
    gmb_memory_info value{};
    return detail::give(gmb_memory_get_info(get(), &value, sizeof value), value);
  }
  /* Gives what the pool keeps for later back to the device, down to so many bytes. */
  gmb::status trim_memory(uint64_t keep_bytes = 0) const { return gmb::status(gmb_memory_trim(get(), keep_bytes)); }

  gmb::status copy(void *to, const void *from, uint64_t bytes, stream_ref stream) const {
    return gmb::status(gmb_memory_copy(get(), to, from, bytes, stream.get()));
  }
  gmb::status fill(void *memory, uint8_t value, uint64_t bytes, stream_ref stream) const {
    return gmb::status(gmb_memory_fill(get(), memory, value, bytes, stream.get()));
  }
};

/* gmb_event: a point in a stream's work. It must not outlive its context's handle. */
class event : public detail::owner<gmb_event, gmb_event_destroy> {
 public:
  event() = default;

  static expected<event> create(const context &owner, gmb_event_kind kind = GMB_EVENT_UNTIMED) {
    gmb_event handle{};
    const gmb_status code = gmb_event_create(owner.get(), kind, &handle);
    if (code != GMB_OK) return gmb::status(code);
    return event(handle, owner.get(), kind);
  }

  gmb_event_kind kind() const { return kind_; }
  /* Marks the stream's present end. */
  gmb::status record(stream_ref stream) const { return gmb::status(gmb_event_record(get(), stream.get())); }
  /* Whether the device has reached what was recorded last. */
  expected<bool> query() const { return detail::answer(gmb_event_query(get())); }
  gmb::status synchronize() const { return gmb::status(gmb_event_synchronize(get(), GMB_WAIT_FOREVER)); }
  /* As synchronize(), for so long at most; then code() is GMB_ERROR_TIMEOUT. */
  template <class Rep, class Period>
  gmb::status synchronize_for(std::chrono::duration<Rep, Period> limit) const {
    return gmb::status(gmb_event_synchronize(get(), detail::to_ns(limit)));
  }
  /* From this event to `end`, both timed; code() is GMB_NOT_READY while one is not reached. */
  expected<double> elapsed_ms(const event &end) const {
    double value = 0;
    return detail::give(gmb_event_elapsed_ms(get(), end.get(), &value), value);
  }

 private:
  friend class stream_ref;
  event(gmb_event handle, gmb_context context, gmb_event_kind kind) : owner(handle), context_(context), kind_(kind) {}

  gmb_context context_{};
  gmb_event_kind kind_ = GMB_EVENT_UNTIMED;
};

inline gmb::status stream_ref::wait(const event &what) const {
  return gmb::status(gmb_stream_wait_event(what.context_, stream_, what.get()));
}
inline gmb::status stream_ref::synchronize(const context &owner) const {
  return gmb::status(gmb_stream_synchronize(owner.get(), stream_));
}
inline expected<bool> stream_ref::query(const context &owner) const {
  return detail::answer(gmb_stream_query(owner.get(), stream_));
}

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
    made.context_ = owner.get();
    return detail::give(code, made);
  }

  gmb_stream get() const { return stream_; }
  operator stream_ref() const { return stream_; }
  /* What the device made of the class: less is more urgent. */
  expected<int32_t> priority() const {
    int32_t value = 0;
    return detail::give(gmb_stream_get_priority(context_, stream_, &value), value);
  }
  gmb::status wait(const event &what) const {
    return gmb::status(gmb_stream_wait_event(context_, stream_, what.get()));
  }
  gmb::status synchronize() const { return gmb::status(gmb_stream_synchronize(context_, stream_)); }
  /* Whether everything enqueued is done. */
  expected<bool> query() const { return detail::answer(gmb_stream_query(context_, stream_)); }

  /* Runs `function()` once in stream order, on another thread. It must not call CUDA; what it
   * throws is dropped. */
  template <class Function>
  gmb::status run(Function function) const {
    auto *boxed = new (std::nothrow) Function(std::move(function));
    if (boxed == nullptr) return detail::no_host_memory();
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

/* Makes a stream current for this thread until the end of the scope. It belongs to that thread:
 * elsewhere it cannot end, stays in force, and reset() leaves the handle as it is. */
class stream_guard {
 public:
  stream_guard() = default;
  stream_guard(stream_guard &&other) noexcept : handle_(std::exchange(other.handle_, {})) {}
  /* Ends this guard first; one of another thread goes over to `other`. */
  stream_guard &operator=(stream_guard &&other) noexcept {
    if (this != &other) {
      reset();
      std::swap(handle_, other.handle_);
    }
    return *this;
  }
  stream_guard(const stream_guard &) = delete;
  stream_guard &operator=(const stream_guard &) = delete;
  ~stream_guard() { reset(); }

  static expected<stream_guard> create(const context &owner, stream_ref stream) {
    stream_guard made;
    return detail::give(gmb_stream_guard_create(owner.get(), stream.get(), &made.handle_), made);
  }

  gmb_stream_guard get() const { return handle_; }
  explicit operator bool() const { return handle_.id != 0; }
  void reset() {
    if (handle_.id != 0 && gmb_stream_guard_destroy(handle_) != GMB_ERROR_WRONG_THREAD) handle_ = {};
  }

 private:
  gmb_stream_guard handle_{};
};

/* Device memory: only kernels and copies may touch it. */
template <class T>
class device_buffer : public detail::memory<T, gmb_memory_free> {
 public:
  static expected<device_buffer> create(const context &owner, size_t count) {
    device_buffer made;
    void *memory = nullptr;
    const gmb_status code = gmb_memory_allocate(owner.get(), detail::bytes_of<T>(count), &memory);
    return detail::give(made.take(code, owner.get(), memory, count), made);
  }
  /* From the pool, for later work of the stream and for what is ordered after it. */
  static expected<device_buffer> create_async(const context &owner, size_t count, stream_ref stream) {
    device_buffer made;
    void *memory = nullptr;
    const gmb_status code =
        gmb_memory_allocate_async(owner.get(), detail::bytes_of<T>(count), stream.get(), &memory);
    return detail::give(made.take(code, owner.get(), memory, count), made);
  }
  /* Frees it in the order of the stream. If that fails, the buffer stays as it is. */
  gmb::status free_async(stream_ref stream) {
    if (this->data() == nullptr) return {};
    const gmb_status code = gmb_memory_free_async(this->context_handle(), this->data(), stream.get());
    if (code == GMB_OK) this->release();
    return gmb::status(code);
  }
};

/* Zeroed host memory that kernels reach at the same address. */
template <class T>
class pinned_buffer : public detail::memory<T, gmb_pinned_free> {
 public:
  static expected<pinned_buffer> create(const context &owner, size_t count) {
    pinned_buffer made;
    void *memory = nullptr;
    const gmb_status code = gmb_pinned_allocate(owner.get(), detail::bytes_of<T>(count), &memory);
    return detail::give(made.take(code, owner.get(), memory, count), made);
  }

  T &operator[](size_t i) const { return this->data()[i]; }
  T *begin() const { return this->data(); }
  T *end() const { return this->data() + this->size(); }
};

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
    return detail::give(gmb_token_poll(get(), &value), value);
  }

  /* Blocks until the operation submitted last has reported. The call's success is not the
   * operation's: see status::of(result). */
  expected<gmb_result> wait() const { return wait_ns(GMB_EPOCH_LAST, GMB_WAIT_FOREVER); }
  /* As wait(), for so long at most; then code() is GMB_ERROR_TIMEOUT. */
  template <class Rep, class Period>
  expected<gmb_result> wait_for(std::chrono::duration<Rep, Period> limit) const {
    return wait_ns(GMB_EPOCH_LAST, detail::to_ns(limit));
  }
  /* Blocks until there is a result later than that of `epoch`. */
  expected<gmb_result> wait_after(uint32_t epoch) const { return wait_ns(epoch, GMB_WAIT_FOREVER); }
  template <class Rep, class Period>
  expected<gmb_result> wait_after_for(uint32_t epoch, std::chrono::duration<Rep, Period> limit) const {
    return wait_ns(epoch, detail::to_ns(limit));
  }

  /* Where kernels find the result. */
  expected<const gmb_result *> device_result() const {
    const gmb_result *address = nullptr;
    return detail::give(gmb_token_get_device_result(get(), &address), address);
  }

 private:
  expected<gmb_result> wait_ns(uint64_t after, uint64_t limit) const {
    gmb_result value{};
    return detail::give(gmb_token_wait(get(), after, limit, &value), value);
  }
};

/* gmb_borrow: records read where they lie. It ends with release(), and with nothing else. */
class borrow {
 public:
  borrow() = default;
  explicit borrow(gmb_borrow handle) : handle_(handle) {}
  borrow(borrow &&other) noexcept : handle_(std::exchange(other.handle_, {})) {}
  borrow &operator=(borrow &&other) noexcept {
    if (this != &other) handle_ = std::exchange(other.handle_, {});
    return *this;
  }
  borrow(const borrow &) = delete;
  borrow &operator=(const borrow &) = delete;

  gmb_borrow get() const { return handle_; }
  struct contents {
    gmb_result result;
    gmb_spans spans;
  };
  /* What came and where it lies; code() is GMB_NOT_READY until that is known. */
  expected<contents> poll() const {
    contents value{};
    return detail::give(gmb_borrow_poll(handle_, &value.result, &value.spans), value);
  }
  expected<contents> wait() const {
    contents value{};
    return detail::give(gmb_borrow_wait(handle_, GMB_WAIT_FOREVER, &value.result, &value.spans), value);
  }
  expected<const gmb_spans *> device_spans() const {
    const gmb_spans *address = nullptr;
    return detail::give(gmb_borrow_get_device_spans(handle_, &address), address);
  }
  /* What the stream holds now may still read; not released, the records keep their slots. */
  gmb::status release(stream_ref stream) {
    const gmb::status done(gmb_borrow_release(handle_, stream.get()));
    if (done.ok()) handle_ = {};
    return done;
  }

 private:
  gmb_borrow handle_{};
};

/* gmb_watch: a file descriptor for what a mailbox has. */
class watch : public detail::owner<gmb_watch, gmb_watch_destroy> {
 public:
  using owner::owner;

  static expected<watch> create(gmb_mailbox mailbox, gmb_interest interest = GMB_INTEREST_READABLE, uint32_t reader = 0) {
    gmb_watch handle{};
    const gmb_status code = gmb_watch_create(mailbox, interest, reader, &handle);
    return detail::made<watch>(code, handle);
  }
  /* Has the descriptors become readable, once. */
  gmb::status arm(uint32_t count = 1) const { return gmb::status(gmb_watch_arm(get(), count)); }
  /* The caller's own, to be closed by him. */
  expected<int32_t> descriptor() const {
    int32_t value = -1;
    return detail::give(gmb_watch_get_fd(get(), &value), value);
  }
};

/* gmb_mailbox_options, to be set in a chain:
 *   gmb::mailbox_options::of<reading>(1024).with_full_policy(GMB_FULL_WAIT).with_readers(3) */
struct mailbox_options : gmb_mailbox_options {
  mailbox_options(uint64_t records, uint32_t bytes) : gmb_mailbox_options GMB_MAILBOX_OPTIONS_INIT {
    capacity = records;
    payload_bytes = bytes;
  }
  /* For records of T. */
  template <class T>
  static mailbox_options of(uint64_t records) {
    return {records, detail::row_of<T>()};
  }

  mailbox_options &with_arbitration(gmb_arbitration who) { return arbitration = who, *this; }
  mailbox_options &with_full_policy(gmb_full_policy policy) { return full_policy = policy, *this; }
  mailbox_options &with_readers(uint32_t count) { return readers = count, *this; }
  mailbox_options &with_ids(uint32_t producer, uint32_t consumer) {
    return producer_id = producer, consumer_id = consumer, *this;
  }
  mailbox_options &with_initial_index(uint64_t index) { return initial_index = index, *this; }
  mailbox_options &with_single_stream() { return flags |= GMB_MAILBOX_SINGLE_STREAM, *this; }
  mailbox_options &with_shared() { return flags |= GMB_MAILBOX_SHARED, *this; }
  mailbox_options &with_express() { return flags |= GMB_MAILBOX_EXPRESS, *this; }
};

/* Records of T in device memory, one after the other, to push as they are. */
template <class T>
gmb_push push_of(device_span<T> records, uint32_t msg_type = 0) {
  gmb_push push = GMB_PUSH_INIT;
  push.count = detail::count_of(records.size());
  push.records = records.data();
  push.stride = push.length = detail::row_of<T>();
  push.msg_type = msg_type;
  return push;
}

/* Room in device memory for records of T, and for their headers if there is any. */
template <class T>
gmb_pop pop_into(device_span<T> records, uint32_t reader = 0, device_span<gmb_record_header> headers = {}) {
  static_assert(!std::is_const_v<T>, "a pop writes");
  gmb_pop pop = GMB_POP_INIT;
  pop.max = detail::count_of(headers.data() ? std::min(records.size(), headers.size()) : records.size());
  pop.records = records.data();
  pop.stride = detail::row_of<T>();
  pop.headers = headers.data();
  pop.reader = reader;
  return pop;
}

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
    return create(owner, mailbox_options(capacity, payload_bytes));
  }

  /* Bytes of device memory that create_in() takes. */
  static expected<uint64_t> required_bytes(const gmb_mailbox_options &options) {
    uint64_t value = 0;
    return detail::give(gmb_mailbox_get_required_bytes(&options, &value), value);
  }
  /* In device memory of the caller's, which must outlive the mailbox. */
  static expected<mailbox> create_in(const context &owner, const gmb_mailbox_options &options, void *memory,
                                     uint64_t memory_bytes) {
    gmb_mailbox handle{};
    const gmb_status code = gmb_mailbox_create_in(owner.get(), &options, memory, memory_bytes, &handle);
    return detail::made<mailbox>(code, handle);
  }
  /* Goes on with a mailbox that lies in device memory already. */
  static expected<mailbox> attach(const context &owner, void *memory, uint64_t memory_bytes,
                                  const gmb_attach_options &options = GMB_ATTACH_OPTIONS_INIT) {
    gmb_mailbox handle{};
    const gmb_status code = gmb_mailbox_attach(owner.get(), memory, memory_bytes, &options, &handle);
    return detail::made<mailbox>(code, handle);
  }

  gmb::status push(const gmb_push &what, stream_ref stream, const token &result = token()) const {
    return gmb::status(gmb_mailbox_push(get(), &what, stream.get(), result.get()));
  }
  gmb::status pop(const gmb_pop &where, stream_ref stream, const token &result = token()) const {
    return gmb::status(gmb_mailbox_pop(get(), &where, stream.get(), result.get()));
  }
  template <class T>
  gmb::status push(device_span<T> records, stream_ref stream, const token &result = token()) const {
    return push(push_of(records), stream, result);
  }
  template <class T>
  gmb::status pop(device_span<T> records, stream_ref stream, const token &result = token()) const {
    return pop(pop_into(records), stream, result);
  }

  /* Takes up to `max` records of a reader without moving them. */
  expected<gmb::borrow> borrow(uint32_t max, stream_ref stream, uint32_t reader = 0) const {
    gmb_borrow handle{};
    const gmb_status code = gmb_mailbox_borrow(get(), reader, max, stream.get(), &handle);
    if (code != GMB_OK) return gmb::status(code);
    return gmb::borrow(handle);
  }

  /* Blocks until a reader has so many records, or there is so much room; says how many, or how much. */
  expected<uint64_t> wait_readable(uint32_t count = 1, uint32_t reader = 0, uint64_t timeout_ns = GMB_WAIT_FOREVER) const {
    uint64_t ready = 0;
    return detail::give(gmb_mailbox_wait_readable(get(), reader, count, timeout_ns, &ready), ready);
  }
  expected<uint64_t> wait_writable(uint32_t count = 1, uint64_t timeout_ns = GMB_WAIT_FOREVER) const {
    uint64_t ready = 0;
    return detail::give(gmb_mailbox_wait_writable(get(), count, timeout_ns, &ready), ready);
  }

  expected<uint32_t> add_reader(stream_ref stream, gmb_reader_start start = GMB_READER_NEXT) const {
    uint32_t reader = 0;
    return detail::give(gmb_mailbox_add_reader(get(), start, stream.get(), &reader), reader);
  }
  gmb::status remove_reader(uint32_t reader, stream_ref stream) const {
    return gmb::status(gmb_mailbox_remove_reader(get(), reader, stream.get()));
  }
  expected<gmb_reader_info> reader_info(uint32_t reader) const {
    gmb_reader_info value{};
    return detail::give(gmb_mailbox_get_reader_info(get(), reader, &value, sizeof value), value);
  }
  expected<gmb_mailbox_info> info() const {
    gmb_mailbox_info value{};
    return detail::give(gmb_mailbox_get_info(get(), &value, sizeof value), value);
  }

  /* Convenient, blocking and slow: one record from host memory. */
  expected<gmb_result> push_from_host_blocking(std::string_view record, uint32_t type = 0) const {
    return push_from_host_blocking(span(&record, 1), span<const uint32_t>(&type, 1));
  }
  /* Records from host memory: text, or values of a trivially copyable T. `types` has one for each, or
   * none. `limit` is how long it waits for room under GMB_FULL_WAIT. */
  template <class T>
  expected<gmb_result> push_from_host_blocking(span<T> records, span<const uint32_t> types = {},
                                               std::chrono::nanoseconds limit = forever) const {
    gmb_result value{};
    const detail::rows<T> from(records);
    if (!from.ok()) return detail::no_host_memory();
    if (!types.empty() && types.size() != records.size()) return detail::invalid("types: one for each record, or none");
    const gmb_status code = gmb_mailbox_push_from_host_blocking(
        get(), detail::count_of(records.size()), from.data(), from.stride(), from.lengths(), types.data(),
        detail::to_ns(limit), &value);
    return detail::give(code, value);
  }
  /* Records to host memory; T has room for the payload. Of `headers`, if any, as many are written. */
  template <class T>
  expected<gmb_result> pop_to_host_blocking(span<T> records, uint32_t reader = 0,
                                            span<gmb_record_header> headers = {}) const {
    static_assert(std::is_trivially_copyable_v<T> && !std::is_const_v<T>, "the bytes of a record become a T");
    const size_t most = headers.empty() ? records.size() : std::min(records.size(), headers.size());
    std::unique_ptr<gmb_record_header[]> unseen;
    if (headers.empty()) {
      unseen.reset(new (std::nothrow) gmb_record_header[most]);
      if (!unseen) return detail::no_host_memory();
    }
    gmb_result value{};
    const gmb_status code =
        gmb_mailbox_pop_to_host_blocking(get(), reader, detail::count_of(most), records.data(), sizeof(T),
                                         unseen ? unseen.get() : headers.data(), &value);
    return detail::give(code, value);
  }
};

/* Sends the library's messages of this level and of graver ones to a function, which must not throw;
 * null is silence. */
inline status set_log_function(gmb_log_level level, gmb_log_function function, void *argument = nullptr) {
  return status(gmb_set_log_function(level, function, argument));
}

}  // namespace gmb

#include <gpumailbox/arbiter.hpp>
#include <gpumailbox/doorbell.hpp>
#include <gpumailbox/graph.hpp>
#include <gpumailbox/module.hpp>
#include <gpumailbox/pipeline.hpp>
#include <gpumailbox/queue.hpp>
#include <gpumailbox/tensor.hpp>

#endif
