#!/usr/bin/env bash
# Compares the C ABI with tests/abi/libgpumailbox.abi (abidiff) and tests/abi/constants.txt; with --write it writes them,
# for a change that is meant. The description is made from a stand-in library that is compiled from the header, because
# libabigail sees no C functions in a Rust library; the built library's own debug information is then held against it.
# GMB_ABI_HEADER and GMB_ABI_LIBRARY name others to look at, to see that the gate notices.
source "$(dirname "$0")/common.sh"

list=tests/abi/symbols.txt
baseline=tests/abi/libgpumailbox.abi
constants=tests/abi/constants.txt
header=${GMB_ABI_HEADER:-include/gpumailbox.h}
library=${GMB_ABI_LIBRARY:-target/abi/release/libgpumailbox.so}
work=target/abi
mkdir -p "$work"
[[ $# == 0 || $* == --write ]] || die "usage: scripts/abi.sh [--write]"
write=("$@")
export LC_ALL=C

if ! command -v abidw >/dev/null || ! command -v abidiff >/dev/null; then
  if [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null; then
    step "abi: install abigail-tools"
    { apt-get update -qq && apt-get install -y -qq --no-install-recommends abigail-tools; } >"$work/apt.log" 2>&1 || true
  fi
  command -v abidiff >/dev/null || die "no abidw and abidiff: install libabigail (Debian and Ubuntu: abigail-tools)"
fi

if [[ -z ${GMB_ABI_LIBRARY:-} ]]; then
  step "abi: build with debug information"
  GMB_CUDA=OFF CARGO_PROFILE_RELEASE_DEBUG=2 CARGO_TARGET_DIR=target/abi cargo build --release --lib --locked --quiet
fi

step "abi: compare"
soname=$(sed -n 's/^const SONAME.*"\(.*\)".*/\1/p' build.rs)
"${CC:-cc}" -E -P -x c "$header" >"$work/header.i"
python3 tests/abi/abi.py stubs "$work/header.i" >"$work/stubs.c"
"${CC:-cc}" -std=c11 -g -O0 -w -fPIC -shared -nostdlib -Wl,-soname,"$soname" "$work/stubs.c" -o "$work/libgpumailbox-header.so"
abidw --no-architecture --no-corpus-path --no-comp-dir-path --no-show-locs --no-elf-needed \
  --out-file "$work/libgpumailbox.abi" "$work/libgpumailbox-header.so"
python3 tests/abi/abi.py types "$header" "$work/libgpumailbox.abi"
python3 tests/abi/abi.py constants "$header" "$constants" "${write[@]}"
[[ ${#write[@]} == 0 ]] || cp "$work/libgpumailbox.abi" "$baseline"
[[ -e $baseline ]] || die "no $baseline: scripts/abi.sh --write"

result=0
abidiff --harmless --no-show-locs "$baseline" "$work/libgpumailbox.abi" >"$work/abidiff.txt" || result=$?
if [[ $result != 0 || -s $work/abidiff.txt ]]; then
  echo
  cat "$work/abidiff.txt"
  ((result & 8)) && die "the ABI changed, and programs built before break"
  die "the ABI is not that of $baseline (scripts/abi.sh --write, if it is meant)"
fi
python3 tests/abi/abi.py binary "$work/libgpumailbox-header.so" "$library" "$list"
