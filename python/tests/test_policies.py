"""What a push does when there is no room, and who waits for whom."""
from collections import deque
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import gpumailbox
from lab import NEVER, SECONDS, bits, random_rows, still_waits, together, until


def test_reject_takes_what_fits_and_counts_the_rest(lab, rng):
    mailbox, values = lab.context.mailbox(8, 64), random_rows(rng, 15)
    token, rows = lab.context.token(), lab.array(values)
    mailbox.push(rows[:12], token=token)
    told = token.wait(timeout=SECONDS)
    assert (told.count, told.partial) == (8, True)
    mailbox.push(rows[12:], token=token)
    assert token.wait(timeout=SECONDS).count == 0
    assert mailbox.stats()["rejected"] == 7 and mailbox.stats()["published"] == 8
    assert mailbox.stats()["fault"] == 0
    assert mailbox.stats()["full_policy"] == "reject" and mailbox.stats()["high_water"] == 8
    assert bits(lab.numpy(mailbox.pop(16))) == bits(values[:8])


def test_wait_times_out_and_goes_on_when_somebody_pops(lab, rng):
    mailbox, values = lab.context.mailbox(8, 64, full_policy="wait"), random_rows(rng, 12)
    rows = lab.array(values)
    mailbox.push(rows[:8])
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
    rest = lab.numpy(mailbox.pop(16))
    assert bits(np.concatenate([first, rest])) == bits(values)
    assert mailbox.stats()["rejected"] == 0


def test_more_than_the_capacity_never_fits_where_one_waits(lab, rng):
    mailbox = lab.context.mailbox(8, 64, full_policy="wait")
    with pytest.raises(gpumailbox.InvalidArgument):
        mailbox.push(lab.array(random_rows(rng, 9)), timeout=SECONDS)


def test_a_producer_and_a_consumer_pass_much_more_than_fits(lab, rng):
    mailbox, values = lab.context.mailbox(16, 64, full_policy="wait"), random_rows(rng, 2000)
    sizes = rng.integers(1, 17, 2000)

    def produce():
        rows, at = lab.array(values), 0
        for size in sizes:
            mailbox.push(rows[at:at + size], timeout=SECONDS)
            at += size
            if at >= len(values):
                return

    def consume():
        got = []
        while sum(map(len, got)) < len(values):
            mailbox.wait_readable(timeout=SECONDS)
            got.append(lab.numpy(mailbox.pop(16)))
        return np.concatenate(got)

    assert bits(together(produce, consume)[1]) == bits(values)


def test_overwriting_loses_the_oldest_and_says_how_many(lab, rng):
    mailbox, values = lab.context.mailbox(8, 64, full_policy="overwrite_oldest"), random_rows(rng, 30)
    rows = lab.array(values)
    mailbox.push(rows[:8])
    mailbox.push(rows[8:13])
    records = mailbox.pop(3)
    assert (len(records), records.lost) == (3, 5) and bits(lab.numpy(records)) == bits(values[5:8])
    records = mailbox.pop(16)
    assert (len(records), records.lost) == (5, 0) and bits(lab.numpy(records)) == bits(values[8:13])
    # More than the capacity at once: its end stays.
    mailbox.push(rows[13:])
    records = mailbox.pop(16)
    assert (len(records), records.lost) == (8, 9) and bits(lab.numpy(records)) == bits(values[22:])
    assert mailbox.reader_stats()["lost"] == 14 and mailbox.stats()["rejected"] == 0


def test_latest_gives_the_newest_once(lab, rng):
    mailbox, values = lab.context.mailbox(4, 64, full_policy="latest"), random_rows(rng, 9)
    rows = lab.array(values)
    mailbox.push(rows[:5])
    records = mailbox.pop(4)
    assert (records.shape, records.lost) == ((1, 64), 4) and bits(lab.numpy(records)) == bits(values[4])
    assert len(mailbox.pop(4)) == 0
    for at in range(5, 9):
        mailbox.push(rows[at:at + 1])
    records = mailbox.pop(1)
    assert records.lost == 3 and bits(lab.numpy(records)) == bits(values[8])


def test_a_single_stream_mailbox_stays_with_its_first_stream(lab, rng):
    first, second = lab.context.stream(), lab.context.stream()
    mailbox, values = lab.context.mailbox(8, 64, single_stream=True), random_rows(rng, 4)
    rows = lab.array(values)
    mailbox.push(rows, stream=first)
    for call in (lambda: mailbox.push(rows, stream=second), lambda: mailbox.pop(4, stream=second),
                 lambda: mailbox.pop(4)):
        with pytest.raises(gpumailbox.InvalidArgument, match="stream"):
            call()
    assert bits(lab.numpy(mailbox.pop(8, stream=first))) == bits(values)


@pytest.mark.parametrize("arbitration", ["cpu", "device"])
def test_both_arbitrations_pass_records(lab, rng, arbitration):
    mailbox, values = lab.context.mailbox(64, 64, arbitration=arbitration), random_rows(rng, 40)
    mailbox.push(lab.array(values))
    mailbox.wait_readable(40, timeout=SECONDS)
    assert bits(lab.numpy(mailbox.pop(64))) == bits(values)


def test_waiting_for_records_ends_when_they_are_there(lab, rng):
    mailbox, values = lab.context.mailbox(16, 64, readers=2), random_rows(rng, 10)
    rows = lab.array(values)
    with pytest.raises(gpumailbox.TimedOut):
        mailbox.wait_readable(timeout=NEVER)
    with ThreadPoolExecutor(1) as pool:
        ready = pool.submit(mailbox.wait_readable, 7, reader=1, timeout=SECONDS)
        mailbox.push(rows[:4])
        still_waits(ready)
        mailbox.push(rows[4:])
        assert ready.result(SECONDS) in (7, 8, 9, 10)
    assert mailbox.wait_readable(10, timeout=SECONDS) == 10


def test_waiting_for_room_ends_when_somebody_pops(lab, rng):
    mailbox = lab.context.mailbox(16, 64)
    assert mailbox.wait_writable(16, timeout=SECONDS) == 16
    mailbox.push(lab.array(random_rows(rng, 16)))
    with pytest.raises(gpumailbox.TimedOut):
        mailbox.wait_writable(timeout=NEVER)
    with ThreadPoolExecutor(1) as pool:
        room = pool.submit(mailbox.wait_writable, 5, timeout=SECONDS)
        mailbox.pop(4)
        still_waits(room)
        mailbox.pop(1)
        assert room.result(SECONDS) == 5


def test_a_wait_goes_on_after_its_first_slice(lab, rng):
    """Long ones are made of short ones, between which signals are looked at."""
    mailbox, tensors = lab.context.mailbox(8, 64, full_policy="wait"), lab.context.tensor_mailbox(1, full_policy="wait")
    rows = lab.array(random_rows(rng, 8))
    tensors.push(rows)
    for wait, end in ((lambda: mailbox.wait_readable(8, timeout=SECONDS), lambda: mailbox.push(rows)),
                      (lambda: mailbox.push(rows, timeout=SECONDS), lambda: mailbox.pop(8)),
                      (lambda: tensors.push(rows, timeout=SECONDS), tensors.pop)):
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(wait)
            still_waits(waiting, 10 * NEVER)
            end()
            # TimedOut would be the end of its own patience.
            waiting.result(SECONDS)


@pytest.mark.parametrize("policy, work", [
    ("reject", lambda mailbox, rows: mailbox.wait_readable(8)),
    ("reject", lambda mailbox, rows: mailbox.wait_writable(8)),
    ("wait", lambda mailbox, rows: mailbox.push(rows)),
])
def test_closing_wakes_whoever_waits(lab, rng, policy, work):
    mailbox, rows = lab.context.mailbox(8, 64, full_policy=policy), lab.array(random_rows(rng, 8))
    mailbox.push(rows[:7])
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(work, mailbox, rows)
        still_waits(waiting)
        mailbox.close()
        with pytest.raises(gpumailbox.Closed):
            waiting.result(SECONDS)


CAPACITY, READERS, OPERATIONS = 16, 3, 400


@pytest.mark.parametrize("policy", ["reject", "overwrite_oldest"])
def test_random_operations_do_what_a_model_of_deques_does(lab, rng, policy):
    mailbox = lab.context.mailbox(CAPACITY, 64, full_policy=policy, readers=READERS)
    token, waiting = lab.context.token(), [deque() for _ in range(READERS)]
    lost, refused, seen = [0] * READERS, 0, 0
    for _ in range(OPERATIONS):
        what, count, reader = rng.integers(0, 4), int(rng.integers(1, CAPACITY + 5)), int(rng.integers(READERS))
        queue = waiting[reader]
        if what < 2:
            values = random_rows(rng, count)
            # With a token nothing is kept: the array must stay until the result is told.
            rows = lab.array(values)
            mailbox.push(rows, token=token)
            room = CAPACITY - max(map(len, waiting)) if policy == "reject" else count
            assert token.wait(timeout=SECONDS).count == min(count, room)
            refused += count - min(count, room)
            for index, records in enumerate(waiting):
                records.extend(bits(row) for row in values[:room])
                while len(records) > CAPACITY:
                    records.popleft()
                    lost[index] += 1
            continue
        expected = [queue.popleft() for _ in range(min(count, len(queue)))]
        if what == 2:
            records = mailbox.pop(count, reader=reader)
            got, told = lab.numpy(records), records.lost
        else:
            with mailbox.view(count, reader=reader) as view:
                parts = [lab.numpy(array) for array in view.arrays]
                got, told = np.concatenate(parts) if parts else np.empty((0, 64)), view.arrays[0].lost if parts else 0
                assert len(view) == len(expected)
        if len(expected) or what == 2:
            assert told == lost[reader]
            lost[reader] = 0
        assert [bits(row) for row in got] == expected
        seen += len(expected)
    until(lambda: mailbox.stats()["rejected"] == refused, lambda: f"{refused} refused: {mailbox.stats()}")
    assert seen > OPERATIONS
    for reader, queue in enumerate(waiting):
        assert [bits(row) for row in lab.numpy(mailbox.pop(2 * CAPACITY, reader=reader))] == list(queue)
