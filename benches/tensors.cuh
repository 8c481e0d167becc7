// What tensors by pointer take. Part of mailbox.cu.
#ifndef GMB_BENCHES_TENSORS_CUH
#define GMB_BENCHES_TENSORS_CUH

// Tensors over the same memory, whose ends are counted.
class tensor_set {
public:
  explicit tensor_set(int count) : memory_(1024), all_(count) {
    for (auto &each : all_) {
      each.version = {DLPACK_MAJOR_VERSION, DLPACK_MINOR_VERSION};
      each.manager_ctx = &ended_;
      each.deleter = [](DLManagedTensorVersioned *self) { ++*static_cast<std::atomic<int> *>(self->manager_ctx); };
      each.flags = 0;
      each.dl_tensor = {memory_.at, {kDLCUDA, 0}, 2, {kDLFloat, 32, 1}, shape_, nullptr, 0};
    }
  }
  DLManagedTensorVersioned *operator[](int i) { return &all_[i]; }
  const unsigned *memory() const { return memory_.at; }
  unsigned *memory() { return memory_.at; }
  // All that were pushed are back.
  void await(int count) {
    bench::poll("a tensor's end", [&] { return ended_ == count; });
    ended_ = 0;
  }

private:
  const device<unsigned> memory_;
  int64_t shape_[2] = {32, 32};
  std::vector<DLManagedTensorVersioned> all_;
  std::atomic<int> ended_{0};
};

struct tensor_box {
  gmb_tensor_mailbox id{};
  explicit tensor_box(const library &lib) {
    gmb_tensor_mailbox_options options = GMB_TENSOR_MAILBOX_OPTIONS_INIT;
    options.capacity = 1024;
    OK(gmb_tensor_mailbox_create(lib.id, &options, &id));
  }
  ~tensor_box() { gmb_tensor_mailbox_destroy(id); }
  tensor_box(const tensor_box &) = delete;
  tensor_box &operator=(const tensor_box &) = delete;
};

// Host time of a tensor's way in one stream: from the producer's call until the consumer has it; with its release; and, in
// turns, of the two records of events that are in that, by hand.
std::array<samples, 3> handoffs(const report &out, const library &lib) {
  const stream on;
  const tensor_box box(lib);
  tensor_set tensors(loop);
  const events all = make_events(2 * loop);
  std::vector<gmb_lease> leases(loop);
  const auto pass = [&](int i) {
    OK(gmb_tensor_mailbox_push(box.id, tensors[i], nullptr, ours(on)));
    if (gmb_tensor_mailbox_pop(box.id, ours(on), 0, &leases[i], nullptr) != GMB_OK) throw failure("no tensor came");
  };
  const auto idle = [&] { synchronize(on); };
  return out.repeat_together<3>(20, 400, [&](int) -> std::array<double, 3> {
    const double handed = host_us(idle, pass);
    for (const gmb_lease lease : leases) OK(gmb_lease_release(lease));
    tensors.await(loop);
    const double released = host_us(idle, [&](int i) {
      pass(i);
      OK(gmb_lease_release(leases[i]));
    });
    tensors.await(loop);
    const double records = host_us(idle, [&](int i) {
      CHECK(cudaEventRecord(*all[2 * i], on));
      CHECK(cudaEventRecord(*all[2 * i + 1], on));
    });
    return {handed, released, records};
  });
}

__global__ void fill_tensor(unsigned *to, unsigned value) { to[threadIdx.x] = value; }
__global__ void read_tensor(const unsigned *from, unsigned *told) {
  unsigned sum = 0;
  for (unsigned i = 0; i < 32; ++i) sum += from[i];
  store_system(global(told), sum / 32);
}

// A tensor made by a kernel of one stream, handed over, and read by a kernel of another, from the host's first call until
// the host sees what was read, while other streams are kept busy.
samples tensor_focus(const report &out, const library &lib, int streams, gmb_priority focused, gmb_priority others) {
  const tensor_box box(lib);
  tensor_set tensors(1);
  const library_stream producer(lib, focused), consumer(lib, focused);
  const pinned<unsigned> told;
  bulk_load load(lib, streams, others);
  const auto raw = [](const library_stream &from) { return reinterpret_cast<cudaStream_t>(from.raw); };
  unsigned value = 0;
  return out.repeat(50, 2000, [&](int) {
    load.feed();
    ++value;
    const double start = now_us();
    launch(fill_tensor, 1, 32, raw(producer), tensors.memory(), value);
    OK(gmb_tensor_mailbox_push(box.id, tensors[0], nullptr, producer.raw));
    gmb_lease lease;
    gmb_tensor tensor;
    if (gmb_tensor_mailbox_pop(box.id, consumer.raw, 0, &lease, &tensor) != GMB_OK) throw failure("no tensor came");
    launch(read_tensor, 1, 1, raw(consumer), reinterpret_cast<const unsigned *>(tensor.address), told.mapped);
    OK(gmb_lease_release(lease));
    bench::poll("what was read", [&] { return seen(told.host) == value; });
    const double took = now_us() - start;
    tensors.await(1);
    return took;
  });
}

void measure_tensors(report &out, const library &lib) {
  const bench::row released = bench::row("tensor_handoff_and_release").beside("raw_two_records", "its two records of events, by hand");
  out.together<3>({"tensor_handoff_c", released, "raw_two_records"}, [&] { return handoffs(out, lib); });
  add_focus(out, "tensor_focus", [&](int streams, gmb_priority its, gmb_priority others) {
    return tensor_focus(out, lib, streams, its, others);
  });
}

#endif
