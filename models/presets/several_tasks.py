"""Several partly labelled data sets: the methods' words, and the settings of PSSNet."""

from collections.abc import Iterator
from typing import Any

from models.presets.published import PublishedRun
from models.presets.rules import Rule

SOURCE = "PSSNet (Pattern Recognition 2024), released code"
HARDWARE = "four GPUs"
UNPUBLISHED = "no published figure could be verified"

# Words of the methods. Source: PSSNet, whose two stages are partial_generator and partial_adversarial; partial_naive is
# the usual wrong way, partial_teacher is our own.
METHODS: dict[str, dict[str, Any]] = {
    "partial_generator": {"method": "partial_generator"},
    "partial_naive": {"method": "partial_generator", "missing": "background"},
    "partial_adversarial": {"method": "partial_adversarial"},
    "partial_teacher": {"method": "partial_teacher"},
}

# Words of the data sets: what is trained on, and what is scored. Source: as above. The last three are for single-task
# experts.
DATA: dict[str, dict[str, Any]] = {
    "fundus": {
        "datasets": ["RETA", "DDR", "REFUGE"],
        "scored": ["DDR", "REFUGE", "IDRiD", "DRIVE", "STARE", "ARIA"],
    },
    "fundus_vessel": {"datasets": ["RETA"], "scored": ["DRIVE", "STARE", "ARIA"]},
    "fundus_lesion": {"datasets": ["DDR"], "scored": ["DDR", "IDRiD"]},
    "fundus_disc": {"datasets": ["REFUGE"], "scored": ["REFUGE", "IDRiD"]},
}

# One CPU, phantom photographs prepared at 96 px, no pretrained weights; not published. See docs/partial_labels.md.
SMALL: dict[str, Any] = {
    "size_px": 96,
    "crop_px": 64,
    "n_steps": 300,
    "batch_size": 4,
    "optim": {"name": "adamw", "lr": 2e-3, "weight_decay": 0.01, "schedule": "cosine"},
    "network": {"encoder": "resnet10t", "channels": 32, "drop_path": 0.0},
    "encoder_weights": "none",
    "aug": {"scale": [0.8, 1.25]},
    "smooth": 1.0,
    "checkpoint_every": 300,
    "print_interval": 50,
    "num_workers": 0,
    "save_predictions": False,
}

# Source: as above; the release also has 40 000 steps for stage 1, but its evaluation is of step 60 000. Four images of
# each data set in a step, one on each GPU.
TRAINING: dict[str, Any] = {
    "n_steps": 60_000,
    "batch_size": 4,
    "optim": {"name": "adamw", "lr": 6e-5, "weight_decay": 0.01, "schedule": "polynomial", "warmup_steps": 1500},
    "checkpoint_every": 1000,
}
# Source: as above: eyes without diabetic retinopathy get no pseudo-labels of lesions.
FUNDUS_PSEUDO: dict[str, Any] = {
    "pseudo_weights": [
        {"source": "RETA", "task": "lesion", "weight": 0.1},
        {"source": "REFUGE", "task": "lesion", "weight": 0.0},
    ]
}

_ALL = ("partial_generator", "partial_adversarial", "partial_teacher")

RULES = (
    Rule(SOURCE, TRAINING, {"method": _ALL}),
    Rule(SOURCE, FUNDUS_PSEUDO, {"method": ("partial_adversarial",), "dataset": ("RETA+DDR+REFUGE",)}),
)


def published_runs() -> Iterator[PublishedRun]:
    """The two stages of the article, whose tables could not be obtained."""
    for words in ("fundus partial_generator", "fundus partial_adversarial pseudo_labels=FOLDER"):
        yield PublishedRun(words, SOURCE, HARDWARE, UNPUBLISHED)
