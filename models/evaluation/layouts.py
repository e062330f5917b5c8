"""The tables of each family, as the papers print them."""

from collections.abc import Mapping, Sequence

import pandas as pd

from models.presets.published import (
    DOMAINS,
    TEST_IMAGES,
    TEST_PATIENTS,
    published_dice,
    published_domain_dice,
)
from util.errors import DataError
from util.results.layout import Layout
from util.results.tables import MEAN

# Heading in tables, in the paper's order -> names of the organ in the data sets, in lower case.
ORGANS = {
    "Left kidney": ("lk", "kid_l"),
    "Right kidney": ("rk", "kid_r"),
    "Spleen": ("spleen",),
    "Liver": ("liver",),
}


def organ_heading(structure: str) -> str:
    """The heading of an organ, whatever the data set calls it."""
    return next((heading for heading, names in ORGANS.items() if structure.lower() in names), structure)


# Source: SSL-ALPNet (ECCV 2020), section 4.1 and tables 1-2.
FEWSHOT_LAYOUT = Layout(
    lines=("method", "dataset", "setting", "protocol"),
    columns=("structure",),
    averaged=("fold", "seed"),
    constant=("split", "weights", "config_hash", "steps"),
    metrics=("dice", "hd95_mm", "nsd"),
    heading=lambda values: organ_heading(values[0]),
    order=tuple(ORGANS),
    has_mean=True,
)

N_LAST = 10  # evaluations at the end of training whose mean is the published figure
LAST = f"last{N_LAST}"

# Value of the column `weights` -> what it means; in this order in tables.
WEIGHTS = {LAST: "mean of the last ten evaluations", "last": "weights of the last step", "ema": "averaged weights"}


def noise_heading(values: Sequence[str]) -> str:
    """The heading of a column: share of noisy images and strength of the noise.

    Raises:
        DataError: they are not numbers.
    """
    try:
        alpha, beta = map(float, values)
    except ValueError as error:
        raise DataError(f"noise {values}: expected numbers for alpha and beta. Run the validation again.") from error
    return f"{alpha:g}, {beta:g}" if alpha else "clean"


def published_figures(rows: pd.DataFrame) -> Mapping[str, str]:
    """The published figures of a line by heading; none if other images were scored, or the noise is of another kind."""
    method, dataset, options = rows[["method", "dataset", "noise_options"]].iloc[0]
    if options or set(rows["n_cases"]) != {str(TEST_IMAGES.get(dataset))}:
        return {}
    return {noise_heading([str(a), str(b)]): text for (a, b), text in published_dice(dataset, method).items()}


# Source: T-Loss (MICCAI 2023), tables 1 and 2.
DENSE_LAYOUT = Layout(
    tables=("weights", "dataset", "task"),
    lines=("method", "noise_options"),
    columns=("alpha", "beta"),
    averaged=("seed", "held_out_domain"),
    constant=("split", "config_hash", "steps", "n_cases"),
    metrics=("dice",),
    heading=noise_heading,
    order=tuple(WEIGHTS),
    spread="runs",
    digits=1,
    title=lambda values: f"{values[2]} of {values[1]}, {WEIGHTS.get(values[0], values[0])}",
    note="Columns: share of noisy training images, strength of the noise.",
    published=published_figures,
    published_note="Published: Dice × 100 (standard deviation over 3 seeds).",
)


# Source: ours; PSSNet (Pattern Recognition 2024) has a table for each task. Networks that segment a task each share a
# line, so only the scores of one structure must come from runs of the same settings.
PARTIAL_LAYOUT = Layout(
    lines=("method", "dataset", "missing", "fov"),
    columns=("structure",),
    averaged=("seed",),
    constant=("split", "weights", "steps", "learned", "config_hash"),
    by_column=("config_hash",),
    metrics=(
        *("dice", "pooled_dice", "iou", "pooled_iou", "precision", "recall", "specificity", "accuracy"),
        *("pooled_accuracy", "roc_auc", "average_precision", "pooled_average_precision", "pooled_aupr_11"),
        *("otsu_sensitivity", "otsu_specificity", "otsu_precision", "otsu_accuracy"),
    ),
    has_mean=True,
    note="Structures that a data set is not annotated for are not scored.",
)


def published_domains(rows: pd.DataFrame) -> Mapping[str, str]:
    """The published figures of a line by heading; none where they cannot be compared.

    They can with as many tested patients, the released selection of labelled patients and the released score.
    """
    first = rows.iloc[0]
    selection = "legacy" if first["dataset"] == "MMS" else ""  # of SCGM slices were selected, which is not offered
    if first["metric"] != "legacy_dice" or first["selection"] != selection or first["protocol"] or first["sources"]:
        return {}
    figures = published_domain_dice(first["dataset"], first["labelled"], first["method"])
    tested = rows.groupby("held_out_domain")["patient"].nunique()
    shown = {
        domain: text
        for domain, text, number in zip(DOMAINS, figures, TEST_PATIENTS.get(first["dataset"], ()), strict=False)
        if tested.get(domain) == number
    }
    return shown | ({MEAN: figures[-1]} if len(shown) == len(DOMAINS) else {})


# Source: CACPS (AAAI 2022), its table of M&Ms: a column for each tested domain.
SOURCES_LAYOUT = Layout(
    lines=("method", "dataset", "labelled", "selection", "protocol", "hist_match", "sources"),
    columns=("held_out_domain",),
    averaged=("seed", "selection_seed"),
    constant=("split", "weights", "config_hash", "steps", "grid"),
    metrics=("legacy_dice", "dice", "hd95_mm"),
    order=DOMAINS,
    has_mean=True,
    note="Columns: the tested domain, on which nothing was trained.",
    published=published_domains,
    published_note="Published: Dice × 100 ± standard deviation over patients, of the mean over domains; on M&Ms with "
    "histogram matching and a pretrained network, on SCGM with slices in place of patients labelled.",
    breakdowns=("phase", "structure", "domain"),
    breakdown_metric="dice",
)
