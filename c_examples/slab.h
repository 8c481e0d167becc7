/* Light in a slab that scatters and absorbs it: what becomes of one photon. Lengths are optical depths, that is mean free
 * paths; the light comes in at depth 0, straight. One source for the GPU and for the host backend.
 *
 * A photon that reaches the next plane for the first time is split in two of half its weight, which go on independently: of a
 * thick slab few photons would come out at the other side. So a photon's generation is the number of planes it has passed, and
 * one generation goes through the worker after the other. */
#ifndef SLAB_H
#define SLAB_H

#include "running.h"

#include <gpumailbox/worker.cuh>

#include <math.h>

namespace slab {

enum fate : uint8_t { reflected, transmitted, absorbed, flying };
constexpr uint32_t fates = 3; /* that are an end */

/* Planes where photons are split: at a half, three quarters, and so on of the way. */
constexpr uint32_t planes = 2;
/* Weights are counted in parts of the last generation's, so that all sums are exact. */
constexpr uint32_t whole = 1u << planes;

/* What all photons of a run have in common; the worker's `user`. */
struct layer {
  float thickness;
  float albedo; /* part of the collisions that scatter */
  uint64_t seed;
};

/* An item of the queues, and a record of the mailbox. */
struct alignas(16) photon {
  float depth;
  float cosine;    /* of its direction with that of the light that comes in */
  uint32_t number; /* of the photon that came in */
  uint16_t steps;  /* nobody comes near the end: each step ends one in ten */
  uint8_t branch;  /* one comes in as 1; the halves of branch n are 2n and 2n + 1 */
  fate now;
};
static_assert(sizeof(photon) == 16, "an item of a queue");

DEVICE_SIDE inline uint32_t generation(uint32_t branch) {
  uint32_t passed = 0;
  while (branch >> (passed + 1) != 0) ++passed;
  return passed;
}
DEVICE_SIDE inline uint32_t weight(uint32_t branch) { return whole >> generation(branch); }

/* Random numbers by their place in a photon's life alone, so that it is the same life wherever and whenever it is lived: the
 * generator SplitMix64, started anew for each branch of each photon. */
DEVICE_SIDE inline uint64_t mix(uint64_t z) {
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 27) * 0x94d049bb133111ebu;
  return z ^ z >> 31;
}
/* More than 0, at most 1. */
DEVICE_SIDE inline float chance(uint64_t life, const photon &p, uint32_t which) {
  const uint64_t place = uint64_t{p.steps} * 4 + which + 1;
  return static_cast<float>((mix(life + place * 0x9e3779b97f4a7c15u) >> 40) + 1) * (1.0f / (1 << 24));
}

/* The functor: follows one photon until it ends, is split, or the worker must leave. */
struct follow {
  static constexpr uint32_t most_spawned = 2;

  template <class Hand> DEVICE_SIDE gmb::worker::route operator()(photon &p, Hand &hand) const {
    const layer &in = *hand.template user<const layer>();
    const uint64_t life = mix(mix(in.seed) + (uint64_t{p.number} << 8 | p.branch));
    const uint32_t passed = generation(p.branch);
    const float plane = in.thickness * (1.0f - 1.0f / static_cast<float>(2u << passed));
    for (;;) {
      const float to = p.depth - p.cosine * logf(chance(life, p, 0));
      if (passed < planes && to >= plane) {
        /* How far it would fly on from here does not depend on how far it has come: both halves draw anew. */
        p.depth = plane;
        for (uint32_t half = 0; half < 2; ++half) {
          photon one = p;
          one.branch = static_cast<uint8_t>(2 * p.branch + half);
          hand.spawn(one);
        }
        return gmb::worker::dropped;
      }
      if (to < 0.0f || to > in.thickness) {
        p.depth = to < 0.0f ? 0.0f : in.thickness;
        p.now = to < 0.0f ? reflected : transmitted;
        return gmb::worker::finished;
      }
      p.depth = to;
      if (chance(life, p, 1) > in.albedo) {
        p.now = absorbed;
        return gmb::worker::finished;
      }
      p.cosine = 2.0f * chance(life, p, 2) - 1.0f;
      ++p.steps;
      /* All it needs to go on is in the item. */
      if (p.steps % 8 == 0 && hand.must_leave()) return gmb::worker::again;
    }
  }
};

/* The kernel with this functor, a CUfunction; null where there is none. In slab.cu. */
const void *kernel();

}  // namespace slab

#endif
