/* Graphs in C++: part of gpumailbox.hpp. */
#ifndef GPUMAILBOX_GRAPH_HPP
#define GPUMAILBOX_GRAPH_HPP

#include <gpumailbox.hpp>

namespace gmb {

/* gmb_graph: captured work, launched any number of times. */
class graph : public detail::owner<gmb_graph, gmb_graph_destroy> {
 public:
  using owner::owner;

  /* In the order of the stream; does not block. */
  gmb::status launch(stream_ref stream) const { return gmb::status(gmb_graph_launch(get(), stream.get())); }
};

/* Whether the stream's work is being captured, by whomever, instead of running. */
inline expected<bool> is_capturing(const context &owner, stream_ref stream) {
  int32_t capturing = 0;
  const gmb_status code = gmb_stream_is_capturing(owner.get(), stream.get(), &capturing);
  bool told = capturing != 0;
  return detail::give(code, told);
}

/* A stream's capture, from begin() to end(); one that is destroyed before ends without a graph. */
class stream_capture {
 public:
  stream_capture() = default;
  stream_capture(stream_capture &&other) noexcept
      : context_(other.context_), stream_(other.stream_), active_(std::exchange(other.active_, false)) {}
  stream_capture &operator=(stream_capture &&other) noexcept {
    if (this != &other) {
      reset();
      context_ = other.context_, stream_ = other.stream_;
      active_ = std::exchange(other.active_, false);
    }
    return *this;
  }
  stream_capture(const stream_capture &) = delete;
  stream_capture &operator=(const stream_capture &) = delete;
  ~stream_capture() { reset(); }

  static expected<stream_capture> begin(const context &owner, stream_ref stream,
                                        gmb_capture_mode mode = GMB_CAPTURE_THREAD_LOCAL) {
    stream_capture made;
    const gmb_status code = gmb_stream_begin_capture(owner.get(), stream.get(), mode);
    made.context_ = owner.get(), made.stream_ = stream.get(), made.active_ = code == GMB_OK;
    return detail::give(code, made);
  }

  expected<graph> end() {
    gmb_graph handle{};
    const gmb_status code = gmb_stream_end_capture(context_, stream_, &handle);
    active_ = false;
    return detail::made<graph>(code, handle);
  }

 private:
  gmb_context context_{};
  gmb_stream stream_ = nullptr;
  bool active_ = false;

  void reset() {
    if (active_) (void)end();
  }
};

}  // namespace gmb

#endif
