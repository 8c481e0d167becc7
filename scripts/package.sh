#!/usr/bin/env bash
# Checks what an installed library and its sources are to other projects, tests/package; after scripts/stage.sh.
source "$(dirname "$0")/common.sh"
source scripts/package-common.sh

[[ -d $stage ]] || die "no target/stage: run scripts/stage.sh"
need pkg-config pkg-config
# Outside the tree: cargo looks in all folders above for what it builds and how.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
prefix=$work/moved/here
projects=$work/projects
cp -r tests/package "$projects"
glibc_most=2.34
# What these name could be found instead of what is tested.
unset CMAKE_PREFIX_PATH PKG_CONFIG_PATH DESTDIR LD_LIBRARY_PATH

passed=0
failed=0
# In the background and not in a condition: there, `set -e` holds.
check() {
  local name=$1 log=$work/${1//[^[:alnum:]]/-}.txt
  shift
  ("$@") >"$log" 2>&1 </dev/null &
  if wait $!; then
    passed=$((passed + 1))
    echo "ok: $name"
  else
    failed=$((failed + 1))
    echo "failed: $name"
    sed 's/^/    /' "$log" | tail -n 30
  fi
}
# `set -e` overlooks a `!`.
fails() {
  if "$@"; then
    echo "this should have failed: $*"
    return 1
  fi
}
says() {
  local found
  found=$("$@")
  echo "$found"
  [[ $found == *", version $version" ]]
}
run_all() { for program in c_shared c_static cpp_shared cpp_static; do says "$1/$program"; done; }
# configure SOURCE BUILD OPTIONS...
configure() {
  "$cmake" -S "$1" -B "$2" -G Ninja -DCMAKE_MAKE_PROGRAM="$ninja" -DGMB_VERSION="$version" "${@:3}"
}
# With the options of target/cmake cargo has nothing to build again.
mapfile -t as_staged < <(sed -n 's/^\(GMB_CUDA\|GMB_CUDA_ARCHS\|GMB_CARGO_TARGET_DIR\|GMB_OFFLINE\):[A-Z]*=/-D\1=/p' \
  target/cmake/CMakeCache.txt)

moved() {
  "$cmake" --build target/cmake
  "$cmake" --install target/cmake --prefix "$work/installed"
  mkdir -p "${prefix%/*}"
  mv "$work/installed" "$prefix"
}
check "install and move the prefix elsewhere" moved

no_build_paths() {
  local path
  for path in "$root" "$work" "$HOME/"; do
    fails grep -rIlF -- "$path" "$prefix"
  done
}
check "no path of the build in the installed texts" no_build_paths

licences() {
  local file
  for file in LICENSE-MIT LICENSE-APACHE THIRD-PARTY.md; do cmp "$file" "$prefix/share/doc/gpumailbox/$file"; done
}
check "licences are installed" licences

find_it() {
  configure "$projects/find" "$work/find-$1" -DCMAKE_PREFIX_PATH="$prefix" -DGMB_FIND_AT_TOP="$1"
  "$cmake" --build "$work/find-$1"
}
check "find_package twice, then from two subdirectories" find_it ON
check "find_package from two subdirectories only" find_it OFF
for program in c_shared c_static cpp_shared cpp_static; do
  check "run $program" says "$work/find-ON/$program"
done
check "run the others" run_all "$work/find-OFF"

another_version() {
  fails configure "$projects/find" "$work/find-another" -DCMAKE_PREFIX_PATH="$prefix" -DGMB_VERSION=99.0 2>&1 |
    tee "$work/another-version"
  grep "compatible with requested version" "$work/another-version"
}
check "find_package refuses another version" another_version

# with_pkg_config LANGUAGE COMPILER PC-FOLDER OPTIONS...
with_pkg_config() {
  local language=$1 compiler=$2 flags out
  export PKG_CONFIG_LIBDIR=$3
  [[ $(pkg-config --modversion gpumailbox) == "$version" ]]
  read -ra flags < <(pkg-config --cflags --libs "${@:4}" gpumailbox)
  out=$(mktemp "$work/pc-XXXXXX")
  "$compiler" "$projects/consumer.$language" -o "$out" "${flags[@]}"
  LD_LIBRARY_PATH=$(pkg-config --variable=libdir gpumailbox) says "$out"
}
check "pkg-config, C, shared" with_pkg_config c "${CC:-cc}" "$prefix/lib/pkgconfig"
check "pkg-config, C++, shared" with_pkg_config cpp "${CXX:-c++}" "$prefix/lib/pkgconfig"
# -lgpumailbox is the static library where there is no other.
cp -r "$prefix" "$work/static-only"
rm "$work"/static-only/lib/*.so*
check "pkg-config, C, static" with_pkg_config c "${CC:-cc}" "$work/static-only/lib/pkgconfig" --static
check "pkg-config, C++, static" with_pkg_config cpp "${CXX:-c++}" "$work/static-only/lib/pkgconfig" --static

files_in() { (cd "$1" && find . ! -type d | sort); }
destdir() {
  DESTDIR=$work/destdir "$cmake" --install target/cmake --prefix /opt/elsewhere
  diff <(files_in "$prefix") <(files_in "$work/destdir/opt/elsewhere")
  [[ $(files_in "$work/destdir" | wc -l) == $(files_in "$prefix" | wc -l) && ! -e /opt/elsewhere ]]
  with_pkg_config c "${CC:-cc}" "$work/destdir/opt/elsewhere/lib/pkgconfig"
}
check "DESTDIR" destdir

stripped() {
  (cd "$work" && "$cmake" --install "$root/target/cmake" --prefix stripped --strip)
  local library=$work/stripped/lib/libgpumailbox.so
  readelf -S --wide "$library" >"$work/sections"
  fails grep -E '\.(debug_|symtab)' "$work/sections"
  with_pkg_config c "${CC:-cc}" "$work/stripped/lib/pkgconfig"
}
check "install --strip, into a relative prefix" stripped

components() {
  "$cmake" --install target/cmake --prefix "$work/components" --component runtime
  files_in "$work/components" >"$work/runtime"
  fails grep -E '\.(h|hpp|cuh|a|pc|cmake|so)$' "$work/runtime"
  "$cmake" --install target/cmake --prefix "$work/components" --component development
  diff <(files_in "$prefix") <(files_in "$work/components")
}
check "components runtime and development" components

layout() {
  local lib=lib/$("${CC:-cc}" -print-multiarch || echo multiarch)
  configure . "$work/layout" "${as_staged[@]}" -DCMAKE_INSTALL_PREFIX="$work/layout-installed" \
    -DCMAKE_INSTALL_LIBDIR="$lib" -DCMAKE_INSTALL_INCLUDEDIR=include/of/gpumailbox
  "$cmake" --build "$work/layout"
  "$cmake" --install "$work/layout"
  mv "$work/layout-installed" "$work/layout-moved"
  [[ -e $work/layout-moved/include/of/gpumailbox/gpumailbox.h && -e $work/layout-moved/$lib/libgpumailbox.so ]]
  configure "$projects/find" "$work/layout-find" -DGMB_FIND_AT_TOP=ON -Dgpumailbox_ROOT="$work/layout-moved" \
    -DCMAKE_LIBRARY_ARCHITECTURE="${lib#lib/}"
  "$cmake" --build "$work/layout-find"
  run_all "$work/layout-find"
  with_pkg_config c "${CC:-cc}" "$work/layout-moved/$lib/pkgconfig"
}
check "GNUInstallDirs: other folders for libraries and headers" layout

absolute() {
  configure . "$work/absolute" "${as_staged[@]}" -DCMAKE_INSTALL_LIBDIR="$work/absolute-installed/libraries" \
    -DCMAKE_INSTALL_PREFIX="$work/absolute-installed/prefix"
  "$cmake" --build "$work/absolute"
  "$cmake" --install "$work/absolute"
  with_pkg_config c "${CC:-cc}" "$work/absolute-installed/libraries/pkgconfig"
  configure "$projects/find" "$work/absolute-find" -DGMB_FIND_AT_TOP=ON \
    -Dgpumailbox_DIR="$work/absolute-installed/libraries/cmake/gpumailbox"
  "$cmake" --build "$work/absolute-find"
  run_all "$work/absolute-find"
}
check "GNUInstallDirs: an absolute folder" absolute

subdirectory() {
  "$cmake" -S "$projects/subdirectory" -B "$work/subdirectory" -G "Unix Makefiles" -DGMB_SOURCE="$root" \
    -DCMAKE_PREFIX_PATH="$prefix" "${as_staged[@]}"
  "$cmake" --build "$work/subdirectory"
  run_all "$work/subdirectory"
  # The project's own, not the installed one that it found afterwards.
  ldd "$work/subdirectory/c_shared" | grep -F "$work/subdirectory/gpumailbox/lib/"
}
check "add_subdirectory, and find_package after it" subdirectory

# The tree as an archive, which is then built without the network, without nvcc and with a cold cargo.
sources() {
  copy_sources "$work/sources"
  tar czf "$work/sources.tar.gz" -C "$work" sources
  cargo fetch --locked --manifest-path "$work/sources/Cargo.toml"
}
check "cargo fetch" sources
without_network=()
! unshare --net true 2>/dev/null || without_network=(unshare --net)
fetch_content() {
  configure "$projects/fetch" "$work/fetch" -DGMB_ARCHIVE="$work/sources.tar.gz" -DGMB_OFFLINE=ON -DGMB_CUDA=OFF \
    -DGMB_CARGO_TARGET_DIR="$work/cargo"
  "${without_network[@]}" "$cmake" --build "$work/fetch"
  run_all "$work/fetch"
}
check "FetchContent of a local archive, built offline" fetch_content

no_nvcc() {
  local dir path='' hidden=0
  while IFS= read -r dir; do
    if [[ -e $dir/nvcc ]]; then
      hidden=$((hidden + 1))
      mkdir "$work/path-$hidden"
      ln -s "$dir"/* "$work/path-$hidden"
      dir=$work/path-$hidden
      rm "$dir/nvcc"
    fi
    path+=:$dir
  done < <(tr : '\n' <<<"$PATH")
  configure "$work/sources" "$work/no-nvcc" -DGMB_OFFLINE=ON -DGMB_CUDA=ON -DGMB_CARGO_TARGET_DIR="$work/cargo"
  fails env -u NVCC -u CUDA_HOME -u CUDA_PATH PATH="${path#:}" "$cmake" --build "$work/no-nvcc" 2>&1 |
    tee "$work/no-nvcc-output"
  grep 'GMB_CUDA=ON and no nvcc: set NVCC or CUDA_HOME' "$work/no-nvcc-output"
}
check "GMB_CUDA=ON without nvcc fails and says what to do" no_nvcc

stale_lock() {
  configure "$work/sources" "$work/stale-lock" -DGMB_OFFLINE=ON -DGMB_CUDA=OFF -DGMB_CARGO_TARGET_DIR="$work/cargo"
  sed -i '0,/^name = "libc"/s//name = "libd"/' "$work/sources/Cargo.lock"
  fails "$cmake" --build "$work/stale-lock" 2>&1 | tee "$work/stale-lock-output"
  grep -e '--locked' "$work/stale-lock-output"
}
check "a lock file out of date fails" stale_lock

glibc() {
  local highest
  highest=$(objdump -T "$stage/lib/libgpumailbox.so" | grep -o 'GLIBC_[0-9.]*' | sort -Vu | tail -n 1)
  echo "needs $highest; the most is $glibc_most"
  [[ -n $highest && $(printf '%s\n' "${highest#GLIBC_}" "$glibc_most" | sort -V | tail -n 1) == "$glibc_most" ]]
}
check "needs no glibc later than $glibc_most" glibc

echo "$passed passed, $failed failed"
[[ $failed == 0 ]]
