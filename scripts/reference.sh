#!/usr/bin/env bash
# Writes the reference of the headers into target/reference with doxygen (docs/Doxyfile). A warning is an error. In the C
# header everything must have words; in the others what has words must have them right.
source "$(dirname "$0")/common.sh"

out=target/reference
rm -rf "$out"
mkdir -p "$out"
if ! command -v doxygen >/dev/null; then
  if [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null; then
    step "reference: install doxygen"
    { apt-get update -qq && apt-get install -y -qq --no-install-recommends doxygen; } >"$out/apt.log" 2>&1 || true
  fi
  command -v doxygen >/dev/null || die "no doxygen: install it (Debian and Ubuntu: doxygen)"
fi

# pass NAME SETTING...: doxygen with these settings over those of docs/Doxyfile
pass() {
  local name=$1
  shift
  if ! { cat docs/Doxyfile && printf '%s\n' "$@"; } | doxygen - >"$out/$name.log" 2>&1 || [[ -s $out/$name.log ]]; then
    cat "$out/$name.log"
    die "doxygen has $(grep -c -E 'error|warning' "$out/$name.log") complaints ($name)"
  fi
}

pass strict "INPUT = include/gpumailbox.h" "WARN_IF_UNDOCUMENTED = YES" "EXTRACT_ALL = NO" "GENERATE_HTML = NO" \
  "GENERATE_XML = YES" "XML_OUTPUT = strict"
pass all
pages=("$out"/html/*.html)
functions=$(grep -c 'memberdef kind="function"' "$out/strict/gpumailbox_8h.xml")
[[ $functions == $(wc -l <tests/abi/symbols.txt) ]] || die "$functions functions in the reference, others in tests/abi/symbols.txt"
echo "$functions C functions, ${#pages[@]} pages: $out/html/index.html"
