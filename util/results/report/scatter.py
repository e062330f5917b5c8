"""Scatter plots as SVG: the Dice of each mask over its confidence, with the curve of their means."""

import math
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from util.files import write_text
from util.results.confidence import ConfidenceWorth, measure_worth
from util.results.metrics import CONFIDENCE
from util.results.report.strip import Point, round_ticks
from util.results.templates import environment

WIDTH, HEIGHT = 720, 300  # units of the drawing
LEFT, RIGHT, TOP, BOTTOM = 52, 16, 10, 44
FEWEST = 3  # masks in a plot
TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Scatter:
    """A scatter plot; all numbers are units of the drawing, ticks are (place, label).

    Attributes:
        points: one for each mask.
        curve: corners of the line of mean Dice over mean confidence, in parts of equally many masks.
        limit: place of the limit below which masks are to be looked at; None: there is none.
        worth: the figures.
    """

    points: list[Point]
    curve: list[tuple[float, float]]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    limit: float | None
    worth: ConfidenceWorth
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    top: int = TOP
    bottom: int = HEIGHT - BOTTOM


def save_scatter(path: Path, plot: Scatter) -> None:
    """Writes a plot as an SVG file of its own."""
    write_text(path, environment(TEMPLATES).get_template("scatter.svg.j2").render(plot=plot).strip() + "\n")


def confidence_plot(pairs: pd.DataFrame, anchors: dict[str, str]) -> Scatter | None:
    """The masks of a validation.

    Args:
        pairs: see `util.results.confidence.paired`.
        anchors: case -> id of its row in the page.

    Returns:
        The plot; None with fewer than `FEWEST` masks.
    """
    worth = measure_worth(pairs[CONFIDENCE].to_numpy(float), pairs["dice"].to_numpy(float))
    if len(worth.dice) < FEWEST:
        return None
    ticks = round_ticks(100 * float(worth.confidence[0]), 100 * float(worth.confidence[-1]))
    low, high = ticks[0], ticks[-1]

    def place(confidence: float, dice: float) -> tuple[float, float]:
        x = LEFT + (WIDTH - LEFT - RIGHT) * (100 * confidence - low) / (high - low)
        return round(x, 1), round(TOP + (HEIGHT - TOP - BOTTOM) * (1 - dice), 1)

    points = []
    for each in pairs.sort_values(CONFIDENCE).to_dict("records"):
        confidence, dice = float(each[CONFIDENCE]), float(each["dice"])
        if not math.isnan(confidence + dice):
            label = f"{each['case']}, {each['structure']}: confidence {100 * confidence:.1f}, Dice {100 * dice:.1f}"
            points.append(Point(*place(confidence, dice), label, anchors.get(each["case"], "")))
    return Scatter(
        points,
        [place(confidence, dice) for confidence, dice, _ in worth.bins],
        [(place(tick / 100, 0.0)[0], f"{tick:g}") for tick in ticks],
        [(place(0.0, share)[1], f"{100 * share:g}") for share in (0.0, 0.25, 0.5, 0.75, 1.0)],
        None if worth.limit is None else place(worth.limit, 0.0)[0],
        worth,
    )
