#!/usr/bin/env bash
# Builds tests/hostile against target/stage and runs it on the host backend: plain, and with its C side under
# AddressSanitizer and UndefinedBehaviorSanitizer. With --broken it shows that the checks can fail.
source "$(dirname "$0")/common.sh"

[[ -d $stage ]] || die "no target/stage: run scripts/stage.sh"
build=$root/target/hostile
library=$stage/lib/libgpumailbox.so.0
mkdir -p "$build"
export LD_LIBRARY_PATH=$stage/lib GMB_BACKEND=host GMB_CHECK_POINTERS=1
# The library keeps its handle tables for good. Sizes that no machine has are asked for on purpose.
export ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
flags=(-std=c11 -D_GNU_SOURCE -O1 -g -Wall -Wextra -Wpedantic -Werror -I"$stage/include")

compile() { # NAME SUFFIX FLAGS...
  local name=$1 suffix=$2 libraries=(-L"$stage/lib" -lgpumailbox -lpthread)
  # This one opens the library itself.
  [[ $name != process ]] || libraries=(-ldl -lpthread)
  shift 2
  cc "${flags[@]}" "$@" "tests/hostile/$name.c" -o "$build/$name$suffix" "${libraries[@]}"
}

# Runs a program that must succeed and print one line, its totals.
passes() {
  local out=$build/output.txt err=$build/errors.txt
  if ! timeout 150 "$@" >"$out" 2>"$err"; then
    cat "$out" "$err"
    die "$1 failed"
  fi
  # AddressSanitizer says on stderr when it refuses an allocation, and that is fine.
  if grep -v '^==.*WARNING: AddressSanitizer failed to allocate' "$err"; then
    die "$1 printed that on standard error"
  fi
  [[ $(wc -l <"$out") == 1 ]] || die "$1 printed more than its totals: $(head "$out")"
  cat "$out"
}

step "hostile: build"
for name in arguments threads process; do
  compile "$name" ""
  compile "$name" _asan -fsanitize=address,undefined -fno-sanitize-recover=all
done

if [[ ${1:-} == --broken ]]; then
  # Each must fail: a wrong row in the table, a second destroy that is counted, a case that lies.
  compile arguments _broken -DGMB_BROKEN
  compile threads _broken -DGMB_BROKEN
  for broken in "$build/arguments_broken" "$build/threads_broken" "$build/process $library --broken"; do
    # shellcheck disable=SC2086 # a program and its arguments
    if timeout 150 $broken; then die "$broken did not fail"; fi
  done
  echo "all three fail when they should"
  exit 0
fi

step "hostile: every exported function is in the table"
diff tests/abi/symbols.txt <("$build/arguments" --list | LC_ALL=C sort) || die "the tables of tests/hostile/arguments.c and tests/abi/symbols.txt differ"

for suffix in "" _asan; do
  step "hostile: run${suffix:+ under AddressSanitizer and UndefinedBehaviorSanitizer}"
  passes "$build/arguments$suffix"
  passes "$build/threads$suffix"
  passes "$build/process$suffix" "$library"
done
