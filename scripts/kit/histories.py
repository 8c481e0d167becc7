#!/usr/bin/env python3
"""Histories of shared mailboxes, work queues and doorbells on this machine's GPU, checked on its CPU: tests/history.

Usage: python3 histories.py FOLDER OPERATIONS [SEED...]: so many operations with each seed, and a part of them with delays in
the kernels; writes FOLDER/history.json.
"""
import json
import os
import pathlib
import re
import subprocess
import sys

KIT = pathlib.Path(__file__).resolve().parent
TOLD = re.compile(r"(\d+) operations succeeded in (\d+) rounds, (\d+) records; (\d+) of them were launches; (\d+) failed")
# Modes of the driver in which it must work, too: one queue to the device for all streams, and launches that wait.
MODES = {"plain": {}, "one connection": {"CUDA_DEVICE_MAX_CONNECTIONS": "1"}, "launches wait": {"CUDA_LAUNCH_BLOCKING": "1"}}


def check(program, seed, operations, mode="plain", limit=500):
    """One run: what it told, and whether nothing was wrong."""
    try:
        ran = subprocess.run([str(KIT / "bin" / program), str(seed), str(operations)], env=dict(os.environ, **MODES[mode]),
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=limit)
        code, text = ran.returncode, ran.stdout
    except subprocess.TimeoutExpired as late:
        code, text = 124, (late.stdout or b"").decode(errors="replace") + f"timed out after {limit} s"
    told = TOLD.search(text)
    keys = ("operations", "rounds", "records", "launches", "failed")
    tick = re.search(r"ticks every (\d+) ns", text)
    return {"program": program, "seed": seed, "mode": mode, "result": "ok" if code == 0 and told else "FAILED",
            **dict(zip(keys, map(int, told.groups()) if told else [0] * 5)), "tick_ns": int(tick[1]) if tick else None,
            **({} if code == 0 else {"output": text[-2000:]})}


def all_modes(operations, seed):
    """A look at each program in each mode. A command is a trip to the host and back, so there are fewer of them."""
    runs, all_operations = [], operations
    for program, part in (("history", 1), ("queues", 1), ("commands", 20)):
        operations = all_operations // part
        runs += [check(program, seed, operations, limit=100), check(f"{program}-chaos", seed + 1, operations // 10, limit=100)]
        runs += [check(program, seed + 2, operations // 10, mode, limit=100) for mode in MODES if mode != "plain"]
    return runs


def main():
    out, operations = pathlib.Path(sys.argv[1]), int(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    tree = json.loads((KIT / "tree.json").read_text())
    runs = []
    for seed in map(int, sys.argv[3:] or ["1"]):
        runs += [check("history", seed, operations), check("history-chaos", seed, operations // 40)]
        # What is known so far: little is lost if this is ended.
        told = json.dumps({"commit": tree["commit"], "trees": tree["trees"], "runs": runs}, indent=1)
        (out / "history.json").write_text(told + "\n")
        print(f"seed {seed}: {sum(run['operations'] for run in runs)} operations so far", flush=True)
    wrong = [run for run in runs if run["result"] != "ok"]
    print(f"{sum(run['operations'] for run in runs)} operations in {len(runs)} runs; wrong: {wrong or 'none'}")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
