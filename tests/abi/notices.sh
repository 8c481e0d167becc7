#!/usr/bin/env bash
# Shows that scripts/abi.sh notices: each line breaks a copy of the header, or the library, and expects its words.
# Needs the library that scripts/abi.sh builds.
source "$(dirname "$0")/../../scripts/common.sh"

work=target/abi/notices
built=target/abi/release/libgpumailbox.so
[[ -e $built ]] || die "no $built: run scripts/abi.sh"
rm -rf "$work"
mkdir -p "$work"
count=0

# expect WHAT WORDS COMMAND...
expect() {
  local what=$1 words=$2
  shift 2
  if env GMB_ABI_LIBRARY="$built" "$@" >"$work/output" 2>&1; then
    die "not noticed: $what"
  fi
  grep -qF "$words" "$work/output" || die "$what: noticed for another reason: $(<"$work/output")"
  count=$((count + 1))
}

# header WHAT WORDS SED [ARGUMENT]: the gate on a header that sed has changed
header() {
  sed "$3" include/gpumailbox.h >"$work/gpumailbox.h"
  ! cmp -s include/gpumailbox.h "$work/gpumailbox.h" || die "$1: nothing was changed"
  expect "$1" "$2" GMB_ABI_HEADER="$work/gpumailbox.h" scripts/abi.sh "${@:4}"
}

header "a field more" "'uint64_t more'" 's/^  uint64_t memory_limit;/&\n  uint64_t more;/'
header "a field's type" "size changed" 's/^  uint32_t driver_version;/  uint64_t driver_version;/'
header "two fields in another order" "offset changed" '/^  uint32_t producer_id;/,/^  uint32_t consumer_id;/{s/producer/other/;s/consumer/producer/;s/other/consumer/}'
header "a parameter's type" "gmb_event_synchronize" '/^gmb_status gmb_event_synchronize/s/uint64_t timeout_ns/uint32_t timeout_ns/'
header "a parameter less" "gmb_memory_trim" '/^gmb_status gmb_memory_trim/s/, uint64_t keep_bytes//'
header "a function less" "programs built before break" '/^gmb_status gmb_event_query/d'
header "a function more" "1 Added function" '/^gmb_status gmb_memory_trim/s/^/gmb_status gmb_added(uint32_t x);\n/'
header "a callback's type" "gmb_host_function" '/^typedef void (\*gmb_host_function)/s/void \*argument/void *argument, int more/'
header "a typedef" "gmb_priority" 's/^typedef int32_t gmb_priority;/typedef uint32_t gmb_priority;/'
header "what only device code reads" "'uint64_t more'" '/^typedef struct gmb_tensor_slot/,/^}/s/^  uint64_t reserved;/&\n  uint64_t more;/'
header "a standard's struct" "gmb_tensor_mailbox_push" '/^gmb_status gmb_tensor_mailbox_push(/,/;/s/DLManagedTensorVersioned/DLManagedTensor/'
header "a constant's value" "GMB_FULL_LATEST: 3 -> 4" 's/^#define GMB_FULL_LATEST 3/#define GMB_FULL_LATEST 4/'
header "a constant less" "GMB_MAX_READERS: 16 -> absent" '/^#define GMB_MAX_READERS/d'
header "a default" "GMB_POP_INIT" '/^#define GMB_POP_INIT/s/NULL, 0, 0 }/NULL, 1, 0 }/'
# Even where the baseline is being written.
header "a status with another number" "a status keeps its number" 's/^\(#define GMB_ERROR_BUSY\) -9/\1 -90/' --write
header "a status number used again" "numbers are never used again" 's/^#define GMB_ERROR_BUSY/#define GMB_ERROR_OTHER/' --write

strip -o "$work/stripped.so" "$built"
expect "a stripped library" "a stripped library" GMB_ABI_LIBRARY="$work/stripped.so" scripts/abi.sh
# The library against a header that says something else.
sed 's/^  uint32_t producer_id;/  int32_t producer_id;/' include/gpumailbox.h | cc -E -P -x c - >"$work/header.i"
python3 tests/abi/abi.py stubs "$work/header.i" >"$work/stubs.c"
cc -std=c11 -g -O0 -w -fPIC -shared -nostdlib "$work/stubs.c" -o "$work/header.so"
expect "a library that is not its header's" "is not what its header" \
  python3 tests/abi/abi.py binary "$work/header.so" "$built" tests/abi/symbols.txt
echo "$count changes noticed"
