#!/usr/bin/env bash
# Writes THIRD-PARTY.md and python/THIRD-PARTY.md: the crates that are linked into the library, and into the Python
# package's extension, their licences and the texts. With --verify fails when a file is out of date. Either way fails when
# a licence is not one of those allowed.
source "$(dirname "$0")/common.sh"

host=$(rustc -vV | sed -n 's/^host: //p')
offline=()
[[ ${GMB_OFFLINE:-OFF} == OFF ]] || offline=(--offline)

# page FOLDER NAME WHAT
page() {
  local metadata new file
  file=$1/THIRD-PARTY.md
  metadata=$(cargo metadata --manifest-path "$1/Cargo.toml" --format-version 1 --locked "${offline[@]}" --filter-platform "$host")
  new=$(python3 scripts/licences.py "$2" "$3" <<<"$metadata")
  if [[ $verify == 1 ]]; then
    diff -u "$file" - <<<"$new" || die "$file is out of date: run scripts/licences.sh"
  else
    printf '%s\n' "$new" >"$file"
  fi
  sed -n 's/^| \([a-z].*\) |$/\1/p' "$file" | tr '|' ' '
}

verify=0
[[ ${1:-} != --verify ]] || verify=1
page . libgpumailbox "the shared and the static library"
page python "the Python package" "the extension of the Python package"
