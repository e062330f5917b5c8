"""Draws the picture of the README, docs/images/overview.png, from synthetic patients alone.

    python -m docs.overview --out docs/images/overview.png

One phantom scan with its annotation, and three further ones that were segmented by comparison with it (`propagation`,
as in `frugalseg predict` without a checkpoint). A few minutes on two CPU cores; the same command gives the same
picture, up to rounding.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Integer, Num
from matplotlib.axes import Axes

from data.phantom import make_patient
from data.phantom.writers.chaos import LABELS
from dataloaders.samples import Volume
from models.predict import PropagationPredictor
from util.results.overlays import for_viewing
from util.results.pictures import draw_label_outlines, draw_legend, panel_grid, save_figure, show_image

ANNOTATED, *OTHERS = 0, 1, 3, 4  # patients; the third one lacks a kidney
HEIGHT = 0.85  # of a panel, per width
NAMES = {value: name for name, value in LABELS.items()}


def mean_dice(found: Integer[np.ndarray, "D H W"], truth: Integer[np.ndarray, "D H W"]) -> float:
    """Dice of all slices, mean over the structures."""
    pairs = [(found == value, truth == value) for value in NAMES]
    return float(np.mean([2 * (a & b).sum() / (a.sum() + b.sum()) for a, b in pairs]))


def telling_slice(label: Integer[np.ndarray, "D H W"]) -> int:
    """The slice in which the structure that shows least of its largest area shows the most, absent ones left out."""
    areas = np.stack([(label == value).sum(axis=(1, 2)) for value in NAMES])  # (K, D)
    areas = areas[areas.any(axis=1)]
    return int(np.argmax((areas / areas.max(axis=1, keepdims=True)).min(axis=0)))


def draw(path: Path, seed: int, size_px: int) -> None:
    """Segments the scans and writes the picture.

    Args:
        path: the picture, PNG.
        seed: of the patients.
        size_px: rows and columns of the scans.
    """
    patients = {index: make_patient("chaost2", index, seed, size_px, "varied") for index in (ANNOTATED, *OTHERS)}
    predictor = PropagationPredictor.from_scan(patients[ANNOTATED][0], "cpu")
    predictor.set_support(*patients[ANNOTATED], LABELS)

    figure, grid = panel_grid("", 1, len(patients), (2.6, 2.6 * HEIGHT), dpi=100)
    for axes, (index, (image, truth)) in zip(grid[0], patients.items(), strict=True):
        if index == ANNOTATED:
            shown, title = truth.array, "annotated scan"
        else:
            shown = predictor.segment(image).label_map.array
            title = f"segmented, Dice {mean_dice(shown, truth.array):.2f}"
        draw_slice(axes, image, shown, telling_slice(truth.array), title)
    draw_legend(figure, list(NAMES.values()), None)
    save_figure(figure, path)


def draw_slice(
    axes: Axes,
    image: Volume,
    label: Integer[np.ndarray, "D H W"],
    z: int,
    title: str,
    truth: Integer[np.ndarray, "D H W"] | None = None,
) -> None:
    """Draws slice `z` of a scan with the outlines of its structures, and those of the truth, if given, in white."""
    pixels, _, aspect = for_viewing(image.array[z : z + 1], image.affine)
    window = body_window(pixels[0])
    show_image(axes, pixels[0][window], "", (0, float(np.percentile(pixels, 99.8))), aspect)
    axes.set_title(title, fontsize=10)
    for map_, is_truth in ((truth, True), (label, False)):
        if map_ is not None:
            labels, _, _ = for_viewing(map_[z : z + 1], image.affine)
            draw_label_outlines(axes, labels[0][window], NAMES, is_truth)


def body_window(pixels: Num[np.ndarray, "H W"]) -> tuple[slice, slice]:
    """Rows and columns of the body with a margin, in panels of one shape as far as the image reaches."""
    limit = float(np.percentile(pixels, 99)) / 20
    rows, columns = (np.flatnonzero(pixels.mean(axis=axis) > limit) for axis in (1, 0))
    width = max(1.06 * np.ptp(columns), 1.06 * np.ptp(rows) / HEIGHT)
    halves = (width * HEIGHT / 2, width / 2)
    middles = ((rows[0] + rows[-1]) / 2, (columns[0] + columns[-1]) / 2)
    first, second = (
        slice(max(0, round(middle - half)), round(middle + half)) for middle, half in zip(middles, halves, strict=True)
    )
    return first, second


def run(draw_with: Callable[[Path, int, int], None], about: str, arguments: list[str] | None = None) -> None:
    """The command line of a picture.

    Args:
        draw_with: writes it; path, seed of the patients, rows and columns of the scans.
        about: what it shows.
        arguments: None: those of the process.
    """
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--out", type=Path, required=True, help="the picture, PNG")
    parser.add_argument("--seed", type=int, default=0, help="of the patients")
    parser.add_argument("--size-px", type=int, default=192, help="rows and columns of the scans")
    options = parser.parse_args(arguments)
    draw_with(options.out, options.seed, options.size_px)


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    run(draw, "Draws the picture of the README from synthetic patients.", arguments)


if __name__ == "__main__":
    main()
