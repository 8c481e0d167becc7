#!/usr/bin/env python3
"""Measures the limits of this machine and the library's figures beside them, and writes a result per suite.

Usage: bench.py FOLDER_OF_PROGRAMS FOLDER_FOR_RESULTS COMMIT [--host] [--quick] [--counters] [--queues] [--doorbells]

With --queues only the work queues are measured, which stand beside each other, with --doorbells only doorbells, FIFOs and
arbiters, and the bare doorbell in turns with ours. With --counters Nsight Compute counts what the kernels of large operations do, ours and the bare ones.
"""
import csv
import json
import os
import pathlib
import re
import subprocess
import sys

SIZES = {"1MB": 983040, "16MB": 15728640, "63MB": 62914560, "503MB": 503316480}
PAYLOADS = (48, 112, 240, 1008, 4080)
HOST_SIZES = ("1MB", "16MB", "63MB")


def payload_bytes(payload, size):
    return SIZES[size] // payload * payload


def measure(program, *arguments):
    """A program's rows by id, and whether all of them could be measured."""
    print(f"== {program.name} {' '.join(arguments)}".rstrip(), flush=True)
    done = subprocess.run([str(program), *arguments], stdout=subprocess.PIPE, text=True, timeout=480)
    try:
        rows = {row["id"]: row for row in json.loads(done.stdout)["rows"]}
    except ValueError:
        rows = {}
    return rows, done.returncode == 0 and rows != {}


# What a process was given of the machine makes a microsecond of these: the best of so many processes stands.
BY_PROCESS, PROCESSES = "count_to_host,doorbell", 5


def better(first, second):
    """Of two measurements of one limit the one that is harder to reach."""
    rate = first["unit"].endswith("/s")
    return max(first, second, key=lambda row: row["value"] if rate else -row["value"])


def with_limit(row, limits, rows):
    """The row with the value of what it stands beside: one of the machine's limits, or another row."""
    told = {key: value for key, value in row.items() if key != "limit_id"}
    limit = row.get("limit_id")
    if limit is None:
        return told
    return dict(told, limit=(limits[limit] if limit in limits else rows[limit])["value"])


def floor_of(row, limits, agreed=False):
    """What the same work takes in kernels that only move the records, or agree as little as possible besides."""
    bulk = re.fullmatch(r"bulk_(push|pop)_(\w+)", row["id"])
    last, firsts = ("agreed", ["agreed", "agreed_drawn"]) if agreed else ("moving", ["records", "drawn"])
    names = [{"count_to_host": f"count_to_host_{last}", "hop_gpu": f"hop_pair_{last}"}.get(row["id"])]
    if bulk:
        names = [f"{first}_{'in' if bulk[1] == 'push' else 'out'}_{bulk[2]}" for first in firsts]
    return min((limits[name]["value"] for name in names if name in limits), default=None)


# What is counted, and under which name it is kept.
COUNTERS = {"gpu__time_duration.sum": "ns", "dram__bytes_read.sum": "read", "dram__bytes_write.sum": "written",
            "dram__throughput.avg.pct_of_peak_sustained_elapsed": "memory", "lts__t_sector_hit_rate.pct": "l2",
            "sm__warps_active.avg.pct_of_peak_sustained_active": "warps",
            "smsp__issue_active.avg.pct_of_peak_sustained_active": "issue"}
# What warps wait for, as a share of their time.
WAITED = "smsp__average_warp_latency_per_inst_issued.ratio"
WAITS = {f"smsp__average_warps_issue_stalled_{what}_per_issue_active.ratio": name for what, name in
         (("long_scoreboard", "loads"), ("membar", "fences"), ("no_instruction", "fetches"), ("barrier", "barriers"))}
SCALE = {"byte": 1, "Kbyte": 1e3, "Mbyte": 1e6, "Gbyte": 1e9, "ns": 1, "us": 1e3, "ms": 1e6, "usecond": 1e3, "msecond": 1e6, "nsecond": 1}


def counted():
    """What the profiler looks at: a program, its options, and of each kernel the row, whose it is, its name and which of
    its launches. Of bulk rows that is the last push, and the first pop after it, as the rows time them."""
    for size in ("240B_1MB", "240B_16MB", "240B_63MB", "240B_503MB", "1008B_503MB"):
        draws = size.endswith(("63MB", "503MB"))
        yield "mailbox", ["--only", f"bulk_push_{size}"], [(f"{way}_{size}", "ours", f"gmb_kernel_{way}", which)
                                                         for way, which in (("push", -1), ("pop", -2))]
        for kind, agreed in (("bare", 0), ("agreed", 1)):
            push = [(f"push_{size}", kind, f"move_records<1, {agreed}>", -1)]
            pop = [(f"pop_{size}", kind, f"draw_records_out<{agreed}>" if draws else f"move_records<0, {agreed}>", -2)]
            one, other = ("agreed_in", "agreed_drawn_out") if agreed else ("records_in", "drawn_out")
            if agreed and draws:
                one, push = "agreed_drawn_in", [(f"push_{size}", kind, "draw_records_in", -1)]
            if not draws:
                yield "limits", ["--only", f"{one}_{size}"], push + pop
                continue
            yield "limits", ["--only", f"{one}_{size}"], push
            yield "limits", ["--only", f"{other}_{size}"], pop
    yield "mailbox", ["--only", "count_to_host"], [("count_to_host", "ours", "gmb_kernel_pop", -1)]
    for kind, agreed in (("moving", 0), ("agreed", 1)):
        whose = "agreed" if agreed else "bare"
        yield "limits", ["--only", f"count_to_host_{kind}"], [("count_to_host", whose, f"move_records<0, {agreed}>", -1)]
    both = (("hop_gpu_push", 1, "push"), ("hop_gpu_pop", 0, "pop"))
    yield "mailbox", ["--open", "--only", "hop_gpu"], [(row, "ours", f"gmb_kernel_{way}", -1) for row, _, way in both]
    for kind, agreed in (("moving", 0), ("agreed", 1)):
        yield "limits", ["--open", "--only", f"hop_pair_{kind}"], [
            (row, "agreed" if agreed else "bare", f"move_records<{way}, {agreed}>", -1) for row, way, _ in both]


def counters(programs):
    """What the profiler counts of one operation each."""
    rows = []
    for program, options, kernels in counted():
        # The whole program again for each group of counters: to run a kernel again, the profiler would put back what it
        # has written, and that leaves other things in the cache.
        command = ["ncu", "--csv", "--page", "raw", "--replay-mode", "application", "--clock-control", "none",
                   "--cache-control", "none", "--metrics", ",".join([*COUNTERS, *WAITS, WAITED]),
                   "-k", "regex:gmb_kernel_p|move_records|draw_records", "--launch-count", "9",
                   str(programs / program), "--quick", *options]
        print(f"== counters: {program} {' '.join(options)}", flush=True)
        text = subprocess.run(command, capture_output=True, text=True, timeout=240).stdout
        table = list(csv.reader(line for line in text.splitlines() if line.startswith('"')))
        if len(table) < 3:
            print(text[-2000:], file=sys.stderr)
            return []
        titles, units = table[0], table[1]

        def value(line, metric):
            at = titles.index(metric)
            return float(line[at].replace(",", "")) * SCALE.get(units[at], 1)

        for row, whose, kernel, which in kernels:
            lines = [line for line in table[2:] if kernel in line[titles.index("Kernel Name")]]
            if not lines:
                print(f"no {kernel} among {[line[titles.index('Kernel Name')] for line in table[2:]]}", file=sys.stderr)
                return []
            line = lines[which]
            seen = {name: round(value(line, metric), 2) for metric, name in COUNTERS.items()}
            seen.update({name: round(100 * value(line, metric) / value(line, WAITED), 2) for metric, name in WAITS.items()})
            rows.append({"id": row, "kernel": whose, **seen})
    return rows


QUEUES = ("queue", "broker")
DOORBELLS = ("doorbell", "fifo", "arbiter")


def told(row):
    beside = f"  beside {row['limit']:.3f}: {row['limit_name']}" if "limit" in row else ""
    print(f"{row['id']:<34} {row['value']:>12.3f} {row['unit']}{beside}")


def queues(programs, results, commit, quick):
    """The suite `queues` alone."""
    rows, good = measure(programs / "mailbox", "--only", ",".join(QUEUES), *quick)
    listed = [with_limit(row, {}, rows) for row in rows.values()]
    results.mkdir(parents=True, exist_ok=True)
    (results / "queues.json").write_text(json.dumps(dict(facts(False), commit=commit, rows=listed), indent=1) + "\n")
    for row in listed:
        told(row)
    return 0 if good else 1


def doorbells(programs, results, commit, quick):
    """The suite `doorbells` alone, arbiters among it: of the trips there and back the best of several processes, as in the whole."""
    limits, rows, good = {}, {}, True
    for process in range(PROCESSES):
        ours = DOORBELLS if process == 0 else DOORBELLS[:1]
        for program, known, only in (("limits", limits, "doorbell"), ("mailbox", rows, ",".join(ours))):
            fresh, fine = measure(programs / program, "--only", only, *quick)
            good = good and fine
            known.update((name, better(known.get(name, row), row)) for name, row in fresh.items())
    listed = [with_limit(row, limits, {}) for row in rows.values()] if limits else []
    results.mkdir(parents=True, exist_ok=True)
    (results / "doorbells.json").write_text(json.dumps(dict(facts(False), commit=commit, rows=listed), indent=1) + "\n")
    for row in listed:
        told(row)
    return 0 if good else 1


def facts(host):
    """Which machine this is."""
    if host:
        model = re.search(r"^model name\s*: (.*)$", pathlib.Path("/proc/cpuinfo").read_text(), re.M)
        return {"gpu": f"none: {model[1] if model else 'CPU'}, {os.cpu_count()} cores", "driver": "none", "cuda": "none"}
    told = subprocess.run(["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"],
                          capture_output=True, text=True, check=True).stdout
    name, driver = [part.strip() for part in told.strip().splitlines()[0].split(",")]
    release = re.search(r"release ([\d.]+)", subprocess.run(["nvcc", "--version"], capture_output=True, text=True).stdout)
    return {"gpu": name, "driver": driver, "cuda": release[1] if release else "unknown"}


def main():
    programs, results, commit = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3]
    host = "--host" in sys.argv
    quick = [a for a in sys.argv if a == "--quick"]
    if "--queues" in sys.argv:
        return queues(programs, results, commit, quick)
    if "--doorbells" in sys.argv:
        return doorbells(programs, results, commit, quick)
    sizes = [payload_bytes(p, s) for p in PAYLOADS for s in (HOST_SIZES if host else SIZES)]
    copies = ["--memcpy", ",".join(str(size) for size in sorted(set(sizes)))]
    tail = "_host" if host else ""
    limits, good = measure(programs / f"limits{tail}", *copies, *quick)
    rows, also_good = measure(programs / f"mailbox{tail}", *quick)
    # Before and after: what the machine does must not depend on when it was asked.
    again, still_good = measure(programs / f"limits{tail}", *copies, *quick)
    limits = {name: better(row, again.get(name, row)) for name, row in limits.items()}
    for _ in range(0 if host else PROCESSES - 1):
        for program, all_rows in (("limits", limits), ("mailbox", rows)):
            fresh, fine = measure(programs / program, "--only", BY_PROCESS, *quick)
            still_good = still_good and fine
            all_rows.update((name, better(all_rows.get(name, row), row)) for name, row in fresh.items())
    listed = []
    for row in rows.values():
        row = with_limit(row, limits, rows)
        floors = {"floor": floor_of(row, limits), "agreed": floor_of(row, limits, agreed=True)}
        listed.append(dict(row, **{key: value for key, value in floors.items() if value is not None}))
    results.mkdir(parents=True, exist_ok=True)
    about = dict(facts(host), commit=commit)
    of_queues, of_bells = ([row for row in listed if row["id"].startswith(ids)] for ids in (QUEUES, DOORBELLS))
    suites = {"limits": list(limits.values()), "mailbox": [row for row in listed if row not in of_queues + of_bells],
              "queues": of_queues, "doorbells": of_bells}
    for suite, those in suites.items():
        if not those:
            continue
        (results / f"{suite}.json").write_text(json.dumps(dict(about, rows=those), indent=1) + "\n")
    if "--counters" in sys.argv:
        counted = counters(programs)
        still_good = still_good and counted != []
        (results / "counters.json").write_text(json.dumps(dict(about, rows=counted), indent=1) + "\n")
    for row in listed:
        told(row)
    return 0 if good and also_good and still_good else 1


if __name__ == "__main__":
    sys.exit(main())
