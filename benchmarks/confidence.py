"""What the confidence of masks is worth in validations: how it goes with Dice, and how well a limit finds poor masks.

    python -m benchmarks.confidence study/exps                          # limits chosen on the runs of other seeds
    python -m benchmarks.confidence study/exps --chosen-on domain       # on other domains

Reads the scores of finished validations, such as those of `benchmarks.domain_study`, `benchmarks.partial_study` and
examples/study_noisy_phantom.sh. One line a method, over the masks of all its runs; poor are those with a Dice below
0.7. A limit that is chosen on the very masks that it is used for looks better than it is; here it is chosen on those of
all other values of a column, and then used for the masks that are left. "found": the share of the poor masks that are
below.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from models.evaluation import LAYOUTS
from util.cli import run_main
from util.errors import ConfigError
from util.parser import print_text
from util.results.collect import collect
from util.results.confidence import FEWEST, GOOD_DICE, measure_worth, paired
from util.results.metrics import CONFIDENCE
from util.results.tables import markdown_header, markdown_row

HEADINGS = ("method", "masks", "poor", "correlation", "limits", "poor, below", "poor, above", "found")


class Told(NamedTuple):
    """Masks that limits tell apart: how many are below and above, and how many of them are poor."""

    below: int
    poor_below: int
    above: int
    poor_above: int


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the table of each family."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", metavar="DIR", help="folders of experiments, or scores.csv")
    text = "column of scores.csv: limits are chosen on its other values (default: seed)"
    parser.add_argument("--chosen-on", default="seed", metavar="COLUMN", help=text)
    text = "weights whose masks count: last, ema (default: last)"
    parser.add_argument("--weights", default="last", help=text)
    given = parser.parse_args(arguments)
    gathered, left_out = collect(given.runs, LAYOUTS)
    tables = [table(masks(scores, given.weights), given.chosen_on) for scores in gathered.values()]
    print_text("\n\n".join([*tables, *(f"Left out: {each}" for each in left_out)]) + "\n")


def masks(scores: pd.DataFrame, weights: str) -> pd.DataFrame:
    """Confidence and Dice of each mask in which something was found and whose Dice is defined.

    Raises:
        ConfigError: there are none.
    """
    pairs = paired(scores)
    if "weights" in pairs:
        pairs = pairs[pairs["weights"].isin([weights, ""])]
    pairs = pairs.dropna(subset=[CONFIDENCE, "dice"])
    if pairs.empty:
        raise ConfigError(f"--weights: no masks with confidence and Dice of the weights {weights!r}.")
    return pairs


def table(pairs: pd.DataFrame, column: str) -> str:
    """One line a method, in Markdown.

    Args:
        pairs: see `masks`.
        column: limits are chosen on its other values.

    Raises:
        ConfigError: it has fewer than two values.
    """
    found = sorted(set(pairs.get(column, pd.Series(dtype=str))))
    if len(found) < 2:
        raise ConfigError(f"--chosen-on: {column!r} has the values {found} in these runs; expected at least two.")
    lines = [markdown_header(HEADINGS, 1)]
    for method, own in pairs.groupby("method"):
        confidence, dice = (own[name].to_numpy(float) for name in (CONFIDENCE, "dice"))
        worth, tried = measure_worth(confidence, dice), list(limits(own, column))
        lines.append(markdown_row([str(method), *_cells(dice, worth.correlation, tried)]))
    return "\n".join(lines)


def limits(pairs: pd.DataFrame, column: str) -> Iterator[tuple[float, Told]]:
    """Each limit that could be chosen, and what it does on the masks on which it was not chosen."""
    for value in sorted(set(pairs[column])):
        is_left = pairs[column] == value
        others = pairs[~is_left]
        limit = measure_worth(others[CONFIDENCE].to_numpy(float), others["dice"].to_numpy(float)).limit
        if limit is not None:
            is_below, is_poor = (
                (pairs[is_left][name] < bound).to_numpy() for name, bound in ((CONFIDENCE, limit), ("dice", GOOD_DICE))
            )
            counts = [(part.sum(), (part & is_poor).sum()) for part in (is_below, ~is_below)]
            yield limit, Told(*(int(number) for pair in counts for number in pair))


def _cells(dice: np.ndarray, correlation: float, tried: Sequence[tuple[float, Told]]) -> Iterator[Any]:
    yield str(len(dice))
    yield f"{100 * np.mean(dice < GOOD_DICE):.0f} %"
    yield f"{correlation:.2f}"
    if not tried:
        yield from (f"none: fewer than {FEWEST} masks, or all are good, or all poor", "", "", "")
        return
    chosen, told = zip(*tried, strict=True)
    total = Told(*(sum(numbers) for numbers in zip(*told, strict=True)))
    yield f"{min(chosen):.2f} to {max(chosen):.2f}"
    for poor, number in ((total.poor_below, total.below), (total.poor_above, total.above)):
        yield f"{poor} of {number}" + (f" ({100 * poor / number:.0f} %)" if number else "")
    poor = total.poor_below + total.poor_above
    yield f"{100 * total.poor_below / poor:.0f} %" if poor else ""


if __name__ == "__main__":
    run_main(main)
