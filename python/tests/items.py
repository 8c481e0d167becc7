"""What the tests of queues and of workers share: items, queues of them, and a sequential program in place of a worker."""
import numpy as np
import pytest

from gpumailbox import InvalidArgument
from lab import bits

# What an item is, and its type in NumPy.
KINDS = [(dict(dtype="int32"), "int32"), (dict(dtype="float32"), "float32"), (dict(dtype="int64"), "int64"),
         (dict(dtype="complex128"), "complex128"), (dict(item_bytes=4), "float32"), (dict(item_bytes=8), "int64"),
         (dict(item_bytes=16), "complex128")]
kinds = pytest.mark.parametrize("kind, dtype", KINDS, ids=[" ".join(map(str, *kind.items())) for kind, _ in KINDS])
# What Python itself says of a number that is none, or does not fit.
NUMBER = (InvalidArgument, OverflowError, TypeError)


def random_items(rng, count, dtype):
    return rng.integers(0, 256, (count, np.dtype(dtype).itemsize), dtype=np.uint8).view(dtype).reshape(count)


def split(of, size):
    """The bytes of each item."""
    raw = bits(of)
    return [raw[at:at + size] for at in range(0, len(raw), size)]


def queues(lab, count, capacity=1024, dtype="int64"):
    return [lab.context.queue(capacity, dtype=dtype) for _ in range(count)]


def contents(queue, dtype="int64"):
    return np.frombuffer(queue.pop_to_host(queue.capacity), dtype).tolist()


def modelled(values, first, increment, spawn_interval, size):
    """What a worker makes of items of so many bytes, of which the first one is the queue's `first`: finished and spawned."""
    out = [[], []]
    for ticket, value in enumerate(values, first):
        # Of 16 bytes the first 8 count.
        counts, rest = value[:8], value[8:]
        number = (int.from_bytes(counts, "little") + increment) % 2**(8 * min(size, 8))
        spawns = spawn_interval and (ticket + 1) % spawn_interval == 0
        out[1 if spawns else 0].append(number.to_bytes(len(counts), "little") + rest)
    return out
