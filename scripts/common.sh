# Sourced by the other scripts: the repository's root, the tools, and lines that show progress.
# shellcheck shell=bash
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"

toolchain=${GMB_TOOLCHAIN_DIR:-$root/target/toolchain}
tools=$root/target/tools
cmake=$toolchain/bin/cmake
ctest=$toolchain/bin/ctest
ninja=$toolchain/bin/ninja
stage=$root/target/stage

step() { printf '== %s\n' "$*"; }
die() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

runs() { [[ -x $1 ]] && "$1" --version >/dev/null 2>&1; }

# An nvcc that the project did not install, looked for where build.rs looks.
system_nvcc() {
  local candidate
  for candidate in "${NVCC:-}" "${CUDA_HOME:+$CUDA_HOME/bin/nvcc}" "${CUDA_PATH:+$CUDA_PATH/bin/nvcc}" \
    "$(command -v nvcc || true)"; do
    if [[ -n $candidate ]] && runs "$candidate"; then
      printf '%s\n' "$candidate"
      return 0
    fi
  done
  return 1
}

any_nvcc() {
  system_nvcc && return 0
  runs "$toolchain/cuda/bin/nvcc" && printf '%s\n' "$toolchain/cuda/bin/nvcc"
}

gpu_present() { command -v nvidia-smi >/dev/null && nvidia-smi -L 2>/dev/null | grep -q '^GPU '; }
