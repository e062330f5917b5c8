"""Runs under label noise, one line each, and the table of methods against noise that the papers print of them."""

import csv
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from util.errors import DataError
from util.files import write_text
from util.results.published import TEST_IMAGES, published_dice
from util.results.scores import Recipes, csv_text

FILE_NAME = "summary.csv"
FIGURES = ("last10", "last", "ema")  # mean of the last ten evaluations, the last weights, the averaged weights


@dataclass(frozen=True)
class RunScore:
    """One training, scored on the test images: a line of `summary.csv`.

    Attributes:
        method: name in tables, such as "T-Loss".
        dataset: name in the catalogue.
        structure: what was segmented; of several classes the mean is given.
        noise: the noise's name; a0_b0 for clean masks.
        alpha, beta: its share of images and its strength.
        seed: of the training.
        recipe: what trainings share that may be averaged over seeds.
        figure: which of `FIGURES`, or "untrained".
        steps: of the training.
        n_images: test images.
        dice, iou: means over test images, 0 to 1 (an empty mask found empty counts 1).
        pooled_dice: over all pixels of all test images.
        hd95_px: mean over images where it is defined, pixels; NaN: not measured.
        n_undefined: images without a defined distance.
    """

    method: str
    dataset: str
    structure: str
    noise: str
    alpha: float
    beta: float
    seed: int
    recipe: str
    figure: str
    steps: int
    n_images: int
    dice: float
    iou: float
    pooled_dice: float
    hd95_px: float = math.nan
    n_undefined: int = 0


COLUMNS = tuple(field.name for field in fields(RunScore))


def write_runs(path: Path, runs: Iterable[RunScore]) -> None:
    """Writes `summary.csv`, whole or not at all."""
    write_text(path, csv_text(COLUMNS, [vars(run) for run in runs]))


def collect_runs(root: Path) -> list[RunScore]:
    """Reads every `summary.csv` below a folder; of one training validated twice, the later counts.

    Raises:
        DataError: a damaged file, two trainings that call themselves the same, or such as differ in more than the seed.
    """
    seen: dict[tuple, tuple[Path, RunScore]] = {}
    recipes = Recipes()
    for file in sorted(root.rglob(FILE_NAME), key=lambda path: (path.stat().st_mtime_ns, str(path))):
        for run in read_runs(file):
            key = (run.method, run.dataset, run.structure, run.noise, run.seed, run.figure)
            training = file.parents[1]  # <experiment>/validation/<number>/summary.csv
            if key in seen and seen[key][0] != training:
                raise DataError(
                    f"{seen[key][0]} and {training}: both hold {run.method}, {run.structure} of {run.dataset}, "
                    f"{run.noise}, seed {run.seed}. Leave one out, or tell them apart with exp_prefix=NAME."
                )
            recipes.note(key[:4], run.recipe, training)
            seen[key] = training, run
    return [run for _, run in seen.values()]


def read_runs(path: Path) -> list[RunScore]:
    """Reads one `summary.csv`.

    Raises:
        DataError: unreadable or damaged; the message names the line.
    """
    kinds = {field.name: field.type for field in fields(RunScore)}
    try:
        header, *lines = csv.reader(path.read_text(encoding="utf-8").splitlines())
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}). Run the validation again.") from error
    if tuple(header) != COLUMNS:
        raise DataError(f"{path}: expected the columns {', '.join(COLUMNS)}. Run the validation again.")
    runs = []
    for number, cells in enumerate(lines, start=2):
        try:
            values = dict(zip(COLUMNS, cells, strict=True))
            runs.append(RunScore(**{name: kinds[name](text or "nan") for name, text in values.items()}))  # type: ignore
        except ValueError as error:
            raise DataError(f"{path}, line {number}: damaged ({error}). Run the validation again.") from error
    return runs


@dataclass(frozen=True)
class NoiseTable:
    """Methods against noise: a line per method, a column per (alpha, beta), Dice x 100 as mean ± sd over seeds."""

    title: str
    columns: tuple[tuple[float, float], ...]
    lines: tuple[tuple[str, dict[tuple[float, float], tuple[float, ...]]], ...]  # method -> noise -> a value per seed
    published: dict[str, dict[tuple[float, float], str]]
    figure: str

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know."""
        meaning = {
            "last10": "mean of the last ten evaluations on the test images",
            "last": "weights of the last step",
            "ema": "averaged weights",
        }
        return (
            f"{self.title}: mean Dice per test image x 100, {meaning.get(self.figure, self.figure)}; mean ± sample "
            "standard deviation over seeds (number of seeds). Columns: share of noisy training images, strength.",
            *(["Published: Dice x 100 (standard deviation over 3 seeds)."] if self.published else []),
        )

    def cells(self) -> tuple[list[str], list[list[str]]]:
        """The header, and the lines; a published line follows the measured one."""
        header = ["Method", *("clean" if not a else f"{a:g}, {b:g}" for a, b in self.columns)]
        drawn = []
        for method, values in self.lines:
            drawn.append([method, *(_cell(values.get(column, ())) for column in self.columns)])
            if method in self.published:
                drawn.append([f"{method}, published", *(self.published[method].get(c, "–") for c in self.columns)])
        return header, drawn


def _cell(values: Sequence[float]) -> str:
    if not values:
        return "–"
    spread = f" ± {100 * np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
    return f"{100 * np.mean(values):.1f}{spread} ({len(values)})"


def _line_of(run: RunScore) -> str:
    """The method, and what its noise differs in from the papers': a0.7_b0.7_dilate_seed3 -> dilate_seed3."""
    _, _, *further = run.noise.split("_", 2)
    return f"{run.method} ({further[0]})" if further else run.method


def noise_tables(runs: Sequence[RunScore]) -> list[NoiseTable]:
    """A table per data set, structure and figure, of all runs gathered.

    Published figures stand beside only what was scored on as many test images: not beside parts or phantoms.
    """
    grouped: dict[tuple[str, str, str], list[RunScore]] = defaultdict(list)
    for run in sorted(runs, key=lambda run: FIGURES.index(run.figure) if run.figure in FIGURES else len(FIGURES)):
        grouped[run.figure, run.dataset, run.structure].append(run)
    tables = []
    for (figure, dataset, structure), mine in grouped.items():
        lines: dict[str, dict[tuple[float, float], tuple[float, ...]]] = defaultdict(dict)
        for run in sorted(mine, key=lambda run: run.seed):
            at = run.alpha, run.beta
            line = _line_of(run)
            lines[line][at] = (*lines[line].get(at, ()), run.dice)
        columns = tuple(sorted({(run.alpha, run.beta) for run in mine}))
        is_whole = {run.n_images for run in mine} == {TEST_IMAGES.get(dataset)}
        published = {name: published_dice(dataset, name) for name in lines} if is_whole else {}
        tables.append(
            NoiseTable(
                title=f"{structure} of {dataset}",
                columns=columns,
                lines=tuple(sorted(lines.items())),
                published={name: cells for name, cells in published.items() if cells.keys() & set(columns)},
                figure=figure,
            )
        )
    return tables
