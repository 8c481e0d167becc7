// What this machine can do: the limits that the library's figures stand beside, measured without library code.
//   nvcc -arch=native -O3 -std=c++17 -cudart static benches/limits.cu -o limits
// Nothing waits for ever: whatever polls, on the GPU or the host, gives up after two seconds and its row is an error.
#include "gpu.cuh"
#include "limits_kernels.cuh"
#include "limits_records.cuh"

namespace {

samples launches(const report &out) {
  const stream on;
  return host_cost(out, [&] { synchronize(on); }, [&](int) { launch(nothing, 1, 1, on); });
}

samples launches_with_arguments(const report &out) {
  const stream on;
  const device<unsigned long long> sink;
  arguments values{};
  values.sink = sink.at;
  return host_cost(out, [&] { synchronize(on); }, [&](int) { launch(take_arguments, 132, 256, on, values); });
}

samples event_records(const report &out) {
  const stream on;
  const events all = make_events(loop);
  return host_cost(out, [&] { synchronize(on); }, [&](int i) { CHECK(cudaEventRecord(*all[i], on)); });
}

// The events were recorded in another stream just before; most are reached when they are waited for.
samples stream_waits(const report &out) {
  const stream from, to;
  const events all = make_events(loop);
  const auto before = [&] {
    synchronize(to);
    for (const auto &each : all) CHECK(cudaEventRecord(*each, from));
  };
  return host_cost(out, before, [&](int i) { CHECK(cudaStreamWaitEvent(to, *all[i], 0)); });
}

samples records_and_waits(const report &out) {
  const stream from, to;
  const events all = make_events(loop);
  const auto before = [&] {
    synchronize(from);
    synchronize(to);
  };
  return host_cost(out, before, [&](int i) {
    CHECK(cudaEventRecord(*all[i], from));
    CHECK(cudaStreamWaitEvent(to, *all[i], 0));
  });
}

samples event_queries(const report &out) {
  const stream on;
  const events all = make_events(loop);
  const auto before = [&] {
    for (const auto &each : all) CHECK(cudaEventRecord(*each, on));
    synchronize(on);
  };
  return host_cost(out, before, [&](int i) { CHECK(cudaEventQuery(*all[i])); });
}

samples events_made(const report &out) {
  return host_cost(out, [] {}, [](int) {
    cudaEvent_t made = nullptr;
    CHECK(cudaEventCreateWithFlags(&made, cudaEventDisableTiming));
    CHECK(cudaEventDestroy(made));
  });
}

// A chain of kernel nodes, captured.
class chain {
public:
  chain(cudaStream_t on, unsigned *counter, int nodes) {
    cudaGraph_t graph = nullptr;
    CHECK(cudaStreamBeginCapture(on, cudaStreamCaptureModeThreadLocal));
    for (int i = 0; i < nodes; ++i) launch(increment, 1, 1, on, counter);
    CHECK(cudaStreamEndCapture(on, &graph));
    const cudaError_t made = cudaGraphInstantiate(&ready_, graph, 0);
    cudaGraphDestroy(graph);
    check(made, "cudaGraphInstantiate", __LINE__);
    CHECK(cudaGraphUpload(ready_, on));
    synchronize(on);
  }
  ~chain() { cudaGraphExecDestroy(ready_); }
  chain(const chain &) = delete;
  chain &operator=(const chain &) = delete;
  void launch_on(cudaStream_t on) const { CHECK(cudaGraphLaunch(ready_, on)); }

private:
  cudaGraphExec_t ready_ = nullptr;
};

// What a chain of 2,000 nodes takes longer than one of 1,000: the launch of the graph falls out.
samples graph_nodes(const report &out) {
  const stream on;
  const device<unsigned> counter;
  const chain shorter(on, counter.at, 1000), longer(on, counter.at, 2000);
  unsigned expected = 0;
  samples all = out.repeat(3, 60, [&](int) {
    const double less = gpu_us(on, 2000, [&] { shorter.launch_on(on); });
    const double more = gpu_us(on, 2000, [&] { longer.launch_on(on); });
    expected += 3000;
    return (more - less) / 1000;
  });
  unsigned counted = 0;
  CHECK(cudaMemcpy(&counted, counter.at, sizeof counted, cudaMemcpyDeviceToHost));
  if (counted != expected) throw failure("the nodes did not all run one after the other");
  return all;
}

// [kernel, record | wait] from stream to stream: 256 hops are 384 entries of each.
samples hops(const report &out) {
  return chained(out, 256, [](cudaStream_t from, cudaStream_t to, cudaEvent_t between) {
    launch(nothing, 1, 1, from);
    CHECK(cudaEventRecord(between, from));
    CHECK(cudaStreamWaitEvent(to, between, 0));
  });
}

// [kernel, record | wait, kernel] from stream to stream: a handoff has work at both ends. 200 hops are 400 kernels.
samples hop_pairs(const report &out) {
  return chained(out, 200, [](cudaStream_t from, cudaStream_t to, cudaEvent_t between) {
    launch(nothing, 1, 1, from);
    CHECK(cudaEventRecord(between, from));
    CHECK(cudaStreamWaitEvent(to, between, 0));
    launch(nothing, 1, 1, to);
  });
}

// From before a launch to its number in the host's hands. The stream is idle at the start of each.
template <class F> samples counts(const report &out, cudaStream_t on, F &&once) {
  unsigned number = 0;
  return out.repeat(200, 5000, [&](int) {
    ++number;
    const double start = now_us();
    once(number);
    const double took = now_us() - start;
    synchronize(on);
    return took;
  });
}

samples counts_mapped(const report &out) {
  const stream on;
  const pinned<unsigned long long> word;
  return counts(out, on, [&](unsigned number) {
    launch(write_count<true>, 1, 32, on, word.mapped, number);
    bench::poll("the count", [&] { return seen(word.host) == count_word(number); });
  });
}

samples counts_copied(const report &out, unsigned long long *to) {
  const stream on;
  const device<unsigned long long> word;
  return counts(out, on, [&](unsigned number) {
    launch(write_count<false>, 1, 32, on, word.at, number);
    CHECK(cudaMemcpyAsync(to, word.at, sizeof *to, cudaMemcpyDeviceToHost, on));
    synchronize(on);
    if (seen(to) != count_word(number)) throw failure("the count is wrong");
  });
}

// One copy, alone, by events around it, so with what it takes to start it. Each run copies between the same two
// buffers as the last, because a mailbox uses its ring again and again, too: what the L2 cache keeps of them it keeps.
// --pairs N takes turns over N pairs of buffers: with enough of them nothing is left in the cache.
samples copies(const report &out, size_t bytes) {
  const stream on;
  const int pairs = static_cast<int>(out.chosen().pairs);
  std::vector<std::unique_ptr<device<unsigned char>>> sources, targets;
  for (int i = 0; i < pairs; ++i) {
    sources.push_back(std::make_unique<device<unsigned char>>(bytes));
    targets.push_back(std::make_unique<device<unsigned char>>(bytes));
    launch(scramble, 1024, 256, on, reinterpret_cast<unsigned *>(sources.back()->at), bytes / sizeof(unsigned));
  }
  return out.repeat(2 * pairs + 3, 60, [&](int run) {
    const int pair = (run + 2 * pairs + 3) % pairs;
    return gpu_us(on, 50, [&] {
      CHECK(cudaMemcpyAsync(targets[pair]->at, sources[pair]->at, bytes, cudaMemcpyDeviceToDevice, on));
    });
  });
}

// Packets to and fro between block 0 and another one, half a round trip. Which SM the partner is on, and which L2 slice the
// address is of, change the way there: each run takes another partner and another place, and the median stands for all.
template <class Wire> samples packets(const report &out) {
  constexpr unsigned warm = 100, trips = 5000;
  const stream on;
  const unsigned blocks = static_cast<unsigned>(multiprocessors());
  if (blocks < 2) throw failure("one SM is not enough");
  const int runs = out.runs(66);
  const device<unsigned char> area(4096 * static_cast<size_t>(runs + 1));
  const pinned<side> sides(2);
  samples all;
  for (int run = -1; run < runs; ++run) {
    sides.host[0] = sides.host[1] = side{};
    unsigned char *const place = area.at + 4096 * static_cast<size_t>(run + 1);
    const unsigned partner = 1 + (static_cast<unsigned>(run + 1) * 5) % (blocks - 1);
    launch(ping_pong<Wire>, blocks, 32, on, place, place + 2048, partner, warm, trips, sides.mapped);
    synchronize(on);
    if (sides.host[0].gave_up || sides.host[1].gave_up) throw failure("a packet did not come within 2 s");
    if (sides.host[0].wrong || sides.host[1].wrong) throw failure("a packet came with a wrong payload");
    if (!sides.host[0].finished || !sides.host[1].finished) throw failure("a side did not run");
    // Both on one SM is another measurement.
    if (run < 0 || sides.host[0].sm == sides.host[1].sm) continue;
    all.push_back(static_cast<double>(sides.host[0].ns) * 1e-3 / (2.0 * trips));
  }
  return all;
}

// One lane of each warp takes 32 tickets at an address that all share. In G warp operations a second.
samples atomics_one(const report &out) {
  constexpr unsigned each = 512;
  const stream on;
  const unsigned blocks = static_cast<unsigned>(multiprocessors()) * 8;
  const device<unsigned> tickets, sink;
  const double operations = static_cast<double>(blocks) * (256 / 32) * each;
  unsigned expected = 0;
  samples all = out.repeat(2, 50, [&](int) {
    const double took = gpu_us(on, 50, [&] { launch(take_tickets, blocks, 256, on, tickets.at, each, sink.at); });
    expected += blocks * 256 * each;
    return operations / took * 1e-3;
  });
  unsigned taken = 0;
  CHECK(cudaMemcpy(&taken, tickets.at, sizeof taken, cudaMemcpyDeviceToHost));
  if (taken != expected) throw failure("tickets are missing");
  return all;
}

// Every thread adds at another place each time, each place in a 32-byte sector of its own, 8 MiB in all: the L2 cache
// does it. In G additions a second.
samples atomics_spread(const report &out) {
  constexpr unsigned each = 256;
  const stream on;
  const unsigned blocks = static_cast<unsigned>(multiprocessors()) * 8;
  const device<unsigned> table(size_t{spread_sectors} * 8), sink;
  return out.repeat(2, 50, [&](int) {
    const double took = gpu_us(on, 50, [&] { launch(add_spread, blocks, 256, on, table.at, each, sink.at); });
    return static_cast<double>(blocks) * 256 * each / took * 1e-3;
  });
}

// A number from the host to a polling warp and back, through mapped memory.
samples doorbells(const report &out) {
  const stream on;
  // The two words lie on lines of their own.
  const pinned<unsigned> words(64);
  unsigned *ring = words.host, *answer = words.host + 32;
  launch(answer_doorbell, 1, 32, on, static_cast<const unsigned *>(words.mapped), words.mapped + 32);
  samples all;
  try {
    unsigned number = 0;
    all = out.repeat(200, 5000, [&](int) {
      ++number;
      const double start = now_us();
      tell(ring, number);
      bench::poll("the answer", [&] { return seen(answer) == number; });
      return now_us() - start;
    });
  } catch (...) {
    tell(ring, doorbell_stop);
    throw;
  }
  tell(ring, doorbell_stop);
  synchronize(on);
  return all;
}

constexpr size_t pcie_bytes = size_t{256} << 20;
double gib_per_s(double us) { return static_cast<double>(pcie_bytes) / (1 << 30) / us * 1e6; }

struct pcie_way {
  const stream on;
  const pinned<unsigned char> host{pcie_bytes};
  const device<unsigned char> gpu{pcie_bytes};
  const event begin{cudaEventDefault}, end{cudaEventDefault};
  const bool to_device;

  explicit pcie_way(bool in) : to_device(in) {}
  void copy() const {
    if (to_device) CHECK(cudaMemcpyAsync(gpu.at, host.host, pcie_bytes, cudaMemcpyHostToDevice, on));
    else CHECK(cudaMemcpyAsync(host.host, gpu.at, pcie_bytes, cudaMemcpyDeviceToHost, on));
  }
  // Three copies, and the events around the second: the other way is busy all that time.
  void copy_three() const {
    copy();
    CHECK(cudaEventRecord(begin, on));
    copy();
    CHECK(cudaEventRecord(end, on));
    copy();
  }
};

samples pcie_alone(const report &out, bool to_device) {
  const pcie_way way(to_device);
  return out.repeat(1, 20, [&](int) { return gib_per_s(gpu_us(way.on, 50, [&] { way.copy(); })); });
}

samples pcie_both(const report &out, bool of_device) {
  const pcie_way in(true), back(false);
  const event started;
  const pcie_way &wanted = of_device ? in : back;
  return out.repeat(1, 20, [&](int) {
    launch(keep_busy, 1, 1, in.on, 100000u);
    CHECK(cudaEventRecord(started, in.on));
    CHECK(cudaStreamWaitEvent(back.on, started, 0));
    in.copy_three();
    back.copy_three();
    synchronize(in.on);
    synchronize(back.on);
    float ms = 0;
    CHECK(cudaEventElapsedTime(&ms, wanted.begin, wanted.end));
    return gib_per_s(ms * 1e3);
  });
}

void measure(report &out) {
  out.add("launch", [&] { return launches(out); });
  out.add("launch_args", [&] { return launches_with_arguments(out); });
  out.add("graph_node", [&] { return graph_nodes(out); });
  out.add("hop", [&] { return hops(out); });
  out.add("hop_pair", [&] { return hop_pairs(out); });
  out.add("event_record", [&] { return event_records(out); });
  out.add("stream_wait", [&] { return stream_waits(out); });
  out.add("record_wait", [&] { return records_and_waits(out); });
  out.add("event_query", [&] { return event_queries(out); });
  out.add("event_create_destroy", [&] { return events_made(out); });
  out.add("count_to_host", [&] { return counts_mapped(out); });
  out.add("count_pageable_copy", [&] {
    unsigned long long there = 0;
    return counts_copied(out, &there);
  });
  out.add("count_pinned_copy", [&] {
    const pinned<unsigned long long> there;
    return counts_copied(out, there.host);
  });
  for (size_t bytes : out.chosen().copies) out.add(bench::copy_of(bytes), [&] { return copies(out, bytes); });
  measure_records(out);
  out.add("flag_hop", [&] { return packets<flag_wire>(out); });
  out.add("packet_hop_240B_flagged", [&] { return packets<flagged_wire>(out); });
  out.add("packet_hop_240B_12of16", [&] { return packets<twelve_wire>(out); });
  out.add("packet_hop_240B_then_flag", [&] { return packets<then_flag_wire>(out); });
  out.add({"atomics_one_address", "G warp-operations/s"}, [&] { return atomics_one(out); });
  out.add({"atomics_spread", "G/s"}, [&] { return atomics_spread(out); });
  out.add("doorbell", [&] { return doorbells(out); });
  out.add({"pcie_h2d", "GiB/s"}, [&] { return pcie_alone(out, true); });
  out.add({"pcie_d2h", "GiB/s"}, [&] { return pcie_alone(out, false); });
  out.add({"pcie_both_h2d", "GiB/s"}, [&] { return pcie_both(out, true); });
  out.add({"pcie_both_d2h", "GiB/s"}, [&] { return pcie_both(out, false); });
}

}  // namespace

int main(int argc, char **argv) {
  return bench::run(argc, argv, [](report &out) {
    begin_on_gpu();
    measure(out);
  });
}
