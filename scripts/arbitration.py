#!/usr/bin/env python3
"""Writes what the example arbitration found (tests/results/arbitration.json, by arbitration --json) into the table of
docs/arbitration.md. With --verify it fails when it is out of date.
"""

import os
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import performance  # noqa: E402
import pictures  # noqa: E402

NAME = "scripts/arbitration.py"
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
RESULTS = os.path.join(ROOT, "tests", "results", "arbitration.json")
# In the order of the page, with the blocks that stay in each.
WAYS = {"by the CPU": 0, "by the device, each looks itself": 3, "by an arbiter on the device": 4}
WHERE = {"cuda": "blocks that stay on the GPU", "host": "threads that stay, in place of a GPU's blocks"}


def die(words):
    sys.exit(f"error: {RESULTS}: {words}")


def table(found):
    ways = {one["way"]: one for one in found["ways"]}
    if set(ways) != set(WAYS) or len(found["ways"]) != len(WAYS):
        die(f"not the ways {', '.join(WAYS)}")
    if found["backend"] not in WHERE:
        die(f"no backend {found['backend']}")
    rows = []
    for way, blocks in WAYS.items():
        one = ways[way]
        # Otherwise the example did not write it.
        if one["blocks"] != blocks or not 0 < one["p50_us"] <= one["p99_us"] or one["cpu_percent"] < 0:
            die(f"{way}: what it says cannot be")
        rows.append((way, f"{one['p50_us']:.2f} µs", f"{one['p99_us']:.2f} µs", str(blocks), f"{one['cpu_percent']:.0f} %"))
    return [f"Backend {found['backend']}, {found['messages']} messages, {found['pause_us']} µs from one's end to the next one's "
            "birth.", "", *performance.table(("way", "p50", "p99", WHERE[found["backend"]], "CPU, of one core"), rows)]


def main(verify):
    page = os.path.join(ROOT, "docs", "arbitration.md")
    with open(page, encoding="utf-8") as file:
        text = file.read()
    pictures.put(page, performance.fill(text, {"arbitration": table(performance.load(RESULTS))}, page), verify, NAME)


if __name__ == "__main__":
    main("--verify" in sys.argv[1:])
