// The express row: a record of 240 bytes to and fro between two warps on different multiprocessors, half a round trip.
// limits.cu sends the same bytes by hand.
#pragma once

struct express_side {
  unsigned long long ns;
  unsigned sm, trips, wrong;
};

// Block 0 sends, block `partner` answers with what came; the other blocks only keep the two on different SMs. In each trip
// another word of the row is new.
__global__ void express_ping_pong(gmb_ring_header *there, gmb_ring_header *back, unsigned partner, unsigned warm, unsigned trips,
                                  express_side *sides) {
  constexpr unsigned words = GMB_EXPRESS_BYTES / 4;
  const bool first = blockIdx.x == 0;
  if (!first && blockIdx.x != partner) return;
  __shared__ uint32_t row[words];
  const unsigned lane = threadIdx.x;
  const gmb::device::one_warp warp;
  gmb::device::express_producer out(first ? there : back);
  gmb::device::express_consumer in(first ? back : there);
  for (unsigned i = lane; i < words; i += 32) row[i] = first ? i : 0;
  __syncwarp();
  gmb_record_header header{};
  unsigned long long start = nanoseconds();
  unsigned done = 0, wrong = 0;
  // Without a clock, which is no cheaper than a look. A record comes after a few; this many take seconds.
  const auto receive = [&] {
    unsigned looks = 0;
    while (!in.try_pop(warp, row, header))
      if (++looks == 1u << 24) return false;
    return true;
  };
  // Of the record that has come, the word that its trip made new: looked at when the next record is on its way.
  unsigned at = 0;
  header.length = GMB_EXPRESS_BYTES;
  const auto look = [&](unsigned word, unsigned due) {
    if (lane == 0) wrong |= row[word] != due || header.length != GMB_EXPRESS_BYTES;
  };
  for (unsigned before = 0; done < warm + trips; ++done) {
    if (first) {
      if (done == warm) start = nanoseconds();
      if (lane == 0) row[at] = done;
      __syncwarp();
      if (!out.try_push(warp, row, GMB_EXPRESS_BYTES)) break;
      look(before, done > 0 ? done - 1 : 0);
      if (!receive()) break;
    } else {
      if (!receive() || !out.try_push(warp, row, GMB_EXPRESS_BYTES)) break;
      look(at, done);
    }
    before = at;
    at = at + 1 < words ? at + 1 : 0;
  }
  const unsigned long long end = nanoseconds();
  express_side &mine = sides[first ? 0 : 1];
  __syncwarp();
  for (unsigned i = lane; i < words; i += 32) wrong |= row[i] != (warm + trips - 1 - i) / words * words + i;
  if (wrong) mine.wrong = 1;
  if (lane != 0) return;
  asm volatile("mov.u32 %0, %%smid;" : "=r"(mine.sm));
  mine.ns = end - start;
  mine.trips = done;
}

// Each run takes another partner, as limits.cu does: the way to the memory between them changes.
samples express_hops(const report &out, const library &lib) {
  constexpr unsigned warm = 100, trips = 5000;
  const stream on;
  gmb_mailbox_options options = GMB_MAILBOX_OPTIONS_INIT;
  options.capacity = 256;
  options.payload_bytes = GMB_EXPRESS_BYTES;
  options.flags = GMB_MAILBOX_EXPRESS;
  const mailbox box[] = {{lib, options}, {lib, options}};
  gmb_mailbox_info info[2];
  for (int i = 0; i < 2; ++i) OK(gmb_mailbox_get_info(box[i].id, &info[i], sizeof info[i]));
  cudaDeviceProp properties;
  CHECK(cudaGetDeviceProperties(&properties, 0));
  const unsigned blocks = static_cast<unsigned>(properties.multiProcessorCount);
  const pinned<express_side> sides(2);
  samples all;
  for (int run = -1; run < out.runs(66); ++run) {
    sides.host[0] = sides.host[1] = express_side{};
    const unsigned partner = 1 + (static_cast<unsigned>(run + 1) * 5) % (blocks - 1);
    launch(express_ping_pong, blocks, 32, on, info[0].ring, info[1].ring, partner, warm, trips, sides.mapped);
    CHECK(cudaStreamSynchronize(on));
    for (const express_side &side : {sides.host[0], sides.host[1]}) {
      if (side.trips != warm + trips) throw failure("an express record did not come within 2 s");
      if (side.wrong) throw failure("an express record came with a wrong payload");
    }
    if (run < 0 || sides.host[0].sm == sides.host[1].sm) continue;
    all.push_back(static_cast<double>(sides.host[0].ns) * 1e-3 / (2.0 * trips));
  }
  return all;
}
