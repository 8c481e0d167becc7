// What mailboxes take on this GPU, for the same rows as limits.cu measures their limits.
//   nvcc -arch=native -O3 -std=c++17 -cudart static -Iinclude benches/mailbox.cu -lgpumailbox -o mailbox
#include <gpumailbox/arbiter.cuh>
#include <gpumailbox/device.cuh>
#include <gpumailbox/doorbell.cuh>
#include <gpumailbox/express.cuh>
#include <gpumailbox/queue.cuh>

#include "gpu.cuh"
#include "mailbox.h"

namespace {

using bench::add_bulk;
using bench::box_of;
using bench::library;
using bench::library_stream;
using bench::mailbox;
using bench::power_of_two;
using bench::row;
using bench::small_box;
using bench::token;

gmb_stream ours(cudaStream_t from) { return reinterpret_cast<gmb_stream>(from); }

__global__ void count_differences(const unsigned *a, const unsigned *b, size_t count, unsigned *found) {
  unsigned mine = 0;
  for (size_t i = blockIdx.x * size_t{256} + threadIdx.x; i < count; i += gridDim.x * size_t{256}) mine += a[i] != b[i];
  if (mine != 0) atomicAdd(found, mine);
}

// Records with lengths and types of their own, and where they come out again.
struct traffic {
  const uint32_t count, payload;
  const uint64_t row = (payload + 15u) / 16 * 16;
  const device<unsigned> records{row * count / 4}, out{row * count / 4};
  const device<uint32_t> lengths{count}, types{count};
  const device<gmb_record_header> headers{count};

  traffic(uint32_t how_many, uint32_t bytes) : count(how_many), payload(bytes) {
    launch(scramble, 1024, 256, nullptr, records.at, row * count / 4);
    launch(scramble, 64, 256, nullptr, types.at, static_cast<size_t>(count));
    const std::vector<uint32_t> all(count, payload);
    CHECK(cudaMemcpy(lengths.at, all.data(), count * sizeof all[0], cudaMemcpyHostToDevice));
  }
  gmb_push push() const {
    gmb_push it = GMB_PUSH_INIT;
    it.count = count;
    it.records = records.at;
    it.lengths = lengths.at;
    it.types = types.at;
    return it;
  }
  gmb_pop pop() const {
    gmb_pop it = GMB_POP_INIT;
    it.max = count;
    it.records = out.at;
    it.headers = headers.at;
    return it;
  }
  // What came out is what went in.
  void verify() const {
    const device<unsigned> differences;
    launch(count_differences, 1024, 256, nullptr, records.at, out.at, row * count / 4, differences.at);
    unsigned found = 0;
    CHECK(cudaMemcpy(&found, differences.at, sizeof found, cudaMemcpyDeviceToHost));
    if (found != 0) throw failure("what was popped is not what was pushed");
  }
};

// One operation on a mailbox with two readers in use, lengths and types from arrays, and a token: its GPU time, as
// limits.cu measures a copy's. Every push finds an empty ring, every pop as many records as it asks for.
std::array<samples, 2> bulk(const report &out, const library &lib, uint32_t payload, size_t bytes) {
  const stream on;
  const traffic t(static_cast<uint32_t>(bytes / payload), payload);
  gmb_mailbox_options options = box_of(payload, power_of_two(t.count));
  options.readers = 2;
  const mailbox box(lib, options);
  const token told(lib);
  const gmb_push push = t.push();
  gmb_pop pop = t.pop();
  const auto complete = [&](const char *what) {
    if (told.wait().count != t.count) throw failure(std::string(what) + " did not move all records");
  };
  const auto times = out.repeat_together<2>(3, 60, [&](int) -> std::array<double, 2> {
    const double pushed = gpu_us(on, 50, [&] { OK(gmb_mailbox_push(box.id, &push, ours(on), told.id)); });
    complete("a push");
    double popped = 0;
    for (uint32_t reader = 0; reader < 2; ++reader) {
      pop.reader = reader;
      const double took = gpu_us(on, 50, [&] { OK(gmb_mailbox_pop(box.id, &pop, ours(on), told.id)); });
      complete("a pop");
      if (reader == 0) popped = took;
    }
    return {pushed, popped};
  });
  t.verify();
  return times;
}

// From before a pop of 16 records to their count in the host's hands. The records lie in the ring, and the stream is idle.
samples counts_to_host(const report &out, const library &lib) {
  const stream on;
  const traffic t(16, 240);
  const mailbox box(lib, small_box());
  const token told(lib);
  const gmb_push push = t.push();
  const gmb_pop pop = t.pop();
  samples all = out.repeat(200, 5000, [&](int) {
    OK(gmb_mailbox_push(box.id, &push, ours(on), gmb_token{0}));
    synchronize(on);
    const double start = now_us();
    OK(gmb_mailbox_pop(box.id, &pop, ours(on), told.id));
    gmb_result result{};
    bench::poll("the count", [&] { return gmb_token_poll(told.id, &result) == GMB_OK; });
    const double took = now_us() - start;
    if (result.count != t.count) throw failure("the count is wrong");
    return took;
  });
  t.verify();
  return all;
}

// Two modules, a stream each, and a mailbox each way: a push in one stream and its pop in the other, and back.
samples hops(const report &out, const library &lib, uint32_t records) {
  const traffic t(records, 240);
  const mailbox there(lib, small_box()), back(lib, small_box());
  const gmb_push push = t.push();
  const gmb_pop pop = t.pop();
  bool forth = false;
  samples all = chained(out, 200, [&](cudaStream_t from, cudaStream_t to, cudaEvent_t) {
    forth = !forth;
    const gmb_mailbox box = forth ? there.id : back.id;
    OK(gmb_mailbox_push(box, &push, ours(from), gmb_token{0}));
    OK(gmb_mailbox_pop(box, &pop, ours(to), gmb_token{0}));
  });
  t.verify();
  return all;
}

// What a chain of 2,000 captured operations of one record takes longer than one of 1,000, per operation. The mailbox is
// for a single stream, so its operations are the graph's only nodes.
enum class node { push, pop, told_pop };
samples graph_operations(const report &out, const library &lib, node kind) {
  constexpr uint32_t shorter = 1000, longer = 2000;
  const stream on;
  const traffic one(1, 240), all(longer, 240);
  gmb_mailbox_options options = box_of(240, power_of_two(longer));
  options.flags = GMB_MAILBOX_SINGLE_STREAM;
  const mailbox box(lib, options);
  const token told(lib), counted(lib);
  const gmb_push push = one.push(), fill = all.push();
  const gmb_pop pop = one.pop(), drain = all.pop();
  const auto captured = [&](uint32_t nodes) {
    OK(gmb_stream_begin_capture(lib.id, ours(on), GMB_CAPTURE_THREAD_LOCAL));
    for (uint32_t i = 0; i < nodes; ++i) {
      if (kind == node::push) OK(gmb_mailbox_push(box.id, &push, ours(on), gmb_token{0}));
      else OK(gmb_mailbox_pop(box.id, &pop, ours(on), kind == node::told_pop ? told.id : gmb_token{0}));
    }
    gmb_graph made;
    OK(gmb_stream_end_capture(lib.id, ours(on), &made));
    return made;
  };
  const gmb_graph graphs[] = {captured(shorter), captured(longer)};
  const auto took = [&](uint32_t nodes, gmb_graph graph) {
    if (kind != node::push) OK(gmb_mailbox_push(box.id, &fill, ours(on), counted.id));
    synchronize(on);
    const double us = gpu_us(on, 2000, [&] { OK(gmb_graph_launch(graph, ours(on))); });
    OK(gmb_mailbox_pop(box.id, &drain, ours(on), counted.id));
    const uint32_t left = kind == node::push ? nodes : longer - nodes;
    if (counted.wait().count != left) throw failure("the nodes did not all move a record");
    return us;
  };
  samples each = out.repeat(3, 60, [&](int) {
    const double less = took(shorter, graphs[0]), more = took(longer, graphs[1]);
    return (more - less) / (longer - shorter);
  });
  for (const gmb_graph graph : graphs) OK(gmb_graph_destroy(graph));
  return each;
}

// Host time of a push in one stream and of a pop in another, which waits for the push: 256 calls at a time, in turns with
// launches that record an event and make the other stream wait for it. How long the driver takes for those depends on the
// process and the moment.
std::array<samples, 3> host_costs(const report &out, const library &lib) {
  const stream from, to;
  const traffic t(1, 240);
  const mailbox box(lib, small_box());
  const device<word64> sink;
  arguments values{};
  values.sink = sink.at;
  const events all = make_events(loop);
  const gmb_push push = t.push();
  const gmb_pop pop = t.pop();
  const gmb_token none{0};
  const auto idle = [&] {
    synchronize(from);
    synchronize(to);
  };
  const auto pushes = [&](int) { OK(gmb_mailbox_push(box.id, &push, ours(from), none)); };
  const auto pops = [&](int) { OK(gmb_mailbox_pop(box.id, &pop, ours(to), none)); };
  const auto launches = [&](int i) {
    launch(take_arguments, 1, 256, from, values);
    CHECK(cudaEventRecord(*all[i], from));
    CHECK(cudaStreamWaitEvent(to, *all[i], 0));
  };
  const auto times = out.repeat_together<3>(20, 400, [&](int) -> std::array<double, 3> {
    const double raw = host_us(idle, launches);
    const double pushed = host_us(idle, pushes);
    const double popped = host_us([] {}, pops);  // beside the pushes
    return {raw, pushed, popped};
  });
  idle();
  return times;
}

// Streams of a class that are kept busy with bulk traffic, the whole GPU with them: each has always eight pushes and pops
// before it.
class bulk_load {
public:
  bulk_load(const library &lib, int streams, gmb_priority priority)
      : bulk_(streams > 0 ? records : 1, 240), push_(bulk_.push()), pop_(bulk_.pop()), ahead_(streams) {
    for (int i = 0; i < streams; ++i) {
      boxes_.push_back(std::make_unique<mailbox>(lib, box_of(240, records)));
      on_.push_back(std::make_unique<library_stream>(lib, priority));
      ends_.push_back(std::make_unique<token>(lib));
    }
  }
  ~bulk_load() { cudaDeviceSynchronize(); }
  void feed() {
    for (size_t i = 0; i < boxes_.size(); ++i) {
      gmb_result result{};
      if (ahead_[i] && gmb_token_poll(ends_[i]->id, &result) == GMB_OK) ahead_[i] = false;
      if (ahead_[i]) continue;
      for (int k = 0; k < 8; ++k) {
        OK(gmb_mailbox_push(boxes_[i]->id, &push_, on_[i]->raw, gmb_token{0}));
        OK(gmb_mailbox_pop(boxes_[i]->id, &pop_, on_[i]->raw, k == 4 ? ends_[i]->id : gmb_token{0}));
      }
      ahead_[i] = true;
    }
  }

private:
  static constexpr uint32_t records = 1u << 16;
  const traffic bulk_;
  const gmb_push push_;
  const gmb_pop pop_;
  std::vector<bool> ahead_;
  std::vector<std::unique_ptr<mailbox>> boxes_;
  std::vector<std::unique_ptr<library_stream>> on_;
  std::vector<std::unique_ptr<token>> ends_;
};

// A push of one record on a stream and its pop, from the host's call to the count, while others are kept busy.
samples focus(const report &out, const library &lib, int streams, gmb_priority focused, gmb_priority others) {
  const traffic t(1, 240);
  const mailbox box(lib, small_box());
  const token told(lib);
  const library_stream mine(lib, focused);
  bulk_load load(lib, streams, others);
  const gmb_push push = t.push();
  const gmb_pop pop = t.pop();
  return out.repeat(50, 2000, [&](int) {
    load.feed();
    const double start = now_us();
    OK(gmb_mailbox_push(box.id, &push, mine.raw, gmb_token{0}));
    OK(gmb_mailbox_pop(box.id, &pop, mine.raw, told.id));
    if (told.wait().count != 1) throw failure("a record is missing");
    return now_us() - start;
  });
}

// The rows of traffic in a class of streams on an idle GPU, under load, and under load without classes:
// `one(streams, of the focus, of the others)`.
template <class F> void add_focus(report &out, const std::string &id, F &&one) {
  out.add(id + "_idle", [&] { return one(0, GMB_PRIORITY_FOCUS, GMB_PRIORITY_PERIPHERAL); });
  const auto loaded = [&](const char *tail) { return row(id + tail).beside(id + "_idle", "the same on an idle GPU"); };
  out.add(loaded("_under_load"), [&] { return one(4, GMB_PRIORITY_FOCUS, GMB_PRIORITY_PERIPHERAL); });
  out.add(loaded("_under_load_same_priority"), [&] { return one(4, GMB_PRIORITY_NORMAL, GMB_PRIORITY_NORMAL); });
}

// Within the namespace: it goes on from here.
#include "tensors.cuh"
#include "express.cuh"
#include "queue.cuh"
#include "arbiter.cuh"
#include "doorbell.cuh"
#include "pipeline.cuh"

void measure(report &out, const library &lib) {
  for (uint32_t payload : {48u, 112u, 240u, 1008u, 4080u})
    for (const auto &size : bench::sizes)
      add_bulk(out, payload, size, [&](uint32_t of, size_t bytes) { return bulk(out, lib, of, bytes); });
  out.add(row("count_to_host").beside("count_to_host", "kernel writes mapped memory, host polls"),
          [&] { return counts_to_host(out, lib); });
  for (uint32_t records : {1u, 64u})
    out.add(row(records == 1 ? "hop_gpu" : "hop_gpu_64_records")
                .beside("hop_pair", "kernel + record + wait + kernel behind a gate kernel"),
            [&] { return hops(out, lib, records); });
  for (const auto &[id, kind] : {std::pair{"graph_push", node::push}, std::pair{"graph_pop", node::pop},
                                 std::pair{"graph_pop_host_count", node::told_pop}})
    out.add(row(id).beside("graph_node", "one-increment kernel node"),
            [&, which = kind] { return graph_operations(out, lib, which); });
  const auto called = [](const char *id) { return row(id).beside("raw_host_cost", "raw launch + measured record and wait"); };
  out.together<3>({"raw_host_cost", called("push_host_cost"), called("pop_host_cost")}, [&] { return host_costs(out, lib); });
  add_focus(out, "focus", [&](int streams, gmb_priority its, gmb_priority others) {
    return focus(out, lib, streams, its, others);
  });
  measure_tensors(out, lib);
  out.add(row("express_240B").beside("packet_hop_240B_12of16", "raw SM-to-SM hop with 12 of 16 bytes payload per flag"),
          [&] { return express_hops(out, lib); });
  measure_queues(out, lib);
  measure_doorbells(out, lib);
  measure_arbiters(out, lib);
  measure_pipelines(out, lib);
  bench::measure_look_ups(out, lib);
}

}  // namespace

int main(int argc, char **argv) {
  return bench::run(argc, argv, [](report &out) {
    begin_on_gpu();
    measure(out, library(GMB_BACKEND_CUDA));
  });
}
