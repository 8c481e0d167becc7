#!/usr/bin/env bash
# Builds the Python package's wheel into target/wheels from what scripts/stage.sh has staged: the shipped library, its
# headers and CMake package, and an extension that calls it.
source "$(dirname "$0")/common.sh"

[[ ${1:-} == --staged ]] || scripts/stage.sh
scripts/toolchain.sh python
python=$toolchain/venv/bin/python
package=target/python/package
within=$package/gpumailbox

step "wheel: put together"
rm -rf "$package"
mkdir -p "$package" target/wheels
git ls-files -co --exclude-standard python | tar c -T - | tar x --strip-components=1 -C "$package"
mkdir -p "$within/lib/cmake" "$within/licences"
cp -r "$stage/include" "$within/include"
# A wheel has no links: one file, by the name that programs need at run time.
cp -L "$stage/lib/libgpumailbox.so.0" "$within/lib/"
cp -r "$stage/lib/cmake/gpumailbox" "$within/lib/cmake/"
config=$within/lib/cmake/gpumailbox/gpumailboxConfig.cmake
sed -i 's/libgpumailbox\.so\.[0-9.]*[0-9]"/libgpumailbox.so.0"/' "$config"
grep -q 'lib/libgpumailbox\.so\.0"' "$config" || die "$config names another library: is this script out of date?"
cp LICENSE-* "$within/licences/"
cp THIRD-PARTY.md "$within/licences/THIRD-PARTY-library.md"
cp python/THIRD-PARTY.md "$within/licences/THIRD-PARTY-extension.md"

step "wheel: build"
export GMB_LIBRARY_DIR=$stage/lib
rm -f target/wheels/gpumailbox-*.whl
# The extension needs the library beside it and the C library's oldest symbols that both have: no other platform tag is claimed.
(cd "$package" && "$python" -m maturin build --release --locked --quiet --strip --auditwheel skip --compatibility linux \
  --target-dir "$root/target/python/build" --out "$root/target/wheels")
ls target/wheels/gpumailbox-*.whl
