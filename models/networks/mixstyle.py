"""MixStyle: feature maps take a share of the channel means and deviations of another image of the batch."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from models.networks.unet import UNet
from util.errors import ConfigError
from util.schema import option

TINY = 1e-6  # added to variances
N_STYLE = 4  # random numbers of an image in a pass: whether it is mixed, and its share at each of up to three stages


@dataclass(frozen=True)
class MixStyleConfig:
    """How often and how strongly feature statistics are mixed.

    Source: Zhou et al., "Domain generalization with MixStyle", ICLR 2021 (probability 0.5, alpha 0.1).

    Note: each image is mixed or not on its own; the source decides once for the whole batch.
    """

    probability: float = option(0.5, ge=0, le=1)  # that an image's statistics are mixed; 0: never
    alpha: float = option(0.1, gt=0, le=1)  # of the Beta distribution of an image's own share
    stages: int = option(3, ge=1, le=3)  # of the encoder, from the first, whose features are mixed
    passes: Literal["both", "teacher", "supervised", "none"] = "both"  # in which features are mixed

    def shares(self, uniform: Float[Tensor, "B N"]) -> Float[Tensor, "B S"]:
        """Each image's own share at each of S = N - 1 stages: 1 or Beta(alpha, alpha).

        Args:
            uniform: drawn from 0 to 1; the first decides whether the image is mixed, one per stage follows.
        """
        share = beta_quantile(uniform[:, 1:], self.alpha)
        return torch.where(uniform[:, :1] < self.probability, share, 1.0)


def beta_quantile(probability: Tensor, alpha: float) -> Tensor:
    """The value below which a Beta(alpha, alpha) number lies with this probability, for alpha up to 1; approximate.

    (2p)^(1/alpha) / 2 below the median, and symmetric above it: exact for alpha = 1 and at 0, 1/2 and 1. For
    alpha = 0.1 the distribution function is wrong by at most 0.03.
    """
    lower = torch.minimum(probability, 1 - probability)
    value = (2 * lower) ** (1 / alpha) / 2
    return torch.where(probability < 0.5, value, 1 - value)


def mix_statistics(features: Float[Tensor, "B C H W"], share: Float[Tensor, " B"]) -> Float[Tensor, "B C H W"]:
    """Replaces each channel's mean and deviation by a mixture with those of the preceding image of the batch.

    Args:
        features: any floating-point type.
        share: of the image's own statistics; 1 returns the features.
    """
    with torch.no_grad():
        variance, mean = torch.var_mean(features.float(), (2, 3), correction=0)
        deviation = (variance + TINY).sqrt()
        own = share[:, None].float()
        scale = torch.lerp(deviation.roll(1, 0), deviation, own) / deviation
        shift = torch.lerp(mean.roll(1, 0), mean, own) - scale * mean
    scale, shift = (each[..., None, None].to(features.dtype) for each in (scale, shift))
    return features * scale + shift


class MixStyle:
    """Mixes the features of a network's first encoder stages during chosen passes.

    It is attached to the network by hooks, so that the names of weights stay the same.
    """

    def __init__(self, network: nn.Module, n_stages: int) -> None:
        """Attaches itself to a segmentor of `models.networks.deeplab`."""
        self.share: Float[Tensor, "B N"] | None = None
        for number, stage in enumerate(encoder_stages(network)[:n_stages]):
            stage.register_forward_hook(_Hook(self, number))

    @contextmanager
    def mixing(self, share: Float[Tensor, "B N"] | None) -> Iterator[None]:
        """Passes within the block are mixed with these shares of each image at each stage; None: they are not."""
        self.share = share
        try:
            yield
        finally:
            self.share = None


class _Hook:
    def __init__(self, owner: MixStyle, number: int) -> None:
        self.owner, self.number = owner, number

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        share = self.owner.share
        return output if share is None else mix_statistics(output, share[:, self.number])


def encoder_stages(network: nn.Module) -> list[nn.Module]:
    """The first stages of the encoder, up to three: those of a ResNet after its stem, or those of a U-Net.

    Raises:
        ConfigError: a network of another kind.
    """
    modules = dict(network.named_modules())
    layers = [name for name in modules if name.split(".")[-1] in ("layer1", "layer2", "layer3")]
    if len(layers) == 3:
        return [modules[name] for name in sorted(layers)]
    if isinstance(network, UNet):
        stages, level = [], network.stages
        while hasattr(level, "next_layer") and len(stages) < 3:
            stages.append(level.downsample)
            level = level.next_layer
        return [*stages, level][:3]
    raise ConfigError(f"{type(network).__name__}: MixStyle needs a ResNet encoder or a U-Net.")
