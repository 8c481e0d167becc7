"""Calls of functions that enqueue work, with their stream as the thread's current one."""
import sys


def call_on(guard, stream, device, function, arguments):
    """The stream is the package's current one, and PyTorch's if that is there; device is None on the host."""
    with guard:
        torch = sys.modules.get("torch") if device is not None else None
        # Half imported it has not all of its parts yet, and without CUDA it has no streams.
        if not hasattr(getattr(torch, "_C", None), "_cuda_getCurrentRawStream"):
            return function(*arguments)
        with torch.cuda.stream(torch.cuda.ExternalStream(stream, device=device)):
            return function(*arguments)
