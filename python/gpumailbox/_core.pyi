"""Types of the extension. What each call promises is in docs/python.md."""

# mypy.stubtest holds names, parameters and their kinds against the extension. It cannot see types: those of parameters,
# results and properties, the keys of dictionaries, which overload gives what, nor defaults of calls that have overloads.

from os import PathLike
from types import TracebackType
from typing import Any, AsyncIterator, Callable, Final, Generator, Literal, Protocol, Sequence, TypedDict, TypeVar, Union
from typing import final, overload, type_check_only

from typing_extensions import Buffer as _HostMemory, CapsuleType, Self, TypeAlias

__all__ = ["Answer", "Arbiter", "Array", "Buffer", "Command", "Completion", "Context", "Coordinator", "Doorbell", "Event",
           "Fifo", "Kernel", "KernelBlock", "Mailbox", "Module", "Operation", "Queue", "Result", "Stream", "StreamGuard", "Task",
           "Tensor", "TensorMailbox", "Token", "TripleBuffer", "View", "Watch", "Worker", "WorkerResult", "_end", "_sizes",
           "version"]

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
_Step: TypeAlias = Literal["upload", "process", "download"]
_State: TypeAlias = Literal["free", "uploading", "processing", "downloading"]
_Kind: TypeAlias = Literal["upload", "compute", "download", "push", "pop"]
_Priority: TypeAlias = Literal["normal", "focus", "peripheral"]
_Shape: TypeAlias = Union[int, tuple[int], tuple[int, int], tuple[int, int, int]]
# An array on the device, by its address; a number of ctypes or NumPy, a struct of ctypes, or bytes.
_Argument: TypeAlias = Any
# Called as function(stream), or function(stream, buffer) with a triple buffer.
_Enqueues: TypeAlias = Callable[..., Any]

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

class _TripleBufferStats(TypedDict):
    elements: int
    bytes: int
    completed: int
    states: list[_State]

class _CoordinatorStats(TypedDict):
    queued: int
    in_flight: int
    high_water: int
    events: int
    max_operations: int

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
    def triple_buffer(self, dtype: _Dtype, elements: int) -> TripleBuffer:
        """Three device buffers of `elements` of a `dtype`, that go round."""
    def module(self, image: bytes | str | PathLike[str] | None = None) -> Module:
        """Kernels of yours: bytes of a cubin, a fatbin or PTX, or the path of such a file; on the host backend it is not looked
        at."""
    def coordinator(self, max_operations: int = 0, priority: _Priority = "normal") -> Coordinator:
        """Uploads, compute and downloads, on a stream each of a priority class. `max_operations` from the oldest that is not
        done to the newest, 0 for 4,096."""
    def stream(self, priority: _Priority = "normal") -> Stream:
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
    def push_from_host(self, items: _HostMemory) -> int:
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

# -- Triple buffers --

@final
class TripleBuffer:
    """Three device buffers of one dtype, which go from free to uploading, processing, downloading and back to free. Made by
    `Context.triple_buffer`."""

    def acquire(self, step: _Step) -> Buffer | None:
        """The next buffer of a step, or None until the device has done the work of the step before. Any stream may use it
        then. Never blocks."""
    def acquire_on(self, step: _Step, stream: _Stream | None = None) -> Buffer | None:
        """The same for work of one stream, which is made to wait for the step before: None only until that was submitted."""
    def wait(self, step: _Step, timeout: float | None = None) -> Buffer:
        """As `acquire`, and blocks until there is one, for at most `timeout` seconds."""
    def advance(self) -> int:
        """Passes buffers on whose step is done, one of each step at most, to what comes next: how many were. Never blocks;
        asking for a buffer does the same as far as that takes."""
    @property
    def states(self) -> tuple[_State, _State, _State]:
        """Where the three buffers stand, at one moment."""
    def stats(self) -> _TripleBufferStats:
        """Shape, states, and how many times a buffer became free again."""
    @property
    def addresses(self) -> tuple[int, int, int]:
        """Where the three buffers lie on the device, for kernels."""
    @property
    def handle(self) -> int:
        """`gmb_triple_buffer.id`, for C++ in the same process."""
    @property
    def dtype(self) -> str: ...
    def __len__(self) -> int:
        """Elements of a buffer."""
    def close(self) -> None:
        """Later calls raise `Closed`. Waits for the work that was submitted; the memory goes when no buffer, and nothing made
        of one, is out. Twice is once."""
    def __enter__(self) -> Self: ...
    def __exit__(self, *_ended: type[BaseException] | BaseException | TracebackType | None) -> None: ...

@final
class Buffer:
    """A buffer of a triple buffer that somebody has to himself, for one step. Give it to `from_dlpack` of any library, enqueue
    the step's work, and `submit` it. `with` it, or without a reference, it is given up unless it was submitted."""

    def submit(self, stream: _Stream | None = None) -> None:
        """The step's work on it is enqueued: what the stream holds now, by default the one that it was acquired on, or else the
        current one. The next step gets it once that is done. It must not be used any more."""
    def give_up(self) -> None:
        """Hands it back without the step's work: it becomes free again. Waits for what the streams hold that are known to use
        it. Twice is once."""
    def copy_from(self, array: _Tensor, *, stream: _Stream | None = None) -> None:
        """Copies an array on the host, of the buffer's dtype and no longer, to its begin, in stream order. The array is kept
        until then; it must not be written to."""
    def copy_to(self, array: _Tensor, *, stream: _Stream | None = None) -> None:
        """Copies its begin to an array on the host, in stream order. The array is kept until then."""
    @property
    def step(self) -> _Step:
        """What it was asked for."""
    @property
    def turn(self) -> int:
        """Which turn this is: what was uploaded in a turn is processed and downloaded in it."""
    @property
    def index(self) -> int:
        """Which of the three: 0, 1 or 2."""
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def strides(self) -> tuple[int, ...]:
        """Elements from one index to the next."""
    @property
    def dtype(self) -> str: ...
    @property
    def data_ptr(self) -> int: ...
    def __len__(self) -> int: ...
    def __dlpack__(self, *, stream: Any = None, max_version: tuple[int, int] | None = None,
                   dl_device: tuple[int, int] | None = None, copy: bool | None = None) -> CapsuleType: ...
    def __dlpack_device__(self) -> tuple[int, int]: ...
    def __array__(self, dtype: object = None, copy: bool | None = None) -> Any: ...
    @property
    def __cuda_array_interface__(self) -> _CudaArrayInterface: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *_ended: type[BaseException] | BaseException | TracebackType | None) -> None: ...

# -- Modules --

@final
class Module:
    """Kernels of yours: of an image on CUDA; on the host backend functions take their places. Made by `Context.module`."""

    def register(self, name: str, function: Callable[..., Any]) -> None:
        """Gives a kernel's name to a function that takes its place on the host backend; another one of the name is replaced for
        kernels asked for later. It is called as `function(block, *arguments)` for each block, on threads of the library. On
        CUDA it is not used."""
    def kernel(self, name: str) -> Kernel:
        """The kernel of a name. C++ kernels are found by their mangled names, or by their own if they are `extern "C"`."""
    @property
    def handle(self) -> int:
        """`gmb_module.id`, for C++ in the same process."""
    def close(self) -> None:
        """Later calls of it raise `Closed`; its kernels stay, and it is unloaded with the last of them. Twice is once."""
    def __enter__(self) -> Self: ...
    def __exit__(self, *_ended: type[BaseException] | BaseException | TracebackType | None) -> None: ...

@final
class Kernel:
    """A kernel of a module, made by `Module.kernel`."""

    def launch(self, grid: _Shape, block: _Shape, args: Sequence[_Argument] = ..., *, shared_bytes: int = 0,
               stream: _Stream | None = None) -> None:
        """Launches it: `grid` blocks of `block` threads, each a number or up to three. Arguments are arrays of the device, by
        their addresses, numbers of ctypes and NumPy, structs of ctypes, and bytes; a plain number has no size, and is refused.
        Does not wait. The arrays are kept until it is done; not while the stream is being captured."""
    @property
    def name(self) -> str: ...
    @property
    def most_threads(self) -> int:
        """Threads of a block, at most."""
    @property
    def most_shared_bytes(self) -> int:
        """Dynamic shared memory of a block in bytes, at most."""

@final
class KernelBlock:
    """One block of a launch, as a function that takes a kernel's place sees it."""

    @property
    def grid(self) -> tuple[int, int, int]:
        """Blocks of the launch in each dimension: `gridDim`."""
    @property
    def block(self) -> tuple[int, int, int]:
        """Threads of a block: `blockDim`."""
    @property
    def index(self) -> tuple[int, int, int]:
        """Which block this is: `blockIdx`."""
    @property
    def shared(self) -> bytearray:
        """Its dynamic shared memory, zeroed."""
    @property
    def threads(self) -> range:
        """The numbers that its threads have in the launch's first dimension: `blockIdx.x * blockDim.x + threadIdx.x`."""

# -- Coordinators --

@final
class Coordinator:
    """Uploads, compute and downloads, on a stream each: any graph of operations that come after each other. Made by
    `Context.coordinator`."""

    def upload(self, to: _Tensor | TripleBuffer, from_: _Tensor, after: Sequence[Operation] = ...) -> Operation:
        """Queues a copy of `from_`, an array on the host, to `to`: an array on the device, of the same dtype and as many
        elements, or a triple buffer, whose next free buffer is taken. After the operations of `after`. Does not wait for the
        device; both arrays are kept until it is done, and `from_` must not be written to."""
    def download(self, to: _Tensor, from_: _Tensor | TripleBuffer, after: Sequence[Operation] = ...) -> Operation:
        """Queues a copy of `from_`, an array on the device, or the next buffer of a triple buffer that was processed, to `to`,
        an array on the host."""
    def compute(self, what: Kernel | _Enqueues, grid: _Shape | None = None, block: _Shape | None = None,
                args: Sequence[_Argument] = ..., *, shared_bytes: int = 0, triple: TripleBuffer | None = None,
                after: Sequence[Operation] = ...) -> Operation:
        """Queues a kernel, with its launch as of `Kernel.launch`, or whatever a function enqueues. The function is called at
        once, as `what(stream)`, with the stream as the current one; what it gives is kept until the operation is done, and an
        exception ends that. With a triple buffer the address of its next buffer to process comes before a kernel's arguments,
        and `what(stream, buffer)` gets it as an array."""
    def push(self, mailbox: Mailbox, records: _Tensor, *, msg_type: int = 0, step: _Step = "process",
             timeout: float | None = None, after: Sequence[Operation] = ...) -> Operation:
        """Queues a push of the rows of `records`, an array on the device, on the stream of a step. How many were accepted is
        the operation's count. Waits for room under "wait" alone, for at most `timeout` seconds."""
    def pop(self, mailbox: Mailbox, out: SupportsDLPack, max: int | None = None, *, reader: int = 0, step: _Step = "process",
            after: Sequence[Operation] = ...) -> Operation:
        """Queues a pop of up to `max` records (None: as many as `out` has rows) to `out`, an array on the device, on the stream
        of a step. How many came is the operation's count."""
    def graph(self, tasks: Sequence[Task]) -> list[Operation]:
        """Queues tasks, in any order in which they do not come after each other in a circle: their operations, in the order of
        the list. One that cannot be enqueued fails, and those after it; the others go on."""
    def poll(self, max: int | None = None) -> list[Completion]:
        """What is done and was not told yet, each once, at most `max`: an operation never before those that it came after.
        Never blocks."""
    def wait(self, operation: Operation, timeout: float | None = None) -> Completion:
        """Blocks until an operation is done, for at most `timeout` seconds, and raises why it failed."""
    def synchronize(self, timeout: float | None = None) -> None:
        """Blocks until all operations are done that were queued before the call, for at most `timeout` seconds. How they ended
        is for `poll` to tell."""
    def stream(self, step: _Step) -> Stream:
        """The stream of a step, for work of your own and for events."""
    def stats(self) -> _CoordinatorStats:
        """Counts of the coordinator at one moment."""
    def _settled(self) -> int: ...
    @property
    def handle(self) -> int:
        """`gmb_coordinator.id`, for C++ in the same process."""
    def close(self) -> None:
        """Waits until all operations are done; later calls raise `Closed`, and so do those that wait. Twice is once."""
    def __enter__(self) -> Self: ...
    def __exit__(self, *_ended: type[BaseException] | BaseException | TracebackType | None) -> None: ...

@final
class Operation:
    """An operation that was queued. Wait for it, `await` it, or have others come after it. Without a reference it goes on."""

    def wait(self, timeout: float | None = None) -> Completion:
        """Blocks until it is done, for at most `timeout` seconds, and raises why it failed. However often, it is the same."""
    def poll(self) -> Completion | None:
        """The same without blocking: None while it is not done."""
    def __await__(self) -> Generator[Any, None, Completion]:
        """The event loop asks now and then, no thread waits."""
    @property
    def coordinator(self) -> Coordinator:
        """That it was queued by."""
    @property
    def id(self) -> int:
        """Its number in the C API, a `gmb_operation.id`."""
    @property
    def number(self) -> int:
        """Which one of its coordinator's, as messages have it."""
    @property
    def kind(self) -> _Kind: ...
    def __eq__(self, value: object, /) -> bool: ...
    def __hash__(self) -> int: ...

@final
class Completion:
    """An operation that is done, or failed."""

    @property
    def operation(self) -> Operation:
        """Which."""
    @property
    def kind(self) -> _Kind: ...
    @property
    def count(self) -> int:
        """Records pushed or popped."""
    @property
    def error(self) -> BaseException | None:
        """Why it failed: what its function raised, or an error of the package."""
    @property
    def cause(self) -> Operation | None:
        """The operation that failed first: itself, or one that it came after. None for success."""

@final
class Task:
    """An operation of a graph, and what it comes after: tasks of the graph by their places in its list, from 0, and operations
    that were queued before. As the coordinator's methods."""

    @staticmethod
    def upload(to: _Tensor | TripleBuffer, from_: _Tensor, after: Sequence[int | Operation] = ...) -> Task: ...
    @staticmethod
    def download(to: _Tensor, from_: _Tensor | TripleBuffer, after: Sequence[int | Operation] = ...) -> Task: ...
    @staticmethod
    def compute(what: Kernel | _Enqueues, grid: _Shape | None = None, block: _Shape | None = None,
                args: Sequence[_Argument] = ..., *, shared_bytes: int = 0, triple: TripleBuffer | None = None,
                after: Sequence[int | Operation] = ...) -> Task: ...
    @staticmethod
    def push(mailbox: Mailbox, records: _Tensor, *, msg_type: int = 0, step: _Step = "process", timeout: float | None = None,
             after: Sequence[int | Operation] = ...) -> Task:
        """Here a `timeout` of None is none at all."""
    @staticmethod
    def pop(mailbox: Mailbox, out: SupportsDLPack, max: int | None = None, *, reader: int = 0, step: _Step = "process",
            after: Sequence[int | Operation] = ...) -> Task: ...

def version() -> str:
    """Version of the library."""

def _end() -> None: ...
def _sizes() -> list[tuple[str, int]]: ...
