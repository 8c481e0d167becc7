#!/usr/bin/env python3
"""Records from one module to another: on the host with NumPy, on a GPU with PyTorch."""
from __future__ import annotations

import argparse
import importlib
import importlib.util
from typing import Any, Callable

import numpy

import gpumailbox


def check(condition: bool, what: str) -> None:
    if not condition:
        raise RuntimeError(what)
    print(f"ok: {what}")


def open_device(backend: Any) -> tuple[gpumailbox.Context, Callable[[Any], Any], Callable[[Any], Any]]:
    """A context, and how arrays come onto its device and back: with PyTorch on a GPU, with NumPy on the host."""
    torch: Any = importlib.import_module("torch") if importlib.util.find_spec("torch") else None
    if backend == "auto" and not (torch and torch.cuda.is_available()):
        backend = "host"
    context = gpumailbox.Context(backend)
    if context.backend == "host":
        return context, numpy.asarray, numpy.from_dlpack
    return context, lambda array: torch.from_numpy(array).cuda(), lambda array: torch.from_dlpack(array).cpu().numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", choices=("auto", "host", "cuda"), default="auto")
    context, to_device, to_host = open_device(parser.parse_args().backend)
    print(context)

    # A record is a row: 16 numbers. The mailbox holds 1024 of them.
    mailbox = context.mailbox(1024, dtype="float32", shape=(16,))
    made = numpy.arange(100 * 16, dtype=numpy.float32).reshape(100, 16)
    mailbox.push(to_device(made), msg_type=7)

    records = mailbox.pop(256, headers=True)
    check(len(records) == 100, "256 records were asked for, and pop says that 100 came")
    check(numpy.array_equal(to_host(records), made), "they are those that were pushed")
    check(bool((to_host(records.types) == 7).all()), "each has the type that it was pushed with")
    check(len(mailbox.pop(256)) == 0, "an empty mailbox gives an empty array, and nobody waits")

    # How many were accepted is told to a token. With one, the array must stay until then.
    token = context.token()
    many = to_device(numpy.zeros((2000, 16), numpy.float32))
    mailbox.push(many, token=token)
    accepted = token.wait()
    check(accepted.count == 1024 and accepted.partial, "of 2000 records the mailbox accepts the 1024 that fit")

    # Records of any length, up to what the mailbox was made for: rows of bytes, and how many of each count.
    texts = context.mailbox(8, 64)
    rows = numpy.zeros((2, 64), numpy.uint8)
    words = (b"hello", b"mailbox")
    for row, word in zip(rows, words):
        row[:len(word)] = numpy.frombuffer(word, numpy.uint8)
    texts.push(to_device(rows), lengths=to_device(numpy.array([len(word) for word in words], numpy.int32)))
    popped = texts.pop(8, headers=True)
    came = [bytes(row[:length]) for row, length in zip(to_host(popped), to_host(popped.lengths))]
    check(came == list(words), "records of different lengths come out with theirs")


if __name__ == "__main__":
    main()
