# Sourced by the scripts that make and test packages.
# shellcheck shell=bash

version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$root/Cargo.toml" | head -n 1)

# need PROGRAM PACKAGE: installs the Debian package where the program is missing and we may.
need() {
  command -v "$1" >/dev/null && return
  if [[ $(id -u) != 0 ]] || ! command -v apt-get >/dev/null; then
    die "no $1: install it (Debian, Ubuntu: apt-get install $2)"
  fi
  step "apt-get install $2"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends "$2" >/dev/null
}

# copy_sources FOLDER: the tree without what was built.
copy_sources() {
  mkdir -p "$1"
  tar c --exclude=./target --exclude=./build --exclude=./.git -C "$root" . | tar x -C "$1"
}
