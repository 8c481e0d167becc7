"""Triple buffers: each turn's data comes through its three steps, and nobody has a buffer that is not his."""
import gc
import signal
import textwrap
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import gpumailbox
from children import child, finished, run
from gpumailbox import Buffer, Closed, Error, InvalidArgument, TimedOut, TripleBuffer, WrongState, WrongType
from items import NUMBER
from lab import NEVER, SECONDS, raises, still_waits, together, until
from pipes import c_info, gate, got, kernels

STEPS = ("upload", "process", "download")


def settle(triple):
    """All that is done is passed on, however far."""
    while triple.advance():
        pass


@pytest.mark.parametrize("asks", ["acquire", "acquire_on", "wait"])
def test_each_turns_data_comes_through_in_its_order(lab, rng, asks):
    kernel, = kernels(lab, "add")
    count, elements = 60, int(rng.integers(1, 3000))
    triple = lab.context.triple_buffer("float32", elements)
    assert len(triple) == elements and triple.dtype == "float32" and triple.stats()["bytes"] == 4 * elements
    streams = [lab.context.stream() for _ in STEPS]
    inputs = rng.integers(0, 1000, (count, elements)).astype(np.float32)
    outputs = np.full((count, elements), -1, np.float32)
    uploaded = processed = downloaded = 0

    def ask(step, late):
        if asks == "wait":
            # Where there must be one, but for the work of the step before.
            return triple.wait(step, SECONDS) if late else triple.acquire(step)
        return triple.acquire(step) if asks == "acquire" else triple.acquire_on(step, streams[STEPS.index(step)])

    def turn():
        nonlocal uploaded, processed, downloaded
        if uploaded < count and (buffer := ask("upload", uploaded - downloaded < 3)):
            assert buffer.turn == uploaded and buffer.step == "upload" and buffer.index == uploaded % 3
            buffer.copy_from(inputs[uploaded], stream=streams[0])
            buffer.submit(streams[0])
            uploaded += 1
        if buffer := ask("process", uploaded > processed):
            assert buffer.turn == processed and buffer.shape == (elements,) and len(buffer) == elements
            kernel.launch(-(-elements // 256), 256, (buffer, np.float32(processed), np.uint32(elements)), shared_bytes=1024,
                          stream=streams[1])
            buffer.submit(streams[1])
            processed += 1
        if buffer := ask("download", processed > downloaded):
            assert buffer.turn == downloaded
            buffer.copy_to(outputs[downloaded], stream=streams[2])
            buffer.submit(streams[2])
            downloaded += 1
        return downloaded == count

    until(turn, triple.stats)
    streams[2].synchronize()
    assert np.array_equal(outputs, inputs + np.arange(count, dtype=np.float32)[:, None])
    settle(triple)
    assert triple.stats() == dict(elements=elements, bytes=4 * elements, completed=count, states=["free"] * 3)


def test_states_are_told_and_advance_moves_them(lab):
    triple, stream = lab.context.triple_buffer("int64", 16), lab.context.stream()
    assert triple.states == ("free",) * 3 and triple.advance() == 0
    buffer = triple.acquire("upload")
    assert triple.states == ("uploading", "free", "free") and triple.acquire("process") is None
    buffer.submit(stream)
    stream.synchronize()
    assert triple.advance() == 1 and triple.states == ("processing", "free", "free")
    process, other = triple.acquire("process"), triple.acquire("upload")
    assert (process.index, other.index) == (0, 1) and triple.states == ("processing", "uploading", "free")
    process.submit(stream)
    stream.synchronize()
    assert triple.advance() == 1 and triple.states == ("downloading", "uploading", "free")
    triple.acquire("download").submit(stream)
    stream.synchronize()
    assert triple.advance() == 1 and triple.states == ("free", "uploading", "free") and triple.stats()["completed"] == 1
    assert "to upload" in repr(other) and "int64" in repr(triple)


def test_the_next_step_gets_a_buffer_when_the_work_is_done_or_behind_it_on_a_stream(lab):
    triple, slow, other = lab.context.triple_buffer("float32", 64), lab.context.stream(), lab.context.stream()
    data, out = np.arange(64, dtype=np.float32), np.zeros(64, np.float32)
    with gate(lab, slow):
        with triple.acquire_on("upload", slow) as buffer:
            buffer.copy_from(data)
            # By default on the stream that it was asked for.
            buffer.submit()
        assert triple.acquire("process") is None and triple.advance() == 0
        raises(TimedOut, lambda: triple.wait("process", NEVER), "processed", "wait again")
        # The stream waits for it, not this thread.
        buffer = triple.acquire_on("process", other)
        assert buffer and not other.query()
        assert triple.acquire_on("process", other) is None
        buffer.submit()
        triple.acquire_on("download", other).submit(other)
        assert triple.states[0] == "downloading"
    other.synchronize()
    assert triple.advance() == 1 and np.array_equal(got(lab, triple.addresses[0], out), data)


def test_the_current_stream_is_the_default(lab):
    triple, stream = lab.context.triple_buffer("float32", 64), lab.context.stream()
    with gate(lab, stream), lab.context.use_stream(stream):
        triple.acquire("upload").submit()
        assert triple.acquire("process") is None
        behind = triple.acquire_on("process")
        assert behind is not None
    del behind
    settle(triple)
    assert triple.states == ("free",) * 3


def test_a_buffer_is_an_array_without_a_copy(lab, rng):
    for dtype in lab.dtypes:
        triple = lab.context.triple_buffer(dtype, 10)
        with triple.acquire("upload") as buffer:
            array = lab.import_(buffer)
            assert lab.pointer(array) == buffer.data_ptr == triple.addresses[buffer.index]
            assert lab.layout(array) == ((10,), (1,)) and str(array.dtype).split(".")[-1] == dtype == buffer.dtype
            array[:] = lab.array(np.ones(10, np.int8)) > 0
            buffer.submit()
        assert (lab.numpy(triple.wait("process", SECONDS)) != 0).all()
    host = lab.backend == "host"
    with triple.acquire("upload") as buffer:
        if host:
            assert np.asarray(buffer).ctypes.data == buffer.data_ptr
            raises(AttributeError, lambda: buffer.__cuda_array_interface__, "from_dlpack")
        else:
            with pytest.raises(TypeError):
                np.asarray(buffer)
    assert buffer.__dlpack_device__() == ((1, 0) if host else (2, lab.context.device))


# -- What is given up --

def test_what_is_not_submitted_is_given_up(lab):
    triple = lab.context.triple_buffer("int32", 8)
    for round in range(5):
        with pytest.raises(KeyError):
            with triple.acquire("upload"):
                raise KeyError("midway")
        with triple.acquire("upload") as buffer:
            pass
        buffer.give_up()
        # Without a reference.
        triple.acquire("upload")
        # It comes round in its turn.
        settle(triple)
        assert triple.states == ("free",) * 3, triple.states
        with triple.acquire("upload") as buffer:
            buffer.submit()
        # Its further steps are left out.
        with triple.wait("process", SECONDS):
            pass
        assert triple.acquire("download") is None
        settle(triple)
        assert triple.states == ("free",) * 3
    buffers = [triple.acquire("upload") for _ in range(3)]
    assert all(buffers) and triple.acquire("upload") is None
    del buffers, buffer
    gc.collect()
    assert triple.acquire("upload") is not None


def test_what_is_given_up_is_waited_for(lab):
    kernel, = kernels(lab, "add")
    triple, stream = lab.context.triple_buffer("float32", 8), lab.context.stream()
    uses = {
        "asked for on it": lambda: triple.acquire_on("upload", stream),
        "copied to on it": lambda: copied(triple.acquire("upload")),
        "worked on by a kernel on it": lambda: worked(triple.acquire("upload")),
    }

    def copied(buffer):
        buffer.copy_from(np.zeros(8, np.float32), stream=stream)
        return buffer

    def worked(buffer):
        kernel.launch(1, 8, (buffer, np.float32(1), np.uint32(8)), shared_bytes=32, stream=stream)
        return buffer

    with ThreadPoolExecutor(1) as pool:
        for what, use in uses.items():
            with gate(lab, stream) as held:
                buffer = use()
                given_up = pool.submit(buffer.give_up)
                still_waits(given_up)
                assert "free" != triple.states[buffer.index], what
                held.open()
                given_up.result(SECONDS)
            settle(triple)
            assert triple.states == ("free",) * 3, what
            # Without a reference: the same.
            with gate(lab, stream) as held:
                buffers = [use()]
                del buffer
                dropped = pool.submit(buffers.clear)
                still_waits(dropped)
                held.open()
                dropped.result(SECONDS)
            settle(triple)
            assert triple.states == ("free",) * 3, what


# -- What cannot be --

def test_a_buffer_that_was_handed_on_is_nobodys(lab):
    triple, data = lab.context.triple_buffer("float32", 8), np.zeros(8, np.float32)
    submitted, given_up = triple.acquire("upload"), triple.acquire("upload")
    submitted.submit()
    given_up.give_up()
    given_up.give_up()
    for buffer in (submitted, given_up):
        raises(WrongState, buffer.submit, "submitted or given up", "WRONG_STATE")
        for use in (lambda: buffer.data_ptr, lambda: lab.import_(buffer), buffer.__dlpack__, lambda: buffer.copy_from(data),
                    lambda: buffer.copy_to(data)):
            raises(WrongState, use, "submitted or given up")
        # Of a buffer that is not here any more there is nothing to give up.
        buffer.give_up()
        assert "handed on" in repr(buffer)
    with triple.wait("process", SECONDS) as mine:
        # Neither is this one theirs.
        raises(WrongState, submitted.submit, "WRONG_STATE")
        mine.submit()


def test_a_step_that_has_no_buffer_gives_none(lab):
    triple = lab.context.triple_buffer("float32", 8)
    for step in ("process", "download"):
        assert triple.acquire(step) is None and triple.acquire_on(step) is None
        for timeout in (0, NEVER):
            raises(TimedOut, lambda: triple.wait(step, timeout), "TIMEOUT")
    buffers = [triple.acquire("upload") for _ in range(3)]
    assert triple.acquire("upload") is None and [buffer.index for buffer in buffers] == [0, 1, 2]
    raises(TimedOut, lambda: triple.wait("upload", NEVER), "uploaded")
    for ask in (triple.acquire, triple.acquire_on, triple.wait):
        raises(InvalidArgument, lambda: ask("compute"), "step", "process")
        with pytest.raises(TypeError):
            ask(1)
    for timeout in (-1, float("nan")):
        raises(InvalidArgument, lambda: triple.wait("upload", timeout), "timeout")
    raises(InvalidArgument, lambda: buffers[0].submit(0xdead0), "stream")
    # It is still here.
    buffers[0].submit()


def test_elements_of_another_type_are_refused(lab, rng):
    triple = lab.context.triple_buffer("float32", 8)
    with triple.acquire("upload") as buffer:
        for dtype in set(lab.dtypes) - {"float32", "bfloat16"}:
            array = np.zeros(8, dtype)
            for call in (buffer.copy_from, buffer.copy_to):
                raises(WrongType, lambda: call(array), f"{dtype},", "float32", "convert")
                with pytest.raises(TypeError):
                    call(array)
        for call in (buffer.copy_from, buffer.copy_to):
            raises(InvalidArgument, lambda: call(np.zeros(9, np.float32)), "9 elements", "8")
            raises(InvalidArgument, lambda: call(np.zeros((4, 4), np.float32)[:, ::2]), "gaps")
            raises(InvalidArgument, lambda: call(np.zeros((2, 4), np.float32).T), "gaps")
            raises(InvalidArgument, lambda: call([0.0] * 8), "list", "__dlpack__")
            raises(InvalidArgument, lambda: call(np.zeros(0, np.float32)), "ZERO_COUNT")
        fixed = np.arange(8, dtype=np.float32)
        fixed.flags.writeable = False
        raises(InvalidArgument, lambda: buffer.copy_to(fixed), "read-only")
        buffer.copy_from(fixed)
        # Fewer are for its begin, of any shape.
        buffer.copy_from(np.full((2, 2), 9, np.float32))
        buffer.submit()
    out = np.zeros(8, np.float32)
    with triple.wait("process", SECONDS) as buffer:
        buffer.copy_to(out)
        buffer.submit()
    triple.wait("download", SECONDS)
    assert out.tolist() == [9, 9, 9, 9, 4, 5, 6, 7]
    if lab.backend == "cuda":
        with triple.acquire("upload") as buffer:
            for call in (buffer.copy_from, buffer.copy_to):
                raises(gpumailbox.InvalidDevice, lambda: call(lab.array(out)), "device", "host memory")


def test_triple_buffers_that_cannot_be(lab):
    make = lab.context.triple_buffer
    raises(InvalidArgument, lambda: make("float32", 0), "elements")
    raises(InvalidArgument, lambda: make("float31", 8), "float31")
    raises(InvalidArgument, lambda: make("complex128", 2**62), "OVERFLOW")
    raises(Error, lambda: make("float64", 2**50))
    for elements in (-1, 2**64, None, 8.0, "8"):
        with pytest.raises(NUMBER):
            make("float32", elements)
    for kind in (TripleBuffer, Buffer):
        with pytest.raises(TypeError):
            kind()
    small = gpumailbox.Context(lab.backend, memory_limit=1 << 20)
    raises(gpumailbox.OutOfMemory, lambda: small.triple_buffer("uint8", 1 << 19), "limit")
    assert small.memory()["used"] == 0


# -- Threads, and ends --

def test_threads_have_each_buffer_alone(lab):
    triple, turns = lab.context.triple_buffer("int64", 4), 200
    seen = {step: [] for step in STEPS}

    def work(step):
        stream = lab.context.stream()
        while len(seen[step]) < turns:
            try:
                buffer = triple.wait(step, 0.05)
            except TimedOut:
                continue
            if step == "upload" and buffer.turn >= turns:
                return
            seen[step].append(buffer.turn)
            buffer.submit(stream)
        stream.synchronize()

    together(*[lambda step=step: work(step) for step in STEPS for _ in range(2)])
    for step in STEPS:
        assert sorted(seen[step]) == list(range(turns)), step
    settle(triple)
    # A thread may have asked for one too many, and given it up.
    assert turns <= triple.stats()["completed"] <= turns + 2 and triple.states == ("free",) * 3


def test_a_wait_ends_when_the_work_is_done(lab):
    triple, stream = lab.context.triple_buffer("float32", 8), lab.context.stream()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(triple.wait, "process")
        still_waits(waiting)
        with gate(lab, stream):
            triple.acquire("upload").submit(stream)
            still_waits(waiting)
        assert waiting.result(SECONDS).turn == 0


def test_what_is_copied_is_kept_until_then(lab):
    triple, stream = lab.context.triple_buffer("uint8", 1 << 20), lab.context.stream()
    with gate(lab, stream):
        with triple.acquire("upload") as buffer:
            data = np.full(1 << 20, 7, np.uint8)
            buffer.copy_from(data, stream=stream)
            del data
            gc.collect()
            others = [np.full(1 << 20, 9, np.uint8) for _ in range(4)]
            buffer.submit(stream)
    with triple.wait("process", SECONDS) as buffer:
        assert (lab.numpy(buffer) == 7).all() and len(others) == 4


def test_closing_wakes_who_waits_and_memory_goes_with_the_last_array(lab):
    before = lab.context.memory()["used"]
    triple = lab.context.triple_buffer("float32", 1 << 16)
    assert lab.context.memory()["used"] >= before + 3 * (1 << 18)
    buffer = triple.acquire("upload")
    array = lab.import_(buffer)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(triple.wait, "process")
        still_waits(waiting)
        triple.close()
        with pytest.raises(Closed, match="triple buffer"):
            waiting.result(SECONDS)
    assert "closed" in repr(triple)
    triple.close()
    for call in (triple.advance, triple.stats, lambda: triple.states, lambda: triple.acquire("upload"), lambda: triple.handle,
                 lambda: triple.acquire_on("upload"), lambda: triple.wait("upload"), lambda: triple.addresses, buffer.submit,
                 lambda: buffer.data_ptr, lambda: buffer.copy_from(np.zeros(4, np.float32))):
        raises(Closed, call, "triple buffer", "closed")
    array[:] = 5
    del buffer, waiting
    gc.collect()
    assert lab.context.memory()["used"] >= before + 3 * (1 << 18) and (lab.numpy(array) == 5).all()
    del array
    gc.collect()
    assert lab.context.memory()["used"] == before


def test_closing_waits_for_the_work_that_was_submitted(lab):
    triple, stream = lab.context.triple_buffer("float32", 8), lab.context.stream()
    with ThreadPoolExecutor(1) as pool, gate(lab, stream) as held:
        triple.acquire("upload").submit(stream)
        closing = pool.submit(triple.close)
        still_waits(closing)
        held.open()
        closing.result(SECONDS)


def test_a_closed_context_closes_it(lab):
    context = gpumailbox.Context(lab.backend)
    triple = context.triple_buffer("float32", 8)
    buffer = triple.acquire("upload")
    context.close()
    for call in (triple.advance, buffer.submit, lambda: triple.acquire("upload"), lambda: context.triple_buffer("int8", 1)):
        raises(Closed, call, "context")
    triple.close()


def test_the_handle_is_that_of_the_c_api(lab):
    triple = lab.context.triple_buffer("float32", 100)
    # gmb_triple_buffer_info: elements, bytes, addresses.
    info = c_info("gmb_triple_buffer_get_info", triple.handle, 8)
    assert info[:2] == [100, 400] and tuple(info[2:5]) == triple.addresses


def test_ctrl_c_ends_a_wait(prelude):
    process = child(prelude + textwrap.dedent("""
        triple = context.triple_buffer("float32", 8)
        main, line = threading.main_thread().ident, [0]
        def tell():
            while sys._current_frames()[main].f_lineno != line[0]: pass
            print("waits", flush=True)
        threading.Thread(target=tell, daemon=True).start()
        try:
            line[0] = sys._getframe().f_lineno + 1
            triple.wait("process")
        except KeyboardInterrupt:
            print("interrupted", triple.acquire("upload").index)
    """))
    assert process.stdout.readline() == "waits\n", process.communicate()
    process.send_signal(signal.SIGINT)
    assert finished(process) == "interrupted 0\n"


def test_a_process_ends_with_whatever_is_out(prelude):
    out = run(prelude, """
        triple = context.triple_buffer("float32", 8)
        held = [triple.acquire("upload"), take(triple.acquire("upload"))]
        triple.acquire("upload").submit()
        threading.Thread(target=triple.wait, args=("download",), daemon=True).start()
        sys.modules["held"] = held
        print("done")
    """)
    assert out == "done\n"
