"""Arbiters: what they say in device memory is what was pushed and popped."""
import ctypes
import gc
import textwrap

import numpy as np
import pytest

import gpumailbox
from children import run
from gpumailbox import Arbiter, Closed, Error, InvalidArgument, NotSupported
from items import queues
from lab import SECONDS, c_library, copy, raises, together, until

CLASSES = ("focus", "peripheral")
SLICE = 0.002


class Header(ctypes.Structure):
    """gmb_arbiter_header."""
    _fields_ = [("magic", ctypes.c_char * 8), ("version", ctypes.c_uint32), ("count", ctypes.c_uint32),
                ("focus", ctypes.c_uint32), ("reserved", ctypes.c_uint32), ("turns", ctypes.c_uint64),
                ("pad", ctypes.c_uint64 * 12), ("ready", ctypes.c_uint32 * 32), ("place", ctypes.c_uint16 * 1024),
                ("number", ctypes.c_uint16 * 1024)]


def header(lab, arbiter):
    read = Header()
    copy(lab, ctypes.addressof(read), arbiter.pointer, ctypes.sizeof(read))
    return read


def said(lab, arbiter):
    """For each number whether it is ready."""
    read = header(lab, arbiter)
    return [bool(read.ready[place // 32] >> place % 32 & 1) for place in read.place[:read.count]]


def says(lab, arbiter, expected):
    until(lambda: said(lab, arbiter) == expected, lambda: f"{said(lab, arbiter)}, not {expected}")


def rows(lab, count):
    return lab.array(np.ones((count, 16), np.uint8))


class Model:
    """A mailbox, and what each of its readers has left."""

    def __init__(self, lab, **options):
        self.lab, self.box = lab, lab.context.mailbox(8, 16, **options)
        # Room is where all readers have been; others overwrite.
        self.refuses = "full_policy" not in options
        self.unread = [0] * options.get("readers", 1)

    def push(self, rng):
        count = int(rng.integers(1, 9))
        if self.refuses:
            count = min(count, 8 - max(self.unread))
        if count:
            self.box.push(rows(self.lab, count))
            self.unread = [unread + count for unread in self.unread]

    def pop(self, rng):
        reader = int(rng.integers(len(self.unread)))
        # Of those that overwrite all that is there.
        count = int(rng.integers(1, 9)) if self.refuses else 8
        came = len(self.box.pop(count, reader=reader))
        if self.refuses:
            assert came == min(count, self.unread[reader])
            self.unread[reader] -= came
        else:
            assert (came > 0) == (self.unread[reader] > 0)
            self.unread[reader] = 0


KINDS = [{}, dict(readers=3), dict(mode="shared"), dict(full_policy="latest"), dict(full_policy="overwrite_oldest", readers=2),
         dict(arbitration="device")]


@pytest.mark.parametrize("count", [1, 5, 31, 40])
def test_what_is_said_is_what_was_pushed_and_popped(lab, rng, count):
    models = [Model(lab, **KINDS[int(rng.integers(len(KINDS)))]) for _ in range(count)]
    # Of each mailbox each reader, and some by their mailbox alone, in any order.
    of = [(model, reader, CLASSES[int(rng.integers(2))]) for model in models for reader in range(len(model.unread))]
    of += [(model, 0, None) for model in models if rng.integers(4) == 0]
    rng.shuffle(of := np.array(of, dtype=object))
    given = [model.box if name is None else (model.box, reader, name) for model, reader, name in of]
    focus = [n for n, (_, _, name) in enumerate(of) if name != "peripheral"]
    with lab.context.arbiter(given, SLICE) as arbiter:
        read = header(lab, arbiter)
        assert read.magic in (b"GMBWATCH", b"HCTAWBMG") and (read.count, read.focus) == (len(of), len(focus))
        # Focus has the first places, each class in the order in which it was given.
        order = focus + [n for n in range(len(of)) if n not in focus]
        assert read.number[:len(of)] == order and [read.place[n] for n in order] == list(range(len(of)))
        for _ in range(60):
            for _ in range(int(rng.integers(1, 2 * count))):
                model = models[int(rng.integers(count))]
                (model.push if rng.integers(2) else model.pop)(rng)
            says(lab, arbiter, [model.unread[reader] > 0 for model, reader, _ in of])
        stats = arbiter.stats()
        assert stats["mailboxes"] == len(of) and stats["focus"] == len(focus) and set(stats) == {
            "mailboxes", "focus", "slices", "heartbeat"}


def test_what_was_there_before_is_said(lab, rng):
    boxes = [lab.context.mailbox(8, 16) for _ in range(70)]
    full = [bool(rng.integers(2)) for _ in boxes]
    for box, holds in zip(boxes, full):
        if holds:
            box.push(rows(lab, 1))
    with lab.context.arbiter(boxes, slice=SLICE) as arbiter:
        says(lab, arbiter, full)


@pytest.mark.parametrize("slice", [None, SLICE, float("inf")])
def test_it_comes_and_leaves(lab, slice):
    box, records = lab.context.mailbox(8, 16), rows(lab, 1)
    # What is made on first use is there before a kernel stays.
    box.push(records)
    box.pop(1)
    for _ in range(5):
        with lab.context.arbiter([box], slice) as arbiter:
            until(lambda: arbiter.stats()["heartbeat"] != 0 or arbiter.stats()["slices"] > 0, arbiter.stats)
            if slice == SLICE:
                until(lambda: arbiter.stats()["slices"] > 3, arbiter.stats)
            if slice == float("inf"):
                assert arbiter.stats()["slices"] == 0
        with lab.context.arbiter([box], slice):
            # Ended before it came, perhaps.
            pass


def test_many_arbiters_look_at_the_same_mailboxes(lab, rng):
    models = [Model(lab) for _ in range(4)]
    given = [model.box for model in models]
    with lab.context.arbiter(given, SLICE) as one, lab.context.arbiter([*given[::-1], given[0]], SLICE) as other:
        for _ in range(30):
            model = models[int(rng.integers(4))]
            (model.push if rng.integers(2) else model.pop)(rng)
            expected = [model.unread[0] > 0 for model in models]
            says(lab, one, expected)
            says(lab, other, [*expected[::-1], expected[0]])


def test_it_keeps_its_mailboxes(lab):
    before = lab.context.memory()["used"]
    box = lab.context.mailbox(8, 16, readers=2)
    arbiter = lab.context.arbiter([(box, 1, "focus"), (box, 0, "peripheral")], SLICE)
    number, c = box.handle, c_library()
    box.push(rows(lab, 1))
    box.pop(1)
    del box
    gc.collect()
    says(lab, arbiter, [True, False])
    # Also for C++ that has its number.
    info = (ctypes.c_uint64 * 32)()
    get = c.gmb_mailbox_get_reader_info
    assert get(ctypes.c_uint64(number), ctypes.c_uint32(1), info, ctypes.c_size_t(32)) == 0
    held = lab.context.memory()["used"]
    assert held > before
    arbiter.close()
    assert lab.context.memory()["used"] < held
    del arbiter
    gc.collect()
    assert lab.context.memory()["used"] == before
    assert get(ctypes.c_uint64(number), ctypes.c_uint32(1), info, ctypes.c_size_t(32)) < 0


def test_a_mailbox_may_be_closed_before_it(lab):
    before = lab.context.memory()["used"]
    with lab.context.mailbox(8, 16) as box:
        box.push(rows(lab, 1))
        arbiter = lab.context.arbiter([box], SLICE)
    says(lab, arbiter, [True])
    raises(Closed, lambda: box.pop(1), "mailbox", "closed")
    arbiter.close()
    assert lab.context.memory()["used"] == before


def test_closed_is_closed(lab):
    box = lab.context.mailbox(8, 16)
    with lab.context.arbiter([box]) as arbiter:
        assert repr(arbiter) == "<gpumailbox.Arbiter of 1 mailbox>"
    assert "of 1 mailbox, closed" in repr(arbiter)
    arbiter.close()
    for call in (arbiter.stats, lambda: arbiter.handle, lambda: arbiter.pointer):
        raises(Closed, call, "arbiter", "closed")
    box.push(rows(lab, 1))
    assert len(box.pop(1)) == 1
    assert "of 2 mailboxes" in repr(lab.context.arbiter([box, box]))


def test_it_is_closed_while_others_ask(lab):
    box = lab.context.mailbox(8, 16)
    for _ in range(20):
        arbiter = lab.context.arbiter([box], SLICE)

        def asks():
            try:
                while arbiter.stats()["mailboxes"] == 1 and arbiter.pointer and arbiter.handle:
                    pass
            except Closed:
                return True

        assert together(asks, asks, arbiter.close, arbiter.close) == [True, True, None, None]


def test_a_closed_context_closes_it(lab):
    context = gpumailbox.Context(lab.backend)
    box = context.mailbox(8, 16)
    arbiter = context.arbiter([box], SLICE)
    context.close()
    for call in (arbiter.stats, lambda: arbiter.handle, lambda: arbiter.pointer, lambda: context.arbiter([box])):
        raises(Closed, call, "context", "closed")
    assert "closed" in repr(arbiter)
    arbiter.close()


def test_its_block_is_of_the_workers_budget(lab):
    box, (active,) = lab.context.mailbox(8, 16), queues(lab, 1)
    most = lab.context.worker(active).stats()["most_blocks"]
    with lab.context.worker(active, grid_blocks=most) as worker:
        worker.start()
        raises(Error, lambda: lab.context.arbiter([box]), "BUSY")
        worker.stop()
        worker.wait(SECONDS)
        with lab.context.arbiter([box]):
            raises(Error, worker.start, "BUSY")
        worker.start()


def test_the_handle_is_that_of_the_c_api(lab):
    box = lab.context.mailbox(8, 16)
    arbiter = lab.context.arbiter([box, (box, 0, "peripheral"), box])
    # gmb_arbiter_info: mailboxes and focus in a word, slices, heartbeat, the address.
    info = (ctypes.c_uint64 * 4)()
    assert c_library().gmb_arbiter_get_info(ctypes.c_uint64(arbiter.handle), info, ctypes.c_size_t(32)) == 0
    assert info[0] == 2 << 32 | 3 and info[3] == arbiter.pointer


def test_as_many_as_there_may_be(lab):
    box = lab.context.mailbox(8, 16)
    with lab.context.arbiter([box] * 1024, SLICE) as arbiter:
        says(lab, arbiter, [False] * 1024)
        box.push(rows(lab, 1))
        says(lab, arbiter, [True] * 1024)
    raises(InvalidArgument, lambda: lab.context.arbiter([box] * 1025), "1025", "1024")


def test_arbiters_that_cannot_be(lab):
    make, box, closed = lab.context.arbiter, lab.context.mailbox(8, 16, readers=2), lab.context.mailbox(8, 16)
    closed.close()
    before = lab.context.memory()["used"]
    stranger = gpumailbox.Context(lab.backend).mailbox(8, 16)
    raises(InvalidArgument, lambda: make([]), "mailboxes", "empty")
    for what, *words in (
            (5, "int"), (None, "NoneType"), ("box", "str"), (object(), "object"), ([box, 0, "focus"], "list"), (Arbiter, "type"),
            (lab.context.tensor_mailbox(2), "TensorMailbox"), (lab.context.fifo(2), "Fifo"),
            ((), "0 parts"), ((box,), "1 parts"), ((box, 0), "2 parts"), ((box, 0, "focus", 0), "4 parts"),
            ((0, box, "focus"), "int"), (("focus", 0, box), "str"), ((None, 0, "focus"), "NoneType"),
            ((box, 2, "focus"), "reader 2"), ((box, 15, "focus"), "reader 15"), ((box, 16, "focus"), "reader 16"),
            ((box, 2**32 - 1, "focus"), "reader"), ((box, 2**32, "focus"), "reader"), ((box, -1, "focus"), "reader -1"),
            ((box, None, "focus"), "reader None"), ((box, "0", "focus"), "reader 0"), ((box, 0.0, "focus"), "reader 0.0"),
            ((box, 0, "normal"), "class", "normal", "focus, peripheral"), ((box, 0, ""), "class"), ((box, 0, "Focus"), "Focus"),
            ((box, 0, 0), "class 0"), ((box, 0, None), "class None"), ((box, 0, b"focus"), "class"),
            (stranger, "another context"), ((stranger, 0, "focus"), "another context")):
        for at in (0, 2):
            raises(InvalidArgument, lambda: make([box] * at + [what, box]), f"mailboxes[{at}]", *words)
    for what in (closed, (closed, 0, "focus")):
        raises(Closed, lambda: make([box, what]), "mailboxes[1]", "closed")
    removed = lab.context.mailbox(8, 16, readers=2)
    removed.remove_reader(1)
    raises(InvalidArgument, lambda: make([(removed, 1, "focus")]), "mailboxes[0]", "reader 1")
    raises(NotSupported, lambda: make([lab.context.mailbox(8, 16, mode="express")]), "express")
    for slice in (-1, 0, -0.001, float("nan"), -float("inf"), 1e300):
        raises(InvalidArgument, lambda: make([box], slice), "slice")
    for wrong in (box, 5, None, "box", {box}, iter([box])):
        with pytest.raises(TypeError, match="mailboxes"):
            make(wrong)
    for call in (lambda: make(), lambda: make([box], "soon"), Arbiter):
        with pytest.raises(TypeError):
            call()
    del removed
    gc.collect()
    assert lab.context.memory()["used"] == before


@pytest.mark.parametrize("slice", ["None", "0.002", "float('inf')"])
def test_a_process_ends_with_whatever_is_out(prelude, slice):
    assert run(prelude, textwrap.dedent(f"""
        boxes = [context.mailbox(8, 16) for _ in range(3)]
        rows = make(1, 1, 16)
        arbiter = context.arbiter(boxes, {slice})
        while arbiter.stats()["heartbeat"] == 0 and arbiter.stats()["slices"] == 0: pass
        boxes[1].push(rows)
        sys.modules["held"] = [arbiter, boxes]
        print("done")
    """)) == "done\n"
