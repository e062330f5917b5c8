"""The place prior's widths, fitted to the structures of an annotated scan by segmenting deformed copies of it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from dataloaders.samples import SupportScan
from dataloaders.transforms.scan_views import UNKNOWN, ScanViewConfig, apply, draw, from_input, to_input
from models.networks.label_propagation import KernelConfig
from util.schema import check_bounds, option


@dataclass(frozen=True)
class CalibrationConfig:
    """Which widths are tried, and on what. Source: factors and margin are our own choice, checked on CHAOST2."""

    copies: int = option(2, ge=0)  # deformed copies of each annotated scan; 0: no calibration
    n_slices: int = option(18, ge=1)  # annotated ones at most that are segmented in a copy, spread evenly
    factors_xy: tuple[float, ...] = (0.4, 0.65, 1.0)  # of `kernel.sigma_xy`
    factors_z: tuple[float, ...] = (0.65, 1.0)  # of `kernel.sigma_z_mm`
    margin: float = option(0.005, ge=0)  # Dice by which other widths must be better than the kernel's own
    views: ScanViewConfig = option(ScanViewConfig)

    def __post_init__(self) -> None:
        check_bounds(self, "calibration.")

    def candidates(self, kernel: KernelConfig) -> tuple[KernelConfig, ...]:
        """The kernel itself, and others of all pairs of widths."""
        pairs = [(xy, z) for xy in self.factors_xy for z in self.factors_z]
        others = [replace(kernel, sigma_xy=xy * kernel.sigma_xy, sigma_z_mm=z * kernel.sigma_z_mm) for xy, z in pairs]
        return tuple(dict.fromkeys([kernel, *others]))


def deformed_copy(
    scan: SupportScan, classes: Sequence[int], number: int, config: ScanViewConfig
) -> tuple[Float[Tensor, "D 1 H W"], UInt8[Tensor, "D H W"]]:
    """Image and label of an annotated scan, changed as if of another patient: all slices alike, but for the noise.

    Args:
        scan: the original.
        classes: label values.
        number: of the copy; the same number gives the same copy.
        config: how much is changed.
    """
    depth = len(scan.image)
    drawn = draw([np.random.default_rng(number) for _ in range(depth)], config, max(classes) + 1)
    drawn = replace(drawn, noise_seeds=drawn.noise_seeds + torch.arange(depth)).to(scan.image.device)
    is_class = torch.isin(scan.label, scan.label.new_tensor([*classes, UNKNOWN]))
    image, label = apply(to_input(scan.image), torch.where(is_class, scan.label, 0), drawn)
    return from_input(image), label


def dice(masks: Bool[Tensor, "K D H W"], label: UInt8[Tensor, "D H W"], classes: Sequence[int]) -> Float[Tensor, " K"]:
    """Of each mask, where the label is known; NaN where both are empty."""
    masks = masks & (label != UNKNOWN)
    truth = torch.stack([label == value for value in classes])
    sizes = masks.flatten(1).sum(1) + truth.flatten(1).sum(1)
    return 2 * (masks & truth).flatten(1).sum(1) / sizes


def best_kernels(
    candidates: Sequence[KernelConfig], scores: Float[Tensor, "N C K"], margin: float
) -> tuple[KernelConfig, ...]:
    """For each of K structures the candidate of the best mean score; the first one unless another wins by a margin.

    Args:
        candidates: C of them.
        scores: of N copies; NaN counts for none, and as 0 if all are.
        margin: added to the first one's score.
    """
    means = scores.nanmean(0).nan_to_num()
    means[0] += margin
    return tuple(candidates[index] for index in means.argmax(0).tolist())
