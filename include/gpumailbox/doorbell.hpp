/* Doorbells and FIFOs in C++: part of gpumailbox.hpp. */
#ifndef GPUMAILBOX_DOORBELL_HPP
#define GPUMAILBOX_DOORBELL_HPP

#include <gpumailbox.hpp>

namespace gmb {

/* gmb_doorbell: commands to a kernel that runs, and its answers. Its workers must go before it does, so declare it before
 * them. (gmb::device::doorbell is what kernels see of it.) */
class doorbell : public detail::owner<gmb_doorbell, gmb_doorbell_destroy> {
 public:
  using owner::owner;

  /* For so many commands at once, a power of two. */
  static expected<doorbell> create(const context &owner, uint64_t capacity = 64) {
    gmb_doorbell_options options = GMB_DOORBELL_OPTIONS_INIT;
    options.capacity = capacity;
    gmb_doorbell handle{};
    const gmb_status code = gmb_doorbell_create(owner.get(), &options, &handle);
    return detail::made<doorbell>(code, handle);
  }

  /* `limit` is how long it waits for room; then code() is GMB_ERROR_FULL. */
  expected<gmb_command_id> submit(const gmb_command &what, std::chrono::nanoseconds limit = forever) const {
    gmb_command_id id{};
    return detail::give(gmb_doorbell_submit(get(), &what, detail::to_ns(limit), &id), id);
  }
  /* The same of a command whose answer nobody will ask for. */
  gmb::status post(const gmb_command &what, std::chrono::nanoseconds limit = forever) const {
    return gmb::status(gmb_doorbell_submit(get(), &what, detail::to_ns(limit), nullptr));
  }

  /* Blocks until the answer is there. The call's success is not the command's: see the answer's status. */
  expected<gmb_answer> wait(gmb_command_id id) const { return wait_for(id, forever); }
  /* As wait(), for so long at most; then code() is GMB_ERROR_TIMEOUT. */
  template <class Rep, class Period>
  expected<gmb_answer> wait_for(gmb_command_id id, std::chrono::duration<Rep, Period> limit) const {
    gmb_answer value{};
    return detail::give(gmb_doorbell_wait(get(), id, detail::to_ns(limit), &value), value);
  }
  /* submit() and wait(), both within `limit`. */
  expected<gmb_answer> call(const gmb_command &what, std::chrono::nanoseconds limit = forever) const {
    gmb_answer value{};
    return detail::give(gmb_doorbell_call(get(), &what, detail::to_ns(limit), &value), value);
  }
  /* Its answer is still to be collected. */
  gmb::status cancel(gmb_command_id id) const { return gmb::status(gmb_doorbell_cancel(get(), id)); }
  /* Nobody will collect its answer, which makes room when it has come. It is done nevertheless. */
  gmb::status forget(gmb_command_id id) const { return gmb::status(gmb_doorbell_forget(get(), id)); }

  /* Of answers to be collected. */
  expected<watch> create_watch() const {
    gmb_watch handle{};
    const gmb_status code = gmb_doorbell_create_watch(get(), &handle);
    return detail::made<watch>(code, handle);
  }
  expected<gmb_doorbell_info> info() const {
    gmb_doorbell_info value{};
    return detail::give(gmb_doorbell_get_info(get(), &value, sizeof value), value);
  }
};

/* gmb_fifo: records from kernels to the host. (gmb::device::fifo is what kernels see of it.) */
class fifo : public detail::owner<gmb_fifo, gmb_fifo_destroy> {
 public:
  using owner::owner;

  /* Of so many records, a power of two. */
  static expected<fifo> create(const context &owner, uint64_t capacity = 4096) {
    gmb_fifo_options options = GMB_FIFO_OPTIONS_INIT;
    options.capacity = capacity;
    gmb_fifo handle{};
    const gmb_status code = gmb_fifo_create(owner.get(), &options, &handle);
    return detail::made<fifo>(code, handle);
  }

  /* The first so many that there is room for; the token's result says how many. */
  gmb::status push(device_span<const gmb_fifo_record> records, stream_ref stream, const token &result = token()) const {
    return gmb::status(
        gmb_fifo_push(get(), records.data(), detail::count_of(records.size()), stream.get(), result.get()));
  }
  /* Blocks until there is a record, for `limit` at most, and takes what there is: how many, none when time is up. */
  expected<uint64_t> pop_to_host(span<gmb_fifo_record> records, std::chrono::nanoseconds limit = forever) const {
    uint64_t popped = 0;
    const gmb_status code =
        gmb_fifo_pop_to_host(get(), records.data(), detail::count_of(records.size()), detail::to_ns(limit), &popped);
    return detail::give(code, popped);
  }

  /* Of records. */
  expected<watch> create_watch() const {
    gmb_watch handle{};
    const gmb_status code = gmb_fifo_create_watch(get(), &handle);
    return detail::made<watch>(code, handle);
  }
  expected<gmb_fifo_info> info() const {
    gmb_fifo_info value{};
    return detail::give(gmb_fifo_get_info(get(), &value, sizeof value), value);
  }
};

}  // namespace gmb

#endif
