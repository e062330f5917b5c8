"""T-Loss, the superpixel mean, a superpixel-guided step and simulated noise, each against its yardstick.

python -m benchmarks.noisy_labels --size 128 --batch 8 --repeats 5
"""

from argparse import Namespace
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

from benchmarks.timing import HEADER, Comparison, compare, describe, parse
from data.label_noise import Draw, distort
from dataloaders.image_folder import NoiseConfig
from dataloaders.samples import DenseBatch
from models import build_method
from models.losses import LossConfig, build_loss
from models.losses.superpixels import superpixel_mean

N_SEGMENTS = 100


def measure(options: Namespace) -> list[Comparison]:
    """All of them."""
    return [*_losses(options), *_superpixel_means(options), *_steps(options), *_noise(options)]


def _losses(options: Namespace) -> list[Comparison]:
    """T-Loss from logits, forward and backward, against cross-entropy on 8 masks of 256 x 256."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(8, 2, 256, 256, generator=generator).to(options.device).requires_grad_()
    label = torch.randint(0, 2, (8, 256, 256), generator=generator).to(options.device)
    t_loss = build_loss("tloss", LossConfig(), 2).to(options.device)

    def backward(loss: Callable[[Tensor, Tensor], Tensor]) -> None:
        logits.grad = None
        loss(logits, label).backward()

    name = "T-Loss forward + backward, 8 x 256 x 256"
    yardstick = "torch's cross-entropy forward + backward"
    return [
        compare(
            name, lambda: backward(t_loss), yardstick, lambda: backward(F.cross_entropy),
            options.device, 10 * options.repeats,
        )
    ]  # fmt: skip


def _superpixel_means(options: Namespace) -> list[Comparison]:
    """The mean over each superpixel against reading the image once, and against the one-hot form."""
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
    repeats = 10 * options.repeats
    return [
        compare(
            name, lambda: superpixel_mean(value, ids), "one pass (torch.bincount of the pixels)",
            lambda: torch.bincount(one_pass, value.flatten()), options.device, repeats,
        ),
        compare(name, lambda: superpixel_mean(value, ids), "the one-hot form", naive, options.device, options.repeats),
    ]  # fmt: skip


def _steps(options: Namespace) -> list[Comparison]:
    """A step of two networks with superpixel selection against two plain U-Nets on the same batch."""
    size, n = options.size, options.batch
    cells = torch.arange(size) * 10 // size
    batch = DenseBatch(
        torch.randn(n, 3, size, size), torch.randint(0, 2, (n, size, size)),
        (cells[:, None] * 10 + cells).expand(n, -1, -1).contiguous(),
    ).to(options.device)  # fmt: skip
    guided = build_method({"method": "spguided"}).to(options.device).train()
    optimiser = torch.optim.SGD(guided.parameters(), 0.0, 0.99)
    networks = list(guided.get_submodule("networks").children())

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        guided(batch)["loss"].backward()
        optimiser.step()

    def plain() -> None:
        optimiser.zero_grad(set_to_none=True)
        for network in networks:
            F.cross_entropy(network(batch.image), batch.label).backward()
        optimiser.step()

    name = f"superpixel-guided step, {n} x {size} px"
    return [compare(name, step, "two plain U-Net steps", plain, options.device, options.repeats)]


def _noise(options: Namespace) -> list[Comparison]:
    """A dilated and an eroded mask of 256 x 256 against one-pixel steps until the area is reached."""
    rows, columns = np.ogrid[:256, :256]
    mask = ((rows - 128) / 60) ** 2 + ((columns - 128) / 45) ** 2 <= 1
    noise, cpu = NoiseConfig(0.7, 0.7), torch.device("cpu")

    def naive(change: Callable[..., np.ndarray], sign: int) -> None:
        target, area, now = mask.sum() + sign * int(0.7 * mask.sum()), mask.sum(), mask
        while sign * area < sign * target:
            now = change(now)
            area = now.sum()

    changes = {"dilate": (ndimage.binary_dilation, 1), "erode": (ndimage.binary_erosion, -1)}
    return [
        compare(
            f"noisy mask, {kind}, 256 x 256", lambda kind=kind: distort(mask, Draw(kind), noise),
            "one-pixel steps of scipy", lambda kind=kind: naive(*changes[kind]), cpu, 5 * options.repeats,
        )
        for kind in changes
    ]  # fmt: skip


if __name__ == "__main__":
    given = parse(__doc__, size=128, batch=8, repeats=5)
    print(describe(given.device), HEADER, *measure(given), sep="\n")
