"""Which stream a call is for, and that memory goes back only when the streams that use it are done."""
import numpy as np
import pytest

import gpumailbox
from lab import SECONDS, all_given_back, current, torch, until
from lab import cuda as lab
from pipes import kernels

# Clock cycles that a stream is kept busy: some 20 ms, in which everything else would be done.
BUSY = 40_000_000


def test_pytorchs_current_stream_is_used_without_asking(lab):
    one, two, default = torch.cuda.Stream(), torch.cuda.Stream(), torch.cuda.default_stream()
    streams = one, two, default
    assert current(lab, *streams) == [default]
    with torch.cuda.stream(one):
        assert current(lab, *streams) == [one]
        with torch.cuda.stream(two):
            assert current(lab, *streams) == [two]
        assert current(lab, *streams) == [one]
    assert current(lab, *streams) == [default]


def test_guards_go_before_pytorchs_current_stream_and_a_given_one_before_guards(lab):
    mine, its, given = lab.context.stream(), torch.cuda.Stream(), torch.cuda.Stream()
    streams = mine, its, given
    with torch.cuda.stream(its):
        with lab.context.use_stream(mine):
            assert current(lab, *streams) == [mine]
            with lab.context.use_stream(given):
                assert current(lab, *streams) == [given]
            assert current(lab, *streams) == [mine]
            mailbox = lab.context.mailbox(2, 16, single_stream=True)
            mailbox.pop(1, stream=given)
            mailbox.pop(1, stream=given.cuda_stream)
            with pytest.raises(gpumailbox.InvalidArgument, match="stream"):
                mailbox.pop(1)
        assert current(lab, *streams) == [its]


def test_streams_of_the_library_work_in_pytorch(lab):
    stream = lab.context.stream("focus")
    external = torch.cuda.ExternalStream(stream.handle)
    with torch.cuda.stream(external):
        assert current(lab, stream) == [stream]
        result = torch.arange(10, device="cuda") * 2
    stream.synchronize()
    assert result.tolist() == list(range(0, 20, 2))


def test_a_push_comes_after_what_its_stream_holds_and_a_pop_before_what_follows(lab):
    mailbox = lab.context.mailbox(64, dtype="float32", shape=(64,))
    producing, consuming = torch.cuda.Stream(), torch.cuda.Stream()
    for value in range(20):
        with torch.cuda.stream(producing):
            rows = torch.zeros(8, 64, device="cuda")
            torch.cuda._sleep(BUSY // 20)
            rows += value
            mailbox.push(rows)
            # The producer's memory: not to be had by others before the kernel has read it.
            del rows
            poison = torch.full((8, 64), -1.0, device="cuda")
        with torch.cuda.stream(consuming):
            records = torch.from_dlpack(mailbox.pop(8))
            assert records.shape == (8, 64) and (records == value).all().item()
        del poison


def test_a_tensor_of_a_late_producer_is_read_after_it_is_made(lab):
    mailbox = lab.context.tensor_mailbox(4)
    producing, consuming = torch.cuda.Stream(), torch.cuda.Stream()
    for value in range(10):
        with torch.cuda.stream(producing):
            tensor = torch.zeros(10000, device="cuda")
            torch.cuda._sleep(BUSY // 10)
            tensor += value
            mailbox.push(tensor, value)
            del tensor
        with torch.cuda.stream(consuming):
            popped = torch.from_dlpack(mailbox.pop())
            assert (popped == value).all().item()
            del popped
    all_given_back(mailbox)


@pytest.mark.parametrize("like", [True, False], ids=["like", "from_dlpack"])
def test_a_producers_memory_stays_while_a_slow_consumer_reads(lab, like):
    mailbox = lab.context.tensor_mailbox(4)
    consuming, results = torch.cuda.Stream(), []
    for value in range(20):
        tensor = torch.full((50000,), float(value), device="cuda")
        mailbox.push(tensor)
        del tensor
        with torch.cuda.stream(consuming):
            popped = mailbox.pop(like=torch.Tensor) if like else torch.from_dlpack(mailbox.pop())
            torch.cuda._sleep(BUSY // 4)
            results.append(popped.clone())
            # The consumer lets go of it while its kernels have not begun; the producer takes what it can get.
            del popped
        for _ in range(4):
            torch.full((50000,), -1.0, device="cuda")
    consuming.synchronize()
    assert [result.unique().tolist() for result in results] == [[float(value)] for value in range(20)]
    all_given_back(mailbox)


def test_another_stream_that_uses_a_tensor_is_waited_for(lab):
    mailbox = lab.context.tensor_mailbox(4)
    first, second = torch.cuda.Stream(), torch.cuda.Stream()
    tensor = torch.full((50000,), 5.0, device="cuda")
    mailbox.push(tensor)
    del tensor
    with torch.cuda.stream(first):
        lease = mailbox.pop()
    lease.use_on(second)
    with torch.cuda.stream(second):
        popped = torch.from_dlpack(lease)
        torch.cuda._sleep(10 * BUSY)
        result = popped.clone()
        done = second.record_event()
    del popped
    lease.release()
    # Not before the work of the second stream is done: whichever comes first here, the other is true.
    until(lambda: done.query() or mailbox.stats()["released"] == 1, "the stream is done", SECONDS)
    assert done.query()
    for _ in range(4):
        torch.full((50000,), -1.0, device="cuda")
    all_given_back(mailbox)
    assert (result == 5).all().item()


@pytest.mark.parametrize("default", [True, False], ids=["default stream", "side stream"])
def test_records_stay_while_the_stream_that_imported_them_reads(lab, default):
    """Popped on one stream, imported on another: the memory must not go to the next pop before that has read."""
    mailbox = lab.context.mailbox(64, dtype="float32", shape=(1024,))
    popping, reading = torch.cuda.Stream(), torch.cuda.default_stream() if default else torch.cuda.Stream()
    rows = [torch.full((32, 1024), float(value), device="cuda") for value in range(2)]
    torch.cuda.synchronize()
    for _ in range(5):
        with torch.cuda.stream(popping):
            mailbox.push(rows[0])
            records = mailbox.pop(32)
        with torch.cuda.stream(reading):
            imported = torch.from_dlpack(records)
            torch.cuda._sleep(BUSY)
            result = imported.clone()
        del imported, records
        with torch.cuda.stream(popping):
            mailbox.push(rows[1])
            # In stream order this may get the same memory, once the reader is done with it.
            over = mailbox.pop(32)
        reading.synchronize()
        assert len(over) == 32 and (result == 0).all().item()
        del over


def test_views_are_given_back_after_the_work_of_their_stream(lab):
    mailbox = lab.context.mailbox(32, dtype="float32", shape=(1024,))
    reading, writing = torch.cuda.Stream(), torch.cuda.Stream()
    rows = [torch.full((32, 1024), float(value), device="cuda") for value in range(2)]
    torch.cuda.synchronize()
    with torch.cuda.stream(writing):
        mailbox.push(rows[0])
    with torch.cuda.stream(reading), mailbox.view(32) as view:
        (array,) = view.arrays
        imported = torch.from_dlpack(array)
        torch.cuda._sleep(BUSY)
        result = imported.clone()
        del imported
    with torch.cuda.stream(writing):
        mailbox.push(rows[1])
        assert len(mailbox.pop(32)) == 32
    reading.synchronize()
    assert (result == 0).all().item()


def test_a_pop_waits_for_its_count_and_not_for_its_stream(lab):
    mailbox, side = lab.context.mailbox(64, dtype="float32", shape=(64,)), torch.cuda.Stream()
    rows = torch.ones(8, 64, device="cuda")
    mailbox.push(rows)
    records = torch.from_dlpack(mailbox.pop(8))
    late = torch.cuda.Event()
    torch.cuda.synchronize()
    with torch.cuda.stream(side):
        mailbox.push(rows)
        # Long work behind the pop's kernel, of another stream: nobody waits for that.
        torch.cuda._sleep(10 * BUSY)
        late.record()
    records = mailbox.pop(8)
    assert not late.query() and len(records) == 8
    side.synchronize()


# -- Kernels of modules, triple buffers, coordinators --

def test_a_launch_is_captured_and_replayed(lab):
    kernel, = kernels(lab, "add")
    array, graph = torch.zeros(256, device="cuda"), torch.cuda.CUDAGraph()
    torch.cuda.synchronize()
    with torch.cuda.graph(graph):
        kernel.launch(2, 128, (array, np.float32(1), np.uint32(256)), shared_bytes=512)
    assert array.sum().item() == 0
    for _ in range(5):
        graph.replay()
    assert (array == 5).all().item()


def test_a_launch_comes_after_what_pytorch_has_under_way(lab):
    kernel, = kernels(lab, "add")
    stream, side = lab.context.stream(), torch.cuda.Stream()
    for _ in range(5):
        with torch.cuda.stream(side):
            array = torch.zeros(1 << 16, device="cuda")
            torch.cuda._sleep(BUSY // 4)
            array += 3
            kernel.launch(1 << 8, 256, (array, np.float32(1), np.uint32(1 << 16)), shared_bytes=1024, stream=stream)
        stream.synchronize()
        assert (array == 4).all().item()


def test_a_coordinators_function_works_on_its_stream(lab):
    coordinator, seen = lab.context.coordinator(), []
    source, out = torch.arange(1000, dtype=torch.float32).pin_memory(), torch.zeros(1000).pin_memory()
    x = torch.zeros(1000, device="cuda")
    torch.cuda.synchronize()

    def work(stream):
        seen.append((torch.cuda.current_stream().cuda_stream, stream.handle))
        torch.cuda._sleep(BUSY)
        y = x * 2
        x.copy_(y + 1)

    uploaded = coordinator.upload(x, source)
    computed = coordinator.compute(work, after=[uploaded])
    coordinator.download(out, x, after=[computed]).wait(SECONDS)
    assert torch.equal(out, source * 2 + 1) and seen[0][0] == seen[0][1]
    assert torch.cuda.current_stream() == torch.cuda.default_stream()


def test_a_download_comes_after_what_pytorch_has_under_way(lab):
    coordinator, side = lab.context.coordinator(), torch.cuda.Stream()
    out = np.zeros(1 << 16, np.float32)
    with torch.cuda.stream(side):
        array = torch.zeros(1 << 16, device="cuda")
        torch.cuda._sleep(BUSY)
        array += 3
        downloaded = coordinator.download(out, array)
        del array
        torch.full((1 << 16,), -1.0, device="cuda")
    downloaded.wait(SECONDS)
    assert (out == 3).all()


def test_a_buffer_is_a_tensor_on_the_current_stream(lab):
    triple, (one, two) = lab.context.triple_buffer(torch.float32, 1 << 16), (torch.cuda.Stream(), torch.cuda.Stream())
    for value in range(10):
        with torch.cuda.stream(one), triple.acquire_on("upload") as buffer:
            torch.cuda._sleep(BUSY // 10)
            torch.from_dlpack(buffer).fill_(value)
            buffer.submit()
        with torch.cuda.stream(two):
            # Behind the other stream, on the device.
            with triple.acquire_on("process") as buffer:
                result = torch.from_dlpack(buffer) + 1
                buffer.submit()
            triple.acquire_on("download").submit()
            assert (result == value + 1).all().item()


def test_a_tensor_of_another_type_is_refused(lab):
    coordinator, triple = lab.context.coordinator(), lab.context.triple_buffer(torch.float32, 8)
    with triple.acquire("upload") as buffer:
        for dtype in (torch.float64, torch.bfloat16, torch.int32):
            host, device = torch.zeros(8, dtype=dtype), torch.zeros(8, dtype=dtype, device="cuda")
            for call in (lambda: buffer.copy_from(host), lambda: buffer.copy_to(host), lambda: coordinator.upload(triple, host),
                         lambda: coordinator.upload(device, torch.zeros(8)),
                         lambda: coordinator.download(torch.zeros(8), device)):
                with pytest.raises(gpumailbox.WrongType, match=str(dtype).split(".")[1]):
                    call()
