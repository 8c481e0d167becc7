#!/usr/bin/env bash
# Runs the stress test for so many seconds (default 5), and the tests of graphs, readiness, borrows, tensors and pipelines, under
# ThreadSanitizer where the Rust sources are installed (rustup component rust-src): without them the standard library is
# not instrumented.
source "$(dirname "$0")/common.sh"

export GMB_STRESS_SECONDS=${1:-5} GMB_TEST_BACKEND=host GMB_TEST_RECORDS=1000000
sources=$(rustc --print sysroot)/lib/rustlib/src/rust/library
if [[ ! -d $sources ]] && command -v rustup >/dev/null; then
  timeout 120 rustup component add rust-src >/dev/null 2>&1 || true
fi
if [[ -d $sources ]]; then
  step "stress under ThreadSanitizer"
  host=$(rustc -vV | sed -n 's/^host: //p')
  export RUSTC_BOOTSTRAP=1 RUSTFLAGS="-Zsanitizer=thread" CXXFLAGS="-fsanitize=thread" GMB_CUDA=OFF
  export TSAN_OPTIONS="halt_on_error=1 second_deadlock_stack=1"
  exec cargo test --quiet --locked -Zbuild-std --target "$host" --target-dir target/tsan --test suite -- \
    stress:: capture:: readiness:: borrow:: tensors triples:: coordinators:: staging:: gated::graphs --nocapture
fi
step "stress, not under ThreadSanitizer: rustup component add rust-src"
exec cargo test --quiet --locked --test suite -- stress:: --nocapture
