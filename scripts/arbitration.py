#!/usr/bin/env python3
"""Writes what the example arbitration found (tests/results/arbitration.json) into the tables of docs/arbitration.md, one for each
backend that was measured. With --verify it fails when they are out of date.

With --take FILE it takes a run in first, in the place of the one of that backend before: what `arbitration --json FILE` wrote on
this machine, on the host backend, or arbitration.json of the GPU kit.
"""

import json
import os
import pathlib
import re
import subprocess
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import performance  # noqa: E402
import pictures  # noqa: E402

NAME = "scripts/arbitration.py"
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
RESULTS = os.path.join(ROOT, "tests", "results", "arbitration.json")
# In the order of the page.
WAYS = ("by the CPU", "by the device, each looks itself", "by an arbiter on the device")
# Of each backend, in the order of the page, what a way can hold of it while it waits, and how many of these.
WHERE = {"cuda": ("SMs used by what stays", {0: (0,), 1: (1, 2, 3), 2: (1, 2, 3, 4)}),
         "host": ("threads that stay, in place of a GPU's blocks", {0: (0,), 1: (3,), 2: (4,)})}
FACTS = ("gpu", "driver", "commit")


def die(words):
    sys.exit(f"error: {RESULTS}: {words}")


def table(backend, found):
    ways = {one["way"]: one for one in found["ways"]}
    if set(ways) != set(WAYS) or len(found["ways"]) != len(WAYS):
        die(f"{backend}: not the ways {', '.join(WAYS)}")
    if any(not isinstance(found.get(fact), str) or not found[fact] for fact in FACTS):
        die(f"{backend}: it does not say {', '.join(FACTS)}")
    what, possible = WHERE[backend]
    rows = []
    for place, way in enumerate(WAYS):
        one = ways[way]
        # Otherwise the example did not write it.
        if one["held"] not in possible[place] or not 0 < one["p50_us"] <= one["p99_us"] or one["cpu_percent"] < 0:
            die(f"{backend}: {way}: what it says cannot be")
        rows.append((way, f"{one['p50_us']:.2f} µs", f"{one['p99_us']:.2f} µs", str(one["held"]), f"{one['cpu_percent']:.0f} %"))
    driver = "" if found["driver"] == "none" else f", driver {found['driver']}"
    return [f"Backend {backend} ({found['gpu']}{driver}, commit {found['commit'][:12]}), {found['messages']} messages, "
            f"{found['pause_us']} µs from one's end to the next one's birth.", "",
            *performance.table(("way", "p50", "p99", what, "CPU, of one core"), rows)]


def tables(results):
    if not results or any(backend not in WHERE for backend in results):
        die(f"backends are {', '.join(WHERE)}, and one is there at least")
    made = [table(backend, results[backend]) for backend in WHERE if backend in results]
    return [line for one in made for line in (*one, "")][:-1]


def take(path):
    """A run comes into the results."""
    found = performance.load(path)
    backend = found.pop("backend", None)
    if backend not in WHERE:
        die(f"{path}: no backend {backend}")
    if backend == "host":
        model = re.search(r"^model name\s*: (.*)$", pathlib.Path("/proc/cpuinfo").read_text(), re.M)
        commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
        found = {"gpu": f"none: {model[1] if model else 'CPU'}, {os.cpu_count()} cores", "driver": "none", "commit": commit, **found}
    results = {**(performance.load(RESULTS) if os.path.exists(RESULTS) else {}), backend: found}
    tables(results)
    with open(RESULTS, "w", encoding="utf-8") as file:
        file.write(json.dumps(results, indent=1) + "\n")


def main(arguments):
    if "--take" in arguments:
        take(arguments[arguments.index("--take") + 1])
    page = os.path.join(ROOT, "docs", "arbitration.md")
    with open(page, encoding="utf-8") as file:
        text = file.read()
    pictures.put(page, performance.fill(text, {"arbitration": tables(performance.load(RESULTS))}, page), "--verify" in arguments, NAME)


if __name__ == "__main__":
    main(sys.argv[1:])
