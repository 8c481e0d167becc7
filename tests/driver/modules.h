/* Modules of callers in the made-up driver: whatever looks like PTX has the kernels of tests/suite/support/kernels.cu, each run
 * by a launch before it returns. */
#ifndef GMB_TESTS_DRIVER_MODULES_H
#define GMB_TESTS_DRIVER_MODULES_H

#include "state.h"

struct dimensions {
  unsigned x, y, z;
  size_t all() const { return size_t{x} * y * z; }
};

struct callers_kernel {
  const char *name;
  size_t sizes[5];
  size_t count;
  void (*run)(void **parameters, size_t threads);
};

template <class T> static T parameter(void **parameters, int n) {
  T value;
  std::memcpy(&value, parameters[n], sizeof value);
  return value;
}

static void run_mix(void **p, size_t) {
  uint64_t *const to = parameter<uint64_t *>(p, 0), *const a = parameter<uint64_t *>(p, 1), *const b = parameter<uint64_t *>(p, 2);
  const uint64_t salt = parameter<uint64_t>(p, 3);
  for (unsigned n = 0; n < parameter<unsigned>(p, 4); ++n) {
    uint64_t x = a[n] * 3 + (b[n] ^ salt) + n;
    x = (x ^ (x >> 29)) * 0xbf58476d1ce4e5b9ull;
    to[n] = x ^ (x >> 32);
  }
}

static void run_add(void **p, size_t threads) {
  float *const data = parameter<float *>(p, 0);
  for (size_t n = 0; n < threads && n < parameter<unsigned>(p, 2); ++n) data[n] += parameter<float>(p, 1);
}

static callers_kernel callers[] = {
    {"mix", {8, 8, 8, 8, 4}, 5, run_mix},
    {"add", {8, 4, 4}, 3, run_add},
};

static bool is_callers(void *function) {
  return function >= callers && function < callers + sizeof callers / sizeof *callers;
}

static int find_callers(void **function, const char *name) {
  for (callers_kernel &each : callers) {
    if (std::strcmp(each.name, name) != 0) continue;
    *function = &each;
    return success;
  }
  return not_found;
}

static int run_callers(void *function, dimensions grid, dimensions block, void **parameters) {
  if (grid.all() == 0 || block.all() == 0 || block.all() > 1024) return invalid_value;
  static_cast<callers_kernel *>(function)->run(parameters, grid.all() * block.all());
  return success;
}

EXPORT int cuModuleLoadDataEx(void **module, const void *image, unsigned count, int *options, void **values) {
  ENTER(cuModuleLoadDataEx);
  enum { error_log = 5 };
  if (std::strstr(static_cast<const char *>(image), ".version") != nullptr) {
    *module = callers;
    return success;
  }
  for (unsigned n = 0; n < count; ++n) {
    if (options[n] == error_log) std::strcpy(static_cast<char *>(values[n]), "made-up compiler: no .version");
  }
  return invalid_image;
}

EXPORT int cuFuncSetAttribute(void *, int, int) {
  ENTER(cuFuncSetAttribute);
  return success;
}

/* Not every driver has this one, so it is not counted. */
EXPORT int cuFuncGetParamInfo(void *function, size_t n, size_t *offset, size_t *size) {
  const callers_kernel &each = *static_cast<callers_kernel *>(function);
  if (!is_callers(function) || n >= each.count) return invalid_value;
  *offset = 0;
  *size = each.sizes[n];
  return success;
}

#endif
