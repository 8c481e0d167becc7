from typing import Any, Callable

from ._core import StreamGuard

def call_on(guard: StreamGuard, stream: int, device: int | None, function: Callable[..., Any],
            arguments: tuple[Any, ...]) -> Any:
    """The stream is the package's current one, and PyTorch's if that is there; device is None on the host."""
