/* What gpumailbox.hpp is made of: outcomes, spans and owners. Include gpumailbox.hpp. */
#ifndef GPUMAILBOX_DETAIL_HPP
#define GPUMAILBOX_DETAIL_HPP

#include <gpumailbox.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <memory>
#include <new>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#if __cplusplus >= 202002L
#include <span>
#endif

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
  /* An error with words of its own. */
  status(gmb_status code, const char *message) : code_(code), message_(message) {}

  /* The status that the device wrote into a result. */
  static status of(const gmb_result &result) { return status(result.status, ""); }

  bool ok() const { return code_ == GMB_OK; }
  explicit operator bool() const { return ok(); }
  gmb_status code() const { return code_; }
  /* The constant's name, such as "GMB_ERROR_BUSY". */
  const char *name() const { return gmb_status_name(code_); }
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

/* As a time limit: none. */
inline constexpr std::chrono::nanoseconds forever = std::chrono::nanoseconds::max();

namespace detail {

/* What a range in host memory holds. Device memory has no begin(). */
template <class Range, class = decltype(std::begin(std::declval<Range &>()))>
using element = std::remove_pointer_t<decltype(std::data(std::declval<Range &>()))>;

}  // namespace detail

/* A pointer and a count in host memory. */
template <class T>
class span {
 public:
  using element_type = T;
  using value_type = std::remove_cv_t<T>;

  constexpr span() = default;
  constexpr span(T *data, size_t size) : data_(data), size_(size) {}
  /* Of what holds its elements in one piece: an array, a vector, a pinned_buffer, a std::span. */
  template <class Range, class = std::enable_if_t<!std::is_same_v<std::decay_t<Range>, span> &&
                                                  std::is_convertible_v<detail::element<Range> (*)[], T (*)[]>>>
  constexpr span(Range &&range) : data_(std::data(range)), size_(std::size(range)) {}

  constexpr T *data() const { return data_; }
  constexpr size_t size() const { return size_; }
  constexpr bool empty() const { return size_ == 0; }
  constexpr T &operator[](size_t i) const { return data_[i]; }
  constexpr T *begin() const { return data_; }
  constexpr T *end() const { return data_ + size_; }

 private:
  T *data_ = nullptr;
  size_t size_ = 0;
};
template <class Range>
span(Range &&) -> span<detail::element<Range>>;

/* A pointer and a count in memory that kernels reach. The CPU must not look there. */
template <class T>
class device_span {
 public:
  device_span() = default;
  device_span(T *data, size_t size) : data_(data), size_(size) {}
  /* From T to const T. */
  template <class U, class = std::enable_if_t<std::is_convertible_v<U (*)[], T (*)[]>>>
  device_span(device_span<U> other) : data_(other.data()), size_(other.size()) {}

  T *data() const { return data_; }
  size_t size() const { return size_; }
  size_t bytes() const { return size_ * sizeof(T); }
  /* From `first` on, `count` at most: never more than there is. */
  device_span sub(size_t first, size_t count = SIZE_MAX) const {
    first = std::min(first, size_);
    return {data_ + first, std::min(count, size_ - first)};
  }

 private:
  T *data_ = nullptr;
  size_t size_ = 0;
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

/* Memory of T, freed with its owner; it must not outlive its context's handle. */
template <class T, gmb_status (*Free)(gmb_context, void *)>
class memory {
 public:
  memory() = default;
  memory(memory &&other) noexcept
      : context_(other.context_), size_(std::exchange(other.size_, 0)), data_(std::exchange(other.data_, nullptr)) {}
  memory &operator=(memory &&other) noexcept {
    if (this != &other) {
      reset();
      context_ = other.context_;
      size_ = std::exchange(other.size_, 0);
      data_ = std::exchange(other.data_, nullptr);
    }
    return *this;
  }
  memory(const memory &) = delete;
  memory &operator=(const memory &) = delete;
  ~memory() { reset(); }

  T *data() const { return data_; }
  size_t size() const { return size_; }
  size_t bytes() const { return size_ * sizeof(T); }
  /* As kernels see it. */
  device_span<T> view(size_t first = 0, size_t count = SIZE_MAX) const {
    return device_span<T>(data_, size_).sub(first, count);
  }
  void reset() {
    if (data_ != nullptr) (void)Free(context_, release());
  }

 protected:
  gmb_context context_handle() const { return context_; }
  T *release() {
    size_ = 0;
    return std::exchange(data_, nullptr);
  }
  gmb_status take(gmb_status code, gmb_context context, void *address, size_t count) {
    if (code != GMB_OK) return code;
    context_ = context;
    size_ = count;
    data_ = static_cast<T *>(address);
    return code;
  }

 private:
  gmb_context context_{};
  size_t size_ = 0;
  T *data_ = nullptr;
};

template <class T, class Handle>
expected<T> made(gmb_status code, Handle handle) {
  if (code != GMB_OK) return gmb::status(code);
  return T(handle);
}

/* The value that a call has written, if it was successful. */
template <class T>
expected<T> give(gmb_status code, T &value) {
  if (code != GMB_OK) return gmb::status(code);
  return std::move(value);
}

/* Of calls whose answer is yes, not yet, or an error. */
inline expected<bool> answer(gmb_status code) {
  if (code < 0) return gmb::status(code);
  return code == GMB_OK;
}

inline gmb::status no_host_memory() { return {GMB_ERROR_OUT_OF_HOST_MEMORY, ""}; }
inline gmb::status invalid(const char *why) { return {GMB_ERROR_INVALID_ARGUMENT, why}; }

/* A limit as the C API takes it: some 290 years are for ever. */
template <class Rep, class Period>
uint64_t to_ns(std::chrono::duration<Rep, Period> limit) {
  const double ns = std::chrono::duration<double, std::nano>(limit).count();
  if (!(ns > 0)) return 0;
  return ns >= 9.2e18 ? GMB_WAIT_FOREVER : static_cast<uint64_t>(ns);
}

/* What does not fit is more than the library takes, and it says so. */
inline uint32_t count_of(size_t count) { return static_cast<uint32_t>(std::min<size_t>(count, UINT32_MAX)); }
template <class T>
uint64_t bytes_of(size_t count) {
  return count > UINT64_MAX / sizeof(T) ? UINT64_MAX : uint64_t{count} * sizeof(T);
}

/* Bytes from one T to the next, which is its payload, too. */
template <class T>
constexpr uint32_t row_of() {
  static_assert(std::is_trivially_copyable_v<T>, "a record is moved as bytes");
  static_assert(sizeof(T) % GMB_ALIGNMENT == 0, "records lie 16 bytes apart: declare T with alignas(16)");
  static_assert(sizeof(T) <= UINT32_MAX, "a record has less than 4 GiB");
  return sizeof(T);
}

/* Records in host memory as rows of bytes with a length each. Text is copied for that, values are not. */
template <class T>
class rows {
  static constexpr bool is_text = std::is_convertible_v<const T &, std::string_view>;
  static_assert(is_text || (std::is_trivially_copyable_v<T> && !std::is_pointer_v<T>), "a record is moved as bytes");

 public:
  explicit rows(span<T> from) : data_(from.data()), lengths_(new (std::nothrow) uint32_t[from.size()]) {
    if (!lengths_) return;
    if constexpr (!is_text) {
      std::fill_n(lengths_.get(), from.size(), static_cast<uint32_t>(sizeof(T)));
    } else {
      stride_ = 1;
      for (const std::string_view text : from) stride_ = std::max(stride_, text.size());
      const bool fits = from.size() <= SIZE_MAX / stride_;
      text_.reset(fits ? new (std::nothrow) char[from.size() * stride_]() : nullptr);
      data_ = text_.get();
      if (!text_) return;
      for (size_t i = 0; i < from.size(); ++i) {
        const std::string_view text = from[i];
        lengths_[i] = count_of(text.size());
        if (!text.empty()) std::memcpy(text_.get() + i * stride_, text.data(), text.size());
      }
    }
  }

  /* Whether there was memory for it. */
  bool ok() const { return lengths_ && (!is_text || text_); }
  const void *data() const { return data_; }
  size_t stride() const { return stride_; }
  const uint32_t *lengths() const { return lengths_.get(); }

 private:
  const void *data_;
  size_t stride_ = sizeof(T);
  std::unique_ptr<uint32_t[]> lengths_;
  std::unique_ptr<char[]> text_;
};

}  // namespace detail
}  // namespace gmb

#if defined(__cpp_lib_span)
template <class T>
inline constexpr bool std::ranges::enable_borrowed_range<gmb::span<T>> = true;
#endif

#endif
