"""T-Loss (MICCAI 2023): negative log-likelihood of a mask under a Student-t distribution with learned tails."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from models.losses.base import SegmentationLoss, one_hot
from util.errors import ConfigError
from util.schema import check_bounds, option


@dataclass(frozen=True)
class TLossConfig:
    """Hyper-parameters of T-Loss. Source: Gonzalez-Jimenez et al., MICCAI 2023; defaults as in the paper."""

    nu_init: float = option(0.0, ge=-80, le=80)  # initial raw degrees of freedom nu~; released configuration: 1
    eps: float = option(1e-8, ge=0)  # nu = exp(nu~) + eps
    lr_nu: float = option(1e-3, gt=0)  # learning rate of nu~ (and of a learnable precision), constant
    log_precision: float | Literal["learnable"] = 1.0  # 1: released code, 0: paper; learnable: starts at 1
    reduction: Literal["none", "mean", "sum"] = "mean"  # over the images
    per_class: bool = True  # one nu per foreground class, losses averaged; False: one vector of all their pixels
    divide_by_pixels: bool = False  # True: loss per pixel; as published, it grows with the image
    plateau: bool = True  # lower the network's learning rate when nu~ has settled (rule and values: released code)
    plateau_every: int = option(50, ge=1)  # steps between two records of nu~
    plateau_records: int = option(10, ge=2, le=100_000)  # the last records that the rule compares
    plateau_window: int = option(5, ge=1)  # records in a moving average
    plateau_tolerance: float = option(1e-4, ge=0)  # largest difference of successive averages that counts as settled
    plateau_factor: float = option(0.1, gt=0, le=1)  # on the learning rate, each time nu~ has settled
    plateau_floor: float = option(0.1, gt=0, le=1)  # smallest product of these factors; 1e-4 of 1e-3, as released

    def __post_init__(self) -> None:
        check_bounds(self, "tloss.")
        if not 1 <= self.plateau_window < self.plateau_records:
            raise ConfigError(
                f"tloss.plateau_window={self.plateau_window}: expected from 1 to less than plateau_records="
                f"{self.plateau_records}, for at least two averages."
            )


class TLoss(SegmentationLoss):
    """Student-t negative log-likelihood of each image's mask as one vector, with learned degrees of freedom nu.

    An image's gradient is divided by its own squared error, so that badly fitting (presumably badly labelled) images
    count less.

    Attributes:
        raw_nu: nu~, one per foreground class, or a single one.
        log_precision: logarithm of the inverse variance of every pixel, fixed or learned.

    Source: Gonzalez-Jimenez et al., "Robust T-Loss for medical image segmentation", MICCAI 2023, equation 4
    (log_precision 0); released code (log_precision 1).

    Note: the published loss is binary. With more classes each foreground class is one against the rest, with its own
    nu, and the losses are averaged (`per_class`), or the masks of all foreground classes form one vector. The number
    of pixels comes from the input. The released code can also learn a precision for every pixel of a fixed image
    size; this is not offered, as pixels of different images do not correspond, and the model would depend on the size.
    """

    def __init__(self, config: TLossConfig, n_classes: int) -> None:
        super().__init__(n_classes)
        self.config = config
        n_vectors = n_classes - 1 if config.per_class else 1
        self.raw_nu = nn.Parameter(torch.full((n_vectors,), config.nu_init))
        is_learnable = config.log_precision == "learnable"
        log_precision = torch.full((n_vectors,), 1.0 if is_learnable else float(config.log_precision))
        if is_learnable:
            self.log_precision = nn.Parameter(log_precision)
        else:
            self.register_buffer("log_precision", log_precision, persistent=False)

    @property
    def nu(self) -> Tensor:
        """Degrees of freedom, one per foreground class, or a single one."""
        return self.raw_nu.exp() + self.config.eps

    def loss(self, logits: Tensor, label: Tensor) -> Tensor:
        """One value, or one per image with reduction "none"."""
        squared_error = squared_errors(logits, label)  # (B, K - 1)
        n_pixels = label[0].numel()
        if not self.config.per_class:
            squared_error, n_pixels = squared_error.sum(1, keepdim=True), n_pixels * (self.n_classes - 1)
        losses = student_t(squared_error, n_pixels, self.raw_nu, self.log_precision, self.config.eps).mean(1)
        if self.config.divide_by_pixels:
            losses = losses / n_pixels
        if self.config.reduction == "none":
            return losses
        return losses.mean() if self.config.reduction == "mean" else losses.sum()


def squared_errors(logits: Float[Tensor, "B K H W"], label: Tensor) -> Float[Tensor, "B V"]:
    """Sum over the pixels of (p - y)^2, for each image and foreground class (V = K - 1)."""
    if logits.shape[1] == 2:
        background, foreground = logits.unbind(1)
        error = (foreground - background).sigmoid() - (label == 1).to(logits.dtype)
        return error.square().sum((1, 2))[:, None]
    error = logits.softmax(1) - one_hot(label, logits.shape[1]).to(logits.dtype)
    return error.square().sum((2, 3))[:, 1:]


def student_t(
    squared_error: Float[Tensor, "B V"],
    n_pixels: int,
    raw_nu: Float[Tensor, " V"],
    log_precision: Float[Tensor, " V"],
    eps: float = 1e-8,
) -> Float[Tensor, "B V"]:
    """Negative log-density of vectors of `n_pixels` entries from their squared lengths.

    Differences of log-gamma functions lose most digits; they are therefore computed in float64.

    Args:
        squared_error: squared distance from the mean.
        n_pixels: the vectors' length D.
        raw_nu: nu~; nu = exp(nu~) + eps.
        log_precision: lambda; the precision is exp(lambda + eps).
        eps: keeps nu above 0.

    Source: T-Loss, equation 4; eps as in the released code, which puts nu~ + eps for ln nu and adds it to lambda.
    """
    raw_nu, log_precision = raw_nu.double() + eps, log_precision.double() + eps
    nu = (raw_nu - eps).exp() + eps
    half_d, half_sum = n_pixels / 2, (nu + n_pixels) / 2
    misfit = torch.log1p(log_precision.exp() * squared_error.double() / nu)
    constant = torch.lgamma(nu / 2) - torch.lgamma(half_sum) + half_d * (math.log(math.pi) + raw_nu - log_precision)
    return (constant + half_sum * misfit).to(squared_error.dtype)


class NuPlateau(nn.Module):
    """Lowers the network's learning rate whenever nu~ has settled. Its state is stored in buffers.

    Every `plateau_every` steps nu~ is recorded. Once there are `plateau_records` records, their moving averages are
    compared: if two successive ones differ by at most `plateau_tolerance` for every class, the factor is multiplied by
    `plateau_factor` and the records are cleared.

    Source: T-Loss, released code. Note: there the averages overwrite the records, again at each test, so that the rule
    fires on values that still fall; here the records are kept. As all older pairs were compared before, the newest
    records suffice.
    """

    notes: Tensor  # the records
    n_noted: Tensor
    current: Tensor

    def __init__(self, n_values: int, config: TLossConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("notes", torch.zeros(config.plateau_records, n_values))
        self.register_buffer("n_noted", torch.zeros((), dtype=torch.int64))
        self.register_buffer("current", torch.ones(()))
        self._known: float | None = None  # `current` on the host, so that it is not read back at every step
        self.register_load_state_dict_post_hook(_forget)

    @property
    def factor(self) -> float:
        """On the learning rate of the network."""
        if self._known is None:
            self._known = float(self.current)
        return self._known

    @torch.no_grad()
    def update(self, step: int, raw_nu: Tensor) -> None:
        """Takes nu~ after a step into account; does nothing between records."""
        config = self.config
        if step % config.plateau_every:
            return
        self.notes.copy_(torch.cat([self.notes[1:], raw_nu.detach()[None].to(self.notes.dtype)]))
        self.n_noted += 1
        if int(self.n_noted) < config.plateau_records:
            return
        averages = self.notes.unfold(0, config.plateau_window, 1).mean(-1)  # (records - window + 1, n_values)
        if bool((averages.diff(dim=0).abs().amax(1) <= config.plateau_tolerance).any()):
            self.current.copy_(torch.clamp(self.current * config.plateau_factor, min=config.plateau_floor))
            self.n_noted.zero_()
            self._known = None


def _forget(plateau: nn.Module, incompatible_keys: object) -> None:
    plateau._known = None  # type: ignore[assignment]
