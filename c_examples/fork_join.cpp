// A graph of operations that forks and joins:
//
//   upload --> scale --> download
//     |          |
//     |          v
//     +-> shift -> add --> download
//
// Its tasks are added in any order in which each comes after those that it names, queued at once, and queued again with other
// data. Whatever comes after something is told after it. Tasks that wait for each other in a circle are refused.
//
//   fork_join [--backend auto|host|cuda]
#include "check.hpp"
#include "pipeline.h"

#include <algorithm>
#include <array>
#include <cinttypes>
#include <vector>

namespace {

constexpr uint32_t count = 1u << 18, factor = 3, by = 1000;

// In the kernels' places on the host backend, with the kernels' arguments.
void scale_block(const gmb_kernel_block &block, uint32_t *to, const uint32_t *from, uint32_t all, uint32_t factor_of) {
  const elements mine = elements_of(&block, all);
  for (uint32_t n = mine.begin; n < mine.end; ++n) to[n] = scaled(from[n], factor_of);
}
void shift_block(const gmb_kernel_block &block, uint32_t *to, const uint32_t *from, uint32_t all, uint32_t shifted_by) {
  const elements mine = elements_of(&block, all);
  for (uint32_t n = mine.begin; n < mine.end; ++n) to[n] = shifted(from[n], shifted_by);
}
void add_block(const gmb_kernel_block &block, uint32_t *sum, const uint32_t *left, const uint32_t *right, uint32_t all) {
  const elements mine = elements_of(&block, all);
  for (uint32_t n = mine.begin; n < mine.end; ++n) sum[n] = added(left[n], right[n]);
}

// The operations' places in what was told.
size_t place_of(const std::vector<gmb_completion> &told, gmb_operation wanted) {
  const auto found = std::find_if(told.begin(), told.end(), [&](const auto &one) { return one.operation.id == wanted.id; });
  must(found != told.end(), "an operation was not told");
  check(gmb::status(found->status));
  return static_cast<size_t>(found - told.begin());
}

}  // namespace

int main(int argc, char **argv) {
  const auto context = check(gmb::context::create(backend_of(argc, argv)));
  const auto kernels = check(gmb::module::load_file(context, PIPELINE_KERNELS));
  const auto scale = check(kernels.kernel("scale", scale_block));
  const auto shift = check(kernels.kernel("shift", shift_block));
  const auto add = check(kernels.kernel("add", add_block));
  const auto make = [&] { return check(gmb::device_buffer<uint32_t>::create(context, count)); };
  const auto data = make(), left = make(), right = make(), sum = make();
  const auto input = check(gmb::pinned_buffer<uint32_t>::create(context, count));
  const auto scaled_back = check(gmb::pinned_buffer<uint32_t>::create(context, count));
  const auto sum_back = check(gmb::pinned_buffer<uint32_t>::create(context, count));
  const auto coordinator = check(gmb::coordinator::create(context));
  const auto shape = gmb::launch_shape::covering(count);

  gmb::task_graph graph;
  const gmb::task up = graph.add(gmb::upload(data.view(), input));
  const gmb::task one = graph.add(gmb::compute(scale, shape, left.data(), data.data(), count, factor), {up});
  const gmb::task other = graph.add(gmb::compute(shift, shape, right.data(), data.data(), count, by), {up});
  const gmb::task join = graph.add(gmb::compute(add, shape, sum.data(), left.data(), right.data(), count), {one, other});
  const gmb::task out = graph.add(gmb::download(sum_back, sum.view()), {join});
  const gmb::task early = graph.add(gmb::download(scaled_back, left.view()), {one});

  std::array<gmb_operation, 6> ids;
  for (uint32_t round = 0; round < 3; ++round) {
    for (uint32_t n = 0; n < count; ++n) input[n] = n + round;
    check(coordinator.queue_graph(graph, ids));
    check(coordinator.synchronize());
    for (uint32_t n = 0; n < count; ++n) {
      const uint32_t x = n + round;
      must(scaled_back[n] == scaled(x, factor), "a number of the first download");
      must(sum_back[n] == added(scaled(x, factor), shifted(x, by)), "a number of the second download");
    }
    std::vector<gmb_completion> told(10);
    told.resize(check(coordinator.poll(told)));
    must(told.size() == ids.size(), "each operation is told once");
    const auto place = [&](gmb::task which) { return place_of(told, ids[which.number]); };
    must(place(up) < place(one) && place(up) < place(other), "the fork comes after the upload");
    must(place(one) < place(join) && place(other) < place(join), "the join comes after both branches");
    must(place(join) < place(out) && place(one) < place(early), "downloads come after what they download");
  }
  std::printf("a graph of %zu tasks, queued 3 times: all %u numbers are right, and told in their order\n", graph.size(), count);

  // Task 1 is not there yet when task 0 names it: any order will do, but a circle.
  gmb::task_graph circle;
  circle.add(gmb::upload(data.view(), input), {gmb::task{1}});
  circle.add(gmb::download(sum_back, data.view()), {gmb::task{0}});
  std::array<gmb_operation, 2> none;
  const gmb::status refused = coordinator.queue_graph(circle, none);
  must(refused.code() == GMB_ERROR_CYCLE, "a circle is refused");
  std::printf("a circle is refused: %s\n", refused.message().c_str());
  must(check(coordinator.info()).in_flight == 0, "nothing of it was queued");
  std::printf("ok: fork and join; backend=%s\n", check(context.info()).backend == GMB_BACKEND_CUDA ? "cuda" : "host");
}
