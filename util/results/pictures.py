"""Helpers for all pictures: grids of panels, images, outlines of masks, legends, files.

Figures are drawn without `pyplot`: no window, no global state, safe in threads.
"""

import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, Float, Integer, Num, Shaped
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.text import Text
from skimage.segmentation import mark_boundaries

from util.files import atomic_write

# Distinguishable on grey and by the colour-blind; the dashes also without any colour.
# Source: the first six are the bright ones of Okabe & Ito, Color Universal Design (2008). The others are named colours
# of CSS; each differs by 16 or more (CIEDE2000) from those before it and from white.
COLOURS = (
    *("#E69F00", "#56B4E9", "#F0E442", "#CC79A7", "#009E73", "#D55E00", "#7B68EE", "#00FA9A", "#48D1CC", "#C71585"),
    *("#CD5C5C", "#FFA07A", "#4682B4"),
)
DASHES = ("solid", (0, (5, 1.2)), (0, (2, 0.8)), (0, (6, 1, 1.5, 1)))
OTHER_COLOUR, EXPERT_COLOUR = COLOURS[:2]  # orange, blue
BOUNDARY_COLOUR = (1.0, 0.8, 0.0)  # of superpixels, RGB
LEGEND_COLUMNS = 5  # at most


def panel_grid(
    title: str, n_rows: int, n_columns: int, panel_inches: tuple[float, float] = (2.4, 2.4), **options: Any
) -> tuple[Figure, np.ndarray]:
    """Makes a figure of equal panels without axes.

    Args:
        title: above all panels.
        n_rows: rows of panels.
        n_columns: columns of panels.
        panel_inches: width and height of what is shown in a panel; its title comes on top of that.
        options: further arguments of `Figure`.

    Returns:
        The figure and its (n_rows, n_columns) panels, all of them empty.
    """
    width, height = panel_inches
    size = width * n_columns, (height + 0.25) * n_rows + 0.5
    figure = Figure(size, **{"dpi": 110, "layout": "constrained", **options})
    figure.suptitle(title, fontweight="bold")
    grid = figure.subplots(n_rows, n_columns, squeeze=False, subplot_kw={"xticks": [], "yticks": []})
    for axes in grid.ravel():
        axes.set_frame_on(False)
    return figure, grid


def show_image(
    axes: Axes,
    image: Num[np.ndarray, "H W *C"],
    title: str = "",
    limits: tuple[float, float] | None = None,
    aspect: float = 1.0,
) -> None:
    """Shows an image, row 0 on top.

    Args:
        axes: the panel.
        image: grey values, or RGB in 0 to 1 or in 0 to 255 (uint8).
        title: above it.
        limits: grey values shown as black and as white; None: the image's own range.
        aspect: height of a pixel per width.
    """
    low, high = limits or (float(image.min()), float(image.max()))
    axes.imshow(image, cmap="gray", vmin=low, vmax=max(high, low + 1e-6), aspect=aspect)
    axes.set_title(title, fontsize=8)


def trace_outlines(mask: Bool[np.ndarray, "H W"]) -> list[Float[np.ndarray, "points 2"]]:
    """Traces the closed outlines of a mask, and of its holes, between the pixels.

    Returns:
        (x, y) in pixels; pixel (row i, column j) covers j - 0.5 to j + 0.5 and i - 0.5 to i + 0.5.
    """
    # On a grid of half pixels, with the pixels at the odd places, edges of pixels are points of their own.
    fine = np.zeros([2 * size + 1 for size in mask.shape], np.uint8)
    fine[1::2, 1::2] = mask
    fine = cv2.dilate(fine, np.ones((3, 3), np.uint8))
    contours, _ = cv2.findContours(fine, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    return [(np.concatenate([points, points[:1]])[:, 0] - 1) / 2 for points in contours]


def outline_path(mask: Bool[np.ndarray, "H W"], scale: tuple[float, float] = (1.0, 1.0)) -> str:
    """The outlines of `trace_outlines` as data of an SVG path, in whole units; at most one unit off.

    Args:
        mask: may be empty, as is the path then.
        scale: units per column and per row; the corner of the first pixel is at 0, 0.
    """
    parts = []
    for points in trace_outlines(mask):
        placed = ((points + 0.5) * scale).astype(np.float32)
        whole = cv2.approxPolyDP(placed[:-1, None], 0.5, True)[:, 0].round().astype(int)
        steps = np.diff(whole, axis=0)
        steps = steps[steps.any(1)]
        moves = " ".join(f"{x} {y}" for x, y in steps.tolist())
        parts.append(f"M{whole[0, 0]} {whole[0, 1]}l{moves or '0 0'}z")
    return "".join(parts)


def draw_outline(
    axes: Axes, mask: Bool[np.ndarray, "H W"], colour: str, dashes: Any = "solid", width: float = 1.2
) -> None:
    """Draws the outlines of a mask over an image, with a dark rim; nothing for an empty mask."""
    lines = LineCollection(trace_outlines(mask), colors=[colour], linestyles=[dashes], linewidths=[width])
    lines.set_path_effects([withStroke(linewidth=width + 1, foreground="black", alpha=0.6)])
    if mask.any():
        axes.add_collection(lines, autolim=False)


def draw_label_outlines(
    axes: Axes,
    labels: Bool[np.ndarray, "H W"] | Integer[np.ndarray, "H W"],
    names: Mapping[int, str],
    is_truth: bool = False,
) -> None:
    """Draws the outline of every label in `names`; of the ground truth thin and white."""
    for index, value in enumerate(names):
        colour, dashes = ("white", "solid") if is_truth else outline_style(index)
        draw_outline(axes, labels == value, colour, dashes, 0.7 if is_truth else 1.4)


def outline_style(index: int) -> tuple[str, Any]:
    """Colour and dashes of the class at a place, from 0: a colour of its own, as long as there are so many."""
    again, place = divmod(index, len(COLOURS))
    return COLOURS[place], DASHES[(place + again) % len(DASHES)]


def draw_legend(figure: Figure, names: Sequence[str], truth: str | None) -> None:
    """Explains the outlines of `draw_label_outlines`, below the figure, in as many columns as are within its width.

    Args:
        figure: whose width does not change any more.
        names: of the structures.
        truth: what the white outlines are, if any.
    """
    lines = [
        Line2D([], [], color=outline_style(index)[0], linestyle=outline_style(index)[1], linewidth=2, label=name)
        for index, name in enumerate(names)
    ]
    if truth is not None:
        lines.append(Line2D([], [], color="white", linewidth=0.8, label=truth))
    renderer = FigureCanvasAgg(figure).get_renderer()
    for n_columns in range(min(len(lines), LEGEND_COLUMNS), 0, -1):
        legend = figure.legend(
            handles=lines, loc="outside lower center", ncols=n_columns, facecolor="#303030", labelcolor="white"
        )
        _print_as_is(legend)
        if n_columns == 1 or legend.get_window_extent(renderer).width <= figure.bbox.width:
            return
        legend.remove()


def enlarge(array: Shaped[np.ndarray, "H W *C"], factor: int) -> Shaped[np.ndarray, "rows columns *C"]:
    """Enlarges an image or a label map; every pixel becomes a square of `factor` by `factor` equal ones."""
    return cv2.resize(array, None, fx=factor, fy=factor, interpolation=cv2.INTER_NEAREST)


def stretch_greys(greys: Num[np.ndarray, "H W"]) -> Float[np.ndarray, "H W"]:
    """Grey values in 0 to 1; the few darkest and brightest pixels do not determine the contrast."""
    low, high = np.percentile(greys, (1, 99.5))
    return np.clip((greys - low) / max(high - low, 1e-6), 0, 1)


def mark_regions(
    image: Num[np.ndarray, "H W *C"], regions: Integer[np.ndarray, "H W"], factor: int = 3
) -> Float[np.ndarray, "rows columns 3"]:
    """Draws the boundaries of regions, such as superpixels, into an enlarged image, so that they are thin.

    Args:
        image: grey or RGB, in 0 to 1 or in 0 to 255 (uint8).
        regions: id of each pixel's region.
        factor: of the enlargement.

    Returns:
        RGB in 0 to 1.
    """
    large, large_regions = enlarge(image, factor), enlarge(regions.astype(np.int32), factor)
    return np.asarray(mark_boundaries(large, large_regions, color=BOUNDARY_COLOUR, mode="inner"), np.float64)


def literal(text: str) -> str:
    r"""The text with an escape, such as "\x07", for every character that no font can draw.

    These are control characters (lines still break) and the surrogates that stand for undecodable bytes in file names.
    """
    return "".join(
        character.encode("unicode_escape").decode()
        if unicodedata.category(character) in ("Cc", "Cs") and character != "\n"
        else character
        for character in text
    )


def _print_as_is(artist: Artist) -> None:
    for text in artist.findobj(Text):
        text.set_parse_math(False)  # type: ignore[attr-defined]
        text.set_text(literal(text.get_text()))  # type: ignore[attr-defined]


def save_figure(figure: Figure, path: Path) -> None:
    """Writes a figure as PNG, atomically. Texts are printed as they are: a "$" in an id starts no formula."""
    _print_as_is(figure)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": None})
