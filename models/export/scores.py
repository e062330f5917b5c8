"""The scores of exactly the exported weights, from a validation next to the checkpoint or a given file."""

from dataclasses import replace
from pathlib import Path

import pandas as pd

from models.evaluation import LAYOUTS
from models.export.network import Network
from util.errors import DataError
from util.results.layout import GENERIC
from util.results.nearby import Weights, last_validation, scores_of
from util.results.scores import read_scores
from util.results.tables import make_tables


def find_scores(checkpoint: Path, network: Network, given: Path | None) -> pd.DataFrame:
    """Scores of the exported weights.

    Args:
        checkpoint: that is exported; validations are searched in its experiment's folder.
        network: of the checkpoint.
        given: scores.csv of a validation, in place of the search.

    Returns:
        Empty: nothing was given and no validation of these weights was found.

    Raises:
        DataError: the given file cannot be used, or holds scores of other weights only.
    """
    own = Weights(network.title, network.content["weights"], network.content["step"])
    if given is None:
        found = last_validation(checkpoint, own)
        return pd.DataFrame() if found is None else found.scores
    scores = scores_of(read_scores(given), own)
    if scores.empty:
        raise DataError(
            f"{given}: no scores of {own.title}, weights {own.kind}, step {own.step}; expected those of the exported "
            "weights. Validate this checkpoint (reload_model_path), or leave --scores out."
        )
    return scores


def score_tables(scores: pd.DataFrame, network: Network) -> str:
    """Tables of scores in Markdown, with intervals and the conditions they were measured under; empty without any."""
    if scores.empty:
        return ""
    layout = LAYOUTS.get(type(network.method).family, GENERIC)
    tables = make_tables(scores, replace(layout, spread="cases"))  # of one network, not of several runs
    return "\n".join(table.to_markdown() for table in tables)
