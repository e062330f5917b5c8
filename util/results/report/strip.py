"""Strip plots as SVG: a point for each case, a row for each structure, with median and quartiles."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

WIDTH, LEFT, RIGHT = 720, 130, 16  # units of the drawing
ROW, TOP, BOTTOM = 34, 8, 26
JITTER = 7.0  # points are spread over this much above and below the line
LEAST = 0.1  # of either half of an axis of differences: as small as they are printed


@dataclass(frozen=True)
class Point:
    """A case in a strip.

    Attributes:
        x, y: place in the drawing.
        label: what is told of it.
        anchor: id of the case's row in the page.
    """

    x: float
    y: float
    label: str
    anchor: str


@dataclass(frozen=True)
class Strip:
    """The points of a structure; `box` has the places of the quartiles, `median` that of the median."""

    name: str
    y: float
    points: list[Point]
    median: float | None
    box: tuple[float, float] | None
    summary: str


@dataclass(frozen=True)
class Plot:
    """A strip plot; all numbers are units of the drawing, `ticks` are (place, label)."""

    height: int
    strips: list[Strip]
    ticks: list[tuple[float, str]]
    zero: float | None
    width: int = WIDTH
    left: int = LEFT
    right: int = WIDTH - RIGHT
    bottom: int = 0


Case = tuple[str, str, float]  # id, anchor, value


def make_plot(
    values: Sequence[tuple[str, Sequence[Case]]],
    low: float | None = None,
    high: float | None = None,
    signed: bool = False,
) -> Plot | None:
    """Places all cases.

    Args:
        values: structure -> cases; undefined values (NaN) are left out.
        low: end of the axis; None: that of the values.
        high: other end, likewise.
        signed: whether values are differences: the axis is symmetrical and zero is marked.

    Returns:
        The plot; None without any defined value.
    """
    known = [value for _, cases in values for *_, value in cases if not math.isnan(value)]
    if not known:
        return None
    if signed:
        high = max(*map(abs, known), LEAST)
        low = -high
    low, high = min(known) if low is None else low, max(known) if high is None else high
    ticks = round_ticks(low, high)
    low, high = min(low, ticks[0]), max(high, ticks[-1])

    def place(value: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * (value - low) / (high - low), 1)

    strips = [
        _strip(name, TOP + ROW * (n + 0.5), [case for case in cases if not math.isnan(case[2])], place, signed)
        for n, (name, cases) in enumerate(values)
    ]
    bottom = TOP + ROW * len(strips)
    labels = [(place(tick), f"{tick:+g}" if signed and tick else f"{tick:g}") for tick in ticks]
    return Plot(bottom + BOTTOM, strips, labels, place(0.0) if signed else None, bottom=bottom)


def _strip(name: str, y: float, cases: Sequence[Case], place, signed: bool) -> Strip:
    ordered = sorted(cases, key=lambda case: case[2])
    shown = "{:+.1f}" if signed else "{:.1f}"
    points = [
        Point(place(value), round(y + offset, 1), f"{case}, {name}: {shown.format(value)}", anchor)
        for (case, anchor, value), offset in zip(ordered, _offsets(len(ordered)), strict=False)
    ]
    if not ordered:
        return Strip(name, y, points, None, None, f"{name}: undefined in every case")
    low, median, high = np.percentile([value for *_, value in ordered], (25, 50, 75))
    summary = f"{name}: median {shown.format(median)}, quartiles {shown.format(low)} to {shown.format(high)}"
    return Strip(name, y, points, place(median), (place(low), place(high)), f"{summary}, {len(ordered)} cases")


def _offsets(n: int) -> Iterator[float]:
    """Heights that keep neighbours in the order of values apart; all on the line where points are few."""
    pattern = (0.0, -0.55, 0.55, -1.0, 1.0) if n > 3 else (0.0,)
    return (JITTER * pattern[place % len(pattern)] for place in range(n))


def round_ticks(low: float, high: float) -> list[float]:
    """Round numbers that span the range, four to eight of them."""
    span = max(high - low, 1e-6)
    step = 10 ** math.floor(math.log10(span / 4))
    step = next(step * factor for factor in (1, 2, 5, 10) if span / (step * factor) <= 6)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(float(step * n), 10) for n in range(first, max(last, first + 1) + 1)]
