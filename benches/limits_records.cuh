// Records moved without a mailbox: what is left of a push and a pop when nothing has to be agreed upon. Payloads, lengths
// and types go to slots that begin with a header, and from there to rows and headers apart, as a mailbox has them.
#ifndef GMB_BENCHES_LIMITS_RECORDS_CUH
#define GMB_BENCHES_LIMITS_RECORDS_CUH

#include "gpu.cuh"

namespace {

struct record_arguments {
  uint4 *rows, *slots, *headers;
  const unsigned *lengths, *types;
  unsigned count, units, lanes, lanes_log2; // 16-byte units of a slot; threads that move one record together
  word64 *told;                 // a word of the host's, or null
  unsigned number;
  word64 *header; // where there is something to agree upon: two indices, arrivals, counts and draws, a cache line each
};

constexpr unsigned record_threads = 256, drawing_threads = 512, most_lanes = 32;
constexpr unsigned own_index = 0, other_index = 16, arrivals = 32, books = 48, draws = 64, header_words = 80;

__device__ inline word64 load_device(const word64 *at) {
  word64 v;
  asm volatile("ld.relaxed.gpu.global.u64 %0, [%1];" : "=l"(v) : "l"(global(at)) : "memory");
  return v;
}

// The least that blocks must do to agree: where they begin is read from memory, each of them says that it is done, and the
// last one exchanges the index for itself and tells the host.
__device__ inline bool begin_agreed(const record_arguments &a, word64 &first, unsigned &count) {
  __shared__ word64 found[2];
  if (threadIdx.x == 0) {
    const word64 own = load_device(a.header + own_index), kept = load_device(a.header + books);
    word64 other;
    asm volatile("ld.acquire.gpu.global.u64 %0, [%1];" : "=l"(other) : "l"(global(a.header + other_index)) : "memory");
    found[0] = own;
    found[1] = kept == ~0ull ? own : other;
  }
  __syncthreads();
  first = found[0];
  if (found[1] - first < count) count = static_cast<unsigned>(found[1] - first);
  return count != 0;
}
__device__ inline void end_agreed(const record_arguments &a, word64 first) {
  if (gridDim.x > 1) {
    word64 before;
    asm volatile("atom.acq_rel.gpu.global.add.u64 %0, [%1], 1;" : "=l"(before) : "l"(global(a.header + arrivals)) : "memory");
    if (before + 1 < gridDim.x) return;
    a.header[arrivals] = 0;
  }
  a.header[books] = a.number;
  asm volatile("fence.acq_rel.sys;" ::: "memory");
  word64 seen;
  asm volatile("atom.relaxed.gpu.global.cas.b64 %0, [%1], %2, %2;" : "=l"(seen) : "l"(global(a.header + own_index)), "l"(first) : "memory");
  if (seen != first) return;
  asm volatile("st.relaxed.sys.global.u64 [%0], %1;" ::"l"(global(a.told)), "l"(static_cast<word64>(a.number)) : "memory");
}

// Loads and a store under a predicate instead of behind a branch: then those of a loop's step are under way at once.
__device__ inline uint4 load_if(bool wanted, const uint4 *at) {
  uint4 v;
  asm volatile("{ .reg .pred p; setp.ne.u32 p, %5, 0; @p ld.global.v4.u32 {%0, %1, %2, %3}, [%4]; }"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(global(at)), "r"(static_cast<unsigned>(wanted)));
  return v;
}
__device__ inline unsigned load_if(bool wanted, const unsigned *at) {
  unsigned v;
  asm volatile("{ .reg .pred p; setp.ne.u32 p, %2, 0; @p ld.global.u32 %0, [%1]; }"
               : "=r"(v)
               : "l"(global(at)), "r"(static_cast<unsigned>(wanted)));
  return v;
}
__device__ inline void store_if(bool wanted, uint4 *at, const uint4 &v) {
  asm volatile("{ .reg .pred p; setp.ne.u32 p, %5, 0; @p st.global.v4.u32 [%4], {%0, %1, %2, %3}; }" ::"r"(v.x), "r"(v.y),
               "r"(v.z), "r"(v.w), "l"(global(at)), "r"(static_cast<unsigned>(wanted))
               : "memory");
}

// What a push has under way in a loop: nothing is behind a branch, and no register is loaded in one of two ways, for that
// makes the next load wait. Slower where a block moves one tile.
template <bool wide> struct two_units_pushed {
  uint4 moved[2];
  unsigned length[2], type[2];

  __device__ static unsigned groups(const record_arguments &a) { return drawing_threads >> (wide ? 5 : a.lanes_log2); }
  __device__ static unsigned tile_records(const record_arguments &a) { return groups(a) * (wide ? 1 : 2); }
  __device__ static unsigned record(const record_arguments &a, unsigned tile, unsigned k) {
    return tile * tile_records(a) + (threadIdx.x >> (wide ? 5 : a.lanes_log2)) + (wide ? 0 : k * groups(a));
  }
  __device__ static unsigned unit(const record_arguments &a, unsigned k) {
    return wide ? threadIdx.x % most_lanes + k * most_lanes : threadIdx.x & (a.lanes - 1);
  }
  __device__ void load(const record_arguments &a, unsigned count, unsigned tile) {
#pragma unroll
    for (unsigned k = 0; k < 2; ++k) {
      const unsigned i = record(a, tile, k), u = unit(a, k);
      const bool there = i < count && u < a.units;
      moved[k] = load_if(there && u != 0, a.rows + static_cast<size_t>(i) * (a.units - 1) + (u - 1));
      if (wide && k > 0) continue;
      type[k] = load_if(there && u == 0, a.types + i);
      length[k] = load_if(there, a.lengths + i);
    }
    __syncwarp();
  }
  __device__ void store(const record_arguments &a, word64 first, unsigned count, unsigned tile) {
#pragma unroll
    for (unsigned k = 0; k < 2; ++k) {
      const unsigned i = record(a, tile, k), u = unit(a, k), bytes = length[wide ? 0 : k];
      if (!(wide && k > 0) && u == 0) moved[k] = {i + 1, 0, bytes, type[k]};
      const bool wanted = i < count && u < a.units && u <= (bytes + 15) / 16;
      store_if(wanted, a.slots + (first + i) * a.units + u, moved[k]);
    }
  }
};

// Two units that a thread has under way: of one record that is wider than a warp, or of two.
template <bool in> struct two_units {
  uint4 moved[2];
  unsigned length[2], type[2];

  __device__ static unsigned tile_records(const record_arguments &a) {
    return (blockDim.x >> a.lanes_log2) * (a.units > most_lanes ? 1 : 2);
  }
  __device__ static unsigned record(const record_arguments &a, unsigned tile, unsigned k) {
    return tile * tile_records(a) + (threadIdx.x >> a.lanes_log2) + (a.units > most_lanes ? 0 : k * ((blockDim.x >> a.lanes_log2)));
  }
  __device__ static unsigned unit(const record_arguments &a, unsigned k) {
    return (threadIdx.x & (a.lanes - 1)) + (a.units > most_lanes ? k * most_lanes : 0);
  }
  __device__ void load(const record_arguments &a, word64 first, unsigned count, unsigned tile) {
#pragma unroll
    for (unsigned k = 0; k < 2; ++k) {
      const unsigned i = record(a, tile, k), u = unit(a, k);
      if (i >= count || u >= a.units) continue;
      if (!in) moved[k] = a.slots[(first + i) * a.units + u];
      else if (u != 0) moved[k] = a.rows[static_cast<size_t>(i) * (a.units - 1) + u - 1];
      if (in) length[k] = k > 0 && a.units > most_lanes ? length[0] : a.lengths[i];
      if (in && u == 0) type[k] = a.types[i];
    }
    __syncwarp();
  }
  // A header goes from the first of its group to the others: no second load.
  __device__ void look(const record_arguments &a, unsigned count, unsigned tile) {
    if (in) return;
    unsigned sequence = 0, bytes = 0;
#pragma unroll
    for (unsigned k = 0; k < 2; ++k) {
      if (k == 0 || a.units <= most_lanes) {
        sequence = __shfl_sync(~0u, moved[k].x, 0, a.lanes);
        bytes = __shfl_sync(~0u, moved[k].z, 0, a.lanes);
      }
      const unsigned i = record(a, tile, k);
      length[k] = i < count && sequence == i + 1 ? bytes : ~0u;
    }
  }
  __device__ void store(const record_arguments &a, word64 first, unsigned count, unsigned tile) {
#pragma unroll
    for (unsigned k = 0; k < 2; ++k) {
      const unsigned i = record(a, tile, k), u = unit(a, k);
      if (i >= count || u >= a.units || length[k] == ~0u || u > (length[k] + 15) / 16) continue;
      if (in) a.slots[(first + i) * a.units + u] = u == 0 ? uint4{i + 1, 0, length[k], type[k]} : moved[k];
      else if (u == 0) a.headers[i] = moved[k];
      else a.rows[static_cast<size_t>(i) * (a.units - 1) + u - 1] = moved[k];
    }
  }
};

// A block moves one tile. With `told` the host learns that the records are there.
template <bool in, bool agreed>
__global__ void __launch_bounds__(record_threads, 6) move_records(const __grid_constant__ record_arguments a) {
  word64 first = 0;
  unsigned count = a.count;
  if (agreed && !begin_agreed(a, first, count)) return;
  // Out again the newest first: they are the likeliest to be in the cache.
  const unsigned tile = in ? blockIdx.x : gridDim.x - 1 - blockIdx.x;
  two_units<in> moving;
  moving.load(a, first, count, tile);
  moving.look(a, count, tile);
  moving.store(a, first, count, tile);
  if (!agreed && !a.told) return;
  __syncthreads();
  if (threadIdx.x != 0) return;
  if (agreed) return end_agreed(a, first);
  asm volatile("fence.acq_rel.sys;" ::: "memory");
  asm volatile("st.relaxed.sys.global.u64 [%0], %1;" ::"l"(global(a.told)), "l"(static_cast<word64>(a.number)) : "memory");
}

// Of the tiles that blocks draw whenever they are done with one.
__device__ inline unsigned draw_tile(const record_arguments &a) {
  unsigned next = 0;
  if (threadIdx.x != 0) return next;
  unsigned *counter = reinterpret_cast<unsigned *>(a.header + draws);
  asm volatile("atom.relaxed.gpu.global.inc.u32 %0, [%1], 0x7fffffff;" : "=r"(next) : "l"(global(counter)) : "memory");
  return next;
}

// In, by as many blocks as run at once. The first tile's rows are loaded before it is known where to: they can be read
// whatever room there is.
template <bool wide, bool agreed>
__global__ void __launch_bounds__(drawing_threads, 3) draw_records_in(const __grid_constant__ record_arguments a) {
  __shared__ unsigned drawn[2];
  word64 first = 0;
  unsigned count = a.count;
  two_units_pushed<wide> moving;
  moving.load(a, count, blockIdx.x);
  if (agreed && !begin_agreed(a, first, count)) return;
  const unsigned each = two_units_pushed<wide>::tile_records(a), tiles = (count + each - 1) / each;
  unsigned at = blockIdx.x;
#pragma unroll 1
  for (unsigned n = 0; at < tiles; ++n) {
    const unsigned next = draw_tile(a);
    if (n != 0) moving.load(a, count, at);
    moving.store(a, first, count, at);
    if (threadIdx.x == 0) drawn[n & 1] = next;
    __syncthreads();
    at = gridDim.x + drawn[n & 1];
  }
  if (agreed && threadIdx.x == 0) end_agreed(a, first);
}

// Out, the newest first, and a tile is loaded before the last one is stored; in, that is slower.
template <bool agreed>
__global__ void __launch_bounds__(drawing_threads, 2) draw_records_out(const __grid_constant__ record_arguments a) {
  __shared__ unsigned drawn[2];
  word64 first = 0;
  unsigned count = a.count;
  if (agreed && !begin_agreed(a, first, count)) return;
  const unsigned each = two_units<false>::tile_records(a), tiles = (count + each - 1) / each;
  const auto tile = [&](unsigned drawn_as) { return tiles - 1 - drawn_as; };
  unsigned at = blockIdx.x, then = blockIdx.x + gridDim.x;
  two_units<false> moving[2];
  if (at < tiles) moving[0].load(a, first, count, tile(at));
#pragma unroll 1
  for (unsigned n = 0; at < tiles;) {
#pragma unroll
    for (unsigned k = 0; k < 2; ++k, ++n) {
      const unsigned next = draw_tile(a);
      moving[k].look(a, count, tile(at));
      if (then < tiles) moving[1 - k].load(a, first, count, tile(then));
      moving[k].store(a, first, count, tile(at));
      at = then;
      if (at >= tiles) break;
      if (threadIdx.x == 0) drawn[n & 1] = next;
      __syncthreads();
      then = 2 * gridDim.x + drawn[n & 1];
    }
  }
  if (!agreed) return;
  __syncthreads();
  if (threadIdx.x == 0) end_agreed(a, first);
}

// Records, their slots, and where they come out again.
class record_bed {
public:
  record_bed(unsigned count, unsigned payload)
      : count_(count), units_(payload / 16 + 1), rows_(units(false)), slots_(units(true)), out_(units(false)),
        headers_(count), lengths_(count), types_(count), header_(header_words) {
    launch(scramble, 1024, record_threads, nullptr, reinterpret_cast<unsigned *>(rows_.at), units(false) * 4);
    launch(scramble, 64, record_threads, nullptr, types_.at, size_t{count});
    const std::vector<unsigned> all(count, payload);
    CHECK(cudaMemcpy(lengths_.at, all.data(), count * sizeof all[0], cudaMemcpyHostToDevice));
    while (lanes_ < units_ && lanes_ < most_lanes) lanes_ *= 2;
    if (units_ > 2 * most_lanes) throw failure("records of more than two units a thread");
    std::vector<word64> header(header_words);
    header[other_index] = count;
    CHECK(cudaMemcpy(header_.at, header.data(), header_words * sizeof(word64), cudaMemcpyHostToDevice));
  }

  template <bool in, bool agreed = false>
  void move(cudaStream_t on, word64 *told = nullptr, unsigned number = 0) const {
    launch(move_records<in, agreed>, tiles(record_threads), record_threads, on, arguments(in, told, number));
  }
  template <bool in, bool agreed = false>
  void draw(cudaStream_t on, word64 *told = nullptr, unsigned number = 0) const {
    const auto kernel = !in ? draw_records_out<agreed>
                        : units_ > most_lanes ? draw_records_in<true, agreed>
                                              : draw_records_in<false, agreed>;
    int most = 0;
    CHECK(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&most, kernel, drawing_threads, 0));
    const unsigned blocks = std::min<unsigned>(most * multiprocessors(), tiles(drawing_threads));
    launch(kernel, blocks, drawing_threads, on, arguments(in, told, number));
  }
  void draw_anew(cudaStream_t on) const { CHECK(cudaMemsetAsync(header_.at + draws, 0, sizeof(word64), on)); }
  // The payload alone, as one copy.
  void copy(cudaStream_t on, bool in) const {
    CHECK(cudaMemcpyAsync(in ? slots_.at : out_.at, in ? rows_.at : slots_.at, units(false) * 16,
                          cudaMemcpyDeviceToDevice, on));
  }
  void poison(cudaStream_t on) const { CHECK(cudaMemsetAsync(out_.at, 0xcd, units(false) * 16, on)); }
  void verify() const {
    const size_t bytes = std::min<size_t>(units(false) * 16, 1 << 26);
    std::vector<unsigned char> went(bytes), came(bytes);
    CHECK(cudaMemcpy(went.data(), rows_.at, bytes, cudaMemcpyDeviceToHost));
    CHECK(cudaMemcpy(came.data(), out_.at, bytes, cudaMemcpyDeviceToHost));
    if (went != came) throw failure("what came out is not what went in");
  }

private:
  const unsigned count_, units_;
  unsigned lanes_ = 1;
  const device<uint4> rows_, slots_, out_, headers_;
  const device<unsigned> lengths_, types_;
  const device<word64> header_;

  record_arguments arguments(bool in, word64 *told, unsigned number) const {
    return {in ? rows_.at : out_.at, slots_.at, headers_.at, lengths_.at, types_.at,
            count_, units_, lanes_, static_cast<unsigned>(__builtin_ctz(lanes_)), told, number, header_.at};
  }
  unsigned tiles(unsigned threads) const {
    const unsigned at_once = threads / lanes_ * (units_ > most_lanes ? 1 : 2);
    return (count_ + at_once - 1) / at_once;
  }
  size_t units(bool headers) const { return static_cast<size_t>(count_) * (headers ? units_ : units_ - 1); }
};

enum class mover { copies, bare, drawn, agreed, agreed_drawn };

// In once and out twice, in turns, as the bulk rows of a mailbox with two readers go.
std::array<samples, 2> in_turns(const report &out, const record_bed &bed, mover by) {
  const stream on;
  const pinned<word64> word;
  const auto ways = [&](auto way, bool agreed, bool drawn) {
    constexpr bool in = decltype(way)::value;
    if (drawn && agreed) bed.draw<in, true>(on, word.mapped, 1);
    else if (drawn) bed.draw<in>(on);
    else if (agreed) bed.move<in, true>(on, word.mapped, 1);
    else bed.move<in>(on);
  };
  const bool drawn = by == mover::drawn || by == mover::agreed_drawn;
  const bool agreed = by == mover::agreed || by == mover::agreed_drawn;
  const auto move = [&](bool in) {
    if (drawn) bed.draw_anew(on);
    return gpu_us(on, 50, [&] {
      if (by == mover::copies) bed.copy(on, in);
      else if (in) ways(std::true_type{}, agreed, drawn);
      else ways(std::false_type{}, agreed, drawn);
    });
  };
  const auto times = out.repeat_together<2>(3, 60, [&](int run) -> std::array<double, 2> {
    if (run + 1 == out.runs(60)) bed.poison(on);
    const double in = move(true), back = move(false);
    move(false);
    return {in, back};
  });
  bed.verify();
  return times;
}

// From before a launch that moves 16 records out of their slots to its number in the host's hands.
template <bool agreed> samples counts_moving(const report &out) {
  const stream on;
  const record_bed bed(16, 240);
  const pinned<word64> word;
  bed.move<true>(on);
  unsigned number = 0;
  samples all = out.repeat(200, 5000, [&](int) {
    ++number;
    synchronize(on);
    const double start = now_us();
    bed.move<false, agreed>(on, word.mapped, number);
    bench::poll("the count", [&] { return seen(word.host) == number; });
    return now_us() - start;
  });
  bed.verify();
  return all;
}

// [one record in, record | wait, one record out] from stream to stream; the host is told of each.
template <bool agreed> samples hop_pairs_moving(const report &out) {
  const record_bed bed(1, 240);
  const pinned<word64> words(32);
  const samples all = chained(out, 200, [&](cudaStream_t from, cudaStream_t to, cudaEvent_t between) {
    bed.move<true, agreed>(from, words.mapped);
    CHECK(cudaEventRecord(between, from));
    CHECK(cudaStreamWaitEvent(to, between, 0));
    bed.move<false, agreed>(to, words.mapped + 16);
  });
  bed.verify();
  return all;
}

// The rows of records that are moved bare, and of copies in the same rhythm.
void measure_records(report &out) {
  out.add("count_to_host_moving", [&] { return counts_moving<false>(out); });
  out.add("count_to_host_agreed", [&] { return counts_moving<true>(out); });
  out.add("hop_pair_moving", [&] { return hop_pairs_moving<false>(out); });
  out.add("hop_pair_agreed", [&] { return hop_pairs_moving<true>(out); });
  const std::pair<mover, const char *> movers[] = {{mover::bare, "records"},
                                                   {mover::drawn, "drawn"},
                                                   {mover::agreed, "agreed"},
                                                   {mover::agreed_drawn, "agreed_drawn"},
                                                   {mover::copies, "turns"}};
  for (const unsigned payload : {240u, 1008u}) {
    for (const auto &size : bench::sizes) {
      const std::string tail = "_" + std::to_string(payload) + "B_" + size.name;
      const size_t moved = bench::whole_records(size, payload);
      for (const auto &[by, name] : movers) {
        // Few records need no draws.
        const bool draws = by == mover::drawn || by == mover::agreed_drawn;
        if (draws && size.bytes <= (16u << 20)) continue;
        const std::string what = name;
        out.together<2>({{{what + "_in" + tail, "µs", moved}, {what + "_out" + tail, "µs", moved}}},
                        [&, by = by] { return in_turns(out, record_bed(static_cast<unsigned>(moved / payload), payload), by); });
      }
    }
  }
}

}  // namespace

#endif
