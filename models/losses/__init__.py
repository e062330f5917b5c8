"""Segmentation losses, built by name: pixelwise, of whole images, and T-Loss."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from torch import Tensor

from models.losses import noise_robust
from models.losses.base import SegmentationLoss
from models.losses.noise_robust import PixelLoss
from models.losses.overlap import Dice, NoiseRobustDice
from models.losses.t_loss import TLoss, TLossConfig
from util.errors import ConfigError
from util.schema import check_bounds, option

LossName = Literal[
    "ce", "bce", "gce", "mae", "rce", "sce", "nce", "ngce", "nce_rce", "ngce_mae", "ngce_rce", "focal",
    "dice", "cedice", "nrdice", "tloss",
]  # fmt: skip


@dataclass(frozen=True)
class LossConfig:
    """Hyper-parameters of all losses; each reads its own."""

    class_weighted: bool = True  # pixelwise losses: balance the classes (superpixel-guided learning); False: plain mean
    gce_q: float = option(0.7, gt=0, le=1)  # of gce
    # of ngce, ngce_mae, ngce_rce; Ma et al. use 0.1 on CIFAR-10, T-Loss does not say
    ngce_q: float = option(0.7, gt=0, le=1)
    sce_alpha: float = option(0.1, ge=0)  # weight of CE in sce
    sce_beta: float = option(1.0, ge=0)  # weight of RCE in sce
    focal_gamma: float = option(2.0, ge=0)  # of focal
    nrdice_gamma: float = option(1.5, ge=1, le=2)  # of nrdice
    tloss: TLossConfig = field(default_factory=TLossConfig)

    def __post_init__(self) -> None:
        check_bounds(self)


def _pixelwise(loss_map: Callable[..., Tensor], **fields: str) -> Callable[[LossConfig, int], SegmentationLoss]:
    """A builder of `loss_map`; `fields` maps each of its arguments to a field of the configuration."""

    def build(config: LossConfig, n_classes: int) -> SegmentationLoss:
        arguments = {argument: getattr(config, name) for argument, name in fields.items()}
        return PixelLoss(partial(loss_map, **arguments), config.class_weighted, n_classes)

    return build


LOSSES: dict[str, Callable[[LossConfig, int], SegmentationLoss]] = {
    "ce": _pixelwise(noise_robust.cross_entropy),
    "bce": _pixelwise(noise_robust.binary_cross_entropy),
    "gce": _pixelwise(noise_robust.generalised_cross_entropy, q="gce_q"),
    "mae": _pixelwise(noise_robust.mean_absolute_error),
    "rce": _pixelwise(noise_robust.reverse_cross_entropy),
    "sce": _pixelwise(noise_robust.symmetric_cross_entropy, alpha="sce_alpha", beta="sce_beta"),
    "nce": _pixelwise(noise_robust.normalised_cross_entropy),
    "ngce": _pixelwise(noise_robust.normalised_generalised_cross_entropy, q="ngce_q"),
    "nce_rce": _pixelwise(noise_robust.nce_and_rce),
    "ngce_mae": _pixelwise(noise_robust.ngce_and_mae, q="ngce_q"),
    "ngce_rce": _pixelwise(noise_robust.ngce_and_rce, q="ngce_q"),
    "focal": _pixelwise(noise_robust.focal, gamma="focal_gamma"),
    "dice": lambda config, n_classes: Dice(False, n_classes),
    "cedice": lambda config, n_classes: Dice(True, n_classes),
    "nrdice": lambda config, n_classes: NoiseRobustDice(config.nrdice_gamma, n_classes),
    "tloss": lambda config, n_classes: TLoss(config.tloss, n_classes),
}

# Names in tables.
LOSS_TITLES = {
    "ce": "CE", "bce": "BCE", "gce": "GCE", "mae": "MAE", "rce": "RCE", "sce": "SCE", "nce": "NCE", "ngce": "NGCE",
    "nce_rce": "NCE+RCE", "ngce_mae": "NGCE+MAE", "ngce_rce": "NGCE+RCE", "focal": "Focal", "dice": "Dice loss",
    "cedice": "CE+Dice", "nrdice": "NR-Dice", "tloss": "T-Loss",
}  # fmt: skip

# Losses of whole images: their pixels cannot be weighted by class.
IMAGE_LOSSES = ("dice", "cedice", "nrdice", "tloss")


def build_loss(name: str, config: LossConfig, n_classes: int) -> SegmentationLoss:
    """The loss of that name: logits (B, K, H, W) and class values (B, H, W) to a scalar.

    Raises:
        ConfigError: unknown loss; the message lists the known ones.
    """
    if name not in LOSSES:
        raise ConfigError(f"loss={name!r}: unknown loss; expected one of {', '.join(LOSSES)}.")
    return LOSSES[name](config, n_classes)
