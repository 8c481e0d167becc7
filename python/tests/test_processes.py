"""What can only be seen from outside: how a process is interrupted and forked, what it imports, who holds its lock."""
import signal
import textwrap

import pytest

from children import PRELUDE, SECONDS, child, finished, run

WAITS = {
    "wait_readable": "empty.wait_readable()",
    "wait_readable with a limit": "empty.wait_readable(timeout=1000)",
    "wait_writable": "full.wait_writable()",
    "a push for which there is no room": "full.push(rows)",
    "a push of a tensor for which there is no room": "tensors.push(rows)",
    "a pop of tensors": "no_tensors.pop(timeout=None)",
}


@pytest.mark.parametrize("work", WAITS.values(), ids=WAITS.keys())
def test_ctrl_c_ends_a_wait_and_everything_still_works(prelude, work):
    process = child(prelude + textwrap.dedent(f"""
        full, tensors = context.mailbox(8, 64, full_policy="wait"), context.tensor_mailbox(1, full_policy="wait")
        # Made before: to make one lets go of the interpreter's lock, and would look like waiting.
        empty, no_tensors = context.mailbox(8, 64), context.tensor_mailbox(8)
        rows = make(1, 8, 64)
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
        new = {name.split(".")[0] for name in set(sys.modules) - before}
        print(sorted(new & {"torch", "numpy", "cupy", "numba", "jax"}))
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
        tensors, mailbox = context.tensor_mailbox(4, full_policy="wait"), context.mailbox(16, 64, full_policy="wait")
        sums = 0
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


@pytest.mark.parametrize("thread", [False, True], ids=["itself", "another thread"])
def test_a_type_whose_attributes_run_python_holds_nobody_up(prelude, thread):
    # It is asked for its exchange: the answer may take the interpreter's lock, another thread, and the library.
    out = run(prelude, f"""
        rows, mailbox, asked = make(1, 1, 64), context.mailbox(64, 64), []
        class Meta(type):
            def __getattr__(cls, name):
                if not asked:
                    asked.append(name)
                    work = threading.Thread(target=mailbox.push, args=(rows,))
                    if {thread}:
                        work.start()
                        work.join()
                    else: mailbox.push(rows)
                raise AttributeError(name)
        class Strange(metaclass=Meta):
            def __dlpack__(self, **options): return rows.__dlpack__(**options)
            def __dlpack_device__(self): return rows.__dlpack_device__()
        mailbox.push(Strange())
        print(len(asked), len(mailbox.pop(4)))
    """)
    assert out == "1 2\n"
