"""Doorbells: each command has its own answer. FIFOs: what the device pushes comes to the host, once and in order."""
import asyncio
import contextlib
import ctypes
import gc
import os
import select
import signal
import textwrap
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import gpumailbox
from children import child, finished as ended, run
from gpumailbox import Answer, Cancelled, Closed, Doorbell, Error, Full, InvalidArgument, InvalidDevice, NotServed
from gpumailbox import NotSupported, TimedOut
from items import NUMBER, contents, queues
from lab import NEVER, SECONDS, Foreign, Gate, bits, c_library, make, raises, read_word, still_waits, together, torch
from lab import until, write_word

PING, COUNTS, USER = Doorbell.PING, Doorbell.COUNTS, Doorbell.USER
WORD = 2**64


@contextlib.contextmanager
def served(lab, doorbell, **options):
    """A worker that does its commands, with nothing else to do."""
    active, = queues(lab, 1, 64)
    with lab.context.worker(active, doorbell=doorbell, **options) as worker:
        worker.start()
        yield worker


def words(rng, count=3):
    return tuple(map(int, rng.integers(0, 2**64, count, dtype=np.uint64)))


def numbered(first, count):
    """Records that tell their number twice."""
    numbers = np.arange(first, first + count, dtype=np.uint64)
    return np.stack([numbers, ~numbers], axis=1)


def rows(lab, first, count):
    """The same on the device, as integers that every library knows."""
    return lab.array(numbered(first, count).view(np.int64))


# -- Doorbells --

def test_a_ping_is_answered_with_its_arguments(lab, rng):
    doorbell = lab.context.doorbell()
    assert doorbell.capacity == 64 and (PING, COUNTS, USER) == (1, 2, 16)
    with served(lab, doorbell):
        for count in range(4):
            values = words(rng, count)
            answer = doorbell.call(PING, *values, timeout=SECONDS)
            assert type(answer) is Answer and (answer.status, answer.flags) == (0, 0)
            assert answer.value == values + (0,) * (3 - count) and str(answer.value) in repr(answer)
        assert doorbell.call(PING, WORD - 1, 0, WORD - 1).value == (WORD - 1, 0, WORD - 1)
        assert doorbell.stats() == dict(capacity=64, submitted=5, outstanding=0, served=True)
    assert doorbell.stats()["served"] is False


@pytest.mark.parametrize("blocks", [1, 2])
def test_threads_get_the_answers_to_their_own_commands(lab, rng, blocks):
    doorbell, threads, count = lab.context.doorbell(8), 4, 300
    seeds = rng.integers(0, 2**32, threads)

    def work(thread):
        mine, out = np.random.default_rng(seeds[thread]), []
        for _ in range(count):
            what, values = int(mine.integers(4)), words(mine)
            if what == 0:
                assert doorbell.call(PING, *values, timeout=SECONDS).value == values
            elif what == 1:
                doorbell.post(PING, *values, timeout=SECONDS)
            else:
                # More than there is room for at once: answers that are there take none.
                out.append((doorbell.submit(PING, *values, timeout=SECONDS), values))
            if out and int(mine.integers(5)) == 0:
                command, values = out.pop(int(mine.integers(len(out))))
                assert command.wait(SECONDS).value == values and command.poll().value == values
        for command, values in out:
            assert command.wait(SECONDS).value == values

    with served(lab, doorbell, slice=0.003, grid_blocks=blocks):
        together(*[lambda thread=thread: work(thread) for thread in range(threads)])
        until(lambda: doorbell.call(PING, timeout=SECONDS) and doorbell.stats()["outstanding"] == 0, doorbell.stats)
    assert doorbell.stats()["submitted"] >= threads * count


def test_a_command_that_many_wait_for_has_one_answer(lab, rng):
    doorbell = lab.context.doorbell(4)
    with served(lab, doorbell):
        for _ in range(50):
            values = words(rng)
            command = doorbell.submit(PING, *values)

            def polled():
                until(command.poll, "it is answered")
                return command.poll()

            def swept():
                doorbell.stats()
                return command.wait(SECONDS)

            answers = together(lambda: command.wait(SECONDS), polled, swept, lambda: command.wait())
            assert [answer.value for answer in answers] == [values] * 4
    assert doorbell.stats()["outstanding"] == 0


def test_a_worker_that_is_busy_tells_how_far_it_is(lab):
    active, finished = queues(lab, 2)
    doorbell = lab.context.doorbell(4)
    active.push_from_host(np.arange(1000))
    with lab.context.worker(active, finished, grid_blocks=2, doorbell=doorbell) as worker:
        worker.start()
        until(lambda: doorbell.call(COUNTS, timeout=SECONDS).value == (1000, 1000, 0), worker.stats)
        worker.stop()
        assert worker.wait(SECONDS).processed == 1000
    assert sorted(contents(finished)) == list(range(1, 1001))


def test_what_a_worker_does_not_know_raises(lab):
    doorbell = lab.context.doorbell(4)
    with served(lab, doorbell):
        for code in (0, 3, USER, 2**32 - 1):
            raises(NotSupported, lambda: doorbell.call(code, timeout=SECONDS), "command")
            command = doorbell.submit(code)
            for call in (lambda: command.wait(SECONDS), command.poll):
                raises(NotSupported, call, "command")
            # It was answered: there is nothing left to cancel.
            command.cancel()
            raises(NotSupported, command.wait)
        assert doorbell.call(PING, 7).value == (7, 0, 0)


def test_a_full_doorbell_says_so(lab, rng):
    doorbell = lab.context.doorbell(4)
    all_words = [words(rng) for _ in range(4)]
    commands = [doorbell.submit(PING, *values, timeout=0) for values in all_words]
    for timeout in (0, NEVER):
        for call in (doorbell.submit, doorbell.post, doorbell.call):
            raises(Full, lambda: call(PING, 5, timeout=timeout), "4 commands")
        raises(TimedOut, lambda: commands[0].wait(timeout), "answer")
    assert commands[0].poll() is None and "not answered" in repr(commands[0])
    assert doorbell.stats() == dict(capacity=4, submitted=4, outstanding=4, served=False)
    with ThreadPoolExecutor(1) as pool:
        # It waits for room, and others go on.
        late = pool.submit(lambda: doorbell.submit(PING, 99))
        still_waits(late)
        with served(lab, doorbell):
            assert late.result(SECONDS).wait(SECONDS).value == (99, 0, 0)
            for command, values in zip(reversed(commands), reversed(all_words)):
                assert command.wait(SECONDS).value == values and "status 0" in repr(command)
            # Answers that nobody has asked for yet take no room, and are not lost.
            many = [doorbell.submit(PING, n, timeout=SECONDS) for n in range(100)]
            assert [command.wait(SECONDS).value[0] for command in many] == list(range(100))


def test_answers_that_nobody_wants_take_no_room(lab):
    doorbell = lab.context.doorbell(4)
    with served(lab, doorbell):
        for n in range(300):
            doorbell.post(PING, n, timeout=SECONDS)
            # Nobody has it any more, and it goes on.
            doorbell.submit(PING, n, timeout=SECONDS)
        assert doorbell.call(PING, 1, timeout=SECONDS).value == (1, 0, 0)
    assert doorbell.stats()["submitted"] == 601


def outstanding(doorbell):
    """As the library has it, with nothing taken out meanwhile. gmb_doorbell_info: capacity, submitted, outstanding."""
    info = (ctypes.c_uint64 * 5)()
    assert c_library().gmb_doorbell_get_info(ctypes.c_uint64(doorbell.handle), info, ctypes.c_size_t(40)) == 0
    return info[2]


def readable(watch, seconds=SECONDS):
    return select.select([watch.fileno()], [], [], seconds)[0] != []


def test_without_room_all_answers_that_are_there_are_taken(lab, rng):
    doorbell = lab.context.doorbell(4)
    watch = doorbell.watch()
    with served(lab, doorbell):
        for submit in (doorbell.submit, doorbell.post, doorbell.call):
            all_words = [words(rng) for _ in range(4)]
            commands = [doorbell.submit(PING, *values, timeout=0) for values in all_words]
            watch.arm(4)
            assert readable(watch) and outstanding(doorbell) == 4
            # Nobody has asked for one.
            assert all("not answered yet" in repr(command) for command in commands)
            # With no time to wait, too: all answers are their commands' now, and what is under way is this one.
            last = submit(PING, timeout=SECONDS if submit == doorbell.call else 0)
            assert all("status 0" in repr(command) for command in commands), commands
            assert outstanding(doorbell) <= 1
            assert [command.poll().value for command in commands] == all_words
            if submit == doorbell.submit:
                last.wait(SECONDS)
            elif submit == doorbell.post:
                # Until it is answered its place is taken.
                assert doorbell.call(PING, timeout=SECONDS).status == 0


def test_commands_that_nobody_has_any_more_are_forgotten(lab, rng):
    doorbell = lab.context.doorbell(8)
    watch, count = doorbell.watch(), int(rng.integers(1, 8))
    commands = [doorbell.submit(PING, n, timeout=0) for n in range(8)]
    rng.shuffle(commands)
    # They are done, and their answers wake nobody.
    del commands[:count]
    with served(lab, doorbell):
        watch.arm(8 - count)
        assert readable(watch)
        for command in commands:
            command.wait(SECONDS)
        watch.arm()
        assert not readable(watch, NEVER)
        # Answered, and dropped.
        done = doorbell.submit(PING, timeout=SECONDS)
        watch.arm()
        assert readable(watch)
        del done
        watch.arm()
        assert not readable(watch, NEVER)
        # Each place is needed once.
        for n in range(8):
            assert doorbell.call(PING, n, timeout=SECONDS).value[0] == n
        assert outstanding(doorbell) == 0


def test_cancelled_commands_are_not_done(lab, rng):
    doorbell = lab.context.doorbell(16)
    commands = [doorbell.submit(PING, n) for n in range(10)]
    gone = set(map(int, rng.choice(10, 4, replace=False)))
    for n in gone:
        commands[n].cancel()
        # Twice is once.
        commands[n].cancel()
        assert commands[n].poll() is None
    with served(lab, doorbell):
        for n, command in enumerate(commands):
            if n in gone:
                raises(Cancelled, lambda: command.wait(SECONDS), "cancelled")
            else:
                assert command.wait(SECONDS).value[0] == n
            # Too late is no error, and changes nothing.
            command.cancel()
        raises(Cancelled, commands[min(gone)].wait, "cancelled")


def test_a_call_that_is_late_is_cancelled(lab):
    doorbell = lab.context.doorbell(2)
    for timeout in (0, NEVER):
        raises(TimedOut, lambda: doorbell.call(USER, timeout=timeout), "cancelled")
    raises(Full, lambda: doorbell.call(USER, timeout=NEVER), "2 commands")
    # As a kernel finds them: in a slot of eight words the second one's lower half has the flags, GMB_COMMAND_CANCELLED.
    ring = read_word(lab, doorbell.address + 16)
    assert [read_word(lab, ring + slot * 64 + 8) % 2**32 for slot in range(2)] == [1 << 31] * 2
    with served(lab, doorbell):
        # The worker would say that it does not know the code; nobody asks, and the room comes back.
        assert [doorbell.call(PING, n, timeout=SECONDS).value[0] for n in range(5)] == list(range(5))
        until(lambda: doorbell.stats()["outstanding"] == 0, doorbell.stats)


def test_commands_that_a_worker_leaves_are_not_served(lab):
    doorbell, (active,) = lab.context.doorbell(4), queues(lab, 1)
    with lab.context.worker(active, doorbell=doorbell) as worker:
        for round in range(20):
            early = doorbell.submit(PING, round, timeout=0)
            worker.start()
            if round % 2 == 0:
                assert early.wait(SECONDS).value[0] == round
            worker.stop()
            late = doorbell.submit(PING, round, timeout=0)
            worker.wait(SECONDS)
            for command in (early, late):
                try:
                    assert command.wait(NEVER if command is late else SECONDS).value[0] == round
                except NotServed as error:
                    assert error.name == "NOT_SERVED" and "ended" in str(error) and not (command is early and round % 2 == 0)
                except TimedOut:
                    # It came when all others were answered: it is for the next run.
                    worker.start()
                    assert command.wait(SECONDS).value[0] == round
                    worker.stop()
                    worker.wait(SECONDS)
            assert doorbell.stats()["outstanding"] == 0


def test_a_doorbell_is_served_by_one_worker_after_another(lab):
    doorbell, two = lab.context.doorbell(4), queues(lab, 2)
    for _ in range(3):
        command = doorbell.submit(PING, 5)
        with served(lab, doorbell) as worker:
            assert command.wait(SECONDS).value == (5, 0, 0) and doorbell.stats()["served"]
            raises(Error, lambda: lab.context.worker(two[0], doorbell=doorbell), "BUSY", "doorbell")
            raises(Error, doorbell.close, "BUSY", "worker")
            with pytest.raises(Error, match="BUSY"):
                with doorbell:
                    pass
            assert "closed" not in repr(doorbell) and worker.stats()["state"] == "running"
    doorbell.close()
    raises(Closed, lambda: lab.context.worker(two[0], doorbell=doorbell), "doorbell", "closed")
    assert two[0].stats()["workers"] == 0


def test_a_worker_keeps_its_doorbell_and_a_command_keeps_both(lab):
    before = lab.context.memory()["used"]
    active, = queues(lab, 1)
    doorbell = lab.context.doorbell()
    worker = lab.context.worker(active, doorbell=doorbell)
    worker.start()
    command = doorbell.submit(PING, 3)
    del doorbell
    assert command.wait(SECONDS).value == (3, 0, 0)
    again = command.doorbell.submit(PING, 4)
    assert again.doorbell is command.doorbell and again.wait(SECONDS).value == (4, 0, 0)
    del command, again, worker, active
    gc.collect()
    assert lab.context.memory()["used"] == before


def test_closing_wakes_who_waits(lab):
    doorbell = lab.context.doorbell(2)
    commands = [doorbell.submit(PING, n) for n in range(2)]
    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(commands[1].wait), pool.submit(commands[1].wait, 1000), pool.submit(doorbell.post, PING),
                   pool.submit(doorbell.submit, PING)]
        for one in waiting:
            still_waits(one)
        doorbell.close()
        for one in waiting:
            with pytest.raises(Closed, match="doorbell|handle"):
                one.result(SECONDS)
    assert "closed" in repr(doorbell)
    doorbell.close()
    for call in (doorbell.stats, doorbell.watch, commands[0].wait, commands[0].poll, commands[0].cancel,
                 lambda: doorbell.submit(PING), lambda: doorbell.post(PING), lambda: doorbell.call(PING, timeout=1),
                 lambda: doorbell.handle, lambda: doorbell.address):
        raises(Closed, call, "doorbell", "closed")


def test_an_answer_stays_when_the_doorbell_is_closed(lab):
    with lab.context.doorbell(2) as doorbell:
        with served(lab, doorbell):
            done = doorbell.submit(PING, 1)
            assert done.wait(SECONDS).value == (1, 0, 0)
    done.cancel()
    assert done.wait(0).value == done.poll().value == (1, 0, 0)


def test_a_closed_context_closes_both(lab):
    context = gpumailbox.Context(lab.backend)
    doorbell, fifo = context.doorbell(2), context.fifo(2)
    command = doorbell.submit(PING)
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(command.wait), pool.submit(fifo.pop, 1)]
        for one in waiting:
            still_waits(one)
        context.close()
        for one in waiting:
            with pytest.raises(Closed, match="context"):
                one.result(SECONDS)
    for call in (context.doorbell, context.fifo, doorbell.stats, fifo.stats, lambda: doorbell.submit(PING), command.wait):
        raises(Closed, call, "context")
    doorbell.close()
    fifo.close()


@pytest.mark.parametrize("ring", ["commands", "answers"])
def test_what_was_spoilt_is_told(lab, ring):
    doorbell, (active,) = lab.context.doorbell(2), queues(lab, 1)
    # gmb_doorbell_header: magic, version, capacity, commands, answers.
    at = read_word(lab, doorbell.address + {"commands": 16, "answers": 24}[ring])
    command = doorbell.submit(PING, 1)
    write_word(lab, at + 8, 77 << 32)
    if ring == "answers":
        for call in (lambda: command.wait(SECONDS), command.poll):
            raises(Error, call, "CORRUPT", "something else wrote")
        # There is room for one more; the spoilt one keeps its own.
        doorbell.post(PING, timeout=0)
        raises(Full, lambda: doorbell.submit(PING, timeout=NEVER))
        assert doorbell.stats()["outstanding"] == 2
        return
    with lab.context.worker(active, doorbell=doorbell) as worker:
        worker.start()
        raises(Error, lambda: worker.wait(SECONDS), "CORRUPT", "doorbell")
        raises(NotServed, lambda: command.wait(SECONDS), "ended")


def test_something_that_is_no_doorbell_is_not_served(lab):
    doorbell, (active,) = lab.context.doorbell(2), queues(lab, 1)
    write_word(lab, doorbell.address, 1)
    with lab.context.worker(active, doorbell=doorbell) as worker:
        worker.start()
        raises(Error, lambda: worker.wait(SECONDS), "CORRUPT", "doorbell")


def test_doorbells_and_commands_that_cannot_be(lab):
    for capacity in (0, 3, 100, 2**21, 2**40):
        for make_one in (lab.context.doorbell, lab.context.fifo):
            raises(InvalidArgument, lambda: make_one(capacity), str(capacity))
    for capacity in (-8, 2**64, None, 8.0, "8"):
        for make_one in (lab.context.doorbell, lab.context.fifo):
            with pytest.raises(NUMBER):
                make_one(capacity)
    doorbell = lab.context.doorbell(4)
    for call in (doorbell.submit, doorbell.post, doorbell.call):
        raises(InvalidArgument, lambda: call(PING, 1, 2, 3, 4), "4 arguments", "three")
        for wrong in ((-1,), (2**32,), ("1",), (None,), (1.0,), (PING, -1), (PING, 2**64), (PING, 0, "2"), (PING, 0, 0, 1.5)):
            with pytest.raises((OverflowError, TypeError)):
                call(*wrong)
        with pytest.raises(TypeError):
            call()
        for timeout in (-1, float("nan")):
            raises(InvalidArgument, lambda: call(PING, timeout=timeout), "timeout")
    command = doorbell.submit(PING)
    raises(InvalidArgument, lambda: command.wait(-1), "timeout")
    assert doorbell.stats()["submitted"] == 1
    stranger = gpumailbox.Context(lab.backend)
    raises(InvalidArgument, lambda: stranger.worker(stranger.queue(8, dtype="int32"), doorbell=doorbell), "context")
    for wrong in (5, "doorbell", lab.context.fifo(2)):
        with pytest.raises(TypeError):
            lab.context.worker(lab.context.queue(8, dtype="int32"), doorbell=wrong)
    for kind in (Doorbell, gpumailbox.Command, gpumailbox.Fifo, Answer):
        with pytest.raises(TypeError):
            kind()


def test_the_block_that_serves_counts(lab):
    active, doorbell = lab.context.queue(8, dtype="int32"), lab.context.doorbell(2)
    most = lab.context.worker(active).stats()["most_blocks"]
    raises(InvalidArgument, lambda: lab.context.worker(active, grid_blocks=most, doorbell=doorbell), "grid_blocks")
    assert doorbell.stats()["served"] is False
    lab.context.worker(active, grid_blocks=most - 1, doorbell=doorbell).close()


def test_handles_are_those_of_the_c_api(lab):
    doorbell, fifo, c = lab.context.doorbell(8), lab.context.fifo(16), c_library()
    # gmb_doorbell_info, gmb_fifo_info: the capacity first.
    for get, of, capacity, words_of in ((c.gmb_doorbell_get_info, doorbell, 8, 5), (c.gmb_fifo_get_info, fifo, 16, 3)):
        info = (ctypes.c_uint64 * words_of)()
        assert get(ctypes.c_uint64(of.handle), info, ctypes.c_size_t(ctypes.sizeof(info))) == 0
        assert info[0] == capacity and of.address in list(info)
    magic = {doorbell: b"GMBRINGS", fifo: b"GMBFIFOS"}
    for of, text in magic.items():
        assert read_word(lab, of.address).to_bytes(8, "big") in (text, text[::-1])


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


# -- Processes --

START = """
    doorbell, fifo = context.doorbell(2), context.fifo(2)
    command = doorbell.submit(1, 5)
    doorbell.post(1)
    queue = context.queue(64, item_bytes=4)
"""


@pytest.mark.parametrize("work", ["command.wait()", "command.wait(timeout=1000)", "doorbell.submit(1)", "doorbell.call(1)",
                                  "doorbell.post(1, timeout=1000)", "fifo.pop(4)", "fifo.pop(4, timeout=1000)"])
def test_ctrl_c_ends_a_wait(prelude, work):
    process = child(prelude + textwrap.dedent(START) + textwrap.dedent(f"""
        main, line = threading.main_thread().ident, [0]
        def tell():
            # Once the main thread is in the line that waits.
            while sys._current_frames()[main].f_lineno != line[0]: pass
            print("waits", flush=True)
        threading.Thread(target=tell, daemon=True).start()
        try:
            line[0] = sys._getframe().f_lineno + 1
            {work}
        except KeyboardInterrupt:
            with context.worker(queue, doorbell=doorbell) as worker:
                worker.start()
                print("interrupted", command.wait().value, doorbell.call(1, 6).value[0])
    """))
    assert process.stdout.readline() == "waits\n", process.communicate()
    process.send_signal(signal.SIGINT)
    assert ended(process) == "interrupted (5, 0, 0) 6\n"


def test_a_call_that_ctrl_c_ends_is_cancelled(prelude):
    process = child(prelude + textwrap.dedent("""
        doorbell, queue = context.doorbell(2), context.queue(64, item_bytes=4)
        main = threading.main_thread().ident
        def tell():
            # It is under way.
            while doorbell.stats()["submitted"] == 0: pass
            print("waits", flush=True)
        threading.Thread(target=tell, daemon=True).start()
        try:
            doorbell.call(1, 5)
        except KeyboardInterrupt:
            with context.worker(queue, doorbell=doorbell) as worker:
                worker.start()
                print("interrupted", doorbell.call(1, 6).value[0], doorbell.call(1, 7).value[0],
                      doorbell.stats()["outstanding"])
    """))
    assert process.stdout.readline() == "waits\n", process.communicate()
    process.send_signal(signal.SIGINT)
    # The second one has taken its place.
    assert ended(process) == "interrupted 6 7 0\n"


def test_a_process_ends_with_whatever_is_out(prelude):
    out = run(prelude, textwrap.dedent(START) + textwrap.dedent("""
        worker = context.worker(queue, doorbell=doorbell)
        worker.start()
        assert command.wait().value == (5, 0, 0)
        late, watches = doorbell.submit(1, 6), [doorbell.watch(), fifo.watch()]
        watches[1].arm()
        threading.Thread(target=fifo.pop, args=(4,), daemon=True).start()
        sys.modules["held"] = [worker, doorbell, fifo, late]
        print("done")
    """))
    assert out == "done\n"
