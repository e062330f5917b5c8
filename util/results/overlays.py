"""Pictures of results: outlines over the slices of scans and over images."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
from jaxtyping import Bool, Integer, Num, Shaped
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from util.errors import ConfigError, DataError
from util.results.pictures import draw_label_outlines, draw_legend, panel_grid, save_figure, show_image

Labels = Bool[np.ndarray, "_ _ _"] | Integer[np.ndarray, "_ _ _"]  # (D, H, W)

# Title, image (C, H, W) of any range, truth (K, H, W) bool or None: unknown, prediction (K, H, W) bool.
Case = tuple[str, np.ndarray, np.ndarray | None, np.ndarray]
COLUMNS = 4  # images in a row

_OPPOSITE = dict(zip("LRAPSI", "RLPAIS", strict=True))


def save_image_overlays(
    path: Path,
    cases: Sequence[Case],
    structures: Sequence[str],
    title: str,
    width_inches: float = 2.8,
    truth_name: str = "ground truth",
) -> None:
    """Writes a PNG of images with the outlines of the ground truth (white) and of the prediction (coloured).

    Args:
        path: the picture.
        cases: what to show, in this order.
        structures: K names, for the legend.
        title: above all.
        width_inches: of an image.
        truth_name: of the white outlines, in the legend.
    """
    names = dict(enumerate(structures, start=1))
    height, width = cases[0][1].shape[1:]
    panel = (width_inches, width_inches * height / width)
    n_columns = min(COLUMNS, len(cases))
    figure, grid = panel_grid(title, math.ceil(len(cases) / n_columns), n_columns, panel, dpi=120)
    for axes, (caption, image, truth, prediction) in zip(grid.flat, cases, strict=False):
        show_image(axes, image[0] if len(image) == 1 else _scale(image).transpose(1, 2, 0), caption)
        for value, found in enumerate(prediction, start=1):
            if truth is not None:
                draw_label_outlines(axes, truth[value - 1] * value, names, is_truth=True)
            draw_label_outlines(axes, found * value, names)
    draw_legend(figure, structures, truth_name if any(truth is not None for _, _, truth, _ in cases) else None)
    save_figure(figure, path)


def _scale(image: np.ndarray) -> np.ndarray:
    low, high = float(image.min()), float(image.max())
    return np.clip((image - low) / max(high - low, 1e-6), 0, 1)


def for_viewing(
    array: Shaped[np.ndarray, "D H W"], affine: Shaped[np.ndarray, "4 4"]
) -> tuple[Shaped[np.ndarray, "D rows columns"], tuple[str, str], float]:
    """Turns each slice to the radiological view: the patient's front up, the patient's right on the left.

    Slices that are not axial: the head up, and in sagittal ones the front on the left. The order of slices is kept.

    Args:
        array: a volume.
        affine: maps (x, y, z) to RAS+ millimetres, as in NIfTI.

    Returns:
        The volume with turned slices, the letters of the directions (left, top), and a pixel's height per width.
    """
    codes = nib.aff2axcodes(affine)[:2]  # where x and y grow to
    spacing = np.linalg.norm(affine[:3, :2], axis=0)
    if "LRAPSI".index(codes[0]) // 2 > "LRAPSI".index(codes[1]) // 2:
        array, codes, spacing = array.swapaxes(1, 2), codes[::-1], spacing[::-1]
    # Columns shall run to the patient's left (else back), rows to the back (else feet).
    left, top = (code if code in "RAS" else _OPPOSITE[code] for code in codes)
    array = array[:, :: -1 if top == codes[1] else 1, :: -1 if left == codes[0] else 1]
    return array, (left, top), float(spacing[1] / spacing[0])


def save_overlays(
    path: Path,
    image: Num[np.ndarray, "D H W"],
    truth: Labels | None,
    predictions: Mapping[str, Labels],
    *,
    scan: int | str,
    organs: Mapping[int, str] | None = None,
    dice: Mapping[str, Mapping[int, float]] | None = None,
    affine: np.ndarray | None = None,
    slices: Sequence[int] | None = None,
) -> None:
    """Writes a PNG with a row per slice; columns: the image, the outlines of the ground truth and of each prediction.

    The ground truth is also drawn as a thin white line below the predictions.

    Args:
        path: the picture.
        image: intensities of any range.
        truth: label volume or binary mask (label 1); None: unknown.
        predictions: name -> label volume or binary mask.
        scan: id for the title.
        organs: label value -> name, those that are drawn; None: all but 0 and 255.
        dice: prediction -> label value -> Dice, for the titles.
        affine: (4, 4); turns the slices as `for_viewing` does; None: as stored, row 0 on top.
        slices: positions along the first axis; None: five, spread over what is marked.

    Raises:
        DataError: volumes of different shapes.
        ConfigError: a slice outside the volume.
    """
    columns = {"Image": None, **({} if truth is None else {"Ground truth": truth}), **predictions}
    marked = {name: volume for name, volume in columns.items() if volume is not None}
    _check_shapes(image, marked, scan)
    slices = _spread_slices(image, marked) if slices is None else slices
    if not all(0 <= z < len(image) for z in slices):
        raise ConfigError(
            f"slices={list(slices)}: scan {scan} has the slices 0 to {len(image) - 1}; choose from these."
        )
    organs = _organs_in(marked) if organs is None else organs

    letters, aspect = None, 1.0
    if affine is not None:
        marked = {name: for_viewing(volume, affine)[0] for name, volume in marked.items()}
        image, letters, aspect = for_viewing(image, affine)
    figure, grid = _slice_grid(f"Scan {scan}", image, slices, len(columns), aspect)
    for row, z in zip(grid, slices, strict=True):
        for axes, name in zip(row, columns, strict=True):
            if name in predictions and truth is not None:
                draw_label_outlines(axes, marked["Ground truth"][z], organs, is_truth=True)
            if name in marked:
                draw_label_outlines(axes, marked[name][z], organs)
    for axes, name in zip(grid[0], columns, strict=True):
        axes.set_title(_column_title(name, organs, (dice or {}).get(name, {})), fontsize=9)
    if letters:
        _direction_letters(grid[0, 0], *letters)
    draw_legend(figure, list(organs.values()), "ground truth" if truth is not None and predictions else None)
    save_figure(figure, path)


def _check_shapes(image: np.ndarray, marked: Mapping[str, np.ndarray], scan: int | str) -> None:
    for name, volume in marked.items():
        if volume.shape != image.shape:
            raise DataError(
                f"scan {scan}: {name!r} has the shape {volume.shape}, the image {image.shape} (D, H, W). Give "
                "volumes on the same grid; resample the prediction to the image first."
            )


def _spread_slices(image: np.ndarray, marked: Mapping[str, np.ndarray], count: int = 5) -> list[int]:
    """The middles of `count` equal parts of what the first non-empty volume marks (the ground truth comes first)."""
    spans = (np.flatnonzero(volume.any(axis=(1, 2))) for volume in marked.values())
    span = next((span for span in spans if len(span)), np.arange(len(image)))
    parts = span[0] + (span[-1] + 1 - span[0]) * (np.arange(count) + 0.5) / count
    return np.unique(parts.astype(int)).tolist()


def _organs_in(marked: Mapping[str, np.ndarray]) -> dict[int, str]:
    values = {int(value) for volume in marked.values() for value in np.unique(volume)} - {0, 255}
    return {value: f"label {value}" for value in sorted(values)}


def _slice_grid(
    title: str, image: np.ndarray, slices: Sequence[int], n_columns: int, aspect: float
) -> tuple[Figure, np.ndarray]:
    """A row of equal panels per slice; the few darkest and brightest pixels do not determine the contrast."""
    black, white = map(float, np.percentile(image[list(slices)], (0.5, 99.8)))
    panel = (2.6, 2.6 * image.shape[1] * aspect / image.shape[2])
    figure, grid = panel_grid(title, len(slices), n_columns, panel, dpi=120, layout="compressed")
    for row, z in zip(grid, slices, strict=True):
        for axes in row:
            show_image(axes, image[z], "", (black, white), aspect)
        row[0].set_ylabel(f"slice {z}")
    return figure, grid


def _column_title(name: str, organs: Mapping[int, str], dice: Mapping[int, float]) -> str:
    known = {organ: dice[value] for value, organ in organs.items() if value in dice}
    figures = [f"{organ} " + ("–" if math.isnan(value) else f"{value:.3f}") for organ, value in known.items()]
    lines = [", ".join(figures[start : start + 2]) for start in range(0, len(figures), 2)]
    return "\n".join([name, *(("Dice " if not i else "") + line for i, line in enumerate(lines))])


def _direction_letters(axes: Axes, left: str, top: str) -> None:
    places = {left: (0.03, 0.5), _OPPOSITE[left]: (0.97, 0.5), top: (0.5, 0.96), _OPPOSITE[top]: (0.5, 0.04)}
    for letter, (x, y) in places.items():
        axes.text(x, y, letter, transform=axes.transAxes, color="white", fontsize=8, ha="center", va="center")
