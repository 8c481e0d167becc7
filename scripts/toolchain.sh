#!/usr/bin/env bash
# Installs what a build needs and the machine lacks, into target/ only:
#   toolchain.sh [cuda] [cmake] [cargo-tools] [python]     (no argument: all)
# GMB_TOOLCHAIN_DIR moves cuda and cmake elsewhere.
source "$(dirname "$0")/common.sh"

cbindgen_version=0.29.4
nextest_version=0.9.143
requirements=scripts/toolchain-requirements.txt
venv=$toolchain/venv
python=$venv/bin/python

make_venv() {
  "$python" -m pip --version >/dev/null 2>&1 && return
  local base log
  base=$(command -v python3) || die "no python3: it is needed to install the pinned CUDA and cmake wheels"
  "$base" -c 'import ensurepip, venv' 2>/dev/null ||
    die "$base cannot make virtual environments: install its venv package (Debian, Ubuntu: apt-get install python3-venv)"
  step "toolchain: virtual environment"
  rm -rf "$venv"
  mkdir -p "$toolchain"
  log=$("$base" -m venv "$venv" 2>&1) || die "python3 -m venv failed: $log"
}

# A part is the requirement lines that match its pattern; its stamp is their hash.
stamp_of() { grep -E "$2" "$requirements" | sha256sum | cut -d' ' -f1; }
is_stamped() { [[ -f $toolchain/$1.stamp && $(<"$toolchain/$1.stamp") == "$(stamp_of "$1" "$2")" ]]; }

pip_install() {
  local name=$1 pattern=$2 wheels
  mapfile -t wheels < <(grep -E "$pattern" "$requirements")
  make_venv
  step "toolchain: pip install ${wheels[*]}"
  rm -f "$toolchain/$name.stamp"
  # Every wheel is pinned, so their own ranges must not pull in others.
  "$python" -m pip install --quiet --disable-pip-version-check --no-input --no-deps "${wheels[@]}" ||
    die "pip could not install the $name wheels"
}

# Where the wheels' files lie; the path depends on the Python version.
site_file() {
  local dir
  for dir in purelib platlib; do
    dir=$("$python" -c 'import sys, sysconfig; print(sysconfig.get_path(sys.argv[1]))' "$dir")
    [[ -e $dir/$1 ]] && printf '%s\n' "$dir/$1" && return
  done
  die "the wheels brought no $1"
}

relative_link() { ln -sfnr "$1" "$2"; }

install_cuda() {
  local found cuda
  if found=$(system_nvcc); then
    step "toolchain: nvcc is there: $found"
    return
  fi
  is_stamped cuda '^nvidia-' && runs "$toolchain/cuda/bin/nvcc" && return
  pip_install cuda '^nvidia-'
  cuda=$(site_file nvidia/cu13)
  # nvcc's profile names lib64, and the wheels bring lib: without the link no .cu program links.
  ln -sfn lib "$cuda/lib64"
  relative_link "$cuda" "$toolchain/cuda"
  runs "$toolchain/cuda/bin/nvcc" || die "the installed nvcc does not run"
  stamp_of cuda '^nvidia-' >"$toolchain/cuda.stamp"
}

install_cmake() {
  local name path
  is_stamped cmake '^(cmake|ninja)=' && runs "$cmake" && runs "$ninja" && return
  pip_install cmake '^(cmake|ninja)='
  mkdir -p "$toolchain/bin"
  # The programs themselves: venv/bin has Python wrappers for cmake and ctest.
  for name in cmake ctest; do
    path=$(site_file "cmake/data/bin/$name")
    relative_link "$path" "$toolchain/bin/$name"
  done
  relative_link "$venv/bin/ninja" "$toolchain/bin/ninja"
  runs "$cmake" && runs "$ninja" || die "the installed cmake or ninja does not run"
  stamp_of cmake '^(cmake|ninja)=' >"$toolchain/cmake.stamp"
}

install_python() {
  is_stamped python '^maturin=' && runs "$venv/bin/maturin" && return
  pip_install python '^maturin='
  runs "$venv/bin/maturin" || die "the installed maturin does not run"
  stamp_of python '^maturin=' >"$toolchain/python.stamp"
}

cargo_install() {
  step "toolchain: cargo install $1 $2"
  # A directory of its own: the tools' builds must not land among the project's.
  CARGO_TARGET_DIR=$tools/build cargo install --quiet --locked --root "$tools" "$1@$2"
  rm -rf "$tools/build"
}

install_cargo_tools() {
  [[ $("$tools/bin/cbindgen" --version 2>/dev/null) == "cbindgen $cbindgen_version" ]] ||
    cargo_install cbindgen "$cbindgen_version"
  cargo nextest --version >/dev/null 2>&1 && return
  [[ $("$tools/bin/cargo-nextest" nextest --version 2>/dev/null) == *" $nextest_version "* ]] ||
    cargo_install cargo-nextest "$nextest_version"
}

[[ $# -gt 0 ]] || set -- cuda cmake cargo-tools python
for part in "$@"; do
  case $part in
    cuda) install_cuda ;;
    cmake) install_cmake ;;
    cargo-tools) install_cargo_tools ;;
    python) install_python ;;
    *) die "toolchain.sh installs cuda, cmake, cargo-tools and python, not $part" ;;
  esac
done
