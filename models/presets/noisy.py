"""Named configurations for learning from noisy masks: methods, data sets, and every published setting by one name.

python -m models.presets                       # all published settings: source, hardware, Dice to expect
python -m models.presets isic2017 a07_b07      # those whose names hold these words
python training.py with isic2017_tloss_a07_b07
"""

import logging
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from models.losses import LOSS_TITLES
from models.presets.published import NOISE_COLUMNS, published_dice

logger = logging.getLogger(__name__)

# Source: superpixel-guided learning (MICCAI 2021), released configurations: 200 rounds of 250 steps, no selection.
GUIDED_TRAINING: dict[str, Any] = {
    "n_steps": 50_000,
    "round_steps": 250,
    "eval_every": 250,
    "batch_size": 32,
    "optim": {"name": "sgd", "lr": 5e-3, "momentum": 0.99, "weight_decay": 1e-4},
    "lr_step_every": 0,
    "checkpoint_every": 1250,
    "save_snapshot_every": 0,
    "weights": "both",
}
GUIDED_METHODS = ("baseline", "upper", "coteaching", "jocor", "trinet", "spguided")

# Source: T-Loss (MICCAI 2023), section 4 and released configuration; where they differ, the paper's.
ROBUST_TRAINING: dict[str, Any] = {
    "method": "baseline",
    "n_steps": 100_000,
    "round_steps": 1000,
    "eval_every": 1000,
    "batch_size": 16,
    "optim": {"name": "adam", "lr": 1e-3, "weight_decay": 0.0},
    "lr_step_every": 0,
    "checkpoint_every": 1000,
    "save_snapshot_every": 0,
    "weights": "both",
    "class_weighted": False,
    "size_px": 256,
    "which_aug": "nnunet180",
    "unet": {"halvings": [5, 5]},
}

# Word in names -> data. JSRT: three tasks, a network each. Source: as above.
DATA: dict[str, dict[str, Any]] = {
    "isic2017": {"dataset": "ISIC2017"},
    "jsrt_lung": {"dataset": "JSRT", "structures": ["lung"]},
    "jsrt_heart": {"dataset": "JSRT", "structures": ["heart"]},
    "jsrt_clavicle": {"dataset": "JSRT", "structures": ["clavicle"]},
    "shenzhen": {"dataset": "SHENZHEN"},
}
GUIDED_NOISE = tuple((alpha, beta) for alpha in (0.3, 0.5, 0.7, 0.9, 1.0) for beta in (0.5, 0.7))

# One CPU, a quarter of an hour for a whole study on 64 px images; not published anywhere. See docs/performance.md.
NOISY_SMALL: dict[str, Any] = {
    "size_px": 64,
    "n_steps": 800,
    "round_steps": 20,
    "eval_every": 20,
    "batch_size": 8,
    "optim": {"name": "adam", "lr": 2e-3, "weight_decay": 0.0},
    "lr_step_every": 0,
    "checkpoint_every": 200,
    "save_snapshot_every": 0,
    "print_interval": 25,
    "num_workers": 0,
    "diagnosed_images": 60,
    "weights": "both",
    "save_predictions": False,
    "unet": {"base_features": 8, "max_features": 64, "halvings": [4, 4]},
}


@dataclass(frozen=True)
class Preset:
    """A published setting: its keys, and what is claimed for it."""

    name: str
    values: dict[str, Any]
    source: str
    hardware: str
    expected: str  # Dice x 100 (standard deviation over seeds), or why there is none


def published_settings() -> Iterator[Preset]:
    """Every setting of the two papers: data set x method x noise."""
    yield from _robust_settings()
    yield from _guided_settings()


def _robust_settings() -> Iterator[Preset]:
    for word in ("isic2017", "shenzhen"):
        for loss, title in LOSS_TITLES.items():
            figures = published_dice(DATA[word]["dataset"], title)
            for column in NOISE_COLUMNS if figures else ():
                batch = {"batch_size": 8} if word == "shenzhen" else {}
                yield Preset(
                    name=f"{word}_{loss}_{_noise_word(*column)}",
                    values=DATA[word] | ROBUST_TRAINING | batch | {"loss": loss, "noise": _noise(*column)},
                    source="T-Loss (MICCAI 2023), table " + ("1" if word == "isic2017" else "2"),
                    hardware="one V100, 32 GB",
                    expected=figures[column],
                )


def _guided_settings() -> Iterator[Preset]:
    for word in ("isic2017", "jsrt_lung", "jsrt_heart", "jsrt_clavicle"):
        for method in GUIDED_METHODS:
            for column in GUIDED_NOISE:
                yield Preset(
                    name=f"{word}_{method}_{_noise_word(*column)}",
                    values=guided_values(word, method) | {"noise": _noise(*column)},
                    source="superpixel-guided learning (MICCAI 2021), released configurations",
                    hardware="not stated",
                    expected="no published figure could be verified",
                )


def guided_values(word: str, method: str) -> dict[str, Any]:
    """Keys of one of `GUIDED_METHODS` on one of `DATA`. Source: superpixel-guided learning, released configurations."""
    values = GUIDED_TRAINING | DATA[word] | {"method": method}
    if word == "isic2017":
        return values
    values |= {"n_steps": 30_000, "round_steps": 150, "eval_every": 150, "batch_size": 8, "checkpoint_every": 1500}
    if method == "spguided":
        values["refine"] = {"thr_bg": 0.99, "thr_fg": 0.83, "decay": 0.5 if word == "jsrt_clavicle" else 1.0}
    return values


def _noise(alpha: float, beta: float) -> dict[str, float]:
    return {"alpha": alpha, "beta": beta}


def _noise_word(alpha: float, beta: float) -> str:
    """0.7, 0.5 -> a07_b05."""
    return f"a{alpha:.1f}_b{beta:.1f}".replace(".", "") if alpha else "clean"


def main(arguments: Sequence[str] | None = None) -> None:
    """Lists the published settings whose names hold all the words given."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    words = sys.argv[1:] if arguments is None else arguments
    for preset in published_settings():
        if all(word in preset.name for word in words):
            logger.info("%-32s %s; %s; Dice %s", preset.name, preset.source, preset.hardware, preset.expected)
