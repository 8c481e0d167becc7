#!/usr/bin/env bash
# Gates on the sources: one file asks which machine it is compiled for, and no file is too long to read.
source "$(dirname "$0")/common.sh"

platform=include/gpumailbox/platform.cuh
most=600
failed=0
files=0
while IFS= read -r file; do
  files=$((files + 1))
  if [[ $file != "$platform" ]] && grep -n __CUDA_ARCH__ "$file" /dev/null; then
    echo "error: __CUDA_ARCH__ belongs into $platform alone"
    failed=1
  fi
  # What is generated from the API is as long as that.
  lines=$(wc -l <"$file")
  if [[ $file != *.h && $file != python/src/ffi.rs && $lines -gt $most ]]; then
    echo "error: $file has $lines lines, more than $most"
    failed=1
  fi
done < <(find . \( -path ./target -o -path ./python/target -o -path ./python/gpumailbox/include -o -path ./build -o -path './.*' \) -prune -o -type f -regextype posix-extended \
  -regex '.*\.(rs|cu|cuh|cpp|hpp|c|h|py)' -print | sed 's|^\./||' | sort)
grep -q __CUDA_ARCH__ "$platform" || die "$platform no longer asks for __CUDA_ARCH__: is this gate looking at the right file?"
echo "$files source files"
exit "$failed"
