#!/usr/bin/env bash
# Tests the Python package: its wheel in a virtual environment of its own, with NumPy.
source "$(dirname "$0")/common.sh"

scripts/python_ffi.py --verify
step "python: format and clippy"
(cd python && cargo fmt --check)
scripts/wheel.sh --staged
(cd target/python/package && GMB_LIBRARY_DIR=$stage/lib cargo clippy --locked --quiet --target-dir "$root/target/python/build" -- -D warnings)

step "python: a clean environment"
venv=target/python/venv
rm -rf "$venv"
"$toolchain/venv/bin/python" -m venv "$venv"
mapfile -t needed < <(grep -E '^(numpy|pytest|iniconfig|packaging|pluggy|Pygments)=' scripts/toolchain-requirements.txt)
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input --no-deps "${needed[@]}" target/wheels/gpumailbox-*.whl

step "python: tests"
python=$root/$venv/bin/python
# From elsewhere, so that the installed package is what is tested.
(cd target/python && GMB_WHEEL=1 "$python" -m pytest -q -p no:cacheprovider "$root/python/tests")
for example in python/examples/*.py; do
  step "python: $(basename "$example")"
  (cd target/python && "$python" "$root/$example")
done
(cd target/python && "$python" "$root/python/examples/tutorial.py" --svg tutorial.svg)
cmp target/python/tutorial.svg docs/images/python-tutorial.svg || die "docs/images/python-tutorial.svg is not what the tutorial draws"
step "python: docs"
"$python" scripts/python_docs.py
