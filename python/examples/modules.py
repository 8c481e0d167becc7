#!/usr/bin/env python3
"""Three modules over two mailboxes, each with a thread and a stream of its own, give what they give one after the other.

On the host they are functions of NumPy, on a GPU modules of PyTorch.
"""
from __future__ import annotations

import contextlib
import threading
from typing import Any, Callable

import numpy

import gpumailbox
from common import Device, check, parser

BATCHES = 40
BATCH = 32
WIDTH = 64
PATIENCE = 60.0

Module = Callable[[Any], Any]


class Host:
    """NumPy on the host backend."""

    def __init__(self, context: gpumailbox.Context) -> None:
        self.context = context

    def modules(self) -> tuple[Module, Module, Module]:
        generator = numpy.random.default_rng(1)
        weights = [generator.standard_normal((WIDTH, WIDTH), numpy.float32) / 8 for _ in range(2)]
        return (lambda x: numpy.tanh(x @ weights[0]), lambda x: x - x.mean(axis=1, keepdims=True),
                lambda x: numpy.maximum(x @ weights[1], 0))

    def batches(self) -> list[Any]:
        generator = numpy.random.default_rng(2)
        return [generator.standard_normal((BATCH, WIDTH), numpy.float32) for _ in range(BATCHES)]

    def stream(self) -> Any:
        return self.context.use_stream(self.context.stream())

    def popped(self, records: gpumailbox.Array) -> Any:
        return numpy.from_dlpack(records)

    def same(self, ours: Any, theirs: Any) -> bool:
        return numpy.array_equal(ours, theirs)


class Gpu:
    """PyTorch: its current stream is what pushes and pops are for."""

    def __init__(self, context: gpumailbox.Context, torch: Any) -> None:
        self.context, self.torch = context, torch

    def modules(self) -> tuple[Module, Module, Module]:
        nn = self.torch.nn
        self.torch.manual_seed(1)
        return (nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh()).cuda().eval(), nn.LayerNorm(WIDTH).cuda().eval(),
                nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU()).cuda().eval())

    def batches(self) -> list[Any]:
        self.torch.manual_seed(2)
        return [self.torch.randn(BATCH, WIDTH, device="cuda") for _ in range(BATCHES)]

    def stream(self) -> Any:
        return self.torch.cuda.stream(self.torch.cuda.Stream())

    def popped(self, records: gpumailbox.Array) -> Any:
        return self.torch.from_dlpack(records)

    def same(self, ours: Any, theirs: Any) -> bool:
        return bool(self.torch.allclose(ours, theirs, rtol=1e-5, atol=1e-6))


def main() -> None:
    opened = Device(parser(__doc__).parse_args().backend)
    device = Gpu(opened.context, opened.torch) if opened.torch else Host(opened.context)
    no_grad: Any = contextlib.nullcontext if isinstance(device, Host) else device.torch.no_grad
    first, second, third = device.modules()
    inputs = device.batches()
    with no_grad():
        expected = [third(second(first(batch))) for batch in inputs]
    if isinstance(device, Gpu):
        # Weights and inputs were made on the default stream, and are read on others.
        device.torch.cuda.synchronize()

    # "wait": a batch is pushed as a whole, and a module that is ahead waits for the one behind it.
    boxes = [device.context.mailbox(4 * BATCH, dtype="float32", shape=(WIDTH,), full_policy="wait") for _ in range(2)]
    outputs: list[Any] = []
    failures: list[BaseException] = []

    def take(mailbox: gpumailbox.Mailbox) -> Any:
        mailbox.wait_readable(BATCH, timeout=PATIENCE)
        records = mailbox.pop(BATCH)
        if len(records) != BATCH:
            raise RuntimeError(f"{len(records)} records came of a batch of {BATCH}")
        return device.popped(records)

    def head() -> None:
        for batch in inputs:
            boxes[0].push(first(batch), timeout=PATIENCE)

    def middle() -> None:
        for _ in range(BATCHES):
            boxes[1].push(second(take(boxes[0])), timeout=PATIENCE)

    def tail() -> None:
        for _ in range(BATCHES):
            outputs.append(third(take(boxes[1])))
        if isinstance(device, Gpu):
            device.torch.cuda.current_stream().synchronize()

    def run(module: Callable[[], None]) -> None:
        try:
            with device.stream(), no_grad():
                module()
        except BaseException as error:
            failures.append(error)
            # Whoever waits for this module is woken.
            for box in boxes:
                box.close()

    threads = [threading.Thread(target=run, args=(module,)) for module in (head, middle, tail)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]

    check(len(outputs) == BATCHES, f"{BATCHES} batches of {BATCH} records came through three modules")
    check(all(device.same(ours, theirs) for ours, theirs in zip(outputs, expected)),
          "they are those of the modules one after the other")
    counts = [box.stats() for box in boxes]
    check(all(count["published"] == count["released"] == BATCHES * BATCH and count["rejected"] == 0 for count in counts),
          "both mailboxes are empty, and rejected nothing")


if __name__ == "__main__":
    main()
