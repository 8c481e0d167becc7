"""Mailboxes that many push to and pop from at once, and those that are for kernels alone."""
import ctypes
from collections import deque
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import gpumailbox
from lab import NEVER, SECONDS, bits, raises, random_rows, still_waits, together, until

RECORDS, PRODUCERS, CONSUMERS = 300, 3, 3


class Info(ctypes.Structure):
    """`gmb_mailbox_info`."""

    _fields_ = [("capacity", ctypes.c_uint64), ("payload_bytes", ctypes.c_uint32), ("slot_stride", ctypes.c_uint32),
                ("ring", ctypes.c_void_p)] + [(name, ctypes.c_uint64) for name in (
                    "ring_bytes", "published", "released", "rejected", "empty_pops", "high_water")] + [
                ("reader_mask", ctypes.c_uint32), ("full_policy", ctypes.c_int32), ("fault", ctypes.c_int32),
                ("mode", ctypes.c_int32)]


def told(library, handle):
    info = Info()
    assert library.gmb_mailbox_get_info(ctypes.c_uint64(handle), ctypes.byref(info), ctypes.sizeof(info)) == 0
    return info


def signed(rng, producer):
    """Random records that say whose they are, and which of his."""
    rows = random_rows(rng, RECORDS)
    rows[:, :8].view(np.uint32)[:] = [[producer, number] for number in range(RECORDS)]
    return rows


def of_producers(rows):
    """For each producer its records, in the order in which they are there."""
    whose = rows[:, :4].copy().view(np.uint32)[:, 0]
    return [rows[whose == producer] for producer in range(PRODUCERS)]


def sizes_of(rng):
    """Random pushes of up to 8 that are RECORDS together."""
    ends = np.minimum(np.cumsum(rng.integers(1, 9, RECORDS)), RECORDS)
    return np.diff(np.unique(ends), prepend=0).tolist()


@pytest.mark.parametrize("mode", ["ordered", "shared", "express"])
def test_stats_say_the_mode(lab, mode):
    assert lab.context.mailbox(8, 64, mode=mode).stats()["mode"] == mode
    assert lab.context.mailbox(8, dtype="float32", shape=(4,), mode=mode).stats()["mode"] == mode


def test_without_one_it_is_ordered(lab):
    assert lab.context.mailbox(8, 64).stats()["mode"] == "ordered"
    raises(gpumailbox.InvalidArgument, lambda: lab.context.mailbox(8, 64, mode="quick"), "mode", "quick", "shared")


@pytest.mark.parametrize("policy", ["overwrite_oldest", "latest"])
def test_what_overwrites_cannot_be_shared(lab, policy):
    for mode in ("shared", "express"):
        raises(gpumailbox.NotSupported, lambda: lab.context.mailbox(8, 64, full_policy=policy, mode=mode))


def test_express_is_for_small_records_and_one_reader(lab):
    # 240 bytes is the most that one has.
    assert lab.context.mailbox(8, 240, mode="express").stats()["payload_bytes"] == 240
    raises(gpumailbox.InvalidArgument, lambda: lab.context.mailbox(8, 241, mode="express"), "241", "240")
    raises(gpumailbox.NotSupported, lambda: lab.context.mailbox(8, 64, readers=2, mode="express"), "reader")
    raises(gpumailbox.NotSupported, lambda: lab.context.mailbox(8, 64, full_policy="wait", mode="express"), "reject")


def test_from_python_nothing_moves_in_express_mode(lab, rng):
    mailbox, rows, token = lab.context.mailbox(8, 64, mode="express"), lab.array(random_rows(rng, 2)), lab.context.token()
    for call in (lambda: mailbox.push(rows), lambda: mailbox.push(rows, token=token), lambda: mailbox.pop(2),
                 lambda: mailbox.pop(2, out=lab.poisoned(2, 64), token=token), lambda: mailbox.view(2).__enter__(),
                 lambda: mailbox.wait_readable(timeout=SECONDS), lambda: mailbox.wait_writable(timeout=SECONDS),
                 lambda: mailbox.watch("readable").arm(1), mailbox.add_reader, lambda: mailbox.remove_reader(0)):
        raises(gpumailbox.NotSupported, call, "express.cuh")
    stats = mailbox.stats()
    assert (stats["published"], stats["released"], stats["rejected"], stats["empty_pops"]) == (0, 0, 0, 0)
    # The token was not used either.
    assert token.poll() is None


@pytest.mark.parametrize("arbitration", ["cpu", "device"])
@pytest.mark.parametrize("policy", ["reject", "wait"])
def test_many_streams_and_threads_share_a_mailbox(lab, rng, policy, arbitration):
    mailbox = lab.context.mailbox(16, 64, full_policy=policy, arbitration=arbitration, mode="shared")
    sent = [signed(rng, producer) for producer in range(PRODUCERS)]
    sizes, wanted = [sizes_of(rng) for _ in sent], rng.integers(1, 12, CONSUMERS).tolist()
    popped, got = [], [[] for _ in range(CONSUMERS)]

    def produce(producer):
        stream, token, rows, at = lab.context.stream(), lab.context.token(), lab.array(sent[producer]), 0
        for size in sizes[producer]:
            end = at + size
            while at < end:
                mailbox.push(rows[at:end], stream=stream, timeout=SECONDS, token=token)
                result = token.wait(timeout=SECONDS)
                assert result.count == end - at or policy == "reject"
                at += result.count

    def consume(consumer):
        stream = lab.context.stream()
        while sum(popped) < PRODUCERS * RECORDS:
            records = mailbox.pop(wanted[consumer], stream=stream)
            if len(records):
                got[consumer].append(lab.numpy(records))
                popped.append(len(records))

    together(*[lambda p=p: produce(p) for p in range(PRODUCERS)], *[lambda c=c: consume(c) for c in range(CONSUMERS)])
    parts = [of_producers(np.concatenate(rows)) for rows in got if rows]
    for producer in range(PRODUCERS):
        mine = [part[producer] for part in parts]
        numbers = [rows[:, 4:8].copy().view(np.uint32)[:, 0] for rows in mine]
        # Each consumer has what it has of a producer in that one's order, and all of them together have all.
        assert all((np.diff(some.astype(np.int64)) > 0).all() for some in numbers)
        together_again = np.concatenate(mine)[np.argsort(np.concatenate(numbers))]
        assert bits(together_again) == bits(sent[producer])
    until(lambda: mailbox.stats()["released"] == PRODUCERS * RECORDS, mailbox.stats)
    assert mailbox.stats()["published"] == PRODUCERS * RECORDS and mailbox.reader_stats()["unread"] == 0
    assert mailbox.stats()["fault"] == 0


def test_every_reader_of_a_shared_mailbox_gets_all(lab, rng):
    """In one order, the same for both, in which the records of each producer are in theirs."""
    mailbox = lab.context.mailbox(32, 64, full_policy="wait", readers=2, mode="shared")
    sent = [signed(rng, producer) for producer in range(PRODUCERS)]

    def produce(producer):
        stream, rows = lab.context.stream(), lab.array(sent[producer])
        for at in range(0, RECORDS, 6):
            mailbox.push(rows[at:at + 6], stream=stream, timeout=SECONDS)
        stream.synchronize()

    def consume(reader):
        stream, got = lab.context.stream(), []
        while sum(map(len, got)) < PRODUCERS * RECORDS:
            mailbox.wait_readable(reader=reader, timeout=SECONDS)
            got.append(lab.numpy(mailbox.pop(20, reader=reader, stream=stream)))
        return np.concatenate(got)

    first, second = together(*[lambda p=p: produce(p) for p in range(PRODUCERS)], lambda: consume(0),
                             lambda: consume(1))[PRODUCERS:]
    assert bits(first) == bits(second)
    assert [bits(rows) for rows in of_producers(first)] == [bits(rows) for rows in sent]


def test_a_push_to_a_shared_mailbox_waits_for_room(lab, rng):
    mailbox, values = lab.context.mailbox(8, 64, full_policy="wait", mode="shared"), random_rows(rng, 12)
    rows = lab.array(values)
    mailbox.push(rows[:8])
    assert mailbox.wait_readable(8, timeout=SECONDS) == 8
    for timeout in (0, NEVER):
        with pytest.raises(gpumailbox.TimedOut):
            mailbox.push(rows[8:], timeout=timeout)
    # All or nothing: three are not enough for four.
    first = lab.numpy(mailbox.pop(3))
    with pytest.raises(gpumailbox.TimedOut):
        mailbox.push(rows[8:], timeout=NEVER)
    with ThreadPoolExecutor(1) as pool:
        pushed = pool.submit(mailbox.push, rows[8:], timeout=SECONDS)
        still_waits(pushed)
        first = np.concatenate([first, lab.numpy(mailbox.pop(1))])
        assert pushed.result(SECONDS) is None
    assert mailbox.wait_readable(8, timeout=SECONDS) == 8
    assert bits(np.concatenate([first, lab.numpy(mailbox.pop(16))])) == bits(values)
    raises(gpumailbox.InvalidArgument, lambda: mailbox.push(lab.array(random_rows(rng, 9)), timeout=SECONDS))


def test_closing_a_shared_mailbox_wakes_whoever_waits(lab, rng):
    for work in (lambda mailbox, rows: mailbox.push(rows), lambda mailbox, rows: mailbox.wait_writable(8),
                 lambda mailbox, rows: mailbox.wait_readable(8)):
        mailbox, rows = lab.context.mailbox(8, 64, full_policy="wait", mode="shared"), lab.array(random_rows(rng, 8))
        mailbox.push(rows[:7])
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(work, mailbox, rows)
            still_waits(waiting)
            mailbox.close()
            with pytest.raises(gpumailbox.Closed):
                waiting.result(SECONDS)


def test_random_operations_of_a_shared_mailbox_do_what_a_model_of_deques_does(lab, rng):
    """One thread's pushes, pops, views and readers that come and go are as those of an ordered mailbox."""
    capacity, mailbox = 16, lab.context.mailbox(16, 64, readers=2, mode="shared")
    token, waiting, refused, seen = lab.context.token(), {0: deque(), 1: deque()}, 0, 0
    for _ in range(250):
        what, count = int(rng.integers(10)), int(rng.integers(1, 20))
        reader = sorted(waiting)[int(rng.integers(len(waiting)))]
        if what < 5:
            values = random_rows(rng, count)
            rows = lab.array(values)
            mailbox.push(rows, token=token)
            fits = min(count, capacity - max(map(len, waiting.values())))
            assert token.wait(timeout=SECONDS).count == fits
            refused += count - fits
            for records in waiting.values():
                records.extend(bits(row) for row in values[:fits])
        elif what == 5 and len(waiting) < 4:
            oldest = max(waiting.values(), key=len)
            added = mailbox.add_reader("oldest")
            assert added == min(set(range(5)) - set(waiting))
            waiting[added] = deque(oldest)
        elif what == 6 and len(waiting) > 1:
            mailbox.remove_reader(reader)
            del waiting[reader]
            raises(gpumailbox.InvalidArgument, lambda: mailbox.pop(1, reader=reader), "not in use")
        else:
            queue = waiting[reader]
            expected = [queue.popleft() for _ in range(min(count, len(queue)))]
            if what == 7:
                with mailbox.view(count, reader=reader) as view:
                    got = [bits(row) for array in view.arrays for row in lab.numpy(array)]
            else:
                got = [bits(row) for row in lab.numpy(mailbox.pop(count, reader=reader))]
            assert got == expected
            seen += len(expected)
    assert seen > 100 and mailbox.stats()["reader_mask"] == sum(1 << reader for reader in waiting)
    until(lambda: mailbox.stats()["rejected"] == refused, lambda: f"{refused} refused: {mailbox.stats()}")
    for reader, queue in waiting.items():
        assert mailbox.reader_stats(reader)["unread"] == len(queue)
        assert [bits(row) for row in lab.numpy(mailbox.pop(2 * capacity, reader=reader))] == list(queue)


@pytest.mark.parametrize("number, mode", [(0, "ordered"), (1, "shared"), (2, "express")])
def test_who_attaches_finds_the_mode(lab, rng, number, mode):
    library, context = ctypes.CDLL(gpumailbox.get_library()), ctypes.c_uint64(lab.context.handle)
    mailbox, pushed = lab.context.mailbox(8, 64, mode=mode), 0
    if mode != "express":
        mailbox.push(lab.array(random_rows(rng, 3)))
        pushed = mailbox.wait_readable(3, timeout=SECONDS)
    lab.end()
    info, attached = told(library, mailbox.handle), ctypes.c_uint64(0)
    assert (info.mode, info.capacity, info.published) == (number, 8, pushed)
    # The same memory: the mailbox itself is not used while the other one is there.
    until(lambda: library.gmb_mailbox_attach(context, ctypes.c_void_p(info.ring), ctypes.c_uint64(info.ring_bytes), None,
                                             ctypes.byref(attached)) == 0, "attached")
    found = told(library, attached.value)
    assert (found.mode, found.published, found.ring_bytes) == (number, pushed, info.ring_bytes)
    assert library.gmb_mailbox_destroy(attached) == 0
    assert mailbox.stats()["mode"] == mode
