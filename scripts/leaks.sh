#!/usr/bin/env bash
# Runs the tests of tensors, a million handoffs among them, on the host backend under AddressSanitizer, which tells at the
# end of what was left behind. With --broken one of them leaves something, and that must be told.
source "$(dirname "$0")/common.sh"

host=$(rustc -vV | sed -n 's/^host: //p')
export RUSTC_BOOTSTRAP=1 RUSTFLAGS="-Zsanitizer=address" CXXFLAGS="-fsanitize=address" GMB_CUDA=OFF GMB_TEST_BACKEND=host
# Freed memory rests for a while, but not so long that it would never be used again: a test counts that.
export ASAN_OPTIONS=detect_leaks=1:quarantine_size_mb=8:thread_local_quarantine_size_kb=64
suite=(cargo test --quiet --locked --target "$host" --target-dir target/asan --test suite)

step "tensors under AddressSanitizer: build"
"${suite[@]}" --no-run
if [[ ${1:-} == --broken ]]; then
  out=target/asan/broken.txt
  if GMB_TEST_LEAK=1 "${suite[@]}" -- --exact tensors::tensors_come_in_order_and_full_is_full >"$out" 2>&1; then
    die "memory was left behind on purpose and nobody noticed"
  fi
  grep -q 'test result: ok. 1 passed' "$out" || die "not the leak, the test failed: $(tail -5 "$out")"
  grep '^SUMMARY: AddressSanitizer: .* leaked' "$out" || die "it failed for another reason: $(tail -5 "$out")"
  echo "what is left behind is told"
  exit 0
fi
step "tensors under AddressSanitizer: run"
"${suite[@]}" -- tensors
