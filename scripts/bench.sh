#!/usr/bin/env bash
# Measures this machine's limits and the library beside them, on the GPU where there is one and on the host
# backend. Results go to target/bench; with --keep to benches/results, and into docs/performance.md. --quick is for a look.
source "$(dirname "$0")/common.sh"

keep=0
quick=()
for option in "$@"; do
  case $option in
    --keep) keep=1 ;;
    --quick) quick=(--quick) ;;
    *) die "usage: scripts/bench.sh [--keep] [--quick]" ;;
  esac
done
out=target/bench
mkdir -p "$out/programs"
scripts/stage.sh
export LD_LIBRARY_PATH=$stage/lib
flags=(-O3 -std=c++17 -I"$stage/include")

step "bench: build"
c++ "${flags[@]}" -pthread benches/limits_host.cpp -o "$out/programs/limits_host"
c++ "${flags[@]}" -pthread benches/mailbox_host.cpp -o "$out/programs/mailbox_host" -L"$stage/lib" -lgpumailbox
commit=$(git describe --always --dirty --abbrev=12 --exclude '*' 2>/dev/null || echo unknown)
measure() { # FOLDER OPTION...
  python3 scripts/kit/bench.py "$out/programs" "$out/$1" "$commit" "${quick[@]}" "${@:2}"
  if ((keep)); then
    mkdir -p "benches/results/$1"
    cp "$out/$1"/*.json "benches/results/$1/"
  fi
}
if [[ ${GMB_CUDA:-AUTO} != OFF ]] && nvcc=$(any_nvcc); then
  # Where there is no GPU they are compiled all the same, so that they go on compiling.
  arch=sm_90
  ! gpu_present || arch=native
  for program in limits mailbox; do
    "$nvcc" "-arch=$arch" "${flags[@]}" -cudart static "benches/$program.cu" -o "$out/programs/$program" -L"$stage/lib" -lgpumailbox
  done
fi
if gpu_present; then
  measure "$(nvidia-smi --query-gpu=name --format=csv,noheader | head -1 | tr 'A-Z ' 'a-z-')"
fi
measure host --host
((!keep)) || scripts/performance.py
