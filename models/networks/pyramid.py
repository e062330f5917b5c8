"""Encoders with features at a quarter to a thirty-second of the image's size: any such model of timm."""

from typing import Any

import timm
import torch.nn.functional as F
from jaxtyping import Float
from timm.models import is_model_in_modules
from torch import Tensor, nn

from models.networks.backbones import load_timm_weights
from util.errors import ConfigError

STRIDES = (4, 8, 16, 32)


class PyramidEncoder(nn.Module):
    """Features at strides 4, 8, 16 and 32; those of a Swin transformer with a layer norm of their own.

    Attributes:
        channels: of each of the four features.

    Source: PSSNet (Pattern Recognition 2024), released code; Liu et al., "Swin transformer", ICCV 2021.
    Note: a Swin transformer shifts its windows in all stages, whatever the size of the image, as in the released code.
    """

    def __init__(self, name: str, in_channels: int = 3, drop_path: float = 0.0, weights: str = "none") -> None:
        """Builds the encoder.

        Args:
            name: of a model of timm.
            in_channels: of the images.
            drop_path: probability that the last residual block of an image is skipped in training; rises from 0.
            weights: see `load_timm_weights`.

        Raises:
            ConfigError: no such model, one without these strides or without drop path, or unknown weights.
            CheckpointError: weights that cannot be downloaded, read, or do not fit.
        """
        super().__init__()
        self.features: Any = _features_of(name, in_channels, drop_path)
        strides: list[int] = list(self.features.feature_info.reduction())
        if not set(STRIDES) <= set(strides):
            raise ConfigError(f"network.encoder={name!r}: its features have strides {strides}; expected 4, 8, 16, 32.")
        self.places = tuple(len(strides) - 1 - strides[::-1].index(stride) for stride in STRIDES)
        widths: list[int] = list(self.features.feature_info.channels())
        self.channels = tuple(widths[place] for place in self.places)
        is_swin = _is_swin(name)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for width in self.channels) if is_swin else None
        load_timm_weights(self.features, name, in_channels, weights)

    def forward(self, image: Float[Tensor, "B C H W"]) -> list[Float[Tensor, "B _ _ _"]]:
        """Four features (B, C, h, w) of images whose sides are multiples of 32, see `pad_to_stride`."""
        found = self.features(image)
        chosen = [found[place] for place in self.places]
        if self.norms is None:
            return [_channels_first(each, width) for each, width in zip(chosen, self.channels, strict=True)]
        return [norm(each).permute(0, 3, 1, 2) for norm, each in zip(self.norms, chosen, strict=True)]


def pad_to_stride(image: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C h w"]:
    """Repeats the last rows and columns until the sides are multiples of the largest stride."""
    height, width = image.shape[-2:]
    bottom, right = -height % STRIDES[-1], -width % STRIDES[-1]
    return F.pad(image, (0, right, 0, bottom), mode="replicate") if bottom or right else image


def _features_of(name: str, in_channels: int, drop_path: float) -> nn.Module:
    if not timm.is_model(name):
        close = ", ".join(timm.list_models(f"*{name[:6]}*")[:5]) or "see timm.list_models()"
        raise ConfigError(f"network.encoder={name!r}: timm has no such encoder; similar: {close}.")
    options: dict[str, Any] = {"in_chans": in_channels}
    if _is_swin(name):
        options |= {"strict_img_size": False, "always_partition": True}
    if drop_path:
        options["drop_path_rate"] = drop_path
    try:
        return timm.create_model(name, features_only=True, **options)
    except (TypeError, AttributeError) as error:
        raise ConfigError(
            f"network.encoder={name!r}: timm cannot build it with {options} ({error}). Choose another encoder, or "
            "network.drop_path=0 for one without residual blocks."
        ) from error


def _is_swin(name: str) -> bool:
    return is_model_in_modules(name, ["swin_transformer", "swin_transformer_v2"])


def _channels_first(features: Tensor, width: int) -> Tensor:
    return features if features.shape[1] == width else features.permute(0, 3, 1, 2)
