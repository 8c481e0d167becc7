#!/usr/bin/env python3
"""Two consumers in an asyncio program: each gets every record, and no thread waits for any."""
from __future__ import annotations

import asyncio
from typing import Any

import numpy

import gpumailbox
from common import Device, check, parser

TOTAL = 5000
BATCH = 50


async def produce(mailbox: gpumailbox.Mailbox, device: Device) -> None:
    for first in range(0, TOTAL, BATCH):
        rows = numpy.zeros((BATCH, 4), numpy.int64)
        rows[:, 0] = numpy.arange(first, first + BATCH)
        # The slower of the two readers makes room: other tasks run meanwhile.
        await gpumailbox.wait_async(mailbox, BATCH, interest="writable", timeout=30)
        mailbox.push(device.to_device(rows))


async def iterate(mailbox: gpumailbox.Mailbox, device: Device, seen: list[int],
                  all_seen: asyncio.Event) -> None:
    """Reader 0: until the mailbox is closed."""
    async for records in mailbox:
        seen.extend(device.to_host(records)[:, 0].tolist())
        if len(seen) == TOTAL:
            all_seen.set()


async def await_each(mailbox: gpumailbox.Mailbox, device: Device, seen: list[int]) -> None:
    """Reader 1: few records at a time, with a limit."""
    while len(seen) < TOTAL:
        records = await mailbox.pop_async(16, reader=1, timeout=30)
        seen.extend(device.to_host(records)[:, 0].tolist())


async def run(backend: Any) -> None:
    device = Device(backend)
    mailbox = device.context.mailbox(256, dtype="int64", shape=(4,), readers=2)
    first: list[int] = []
    second: list[int] = []
    all_seen = asyncio.Event()
    iterating = asyncio.create_task(iterate(mailbox, device, first, all_seen))
    await asyncio.wait_for(
        asyncio.gather(produce(mailbox, device), await_each(mailbox, device, second), all_seen.wait()), 120)

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
    asyncio.run(run(parser(__doc__).parse_args().backend))


if __name__ == "__main__":
    main()
