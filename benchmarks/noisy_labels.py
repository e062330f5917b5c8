"""T-Loss, the superpixel mean and simulated noise, each against its yardstick; steps are in benchmarks.dense_step.

python -m benchmarks.noisy_labels --repeats 15
"""

from argparse import Namespace
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

from benchmarks.timing import HEADER, Comparison, compare, describe, parse
from data.noise.generator import Draw, distort
from dataloaders.images.folder import NoiseConfig
from models.losses import LossConfig, build_loss
from models.losses.superpixels import superpixel_mean

N_SEGMENTS = 100


def measure(options: Namespace) -> list[Comparison]:
    """All comparisons of this module."""
    return [*_losses(options), *_superpixel_means(options), *_noise(options)]


def _losses(options: Namespace) -> list[Comparison]:
    """T-Loss from logits, forward and backward, against cross-entropy on 8 masks of 256 x 256."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(8, 2, 256, 256, generator=generator).to(options.device).requires_grad_()
    label = torch.randint(0, 2, (8, 256, 256), generator=generator).to(options.device)
    t_loss = build_loss("tloss", LossConfig(), 2).to(options.device)

    def backward(loss: Callable[[Tensor, Tensor], Tensor]) -> None:
        logits.grad = None
        loss(logits, label).backward()

    name, repeats = "T-Loss forward + backward, 8 x 256 x 256", 7 * options.repeats
    yardstick = "torch's cross-entropy forward + backward"
    return [
        compare(
            name, lambda: backward(t_loss), yardstick, lambda: backward(F.cross_entropy), options, repeats=repeats
        )
    ]  # fmt: skip


def _superpixel_means(options: Namespace) -> list[Comparison]:
    """The mean over each superpixel against one pass over the image, and against the one-hot form."""
    value = torch.rand(8, 256, 256, device=options.device)
    side = int(N_SEGMENTS**0.5)
    cells = torch.arange(256, device=options.device) * side // 256
    ids = (cells[:, None] * side + cells).expand(8, -1, -1).contiguous()
    one_pass = ids.flatten()

    def naive() -> Tensor:
        members = F.one_hot(ids, side**2).to(value)  # (B, H, W, segments)
        sums = torch.einsum("bhw,bhwk->bk", value, members) / members.sum((1, 2))
        return torch.einsum("bk,bhwk->bhw", sums, members)

    name = f"superpixel mean, 8 x 256 x 256, {side**2} segments"
    repeats = 7 * options.repeats
    return [
        compare(
            name, lambda: superpixel_mean(value, ids), "one pass (torch.bincount of the pixels)",
            lambda: torch.bincount(one_pass, value.flatten()), options, repeats=repeats,
        ),
        compare(name, lambda: superpixel_mean(value, ids), "the one-hot form", naive, options),
    ]  # fmt: skip


def _noise(options: Namespace) -> list[Comparison]:
    """A dilated and an eroded mask of 256 x 256 against one-pixel steps until the area is reached."""
    rows, columns = np.ogrid[:256, :256]
    mask = ((rows - 128) / 60) ** 2 + ((columns - 128) / 45) ** 2 <= 1
    noise = NoiseConfig(0.7, 0.7)

    def naive(change: Callable[..., np.ndarray], sign: int) -> None:
        target, area, now = mask.sum() + sign * int(0.7 * mask.sum()), mask.sum(), mask
        while sign * area < sign * target:
            now = change(now)
            area = now.sum()

    changes = {"dilate": (ndimage.binary_dilation, 1), "erode": (ndimage.binary_erosion, -1)}
    return [
        compare(
            f"noisy mask, {kind}, 256 x 256", lambda kind=kind: distort(mask, Draw(kind), noise),
            "one-pixel steps of scipy", lambda kind=kind: naive(*changes[kind]), options, repeats=2 * options.repeats,
        )
        for kind in changes
    ]  # fmt: skip


if __name__ == "__main__":
    given = parse(__doc__, repeats=15)
    print(describe(given), HEADER, *measure(given), sep="\n")
