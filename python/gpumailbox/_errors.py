"""What the library's errors are in Python."""


class Error(Exception):
    """An error of the library; `status` is its number, `name` the constant's name."""

    status = 0
    name = ""


class Closed(Error):
    """The object was closed, or is no object of the library."""


class InvalidArgument(Error, ValueError):
    """Something that was given cannot be."""


class InvalidDevice(Error, ValueError):
    """Something lies on another device, or there is no such device."""


class NotSupported(Error, NotImplementedError):
    """It is not possible here; the message says what is."""


class TimedOut(Error, TimeoutError):
    """It was not so in time; nothing was lost."""


class OutOfMemory(Error, MemoryError):
    """Device memory, its limit, or the host's memory is used up."""


class Full(Error):
    """There is no room: in a mailbox that does not wait for any, in a doorbell in time, or for more operations."""


class NotServed(Error):
    """Nobody has done the command: the worker that served the doorbell has ended."""


class Cancelled(Error):
    """The command was cancelled before it was done."""


class Unavailable(Error):
    """No buffer of the triple buffer has come to this step."""


class WrongState(Error):
    """The buffer was submitted or given up before."""


class NotFound(Error, LookupError):
    """There is nothing of this name."""


class WrongType(Error, TypeError):
    """The elements are of another type."""


class CallbackFailed(Error):
    """A function of yours raised an exception; of what comes after it, which `__cause__` is then."""


class DeviceLost(Error):
    """The device does not work any more: only a new process gets it back."""


class Forked(Error):
    """The process was forked after the library was used: use the start method "spawn"."""


_KINDS = {-1: Closed, -2: InvalidArgument, -3: InvalidArgument, -4: InvalidArgument, -5: InvalidArgument,
          -6: InvalidArgument, -8: NotSupported, -10: TimedOut, -11: InvalidArgument, -16: OutOfMemory, -17: OutOfMemory,
          -23: InvalidDevice, -24: InvalidArgument, -25: DeviceLost, -27: Forked, -29: InvalidArgument, -31: OutOfMemory,
          -34: NotSupported, -35: Full, -37: NotServed, -38: Cancelled, -39: Unavailable, -40: WrongState, -41: NotFound,
          -42: WrongType, -43: InvalidArgument, -44: CallbackFailed}

_NAMES = ("INVALID_HANDLE NULL_POINTER INVALID_ARGUMENT MISALIGNED OVERLAP OVERFLOW STRUCT_SIZE NOT_SUPPORTED BUSY TIMEOUT "
          "BAD_LENGTH BAD_MAGIC BAD_VERSION ORDER_VIOLATION CORRUPT OUT_OF_MEMORY OUT_OF_HOST_MEMORY NO_DRIVER NO_DEVICE "
          "STUB_DRIVER DRIVER_TOO_OLD NO_KERNELS INVALID_DEVICE INVALID_STREAM DEVICE_LOST DRIVER FORKED PANIC ZERO_COUNT "
          "SYSTEM MEMORY_LIMIT WRONG_THREAD TRUNCATED CAPTURE FULL WRONG_MODE NOT_SERVED CANCELLED UNAVAILABLE "
          "WRONG_STATE NOT_FOUND WRONG_TYPE CYCLE CALLBACK").split()


def make(status, message):
    """The exception of a status."""
    name = _NAMES[-status - 1] if 0 < -status <= len(_NAMES) else str(status)
    made = _KINDS.get(status, Error)(f"{message} [{name}]")
    made.status, made.name = status, name
    return made
