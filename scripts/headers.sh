#!/usr/bin/env bash
# Compiles each installed header alone and included twice, from target/stage only.
source "$(dirname "$0")/common.sh"

[[ -d $stage/include ]] || die "no target/stage: run scripts/stage.sh"
count=0
# alone HEADER LANGUAGE STANDARD FLAGS...
alone() {
  local header=$1 language=$2 standard=$3
  shift 3
  printf '#include <%s>\n#include <%s>\n' "$header" "$header" |
    "${CXX:-c++}" -x "$language" -std="$standard" "$@" -I"$stage/include" -fsyntax-only -Wall -Wextra -Wpedantic -Werror - ||
    die "$header does not compile alone as $standard $*"
  count=$((count + 1))
}
alone gpumailbox.h c c11
alone gpumailbox.h c++ c++17
for header in gpumailbox/dlpack.h gpumailbox/arrow.h; do
  alone "$header" c c11
  alone "$header" c++ c++17
done
# A program's own declarations of DLPack's types beside ours, in either order.
own=$root/target/headers-own
mkdir -p "$own/dlpack"
cat >"$own/dlpack/dlpack.h" <<'END'
#ifndef DLPACK_DLPACK_H_
#define DLPACK_DLPACK_H_
#include <stdint.h>
typedef struct { void *data; } DLTensor;
typedef struct DLManagedTensor { DLTensor dl_tensor; void (*deleter)(struct DLManagedTensor *self); } DLManagedTensor;
typedef struct DLManagedTensorVersioned {
  uint64_t version; void (*deleter)(struct DLManagedTensorVersioned *self); DLTensor dl_tensor;
} DLManagedTensorVersioned;
#endif
END
for order in "dlpack/dlpack.h gpumailbox.h gpumailbox/dlpack.h" "gpumailbox.h dlpack/dlpack.h" \
  "gpumailbox.h gpumailbox/dlpack.h dlpack/dlpack.h"; do
  for language in c c++; do
    { printf '#include <%s>\n' $order
      printf 'gmb_status f(gmb_tensor_mailbox m, DLManagedTensorVersioned *t);\n'
      printf 'gmb_status f(gmb_tensor_mailbox m, DLManagedTensorVersioned *t) { return gmb_tensor_mailbox_push(m, t, 0, 0); }\n'; } |
      "${CXX:-c++}" -x "$language" -I"$own" -I"$stage/include" -fsyntax-only -Wall -Wextra -Wpedantic -Werror - ||
      die "$order do not go together in $language"
    count=$((count + 1))
  done
done
for header in gpumailbox.hpp gpumailbox/detail.hpp gpumailbox/graph.hpp gpumailbox/tensor.hpp gpumailbox/queue.hpp gpumailbox/doorbell.hpp gpumailbox/arbiter.hpp gpumailbox/module.hpp gpumailbox/pipeline.hpp; do
  for standard in c++17 c++20; do
    alone "$header" c++ "$standard"
    alone "$header" c++ "$standard" -fno-exceptions -fno-rtti
  done
done
for header in "$stage"/include/gpumailbox/*.cuh; do
  alone "gpumailbox/${header##*/}" c++ c++17
done
echo "$count headers and standards"
