"""Pictures for people: outlines over slices, and training curves.

Figures are drawn without `pyplot`: no window, no global state, safe in threads.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from jaxtyping import Bool, Integer, Num, Shaped
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from scipy.ndimage import uniform_filter1d

from util.errors import ConfigError, DataError, UserError
from util.files import atomic_write, read_json

# Told apart on grey, and by the colour-blind; the dashes also without any colour.
# Source: Okabe & Ito, Color Universal Design (2008); its bright colours.
COLOURS = ("#E69F00", "#56B4E9", "#F0E442", "#CC79A7", "#009E73", "#D55E00")
DASHES = ("solid", (0, (5, 1.2)), (0, (2, 0.8)), (0, (6, 1, 1.5, 1)))

Labels = Bool[np.ndarray, "_ _ _"] | Integer[np.ndarray, "_ _ _"]  # (D, H, W)
Curve = tuple[Sequence[int | float], Sequence[int | float]]  # steps, values

_OPPOSITE = dict(zip("LRAPSI", "RLPAIS", strict=True))


def for_viewing(
    array: Shaped[np.ndarray, "D H W"], affine: Shaped[np.ndarray, "4 4"]
) -> tuple[Shaped[np.ndarray, "D rows columns"], tuple[str, str], float]:
    """Turns each slice as radiologists look at it: the patient's front up, the patient's right at the picture's left.

    Slices that are not axial: the head up, and in sagittal ones the front at the left. The slices keep their order.

    Args:
        array: a volume.
        affine: maps (x, y, z) to RAS+ millimetres, as NIfTI does.

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
    """Writes a PNG: a row per slice; columns: the image, the ground truth's outlines, each prediction's outlines.

    The ground truth shows as a thin white line under the predictions.

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
    figure, grid = _image_grid(image, slices, len(columns), aspect)
    for row, z in zip(grid, slices, strict=True):
        for axes, name in zip(row, columns, strict=True):
            if name in predictions and truth is not None:
                draw_outlines(axes, marked["Ground truth"][z], organs, is_truth=True)
            if name in marked:
                draw_outlines(axes, marked[name][z], organs)
    for axes, name in zip(grid[0], columns, strict=True):
        axes.set_title(_column_title(name, organs, (dice or {}).get(name, {})), fontsize=9)
    if letters:
        _direction_letters(grid[0, 0], *letters)
    figure.suptitle(f"Scan {scan}", fontweight="bold")
    draw_legend(figure, organs, has_truth=truth is not None and bool(predictions))
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


def _image_grid(image: np.ndarray, slices: Sequence[int], n_columns: int, aspect: float) -> tuple[Figure, np.ndarray]:
    """A row of equal pictures per slice; the few darkest and brightest pixels do not rule the contrast."""
    black, white = np.percentile(image[list(slices)], (0.5, 99.8))
    width, height = 2.6, 2.6 * image.shape[1] * aspect / image.shape[2]  # inches
    figure = Figure((width * n_columns, height * len(slices) + 1.0), dpi=120, layout="compressed")
    grid = figure.subplots(len(slices), n_columns, squeeze=False, subplot_kw={"xticks": [], "yticks": []})
    for row, z in zip(grid, slices, strict=True):
        row[0].set_ylabel(f"slice {z}")
        for axes in row:
            axes.imshow(image[z], cmap="gray", vmin=black, vmax=max(white, black + 1e-6), aspect=aspect)
    return figure, grid


def draw_outlines(axes: Axes, labels: np.ndarray, organs: Mapping[int, str], is_truth: bool = False) -> None:
    """Draws the outline of each organ of `labels` (H, W); the ground truth's thin and white."""
    limits = {"xlim": axes.get_xlim(), "ylim": axes.get_ylim()}
    rows, columns = (np.arange(-1, size + 1) for size in labels.shape)
    for index, value in enumerate(organs):
        mask = np.pad(labels == value, 1)  # so that outlines close at the picture's border
        if not mask.any():
            continue
        colour, dashes = ("white", "solid") if is_truth else _style(index)
        lines = axes.contour(columns, rows, mask, [0.5], colors=[colour], linestyles=[dashes])
        width = 0.7 if is_truth else 1.4
        lines.set(linewidth=width, path_effects=[withStroke(linewidth=width + 1, foreground="black", alpha=0.6)])
    axes.set(**limits)


def _style(index: int) -> tuple[str, Any]:
    return COLOURS[index % len(COLOURS)], DASHES[index % len(DASHES)]


def _column_title(name: str, organs: Mapping[int, str], dice: Mapping[int, float]) -> str:
    known = {organ: dice[value] for value, organ in organs.items() if value in dice}
    figures = [f"{organ} " + ("–" if math.isnan(value) else f"{value:.3f}") for organ, value in known.items()]
    lines = [", ".join(figures[start : start + 2]) for start in range(0, len(figures), 2)]
    return "\n".join([name, *(("Dice " if not i else "") + line for i, line in enumerate(lines))])


def _direction_letters(axes: Axes, left: str, top: str) -> None:
    places = {left: (0.03, 0.5), _OPPOSITE[left]: (0.97, 0.5), top: (0.5, 0.96), _OPPOSITE[top]: (0.5, 0.04)}
    for letter, (x, y) in places.items():
        axes.text(x, y, letter, transform=axes.transAxes, color="white", fontsize=8, ha="center", va="center")


def draw_legend(figure: Figure, organs: Mapping[int, str], has_truth: bool) -> None:
    """Names the outlines that `draw_outlines` draws, below the figure."""
    lines = [
        Line2D([], [], color=_style(index)[0], linestyle=_style(index)[1], linewidth=2, label=organ)
        for index, organ in enumerate(organs.values())
    ]
    if has_truth:
        lines.append(Line2D([], [], color="white", linewidth=0.8, label="ground truth"))
    if lines:
        figure.legend(
            handles=lines, loc="outside lower center", ncols=min(len(lines), 5), facecolor="#303030", labelcolor="white"
        )


def save_figure(figure: Figure, path: Path) -> None:
    """Writes a figure as PNG, whole or not at all."""
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": None})


def save_curves(path: Path, curves: Mapping[str, Curve], title: str = "") -> None:
    """Writes a PNG with a panel per curve: the values as they are in pale, their running mean in strong.

    The running mean spans a fiftieth of the curve. Values that are not finite leave a gap and are counted in the title.

    Args:
        path: the picture.
        curves: name -> (steps, values), as `read_sacred_scalars` gives them.
        title: above all panels.

    Raises:
        DataError: there is no curve.
    """
    if not curves:
        raise DataError(f"{path}: no curve to draw. Give a run that has logged something.")
    n_columns = min(len(curves), 2)
    n_rows = math.ceil(len(curves) / n_columns)
    figure = Figure((5.2 * n_columns, 2.6 * n_rows + 0.4 * bool(title)), dpi=120, layout="constrained")
    grid = figure.subplots(n_rows, n_columns, squeeze=False).ravel()
    for axes, (name, (steps, values)) in zip(grid, curves.items(), strict=False):
        _draw_curve(axes, name, np.asarray(steps, float), np.asarray(values, float))
    for axes in grid[len(curves) :]:
        axes.set_axis_off()
    if title:
        figure.suptitle(title, fontweight="bold")
    save_figure(figure, path)


def _draw_curve(axes: Axes, name: str, steps: np.ndarray, values: np.ndarray) -> None:
    is_finite = np.isfinite(values)
    lost = f" ({(~is_finite).sum()} not finite)" if not is_finite.all() else ""
    axes.plot(steps, np.where(is_finite, values, np.nan), color=COLOURS[1], alpha=0.45, linewidth=0.8)
    axes.plot(steps, _running_mean(values), color="#0072B2", linewidth=1.6, marker="o" if len(steps) == 1 else None)
    axes.set_title(name + lost, fontsize=10)
    axes.set_xlabel("step", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _running_mean(values: np.ndarray) -> np.ndarray:
    """Mean of the finite values in a centred window; NaN where the window has none."""
    window = max(1, len(values) // 50) | 1  # odd, hence centred
    is_finite = np.isfinite(values)
    share = uniform_filter1d(is_finite.astype(float), window, mode="constant")
    total = uniform_filter1d(np.where(is_finite, values, 0.0), window, mode="constant")
    return np.divide(total, share, out=np.full_like(total, np.nan), where=share > 0.5 / window)


def read_sacred_scalars(run_folder: Path) -> dict[str, Curve]:
    """Reads the scalars that a run has logged through Sacred; what was logged as lists is left out.

    Returns:
        name -> (steps, values), in the order of logging.

    Raises:
        DataError: the folder holds no readable `metrics.json`.
    """
    path = run_folder / "metrics.json"
    try:
        return {
            name: (record["steps"], record["values"])
            for name, record in read_json(path).items()
            if all(isinstance(value, int | float) for value in record["values"])
        }
    except (UserError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path}: not the metrics of a Sacred run ({error}). Name the run's own folder, the one with "
            "config.json; if the run is just being written, try again."
        ) from error


def save_training_curves(path: Path, runs: Path) -> bool:
    """Writes a PNG of what the Sacred runs below `runs` have logged in training, those of a resumed one joined.

    Returns:
        False where nothing has been logged, and nothing is written.
    """
    joined: dict[str, dict[int, float]] = {}
    for metrics in sorted(runs.glob("*/metrics.json"), key=lambda file: file.stat().st_mtime):
        for name, (steps, values) in read_sacred_scalars(metrics.parent).items():
            if name.startswith(("train/", "val/", "round/")):
                points = zip(np.asarray(steps).tolist(), np.asarray(values).tolist(), strict=True)
                joined.setdefault(name, {}).update(points)
    if joined:
        curves = {name: (sorted(points), [points[s] for s in sorted(points)]) for name, points in joined.items()}
        save_curves(path, curves, "Training")
    return bool(joined)
