from typing import Any, AsyncIterator, overload

from ._core import Answer, Array, Command, Completion, Fifo, Mailbox, Operation, _Interest, _Like, _Out, _Stream

async def wait_async(mailbox: Mailbox, count: int = 1, *, interest: _Interest = "readable", reader: int = 0,
                     timeout: float | None = None) -> None:
    """Until `count` records are readable, or writable; raises asyncio.TimeoutError after `timeout` seconds."""

@overload
async def pop_async(mailbox: Mailbox, max: int, *, reader: int = 0, timeout: float | None = None, out: None = None,
                    headers: bool = False, stream: _Stream | None = None, like: None = None) -> Array:
    """As mailbox.pop, once there is something; raises asyncio.TimeoutError after `timeout` seconds."""
@overload
async def pop_async(mailbox: Mailbox, max: int, *, reader: int = 0, timeout: float | None = None, out: None = None,
                    headers: bool = False, stream: _Stream | None = None, like: type[_Like]) -> _Like: ...
@overload
async def pop_async(mailbox: Mailbox, max: int, *, reader: int = 0, timeout: float | None = None, out: _Out,
                    headers: bool = False, stream: _Stream | None = None, like: None = None) -> _Out: ...

@overload
def records_of(mailbox: Mailbox, max: int = 1024, *, reader: int = 0, headers: bool = False, stream: _Stream | None = None,
               like: None = None) -> AsyncIterator[Array]:
    """`async for records in records_of(mailbox):` until the mailbox is closed."""
@overload
def records_of(mailbox: Mailbox, max: int = 1024, *, reader: int = 0, headers: bool = False, stream: _Stream | None = None,
               like: type[_Like]) -> AsyncIterator[_Like]: ...

async def pop_fifo_async(fifo: Fifo, max: int, timeout: float | None) -> Any:
    """As fifo.pop, once there is something; raises asyncio.TimeoutError after `timeout` seconds."""

def records_of_fifo(fifo: Fifo) -> AsyncIterator[Any]:
    """`async for records in fifo:` until it is closed."""

async def answer_to(command: Command) -> Answer:
    """The answer to a command, once there is one."""

async def done(operation: Operation) -> Completion:
    """An operation's completion, once it is done."""
