/* How the examples in C and CUDA end when something is wrong: with a sentence and status 1. The C++ ones have check.hpp;
 * hello.c and hello.cpp are whole in one file. */
#ifndef CHECK_H
#define CHECK_H

#include <gpumailbox.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define CHECK(call)                                            \
  do {                                                         \
    if ((call) != GMB_OK) {                                    \
      char message_[1024] = "";                                \
      gmb_last_error_message(message_, sizeof message_, NULL); \
      fprintf(stderr, "%s failed: %s\n", #call, message_);     \
      exit(1);                                                 \
    }                                                          \
  } while (0)

#define MUST(condition, ...)                                   \
  do {                                                         \
    if (!(condition)) {                                        \
      fprintf(stderr, "wrong: " __VA_ARGS__);                  \
      fputc('\n', stderr);                                     \
      exit(1);                                                 \
    }                                                          \
  } while (0)

#ifdef __CUDACC__
/* The driver's errors have the numbers of the runtime's. */
#define CHECK_CUDA(call)                                                                         \
  do {                                                                                           \
    const cudaError_t error_ = static_cast<cudaError_t>(call);                                   \
    if (error_ != cudaSuccess) {                                                                 \
      fprintf(stderr, "%s failed: %s\n", #call, cudaGetErrorString(error_));                     \
      exit(1);                                                                                   \
    }                                                                                            \
  } while (0)
#endif

#endif
