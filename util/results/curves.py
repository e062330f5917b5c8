"""Curves: what a run has logged, and how predictions agree with clean and with given masks during training."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
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
# Distinguishable on white and by the colour-blind: the dark ones of Okabe & Ito (2008), and named colours of CSS.
LINE_COLOURS = (
    *(STRONG, "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#7B68EE", "#8B4513", "#56B4E9", "#C71585", "#696969"),
)
OF_TRAINING = ("train/", "val/", "round/")  # beginnings of the names of what is drawn of a training


def save_curves(path: Path, curves: Mapping[str, Curve], title: str = "") -> None:
    """Writes a PNG of curves: the values as they are, pale, and their running mean, strong.

    Curves of a kind share a panel, see `group_names`. The running mean spans a fiftieth of the curve. Values that are
    not finite leave a gap and are counted.

    Args:
        path: the picture.
        curves: name -> (steps, values), as `read_sacred_scalars` gives them.
        title: above all panels.

    Raises:
        DataError: there is no curve.
    """
    if not curves:
        raise DataError(f"{path}: no curve to draw. Give a run that has logged something.")
    groups = group_names(curves)
    figure, panels = _curve_panels(title, len(groups), 3, (4.2, 2.5))
    for axes, (group, names) in zip(panels, groups.items(), strict=True):
        lost = [_draw_curve(axes, *curves[name], colour_index=i, name=name) for i, name in enumerate(names)]
        axes.set_title(group + (f" ({sum(lost)} not finite)" if any(lost) else ""), fontsize=10)
        if len(names) > 1:
            axes.legend(frameon=False, fontsize=7, ncols=1 + (len(names) > 5))
    save_figure(figure, path)


def group_names(names: Iterable[str]) -> dict[str, list[str]]:
    """Groups curves of a kind: names with the same beginning, up to the second "/" or the first "_" after the first.

    Returns:
        Beginning -> names, such as "val/dice" -> "val/dice", "val/dice/liver"; a name alone stands for itself.
    """
    groups: dict[str, list[str]] = {}
    for name in names:
        kind, slash, rest = name.partition("/")
        groups.setdefault(kind + slash + re.split("[/_]", rest)[0], []).append(name)
    return {group if len(members) > 1 else members[0]: members for group, members in groups.items()}


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


def _draw_curve(
    axes: Axes, steps: Sequence[int | float], values: Sequence[int | float], colour_index: int, name: str
) -> int:
    """Draws one curve; returns the number of values that are not finite."""
    array = np.asarray(values, float)
    is_finite = np.isfinite(array)
    colour = LINE_COLOURS[colour_index % len(LINE_COLOURS)]
    marker = "o" if is_finite.sum() == 1 else None
    axes.plot(steps, np.where(is_finite, array, np.nan), color=colour, alpha=0.3, linewidth=0.8)
    axes.plot(
        steps, _running_mean(array), color=colour, linewidth=1.6, marker=marker, label=name.rpartition("/")[2]
    )  # fmt: skip
    return int((~is_finite).sum())


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
                if name.startswith(OF_TRAINING):
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
    """Draws the curves of a validated training; caption -> picture, without those that cannot be drawn.

    Args:
        out: folder of the pictures.
        runs: folder of the stored training runs; None: their curves are not drawn.
        history: see `save_memorisation`.
        name: of the method.
    """
    curves = out / "curves.png"
    drawn: dict[str, Path] = {}
    with dispensable("training curves"):
        if runs is not None and save_training_curves(curves, runs):
            drawn["training"] = curves
    return drawn | draw_memorisation(out, history, name)


def draw_memorisation(out: Path, history: Sequence[Mapping[str, float]], name: str) -> dict[str, Path]:
    """Draws the agreement with clean and with given masks; caption -> picture, see `draw_training`."""
    path = out / "memorisation.png"
    with dispensable("curves of the agreement with the training masks"):
        if save_memorisation(path, history, f"{name}: predictions on training images"):
            return {"agreement with clean and with given masks": path}
    return {}
