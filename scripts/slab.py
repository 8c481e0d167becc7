#!/usr/bin/env python3
"""Writes what the example slab found (tests/results/slab.json, by slab --json) into a picture and into the table of
docs/queues.md. With --verify it fails when they are out of date.
"""

import os
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import performance  # noqa: E402
import pictures  # noqa: E402

NAME = "scripts/slab.py"
ROOT = os.path.dirname(pictures.FOLDER.rstrip(os.sep))
RESULTS = os.path.join(os.path.dirname(ROOT), "tests", "results", "slab.json")
FATES = ("reflected", "transmitted", "absorbed")
# Beyond this the example itself fails, so such a file was not written by it.
MOST_ERRORS = 4


def die(words):
    sys.exit(f"error: {words}")


class Plot(pictures.Picture):
    """Histograms with the curve that they should follow."""

    style = pictures.STYLE + """
  .grid { stroke: #8c959f; stroke-width: 1; stroke-opacity: 0.35; }
  .bar { fill: #bf8700; fill-opacity: 0.45; }
  .curve { fill: none; stroke: #6e7781; stroke-width: 1.8; stroke-linejoin: round; }
  .reflected { fill: #2da44e; } .transmitted { fill: #218bff; }
  @media (prefers-color-scheme: dark) {
    .curve { stroke: #9da7b3; }
    .reflected { fill: #3fb950; } .transmitted { fill: #58a6ff; }
  }
"""

    def line(self, points, kind):
        self.parts.append(f'<path class="{kind}" d="M {" L ".join(f"{x:.1f} {y:.1f}" for x, y in points)}"/>')

    def bar(self, x, y, width, height):
        self.parts.append(f'<rect class="bar" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"/>')

    def dot(self, x, y, kind):
        self.parts.append(f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="2.6"/>')


class Axes:
    """A panel whose values go from 0 to `most`, over places from 0 to `wide`."""

    def __init__(self, plot, left, top, width, height, wide, most, step, with_values):
        self.plot, self.left, self.bottom = plot, left, top + height
        self.x, self.y = width / wide, height / most
        for n in range(round(most / step) + 1):
            self.plot.line([self.at(0, n * step), self.at(wide, n * step)], "grid")
            if with_values:
                self.plot.text(left - 8, f"{self.at(0, n * step)[1] + 4:.1f}", f"{n * step:g}", "small", "end")
        for part in (0, 0.5, 1):
            self.plot.text(f"{self.at(part * wide, 0)[0]:.1f}", self.bottom + 17, f"{part * wide:g}", "small")

    def at(self, place, value):
        return self.left + place * self.x, self.bottom - value * self.y


def densities(values, wide):
    """Of each part the middle, and how much of the light there is on a unit."""
    part = wide / len(values)
    return [((n + 0.5) * part, value / part) for n, value in enumerate(values)]


def rounded_up(value, step):
    return step * (int(value / step) + 1)


def picture(found):
    slabs = found["slabs"]
    p = Plot(860, 560, "Where photons end in slabs of three optical depths: as simulated, and by the integral equation")
    width, pitch, first = 230, 265, 62
    depths = [densities(slab["absorbed_by_depth"], slab["optical_depth"]) for slab in slabs]
    tallest = rounded_up(max(value for those in depths for _, value in those), 0.05)
    cosines = [densities(slab[f"{fate}_by_cosine"], 1) for slab in slabs for fate in FATES[:2]]
    widest = rounded_up(max(value for those in cosines for _, value in those), 0.2)
    p.text(first, 66, "absorbed, by optical depth: part of the light on a unit", "small", "start")
    p.text(first, 292, "sent out after scattering, by the cosine of the direction: part of the light on a unit", "small", "start")
    for place, slab in enumerate(slabs):
        left, deep, fates = first + pitch * place, slab["optical_depth"], slab["fates"]
        p.text(left, 24, f"optical depth {deep:g}", "name", "start")
        p.text(left, 43, ", ".join(f"{100 * fates[fate]['measured']:.1f} % {words}" for fate, words in
                               zip(FATES, ("back", "through", "stay"))), "small", "start")
        axes = Axes(p, left, 82, width, 160, deep, tallest, 0.05, place == 0)
        part = width / len(depths[place])
        for n, (_, value) in enumerate(depths[place]):
            p.bar(left + n * part, axes.at(0, value)[1], part, axes.bottom - axes.at(0, value)[1])
        p.line([axes.at(*point) for point in densities(slab["absorbed_by_depth_reference"], deep)], "curve")
        axes = Axes(p, left, 308, width, 160, 1, widest, 0.2, place == 0)
        for fate in FATES[:2]:
            p.line([axes.at(*point) for point in densities(slab[f"{fate}_by_cosine_reference"], 1)], "curve")
            for point in densities(slab[f"{fate}_by_cosine"], 1):
                p.dot(*axes.at(*point), fate)
    y = 522
    p.bar(first, y - 10, 24, 12)
    p.text(first + 32, y, "absorbed", "small", "start")
    p.dot(first + 130, y - 4, "reflected")
    p.text(first + 142, y, "reflected", "small", "start")
    p.dot(first + 240, y - 4, "transmitted")
    p.text(first + 252, y, "transmitted", "small", "start")
    p.line([(first + 360, y - 4), (first + 384, y - 4)], "curve")
    p.text(first + 392, y, "the integral equation of the collisions, solved", "small", "start")
    p.text(first, y + 22, f"{found['photons']} photons came in for each slab, backend {found['backend']}; of the collisions "
           f"{100 * found['albedo']:g} % scatter", "small", "start")
    return p


def table(found):
    rows = []
    for slab in found["slabs"]:
        for fate in FATES:
            got = slab["fates"][fate]
            off = (got["measured"] - got["reference"]) / got["standard_error"]
            if abs(off) > MOST_ERRORS:
                die(f"{RESULTS}: optical depth {slab['optical_depth']}, {fate}: off by {off:.1f} standard errors")
            rows.append((f"{slab['optical_depth']:g}", fate, f"{got['measured']:.5f}", f"{got['standard_error']:.5f}",
                         f"{got['reference']:.5f}", f"{off:+.2f}".replace("-", "−")))
        whole = sum(slab["fates"][fate]["measured"] for fate in FATES)
        if abs(whole - 1) > 5e-6:
            die(f"{RESULTS}: optical depth {slab['optical_depth']}: the fractions add up to {whole}")
    followed = sum(sum(slab["generations"]) for slab in found["slabs"])
    return [f"Backend {found['backend']}, {found['photons']} photons for each slab, seed {found['seed']}; {followed} items went "
            "through the workers.", "",
            *performance.table(("optical depth", "fate", "measured", "standard error", "integral equation", "off by, in errors"),
                               rows)]


def main(verify):
    found = performance.load(RESULTS)
    page = os.path.join(ROOT, "queues.md")
    with open(page, encoding="utf-8") as file:
        text = file.read()
    pictures.put(page, performance.fill(text, {"slab": table(found)}, page), verify, NAME)
    pictures.put(os.path.join(pictures.FOLDER, "slab.svg"), picture(found).svg(), verify, NAME)


if __name__ == "__main__":
    main("--verify" in sys.argv[1:])
