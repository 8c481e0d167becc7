#!/usr/bin/env bash
# Writes THIRD-PARTY.md: the crates that are linked into the library, their licences and the texts. With
# --verify fails when the file is out of date. Either way fails when a licence is not one of those allowed.
source "$(dirname "$0")/common.sh"

host=$(rustc -vV | sed -n 's/^host: //p')
offline=()
[[ ${GMB_OFFLINE:-OFF} == OFF ]] || offline=(--offline)
metadata=$(cargo metadata --format-version 1 --locked "${offline[@]}" --filter-platform "$host")
new=$(python3 scripts/licences.py <<<"$metadata")
if [[ ${1:-} == --verify ]]; then
  diff -u THIRD-PARTY.md - <<<"$new" || die "THIRD-PARTY.md is out of date: run scripts/licences.sh"
else
  printf '%s\n' "$new" >THIRD-PARTY.md
fi
sed -n 's/^| \([a-z].*\) |$/\1/p' THIRD-PARTY.md | tr '|' ' '
