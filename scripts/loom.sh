#!/usr/bin/env bash
# Runs the models of the lock-free parts under loom, which tries the interleavings.
source "$(dirname "$0")/common.sh"

# No more than three preemptions: what is rarer than that takes hours, and has never been what was wrong.
export RUSTFLAGS="--cfg loom" LOOM_MAX_PREEMPTIONS=3 GMB_CUDA=OFF
# Built to be run once.
export CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 CARGO_PROFILE_RELEASE_DEBUG=0
exec cargo test --quiet --locked --release --target-dir target/loom --lib models::
