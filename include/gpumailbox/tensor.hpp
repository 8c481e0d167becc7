/* Tensors by pointer in C++: part of gpumailbox.hpp. */
#ifndef GPUMAILBOX_TENSOR_HPP
#define GPUMAILBOX_TENSOR_HPP

#include <gpumailbox.hpp>

namespace gmb {

namespace detail {

/* How a DLPack tensor ends. Only where it is used must the type be known. */
struct delete_tensor {
  template <class T>
  void operator()(T *tensor) const {
    if (tensor != nullptr && tensor->deleter != nullptr) tensor->deleter(tensor);
  }
};

}  // namespace detail

/* An owned DLPack tensor: its deleter is called when it goes. Include dlpack.h, or <gpumailbox/dlpack.h>, to use it. */
using managed_tensor = std::unique_ptr<DLManagedTensorVersioned, detail::delete_tensor>;
using managed_tensor_legacy = std::unique_ptr<DLManagedTensor, detail::delete_tensor>;

/* gmb_lease: the right to use a tensor that was popped; ends with its owner. */
class lease : public detail::owner<gmb_lease, gmb_lease_release> {
 public:
  lease() = default;
  lease(gmb_lease handle, const gmb_tensor &tensor) : owner(handle), tensor_(tensor) {}

  /* Where the elements lie, and how. */
  const gmb_tensor &tensor() const { return tensor_; }
  /* The first element, in device memory. */
  template <class T>
  T *data() const {
    return reinterpret_cast<T *>(tensor_.address + tensor_.byte_offset);
  }
  /* Another stream uses it, too. */
  gmb::status use(stream_ref stream) const { return gmb::status(gmb_lease_use(get(), stream.get())); }
  template <class T = DLManagedTensorVersioned>
  expected<managed_tensor> to_dlpack() const {
    T *made = nullptr;
    const gmb_status code = gmb_lease_to_dlpack(get(), &made);
    managed_tensor owned(made);
    return detail::give(code, owned);
  }
  template <class T = DLManagedTensor>
  expected<managed_tensor_legacy> to_dlpack_legacy() const {
    T *made = nullptr;
    const gmb_status code = gmb_lease_to_dlpack_legacy(get(), &made);
    managed_tensor_legacy owned(made);
    return detail::give(code, owned);
  }
  /* Both are the caller's to release. */
  gmb::status to_arrow(ArrowDeviceArray *array, ArrowSchema *schema) const {
    return gmb::status(gmb_lease_to_arrow(get(), array, schema));
  }

 private:
  gmb_tensor tensor_{};
};

/* gmb_tensor_mailbox: tensors handed over by pointer. */
class tensor_mailbox : public detail::owner<gmb_tensor_mailbox, gmb_tensor_mailbox_destroy> {
 public:
  using owner::owner;

  static expected<tensor_mailbox> create(const context &owner, uint64_t capacity,
                                         gmb_full_policy full_policy = GMB_FULL_REJECT,
                                         gmb_consumer consumer = GMB_CONSUMER_HOST) {
    gmb_tensor_mailbox_options options = GMB_TENSOR_MAILBOX_OPTIONS_INIT;
    options.capacity = capacity;
    options.full_policy = full_policy;
    options.consumer = consumer;
    gmb_tensor_mailbox handle{};
    const gmb_status code = gmb_tensor_mailbox_create(owner.get(), &options, &handle);
    return detail::made<tensor_mailbox>(code, handle);
  }

  expected<gmb_tensor_mailbox_info> info() const {
    gmb_tensor_mailbox_info value{};
    return detail::give(gmb_tensor_mailbox_get_info(get(), &value, sizeof value), value);
  }

  /* Takes the tensor over on success; on an error it stays the caller's, but for one of another major version of DLPack,
   * whose deleter was called. Under GMB_FULL_WAIT the thread waits for room, at most so long. */
  template <class T, class Rep = int64_t, class Period = std::nano>
  gmb::status push(std::unique_ptr<T, detail::delete_tensor> &tensor, stream_ref stream, uint64_t tag = 0,
                   std::chrono::duration<Rep, Period> limit = forever) const {
    const gmb_tensor_push how = {static_cast<uint32_t>(sizeof how), 0, tag, detail::to_ns(limit)};
    const gmb_status code = push_any(tensor.get(), &how, stream.get());
    gmb::status said(code);
    if (code == GMB_OK || code == GMB_ERROR_BAD_VERSION) (void)tensor.release();
    return said;
  }
  /* The same, and what finds no room, or not in time, is given back by the library once what the stream holds now is done: a
   * tensor that the caller ends at once may still be written to. */
  template <class T, class Rep = int64_t, class Period = std::nano>
  gmb::status push_or_drop(std::unique_ptr<T, detail::delete_tensor> &tensor, stream_ref stream, uint64_t tag = 0,
                           std::chrono::duration<Rep, Period> limit = forever) const {
    const gmb_tensor_push how = {static_cast<uint32_t>(sizeof how), GMB_TENSOR_DROP, tag, detail::to_ns(limit)};
    const gmb_status code = push_any(tensor.get(), &how, stream.get());
    gmb::status said(code);
    const bool taken = code == GMB_OK || code == GMB_ERROR_BAD_VERSION || code == GMB_ERROR_FULL || code == GMB_ERROR_TIMEOUT;
    if (taken) (void)tensor.release();
    return said;
  }
  /* Moves both on success. */
  template <class Rep = int64_t, class Period = std::nano>
  gmb::status push(ArrowDeviceArray *array, ArrowSchema *schema, stream_ref stream, uint64_t tag = 0,
                   std::chrono::duration<Rep, Period> limit = forever) const {
    const gmb_tensor_push how = {static_cast<uint32_t>(sizeof how), 0, tag, detail::to_ns(limit)};
    return gmb::status(gmb_tensor_mailbox_push_arrow(get(), array, schema, &how, stream.get()));
  }

  /* The next tensor; one that is false when none came in time. Without a limit of time it asks once. */
  template <class Rep = int64_t, class Period = std::nano>
  expected<lease> pop(stream_ref stream, std::chrono::duration<Rep, Period> limit = {}) const {
    gmb_lease handle{};
    gmb_tensor tensor{};
    const gmb_status code = gmb_tensor_mailbox_pop(get(), stream.get(), detail::to_ns(limit), &handle, &tensor);
    if (code < 0) return gmb::status(code);
    return code == GMB_OK ? lease(handle, tensor) : lease();
  }
  /* The same as a DLPack tensor; null when none came in time. */
  template <class T = DLManagedTensorVersioned, class Rep = int64_t, class Period = std::nano>
  expected<managed_tensor> pop_dlpack(stream_ref stream, std::chrono::duration<Rep, Period> limit = {}) const {
    T *made = nullptr;
    const gmb_status code = gmb_tensor_mailbox_pop_dlpack(get(), stream.get(), detail::to_ns(limit), &made);
    if (code < 0) return gmb::status(code);
    return managed_tensor(made);
  }

  /* What kernels of this stream take tensors with; see gpumailbox/tensor.cuh. */
  expected<gmb_tensor_view> view(stream_ref stream) const {
    gmb_tensor_view value{};
    return detail::give(gmb_tensor_mailbox_get_view(get(), stream.get(), &value), value);
  }

 private:
  gmb_status push_any(DLManagedTensorVersioned *tensor, const gmb_tensor_push *how, gmb_stream stream) const {
    return gmb_tensor_mailbox_push(get(), tensor, how, stream);
  }
  gmb_status push_any(DLManagedTensor *tensor, const gmb_tensor_push *how, gmb_stream stream) const {
    return gmb_tensor_mailbox_push_legacy(get(), tensor, how, stream);
  }
};

}  // namespace gmb

#endif
