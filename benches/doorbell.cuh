// The doorbell and FIFO rows: commands to kernels that run and their answers, host to host, as limits.cu measures a bare word
// there and back; and records from kernels to the host while that drains them. Part of mailbox.cu.
#ifndef GMB_BENCHES_DOORBELL_CUH
#define GMB_BENCHES_DOORBELL_CUH

// The command that ends a kernel here.
constexpr uint32_t last_command = GMB_COMMAND_USER + 1;
// Nothing on the host waits longer.
constexpr uint64_t bell_limit_ns = 2000000000ull;

// What is answered hangs on all of the command, so that no other answer passes for it.
__host__ __device__ inline gmb_answer answer_to(const gmb_command &what) {
  return {GMB_OK, what.code, {what.argument[0] + 1, ~what.argument[1], what.argument[2] ^ what.argument[0]}};
}
gmb_command numbered(uint64_t n) { return {GMB_COMMAND_USER, 0, {n, n * 0x9e3779b97f4a7c15ull, ~n}}; }

// One warp takes and answers.
__global__ void answer_commands(gmb_doorbell_header *header) {
  const one_warp warp;
  gmb::device::doorbell bell(header);
  patience limit;
  while (bell.status() == GMB_OK && !limit.over_in_warp()) {
    gmb::device::command got;
    if (!bell.try_take(warp, got)) continue;
    bell.answer(warp, got.ticket, answer_to(got.what));
    if (got.what.code == last_command) return;
  }
}

// A command on its way from block to block: a record's payload is written whole.
struct handed {
  gmb::device::command got;
  uint64_t rest;
};

// Block 0 takes, hands each command on, and block `partner` answers; the other blocks only keep the two on different SMs.
__global__ void hand_commands_on(gmb_doorbell_header *header, gmb_ring_header *between, unsigned partner) {
  const bool takes = blockIdx.x == 0;
  if (!takes && blockIdx.x != partner) return;
  __shared__ handed row;
  const one_warp warp;
  patience limit;
  if (takes) {
    gmb::device::doorbell bell(header);
    gmb::device::express_producer out(between);
    while (bell.status() == GMB_OK && !limit.over_in_warp()) {
      gmb::device::command got;
      if (!bell.try_take(warp, got)) continue;
      __syncwarp();
      if (warp.lane() == 0) row = {got, 0};
      __syncwarp();
      while (!out.try_push(warp, &row, sizeof row))
        if (limit.over_in_warp()) return;
      if (got.what.code == last_command) return;
    }
    return;
  }
  const gmb::device::doorbell bell(header);
  gmb::device::express_consumer in(between);
  while (!limit.over_in_warp()) {
    gmb_record_header about{};
    if (!in.try_pop(warp, &row, about)) continue;
    const gmb::device::command got = row.got;
    // Before the next one overwrites it.
    __syncwarp();
    bell.answer(warp, got.ticket, answer_to(got.what));
    if (got.what.code == last_command) return;
  }
}

class doorbell {
public:
  explicit doorbell(const library &lib) {
    const gmb_doorbell_options options = GMB_DOORBELL_OPTIONS_INIT;
    OK(gmb_doorbell_create(lib.id, &options, &id));
    gmb_doorbell_info info{};
    OK(gmb_doorbell_get_info(id, &info, sizeof info));
    header = info.doorbell;
  }
  ~doorbell() { gmb_doorbell_destroy(id); }
  doorbell(const doorbell &) = delete;
  doorbell &operator=(const doorbell &) = delete;
  // From before the command is submitted until its answer is in the host's hands.
  double call(const gmb_command &what, const gmb_answer &due) const {
    gmb_answer got{};
    const double start = now_us();
    OK(gmb_doorbell_call(id, &what, bell_limit_ns, &got));
    const double took = now_us() - start;
    if (got.status != due.status || got.flags != due.flags || !std::equal(due.value, due.value + 3, got.value))
      throw failure("a command got another answer than its own");
    return took;
  }
  gmb_doorbell id{};
  gmb_doorbell_header *header = nullptr;
};

// A kernel that answers, until here: it is ended when the calls are over, also when one has failed.
struct bell_in_use {
  const doorbell &bell;
  cudaStream_t on;
  ~bell_in_use() {
    const gmb_command last = {last_command, 0, {0, 0, 0}};
    gmb_doorbell_submit(bell.id, &last, bell_limit_ns, nullptr);
    cudaStreamSynchronize(on);
  }
};

samples doorbell_calls(const report &out, const library &lib) {
  const stream on;
  const doorbell bell(lib);
  launch(answer_commands, 1, 32, on, bell.header);
  samples all;
  {
    const bell_in_use ends{bell, on};
    uint64_t number = 0;
    all = out.repeat(200, 5000, [&](int) {
      const gmb_command what = numbered(++number);
      return bell.call(what, answer_to(what));
    });
  }
  CHECK(cudaStreamSynchronize(on));
  return all;
}

// Each run takes another partner, as express_hops does.
samples doorbell_fanout(const report &out, const library &lib) {
  const stream on;
  const doorbell bell(lib);
  gmb_mailbox_options options = GMB_MAILBOX_OPTIONS_INIT;
  options.capacity = 256;
  options.payload_bytes = sizeof(handed);
  options.flags = GMB_MAILBOX_EXPRESS;
  const mailbox between(lib, options);
  gmb_mailbox_info info{};
  OK(gmb_mailbox_get_info(between.id, &info, sizeof info));
  const unsigned blocks = static_cast<unsigned>(multiprocessors());
  if (blocks < 2) throw failure("one SM is not enough");
  samples all;
  uint64_t number = 0;
  for (unsigned run = 0; run < 20; ++run) {
    launch(hand_commands_on, blocks, 32, on, bell.header, info.ring, 1 + run * 17 % (blocks - 1));
    {
      const bell_in_use ends{bell, on};
      const samples some = out.repeat(50, 250, [&](int) {
        const gmb_command what = numbered(++number);
        return bell.call(what, answer_to(what));
      });
      all.insert(all.end(), some.begin(), some.end());
    }
    CHECK(cudaStreamSynchronize(on));
  }
  return all;
}

// Pings to the block that serves a worker of the library's own, beside one that finds no items.
samples doorbell_of_worker(const report &out, const library &lib) {
  struct idle_worker {
    gmb_queue none{};
    gmb_worker id{};
    idle_worker(const library &lib, const doorbell &bell) {
      gmb_queue_options few = GMB_QUEUE_OPTIONS_INIT;
      few.item_bytes = 4;
      few.capacity = 64;
      OK(gmb_queue_create(lib.id, &few, &none));
      gmb_worker_options options = GMB_WORKER_OPTIONS_INIT;
      options.active = none;
      options.doorbell = bell.id;
      const gmb_status made = gmb_worker_create(&options, &id);
      if (made != GMB_OK) gmb_queue_destroy(none);
      OK(made);
    }
    ~idle_worker() {
      gmb_worker_destroy(id);
      gmb_queue_destroy(none);
    }
  };
  const doorbell bell(lib);
  const idle_worker worker(lib, bell);
  OK(gmb_worker_start(worker.id));
  uint64_t number = 0;
  samples all = out.repeat(200, 5000, [&](int) {
    gmb_command what = numbered(++number);
    what.code = GMB_COMMAND_PING;
    return bell.call(what, {GMB_OK, 0, {what.argument[0], what.argument[1], what.argument[2]}});
  });
  gmb_worker_result ended{};
  OK(gmb_worker_stop(worker.id));
  OK(gmb_worker_wait(worker.id, bell_limit_ns, &ended));
  if (ended.reason != GMB_WORKER_STOPPED) throw failure("the worker has not stopped");
  return all;
}

// Producers are warps, some blocks of them; each pushes its own numbers in their order, 32 at a time.
constexpr unsigned fifo_blocks = 16, fifo_warps = 4, fifo_producers = fifo_blocks * fifo_warps;
constexpr uint64_t fifo_records = uint64_t{1} << 22, fifo_each = fifo_records / fifo_producers, fifo_capacity = 1u << 14;
static_assert(fifo_each % 32 == 0, "each producer pushes whole groups");

// The second word hangs on the run, too: what an older one has left behind is no record of this one.
__host__ __device__ inline gmb_fifo_record fifo_record(uint64_t producer, uint64_t n, uint64_t run) {
  const uint64_t number = producer << 32 | n;
  return {{number, (number + run) * 0x9e3779b97f4a7c15ull}};
}

__global__ void push_records(gmb_fifo_header *header, uint64_t run, unsigned *gave_up) {
  // Attempts in a row that found no room, each with a trip over the bus: so many take seconds.
  constexpr unsigned most_tries = 1u << 20;
  __shared__ gmb_fifo_record rows[fifo_warps][32];
  gmb_fifo_record *const mine = rows[threadIdx.x / 32];
  const one_warp warp;
  const gmb::device::fifo out(header);
  const uint64_t producer = blockIdx.x * fifo_warps + threadIdx.x / 32;
  for (uint64_t n = 0; n < fifo_each; n += 32) {
    mine[warp.lane()] = fifo_record(producer, n + warp.lane(), run);
    __syncwarp();
    unsigned failed = 0;
    for (uint32_t sent = 0; sent < 32;) {
      const uint32_t pushed = out.try_push(warp, mine + sent, 32 - sent);
      sent += pushed;
      if (pushed != 0) {
        failed = 0;
        continue;
      }
      if (++failed == most_tries || out.status() != GMB_OK) {
        if (warp.lane() == 0) atomicAdd(gave_up, 1u);
        return;
      }
      gmb::device::back_off(failed);
    }
    // Before the next ones overwrite them.
    __syncwarp();
  }
}

// Millions of records in a second, from before the launch until the last is in the host's hands, and looked at there.
samples fifo_to_host(const report &out, const library &lib) {
  struct fifo {
    gmb_fifo id{};
    gmb_fifo_header *header = nullptr;
    explicit fifo(const library &lib) {
      gmb_fifo_options options = GMB_FIFO_OPTIONS_INIT;
      options.capacity = fifo_capacity;
      OK(gmb_fifo_create(lib.id, &options, &id));
      gmb_fifo_info info{};
      OK(gmb_fifo_get_info(id, &info, sizeof info));
      header = info.fifo;
    }
    ~fifo() { gmb_fifo_destroy(id); }
  };
  const stream on;
  const fifo from(lib);
  const device<unsigned> gave_up;
  std::vector<gmb_fifo_record> some(4096);
  uint64_t run = 0;
  samples all;
  try {
    all = out.repeat(2, 20, [&](int) {
      ++run;
      std::array<uint64_t, fifo_producers> next{};
      uint64_t sum = 0, others = 0;
      bool wrong = false;
      const double start = now_us();
      launch(push_records, fifo_blocks, 32 * fifo_warps, on, from.header, run, gave_up.at);
      for (uint64_t taken = 0; taken < fifo_records && !wrong;) {
        uint64_t count = 0;
        OK(gmb_fifo_pop_to_host(from.id, some.data(), static_cast<uint32_t>(some.size()), bell_limit_ns, &count));
        if (count == 0) throw failure("no record came within 2 s");
        for (uint64_t i = 0; i < count; ++i) {
          const uint64_t number = some[i].word[0], producer = number >> 32;
          // Its next one, whatever came of others in between.
          wrong |= producer >= fifo_producers || (number & 0xffffffffu) != next[producer % fifo_producers]++;
          sum += number;
          others ^= some[i].word[1];
        }
        taken += count;
      }
      const double took = now_us() - start;
      if (wrong) throw failure("a record is not its producer's next");
      synchronize(on);
      uint64_t left = 0, all_sum = 0, all_others = 0;
      OK(gmb_fifo_pop_to_host(from.id, some.data(), 1, 0, &left));
      if (left != 0) throw failure("there are more records than were pushed");
      for (uint64_t producer = 0; producer < fifo_producers; ++producer)
        for (uint64_t n = 0; n < fifo_each; ++n) {
          const gmb_fifo_record due = fifo_record(producer, n, run);
          all_sum += due.word[0];
          all_others ^= due.word[1];
        }
      if (sum != all_sum || others != all_others) throw failure("other records came than were pushed");
      return static_cast<double>(fifo_records) / took;
    });
  } catch (...) {
    // The kernel gives up by itself, and the FIFO must outlive it.
    cudaStreamSynchronize(on);
    throw;
  }
  unsigned ended = 0;
  CHECK(cudaMemcpy(&ended, gave_up.at, sizeof ended, cudaMemcpyDeviceToHost));
  if (ended != 0) throw failure("a producer gave up");
  return all;
}

void measure_doorbells(report &out, const library &lib) {
  constexpr const char *bare = "raw mapped round trip, the polling warp answers";
  const auto beside = [&](const char *id) { return row(id).beside("doorbell", bare); };
  out.add(beside("doorbell"), [&] { return doorbell_calls(out, lib); });
  out.add(beside("doorbell_fanout"), [&] { return doorbell_fanout(out, lib); });
  out.add(beside("doorbell_worker"), [&] { return doorbell_of_worker(out, lib); });
  out.add({"fifo_gpu_to_cpu", "M records/s"}, [&] { return fifo_to_host(out, lib); });
}

#endif
