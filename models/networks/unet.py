"""The 2D U-Net of nnU-Net, used by all methods for dense labels."""

from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from monai.networks.nets.dynunet import DynUNet
from torch import Tensor, nn

from util.errors import ConfigError
from util.schema import check_bounds, option

SMALLEST_FEATURE_MAP = 4  # features a side; nnU-Net halves no further


@dataclass(frozen=True)
class UNetConfig:
    """Size of a U-Net. Source: superpixel-guided learning and T-Loss, released code (features, halvings)."""

    in_channels: int = option(3, ge=1, le=64)  # of the image: 3 colour, 1 grey
    n_classes: int = option(2, ge=2, le=256)  # including the background
    halvings: tuple[int, int] = option((5, 5), ge=0, le=12)  # along rows and columns, see `halvings_of`
    base_features: int = option(32, ge=1, le=4096)  # channels of the first stage; doubled at each further stage
    max_features: int = option(480, ge=1, le=4096)  # upper bound of the channels

    def __post_init__(self) -> None:
        check_bounds(self, "unet.")
        if max(self.halvings) < 2:
            raise ConfigError(
                f"unet.halvings={self.halvings}: expected one number for rows and one for columns, both from 0 and one "
                "of them from 2. For images of 16 pixels a side and more, halvings_of(rows, columns) gives them."
            )
        if self.base_features > self.max_features:
            raise ConfigError(
                f"unet.base_features={self.base_features}, max_features={self.max_features}: "
                "expected base_features <= max_features."
            )

    @property
    def features(self) -> tuple[int, ...]:
        """Channels of each stage, the finest first."""
        return tuple(min(self.base_features * 2**stage, self.max_features) for stage in range(max(self.halvings) + 1))


class UNet(nn.Module):
    """An encoder and decoder with skip connections: two convolutions a stage, each normalised over the batch.

    Source: Isensee et al., "nnU-Net", Nature Methods 2021 (the "Generic U-Net" of its first version), as set up by
    the released code of superpixel-guided learning (MICCAI 2021) and T-Loss (MICCAI 2023).

    Note: MONAI's `DynUNet`. Its convolutions before a batch norm have no bias, its head has one, and the heads at lower
    resolution, which the reference builds but never uses, are omitted. Otherwise it is the network of the reference.
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        strides = [tuple(1 + (0 < stage <= n) for n in config.halvings) for stage in range(len(config.features))]
        network = DynUNet(
            spatial_dims=2,
            in_channels=config.in_channels,
            out_channels=config.n_classes,
            kernel_size=[3] * len(strides),
            strides=strides,
            upsample_kernel_size=strides[1:],
            filters=config.features,
            norm_name="batch",
            act_name=("leakyrelu", {"inplace": True, "negative_slope": 0.01}),
        )
        self.stages = network.skip_layers  # DynUNet itself would list every weight twice in its state dict
        self.head = network.output_block

    def forward(self, image: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K H W"]:
        """Logits of every class at every pixel.

        Raises:
            ConfigError: wrong number of channels, or sides that cannot be halved as often.
        """
        if image.shape[1] != self.config.in_channels:
            raise ConfigError(
                f"unet.in_channels={self.config.in_channels}: the images have {image.shape[1]} channels; "
                f"set unet.in_channels={image.shape[1]}."
            )
        size, step = tuple(image.shape[-2:]), tuple(2**n for n in self.config.halvings)
        if any(side % multiple for side, multiple in zip(size, step, strict=True)):
            fitting = tuple(-(-side // multiple) * multiple for side, multiple in zip(size, step, strict=True))
            raise ConfigError(
                f"unet.halvings={self.config.halvings}: the images have {size[0]} x {size[1]} pixels; expected "
                f"multiples of {step[0]} and {step[1]}. Prepare them at {fitting[0]} x {fitting[1]}, or reduce it."
            )
        return self.head(self.stages(image))


def build_unet(config: UNetConfig) -> nn.Module:
    """A U-Net with random weights: images Float[B C H W] to logits Float[B K H W]."""
    return UNet(config)


def halvings_of(rows: int, columns: int) -> tuple[int, int]:
    """How often an image's two sides are halved: as long as at least 4 features remain along each.

    Source: nnU-Net's rule; 256 pixels give 6, 128 give 5, 96 x 224 give (4, 5).
    """
    first, second = (max((side // SMALLEST_FEATURE_MAP).bit_length() - 1, 0) for side in (rows, columns))
    return first, second


def fitting_unet(channels: int, n_classes: int, shape: tuple[int, int]) -> dict[str, Any]:
    """The settings of a U-Net that follow from the images: channels, classes with the background, halvings."""
    return {"in_channels": channels, "n_classes": n_classes, "halvings": list(halvings_of(*shape))}
