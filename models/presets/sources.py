"""Semi-supervised domain generalisation: the methods' words, the settings of CACPS, and what was published."""

from collections.abc import Iterator
from typing import Any

from models.presets.published import DOMAINS, PublishedRun, published_domain_dice
from models.presets.rules import Rule

SOURCE = "CACPS (AAAI 2022), section 4.2 and released code"
HARDWARE = "four GPUs (SCGM: two) of 24 GB"

# Words of the methods. Source: CACPS; the yardsticks CPS (CVPR 2021) and mean teacher (NeurIPS 2017); mixed_teacher is
# our own.
METHODS: dict[str, dict[str, Any]] = {
    "labelled_only": {"method": "labelled_only"},  # with labels100: the upper bound
    "cps": {"method": "cps"},
    "mean_teacher": {"method": "mean_teacher"},
    "cacps": {"method": "cacps"},
    "mixed_teacher": {"method": "mixed_teacher"},
}

# Words of the data sets. Source: as above, section 4.1.
DATA: dict[str, dict[str, Any]] = {"mms": {"dataset": "MMS"}, "scgm": {"dataset": "SCGM"}}

# Words of the labelled share. Source: as above, section 4; labels100 is the upper bound.
LABELS: dict[str, dict[str, Any]] = {
    f"labels{percent}": {"labelled_fraction": percent / 100} for percent in (2, 5, 20, 100)
}

# One CPU, phantom scans prepared at 72 px, no pretrained weights; not published. See docs/domain_generalisation.md.
SMALL: dict[str, Any] = {
    "size_px": 72,
    "crop_px": 40,
    "n_steps": 250,
    "batch_size": 4,
    "optim": {"name": "adamw", "lr": 1e-2, "weight_decay": 0.01, "schedule": "cosine"},
    "network": {"kind": "unet", "unet": {"base_features": 8, "max_features": 64, "halvings": [3, 3]}},
    "checkpoint_every": 250,
    "print_interval": 50,
    "num_workers": 0,
    "save_predictions": False,
    "selection": "ceil",
}

# The same at that size for methods with unlabelled slices (not published): at full weight from the first step, short
# runs collapse.
SMALL_UNLABELLED: dict[str, Any] = {"ramp_up_steps": 150, "separate_passes": False}

# Source: as above; AdamW for each network. 20 epochs of M&Ms, some 70 000 slices each; the release has 50.
TRAINING: dict[str, Any] = {
    "n_steps": 45_000,
    "batch_size": 32,
    "optim": {"name": "adamw", "lr": 1e-4, "weight_decay": 0.01, "schedule": "constant"},
    "checkpoint_every": 1000,
}
# Source: as above, on M&Ms.
MMS: dict[str, Any] = {"selection": "legacy", "crop_px": 288, "hist_match": "train+test", "which_aug": "mms"}
# Source: as above, on SCGM: 50 epochs of some 50 steps, the first four on labelled slices alone.
SCGM: dict[str, Any] = {"n_steps": 2500, "batch_size": 8, "which_aug": "scgm", "percentiles": [0.0, 100.0]}
# Source: as above, on SCGM: Dice loss of the grey matter alone.
SCGM_DICE: dict[str, Any] = {"dice_background": False}
# Source: as above, on SCGM.
SCGM_UNLABELLED: dict[str, Any] = {"unlabelled_weight": 1.5, "supervised_steps": 200}
# Not published: our own method keeps its weight.
SCGM_OWN: dict[str, Any] = {"supervised_steps": 200}

_ALL = tuple(METHODS)
_PUBLISHED = ("cps", "mean_teacher", "cacps")
_SEMI = tuple(word for word in METHODS if word != "labelled_only")

RULES = (
    Rule(SOURCE, TRAINING, {"method": _ALL}),
    Rule(SOURCE, MMS, {"method": _ALL, "dataset": ("MMS",)}),
    Rule(SOURCE, SCGM | SCGM_DICE, {"method": _ALL, "dataset": ("SCGM",)}),
    Rule(SOURCE, SCGM_UNLABELLED, {"method": _PUBLISHED, "dataset": ("SCGM",)}),
    Rule("not published", SCGM_OWN, {"method": ("mixed_teacher",), "dataset": ("SCGM",)}),
    Rule("not published", SMALL_UNLABELLED, {"method": _SEMI, "size_px": (SMALL["size_px"],)}),
)


def published_runs() -> Iterator[PublishedRun]:
    """The runs of the paper: data set x labelled share x held-out domain."""
    for word, labels in (("mms", 2), ("mms", 5), ("scgm", 20)):
        figures = published_domain_dice(DATA[word]["dataset"], f"{labels} %", "CACPS")
        for domain, figure in zip(DOMAINS, figures, strict=False):
            words = f"{word} cacps labels{labels} test_domains=[{domain}]"
            yield PublishedRun(words, SOURCE, HARDWARE, figure)
    for domain in DOMAINS:
        words = f"mms labelled_only labels100 test_domains=[{domain}]"
        yield PublishedRun(words, SOURCE, HARDWARE, "no published figure could be verified")
