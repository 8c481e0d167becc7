/* Stands before a libcuda.so.1 and counts the calls by name. symbols.h, which the
 * test writes, has SYMBOL(name) for each function.
 *
 * GMB_REAL_DRIVER is the absolute path of the driver: by its name the loader
 * would find this file again. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Counts one call and jumps on. Arguments stay where they are, whatever they are. */
#if defined(__x86_64__)
#define TRAMPOLINE(name)                       \
  "lock incq gmb_calls_" name "(%rip)\n"       \
  "jmp *gmb_real_" name "(%rip)\n"
#elif defined(__aarch64__)
#define TRAMPOLINE(name)                       \
  "adrp x16, gmb_calls_" name "\n"             \
  "add x16, x16, :lo12:gmb_calls_" name "\n"   \
  "1: ldxr x17, [x16]\n"                       \
  "add x17, x17, #1\n"                         \
  "stxr w15, x17, [x16]\n"                     \
  "cbnz w15, 1b\n"                             \
  "adrp x16, gmb_real_" name "\n"              \
  "ldr x16, [x16, :lo12:gmb_real_" name "]\n"  \
  "br x16\n"
#else
#error "no trampoline for this processor"
#endif

/* Hidden, so that the trampolines may name them without a table. */
#define SYMBOL(name)                                                       \
  __attribute__((visibility("hidden"))) uint64_t gmb_calls_##name = 0;     \
  __attribute__((visibility("hidden"))) void *gmb_real_##name = 0;         \
  __asm__(".pushsection .text\n.balign 16\n"                               \
          ".globl " #name "\n.type " #name ",%function\n"                  \
          #name ":\n" TRAMPOLINE(#name)                                    \
          ".size " #name ", . - " #name "\n.popsection\n");
#include "symbols.h"
#undef SYMBOL

static const struct {
  const char *name;
  uint64_t *calls;
  void **real;
} symbols[] = {
#define SYMBOL(name) {#name, &gmb_calls_##name, &gmb_real_##name},
#include "symbols.h"
#undef SYMBOL
};

uint64_t gmb_driver_calls(const char *name) {
  for (size_t i = 0; i < sizeof symbols / sizeof *symbols; ++i) {
    if (strcmp(symbols[i].name, name) == 0) return __atomic_load_n(symbols[i].calls, __ATOMIC_RELAXED);
  }
  return ~(uint64_t)0;
}

static void give_up(const char *what) {
  fprintf(stderr, "counting shim: %s\n", what);
  abort();
}

__attribute__((constructor)) static void open_driver(void) {
  const char *path = getenv("GMB_REAL_DRIVER");
  void *driver = path ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : NULL;
  if (!driver) give_up(path ? dlerror() : "GMB_REAL_DRIVER is not set");
  for (size_t i = 0; i < sizeof symbols / sizeof *symbols; ++i) {
    *symbols[i].real = dlsym(driver, symbols[i].name);
    if (!*symbols[i].real) give_up(symbols[i].name);
  }
}
