// The pipeline's rows: a coordinator's three streams beside the same loop with hand-placed events, as far as uploads, kernels and
// downloads can overlap at all; and what an operation costs the host beside the driver's own calls. Part of mailbox.cu.
#ifndef GMB_BENCHES_PIPELINE_CUH
#define GMB_BENCHES_PIPELINE_CUH

// Times of the parts of an iteration, alone and in microseconds.
struct parts {
  double up, compute, down;
  double sum() const { return up + compute + down; }
  double longest() const { return std::max({up, compute, down}); }
};

// An iteration's data and kernel: bytes there and back, and a kernel that takes so long.
struct load {
  size_t up_bytes, down_bytes;
  unsigned compute_ns;
};

constexpr int iterations = 64;

// Host memory for a whole run, so that what comes back can be looked at, and three buffers.
class overlap {
public:
  overlap(const library &of, const load &what)
      : lib_(of), what_(what), bytes_(std::max(what.up_bytes, what.down_bytes)), input_(bytes_ / 4 + iterations), output_(bytes_ / 4) {
    for (size_t i = 0; i < bytes_ / 4 + iterations; ++i) input_.host[i] = static_cast<unsigned>(i * 2654435761u);
    gmb_triple_buffer_options options = GMB_TRIPLE_BUFFER_OPTIONS_INIT;
    options.dtype = words;
    options.elements = bytes_ / 4;
    OK(gmb_triple_buffer_create(lib_.id, &options, &triple_));
    const gmb_coordinator_options coordinating = GMB_COORDINATOR_OPTIONS_INIT;
    OK(gmb_coordinator_create(lib_.id, &coordinating, &coordinator_));
  }
  ~overlap() {
    gmb_coordinator_destroy(coordinator_);
    gmb_triple_buffer_destroy(triple_);
  }
  overlap(const overlap &) = delete;
  overlap &operator=(const overlap &) = delete;

  // Each part by itself, or with the copies both at once.
  parts alone(bool both) {
    const stream up, down;
    const device<unsigned> there(bytes_ / 4), back(bytes_ / 4);
    const auto upload = [&] {
      CHECK(cudaMemcpyAsync(there.at, input_.host, what_.up_bytes, cudaMemcpyHostToDevice, up));
    };
    const auto download = [&] {
      CHECK(cudaMemcpyAsync(output_.host, back.at, what_.down_bytes, cudaMemcpyDeviceToHost, down));
    };
    const auto beside = [&](cudaStream_t on, auto &&mine, auto &&other) {
      return gpu_us(on, 100, [&] {
        for (int i = 0; i < 8; ++i) {
          mine();
          if (both) other();
        }
      }) / 8;
    };
    parts took{};
    took.up = beside(up, upload, download);
    synchronize(down);
    took.down = beside(down, download, upload);
    synchronize(up);
    took.compute = gpu_us(up, 100, [&] { launch(keep_busy, 1, 1, up, what_.compute_ns); });
    synchronize(up);
    return took;
  }

  // Microseconds of an iteration, from the first call to when all of it is done.
  template <class F> double timed(F &&all) {
    for (size_t i = 0; i < bytes_ / 4; i += 1024) output_.host[i] = 0;
    CHECK(cudaDeviceSynchronize());
    const double start = now_us();
    all();
    const double took = (now_us() - start) / iterations;
    // That of the last iteration: each has an input of its own.
    for (size_t i = 0; i < what_.down_bytes / 4 && i < what_.up_bytes / 4; i += 1024)
      if (output_.host[i] != input_.host[i + iterations - 1]) throw failure("what came back is not what was sent");
    return took;
  }

  // One part after the other, on one stream: nothing overlaps, and nothing waits for the host.
  double in_sequence() {
    const stream on;
    const device<unsigned> buffer(bytes_ / 4);
    return timed([&] {
      for (int i = 0; i < iterations; ++i) {
        CHECK(cudaMemcpyAsync(buffer.at, input_.host + i, what_.up_bytes, cudaMemcpyHostToDevice, on));
        launch(keep_busy, 1, 1, on, what_.compute_ns);
        CHECK(cudaMemcpyAsync(output_.host, buffer.at, what_.down_bytes, cudaMemcpyDeviceToHost, on));
      }
      synchronize(on);
    });
  }

  // Three streams, three buffers and an event for each step of each, by hand.
  double by_hand() {
    const stream up, work, down;
    const device<unsigned> buffers[3] = {device<unsigned>(bytes_ / 4), device<unsigned>(bytes_ / 4),
                                         device<unsigned>(bytes_ / 4)};
    const events uploaded = make_events(3), computed = make_events(3), downloaded = make_events(3);
    return timed([&] {
      for (int i = 0; i < iterations; ++i) {
        const int n = i % 3;
        CHECK(cudaStreamWaitEvent(up, *downloaded[n], 0));
        CHECK(cudaMemcpyAsync(buffers[n].at, input_.host + i, what_.up_bytes, cudaMemcpyHostToDevice, up));
        CHECK(cudaEventRecord(*uploaded[n], up));
        CHECK(cudaStreamWaitEvent(work, *uploaded[n], 0));
        launch(keep_busy, 1, 1, work, what_.compute_ns);
        CHECK(cudaEventRecord(*computed[n], work));
        CHECK(cudaStreamWaitEvent(down, *computed[n], 0));
        CHECK(cudaMemcpyAsync(output_.host, buffers[n].at, what_.down_bytes, cudaMemcpyDeviceToHost, down));
        CHECK(cudaEventRecord(*downloaded[n], down));
      }
      synchronize(down);
    });
  }

  // The library's: it knows what waits for what.
  double coordinated() {
    gmb_compute compute = GMB_COMPUTE_INIT;
    compute.callback = [](gmb_stream on, void *, void *user) {
      launch(keep_busy, 1, 1, reinterpret_cast<cudaStream_t>(on), static_cast<const load *>(user)->compute_ns);
      return GMB_OK;
    };
    compute.user = &what_;
    compute.triple = triple_;
    return timed([&] {
      for (int i = 0; i < iterations; ++i) {
        gmb_operation done{};
        OK(gmb_coordinator_queue_triple_upload(coordinator_, triple_, words, input_.host + i, what_.up_bytes, nullptr, 0, &done));
        OK(gmb_coordinator_queue_compute(coordinator_, &compute, nullptr, 0, &done));
        OK(gmb_coordinator_queue_triple_download(coordinator_, triple_, words, output_.host, what_.down_bytes, nullptr, 0, &done));
      }
      OK(gmb_coordinator_synchronize(coordinator_, 5000000000ull));
    });
  }

private:
  static constexpr gmb_dtype words = {1, 32, 1};
  const library &lib_;
  load what_;
  const size_t bytes_;
  const pinned<unsigned> input_, output_;
  gmb_triple_buffer triple_{};
  gmb_coordinator coordinator_{};
};

// Bytes of a copy that takes so long, in whole pages.
size_t bytes_for(double us, double us_of_a_mebibyte) {
  return std::max<size_t>(static_cast<size_t>(us / us_of_a_mebibyte * (1 << 20)) / 4096 * 4096, 4096);
}

// How much faster than one after the other: by what overlaps at best, by hand, and by the coordinator. The parts take as long
// as the three numbers say, in units.
std::array<samples, 3> overlaps(const report &out, const library &lib, double up, double compute, double down) {
  constexpr double unit_us = 100;
  constexpr size_t probe_bytes = 32 << 20;
  const bool both = up == compute;
  const parts probe = overlap(lib, {probe_bytes, probe_bytes, 1000}).alone(both);
  const load what = {bytes_for(up * unit_us, probe.up / 32), bytes_for(down * unit_us, probe.down / 32),
                     static_cast<unsigned>(compute * unit_us * 1000)};
  overlap run(lib, what);
  return out.repeat_together<3>(2, 30, [&](int) -> std::array<double, 3> {
    const parts alone = run.alone(both);
    const double sequence = run.in_sequence();
    return {alone.sum() / alone.longest(), sequence / run.by_hand(), sequence / run.coordinated()};
  });
}

__global__ void nothing_of(const word64 *) {}

// A kernel of a module, by name. It is loaded by the driver's compiler.
constexpr char nothing_ptx[] = ".version 7.0\n.target sm_75\n.address_size 64\n"
                               ".visible .entry nothing(.param .u64 where)\n{\nret;\n}\n";

// Host time of an operation: an upload of 64 bytes, a kernel after it and a download after that, 64 times and by three, in
// turns with the driver's calls for the same: a copy, a launch and a copy, an event after each, a wait before the last two.
std::array<samples, 2> operation_costs(const report &out, const library &lib) {
  constexpr int trios = 64;
  const stream up, work, down;
  const events uploaded = make_events(trios), computed = make_events(trios), downloaded = make_events(trios);
  const device<word64> memory(8);
  const pinned<word64> host(16);
  const gmb_coordinator_options options = GMB_COORDINATOR_OPTIONS_INIT;
  gmb_coordinator coordinator{};
  gmb_module module{};
  gmb_kernel kernel{};
  OK(gmb_coordinator_create(lib.id, &options, &coordinator));
  OK(gmb_module_create(lib.id, nothing_ptx, sizeof nothing_ptx, &module));
  OK(gmb_module_get_kernel(module, "nothing", &kernel));
  const word64 *where = memory.at;
  const gmb_argument argument = {&where, sizeof where};
  gmb_launch shape = GMB_LAUNCH_INIT;
  shape.argument_count = 1;
  shape.arguments = &argument;
  gmb_compute compute = GMB_COMPUTE_INIT;
  compute.kernel = kernel;
  compute.launch = &shape;
  const auto idle = [&] {
    CHECK(cudaDeviceSynchronize());
    gmb_completion done[512];
    uint32_t count = 0;
    OK(gmb_coordinator_poll(coordinator, 512, done, &count));
    for (uint32_t i = 0; i < count; ++i)
      if (done[i].status != GMB_OK) throw failure("an operation failed");
  };
  const auto per_operation = [&](auto &&trio) {
    idle();
    const double start = now_us();
    for (int i = 0; i < trios; ++i) trio(i);
    return (now_us() - start) / (3 * trios);
  };
  const auto times = out.repeat_together<2>(20, 400, [&](int) -> std::array<double, 2> {
    const double raw = per_operation([&](int i) {
      CHECK(cudaMemcpyAsync(memory.at, host.host, 64, cudaMemcpyHostToDevice, up));
      CHECK(cudaEventRecord(*uploaded[i], up));
      CHECK(cudaStreamWaitEvent(work, *uploaded[i], 0));
      launch(nothing_of, 1, 1, work, where);
      CHECK(cudaEventRecord(*computed[i], work));
      CHECK(cudaStreamWaitEvent(down, *computed[i], 0));
      CHECK(cudaMemcpyAsync(host.host + 8, memory.at, 64, cudaMemcpyDeviceToHost, down));
      CHECK(cudaEventRecord(*downloaded[i], down));
    });
    const double ours = per_operation([&](int) {
      gmb_operation first{}, second{}, third{};
      OK(gmb_coordinator_queue_upload(coordinator, memory.at, host.host, 64, nullptr, 0, &first));
      OK(gmb_coordinator_queue_compute(coordinator, &compute, &first, 1, &second));
      OK(gmb_coordinator_queue_download(coordinator, host.host + 8, memory.at, 64, &second, 1, &third));
    });
    return {raw, ours};
  });
  idle();
  OK(gmb_coordinator_destroy(coordinator));
  OK(gmb_kernel_destroy(kernel));
  OK(gmb_module_destroy(module));
  return times;
}

// Host time of a poll that has nothing to tell, with few operations in flight and with many: behind a gate.
samples idle_polls(const report &out, const library &lib, int in_flight) {
  const gmb_coordinator_options options = GMB_COORDINATOR_OPTIONS_INIT;
  gmb_coordinator coordinator{};
  OK(gmb_coordinator_create(lib.id, &options, &coordinator));
  gmb_stream on = nullptr;
  OK(gmb_coordinator_get_stream(coordinator, GMB_STEP_PROCESS, &on));
  const pinned<unsigned> flag;
  const pinned<stamps> times;
  launch(gate, 1, 1, reinterpret_cast<cudaStream_t>(on), static_cast<const unsigned *>(flag.mapped), times.mapped);
  gmb_compute compute = GMB_COMPUTE_INIT;
  compute.callback = [](gmb_stream, void *, void *) { return GMB_OK; };
  for (int i = 0; i < in_flight; ++i) {
    gmb_operation operation{};
    OK(gmb_coordinator_queue_compute(coordinator, &compute, nullptr, 0, &operation));
  }
  samples all = out.repeat(20, 100, [&](int) {
    return host_us([] {}, [&](int) {
      gmb_completion done[1];
      uint32_t count = 0;
      OK(gmb_coordinator_poll(coordinator, 1, done, &count));
      if (count != 0) throw failure("an operation overtook the gate");
    });
  });
  tell(flag.host, 1u);
  OK(gmb_coordinator_destroy(coordinator));
  if (times.host->gave_up) throw failure("the gate was not opened within 2 s");
  return all;
}

// Microseconds of an iteration of three stages that take ten each, upload, kernel and download: by calls for each, and as graphs.
std::array<samples, 2> iterations_of_10us(const report &out, const library &lib) {
  constexpr uint32_t in_a_graph = 48;
  constexpr uint64_t all = 10 * in_a_graph;
  constexpr size_t probe_bytes = 1 << 20;
  const parts probe = overlap(lib, {probe_bytes, probe_bytes, 1000}).alone(false);
  const size_t up_bytes = bytes_for(10, probe.up), down_bytes = bytes_for(10, probe.down);
  const pinned<unsigned char> input(up_bytes), output(down_bytes);
  const gmb_pipeline_options options = GMB_PIPELINE_OPTIONS_INIT;
  gmb_pipeline pipeline{};
  OK(gmb_pipeline_create(lib.id, &options, &pipeline));
  uint32_t data = 0;
  OK(gmb_pipeline_add_buffer(pipeline, std::max(up_bytes, down_bytes), &data));
  gmb_stage stage = GMB_STAGE_INIT;
  stage.name = "up";
  stage.kind = GMB_STAGE_UPLOAD;
  stage.step = GMB_STEP_UPLOAD;
  stage.outputs = &data;
  stage.output_count = 1;
  stage.host = input.host;
  stage.bytes = up_bytes;
  OK(gmb_pipeline_add_stage(pipeline, &stage));
  stage = GMB_STAGE_INIT;
  stage.name = "work";
  stage.kind = GMB_STAGE_CALLBACK;
  stage.inputs = stage.outputs = &data;
  stage.input_count = stage.output_count = 1;
  stage.callback = [](const gmb_stage_call *call, void *) {
    launch(keep_busy, 1, 1, reinterpret_cast<cudaStream_t>(call->stream), 10000u);
    return GMB_OK;
  };
  OK(gmb_pipeline_add_stage(pipeline, &stage));
  stage = GMB_STAGE_INIT;
  stage.name = "down";
  stage.kind = GMB_STAGE_DOWNLOAD;
  stage.step = GMB_STEP_DOWNLOAD;
  stage.inputs = &data;
  stage.input_count = 1;
  stage.host = output.host;
  stage.bytes = down_bytes;
  OK(gmb_pipeline_add_stage(pipeline, &stage));
  const auto timed = [&] {
    OK(gmb_pipeline_synchronize(pipeline, 5000000000ull));
    const double start = now_us();
    OK(gmb_pipeline_execute(pipeline, all, nullptr));
    OK(gmb_pipeline_synchronize(pipeline, 5000000000ull));
    return (now_us() - start) / all;
  };
  const auto times = out.repeat_together<2>(2, 30, [&](int) -> std::array<double, 2> {
    OK(gmb_pipeline_synchronize(pipeline, 5000000000ull));
    OK(gmb_pipeline_capture(pipeline, 0));
    const double streams = timed();
    OK(gmb_pipeline_capture(pipeline, in_a_graph));
    return {streams, timed()};
  });
  OK(gmb_pipeline_destroy(pipeline));
  return times;
}

void measure_pipelines(report &out, const library &lib) {
  const auto ideal = [](const char *id, const char *words) { return row(id, "times").beside("overlap_2_5_2_ideal", words); };
  out.together<3>({row("overlap_2_5_2_ideal", "times"), ideal("overlap_2_5_2_by_hand", "sum/max"), ideal("overlap_2_5_2", "sum/max")},
                  [&] { return overlaps(out, lib, 2, 5, 2); });
  const auto even = [](const char *id) {
    return row(id, "times").beside("overlap_1_1_1_ideal", "sum/max, PCIe both ways at once");
  };
  out.together<3>({row("overlap_1_1_1_ideal", "times"), even("overlap_1_1_1_by_hand"), even("overlap_1_1_1")},
                  [&] { return overlaps(out, lib, 1, 1, 1); });
  out.together<2>({row("raw_operation"), row("coordinator_op").beside("raw_operation", "the driver's calls for the same")},
                  [&] { return operation_costs(out, lib); });
  out.together<2>({row("pipeline_stream_10us"), row("pipeline_graph_10us").beside("pipeline_stream_10us", "stream mode, an iteration")},
                  [&] { return iterations_of_10us(out, lib); });
  out.add("coordinator_poll_10_in_flight", [&] { return idle_polls(out, lib, 10); });
  out.add(row("coordinator_poll_400_in_flight").beside("coordinator_poll_10_in_flight", "the same with 10 in flight"),
          [&] { return idle_polls(out, lib, 400); });
}

#endif
