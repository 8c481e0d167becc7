"""Answers in asyncio, and FIFOs."""
import asyncio
import contextlib
import ctypes
import gc
import os
import select
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import gpumailbox
from bells import PING, USER, WORD, served, words, numbered, rows, readable
from gpumailbox import Cancelled, Closed, Error, InvalidArgument, InvalidDevice, NotSupported
from items import NUMBER
from lab import NEVER, SECONDS, Foreign, Gate, bits, c_library
from lab import make, raises, read_word, still_waits, together, torch, write_word


# -- Answers in asyncio --

def looped(work):
    async def limited():
        return await asyncio.wait_for(work, 2 * SECONDS)
    return asyncio.run(limited())


async def begun(awaitable):
    """A task that has come to its wait."""
    async def wait():
        return await awaitable
    task = asyncio.ensure_future(wait())
    for _ in range(10):
        await asyncio.sleep(0)
    assert not task.done()
    return task


def test_commands_are_awaited(lab, rng):
    doorbell = lab.context.doorbell(16)

    async def one(values):
        return (await doorbell.submit(PING, *values, timeout=0)).value

    async def work():
        for _ in range(20):
            every = [words(rng) for _ in range(16)]
            assert list(await asyncio.gather(*map(one, every))) == every
        command = doorbell.submit(PING, 7)
        # By several, and again.
        answers = await asyncio.gather(command, command)
        assert [answer.value[0] for answer in answers + [await command]] == [7, 7, 7]
        with pytest.raises(NotSupported):
            await doorbell.submit(USER)

    with served(lab, doorbell):
        looped(work())
    assert doorbell.stats()["outstanding"] == 0


def test_an_await_sleeps_until_there_is_an_answer(lab):
    doorbell = lab.context.doorbell(4)

    async def work():
        threads = threading.active_count()
        command, cancelled = doorbell.submit(PING, 3), doorbell.submit(PING, 4)
        waiting = [await begun(command), await begun(cancelled)]
        assert threading.active_count() == threads
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(command, NEVER)
        cancelled.cancel()
        # One who waits no longer does not end the command.
        waiting[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting[0]
        with served(lab, doorbell):
            assert (await command).value == (3, 0, 0)
            with pytest.raises(Cancelled):
                await waiting[1]

    looped(work())


def test_answers_that_nobody_awaits_do_not_keep_the_loop_busy(lab, monkeypatch):
    doorbell, looks = lab.context.doorbell(4), []
    real = gpumailbox._aio._Answers.look
    monkeypatch.setattr(gpumailbox._aio._Answers, "look", lambda self: looks.append(1) or real(self))

    async def work():
        with served(lab, doorbell):
            held = [doorbell.submit(PING, n) for n in range(3)]
            assert doorbell.call(PING).value == (0, 0, 0)
        command = doorbell.submit(PING, 9)
        waiting = await begun(command)
        before = len(looks)
        for _ in range(2000):
            await asyncio.sleep(0)
        assert len(looks) - before <= 3
        with served(lab, doorbell):
            assert (await waiting).value == (9, 0, 0)
        assert [one.wait(0).value[0] for one in held] == [0, 1, 2]

    looped(work())


def test_closing_wakes_an_await(lab):
    doorbell = lab.context.doorbell(4)

    async def work():
        waiting = await begun(doorbell.submit(PING, 3))
        doorbell.close()
        with pytest.raises(Closed):
            await waiting

    looped(work())


def test_awaiting_keeps_no_descriptors(lab):
    doorbell, fifo, one = lab.context.doorbell(4), lab.context.fifo(4), rows(lab, 0, 1)

    def descriptors():
        gc.collect()
        return len(os.listdir("/proc/self/fd"))

    async def work():
        counts = []
        for round in range(100):
            await doorbell.submit(PING)
            fifo.push(one)
            assert len(await fifo.pop_async(2)) == 1
            if round in (1, 99):
                counts.append(descriptors())
        return counts

    with served(lab, doorbell):
        first, last = looped(work())
    assert first == last


# -- FIFOs --

def test_records_come_in_the_order_of_a_deque(lab, rng):
    fifo, model, stream, token = lab.context.fifo(64), deque(), lab.context.stream(), lab.context.token()
    pushed = popped = 0
    for _ in range(300):
        count = int(rng.integers(1, 81))
        if rng.integers(2):
            fits = min(count, 64 - len(model))
            fifo.push(rows(lab, pushed, count), stream=stream, token=token)
            told = token.wait(timeout=SECONDS)
            assert (told.count, told.partial) == (fits, fits < count)
            model.extend(map(tuple, numbered(pushed, fits).tolist()))
            pushed += fits
        else:
            records = fifo.pop(count, timeout=0)
            expected = [model.popleft() for _ in range(min(count, len(model)))]
            assert records.flags.writeable and records.dtype == np.uint64 and records.shape == (len(expected), 2)
            assert list(map(tuple, records.tolist())) == expected
            popped += len(expected)
    assert pushed > 500 and fifo.stats() == dict(capacity=64, drained=popped)


def test_rows_and_items_of_16_bytes_are_records(lab, rng):
    fifo, token = lab.context.fifo(), lab.context.token()
    assert fifo.capacity == 4096
    values = rng.integers(0, 2**64, (6, 2), dtype=np.uint64)
    for dtype, shape in (("int64", (6, 2)), ("float64", (6, 2)), ("int32", (6, 4)), ("uint8", (6, 16)),
                         ("int16", (6, 2, 4)), ("complex128", (6,))):
        fifo.push(lab.array(values.view(dtype).reshape(shape)), token=token)
        assert token.wait(timeout=SECONDS).count == 6
        assert bits(fifo.pop(6, timeout=SECONDS)) == bits(values)


def test_threads_push_while_others_pop(lab):
    producers, count = 3, 2000
    fifo, got, total = lab.context.fifo(128), [[], []], [0]

    def produce(producer):
        stream, token, at = lab.context.stream(), lab.context.token(), 0
        while at < count:
            fifo.push(rows(lab, producer * count + at, min(40, count - at)), stream=stream, token=token)
            at += token.wait(timeout=SECONDS).count

    def consume(mine):
        while total[0] < producers * count:
            mine += fifo.pop(30, timeout=NEVER).tolist()
            total[0] = sum(map(len, got))

    together(*[lambda p=p: produce(p) for p in range(producers)], *[lambda g=g: consume(g) for g in got])
    assert sorted(first for mine in got for first, _ in mine) == list(range(producers * count))
    for mine in got:
        assert all(first ^ second == WORD - 1 for first, second in mine)
        for producer in range(producers):
            those = [first for first, _ in mine if first // count == producer]
            assert those == sorted(those)
    assert fifo.stats()["drained"] == producers * count


def test_a_pop_waits_and_others_go_on(lab):
    fifo = lab.context.fifo(16)
    for timeout in (0, NEVER):
        assert fifo.pop(4, timeout=timeout).shape == (0, 2)
    with ThreadPoolExecutor(1) as pool:
        for timeout in (None, 1000):
            waiting = pool.submit(fifo.pop, 4, timeout)
            still_waits(waiting)
            fifo.push(rows(lab, 5, 1))
            assert waiting.result(SECONDS).tolist() == numbered(5, 1).tolist()


@pytest.mark.parametrize("told", [False, True], ids=["without a token", "with a token"])
def test_arrays_are_kept_until_a_kernel_has_read_them(told):
    lab = make("host")
    stream, fifo = lab.context.stream(), lab.context.fifo(64)
    for _ in range(3):
        fifo.push(rows(lab, 0, 1), stream=stream)
        assert len(fifo.pop(1, timeout=SECONDS)) == 1
    with Gate(lab.context, stream):
        for at in range(40):
            one = lab.track(rows(lab, at, 1))
            fifo.push(one, stream=stream, token=lab.context.token() if told else None)
            del one
        assert lab.held() == 40 * 16
    assert fifo.pop(64, timeout=SECONDS).tolist() == numbered(0, 40).tolist()
    # It is looked at when more comes.
    for _ in range(16):
        fifo.push(rows(lab, 0, 1), stream=stream)
    stream.synchronize()
    fifo.close()
    del fifo
    assert lab.held() == 0


def test_pushes_to_a_fifo_are_not_captured(lab):
    fifo, own, c = lab.context.fifo(16), lab.context.stream(), c_library()
    records, graph = rows(lab, 0, 2), ctypes.c_uint64()
    around = torch.cuda.stream(torch.cuda.ExternalStream(own.handle)) if lab.backend == "cuda" else contextlib.nullcontext()
    if lab.backend == "cuda":
        torch.cuda.synchronize()
    with around:
        assert c.gmb_stream_begin_capture(ctypes.c_uint64(lab.context.handle), ctypes.c_void_p(own.handle), 1) == 0
        for token in (None, lab.context.token()):
            raises(NotSupported, lambda: fifo.push(records, stream=own, token=token), "captured")
        c.gmb_stream_end_capture(ctypes.c_uint64(lab.context.handle), ctypes.c_void_p(own.handle), ctypes.byref(graph))
    c.gmb_graph_destroy(graph)
    fifo.push(records, stream=own)
    own.synchronize()
    assert len(fifo.pop(4, timeout=SECONDS)) == 2


def test_a_fifo_that_was_spoilt_says_so_after_what_came_before(lab):
    fifo, token = lab.context.fifo(8), lab.context.token()
    fifo.push(rows(lab, 0, 3), token=token)
    assert token.wait(timeout=SECONDS).count == 3
    # gmb_fifo_header: magic, version, capacity, records; four words of a slot.
    write_word(lab, read_word(lab, fifo.address + 16) + 2 * 32 + 8, 99 << 32)
    assert fifo.pop(8, timeout=SECONDS).tolist() == numbered(0, 2).tolist()
    for timeout in (0, None):
        raises(Error, lambda: fifo.pop(8, timeout=timeout), "CORRUPT", "something else wrote")
    write_word(lab, fifo.address, 1)
    fifo.push(rows(lab, 0, 1), token=token)
    raises(Error, lambda: token.wait(timeout=SECONDS), "BAD_MAGIC")


def test_a_fifos_descriptor_is_readable_when_so_many_are_there(lab):
    fifo, token = lab.context.fifo(8), lab.context.token()
    watch = fifo.watch()

    def readable(seconds):
        return select.select([watch.fileno()], [], [], seconds)[0] != []

    raises(InvalidArgument, lambda: watch.arm(0), "0")
    raises(InvalidArgument, lambda: watch.arm(9), "9", "8")
    watch.arm(3)
    for count, there in ((2, False), (1, True)):
        fifo.push(rows(lab, 0, count), token=token)
        assert token.wait(timeout=SECONDS).count == count
        assert readable(SECONDS if there else NEVER) == there
    watch.arm(4)
    fifo.close()
    assert readable(SECONDS)
    raises(Closed, watch.arm, "FIFO", "closed")


def test_a_doorbells_descriptor_is_readable_when_so_many_answers_are_there(lab):
    doorbell = lab.context.doorbell(8)
    watch = doorbell.watch()

    def readable(seconds):
        return select.select([watch.fileno()], [], [], seconds)[0] != []

    raises(InvalidArgument, lambda: watch.arm(0), "0")
    raises(InvalidArgument, lambda: watch.arm(9), "9", "8")
    commands = [doorbell.submit(PING, n) for n in range(2)]
    watch.arm(2)
    assert not readable(NEVER)
    with served(lab, doorbell):
        assert readable(SECONDS)
        watch.arm()
        assert readable(SECONDS)
        assert [command.poll().value[0] for command in commands] == [0, 1]
        watch.arm()
        assert not readable(NEVER)
    doorbell.close()
    assert readable(SECONDS)
    raises(Closed, watch.arm, "doorbell", "closed")


def test_async_for_gives_every_record_until_the_fifo_is_closed(lab):
    fifo = lab.context.fifo(64)

    async def work():
        got = []

        async def consume():
            async for records in fifo:
                assert len(records)
                got.append(records)

        with pytest.raises(asyncio.TimeoutError):
            await fifo.pop_async(4, timeout=NEVER)
        consuming = await begun(consume())
        token = lab.context.token()
        for at in range(0, 400, 40):
            fifo.push(rows(lab, at, 40), token=token)
            assert token.wait(timeout=SECONDS).count == 40
            while sum(map(len, got)) < at + 40:
                await asyncio.sleep(0)
        fifo.close()
        await consuming
        return np.concatenate(got)

    assert looped(work()).tolist() == numbered(0, 400).tolist()
    raises(Closed, lambda: asyncio.run(fifo.pop_async(4)), "FIFO")


def test_closing_wakes_a_pop_and_closed_is_closed(lab):
    records = rows(lab, 0, 1)
    with lab.context.fifo(8) as fifo:
        assert "closed" not in repr(fifo)
        with ThreadPoolExecutor(2) as pool:
            waiting = [pool.submit(fifo.pop, 4, timeout) for timeout in (None, 1000)]
            for one in waiting:
                still_waits(one)
            fifo.close()
            for one in waiting:
                with pytest.raises(Closed, match="FIFO|handle"):
                    one.result(SECONDS)
    assert "closed" in repr(fifo)
    for call in (lambda: fifo.push(records), lambda: fifo.push(records, token=lab.context.token()), lambda: fifo.pop(1),
                 fifo.stats, fifo.watch, lambda: fifo.handle, lambda: fifo.address):
        raises(Closed, call, "FIFO", "closed")


def test_both_give_their_memory_back(lab):
    before = lab.context.memory()["used"]
    for close in (True, False):
        for made in (lab.context.doorbell, lab.context.fifo):
            one = made(1024)
            assert lab.context.memory()["used"] > before
            if close:
                one.close()
            del one
            assert lab.context.memory()["used"] == before


@pytest.mark.parametrize("thing", [None, 5, "text", b"bytes", [1.0], object()], ids=lambda it: type(it).__name__)
def test_what_is_no_array_cannot_be_pushed(lab, thing):
    raises(InvalidArgument, lambda: lab.context.fifo(8).push(thing), "__dlpack__")


def test_records_that_cannot_be(lab):
    fifo, token = lab.context.fifo(8), lab.context.token()
    for shape, dtype in (((4,), "int64"), ((4, 1), "int64"), ((4, 3), "int64"), ((4, 2, 2), "int64"), ((), "complex128"),
                         ((4, 2), "int32")):
        raises(InvalidArgument, lambda: fifo.push(lab.array(np.zeros(shape, dtype)), token=token), "16 bytes", "FIFO")
    raises(InvalidArgument, lambda: fifo.push(lab.array(np.zeros((4, 4), np.int64))[:, :2]), "gaps")
    for none in (lab.array(np.zeros((0, 2), np.int64)), lab.array(np.zeros(0, np.complex128))):
        raises(InvalidArgument, lambda: fifo.push(none, token=token), "count")
    raises(InvalidArgument, lambda: fifo.pop(0), "max")
    raises(InvalidArgument, lambda: fifo.pop(1, timeout=-1), "timeout")
    for wrong in (-1, 2**32, None, "1", 1.5):
        with pytest.raises(NUMBER):
            fifo.pop(wrong)
    records = lab.array(np.zeros((4, 2), np.int64))
    stranger = gpumailbox.Context(lab.backend)
    raises(InvalidArgument, lambda: fifo.push(records, token=stranger.token()), "token", "context")
    values = np.zeros((4, 16), np.uint8)
    elsewhere = [Foreign(values, device=(2, 0))] if lab.backend == "host" else [values, torch.zeros(4, 2, dtype=torch.int64)]
    for wrong in elsewhere:
        raises(InvalidDevice, lambda: fifo.push(wrong), "CUDA device 0" if lab.backend == "host" else "CPU")
    assert token.poll() is None and fifo.pop(8, timeout=0).shape == (0, 2)


def test_records_that_are_not_aligned():
    """Of NumPy alone, on the host backend."""
    fifo = gpumailbox.Context("host").fifo(8)
    raises(InvalidArgument, lambda: fifo.push(Foreign(np.zeros((4, 16), np.uint8), offset=4)), "MISALIGNED")
