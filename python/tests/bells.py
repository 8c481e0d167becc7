"""What the tests of doorbells and FIFOs share."""
import contextlib
import ctypes
import select

import numpy as np

from gpumailbox import Doorbell
from items import queues
from lab import SECONDS, c_library

WORD = 2**64
PING, COUNTS, USER = Doorbell.PING, Doorbell.COUNTS, Doorbell.USER


@contextlib.contextmanager
def served(lab, doorbell, **options):
    """A worker that does its commands, with nothing else to do."""
    active, = queues(lab, 1, 64)
    with lab.context.worker(active, doorbell=doorbell, **options) as worker:
        worker.start()
        yield worker


def words(rng, count=3):
    return tuple(map(int, rng.integers(0, 2**64, count, dtype=np.uint64)))


def numbered(first, count):
    """Records that tell their number twice."""
    numbers = np.arange(first, first + count, dtype=np.uint64)
    return np.stack([numbers, ~numbers], axis=1)


def rows(lab, first, count):
    """The same on the device, as integers that every library knows."""
    return lab.array(numbered(first, count).view(np.int64))


def outstanding(doorbell):
    """As the library has it, with nothing taken out meanwhile. gmb_doorbell_info: capacity, submitted, outstanding."""
    info = (ctypes.c_uint64 * 5)()
    assert c_library().gmb_doorbell_get_info(ctypes.c_uint64(doorbell.handle), info, ctypes.c_size_t(40)) == 0
    return info[2]


def readable(watch, seconds=SECONDS):
    return select.select([watch.fileno()], [], [], seconds)[0] != []
