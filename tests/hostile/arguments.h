/* The machinery of arguments.c: a function is an argument list that works, and for each argument and
 * each field of a struct behind one, the values that are hostile and the status that each must give. */
#ifndef GMB_HOSTILE_ARGUMENTS_H
#define GMB_HOSTILE_ARGUMENTS_H

#include "hostile.h"

enum { MOST_ARGS = 8, MOST_SLOTS = 32, MOST_VALUES = 96, MOST_FUNCTIONS = 160, AREA = 4608, CANARY = 0xA5 };
enum {
  ALONE = 1, /* not in pairs: with another hostile value the call could block, or there are many alike */
  TAIL = 2   /* of a struct_size: the last byte that it speaks of is not zero */
};

struct value {
  uint64_t bits;
  gmb_status wanted;
  unsigned how;
};

/* A place for hostile values: an argument, or a field of the struct that an argument points to. */
struct slot {
  const char *name;
  int arg, offset, width; /* offset -1: the argument itself */
  size_t count;
  struct value values[MOST_VALUES];
};

struct function {
  const char *name;
  gmb_status (*call)(const uint64_t *args);
  void (*before)(uint64_t *args);                     /* makes what the call will end */
  void (*after)(gmb_status status, const uint64_t *args); /* undoes what the call made, or did not end */
  gmb_status base_status;
  int args;
  uint64_t base[MOST_ARGS];
  const void *input[MOST_ARGS];
  size_t input_size[MOST_ARGS];
  bool is_output[MOST_ARGS];
  size_t slots;
  struct slot slot[MOST_SLOTS];
  gmb_status also[4]; /* what two values may give together, beside what each gives alone */
  size_t also_count;
};

static struct function functions[MOST_FUNCTIONS], *f;
static size_t function_count;
static long calls, failures;
/* One area for each argument that is a pointer of this program's: outputs, and structs. */
static _Alignas(64) unsigned char area[MOST_ARGS][AREA];

static uint64_t bits_of(const void *pointer) { return (uint64_t)(uintptr_t)pointer; }
static void *pointer_of(uint64_t bits) { return (void *)(uintptr_t)bits; }

/* ---- Building the table ---- */

static void function(const char *name, gmb_status (*call)(const uint64_t *)) {
  if (function_count == MOST_FUNCTIONS) abort();
  f = &functions[function_count++];
  f->name = name;
  f->call = call;
}

static struct slot *new_slot(const char *name, int arg, int offset, int width) {
  if (f->slots == MOST_SLOTS) abort();
  struct slot *slot = &f->slot[f->slots++];
  *slot = (struct slot){name, arg, offset, width, 0, {{0, 0, 0}}};
  return slot;
}

static void add(struct slot *slot, const struct value *values, size_t count) {
  if (slot->count + count > MOST_VALUES) abort();
  memcpy(slot->values + slot->count, values, count * sizeof *values);
  slot->count += count;
}

#define VALUES(...) (struct value[]){__VA_ARGS__}, sizeof((struct value[]){__VA_ARGS__}) / sizeof(struct value)

static struct slot *arg(const char *name, uint64_t base) {
  if (f->args == MOST_ARGS) abort();
  f->base[f->args] = base;
  return new_slot(name, f->args++, -1, 8);
}

/* A plain argument with its hostile values. */
#define WORD(name, base, ...) add(arg(name, base), VALUES(__VA_ARGS__))

/* A pointer that the call writes through. */
static void output(const char *name, uint64_t alignment) {
  const int at = f->args;
  struct slot *slot = arg(name, bits_of(area[at]));
  f->is_output[at] = true;
  add(slot, VALUES({0, GMB_ERROR_NULL_POINTER, 0}));
  for (uint64_t off = 1; off < alignment; off *= 2) {
    add(slot, VALUES({bits_of(area[at]) + off, GMB_ERROR_MISALIGNED, 0}));
  }
}

/* A struct; FIELD adds to it. */
static void structure(const char *name, const void *good, size_t size, uint64_t alignment, gmb_status null) {
  const int at = f->args;
  struct slot *slot = arg(name, bits_of(area[at]));
  f->input[at] = good;
  f->input_size[at] = size;
  add(slot, VALUES({0, null, 0}));
  for (uint64_t off = 1; off < alignment; off *= 2) {
    add(slot, VALUES({bits_of(area[at]) + off, GMB_ERROR_MISALIGNED, 0}));
  }
}

/* A struct that begins with its size. */
static void input(const char *name, const void *good, uint32_t size, uint64_t alignment, gmb_status null) {
  const int at = f->args;
  structure(name, good, size, alignment, null);
  const gmb_status wrong = GMB_ERROR_STRUCT_SIZE;
  add(new_slot("struct_size", at, 0, 4),
      VALUES({0, wrong, 0}, {4, wrong, 0}, {size - 1, wrong, 0}, {size + 1, GMB_OK, 0}, {size + 1, wrong, TAIL},
             {4096, GMB_OK, 0}, {4096, wrong, TAIL}, {4097, wrong, 0}, {UINT32_MAX, wrong, 0}));
}

#define FIELD(type, field, ...)                                                                           \
  add(new_slot(#field, f->args - 1, (int)offsetof(type, field), (int)sizeof(((type *)0)->field)), \
      VALUES(__VA_ARGS__))

/* ---- Running it ---- */

static void complain(const struct slot *one, const struct value *first, const struct slot *two,
                     const struct value *second, const char *what, long got) {
  if (++failures > 40) return;
  printf("%s", f->name);
  if (one) printf(", %s = %#llx", one->name, (unsigned long long)first->bits);
  if (two) printf(", %s = %#llx", two->name, (unsigned long long)second->bits);
  printf(": %s %ld", what, got);
  if (one) printf(", wanted %s", gmb_status_name(first->wanted));
  if (two) printf(" or %s", gmb_status_name(second->wanted));
  printf("\n");
}

static void apply(const struct slot *slot, const struct value *value, uint64_t *args) {
  if (slot->offset < 0) {
    args[slot->arg] = value->bits;
    return;
  }
  memcpy(area[slot->arg] + slot->offset, &value->bits, (size_t)slot->width);
  if (value->how & TAIL) area[slot->arg][value->bits - 1] = 1;
}

static bool is_clean(const unsigned char *bytes, size_t from) {
  for (size_t i = from; i < AREA; ++i) {
    if (bytes[i] != CANARY) return false;
  }
  return true;
}

/* After a failure: a message of this call's, NUL-terminated and as long as the library says. */
static bool has_message(void) {
  char text[1200];
  size_t needed = 0;
  memset(text, 0x5A, sizeof text);
  if (gmb_last_error_message(text, sizeof text, &needed) != GMB_OK) return false;
  const char *end = memchr(text, '\0', sizeof text);
  return end && end > text && needed == (size_t)(end - text) + 1 && text[needed] == 0x5A &&
         (f->call == NULL || strcmp(text, "buffer is null and size is not 0") != 0 ||
          strcmp(f->name, "gmb_last_error_message") == 0);
}

static bool is_wanted(gmb_status got, const struct value *first, const struct value *second) {
  if (!first) return got == f->base_status;
  if (!second) return got == first->wanted;
  if (got == first->wanted || got == second->wanted) return true;
  for (size_t i = 0; i < f->also_count; ++i) {
    if (got == f->also[i]) return true;
  }
  return false;
}

/* One call, with up to two hostile values in it. */
static void attempt(const struct slot *one, const struct value *first, const struct slot *two,
                    const struct value *second) {
  uint64_t args[MOST_ARGS];
  memcpy(args, f->base, sizeof args);
  for (int i = 0; i < f->args; ++i) {
    if (f->input[i]) {
      memset(area[i], 0, AREA);
      memcpy(area[i], f->input[i], f->input_size[i]);
    } else if (f->is_output[i]) {
      memset(area[i], CANARY, AREA);
    }
  }
  if (f->before) f->before(args);
  if (one) apply(one, first, args);
  if (two) apply(two, second, args);
  /* Another message before, so that the one after can only be the call's. */
  gmb_last_error_message(NULL, 1, NULL);
  const gmb_status got = f->call(args);
  ++calls;
  if (!is_wanted(got, first, second)) complain(one, first, two, second, "status", got);
  if (got < 0 && !has_message()) complain(one, first, two, second, "no message after status", got);
  for (int i = 0; i < f->args; ++i) {
    /* No output is longer than 4096 bytes. */
    if (f->is_output[i] && !is_clean(area[i], got < 0 ? 0 : 4096)) {
      complain(one, first, two, second, "written output, argument", i);
    }
  }
  if (f->after) f->after(got, args);
}

static void run_function(struct function *which) {
  f = which;
  attempt(NULL, NULL, NULL, NULL);
  for (size_t i = 0; i < f->slots; ++i) {
    const struct slot *one = &f->slot[i];
    for (size_t v = 0; v < one->count; ++v) attempt(one, &one->values[v], NULL, NULL);
  }
  for (size_t i = 0; i < f->slots; ++i) {
    for (size_t j = i + 1; j < f->slots; ++j) {
      const struct slot *one = &f->slot[i], *two = &f->slot[j];
      for (size_t v = 0; v < one->count; ++v) {
        for (size_t w = 0; w < two->count; ++w) {
          if ((one->values[v].how | two->values[w].how) & ALONE) continue;
          attempt(one, &one->values[v], two, &two->values[w]);
        }
      }
    }
  }
  attempt(NULL, NULL, NULL, NULL);
}

#endif
