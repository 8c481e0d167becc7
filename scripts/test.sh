#!/usr/bin/env bash
# Every check of the project. Stops at the first failure, of two rows of steps each at its own.
source "$(dirname "$0")/common.sh"
# Each tool's closing lines belong on stdout, whichever stream it uses.
exec 2>&1

passed=0
run() {
  local name=$1 start=$SECONDS
  shift
  step "$name"
  if ! "$@" </dev/null; then
    step "$name failed after $((SECONDS - start)) s"
    echo "$passed passed, 1 failed"
    exit 1
  fi
  passed=$((passed + 1))
  step "$name: $((SECONDS - start)) s"
}

# Steps are commands, not functions: inside a condition, functions do not stop at their first error.
parts=(cmake cargo-tools)
[[ ${GMB_CUDA:-AUTO} == OFF ]] || parts+=(cuda)
run "toolchain" scripts/toolchain.sh "${parts[@]}"
nextest=(cargo nextest)
"${nextest[@]}" --version >/dev/null 2>&1 || nextest=("$tools/bin/cargo-nextest" nextest)

run "format" cargo fmt --check
run "sources" scripts/sources.sh
run "pictures" python3 scripts/pictures.py --verify
run "slab" python3 scripts/slab.py --verify
run "arbitration" python3 scripts/arbitration.py --verify
run "generated headers" scripts/header.sh --verify
run "conventions" python3 scripts/conventions.py
run "conventions can fail" python3 scripts/conventions.py --broken
run "clippy" cargo clippy --all-targets --locked -- -D warnings
run "tests on the host backend" env GMB_TEST_BACKEND=host "${nextest[@]}" run --locked
if gpu_present; then
  run "tests on the GPU" env GMB_TEST_BACKEND=cuda "${nextest[@]}" run --locked
fi
run "documentation tests" cargo test --doc --locked
run "stage" scripts/stage.sh

# Two cores have room for two rows of steps: those of one run beside those of the other, and their lines come last.
mkdir -p target
beside=target/test-beside.txt
# A process group of its own, so that nothing of it is left when this script ends early.
set -m
(
  passed=0
  run "hostile input" scripts/hostile.sh
  run "hostile input can fail" scripts/hostile.sh --broken
  run "reproducible" scripts/reproducible.sh
  run "models" scripts/loom.sh
  run "protocol" scripts/protocol.sh
  run "histories" scripts/histories.sh
  run "fuzzing" scripts/fuzz.sh
  run "fuzzing can fail" scripts/fuzz.sh --broken
  run "stress" scripts/stress.sh
  run "leaks" scripts/leaks.sh
  run "leaks are noticed" scripts/leaks.sh --broken
  echo "$passed passed, 0 failed"
) >"$beside" 2>&1 &
set +m
beside_pid=$!
trap 'kill -- "-$beside_pid" 2>/dev/null || true' EXIT

run "symbols" scripts/symbols.sh
run "ABI" scripts/abi.sh
run "ABI changes are noticed" tests/abi/notices.sh
run "reference" scripts/reference.sh
run "licences" scripts/licences.sh --verify
run "package" scripts/package.sh
run "Python package" scripts/python.sh
if command -v dpkg >/dev/null; then
  run "Debian packages" scripts/deb.sh
fi
[[ ${GMB_CUDA:-AUTO} == OFF ]] || run "ptxas" scripts/ptxas.sh release
run "headers alone" scripts/headers.sh
run "examples" scripts/examples.sh --test
run "benches" scripts/bench.sh --quick
run "performance pages" scripts/performance.py --verify
run "report of the GPU" scripts/report.sh
run "without CUDA" env GMB_CUDA=OFF CARGO_TARGET_DIR=target/cuda-off RUSTFLAGS="-D warnings" \
  cargo test --locked --test suite drivers::
run "mutants" scripts/mutants.sh

step "waiting for what runs beside"
if ! wait "$beside_pid"; then
  cat "$beside"
  exit 1
fi
# Without its own sum: the one below has it in it.
sed '$d' "$beside"
passed=$((passed + $(sed -n '$s/ passed, 0 failed$//p' "$beside")))
echo "$passed passed, 0 failed"
