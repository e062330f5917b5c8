"""A U-Net for single slices with an encoder whose pretrained weights are installed as a package."""

from collections.abc import Sequence
from typing import Any

import segmentation_models_pytorch as smp
import timm
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from models.networks.backbones import load_backbone
from models.networks.packaged import read_packaged, renamed_by_position
from util.errors import ConfigError

STRIDE = 32  # of the deepest features


def build_slice_unet(name: str, weights: str, n_classes: int, channels: Sequence[int]) -> "SliceUNet":
    """Builds the network.

    Args:
        name: of the encoder: efficientnet_lite0 to efficientnet_lite2.
        weights: "package" (ImageNet, see `models.networks.packaged`) or "none" (random).
        n_classes: with the background.
        channels: of the decoder's five stages, the coarsest first.

    Raises:
        ConfigError: other weights, or the package is not installed.
        CheckpointError: the weights are damaged.
    """
    if weights not in ("package", "none"):
        raise ConfigError(f"encoder_weights={weights!r}: expected package or none.")
    network = SliceUNet(name, n_classes, channels)
    if weights == "package":
        full = timm.create_model(f"tf_{name}").state_dict()
        load_backbone(network.encoder.model, renamed_by_position(read_packaged(name), full, name), name, weights)
    return network


class SliceUNet(nn.Module):
    """An encoder, and a decoder that joins its features of all strides. Source: segmentation-models-pytorch."""

    def __init__(self, name: str, n_classes: int, channels: Sequence[int]) -> None:
        super().__init__()
        self.network = smp.Unet(
            f"tu-tf_{name}", encoder_weights=None, in_channels=3, classes=n_classes, decoder_channels=list(channels)
        )

    @property
    def encoder(self) -> Any:
        """The part with pretrained weights."""
        return self.network.encoder

    def forward(self, image: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B K H W"]:
        """Logits at the size of the image, which is padded to a multiple of the stride by its edge."""
        height, width = image.shape[-2:]
        padded = F.pad(image, (0, -width % STRIDE, 0, -height % STRIDE), mode="replicate")
        return self.network(padded)[..., :height, :width]
