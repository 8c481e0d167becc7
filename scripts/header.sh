#!/usr/bin/env bash
# Writes the generated headers, or with --verify fails when they are out of date.
set -eu
cd "$(dirname "$0")/.."
export PATH="$PWD/target/tools/bin:$PATH"
cbindgen --quiet --config kernels/cbindgen.toml --output kernels/args.h "$@" src/backend/args.rs
cbindgen --quiet --config cbindgen.toml --output include/gpumailbox.h "$@"
