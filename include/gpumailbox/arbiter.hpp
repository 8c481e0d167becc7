/* Arbiters in C++: part of gpumailbox.hpp. */
#ifndef GPUMAILBOX_ARBITER_HPP
#define GPUMAILBOX_ARBITER_HPP

#include <gpumailbox.hpp>

#include <initializer_list>

namespace gmb {

/* gmb_arbiter_options, to be set in a chain. The list is looked at when the arbiter is made: it must still be there then.
 *   const gmb_arbitrated list[] = {{camera.get(), 0, GMB_CLASS_FOCUS}, {log.get(), 0, GMB_CLASS_PERIPHERAL}};
 *   gmb::arbiter_options(list).with_slice(std::chrono::milliseconds(20)) */
struct arbiter_options : gmb_arbiter_options {
  explicit arbiter_options(span<const gmb_arbitrated> list) : gmb_arbiter_options GMB_ARBITER_OPTIONS_INIT {
    count = detail::count_of(list.size());
    mailboxes = list.data();
  }

  /* gmb::forever: its kernel never leaves by itself. Nothing: the library's choice. */
  template <class Rep, class Period>
  arbiter_options &with_slice(std::chrono::duration<Rep, Period> length) {
    return slice_ns = detail::to_ns(length), *this;
  }
};

/* gmb_arbiter: a small kernel that stays, and tells other kernels which mailboxes have records. Its end waits for its kernel;
 * kernels that ask it must have ended before. (gmb::device::arbiter is what they see of it.) */
class arbiter : public detail::owner<gmb_arbiter, gmb_arbiter_destroy> {
 public:
  using owner::owner;

  static expected<arbiter> create(const context &owner, const gmb_arbiter_options &options) {
    gmb_arbiter handle{};
    const gmb_status code = gmb_arbiter_create(owner.get(), &options, &handle);
    return detail::made<arbiter>(code, handle);
  }
  /* Of mailboxes, each with a reader and a class: their places in the list are their numbers. */
  static expected<arbiter> create(const context &owner, std::initializer_list<gmb_arbitrated> list,
                                  std::chrono::nanoseconds slice = {}) {
    return create(owner, arbiter_options({list.begin(), list.size()}).with_slice(slice));
  }
  static expected<arbiter> create(const context &owner, span<const gmb_arbitrated> list,
                                  std::chrono::nanoseconds slice = {}) {
    return create(owner, arbiter_options(list).with_slice(slice));
  }

  /* With the `arbiter` for kernels. */
  expected<gmb_arbiter_info> info() const {
    gmb_arbiter_info value{};
    return detail::give(gmb_arbiter_get_info(get(), &value, sizeof value), value);
  }
};

}  // namespace gmb

#endif
