#!/usr/bin/env bash
# Makes the Debian packages into target/deb with CPack, installs them into an empty root, compiles and runs
# programs against that root only, and removes them again.
source "$(dirname "$0")/common.sh"
source scripts/package-common.sh

command -v dpkg >/dev/null || die "no dpkg: this makes and tests Debian packages"
need dpkg-shlibdeps dpkg-dev
need file file
need pkg-config pkg-config
scripts/toolchain.sh cmake
work=$root/target/deb
clean=$work/root
admin=$clean/var/lib/dpkg
rm -rf "$work"
mkdir -p "$work"
unset PKG_CONFIG_PATH PKG_CONFIG_SYSROOT_DIR LD_LIBRARY_PATH CMAKE_PREFIX_PATH DESTDIR

step "deb: build"
"$cmake" -S . -B "$work/build" -G Ninja --log-level=NOTICE -DCMAKE_MAKE_PROGRAM="$ninja" -DGMB_DEB=ON \
  -DGMB_CARGO_TARGET_DIR="$root/target" -DGMB_CUDA="${GMB_CUDA:-AUTO}" -DGMB_CUDA_ARCHS="${GMB_CUDA_ARCHS:-}" \
  -DGMB_OFFLINE="${GMB_OFFLINE:-OFF}"
"$cmake" --build "$work/build" --target all package
mv "$work"/build/*.deb "$work"

soname=$(sed -n 's/^const SONAME.*"\(.*\)".*/\1/p' build.rs)
architecture=$(dpkg --print-architecture)
multiarch=$(dpkg-architecture -qDEB_HOST_MULTIARCH)
runtime=${soname/.so./}
development=${soname%.so.*}-dev
runtime_deb=$work/${runtime}_${version}_$architecture.deb
development_deb=$work/${development}_${version}_$architecture.deb

step "deb: what is in them"
depends() { dpkg-deb --field "$1" Depends; }
for deb in "$runtime_deb" "$development_deb"; do
  [[ -f $deb ]] || die "CPack made no ${deb##*/}"
  printf '%s, %s kB, depends on %s\n' "${deb##*/}" "$(($(stat -c %s "$deb") / 1024))" "$(depends "$deb")"
done
[[ $(depends "$runtime_deb") == *libc6* ]] || die "dpkg-shlibdeps found no libc6"
[[ $(depends "$development_deb") == "$runtime (= $version)" ]] || die "$development must depend on its own $runtime"
shlibs=$(dpkg-deb --ctrl-tarfile "$runtime_deb" | tar xO ./shlibs) || die "$runtime has no shlibs file"
[[ $shlibs == "${soname%.so.*} ${soname##*.} $runtime (>= $version)" ]] || die "the shlibs file says '$shlibs'"

step "deb: install into an empty root"
# dpkg knows of what the library depends on, and of nothing else.
mkdir -p "$admin/info" "$admin/updates" "$admin/triggers" "$work/bin"
touch "$admin/status"
depends "$runtime_deb" | tr ',|' '\n' | awk '{ print $1 }' | sort -u | xargs dpkg-query --status >"$work/status"
cp "$work/status" "$admin/status"
for package in $(dpkg-query --admindir="$admin" --show --showformat '${binary:Package}\n' 2>/dev/null); do
  touch "$admin/info/$package.list"
done
# The packages' scripts run outside, as the root has no shell; they must leave this machine's cache alone.
printf '#!/bin/sh\necho "ldconfig for $DPKG_ROOT"\n' >"$work/bin/ldconfig"
chmod +x "$work/bin/ldconfig"
in_root() {
  PATH=$work/bin:$PATH dpkg --root="$clean" --force-not-root --force-bad-path --force-script-chrootless \
    --log=/dev/null "$@"
}
files() { (cd "$clean" && find . -mindepth 1 -path ./var -prune -o -print | sort); }
states() {
  dpkg-query --admindir="$admin" --show --showformat '${Package} ${db:Status-Status}\n' '*gpumailbox*' 2>/dev/null | sort
}
if in_root --install "$development_deb" >"$work/alone.txt" 2>&1; then
  die "$development was installed without $runtime"
fi
grep "depends on $runtime" "$work/alone.txt" || die "$development is not refused for want of $runtime: $(<"$work/alone.txt")"
in_root --purge "$development" >"$work/alone.txt" 2>&1
in_root --install "$runtime_deb" "$development_deb" | tee "$work/installed.txt"
[[ $(states) == "$development installed"$'\n'"$runtime installed" ]] || die "not installed: $(states)"
grep -qF "ldconfig for $clean" "$work/installed.txt" || die "installing does not call ldconfig"
files >"$work/with"
lib=$clean/usr/lib/$multiarch
for file in "$lib/$soname" "$lib/${soname%.*}" "$lib/${soname%.so.*}.a" "$clean/usr/include/gpumailbox.h" \
  "$clean/usr/share/doc/$runtime/THIRD-PARTY.md" "$clean/usr/share/doc/$runtime/copyright" \
  "$clean/usr/share/doc/$development/copyright"; do
  [[ -e $file ]] || die "no ${file#"$clean"}"
done
readelf -S --wide "$lib/$soname" "$lib/${soname%.so.*}.a" >"$work/sections"
! grep -q '\.debug_' "$work/sections" || die "the libraries are not stripped"
! grep -rIlF -e "$root/" -e "$HOME/" "$clean/usr" || die "these files name folders of the build"
! grep -Ev '^\./usr(/(include|lib|share/doc)(/|$)|/share$|$)' "$work/with" || die "these do not belong into these packages"

step "deb: compile and run"
export PKG_CONFIG_LIBDIR=$lib/pkgconfig
read -ra flags < <(pkg-config --cflags --libs gpumailbox)
"${CC:-cc}" -std=c11 tests/package/consumer.c -o "$work/consumer" "${flags[@]}"
LD_LIBRARY_PATH=$lib ldd "$work/consumer" | grep -F "$soname => $lib/" ||
  die "the program does not use the root's library"
LD_LIBRARY_PATH=$lib "$work/consumer"
"$cmake" -S tests/package/find -B "$work/find" -G Ninja --log-level=NOTICE -DCMAKE_MAKE_PROGRAM="$ninja" \
  -DGMB_VERSION="$version" -DGMB_FIND_AT_TOP=ON -DCMAKE_FIND_ROOT_PATH="$clean" -DCMAKE_FIND_ROOT_PATH_MODE_PACKAGE=ONLY
"$cmake" --build "$work/find" >/dev/null
grep -qF "gpumailbox_DIR:PATH=$lib/" "$work/find/CMakeCache.txt" || die "CMake found another package"
for program in c_shared c_static cpp_shared cpp_static; do "$work/find/$program"; done

step "deb: remove"
in_root --purge "$development" "$runtime"
left=$(files)
[[ -z $left ]] || die "these stayed behind: $left"
[[ -z $(states) ]] || die "dpkg still knows $(states)"
! ls "$admin/info" | grep gpumailbox || die "dpkg still has files of the packages"
echo "$(wc -l <"$work/with") files and folders installed, used and removed"
