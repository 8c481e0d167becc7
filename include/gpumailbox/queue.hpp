/* Work queues and persistent workers in C++: part of gpumailbox.hpp. */
#ifndef GPUMAILBOX_QUEUE_HPP
#define GPUMAILBOX_QUEUE_HPP

#include <gpumailbox.hpp>

namespace gmb {

/* gmb_queue: items of T in device memory, first in, first out. The library only knows how large they are. */
template <class T>
class queue : public detail::owner<gmb_queue, gmb_queue_destroy> {
  static_assert(std::is_trivially_copyable_v<T>, "an item is moved as bytes");
  static_assert(sizeof(T) == 4 || sizeof(T) == 8 || sizeof(T) == 16,
                "items have 4, 8 or 16 bytes; larger ones go into a mailbox");
  static_assert(alignof(T) <= sizeof(T), "items lie as far apart as they are large");

 public:
  using owner::owner;
  using value_type = T;

  /* `block_threads` and `max_blocks` are those of launched pushes and pops; 0 for the library's choice. */
  static expected<queue> create(const context &owner, uint64_t capacity, uint32_t block_threads = 0,
                                uint32_t max_blocks = 0) {
    gmb_queue_options options = GMB_QUEUE_OPTIONS_INIT;
    options.item_bytes = sizeof(T);
    options.capacity = capacity;
    options.block_threads = block_threads;
    options.max_blocks = max_blocks;
    gmb_queue handle{};
    const gmb_status code = gmb_queue_create(owner.get(), &options, &handle);
    return detail::made<queue>(code, handle);
  }

  /* The first so many that there is room for; the token's result says how many. */
  gmb::status push(device_span<const T> items, stream_ref stream, const token &result = token()) const {
    return gmb::status(
        gmb_queue_push(get(), items.data(), detail::count_of(items.size()), stream.get(), result.get()));
  }
  /* Up to as many as there is place for; the token's result says how many. */
  gmb::status pop(device_span<T> items, stream_ref stream, const token &result = token()) const {
    return gmb::status(gmb_queue_pop(get(), items.data(), detail::count_of(items.size()), stream.get(), result.get()));
  }

  /* From and to host memory, blocking: how many were moved. */
  expected<uint64_t> push_from_host_blocking(span<const T> items) const {
    uint64_t pushed = 0;
    const gmb_status code =
        gmb_queue_push_from_host_blocking(get(), items.data(), detail::count_of(items.size()), &pushed);
    return detail::give(code, pushed);
  }
  expected<uint64_t> pop_to_host_blocking(span<T> items) const {
    uint64_t popped = 0;
    const gmb_status code =
        gmb_queue_pop_to_host_blocking(get(), items.data(), detail::count_of(items.size()), &popped);
    return detail::give(code, popped);
  }

  /* Round trips of `batch` items on an empty queue that nobody else uses meanwhile. */
  expected<gmb_queue_measurement> measure(uint32_t batch, uint32_t iterations) const {
    gmb_queue_measurement value{};
    return detail::give(gmb_queue_measure(get(), batch, iterations, &value), value);
  }
  expected<gmb_queue_info> info() const {
    gmb_queue_info value{};
    return detail::give(gmb_queue_get_info(get(), &value, sizeof value), value);
  }
};

/* gmb_worker_options, to be set in a chain:
 *   gmb::worker_options(active).with_finished(done).with_grid(64).with_idle_threshold(4096) */
struct worker_options : gmb_worker_options {
  template <class T>
  explicit worker_options(const queue<T> &from) : gmb_worker_options GMB_WORKER_OPTIONS_INIT {
    active = from.get();
  }

  template <class T>
  worker_options &with_finished(const queue<T> &to) {
    return finished = to.get(), *this;
  }
  template <class T>
  worker_options &with_spawn(const queue<T> &to) {
    return spawn = to.get(), *this;
  }
  /* A gmb::doorbell; one block more serves it. */
  worker_options &with_doorbell(const detail::owner<gmb_doorbell, gmb_doorbell_destroy> &by) {
    return doorbell = by.get(), *this;
  }
  /* A functor of the caller's: what GMB_WORKER_KERNEL or GMB_WORKER_FUNCTION has made, and what hand.user() gives it. */
  worker_options &with_function(const void *kernel, void *argument = nullptr) {
    return function = kernel, user = argument, *this;
  }
  worker_options &with_function(void (*on_the_host)(const gmb_worker_args *, uint32_t, uint32_t), void *argument = nullptr) {
    return with_function(reinterpret_cast<const void *>(on_the_host), argument);
  }
  /* Of the library's own functor. */
  worker_options &with_increment(uint64_t n) { return increment = n, *this; }
  worker_options &with_spawn_interval(uint64_t n) { return spawn_interval = n, *this; }

  worker_options &with_grid(uint32_t blocks, uint32_t threads = 0) {
    return grid_blocks = blocks, block_threads = threads, *this;
  }
  worker_options &with_max_iterations(uint64_t n) { return max_iterations = n, *this; }
  worker_options &with_idle_threshold(uint64_t n) { return idle_threshold = n, *this; }
  /* gmb::forever: it never leaves by itself. Nothing: the library's choice. */
  template <class Rep, class Period>
  worker_options &with_slice(std::chrono::duration<Rep, Period> length) {
    return slice_ns = detail::to_ns(length), *this;
  }
  template <class Rep, class Period>
  worker_options &with_watchdog(std::chrono::duration<Rep, Period> limit) {
    return watchdog_ns = detail::to_ns(limit), *this;
  }
};

/* gmb_worker: a kernel that stays and works through a queue. Its end stops it and waits for its kernel; its queues and its
 * doorbell may go only afterwards, so declare it behind them. (gmb::worker is the namespace of what its functors see.) */
class persistent_worker : public detail::owner<gmb_worker, gmb_worker_destroy> {
 public:
  using owner::owner;

  static expected<persistent_worker> create(const gmb_worker_options &options) {
    gmb_worker handle{};
    const gmb_status code = gmb_worker_create(&options, &handle);
    return detail::made<persistent_worker>(code, handle);
  }

  gmb::status start() const { return gmb::status(gmb_worker_start(get())); }
  gmb::status stop() const { return gmb::status(gmb_worker_stop(get())); }
  gmb::status pause() const { return gmb::status(gmb_worker_pause(get())); }
  gmb::status resume() const { return gmb::status(gmb_worker_resume(get())); }

  /* Blocks until the run has ended: why, and what it did. */
  expected<gmb_worker_result> wait() const { return wait_for(forever); }
  /* As wait(), for so long at most; then code() is GMB_ERROR_TIMEOUT. */
  template <class Rep, class Period>
  expected<gmb_worker_result> wait_for(std::chrono::duration<Rep, Period> limit) const {
    gmb_worker_result value{};
    return detail::give(gmb_worker_wait(get(), detail::to_ns(limit), &value), value);
  }
  expected<gmb_worker_info> info() const {
    gmb_worker_info value{};
    return detail::give(gmb_worker_get_info(get(), &value, sizeof value), value);
  }
};

}  // namespace gmb

#endif
