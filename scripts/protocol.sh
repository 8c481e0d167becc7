#!/usr/bin/env bash
# Runs the protocol's tests plain and under AddressSanitizer and ThreadSanitizer.
set -eu
cd "$(dirname "$0")/.."
mkdir -p target/protocol
CXX=${CXX:-c++}
for kind in none address,undefined thread; do
  flags=()
  [ "$kind" = none ] || flags=(-fsanitize="$kind" -fno-sanitize-recover=all)
  for program in protocol overwrite tensor shared device queue doorbell arbiter; do
    out=target/protocol/$program-$(echo "$kind" | tr -d ,)
    "$CXX" -std=c++17 -O2 -g -Wall -Wextra -Wpedantic -Werror -DGMB_CHAOS -Iinclude "${flags[@]}" \
      "tests/protocol/$program.cpp" -o "$out" -lpthread
    echo "-- $program, sanitizer: $kind"
    # Seed and records, or what the program takes; the crowds of the shared mode take turns on few cores.
    arguments=("$@")
    [ "$program" != shared ] || [ $# -gt 0 ] || arguments=("$(date +%s)" 12000)
    TSAN_OPTIONS=halt_on_error=1 "$out" "${arguments[@]}"
  done
done
