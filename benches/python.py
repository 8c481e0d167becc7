#!/usr/bin/env python3
"""Rows `python_*` and `tensor_handoff_python`: the package beside what a user of PyTorch writes without it.

Usage: python.py FOLDER_FOR_RESULTS COMMIT [--quick]     (PyTorch with CUDA, and the package, must be installed)
Host time per operation, of medians over runs of loops; both sides in turns, in one process. Of several processes the middle one.
"""
import itertools
import json
import pathlib
import subprocess
import sys
import time

import torch
import torch.utils.dlpack

import gpumailbox

RECORDS, FLOATS, CAPACITY, LOOP = 64, 60, 1 << 14, 64
RUNS = 20 if "--quick" in sys.argv else 200
WARM = 10
PROCESSES = 1 if "--quick" in sys.argv else 5


def in_turns(*ways, after=lambda: None):
    """Microseconds of an operation for each way, over the runs; each way is a function that makes one. What comes after a
    loop of them is not counted."""
    times = [[] for _ in ways]
    for run in range(-WARM, RUNS):
        for way, of in zip(ways, times):
            torch.cuda.synchronize()
            start = time.perf_counter_ns()
            for _ in range(LOOP):
                way()
            taken = (time.perf_counter_ns() - start) / 1e3 / LOOP
            after()
            if run >= 0:
                of.append(taken)
    return times


class Ring:
    """What is written without the package: a ring in a tensor, its counts on the device."""

    def __init__(self):
        self.slots = torch.zeros(CAPACITY, FLOATS, device="cuda")
        self.ready = torch.full((), RECORDS, dtype=torch.int64, device="cuda")
        self.written = self.read = 0

    def push(self, rows):
        at = self.written % CAPACITY
        self.slots[at:at + len(rows)].copy_(rows)
        self.written += len(rows)

    def pop(self):
        count = self.ready.cpu().item()
        at = self.read % CAPACITY
        self.read += count
        return self.slots[at:at + count].clone()


def records(context):
    rows, out = torch.randn(RECORDS, FLOATS, device="cuda"), torch.empty(RECORDS, FLOATS, device="cuda")
    ring, mailbox = Ring(), context.mailbox(CAPACITY, dtype=torch.float32, shape=(FLOATS,), full_policy="overwrite_oldest")
    pushes = in_turns(lambda: mailbox.push(rows), lambda: ring.push(rows))
    mailbox = context.mailbox(CAPACITY, dtype=torch.float32, shape=(FLOATS,))

    pops = ([], [])
    for run in range(-WARM, RUNS):
        for kept, box in ((pops[0], mailbox), (pops[1], ring)):
            for _ in range(LOOP):
                box.push(rows)
            torch.cuda.synchronize()
            start = time.perf_counter_ns()
            for _ in range(LOOP):
                popped = box.pop(RECORDS, out=out) if box is mailbox else box.pop()
            taken = (time.perf_counter_ns() - start) / 1e3 / LOOP
            if len(popped) != RECORDS or not torch.equal(popped, rows):
                raise AssertionError("what was popped is not what was pushed")
            if run >= 0:
                kept.append(taken)
    return pushes, pops


def hops(context):
    rows, out = torch.randn(RECORDS, FLOATS, device="cuda"), torch.empty(RECORDS, FLOATS, device="cuda")
    first, second = torch.cuda.Stream(), torch.cuda.Stream()
    # Nobody waits for a count here, so each pop of a loop tells it to a token of its own.
    tokens = itertools.cycle([context.token() for _ in range(LOOP)])
    mailbox, slots, event = context.mailbox(CAPACITY, dtype=torch.float32, shape=(FLOATS,)), torch.empty_like(rows), torch.cuda.Event()

    def ours():
        mailbox.push(rows, stream=first)
        mailbox.pop(RECORDS, out=out, stream=second, token=next(tokens))

    def theirs():
        with torch.cuda.stream(first):
            slots.copy_(rows)
            event.record()
        with torch.cuda.stream(second):
            event.wait()
            out.copy_(slots)

    return in_turns(ours, theirs)


def handoffs(context):
    """A tensor's push and its pop, the same with the end of what was popped, and out of PyTorch and in again without a
    mailbox."""
    rows, mailbox, popped = torch.randn(RECORDS, FLOATS, device="cuda"), context.tensor_mailbox(1024), []
    push, pop, keep, kind = mailbox.push, mailbox.pop, popped.append, torch.Tensor
    give, take = torch.utils.dlpack.to_dlpack, torch.utils.dlpack.from_dlpack

    def handoff():
        push(rows)
        keep(pop(like=kind))

    def released():
        push(rows)
        pop(like=kind)

    def end():
        if any(tensor.data_ptr() != rows.data_ptr() for tensor in popped):
            raise AssertionError("another tensor came out")
        popped.clear()
        while mailbox.stats()["retiring"]:
            pass

    def in_a_stream(stream):
        with torch.cuda.stream(stream):
            return in_turns(handoff, released, lambda: keep(take(give(rows))), after=end)

    return in_a_stream(torch.cuda.Stream()), in_a_stream(torch.cuda.default_stream())


def row(name, times, limit_name=None, limit=None):
    ordered = sorted(times)
    made = {"id": name, "unit": "µs", "value": ordered[len(ordered) // 2], "runs": len(ordered), "min": ordered[0],
            "p99": ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)]}
    if limit is not None:
        made.update(limit_name=limit_name, limit=sorted(limit)[len(limit) // 2])
    return made


def measured():
    context = gpumailbox.Context("cuda")
    # Clocks rise, and everything is loaded.
    busy = torch.randn(4096, 4096, device="cuda")
    for _ in range(50):
        busy = busy @ busy / 64
    pushes, pops = records(context)
    hop, ((handoff, released, exchanged), (in_default, *_)) = hops(context), handoffs(context)
    return [row("python_push", pushes[0], "torch: a slice of a ring, copy_", pushes[1]),
            row("python_pop", pops[0], "torch: count.cpu().item(), a slice, clone", pops[1]),
            row("python_hop", hop[0], "torch: copy_, event, wait, copy_", hop[1]),
            row("tensor_handoff_python", handoff, "torch: from_dlpack(to_dlpack(tensor)), and no mailbox", exchanged),
            row("python_handoff_default_stream", in_default),
            row("python_handoff_and_release", released)]


def typical(rows):
    """Of one row of several processes the middle one: what a process is given of the machine makes a tenth of it."""
    return sorted(rows, key=lambda made: made["value"] / made.get("limit", 1))[len(rows) // 2]


def main():
    if "--one" in sys.argv:
        print(json.dumps(measured()))
        return
    results, commit = pathlib.Path(sys.argv[1]), sys.argv[2]
    one = [sys.executable, __file__, "--one", *(["--quick"] if "--quick" in sys.argv else [])]
    runs = [json.loads(subprocess.run(one, stdout=subprocess.PIPE, check=True).stdout) for _ in range(PROCESSES)]
    rows = [typical(of_one) for of_one in zip(*runs)]
    told = subprocess.run(["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"], capture_output=True,
                          text=True, check=True).stdout
    name, driver = [part.strip() for part in told.strip().splitlines()[0].split(",")]
    results.mkdir(parents=True, exist_ok=True)
    about = {"gpu": name, "driver": driver, "cuda": torch.version.cuda, "commit": commit, "torch": torch.__version__,
             "processes": PROCESSES}
    (results / "python.json").write_text(json.dumps(dict(about, rows=rows), indent=1) + "\n")
    for made in rows:
        beside = f"  beside {made['limit']:.3f}: {made['limit_name']}" if "limit" in made else ""
        print(f"{made['id']:<26} {made['value']:>9.3f} µs{beside}")


if __name__ == "__main__":
    main()
