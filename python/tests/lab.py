"""Arrays on a device, of NumPy for the host backend and of PyTorch for CUDA; how tests wait, and what they see."""
import ctypes
import gc
import importlib.util
import os
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import gpumailbox

REQUIRED = os.environ.get("GMB_REQUIRE_CUDA") == "1"
torch = None
if REQUIRED or importlib.util.find_spec("torch"):
    import torch

CUDA = torch is not None and torch.cuda.is_available()
if REQUIRED and not CUDA:
    raise RuntimeError("GMB_REQUIRE_CUDA=1, and PyTorch has no CUDA device: that is a failure, not a skip")
BACKENDS = ["host", "cuda"] if CUDA else ["host"]
SECONDS = 60
# For what does not come, however long one waits.
NEVER = 0.02
POISON = 0xA5


def until(condition, what, seconds=SECONDS):
    """Waits until that is so, and fails with `what` if it is not in time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds} s: {what() if callable(what) else what}")
        time.sleep(0.0005)


def all_given_back(mailbox):
    """Waits until every tensor that was pushed is its producer's again."""
    until(lambda: mailbox.stats()["released"] == mailbox.stats()["pushed"], lambda: f"all given back: {mailbox.stats()}")


def still_waits(future, seconds=NEVER):
    with pytest.raises(TimeoutError):
        future.result(seconds)


def together(*works):
    """Runs them on a thread each, begun at the same moment; what one raises is raised here."""
    begin = threading.Barrier(len(works))

    def run(work):
        begin.wait(SECONDS)
        return work()

    with ThreadPoolExecutor(len(works)) as pool:
        return [future.result(2 * SECONDS) for future in [pool.submit(run, work) for work in works]]


def bits(array):
    """Elements as bytes, so that NaNs are equal to themselves."""
    return np.ascontiguousarray(array).tobytes()


def random_rows(rng, count, bytes=64):
    return rng.integers(0, 256, (count, bytes), dtype=np.uint8)


def raises(kind, call, *words):
    """The right class, a sentence that names what is wrong, and the status by number and name."""
    with pytest.raises(kind) as caught:
        call()
    text = str(caught.value)
    assert len(text) > 15 and "panicked" not in text, text
    for word in words:
        assert word in text, text
    if isinstance(caught.value, gpumailbox.Error):
        name = caught.value.name
        assert caught.value.status < 0 and text.endswith(f"[{name}]") and name.isupper(), (caught.value.status, text)


def current(lab, *streams):
    """Which of them calls without one are for: a mailbox of one stream takes pops of that one alone."""
    mailbox = lab.context.mailbox(2, 16, single_stream=True)
    mailbox.pop(1)
    found = []
    for stream in streams:
        try:
            mailbox.pop(1, stream=stream)
        except gpumailbox.InvalidArgument:
            continue
        found.append(stream)
    return found


class Gate:
    """`with` it, a stream of the host backend goes on with nothing; at its end all of its work is done."""

    def __init__(self, context, stream):
        self.stream, self.libc, library = stream, ctypes.CDLL(None), ctypes.CDLL(gpumailbox.get_library())
        self.semaphore = ctypes.create_string_buffer(64)
        assert self.libc.sem_init(self.semaphore, 0, 0) == 0
        # By a function of C: one of Python's would need the interpreter's lock.
        assert library.gmb_stream_host_function(ctypes.c_uint64(context.handle), ctypes.c_void_p(stream.handle),
                                                self.libc.sem_wait, self.semaphore) == 0

    def open(self):
        self.libc.sem_post(self.semaphore)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.open()
        self.stream.synchronize()


def c_library():
    return ctypes.CDLL(gpumailbox.get_library())


def copy(lab, to, at, bytes=8):
    """A copy between the host and the device, that is done when this returns."""
    library, stream = c_library(), lab.context.stream()
    assert library.gmb_memory_copy(ctypes.c_uint64(lab.context.handle), ctypes.c_void_p(to), ctypes.c_void_p(at),
                                   ctypes.c_uint64(bytes), ctypes.c_void_p(stream.handle)) == 0
    stream.synchronize()


def read_word(lab, address):
    word = np.zeros(1, np.uint64)
    copy(lab, word.ctypes.data, address)
    return int(word[0])


def write_word(lab, address, value):
    word = np.array([value], np.uint64)
    copy(lab, address, word.ctypes.data)


class _Managed(ctypes.Structure):
    """DLManagedTensorVersioned."""
    _fields_ = [("major", ctypes.c_uint32), ("minor", ctypes.c_uint32), ("manager", ctypes.c_void_p),
                ("deleter", ctypes.c_void_p), ("flags", ctypes.c_uint64), ("data", ctypes.c_void_p),
                ("device", ctypes.c_int32 * 2), ("ndim", ctypes.c_int32), ("code", ctypes.c_uint8), ("bits", ctypes.c_uint8),
                ("lanes", ctypes.c_uint16), ("shape", ctypes.c_void_p), ("strides", ctypes.c_void_p),
                ("offset", ctypes.c_uint64)]


class Foreign:
    """Bytes on the host, exported as NumPy never does it."""
    name = b"dltensor_versioned"
    # Nothing tells when they are no longer used, so they stay.
    made = []

    def __init__(self, values, *, offset=0, device=(1, 0), major=1):
        # They begin so many bytes into their memory.
        self.memory = np.concatenate([np.full(offset, POISON, np.uint8), values.reshape(-1)])
        self.shape = (ctypes.c_int64 * values.ndim)(*values.shape)
        self.managed = _Managed(major, 0, None, None, 0, self.memory.ctypes.data, device, values.ndim, 1, 8, 1,
                                ctypes.addressof(self.shape), None, offset)
        self.made.append(self)

    def __dlpack_device__(self):
        return tuple(self.managed.device)

    def __dlpack__(self, **_):
        new = ctypes.pythonapi.PyCapsule_New
        new.restype, new.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
        return new(ctypes.addressof(self.managed), self.name, None)


class Host:
    backend = "host"
    dtypes = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64",
              "complex64", "complex128", "bool"]

    def __init__(self):
        self.context = gpumailbox.Context("host")
        self.tracked = []

    def end(self):
        self.tracked.clear()

    def array(self, values):
        return np.array(values, order="C")

    def numpy(self, array):
        return np.array(self.import_(array))

    def import_(self, array):
        return array if isinstance(array, np.ndarray) else np.from_dlpack(array)

    def poisoned(self, *shape):
        return np.full(shape, POISON, np.uint8)

    def as_dtype(self, array, dtype):
        return array.view(dtype)

    def strided(self, base, shape, strides, offset):
        """Any layout over a base of one dimension, in elements."""
        item = base.itemsize
        return np.lib.stride_tricks.as_strided(base[offset:], shape, [stride * item for stride in strides])

    def pointer(self, array):
        return array.ctypes.data

    def layout(self, array):
        return array.shape, tuple(stride // array.itemsize for stride in array.strides)

    def track(self, array):
        """From here on `held` says whether its memory is still somebody's."""
        self.tracked.append((weakref.ref(array), array.nbytes))
        return array

    def held(self):
        gc.collect()
        return sum(size for alive, size in self.tracked if alive() is not None)


class Cuda:
    backend = "cuda"
    dtypes = Host.dtypes + ["bfloat16"]

    def __init__(self):
        self.context = gpumailbox.Context("cuda")
        gc.collect()
        self.base = None

    def end(self):
        torch.cuda.synchronize()

    def array(self, values):
        return torch.from_numpy(np.array(values, order="C")).to("cuda")

    def numpy(self, array):
        tensor = self.import_(array)
        if tensor.dtype == torch.bfloat16:
            tensor = tensor.view(torch.int16)
        return tensor.cpu().numpy()

    def import_(self, array):
        return array if isinstance(array, torch.Tensor) else torch.from_dlpack(array)

    def poisoned(self, *shape):
        return torch.full(shape, POISON, dtype=torch.uint8, device="cuda")

    def as_dtype(self, array, dtype):
        return array.view(getattr(torch, dtype))

    def strided(self, base, shape, strides, offset):
        return torch.as_strided(base, shape, strides, offset)

    def pointer(self, array):
        return array.data_ptr()

    def layout(self, array):
        return tuple(array.shape), tuple(array.stride())

    def track(self, array):
        # PyTorch counts bytes, not tensors: what there was without this one.
        if self.base is None:
            gc.collect()
            self.base = torch.cuda.memory_allocated() - array.untyped_storage().nbytes()
        return array

    def held(self):
        gc.collect()
        # Blocks are rounded up to 512 bytes.
        return max(0, torch.cuda.memory_allocated() - self.base - 511) if self.base is not None else 0


KINDS = {"host": Host, "cuda": Cuda}


def make(backend):
    return KINDS[backend]()


@pytest.fixture
def cuda():
    """For files that are of CUDA alone: `from lab import cuda as lab`."""
    made = make("cuda")
    yield made
    made.end()
