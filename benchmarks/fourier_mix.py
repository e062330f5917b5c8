"""Fourier mixing, and the other parts of a strong view, of a batch against one 3x3 convolution of it to 64 channels.

python -m benchmarks.fourier_mix --size 288 --batch 32 --repeats 15
"""

from argparse import Namespace
from collections.abc import Callable

import torch
from torch import nn

from benchmarks.timing import HEADER, Comparison, compare, describe, parse
from dataloaders.transforms.appearance import N_APPEARANCE, AppearanceConfig, change_appearance
from dataloaders.transforms.cutmix import CutMixConfig, draw_masks, mix
from dataloaders.transforms.fourier import FourierConfig, mix_amplitudes

CHANNELS = 64  # of the convolution's result, as in the first layer of a ResNet


def measure(options: Namespace) -> list[Comparison]:
    """Amplitudes in the published window and in the whole spectrum, CutMix, and a change of appearance."""
    torch.manual_seed(0)
    device, batch, size = options.device, options.batch, options.size
    image, partner = torch.rand(2, batch, 1, size, size, device=device)
    share, boxes = torch.rand(batch, device=device), torch.rand(batch, 3, 4, device=device)
    numbers = torch.rand(batch, N_APPEARANCE, device=device)
    convolution = nn.Conv2d(1, CHANNELS, 3, padding=1).to(device)
    parts: dict[str, Callable[[], object]] = {
        "Fourier mix, window 0.01": lambda: mix_amplitudes(image, partner, share, FourierConfig()),
        "Fourier mix, all frequencies": lambda: mix_amplitudes(image, partner, share, FourierConfig("blend")),
        "CutMix of 3 boxes": lambda: mix(image, partner, draw_masks(boxes, (size, size), CutMixConfig())),
        "gain, gamma, blur, noise": lambda: change_appearance(image, numbers, AppearanceConfig()),
    }
    yardstick = f"3x3 convolution, 1 to {CHANNELS} channels"
    with torch.no_grad():
        return [
            compare(f"{name}, {batch} x {size} px", part, yardstick, lambda: convolution(image), options)
            for name, part in parts.items()
        ]


if __name__ == "__main__":
    given = parse(__doc__, size=288, batch=32, repeats=15)
    print(describe(given), HEADER, *measure(given), sep="\n")
