#!/usr/bin/env python3
"""Tests the library on this machine's GPU and writes gpu-report.json.

Usage: python3 run [folder for the report]. Fails when no device answers.
"""
import json
import os
import pathlib
import re
import subprocess
import sys
import time

KIT = pathlib.Path(__file__).resolve().parent
OUT = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else KIT).resolve()
ENVIRONMENT = dict(os.environ, GMB_REQUIRE_CUDA="1", GMB_TEST_BACKEND="cuda", RUST_BACKTRACE="1")
BUILD = KIT / "build"
failures = []


def run(command, limit, **extra):
    """Runs a command with a limit in seconds; gives its exit status and output."""
    started = time.monotonic()
    try:
        done = subprocess.run(command, env=dict(ENVIRONMENT, **extra), timeout=limit, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, errors="replace")
        code, text = done.returncode, done.stdout
    except subprocess.TimeoutExpired as late:
        code, text = 124, (late.stdout or b"").decode(errors="replace") + f"\ntimed out after {limit} s"
    return code, text, round(time.monotonic() - started, 1)


def section(name, command, limit, **extra):
    print(f"== {name}", flush=True)
    code, text, seconds = run(command, limit, **extra)
    with open(OUT / "kit.log", "a") as log:
        log.write(f"== {name}: {command} {extra}\n{text}\n-- exit {code}, {seconds} s\n")
    print(f"   exit {code}, {seconds} s", flush=True)
    if code != 0:
        failures.append(name)
        print("\n".join(text.splitlines()[-25:]), flush=True)
    return code, text


def test_results(text):
    found = re.findall(r"^test (\S+) \.\.\. (?:.*?)(ok|FAILED)$", text, re.M | re.S)
    return [{"name": name, "result": result} for name, result in found]


def suite(name, binary, limit, **extra):
    code, text = section(name, [str(KIT / "bin" / binary), "--test-threads=4"], limit, **extra)
    # The names come from the list, so that a test which died still shows.
    listed = re.findall(r"^(\S+): test$", run([str(KIT / "bin" / binary), "--list"], 60)[1], re.M)
    results = {t["name"]: t["result"] for t in test_results(text)}
    return [{"name": n, "result": results.get(n, "ok" if code == 0 else "no result")} for n in listed]


def driver_facts():
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    code, text, _ = run(query, 60)
    name, driver = [part.strip() for part in text.strip().splitlines()[0].split(",")] if code == 0 else ("none", "none")
    _, nvcc, _ = run(["nvcc", "--version"], 60)
    release = re.search(r"release ([\d.]+)", nvcc)
    return {"gpu": name, "driver": driver, "cuda": release.group(1) if release else "unknown"}


def sanitizer(tool, binary, arguments, limit, **extra):
    command = ["compute-sanitizer", "--tool", tool, "--error-exitcode", "9", "--report-api-errors", "no"]
    if tool == "memcheck":
        command += ["--padding", "256"]
    code, text = section(f"{tool} {binary.name} {' '.join(arguments)}".strip(),
                         [*command, str(binary), *arguments], limit, **extra)
    summaries = re.findall(r"ERROR SUMMARY: (.*)", text)
    clean = code == 0 and summaries != [] and all(s.startswith("0 errors") for s in summaries)
    if not clean and code == 0:
        failures.append(f"{tool} {binary.name}")
    return {"tool": tool, "program": " ".join([binary.name, *arguments]), "summary": summaries, "clean": clean}


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "kit.log").write_text("")
    report = {**driver_facts(), **json.loads((KIT / "tree.json").read_text())}
    if report["gpu"] == "none":
        print("error: nvidia-smi finds no GPU: this kit is for a machine that has one")
        return 1
    report["tests"] = suite("suite on the GPU", "suite", 300)
    report["tests_with_delays"] = suite("suite with delays on the GPU", "suite-chaos", 300, GMB_TEST_RECORDS="300000")
    report["tests_on_host"] = suite("suite on this machine's CPU", "suite", 300, GMB_TEST_BACKEND="host",
                                    GMB_REQUIRE_CUDA="0")

    section("examples: configure", ["cmake", "-S", str(KIT / "c_examples"), "-B", str(BUILD), "-G", "Ninja",
                                    f"-DCMAKE_PREFIX_PATH={KIT / 'stage'}", "-DGMB_EXAMPLES_GPU=ON",
                                    "-DCMAKE_CUDA_ARCHITECTURES=90"], 120)
    section("examples: build", ["cmake", "--build", str(BUILD)], 300)
    code, text = section("examples: ctest", ["ctest", "--test-dir", str(BUILD), "--output-on-failure",
                                             "--no-tests=error", "--timeout", "60"], 300)
    report["examples"] = [{"name": n, "result": r} for n, r in
                          re.findall(r"Test\s+#\d+: (\S+) \.+\s*(?:\**)\s*(\w+)", text)]
    if any(e["result"] != "Passed" for e in report["examples"]) or not report["examples"]:
        failures.append("examples")
    documents = sorted((KIT / "docs-input").glob("*.md"))
    inputs = ["--input", str(documents[0])] if documents else []
    code, text = section("three_modules", [str(BUILD / "three_modules"), "--backend", "cuda", "--seconds", "3",
                                           *inputs], 60)
    report["three_modules"] = text.strip().splitlines()

    few = {"GMB_TEST_RECORDS": "20000"}
    report["sanitizers"] = []
    for tool in ("memcheck", "initcheck", "synccheck"):
        # The driver tests start children that never reach a device.
        report["sanitizers"].append(sanitizer(tool, KIT / "bin" / "suite", ["--test-threads=1", "--skip", "drivers::"],
                                              400, **few))
        report["sanitizers"].append(sanitizer(tool, BUILD / "own_kernel", [], 120))
        report["sanitizers"].append(sanitizer(tool, BUILD / "three_modules",
                                              ["--backend", "cuda", "--seconds", "0", *inputs], 120))

    bad = [t["name"] for key in ("tests", "tests_with_delays", "tests_on_host") for t in report[key]
           if t["result"] != "ok"]
    report["failures"] = sorted(set(failures + bad))
    (OUT / "gpu-report.json").write_text(json.dumps(report, indent=1) + "\n")
    passed = sum(t["result"] == "ok" for t in report["tests"])
    print(f"failures: {report['failures'] or 'none'}")
    print(f"{passed} passed, {len(report['tests']) - passed} failed")
    return 1 if report["failures"] else 0


sys.exit(main())
