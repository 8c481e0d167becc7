#!/usr/bin/env bash
# Runs the protocol test plain and under AddressSanitizer and ThreadSanitizer.
set -eu
cd "$(dirname "$0")/.."
mkdir -p target/protocol
CXX=${CXX:-c++}
for kind in none address,undefined thread; do
  out=target/protocol/$(echo "$kind" | tr -d ,)
  flags=()
  [ "$kind" = none ] || flags=(-fsanitize="$kind" -fno-sanitize-recover=all)
  "$CXX" -std=c++17 -O2 -g -Wall -Wextra -Wpedantic -Werror -DGMB_CHAOS -Iinclude "${flags[@]}" \
    tests/protocol/protocol.cpp -o "$out" -lpthread
  echo "-- protocol, sanitizer: $kind"
  TSAN_OPTIONS=halt_on_error=1 "$out" "$@"
done
