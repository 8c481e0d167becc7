/* Triple buffers and coordinators in C++: part of gpumailbox.hpp. */
#ifndef GPUMAILBOX_PIPELINE_HPP
#define GPUMAILBOX_PIPELINE_HPP

#include <gpumailbox.hpp>
#include <gpumailbox/module.hpp>

#include <initializer_list>

namespace gmb {

namespace detail {

template <class T>
constexpr gmb_dtype dtype_of_number() {
  static_assert(std::is_arithmetic_v<T> && !std::is_same_v<T, long double>,
                "say what T is to DLPack: template <> inline constexpr gmb_dtype gmb::dtype_of<T> = {code, bits, lanes};");
  const int code = std::is_same_v<T, bool> ? 6 : std::is_floating_point_v<T> ? 2 : std::is_signed_v<T> ? 0 : 1;
  return {static_cast<uint8_t>(code), static_cast<uint8_t>(8 * sizeof(T)), 1};
}

/* Some T, for as long as a call takes: none, one, a list in braces, or what holds them in one piece. */
template <class T>
class some : public span<const T> {
 public:
  some() = default;
  some(const T &one) : some::span(&one, 1) {}
  some(std::initializer_list<T> list) : some::span(list.begin(), list.size()) {}
  template <class Range, class = std::enable_if_t<std::is_convertible_v<const Range &, span<const T>>>>
  some(const Range &range) : some::span(range) {}

  uint32_t count() const { return count_of(this->size()); }
};

/* What a callable of the caller's has answered: a gmb::status, a code, or nothing. */
template <class Function, class... Arguments>
gmb_status answer_of(Function &function, Arguments... arguments) {
  using result = decltype(function(arguments...));
  const auto call = [&]() -> gmb_status {
    if constexpr (std::is_void_v<result>) {
      function(arguments...);
      return GMB_OK;
    } else if constexpr (std::is_same_v<std::decay_t<result>, gmb::status>) {
      return function(arguments...).code();
    } else {
      return function(arguments...);
    }
  };
#if defined(__cpp_exceptions)
  try {
    return call();
  } catch (const std::bad_alloc &) {
    return GMB_ERROR_OUT_OF_HOST_MEMORY;
  } catch (...) {
    return GMB_ERROR_CALLBACK;
  }
#else
  return call();
#endif
}

}  // namespace detail

/* The type of T's elements, as DLPack has it. For a type of one's own:
 *   template <> inline constexpr gmb_dtype gmb::dtype_of<__half> = {2, 16, 1}; */
template <class T>
inline constexpr gmb_dtype dtype_of = detail::dtype_of_number<T>();

template <class T>
class triple_buffer;

/* gmb_triple_slot: one of three buffers, for one step. Gone without submit(), the buffer is given up, so nothing that uses
 * it may be enqueued before that. It must not outlive its triple buffer. */
template <class T>
class triple_slot {
 public:
  triple_slot() = default;
  triple_slot(triple_slot &&other) noexcept
      : triple_(std::exchange(other.triple_, {})), slot_(std::exchange(other.slot_, {})) {}
  triple_slot &operator=(triple_slot &&other) noexcept {
    if (this != &other) {
      reset();
      triple_ = std::exchange(other.triple_, {});
      slot_ = std::exchange(other.slot_, {});
    }
    return *this;
  }
  triple_slot(const triple_slot &) = delete;
  triple_slot &operator=(const triple_slot &) = delete;
  ~triple_slot() { reset(); }

  /* Whether there is a buffer. */
  explicit operator bool() const { return triple_.id != 0; }
  T *data() const { return static_cast<T *>(slot_.address); }
  size_t size() const { return static_cast<size_t>(slot_.bytes / sizeof(T)); }
  /* As kernels see it. */
  device_span<T> view(size_t first = 0, size_t count = SIZE_MAX) const {
    return device_span<T>(data(), size()).sub(first, count);
  }
  uint32_t index() const { return slot_.index; }
  uint64_t turn() const { return slot_.turn; }
  gmb_step step() const { return slot_.step; }

  /* What the stream holds now is the step's work; the next step gets the buffer. On an error the buffer stays here. */
  gmb::status submit(stream_ref stream) {
    const gmb::status done(gmb_triple_buffer_submit(triple_, &slot_, stream.get()));
    if (done.ok()) triple_ = {};
    return done;
  }
  /* The buffer becomes free without its further steps. */
  void reset() {
    if (triple_.id != 0) (void)gmb_triple_buffer_give_up(std::exchange(triple_, {}), &slot_);
  }

 private:
  friend class triple_buffer<T>;
  triple_slot(gmb_triple_buffer triple, const gmb_triple_slot &slot) : triple_(triple), slot_(slot) {}

  gmb_triple_buffer triple_{};
  gmb_triple_slot slot_{};
};

/* gmb_triple_buffer: three device buffers of T that go round. */
template <class T>
class triple_buffer : public detail::owner<gmb_triple_buffer, gmb_triple_buffer_destroy> {
  static_assert(std::is_trivially_copyable_v<T>, "elements are moved as bytes");

 public:
  using value_type = T;

  triple_buffer() = default;
  explicit triple_buffer(gmb_triple_buffer handle) : owner(handle) {
    if (const auto known = info()) size_ = static_cast<size_t>(known->elements);
  }

  /* Of so many elements each. */
  static expected<triple_buffer> create(const context &owner, size_t elements) {
    gmb_triple_buffer_options options = GMB_TRIPLE_BUFFER_OPTIONS_INIT;
    options.dtype = dtype_of<T>;
    options.elements = elements;
    gmb_triple_buffer handle{};
    const gmb_status code = gmb_triple_buffer_create(owner.get(), &options, &handle);
    return detail::made<triple_buffer>(code, handle);
  }

  /* Elements of each buffer. */
  size_t size() const { return size_; }
  expected<gmb_triple_buffer_info> info() const {
    gmb_triple_buffer_info value{};
    return detail::give(gmb_triple_buffer_get_info(get(), &value, sizeof value), value);
  }

  /* The next buffer of a step, for any stream; one that is false when the step before is not done. */
  expected<triple_slot<T>> acquire(gmb_step step) const {
    gmb_triple_slot slot{};
    return taken(gmb_triple_buffer_acquire(get(), step, &slot), slot);
  }
  /* The same for work of one stream, which waits for the step before: one that is false when that was not submitted. */
  expected<triple_slot<T>> acquire_on(gmb_step step, stream_ref stream) const {
    gmb_triple_slot slot{};
    return taken(gmb_triple_buffer_acquire_on(get(), step, stream.get(), &slot), slot);
  }
  /* As acquire(), and blocks until there is one. */
  expected<triple_slot<T>> wait(gmb_step step) const { return wait_for(step, forever); }
  /* As wait(), for so long at most; then code() is GMB_ERROR_TIMEOUT. */
  template <class Rep, class Period>
  expected<triple_slot<T>> wait_for(gmb_step step, std::chrono::duration<Rep, Period> limit) const {
    gmb_triple_slot slot{};
    return taken(gmb_triple_buffer_wait(get(), step, detail::to_ns(limit), &slot), slot);
  }
  /* Passes on what is done: how many buffers. */
  expected<uint32_t> advance() const {
    uint32_t passed = 0;
    return detail::give(gmb_triple_buffer_advance(get(), &passed), passed);
  }

 private:
  expected<triple_slot<T>> taken(gmb_status code, const gmb_triple_slot &slot) const {
    if (code < 0) return gmb::status(code);
    return code == GMB_OK ? triple_slot<T>(get(), slot) : triple_slot<T>();
  }

  size_t size_ = 0;
};

namespace detail {

/* What operations do: each kind queues itself, and describes itself as a task. */
struct copy_work {
  gmb_operation_kind kind;
  void *to;
  const void *from;
  uint64_t bytes;
  gmb_triple_buffer triple;
  gmb_dtype dtype;
  bool fits;

  gmb_status queue(gmb_coordinator by, const gmb_operation *after, uint32_t count, gmb_operation *id) {
    const bool is_upload = kind == GMB_OPERATION_UPLOAD;
    if (triple.id == 0) {
      const auto queue_copy = is_upload ? gmb_coordinator_queue_upload : gmb_coordinator_queue_download;
      return queue_copy(by, to, from, bytes, after, count, id);
    }
    if (is_upload) return gmb_coordinator_queue_triple_upload(by, triple, dtype, from, bytes, after, count, id);
    return gmb_coordinator_queue_triple_download(by, triple, dtype, to, bytes, after, count, id);
  }
  void describe(gmb_task &as) {
    as.kind = kind, as.to = to, as.from = from, as.bytes = bytes, as.triple = triple, as.dtype = dtype;
  }
};

/* `Work` fills in what computes; it stays where it is until then. */
template <class Work>
struct compute_work {
  Work work;
  gmb_compute what GMB_COMPUTE_INIT;
  static constexpr bool fits = true;

  gmb_status queue(gmb_coordinator by, const gmb_operation *after, uint32_t count, gmb_operation *id) {
    work.fill(what);
    return gmb_coordinator_queue_compute(by, &what, after, count, id);
  }
  void describe(gmb_task &as) {
    work.fill(what);
    as.kind = GMB_OPERATION_COMPUTE, as.compute = &what;
  }
};

template <class... Arguments>
struct kernel_work {
  gmb_kernel kernel;
  gmb_triple_buffer triple;
  packed_launch<Arguments...> launch;

  void fill(gmb_compute &what) { what.kernel = kernel, what.triple = triple, what.launch = launch.get(); }
};

template <class Function>
struct callback_work {
  Function function;

  void fill(gmb_compute &what) { what.callback = &call, what.user = this; }
  static gmb_status call(gmb_stream stream, void *, void *user) {
    return answer_of(static_cast<callback_work *>(user)->function, stream_ref(stream));
  }
};

template <class T, class Function>
struct triple_callback_work {
  gmb_triple_buffer triple;
  size_t size;
  Function function;

  void fill(gmb_compute &what) { what.callback = &call, what.user = this, what.triple = triple; }
  static gmb_status call(gmb_stream stream, void *address, void *user) {
    auto &self = *static_cast<triple_callback_work *>(user);
    return answer_of(self.function, stream_ref(stream), device_span<T>(static_cast<T *>(address), self.size));
  }
};

struct push_work {
  gmb_mailbox mailbox;
  gmb_push push;
  gmb_step step;
  static constexpr bool fits = true;

  gmb_status queue(gmb_coordinator by, const gmb_operation *after, uint32_t count, gmb_operation *id) {
    return gmb_coordinator_queue_push(by, mailbox, &push, step, after, count, id);
  }
  void describe(gmb_task &as) { as.kind = GMB_OPERATION_PUSH, as.mailbox = mailbox, as.push = &push, as.step = step; }
};

struct pop_work {
  gmb_mailbox mailbox;
  gmb_pop pop;
  gmb_step step;
  static constexpr bool fits = true;

  gmb_status queue(gmb_coordinator by, const gmb_operation *after, uint32_t count, gmb_operation *id) {
    return gmb_coordinator_queue_pop(by, mailbox, &pop, step, after, count, id);
  }
  void describe(gmb_task &as) { as.kind = GMB_OPERATION_POP, as.mailbox = mailbox, as.pop = &pop, as.step = step; }
};

/* Elements of the host, to or from room for `room` of them on the device. */
template <class T>
copy_work copy_of(gmb_operation_kind kind, void *to, const void *from, size_t count, size_t room,
                  gmb_triple_buffer triple = {}, gmb_dtype dtype = {}) {
  static_assert(std::is_trivially_copyable_v<T>, "elements are moved as bytes");
  return {kind, to, from, bytes_of<T>(count), triple, dtype, count <= room};
}

inline gmb::status does_not_fit() { return invalid("there are more elements in host memory than on the device"); }

}  // namespace detail

/* What an operation does, for coordinator::queue and task_graph::add; what it names must be there until it is done. As many
 * elements are copied as there are in host memory. A triple buffer takes part with its next buffer of that step. */
template <class T>
auto upload(device_span<T> to, span<const detail::given<T>> from) {
  return detail::copy_of<T>(GMB_OPERATION_UPLOAD, to.data(), from.data(), from.size(), to.size());
}
template <class T>
auto upload(const triple_buffer<T> &to, span<const detail::given<T>> from) {
  return detail::copy_of<T>(GMB_OPERATION_UPLOAD, nullptr, from.data(), from.size(), to.size(), to.get(), dtype_of<T>);
}
template <class T>
auto download(span<detail::given<std::remove_const_t<T>>> to, device_span<T> from) {
  return detail::copy_of<T>(GMB_OPERATION_DOWNLOAD, to.data(), from.data(), to.size(), from.size());
}
template <class T>
auto download(span<detail::given<T>> to, const triple_buffer<T> &from) {
  return detail::copy_of<T>(GMB_OPERATION_DOWNLOAD, to.data(), nullptr, to.size(), from.size(), from.get(), dtype_of<T>);
}
/* A kernel on its arguments, which are copied now. */
template <class... Arguments>
auto compute(const kernel<Arguments...> &what, const launch_shape &shape, detail::given<Arguments>... arguments) {
  using work = detail::kernel_work<Arguments...>;
  return detail::compute_work<work>{{what.get(), {}, detail::packed_launch<Arguments...>(shape, arguments...)}};
}
/* The address of the buffer comes before the arguments. */
template <class T, class... Arguments>
auto compute(const triple_buffer<T> &triple, const kernel<T *, Arguments...> &what, const launch_shape &shape,
             detail::given<Arguments>... arguments) {
  using work = detail::kernel_work<Arguments...>;
  return detail::compute_work<work>{{what.get(), triple.get(), detail::packed_launch<Arguments...>(shape, arguments...)}};
}
/* What `function(stream)` enqueues, which is called at once. It answers with a gmb::status, a code, or nothing; what it throws
 * ends the operation with GMB_ERROR_CALLBACK. */
template <class Function, class = decltype(std::declval<Function &>()(stream_ref()))>
auto compute(Function function) {
  return detail::compute_work<detail::callback_work<Function>>{{std::move(function)}};
}
/* The same of `function(stream, buffer)`; the buffer is a device_span. */
template <class T, class Function, class = decltype(std::declval<Function &>()(stream_ref(), device_span<T>()))>
auto compute(const triple_buffer<T> &triple, Function function) {
  using work = detail::triple_callback_work<T, Function>;
  return detail::compute_work<work>{{triple.get(), triple.size(), std::move(function)}};
}
/* On the stream of a step. */
inline auto push(const mailbox &to, const gmb_push &what, gmb_step step = GMB_STEP_PROCESS) {
  return detail::push_work{to.get(), what, step};
}
inline auto pop(const mailbox &from, const gmb_pop &where, gmb_step step = GMB_STEP_PROCESS) {
  return detail::pop_work{from.get(), where, step};
}

/* A task's place in its graph. */
struct task {
  uint32_t number = 0;
};

/* gmb_task_after: a task of the same graph, or an operation that was queued before. */
struct task_after : gmb_task_after {
  task_after(gmb::task before) : gmb_task_after{{0}, before.number, 0} {}
  task_after(gmb_operation before) : gmb_task_after{before, 0, 0} {}
};

/* Operations that come after each other in any way but a circle, to be queued at once, as often as one likes:
 *   gmb::task_graph graph;
 *   const gmb::task in = graph.add(gmb::upload(data.view(), input));
 *   const gmb::task work = graph.add(gmb::compute(kernel, shape, data.data()), {in});
 *   graph.add(gmb::download(output, data.view()), {work}); */
class task_graph {
 public:
  task_graph() = default;
  task_graph(task_graph &&other) noexcept
      : nodes_(std::move(other.nodes_)),
        size_(std::exchange(other.size_, 0)),
        room_(std::exchange(other.room_, 0)),
        outcome_(std::move(other.outcome_)) {}

  size_t size() const { return size_; }

  /* What went wrong here is told when the graph is queued. */
  template <class Work>
  task add(Work work, const detail::some<task_after> &after = {}) {
    const task place{detail::count_of(size_)};
    if (!work.fits) outcome_ = detail::does_not_fit();
    auto made = std::unique_ptr<holder<Work>>(new (std::nothrow) holder<Work>(std::move(work)));
    std::unique_ptr<gmb_task_after[]> list(new (std::nothrow) gmb_task_after[after.size()]);
    if (!made || !list || !has_room()) {
      outcome_ = detail::no_host_memory();
      return place;
    }
    std::copy(after.begin(), after.end(), list.get());
    made->work.describe(made->task);
    made->task.after = list.get();
    made->task.after_count = after.count();
    made->after = std::move(list);
    nodes_[size_++] = std::move(made);
    return place;
  }

 private:
  friend class coordinator;

  struct node {
    gmb_task task GMB_TASK_INIT;
    std::unique_ptr<gmb_task_after[]> after;

    node() = default;
    node(const node &) = delete;
    node &operator=(const node &) = delete;
    virtual ~node() = default;
  };
  template <class Work>
  struct holder : node {
    explicit holder(Work what) : work(std::move(what)) {}
    Work work;
  };

  bool has_room() {
    if (size_ < room_) return true;
    const size_t wanted = room_ == 0 ? 16 : 2 * room_;
    std::unique_ptr<std::unique_ptr<node>[]> larger(new (std::nothrow) std::unique_ptr<node>[wanted]);
    if (!larger) return false;
    std::move(nodes_.get(), nodes_.get() + size_, larger.get());
    nodes_ = std::move(larger);
    room_ = wanted;
    return true;
  }

  std::unique_ptr<std::unique_ptr<node>[]> nodes_;
  size_t size_ = 0, room_ = 0;
  gmb::status outcome_;
};

/* gmb_coordinator: uploads, compute and downloads on three streams, each as soon as what it comes after is done. Its end waits
 * for what was queued; triple buffers, kernels and memory in use may go only afterwards, so declare it behind them. */
class coordinator : public detail::owner<gmb_coordinator, gmb_coordinator_destroy> {
 public:
  using owner::owner;

  /* `max_operations` from the oldest that is not done to the newest; 0 for the library's choice. */
  static expected<coordinator> create(const context &owner, uint32_t max_operations = 0,
                                      gmb_priority priority = GMB_PRIORITY_NORMAL) {
    gmb_coordinator_options options = GMB_COORDINATOR_OPTIONS_INIT;
    options.max_operations = max_operations;
    options.priority = priority;
    gmb_coordinator handle{};
    const gmb_status code = gmb_coordinator_create(owner.get(), &options, &handle);
    return detail::made<coordinator>(code, handle);
  }

  /* gmb_coordinator_queue_upload and so on, by what `work` is: gmb::upload(to, from), gmb::compute(kernel, shape, arguments),
   * gmb::download(to, from), gmb::push(mailbox, what), gmb::pop(mailbox, where). `after`: an operation, or some in braces. */
  template <class Work>
  expected<gmb_operation> queue(Work work, const detail::some<gmb_operation> &after = {}) const {
    if (!work.fits) return detail::does_not_fit();
    gmb_operation id{};
    return detail::give(work.queue(get(), after.data(), after.count(), &id), id);
  }
  /* Writes the tasks' operations, in their order, to what has exactly room for them. */
  gmb::status queue_graph(const task_graph &graph, span<gmb_operation> operations) const {
    if (!graph.outcome_) return graph.outcome_;
    if (operations.size() != graph.size()) return detail::invalid("operations: room for one of each task, and no more");
    const std::unique_ptr<gmb_task[]> tasks(new (std::nothrow) gmb_task[graph.size()]);
    if (!tasks) return detail::no_host_memory();
    for (size_t n = 0; n < graph.size(); ++n) tasks[n] = graph.nodes_[n]->task;
    return gmb::status(
        gmb_coordinator_queue_graph(get(), tasks.get(), detail::count_of(graph.size()), operations.data()));
  }

  /* What is done and was not told yet, as much as there is room for: how many. */
  expected<uint32_t> poll(span<gmb_completion> completions) const {
    uint32_t count = 0;
    const gmb_status code =
        gmb_coordinator_poll(get(), detail::count_of(completions.size()), completions.data(), &count);
    return detail::give(code, count);
  }
  /* Blocks until the operation is done. If it failed, so has this. */
  expected<gmb_completion> wait(gmb_operation operation) const { return wait_for(operation, forever); }
  /* As wait(), for so long at most; then code() is GMB_ERROR_TIMEOUT. */
  template <class Rep, class Period>
  expected<gmb_completion> wait_for(gmb_operation operation, std::chrono::duration<Rep, Period> limit) const {
    gmb_completion value{};
    return detail::give(gmb_coordinator_wait(get(), operation, detail::to_ns(limit), &value), value);
  }
  /* Blocks until all that was queued is done, well or not. */
  gmb::status synchronize() const { return synchronize_for(forever); }
  template <class Rep, class Period>
  gmb::status synchronize_for(std::chrono::duration<Rep, Period> limit) const {
    return gmb::status(gmb_coordinator_synchronize(get(), detail::to_ns(limit)));
  }

  /* The coordinator's own, which ends with it. */
  expected<stream_ref> stream(gmb_step step) const {
    gmb_stream found = nullptr;
    const gmb_status code = gmb_coordinator_get_stream(get(), step, &found);
    stream_ref made(found);
    return detail::give(code, made);
  }
  expected<gmb_coordinator_info> info() const {
    gmb_coordinator_info value{};
    return detail::give(gmb_coordinator_get_info(get(), &value, sizeof value), value);
  }
};

}  // namespace gmb

#endif
