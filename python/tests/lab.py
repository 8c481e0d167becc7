"""Arrays on a device, of NumPy for the host backend and of PyTorch for CUDA; and how tests wait."""
import gc
import importlib.util
import os
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np

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
