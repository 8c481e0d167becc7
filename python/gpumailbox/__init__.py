"""Mailboxes in GPU memory: modules on one device pass records and tensors, and every pop says how many came.

    import gpumailbox, torch

    context = gpumailbox.Context()
    mailbox = context.mailbox(1024, dtype=torch.float32, shape=(16,))
    mailbox.push(torch.randn(100, 16, device="cuda"))
    records = torch.from_dlpack(mailbox.pop(256))      # 100 of them
"""
import atexit
import os

from . import _core
from ._aio import pop_async, records_of, wait_async
from ._core import (Answer, Arbiter, Array, Buffer, Command, Completion, Context, Coordinator, Doorbell, Event, Fifo, Kernel,
                    KernelBlock, Mailbox, Module, Operation, Queue, Result, Stream, StreamGuard, Task, Tensor, TensorMailbox,
                    Token, TripleBuffer, View, Watch, Worker, WorkerResult, version)
from ._errors import (CallbackFailed, Cancelled, Closed, DeviceLost, Error, Forked, Full, InvalidArgument, InvalidDevice,
                      NotFound, NotServed, NotSupported, OutOfMemory, TimedOut, Unavailable, WrongState, WrongType)

__version__ = "0.1.0"
__all__ = ["Answer", "Arbiter", "Array", "Buffer", "CallbackFailed", "Cancelled", "Closed", "Command", "Completion", "Context",
           "Coordinator", "DeviceLost", "Doorbell", "Error", "Event", "Fifo", "Forked", "Full", "InvalidArgument",
           "InvalidDevice", "Kernel", "KernelBlock", "Mailbox", "Module", "NotFound", "NotServed", "NotSupported", "Operation",
           "OutOfMemory", "Queue", "Result", "Stream", "StreamGuard", "Task", "Tensor", "TensorMailbox", "TimedOut", "Token",
           "TripleBuffer", "Unavailable", "View", "Watch", "Worker", "WorkerResult", "WrongState", "WrongType",
           "get_cmake_dir", "get_include", "get_library", "pop_async", "records_of", "version", "wait_async"]

_HERE = os.path.dirname(os.path.abspath(__file__))


def get_include():
    """The folder of `gpumailbox.h` and `gpumailbox/`, for C++ that shares mailboxes with this process."""
    return os.path.join(_HERE, "include")


def get_library():
    """The library that this package uses: link it, and handles are the same on both sides."""
    return os.path.join(_HERE, "lib", "libgpumailbox.so.0")


def get_cmake_dir():
    """For `find_package(gpumailbox)`: give it as `gpumailbox_DIR`."""
    return os.path.join(_HERE, "lib", "cmake", "gpumailbox")


# Before the interpreter ends: a thread of the library may call into whoever made a tensor, which it cannot any more then.
atexit.register(_core._end)
