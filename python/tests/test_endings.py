"""How things end: the interpreter with whatever is out, and views before or after what was made of them."""
import pytest

from children import run

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
        stream, event, token = context.stream(), context.event(), context.token()
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
    # Late: the end lasts so long that every thread comes back for the interpreter's lock, which it never gets again.
    out = run(prelude, f"""
        import time
        full, rows, lines = context.mailbox(8, 64, full_policy="wait"), make(1, 8, 64), set()
        full.push(rows)
        def work():
            lines.add(sys._getframe().f_lineno + 1)
            {work}
        threads = [threading.Thread(target=work, daemon=True) for _ in range(4)]
        for thread in threads: thread.start()
        # Until each is in the line that waits.
        def waits(frame): return frame is not None and frame.f_lineno in lines
        while not all(waits(sys._current_frames().get(thread.ident)) for thread in threads): time.sleep(0.001)

        class Last:
            # Where threads end in such a case they are looked at, where they are kept the deadline ends it.
            def __del__(self, exists=os.path.exists, clock=time.monotonic, sleep=time.sleep,
                        ids=[thread.native_id for thread in threads]):
                end = clock() + 0.5
                while clock() < end and any(exists(f"/proc/self/task/{{id}}") for id in ids):
                    sleep(0.001)
        if {late}: sys.modules["last"] = Last()
        print("end")
    """)
    assert out == "end\n"


ORDERS = {
    "mailbox, view": "imported = take(view.arrays[0]); mailbox.close(); view.release(); del view, mailbox",
    "mailbox before the import, view": "mailbox.close(); imported = take(view.arrays[0]); view.release(); del view, mailbox",
    "arrays come and go": "old = view.arrays; mailbox.close(); del old; imported = take(view.arrays[0]); del view, mailbox",
    "view, mailbox": "imported = take(view.arrays[0]); view.release(); del view; mailbox.close()",
    "all without a word": "imported = take(view.arrays[0]); del view, mailbox",
    "context": "imported = take(view.arrays[0]); context.close(); del view, mailbox",
}


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS.keys())
def test_what_was_imported_from_a_view_is_never_memory_that_is_gone(prelude, order):
    # What it shows after the release is not promised, that it can be read is. So large that its memory goes at once.
    out = run(prelude, f"""
        mailbox = context.mailbox(1 << 20, 64)
        mailbox.push(make(1, 1000, 64))
        view = mailbox.view(1000)
        {order}
        gc.collect()
        print(total(imported) >= 0)
    """)
    assert out == "True\n"


def test_a_deleter_in_python_is_called_before_the_interpreter_ends_or_never():
    # The library's thread needs the interpreter's lock for it: after the end that would be the end of the process.
    out = run("", """
        import atexit, ctypes, sys, time
        called = []
        # Begun before the package's own, it runs after it.
        atexit.register(lambda: print("called", sorted(called)))
        import gpumailbox
        Deleter = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
        class Managed(ctypes.Structure):
            _fields_ = [("data", ctypes.c_void_p), ("device", ctypes.c_int32 * 2), ("ndim", ctypes.c_int32),
                        ("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16),
                        ("shape", ctypes.c_void_p), ("strides", ctypes.c_void_p), ("offset", ctypes.c_uint64),
                        ("manager", ctypes.c_void_p), ("end", Deleter)]
        new = ctypes.pythonapi.PyCapsule_New
        new.restype, new.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
        memory, shape, made = ctypes.create_string_buffer(64), (ctypes.c_int64 * 1)(64), []
        tensors = gpumailbox.Context("host").tensor_mailbox(8)
        for index in range(8):
            one = Managed(ctypes.addressof(memory), (1, 0), 1, 1, 8, 1, ctypes.addressof(shape), None, 0, None,
                          Deleter(lambda at, index=index: called.append(index)))
            made.append(one)
            tensors.push(new(ctypes.addressof(one), b"dltensor", None))
        first, second, third = tensors.pop(), tensors.pop(), tensors.pop()
        third.release()
        while called != [2]: pass
        # What was made of one goes without asking the package.
        capsule = second.__dlpack__()
        second.release()
        class Last:
            # Lets go of them while the interpreter is taken down, and gives the library's thread time to try.
            def __init__(self): self.held = [first, capsule]
            def __del__(self, sleep=time.sleep, kept=(made, memory, shape)):
                self.held.clear()
                sleep(0.3)
        sys.modules["last"] = Last()
        del first, second, capsule
    """)
    assert out == "called [2, 3, 4, 5, 6, 7]\n"
