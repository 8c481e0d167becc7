#!/usr/bin/env python3
"""Tests the library on this machine's GPU and writes gpu-report.json.

Usage: python3 run [folder for the report] [part...] [--with REPORT...]
Parts: tests delays mutants stress histories examples residency hostile sanitizers; if none is named all, or those that are
in none of the reports. With the reports of other parts, of the same library on the same machine, one is written of all.
Fails when no device answers, and as long as a part has not run.
"""
import concurrent.futures
import csv
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

import histories
import mutants

KIT = pathlib.Path(__file__).resolve().parent
ARGUMENTS = sys.argv[1:]
WITH = ARGUMENTS.index("--with") if "--with" in ARGUMENTS else len(ARGUMENTS)
BEFORE, ARGUMENTS = ARGUMENTS[WITH + 1:], ARGUMENTS[:WITH]
OUT = pathlib.Path(ARGUMENTS[0] if ARGUMENTS else KIT).resolve()
ENVIRONMENT = dict(os.environ, GMB_REQUIRE_CUDA="1", GMB_TEST_BACKEND="cuda", RUST_BACKTRACE="1",
                   GMB_CHECK_POINTERS="1")
BUILD = KIT / "build"
# Each waits for the device most of the time.
TESTS_AT_ONCE = max(4, min(8, (os.cpu_count() or 4) // 2))
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


def suite(name, binary, limit, **extra):
    """Every test in a process of its own, so that one which hangs or dies is known by name."""
    print(f"== {name}", flush=True)
    program = str(KIT / "bin" / binary)
    names = re.findall(r"^(\S+): test$", run([program, "--list"], 60, **extra)[1], re.M)

    def one(test):
        code, text, seconds = run([program, "--exact", test, "--nocapture"], limit, **extra)
        return test, code, text, seconds

    results = []
    with concurrent.futures.ThreadPoolExecutor(TESTS_AT_ONCE) as pool, open(OUT / "kit.log", "a") as log:
        for test, code, text, seconds in pool.map(one, names):
            ran = re.search(r"^test result: ok. 1 passed", text, re.M)
            result = "ok" if code == 0 and ran else "timed out" if code == 124 else "FAILED"
            results.append({"name": test, "result": result})
            log.write(f"-- {name}: {test}: {result}, {seconds} s\n")
            if result != "ok":
                log.write(text + "\n")
                print(f"   {test}: {result}\n" + "\n".join(text.splitlines()[-15:]), flush=True)
    good = sum(r["result"] == "ok" for r in results)
    print(f"   {good} of {len(results)} ok", flush=True)
    if good < len(results) or not results:
        failures.append(name)
    return results


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
    program = " ".join([binary.name, *arguments]).replace(f"{KIT}/", "")
    return {"tool": tool, "program": program, "summary": summaries, "clean": clean}


def hostile(name):
    """Hostile calls in C, as scripts/hostile.sh runs them on the host backend."""
    library = KIT / "stage" / "lib"
    program = BUILD / f"hostile_{name}"
    own = [str(library / "libgpumailbox.so.0")] if name == "process" else []
    linked = ["-ldl"] if own else [f"-L{library}", "-lgpumailbox"]
    section(f"hostile: build {name}", ["cc", "-std=c11", "-D_GNU_SOURCE", "-O1", "-g", f"-I{KIT / 'stage' / 'include'}",
                                       str(KIT / "hostile" / f"{name}.c"), "-o", str(program), *linked, "-lpthread"], 60)
    code, text = section(f"hostile: {name}", [str(program), *own], 240, LD_LIBRARY_PATH=str(library), GMB_BACKEND="cuda")
    return {"program": name, "result": "ok" if code == 0 else "FAILED", "totals": text.strip().splitlines()[-1:]}


def cupti():
    """Where CUPTI's headers and library lie: with the toolkit, or in a Python package."""
    places = [pathlib.Path("/usr/local/cuda/extras/CUPTI"), pathlib.Path("/usr/local/cuda")]
    places += [found for root in sys.path if root for found in pathlib.Path(root).glob("nvidia/*")]
    for place in places:
        libraries = [folder for folder in (place / "lib64", place / "lib") if list(folder.glob("libcupti.so*"))]
        if (place / "include" / "cupti.h").is_file() and libraries:
            return place / "include", sorted(libraries[0].glob("libcupti.so*"))[0]
    return None


def residency():
    """That nothing leaves the GPU, as tests/residency tells; what is planted must be found."""
    found = cupti()
    if found is None:
        failures.append("residency: no CUPTI")
        return {"result": "no CUPTI found"}
    include, library = found
    toolkit = pathlib.Path(shutil.which("nvcc") or "/usr/local/cuda/bin/nvcc").resolve().parents[1]
    own, program = KIT / "stage" / "lib", BUILD / "residency"
    section("residency: build", ["c++", "-std=c++17", "-O1", "-g", f"-I{KIT / 'stage' / 'include'}", f"-I{include}",
                                 f"-I{toolkit / 'include'}", str(KIT / "residency" / "residency.cpp"), "-o", str(program),
                                 str(library), f"-L{own}", "-lgpumailbox", "-l:libcuda.so.1",
                                 f"-Wl,-rpath,{library.parent}:{own}"], 120)
    code, text = section("residency", [str(program)], 120)
    report = {"cycles_of_every_mode": text.strip().splitlines(), "planted": {}, "host_bytes_an_operation": {}}
    for plant in ("copy", "mapped"):
        code, text, _ = run([str(program), "--cycles", "50", "--plant", plant], 120)
        report["planted"][plant] = text.strip().splitlines()[-1:]
        if code != 3:
            failures.append(f"residency: a planted {plant} was not found")
    # What kernels write to host memory, by the profiler: sectors of 32 bytes, from the multiprocessors alone.
    metric = "lts__t_sectors_srcunit_tex_aperture_sysmem_op_write.sum"
    for name, extra in (("silent", ["--silent"]), ("as it is", []), ("mapped", ["--plant", "mapped"])):
        command = ["ncu", "--csv", "--page", "raw", "--clock-control", "none", "--cache-control", "none",
                   "--metrics", metric, "-k", "regex:gmb_kernel_", str(program), "--plain", "--cycles", "1", *extra]
        code, text, _ = run(command, 240)
        table = list(csv.reader(line for line in text.splitlines() if line.startswith('"')))
        at = table[0].index(metric) if table and metric in table[0] else -1
        most = {}
        for row in table[2:] if at >= 0 else []:
            kernel, written = row[table[0].index("Kernel Name")], 32 * int(row[at].replace(",", ""))
            most[kernel] = max(written, most.get(kernel, 0))
        report["host_bytes_an_operation"][name] = most
        if not most:
            failures.append(f"residency: no profile, {name}")
            with open(OUT / "kit.log", "a") as log:
                log.write(f"== residency: profile, {name}: exit {code}\n{text}\n")
    told = report["host_bytes_an_operation"]
    print(f"   {told}", flush=True)
    if any(told["silent"].values()) or any(written > 64 for written in told["as it is"].values()):
        failures.append("residency: host bytes")
    if max(told["mapped"].values(), default=0) < 64 * 112:
        failures.append("residency: planted host bytes were not found")
    return report


def tests():
    return {"tests": suite("suite on the GPU", "suite", 60)}


def delays():
    return {"tests_with_delays": suite("suite with delays on the GPU", "suite-chaos", 60, GMB_TEST_RECORDS="300000")}


def all_mutants():
    print("== mutants", flush=True)
    ran = mutants.run(KIT / "mutants", dict(ENVIRONMENT, GMB_TEST_SEED="1", GMB_TEST_RECORDS="300000"))
    survivors = [m["name"] for m in ran if m["result"] != "caught"]
    print(f"   {len(ran) - len(survivors)} of {len(ran)} caught; {survivors}", flush=True)
    if survivors or not ran:
        failures.append("mutants")
    return {"mutants": ran}


def stress():
    """The GPU's stress beside the suite that needs no GPU."""
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        running = pool.submit(section, "stress", [str(KIT / "bin" / "suite"), "stress::", "--nocapture"], 150,
                              GMB_STRESS_SECONDS="60")
        on_host = suite("suite on this machine's CPU", "suite", 60, GMB_TEST_BACKEND="host", GMB_REQUIRE_CUDA="0")
        code, text = running.result()
    lines = [line for line in text.splitlines() if "operations" in line or "test result" in line]
    return {"tests_on_host": on_host, "stress_60_s": lines}


def all_histories():
    print("== histories", flush=True)
    ran = histories.all_modes(10_000_000, int(time.time()))
    wrong = [one for one in ran if one["result"] != "ok"]
    print(f"   {sum(one['operations'] for one in ran)} operations, wrong: {wrong}", flush=True)
    if wrong:
        failures.append("histories")
    return {"histories": ran}


def inputs():
    """A document for three_modules to read."""
    documents = sorted((KIT / "docs-input").glob("*.md"))
    return ["--input", str(documents[0])] if documents else []


def build_examples():
    section("examples: configure", ["cmake", "-S", str(KIT / "c_examples"), "-B", str(BUILD), "-G", "Ninja",
                                    f"-DCMAKE_PREFIX_PATH={KIT / 'stage'}", "-DGMB_EXAMPLES_GPU=ON",
                                    "-DCMAKE_CUDA_ARCHITECTURES=90"], 120)
    section("examples: build", ["cmake", "--build", str(BUILD)], 300)


def arbitration():
    """What the three ways to wire modules cost here, for scripts/arbitration.py --take."""
    run_here = OUT / "arbitration.run.json"
    run_here.unlink(missing_ok=True)
    code, _ = section("arbitration", [str(BUILD / "arbitration"), "--backend", "cuda", "--json", str(run_here)], 120)
    if code != 0:
        return {}
    tree = json.loads((KIT / "tree.json").read_text())
    found = {**driver_facts(), "commit": tree["commit"], **json.loads(run_here.read_text())}
    run_here.unlink()
    (OUT / "arbitration.json").write_text(json.dumps(found, indent=1) + "\n")
    return found


def examples():
    build_examples()
    code, text = section("examples: ctest", ["ctest", "--test-dir", str(BUILD), "--output-on-failure",
                                             "--no-tests=error", "--timeout", "60"], 300)
    ran = [{"name": n, "result": r} for n, r in re.findall(r"Test\s+#\d+: (\S+) \.+\s*(?:\**)\s*(\w+)", text)]
    if any(e["result"] != "Passed" for e in ran) or not ran:
        failures.append("examples")
    code, text = section("three_modules", [str(BUILD / "three_modules"), "--backend", "cuda", "--seconds", "3",
                                           *inputs()], 60)
    three = text.strip().splitlines()
    # Without PyTorch it fails: what was not tried has not passed.
    library = KIT / "stage" / "lib" / "libgpumailbox.so.0"
    code, text = section("torch.cuda.graph", [sys.executable, str(KIT / "torch" / "capture.py"), str(library)], 120)
    return {"examples": ran, "three_modules": three, "arbitration": arbitration(),
            "torch_capture": text.strip().splitlines()[-1:]}


def all_hostile():
    return {"hostile": [hostile(name) for name in ("arguments", "threads", "process")]}


def sanitizers():
    def sanitized(tool):
        # The tests of drivers and profilers start children of their own. The tools run launches one by one, so one
        # behind a closed gate, or beside a kernel that never leaves, would wait for ever (gated::); and one test after the
        # other, or those of a test wait for the kernels that stay of another. Sixteen threads that make and destroy take too
        # long under them, and what waiting costs is another thing there; the pool hides overruns.
        arguments = ["--test-threads=1"]
        for module in ("drivers::", "hot_path::", "idle::", "gated::", "lost::", "profiler::", "stress::"):
            arguments += ["--skip", module]
        if tool == "memcheck":
            # Its red zones belong to an allocation as the driver tells its size.
            arguments += ["--skip", "addresses_that_kernels_cannot_reach"]
        few = {"GMB_TEST_RECORDS": "5000", "GMB_DISABLE": "mempool" if tool == "memcheck" else ""}
        return [sanitizer(tool, KIT / "bin" / "suite", arguments, 400, **few),
                sanitizer(tool, BUILD / "own_kernel", [], 120),
                sanitizer(tool, BUILD / "three_modules", ["--backend", "cuda", "--seconds", "0", *inputs()], 120)]

    if not (BUILD / "own_kernel").exists():
        build_examples()
    # Beside each other: they keep the CPU busy more than the GPU.
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        return {"sanitizers": sum(pool.map(sanitized, ("memcheck", "initcheck", "synccheck")), [])}


PARTS = {"tests": tests, "delays": delays, "mutants": all_mutants, "stress": stress, "histories": all_histories,
         "examples": examples, "residency": lambda: {"residency": residency()}, "hostile": all_hostile,
         "sanitizers": sanitizers}


def main():
    asked = ARGUMENTS[1:]
    if unknown := [part for part in asked if part not in PARTS]:
        print(f"error: no part is called {unknown}: there are {list(PARTS)}")
        return 1
    OUT.mkdir(parents=True, exist_ok=True)
    BUILD.mkdir(parents=True, exist_ok=True)
    (OUT / "kit.log").write_text("")
    report = {**driver_facts(), **json.loads((KIT / "tree.json").read_text()), "parts": {}}
    if report["gpu"] == "none":
        print("error: nvidia-smi finds no GPU: this kit is for a machine that has one")
        return 1
    for path in BEFORE:
        before = json.loads(pathlib.Path(path).read_text())
        if any(before[key] != report[key] for key in ("gpu", "driver", "cuda", "library_sha256")):
            print(f"error: {path} is of another library or another machine: run all of it")
            return 1
        report.update(before, parts={**report["parts"], **before["parts"]})
    for part in asked or [part for part in PARTS if part not in report["parts"]]:
        failures.clear()
        report.update(PARTS[part]())
        report["parts"][part] = sorted(set(failures))
        # Whatever comes after it, this has run.
        told = [each for known in report["parts"].values() for each in known]
        told += [t["name"] for key in ("tests", "tests_with_delays", "tests_on_host") for t in report.get(key, ())
                 if t["result"] != "ok"]
        told += [f"{each} did not run" for each in PARTS if each not in report["parts"]]
        report["failures"] = sorted(set(told))
        (OUT / "gpu-report.json").write_text(json.dumps(report, indent=1) + "\n")
    passed = sum(t["result"] == "ok" for t in report.get("tests", ()))
    print(f"failures: {report['failures'] or 'none'}")
    print(f"{passed} passed, {len(report.get('tests', ())) - passed} failed")
    return 1 if report["failures"] else 0


sys.exit(main())
