#!/usr/bin/env bash
# Writes the generated headers, or with --verify fails when they are out of date.
source "$(dirname "$0")/common.sh"
PATH="$tools/bin:$PATH"

generate() {
  cbindgen --quiet --config kernels/cbindgen.toml --output "$1/args.h" "${@:3}" src/backend/args.rs
  cbindgen --quiet --config cbindgen.toml --output "$2/gpumailbox.h" "${@:3}"
}

if [[ ${1:-} == --verify ]]; then
  # On copies: cbindgen repairs what it finds out of date, and the next run would pass.
  copies=$root/target/header-verify
  mkdir -p "$copies"
  cp kernels/args.h include/gpumailbox.h "$copies/"
  generate "$copies" "$copies" --verify || die "a generated header is out of date: run make header"
else
  generate kernels include
fi
