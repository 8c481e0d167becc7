"""Mailboxes in asyncio: the loop sleeps on descriptors, and no thread waits."""
import asyncio
import gc
import os
import select
import threading
import time

import numpy as np
import pytest

import gpumailbox
from lab import SECONDS, bits, random_rows


def run(work):
    """A coroutine with a limit: one that is never woken is a failure."""
    async def limited():
        return await asyncio.wait_for(work, 2 * SECONDS)
    return asyncio.run(limited())


async def begun(coroutine):
    """A task that has come to its first wait."""
    task = asyncio.ensure_future(coroutine)
    while not task.done() and task.get_coro().cr_await is None:
        await asyncio.sleep(0)
    assert not task.done()
    return task


def test_records_that_are_there_come_at_once(lab, rng):
    mailbox, values = lab.context.mailbox(16, 64), random_rows(rng, 5)
    mailbox.push(lab.array(values))
    records = run(mailbox.pop_async(8))
    assert len(records) == 5 and bits(lab.numpy(records)) == bits(values)


def test_a_pop_waits_until_somebody_pushes_and_the_loop_goes_on(lab, rng):
    mailbox, values = lab.context.mailbox(16, 64), random_rows(rng, 3)

    async def work():
        threads = threading.active_count()
        popping = await begun(mailbox.pop_async(8))
        # No thread of Python's waits for it.
        assert threading.active_count() == threads
        mailbox.push(lab.array(values))
        return await popping

    assert bits(lab.numpy(run(work()))) == bits(values)


def test_a_push_of_another_thread_wakes_the_loop(lab, rng):
    mailbox, values = lab.context.mailbox(16, 64), random_rows(rng, 3)

    async def work():
        popping = await begun(mailbox.pop_async(8))
        pushing = asyncio.get_running_loop().run_in_executor(None, lambda: mailbox.push(lab.array(values)))
        records = await popping
        await pushing
        return records

    assert bits(lab.numpy(run(work()))) == bits(values)


def test_a_timeout_is_asyncios_and_loses_nothing(lab, rng):
    mailbox, values = lab.context.mailbox(16, 64), random_rows(rng, 4)

    async def work():
        for _ in range(3):
            with pytest.raises(asyncio.TimeoutError):
                await mailbox.pop_async(8, timeout=0.01)
        mailbox.push(lab.array(values))
        return await mailbox.pop_async(8, timeout=SECONDS)

    assert bits(lab.numpy(run(work()))) == bits(values)


def test_a_cancelled_pop_takes_nothing(lab, rng):
    mailbox, values = lab.context.mailbox(16, 64), random_rows(rng, 4)

    async def work():
        popping = await begun(mailbox.pop_async(8))
        popping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await popping
        mailbox.push(lab.array(values))
        return await mailbox.pop_async(8)

    assert bits(lab.numpy(run(work()))) == bits(values)


def test_async_for_gives_everything_until_the_mailbox_is_closed(lab, rng):
    mailbox, values = lab.context.mailbox(16, 64), random_rows(rng, 40)

    async def work():
        got = []

        async def consume():
            async for records in mailbox:
                assert 0 < len(records) <= 16
                got.append(lab.numpy(records))

        consuming = await begun(consume())
        for first in range(0, 40, 8):
            await gpumailbox.wait_async(mailbox, 8, interest="writable", timeout=SECONDS)
            mailbox.push(lab.array(values[first:first + 8]))
        while sum(map(len, got)) < 40:
            await asyncio.sleep(0)
        mailbox.close()
        assert await consuming is None
        return np.concatenate(got)

    assert bits(run(work())) == bits(values)


def test_async_for_over_a_closed_mailbox_ends_at_once(lab):
    mailbox = lab.context.mailbox(16, 64)
    mailbox.close()

    async def work():
        return [records async for records in mailbox]

    assert run(work()) == []


def test_records_of_takes_options(lab, rng):
    mailbox, values = lab.context.mailbox(16, 64, readers=2), random_rows(rng, 7)
    mailbox.push(lab.array(values), msg_type=9)

    async def work():
        counts, types = [], []
        async for records in gpumailbox.records_of(mailbox, 3, reader=1, headers=True):
            counts.append(len(records))
            types += lab.numpy(records.types).tolist()
            if sum(counts) == 7:
                break
        return counts, types

    assert run(work()) == ([3, 3, 1], [9] * 7)
    assert mailbox.reader_stats(0)["unread"] == 7


def test_two_readers_wait_side_by_side(lab, rng):
    mailbox, values = lab.context.mailbox(64, 64, readers=2), random_rows(rng, 60)

    async def consume(reader):
        got = []
        while sum(map(len, got)) < 60:
            got.append(lab.numpy(await mailbox.pop_async(7, reader=reader, timeout=SECONDS)))
        return np.concatenate(got)

    async def work():
        consuming = [await begun(consume(reader)) for reader in (0, 1)]
        at = 0
        while at < 60:
            count = int(rng.integers(1, 9))
            mailbox.push(lab.array(values[at:at + count]))
            at += count
            await asyncio.sleep(0)
        return await asyncio.gather(*consuming)

    for got in run(work()):
        assert bits(got) == bits(values)


def test_consumers_of_one_reader_share_its_records(lab, rng):
    mailbox, values = lab.context.mailbox(64, 64), random_rows(rng, 50)

    async def consume(got):
        async for records in gpumailbox.records_of(mailbox, 1):
            got += [bits(row) for row in lab.numpy(records)]

    async def work():
        got = []
        consuming = [await begun(consume(got)) for _ in range(3)]
        for row in range(50):
            mailbox.push(lab.array(values[row:row + 1]))
            await asyncio.sleep(0)
        while len(got) < 50:
            await asyncio.sleep(0)
        mailbox.close()
        await asyncio.gather(*consuming)
        return got

    assert sorted(run(work())) == sorted(bits(row) for row in values)


def test_waiting_for_room_ends_when_there_is_some(lab, rng):
    mailbox, rows = lab.context.mailbox(8, 64), lab.array(random_rows(rng, 8))
    mailbox.push(rows)

    async def work():
        with pytest.raises(asyncio.TimeoutError):
            await gpumailbox.wait_async(mailbox, interest="writable", timeout=0.01)
        waiting = await begun(gpumailbox.wait_async(mailbox, 3, interest="writable", timeout=SECONDS))
        mailbox.pop(3)
        await waiting

    run(work())
    assert mailbox.wait_writable(3, timeout=0) == 3


def test_closing_wakes_a_pop_that_waits(lab):
    mailbox = lab.context.mailbox(8, 64)

    async def work():
        popping = await begun(mailbox.pop_async(8))
        mailbox.close()
        with pytest.raises(gpumailbox.Closed):
            await popping

    run(work())


def test_closing_wakes_a_pop_that_waits_also_while_records_are_still_looked_at(lab, rng):
    mailbox = lab.context.mailbox(8, 64, readers=2)
    mailbox.push(lab.array(random_rows(rng, 4)))
    view = mailbox.view(4)
    assert len(mailbox.pop(4, reader=1)) == 4

    async def work():
        # TimeoutError would be the end of its own patience.
        popping = await begun(mailbox.pop_async(8, reader=1, timeout=5))
        mailbox.close()
        with pytest.raises(gpumailbox.Closed):
            await popping

    run(work())
    assert len(view.arrays[0]) == 4


def test_closing_is_told_to_who_waits_for_room(lab, rng):
    mailbox, rows = lab.context.mailbox(8, 64), lab.array(random_rows(rng, 8))
    mailbox.push(rows)

    async def work():
        waiting = await begun(gpumailbox.wait_async(mailbox, interest="writable", timeout=SECONDS))
        mailbox.close()
        # There is no room in a mailbox that is closed: to return as if there were would be a lie.
        with pytest.raises(gpumailbox.Closed):
            await waiting

    run(work())


def test_what_is_wrong_is_said_before_anything_waits(lab):
    mailbox = lab.context.mailbox(8, 64)

    async def work():
        for wrong in (mailbox.pop_async(8, reader=5), gpumailbox.wait_async(mailbox, 9), gpumailbox.wait_async(mailbox, 0),
                      gpumailbox.wait_async(mailbox, interest="both")):
            with pytest.raises(gpumailbox.InvalidArgument):
                await asyncio.wait_for(wrong, SECONDS)

    run(work())


def test_a_watchs_descriptor_is_readable_once_for_each_arming(lab, rng):
    mailbox, rows = lab.context.mailbox(8, 64), lab.array(random_rows(rng, 8))
    watch = mailbox.watch()

    def readable(seconds):
        return select.select([watch.fileno()], [], [], seconds)[0] != []

    watch.arm(3)
    assert not readable(0.02)
    mailbox.push(rows[:2])
    assert not readable(0.02)
    mailbox.push(rows[2:3])
    assert readable(SECONDS)
    watch.arm(4)
    assert not readable(0.02)
    mailbox.close()
    assert readable(SECONDS)
    with pytest.raises(gpumailbox.Closed):
        watch.arm()


def test_awaiting_keeps_no_descriptors(lab, rng):
    mailbox, rows = lab.context.mailbox(8, 64), lab.array(random_rows(rng, 1))

    def descriptors():
        gc.collect()
        return len(os.listdir("/proc/self/fd"))

    async def work():
        mailbox.push(rows)
        await mailbox.pop_async(1)
        before = descriptors()
        for _ in range(200):
            mailbox.push(rows)
            await mailbox.pop_async(1)
        return before, descriptors()

    before, after = run(work())
    assert before == after


def test_a_timeout_is_for_the_whole_pop_however_often_others_are_faster():
    """A mailbox that always wakes and never has any: as under a greedy consumer."""
    reading, writing = os.pipe()
    os.write(writing, b"x")
    end = time.monotonic() + 5

    class Watch:
        def fileno(self):
            return reading

        def arm(self, count):
            assert time.monotonic() < end, "the timeout began anew each time"

    class Greedy:
        def watch(self, interest, *, reader):
            return Watch()

        def pop(self, max, **options):
            return []

    try:
        with pytest.raises(asyncio.TimeoutError):
            asyncio.run(gpumailbox.pop_async(Greedy(), 4, timeout=0.05))
    finally:
        os.close(reading)
        os.close(writing)
