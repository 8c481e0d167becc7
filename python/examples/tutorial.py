#!/usr/bin/env python3
"""A simulation and two consumers of its state: one wants the newest state now and then, one wants as many as it can get.

A damped wave runs on a grid. Each step is pushed into two mailboxes: one with the policy "latest", which a slow observer
looks into, and one with "overwrite_oldest", which a recorder empties from time to time. With --svg the steps that each of
them saw are drawn: always the same picture on the host backend.
"""
from __future__ import annotations

from typing import Any, Callable
from xml.sax.saxutils import escape

import numpy

import gpumailbox
from common import Device, check, parser

CELLS = 64
STEPS = 240
SEED = 7
# The cell whose height is drawn.
PROBE = 20
# Steps from one look of the observer to the next, and from one of the recorder to the next.
OBSERVER = 18
RECORDER = 40
# States that the recorder's mailbox holds: fewer than come between two looks.
CAPACITY = 32

# Of the other pictures of the documentation.
STYLE = """
  text { font: 14px system-ui, 'DejaVu Sans', sans-serif; fill: #24292f; }
  .name { font-weight: 600; }
  .small { font-size: 12px; fill: #57606a; }
  .zone { fill: none; stroke: #8c959f; stroke-dasharray: 6 4; }
  .wave { fill: none; stroke: #8c959f; stroke-width: 1.5; }
  .gap { fill: #8c959f; fill-opacity: 0.2; }
  .look { stroke: #8c959f; stroke-dasharray: 2 3; }
  .latest { fill: #218bff; }
  .oldest { fill: #2da44e; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; }
    .small { fill: #9da7b3; }
  }
"""


class Wave:
    """A string between two fixed ends, plucked at random. Its arrays are of NumPy, or of PyTorch on the GPU."""

    def __init__(self, device: Device) -> None:
        generator = numpy.random.default_rng(SEED)
        height = numpy.zeros(CELLS, numpy.float32)
        for _ in range(5):
            middle, width = int(generator.integers(12, CELLS - 12)), int(generator.integers(5, 11))
            pluck = 1 - numpy.abs(numpy.arange(CELLS, dtype=numpy.float32) - middle) / width
            height += numpy.maximum(pluck, 0) * numpy.float32(generator.uniform(-1, 1))
        self.height, self.speed = device.to_device(height), device.to_device(numpy.zeros_like(height))

    def step(self) -> None:
        """New arrays each time: those that were pushed before may still be read."""
        pull = self.height * -2
        pull[1:] += self.height[:-1]
        pull[:-1] += self.height[1:]
        self.speed = (self.speed + pull * 0.2) * 0.994
        self.speed[0] = self.speed[-1] = 0
        self.height = self.height + self.speed


class Consumer:
    """What somebody saw who pops up to `most` records at a time."""

    def __init__(self, mailbox: gpumailbox.Mailbox, most: int, device: Device) -> None:
        self.mailbox, self.most, self.device = mailbox, most, device
        self.steps: list[int] = []
        self.states: list[Any] = []
        self.looks: list[int] = []
        self.lost: list[int] = []

    def look(self, now: int) -> None:
        records = self.mailbox.pop(self.most, headers=True)
        self.looks.append(now)
        self.lost.append(records.lost)
        # Every record carries the step that it was made in as its type.
        self.steps += self.device.to_host(records.types).tolist()
        self.states += list(self.device.to_host(records).copy())


def simulate(backend: Any) -> tuple[list[Any], Consumer, Consumer]:
    device = Device(backend)
    context, wave = device.context, Wave(device)
    newest = context.mailbox(2, dtype="float32", shape=(CELLS,), full_policy="latest")
    recent = context.mailbox(CAPACITY, dtype="float32", shape=(CELLS,), full_policy="overwrite_oldest")
    observer, recorder = Consumer(newest, 1, device), Consumer(recent, CAPACITY, device)
    truth = []
    for step in range(STEPS):
        wave.step()
        truth.append(wave.height)
        state = wave.height.reshape(1, CELLS)
        newest.push(state, msg_type=step)
        recent.push(state, msg_type=step)
        if (step + 1) % OBSERVER == 0:
            observer.look(step)
        if (step + 1) % RECORDER == 0:
            recorder.look(step)
    truth = [height if isinstance(height, numpy.ndarray) else height.cpu().numpy() for height in truth]
    return truth, observer, recorder


def verify(truth: list[Any], observer: Consumer, recorder: Consumer) -> None:
    for name, consumer in (("observer", observer), ("recorder", recorder)):
        check(all(numpy.array_equal(state, truth[step]) for step, state in zip(consumer.steps, consumer.states)),
              f"{name}: {len(consumer.steps)} states, each as it was in its step")
        # What came after the last look was not asked for.
        check(len(consumer.steps) + sum(consumer.lost) == consumer.looks[-1] + 1,
              f"{name}: {sum(consumer.lost)} more were lost, and pop said so")
    check(observer.steps == observer.looks, "observer: each look gave the state of that very step")
    expected = [step for now in recorder.looks for step in range(now + 1 - CAPACITY, now + 1)]
    check(recorder.steps == expected, "recorder: each look gave the states that the mailbox still held, in order")


LEFT, WIDTH, HEIGHT = 20, 720, 120


def panel(parts: list[str], top: int, truth: list[Any], title: str, words: str) -> Callable[[int], tuple[str, str]]:
    """The probe's height in every step, thin; gives where a step is."""
    heights = [float(state[PROBE]) for state in truth]
    most = max(abs(height) for height in heights)

    def at(step: int) -> tuple[str, str]:
        x, y = LEFT + 10 + (WIDTH - 20) * step / (STEPS - 1), top + 38 + HEIGHT / 2 * (1 - heights[step] / most)
        return f"{x:.1f}", f"{y:.1f}"

    parts.append(f'<rect class="zone" x="{LEFT}" y="{top + 30}" width="{WIDTH}" height="{HEIGHT + 16}" rx="6"/>')
    parts.append(f'<text class="name" x="{LEFT}" y="{top + 18}">{escape(title)}</text>')
    parts.append(f'<text class="small" x="{LEFT + WIDTH}" y="{top + 18}" text-anchor="end">{escape(words)}</text>')
    line = " L ".join(" ".join(at(step)) for step in range(STEPS))
    parts.append(f'<path class="wave" d="M {line}"/>')
    return at


def draw(truth: list[Any], observer: Consumer, recorder: Consumer) -> str:
    title = "A wave's height in one cell, and the steps that an observer and a recorder saw"
    parts: list[str] = []

    words = f"{len(observer.steps)} of {STEPS} steps seen, {sum(observer.lost)} replaced by newer ones before a look"
    at = panel(parts, 10, truth, 'observer, "latest"', words)
    for step in observer.steps:
        x, y = at(step)
        parts.append(f'<path class="look" d="M {x} 40 V 176"/><circle class="latest" cx="{x}" cy="{y}" r="5"/>')

    words = f"{len(recorder.steps)} of {STEPS} steps seen, {sum(recorder.lost)} overwritten before a look"
    at = panel(parts, 200, truth, 'recorder, "overwrite_oldest"', words)
    seen, begin = set(recorder.steps), None
    for step in range(STEPS + 1):
        lost = step < STEPS and step not in seen
        if lost and begin is None:
            begin = step
        elif not lost and begin is not None:
            left, right = at(begin)[0], at(step - 1)[0]
            long = float(right) - float(left)
            parts.append(f'<rect class="gap" x="{left}" y="231" width="{long:.1f}" height="134"/>')
            begin = None
    for step in recorder.steps:
        x, y = at(step)
        parts.append(f'<circle class="oldest" cx="{x}" cy="{y}" r="2.5"/>')
    for now in recorder.looks:
        x = at(now)[0]
        parts.append(f'<path class="look" d="M {x} 230 V 366"/>')

    for base, words in ((394, "Thin line: the height of one cell in every step. Dots: the steps that came out."),
                     (412, "Dotted lines: when somebody looked. Grey: steps that were overwritten.")):
        parts.append(f'<text class="small" x="{LEFT}" y="{base}">{words}</text>')
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 760 424" width="760" height="424" role="img" '
        f'aria-label="{escape(title)}">',
        f"<title>{escape(title)}</title>", f"<style>{STYLE}</style>", *parts, "</svg>", ""])


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--svg", metavar="PATH", help="where to write the picture")
    options = arguments.parse_args()
    truth, observer, recorder = simulate(options.backend)
    verify(truth, observer, recorder)
    if options.svg:
        with open(options.svg, "w", encoding="utf-8") as file:
            file.write(draw(truth, observer, recorder))
        print(f"wrote {options.svg}")


if __name__ == "__main__":
    main()
