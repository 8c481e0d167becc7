"""Processes of their own, with a context and arrays of a backend in them."""
import os
import signal
import subprocess
import sys
import textwrap

import gpumailbox

SECONDS = 90
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


def child(code, *options):
    # Of the package under test, and none of pytest's.
    environment = {**os.environ, "PYTHONPATH": PACKAGE + os.pathsep + os.environ.get("PYTHONPATH", "")}
    # What runs in the background of a shell ignores SIGINT, and so would its children.
    return subprocess.Popen([sys.executable, "-X", "faulthandler", *options, "-c", code], stdin=subprocess.PIPE,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
                            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))


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
