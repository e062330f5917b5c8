"""The scores of a checkpoint: those of the last validation in its experiment's folder that has some of its weights."""

from pathlib import Path
from typing import NamedTuple

import pandas as pd

from util.ids import natural_key
from util.results.scores import read_run_scores


class Weights(NamedTuple):
    """Which weights of which network: the method's title in tables, last or ema, and the step (None: not known)."""

    title: str
    kind: str
    step: int | None


class Validation(NamedTuple):
    """A validation's folder, and its scores of some weights."""

    folder: Path
    scores: pd.DataFrame


def last_validation(checkpoint: Path, own: Weights) -> Validation | None:
    """The last validation next to a checkpoint, or next to its folder of snapshots; None: there is none of it.

    Raises:
        DataError: a file of scores is damaged.
    """
    for experiment in (checkpoint.parent, checkpoint.parent.parent):
        folders = sorted(experiment.glob("validation/*"), key=lambda folder: natural_key(folder.name), reverse=True)
        for folder in folders:
            found = scores_of(read_run_scores(folder), own)
            if len(found):
                return Validation(folder, found)
    return None


def scores_of(scores: pd.DataFrame, own: Weights) -> pd.DataFrame:
    """Those scores that belong to the weights, as far as the columns say."""
    is_own = scores["method"].str.startswith(own.title)
    for column, value in (("weights", own.kind), ("steps", own.step)):
        if column in scores and value is not None:
            is_own &= scores[column].isin(["", str(value)])
    return scores[is_own]
