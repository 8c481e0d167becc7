#!/usr/bin/env bash
# Breaks the code in each of the ways listed in tests/mutants.py and checks that the named test notices.
source "$(dirname "$0")/common.sh"
exec python3 tests/mutants.py "$@"
