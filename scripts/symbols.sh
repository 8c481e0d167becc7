#!/usr/bin/env bash
# Compares what the staged libraries export with tests/abi/symbols.txt and with the header, then links
# every function once from C and C++ against both libraries. With --write it first writes tests/abi/symbols.txt.
source "$(dirname "$0")/common.sh"

list=tests/abi/symbols.txt
shared=$stage/lib/libgpumailbox.so
archive=$stage/lib/libgpumailbox.a
work=target/symbols
[[ -e $shared ]] || die "no target/stage: run scripts/stage.sh"
mkdir -p "$work"
export LC_ALL=C

names() { awk '{ print $NF }' | sort -u; }
same() { diff -u "$1" "$2" || die "$3"; }

nm -D --defined-only "$shared" | names >"$work/shared"
if [[ ${1:-} == --write ]]; then
  mkdir -p "$(dirname "$list")"
  cp "$work/shared" "$list"
fi
same "$list" "$work/shared" "the exports of libgpumailbox.so are not those of $list (scripts/symbols.sh --write)"

nm --defined-only --extern-only "$archive" | awk 'NF == 3' | names >"$work/static"
same "$list" "$work/static" "the global symbols of libgpumailbox.a are not those of $list"

# The preprocessor drops the comments; a prototype is then a name before a parenthesis, which no pointer to a function follows.
cc -E -P -I"$stage/include" -include gpumailbox.h -x c /dev/null | grep -oP '\bgmb_[a-z0-9_]*(?= *\((?!\*))' |
  sort -u >"$work/header"
same "$list" "$work/header" "the prototypes of gpumailbox.h are not those of $list"

dynamic=$(readelf -d "$shared")
soname=$(sed -n 's/^const SONAME.*"\(.*\)".*/\1/p' build.rs)
[[ $dynamic == *"[$soname]"* ]] || die "the SONAME is not $soname"
[[ $dynamic == *NODELETE* ]] || die "libgpumailbox.so is not marked NODELETE"
! grep -E 'NEEDED.*(libstdc|libc\+\+|libatomic|libcuda)' <<<"$dynamic" || die "libgpumailbox.so needs a library it must not"

{
  printf '#include <gpumailbox.h>\n#include <stdio.h>\n#include <string.h>\n'
  printf 'typedef void (*function)(void);\nstatic const function all[] = {\n'
  sed 's/.*/  (function)&,/' "$list"
  cat <<'C'
};
#define TEXT_(x) #x
#define TEXT(x) TEXT_(x)
int main(void) {
  const char *header = TEXT(GMB_VERSION_MAJOR) "." TEXT(GMB_VERSION_MINOR) "." TEXT(GMB_VERSION_PATCH);
  const uint32_t number = GMB_VERSION_MAJOR << 16 | GMB_VERSION_MINOR << 8 | GMB_VERSION_PATCH;
  for (size_t i = 0; i < sizeof all / sizeof *all; ++i) {
    if (all[i] == NULL) return 1;
  }
  if (gmb_version() != number || strcmp(gmb_version_string(), header) != 0) {
    printf("error: the header is of version %s, the library of %s\n", header, gmb_version_string());
    return 1;
  }
  printf("%zu functions of version %s", sizeof all / sizeof *all, header);
  return 0;
}
C
} >"$work/all.c"
read -ra system < <(sed -n 's/^Libs.private: //p' "$stage/lib/pkgconfig/gpumailbox.pc")
for language in c c++; do
  compile=(cc -std=c11)
  [[ $language == c ]] || compile=(c++ -std=c++17)
  compile+=(-Wall -Wextra -Werror -I"$stage/include" -x "$language" "$work/all.c" -x none)
  "${compile[@]}" -o "$work/all-shared" -L"$stage/lib" -lgpumailbox -Wl,-rpath,"$stage/lib"
  "${compile[@]}" -o "$work/all-static" "$archive" "${system[@]}"
  for kind in shared static; do
    "$work/all-$kind"
    echo ", linked with the $kind library from $language"
  done
done
