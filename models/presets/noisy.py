"""Learning from noisy masks: the methods' words, and the settings of superpixel-guided learning and T-Loss."""

from collections.abc import Iterator
from typing import Any

from models.losses import LOSS_TITLES
from models.presets.published import NOISE_COLUMNS, PublishedRun, published_dice
from models.presets.rules import Rule

GUIDED_SOURCE = "superpixel-guided learning (MICCAI 2021), released configurations"
ROBUST_SOURCE = "T-Loss (MICCAI 2023), section 4 and released configuration"  # where the two differ: the paper

# Words of the methods. Source: superpixel-guided learning (MICCAI 2021).
GUIDED_METHODS: dict[str, dict[str, Any]] = {
    "baseline": {"method": "supervised", "loss": "ce", "class_weighted": True},
    "upper": {"method": "upper", "loss": "ce", "class_weighted": True},
    "coteaching": {"method": "coteaching"},
    "jocor": {"method": "jocor"},
    "trinet": {"method": "trinet"},
    "spguided": {"method": "spguided"},
}

# Words of the losses. Source: T-Loss (MICCAI 2023).
ROBUST_LOSSES: dict[str, dict[str, Any]] = {
    loss: {"method": "supervised", "loss": loss, "class_weighted": False} for loss in LOSS_TITLES
}

# Words of the data sets. JSRT: three tasks, a network each. Source: as above.
DATA: dict[str, dict[str, Any]] = {
    "isic2017": {"dataset": "ISIC2017"},
    "jsrt": {"dataset": "JSRT"},
    "jsrt_lung": {"dataset": "JSRT", "structures": ["lung"]},
    "jsrt_heart": {"dataset": "JSRT", "structures": ["heart"]},
    "jsrt_clavicle": {"dataset": "JSRT", "structures": ["clavicle"]},
    "shenzhen": {"dataset": "SHENZHEN"},
}

# One CPU, a quarter of an hour for a whole study on 64 px images; not published. See docs/performance.md.
SMALL: dict[str, Any] = {
    "size_px": 64,
    "n_steps": 800,
    "round_steps": 20,
    "eval_every": 20,
    "batch_size": 8,
    "optim": {"name": "adam", "lr": 2e-3, "weight_decay": 0.0, "schedule": "constant"},
    "checkpoint_every": 200,
    "save_snapshot_every": 0,
    "print_interval": 25,
    "num_workers": 0,
    "diagnosed_images": 60,
    "weights": "both",
    "save_predictions": False,
    "unet": {"base_features": 8, "max_features": 64, "halvings": [4, 4]},
}

# Source: superpixel-guided learning, released configurations: 200 rounds of 250 steps; 30 000 steps on JSRT.
GUIDED_TRAINING: dict[str, Any] = {
    "n_steps": 50_000,
    "round_steps": 250,
    "eval_every": 250,
    "batch_size": 32,
    "optim": {"name": "sgd", "lr": 5e-3, "momentum": 0.99, "weight_decay": 1e-4, "schedule": "constant"},
    "checkpoint_every": 1250,
    "weights": "both",
}
# Source: as above, on JSRT.
GUIDED_JSRT: dict[str, Any] = {
    "n_steps": 30_000,
    "round_steps": 150,
    "eval_every": 150,
    "batch_size": 8,
    "checkpoint_every": 1500,
}

# Source: T-Loss (MICCAI 2023), section 4 and released configuration.
ROBUST_TRAINING: dict[str, Any] = {
    "n_steps": 100_000,
    "round_steps": 1000,
    "eval_every": 1000,
    "batch_size": 16,
    "optim": {"name": "adam", "lr": 1e-3, "weight_decay": 0.0, "schedule": "constant"},
    "weights": "both",
    "which_aug": "nnunet180",
}
# Source: as above, on ISIC 2017 and Shenzhen.
ROBUST_IMAGES: dict[str, Any] = {"size_px": 256, "unet": {"halvings": [5, 5]}}

_PEERS = ("coteaching", "jocor", "trinet", "spguided")
_PLAIN = {"method": ("supervised", "upper")}
_CLASS_WEIGHTED = _PLAIN | {"loss": ("ce",), "class_weighted": (True,)}
_OTHER_LOSS = _PLAIN | {"loss": tuple(loss for loss in LOSS_TITLES if loss != "ce")}
_UNWEIGHTED = _PLAIN | {"loss": ("ce",), "class_weighted": (False,)}
_T_LOSS_SETS = ("ISIC2017", "SHENZHEN")

RULES = (
    *(Rule(GUIDED_SOURCE, GUIDED_TRAINING, when) for when in ({"method": _PEERS}, _CLASS_WEIGHTED)),
    *(
        Rule(GUIDED_SOURCE, GUIDED_JSRT, when | {"dataset": ("JSRT",)})
        for when in ({"method": _PEERS}, _CLASS_WEIGHTED)
    ),
    Rule(
        GUIDED_SOURCE,
        {"refine": {"thr_bg": 0.99, "thr_fg": 0.83}},
        {"method": ("spguided",), "dataset": ("JSRT",)},
    ),
    Rule(
        GUIDED_SOURCE,
        {"refine": {"decay": 0.5}},
        {"method": ("spguided",), "dataset": ("JSRT",), "structures": (("clavicle",),)},
    ),
    *(Rule(ROBUST_SOURCE, ROBUST_TRAINING, when) for when in (_OTHER_LOSS, _UNWEIGHTED)),
    *(Rule(ROBUST_SOURCE, ROBUST_IMAGES, when | {"dataset": _T_LOSS_SETS}) for when in (_OTHER_LOSS, _UNWEIGHTED)),
    *(Rule(ROBUST_SOURCE, {"batch_size": 8}, when | {"dataset": ("SHENZHEN",)}) for when in (_OTHER_LOSS, _UNWEIGHTED)),
)


def published_runs() -> Iterator[PublishedRun]:
    """Every run of the two papers: data set x method x noise."""
    for word in ("isic2017", "shenzhen"):
        for loss, title in LOSS_TITLES.items():
            figures = published_dice(DATA[word]["dataset"], title)
            table = "table 1" if word == "isic2017" else "table 2"
            for column in NOISE_COLUMNS if figures else ():
                words = _words(word, loss, *column)
                yield PublishedRun(words, f"T-Loss (MICCAI 2023), {table}", "one V100, 32 GB", figures[column])
    for word in ("isic2017", "jsrt_lung", "jsrt_heart", "jsrt_clavicle"):
        for method in GUIDED_METHODS:
            for alpha in (0.3, 0.5, 0.7, 0.9, 1.0):
                for beta in (0.5, 0.7):
                    words = _words(word, method, alpha, beta)
                    yield PublishedRun(words, GUIDED_SOURCE, "not stated", "no published figure could be verified")


def _words(data: str, method: str, alpha: float, beta: float) -> str:
    return f"{data} {method}" + (f" noise.alpha={alpha:g} noise.beta={beta:g}" if alpha else "")
