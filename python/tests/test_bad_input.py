"""Whatever is wrong is said by an exception of the right class, with a sentence; nothing is lost by it, nothing crashes."""
import copy
import pickle

import numpy as np
import pytest

import gpumailbox
from gpumailbox import Closed, Error, InvalidArgument, InvalidDevice, NotSupported, OutOfMemory
from lab import SECONDS, Foreign, bits, raises

# What Python itself says of a number that is none, or does not fit.
NUMBER = (InvalidArgument, OverflowError, TypeError)


@pytest.fixture
def box(lab):
    return lab.context.mailbox(8, dtype="float32", shape=(4, 4))


def rows(lab, *shape, dtype=np.float32):
    return lab.array(np.ones(shape, dtype))


def test_errors_are_what_python_knows_of(lab):
    for kind, known in ((InvalidArgument, ValueError), (InvalidDevice, ValueError), (NotSupported, NotImplementedError),
                        (gpumailbox.TimedOut, TimeoutError), (OutOfMemory, MemoryError)):
        assert issubclass(kind, known) and issubclass(kind, Error)
    assert issubclass(gpumailbox.Full, Error) and issubclass(Closed, Error) and issubclass(gpumailbox.Forked, Error)


@pytest.mark.parametrize("thing", [None, 5, "text", b"bytes", [1.0], object(), print], ids=lambda it: type(it).__name__)
def test_what_is_no_array_cannot_be_pushed(lab, box, thing):
    raises(InvalidArgument, lambda: box.push(thing), "__dlpack__")
    raises(InvalidArgument, lambda: lab.context.tensor_mailbox(2).push(thing), "__dlpack__")
    if thing is not None:
        raises(InvalidArgument, lambda: box.pop(1, out=thing))
        raises(InvalidArgument, lambda: box.push(rows(lab, 2, 4, 4), lengths=thing))


def test_a_dlpack_method_that_lies_is_found_out(lab, box):
    class Lying:
        def __init__(self, what):
            self.what = what

        def __dlpack_device__(self):
            return (1, 0)

        def __dlpack__(self, **options):
            if isinstance(self.what, Exception):
                raise self.what
            return self.what

    tensors = lab.context.tensor_mailbox(2)
    for push in (box.push, tensors.push):
        for what in (None, 7, object(), "dltensor"):
            raises(InvalidArgument, lambda: push(Lying(what)), "capsule")
        with pytest.raises(KeyError, match="its own"):
            push(Lying(KeyError("its own words")))


def test_records_of_another_dtype_or_shape_are_refused(lab, box):
    for wrong in (rows(lab, 3, 4, 4, dtype=np.float64), rows(lab, 3, 4, 4, dtype=np.int32), rows(lab, 3, 16),
                  rows(lab, 3, 4, 5), rows(lab, 3, 4), rows(lab, 16), rows(lab, 2, 3, 4, 4)):
        raises(InvalidArgument, lambda: box.push(wrong), "records are", "float32")
    raises(InvalidArgument, lambda: box.push(rows(lab, 1)[0:1].reshape(())), "single number")
    assert box.stats()["published"] == 0


def test_no_records_at_all_are_nothing_to_push(lab, box):
    raises(InvalidArgument, lambda: box.push(rows(lab, 0, 4, 4)), "0")
    raises(InvalidArgument, lambda: box.pop(0), "0")
    raises(InvalidArgument, lambda: box.view(0), "0")


def test_rows_with_gaps_or_overlaps_are_refused(lab):
    base = lab.array(np.zeros(400, np.float32))
    flat = lab.context.mailbox(8, dtype="float32", shape=(8,))
    square = lab.context.mailbox(8, dtype="float32", shape=(4, 4))
    for box, shape, strides in ((flat, (3, 8), (16, 2)), (flat, (3, 8), (8, 0)), (flat, (3, 8), (1, 3)),
                                (square, (3, 4, 4), (40, 8, 1)), (square, (3, 4, 4), (16, 1, 4)),
                                (square, (2, 4, 4), (8, 4, 2))):
        raises(InvalidArgument, lambda: box.push(lab.strided(base, shape, strides, 0)), "contiguous")
    for stride in (0, 4):
        raises(InvalidArgument, lambda: flat.push(lab.strided(base, (3, 8), (stride, 1), 0)), "overlap")
        raises(InvalidArgument, lambda: flat.pop(3, out=lab.strided(base, (3, 8), (stride, 1), 0)), "overlap")
    # Rows that are no multiple of 16 bytes apart, and such a first one.
    raises(InvalidArgument, lambda: flat.push(lab.strided(base, (3, 8), (9, 1), 0)), "16")
    raises(InvalidArgument, lambda: flat.push(lab.strided(base, (3, 8), (8, 1), 1)), "16")


def test_out_must_have_room_and_the_records_dtype(lab, box):
    box.push(rows(lab, 4, 4, 4))
    for wrong in (rows(lab, 3, 4, 4), rows(lab, 4, 4, 4, dtype=np.int32), rows(lab, 4, 16), rows(lab, 4, 2, 4)):
        raises(InvalidArgument, lambda: box.pop(4, out=wrong))
    small = lab.context.mailbox(8, 64)
    raises(InvalidArgument, lambda: small.pop(2, out=lab.poisoned(2, 48)), "out", "64")
    assert len(box.pop(4)) == 4


def test_lengths_and_types_are_one_word_for_each_record(lab):
    box, values = lab.context.mailbox(8, 64), lab.poisoned(4, 64)
    for wrong in (rows(lab, 3, dtype=np.uint32), rows(lab, 5, dtype=np.uint32), rows(lab, 4), rows(lab, 4, dtype=np.int64),
                  rows(lab, 4, 1, dtype=np.uint32), rows(lab, 8, dtype=np.uint32)[::2]):
        raises(InvalidArgument, lambda: box.push(values, lengths=wrong), "lengths")
        raises(InvalidArgument, lambda: box.push(values, types=wrong), "types")
    raises(InvalidArgument, lambda: box.push(values, msg_type=7) or box.pop(4).lengths, "headers")
    # A length beyond the record: those before it are accepted, and the token says so.
    token, lengths = lab.context.token(), lab.array(np.array([64, 3, 65, 1], np.uint32))
    box.push(values, lengths=lengths, token=token)
    raises(Error, lambda: token.wait(timeout=SECONDS), "2 records")
    assert len(box.pop(8)) == 2


def test_a_capsule_is_taken_once(lab):
    mailbox, array = lab.context.tensor_mailbox(4), rows(lab, 5)
    for options in ({}, dict(max_version=(1, 1))):
        capsule = array.__dlpack__(**options)
        mailbox.push(capsule)
        raises(InvalidArgument, lambda: mailbox.push(capsule), "once")
    assert mailbox.stats()["pushed"] == 2


@pytest.mark.parametrize("call", [
    lambda box, array: box.push(array), lambda box, array: box.pop(1), lambda box, array: box.pop(1, out=array),
    lambda box, array: box.view(1), lambda box, array: box.wait_readable(), lambda box, array: box.wait_writable(),
    lambda box, array: box.stats(), lambda box, array: box.reader_stats(), lambda box, array: box.add_reader(),
    lambda box, array: box.remove_reader(0), lambda box, array: box.watch(), lambda box, array: box.handle])
def test_a_closed_mailbox_says_so(lab, box, call):
    array = rows(lab, 1, 4, 4)
    with box:
        pass
    box.close()
    raises(Closed, lambda: call(box, array), "closed")


@pytest.mark.parametrize("call", [
    lambda box, array: box.push(array), lambda box, array: box.pop(), lambda box, array: box.stats(),
    lambda box, array: box.handle])
def test_a_closed_tensor_mailbox_says_so(lab, call):
    box = lab.context.tensor_mailbox(2)
    box.close()
    box.close()
    raises(Closed, lambda: call(box, rows(lab, 3)), "closed")


def test_a_closed_context_says_so(lab, box):
    event, stream, array = lab.context.event(), lab.context.stream(), rows(lab, 1, 4, 4)
    box.push(array)
    box.pop(1)
    with lab.context:
        pass
    lab.context.close()
    for call in (lambda: lab.context.mailbox(2, 16), lambda: lab.context.tensor_mailbox(2), lambda: lab.context.stream(),
                 lambda: lab.context.event(), lambda: lab.context.memory(), lambda: lab.context.handle,
                 lambda: lab.context.token(), lambda: lab.context.use_stream(0).__enter__(),
                 stream.synchronize, stream.query, lambda: box.pop(1)):
        raises(Closed, call, "closed")
    assert lab.context.backend == lab.backend and lab.context.name


@pytest.mark.parametrize("call", [lambda box, array: box.push(array), lambda box, array: box.pop(1),
                                  lambda box, array: box.pop(1, out=array), lambda box, array: len(box.view(1)),
                                  lambda box, array: box.wait_readable(timeout=1), lambda box, array: box.stats()])
def test_a_mailbox_of_a_closed_context_says_so_every_time(lab, box, call):
    """As Context.close has it: later calls of what was made of it raise Closed."""
    array = rows(lab, 1, 4, 4)
    for _ in range(2):
        box.push(array)
    box.pop(1)
    lab.context.close()
    for _ in range(3):
        raises(Closed, lambda: call(box, array), "closed")


def test_a_released_tensor_says_so(lab):
    mailbox = lab.context.tensor_mailbox(2)
    mailbox.push(rows(lab, 3))
    tensor = mailbox.pop()
    tensor.release()
    tensor.release()
    raises(Closed, lambda: tensor.__dlpack__(), "released")
    raises(Closed, lambda: tensor.use_on(0), "released")
    raises(Closed, lambda: lab.import_(tensor), "released")


def test_names_that_are_none_are_told_those_that_are(lab, box):
    context = lab.context
    for call, known in ((lambda: gpumailbox.Context("gpu"), "host"),
                        (lambda: context.mailbox(2, 16, full_policy="drop"), "latest"),
                        (lambda: context.mailbox(2, 16, arbitration="gpu"), "device"),
                        (lambda: context.stream("urgent"), "focus"), (lambda: box.add_reader("newest"), "oldest"),
                        (lambda: context.tensor_mailbox(2, full_policy=""), "reject"),
                        (lambda: box.watch("both"), "writable"), (lambda: gpumailbox.Context("Host"), "host")):
        raises(InvalidArgument, call, known, "none of")


def test_there_is_no_such_device(lab):
    raises(InvalidDevice, lambda: gpumailbox.Context(lab.backend, 99), "99")


@pytest.mark.parametrize("timeout", [-1, -0.001, float("nan"), float("inf"), -float("inf"), 1e300])
def test_times_that_are_none(lab, box, timeout):
    tensors, token, array = lab.context.tensor_mailbox(2), lab.context.token(), rows(lab, 1, 4, 4)
    box.push(array, token=token)
    for call in (lambda: box.push(array, timeout=timeout), lambda: box.wait_readable(timeout=timeout),
                 lambda: box.wait_writable(timeout=timeout), lambda: tensors.pop(timeout=timeout),
                 lambda: token.wait(timeout=timeout), lambda: lab.context.event().synchronize(timeout)):
        raises(InvalidArgument, call, "timeout")
    with pytest.raises(TypeError):
        box.wait_readable(timeout="soon")


def test_a_push_of_a_tensor_looks_at_its_timeout_also_where_there_is_room(lab):
    tensors = lab.context.tensor_mailbox(2)
    for timeout in (-1, float("nan")):
        raises(InvalidArgument, lambda: tensors.push(rows(lab, 3), timeout=timeout), "timeout")
    assert tensors.stats()["pushed"] == 0


def test_capacities_and_records_that_cannot_be(lab):
    make = lab.context.mailbox
    for call in (lambda: make(0, 16), lambda: make(3, 16), lambda: make(100, 16), lambda: make(1, 16, full_policy="latest"),
                 lambda: make(2**40, 16), lambda: make(8, 0), lambda: make(8), lambda: make(8, 16, dtype="int8"),
                 lambda: make(8, 16, shape=(4,)), lambda: make(8, shape=(4,)), lambda: make(8, dtype="int8", shape=(-1,)),
                 lambda: make(8, dtype="int8", shape=(4, 0)), lambda: make(8, dtype="int64", shape=(2**31, 2**31, 4)),
                 lambda: make(8, 16, readers=17), lambda: lab.context.tensor_mailbox(0),
                 lambda: lab.context.tensor_mailbox(12), lambda: lab.context.tensor_mailbox(2**30)):
        raises(InvalidArgument, call)
    for call in (lambda: make(-1, 16), lambda: make("8", 16), lambda: make(8, -16), lambda: make(8.0, 16),
                 lambda: make(8, 2**40), lambda: lab.context.tensor_mailbox(-4), lambda: lab.context.tensor_mailbox(None)):
        with pytest.raises(NUMBER):
            call()


# Python's own int and float are left to the package.
@pytest.mark.parametrize("dtype", ["", "double", "float32 ", "torch.", "Float32", "int4", "int9", "int24", "uint128",
                                   "float8", "float40", "bool64", "complex24", "bfloat32", ">f4", "datetime64[s]", str, object, 5])
def test_dtypes_that_no_record_has(lab, dtype):
    raises(InvalidArgument, lambda: lab.context.mailbox(8, dtype=dtype, shape=(16,)), "dtype")


def test_memory_has_a_limit(lab):
    context = gpumailbox.Context(lab.backend, memory_limit=1 << 20)
    assert context.memory()["limit"] == 1 << 20
    box = context.mailbox(16, 64)
    raises(OutOfMemory, lambda: context.mailbox(1 << 15, 64), "limit")
    box.push(lab.poisoned(3, 64))
    raises(OutOfMemory, lambda: box.pop(1 << 20), "limit")
    # Nothing was lost by that.
    assert len(box.pop(16)) == 3


@pytest.mark.parametrize("stream", ["x", b"", [], object(), 1.5, -1, 2**70],
                         ids=lambda stream: "object()" if type(stream) is object else repr(stream))
def test_what_is_no_stream(lab, box, stream):
    array = rows(lab, 2, 4, 4)
    for call in (lambda: box.push(array, stream=stream), lambda: box.pop(1, stream=stream),
                 lambda: box.view(1, stream=stream), lambda: lab.context.use_stream(stream),
                 lambda: lab.context.event().record(stream),
                 lambda: lab.context.tensor_mailbox(2).push(array, stream=stream)):
        raises(InvalidArgument, call, "stream")
    box.push(array)
    assert len(box.pop(4)) == 2


def test_a_stream_protocol_that_lies_is_found_out(lab, box):
    class Lying:
        def __init__(self, told):
            self.told = told

        def __cuda_stream__(self):
            return self.told

    for told in ("x", (1, 0), (0, -5), (0,), None, (0, "7")):
        with pytest.raises((*NUMBER, ValueError)):
            box.push(rows(lab, 2, 4, 4), stream=Lying(told))


def test_streams_that_are_gone_or_of_another_context(lab, box):
    array, stream = rows(lab, 2, 4, 4), lab.context.stream()
    address = stream.handle
    stream.close()
    stream.close()
    raises(Closed, lambda: box.push(array, stream=stream), "stream is closed")
    raises(Closed, lambda: stream.synchronize(), "closed")
    if lab.backend == "host":
        # CUDA's driver cannot be asked about a handle that is no stream any more.
        for wrong in (address, 12345, gpumailbox.Context("host").stream()):
            raises(InvalidArgument, lambda: box.push(array, stream=wrong), "stream")


def test_nothing_is_copied_on_demand(lab, box):
    box.push(rows(lab, 2, 4, 4))
    tensors = lab.context.tensor_mailbox(2)
    tensors.push(rows(lab, 3))
    for array in (box.pop(2), tensors.pop()):
        with pytest.raises(BufferError, match="copy"):
            array.__dlpack__(copy=True)
        with pytest.raises(BufferError, match="copy"):
            array.__dlpack__(dl_device=(10, 0))
        assert array.__dlpack__(copy=False, dl_device=array.__dlpack_device__())


def test_readers_that_are_none(lab, box):
    for reader in (1, 15, 16, 2**31):
        for call in (lambda: box.pop(1, reader=reader), lambda: box.view(1, reader=reader),
                     lambda: box.remove_reader(reader), lambda: box.reader_stats(reader),
                     lambda: box.wait_readable(reader=reader, timeout=1)):
            raises(InvalidArgument, call, "reader")
    full = lab.context.mailbox(2, 16, readers=16)
    raises(Error, full.add_reader, "reader")


def test_a_tensor_has_eight_dimensions_at_most(lab):
    mailbox = lab.context.tensor_mailbox(2)
    raises(NotSupported, lambda: mailbox.push(rows(lab, *[1] * 9)), "9 dimensions")
    assert mailbox.stats()["pushed"] == 0


@pytest.mark.parametrize("like", [int, object, 5, "torch.Tensor"], ids=repr)
def test_a_type_without_an_exchange_loses_nothing(lab, box, like):
    box.push(rows(lab, 2, 4, 4))
    raises(InvalidArgument, lambda: box.pop(2, like=like), "exchange")
    tensors = lab.context.tensor_mailbox(2)
    tensors.push(rows(lab, 3), 8)
    raises(InvalidArgument, lambda: tensors.pop(like=like), "exchange")
    assert len(box.pop(2)) == 2
    assert tensors.pop().tag == 8


def test_a_token_needs_out_and_must_have_been_used(lab, box):
    token = lab.context.token()
    assert token.poll() is None
    raises(InvalidArgument, token.wait)
    raises(InvalidArgument, lambda: box.pop(1, token=token), "out")
    raises(InvalidArgument, lambda: box.pop(1, token=token, out=rows(lab, 1, 4, 4), headers=True), "headers")


def test_numbers_that_are_none(lab, box):
    tensors, array = lab.context.tensor_mailbox(2), rows(lab, 2, 4, 4)
    for call in (lambda: box.pop(-1), lambda: box.pop(2**32), lambda: box.pop("1"), lambda: box.pop(1.5),
                 lambda: box.pop(None), lambda: tensors.push(array, -1), lambda: tensors.push(array, 2**64),
                 lambda: tensors.push(array, "tag"),
                 lambda: box.push(array, msg_type=-1), lambda: box.wait_readable(-1), lambda: box.pop(1, reader=-1),
                 lambda: gpumailbox.Context("host", -1), lambda: gpumailbox.Context("host", memory_limit=-1)):
        with pytest.raises(NUMBER):
            call()
    for call in (lambda: box.wait_readable(9, timeout=1), lambda: box.wait_readable(0),
                 lambda: box.wait_writable(9, timeout=1)):
        raises(InvalidArgument, call)
    assert box.stats()["published"] == 0 and tensors.stats()["pushed"] == 0


def test_objects_cannot_be_copied_or_pickled(lab, box):
    for thing in (lab.context, box, box.pop(1), lab.context.tensor_mailbox(2), lab.context.stream()):
        for work in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(TypeError):
                work(thing)
    assert bits(lab.numpy(box.pop(1))) == b""


def test_what_lies_on_a_gpu_is_refused_by_the_host_and_told_where_it_is():
    context, values = gpumailbox.Context("host"), np.ones((4, 64), np.uint8)
    box, tensors, elsewhere = context.mailbox(8, 64), context.tensor_mailbox(2), Foreign(values, device=(2, 0))
    raises(InvalidDevice, lambda: box.push(elsewhere), "records", "CUDA device 0")
    raises(InvalidDevice, lambda: box.pop(4, out=elsewhere), "CUDA device 0")
    raises(InvalidDevice, lambda: box.push(values, lengths=elsewhere), "lengths", "CUDA device 0")
    raises(InvalidDevice, lambda: tensors.push(elsewhere))
    for device in ((2, 5), (10, 0), (1, 1)):
        raises(InvalidDevice, lambda: box.push(Foreign(values, device=device)), "records")
    assert box.stats()["published"] == 0 and tensors.stats()["pushed"] == 0


def test_tensors_of_a_version_that_is_not_known_are_refused():
    context, values = gpumailbox.Context("host"), np.ones((4, 64), np.uint8)
    for major in (0, 2):
        for push in (context.mailbox(8, 64).push, context.tensor_mailbox(2).push):
            raises(Error, lambda: push(Foreign(values, major=major)), f"DLPack {major}.0")


def test_backward_read_only_and_foreign_arrays_of_numpy():
    """Of NumPy alone, on the host backend."""
    context = gpumailbox.Context("host")
    box, array = context.mailbox(8, dtype="float32", shape=(4,)), np.ones((4, 4), np.float32)
    raises(InvalidArgument, lambda: box.push(array[::-1]), "backwards")
    raises(InvalidArgument, lambda: box.push(array[:, ::-1]), "contiguous")
    frozen = np.ones((4, 4), np.float32)
    frozen.flags.writeable = False
    box.push(frozen)
    raises(InvalidArgument, lambda: box.pop(4, out=frozen), "read-only")
    assert len(box.pop(4)) == 4 and (frozen == 1).all()
    tensors = context.tensor_mailbox(2)
    tensors.push(frozen)
    tensor = tensors.pop()
    assert np.from_dlpack(tensor).flags.writeable is False
    raises(NotSupported, lambda: tensor.__dlpack__())
    for dtype in ("M8[s]", "U3", "i4,f4", ">f4", object):
        with pytest.raises((BufferError, InvalidArgument)):
            tensors.push(np.zeros(2, dtype))
    with pytest.raises(AttributeError, match="from_dlpack"):
        tensor.__cuda_array_interface__
    assert not hasattr(box.pop(1), "__cuda_array_interface__")
