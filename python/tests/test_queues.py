"""Work queues and workers: what is pushed comes out once and in order, and workers do what a sequential program does."""
import array
import contextlib
import ctypes
import signal
import textwrap
from collections import deque
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import gpumailbox
from children import child, finished as ended, run
from gpumailbox import Closed, Error, InvalidArgument, InvalidDevice, TimedOut
from lab import NEVER, POISON, SECONDS, Foreign, Gate, bits, make, raises, still_waits, together, torch, until

# What an item is, and its type in NumPy.
KINDS = [(dict(dtype="int32"), "int32"), (dict(dtype="float32"), "float32"), (dict(dtype="int64"), "int64"),
         (dict(dtype="complex128"), "complex128"), (dict(item_bytes=4), "float32"), (dict(item_bytes=8), "int64"),
         (dict(item_bytes=16), "complex128")]
kinds = pytest.mark.parametrize("kind, dtype", KINDS, ids=[" ".join(map(str, *kind.items())) for kind, _ in KINDS])
# What Python itself says of a number that is none, or does not fit.
NUMBER = (InvalidArgument, OverflowError, TypeError)


def random_items(rng, count, dtype):
    return rng.integers(0, 256, (count, np.dtype(dtype).itemsize), dtype=np.uint8).view(dtype).reshape(count)


def split(of, size):
    """The bytes of each item."""
    raw = bits(of)
    return [raw[at:at + size] for at in range(0, len(raw), size)]


def queues(lab, count, capacity=1024, dtype="int64"):
    return [lab.context.queue(capacity, dtype=dtype) for _ in range(count)]


def contents(queue, dtype="int64"):
    return np.frombuffer(queue.pop_to_host(queue.capacity), dtype).tolist()


def modelled(values, first, increment, spawn_interval, size):
    """What a worker makes of items of so many bytes, of which the first one is the queue's `first`: finished and spawned."""
    out = [[], []]
    for ticket, value in enumerate(values, first):
        # Of 16 bytes the first 8 count.
        counts, rest = value[:8], value[8:]
        number = (int.from_bytes(counts, "little") + increment) % 2**(8 * min(size, 8))
        spawns = spawn_interval and (ticket + 1) % spawn_interval == 0
        out[1 if spawns else 0].append(number.to_bytes(len(counts), "little") + rest)
    return out


# -- Queues --

@kinds
def test_items_come_in_the_order_of_a_deque(lab, rng, kind, dtype):
    capacity, size = 32, np.dtype(dtype).itemsize
    queue, model, stream = lab.context.queue(capacity, **kind), deque(), lab.context.stream()
    token, pushed, popped = lab.context.token(), 0, 0
    for _ in range(200):
        what, count = int(rng.integers(7)), int(rng.integers(1, 25))
        if what < 3:
            values = random_items(rng, count, dtype)
            fits = min(count, capacity - len(model))
            if what == 0:
                queue.push(lab.array(values), stream=stream, token=token)
                told = token.wait(timeout=SECONDS)
                assert (told.count, told.partial) == (fits, fits < count)
            elif what == 1:
                queue.push(lab.array(values), stream=stream)
                stream.synchronize()
            else:
                assert queue.push_from_host(values) == fits
            model.extend(split(values[:fits], size))
            pushed += fits
            continue
        expected = [model.popleft() for _ in range(min(count, len(model)))]
        popped += len(expected)
        if what == 3:
            got = queue.pop_to_host(count)
        elif what == 4:
            out = lab.as_dtype(lab.poisoned(30 * size), dtype)
            given = queue.pop(count, out=out, stream=stream)
            assert lab.pointer(given) == lab.pointer(out) and len(given) == len(expected)
            stream.synchronize()
            got, whole = bits(lab.numpy(given)), bits(lab.numpy(out))
            assert whole[len(got):] == bytes([POISON]) * (len(whole) - len(got))
        elif what == 5:
            out = lab.as_dtype(lab.poisoned(count * size), dtype)
            assert queue.pop(count, out=out, stream=stream, token=token) is None
            told = token.wait(timeout=SECONDS)
            stream.synchronize()
            assert (told.count, told.partial) == (len(expected), len(expected) < count)
            got = bits(lab.numpy(out)[:told.count])
        else:
            items = queue.pop(count, stream=stream)
            assert len(items) == items.count == len(expected) and items.lost == 0
            got = bits(lab.numpy(items))
        assert split(np.frombuffer(got, np.uint8), size) == expected
    stats = queue.stats()
    assert pushed > 100 and popped > 100 and (stats["capacity"], stats["item_bytes"], stats["workers"]) == (capacity, size, 0)
    assert (stats["size"], stats["pushed"], stats["popped"]) == (len(model), pushed, popped)


def test_what_pops_give_has_the_dtype_of_the_queue(lab):
    for dtype in ("int32", "uint32", "float32", "int64", "uint64", "float64", "complex64", "complex128"):
        queue = lab.context.queue(8, dtype=dtype)
        assert (queue.dtype, queue.item_bytes, queue.capacity) == (dtype, np.dtype(dtype).itemsize, 8)
        items = queue.pop(4)
        assert (items.dtype, items.shape, len(items)) == (dtype, (0,), 0)
    queue = lab.context.queue(8, item_bytes=16)
    assert (queue.dtype, queue.item_bytes, queue.pop(4).shape) == ("uint8", 16, (0, 16))


def test_a_dtype_is_taken_by_name_and_as_an_object(lab):
    for given in ("float32", np.float32, np.dtype("float32")) + ((torch.float32,) if torch is not None else ()):
        assert lab.context.queue(2, dtype=given).dtype == "float32"
    assert lab.context.queue(2, dtype=int).dtype == "int64"


def test_rows_of_any_type_are_items_where_the_queue_has_bytes(lab, rng):
    queue, values = lab.context.queue(64, item_bytes=16), random_items(rng, 6, "complex128")
    for dtype, shape in (("complex128", (6,)), ("int32", (6, 4)), ("float64", (6, 2)), ("uint8", (6, 16)),
                         ("int16", (6, 2, 4))):
        queue.push(lab.array(values.view(dtype).reshape(shape)))
        items = queue.pop(64)
        assert (items.dtype, items.shape) == ("uint8", (6, 16)) and bits(lab.numpy(items)) == bits(values)
        # What came out goes in again.
        queue.push(items)
        out = lab.as_dtype(lab.poisoned(6, 16), "float32")
        assert tuple(queue.pop(6, out=out).shape) == (6, 4) and bits(lab.numpy(out)) == bits(values)


def test_items_of_the_host_are_bytes_and_arrays(lab):
    queue = lab.context.queue(64, dtype="int64")
    numbers = [1, -2, 2**63 - 1]
    for given in (np.array(numbers), array.array("q", numbers), memoryview(array.array("q", numbers)),
                  bytearray(np.array(numbers)), np.array(numbers).tobytes(), np.array([[1, -2, 2**63 - 1]])):
        assert queue.push_from_host(given) == 3
    # The rows of a column are gathered.
    assert queue.push_from_host(np.array([[1, 0], [-2, 0], [2**63 - 1, 0]])[:, 0]) == 3
    assert contents(queue) == 7 * numbers and queue.pop_to_host(1) == b""


def test_many_items_go_through_the_host_at_once(lab, rng):
    values = random_items(rng, 2**18 + 1, "complex128")
    queue = lab.context.queue(2**18, dtype="complex128")
    assert queue.push_from_host(values) == 2**18
    assert queue.pop_to_host(2**32 - 1) == bits(values[:-1])
    # However many are asked for: there is memory for what the queue holds.
    assert queue.push_from_host(values[:5]) == 5
    assert bits(lab.numpy(queue.pop(2**32 - 1))) == bits(values[:5])


def test_like_makes_the_arrays_of_others(lab, rng):
    queue, values = lab.context.queue(16, dtype="float32"), rng.standard_normal(5).astype(np.float32)
    if torch is not None:
        queue.push(lab.array(values))
        got = queue.pop(16, like=torch.Tensor)
        assert type(got) is torch.Tensor and got.shape == (5,) and bits(got.cpu().numpy()) == bits(values)
    raises(InvalidArgument, lambda: queue.pop(16, like=dict), "exchange")


def test_threads_and_streams_share_a_queue(lab):
    producers, count = 3, 400
    queue, got, total = lab.context.queue(64, dtype="int64"), [[], []], [0]

    def produce(producer):
        stream, token, at = lab.context.stream(), lab.context.token(), 0
        items = lab.array(np.arange(count) + producer * count)
        while at < count:
            queue.push(items[at:at + 20], stream=stream, token=token)
            at += token.wait(timeout=SECONDS).count

    def consume(mine):
        stream = lab.context.stream()
        while total[0] < producers * count:
            items = queue.pop(30, stream=stream)
            if len(items):
                mine.extend(lab.numpy(items).tolist())
                total[0] = sum(map(len, got))

    together(*[lambda p=p: produce(p) for p in range(producers)], *[lambda g=g: consume(g) for g in got])
    assert sorted(got[0] + got[1]) == list(range(producers * count))
    for mine in got:
        for producer in range(producers):
            those = [item for item in mine if item // count == producer]
            assert those == sorted(those)


@pytest.mark.parametrize("told", [False, True], ids=["without a token", "with a token"])
def test_arrays_are_kept_until_a_kernel_has_read_them(rng, told):
    lab = make("host")
    stream, values, queue = lab.context.stream(), random_items(rng, 40, "int64"), lab.context.queue(64, dtype="int64")
    # What is used again has been used, and told, before.
    for _ in range(3):
        queue.push(lab.array(values[:1]), stream=stream)
        assert len(queue.pop(1, stream=stream)) == 1
    with Gate(lab.context, stream):
        for at in range(40):
            one = lab.track(lab.array(values[at:at + 1]))
            queue.push(one, stream=stream, token=lab.context.token() if told else None)
            del one
        out = lab.track(lab.as_dtype(lab.poisoned(320), "int64"))
        queue.pop(40, out=out, stream=stream, token=lab.context.token())
        del out
        assert lab.held() == 2 * values.nbytes
    assert len(queue.pop(64, stream=stream)) == 0
    assert lab.held() == 0


def test_what_the_c_api_captures_is_captured_here(lab, rng):
    c = ctypes.CDLL(gpumailbox.get_library())
    context, graph, own = ctypes.c_uint64(lab.context.handle), ctypes.c_uint64(), lab.context.stream()
    queue, values = lab.context.queue(64, dtype="int64"), random_items(rng, 4, "int64")
    items, out = lab.array(values), lab.as_dtype(lab.poisoned(8 * 8), "int64")
    around = torch.cuda.stream(torch.cuda.ExternalStream(own.handle)) if lab.backend == "cuda" else contextlib.nullcontext()
    if lab.backend == "cuda":
        torch.cuda.synchronize()
    with around:
        assert c.gmb_stream_begin_capture(context, ctypes.c_void_p(own.handle), 1) == 0
        queue.push(items, stream=own)
        assert queue.pop(8, out=out, stream=own) is None
        raises(InvalidArgument, lambda: queue.pop(8, stream=own), "out")
        assert c.gmb_stream_end_capture(context, ctypes.c_void_p(own.handle), ctypes.byref(graph)) == 0
    assert queue.stats()["pushed"] == 0
    for launch in (1, 2):
        assert c.gmb_graph_launch(graph, ctypes.c_void_p(own.handle)) == 0
        own.synchronize()
        assert (queue.stats()["pushed"], queue.stats()["popped"]) == (4 * launch, 4 * launch)
        assert bits(lab.numpy(out)[:4]) == bits(values)
        out[:] = 0
        if lab.backend == "cuda":
            torch.cuda.synchronize()
    assert c.gmb_graph_destroy(graph) == 0


def test_a_measurement_leaves_an_empty_queue(lab):
    queue = lab.context.queue(256, dtype="int32")
    found = queue.measure(100, 20)
    assert found["items"] == 2000 and found["seconds"] >= 0 and found["items_per_second"] >= 0
    assert queue.stats()["size"] == 0
    queue.push_from_host(b"four")
    raises(InvalidArgument, lambda: queue.measure(1, 1), "empty")
    assert queue.pop_to_host(2) == b"four"
    for batch, iterations in ((0, 1), (1, 0), (257, 1)):
        raises(InvalidArgument, lambda: queue.measure(batch, iterations))
    for batch, iterations in ((-1, 1), (1, 2**32), ("1", 1)):
        with pytest.raises(NUMBER):
            queue.measure(batch, iterations)


def test_a_queue_lies_where_its_address_says_and_is_the_one_of_its_handle(lab):
    queue = lab.context.queue(8, dtype="int32")
    queue.push_from_host(np.arange(3, dtype=np.int32))
    c, pushed = ctypes.CDLL(gpumailbox.get_library()), ctypes.c_uint64()
    assert c.gmb_queue_push_from_host_blocking(ctypes.c_uint64(queue.handle), b"1234", 1, ctypes.byref(pushed)) == 0
    assert pushed.value == 1 and queue.stats()["size"] == 4
    # gmb_queue_header: magic, version, bytes of an item, capacity.
    header = np.zeros(24, np.uint8)
    assert c.gmb_memory_copy(ctypes.c_uint64(lab.context.handle), ctypes.c_void_p(header.ctypes.data),
                             ctypes.c_void_p(queue.address), ctypes.c_uint64(24), None) == 0
    until(lambda: header[16] == 8, "the header is copied")
    assert header[12:16].view(np.uint32)[0] == 4 and header[16:].view(np.uint64)[0] == 8


def test_queues_that_go_give_their_memory_back(lab):
    before = lab.context.memory()["used"]
    for close in (True, False):
        queue = lab.context.queue(1024, item_bytes=16)
        assert lab.context.memory()["used"] >= before + 1024 * 16
        assert queue.stats()["queue_bytes"] >= 1024 * 16
        if close:
            queue.close()
        del queue
        assert lab.context.memory()["used"] == before


def test_closed_is_closed(lab):
    items, token = lab.array(np.zeros(4, np.int32)), lab.context.token()
    with lab.context.queue(8, dtype="int32") as queue:
        queue.push(items)
        assert "closed" not in repr(queue) and "int32" in repr(queue)
    assert "closed" in repr(queue)
    queue.close()
    for call in (lambda: queue.push(items), lambda: queue.push(items, token=token), lambda: queue.pop(1), queue.stats,
                 lambda: queue.push_from_host(b"1234"), lambda: queue.pop_to_host(1), lambda: queue.measure(1, 1),
                 lambda: queue.handle, lambda: queue.address, lambda: lab.context.worker(queue)):
        raises(Closed, call, "queue", "closed")
    context = gpumailbox.Context(lab.backend)
    queue = context.queue(8, dtype="int32")
    worker = context.worker(queue)
    context.close()
    raises(Closed, lambda: queue.pop(1), "context")
    raises(Closed, worker.start, "context")
    raises(Closed, lambda: context.queue(8, dtype="int32"), "context")
    worker.close()
    queue.close()


# -- What is wrong with queues is said --

def test_queues_that_cannot_be(lab):
    context = lab.context
    for size in (0, 1, 2, 3, 5, 12, 32):
        raises(InvalidArgument, lambda: context.queue(8, item_bytes=size), f"item_bytes {size}", "4, 8 or 16")
    for dtype in ("int8", "float16", "bfloat16", "bool"):
        raises(InvalidArgument, lambda: context.queue(8, dtype=dtype), "4, 8 or 16")
    raises(InvalidArgument, lambda: context.queue(8, dtype="text"), "text")
    for capacity in (0, 3, 100, 2**40):
        raises(InvalidArgument, lambda: context.queue(capacity, dtype="int32"), f"capacity {capacity}")
    for what in (dict(), dict(dtype="int32", item_bytes=4)):
        raises(InvalidArgument, lambda: context.queue(8, **what), "item_bytes", "dtype")
    for threads in (1, 33, 2048):
        raises(InvalidArgument, lambda: context.queue(8, dtype="int32", block_threads=threads), f"block_threads {threads}")
    assert context.queue(8, dtype="int32", block_threads=64, max_blocks=1).stats()["max_blocks"] == 1
    for what in (dict(item_bytes=-4), dict(item_bytes="4"), dict(dtype="int32", max_blocks=-1)):
        with pytest.raises(NUMBER):
            context.queue(8, **what)
    for capacity in (-8, 2**64, None, 8.0):
        with pytest.raises(NUMBER):
            context.queue(capacity, dtype="int32")


@pytest.mark.parametrize("thing", [None, 5, "text", b"bytes", [1.0], object()], ids=lambda it: type(it).__name__)
def test_what_is_no_array_cannot_be_pushed(lab, thing):
    queue = lab.context.queue(8, dtype="int32")
    raises(InvalidArgument, lambda: queue.push(thing), "__dlpack__")
    if thing is not None:
        raises(InvalidArgument, lambda: queue.pop(1, out=thing), "__dlpack__")


def test_items_of_another_type_or_shape_are_refused(lab):
    queue, token = lab.context.queue(8, dtype="int32"), lab.context.token()
    for dtype in ("float32", "uint32", "int64", "int8"):
        wrong = lab.array(np.zeros(4, dtype))
        raises(InvalidArgument, lambda: queue.push(wrong, token=token), dtype, "int32")
        raises(InvalidArgument, lambda: queue.pop(4, out=wrong), dtype, "int32")
    for shape in ((2, 2), (4, 1), (1, 4), ()):
        raises(InvalidArgument, lambda: queue.push(lab.array(np.zeros(shape, np.int32))), "shape")
    raises(InvalidArgument, lambda: queue.push(lab.array(np.zeros(8, np.int32))[::2]), "gaps")
    raises(InvalidArgument, lambda: queue.pop(2, out=lab.array(np.zeros(8, np.int32))[::2]), "gaps")
    raises(InvalidArgument, lambda: queue.push(lab.array(np.zeros(0, np.int32))), "count")
    of_bytes = lab.context.queue(8, item_bytes=8)
    for shape, dtype in (((4,), "int32"), ((4, 4), "int32"), ((4, 2, 2), "int32"), ((), "int64")):
        raises(InvalidArgument, lambda: of_bytes.push(lab.array(np.zeros(shape, dtype))), "8 bytes")
    raises(InvalidArgument, lambda: of_bytes.push(lab.array(np.zeros((4, 4), np.int32))[:, :2]), "gaps")
    assert queue.stats()["pushed"] == of_bytes.stats()["pushed"] == 0 and token.poll() is None


def test_pops_that_cannot_be(lab):
    queue, token, out = lab.context.queue(8, dtype="int32"), lab.context.token(), lab.array(np.zeros(4, np.int32))
    raises(InvalidArgument, lambda: queue.pop(0), "max")
    raises(InvalidArgument, lambda: queue.pop_to_host(0), "max")
    raises(InvalidArgument, lambda: queue.pop(5, out=out), "5")
    raises(InvalidArgument, lambda: queue.pop(4, token=token), "out")
    raises(InvalidArgument, lambda: queue.pop(4, out=out, like=type(lab.import_(out))))
    for max in (-1, 2**32, None, "1", 1.5):
        for pop in (queue.pop, queue.pop_to_host):
            with pytest.raises(NUMBER):
                pop(max)
    assert queue.stats()["popped"] == 0 and token.poll() is None


def test_items_of_the_host_that_are_none(lab):
    queue = lab.context.queue(8, dtype="int64")
    for wrong, word in ((np.zeros(2), '"d"'), (array.array("Q", [1]), '"Q"'), (np.zeros(2, np.int32), '"i"'),
                        (b"123", "3 bytes"), (np.zeros(1, "complex128"), "Zd"), (np.zeros(1, ">i8"), ">")):
        raises(InvalidArgument, lambda: queue.push_from_host(wrong), word, "int64")
    raises(InvalidArgument, lambda: queue.push_from_host(b""), "count")
    for wrong in (None, "text", 5, [1, 2]):
        with pytest.raises(TypeError):
            queue.push_from_host(wrong)
    assert queue.stats()["pushed"] == 0
    # Any are bytes.
    assert lab.context.queue(8, item_bytes=8).push_from_host(np.zeros(2)) == 2


def test_items_elsewhere_are_refused_and_told_where_they_are(lab):
    queue = lab.context.queue(8, item_bytes=8)
    values = np.zeros((4, 8), np.uint8)
    elsewhere = [Foreign(values, device=(2, 0))] if lab.backend == "host" else [values, torch.zeros(4, 8, dtype=torch.uint8)]
    for wrong in elsewhere:
        place = "CUDA device 0" if lab.backend == "host" else "CPU"
        raises(InvalidDevice, lambda: queue.push(wrong), "items", place)
        raises(InvalidDevice, lambda: queue.pop(4, out=wrong), place)


def test_items_that_are_not_aligned_or_not_to_be_written():
    """Of NumPy alone, on the host backend."""
    queue, values = gpumailbox.Context("host").queue(8, item_bytes=8), np.zeros((4, 8), np.uint8)
    raises(InvalidArgument, lambda: queue.push(Foreign(values, offset=4)), "MISALIGNED")
    frozen = np.zeros(4, np.int64)
    frozen.flags.writeable = False
    queue.push(frozen)
    raises(InvalidArgument, lambda: queue.pop(4, out=frozen), "read-only")
    raises(InvalidArgument, lambda: queue.push(np.zeros(4, np.int64)[::-1]), "gaps")
    assert len(queue.pop(8)) == 4


# -- Workers --

@pytest.mark.parametrize("blocks", [1, 2])
def test_a_thousand_items_go_where_a_sequential_program_sends_them(lab, blocks):
    (active, finished, spawn), token = queues(lab, 3), lab.context.token()
    active.push(lab.array(np.arange(1000)), token=token)
    assert token.wait(timeout=SECONDS).count == 1000
    with lab.context.worker(active, finished, spawn, spawn_interval=5, increment=1, idle_threshold=2048,
                            grid_blocks=blocks) as worker:
        assert worker.stats()["state"] == "ready"
        result = worker.run(SECONDS)
        assert worker.stats()["state"] == "ended" and worker.stats()["processed"] == 1000
    assert result.reason == "idle" and (result.processed, result.finished, result.spawned) == (1000, 800, 200)
    assert result.returned == result.rejected == 0 and result.idle_polls >= 2048 * blocks and result.slices >= 1
    assert result.iterations > result.idle_polls and "idle" in repr(result)
    assert sorted(contents(finished)) == [n + 1 for n in range(1000) if n % 5 != 4]
    assert sorted(contents(spawn)) == [n + 1 for n in range(1000) if n % 5 == 4]
    assert contents(active) == []


@kinds
def test_run_after_run_items_become_what_the_model_says(lab, rng, kind, dtype):
    size, first = np.dtype(dtype).itemsize, 0
    active, finished, spawn = [lab.context.queue(512, **kind) for _ in range(3)]
    for _ in range(4):
        increment, interval = int(rng.integers(0, 2**64, dtype=np.uint64)), int(rng.integers(0, 8))
        worker = lab.context.worker(active, finished, spawn, spawn_interval=interval, increment=increment, idle_threshold=200)
        for _ in range(3):
            values = random_items(rng, int(rng.integers(1, 500)), dtype)
            assert active.push_from_host(values) == len(values)
            result = worker.run(SECONDS)
            expected = modelled(split(values, size), first, increment, interval, size)
            got = [split(np.frombuffer(queue.pop_to_host(512), np.uint8), size) for queue in (finished, spawn)]
            assert list(map(sorted, got)) == list(map(sorted, expected))
            assert (result.reason, result.processed) == ("idle", len(values))
            assert (result.finished, result.spawned) == tuple(map(len, expected))
            first += len(values)
        worker.close()


def test_without_a_queue_for_them_finished_items_are_gone(lab):
    active, = queues(lab, 1)
    active.push_from_host(np.arange(100))
    result = lab.context.worker(active, idle_threshold=100).run(SECONDS)
    assert (result.processed, result.spawned, active.stats()["size"]) == (100, 0, 0)


def test_a_worker_runs_while_others_push_and_pop(lab, rng):
    count = 3000
    active, finished, spawn = queues(lab, 3, capacity=64)
    got = {finished: [], spawn: []}
    with lab.context.worker(active, finished, spawn, spawn_interval=7, increment=3, grid_blocks=2, slice=0.01) as worker:
        worker.start()

        def produce():
            items, stream, token, at = lab.array(np.arange(count)), lab.context.stream(), lab.context.token(), 0
            while at < count:
                active.push(items[at:at + int(rng.integers(1, 50))], stream=stream, token=token)
                at += token.wait(timeout=SECONDS).count

        def consume(queue):
            stream = lab.context.stream()
            while sum(map(len, got.values())) < count:
                items = queue.pop(40, stream=stream)
                if len(items):
                    got[queue] += lab.numpy(items).tolist()

        together(produce, lambda: consume(finished), lambda: consume(spawn))
        worker.stop()
        result = worker.wait(SECONDS)
    assert (result.reason, result.processed) == ("stopped", count)
    assert sorted(got[finished]) == [n + 3 for n in range(count) if n % 7 != 6]
    assert sorted(got[spawn]) == [n + 3 for n in range(count) if n % 7 == 6]


def test_what_has_no_place_to_go_stays_where_it_is(lab):
    active, = queues(lab, 1)
    finished, = queues(lab, 1, capacity=4)
    active.push_from_host(np.arange(10))
    with lab.context.worker(active, finished, slice=0.01) as worker:
        worker.start()
        until(lambda: worker.stats()["rejected"] > 0, worker.stats)
        assert (active.stats()["size"], finished.stats()["size"]) == (6, 4)
        got = contents(finished)
        until(lambda: finished.stats()["size"] == 4, worker.stats)
        worker.stop()
        result = worker.wait(SECONDS)
    assert (result.reason, result.processed, result.finished) == ("stopped", 8, 8) and result.rejected > 0
    assert sorted(got + contents(finished)) == list(range(1, 9)) and contents(active) == [8, 9]


def test_a_worker_goes_round_so_many_times(lab):
    active, = queues(lab, 1)
    result = lab.context.worker(active, max_iterations=3).run(SECONDS)
    assert (result.reason, result.iterations, result.idle_polls, result.processed) == ("iterations", 3, 3, 0)


def test_stopped_paused_and_resumed(lab):
    active, finished = queues(lab, 2)
    with lab.context.worker(active, finished) as worker:
        for call in (worker.pause, worker.resume):
            raises(InvalidArgument, call, "does not run")
        raises(InvalidArgument, worker.wait, "never started")
        # One that does not run stays as it is.
        worker.stop()
        for run in range(1, 3):
            worker.start()
            raises(Error, worker.start, "runs already", "BUSY")
            active.push_from_host(np.arange(50))
            until(lambda: finished.stats()["size"] == 50, worker.stats)
            worker.pause()
            until(lambda: worker.stats()["state"] == "paused", worker.stats)
            # Its kernel is away, so nothing is taken.
            active.push_from_host(np.arange(50, 100))
            assert (active.stats()["size"], worker.stats()["processed"], worker.stats()["heartbeat"]) == (50, 50, 0)
            worker.resume()
            until(lambda: finished.stats()["size"] == 100, worker.stats)
            assert sorted(contents(finished)) == list(range(1, 101))
            worker.stop()
            result = worker.wait(SECONDS)
            assert (result.reason, result.processed, result.finished) == ("stopped", 100, 100) and result.slices >= 2
            assert worker.wait().processed == 100 and worker.stats()["state"] == "ended"


def test_a_paused_worker_can_be_stopped_and_closed(lab):
    active, = queues(lab, 1)
    for end in ("stop", "close"):
        worker = lab.context.worker(active)
        worker.start()
        worker.pause()
        until(lambda: worker.stats()["state"] == "paused", worker.stats)
        if end == "stop":
            worker.stop()
            assert worker.wait(SECONDS).reason == "stopped"
        worker.close()
    active.close()


def test_a_wait_has_a_limit(lab):
    active, = queues(lab, 1)
    with lab.context.worker(active) as worker:
        worker.start()
        for timeout in (0, NEVER):
            raises(TimedOut, lambda: worker.wait(timeout), "worker")
        # It goes on.
        active.push_from_host(np.arange(5))
        until(lambda: active.stats()["size"] == 0, active.stats)
        worker.stop()
        assert worker.wait(SECONDS).processed == 5
        raises(TimedOut, lambda: worker.run(timeout=NEVER))
        raises(Error, worker.run, "BUSY")
        for timeout in (-1, float("nan")):
            raises(InvalidArgument, lambda: worker.wait(timeout), "timeout")


def test_others_run_while_one_waits_and_closing_wakes_it(lab):
    active, = queues(lab, 1)
    worker = lab.context.worker(active)
    worker.start()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(worker.wait)
        still_waits(waiting)
        worker.close()
        with pytest.raises(Closed, match="worker"):
            waiting.result(SECONDS)
    # Nobody uses it any more.
    active.close()


def test_queues_of_a_worker_cannot_be_closed_and_stay(lab):
    three = queues(lab, 3)
    worker = lab.context.worker(*three, idle_threshold=100)
    for queue in three:
        raises(Error, queue.close, "BUSY", "worker")
        with pytest.raises(Error, match="BUSY"):
            with queue:
                pass
        assert queue.stats()["workers"] == 1 and "closed" not in repr(queue)
        raises(Error, lambda: queue.measure(1, 1), "BUSY")
    three[0].push_from_host(np.arange(20))
    assert worker.run(SECONDS).processed == 20 and sorted(contents(three[1])) == list(range(1, 21))
    worker.close()
    for queue in three:
        assert queue.stats()["workers"] == 0
        queue.close()


def test_a_worker_keeps_its_queues_and_gives_all_of_its_memory_back(lab):
    before = lab.context.memory()["used"]
    active, finished = queues(lab, 2)
    worker = lab.context.worker(active, finished, idle_threshold=100)
    active.push_from_host(np.arange(20))
    del active
    for _ in range(2):
        assert worker.run(SECONDS).reason == "idle"
    assert len(contents(finished)) == 20
    del finished
    worker.start()
    # The last reference stops it.
    del worker
    assert lab.context.memory()["used"] == before


def test_closed_workers_are_closed(lab):
    active, = queues(lab, 1)
    with lab.context.worker(active) as worker:
        assert worker.handle != 0 and "closed" not in repr(worker)
        worker.start()
    assert "closed" in repr(worker)
    worker.close()
    for call in (worker.start, worker.stop, worker.pause, worker.resume, worker.wait, worker.run, worker.stats,
                 lambda: worker.handle):
        raises(Closed, call, "worker", "closed")
    active.close()


def test_workers_that_cannot_be(lab):
    active, finished, spawn = queues(lab, 3)
    other = lab.context.queue(8, item_bytes=4)
    work = lab.context.worker
    raises(InvalidArgument, lambda: work(active, other), "4 bytes", "8")
    raises(InvalidArgument, lambda: work(active, active), "active itself")
    raises(InvalidArgument, lambda: work(active, finished, finished), "same")
    raises(InvalidArgument, lambda: work(active, finished, spawn_interval=5), "spawn")
    raises(InvalidArgument, lambda: work(active, block_threads=33), "block_threads 33")
    raises(InvalidArgument, lambda: work(active, grid_blocks=10**6), "grid_blocks", "resident_percent")
    for what in ("slice", "watchdog"):
        for seconds in (0, -1, float("nan"), -float("inf"), 1e-12):
            raises(InvalidArgument, lambda: work(active, **{what: seconds}), what)
        work(active, **{what: float("inf")}).close()
    for what in ("max_iterations", "idle_threshold", "spawn_interval", "increment", "block_threads", "grid_blocks"):
        for number in (-1, 2**64, "1", 1.5):
            with pytest.raises(NUMBER):
                work(active, **{what: number})
    for wrong in (None, 5, lab.context.mailbox(8, 64)):
        with pytest.raises(TypeError):
            work(wrong)
    stranger = gpumailbox.Context(lab.backend)
    raises(InvalidArgument, lambda: stranger.worker(active), "context")
    raises(InvalidArgument, lambda: work(active, stranger.queue(8, dtype="int64")), "context")
    assert all(queue.stats()["workers"] == 0 for queue in (active, finished, spawn, other))


def test_workers_hold_a_part_of_the_device(lab):
    for percent in (101, 2**32 - 1):
        raises(InvalidArgument, lambda: gpumailbox.Context(lab.backend, resident_percent=percent), "resident_percent")
    with pytest.raises(NUMBER):
        gpumailbox.Context(lab.backend, resident_percent=-1)
    most = []
    for percent in (25, 50, 100):
        context = gpumailbox.Context(lab.backend, resident_percent=percent)
        worker = context.worker(context.queue(8, dtype="int32"))
        most.append(worker.stats()["most_blocks"])
        blocks = most[-1] + 1
        raises(InvalidArgument, lambda: context.worker(context.queue(8, dtype="int32"), grid_blocks=blocks), str(blocks))
    assert 0 < most[0] < most[1] < most[2] and abs(most[2] - 4 * most[0]) <= 4


# -- Processes --

START = """
    queue = context.queue(64, item_bytes=4)
    worker = context.worker(queue, slice=0.01)
    worker.start()
"""


@pytest.mark.parametrize("work", ["worker.wait()", "worker.wait(timeout=1000)"])
def test_ctrl_c_ends_a_wait_and_the_worker_goes_on(prelude, work):
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
            queue.push_from_host(b"1234" * 5)
            while queue.stats()["size"]: pass
            worker.stop()
            print("interrupted", worker.wait().reason, worker.wait().processed)
    """))
    assert process.stdout.readline() == "waits\n", process.communicate()
    process.send_signal(signal.SIGINT)
    assert ended(process) == "interrupted stopped 5\n"


@pytest.mark.parametrize("slice", ["0.01", "float('inf')"])
def test_a_process_ends_with_a_worker_that_runs(prelude, slice):
    out = run(prelude, textwrap.dedent(START).replace("0.01", slice) + textwrap.dedent("""
        queue.push_from_host(b"1234" * 5)
        while queue.stats()["size"]: pass
        print("done")
    """))
    assert out == "done\n"
