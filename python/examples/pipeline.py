#!/usr/bin/env python3
"""A triple-buffered loop, in which uploads, kernels and downloads overlap, and a graph of operations that forks and joins.

The kernel is PTX on a GPU; on the host backend a function takes its place.
"""
from __future__ import annotations

from typing import Any

import numpy

import gpumailbox
from common import Device, check, parser

ELEMENTS = 1 << 16
TURNS = 20
PTX = b"""
.version 7.0
.target sm_75
.address_size 64
.visible .entry scale(.param .u64 to, .param .u64 from, .param .f32 by, .param .u32 count) {
  .reg .pred %p; .reg .b32 %r<5>; .reg .f32 %f<3>; .reg .b64 %d<4>;
  mov.u32 %r0, %ctaid.x; mov.u32 %r1, %ntid.x; mov.u32 %r2, %tid.x; mad.lo.u32 %r3, %r0, %r1, %r2;
  ld.param.u32 %r4, [count]; setp.ge.u32 %p, %r3, %r4; @%p ret;
  ld.param.u64 %d0, [to]; ld.param.u64 %d1, [from]; ld.param.f32 %f0, [by]; mul.wide.u32 %d2, %r3, 4;
  add.u64 %d1, %d1, %d2; ld.global.f32 %f1, [%d1]; mul.f32 %f2, %f1, %f0;
  add.u64 %d0, %d0, %d2; st.global.f32 [%d0], %f2; ret;
}
"""


def scale(block: gpumailbox.KernelBlock, to: Any, source: Any, by: Any, count: int) -> None:
    """What the kernel does, for all threads of a block."""
    mine = slice(block.threads[0], min(block.threads[-1] + 1, count))
    to[mine] = source[mine] * by


def main() -> None:
    device = Device(parser(__doc__).parse_args().backend)
    module = device.context.module(PTX)
    module.register("scale", scale)
    kernel, grid, block = module.kernel("scale"), ELEMENTS // 256, 256
    count = numpy.uint32(ELEMENTS)

    # Three buffers: while one is worked on, the next is uploaded to, and the one before downloaded from.
    inputs = numpy.random.default_rng(1).standard_normal((TURNS, ELEMENTS), numpy.float32)
    outputs = numpy.zeros_like(inputs)
    with device.context.coordinator() as coordinator, device.context.triple_buffer("float32", ELEMENTS) as triple:
        work = device.to_device(numpy.zeros(ELEMENTS, numpy.float32))

        def twice(stream: gpumailbox.Stream, buffer: gpumailbox.Array) -> None:
            """Enqueues whatever it likes: here the kernel, there and back. The stream is the current one."""
            kernel.launch(grid, block, (work, buffer, numpy.float32(3), count))
            kernel.launch(grid, block, (buffer, work, numpy.float32(2), count))

        for turn in range(TURNS):
            uploaded = coordinator.upload(triple, inputs[turn])
            computed = coordinator.compute(twice, triple=triple, after=[uploaded])
            coordinator.download(outputs[turn], triple, after=[computed])
        coordinator.synchronize(timeout=60)
        told = coordinator.poll()
        check(len(told) == 3 * TURNS and all(one.error is None for one in told), f"{len(told)} operations are done")
        check(numpy.array_equal(outputs, inputs * numpy.float32(3) * numpy.float32(2)), f"{TURNS} turns came through the kernel")

        # Two kernels beside each other come after one upload, and a download after both.
        task = gpumailbox.Task
        source, left, right = (device.to_device(numpy.zeros(ELEMENTS, numpy.float32)) for _ in range(3))
        out = numpy.zeros(ELEMENTS, numpy.float32)
        operations = coordinator.graph([
            task.upload(source, inputs[0]),
            task.compute(kernel, grid, block, (left, source, numpy.float32(2), count), after=[0]),
            task.compute(kernel, grid, block, (right, source, numpy.float32(3), count), after=[0]),
            task.compute(kernel, grid, block, (source, left, numpy.float32(5), count), after=[1, 2]),
            task.download(out, source, after=[3]),
        ])
        operations[-1].wait(timeout=60)
        check(numpy.array_equal(out, inputs[0] * numpy.float32(2) * numpy.float32(5)), "and a graph that forks and joins")


if __name__ == "__main__":
    main()
