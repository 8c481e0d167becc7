#!/usr/bin/env python3
"""Tensors by pointer: nothing is copied, and the producer's memory stays until its last user is done."""
from __future__ import annotations

import time
from typing import Callable

import numpy

import gpumailbox
from common import Device, check, parser


def until(condition: Callable[[], bool], seconds: float = 10) -> bool:
    """Tensors go back on a thread of the library, a moment after the last of them was let go of."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.001)
    return True


def main() -> None:
    device = Device(parser(__doc__).parse_args().backend)
    context, arrays = device.context, device.torch or numpy
    where = {"device": "cuda"} if device.torch else {}
    mailbox = context.tensor_mailbox(4)

    # The producer hands a tensor over and forgets it. The mailbox keeps its memory.
    made = arrays.arange(12, dtype=arrays.float32, **where).reshape(3, 4)
    address = made.data_ptr() if device.torch else made.ctypes.data
    mailbox.push(made, tag=7)
    del made
    check(mailbox.stats()["queued"] == 1, "a tensor waits in the mailbox")

    # The consumer gets a lease of the same memory.
    tensor = mailbox.pop()
    if tensor is None:
        raise RuntimeError("nothing came")
    check(tensor.data_ptr == address, "what is popped lies where it was pushed from")
    check((tensor.shape, tensor.strides, tensor.dtype, tensor.tag) == ((3, 4), (4, 1), "float32", 7),
          "shape, strides, type and tag came with it")

    # Whatever from_dlpack makes of it holds the memory, too, also when the lease itself has ended.
    mine = arrays.from_dlpack(tensor)
    tensor.release()
    check(mailbox.stats()["leases"] == 1, "the lease was released, and an array still has the memory")
    check(float(mine.sum()) == 66, "the array can be read")
    try:
        arrays.from_dlpack(tensor)
        raise RuntimeError("a released tensor was given out")
    except gpumailbox.Closed as error:
        check(error.name == "INVALID_HANDLE", "a lease that has ended gives nothing out")
    del mine
    check(until(lambda: mailbox.stats()["released"] == 1), "then it went back to its producer")

    # A stream that the consumer uses beside is told to the lease: it is waited for, too.
    second = context.stream("focus")
    mailbox.push(arrays.ones(5, **where))
    tensor = mailbox.pop(timeout=10)
    if tensor is None:
        raise RuntimeError("nothing came in time")
    tensor.use_on(second)
    tensor.release()
    check(until(lambda: mailbox.stats()["released"] == 2), "a second stream was waited for")
    second.close()

    # A full mailbox says so at once, and the tensor stays its producer's.
    for number in range(4):
        mailbox.push(arrays.zeros(1, **where), number)
    try:
        mailbox.push(arrays.zeros(1, **where))
        raise RuntimeError("five tensors went into a mailbox for four")
    except gpumailbox.Full:
        check(mailbox.stats()["refused"] == 1, "the fifth tensor was refused")
    order = [tensor.tag for tensor in (mailbox.pop() for _ in range(4)) if tensor is not None]
    check(order == [0, 1, 2, 3] and mailbox.pop() is None, "the others came in their order, and then None")

    # "latest" keeps only the newest: the others go back at once.
    newest = context.tensor_mailbox(4, full_policy="latest")
    for number in range(3):
        newest.push(arrays.zeros(1, **where), number)
    only = newest.pop()
    check(only is not None and only.tag == 2 and newest.pop() is None, 'under "latest" there is one, the newest')
    del only
    check(until(lambda: (mailbox.stats()["released"], newest.stats()["released"]) == (6, 3)), "in the end all went back")
    newest.close()
    mailbox.close()


if __name__ == "__main__":
    main()
