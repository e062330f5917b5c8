"""Segmenting a whole scan for four organs against the bare encoder's forward pass over its slices.

python -m benchmarks.validation_scan --modelname dlfcn_res101 --size 256 --slices 34 --repeats 9
"""

from argparse import Namespace
from collections.abc import Callable

import torch

from benchmarks.timing import HEADER, Comparison, compare, describe, parse
from dataloaders.samples import EvalCase, SupportSet
from models.methods.alpnet import ALPNet, ALPNetConfig


def measure(options: Namespace) -> list[Comparison]:
    """One scan, with the support encoded beforehand, as it is shared by all scans of a fold."""
    device, size = options.device, options.size
    torch.manual_seed(0)
    method = ALPNet(ALPNetConfig(modelname=options.modelname, encoder_weights="none")).to(device).eval()
    mask = torch.zeros(4, 3, 1, size, size, dtype=torch.bool)
    mask[..., size // 4 : size // 2, size // 4 : size // 2] = True
    support = SupportSet((1, 2, 3, 4), torch.randn(4, 3, 1, 1, size, size), mask).to(device)
    part = torch.arange(options.slices).mul(3).div(options.slices, rounding_mode="floor").expand(4, -1)
    case = EvalCase("1", (1, 2, 3, 4), torch.randn(options.slices, 1, size, size), part).to(device)

    with torch.inference_mode():
        encoded = method.encode_support(support)

        def run(function: Callable[[], object]) -> None:
            with options.autocast:
                function()

        def bare() -> None:
            for images in case.image.split(16):
                method.encoder(images)

        name = f"segmenting a scan of {options.slices} slices for 4 organs, {options.modelname}, {size} px"
        return [
            compare(
                name,
                lambda: run(lambda: method.predict(case, encoded)),
                "encoder forward of its slices",
                lambda: run(bare),
                options,
                is_network=True,
            )
        ]


if __name__ == "__main__":
    given = parse(__doc__, modelname="dlfcn_res101", size=256, slices=34, repeats=9)
    print(describe(given), HEADER, *measure(given), sep="\n")
