/* What triple_loop, chained, fork_join and before_after have in common: their kernels' work on one element, written once for the
 * GPU (pipeline.cu) and for the functions that take the kernels' places on the host backend, and where the kernels are. */
#ifndef PIPELINE_H
#define PIPELINE_H

#include <stdint.h>

#if defined(__CUDACC__)
#define ON_BOTH __host__ __device__ static inline
#else
#define ON_BOTH static inline
#endif

ON_BOTH uint32_t scaled(uint32_t x, uint32_t factor) { return x * factor; }
ON_BOTH uint32_t shifted(uint32_t x, uint32_t by) { return x + by; }
ON_BOTH uint32_t added(uint32_t x, uint32_t y) { return x + y; }
/* As much work as one likes. */
ON_BOTH uint32_t stirred(uint32_t x, uint32_t rounds) {
  for (uint32_t round = 0; round < rounds; ++round) {
    x = x * 1664525u + 1013904223u;
    x ^= x >> 15;
  }
  return x;
}

#if !defined(__CUDACC__)

#include <gpumailbox.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A fatbin that CMake makes of pipeline.cu where there is a CUDA compiler. */
#if defined(PIPELINE_KERNELS)
#define PIPELINE_BACKEND GMB_BACKEND_AUTO
#else
#define PIPELINE_KERNELS "(no kernels: this program was built without a CUDA compiler)"
#define PIPELINE_BACKEND GMB_BACKEND_HOST
#endif

/* Threads of a block; the kernels take one element each. */
#define PIPELINE_THREADS 256u
static inline uint32_t blocks_for(uint32_t count) { return (count + PIPELINE_THREADS - 1) / PIPELINE_THREADS; }

/* Of the elements, those of one block's threads: from `begin` on, before `end`. */
typedef struct elements {
  uint32_t begin;
  uint32_t end;
} elements;
static inline elements elements_of(const gmb_kernel_block *block, uint32_t count) {
  const uint64_t begin = (uint64_t)block->index[0] * block->block[0], end = begin + block->block[0];
  elements made;
  made.begin = (uint32_t)(begin < count ? begin : count);
  made.end = (uint32_t)(end < count ? end : count);
  return made;
}

/* The options of a program that has but one: --backend auto|host|cuda. */
static inline gmb_backend backend_of(int count, char **argument) {
  if (count == 1) return PIPELINE_BACKEND;
  if (count == 3 && strcmp(argument[1], "--backend") == 0) {
    if (strcmp(argument[2], "auto") == 0) return PIPELINE_BACKEND;
    if (strcmp(argument[2], "host") == 0) return GMB_BACKEND_HOST;
    if (strcmp(argument[2], "cuda") == 0) return GMB_BACKEND_CUDA;
  }
  fprintf(stderr, "%s [--backend auto|host|cuda]\n", argument[0]);
  exit(2);
}

#endif
#endif
