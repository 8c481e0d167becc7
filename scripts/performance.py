#!/usr/bin/env python3
"""Writes what was measured (benches/results/GPU/SUITE.json) against the goals (benches/goals.json) into the tables of
docs/performance.md and into pictures. With --verify it fails when they are out of date; --root takes another tree.
"""

import argparse
import glob
import json
import math
import os
import re
import sys
from xml.sax.saxutils import escape

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import pictures  # noqa: E402

NAME = "scripts/performance.py"
NOTHING = "not measured yet"
TIMES = {"s": 1e6, "ms": 1e3, "µs": 1.0, "us": 1.0, "ns": 1e-3}
KINDS = ("ratio_min", "ratio_max", "over_max", "value_min", "value_max")
# Rows whose limit is slower than this are not in the picture of small latencies.
SMALL_US = 11


def die(words):
    sys.exit(f"error: {words}")


def load(path):
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except (OSError, ValueError) as problem:
        die(f"{path}: {problem}")


def is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def number(value):
    """Three or four digits that count, never an exponent."""
    size = abs(value)
    return f"{value:.{0 if size >= 1000 else 1 if size >= 100 else 2 if size >= 10 else 3}f}"


def cell(words):
    return str(words).replace("|", "\\|").replace("\n", " ")


def table(titles, rows):
    lines = ["| " + " | ".join(titles) + " |", "|" + "---|" * len(titles)]
    return lines + ["| " + " | ".join(cell(c) for c in row) + " |" for row in rows]


class Machine:
    """One folder of results: rows of the suites, and apart from them those of the suite `limits`."""

    def __init__(self, folder):
        self.name = os.path.basename(folder)
        if not re.fullmatch(r"[A-Za-z0-9._-]+", self.name):
            die(f"{folder}: the name of a folder of results has letters, digits, dots and dashes only")
        self.facts, self.commits, self.rows, self.limits, self.counters = None, [], {}, {}, []
        for path in sorted(glob.glob(os.path.join(folder, "*.json"))):
            self.read(path)

    def read(self, path):
        suite, data = os.path.basename(path)[:-len(".json")], load(path)
        for key in ("gpu", "driver", "cuda", "commit"):
            if not isinstance(data, dict) or not isinstance(data.get(key), str):
                die(f"{path}: \"{key}\" is missing")
        facts = (data["gpu"], data["driver"], data["cuda"])
        if self.facts not in (None, facts):
            die(f"{path}: measured on {facts}, other suites of the folder on {self.facts}")
        self.facts = facts
        self.commits.append(f"{suite} {data['commit'][:10]}")
        into = self.limits if suite == "limits" else self.rows
        if not isinstance(data.get("rows"), list):
            die(f"{path}: \"rows\" is missing")
        if suite == "counters":
            self.counters = data["rows"]
            return
        for row in data["rows"]:
            if not isinstance(row, dict) or not isinstance(row.get("id"), str) or not isinstance(row.get("unit"), str):
                die(f"{path}: a row without \"id\" or \"unit\": {row}")
            if not is_number(row.get("value")) or not is_number(row.get("runs")):
                die(f"{path}: {row['id']}: \"value\" and \"runs\" are numbers")
            for key in ("limit", "floor", "agreed", "min", "p99", "bytes"):
                if row.get(key) is not None and not is_number(row[key]):
                    die(f"{path}: {row['id']}: \"{key}\" is no number")
            if row["id"] in into:
                die(f"{path}: {row['id']} is there twice")
            into[row["id"]] = row

    def head(self):
        gpu, driver, cuda = self.facts
        return [f"**{gpu}** ({self.name}), driver {driver}, CUDA {cuda}. Commits: {', '.join(self.commits)}.", ""]


def goals_of(path):
    goals, seen = load(path).get("goals"), set()
    for goal in goals or die(f"{path}: no goals"):
        if goal.get("kind") not in KINDS or not is_number(goal.get("goal")) or goal.get("id") in seen:
            die(f"{path}: not a goal, or twice: {goal}")
        seen.add(goal["id"])
    return goals


def same_unit(a, b):
    return a == b or (a in TIMES and TIMES[a] == TIMES.get(b))


def judge(goal, row):
    """The figure that the goal is about, in words, and whether it is met."""
    kind, bar, value, limit, unit = goal["kind"], goal["goal"], row["value"], row.get("limit"), row["unit"]
    if kind.startswith("value") or kind == "over_max":
        if not same_unit(unit, goal.get("unit", unit)):
            die(f"{row['id']}: measured in {unit}, and the goal is in {goal['unit']}")
    if kind == "value_max":
        return "", value <= bar
    if kind == "value_min":
        return "", value >= bar
    if limit is None:
        die(f"{row['id']}: its goal needs a limit")
    if kind == "over_max":
        return f"{'+' if value >= limit else '−'}{number(abs(value - limit))} {unit}", value - limit <= bar
    if limit <= 0 or value <= 0:
        die(f"{row['id']}: no ratio of {value} and {limit}")
    # ratio_min compares throughput, whether the row holds times or rates.
    ratio = limit / value if kind == "ratio_min" and unit in TIMES else value / limit
    return f"{number(ratio)} ×", ratio >= bar if kind == "ratio_min" else ratio <= bar


def goal_words(goal):
    bar = f"{goal['goal']:g} {goal.get('unit', '')}".strip()
    if goal["kind"].startswith("ratio"):
        bar = f"{goal['goal']:.2f} ×"
    if goal["kind"] == "over_max":
        return f"limit + {bar} at most"
    return f"{bar} at {'least' if goal['kind'].endswith('min') else 'most'}"


def quantity(row, key="value"):
    return "" if row.get(key) is None else f"{number(row[key])} {row['unit']}"


def notes(rows):
    said = [f"* `{row['id']}`: {row['note']}" for row in rows if row.get("note")]
    return [""] + said if said else []


def goal_tables(machines, goals):
    lines = []
    for machine in machines:
        mine = [machine.rows.get(goal["id"]) for goal in goals]
        if not any(mine):
            continue
        rows, met = [], 0
        for goal, row in zip(goals, mine):
            against = goal["limit"]
            if row is None:
                rows.append((f"`{goal['id']}`", "not measured", "", "", "", "", goal_words(goal), "not measured", against))
                continue
            figure, good = judge(goal, row)
            met += good
            rows.append((f"`{goal['id']}`", quantity(row), quantity(row, "floor"), quantity(row, "agreed"), quantity(row, "limit"), figure,
                         goal_words(goal), "yes" if good else "**no**", against))
        missing = mine.count(None)
        missed = len(goals) - met - missing
        lines += machine.head() + [f"{len(goals)} goals: {met} met, {missed} missed, {missing} not measured.", ""]
        lines += table(("row", "ours", "bare kernels", "bare, agreed", "limit", "ratio or difference", "goal", "met", "the limit, or what is measured"),
                       rows)
        lines += notes([row for row in mine if row]) + [""]
    return lines


def miss_tables(machines, goals):
    """Goals that were missed, beside what kernels without the library reach."""
    lines = []
    for machine in machines:
        rows = []
        counted = {(row["id"], row["kernel"]): row for row in machine.counters}
        for goal in goals:
            row = machine.rows.get(goal["id"])
            if row is None or judge(goal, row)[1] or row.get("floor") is None:
                continue
            cells, meets = [], []
            for value in (row["value"], row.get("agreed"), row["floor"]):
                figure, good = judge(goal, dict(row, value=value)) if value is not None else ("", False)
                cells.append(f"{number(value)} {row['unit']}: {figure}" if value is not None else "not measured")
                meets.append(good)
            # What is slower than ours says nothing of what is the least.
            beaten = row.get("agreed") is not None and row["agreed"] > row["value"]
            verdict = ("bare kernels miss it, too" if not meets[2] else
                       "bare kernels meet it; those measured that agree are slower than ours: open" if beaten else
                       "bare kernels meet it; with the least agreement they miss it" if not meets[1] else "within reach")
            name = re.sub(r"^bulk_", "", row["id"])
            alone, peaks = [], []
            for kind in ("ours", "agreed", "bare"):
                # A hop is two kernels.
                those = [counted[key, kind] for key in (name, f"{name}_push", f"{name}_pop") if (key, kind) in counted]
                alone.append(" + ".join(number(each["ns"] / 1e3) for each in those))
                peaks.append(" and ".join(number(each["memory"]) for each in those))
            rows.append((f"`{row['id']}`", goal_words(goal), *cells, "; ".join(alone), "; ".join(peaks), verdict))
        if rows:
            lines += machine.head() + table(
                ("row", "goal", "ours", "bare, with the least agreement", "bare", "kernels alone, µs: ours; agreed; bare",
                 "% of the memory's peak: ours; agreed; bare", ""), rows) + [""]
    return lines


def plain_tables(machines, choose):
    lines = []
    for machine in machines:
        rows = [row for _, row in sorted(choose(machine).items(), key=lambda item: natural(item[0]))]
        if not rows:
            continue
        with_limit = any(row.get("limit") is not None for row in rows)
        titles = ["row", "median or rate", "least", "99th percentile", "runs"] + ["limit", "the limit"] * with_limit
        lines += machine.head() + table(titles, [
            [f"`{row['id']}`", quantity(row), quantity(row, "min"), quantity(row, "p99"), f"{row['runs']:g}"] +
            [quantity(row, "limit"), row.get("limit_name", "")] * with_limit for row in rows])
        lines += notes(rows) + [""]
    return lines


def counter_tables(machines):
    lines = []
    for machine in machines:
        if machine.counters:
            lines += machine.head() + table(
                ["operation", "kernel", "time", "memory read", "written", "of the memory's peak", "hits in L2", "warps", "issue slots",
                 "loads", "fences", "barriers", "fetches"],
                [(f"`{row['id']}`", row["kernel"], f"{number(row['ns'] / 1e3)} µs", f"{number(row['read'] / 1e6)} MB",
                  f"{number(row['written'] / 1e6)} MB", f"{number(row['memory'])} %", f"{number(row['l2'])} %",
                  f"{number(row['warps'])} %", f"{number(row['issue'])} %",
                  *(f"{number(row[wait])} %" if wait in row else "" for wait in ("loads", "fences", "barriers", "fetches")))
                 for row in machine.counters]) + [""]
    return lines


def natural(text):
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", text)]


class Plot(pictures.Picture):
    """A picture with lines and dots in a few colours."""

    style = pictures.STYLE + """
  .grid { stroke: #8c959f; stroke-width: 1; stroke-opacity: 0.35; }
  .s { fill: none; stroke-width: 2.5; stroke-linejoin: round; }
  .memcpy { stroke: #8c959f; stroke-dasharray: 7 4; }
  .push { stroke: #2da44e; } .pop { stroke: #218bff; } .w1 { stroke-dasharray: 12 3; } .w2 { stroke-dasharray: 6 3; } .w3 { stroke-dasharray: 12 3 2 3; }
  .w4 { stroke-dasharray: 2 4; stroke-linecap: round; }
  .dot { stroke-dasharray: none; stroke-width: 5; stroke-linecap: round; }
"""

    def line(self, points, kind):
        self.parts.append(f'<path class="{kind}" d="M {" L ".join(f"{x:.1f} {y:.1f}" for x, y in points)}"/>')

    def series(self, points, kind):
        self.line(points, f"s {kind}")
        for x, y in points:
            self.parts.append(f'<path class="s {kind} dot" d="M {x:.1f} {y:.1f} h 0.01"/>')

    def bar(self, x, y, width, height, kind):
        self.parts.append(f'<rect class="{kind}" x="{x}" y="{y}" width="{max(width, 1):.1f}" height="{height}"/>')


def bulk_points(machine):
    """Bandwidth (TB/s, read and written) by payload bytes of one operation, for each series."""
    series, copies = {}, {}

    def add(points, bytes_, row, time):
        if row["unit"] in TIMES and time and bytes_:
            points.setdefault(bytes_, 2e-6 * bytes_ / (time * TIMES[row["unit"]]))

    for row in machine.limits.values():
        found = re.fullmatch(r"memcpy_(\d+)", row["id"])
        if found:
            add(copies, int(found[1]), row, row["value"])
    for row in machine.rows.values():
        found = re.fullmatch(r"bulk_(push|pop)_(\d+)B_(\d+)MB", row["id"])
        if not found:
            continue
        # The id's size is rounded; "bytes" is exact.
        bytes_ = row.get("bytes") or int(found[3]) * 10**6
        add(series.setdefault((int(found[2]), found[1]), {}), bytes_, row, row["value"])
        if not any(abs(known - bytes_) < bytes_ / 20 for known in copies):
            add(copies, bytes_, row, row.get("limit"))
    widths = sorted({width for width, _ in series})
    named = [("memcpy, device to device", "memcpy", copies)]
    for width, way in sorted(series, key=lambda key: (key[0], key[1] == "pop")):
        named.append((f"{way}, {width} B records", f"{way} w{widths.index(width)}", series[width, way]))
    return [entry for entry in named if entry[2]] if any(series.values()) else []


def size_words(value):
    for unit, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if value >= unit:
            return f"{value // unit} {name}"
    return f"{value} B"


def bandwidth(machine):
    named = bulk_points(machine)
    if not named:
        return None
    left, top, width, height = 70, 50, 640, 300
    sizes = [size for _, _, points in named for size in points]
    low, high = math.floor(math.log10(min(sizes))), math.ceil(math.log10(max(sizes)))
    high = max(high, low + 1)
    fastest = max(speed for _, _, points in named for speed in points.values())
    step = next(s * 10**e for e in range(-6, 3) for s in (1, 2, 5) if fastest / (s * 10**e) <= 6)
    lines = math.ceil(fastest / step)
    p = Plot(740, top + height + 64 + 22 * math.ceil(len(named) / 3), f"Bandwidth of bulk operations on {machine.facts[0]} by payload bytes of one operation")

    def at(size, speed):
        return (left + width * (math.log10(size) - low) / (high - low), top + height * (1 - speed / (lines * step)))

    p.text(left, 28, f"{machine.facts[0]}: TB/s, read and written", "name", "start")
    for i in range(lines + 1):
        x, y = at(10**low, i * step)
        p.line([(x, y), (x + width, y)], "grid")
        p.text(left - 10, f"{y + 4:.1f}", f"{i * step:g}"[:6], "small", "end")
    for power in range(low, high + 1):
        x, _ = at(10**power, 0)
        p.line([(x, top), (x, top + height)], "grid")
        p.text(f"{x:.1f}", top + height + 20, size_words(10**power), "small")
    p.text(left + width / 2, top + height + 40, "payload bytes of one operation", "small")
    for place, (words, kind, points) in enumerate(named):
        p.series([at(size, points[size]) for size in sorted(points)], kind)
        x, y = left + 215 * (place % 3), top + height + 64 + 22 * (place // 3)
        p.line([(x, y), (x + 30, y)], f"s {kind}")
        p.text(x + 38, y + 4, words, "small", "start")
    return p


def latencies(machine, goals):
    rows = [machine.rows[goal["id"]] for goal in goals if goal["id"] in machine.rows]
    rows = [row for row in rows if row["unit"] in TIMES and row.get("limit") is not None
            and not row["id"].startswith("bulk_")]
    rows = [(row["id"], row["value"] * TIMES[row["unit"]], row["limit"] * TIMES[row["unit"]]) for row in rows]
    rows = [row for row in rows if max(row[1:]) <= SMALL_US]
    if not rows:
        return None
    left, top, pitch, width = 190, 60, 44, 470
    longest = max(max(row[1:]) for row in rows) or 1
    p = Plot(740, top + pitch * len(rows) + 16, f"Small latencies on {machine.facts[0]} against their limits")
    p.text(20, 28, f"{machine.facts[0]}: microseconds", "name", "start")
    for x, kind, words in ((460, "gpu", "ours"), (560, "box", "the limit")):
        p.bar(x, 17, 24, 12, kind)
        p.text(x + 32, 28, words, "small", "start")
    for place, (id_, ours, limit) in enumerate(rows):
        y = top + pitch * place
        p.text(left - 10, y + 19, id_, "small", "end")
        for offset, value, kind in ((0, ours, "gpu"), (16, limit, "box")):
            p.bar(left, y + offset, width * value / longest, 14, kind)
            p.text(f"{left + width * value / longest + 8:.1f}", y + offset + 11, number(value), "small", "start")
    return p


def fill(text, blocks, path):
    """The document with what stands between the markers replaced."""
    unused = dict(blocks)

    def replace(found):
        name = found[1]
        if name not in unused:
            die(f"{path}: no table is called {name}, or it stands there twice")
        lines = unused.pop(name) or [NOTHING]
        return "\n".join([f"<!-- generated: {name} -->", *lines]).rstrip("\n") + "\n<!-- end -->"

    text = re.sub(r"<!-- generated: (\S+) -->\n(?:(?!<!-- generated).*\n)*?<!-- end -->", replace, text)
    if unused:
        die(f"{path}: no markers for {', '.join(unused)}")
    return text


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--verify", action="store_true")
    arguments.add_argument("--root", default=os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    chosen = arguments.parse_args()
    folders = sorted(glob.glob(os.path.join(chosen.root, "benches", "results", "*", "")))
    machines = [m for m in (Machine(folder.rstrip("/")) for folder in folders) if m.facts]
    goals = goals_of(os.path.join(chosen.root, "benches", "goals.json"))
    known = {goal["id"] for goal in goals}

    images = os.path.join(chosen.root, "docs", "images")
    drawn, links = {}, []
    for machine in machines:
        for kind, picture in (("bandwidth", bandwidth(machine)), ("latency", latencies(machine, goals))):
            if picture:
                name = f"{kind}-{machine.name}.svg"
                drawn[os.path.join(images, name)] = picture.svg()
                links += [f"![{escape(picture.title)}](images/{name})", ""]
    blocks = {
        "pictures": links,
        "goals": goal_tables(machines, goals),
        "misses": miss_tables(machines, goals),
        "limits": plain_tables(machines, lambda machine: machine.limits),
        "counters": counter_tables(machines),
        "others": plain_tables(machines, lambda machine: {k: v for k, v in machine.rows.items() if k not in known}),
    }
    page = os.path.join(chosen.root, "docs", "performance.md")
    try:
        with open(page, encoding="utf-8") as file:
            text = file.read()
    except OSError as problem:
        die(f"{page}: {problem}")
    pictures.put(page, fill(text, blocks, page), chosen.verify, NAME)
    for path, svg in drawn.items():
        pictures.put(path, svg, chosen.verify, NAME)
    for path in glob.glob(os.path.join(images, "bandwidth-*.svg")) + glob.glob(os.path.join(images, "latency-*.svg")):
        if path in drawn:
            continue
        if chosen.verify:
            die(f"{path}: nothing was measured for it: run {NAME}")
        os.remove(path)


if __name__ == "__main__":
    main()
