#!/usr/bin/env bash
# Reads what ptxas said of the kernels and fails on spills or a stack frame:
#   ptxas.sh [PROFILE]     the newest report of target/PROFILE, or of all profiles
source "$(dirname "$0")/common.sh"

shopt -s nullglob
reports=(target/${1:-*}/build/gpumailbox-*/out/mailbox.ptxas.txt)
[[ ${#reports[@]} -gt 0 ]] || die "no ptxas report: build with nvcc first"
newest=${reports[0]}
for report in "${reports[@]}"; do
  [[ ! $report -nt $newest ]] || newest=$report
done
awk '
  /Compiling entry function/ {
    split($0, quoted, "\047")
    name = quoted[2]; sub(/^gmb_kernel_/, "", name)
    arch = quoted[4]
    entries++
  }
  /bytes stack frame/ {
    frames++
    if ($0 !~ /(^|[^0-9])0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads/) {
      print "error: " name " for " arch ": " $0
      bad = 1
    }
  }
  /Used [0-9]+ registers/ {
    match($0, /Used [0-9]+/)
    line = line (line == "" ? "" : ", ") name " " arch " " substr($0, RSTART + 5, RLENGTH - 5)
  }
  END {
    if (entries == 0) { print "error: the report names no entry function"; exit 1 }
    if (frames < entries) { print "error: " entries " entry functions and " frames + 0 " reports on them"; exit 1 }
    print "registers: " line
    exit bad
  }' "$newest"
