#!/usr/bin/env bash
# The committed report of the GPU kit must name exactly the tests that the suite has.
source "$(dirname "$0")/common.sh"

report=tests/results/h200.json
[[ -f $report ]] || die "no $report: run the GPU kit on a machine with a GPU and commit its report"
cargo test --locked --test suite -- --list 2>/dev/null | sed -n 's/: test$//p' >target/suite-tests.txt
python3 - "$report" target/suite-tests.txt <<'PY'
import json, sys
report = json.load(open(sys.argv[1]))
listed = set(open(sys.argv[2]).read().split())
ran = {t["name"] for t in report["tests"]}
if not listed or listed != ran:
    print(f"only in the suite: {sorted(listed - ran)}; only in the report: {sorted(ran - listed)}")
    sys.exit("error: the report is not of this suite: run the GPU kit again")
if report["failures"]:
    sys.exit(f"error: the report has failures: {report['failures']}")
print(f"{len(ran)} tests on {report['gpu']}, commit {report['commit'][:12]}")
PY
