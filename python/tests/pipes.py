"""What the tests of modules, triple buffers and coordinators share: kernels, their models, streams that stand still."""
import ctypes
import pathlib

import numpy as np

from gpumailbox import Closed
from lab import Gate, c_library, copy

# Made of tests/suite/support/kernels.cu, which says how.
PTX = pathlib.Path(__file__).with_name("kernels.ptx")


def add(block, data, what, count):
    """In the place of the kernel: all threads of a block, through its shared memory."""
    mine = slice(block.threads[0], min(block.threads[-1] + 1, count))
    staged = np.frombuffer(block.shared, np.float32)[:len(data[mine])]
    staged[:] = data[mine] + what
    data[mine] = staged


def mixed(a, b, salt):
    """The model of `mix`."""
    with np.errstate(over="ignore"):
        x = a * np.uint64(3) + (b ^ np.uint64(salt)) + np.arange(len(a), dtype=np.uint64)
        x = (x ^ (x >> np.uint64(29))) * np.uint64(0xbf58476d1ce4e5b9)
        return x ^ (x >> np.uint64(32))


def mix(block, to, a, b, salt, count):
    """In the place of the kernel, whose threads stride over the array. What it reads it may write to."""
    to, a, b = (array.view(np.uint64) for array in (to, a, b))
    stride = block.grid[0] * block.block[0]
    for n in block.threads:
        if n < count:
            of = slice(n, count, stride)
            with np.errstate(over="ignore"):
                x = a[of] * np.uint64(3) + (b[of] ^ np.uint64(salt)) + np.arange(n, count, stride, dtype=np.uint64)
                x = (x ^ (x >> np.uint64(29))) * np.uint64(0xbf58476d1ce4e5b9)
                to[of] = x ^ (x >> np.uint64(32))


def kernels(lab, *names):
    """A module with kernels on both backends; the kernels of these names."""
    module = lab.context.module(PTX)
    module.register("add", add)
    module.register("mix", mix)
    return [module.kernel(name) for name in names]


def words(rng, count):
    """Of 64 bits, as integers that every library knows."""
    return rng.integers(-2**63, 2**63, count)


class _Gate(Gate):
    # Semaphores that a thread may not have come out of.
    kept = []

    def __exit__(self, *_):
        self.open()
        try:
            self.stream.synchronize()
        except Closed:
            # With whoever it was of, or its context, which waits for it.
            self.kept.append(self.semaphore)


def gate(lab, stream, context=None):
    """`with` it, a stream of the package goes on with nothing; at its end all of its work is done, unless it was closed."""
    return _Gate(context or lab.context, stream)


def put(lab, address, array):
    """Writes an array of NumPy to the device."""
    copy(lab, address, array.ctypes.data, array.nbytes)


def got(lab, address, array):
    """Reads what lies on the device into an array of NumPy."""
    copy(lab, array.ctypes.data, address, array.nbytes)
    return array


def c_info(name, handle, words_of):
    """What the C API tells of a handle: so many words."""
    info = (ctypes.c_uint64 * words_of)()
    assert getattr(c_library(), name)(ctypes.c_uint64(handle), info, ctypes.c_size_t(8 * words_of)) == 0
    return list(info)
