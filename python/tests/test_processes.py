"""What can only be seen from outside: how the interpreter ends, is interrupted, and is forked."""
import os
import signal
import subprocess
import sys
import textwrap

import pytest

import gpumailbox
from lab import BACKENDS

SECONDS = 180
PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(gpumailbox.__file__)))
PRELUDE = {
    "host": """
        import gpumailbox, numpy, gc, os, sys, threading
        context = gpumailbox.Context("host")
        def make(value, *shape): return numpy.full(shape or (1000,), value, numpy.uint8)
        take = numpy.from_dlpack
        def total(array): return int(take(array).sum(dtype=numpy.int64))
    """,
    "cuda": """
        import torch, gpumailbox, gc, os, sys, threading
        context = gpumailbox.Context("cuda")
        def make(value, *shape): return torch.full(shape or (1000,), value, dtype=torch.uint8, device="cuda")
        take = torch.from_dlpack
        def total(array): return int(take(array).sum().item())
    """,
}


@pytest.fixture(params=BACKENDS)
def prelude(request):
    return textwrap.dedent(PRELUDE[request.param])


def child(code, *options):
    # Of the package under test, and none of pytest's.
    environment = {**os.environ, "PYTHONPATH": PACKAGE + os.pathsep + os.environ.get("PYTHONPATH", "")}
    return subprocess.Popen([sys.executable, "-X", "faulthandler", *options, "-c", code], stdin=subprocess.PIPE,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def finished(process, status=0):
    """How it ended: of itself, in time, and without a word of complaint."""
    try:
        out, err = process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        raise AssertionError(f"it did not end: {process.communicate()}")
    assert (process.returncode, err) == (status, ""), (process.returncode, out, err)
    return out


def run(prelude, code, *options):
    return finished(child(prelude + textwrap.dedent(code), *options))


IN_FLIGHT = {
    "tensors in the mailbox": """
        tensors = context.tensor_mailbox(8)
        for value in range(8): tensors.push(make(value))
    """,
    "tensors in a mailbox without a name": """
        keep = []
        for value in range(50):
            mailbox = context.tensor_mailbox(8)
            mailbox.push(make(value))
            keep.append(mailbox)
        del mailbox
    """,
    "popped tensors": """
        tensors = context.tensor_mailbox(8)
        for value in range(8): tensors.push(make(value))
        one, two, three = tensors.pop(), take(tensors.pop()), tensors.pop().__dlpack__()
        sys.modules["held"] = [tensors.pop(), take(tensors.pop())]
    """,
    "popped tensors in a cycle": """
        class Node: pass
        node, tensors = Node(), context.tensor_mailbox(8)
        tensors.push(make(1))
        node.me, node.tensor, node.mailbox, node.context = node, tensors.pop(), tensors, context
        node.imported = take(node.tensor)
        del node, tensors, context
    """,
    "records and what was made of them": """
        mailbox = context.mailbox(64, 64, readers=2)
        mailbox.push(make(3, 20, 64))
        records = mailbox.pop(8, headers=True)
        imported, lengths, capsule = take(records), records.lengths, records.__dlpack__()
    """,
    "views": """
        mailbox = context.mailbox(64, 64)
        mailbox.push(make(3, 20, 64))
        view, other = mailbox.view(4), mailbox.view(4)
        arrays, imported = view.arrays, take(other.arrays[0])
        mailbox.close()
    """,
    "streams, events, guards, watches and tokens": """
        stream, event, token = context.stream(), context.event(), gpumailbox.Token(context)
        mailbox = context.mailbox(64, 64)
        watch = mailbox.watch()
        watch.arm(9)
        guard = context.use_stream(stream)
        guard.__enter__()
        rows = make(3, 4, 64)
        mailbox.push(rows, token=token)
        event.record()
    """,
    "a context that was closed": """
        mailbox, tensors = context.mailbox(64, 64), context.tensor_mailbox(8)
        mailbox.push(make(3, 4, 64))
        records, tensors_too = mailbox.pop(2), tensors.push(make(1))
        context.close()
    """,
    "an exit while an exception is under way": """
        tensors = context.tensor_mailbox(8)
        tensors.push(make(1))
        tensor = tensors.pop()
        try: 1 // 0
        except ZeroDivisionError:
            print("end")
            sys.exit(0)
    """,
    "tensors whose end runs Python": """
        class Loud:
            def __init__(self): self.array = make(1)
            def __dlpack__(self, **options): return self.array.__dlpack__(**options)
            def __dlpack_device__(self): return self.array.__dlpack_device__()
        tensors = context.tensor_mailbox(64)
        for _ in range(64): tensors.push(Loud())
        held = [tensors.pop() for _ in range(32)]
    """,
}


@pytest.mark.parametrize("code", IN_FLIGHT.values(), ids=IN_FLIGHT.keys())
def test_the_interpreter_ends_quietly_whatever_is_out(prelude, code):
    assert run(prelude, code + "\n        print('end')\n") == "end\n"


BLOCKED = {
    "wait_readable": "context.mailbox(8, 64).wait_readable()",
    "a pop of tensors": "context.tensor_mailbox(8).pop(timeout=None)",
    "a push for which there is no room": "full.push(rows)",
}


@pytest.mark.parametrize("late", [False, True], ids=["at once", "while the interpreter is taken down"])
@pytest.mark.parametrize("work", BLOCKED.values(), ids=BLOCKED.keys())
def test_the_interpreter_ends_while_threads_wait(prelude, work, late):
    # Late: the end lasts until every thread has come back for the interpreter's lock, where Python before 3.14 ends it.
    out = run(prelude, f"""
        import time
        full, rows, began = context.mailbox(8, 64, full_policy="wait"), make(1, 8, 64), threading.Barrier(5)
        full.push(rows)
        def work():
            began.wait()
            {work}
        threads = [threading.Thread(target=work, daemon=True) for _ in range(4)]
        for thread in threads: thread.start()
        began.wait()

        class Last:
            def __del__(self, exists=os.path.exists, clock=time.monotonic, sleep=time.sleep,
                        ids=[thread.native_id for thread in threads]):
                end = clock() + 2
                while clock() < end and any(exists(f"/proc/self/task/{{id}}") for id in ids):
                    sleep(0.001)
        if {late}: sys.modules["last"] = Last()
        print("end")
    """)
    assert out == "end\n"


WAITS = {
    "wait_readable": "context.mailbox(8, 64).wait_readable()",
    "wait_readable with a limit": "context.mailbox(8, 64).wait_readable(timeout=1000)",
    "wait_writable": "full.wait_writable()",
    "a push for which there is no room": "full.push(rows)",
    "a push of a tensor for which there is no room": "tensors.push(rows)",
    "a pop of tensors": "context.tensor_mailbox(8).pop(timeout=None)",
}


@pytest.mark.parametrize("work", WAITS.values(), ids=WAITS.keys())
def test_ctrl_c_ends_a_wait_and_everything_still_works(prelude, work):
    process = child(prelude + textwrap.dedent(f"""
        full, tensors, rows = context.mailbox(8, 64, full_policy="wait"), context.tensor_mailbox(1, full_policy="wait"), make(1, 8, 64)
        full.push(rows)
        tensors.push(rows)
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
            print("interrupted", total(full.pop(8)), total(tensors.pop()))
            full.push(rows)
            print(len(full.pop(8)))
    """))
    assert process.stdout.readline() == "waits\n", process.communicate()
    process.send_signal(signal.SIGINT)
    assert finished(process) == "interrupted 512 512\n8\n"


def test_ctrl_c_that_nobody_catches_ends_the_process(prelude):
    process = child(prelude + textwrap.dedent("""
        tensors = context.tensor_mailbox(8)
        tensors.push(make(1))
        mailbox = context.mailbox(8, 64)
        print("waits", flush=True)
        mailbox.wait_readable()
    """))
    assert process.stdout.readline() == "waits\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=SECONDS)
    assert process.returncode == -signal.SIGINT and err.rstrip().endswith("KeyboardInterrupt") and out == ""


def test_a_fork_says_so_and_ends_cleanly_and_its_parent_goes_on(prelude):
    out = run(prelude, """
        mailbox, tensors = context.mailbox(8, 64), context.tensor_mailbox(8)
        mailbox.push(make(7, 4, 64))
        tensors.push(make(5))
        held, records = tensors.pop(), mailbox.pop(1)
        tensors.push(make(6))
        host = context.backend == "host"
        pid = os.fork()
        if pid == 0:
            calls = [lambda: mailbox.stats(), lambda: mailbox.wait_readable(timeout=1), lambda: context.mailbox(8, 64),
                     lambda: context.tensor_mailbox(8), lambda: context.stream(), lambda: context.event(),
                     lambda: tensors.stats(), lambda: gpumailbox.Context("host")]
            # Where PyTorch is, it has words of its own for these.
            if host: calls += [lambda: mailbox.pop(4), lambda: mailbox.push(make(7, 4, 64)), lambda: tensors.pop(),
                               lambda: tensors.push(make(1)), lambda: mailbox.view(1)]
            said = set()
            for call in calls:
                try: said.add(repr(call()))
                except gpumailbox.Forked as error: said.add(error.name)
                except BaseException as error: said.add(repr(error))
            print(said, flush=True)
            # CUDA's own objects cannot be ended in a fork.
            if not host: os._exit(0)
            del held, records, mailbox, tensors, context
            gc.collect()
            sys.exit(0)
        print(os.waitpid(pid, 0)[1], total(mailbox.pop(4)), total(held), total(tensors.pop()))
        mailbox.push(make(1, 2, 64))
        print(total(mailbox.pop(4)), total(records))
    """, "-W", "ignore")
    assert out.splitlines() == ["{'FORKED'}", f"0 {7 * 64 * 3} 5000 6000", "128 448"]


def test_children_of_multiprocessing_by_fork_say_so_and_by_spawn_work():
    code = textwrap.dedent(PRELUDE["host"]) + textwrap.dedent("""
        import multiprocessing
        mailbox = context.mailbox(8, 64)
        def use(queue):
            try: queue.put(mailbox.stats()["published"])
            except gpumailbox.Forked: queue.put("forked")
        fork = multiprocessing.get_context("fork")
        queue = fork.SimpleQueue()
        process = fork.Process(target=use, args=(queue,))
        process.start()
        process.join()
        print(process.exitcode, queue.get())
        # Of what "-c" defines, a spawned child knows nothing.
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            print(pool.apply(eval, ("len(__import__('gpumailbox').Context('host').mailbox(8, 64).pop(4))",)))
    """)
    assert finished(child(code, "-W", "ignore")) == "0 forked\n0\n"


def test_importing_it_imports_neither_torch_nor_numpy():
    out = run("", """
        import sys
        before = set(sys.modules)
        import gpumailbox
        print(sorted({name.split(".")[0] for name in set(sys.modules) - before} & {"torch", "numpy", "cupy", "numba", "jax"}))
        context = gpumailbox.Context("host")
        context.mailbox(8, 64).pop(4)
        print("torch" in sys.modules, "numpy" in sys.modules)
    """)
    assert out == "[]\nFalse False\n"


def test_tensors_come_and_go_while_other_threads_hold_the_interpreters_lock(prelude):
    # A thread of the library needs the lock to give a tensor back: whoever waits for that thread must not hold it.
    out = run(prelude, """
        stop = threading.Event()
        def spin():
            n = 0
            while not stop.is_set(): n += 1
        threads = [threading.Thread(target=spin) for _ in range(3)]
        for thread in threads: thread.start()
        sys.setswitchinterval(0.0005)
        tensors, mailbox, sums = context.tensor_mailbox(4, full_policy="wait"), context.mailbox(16, 64, full_policy="wait"), 0
        def produce():
            for value in range(200): tensors.push(make(value % 256))
        producer = threading.Thread(target=produce)
        producer.start()
        for value in range(200):
            tensor = tensors.pop(timeout=None)
            sums += total(tensor)
            del tensor
            mailbox.push(make(1, 2, 64))
            sums += total(mailbox.pop(2))
            if value % 20 == 0:
                # These end while tensors of theirs are under way.
                other = gpumailbox.Context(context.backend)
                small = other.tensor_mailbox(2)
                small.push(make(1))
                small.close() if value % 40 else None
                del small, other
        producer.join()
        while tensors.stats()["released"] < 200: pass
        stop.set()
        for thread in threads: thread.join()
        print(sums)
    """)
    assert int(out) == 1000 * sum(range(200)) + 200 * 128
