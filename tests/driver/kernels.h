/* Kernels of the made-up driver: the host entry points, run by a launch before it returns. */
#ifndef GMB_TESTS_DRIVER_KERNELS_H
#define GMB_TESTS_DRIVER_KERNELS_H

#include "kernels/args.h"
#include "kernels/list.h"
#include "modules.h"
#include "state.h"

struct kernel {
  const char *name;
  void (*run)(const void *, uint32_t, uint32_t);
  size_t bytes;
  /* Where these stand in the arguments of a push or a pop; zero for others. */
  size_t report, lanes_log2;
};

template <class Args, class = void> struct places {
  static constexpr size_t report = 0, lanes_log2 = 0;
};
template <class Args> struct places<Args, std::void_t<decltype(Args::lanes_log2)>> {
  static constexpr size_t report = offsetof(Args, report), lanes_log2 = offsetof(Args, lanes_log2);
};

extern "C" void (*gmb_host_kernel(const char *name))(const void *, uint32_t, uint32_t);

#define KERNEL(name, type, ...) \
  {"gmb_kernel_" #name, gmb_host_kernel("gmb_kernel_" #name), sizeof(type), places<type>::report, places<type>::lanes_log2},
static kernel kernels[] = {GMB_KERNELS(KERNEL)};

EXPORT int cuModuleLoadData(void **module, const void *) {
  ENTER(cuModuleLoadData);
  *module = kernels;
  return success;
}

EXPORT int cuModuleUnload(void *) {
  ENTER(cuModuleUnload);
  return success;
}

EXPORT int cuModuleGetFunction(void **function, void *module, const char *name) {
  ENTER(cuModuleGetFunction);
  if (module == callers) return find_callers(function, name);
  for (kernel &each : kernels) {
    if (std::strcmp(each.name, name) != 0) continue;
    *function = &each;
    return success;
  }
  return not_found;
}

EXPORT int cuFuncGetAttribute(int *value, int attribute, void *) {
  ENTER(cuFuncGetAttribute);
  enum { most_threads = 0, ptx_version = 5 };
  *value = attribute == ptx_version ? 90 : attribute == most_threads ? 1024 : 0;
  return success;
}

EXPORT int cuOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, void *, int, size_t) {
  ENTER(cuOccupancyMaxActiveBlocksPerMultiprocessor);
  *blocks = 2;
  return success;
}

static void run(const kernel &each, const void *arguments, uint32_t blocks) {
  for (uint32_t block = 0; block < blocks; ++block) each.run(arguments, block, blocks);
}

static int run_launched(void *function, unsigned blocks, void **parameters) {
  const kernel &each = *static_cast<kernel *>(function);
  /* The caller may change them once this returns; a launch copies them. */
  alignas(16) unsigned char arguments[256];
#define FITS(name, type, ...) static_assert(sizeof(type) <= sizeof arguments, #name);
  GMB_KERNELS(FITS)
  std::memcpy(arguments, parameters[0], each.bytes);
  gmb_report_args report = {};
  if (each.report != 0) {
    std::memcpy(&report, arguments + each.report, sizeof report);
    /* A block is one thread here, which has no others to share a record with. */
    std::memset(arguments + each.lanes_log2, 0, sizeof(uint32_t));
  }
  uint64_t *const line = reinterpret_cast<uint64_t *>(report.host_progress);
  if (!line || report.host_slot) {
    /* Whoever sees the token's words sees every report before them. */
    tell_all();
    run(each, arguments, blocks);
    return success;
  }
  uint64_t word;
  {
    std::lock_guard<std::mutex> gate(late_gate);
    const auto before = late.find(line);
    if (before != late.end()) {
      tell(line, before->second);
      late.erase(before);
    }
    word = *line;
  }
  report.host_progress = reinterpret_cast<uint64_t>(&word);
  std::memcpy(arguments + each.report, &report, sizeof report);
  run(each, arguments, blocks);
  std::lock_guard<std::mutex> gate(late_gate);
  late[line] = word;
  return success;
}

EXPORT int cuLaunchKernel(void *function, unsigned blocks, unsigned y, unsigned z, unsigned threads, unsigned ty,
                          unsigned tz, unsigned, void *handle, void **parameters, void **) {
  ENTER(cuLaunchKernel);
  STREAM(handle);
  if (is_callers(function)) {
    tell_all();
    return run_callers(function, {blocks, y, z}, {threads, ty, tz}, parameters);
  }
  if (blocks == 0 || threads == 0 || y != 1 || z != 1 || ty != 1 || tz != 1) return invalid_value;
  return run_launched(function, blocks, parameters);
}

struct launch_config {
  unsigned blocks, y, z, threads, ty, tz, shared;
  void *stream;
  void *attributes;
  unsigned attribute_count;
};

EXPORT int cuLaunchKernelEx(const launch_config *config, void *function, void **parameters, void **) {
  ENTER(cuLaunchKernelEx);
  STREAM(config->stream);
  if (config->blocks == 0 || config->threads == 0 || config->y != 1 || config->z != 1) return invalid_value;
  return run_launched(function, config->blocks, parameters);
}

#endif
