"""Records where they lie; and streams, guards and events."""
import gc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import gpumailbox
from lab import SECONDS, bits, current, random_rows, still_waits, together


def test_a_view_shows_the_records_without_taking_them_along(lab, rng):
    mailbox, values = lab.context.mailbox(8, dtype="float32", shape=(4, 4), readers=2), random_rows(rng, 6)
    mailbox.push(lab.as_dtype(lab.array(values), "float32").reshape(6, 4, 4))
    with mailbox.view(6) as mine, mailbox.view(6, reader=1) as theirs:
        # Two readers, the same address: nothing was copied.
        assert [array.data_ptr for array in mine.arrays] == [array.data_ptr for array in theirs.arrays]
        (array,) = mine.arrays
        assert (len(mine), array.shape, array.dtype, array.count) == (6, (6, 4, 4), "float32", 6)
        assert array.strides[0] * 4 == mailbox.stats()["slot_stride"] and array.strides[1:] == (4, 1)
        imported = lab.import_(array)
        assert lab.pointer(imported) == array.data_ptr and lab.layout(imported) == (array.shape, array.strides)
        assert bits(lab.numpy(array)) == bits(values)
        del imported


def test_around_the_rings_end_a_view_has_two_arrays(lab, rng):
    mailbox, values = lab.context.mailbox(8, 64), random_rows(rng, 12)
    rows = lab.array(values)
    mailbox.push(rows[:6])
    assert len(mailbox.pop(6)) == 6
    mailbox.push(rows[6:])
    with mailbox.view(8) as view:
        first, second = view.arrays
        assert (len(view), len(first), len(second)) == (6, 2, 4)
        slot = mailbox.stats()["slot_stride"]
        # The first two slots before the ring's end; the others at its begin.
        assert first.data_ptr - second.data_ptr == 6 * slot
        assert bits(lab.numpy(first)) == bits(values[6:8]) and bits(lab.numpy(second)) == bits(values[8:])
    assert len(mailbox.pop(8)) == 0


def test_records_of_a_view_are_not_popped_again(lab, rng):
    mailbox, values = lab.context.mailbox(16, 64), random_rows(rng, 10)
    mailbox.push(lab.array(values))
    with mailbox.view(4) as view:
        assert bits(lab.numpy(view.arrays[0])) == bits(values[:4])
    assert bits(lab.numpy(mailbox.pop(3))) == bits(values[4:7])
    with mailbox.view(16) as view:
        assert bits(lab.numpy(view.arrays[0])) == bits(values[7:])
    with mailbox.view(16) as view:
        assert len(view) == 0 and view.arrays == []


def test_a_view_holds_its_room_until_it_is_released(lab, rng):
    mailbox, token = lab.context.mailbox(8, 64), lab.context.token()
    values = random_rows(rng, 12)
    rows = lab.array(values)
    mailbox.push(rows[:8])
    view = mailbox.view(4)
    mailbox.push(rows[8:], token=token)
    assert token.wait(timeout=SECONDS).count == 0
    with pytest.raises(gpumailbox.Error, match="borrow"):
        mailbox.pop(1)
    assert bits(lab.numpy(view.arrays[0])) == bits(values[:4])
    view.release()
    view.release()
    mailbox.push(rows[8:], token=token)
    assert token.wait(timeout=SECONDS).count == 4
    assert bits(lab.numpy(mailbox.pop(8))) == bits(values[4:])


def test_a_view_that_is_dropped_or_left_by_an_error_is_released(lab, rng):
    mailbox, rows = lab.context.mailbox(8, 64), lab.array(random_rows(rng, 8))
    mailbox.push(rows)
    view = mailbox.view(2)
    del view
    gc.collect()
    with pytest.raises(ZeroDivisionError):
        with mailbox.view(2):
            1 // 0
    assert len(mailbox.pop(8)) == 4


def test_arrays_of_a_released_view_are_closed(lab, rng):
    mailbox = lab.context.mailbox(8, 64)
    mailbox.push(lab.array(random_rows(rng, 8)))
    with mailbox.view(8) as view:
        (array,) = view.arrays
        assert array.data_ptr
    uses = [lambda: array.data_ptr, lambda: array.__dlpack__(), lambda: lab.numpy(array), lambda: view.arrays]
    if lab.backend == "cuda":
        uses.append(lambda: array.__cuda_array_interface__)
    for use in uses:
        with pytest.raises(gpumailbox.Closed, match="released"):
            use()
    assert len(view) == 8 and array.shape == (8, 64)


def test_views_outlive_their_mailbox(lab, rng):
    mailbox, values = lab.context.mailbox(8, 64), random_rows(rng, 8)
    mailbox.push(lab.array(values))
    view = mailbox.view(8)
    mailbox.close()
    del mailbox
    gc.collect()
    assert bits(lab.numpy(view.arrays[0])) == bits(values)
    view.release()


def test_closing_wakes_who_waits_also_while_records_are_still_looked_at(lab, rng):
    mailbox = lab.context.mailbox(8, 64, readers=2)
    mailbox.push(lab.array(random_rows(rng, 4)))
    view = mailbox.view(2)
    array, imported = view.arrays[0], lab.import_(view.arrays[0])
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(mailbox.wait_readable, 5, reader=1, timeout=5)
        still_waits(waiting)
        mailbox.close()
        # TimedOut would be the end of its own patience.
        with pytest.raises(gpumailbox.Closed):
            waiting.result(SECONDS)
    assert len(array) == len(imported) == 2


def test_views_of_a_reader_are_released_in_any_order(lab, rng):
    mailbox, values = lab.context.mailbox(8, 64), random_rows(rng, 8)
    mailbox.push(lab.array(values))
    views = [mailbox.view(2) for _ in range(4)]
    for index in rng.permutation(4).tolist():
        assert bits(lab.numpy(views[index].arrays[0])) == bits(values[2 * index:2 * index + 2])
        views[index].release()
    assert mailbox.wait_writable(8, timeout=SECONDS) == 8


def test_guards_nest_and_restore(lab):
    streams = first, second = lab.context.stream(), lab.context.stream("focus")
    assert current(lab, *streams) == []
    with lab.context.use_stream(first):
        assert current(lab, *streams) == [first]
        with lab.context.use_stream(second.handle):
            assert current(lab, *streams) == [second]
            with pytest.raises(KeyError), lab.context.use_stream(first):
                raise KeyError
            assert current(lab, *streams) == [second]
        assert current(lab, *streams) == [first]
    assert current(lab, *streams) == []


def test_one_guard_is_used_again_and_within_itself(lab):
    first, second = lab.context.stream(), lab.context.stream()
    guard = lab.context.use_stream(first)
    with guard, lab.context.use_stream(second):
        with guard:
            assert current(lab, first, second) == [first]
        assert current(lab, first, second) == [second]
    assert current(lab, first, second) == []


def test_a_guard_that_ends_before_an_inner_one_leaves_it_in_force(lab):
    first, second = lab.context.stream(), lab.context.stream()
    outer, inner = lab.context.use_stream(first), lab.context.use_stream(second)
    outer.__enter__()
    inner.__enter__()
    try:
        outer.__exit__(None, None, None)
        assert current(lab, first, second) == [second]
    finally:
        inner.__exit__(None, None, None)
    assert current(lab, first, second) == []


def test_a_guard_is_its_threads_alone(lab):
    stream = lab.context.stream()
    with lab.context.use_stream(stream):
        assert together(lambda: current(lab, stream)) == [[]]
        assert current(lab, stream) == [stream]


def test_a_guard_of_one_context_leaves_calls_of_another_alone(lab):
    stream, other = lab.context.stream(), gpumailbox.Context("host")
    mailbox = other.mailbox(2, 16)
    with lab.context.use_stream(stream):
        # No stream of the other context: it would be refused.
        mailbox.push(np.zeros((1, 16), np.uint8))
        assert len(mailbox.pop(1)) == 1


def test_streams_order_what_events_tell_them(lab, rng):
    first, second = lab.context.stream("peripheral"), lab.context.stream("focus")
    assert second.priority <= lab.context.stream().priority <= first.priority
    assert first.handle != second.handle and first.__cuda_stream__() == (0, first.handle)
    mailbox, rows = lab.context.mailbox(64, 64, arbitration="device"), lab.array(random_rows(rng, 64))
    event = lab.context.event()
    assert event.query()
    mailbox.push(rows, stream=first)
    event.record(first)
    second.wait_event(event)
    # Arbitrated by the device, nothing but the event has the pop come after the push.
    assert len(mailbox.pop(64, stream=second)) == 64
    event.synchronize(SECONDS)
    assert event.query()
    first.synchronize()
    assert first.query()


def test_timed_events_tell_a_time_and_others_do_not(lab, rng):
    mailbox, stream = lab.context.mailbox(64, 64), lab.context.stream()
    before, after, untimed = lab.context.event(timed=True), lab.context.event(timed=True), lab.context.event()
    before.record(stream)
    mailbox.push(lab.array(random_rows(rng, 64)), stream=stream)
    after.record(stream)
    untimed.record(stream)
    for event in (after, untimed):
        event.synchronize(SECONDS)
    assert before.elapsed_ms(after) >= 0
    with pytest.raises(gpumailbox.InvalidArgument):
        before.elapsed_ms(untimed)


def test_a_stream_is_taken_by_protocol_and_by_attribute(lab, rng):
    stream, values = lab.context.stream(), random_rows(rng, 4)

    class Protocol:
        def __cuda_stream__(self):
            return 0, stream.handle

    class Attribute:
        def __init__(self, name):
            setattr(self, name, stream.handle)

    mailbox = lab.context.mailbox(32, 64, single_stream=True)
    for given in (stream, stream.handle, Protocol(), Attribute("ptr"), Attribute("cuda_stream")):
        mailbox.push(lab.array(values), stream=given)
    assert bits(lab.numpy(mailbox.pop(32, stream=stream))) == bits(values) * 5
