// What stream_file does with a chunk of a file, once for the GPU and for the host backend: a checksum and a histogram of its
// bytes, and the bytes hidden under a key stream. (The key stream is no cipher: whoever knows some bytes knows the key.)
#ifndef STREAM_FILE_H
#define STREAM_FILE_H

#include <stdint.h>

#if defined(__CUDACC__)
#define STREAM_FILE_BOTH __host__ __device__
#else
#define STREAM_FILE_BOTH
#endif

namespace stream_file {

constexpr uint32_t bins = 256;

// Sums over all bytes so far, in device memory.
struct sums {
  uint64_t checksum;
  uint64_t histogram[bins];
};

// A chunk: `bytes` of the file, from `first_word` on; behind its end there are zeros up to a whole word.
struct chunk {
  uint64_t bytes;
  uint64_t first_word;
  uint64_t seed;
};

STREAM_FILE_BOTH inline uint64_t words_of(uint64_t bytes) { return (bytes + 7) / 8; }

// The generator SplitMix64, by place.
STREAM_FILE_BOTH inline uint64_t mixed(uint64_t z) {
  z += 0x9e3779b97f4a7c15u;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 27) * 0x94d049bb133111ebu;
  return z ^ z >> 31;
}
// A word's part of the checksum. These are added up, so their order is nothing; their places are.
STREAM_FILE_BOTH inline uint64_t part_of_checksum(uint64_t word, uint64_t place) { return mixed(word ^ mixed(place)); }
STREAM_FILE_BOTH inline uint64_t key(uint64_t place, uint64_t seed) { return mixed(place ^ mixed(seed)); }

// What a block's threads add to, in shared memory.
struct scratch {
  uint64_t checksum;
  uint32_t counts[bins];
};

// One block of either kernel. `Team` is its threads: lane, lanes, block and blocks, a barrier, and sums in shared memory and in
// device memory, which others add to at once.
template <class Team>
STREAM_FILE_BOTH inline void measure(const Team &team, const uint64_t *words, const chunk &what, sums *all, scratch *mine) {
  for (uint32_t bin = team.lane(); bin < bins; bin += team.lanes()) mine->counts[bin] = 0;
  if (team.lane() == 0) mine->checksum = 0;
  team.barrier();
  uint64_t sum = 0;
  const uint64_t count = words_of(what.bytes), step = uint64_t{team.blocks()} * team.lanes();
  for (uint64_t n = uint64_t{team.block()} * team.lanes() + team.lane(); n < count; n += step) {
    const uint64_t word = words[n], left = what.bytes - 8 * n;
    sum += part_of_checksum(word, what.first_word + n);
    for (uint32_t byte = 0; byte < (left < 8 ? left : 8); ++byte) team.add_shared(&mine->counts[word >> (8 * byte) & 0xff], 1u);
  }
  team.add_shared(&mine->checksum, sum);
  team.barrier();
  if (team.lane() == 0) team.add(&all->checksum, mine->checksum);
  for (uint32_t bin = team.lane(); bin < bins; bin += team.lanes()) team.add(&all->histogram[bin], uint64_t{mine->counts[bin]});
}

template <class Team> STREAM_FILE_BOTH inline void hide(const Team &team, uint64_t *words, const chunk &what) {
  const uint64_t count = words_of(what.bytes), step = uint64_t{team.blocks()} * team.lanes();
  for (uint64_t n = uint64_t{team.block()} * team.lanes() + team.lane(); n < count; n += step) {
    words[n] ^= key(what.first_word + n, what.seed);
  }
}

}  // namespace stream_file

#endif
