"""Pictures of single images: outlines over them, and how a network takes to clean and to noisy labels over time."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from util.results.pictures import draw_legend, draw_outlines, save_figure

# Title, image (C, H, W) of any range, truth (K, H, W) bool, prediction (K, H, W) bool.
Case = tuple[str, np.ndarray, np.ndarray, np.ndarray]
COLUMNS = 4


def save_image_overlays(path: Path, cases: Sequence[Case], structures: Sequence[str], title: str) -> None:
    """Writes a PNG of images with the truth's outlines (white) and the prediction's (coloured).

    Args:
        path: the picture.
        cases: what to show, in this order.
        structures: K names, for the legend.
        title: above all.
    """
    names = dict(enumerate(structures, start=1))
    n_rows = math.ceil(len(cases) / COLUMNS)
    height, width = cases[0][1].shape[1:]
    figure = Figure((2.8 * COLUMNS, (2.8 * height / width + 0.3) * n_rows + 0.9), dpi=120, layout="constrained")
    grid = figure.subplots(n_rows, COLUMNS, squeeze=False, subplot_kw={"xticks": [], "yticks": []}).ravel()
    for axes, (caption, image, truth, prediction) in zip(grid, cases, strict=False):
        show_image(axes, image)
        for value, (true, found) in enumerate(zip(truth, prediction, strict=True), start=1):
            draw_outlines(axes, true * value, names, is_truth=True)
            draw_outlines(axes, found * value, names)
        axes.set_title(caption, fontsize=9)
    for axes in grid[len(cases) :]:
        axes.set_axis_off()
    figure.suptitle(title, fontweight="bold")
    draw_legend(figure, names, has_truth=True)
    save_figure(figure, path)


def show_image(axes: Axes, image: np.ndarray) -> None:
    """Shows (C, H, W), grey or RGB, scaled to its own range."""
    low, high = float(image.min()), float(image.max())
    scaled = (image - low) / max(high - low, 1e-6)
    axes.imshow(scaled[0] if len(scaled) == 1 else scaled.transpose(1, 2, 0), cmap="gray", vmin=0, vmax=1)


def save_memorisation(path: Path, history: Sequence[Mapping[str, float]], title: str) -> bool:
    """Writes a PNG of how well predictions on training images agree with clean and with given masks, per noise type.

    Args:
        path: the picture.
        history: evaluations with "step" and "train_set/dice_to_<clean or given>/<type>".
        title: above all panels.

    Returns:
        False where the history holds nothing of the kind, and nothing is written.
    """
    prefix = "train_set/dice_to_"
    found = {name.rpartition("/")[2] for values in history for name in values if name.startswith(prefix)}
    types = sorted(found, key=lambda kind: (kind != "all", kind != "clean", kind))
    if not types:
        return False
    n_columns = min(3, len(types))
    n_rows = math.ceil(len(types) / n_columns)
    figure = Figure((4.2 * n_columns, 2.9 * n_rows + 0.5), dpi=120, layout="constrained")
    grid = figure.subplots(n_rows, n_columns, squeeze=False, sharey=True).ravel()
    for axes, kind in zip(grid, types, strict=False):
        for which, colour in (("clean", "#0072B2"), ("given", "#D55E00")):
            points = [
                (v["step"], 100 * v[f"{prefix}{which}/{kind}"]) for v in history if f"{prefix}{which}/{kind}" in v
            ]
            if points:
                marker = "o" if len(points) == 1 else None
                axes.plot(*zip(*points, strict=True), color=colour, label=f"{which} masks", marker=marker)
        axes.set_title({"all": "all training images"}.get(kind, f"masks: {kind}"), fontsize=10)
        axes.set_xlabel("step", fontsize=9)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in grid[len(types) :]:
        axes.set_axis_off()
    grid[0].set_ylabel("Dice × 100")
    grid[0].legend(frameon=False, fontsize=9)
    figure.suptitle(title, fontweight="bold")
    save_figure(figure, path)
    return True
