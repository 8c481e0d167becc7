#!/usr/bin/env python3
"""Measures the limits of this machine and the library's figures beside them, and writes a result per suite.

Usage: bench.py FOLDER_OF_PROGRAMS FOLDER_FOR_RESULTS COMMIT [--host] [--quick] [--counters]

With --counters Nsight Compute counts what the kernels of large operations do, ours and the bare ones.
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


def better(first, second):
    """Of two measurements of one limit the one that is harder to reach."""
    rate = first["unit"].endswith("/s")
    return max(first, second, key=lambda row: row["value"] if rate else -row["value"])


def limit_of(row, limits, rows):
    """What a row stands beside: a name and a value."""
    known = {"count_to_host": ("kernel writes mapped memory, host polls", ["count_to_host"]),
             "hop_gpu": ("kernel + record + wait + kernel behind a gate kernel", ["hop_pair"]),
             "hop_gpu_64_records": ("kernel + record + wait + kernel behind a gate kernel", ["hop_pair"]),
             "graph_push": ("one-increment kernel node", ["graph_node"]),
             "graph_pop": ("one-increment kernel node", ["graph_node"]),
             "graph_pop_host_count": ("one-increment kernel node", ["graph_node"]),
             "queue_240B": ("ring of a mutex and two condition variables", ["mutexed_queue_240B"])}
    bulk = re.fullmatch(r"bulk_(?:push|pop)_(\d+)B_(\w+)", row["id"])
    if bulk:
        name, parts = "memcpy of the same payload", [f"memcpy_{payload_bytes(int(bulk[1]), bulk[2])}"]
    elif row["id"].startswith("focus_under_load"):
        return "the same on an idle GPU", rows["focus_idle"]["value"]
    elif row["id"] in ("push_host_cost", "pop_host_cost"):
        return "raw launch + measured record and wait", rows["raw_host_cost"]["value"]
    elif row["id"].startswith("look_up") and "call_alone" in rows:
        return "a call that looks nothing up", rows["call_alone"]["value"]
    elif row["id"] in known:
        name, parts = known[row["id"]]
    else:
        return None, None
    return name, sum(limits[part]["value"] for part in parts)


def floor_of(row, limits, agreed=False):
    """What the same work takes in kernels that only move the records, or agree as little as possible besides."""
    bulk = re.fullmatch(r"bulk_(push|pop)_(\w+)", row["id"])
    last, firsts = ("agreed", ["agreed"]) if agreed else ("moving", ["records", "drawn"])
    names = [{"count_to_host": f"count_to_host_{last}", "hop_gpu": f"hop_pair_{last}"}.get(row["id"])]
    if bulk:
        names = [f"{first}_{'in' if bulk[1] == 'push' else 'out'}_{bulk[2]}" for first in firsts]
    return min((limits[name]["value"] for name in names if name in limits), default=None)


# What is counted, and under which name it is kept.
COUNTERS = {"gpu__time_duration.sum": "ns", "dram__bytes_read.sum": "read", "dram__bytes_write.sum": "written",
            "dram__throughput.avg.pct_of_peak_sustained_elapsed": "memory", "lts__t_sector_hit_rate.pct": "l2",
            "sm__warps_active.avg.pct_of_peak_sustained_active": "warps",
            "smsp__issue_active.avg.pct_of_peak_sustained_active": "issue"}
SCALE = {"byte": 1, "Kbyte": 1e3, "Mbyte": 1e6, "Gbyte": 1e9, "ns": 1, "us": 1e3, "ms": 1e6, "usecond": 1e3, "msecond": 1e6, "nsecond": 1}


def counters(programs):
    """What the profiler counts of one operation each: the last push, and the first pop after it, as the rows time them."""
    rows = []
    for size in ("240B_16MB", "240B_63MB", "240B_503MB", "1008B_503MB"):
        bare = (f"records_in_{size}", ("move_records<1, 0>", "move_records<0, 0>"))
        if not size.endswith("16MB"):
            bare = (f"drawn_out_{size}", ("move_records<1, 0>", "draw_records"))
        for program, only, kernels in (("mailbox", f"bulk_push_{size}", ("gmb_kernel_push", "gmb_kernel_pop")),
                                       ("limits", *bare)):
            # The whole program again for each group of counters: to run a kernel again, the profiler would put back what it
            # has written, and that leaves other things in the cache.
            command = ["ncu", "--csv", "--page", "raw", "--replay-mode", "application", "--clock-control", "none",
                       "--cache-control", "none", "--metrics", ",".join(COUNTERS), "-k", "regex:gmb_kernel_p|move_records|draw_records", "--launch-count", "9",
                       str(programs / program), "--quick", "--only", only]
            print(f"== counters {size}, {program}", flush=True)
            text = subprocess.run(command, capture_output=True, text=True, timeout=240).stdout
            table = list(csv.reader(line for line in text.splitlines() if line.startswith('"')))
            if len(table) < 3:
                print(text[-2000:], file=sys.stderr)
                return []
            titles, units, seen = table[0], table[1], {kernel: [] for kernel in kernels}
            for line in table[2:]:
                seen[next(k for k in kernels if k in line[titles.index("Kernel Name")])].append(line)
            for way, kernel, which in zip(("push", "pop"), kernels, (-1, -2)):
                line = seen[kernel][which]
                row = {"id": f"{way}_{size}", "kernel": "ours" if program == "mailbox" else "bare"}
                for metric, name in COUNTERS.items():
                    at = titles.index(metric)
                    row[name] = round(float(line[at].replace(",", "")) * SCALE.get(units[at], 1), 2)
                rows.append(row)
    return rows


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
    sizes = [payload_bytes(p, s) for p in PAYLOADS for s in (HOST_SIZES if host else SIZES)]
    copies = ["--memcpy", ",".join(str(size) for size in sorted(set(sizes)))]
    tail = "_host" if host else ""
    limits, good = measure(programs / f"limits{tail}", *copies, *quick)
    rows, also_good = measure(programs / f"mailbox{tail}", *quick)
    # Before and after: what the machine does must not depend on when it was asked.
    again, still_good = measure(programs / f"limits{tail}", *copies, *quick)
    limits = {name: better(row, again.get(name, row)) for name, row in limits.items()}
    listed = []
    for row in rows.values():
        name, limit = limit_of(row, limits, rows)
        if name is not None:
            row = dict(row, limit_name=name, limit=limit)
        floors = {"floor": floor_of(row, limits), "agreed": floor_of(row, limits, agreed=True)}
        listed.append(dict(row, **{key: value for key, value in floors.items() if value is not None}))
    results.mkdir(parents=True, exist_ok=True)
    about = dict(facts(host), commit=commit)
    for suite, those in (("limits", list(limits.values())), ("mailbox", listed)):
        (results / f"{suite}.json").write_text(json.dumps(dict(about, rows=those), indent=1) + "\n")
    if "--counters" in sys.argv:
        counted = counters(programs)
        still_good = still_good and counted != []
        (results / "counters.json").write_text(json.dumps(dict(about, rows=counted), indent=1) + "\n")
    for row in listed:
        beside = f"  beside {row['limit']:.3f}: {row['limit_name']}" if "limit" in row else ""
        print(f"{row['id']:<34} {row['value']:>12.3f} {row['unit']}{beside}")
    return 0 if good and also_good and still_good else 1


if __name__ == "__main__":
    sys.exit(main())
