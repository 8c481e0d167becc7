#!/usr/bin/env bash
# Builds the library twice, in two copies of the tree with target folders, time zone and cargo's home elsewhere,
# once with cargo and once with CMake: both must give the same bytes, and none may name a folder of the build.
source "$(dirname "$0")/common.sh"
source scripts/package-common.sh

scripts/toolchain.sh cmake
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# Either would take the place of scripts/rustc.sh.
unset RUSTC_WRAPPER CARGO_BUILD_RUSTC_WRAPPER CARGO_TARGET_DIR
kernels=without
if [[ ${GMB_CUDA:-AUTO} != OFF ]] && nvcc=$(any_nvcc); then
  export NVCC=$nvcc
  kernels=with
fi
[[ -n ${GMB_CUDA_ARCHS:-} ]] || unset GMB_CUDA_ARCHS
offline=()
[[ ${GMB_OFFLINE:-OFF} == OFF ]] || offline=(--offline)

first=$work/first
second=$work/a/second/tree
copy_sources "$first"
copy_sources "$second"

step "reproducible: with cargo, $kernels CUDA kernels"
(cd "$first" && cargo build --quiet --release --locked "${offline[@]}" --lib --target-dir "$work/target")
step "reproducible: with CMake"
ln -s "${CARGO_HOME:-$HOME/.cargo}" "$work/cargo-home"
(
  export CARGO_HOME=$work/cargo-home TZ=Pacific/Chatham LC_ALL=C
  "$cmake" -S "$second" -B "$second/build" -G Ninja --log-level=NOTICE -DCMAKE_MAKE_PROGRAM="$ninja" \
    -DGMB_CUDA="${GMB_CUDA:-AUTO}" -DGMB_CUDA_ARCHS="${GMB_CUDA_ARCHS:-}" -DGMB_OFFLINE=ON
  "$cmake" --build "$second/build" >"$work/cmake.txt" 2>&1 || { cat "$work/cmake.txt"; exit 1; }
)
# CMake makes one object of the archive.
sh cmake/localize.sh "$work/target/release/libgpumailbox.so" "$work/target/release/libgpumailbox.a" \
  "$work/target/libgpumailbox.a"
sysroot=$(rustc --print sysroot)
failed=0
# same NAME FIRST SECOND
same() {
  local sums folder file
  sums=$(sha256sum "$2" "$3" | cut -d' ' -f1 | uniq)
  if [[ $(wc -l <<<"$sums") != 1 ]]; then
    echo "error: $1 is not the same twice; the texts that differ:"
    diff <(strings -a "$2" | sort) <(strings -a "$3" | sort) | grep '^[<>]' | sed -n 1,20p || true
    failed=1
  else
    echo "$1: $sums twice"
  fi
  for file in "$2" "$3"; do
    strings -a "$file" >"$work/strings"
    for folder in "$work" "$root" "$HOME" "$work/cargo-home" "${CARGO_HOME:-$HOME/.cargo}" "$sysroot"; do
      if grep -F "$folder/" "$work/strings" >"$work/found"; then
        sort "$work/found" | uniq -c | sed -n 1,5p
        echo "error: $1 names $folder"
        failed=1
      fi
    done
  done
}
same libgpumailbox.so "$work/target/release/libgpumailbox.so" "$second/build/lib/libgpumailbox.so"
same libgpumailbox.a "$work/target/libgpumailbox.a" "$second/build/lib/libgpumailbox.a"
exit "$failed"
