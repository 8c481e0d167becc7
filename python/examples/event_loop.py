#!/usr/bin/env python3
"""Two consumers in an asyncio program: each gets every record, and no thread waits for any."""
from __future__ import annotations

import argparse
import asyncio
import importlib
import importlib.util
from typing import Any, Callable

import numpy

import gpumailbox

TOTAL = 5000
BATCH = 50


def check(condition: bool, what: str) -> None:
    if not condition:
        raise RuntimeError(what)
    print(f"ok: {what}")


def open_device(backend: Any) -> tuple[gpumailbox.Context, Callable[[Any], Any], Callable[[Any], Any]]:
    """A context, and how arrays come onto its device and back: with PyTorch on a GPU, with NumPy on the host."""
    torch: Any = importlib.import_module("torch") if importlib.util.find_spec("torch") else None
    if backend == "auto" and not (torch and torch.cuda.is_available()):
        backend = "host"
    context = gpumailbox.Context(backend)
    if context.backend == "host":
        return context, numpy.asarray, numpy.from_dlpack
    return context, lambda array: torch.from_numpy(array).cuda(), lambda array: torch.from_dlpack(array).cpu().numpy()


async def produce(mailbox: gpumailbox.Mailbox, to_device: Callable[[Any], Any]) -> None:
    for first in range(0, TOTAL, BATCH):
        rows = numpy.zeros((BATCH, 4), numpy.int64)
        rows[:, 0] = numpy.arange(first, first + BATCH)
        # The slower of the two readers makes room: other tasks run meanwhile.
        await gpumailbox.wait_async(mailbox, BATCH, interest="writable", timeout=30)
        mailbox.push(to_device(rows))


async def iterate(mailbox: gpumailbox.Mailbox, to_host: Callable[[Any], Any], seen: list[int],
                  all_seen: asyncio.Event) -> None:
    """Reader 0: until the mailbox is closed."""
    async for records in mailbox:
        seen.extend(to_host(records)[:, 0].tolist())
        if len(seen) == TOTAL:
            all_seen.set()


async def await_each(mailbox: gpumailbox.Mailbox, to_host: Callable[[Any], Any], seen: list[int]) -> None:
    """Reader 1: few records at a time, with a limit."""
    while len(seen) < TOTAL:
        records = await mailbox.pop_async(16, reader=1, timeout=30)
        seen.extend(to_host(records)[:, 0].tolist())


async def run(backend: Any) -> None:
    context, to_device, to_host = open_device(backend)
    print(context)
    mailbox = context.mailbox(256, dtype="int64", shape=(4,), readers=2)
    first: list[int] = []
    second: list[int] = []
    all_seen = asyncio.Event()
    iterating = asyncio.create_task(iterate(mailbox, to_host, first, all_seen))
    await asyncio.wait_for(
        asyncio.gather(produce(mailbox, to_device), await_each(mailbox, to_host, second), all_seen.wait()), 120)

    check(first == list(range(TOTAL)), f"reader 0 saw {TOTAL} records, in their order")
    check(second == list(range(TOTAL)), f"reader 1 saw the same {TOTAL}")
    try:
        await mailbox.pop_async(1, timeout=0.01)
        raise RuntimeError("a record came out of an empty mailbox")
    except asyncio.TimeoutError:
        check(True, "with nothing there, the limit ends the wait")
    mailbox.close()
    await asyncio.wait_for(iterating, 30)
    check(iterating.done(), "closing the mailbox ended the loop over it")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", choices=("auto", "host", "cuda"), default="auto")
    asyncio.run(run(parser.parse_args().backend))


if __name__ == "__main__":
    main()
