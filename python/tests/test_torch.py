"""Beside PyTorch and CuPy: no copy to or from the host, modules on streams, CUDA graphs, every way to exchange arrays."""
from collections import deque

import pytest

from lab import SECONDS, all_given_back, bits, torch, until
from lab import cuda as lab

WIDTH = 64


@pytest.fixture
def floats(rng):
    """Random records of PyTorch's, of a generator that the seed of this test begins."""
    generator = torch.Generator("cuda").manual_seed(int(rng.integers(2**31)))
    return lambda *shape: torch.randn(*shape, device="cuda", generator=generator)


def same(one, other):
    """Exactly, down to the last bit."""
    return bits(one.cpu().numpy()) == bits(other.cpu().numpy())


def copies(work):
    """Copies between host and device that the profiler sees, and whether it saw anything at all."""
    activities = [torch.profiler.ProfilerActivity.CUDA, torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities) as profile:
        work()
        torch.cuda.synchronize()
    names = [event.name for event in profile.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    found = [name for name in names if "memcpy" in name.lower() and ("htod" in name.lower() or "dtoh" in name.lower())]
    return found, names


@pytest.mark.parametrize("kind", ["records", "out", "views", "tensors"])
def test_nothing_is_copied_between_host_and_device(lab, floats, kind):
    mailbox, tensors = lab.context.mailbox(256, dtype="float32", shape=(WIDTH,)), lab.context.tensor_mailbox(8)
    rows, out, results = floats(32, WIDTH), floats(64, WIDTH), []

    def cycle():
        if kind == "tensors":
            tensors.push(rows * 2, 1)
            results.append(torch.from_dlpack(tensors.pop()) + 1)
            return
        mailbox.push(rows)
        if kind == "records":
            results.append(torch.from_dlpack(mailbox.pop(64)) * 2 + 1)
        elif kind == "out":
            results.append(mailbox.pop(64, out=out) * 2 + 1)
        else:
            with mailbox.view(64) as view:
                results.append(torch.cat([torch.from_dlpack(array) for array in view.arrays]) * 2 + 1)

    def work():
        for _ in range(50):
            cycle()

    # The first ones load kernels and make pools.
    work()
    results.clear()
    found, names = copies(work)
    assert found == []
    # The profiler has seen the kernels of this library, or at least those of PyTorch.
    assert len([name for name in names if "memcpy" not in name.lower()]) >= 50
    assert len(results) == 50 and all(same(result, rows * 2 + 1) for result in results)


@pytest.mark.parametrize("planted", [lambda rows: rows.cpu(), lambda rows: torch.ones(1000).to("cuda")])
def test_a_planted_copy_is_found(lab, floats, planted):
    mailbox, rows = lab.context.mailbox(256, dtype="float32", shape=(WIDTH,)), floats(32, WIDTH)

    def work():
        mailbox.push(rows)
        planted(torch.from_dlpack(mailbox.pop(64)))

    work()
    found, _ = copies(work)
    assert len(found) >= 1


class Encoder(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Linear(WIDTH, 256), torch.nn.GELU(), torch.nn.Linear(256, WIDTH))

    def forward(self, rows):
        return self.layers(rows)


class Scaler(torch.nn.Module):
    def forward(self, rows):
        return torch.tanh(rows) * 3 - rows


class Head(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(WIDTH, 8)

    def forward(self, rows):
        return torch.softmax(self.layer(rows), dim=-1)


@pytest.mark.parametrize("records", [True, False], ids=["records", "tensors"])
def test_three_modules_on_three_streams_are_equal_to_the_sequential_run(lab, floats, records):
    batch, batches = 32, 40
    modules = [module().to("cuda").eval() for module in (Encoder, Scaler, Head)]
    streams = [torch.cuda.Stream() for _ in modules]
    inputs = [floats(batch, WIDTH) for _ in range(batches)]
    if records:
        boxes = [lab.context.mailbox(128, dtype=torch.float32, shape=(WIDTH,)) for _ in range(2)]
    else:
        boxes = [lab.context.tensor_mailbox(4) for _ in range(2)]

    def take(box):
        # The count is waited for, the stream is not.
        return torch.from_dlpack(box.pop(batch) if records else box.pop())

    torch.cuda.synchronize()
    outputs = []
    with torch.no_grad():
        expected = [modules[2](modules[1](modules[0](rows))) for rows in inputs]
        torch.cuda.synchronize()
        for rows in inputs:
            with torch.cuda.stream(streams[0]):
                boxes[0].push(modules[0](rows))
            with torch.cuda.stream(streams[1]):
                taken = take(boxes[0])
                assert taken.shape == (batch, WIDTH)
                boxes[1].push(modules[1](taken))
            with torch.cuda.stream(streams[2]):
                outputs.append(modules[2](take(boxes[1])))
            del taken
    streams[2].synchronize()
    assert all(same(one, other) for one, other in zip(outputs, expected, strict=True))
    if not records:
        for box in boxes:
            all_given_back(box)


@pytest.mark.parametrize("told", [False, True], ids=["without a token", "with a token"])
def test_a_graph_of_push_and_pop_does_what_a_model_does(lab, floats, rng, told):
    capacity, pushed, popped = 16, 6, 4
    mailbox = lab.context.mailbox(capacity, dtype="float32", shape=(WIDTH,))
    token = lab.context.token() if told else None
    source, out = torch.zeros(pushed, WIDTH, device="cuda"), torch.zeros(popped, WIDTH, device="cuda")
    given = lab.poisoned(8, WIDTH * 4).view(torch.float32)
    stream, graph, model = torch.cuda.Stream(), torch.cuda.CUDAGraph(), deque()
    # Once before the capture, as PyTorch has it for every graph.
    with torch.cuda.stream(stream):
        mailbox.push(source)
        assert len(mailbox.pop(pushed)) == pushed
    torch.cuda.synchronize()
    with torch.cuda.graph(graph, stream=stream):
        doubled = source * 2
        mailbox.push(doubled)
        assert mailbox.pop(popped, out=out, token=token) is None
        after = out + 1
    assert mailbox.stats()["published"] == pushed
    for replay in range(60):
        rows = floats(pushed, WIDTH)
        with torch.cuda.stream(stream):
            source.copy_(rows)
            graph.replay()
        model.extend((rows * 2)[:capacity - len(model)].unbind())
        expected = [model.popleft() for _ in range(min(popped, len(model)))]
        if told:
            # Of a replay the token knows only what it tells.
            result = token.wait(after=replay, timeout=SECONDS)
            assert (result.count, result.partial, result.epoch) == (len(expected), len(expected) < popped, replay + 1)
        stream.synchronize()
        assert same(after[:len(expected)], torch.stack(expected) + 1)
        # A pop outside of it, of random size, between replays.
        if rng.integers(3) == 0:
            with torch.cuda.stream(stream):
                got = mailbox.pop(int(rng.integers(1, 9)), out=given)
                expected = [model.popleft() for _ in range(len(got))]
                assert len(got) > 0 or not model
                assert not expected or same(got, torch.stack(expected))
    until(lambda: mailbox.reader_stats()["unread"] == len(model), lambda: f"{len(model)} left: {mailbox.reader_stats()}")
    del graph


def test_every_way_to_pytorch_shows_the_same_memory(lab, floats):
    mailbox, tensors = lab.context.mailbox(64, dtype="float32", shape=(4, 16)), lab.context.tensor_mailbox(8)
    rows = floats(20, 4, 16)
    mailbox.push(rows)
    records = mailbox.pop(64)
    tensors.push(rows[3:, 1:3, ::2], 7)
    tensor = tensors.pop()
    for array, expected in ((records, rows), (tensor, rows[3:, 1:3, ::2])):
        for imported in (torch.from_dlpack(array), torch.as_tensor(array, device="cuda"),
                         torch.from_dlpack(array.__dlpack__()), torch.from_dlpack(array.__dlpack__(max_version=(1, 1)))):
            assert imported.data_ptr() == array.data_ptr and imported.device == rows.device
            assert imported.stride() == array.strides and same(imported, expected)
    assert tensor.data_ptr == rows[3:, 1:3, ::2].data_ptr()


def test_a_type_of_pytorch_is_given_without_a_capsule(lab, floats):
    mailbox, tensors = lab.context.mailbox(64, dtype="float32", shape=(WIDTH,)), lab.context.tensor_mailbox(8)
    rows = floats(20, WIDTH)
    mailbox.push(rows)
    records = mailbox.pop(32, like=torch.Tensor)
    assert type(records) is torch.Tensor and same(records, rows)
    assert mailbox.pop(32, like=torch.Tensor).shape == (0, WIDTH)
    before, pointer = rows.clone(), rows.data_ptr()
    tensors.push(rows)
    del rows
    tensor = tensors.pop(like=torch.Tensor)
    assert type(tensor) is torch.Tensor and tensor.data_ptr() == pointer and tensors.pop(like=torch.Tensor) is None
    over = torch.full_like(before, -1.0)
    assert same(tensor, before) and tensors.stats()["released"] == 0 and over.data_ptr() != pointer
    del tensor
    all_given_back(tensors)


def test_memory_of_records_comes_back_when_pytorchs_tensor_goes(lab, floats):
    mailbox, rows = lab.context.mailbox(64, dtype="float32", shape=(WIDTH,)), floats(20, WIDTH)
    mailbox.push(rows)
    del_me = mailbox.pop(64, like=torch.Tensor)
    del del_me
    before = lab.context.memory()["used"]
    for _ in range(100):
        mailbox.push(rows)
        records = mailbox.pop(64, like=torch.Tensor)
        assert lab.context.memory()["used"] > before
        del records
    assert lab.context.memory()["used"] == before


@pytest.mark.parametrize("how", ["asarray", "from_dlpack"])
def test_cupy_takes_records_and_tensors_and_gives_its_own(lab, floats, how):
    import cupy
    mailbox, tensors = lab.context.mailbox(64, dtype="float32", shape=(WIDTH,)), lab.context.tensor_mailbox(8)
    rows = floats(20, WIDTH)
    mailbox.push(rows)
    tensors.push(rows.T)
    records, tensor = mailbox.pop(64), tensors.pop()
    for array, expected in ((records, rows), (tensor, rows.T)):
        taken = getattr(cupy, how)(array)
        assert taken.data.ptr == array.data_ptr and taken.shape == array.shape
        assert bits(taken.get()) == bits(expected.cpu().numpy())
    del taken, array, records, tensor
    all_given_back(tensors)
    made = cupy.arange(4 * WIDTH, dtype=cupy.float32).reshape(4, WIDTH)
    stream = cupy.cuda.Stream(non_blocking=True)
    cupy.cuda.get_current_stream().synchronize()
    mailbox.push(made, stream=stream)
    tensors.push(made, 3)
    pointer = made.data.ptr
    del made
    assert mailbox.pop(64, stream=stream).count == 4
    tensor = tensors.pop()
    assert tensor.data_ptr == pointer
    assert torch.from_dlpack(tensor).flatten().tolist() == list(range(4 * WIDTH))


def test_the_array_interface_says_what_lies_where(lab, floats):
    mailbox = lab.context.mailbox(8, dtype="int16", shape=(2, 4))
    mailbox.push(torch.arange(40, device="cuda", dtype=torch.int16).reshape(5, 2, 4))
    records = mailbox.pop(8)
    interface = records.__cuda_array_interface__
    assert interface["version"] == 3 and interface["shape"] == (5, 2, 4) and interface["strides"] == (16, 8, 2)
    assert interface["typestr"] == "<i2" and interface["data"] == (records.data_ptr, False)
    # 1 is the legacy default stream; 0 is forbidden.
    assert interface["stream"] == (torch.cuda.current_stream().cuda_stream or 1)
    assert records.__dlpack_device__() == (2, 0)
