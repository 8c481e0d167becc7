#!/usr/bin/env bash
# Fuzzes sequences of C calls on the host backend under AddressSanitizer, for so many seconds (default 30) or calls:
#   scripts/fuzz.sh [SECONDS | --calls N]   from fuzz/corpus/calls on; what is new goes to target/fuzz
#   scripts/fuzz.sh --broken                shows that it can fail
#   scripts/fuzz.sh --merge                 writes the least corpus that covers as much into fuzz/corpus/calls
#   scripts/fuzz.sh FILE...                 runs these inputs, such as target/fuzz/crash-*; GMB_FUZZ_TRACE=1 tells of each call
# The first build fetches the crates of fuzz/Cargo.lock; after `cargo fetch --locked --manifest-path fuzz/Cargo.toml`
# CARGO_NET_OFFLINE=true builds without a network. GMB_FUZZ_SEED chooses the seed.
source "$(dirname "$0")/common.sh"

work=$root/target/fuzz
corpus=$root/fuzz/corpus/calls
host=$(rustc -vV | sed -n 's/^host: //p')
mkdir -p "$work/new"

# The host kernels are instrumented by g++, whose calls AddressSanitizer's runtime of rustc understands.
# Nothing else: libFuzzer must not watch itself.
cat >"$work/c++" <<'WRAPPER'
#!/bin/sh
case " $* " in *" kernels/host.cpp "*) set -- -fsanitize=address -fsanitize-coverage=trace-cmp "$@" ;; esac
exec c++ "$@"
WRAPPER
chmod +x "$work/c++"

step "fuzz: build"
# What cargo-fuzz gives to rustc, with the stable one.
flags=(-Zsanitizer=address -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4
  -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table
  -Cllvm-args=-sanitizer-coverage-trace-compares --cfg=fuzzing -Cforce-frame-pointers=yes)
# A target, so that build scripts are built without all this.
RUSTC_BOOTSTRAP=1 RUSTFLAGS=${flags[*]} CXX=$work/c++ GMB_CUDA=OFF cargo build --quiet --release --locked \
  --manifest-path fuzz/Cargo.toml --target "$host" --target-dir "$work/build"
calls=$work/build/$host/release/calls
diff tests/abi/symbols.txt <("$calls" --list | LC_ALL=C sort) || die "fuzz/src/calls.rs and tests/abi/symbols.txt differ"

# The library keeps its handle tables for good, and what a sequence leaves behind is on the books, which it checks.
# No allocation here is large: one that is must be refused, not tried.
export ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1:max_allocation_size_mb=64:detect_stack_use_after_return=0
common=(-timeout=20 -rss_limit_mb=4096 -max_len=2048 -len_control=20 -artifact_prefix="$work/")
seed=${GMB_FUZZ_SEED:-1}

fuzz() { # FLAGS...: prints the closing lines, and all of it when it fails
  local out=$work/output.txt
  if ! "$calls" "${common[@]}" -seed="$seed" -verbosity=1 -print_final_stats=1 "$@" "$work/new" "$corpus" >"$out" 2>&1; then
    grep -v '^#' "$out" | tail -80
    die "fuzzing failed"
  fi
  grep '^#.*cov:' "$out" | tail -1
  grep '^runs: ' "$out"
  # Each function must have been called, or an operation does not do what it says.
  grep -q "functions: $(wc -l <tests/abi/symbols.txt) of" "$out" || die "not every function was called"
}

case ${1:-30} in
  --broken)
    for how in bytes memory books; do
      if GMB_FUZZ_BROKEN=$how "$calls" "${common[@]}" -runs=0 "$corpus" >"$work/broken.txt" 2>&1; then
        die "broken on purpose ($how) and not found"
      fi
      grep -m 1 -E 'panicked at|ERROR: AddressSanitizer' "$work/broken.txt" | sed "s|$root/||"
    done
    rm -f "$work"/crash-*
    echo "all three fail when they should"
    ;;
  --merge)
    mkdir -p "$work/merged"
    rm -f "$work/merged"/*
    # Edges alone, and the least set of files that has them all.
    "$calls" "${common[@]}" -use_counters=0 -use_cmp=0 -set_cover_merge=1 "$work/merged" "$corpus" "$work/new" \
      >"$work/merge.txt" 2>&1
    rm -f "$corpus"/* && cp "$work/merged"/* "$corpus"
    du -sh --apparent-size "$corpus"
    ;;
  --calls)
    step "fuzz: until ${2:?how many calls} were made, seed $seed"
    GMB_FUZZ_CALLS=$2 fuzz
    ;;
  *[!0-9]*)
    exec "$calls" "${common[@]}" "$@"
    ;;
  *)
    step "fuzz: ${1:-30} s, seed $seed"
    fuzz -max_total_time="${1:-30}"
    ;;
esac
