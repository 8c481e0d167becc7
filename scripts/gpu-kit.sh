#!/usr/bin/env bash
# Builds target/gpu-kit: everything a machine with a GPU and without Rust needs
# to test this tree. Copy the folder there and run `python3 run`.
set -eu
cd "$(dirname "$0")/.."
. scripts/common.sh
for folder in src kernels include; do
  if [ -n "$(git status --porcelain "$folder")" ] && [ "${GMB_KIT_DIRTY:-0}" != 1 ]; then
    echo "error: $folder has uncommitted changes, and the report names commits: commit first (or GMB_KIT_DIRTY=1)" >&2
    exit 1
  fi
done
export GMB_CUDA=ON GMB_CUDA_ARCHS=${GMB_CUDA_ARCHS:-90}
kit=target/gpu-kit
rm -rf "$kit"
mkdir -p "$kit/bin"

# Prints the path of the suite built into a target folder.
build_suite() {
  cargo test --release --locked --no-run --test suite --target-dir "$1" --message-format json |
    python3 -c 'import json, sys
for line in sys.stdin:
    message = json.loads(line)
    if message.get("executable") and message["target"]["name"] == "suite":
        print(message["executable"])'
}

echo "== suite"
suite=$(build_suite target/kit)
strip -o "$kit/bin/suite" "$suite"
echo "== suite with random delays in the kernels"
chaos=$(GMB_CHAOS=1 build_suite target/kit-chaos)
strip -o "$kit/bin/suite-chaos" "$chaos"
echo "== package"
"$cmake" -S . -B target/kit-cmake -G Ninja -DCMAKE_MAKE_PROGRAM="$ninja" -DCMAKE_INSTALL_PREFIX="$PWD/$kit/stage" -DGMB_CUDA=ON \
  -DGMB_CUDA_ARCHS="$GMB_CUDA_ARCHS" -DGMB_CARGO_TARGET_DIR="$PWD/target/kit" >/dev/null
"$cmake" --build target/kit-cmake >/dev/null
"$cmake" --install target/kit-cmake --strip >/dev/null
rm -f "$kit"/stage/lib/*.a
cp -r c_examples "$kit/c_examples"
cp -r tests/hostile "$kit/hostile"
cp -r tests/torch "$kit/torch"
cp -r tests/residency "$kit/residency"
mkdir -p "$kit/docs-input"
cp README.md CHANGELOG.md docs/*.md "$kit/docs-input/" 2>/dev/null || true
cp scripts/kit/run.py "$kit/run"
echo "== benches"
mkdir -p "$kit/bench"
for program in limits mailbox; do
  "$(any_nvcc)" -arch=sm_90 -O3 -std=c++17 -cudart static -I"$kit/stage/include" "benches/$program.cu" -o "$kit/bench/$program" \
    -L"$kit/stage/lib" -lgpumailbox -Xlinker -rpath,'$ORIGIN/../stage/lib' 2>&1 | { grep -v 'never referenced' || true; }
done
echo "== histories"
for program in history history-chaos; do
  chaos=()
  [ "$program" = history ] || chaos=(-DGMB_CHAOS)
  "$(any_nvcc)" -arch=sm_90 -O3 -std=c++17 -cudart static "${chaos[@]}" -I"$kit/stage/include" tests/history/history.cu -o "$kit/bin/$program"
  "$(any_nvcc)" -arch=sm_90 -O3 -std=c++17 -cudart static "${chaos[@]}" -I"$kit/stage/include" tests/history/queues.cu -o "$kit/bin/${program/history/queues}"
  # This one is the library's worker with a functor of its own.
  "$(any_nvcc)" -arch=sm_90 -O3 -std=c++17 -cudart static "${chaos[@]}" -I"$kit/stage/include" tests/history/commands.cu \
    -o "$kit/bin/${program/history/commands}" -L"$kit/stage/lib" -lgpumailbox -Xlinker -rpath,'$ORIGIN/../stage/lib'
done
cp scripts/kit/histories.py "$kit/histories.py"
echo "== Python package"
rm -rf target/stage && cp -r "$kit/stage" target/stage
scripts/wheel.sh --staged
mkdir -p "$kit/python/scripts" "$kit/python/docs" "$kit/python/python"
cp target/wheels/gpumailbox-*.whl "$kit/python/"
cp -r python/tests python/examples "$kit/python/"
cp benches/python.py "$kit/python/bench.py"
cp scripts/python_docs.py "$kit/python/scripts/"
cp docs/python.md "$kit/python/docs/"
cp python/README.md "$kit/python/python/"
cp scripts/kit/python.py "$kit/python.py"
cp scripts/kit/bench.py "$kit/bench.py"
cp scripts/kit/mutants.py "$kit/mutants.py"
echo "== mutants"
# GMB_KIT_MUTANTS=0 leaves them out, for a look at something else. A build each, which takes minutes: kept as long as what they are made of is the same.
made_of=$(cat $(git ls-files src kernels include tests build.rs Cargo.lock) | sha256sum)
if [ "${GMB_KIT_MUTANTS:-1}" = 1 ] && [ "$(cat target/kit-mutants/made-of 2>/dev/null)" != "$made_of" ]; then
  rm -rf target/kit-mutants
  python3 tests/mutants.py --kit target/kit-mutants
  echo "$made_of" >target/kit-mutants/made-of
fi
[ "${GMB_KIT_MUTANTS:-1}" != 1 ] || cp -r target/kit-mutants "$kit/mutants"
python3 - "$kit" <<'PY'
import hashlib, json, pathlib, subprocess, sys
kit = pathlib.Path(sys.argv[1])
git = lambda *a: subprocess.run(["git", *a], capture_output=True, text=True, check=True).stdout.strip()
library = next(p for p in kit.glob("stage/lib/libgpumailbox.so.*") if not p.is_symlink())
(kit / "tree.json").write_text(json.dumps({
    "commit": git("rev-parse", "HEAD"),
    "trees": {f: git("rev-parse", f"HEAD:{f}") for f in ("src", "kernels", "include", "python")},
    "library_sha256": hashlib.sha256(library.read_bytes()).hexdigest(),
}, indent=1))
PY
du -sh "$kit" | cut -f1
