"""Records: what is pushed comes out once, in order, exactly, and every pop says how many came."""
import _thread
import signal
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import gpumailbox
from lab import POISON, SECONDS, Foreign, Gate, bits, make, random_rows, torch, until


def indexed(count):
    """Records of 64 bytes that hold their index."""
    return np.repeat(np.arange(count, dtype=np.uint8)[:, None], 64, axis=1)


@pytest.mark.parametrize("typed", [False, True])
def test_sixteen_records_come_in_two_full_pops_and_then_none(lab, typed, monkeypatch):
    if torch is not None:
        # Nobody synchronizes: a count that is told is enough.
        def never(*_):
            raise AssertionError("torch.cuda.synchronize was called")
        monkeypatch.setattr(torch.cuda, "synchronize", never)
    kind = dict(dtype="uint8", shape=(64,)) if typed else dict(payload_bytes=64)
    mailbox = lab.context.mailbox(16, **kind)
    mailbox.push(lab.array(indexed(16)))
    for first in (0, 8):
        records = mailbox.pop(8)
        assert len(records) == 8 and records.count == 8 and records.shape == (8, 64) and records.lost == 0
        assert bits(lab.numpy(records)) == bits(indexed(16)[first:first + 8])
    nothing = mailbox.pop(8)
    assert len(nothing) == 0 and nothing.shape == (0, 64) and lab.numpy(nothing).shape == (0, 64)
    monkeypatch.undo()


@pytest.mark.parametrize("dtype, shape", [("float32", (16,)), ("int64", (2, 3, 2)), ("float64", (2,)), ("complex64", (2, 4)),
                                          ("uint8", (4, 4)), ("bool", (32,)), ("float16", (8, 1, 2)), ("uint16", (8,)),
                                          ("complex128", ())])
def test_records_have_the_dtype_and_shape_of_the_mailbox(lab, rng, dtype, shape):
    mailbox = lab.context.mailbox(32, dtype=dtype, shape=shape)
    size = int(np.prod(shape, initial=1)) * np.dtype(dtype).itemsize
    assert (mailbox.dtype, mailbox.shape, mailbox.payload_bytes) == (dtype, shape, size)
    raw = rng.integers(0, 2 if dtype == "bool" else 256, (20, size), dtype=np.uint8)
    values = raw.view(dtype).reshape((20, *shape))
    mailbox.push(lab.array(values))
    records = mailbox.pop(32)
    assert (records.dtype, records.shape, len(records)) == (dtype, (20, *shape), 20)
    got = lab.numpy(records)
    assert got.dtype == np.dtype(dtype) and got.shape == (20, *shape) and bits(got) == bits(values)


def test_a_dtype_is_taken_by_name_and_as_an_object(lab):
    for given in ("float32", np.float32, np.dtype("float32")) + ((torch.float32,) if torch is not None else ()):
        assert lab.context.mailbox(2, dtype=given, shape=(4,)).dtype == "float32"
    assert lab.context.mailbox(2, dtype=bool, shape=(16,)).dtype == "bool"


def test_rows_of_any_dtype_are_bytes_where_the_mailbox_has_bytes(lab, rng):
    mailbox = lab.context.mailbox(16, 64)
    values = rng.standard_normal((6, 4, 4)).astype(np.float32)
    mailbox.push(lab.array(values))
    assert bits(lab.numpy(mailbox.pop(16))) == bits(values)


@pytest.mark.parametrize("size", [1, 4, 20, 24, 40])
def test_records_need_not_be_multiples_of_sixteen_bytes(lab, rng, size):
    mailbox = lab.context.mailbox(16, size)
    wide = random_rows(rng, 9, 48)
    # The rows that are pushed must be aligned; those that come out are the package's affair.
    mailbox.push(lab.array(wide)[:, :size])
    records = mailbox.pop(4)
    assert records.shape == (4, size) and bits(lab.numpy(records)) == bits(wide[:4, :size])
    # They are written in whole units, which would go beyond the rows of out: nothing is lost by asking for it.
    with pytest.raises(gpumailbox.InvalidArgument, match="16"):
        mailbox.pop(5, out=lab.poisoned(5, 48)[:, :size])
    assert bits(lab.numpy(mailbox.pop(5))) == bits(wide[4:, :size])


def test_every_second_row_of_a_larger_array_is_pushed(lab, rng):
    mailbox = lab.context.mailbox(16, dtype="float32", shape=(2, 8))
    values = rng.standard_normal((15, 2, 8)).astype(np.float32)
    whole = lab.array(values)
    mailbox.push(whole[1::2])
    mailbox.push(whole[14:15])
    got = lab.numpy(mailbox.pop(16))
    assert bits(got) == bits(values[[1, 3, 5, 7, 9, 11, 13, 14]])


def test_headers_tell_lengths_and_types(lab, rng):
    mailbox = lab.context.mailbox(32, 64)
    values, lengths = random_rows(rng, 12), rng.integers(0, 65, 12, dtype=np.uint32)
    types = rng.integers(0, 2**31, 12, dtype=np.int32)
    rows, long, kinds = lab.array(values), lab.array(lengths), lab.array(types)
    mailbox.push(rows, lengths=long, types=kinds)
    mailbox.push(rows[:3], msg_type=77)
    mailbox.push(rows[3:5], types=kinds[5:7])
    records = mailbox.pop(32, headers=True)
    assert len(records) == 17 and records.lengths.dtype == "uint32" and records.types.shape == (17,)
    assert lab.numpy(records.lengths).tolist() == lengths.tolist() + [64] * 5
    assert lab.numpy(records.types).tolist() == types.tolist() + [77] * 3 + types[5:7].tolist()
    got = lab.numpy(records)
    for row, expected, length in zip(got, values, lengths):
        assert bits(row[:length]) == bits(expected[:length])
    assert bits(got[12:]) == bits(values[:5])


def test_short_rows_say_how_long_they_are(lab, rng):
    mailbox = lab.context.mailbox(8, 64)
    values = random_rows(rng, 3, 32)
    mailbox.push(lab.array(values))
    records = mailbox.pop(8, headers=True)
    assert records.shape == (3, 64) and lab.numpy(records.lengths).tolist() == [32] * 3
    assert bits(lab.numpy(records)[:, :32]) == bits(values)


def test_out_is_filled_and_narrowed_to_what_came(lab, rng):
    mailbox = lab.context.mailbox(16, 64)
    values, out = random_rows(rng, 5), lab.poisoned(9, 64)
    mailbox.push(lab.array(values))
    got = mailbox.pop(9, out=out)
    assert type(got) is type(out) and tuple(got.shape) == (5, 64) and lab.pointer(got) == lab.pointer(out)
    all = lab.numpy(out)
    assert bits(all[:5]) == bits(values) and (all[5:] == POISON).all()
    assert len(mailbox.pop(9, out=out)) == 0
    assert bits(lab.numpy(out)) == bits(all)


def test_out_may_be_every_second_row_and_longer_than_max(lab, rng):
    mailbox = lab.context.mailbox(16, dtype="int32", shape=(4,))
    values, out = rng.integers(-2**31, 2**31, (6, 4), dtype=np.int32), lab.poisoned(20, 16)
    mailbox.push(lab.array(values))
    typed = lab.as_dtype(out, "int32")
    assert bits(lab.numpy(mailbox.pop(4, out=typed[::2]))) == bits(values[:4])
    all = lab.numpy(out)
    assert bits(all[:8:2]) == bits(values[:4]) and (all[1::2] == POISON).all() and (all[8:] == POISON).all()
    assert bits(lab.numpy(mailbox.pop(16))) == bits(values[4:])


def test_fewer_records_than_asked_for_come_without_waiting(lab, rng):
    mailbox = lab.context.mailbox(16, 64)
    values = random_rows(rng, 5)
    mailbox.push(lab.array(values))
    token, out = lab.context.token(), lab.poisoned(8, 64)
    assert mailbox.pop(8, out=out, token=token) is None
    told = token.wait(timeout=SECONDS)
    assert (told.count, told.partial, told.lost) == (5, True, 0)
    mailbox.push(lab.array(values))
    mailbox.pop(5, out=out, token=token)
    assert token.wait(timeout=SECONDS).partial is False


def test_records_need_not_outlive_the_mailbox_and_outlive_it(lab, rng):
    values = random_rows(rng, 8)
    mailbox = lab.context.mailbox(8, 64)
    mailbox.push(lab.array(values))
    records = mailbox.pop(8)
    mailbox.close()
    del mailbox
    assert bits(lab.numpy(records)) == bits(values)


def test_what_was_imported_keeps_the_records_when_the_array_is_gone(lab, rng):
    mailbox = lab.context.mailbox(8, 64)
    kept, expected = [], []
    for _ in range(20):
        values = random_rows(rng, 8)
        mailbox.push(lab.array(values))
        # Memory that came back too early would hold the records of a later pop.
        kept.append(lab.import_(mailbox.pop(8)))
        expected.append(bits(values))
    assert [bits(lab.numpy(one)) for one in kept] == expected


def test_the_producers_array_may_go_as_soon_as_it_is_pushed(lab, rng):
    mailbox = lab.context.mailbox(1024, 64)
    expected = []
    for _ in range(50):
        values = random_rows(rng, 20)
        array = lab.array(values)
        mailbox.push(array)
        del array
        # The same size, and so perhaps the same memory.
        lab.poisoned(20, 64)
        expected.append(bits(values))
    assert bits(lab.numpy(mailbox.pop(1024))) == b"".join(expected)


@pytest.fixture
def held_up(rng):
    """Of the host backend, whose streams a test can hold up: a laboratory, a stream and records."""
    lab = make("host")
    yield lab, lab.context.stream(), random_rows(rng, 40)
    lab.end()


@pytest.mark.parametrize("told", [False, True], ids=["without a token", "with a token"])
def test_arrays_are_kept_until_a_kernel_has_read_them(held_up, told):
    lab, stream, values = held_up
    mailbox = lab.context.mailbox(64, 64)
    # What is used again has been used, and told, before.
    for _ in range(3):
        mailbox.push(lab.array(values[:1]), stream=stream)
        assert len(mailbox.pop(1, stream=stream)) == 1
    with Gate(lab.context, stream):
        for row in range(40):
            array = lab.track(lab.array(values[row:row + 1]))
            mailbox.push(array, stream=stream, token=lab.context.token() if told else None)
            del array
        assert lab.held() == values.nbytes
    assert bits(lab.numpy(mailbox.pop(64, stream=stream))) == bits(values)
    assert lab.held() == 0


def test_arrays_are_kept_also_when_their_mailbox_goes(held_up):
    lab, stream, values = held_up
    mailbox = lab.context.mailbox(64, 64)
    mailbox.push(lab.array(values[:1]), stream=stream)
    # Records that are looked at: the ring stays, and nobody waits for its end.
    view = mailbox.view(1, stream=stream)
    with Gate(lab.context, stream) as gate, ThreadPoolExecutor(1) as pool:
        array, line = lab.track(lab.array(values)), [sys.maxsize]
        mailbox.push(array, stream=stream)
        del array

        def late(frame):
            until(lambda: frame.f_lineno >= line[0], "the mailbox is on its way, or gone")
            held = lab.held()
            gate.open()
            return held

        opened = pool.submit(late, sys._getframe())
        line[0] = sys._getframe().f_lineno + 1
        del mailbox
        assert opened.result(SECONDS) == values.nbytes
    assert lab.held() == 0 and len(view) == 1


def test_what_an_interrupted_pop_writes_to_is_kept(held_up):
    lab, stream, values = held_up
    mailbox, out = lab.context.mailbox(64, 64), lab.track(lab.poisoned(40, 64))

    class Interrupted(Exception):
        pass

    def interrupt(*_):
        raise Interrupted

    def late(frame):
        until(lambda: frame.f_lineno == line[0], "it is in the line that waits")
        _thread.interrupt_main(signal.SIGUSR1)

    line, before = [0], signal.signal(signal.SIGUSR1, interrupt)
    try:
        mailbox.push(lab.array(values), stream=stream)
        with Gate(lab.context, stream), ThreadPoolExecutor(1) as pool:
            pool.submit(late, sys._getframe())
            with pytest.raises(Interrupted):
                line[0] = sys._getframe().f_lineno + 1
                mailbox.pop(40, out=out, stream=stream)
            del out
            assert lab.held() == values.nbytes
    finally:
        signal.signal(signal.SIGUSR1, before)
    # The records went there. The next call lets go of it.
    assert len(mailbox.pop(1, stream=stream)) == 0
    assert lab.held() == 0


@pytest.mark.parametrize("offset", [0, 16, 4096])
def test_records_may_begin_within_their_memory(rng, offset):
    lab, values = make("host"), random_rows(rng, 5)
    mailbox, foreign = lab.context.mailbox(8, 64), Foreign(values, offset=offset)
    mailbox.push(foreign)
    assert bits(lab.numpy(mailbox.pop(8))) == bits(values)


def test_tokens_tell_of_pushes_and_pops_and_their_epochs_grow(lab, rng):
    mailbox, token, values = lab.context.mailbox(8, 64), lab.context.token(), random_rows(rng, 6)
    rows, out = lab.array(values), lab.poisoned(8, 64)
    epochs = []
    for accepted, delivered in ((6, 6), (6, 6), (6, 6)):
        mailbox.push(rows, token=token)
        told = token.wait(timeout=SECONDS)
        assert told.count == accepted
        epochs.append(told.epoch)
        assert mailbox.pop(8, out=out, token=token) is None
        told = token.wait(after=epochs[-1], timeout=SECONDS)
        assert told.count == delivered and token.poll().epoch == told.epoch
        assert bits(lab.numpy(out)[:6]) == bits(values)
        epochs.append(told.epoch)
    assert epochs == list(range(epochs[0], epochs[0] + 6))
    with pytest.raises(gpumailbox.TimedOut):
        token.wait(after=epochs[-1], timeout=0.01)


@pytest.mark.parametrize("readers", [2, 3, 16])
def test_every_reader_gets_every_record(lab, rng, readers):
    mailbox, values = lab.context.mailbox(16, 64, readers=readers), random_rows(rng, 11)
    mailbox.push(lab.array(values))
    assert mailbox.stats()["reader_mask"] == 2**readers - 1
    for reader in rng.permutation(readers).tolist():
        assert bits(lab.numpy(mailbox.pop(4, reader=reader))) == bits(values[:4])
        assert bits(lab.numpy(mailbox.pop(16, reader=reader))) == bits(values[4:])
        assert mailbox.reader_stats(reader) == dict(released=11, unread=0, lost=0, empty_pops=0)


def test_readers_come_and_go(lab, rng):
    mailbox, values = lab.context.mailbox(8, 64), random_rows(rng, 12)
    rows, token = lab.array(values), lab.context.token()
    mailbox.push(rows[:4])
    next, oldest = mailbox.add_reader(), mailbox.add_reader("oldest")
    assert len({0, next, oldest}) == 3
    mailbox.push(rows[4:8])
    assert bits(lab.numpy(mailbox.pop(8))) == bits(values[:8])
    assert bits(lab.numpy(mailbox.pop(8, reader=next))) == bits(values[4:8])
    # The slowest reader holds all of the space, until it is removed.
    mailbox.push(rows[8:], token=token)
    assert token.wait(timeout=SECONDS).count == 0
    assert bits(lab.numpy(mailbox.pop(2, reader=oldest))) == bits(values[:2])
    mailbox.remove_reader(oldest)
    mailbox.push(rows[8:], token=token)
    assert token.wait(timeout=SECONDS).count == 4
    with pytest.raises(gpumailbox.InvalidArgument, match="reader"):
        mailbox.pop(1, reader=oldest)
    assert bits(lab.numpy(mailbox.pop(8, reader=next))) == bits(values[8:])
    assert bits(lab.numpy(mailbox.pop(8))) == bits(values[8:])


def test_memory_comes_back_when_the_records_go(lab, rng):
    mailbox, rows = lab.context.mailbox(64, 64), lab.array(random_rows(rng, 64))
    mailbox.push(rows)
    del_me = mailbox.pop(64, headers=True)
    del del_me
    before = lab.context.memory()
    assert before["used"] > 0
    for _ in range(1000):
        mailbox.push(rows)
        records = mailbox.pop(64, headers=True)
        assert len(records) == 64
        del records
    assert lab.context.memory()["used"] == before["used"]
    assert lab.context.memory()["allocations"] == before["allocations"]
    kept = mailbox.pop(64)
    assert lab.context.memory()["used"] >= before["used"] + 64 * 64
    imported = lab.import_(kept)
    del kept
    assert lab.context.memory()["used"] >= before["used"] + 64 * 64
    del imported
    assert lab.context.memory()["used"] == before["used"]


def test_a_mailbox_that_goes_gives_its_memory_back(lab):
    before = lab.context.memory()
    for close in (True, False):
        mailbox = lab.context.mailbox(1024, 64)
        assert lab.context.memory()["used"] >= before["used"] + 1024 * 64
        if close:
            mailbox.close()
        del mailbox
        assert lab.context.memory()["used"] == before["used"]


def test_numpy_takes_what_lies_on_the_host(lab, rng):
    mailbox = lab.context.mailbox(16, dtype="float32", shape=(4,))
    values = rng.standard_normal((5, 4)).astype(np.float32)
    mailbox.push(lab.array(values))
    records = mailbox.pop(16)
    if lab.backend == "cuda":
        with pytest.raises(TypeError, match="on a GPU"):
            np.asarray(records)
        return
    seen = np.asarray(records)
    assert bits(seen) == bits(values) and seen.ctypes.data == records.data_ptr
    copied = np.array(records, copy=True)
    assert bits(copied) == bits(values) and copied.ctypes.data != records.data_ptr
    assert bits(np.asarray(records, dtype=np.float64)) == bits(values.astype(np.float64))
    with pytest.raises(ValueError, match="copy"):
        records.__array__(dtype=np.dtype("float64"), copy=False)
