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

# The Python package's, too: every test by its function's name, whatever it was given.
python3 - tests/results/h200-python.json python/tests <<'PY'
import json, pathlib, re, sys
report = json.load(open(sys.argv[1]))
listed = {f"{path.stem}::{name}" for path in pathlib.Path(sys.argv[2]).glob("test_*.py")
          for name in re.findall(r"^(?:async )?def (test_\w+)", path.read_text(), re.M)}
ran = {test["name"].split("[")[0] for test in report["tests"]}
if not listed or listed != ran:
    print(f"only in python/tests: {sorted(listed - ran)}; only in the report: {sorted(ran - listed)}")
    sys.exit("error: the report is not of these tests: run python.py of the GPU kit again")
if report["failures"] or any(test["result"] != "ok" for test in report["tests"]):
    sys.exit(f"error: the report has failures: {report['failures']}")
print(f"{len(report['tests'])} Python tests on {report['gpu']}, commit {report['commit'][:12]}")
PY
