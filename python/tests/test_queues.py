"""Work queues: what is pushed comes out once and in order."""
import array
import contextlib
import ctypes
from collections import deque

import numpy as np
import pytest

import gpumailbox
from gpumailbox import Closed, InvalidArgument, InvalidDevice
from items import NUMBER, kinds, random_items, split, queues, contents
from lab import POISON, SECONDS, Foreign, Gate, bits, make, raises, together, torch, until


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
            # PyTorch has no address of what is empty.
            assert len(given) == len(expected) and (not expected or lab.pointer(given) == lab.pointer(out))
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
