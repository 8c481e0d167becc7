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
for header in gpumailbox.hpp gpumailbox/detail.hpp gpumailbox/graph.hpp; do
  for standard in c++17 c++20; do
    alone "$header" c++ "$standard"
    alone "$header" c++ "$standard" -fno-exceptions -fno-rtti
  done
done
for header in "$stage"/include/gpumailbox/*.cuh; do
  alone "gpumailbox/${header##*/}" c++ c++17
done
echo "$count headers and standards"
