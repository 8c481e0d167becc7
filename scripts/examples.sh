#!/usr/bin/env bash
# Builds c_examples against target/stage into target/examples; with --test runs their ctest entries, and
# compares what the examples print that there are in C, C++ and Rust.
source "$(dirname "$0")/common.sh"

[[ -d $stage ]] || die "no target/stage: run scripts/stage.sh"
gpu=OFF
options=(-DCMAKE_MAKE_PROGRAM="$ninja" -DCMAKE_PREFIX_PATH="$stage" -DCMAKE_BUILD_TYPE=Release)
if [[ ${GMB_CUDA:-AUTO} != OFF ]] && nvcc=$(any_nvcc); then
  archs=90
  if gpu_present; then
    archs=native
    gpu=ON
  fi
  options+=(-DCMAKE_CUDA_COMPILER="$nvcc" -DCMAKE_CUDA_ARCHITECTURES="$archs")
else
  # A compiler that an earlier configuration found must not stay.
  options+=(--fresh)
fi
step "examples: build"
"$cmake" -S c_examples -B target/examples -G Ninja --log-level=NOTICE "${options[@]}" -DGMB_EXAMPLES_GPU=OFF
"$cmake" --build target/examples

# The environment is that of scripts/stage.sh's cargo, so that the library is not built again.
in_rust() ( # EXAMPLE
  unset GMB_CHAOS
  export CARGO_TARGET_DIR=$root/target
  [[ ${GMB_CUDA:-AUTO} != AUTO ]] || unset GMB_CUDA
  [[ -n ${GMB_CUDA_ARCHS:-} ]] || unset GMB_CUDA_ARCHS
  offline=()
  [[ ${GMB_OFFLINE:-OFF} == OFF ]] || offline=(--offline)
  cargo run --quiet --release --locked "${offline[@]}" --example "$1"
)

if [[ ${1:-} == --test ]]; then
  expected=$(<c_examples/expected-tests.txt)
  found=$("$ctest" --test-dir target/examples --show-only | sed -n 's/^Total Tests: *//p')
  [[ $found == "$expected" ]] || die "c_examples has ${found:-no} tests; c_examples/expected-tests.txt says $expected"
  if [[ $gpu == ON ]]; then
    # The number above is that of a machine without a GPU; here the same tests run and those of the GPU.
    "$cmake" --log-level=NOTICE -DGMB_EXAMPLES_GPU=ON target/examples
  fi
  "$ctest" --test-dir target/examples --output-on-failure --no-tests=error

  backends=(host)
  [[ $gpu == OFF ]] || backends+=(cuda)
  for backend in "${backends[@]}"; do
    export GMB_BACKEND=$backend
    for example in relay handoff; do
      step "examples: $example in C, C++ and Rust, backend $backend"
      said=target/examples/$example
      "${said}_c" | tee "${said}_c.txt"
      "${said}_cpp" >"${said}_cpp.txt"
      in_rust "$example" >"${said}_rs.txt"
      for language in cpp rs; do
        diff "${said}_c.txt" "${said}_$language.txt" || die "$example.c and $example.$language print different things"
      done
    done
    step "examples: event_loop in Rust, backend $backend"
    in_rust event_loop
  done
fi
