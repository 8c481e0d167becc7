#!/usr/bin/env python3
"""Tests the Python package on this machine's GPU and writes python-report.json, and with --bench python.json.

Usage: python.py FOLDER_FOR_THE_REPORT [--bench]. The wheel goes into a virtual environment of its own, which sees the
PyTorch and CuPy of the Python that runs this. Fails when no device answers.
"""
import concurrent.futures
import json
import os
import pathlib
import re
import subprocess
import sys
import sysconfig
import venv
import xml.etree.ElementTree as tree

KIT = pathlib.Path(__file__).resolve().parent
OUT = pathlib.Path(sys.argv[1]).resolve()
failures = []


def section(name, command, limit, **extra):
    try:
        done = subprocess.run(command, env=dict(os.environ, GMB_REQUIRE_CUDA="1", GMB_WHEEL="1", **extra), text=True, cwd=OUT,
                              timeout=limit, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, errors="replace")
        code, text = done.returncode, done.stdout
    except subprocess.TimeoutExpired as late:
        code, text = 124, (late.stdout or b"").decode(errors="replace") + f"\ntimed out after {limit} s"
    with open(OUT / "python.log", "a") as log:
        log.write(f"== {name}: {command}\n{text}\n-- exit {code}\n")
    print("\n".join([f"== {name}: exit {code}", *text.splitlines()[-(2 if code == 0 else 60):]]), flush=True)
    if code != 0:
        failures.append(name)
    return text


def main():
    home = KIT / "venv"
    venv.create(home, with_pip=False, clear=True)
    python = str(home / "bin/python")
    wheel = next((KIT / "python").glob("*.whl"))
    section("install", [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-index", "--no-deps", str(wheel)], 60)
    site = next((home / "lib").glob("python*/site-packages"))
    (site / "torch.pth").write_text(sysconfig.get_path("purelib") + "\n")
    # All at once, each file in a process of its own; the bench alone, afterwards.
    work = [(path.name, [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={OUT}/{path.stem}.xml", str(path)], 240)
            for path in sorted((KIT / "python/tests").glob("test_*.py"))]
    work += [(path.name, [python, str(path), "--backend", "cuda"], 120) for path in sorted((KIT / "python/examples").glob("*.py"))]
    work += [("docs", [python, str(KIT / "python/scripts/python_docs.py")], 200)]
    with concurrent.futures.ThreadPoolExecutor(10) as pool:
        list(pool.map(lambda one: section(*one), work))
    tests = []
    for results in sorted(OUT.glob("test_*.xml")):
        for case in tree.parse(results).iter("testcase"):
            bad = [kind for kind in ("failure", "error", "skipped") if case.find(kind) is not None]
            tests.append({"name": f"{case.get('classname').split('.')[-1]}::{case.get('name')}", "result": (bad or ["ok"])[0]})
    if not tests or any(test["result"] != "ok" for test in tests):
        failures.append("tests")
    if "--bench" in sys.argv:
        section("bench", [python, str(KIT / "python/bench.py"), str(OUT), json.loads((KIT / "tree.json").read_text())["commit"]], 200)
    about = json.loads((KIT / "tree.json").read_text())
    gpu = re.search(r"GPU 0: (.*?) \(", subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True).stdout)
    report = dict(about, gpu=gpu[1] if gpu else None, wheel=wheel.name, tests=tests, failures=failures)
    (OUT / "python-report.json").write_text(json.dumps(report, indent=1) + "\n")
    print(f"failures: {failures or 'none'}; {sum(t['result'] == 'ok' for t in tests)} of {len(tests)} ok")
    return 1 if failures or gpu is None else 0


if __name__ == "__main__":
    sys.exit(main())
