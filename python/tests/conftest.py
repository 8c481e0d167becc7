"""What the tests share: a laboratory for each backend, fresh random data, waiting with a deadline, a watchdog."""
import faulthandler
import os
import secrets
import textwrap
import zlib

import numpy as np
import pytest

import lab as laboratory
from children import PRELUDE

SEED = int(os.environ.get("GMB_SEED", "0")) or secrets.randbits(32)

# Without a GPU there is nothing of CUDA to collect; where one is required, lab.py has failed before this.
collect_ignore = [] if laboratory.CUDA else ["test_torch.py", "test_torch_streams.py", "test_bad_input_cuda.py", "test_jax.py"]

# One test hangs no longer than this: a deadlock must not look like a busy machine.
WATCHDOG_SECONDS = 300
_stderr = None


def pytest_configure(config):
    global _stderr
    # The watchdog writes to the true stderr: what is captured would be lost with the process.
    capture = config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        _stderr = os.dup(2)
    # What a function raised in a kernel's place: nobody else is told.
    config.addinivalue_line("filterwarnings", "error::pytest.PytestUnraisableExceptionWarning")


def pytest_report_header(config):
    import gpumailbox

    return f"gpumailbox {gpumailbox.version()}, backends {', '.join(laboratory.BACKENDS)}, GMB_SEED={SEED}"


@pytest.fixture(autouse=True)
def watchdog():
    faulthandler.dump_traceback_later(WATCHDOG_SECONDS, exit=True, file=_stderr)
    yield
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture
def rng(request):
    """Another sequence in every test, and the same again with the seed that a failure shows."""
    print(f"GMB_SEED={SEED}")
    return np.random.default_rng([SEED, zlib.crc32(request.node.nodeid.encode())])


@pytest.fixture(params=laboratory.BACKENDS)
def lab(request):
    made = laboratory.make(request.param)
    yield made
    made.end()


@pytest.fixture(params=laboratory.BACKENDS)
def prelude(request):
    """What a process of its own begins with: a context, and arrays on its device."""
    return textwrap.dedent(PRELUDE[request.param])
