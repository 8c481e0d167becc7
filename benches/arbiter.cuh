// The arbiter's rows: how long it takes from a push that is published until a waiting kernel is told of it, and what the
// arbiter costs others. Part of mailbox.cu.
#ifndef GMB_BENCHES_ARBITER_CUH
#define GMB_BENCHES_ARBITER_CUH

struct arbiter_side {
  word64 ns;
  unsigned trips, wrong;
};

// One warp pushes into one mailbox after the other and waits until that one is told to be ready; then it pops, and waits until it
// is not. The way from the push to the signal is what counts.
__global__ void wait_for_signals(gmb_arbiter_header *header, gmb_ring_header *const *rings, unsigned mailboxes, unsigned trips,
                                 arbiter_side *out) {
  __shared__ uint32_t row[4];
  const one_warp warp;
  const gmb::device::arbiter ready(header);
  word64 sum = 0;
  unsigned done = 0, wrong = 0;
  patience limit;
  // One lane looks: others might see it a moment sooner or later.
  const auto is_ready = [&](unsigned number) {
    return warp.from_leader(static_cast<uint32_t>(warp.lane() == 0 && ready.is_ready(number))) != 0;
  };
  for (; done < trips; ++done) {
    const unsigned number = done * 7 % mailboxes;
    const gmb::device::shared_mailbox box(rings[number]);
    if (warp.lane() < 4) row[warp.lane()] = done + warp.lane();
    __syncwarp();
    wrong |= is_ready(number);
    if (!box.try_push(warp, row, sizeof row)) break;
    const word64 pushed = nanoseconds();
    bool over = false;
    while (!is_ready(number) && !(over = limit.over_in_warp())) {}
    sum += nanoseconds() - pushed;
    // What is next is the one that has records.
    wrong |= ready.next(warp) != number;
    gmb_record_header about{};
    if (over || !box.try_pop(warp, row, &about)) break;
    wrong |= about.length != sizeof row || row[3] != done + 3;
    while (is_ready(number) && !(over = limit.over_in_warp())) {}
    if (over) break;
  }
  if (warp.lane() != 0) return;
  out->ns = sum;
  out->trips = done;
  out->wrong = wrong;
}

struct arbitrated_boxes {
  std::vector<std::unique_ptr<mailbox>> boxes;
  std::vector<gmb_arbitrated> all;
  device<gmb_ring_header *> rings;
  gmb_arbiter arbiter{};

  arbitrated_boxes(const library &lib, unsigned count) : rings(count) {
    gmb_mailbox_options options = GMB_MAILBOX_OPTIONS_INIT;
    options.capacity = 64;
    options.payload_bytes = 16;
    options.flags = GMB_MAILBOX_SHARED;
    std::vector<gmb_ring_header *> addresses;
    for (unsigned n = 0; n < count; ++n) {
      boxes.push_back(std::make_unique<mailbox>(lib, options));
      gmb_mailbox_info info;
      OK(gmb_mailbox_get_info(boxes.back()->id, &info, sizeof info));
      addresses.push_back(info.ring);
      all.push_back({boxes.back()->id, 0, n % 4 == 0 ? GMB_CLASS_FOCUS : GMB_CLASS_PERIPHERAL});
    }
    CHECK(cudaMemcpy(rings.at, addresses.data(), count * sizeof(void *), cudaMemcpyHostToDevice));
    begin(lib);
  }
  void begin(const library &lib) {
    gmb_arbiter_options options = GMB_ARBITER_OPTIONS_INIT;
    options.count = static_cast<uint32_t>(all.size());
    options.mailboxes = all.data();
    OK(gmb_arbiter_create(lib.id, &options, &arbiter));
    gmb_arbiter_info info{};
    for (const double late = now_us() + 2e6; info.heartbeat == 0;) {
      OK(gmb_arbiter_get_info(arbiter, &info, sizeof info));
      if (now_us() > late) throw failure("the arbiter has not come within 2 s");
    }
  }
  void end() {
    if (arbiter.id) gmb_arbiter_destroy(arbiter);
    arbiter = {};
  }
  gmb_arbiter_header *header() const {
    gmb_arbiter_info info;
    OK(gmb_arbiter_get_info(arbiter, &info, sizeof info));
    return info.arbiter;
  }
  ~arbitrated_boxes() { end(); }
  arbitrated_boxes(const arbitrated_boxes &) = delete;
};

samples arbiter_signals(const report &out, const library &lib) {
  constexpr unsigned mailboxes = 64, trips = 2000;
  const stream on;
  const pinned<arbiter_side> side(1);
  const arbitrated_boxes some(lib, mailboxes);
  return out.repeat(1, 30, [&](int) {
    *side.host = arbiter_side{};
    launch(wait_for_signals, 1, 32, on, some.header(), some.rings.at, mailboxes, trips,
           side.mapped);
    CHECK(cudaStreamSynchronize(on));
    if (side.host->trips != trips) throw failure("a signal did not come within 2 s");
    if (side.host->wrong) throw failure("a signal came for another mailbox, or a record was wrong");
    return static_cast<double>(side.host->ns) * 1e-3 / trips;
  });
}

// Work that is bound by the memory, or by arithmetic, on all multiprocessors.
__global__ void read_all(const uint4 *from, size_t count, unsigned *sink) {
  unsigned sum = 0;
  for (size_t i = blockIdx.x * size_t{blockDim.x} + threadIdx.x; i < count; i += size_t{gridDim.x} * blockDim.x) {
    const uint4 here = __ldcs(from + i);
    sum ^= here.x ^ here.y ^ here.z ^ here.w;
  }
  if (sum == 0x12345678) *sink = sum;
}
__global__ void multiply_all(unsigned rounds, float *sink) {
  float a = threadIdx.x, b = a + 1, c = a + 2, d = a + 3;
  for (unsigned i = 0; i < rounds; ++i) {
    a = fmaf(a, 0.999f, 1.0f);
    b = fmaf(b, 0.999f, 1.0f);
    c = fmaf(c, 0.999f, 1.0f);
    d = fmaf(d, 0.999f, 1.0f);
  }
  if (a + b + c + d == 12345.0f) *sink = a;
}

// What such work takes beside an arbiter of 64 mailboxes, in percent of its time alone: of the memory, and of arithmetic.
std::array<samples, 2> arbiter_costs(const report &out, const library &lib) {
  const stream on;
  cudaDeviceProp properties;
  CHECK(cudaGetDeviceProperties(&properties, 0));
  const unsigned blocks = static_cast<unsigned>(properties.multiProcessorCount) * 8;
  constexpr size_t bytes = size_t{1} << 30;
  const device<uint4> memory(bytes / sizeof(uint4));
  const device<unsigned> sink(1);
  const event begin(cudaEventDefault), end(cudaEventDefault);
  const auto both = [&] {
    std::array<double, 2> took{};
    for (int which = 0; which < 2; ++which) {
      CHECK(cudaEventRecord(begin, on));
      for (int i = 0; i < 10; ++i) {
        if (which == 0) launch(read_all, blocks, 256, on, memory.at, bytes / sizeof(uint4), sink.at);
        else launch(multiply_all, blocks, 256, on, 20000u, reinterpret_cast<float *>(sink.at));
      }
      CHECK(cudaEventRecord(end, on));
      CHECK(cudaStreamSynchronize(on));
      float milliseconds = 0;
      CHECK(cudaEventElapsedTime(&milliseconds, begin, end));
      took[which] = milliseconds;
    }
    return took;
  };
  arbitrated_boxes some(lib, 64);
  const auto all = out.repeat_together<2>(1, 20, [&](int) {
    some.end();
    const auto alone = both();
    some.begin(lib);
    const auto beside = both();
    return std::array<double, 2>{beside[0] / alone[0] * 100, beside[1] / alone[1] * 100};
  });
  return all;
}

void measure_arbiters(report &out, const library &lib) {
  out.add("arbiter_signal", [&] { return arbiter_signals(out, lib); });
  out.together<2>({row("arbiter_beside_memory", "% of the time alone"), row("arbiter_beside_arithmetic", "% of the time alone")}, [&] { return arbiter_costs(out, lib); });
}

#endif
