#!/bin/sh
# cargo's rustc-wrapper (.cargo/config.toml): optimised builds name their sources after the package, not after the
# folders of the machine they were built on, so that two builds give the same bytes. Others keep their paths, for the debugger.
set -eu
rustc=$1
shift
case " $* " in *" opt-level=3 "*)
  name=/src/$CARGO_PKG_NAME-$CARGO_PKG_VERSION
  sysroot=$("$rustc" --print sysroot)
  commit=$("$rustc" -vV | sed -n 's/^commit-hash: //p')
  # Where rust-src is installed, rustc names those files and not the ones that std was built from.
  set -- "$@" "--remap-path-prefix=$CARGO_MANIFEST_DIR=$name" "--remap-path-prefix=$(pwd -P)=$name" \
    "--remap-path-prefix=${OUT_DIR:-/nowhere}=$name/out" \
    "--remap-path-prefix=$sysroot/lib/rustlib/src/rust=/rustc/$commit"
  ;;
esac
exec "$rustc" "$@"
