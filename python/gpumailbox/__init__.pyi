from ._aio import pop_async, records_of, wait_async
from ._core import (Answer, Arbiter, Array, Buffer, Command, Completion, Context, Coordinator, Doorbell, Event, Fifo, Kernel,
                    KernelBlock, Mailbox, Module, Operation, Queue, Result, Stream, StreamGuard, Task, Tensor, TensorMailbox,
                    Token, TripleBuffer, View, Watch, Worker, WorkerResult, version)
from ._errors import (CallbackFailed, Cancelled, Closed, DeviceLost, Error, Forked, Full, InvalidArgument, InvalidDevice,
                      NotFound, NotServed, NotSupported, OutOfMemory, TimedOut, Unavailable, WrongState, WrongType)

__version__: str
__all__ = ["Answer", "Arbiter", "Array", "Buffer", "CallbackFailed", "Cancelled", "Closed", "Command", "Completion", "Context",
           "Coordinator", "DeviceLost", "Doorbell", "Error", "Event", "Fifo", "Forked", "Full", "InvalidArgument",
           "InvalidDevice", "Kernel", "KernelBlock", "Mailbox", "Module", "NotFound", "NotServed", "NotSupported", "Operation",
           "OutOfMemory", "Queue", "Result", "Stream", "StreamGuard", "Task", "Tensor", "TensorMailbox", "TimedOut", "Token",
           "TripleBuffer", "Unavailable", "View", "Watch", "Worker", "WorkerResult", "WrongState", "WrongType",
           "get_cmake_dir", "get_include", "get_library", "pop_async", "records_of", "version", "wait_async"]

def get_include() -> str:
    """The folder of `gpumailbox.h` and `gpumailbox/`, for C++ that shares mailboxes with this process."""

def get_library() -> str:
    """The library that this package uses: link it, and handles are the same on both sides."""

def get_cmake_dir() -> str:
    """For `find_package(gpumailbox)`: give it as `gpumailbox_DIR`."""
