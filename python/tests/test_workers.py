"""Workers: what they make of items is what a sequential program makes of them."""
import signal
import textwrap
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import gpumailbox
from children import child, finished as ended, run
from gpumailbox import Closed, Error, InvalidArgument, TimedOut
from items import NUMBER, kinds, random_items, split, queues, contents, modelled
from lab import NEVER, SECONDS, raises, still_waits, together, until


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
