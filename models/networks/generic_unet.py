"""Weights of the "Generic U-Net" in files of the authors of superpixel-guided learning and T-Loss, for our U-Net."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from torch import Tensor

from models.networks.unet import UNetConfig

PARALLEL = "module."  # in front of all names, where several GPUs were used
INNER = ".next_layer"  # of each level in ours


class GenericUNet(NamedTuple):
    """A U-Net in a file: its size, and its weights by the names of `models.networks.unet.UNet`."""

    config: UNetConfig
    state: dict[str, Tensor]


def find_weights(content: Mapping[str, Any]) -> dict[str, Tensor] | None:
    """The state dict of a Generic U-Net in what a file holds; None: there is none.

    T-Loss's authors store it as `net`, beside an optimiser, those of superpixel-guided learning as it is.
    """
    inner = content.get("net", content)
    if not isinstance(inner, Mapping) or not all(isinstance(value, Tensor) for value in inner.values()):
        return None
    state = {str(name).removeprefix(PARALLEL): value for name, value in inner.items()}
    is_one = any(name.startswith("conv_blocks_context.") for name in state) and "tu.0.weight" in state
    return state if is_one else None


def read_generic_unet(weights: Mapping[str, Tensor]) -> GenericUNet:
    """The same network as one of ours, in prediction; heads at lower resolution, which it never uses, are left out.

    Our convolutions before a batch norm have no bias: theirs is taken from the running mean.

    Args:
        weights: see `find_weights`.

    Raises:
        KeyError: weights are missing.
    """
    depth = sum(name.startswith("tu.") for name in weights)
    state: dict[str, Tensor] = {}
    for theirs, ours in _convolutions(depth):
        state |= _normalised(weights, theirs, *ours)
    for number in range(depth):
        state[f"{_level(depth - 1 - number)}.upsample.transp_conv.conv.weight"] = weights[f"tu.{number}.weight"]
    head = weights[f"seg_outputs.{depth - 1}.weight"]
    state["head.conv.conv.weight"] = head
    state["head.conv.conv.bias"] = weights.get(f"seg_outputs.{depth - 1}.bias", head.new_zeros(len(head)))
    first = weights["conv_blocks_context.0.blocks.0.conv.weight"]
    strides = [weights[f"tu.{number}.weight"].shape[2:] for number in range(depth)]
    config = UNetConfig(
        in_channels=first.shape[1],
        n_classes=len(head),
        halvings=(sum(rows == 2 for rows, _ in strides), sum(columns == 2 for _, columns in strides)),
        base_features=len(first),
        max_features=max(len(value) for value in state.values() if value.ndim == 4),
    )
    return GenericUNet(config, state)


def _level(number: int) -> str:
    """Our name of a level, the finest is 0."""
    return f"stages{INNER * number}"


def _convolutions(depth: int) -> Iterator[tuple[str, tuple[str, int]]]:
    """Their name of each convolution with its norm, and our block and number in it."""
    for level in range(depth):
        for number in (0, 1):
            yield f"conv_blocks_context.{level}.blocks.{number}", (f"{_level(level)}.downsample", number + 1)
    for number in (0, 1):
        yield f"conv_blocks_context.{depth}.{number}.blocks.0", (_level(depth), number + 1)
        for level in range(depth):
            theirs = f"conv_blocks_localization.{depth - 1 - level}.{number}.blocks.0"
            yield theirs, (f"{_level(level)}.upsample.conv_block", number + 1)


def _normalised(weights: Mapping[str, Tensor], theirs: str, ours: str, number: int) -> dict[str, Tensor]:
    """A convolution and its batch norm."""
    names = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    found = {name: weights[f"{theirs}.instnorm.{name}"] for name in names}
    found["running_mean"] = found["running_mean"] - weights[f"{theirs}.conv.bias"]
    norm = {f"{ours}.norm{number}.{name}": value for name, value in found.items()}
    return norm | {f"{ours}.conv{number}.conv.weight": weights[f"{theirs}.conv.weight"]}
