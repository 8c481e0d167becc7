#!/usr/bin/env bash
# Builds the library in release and installs it into target/stage as a user would, with cmake.
source "$(dirname "$0")/common.sh"

scripts/toolchain.sh cmake
[[ ${GMB_CUDA:-AUTO} == OFF ]] || scripts/toolchain.sh cuda

step "stage: build"
"$cmake" -S . -B target/cmake -G Ninja --log-level=NOTICE \
  -DCMAKE_MAKE_PROGRAM="$ninja" -DCMAKE_INSTALL_LIBDIR=lib -DGMB_CARGO_TARGET_DIR="$root/target" \
  -DGMB_CUDA="${GMB_CUDA:-AUTO}" -DGMB_CUDA_ARCHS="${GMB_CUDA_ARCHS:-}" -DGMB_OFFLINE="${GMB_OFFLINE:-OFF}"
"$cmake" --build target/cmake
step "stage: install into target/stage"
# From nothing, so that a file which is no longer installed is not found either.
rm -rf "$stage"
"$cmake" --install target/cmake --prefix "$stage" | grep -c '^-- Installing: ' | sed 's/$/ files and folders installed/'
