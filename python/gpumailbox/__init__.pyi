from ._aio import pop_async, records_of, wait_async
from ._core import (Answer, Arbiter, Array, Command, Context, Doorbell, Event, Fifo, Mailbox, Queue, Result, Stream,
                    StreamGuard, Tensor, TensorMailbox, Token, View, Watch, Worker, WorkerResult, version)
from ._errors import (Cancelled, Closed, DeviceLost, Error, Forked, Full, InvalidArgument, InvalidDevice, NotServed,
                      NotSupported, OutOfMemory, TimedOut)

__version__: str
__all__ = ["Answer", "Arbiter", "Array", "Cancelled", "Closed", "Command", "Context", "DeviceLost", "Doorbell", "Error",
           "Event", "Fifo", "Forked", "Full", "InvalidArgument", "InvalidDevice", "Mailbox", "NotServed", "NotSupported",
           "OutOfMemory", "Queue", "Result", "Stream", "StreamGuard", "Tensor", "TensorMailbox", "TimedOut", "Token", "View",
           "Watch", "Worker", "WorkerResult", "get_cmake_dir", "get_include", "get_library", "pop_async", "records_of",
           "version", "wait_async"]

def get_include() -> str:
    """The folder of `gpumailbox.h` and `gpumailbox/`, for C++ that shares mailboxes with this process."""

def get_library() -> str:
    """The library that this package uses: link it, and handles are the same on both sides."""

def get_cmake_dir() -> str:
    """For `find_package(gpumailbox)`: give it as `gpumailbox_DIR`."""
