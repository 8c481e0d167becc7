"""Coordinators: any graph of operations gives what a sequential program gives, and what fails fails what comes after it."""
import asyncio
import ctypes
import gc
import signal
import textwrap
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import gpumailbox
from children import child, finished, run
from gpumailbox import (CallbackFailed, Closed, Completion, Coordinator, Error, Full, InvalidArgument, Operation, Task,
                        TimedOut, Unavailable, WrongType)
from lab import NEVER, SECONDS, current, raises, still_waits, together, torch, until
from pipes import PTX, add, c_info, gate, kernels, mix, mixed, words

HOST_ONLY = pytest.mark.parametrize("lab", ["host"], indirect=True)
STEPS = ("upload", "process", "download")


class Midway(Exception):
    pass


def nothing(stream):
    """Enqueues nothing."""


def all_told(coordinator):
    """What is told of all that was queued so far, once that is done."""
    coordinator.synchronize(SECONDS)
    return coordinator.poll()


def fails(operation, kind, *words):
    """It does, however often and however it is asked."""
    for call in (lambda: operation.wait(SECONDS), operation.poll, lambda: operation.coordinator.wait(operation, SECONDS),
                 lambda: asyncio.run(awaited(operation))):
        with pytest.raises(kind) as caught:
            call()
        for word in words:
            assert word in str(caught.value), str(caught.value)
    return caught.value


async def awaited(operation):
    return await operation


# -- What they do --

def test_data_goes_up_through_a_kernel_and_down(lab, rng):
    kernel, = kernels(lab, "add")
    with lab.context.coordinator() as coordinator:
        for count in (1, 1000, 100_000, 1_000_003):
            source, out = rng.standard_normal(count).astype(np.float32), np.zeros(count, np.float32)
            memory = lab.array(np.zeros(count, np.float32))
            uploaded = coordinator.upload(memory, source)
            computed = coordinator.compute(kernel, -(-count // 256), 256, (memory, np.float32(2), np.uint32(count)),
                                           shared_bytes=1024, after=[uploaded])
            downloaded = coordinator.download(out, memory, after=[computed])
            done = downloaded.wait(SECONDS)
            assert np.array_equal(out, source + np.float32(2))
            assert type(done) is Completion and done.operation is downloaded and (done.kind, done.count) == ("download", 0)
            assert (done.error, done.cause) == (None, None) and uploaded.poll() and coordinator.wait(computed, 0)
            told = coordinator.poll()
            assert [one.operation for one in told] == [uploaded, computed, downloaded] and coordinator.poll() == []
            assert [one.kind for one in told] == ["upload", "compute", "download"] == [one.operation.kind for one in told]
            assert len({uploaded, computed, downloaded}) == 3 and told[0].operation in {uploaded}
            assert uploaded.id < computed.id < downloaded.id and uploaded.number + 2 == downloaded.number
        assert coordinator.stats() == dict(queued=12, in_flight=0, high_water=3, events=3, max_operations=4096)
        assert "download" in repr(downloaded) and "done" in repr(done) and str(downloaded.number) in repr(done)


def test_forks_and_joins_wait_for_all_before_them(lab, rng):
    """Two branches of one upload, each with a kernel, and a third kernel of both; over and over into the same memory."""
    kernel, = kernels(lab, "mix")
    count, rounds = 5000, 40
    memory = [lab.array(np.zeros(count, np.int64)) for _ in range(4)]
    sources = [words(rng, count) for _ in range(rounds)]
    outs = [np.zeros(count, np.int64) for _ in range(rounds)]
    with lab.context.coordinator() as coordinator:
        before = []
        for n in range(rounds):
            def work(to, a, b, *after):
                given = (memory[to], memory[a], memory[b], np.uint64(to), np.uint32(count))
                return coordinator.compute(kernel, 3, 16, given, after=after)

            uploaded = coordinator.upload(memory[0], sources[n], after=before)
            left, right = work(1, 0, 0, uploaded), work(2, 0, 0, uploaded)
            joined = work(3, 1, 2, left, right)
            before = [left, right, coordinator.download(outs[n], memory[3], after=[joined])]
        before[-1].wait(SECONDS)
    for source, out in zip(sources, outs):
        x = source.view(np.uint64)
        left, right = mixed(x, x, 1), mixed(x, x, 2)
        assert np.array_equal(out.view(np.uint64), mixed(left, right, 3))


class Model:
    """A sequential program of uploads, kernels and downloads, and the operations that its hazards make each come after."""

    def __init__(self, lab, rng, arrays, count):
        self.rng, self.count, self.kernel = rng, count, kernels(lab, "mix")[0]
        self.device = [lab.array(np.zeros(count, np.int64)) for _ in range(arrays)]
        self.values = [np.zeros(count, np.uint64) for _ in range(arrays)]
        self.writer, self.readers = [None] * arrays, [set() for _ in range(arrays)]
        self.outs = []

    def uses(self, number, reads, writes):
        """What operation `number` comes after: who wrote what it reads, and who used what it writes."""
        after = {self.writer[n] for n in reads + writes} | set().union(*[self.readers[n] for n in writes], set())
        for n in reads:
            self.readers[n].add(number)
        for n in writes:
            self.writer[n], self.readers[n] = number, set()
        return sorted(after - {None, number})

    def next(self, number):
        """What the next one does, by its name and arguments, and what it comes after."""
        pick = lambda: int(self.rng.integers(len(self.device)))
        what = self.rng.choice(["upload", "compute", "compute", "download"])
        if what == "upload":
            to, source = pick(), words(self.rng, self.count)
            self.values[to] = source.view(np.uint64)
            return what, (self.device[to], source), {}, self.uses(number, [], [to])
        if what == "download":
            of, out = pick(), np.zeros(self.count, np.int64)
            self.outs.append((out, self.values[of]))
            return what, (out, self.device[of]), {}, self.uses(number, [of], [])
        a, b, salt = pick(), pick(), int(self.rng.integers(2**63))
        to = int(self.rng.choice([n for n in range(len(self.device)) if n not in (a, b)]))
        self.values[to] = mixed(self.values[a], self.values[b], salt)
        given = self.device[to], self.device[a], self.device[b], np.uint64(salt), np.uint32(self.count)
        return what, (self.kernel, int(self.rng.integers(1, 4)), 64, given), {}, self.uses(number, [a, b], [to])


@pytest.mark.parametrize("way", ["one by one", "in graphs"])
def test_random_graphs_give_what_a_sequential_program_gives(lab, rng, way):
    total, model, operations, told = 3000, Model(lab, rng, 6, 200), [], []
    comes_after, most, waited = [], 256, [0]
    with lab.context.coordinator(most) as coordinator:
        def room(count):
            """Polls now and then, and waits when there is no room."""
            if rng.integers(8) == 0:
                told.extend(coordinator.poll(int(rng.integers(1, 50))))
            if len(operations) - len(told) > most:
                # What nobody polls for is dropped.
                told.extend(coordinator.poll())
            # Of those that were queued last so many may not be done; a graph's are in another order here.
            while waited[0] < min(len(operations), len(operations) + count + 60 - most):
                operations[waited[0]].wait(SECONDS)
                waited[0] += 1

        while len(operations) < total:
            first, size = len(operations), 1 if way == "one by one" else int(rng.integers(1, 60))
            steps = [model.next(first + n) for n in range(size)]
            comes_after += [after for *_, after in steps]
            room(size)
            if way == "one by one":
                (what, arguments, options, after), = steps
                operations.append(getattr(coordinator, what)(*arguments, **options, after=[operations[n] for n in after]))
                continue
            # In another order than that of the program.
            order = rng.permutation(size)
            place = {first + int(n): at for at, n in enumerate(order)}
            known = {**dict(enumerate(operations)), **place}
            tasks = [getattr(Task, what)(*arguments, **options, after=[known[n] for n in after])
                     for what, arguments, options, after in (steps[n] for n in order)]
            queued = coordinator.graph(tasks)
            operations.extend(queued[place[first + n]] for n in range(size))
        told += all_told(coordinator)
        assert coordinator.stats()["in_flight"] == 0 and coordinator.stats()["high_water"] <= most
    assert len(model.outs) > total / 8
    assert sum(not np.array_equal(out.view(np.uint64), value) for out, value in model.outs) == 0
    for array, value in zip(model.device, model.values):
        assert np.array_equal(lab.numpy(array).view(np.uint64), value)
    # Each is told once, and none before what it comes after.
    at = {one.operation.id: n for n, one in enumerate(told)}
    assert len(told) == len(at) == len(operations) and all(one.error is None for one in told)
    places = [at[operation.id] for operation in operations]
    assert all(places[before] < places[n] for n, after in enumerate(comes_after) for before in after)


def test_independent_operations_go_on_beside_one_that_stands_still(lab):
    coordinator, memory = lab.context.coordinator(), lab.array(np.zeros(8, np.float32))
    stream = coordinator.stream("process")
    with gate(lab, stream):
        still = coordinator.compute(nothing)
        behind = coordinator.upload(memory, np.ones(8, np.float32), after=[still])
        other, out = lab.array(np.full(8, 5, np.float32)), np.zeros(8, np.float32)
        free = coordinator.download(out, other)
        assert free.wait(SECONDS) and (out == 5).all()
        for late in (still, behind):
            assert late.poll() is None
            for timeout in (0, NEVER):
                raises(TimedOut, lambda: late.wait(timeout), "wait again")
        raises(TimedOut, lambda: coordinator.synchronize(NEVER), "wait again")
        assert [one.operation for one in coordinator.poll()] == [free]
        assert coordinator.stats()["in_flight"] == 2
    assert [one.operation for one in all_told(coordinator)] == [still, behind]
    assert (lab.numpy(memory) == 1).all()


def test_its_streams_take_work_of_ones_own(lab):
    coordinator, data = lab.context.coordinator(priority="focus"), np.zeros(1 << 10, np.float32)
    kernel, = kernels(lab, "add")
    memory = lab.array(data)
    streams = [coordinator.stream(step) for step in STEPS]
    assert len({stream.handle for stream in streams}) == 3 and coordinator.stream("upload").handle == streams[0].handle
    assert [stream.priority for stream in streams] == [lab.context.stream("focus").priority] * 3
    with gate(lab, streams[0]):
        coordinator.upload(memory, np.ones(1 << 10, np.float32))
        event = lab.context.event()
        event.record(streams[0])
        streams[1].wait_event(event)
        # A launch of one's own, behind the event; an operation is behind that.
        kernel.launch(4, 256, (memory, np.float32(1), np.uint32(1 << 10)), shared_bytes=1024, stream=streams[1])
        computed = coordinator.compute(nothing)
        downloaded = coordinator.download(data, memory, after=[computed])
        assert not event.query() and downloaded.poll() is None
    downloaded.wait(SECONDS)
    assert (data == 2).all()
    # It stays the coordinator's.
    streams[2].close()
    coordinator.download(data, memory).wait(SECONDS)
    coordinator.close()
    for stream in streams:
        raises(Closed, lambda: stream.handle, "closed")


def test_pushes_and_pops_are_operations_too(lab, rng):
    mailbox = lab.context.mailbox(8, dtype="int64", shape=(2,))
    rows = words(rng, 24).reshape(12, 2)
    with lab.context.coordinator() as coordinator:
        memory, out = lab.array(np.zeros((12, 2), np.int64)), lab.array(np.zeros((16, 2), np.int64))
        result = np.zeros((16, 2), np.int64)
        uploaded = coordinator.upload(memory, rows)
        pushed = coordinator.push(mailbox, memory, msg_type=3, after=[uploaded], step="upload")
        popped = coordinator.pop(mailbox, out, 5, after=[pushed])
        rest = coordinator.pop(mailbox, out[8:], step="download", after=[popped])
        coordinator.download(result, out, after=[rest]).wait(SECONDS)
        # Eight of twelve fit.
        assert [one.wait().count for one in (pushed, popped, rest)] == [8, 5, 3]
        assert np.array_equal(result[:5], rows[:5]) and np.array_equal(result[8:11], rows[5:8])
        told = {one.operation: (one.kind, one.count) for one in coordinator.poll()}
        assert told[pushed] == ("push", 8) and told[popped] == ("pop", 5) and told[uploaded] == ("upload", 0)
        empty = coordinator.graph([Task.pop(mailbox, out, 4), Task.push(mailbox, memory, after=[0]),
                                   Task.pop(mailbox, out, 16, after=[1])])
        assert [one.wait(SECONDS).count for one in empty] == [0, 8, 8]
        # Under "wait" it waits for room, and then nothing was queued.
        patient = lab.context.mailbox(8, dtype="int64", shape=(2,), full_policy="wait")
        coordinator.push(patient, memory[:8]).wait(SECONDS)
        queued = coordinator.stats()["queued"]
        for timeout in (0, NEVER):
            raises(TimedOut, lambda: coordinator.push(patient, memory[:1], timeout=timeout))
        assert coordinator.stats()["in_flight"] == 0 and coordinator.stats()["queued"] >= queued
        with ThreadPoolExecutor(1) as pool:
            late = pool.submit(coordinator.push, patient, memory[:1])
            still_waits(late)
            assert coordinator.pop(patient, out, 3).wait(SECONDS).count == 3
            assert late.result(SECONDS).wait(SECONDS).count == 1


def test_triple_buffers_go_round_by_themselves(lab, rng):
    kernel, = kernels(lab, "add")
    elements, turns = 3000, 50
    triple = lab.context.triple_buffer("float32", elements)
    inputs = rng.integers(0, 1000, (turns, elements)).astype(np.float32)
    outputs = np.zeros((turns, elements), np.float32)

    def twice(stream, buffer):
        """A function in place of the kernel: it gets the buffer."""
        assert buffer.shape == (elements,) and buffer.data_ptr in triple.addresses
        kernel.launch(12, 256, (buffer, np.float32(2), np.uint32(elements)), shared_bytes=1024)

    with lab.context.coordinator() as coordinator:
        downloads = []
        for n in range(turns):
            # The fourth takes the first one's buffer: its stream waits for the download.
            uploaded = coordinator.upload(triple, inputs[n])
            if n % 2:
                computed = coordinator.compute(twice, triple=triple, after=[uploaded])
            else:
                computed = coordinator.compute(kernel, 12, 256, (np.float32(1), np.uint32(elements)), shared_bytes=1024,
                                               triple=triple, after=[uploaded])
            downloads.append(coordinator.download(outputs[n], triple, after=[computed]))
        for download in downloads:
            download.wait(SECONDS)
        assert np.array_equal(outputs, inputs + (np.arange(turns) % 2 + 1)[:, None].astype(np.float32))
        assert all(one.error is None for one in all_told(coordinator))
    while triple.advance():
        pass
    assert triple.stats()["completed"] == turns and triple.states == ("free",) * 3


# -- Functions that enqueue --

def test_a_functions_stream_is_the_current_one(lab):
    coordinator, seen = lab.context.coordinator(), []
    other = lab.context.stream()

    def work(stream):
        assert type(stream) is gpumailbox.Stream and stream.handle == coordinator.stream("process").handle
        seen.append(current(lab, stream, other) == [stream])
        if lab.backend == "cuda":
            seen.append(torch.cuda.current_stream().cuda_stream == stream.handle)

    before = current(lab, other)
    with lab.context.use_stream(other):
        coordinator.compute(work).wait(SECONDS)
        assert current(lab, other) == [other]
    assert all(seen) and seen and current(lab, other) == before
    if lab.backend == "cuda":
        assert torch.cuda.current_stream() == torch.cuda.default_stream()


def test_what_a_function_gives_is_kept_until_its_work_is_done(lab):
    class Given:
        pass

    coordinator, alive = lab.context.coordinator(), []

    def work(stream):
        given = Given()
        alive.append(weakref.ref(given))
        return [given]

    with gate(lab, coordinator.stream("process")):
        operation = coordinator.compute(work)
        gc.collect()
        assert alive[0]() is not None
    operation.wait(SECONDS)
    gc.collect()
    assert alive[0]() is None


def test_what_a_function_launches_is_kept_and_part_of_the_operation(lab):
    kernel, = kernels(lab, "add")
    coordinator = lab.context.coordinator()

    def work(stream):
        array = lab.track(lab.array(np.zeros(1 << 18, np.float32)))
        kernel.launch(1 << 10, 256, (array, np.float32(1), np.uint32(1 << 18)), shared_bytes=1024)

    with gate(lab, coordinator.stream("process")):
        # On CUDA the array is made on the very stream, which the gate holds up: so with a copy that does not wait.
        operation = coordinator.compute(work) if lab.backend == "host" else coordinator.compute(nothing)
        gc.collect()
        assert lab.backend != "host" or lab.held() >= 1 << 20
    operation.wait(SECONDS)
    assert lab.held() < 1 << 20


def test_a_function_must_not_come_back(lab):
    coordinator, memory, said = lab.context.coordinator(), lab.array(np.zeros(4, np.float32)), []
    host = np.zeros(4, np.float32)
    before = coordinator.compute(nothing)

    def work(stream):
        for call in (lambda: coordinator.upload(memory, host), lambda: coordinator.compute(nothing), coordinator.close,
                     lambda: coordinator.graph([Task.compute(nothing)]), coordinator.synchronize, before.wait,
                     lambda: coordinator.wait(before)):
            with pytest.raises(InvalidArgument, match="callback|cannot close") as caught:
                call()
            said.append(str(caught.value))
        # What does not wait for anything is no harm.
        assert coordinator.stats()["queued"] >= 1 and coordinator.stream("upload").handle
        coordinator.poll()

    coordinator.compute(work).wait(SECONDS)
    assert len(said) == 7
    # Another coordinator is.
    other = lab.context.coordinator()
    coordinator.compute(lambda stream: other.upload(memory, host).wait(SECONDS)).wait(SECONDS)


def test_an_array_that_closes_the_coordinator_is_refused(lab):
    coordinator, memory, tried = lab.context.coordinator(), lab.array(np.zeros(4, np.float32)), []

    class Rude:
        """It would wait for the very call that asks it."""
        def __dlpack__(self, **_):
            with pytest.raises(InvalidArgument, match="cannot close"):
                coordinator.close()
            tried.append(1)
            raise Midway

    with pytest.raises(Midway):
        coordinator.upload(memory, Rude())
    assert tried and coordinator.compute(nothing).wait(SECONDS)


def test_ctrl_c_in_a_function_does_not_wait_until_somebody_asks(lab):
    coordinator = lab.context.coordinator()

    def work(stream):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        coordinator.compute(work)
    with pytest.raises(KeyboardInterrupt):
        coordinator.graph([Task.compute(nothing), Task.compute(work)])
    told = all_told(coordinator)
    assert [type(one.error) for one in told] == [KeyboardInterrupt, type(None), KeyboardInterrupt]


# -- What fails --

@pytest.mark.parametrize("way", ["one by one", "graph"])
def test_what_fails_midway_fails_what_comes_after_it_and_nothing_else(lab, rng, way):
    kernel, = kernels(lab, "add")
    count, ran = 64, []
    memory, out, lost = lab.array(np.zeros(count, np.float32)), np.zeros(count, np.float32), np.full(count, 7, np.float32)

    def fail(stream):
        raise Midway("in the middle")

    def work(what):
        return lambda stream: ran.append(what)

    given = kernel, 1, count, (memory, np.float32(1), np.uint32(count))
    shape = [("upload", (memory, np.ones(count, np.float32)), []), ("compute", (fail,), [0]),
             ("compute", (work("dependant"),), [1]), ("download", (lost, memory), [2]),
             ("compute", given, [0]), ("compute", (work("independent"),), [0]), ("download", (out, memory), [4, 5])]
    with lab.context.coordinator() as coordinator:
        def options(what, arguments):
            return {} if arguments is not given else dict(shared_bytes=4 * count)

        if way == "graph":
            operations = coordinator.graph([getattr(Task, what)(*arguments, **options(what, arguments), after=after)
                                            for what, arguments, after in shape])
        else:
            operations = []
            for what, arguments, after in shape:
                operations.append(getattr(coordinator, what)(*arguments, **options(what, arguments),
                                                             after=[operations[n] for n in after]))
        uploaded, failed, dependant, download, *independent = operations
        for one in independent:
            one.wait(SECONDS)
        assert (out == 2).all() and ran == ["independent"] and (lost == 7).all()
        original = fails(failed, Midway, "in the middle")
        for one in (dependant, download):
            error = fails(one, CallbackFailed, f"operation {failed.number}", f"operation {one.number}", "Midway",
                          "in the middle")
            assert error.__cause__ is original and error.name == "CALLBACK"
        told = {one.operation: one for one in all_told(coordinator)}
        assert set(told) == set(operations)
        assert told[failed].error is original and told[failed].cause == failed and "Midway" not in repr(told[uploaded])
        for one in (dependant, download):
            assert type(told[one].error) is CallbackFailed and told[one].cause == failed and told[one].cause.kind == "compute"
        assert all(told[one].error is None and told[one].cause is None for one in (uploaded, *independent))
        # What comes later after one of them fails as well, and is not called.
        late = coordinator.compute(work("late"), after=[independent[0], download])
        assert fails(late, CallbackFailed, f"operation {failed.number}").__cause__ is original and "late" not in ran
        coordinator.compute(nothing, after=independent).wait(SECONDS)


def test_errors_of_the_package_keep_their_status(lab):
    with lab.context.coordinator() as coordinator:
        full = lab.context.tensor_mailbox(1)
        full.push(lab.array(np.zeros(4)))

        def work(stream):
            full.push(lab.array(np.zeros(4)))

        failed = coordinator.compute(work)
        assert fails(failed, Full).name == "FULL"
        # The status, with the operation that it is of.
        assert fails(coordinator.compute(nothing, after=[failed]), Full, f"operation {failed.number}").name == "FULL"

        def late(stream):
            raise TimeoutError("not in time")

        def of_the_package(stream):
            lab.context.triple_buffer("int8", 1).wait("process", 0)

        # Neither looks as if the operation were not done.
        fails(coordinator.compute(late), TimeoutError, "not in time")
        fails(coordinator.compute(of_the_package), TimedOut)


def test_a_graph_goes_on_without_what_cannot_be_enqueued(lab):
    triple = lab.context.triple_buffer("float32", 4)
    data, out, other = np.ones(4, np.float32), np.zeros(4, np.float32), np.zeros(4, np.float32)
    memory = lab.array(np.full(4, 3, np.float32))
    with lab.context.coordinator() as coordinator:
        # Nothing was uploaded to be processed.
        failed, after, fine, last = coordinator.graph([
            Task.compute(nothing, triple=triple), Task.download(out, memory, after=[0]), Task.download(other, memory),
            Task.compute(nothing, after=[2])])
        error = fails(failed, Unavailable, "processed")
        assert fails(after, Unavailable, f"operation {failed.number}").status == error.status
        last.wait(SECONDS)
        assert fine.poll() and (other == 3).all() and (out == 0).all() and data.all()


@HOST_ONLY
def test_what_a_function_in_a_kernels_place_raises_fails_the_operation(lab):
    module, out, ran = lab.context.module(), np.zeros(8, np.float32), []
    memory = np.zeros(8, np.float32)

    def fail(block, *_):
        if block.index[0] == 3:
            raise Midway("on a thread of the library")

    module.register("fail", fail)
    module.register("add", add)
    kernel, triple = module.kernel("fail"), lab.context.triple_buffer("float32", 8)

    def launches(stream):
        """By its own launch: that is part of it."""
        kernel.launch(8, 1)

    with lab.context.coordinator() as coordinator:
        uploaded = coordinator.upload(triple, np.ones(8, np.float32))
        ways = {
            "a kernel": lambda: coordinator.compute(kernel, 8, 1, (memory,)),
            "a kernel in a graph": lambda: coordinator.graph([Task.compute(kernel, 8, 1)])[0],
            "a function that launches one": lambda: coordinator.compute(launches),
            "a kernel on a triple buffer": lambda: coordinator.compute(kernel, 8, 1, triple=triple, after=[uploaded]),
        }
        for way, work in ways.items():
            with gate(lab, coordinator.stream("process")):
                failed = work()
                independent = coordinator.compute(module.kernel("add"), 1, 8, (memory, np.float32(1), np.uint32(8)),
                                                  shared_bytes=32)
                dependant = coordinator.compute(lambda stream: ran.append(1), after=[failed])
                last = coordinator.download(out, memory, after=[dependant])
                # It is not known yet.
                assert failed.poll() is None
            original = fails(failed, Midway, "on a thread")
            independent.wait(SECONDS)
            for one in (dependant, last, coordinator.compute(nothing, after=[dependant])):
                error = fails(one, CallbackFailed, f"operation {failed.number}", "Midway")
                assert error.__cause__ is original, way
            told = {one.operation: one for one in all_told(coordinator)}
            assert told[failed].error is original and told[last].cause == failed, way
            assert told[independent].error is None


# -- What cannot be --

def test_operations_of_others_are_none(lab):
    one, other = lab.context.coordinator(), lab.context.coordinator()
    memory, host = lab.array(np.zeros(4, np.float32)), np.zeros(4, np.float32)
    foreign = other.compute(nothing)
    for call in (lambda: one.upload(memory, host, after=[foreign]), lambda: one.download(host, memory, after=[foreign]),
                 lambda: one.compute(nothing, after=[foreign]), lambda: one.wait(foreign),
                 lambda: one.graph([Task.compute(nothing, after=[foreign])])):
        raises(Closed, call, "another coordinator", "INVALID_HANDLE")
    assert foreign != one.compute(nothing) and foreign != 5
    for after in ([1], [foreign.id], ["upload"], [None], foreign, 5, None):
        for call in (lambda: one.upload(memory, host, after=after), lambda: one.compute(nothing, after=after),
                     lambda: one.download(host, memory, after=after)):
            with pytest.raises(TypeError):
                call()
    for wrong in (5, foreign.id, None):
        with pytest.raises(TypeError):
            one.wait(wrong)
    assert len(all_told(one)) == 1


def test_graphs_that_are_none_queue_nothing(lab):
    memory, host, called = lab.array(np.zeros(4, np.float32)), np.zeros(4, np.float32), []

    def work(stream):
        called.append(1)

    coordinator = lab.context.coordinator(16)
    compute, upload, download = Task.compute, Task.upload, Task.download
    raises(InvalidArgument, lambda: coordinator.graph([compute(work, after=[1]), compute(work, after=[0])]), "circle",
           "0 after 1 after 0", "CYCLE")
    raises(InvalidArgument, lambda: coordinator.graph([compute(work), compute(work, after=[0, 1])]), "1 after 1", "CYCLE")
    raises(InvalidArgument, lambda: coordinator.graph(
        [upload(memory, host), compute(work, after=[0, 3]), compute(work, after=[1]), download(host, memory, after=[2])]),
           "CYCLE")
    raises(InvalidArgument, lambda: coordinator.graph([compute(work, after=[7])]), "task 0", "task 7", "1 tasks")
    raises(InvalidArgument, lambda: coordinator.graph([]), "ZERO_COUNT")
    raises(InvalidArgument, lambda: coordinator.graph([compute(work)] * 17), "17", "max_operations, 16")
    for after in ([-1], [2**32]):
        raises(InvalidArgument, lambda: coordinator.graph([compute(work, after=after)]), "task 0", str(after[0]))
    for after in (["0"], [None], [0.0]):
        with pytest.raises(TypeError, match="task 1 comes after"):
            coordinator.graph([compute(work), compute(work, after=after)])
    for tasks in ([work], [None], None, compute(work), [("upload", memory, host)]):
        with pytest.raises(TypeError):
            coordinator.graph(tasks)
    # Which task it was is said, too.
    with pytest.raises(WrongType) as caught:
        coordinator.graph([compute(work), upload(memory, np.zeros(4))])
    assert getattr(caught.value, "__notes__", ["task 1 of the graph"]) == ["task 1 of the graph"]
    assert not called and all_told(coordinator) == []
    assert "compute" in repr(compute(work, after=[1, 2])) and "2" in repr(compute(work, after=[1, 2]))


def test_copies_that_cannot_be(lab):
    coordinator = lab.context.coordinator()
    memory, host = lab.array(np.zeros(8, np.float32)), np.zeros(8, np.float32)
    triple = lab.context.triple_buffer("float32", 8)
    stranger = gpumailbox.Context(lab.backend).triple_buffer("float32", 8)
    up, down = coordinator.upload, coordinator.download
    for dtype in ("float64", "int32", "uint8", "complex64"):
        array = np.zeros(8, dtype)
        for call in (lambda: up(memory, array), lambda: down(array, memory), lambda: up(triple, array),
                     lambda: down(array, triple)):
            raises(WrongType, call, dtype, "float32")
    for call in (lambda: up(memory, np.zeros(7, np.float32)), lambda: down(np.zeros(9, np.float32), memory)):
        raises(InvalidArgument, call, "8 elements")
    for call in (lambda: up(triple, np.zeros(9, np.float32)), lambda: down(np.zeros(9, np.float32), triple)):
        raises(InvalidArgument, call, "9 elements", "8")
    wide = np.zeros((8, 2), np.float32)
    for call in (lambda: up(memory, wide[:, 0]), lambda: down(wide[:, 0], memory), lambda: up(lab.array(wide)[:, 0], host),
                 lambda: down(host, lab.array(wide)[:, 0])):
        raises(InvalidArgument, call, "gaps")
    fixed = np.zeros(8, np.float32)
    fixed.flags.writeable = False
    raises(InvalidArgument, lambda: down(fixed, memory), "read-only")
    if lab.backend == "host":
        raises(InvalidArgument, lambda: up(fixed, host), "read-only")
    else:
        for call in (lambda: up(memory, memory), lambda: down(memory, memory)):
            raises(gpumailbox.InvalidDevice, call, "host memory")
        for call in (lambda: up(host, host), lambda: down(host, host)):
            raises(gpumailbox.InvalidDevice, call, "CPU")
    for wrong in (None, 5, [1.0], b"12345678", memory.data if lab.backend == "host" else "x"):
        for call in (lambda: up(memory, wrong), lambda: up(wrong, host), lambda: down(wrong, memory),
                     lambda: down(host, wrong)):
            raises(InvalidArgument, call, "__dlpack__")
    empty = np.zeros(0, np.float32)
    raises(InvalidArgument, lambda: up(lab.array(empty), empty), "ZERO_COUNT")
    for call in (lambda: up(stranger, host), lambda: coordinator.compute(nothing, triple=stranger)):
        raises(InvalidArgument, call, "another context")
    # Buffers that have not come to the step, or are all on their way.
    raises(Unavailable, lambda: coordinator.compute(nothing, triple=triple), "processed")
    raises(Unavailable, lambda: down(host, triple), "downloaded")
    for _ in range(3):
        up(triple, host)
    raises(Unavailable, lambda: up(triple, host), "UNAVAILABLE")
    assert coordinator.stats()["in_flight"] <= 3 and len(all_told(coordinator)) == 3


def test_compute_that_cannot_be(lab):
    kernel, = kernels(lab, "add")
    coordinator, array = lab.context.coordinator(), lab.array(np.zeros(8, np.float32))
    arguments = (array, np.float32(1), np.uint32(8))
    raises(InvalidArgument, lambda: coordinator.compute(kernel, args=arguments), "grid and block")
    raises(InvalidArgument, lambda: coordinator.compute(kernel, 1, args=arguments), "grid and block")
    for options in (dict(grid=1, block=1), dict(args=arguments), dict(shared_bytes=4), dict(grid=1)):
        raises(InvalidArgument, lambda: coordinator.compute(nothing, **options), "are for kernels")
    for block in (0, kernel.most_threads + 1, (1, 1, 65)):
        raises(InvalidArgument, lambda: coordinator.compute(kernel, 1, block, arguments), "block")
    raises(InvalidArgument, lambda: coordinator.compute(kernel, 0, 8, arguments), "grid")
    raises(InvalidArgument, lambda: coordinator.compute(kernel, 1, 8, arguments, shared_bytes=1 << 30), "shared_bytes")
    for wrong in (1, 1.0, None):
        with pytest.raises(TypeError, match="argument 1"):
            coordinator.compute(kernel, 1, 8, (array, wrong, np.uint32(8)))
    for what in (None, 5, "add", array):
        with pytest.raises(TypeError):
            coordinator.compute(what)
    stranger = gpumailbox.Context(lab.backend)
    foreign = stranger.module(PTX)
    foreign.register("add", add)
    raises(InvalidArgument, lambda: coordinator.compute(foreign.kernel("add"), 1, 8, arguments, shared_bytes=32), "context")
    raises(InvalidArgument, lambda: coordinator.push(stranger.mailbox(4, dtype="float32", shape=(8,)), array), "shape")
    raises(InvalidArgument, lambda: coordinator.push(stranger.mailbox(4, dtype="float32", shape=(4,)),
                                                     lab.array(np.zeros((1, 4), np.float32))), "context")
    mailbox = lab.context.mailbox(4, dtype="float32", shape=(4,))
    out = lab.array(np.zeros((2, 4), np.float32))
    raises(InvalidArgument, lambda: coordinator.pop(mailbox, out, 3), "no room")
    raises(InvalidArgument, lambda: coordinator.pop(mailbox, out, step="compute"), "step")
    raises(InvalidArgument, lambda: coordinator.push(mailbox, out, step="up"), "step")
    raises(InvalidArgument, lambda: coordinator.pop(mailbox, out, reader=3), "reader")
    raises(InvalidArgument, lambda: coordinator.stream("compute"), "step", "process")
    assert all_told(coordinator) == [] and (lab.numpy(array) == 0).all()


def test_coordinators_that_cannot_be(lab):
    raises(InvalidArgument, lambda: lab.context.coordinator(2**20 + 1), "max_operations")
    raises(InvalidArgument, lambda: lab.context.coordinator(priority="low"), "priority", "peripheral")
    for wrong in (-1, 2**32, "8", 1.5):
        with pytest.raises((OverflowError, TypeError)):
            lab.context.coordinator(wrong)
    coordinator = lab.context.coordinator()
    operation = coordinator.compute(nothing)
    raises(InvalidArgument, lambda: coordinator.poll(0), "max")
    for timeout in (-1, float("nan")):
        for call in (operation.wait, coordinator.synchronize, lambda timeout: coordinator.wait(operation, timeout)):
            raises(InvalidArgument, lambda: call(timeout), "timeout")
    for kind in (Coordinator, Operation, Completion, Task):
        with pytest.raises(TypeError):
            kind()


def test_more_than_may_be_in_flight_is_refused(lab):
    coordinator = lab.context.coordinator(4)
    with gate(lab, coordinator.stream("process")):
        operations = [coordinator.compute(nothing) for _ in range(4)]
        raises(Full, lambda: coordinator.compute(nothing), "4 operations", "poll or wait")
        raises(Full, lambda: coordinator.graph([Task.compute(nothing)]), "max_operations")
    operations[0].wait(SECONDS)
    coordinator.compute(nothing).wait(SECONDS)
    assert coordinator.stats()["max_operations"] == 4 == coordinator.stats()["high_water"]
    # Long ago, it is forgotten; what nobody polled for as well.
    for _ in range(40):
        coordinator.compute(nothing).wait(SECONDS)
    raises(Closed, operations[0].wait, "forgotten")
    assert len(all_told(coordinator)) == 8
    # As something to come after it was done well.
    coordinator.compute(nothing, after=operations).wait(SECONDS)


# -- Memory --

@pytest.mark.parametrize("how", ["waited for", "polled for", "synchronized", "others were queued", "closed"])
def test_arrays_are_kept_until_the_operation_is_done(lab, how):
    coordinator, size = lab.context.coordinator(), 1 << 20
    stream, kept = coordinator.stream("upload"), []

    def made(value):
        """Host memory, and a word of whether it is still there."""
        array = np.full(size, value, np.uint8)
        kept.append(weakref.ref(array))
        return array

    memory = lab.array(np.zeros(size, np.uint8))
    device = lab.track(lab.array(np.zeros(size, np.uint8)))
    if lab.backend == "cuda":
        torch.cuda.synchronize()
    with gate(lab, stream):
        uploaded = coordinator.upload(memory, made(1))
        second = coordinator.upload(device, made(2))
        del device
        last = coordinator.download(made(3), memory, after=[uploaded, second])
        gc.collect()
        assert all(array() is not None for array in kept) and lab.held() >= size
        assert (kept[2]() == 3).all()
        out = kept[2]()
    if how == "waited for":
        last.wait(SECONDS)
    elif how == "polled for":
        until(lambda: last in [one.operation for one in coordinator.poll()], "it is told")
    elif how == "synchronized":
        coordinator.synchronize(SECONDS)
    elif how == "closed":
        coordinator.close()
    else:
        def gone():
            coordinator.compute(nothing)
            gc.collect()
            return kept[0]() is None and kept[1]() is None
        until(gone, "they are given back")
        last.wait(SECONDS)
    assert (out == 1).all()
    del out
    gc.collect()
    assert all(array() is None for array in kept) and lab.held() < size


def test_memory_of_queued_graphs_and_kernels_goes_back(lab):
    """However many there were: nothing stays."""
    kernel, = kernels(lab, "add")
    with lab.context.coordinator() as coordinator:
        alive = []

        def round():
            source, out = np.ones(64, np.float32), np.zeros(64, np.float32)
            alive.extend(map(weakref.ref, (source, out)))
            memory = lab.array(np.zeros(64, np.float32))
            return coordinator.graph([
                Task.upload(memory, source), Task.compute(kernel, 1, 64, (memory, np.float32(1), np.uint32(64)),
                                                          shared_bytes=256, after=[0]),
                Task.download(out, memory, after=[1]), Task.compute(lambda stream: (source, out), after=[2])])

        for _ in range(200):
            round()
            if len(alive) % 50 == 0:
                coordinator.synchronize(SECONDS)
        coordinator.synchronize(SECONDS)
        gc.collect()
        assert sum(array() is not None for array in alive) == 0


# -- Threads, event loops, and ends --

def test_threads_queue_at_once(lab, rng):
    kernel, = kernels(lab, "add")
    count, threads = 100, 4
    with lab.context.coordinator() as coordinator:
        def work(thread):
            memory, out = lab.array(np.zeros(32, np.float32)), np.zeros(32, np.float32)
            after = [coordinator.upload(memory, np.full(32, thread, np.float32))]
            for _ in range(count):
                after = [coordinator.compute(kernel, 1, 32, (memory, np.float32(1), np.uint32(32)), shared_bytes=128,
                                             after=after)]
                if thread == 0:
                    # Another one holds the stream, and gives the interpreter's lock away meanwhile.
                    coordinator.compute(lambda stream: threading.Event().wait(0.0002))
            coordinator.download(out, memory, after=after).wait(SECONDS)
            assert (out == thread + count).all()

        together(*[lambda thread=thread: work(thread) for thread in range(threads)])
        assert len(all_told(coordinator)) == threads * (count + 2) + count


def test_asyncio_waits_for_operations(lab):
    coordinator = lab.context.coordinator()
    memory, out = lab.array(np.full(8, 4, np.float32)), np.zeros(8, np.float32)

    def fail(stream):
        raise Midway("in the middle")

    async def main():
        stream = coordinator.stream("process")
        with gate(lab, stream) as held:
            first = coordinator.compute(nothing)
            many = [coordinator.download(out, memory, after=[first]) for _ in range(50)]
            tasks = [asyncio.ensure_future(awaited(one)) for one in many]
            cancelled = asyncio.ensure_future(awaited(first))
            await asyncio.sleep(NEVER)
            assert not any(task.done() for task in tasks)
            cancelled.cancel()
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(awaited(first), NEVER)
            held.open()
            done = await asyncio.gather(*tasks)
        assert [one.operation for one in done] == many and (out == 4).all() and cancelled.cancelled()
        assert (await first).kind == "compute"
        failed = coordinator.compute(fail)
        results = await asyncio.gather(failed, coordinator.compute(nothing, after=[failed]), coordinator.compute(nothing),
                                       return_exceptions=True)
        assert [type(one) for one in results] == [Midway, CallbackFailed, Completion]
        # Nothing is left behind.
        assert not gpumailbox._aio._Asking.known.get(coordinator)

    asyncio.run(main())


def test_closing_waits_for_what_is_under_way(lab):
    coordinator, out = lab.context.coordinator(), np.zeros(1000, np.float32)
    memory = lab.array(np.full(1000, 6, np.float32))
    with ThreadPoolExecutor(3) as pool:
        with gate(lab, coordinator.stream("process")) as held:
            computed = coordinator.compute(nothing)
            downloaded = coordinator.download(out, memory, after=[computed])
            closing, again = pool.submit(coordinator.close), pool.submit(coordinator.close)
            for one in (closing, again):
                still_waits(one)
            held.open()
            for one in (closing, again):
                one.result(SECONDS)
            assert (out == 6).all()
    coordinator.close()
    assert "closed" in repr(coordinator)
    for call in (coordinator.poll, coordinator.stats, coordinator.synchronize, lambda: coordinator.compute(nothing),
                 lambda: coordinator.upload(memory, out), lambda: coordinator.graph([Task.compute(nothing)]), computed.wait,
                 computed.poll, lambda: coordinator.stream("upload"), lambda: coordinator.handle,
                 lambda: asyncio.run(awaited(downloaded))):
        raises(Closed, call, "coordinator", "closed")


def test_a_closed_context_wakes_who_waits(lab):
    context = gpumailbox.Context(lab.backend)
    coordinator = context.coordinator()
    with ThreadPoolExecutor(3) as pool, gate(lab, coordinator.stream("process"), context):
        operation = coordinator.compute(nothing)
        waiting = [pool.submit(operation.wait), pool.submit(coordinator.synchronize),
                   pool.submit(lambda: asyncio.run(awaited(operation)))]
        for one in waiting:
            still_waits(one)
        context.close()
        for one in waiting:
            with pytest.raises(Closed, match="context"):
                one.result(SECONDS)
    for call in (context.coordinator, coordinator.poll, lambda: coordinator.compute(nothing)):
        raises(Closed, call, "context")


def test_without_a_reference_it_waits_for_what_is_under_way(lab):
    coordinator, out = lab.context.coordinator(), np.zeros(1000, np.float32)
    memory = lab.array(np.full(1000, 6, np.float32))
    held = gate(lab, coordinator.stream("process"))
    coordinator.download(out, memory, after=[coordinator.compute(nothing)])
    # Streams of it keep it, too.
    held.stream = None
    with ThreadPoolExecutor(1) as pool:
        it = [coordinator]
        del coordinator
        dropping = pool.submit(it.clear)
        still_waits(dropping)
        held.open()
        dropping.result(SECONDS)
    assert (out == 6).all()


@HOST_ONLY
def test_garbage_that_is_collected_in_a_kernels_place_does_no_harm(lab):
    """The last reference to what waits for the device goes on the very thread that the device waits for."""
    module, freed = lab.context.module(), []

    def collect(block):
        freed.append(weakref.ref(it[0]))
        it.clear()

    module.register("collect", collect)
    kernel = module.kernel("collect")
    for make in (lab.context.coordinator, lambda: lab.context.triple_buffer("int8", 8)):
        it, own = [make()], lab.context.stream()
        coordinator = isinstance(it[0], Coordinator)
        held = gate(lab, it[0].stream("process") if coordinator else own)
        if coordinator:
            # Nothing but the list has it.
            held.stream = None
            it[0].compute(kernel, 1, 1)
        else:
            with it[0].acquire("upload") as buffer:
                kernel.launch(1, 1, stream=own)
                buffer.submit(own)
            del buffer
        held.kept.append(held.semaphore)
        held.open()
        until(lambda: not it and freed[-1]() is None, "it went")
        own.synchronize()


def test_the_handle_is_that_of_the_c_api(lab):
    coordinator = lab.context.coordinator(100)
    operation = coordinator.compute(nothing)
    operation.wait(SECONDS)
    # gmb_coordinator_info: queued, in flight, high-water mark, events, and two words of 32 bits.
    info = c_info("gmb_coordinator_get_info", coordinator.handle, 5)
    assert info[:3] == [1, 0, 1] and info[4] == 100
    # Of C's own operations polling tells as well.
    memory, host, queued = lab.array(np.zeros(4, np.float32)), np.ones(4, np.float32), ctypes.c_uint64()
    c = ctypes.CDLL(gpumailbox.get_library())
    assert c.gmb_coordinator_queue_upload(ctypes.c_uint64(coordinator.handle), ctypes.c_void_p(lab.pointer(memory)),
                                          ctypes.c_void_p(host.ctypes.data), ctypes.c_uint64(16), None, ctypes.c_uint32(0),
                                          ctypes.byref(queued)) == 0
    told = all_told(coordinator)
    assert [one.operation.id for one in told] == [operation.id, queued.value] and told[1].kind == "upload"
    assert (lab.numpy(memory) == 1).all() and coordinator.wait(told[1].operation)


# -- Processes --

START = """
    import ctypes, numpy
    coordinator = context.coordinator()
    libc, library = ctypes.CDLL(None), ctypes.CDLL(gpumailbox.get_library())
    semaphore = ctypes.create_string_buffer(64)
    libc.sem_init(semaphore, 0, 0)
    assert library.gmb_stream_host_function(ctypes.c_uint64(context.handle),
                                            ctypes.c_void_p(coordinator.stream("process").handle), libc.sem_wait,
                                            semaphore) == 0
    operation = coordinator.compute(lambda stream: None)
"""


@pytest.mark.parametrize("work", ["operation.wait()", "operation.wait(1000)", "coordinator.wait(operation)",
                                  "coordinator.synchronize()", "coordinator.close()", "coordinator.__exit__()"])
def test_ctrl_c_ends_a_wait(prelude, work):
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
            libc.sem_post(semaphore)
            print("interrupted", operation.wait(60).kind)
            coordinator.close()
    """))
    assert process.stdout.readline() == "waits\n", process.communicate()
    process.send_signal(signal.SIGINT)
    assert finished(process) == "interrupted compute\n"


@pytest.mark.parametrize("opens", [True, False], ids=["that end", "that do not end"])
def test_a_process_ends_with_operations_under_way(prelude, opens):
    if not opens and "host" not in prelude:
        # The driver itself would wait for them.
        return
    out = run(prelude, textwrap.dedent(START) + textwrap.dedent(f"""
        out = numpy.zeros(1000, numpy.uint8)
        memory = make(5, 1000)
        module = context.module({str(PTX)!r})
        module.register("add", lambda block, *arguments: None)
        sys.modules["held"] = [coordinator.compute(module.kernel("add"), 1, 1, (memory, numpy.float32(0), numpy.uint32(0))),
                               coordinator.download(out, memory, after=[operation]), coordinator, context, out]
        threading.Thread(target=operation.wait, daemon=True).start()
        {"threading.Timer(0.2, libc.sem_post, [semaphore]).start()" if opens else ""}
        print("done")
    """))
    assert out == "done\n"
