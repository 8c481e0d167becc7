"""Types of the extension. What each call promises is in docs/python.md."""

# mypy.stubtest holds names, parameters and their kinds against the extension. It cannot see types: those of parameters,
# results and properties, the keys of dictionaries, which overload gives what, nor defaults of calls that have overloads.

from types import TracebackType
from typing import Any, AsyncIterator, Final, Generator, Literal, Protocol, Sequence, TypedDict, TypeVar, Union, final
from typing import overload, type_check_only

from typing_extensions import Buffer, CapsuleType, Self, TypeAlias

__all__ = ["Answer", "Arbiter", "Array", "Command", "Context", "Doorbell", "Event", "Fifo", "Mailbox", "Queue", "Result",
           "Stream", "StreamGuard", "Tensor", "TensorMailbox", "Token", "View", "Watch", "Worker", "WorkerResult", "_end",
           "_sizes", "version"]

# -- Protocols of other libraries; they do not exist at run time. --

@type_check_only
class SupportsDLPack(Protocol):
    """Arrays and tensors of NumPy, PyTorch, CuPy, JAX and of this package."""

    def __dlpack__(self, *, stream: Any = ...) -> Any: ...

@type_check_only
class SupportsCudaStream(Protocol):
    """Streams of CUDA Python and of this package: the protocol's version (0) and the address."""

    def __cuda_stream__(self) -> tuple[int, int]: ...

@type_check_only
class TorchStream(Protocol):
    """torch.cuda.Stream, torch.cuda.ExternalStream."""

    @property
    def cuda_stream(self) -> int: ...

@type_check_only
class CupyStream(Protocol):
    """cupy.cuda.Stream, cupy.cuda.ExternalStream."""

    @property
    def ptr(self) -> int: ...

_Stream: TypeAlias = Union[int, SupportsCudaStream, TorchStream, CupyStream]
_Tensor: TypeAlias = Union[SupportsDLPack, CapsuleType]
# A name ("float32"), or an object that ends in its name: torch.float32, numpy.float32, numpy.dtype("float32").
_Dtype: TypeAlias = Any
_Policy: TypeAlias = Literal["reject", "wait", "overwrite_oldest", "latest"]
_Mode: TypeAlias = Literal["ordered", "shared", "express"]
_Arbitrated: TypeAlias = Union["Mailbox", tuple["Mailbox", int, Literal["focus", "peripheral"]]]
_Interest: TypeAlias = Literal["readable", "writable"]

_Out = TypeVar("_Out", bound=SupportsDLPack)
_Like = TypeVar("_Like")

class _Memory(TypedDict):
    limit: int
    used: int
    high_water: int
    reserved: int
    allocations: int

class _MailboxStats(TypedDict):
    capacity: int
    payload_bytes: int
    slot_stride: int
    ring_bytes: int
    published: int
    released: int
    rejected: int
    empty_pops: int
    high_water: int
    reader_mask: int
    full_policy: _Policy
    mode: _Mode
    fault: int

class _ReaderStats(TypedDict):
    released: int
    unread: int
    lost: int
    empty_pops: int

class _TensorStats(TypedDict):
    capacity: int
    pushed: int
    popped: int
    refused: int
    dropped: int
    queued: int
    leases: int
    retiring: int
    released: int
    full_policy: _Policy

class _QueueStats(TypedDict):
    capacity: int
    item_bytes: int
    workers: int
    size: int
    pushed: int
    popped: int
    queue_bytes: int
    block_threads: int
    max_blocks: int

class _Measurement(TypedDict):
    items: int
    seconds: float
    items_per_second: float

class _WorkerStats(TypedDict):
    state: Literal["ready", "running", "paused", "ended"]
    processed: int
    finished: int
    spawned: int
    idle_polls: int
    rejected: int
    returned: int
    iterations: int
    slices: int
    grid_blocks: int
    block_threads: int
    most_blocks: int
    stalled_blocks: int
    heartbeat: int

class _DoorbellStats(TypedDict):
    capacity: int
    submitted: int
    outstanding: int
    served: bool

class _FifoStats(TypedDict):
    capacity: int
    drained: int

class _ArbiterStats(TypedDict):
    mailboxes: int
    focus: int
    slices: int
    heartbeat: int

class _CudaArrayInterface(TypedDict):
    version: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    typestr: str
    data: tuple[int, bool]
    stream: int | None

# -- Contexts, streams, events --

@final
class Context:
    """One device, with all that lives on it. `backend` is "auto", "cuda" or "host"; `memory_limit` in bytes, 0 for none;
    `resident_percent` of the device may be held by workers, 0 for the default."""

    def __new__(cls, backend: Literal["auto", "cuda", "host"] = "auto", device: int = 0, *, memory_limit: int = 0,
                resident_percent: int = 0) -> Self: ...
    @property
    def backend(self) -> str:
        """"cuda" or "host"."""
    @property
    def device(self) -> int:
        """Ordinal of the device."""
    @property
    def name(self) -> str:
        """The device's name."""
    @property
    def multiprocessors(self) -> int:
        """Multiprocessors, or block threads of the host backend."""
    @property
    def driver_version(self) -> int:
        """The driver's version as CUDA counts it (13000 is 13.0); 0 on the host."""
    @property
    def handle(self) -> int:
        """`gmb_context.id`, for C++ in the same process."""
    @overload
    def mailbox(self, capacity: int, payload_bytes: int, *, full_policy: _Policy = "reject",
                arbitration: Literal["cpu", "device"] = "cpu", readers: int = 1, mode: _Mode = "ordered",
                single_stream: bool = False) -> Mailbox:
        """A mailbox for `capacity` records (a power of two) of up to `payload_bytes`."""
    @overload
    def mailbox(self, capacity: int, payload_bytes: None = None, *, dtype: _Dtype, shape: Sequence[int] | None = None,
                full_policy: _Policy = "reject", arbitration: Literal["cpu", "device"] = "cpu", readers: int = 1,
                mode: _Mode = "ordered", single_stream: bool = False) -> Mailbox:
        """A mailbox for `capacity` records (a power of two), each an array of this `dtype` and `shape`."""
    def tensor_mailbox(self, capacity: int, *, full_policy: _Policy = "reject") -> TensorMailbox:
        """A mailbox for up to `capacity` tensors (a power of two), by pointer."""
    @overload
    def queue(self, capacity: int, *, dtype: _Dtype, item_bytes: None = None, block_threads: int = 0,
              max_blocks: int = 0) -> Queue:
        """A work queue for `capacity` items (a power of two) of a dtype of 4, 8 or 16 bytes."""
    @overload
    def queue(self, capacity: int, *, dtype: None = None, item_bytes: int, block_threads: int = 0,
              max_blocks: int = 0) -> Queue:
        """A work queue for `capacity` items (a power of two), whatever has 4, 8 or 16 bytes."""
    def worker(self, active: Queue, finished: Queue | None = None, spawn: Queue | None = None, *, max_iterations: int = 0,
               idle_threshold: int = 0, spawn_interval: int = 0, increment: int = 1, block_threads: int = 0,
               grid_blocks: int = 1, slice: float | None = None, watchdog: float | None = None,
               doorbell: Doorbell | None = None) -> Worker:
        """A kernel that stays on the device: takes items from `active`, adds `increment`, and pushes them to `finished`, each
        `spawn_interval`-th to `spawn` instead. `slice` and `watchdog` in seconds, None for the default, inf for no end. It
        does the commands of `doorbell`, by a block more."""
    def doorbell(self, capacity: int = 64) -> Doorbell:
        """Commands from the host to a kernel that runs, and its answers: `capacity` (a power of two) at once."""
    def fifo(self, capacity: int = 4096) -> Fifo:
        """Records of 16 bytes from the device to the host, with room for `capacity` (a power of two)."""
    def arbiter(self, mailboxes: Sequence[_Arbitrated], slice: float | None = None) -> Arbiter:
        """A kernel that stays on the device, and says there which mailboxes have records: for each a mailbox, or (mailbox,
        reader, class); without it its reader 0, of class "focus". `slice` in seconds, None for the default, inf for no
        end."""
    def stream(self, priority: Literal["normal", "focus", "peripheral"] = "normal") -> Stream:
        """A stream of a priority class."""
    def use_stream(self, stream: _Stream) -> StreamGuard:
        """`with context.use_stream(stream):` makes it the one that calls of this thread are for."""
    def event(self, *, timed: bool = False) -> Event:
        """An event of the context's pool; `timed` ones can tell what time is between two."""
    def token(self) -> Token:
        """Where results of operations are told that nobody waits for at once."""
    def memory(self) -> _Memory:
        """Device memory held and allowed, in bytes; a limit of 0 is none."""
    def close(self) -> None:
        """Ends the context's handle. Twice is once."""
    def __enter__(self) -> Self: ...
    def __exit__(self, *_ended: type[BaseException] | BaseException | TracebackType | None) -> None: ...

@final
class Stream:
    """A stream of the library's, made by `Context.stream`. It ends with the context, or by `close`."""

    @property
    def handle(self) -> int:
        """The stream's address: `torch.cuda.ExternalStream(stream.handle)`."""
    @property
    def priority(self) -> int:
        """The priority that the device gave it: smaller goes first."""
    def query(self) -> bool:
        """Whether all of its work is done. Does not block."""
    def synchronize(self) -> None:
        """Blocks until all of its work is done."""
    def wait_event(self, event: Event) -> None:
        """Its later work comes after what `event` stands for."""
    def close(self) -> None:
        """Destroys it when its work is done. Twice is once."""
    def __cuda_stream__(self) -> tuple[int, int]: ...

@final
class StreamGuard:
    """`with` it, a stream is this thread's current one. Made by `Context.use_stream`."""

    def __enter__(self) -> None: ...
    def __exit__(self, *_ended: type[BaseException] | BaseException | TracebackType | None) -> Literal[False]: ...

@final
class Event:
    """A point in a stream, made by `Context.event`."""

    def record(self, stream: _Stream | None = None) -> None:
        """It stands for what the stream holds now."""
    def query(self) -> bool:
        """Whether that is done. Does not block."""
    def synchronize(self, timeout: float | None = None) -> None:
        """Blocks until that is done, for at most `timeout` seconds; then `TimedOut`."""
    def elapsed_ms(self, end: Event) -> float:
        """Milliseconds between two timed events that are done."""

# -- Records --

@final
class Result:
    """How an operation went."""

    @property
    def epoch(self) -> int:
        """Grows by one with each operation of a token."""
    @property
    def count(self) -> int:
        """Records accepted or delivered."""
    @property
    def partial(self) -> bool:
        """Whether fewer than asked for."""
    @property
    def lost(self) -> int:
        """Records that were overwritten before this pop came to them."""

@final
class Token:
    """Where results of operations are told that nobody waits for at once: in graphs, or beside other work."""

    def poll(self) -> Result | None:
        """The newest result, or None while there is none. Does not block. Raises if the operation failed on the device."""
    def wait(self, after: int | None = None, timeout: float | None = None) -> Result:
        """Blocks until there is a result of a later epoch than `after`; without it, until the last operation's."""

@final
class Array:
    """Records that were popped, or that lie in their mailbox. Give it to `from_dlpack` of any library."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Records, then the shape of one."""
    @property
    def strides(self) -> tuple[int, ...]:
        """Elements from one index to the next."""
    @property
    def dtype(self) -> str: ...
    @property
    def data_ptr(self) -> int: ...
    @property
    def count(self) -> int:
        """Records."""
    @property
    def lost(self) -> int:
        """Records that were overwritten before this pop came to them."""
    @property
    def lengths(self) -> Array:
        """Bytes of each record, uint32; of `pop(..., headers=True)`."""
    @property
    def types(self) -> Array:
        """Type of each record, uint32; of `pop(..., headers=True)`."""
    def __len__(self) -> int: ...
    def __dlpack__(self, *, stream: Any = None, max_version: tuple[int, int] | None = None,
                   dl_device: tuple[int, int] | None = None, copy: bool | None = None) -> CapsuleType: ...
    def __dlpack_device__(self) -> tuple[int, int]: ...
    def __array__(self, dtype: object = None, copy: bool | None = None) -> Any: ...
    @property
    def __cuda_array_interface__(self) -> _CudaArrayInterface: ...

@final
class Mailbox:
    """A ring of records on the context's device, made by `Context.mailbox`."""

    def push(self, records: _Tensor, *, lengths: _Tensor | None = None, types: _Tensor | None = None, msg_type: int = 0,
             stream: _Stream | None = None, timeout: float | None = None, token: Token | None = None) -> None:
        """Pushes the rows of `records`, an array on the device, as so many records. Never waits for the device; under
        "wait" for room, at most `timeout` seconds. The arrays are kept until they were read; while the stream is being
        captured they are yours to keep, for as long as the graph."""
    @overload
    def pop(self, max: int, *, out: None = None, reader: int = 0, headers: bool = False, stream: _Stream | None = None,
            like: None = None, token: None = None) -> Array:
        """Up to `max` records, as an array that is as long as there were. Waits for the count alone."""
    @overload
    def pop(self, max: int, *, out: None = None, reader: int = 0, headers: bool = False, stream: _Stream | None = None,
            like: type[_Like], token: None = None) -> _Like:
        """As a `torch.Tensor`, say: a type that offers DLPack's exchange."""
    @overload
    def pop(self, max: int, *, out: _Out, reader: int = 0, headers: bool = False, stream: _Stream | None = None,
            like: None = None, token: None = None) -> _Out:
        """Writes them to `out` and gives `out[:count]`. While the stream is being captured it gives None, whatever this type
        says."""
    @overload
    def pop(self, max: int, *, out: SupportsDLPack, reader: int = 0, headers: Literal[False] = False,
            stream: _Stream | None = None, like: None = None, token: Token) -> None:
        """Waits for nothing: the count is told to the token, and `out` is kept until then."""
    @overload
    async def pop_async(self, max: int, *, reader: int = 0, timeout: float | None = None, out: None = None,
                        headers: bool = False, stream: _Stream | None = None, like: None = None) -> Array:
        """As `pop`, once there is something. The event loop sleeps on a descriptor, no thread waits."""
    @overload
    async def pop_async(self, max: int, *, reader: int = 0, timeout: float | None = None, out: None = None,
                        headers: bool = False, stream: _Stream | None = None, like: type[_Like]) -> _Like: ...
    @overload
    async def pop_async(self, max: int, *, reader: int = 0, timeout: float | None = None, out: _Out,
                        headers: bool = False, stream: _Stream | None = None, like: None = None) -> _Out: ...
    def __aiter__(self) -> AsyncIterator[Array]:
        """`async for records in mailbox:` until it is closed."""
    def wait_readable(self, count: int = 1, *, reader: int = 0, timeout: float | None = None) -> int:
        """Blocks until `count` records can be read, for at most `timeout` seconds; how many there are then."""
    def wait_writable(self, count: int = 1, *, timeout: float | None = None) -> int:
        """Blocks until there is room for `count` records, for at most `timeout` seconds; how much there is then."""
    def view(self, max: int, *, reader: int = 0, stream: _Stream | None = None) -> View:
        """The next records where they lie: `with mailbox.view(max) as view:`."""
    def add_reader(self, start: Literal["next", "oldest"] = "next", *, stream: _Stream | None = None) -> int:
        """A reader more, which gets every record from here on, or from the oldest that is still there; its number."""
    def remove_reader(self, reader: int, *, stream: _Stream | None = None) -> None:
        """The reader holds no space any more."""
    def stats(self) -> _MailboxStats:
        """Counts of the mailbox, as of the operations that are done."""
    def reader_stats(self, reader: int = 0) -> _ReaderStats:
        """Counts of a reader, as of the operations that are done."""
    def watch(self, interest: _Interest = "readable", *, reader: int = 0) -> Watch:
        """A descriptor that is readable when records, or room, are there."""
    @property
    def handle(self) -> int:
        """`gmb_mailbox.id`, for C++ in the same process."""
    @property
    def payload_bytes(self) -> int: ...
    @property
    def dtype(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]:
        """Of a record."""
    def close(self) -> None:
        """Later calls raise `Closed`; whoever waits is woken. Views that are out stay. Twice is once."""
    def __enter__(self) -> Self: ...
    def __exit__(self, *_ended: type[BaseException] | BaseException | TracebackType | None) -> None: ...

@final
class View:
    """Records where they lie, made by `Mailbox.view`."""

    @property
    def arrays(self) -> list[Array]:
        """One array of all records, or two where they lie around the ring's end; none for no records."""
    def __len__(self) -> int:
        """Records of all arrays."""
    def release(self, stream: _Stream | None = None) -> None:
        """Gives the records back when the stream's work up to here is done. Twice is once."""
    def __enter__(self) -> Self: ...
    def __exit__(self, *_ended: type[BaseException] | BaseException | TracebackType | None) -> None: ...

@final
class Watch:
    """A descriptor for event loops, made by `Mailbox.watch`, `Fifo.watch` and `Doorbell.watch`."""

    def arm(self, count: int = 1) -> None:
        """It becomes readable once `count` records are readable, or writable, or `count` answers there."""
    def fileno(self) -> int:
        """The descriptor, which stays the watch's."""

# -- Work queues, and workers --

@final
class Queue:
    """Small items on the context's device, first in, first out, for many producers and consumers at once. Made by
    `Context.queue`."""

    def push(self, items: _Tensor, *, stream: _Stream | None = None, token: Token | None = None) -> None:
        """Pushes `items`, a dense array on the device; where there is room for fewer the first so many. Waits for nothing: how
        many is told to the token. The array is kept until it was read; while the stream is being captured it is yours to
        keep, for as long as the graph."""
    @overload
    def pop(self, max: int, *, out: None = None, stream: _Stream | None = None, like: None = None,
            token: None = None) -> Array:
        """Up to `max` items, as an array that is as long as there were. Waits for the count alone."""
    @overload
    def pop(self, max: int, *, out: None = None, stream: _Stream | None = None, like: type[_Like],
            token: None = None) -> _Like:
        """As a `torch.Tensor`, say: a type that offers DLPack's exchange."""
    @overload
    def pop(self, max: int, *, out: _Out, stream: _Stream | None = None, like: None = None, token: None = None) -> _Out:
        """Writes them to `out` and gives `out[:count]`. While the stream is being captured it gives None, whatever this type
        says."""
    @overload
    def pop(self, max: int, *, out: SupportsDLPack, stream: _Stream | None = None, like: None = None,
            token: Token) -> None:
        """Waits for nothing: the count is told to the token, and `out` is kept until then."""
    def push_from_host(self, items: Buffer) -> int:
        """Pushes items of host memory, and waits for that: how many there was room for. For set-up and tools."""
    def pop_to_host(self, max: int) -> bytes:
        """Up to `max` items, copied to host memory: their bytes. For checks and tools."""
    def measure(self, batch: int, iterations: int) -> _Measurement:
        """Pushes `batch` items and pops them again, `iterations` times, and measures the time on the device. The queue must be
        empty, and nobody else may use it meanwhile."""
    def stats(self) -> _QueueStats:
        """Counts of the queue at one moment."""
    @property
    def handle(self) -> int:
        """`gmb_queue.id`, for C++ in the same process."""
    @property
    def address(self) -> int:
        """Where it lies on the device, for kernels: a `gmb_queue_header`."""
    @property
    def capacity(self) -> int: ...
    @property
    def item_bytes(self) -> int: ...
    @property
    def dtype(self) -> str:
        """Of what pops give."""
    def close(self) -> None:
        """Later calls raise `Closed`, and items in it are dropped. A queue that a worker uses is [BUSY], and stays. Twice is
        once."""
    def __enter__(self) -> Self: ...
    def __exit__(self, *_ended: type[BaseException] | BaseException | TracebackType | None) -> None: ...

@final
class Worker:
    """Takes items from one queue and routes them to two others, in a kernel that stays. Made by `Context.worker`."""

    def start(self) -> None:
        """Begins a run, with counts of zero. Does not wait: the kernel comes soon."""
    def stop(self) -> None:
        """Ends the run; does not wait for that. One that does not run stays as it is."""
    def pause(self) -> None:
        """The kernel leaves until `resume`; does not wait for that."""
    def resume(self) -> None:
        """Lets a paused one go on."""
    def wait(self, timeout: float | None = None) -> WorkerResult:
        """Blocks until the run has ended, for at most `timeout` seconds: why, and what it did."""
    def run(self, timeout: float | None = None) -> WorkerResult:
        """`start`, and `wait`."""
    def stats(self) -> _WorkerStats:
        """Where it stands, and what it did in this run, as of when its kernel left last."""
    @property
    def handle(self) -> int:
        """`gmb_worker.id`, for C++ in the same process."""
    def close(self) -> None:
        """Stops it, and waits until its kernel has left; later calls raise `Closed`, and so do those that wait. Twice is
        once."""
    def __enter__(self) -> Self: ...
    def __exit__(self, *_ended: type[BaseException] | BaseException | TracebackType | None) -> None: ...

@final
class WorkerResult:
    """What a run of a worker did, all blocks together."""

    @property
    def reason(self) -> Literal["stopped", "idle", "iterations"]:
        """Why it has ended."""
    @property
    def processed(self) -> int:
        """Items that were taken, and did not go back."""
    @property
    def finished(self) -> int:
        """Items that went to `finished`."""
    @property
    def spawned(self) -> int:
        """Items that went to `spawn`."""
    @property
    def idle_polls(self) -> int:
        """Times that a block found nothing to do."""
    @property
    def rejected(self) -> int:
        """Times that a block took nothing because an output was full."""
    @property
    def returned(self) -> int:
        """Items that went back to the end of `active`."""
    @property
    def iterations(self) -> int:
        """Times that blocks went round."""
    @property
    def slices(self) -> int:
        """Times that the kernel came."""

# -- Doorbells, and FIFOs --

@final
class Doorbell:
    """Commands from the host to a kernel that runs, and its answers, with no launch between. Made by `Context.doorbell`."""

    PING: Final = 1
    """To be answered with its arguments."""
    COUNTS: Final = 2
    """What a worker has done in this run: processed, finished, spawned."""
    USER: Final = 16
    """The first code of your own."""

    def submit(self, code: int, *arguments: int, timeout: float | None = None) -> Command:
        """Submits a command with up to three arguments (64 bits, not negative). Where too many wait for their answers it waits
        for room, at most `timeout` seconds, then raises `Full`."""
    def post(self, code: int, *arguments: int, timeout: float | None = None) -> None:
        """The same of a command whose answer nobody wants."""
    def call(self, code: int, *arguments: int, timeout: float | None = None) -> Answer:
        """`submit`, and `wait`, within `timeout` seconds together: one that is not answered in time is cancelled."""
    def stats(self) -> _DoorbellStats:
        """Counts of the doorbell at one moment; `outstanding` commands have no answer yet, or nobody wants it, until their
        place is needed."""
    def watch(self) -> Watch:
        """A descriptor that is readable when answers are there which no command has got yet."""
    def _collect(self) -> int: ...
    @property
    def handle(self) -> int:
        """`gmb_doorbell.id`, for C++ in the same process."""
    @property
    def address(self) -> int:
        """Where it lies on the device, for kernels: a `gmb_doorbell_header`."""
    @property
    def capacity(self) -> int: ...
    def close(self) -> None:
        """Later calls raise `Closed`, and so do those that wait. One that a worker serves is [BUSY], and stays. Twice is
        once."""
    def __enter__(self) -> Self: ...
    def __exit__(self, *_ended: type[BaseException] | BaseException | TracebackType | None) -> None: ...

@final
class Command:
    """A command that was submitted, made by `Doorbell.submit`. Without a reference it goes on, and its answer is dropped."""

    def wait(self, timeout: float | None = None) -> Answer:
        """Blocks until it is answered, for at most `timeout` seconds. However often, the answer is the same. Raises what the
        kernel says it was not done for."""
    def poll(self) -> Answer | None:
        """The answer, or None while there is none. Does not block."""
    def cancel(self) -> None:
        """Asks for it not to be done: if it was not taken yet, its answer raises `Cancelled`. One that was answered stays
        so."""
    def __await__(self) -> Generator[Any, None, Answer]:
        """The event loop sleeps on a descriptor, no thread waits."""
    @property
    def doorbell(self) -> Doorbell:
        """That it was submitted to."""

@final
class Answer:
    """What a kernel has answered."""

    @property
    def status(self) -> int:
        """Zero, or what the kernel says; what is below zero is raised."""
    @property
    def flags(self) -> int:
        """Zero, or the kernel's own."""
    @property
    def value(self) -> tuple[int, int, int]:
        """What came of it."""

@final
class Fifo:
    """Records of two words from kernels to the host, in the order of their pushes. Made by `Context.fifo`."""

    def push(self, records: _Tensor, *, stream: _Stream | None = None, token: Token | None = None) -> None:
        """Pushes `records`, a dense array on the device whose items, or rows, have 16 bytes; where there is room for fewer the
        first so many. Waits for nothing: how many is told to the token. The array is kept until it was read."""
    # An array of NumPy, without which the package has types, too.
    def pop(self, max: int, timeout: float | None = None) -> Any:
        """Up to `max` records, as many as there are, once there is one: an array of NumPy with a row of two numbers (uint64)
        for each. None of them when none has come within `timeout` seconds."""
    async def pop_async(self, max: int, timeout: float | None = None) -> Any:
        """As `pop`, once there is something. The event loop sleeps on a descriptor, no thread waits."""
    def __aiter__(self) -> AsyncIterator[Any]:
        """`async for records in fifo:` until it is closed."""
    def stats(self) -> _FifoStats:
        """Counts of the FIFO at one moment."""
    def watch(self) -> Watch:
        """A descriptor that is readable when records are there."""
    @property
    def handle(self) -> int:
        """`gmb_fifo.id`, for C++ in the same process."""
    @property
    def address(self) -> int:
        """Where it lies on the device, for kernels: a `gmb_fifo_header`."""
    @property
    def capacity(self) -> int: ...
    def close(self) -> None:
        """Later calls raise `Closed`, and so do those that wait; records in it are dropped. Twice is once."""
    def __enter__(self) -> Self: ...
    def __exit__(self, *_ended: type[BaseException] | BaseException | TracebackType | None) -> None: ...

# -- Arbiters --

@final
class Arbiter:
    """Says in device memory which of its mailboxes have records that nobody has taken. Made by `Context.arbiter`; they stay as
    long as it does."""

    def stats(self) -> _ArbiterStats:
        """What it looks at, the times that its kernel came, and when it last went round: in nanoseconds of the device's clock,
        zero while it is away."""
    @property
    def handle(self) -> int:
        """`gmb_arbiter.id`, for C++ in the same process."""
    @property
    def pointer(self) -> int:
        """Where it tells it on the device, for kernels: a `gmb_arbiter_header`."""
    def close(self) -> None:
        """Waits until its kernel has left; kernels of yours that ask it must have ended before. Later calls raise `Closed`.
        Twice is once."""
    def __enter__(self) -> Self: ...
    def __exit__(self, *_ended: type[BaseException] | BaseException | TracebackType | None) -> None: ...

# -- Tensors by pointer --

@final
class Tensor:
    """A tensor that was popped: its producer's memory, for as long as this, or anything made of it, is there."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def strides(self) -> tuple[int, ...]:
        """Elements from one index to the next."""
    @property
    def dtype(self) -> str: ...
    @property
    def data_ptr(self) -> int:
        """The first element's address: the one that was pushed."""
    @property
    def tag(self) -> int:
        """The number that came with it."""
    def use_on(self, stream: _Stream) -> None:
        """Another stream uses the tensor, too: it is waited for before the producer gets its memory back."""
    def release(self) -> None:
        """Lets go of it; what was made of it by from_dlpack keeps the memory. Twice is once."""
    def __dlpack__(self, *, stream: Any = None, max_version: tuple[int, int] | None = None,
                   dl_device: tuple[int, int] | None = None, copy: bool | None = None) -> CapsuleType: ...
    def __dlpack_device__(self) -> tuple[int, int]: ...
    def __array__(self, dtype: object = None, copy: bool | None = None) -> Any: ...
    @property
    def __cuda_array_interface__(self) -> _CudaArrayInterface: ...

@final
class TensorMailbox:
    """Hands tensors over without moving an element. Made by `Context.tensor_mailbox`."""

    def push(self, tensor: _Tensor, tag: int = 0, *, stream: _Stream | None = None, timeout: float | None = None) -> None:
        """Hands `tensor` over, with a number (64 bits, not negative) for its consumer. Waits only under "wait", for room."""
    @overload
    def pop(self, *, stream: _Stream | None = None, timeout: float | None = 0.0, like: None = None) -> Tensor | None:
        """The next tensor, or None when none came within `timeout` seconds (None: no limit)."""
    @overload
    def pop(self, *, stream: _Stream | None = None, timeout: float | None = 0.0, like: type[_Like]) -> _Like | None:
        """As a `torch.Tensor`, say: a type that offers DLPack's exchange."""
    def stats(self) -> _TensorStats:
        """Counts: tensors pushed, popped, queued, leases that are out, tensors given back."""
    @property
    def handle(self) -> int:
        """`gmb_tensor_mailbox.id`, for C++ in the same process."""
    def close(self) -> None:
        """Tensors that nobody has popped go back to their producers; those that are out stay. Twice is once."""
    def __enter__(self) -> Self: ...
    def __exit__(self, *_ended: type[BaseException] | BaseException | TracebackType | None) -> None: ...

def version() -> str:
    """Version of the library."""

def _end() -> None: ...
def _sizes() -> list[tuple[str, int]]: ...
