#!/usr/bin/env bash
# Commands on the host backend, checked: tests/history/commands.cu against target/stage, plain and with random delays
# in what the worker does. Takes a seed and a number of commands. (Those of mailboxes and queues need a GPU: the kit runs all.)
source "$(dirname "$0")/common.sh"

[[ -d $stage ]] || die "no target/stage: run scripts/stage.sh"
build=$root/target/history
mkdir -p "$build"
seed=${1:-$(date +%s)}
for kind in plain chaos; do
  step "histories: commands, $kind"
  chaos=()
  [[ $kind == plain ]] || chaos=(-DGMB_CHAOS)
  "${CXX:-c++}" -std=c++17 -O2 -g -Wall -Wextra -Wpedantic -Werror "${chaos[@]}" -I"$stage/include" -x c++ tests/history/commands.cu \
    -o "$build/commands-$kind" -L"$stage/lib" -lgpumailbox -lpthread
  LD_LIBRARY_PATH=$stage/lib timeout 300 "$build/commands-$kind" "$seed" "${2:-100000}"
done
