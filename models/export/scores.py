"""The scores of exactly the exported weights, from a validation next to the checkpoint or a given file."""

from dataclasses import replace
from pathlib import Path

import pandas as pd

from models.evaluation import LAYOUTS
from models.export.network import Network
from util.errors import DataError
from util.ids import natural_key
from util.results.layout import GENERIC
from util.results.scores import read_run_scores, read_scores
from util.results.tables import make_tables


def score_tables(checkpoint: Path, network: Network, given: Path | None) -> str:
    """Tables of scores in Markdown, with intervals and the conditions they were measured under.

    Args:
        checkpoint: that is exported; validations are searched in its experiment's folder.
        network: of the checkpoint.
        given: scores.csv of a validation, in place of the search.

    Returns:
        Empty: nothing was given and no validation of these weights was found.

    Raises:
        DataError: the given file cannot be used, or holds scores of other weights only.
    """
    if given is not None:
        scores = _of_network(read_scores(given), network)
        if scores.empty:
            raise DataError(
                f"{given}: no scores of {network.title}, weights {network.content['weights']}, step "
                f"{network.content['step']}; expected those of the exported weights. Validate this checkpoint "
                "(reload_model_path), or leave --scores out."
            )
    else:
        scores = _find(checkpoint, network)
    if scores.empty:
        return ""
    layout = LAYOUTS.get(type(network.method).family, GENERIC)
    tables = make_tables(scores, replace(layout, spread="cases"))  # of one network, not of several runs
    return "\n".join(table.to_markdown() for table in tables)


def _find(checkpoint: Path, network: Network) -> pd.DataFrame:
    """The scores of the last validation that has some of these weights; empty without one."""
    for experiment in (checkpoint.parent, checkpoint.parent.parent):
        folders = sorted(experiment.glob("validation/*"), key=lambda folder: natural_key(folder.name), reverse=True)
        for folder in folders:
            found = _of_network(read_run_scores(folder), network)
            if len(found):
                return found
    return pd.DataFrame()


def _of_network(scores: pd.DataFrame, network: Network) -> pd.DataFrame:
    """Those scores that belong to the exported weights, as far as the columns say."""
    is_own = scores["method"].str.startswith(network.title)
    for column, value in (("weights", network.content["weights"]), ("steps", network.content["step"])):
        if column in scores and value is not None:
            is_own &= scores[column].isin(["", str(value)])
    return scores[is_own]
