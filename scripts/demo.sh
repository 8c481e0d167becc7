#!/usr/bin/env bash
# Installs what is missing, builds, and runs three_modules on the host and on the GPU if there is one.
source "$(dirname "$0")/common.sh"

scripts/stage.sh
scripts/examples.sh
demo=$(find target/examples -name three_modules -type f -perm -u+x | head -n 1)
[[ -n $demo ]] || die "c_examples built no three_modules"
step "three_modules on the host backend"
"$demo" --backend host
if gpu_present; then
  step "three_modules on the GPU"
  "$demo" --backend cuda
else
  step "no GPU here: nvidia-smi lists none"
fi
