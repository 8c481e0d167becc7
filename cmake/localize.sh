#!/bin/sh
# localize.sh SHARED ARCHIVE OUT: ARCHIVE as one object in which only what SHARED
# exports is global, so that it links beside other Rust libraries and hides the
# same names that the shared library hides.
set -eu
shared=$1 archive=$2 out=$3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
nm -D --defined-only "$shared" | awk '{ print $3 }' >"$work/exports"
test -s "$work/exports"
# Groups must go: a group whose name is local clashes with nobody's and is kept twice or not at all.
ld -r --force-group-allocation $(sed 's/^/-u /' "$work/exports") -o "$work/all.o" "$archive"
# rustc's bitcode sections are of no use here, and other versions of LLVM choke on them.
objcopy --keep-global-symbols="$work/exports" --remove-section=.llvmbc --remove-section=.llvmcmd \
  "$work/all.o" "$work/gpumailbox.o"
rm -f "$out"
ar rcsD "$out" "$work/gpumailbox.o"
