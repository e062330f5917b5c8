"""Curves: what a run has logged, and how predictions agree with clean and with given masks during training."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.ndimage import uniform_filter1d

from util.errors import DataError
from util.files import read_json
from util.ids import natural_key
from util.items import dispensable
from util.results.pictures import COLOURS, save_figure

Curve = tuple[Sequence[int | float], Sequence[int | float]]  # steps, values
STRONG = "#0072B2"  # dark blue


def save_curves(path: Path, curves: Mapping[str, Curve], title: str = "") -> None:
    """Writes a PNG with a panel per curve: the values as they are, pale, and their running mean, strong.

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
    figure, panels = _curve_panels(title, len(curves), 2, (5.2, 2.6))
    for axes, (name, (steps, values)) in zip(panels, curves.items(), strict=True):
        _draw_curve(axes, name, np.asarray(steps, float), np.asarray(values, float))
    save_figure(figure, path)


def _curve_panels(
    title: str, count: int, most_columns: int, inches: tuple[float, float], sharey: bool = False
) -> tuple[Figure, list[Axes]]:
    """A figure with `count` panels for curves over steps."""
    n_columns = min(count, most_columns)
    n_rows = math.ceil(count / n_columns)
    figure = Figure((inches[0] * n_columns, inches[1] * n_rows + 0.5), dpi=120, layout="constrained")
    figure.suptitle(title, fontweight="bold")
    grid = figure.subplots(n_rows, n_columns, squeeze=False, sharey=sharey).ravel()
    for axes in grid[:count]:
        axes.set_xlabel("step", fontsize=9)
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in grid[count:]:
        axes.set_axis_off()
    return figure, list(grid[:count])


def _draw_curve(axes: Axes, name: str, steps: np.ndarray, values: np.ndarray) -> None:
    is_finite = np.isfinite(values)
    lost = f" ({(~is_finite).sum()} not finite)" if not is_finite.all() else ""
    axes.plot(steps, np.where(is_finite, values, np.nan), color=COLOURS[1], alpha=0.45, linewidth=0.8)
    axes.plot(steps, _running_mean(values), color=STRONG, linewidth=1.6, marker="o" if len(steps) == 1 else None)
    axes.set_title(name + lost, fontsize=10)


def _running_mean(values: np.ndarray) -> np.ndarray:
    """Mean of the finite values in a centred window; NaN where the window has none."""
    window = max(1, len(values) // 50) | 1  # odd, hence centred
    is_finite = np.isfinite(values)
    share = uniform_filter1d(is_finite.astype(float), window, mode="constant")
    total = uniform_filter1d(np.where(is_finite, values, 0.0), window, mode="constant")
    return np.divide(total, share, out=np.full_like(total, np.nan), where=share > 0.5 / window)


def read_sacred_scalars(run_folder: Path) -> dict[str, Curve]:
    """Reads the scalars that a run has logged through Sacred; lists are skipped.

    Returns:
        name -> (steps, values), in the order of logging.

    Raises:
        DataError: the folder holds no readable `metrics.json`.
    """
    path = run_folder / "metrics.json"
    try:
        return {
            name: _parse_curve(name, record)
            for name, record in read_json(path).items()
            if all(isinstance(value, int | float) for value in record["values"])
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path}: not the metrics of a Sacred run ({error}). Name the run's own folder, the one with "
            "config.json; if the run is still writing it, try again."
        ) from error


def _parse_curve(name: str, record: Mapping[str, Any]) -> Curve:
    steps, values = record["steps"], record["values"]
    if len(steps) != len(values) or not all(isinstance(step, int | float) for step in steps):
        raise ValueError(f"{name}: found {len(steps)} steps for {len(values)} values, expected a number for each")
    return steps, values


def save_training_curves(path: Path, runs: Path) -> bool:
    """Writes a PNG of what the Sacred runs below `runs` have logged during training.

    Resumed runs are joined in the order of their numbers: of values at the same step, the last one counts. A run whose
    metrics cannot be read is left out and named in the log.

    Returns:
        False if nothing has been logged; then nothing is written.
    """
    joined: dict[str, dict[int | float, int | float]] = {}
    for metrics in sorted(runs.glob("*/metrics.json"), key=lambda file: natural_key(file.parent.name)):
        with dispensable(f"training curves of run {metrics.parent.name}"):
            for name, (steps, values) in read_sacred_scalars(metrics.parent).items():
                if name.startswith(("train/", "val/", "round/")):
                    joined.setdefault(name, {}).update(dict(zip(steps, values, strict=True)))
    if joined:
        curves = {name: (sorted(points), [points[s] for s in sorted(points)]) for name, points in joined.items()}
        save_curves(path, curves, "Training")
    return bool(joined)


def save_memorisation(path: Path, history: Sequence[Mapping[str, float]], title: str) -> bool:
    """Writes a PNG of the agreement of predictions on training images with clean and given masks, per type of noise.

    Args:
        path: the picture.
        history: evaluations with "step" and "train_set/dice_to_<clean or given>/<type>".
        title: above all panels.

    Returns:
        False if the history has no such values; then nothing is written.
    """
    prefix = "train_set/dice_to_"
    found = {name.rpartition("/")[2] for values in history for name in values if name.startswith(prefix)}
    types = sorted(found, key=lambda kind: (kind != "all", kind != "clean", kind))
    if not types:
        return False
    figure, panels = _curve_panels(title, len(types), 3, (4.2, 2.9), sharey=True)
    for axes, kind in zip(panels, types, strict=True):
        for which, colour in (("clean", STRONG), ("given", COLOURS[5])):
            name = f"{prefix}{which}/{kind}"
            points = [(values["step"], 100 * values[name]) for values in history if name in values]
            if points:
                marker = "o" if len(points) == 1 else None
                axes.plot(*zip(*points, strict=True), color=colour, label=f"{which} masks", marker=marker)
        axes.set_title({"all": "all training images"}.get(kind, f"masks: {kind}"), fontsize=10)
    panels[0].set_ylabel("Dice × 100")
    panels[0].legend(frameon=False, fontsize=9)
    save_figure(figure, path)
    return True


def draw_training(out: Path, runs: Path | None, history: Sequence[Mapping[str, float]], name: str) -> dict[str, Path]:
    """Draws the curves of a training; caption -> picture, without those that cannot be drawn.

    Args:
        out: folder of the pictures.
        runs: folder of the stored training runs; None: their curves are not drawn.
        history: see `save_memorisation`.
        name: of the method.
    """
    curves, memorisation = out / "curves.png", out / "memorisation.png"
    drawn: dict[str, Path] = {}
    with dispensable("training curves"):
        if runs is not None and save_training_curves(curves, runs):
            drawn["training"] = curves
    with dispensable("curves of the agreement with the training masks"):
        if save_memorisation(memorisation, history, f"{name}: predictions on training images"):
            drawn["agreement with clean and with given masks"] = memorisation
    return drawn
