/* Modules of kernels in C++: part of gpumailbox.hpp. */
/* Before the guard: pipeline.hpp, which is included there, needs what is here. */
#include <gpumailbox.hpp>

#ifndef GPUMAILBOX_MODULE_HPP
#define GPUMAILBOX_MODULE_HPP

#include <tuple>

namespace gmb {

/* The shape of a launch, to be set in a chain: gmb::launch_shape(64, 256).with_shared_bytes(4096) */
struct launch_shape {
  uint32_t grid[3] = {1, 1, 1};
  uint32_t block[3] = {1, 1, 1};
  uint32_t shared_bytes = 0;

  launch_shape() = default;
  /* In one dimension. */
  launch_shape(uint32_t blocks, uint32_t threads) : grid{blocks, 1, 1}, block{threads, 1, 1} {}
  /* As many blocks as give each of `count` elements a thread. */
  static launch_shape covering(size_t count, uint32_t threads = 256) {
    return {detail::count_of(threads == 0 ? 0 : count / threads + (count % threads != 0)), threads};
  }

  launch_shape &with_grid(uint32_t x, uint32_t y, uint32_t z = 1) { return grid[0] = x, grid[1] = y, grid[2] = z, *this; }
  launch_shape &with_block(uint32_t x, uint32_t y, uint32_t z = 1) {
    return block[0] = x, block[1] = y, block[2] = z, *this;
  }
  launch_shape &with_shared_bytes(uint32_t bytes) { return shared_bytes = bytes, *this; }
};

namespace detail {

/* T, where it is not to be deduced. */
template <class T>
struct exactly {
  using type = T;
};
template <class T>
using given = typename exactly<T>::type;

/* A function of the caller's in a kernel's place: its arguments are those of the launch. */
template <class... Arguments>
struct block_function {
  static_assert((std::is_trivially_copyable_v<Arguments> && ...), "a kernel's arguments are copied as bytes");
  using type = void (*)(const gmb_kernel_block &, Arguments...);

  static void run(const gmb_kernel_block *block, const void *const *arguments) {
    run_with(*block, arguments, std::index_sequence_for<Arguments...>());
  }

 private:
  template <size_t... N>
  static void run_with(const gmb_kernel_block &block, [[maybe_unused]] const void *const *arguments,
                       std::index_sequence<N...>) {
    const auto function = reinterpret_cast<type>(block.user);
    const auto call = [&] { function(block, *static_cast<const Arguments *>(arguments[N])...); };
#if defined(__cpp_exceptions)
    try {
      call();
    } catch (...) {
    }
#else
    call();
#endif
  }
};

/* A launch with its arguments' values. */
template <class... Arguments>
class packed_launch {
  static_assert((std::is_trivially_copyable_v<Arguments> && ...), "a kernel's arguments are copied as bytes");

 public:
  explicit packed_launch(const launch_shape &shape, Arguments... values) : shape_(shape), values_(values...) {}

  /* Where it lies now, until it is moved. */
  const gmb_launch *get() {
    size_t n = 0;
    std::apply([&](const auto &...value) { ((list_[n++] = {&value, sizeof value}), ...); }, values_);
    std::copy_n(shape_.grid, 3, launch_.grid);
    std::copy_n(shape_.block, 3, launch_.block);
    launch_.shared_bytes = shape_.shared_bytes;
    launch_.argument_count = sizeof...(Arguments);
    launch_.arguments = list_;
    return &launch_;
  }

 private:
  launch_shape shape_;
  std::tuple<Arguments...> values_;
  gmb_argument list_[sizeof...(Arguments) + 1] = {};
  gmb_launch launch_ GMB_LAUNCH_INIT;
};

}  // namespace detail

/* gmb_kernel: a kernel of a module, with the types of its arguments. */
template <class... Arguments>
class kernel : public detail::owner<gmb_kernel, gmb_kernel_destroy> {
 public:
  using owner::owner;

  expected<gmb_kernel_info> info() const {
    gmb_kernel_info value{};
    return detail::give(gmb_kernel_get_info(get(), &value, sizeof value), value);
  }
  gmb::status launch(const launch_shape &shape, stream_ref stream, Arguments... arguments) const {
    detail::packed_launch<Arguments...> what(shape, arguments...);
    return gmb::status(gmb_kernel_launch(get(), what.get(), stream.get()));
  }
};

/* gmb_module: kernels of one's own by name, and on the host backend functions in their places:
 *   void scale(const gmb_kernel_block &block, float *data, uint32_t count);  // the work of one block's threads
 *   const auto kernel = module.kernel("scale", scale);                       // expected<gmb::kernel<float *, uint32_t>> */
class module : public detail::owner<gmb_module, gmb_module_destroy> {
 public:
  using owner::owner;

  /* From a cubin, a fatbin or PTX; on the host backend from nothing. */
  static expected<module> create(const context &owner, const void *image = nullptr, size_t image_bytes = 0) {
    gmb_module handle{};
    const gmb_status code = gmb_module_create(owner.get(), image, image_bytes, &handle);
    return detail::made<module>(code, handle);
  }
  /* On the host backend the file need not be there. */
  static expected<module> load_file(const context &owner, const char *path) {
    gmb_module handle{};
    const gmb_status code = gmb_module_load_file(owner.get(), path, &handle);
    return detail::made<module>(code, handle);
  }

  /* A function, or a lambda that captures nothing, in a kernel's place; gmb_kernel_block.user is in use. Launches must have
   * arguments of exactly its types. What it throws is dropped. */
  template <class... Arguments>
  gmb::status register_function(const char *name, void (*function)(const gmb_kernel_block &, Arguments...)) const {
    if (function == nullptr) return {GMB_ERROR_NULL_POINTER, "function is null"};
    return gmb::status(gmb_module_register(get(), name, &detail::block_function<Arguments...>::run,
                                           reinterpret_cast<void *>(function)));
  }
  template <class Function, class = decltype(+std::declval<Function>())>
  gmb::status register_function(const char *name, Function function) const {
    return register_function(name, +function);
  }

  /* A kernel whose arguments have these types. */
  template <class... Arguments>
  expected<gmb::kernel<Arguments...>> kernel(const char *name) const {
    gmb_kernel handle{};
    const gmb_status code = gmb_module_get_kernel(get(), name, &handle);
    return detail::made<gmb::kernel<Arguments...>>(code, handle);
  }
  /* The same, with the types of a function that takes its place on the host backend. */
  template <class... Arguments>
  expected<gmb::kernel<Arguments...>> kernel(const char *name,
                                             void (*on_the_host)(const gmb_kernel_block &, Arguments...)) const {
    gmb::status registered = register_function(name, on_the_host);
    if (!registered) return registered;
    return this->template kernel<Arguments...>(name);
  }
  template <class Function, class = decltype(+std::declval<Function>())>
  auto kernel(const char *name, Function on_the_host) const {
    return kernel(name, +on_the_host);
  }
};

}  // namespace gmb

#endif
