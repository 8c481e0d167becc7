"""Modules: kernels by name, of an image on CUDA and of functions on the host, give what NumPy gives."""
import ctypes
import gc
import pathlib
import sys
import weakref

import numpy as np
import pytest

import gpumailbox
from children import run
from gpumailbox import Closed, Error, InvalidArgument, Kernel, KernelBlock, Module, NotFound
from lab import SECONDS, c_library, raises, together, until
from pipes import PTX, add, c_info, gate, kernels, mixed, words

HOST_ONLY = pytest.mark.parametrize("lab", ["host"], indirect=True)


def test_a_kernel_does_what_numpy_does(lab, rng):
    kernel, = kernels(lab, "add")
    assert kernel.name == "add" and "add" in repr(kernel)
    for _ in range(30):
        count, threads = int(rng.integers(1, 5000)), int(rng.integers(1, 1025))
        data, what = rng.standard_normal(count).astype(np.float32), np.float32(rng.standard_normal())
        array = lab.array(data)
        kernel.launch(-(-count // threads), threads, (array, what, np.uint32(count)), shared_bytes=4 * threads)
        synchronize(lab)
        assert np.array_equal(lab.numpy(array), data + what)


def synchronize(lab, stream=None):
    event = lab.context.event()
    event.record(stream)
    event.synchronize(SECONDS)


def test_arguments_come_as_they_are(lab, rng):
    """Numbers of NumPy and of ctypes; of a signed type, too, as the kernel reads bits."""
    mix, = kernels(lab, "mix")
    count = 1000
    for _ in range(10):
        a, b, salt = words(rng, count), words(rng, count), int(rng.integers(0, 2**64, dtype=np.uint64))
        sources, to = (lab.array(a), lab.array(b)), lab.array(np.zeros(count, np.int64))
        model = mixed(a.view(np.uint64), b.view(np.uint64), salt)
        for salted in (np.uint64(salt), ctypes.c_uint64(salt)):
            for counted in (np.uint32(count), np.int32(count), ctypes.c_uint32(count), ctypes.c_int(count)):
                to[:] = 0
                mix.launch((3, 1), (64, 1, 1), [to, *sources, salted, counted])
                synchronize(lab)
                assert np.array_equal(lab.numpy(to).view(np.uint64), model)


def test_launches_are_in_the_order_of_their_stream(lab):
    kernel, = kernels(lab, "add")
    one, two = lab.context.stream(), lab.context.stream()
    array = lab.array(np.zeros(256, np.float32))
    arguments = (array, np.float32(1), np.uint32(256))
    with gate(lab, one):
        with lab.context.use_stream(one):
            # The current one; another one goes on meanwhile.
            for _ in range(10):
                kernel.launch(2, 128, arguments, shared_bytes=512)
        assert not one.query()
        event = lab.context.event()
        event.record(one)
        two.wait_event(event)
        kernel.launch(2, 128, arguments, shared_bytes=512, stream=two)
        other = lab.array(np.zeros(256, np.float32))
        third = lab.context.stream()
        kernel.launch(2, 128, (other, np.float32(1), np.uint32(256)), shared_bytes=512, stream=third)
        third.synchronize()
        assert (lab.numpy(other) == 1).all()
    two.synchronize()
    assert (lab.numpy(array) == 11).all()


def test_what_a_kernel_uses_is_kept_until_it_is_done(lab):
    kernel, = kernels(lab, "add")
    stream = lab.context.stream()
    array = lab.track(lab.array(np.zeros(1 << 18, np.float32)))
    synchronize(lab)
    with gate(lab, stream):
        kernel.launch(1 << 10, 256, (array, np.float32(1), np.uint32(1 << 18)), shared_bytes=1024, stream=stream)
        del array
        gc.collect()
        assert lab.held() >= 1 << 20
    # Given back with one of the next launches.
    small = lab.array(np.zeros(8, np.float32))

    def given_back():
        kernel.launch(1, 8, (small, np.float32(1), np.uint32(8)), shared_bytes=32, stream=stream)
        return lab.held() < 1 << 20

    until(given_back, "it is given back")


def test_a_module_is_read_from_a_file_too(lab, tmp_path):
    elsewhere = tmp_path / "ünder a name.ptx"
    elsewhere.write_bytes(PTX.read_bytes())
    for image in (str(elsewhere), elsewhere, PTX.read_bytes()):
        with lab.context.module(image) as module:
            module.register("add", add)
            array = lab.array(np.zeros(8, np.float32))
            module.kernel("add").launch(1, 8, (array, np.float32(3), np.uint32(8)), shared_bytes=32)
            synchronize(lab)
            assert (lab.numpy(array) == 3).all()
    missing = tmp_path / "nothing"
    if lab.backend == "host":
        # It is not looked at.
        lab.context.module(missing)
        lab.context.module(b"no image")
        lab.context.module()
    else:
        raises(NotFound, lambda: lab.context.module(missing), "nothing")
        raises(Error, lambda: lab.context.module(), "NO_KERNELS", "PTX")
        raises(Error, lambda: lab.context.module(b""), "NO_KERNELS", "PTX")
        raises(Error, lambda: lab.context.module(b"no image at all"))
        raises(Error, lambda: lab.context.module(b".version 9.0\n.target sm_75\nnonsense"))
    for image in (5, 1.5, ["a"], add):
        with pytest.raises(TypeError):
            lab.context.module(image)
    raises(InvalidArgument, lambda: lab.context.module("a\0b"), "NUL")


def test_the_kernels_are_those_of_the_suite():
    beside = pathlib.Path(__file__).resolve().parents[2] / "tests/suite/support/kernels.ptx"
    # Elsewhere there are these tests alone.
    assert not beside.exists() or beside.read_bytes() == PTX.read_bytes()


# -- What cannot be --

def test_names_that_are_none_are_refused(lab):
    module = lab.context.module(PTX)
    module.register("add", add)
    for name in ("sub", "Add", "add ", "_Z3addPf"):
        raises(NotFound, lambda: module.kernel(name), name)
        with pytest.raises(LookupError):
            module.kernel(name)
    for call in (module.kernel, lambda name: module.register(name, add)):
        raises(InvalidArgument, lambda: call(""), "name", "empty")
        raises(InvalidArgument, lambda: call("a\0b"), "NUL")
        for name in (5, None, b"add"):
            with pytest.raises(TypeError):
                call(name)
    for function in (None, 5, "add"):
        with pytest.raises(TypeError, match="no function"):
            module.register("add", function)
    for kind in (Module, Kernel, KernelBlock):
        with pytest.raises(TypeError):
            kind()


def test_shapes_over_the_limits_are_refused(lab):
    kernel, = kernels(lab, "add")
    array = lab.array(np.zeros(8, np.float32))
    arguments = (array, np.float32(1), np.uint32(8))
    assert 256 <= kernel.most_threads <= 1024 and kernel.most_shared_bytes >= 48 << 10

    def refused(grid, block, *words, shared_bytes=4096):
        raises(InvalidArgument, lambda: kernel.launch(grid, block, arguments, shared_bytes=shared_bytes), *words)

    for block in (0, (8, 0), (8, 1, 0), kernel.most_threads + 1, 1 << 20, (1, 1, 65)):
        refused(1, block, "block")
    refused(1, (kernel.most_threads // 2, 4), "threads", str(kernel.most_threads))
    for grid in (0, (1, 0), (1, 1, 0), (1, 65536), (1, 1, 65536), 2**31):
        refused(grid, 8, "grid")
    refused(1, 8, "shared_bytes", "at most", shared_bytes=kernel.most_shared_bytes + 1)
    for wrong in (-1, 2**32, (1, -1), (), (1, 1, 1, 1), 1.5, "8", None, [8, 8], (1.0,)):
        refused(wrong, 8, "grid")
        refused(1, wrong, "block")
    for wrong in (-1, 2**32, 1.5):
        with pytest.raises((OverflowError, TypeError)):
            kernel.launch(1, 8, arguments, shared_bytes=wrong)
    raises(InvalidArgument, lambda: kernel.launch(1, 8, arguments, stream=0xdead0), "stream")
    # Nothing of it ran, and the right one does.
    kernel.launch(1, 8, arguments, shared_bytes=32)
    synchronize(lab)
    assert (lab.numpy(array) == 1).all()


def test_arguments_without_a_size_are_refused(lab):
    kernel, = kernels(lab, "add")
    array = lab.array(np.zeros(8, np.float32))
    for n, right in enumerate((array, np.float32(1), np.uint32(8))):
        for wrong in (1, 1.0, True, None, "text", 2j, [1], (1.0,), object(), bytearray(4), memoryview(b"1234")):
            arguments = [array, np.float32(1), np.uint32(8)]
            arguments[n] = wrong
            with pytest.raises(TypeError, match=f"argument {n} is .*ctypes"):
                kernel.launch(1, 8, arguments, shared_bytes=32)
    if lab.backend == "cuda":
        raises(gpumailbox.InvalidDevice, lambda: kernel.launch(1, 8, (np.zeros(8, np.float32), np.float32(1), np.uint32(8))),
               "argument 0", "CPU")
        raises(InvalidArgument, lambda: kernel.launch(1, 8, (array, np.float32(1))), "2 arguments", "3")
        raises(InvalidArgument, lambda: kernel.launch(1, 8, (array, np.float64(1), np.uint32(8))), "argument 1", "4 bytes")
    for wrong in (5, None, array if lab.backend == "cuda" else 1.5):
        with pytest.raises(TypeError):
            kernel.launch(1, 8, wrong)


# -- Functions in the kernels' places --

@HOST_ONLY
def test_functions_see_their_block_and_their_arguments(lab):
    seen = []

    class Point(ctypes.Structure):
        _fields_ = [("x", ctypes.c_int), ("y", ctypes.c_double)]

    def look(block, *arguments):
        assert type(block) is KernelBlock and len(block.shared) == 100 and not any(block.shared)
        block.shared[:] = b"x" * 100
        seen.append((block.grid, block.block, block.index, block.threads, arguments))

    module, stream = lab.context.module(), lab.context.stream()
    module.register("look", look)
    array, point, number = np.arange(5), Point(3, 4.5), ctypes.c_int32(-7)
    given = (array, gpumailbox.Context("host").queue(8, dtype="int32").address, point)
    popped = lab.context.mailbox(4, dtype="int64", shape=(2,))
    popped.push(np.ones((1, 2), np.int64))
    records = popped.pop(1)
    with gate(lab, stream):
        module.kernel("look").launch((2, 3, 4), (8, 2), (array, number, ctypes.c_void_p(given[1]), np.float16(0.5), point,
                                                         b"abc", (ctypes.c_int * 2)(1, 2), records, ctypes.c_bool(True)),
                                     shared_bytes=100, stream=stream)
        # As they were at the launch.
        number.value, point.x = 0, 0
    assert sorted(index for _, _, index, _, _ in seen) == [(x, y, z) for x in range(2) for y in range(3) for z in range(4)]
    for grid, block, index, threads, arguments in seen:
        assert grid == (2, 3, 4) and block == (8, 2, 1) and threads == range(8 * index[0], 8 * index[0] + 8)
        assert arguments[0] is array and arguments[1:4] == (-7, given[1], np.float16(0.5))
        assert type(arguments[4]) is Point and (arguments[4].x, arguments[4].y) == (3, 4.5)
        assert arguments[5] == b"abc" and list(arguments[6]) == [1, 2] and arguments[8] is True
        assert isinstance(arguments[7], np.ndarray) and arguments[7].tolist() == [[1, 1]]


@HOST_ONLY
def test_what_a_function_of_a_launch_raises_is_unraisable(lab, monkeypatch):
    told, calls = [], []
    monkeypatch.setattr(sys, "unraisablehook", lambda what: told.append((what.exc_type, str(what.exc_value), what.object)))

    def fail(block):
        calls.append(block.index)
        raise ArithmeticError(f"block {block.index[0]}")

    module, stream = lab.context.module(), lab.context.stream()
    module.register("fail", fail)
    module.register("add", add)
    kernel, array = module.kernel("fail"), np.zeros(8, np.float32)
    for round in range(1, 4):
        kernel.launch(1000, 1, stream=stream)
        module.kernel("add").launch(1, 8, (array, np.float32(1), np.uint32(8)), shared_bytes=32, stream=stream)
        stream.synchronize()
        # Once for each launch, whose other blocks are left out; the stream goes on.
        assert len(told) == round and told[-1][0] is ArithmeticError and "block" in told[-1][1] and told[-1][2] is fail
        assert (array == round).all()
    assert len(calls) < 1000
    # Arguments that it does not take are no different.
    module.register("none", lambda: None)
    module.kernel("none").launch(1, 1, stream=stream)
    stream.synchronize()
    assert told[-1][0] is TypeError and len(told) == 4


@HOST_ONLY
def test_another_function_is_for_kernels_asked_for_later(lab):
    module, stream, seen = lab.context.module(), lab.context.stream(), []
    module.register("what", lambda block: seen.append("one"))
    one = module.kernel("what")
    module.register("what", lambda block: seen.append("two"))
    for kernel in (one, module.kernel("what"), one):
        kernel.launch(1, 1, stream=stream)
    stream.synchronize()
    assert seen == ["one", "two", "one"]


@HOST_ONLY
def test_a_function_is_kept_while_it_is_needed(lab):
    def made():
        seen = []

        def function(block):
            seen.append(block.index)

        return function, seen

    function, seen = made()
    alive, stream = weakref.ref(function), lab.context.stream()
    module = lab.context.module()
    module.register("it", function)
    kernel = module.kernel("it")
    del function
    held = gate(lab, stream)
    kernel.launch(3, 1, stream=stream)
    module.close()
    del module
    gc.collect()
    assert alive() is not None and not seen
    held.open()
    # The last reference waits for the launch.
    del kernel
    assert sorted(seen) == [(n, 0, 0) for n in range(3)]
    stream.synchronize()
    gc.collect()
    assert alive() is None


@HOST_ONLY
def test_blocks_of_many_launches_run_at_once(lab):
    """Those of two launches wait for each other: no thread holds the others up, and none has the interpreter's lock for good."""
    import threading
    meet = threading.Barrier(2)
    module, streams = lab.context.module(), [lab.context.stream() for _ in range(2)]
    module.register("meet", lambda block: meet.wait(SECONDS))
    kernel = module.kernel("meet")
    for _ in range(20):
        for stream in streams:
            kernel.launch(1, 1, stream=stream)
    for stream in streams:
        stream.synchronize()
    assert not meet.broken


@HOST_ONLY
def test_a_function_of_c_is_launched_as_it_is(lab):
    """Registered by the C API, as an extension would: it gets the arguments, and nothing else."""
    prototype = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.POINTER(ctypes.c_void_p))
    seen = []

    @prototype
    def function(_, arguments):
        seen.append((ctypes.c_int32.from_address(arguments[0]).value, ctypes.c_uint64.from_address(arguments[1]).value))

    module, stream, array = lab.context.module(), lab.context.stream(), np.zeros(4)
    assert c_library().gmb_module_register(ctypes.c_uint64(module.handle), b"of c", function, None) == 0
    module.kernel("of c").launch(2, 1, (ctypes.c_int32(-5), array), stream=stream)
    stream.synchronize()
    assert seen == [(-5, array.ctypes.data)] * 2


# -- Threads, and ends --

def test_threads_launch_at_once(lab):
    kernel, = kernels(lab, "add")
    count = 100

    def work():
        stream, array = lab.context.stream(), lab.array(np.zeros(512, np.float32))
        synchronize(lab)
        for _ in range(count):
            kernel.launch(4, 128, (array, np.float32(1), np.uint32(512)), shared_bytes=512, stream=stream)
        stream.synchronize()
        assert (lab.numpy(array) == count).all()

    together(*[work] * 4)


def test_a_closed_module_gives_no_more_kernels_and_those_that_are_out_stay(lab):
    context = gpumailbox.Context(lab.backend)
    module = context.module(PTX)
    module.register("add", add)
    kernel, array = module.kernel("add"), lab.array(np.zeros(8, np.float32))
    module.close()
    module.close()
    assert "closed" in repr(module)
    for call in (lambda: module.kernel("add"), lambda: module.register("add", add), lambda: module.handle):
        raises(Closed, call, "module")
    kernel.launch(1, 8, (array, np.float32(1), np.uint32(8)), shared_bytes=32)
    event = context.event()
    event.record()
    event.synchronize(SECONDS)
    assert (lab.numpy(array) == 1).all()
    context.close()
    for call in (lambda: context.module(PTX), lambda: kernel.launch(1, 8, (array, np.float32(1), np.uint32(8)))):
        raises(Closed, call, "context")


def test_the_handle_is_that_of_the_c_api(lab):
    module, found = lab.context.module(PTX), ctypes.c_uint64()
    module.register("add", add)
    c = c_library()
    assert c.gmb_module_get_kernel(ctypes.c_uint64(module.handle), b"add", ctypes.byref(found)) == 0
    # gmb_kernel_info: threads and shared memory of a block, at most.
    kernel, told = module.kernel("add"), c_info("gmb_kernel_get_info", found.value, 1)[0]
    assert (told % 2**32, told >> 32) == (kernel.most_threads, kernel.most_shared_bytes)
    assert c.gmb_kernel_destroy(found) == 0


def test_a_process_ends_with_launches_under_way(prelude):
    out = run(prelude, f"""
        import numpy, time
        module, stream = context.module({str(PTX)!r}), context.stream()
        # On the host alone: it takes a while, with the interpreter's lock and without.
        module.register("linger", lambda block, ns: time.sleep(0.01))
        kernel = module.kernel("linger")
        for _ in range(200):
            kernel.launch(4, 1, (numpy.uint64(10_000_000),), stream=stream)
        sys.modules["held"] = [module, kernel, stream]
        print("done")
    """)
    assert out == "done\n"
