#!/usr/bin/env python3
"""Writes the pictures of the documentation into docs/images; with --verify it fails when they are out of date."""

import os
import sys
from xml.sax.saxutils import escape

FOLDER = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "docs", "images")

# Readable on white and on black: colours of middle lightness for lines, and text that follows the reader's mode.
STYLE = """
  text { font: 14px system-ui, 'DejaVu Sans', sans-serif; fill: #24292f; }
  .name { font-weight: 600; }
  .small { font-size: 12px; fill: #57606a; }
  .box { fill: #f6f8fa; stroke: #6e7781; stroke-width: 1.5; }
  .gpu { fill: #dafbe1; stroke: #2da44e; stroke-width: 1.5; }
  .host { fill: #ddf4ff; stroke: #218bff; stroke-width: 1.5; }
  .full { fill: #2da44e; stroke: #2da44e; }
  .room { fill: none; stroke: #2da44e; stroke-dasharray: 3 3; }
  .zone { fill: none; stroke: #8c959f; stroke-dasharray: 6 4; }
  .line { fill: none; stroke: #6e7781; stroke-width: 2; }
  .head { fill: #6e7781; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; }
    .small { fill: #9da7b3; }
    .box { fill: #21262d; stroke: #8b949e; }
    .gpu { fill: #12341d; stroke: #3fb950; }
    .host { fill: #0c2d4d; stroke: #58a6ff; }
    .line { stroke: #9da7b3; }
    .head { fill: #9da7b3; }
  }
"""


class Picture:
    """Shapes on a plane; writes SVG."""

    style = STYLE

    def __init__(self, width, height, title):
        self.size, self.title, self.parts = (width, height), title, []

    def rectangle(self, x, y, width, height, kind, round=6):
        self.parts.append(f'<rect class="{kind}" x="{x}" y="{y}" width="{width}" height="{height}" rx="{round}"/>')

    def text(self, x, y, words, kind="", anchor="middle"):
        self.parts.append(f'<text class="{kind}" x="{x}" y="{y}" text-anchor="{anchor}">{escape(words)}</text>')

    def box(self, x, y, width, height, kind, name, *lines):
        self.rectangle(x, y, width, height, kind)
        top = y + height / 2 + 5 - 9 * len(lines)
        self.text(x + width / 2, top, name, "name")
        for number, line in enumerate(lines, 1):
            self.text(x + width / 2, top + 18 * number, line, "small")

    def arrow(self, *points):
        path = " L ".join(f"{x} {y}" for x, y in points)
        self.parts.append(f'<path class="line" d="M {path}" marker-end="url(#head)"/>')

    def svg(self):
        width, height = self.size
        return "\n".join([
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
            f' role="img" aria-label="{escape(self.title)}">',
            f"<title>{escape(self.title)}</title>",
            f"<style>{self.style}</style>",
            '<defs><marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" '
            'orient="auto"><path class="head" d="M 0 0 L 10 5 L 0 10 z"/></marker></defs>',
            *self.parts,
            "</svg>", ""])


def house():
    """The folders, and the one direction of calls."""
    p = Picture(760, 560, "The folders of the library and the direction of calls")
    p.box(20, 20, 220, 64, "box", "C program", "include/gpumailbox.h")
    p.box(270, 20, 220, 64, "box", "C++ program", "include/gpumailbox.hpp")
    p.box(520, 20, 220, 64, "box", "Rust program", "the crate gpumailbox")
    p.arrow((130, 84), (130, 138))
    p.arrow((380, 84), (380, 111), (180, 111), (180, 138))
    p.arrow((630, 84), (630, 238))
    p.box(20, 140, 470, 60, "box", "src/capi/", "checks arguments, turns errors into codes")
    p.arrow((255, 200), (255, 238))
    p.box(20, 240, 720, 60, "box", "src/*.rs, src/mailbox/, src/tensor/",
          "contexts, streams, events, memory, mailboxes, tokens, tensors")
    p.arrow((380, 300), (380, 338))
    p.box(20, 340, 720, 60, "box", "src/backend/", "what a device must do: memory, streams, events, launches")
    p.arrow((195, 400), (195, 438))
    p.arrow((565, 400), (565, 438))
    p.box(20, 440, 350, 48, "gpu", "kernels/mailbox.cu")
    p.box(390, 440, 350, 48, "host", "kernels/host.cpp")
    p.text(205, 426, "cuda.rs", "small", "start")
    p.text(575, 426, "host.rs", "small", "start")
    p.arrow((195, 488), (195, 508))
    p.arrow((565, 488), (565, 508))
    p.rectangle(20, 510, 720, 40, "box")
    p.text(380, 535, "include/gpumailbox/*.cuh: the ring, one source for both", "name")
    return p


def record():
    """A record's way through the ring, and the word that tells the host."""
    p = Picture(860, 400, "A record's way: push kernel, ring, pop kernel, and one pinned word for the host")
    p.rectangle(10, 10, 840, 228, "zone")
    p.text(24, 32, "GPU", "small", "start")
    p.box(30, 50, 130, 60, "gpu", "your records", "device memory")
    p.arrow((160, 80), (208, 80))
    p.box(210, 50, 120, 60, "gpu", "push kernel", "on your stream")
    p.arrow((330, 80), (373, 80))
    p.text(450, 46, "ring in device memory", "small")
    for slot in range(8):
        p.rectangle(375 + 19 * slot, 62, 15, 36, "full" if 2 <= slot < 6 else "room", 2)
    p.arrow((529, 80), (568, 80))
    p.box(570, 50, 120, 60, "gpu", "pop kernel", "on any stream")
    p.arrow((690, 80), (708, 80))
    p.box(710, 50, 126, 60, "gpu", "your output", "device memory")
    p.arrow((270, 110), (270, 150), (420, 150), (420, 104))
    p.text(345, 168, "then publishes the index", "small")
    p.arrow((590, 110), (590, 150), (480, 150), (480, 104))
    p.text(540, 168, "releases the slots", "small")
    p.arrow((675, 110), (675, 148), (753, 148), (753, 178))
    p.box(670, 180, 166, 48, "gpu", "gmb_result", "for kernels and graphs")
    p.arrow((632, 110), (632, 278))
    p.rectangle(10, 250, 840, 140, "zone")
    p.text(24, 272, "host", "small", "start")
    p.box(532, 280, 200, 60, "host", "pinned word", "count, written last")
    p.arrow((532, 310), (352, 310))
    p.box(130, 280, 220, 60, "host", "gmb_token_poll", "reads it, asks no driver")
    p.text(430, 372, "no memcpy, no synchronize: when the word is there, the records are in your output", "small")
    return p


def tensors():
    """Who owns a tensor, from its push until its deleter."""
    p = Picture(860, 400, "A tensor's owners: producer, mailbox, lease, a thread that waits, and the producer again")
    p.rectangle(10, 10, 840, 150, "zone")
    p.text(24, 32, "GPU", "small", "start")
    p.box(30, 46, 170, 60, "gpu", "work that writes", "the producer's stream")
    p.arrow((200, 76), (343, 76))
    p.box(345, 46, 170, 60, "gpu", "the elements", "stay where they are")
    p.arrow((515, 76), (648, 76))
    p.box(650, 46, 180, 60, "gpu", "work that reads", "the consumer's streams")
    p.arrow((115, 106), (115, 144), (740, 144), (740, 108))
    p.text(428, 136, "event: what reads comes after what writes", "small")
    p.rectangle(10, 172, 840, 218, "zone")
    p.text(24, 194, "host", "small", "start")
    owners = (("producer", "memory and deleter"), ("mailbox", "the library owns it"),
              ("lease", "the consumer uses it"), ("waiting", "for the lease's streams"))
    for number, (name, line) in enumerate(owners):
        p.box(30 + 216 * number, 212, 152, 68, "host", name, line)
    for number, call in enumerate(("push", "pop", "release")):
        left = 182 + 216 * number
        p.arrow((left, 234), (left + 62, 234))
        p.text(left + 28, 223, call, "small")
    p.arrow((246, 267), (184, 267))
    p.text(216, 256, "refused", "small")
    p.arrow((754, 280), (754, 340), (106, 340), (106, 282))
    p.text(640, 332, "done: the deleter", "small")
    p.arrow((322, 280), (322, 338))
    p.text(332, 306, "replaced, dropped, never popped:", "small", "start")
    p.text(332, 322, "after the producer's stream", "small", "start")
    p.text(430, 374, "deleters run on a thread of the library, under no lock; no thread of yours waits", "small")
    return p


def put(path, text, verify, writer="scripts/pictures.py"):
    """Writes a file, or fails when it says something else."""
    if verify:
        if not os.path.exists(path) or open(path, encoding="utf-8").read() != text:
            sys.exit(f"error: {path} is out of date: run {writer}")
        return
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def main(verify):
    for name, picture in {"house.svg": house(), "record.svg": record(), "tensors.svg": tensors()}.items():
        put(os.path.join(FOLDER, name), picture.svg(), verify)


if __name__ == "__main__":
    main("--verify" in sys.argv[1:])
