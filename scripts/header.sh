#!/usr/bin/env bash
# Writes the generated headers, and the lists of the API's functions that tests go by; with --verify fails when one is out
# of date.
source "$(dirname "$0")/common.sh"
PATH="$tools/bin:$PATH"

generate() {
  cbindgen --quiet --config kernels/cbindgen.toml --output "$1/args.h" "${@:3}" src/backend/args.rs
  cbindgen --quiet --config cbindgen.toml --output "$2/gpumailbox.h" "${@:3}"
}

functions() { sed -nE 's/^[a-z][a-z0-9_ *]*\b(gmb_[a-z0-9_]+)\(.*/\1/p' include/gpumailbox.h | LC_ALL=C sort; }
lists() { # FOLDER_OF_TESTS FOLDER_OF_FUZZING
  {
    echo '/* Every function of gpumailbox.h, without gmb_. Written by `make header`: do not edit. */'
    functions | sed 's/^gmb_\(.*\)/  X(\1) \\/; 1i #define FUNCTIONS(X) \\' | sed '$s/ \\$//'
  } >"$1/functions.h"
  {
    echo '// Every function of gpumailbox.h. Written by `make header`: do not edit.'
    echo 'functions! {'
    functions | sed 's/^/    /'
    echo '}'
  } >"$2/functions.rs"
}

if [[ ${1:-} == --verify ]]; then
  # On copies: cbindgen repairs what it finds out of date, and the next run would pass.
  copies=$root/target/header-verify
  mkdir -p "$copies"
  cp kernels/args.h include/gpumailbox.h "$copies/"
  generate "$copies" "$copies" --verify || die "a generated header is out of date: run make header"
  lists "$copies" "$copies"
  cmp "$copies/functions.h" tests/hostile/functions.h && cmp "$copies/functions.rs" fuzz/src/functions.rs ||
    die "a list of functions is out of date: run make header"
else
  generate kernels include
  lists tests/hostile fuzz/src
fi
