"""Segmentation networks for slices from several sources: DeepLabV3+ in two forms, and nnU-Net's U-Net."""

from dataclasses import dataclass
from typing import Any, Literal

import segmentation_models_pytorch as smp
import timm
import torch
import torch.nn.functional as F
from jaxtyping import Float
from segmentation_models_pytorch.encoders.timm_universal import TimmUniversalEncoder
from torch import Tensor, nn

from models.networks.backbones import load_timm_weights
from models.networks.unet import UNetConfig, build_unet
from util.errors import ConfigError
from util.schema import option

RATES = (6, 12, 18)  # of the dilated convolutions that see the deepest features


@dataclass(frozen=True)
class SegmentorConfig:
    """A network from images to logits. Source: CACPS (AAAI 2022), section 4.2 and released code (deeplab_reference)."""

    kind: Literal["deeplab", "deeplab_reference", "unet"] = "deeplab"
    in_channels: int = 1
    n_classes: int = 4  # including the background
    encoder: str = "resnet50s"  # of DeepLab: a ResNet of timm
    dropout: float = 0.1  # of feature maps in DeepLab's decoder (reference), or of its pyramid (segmentation-models)
    unet: UNetConfig = option(UNetConfig, "architecture")  # channels and classes are those above

    def __post_init__(self) -> None:
        if self.in_channels < 1 or self.n_classes < 2:
            raise ConfigError(
                f"network.in_channels={self.in_channels}, network.n_classes={self.n_classes}: expected 1 or more "
                "channels, and 2 or more classes with the background."
            )
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"network.dropout={self.dropout}: expected a fraction from 0, below 1.")
        if self.kind != "unet" and self.encoder not in timm.list_models("*resnet*"):
            close = ", ".join(timm.list_models(f"{self.encoder[:8]}*")[:5]) or "see timm.list_models('*resnet*')"
            raise ConfigError(f"network.encoder={self.encoder!r}: timm has no such ResNet; similar: {close}.")


def build_segmentor(config: SegmentorConfig, encoder_weights: str = "none") -> nn.Module:
    """Builds a network: (B, C, H, W) images to (B, K, H, W) logits.

    DeepLab takes any size from 32; the U-Net sides that can be halved as often as `unet.halvings` says.

    Args:
        config: the network.
        encoder_weights: of DeepLab's encoder: "none" (random), "imagenet" (downloaded by timm), or the path of a state
            dict of timm's encoder (.pth or .safetensors). The RGB kernels of the first layer are summed for one
            channel, and repeated for another number. The U-Net always starts from random weights.

    Raises:
        ConfigError: no such file, or no pretrained weights exist.
        CheckpointError: the weights cannot be downloaded, read, or do not fit.
    """
    network = _from_random_weights(config)
    if config.kind != "unet" and encoder_weights != "none":
        _load_encoder(network, config, encoder_weights)
    return network


def _from_random_weights(config: SegmentorConfig) -> nn.Module:
    if config.kind == "unet":
        own: dict[str, Any] = {"in_channels": config.in_channels, "n_classes": config.n_classes}
        return build_unet(UNetConfig(**{**vars(config.unet), **own}))
    if config.kind == "deeplab_reference":
        return ReferenceDeepLab(config)
    return DeepLab(
        smp.DeepLabV3Plus(
            f"tu-{config.encoder}",
            encoder_weights=None,
            encoder_output_stride=16,
            decoder_atrous_rates=RATES,
            decoder_aspp_dropout=config.dropout,
            in_channels=config.in_channels,
            classes=config.n_classes,
        )
    )


def _load_encoder(network: nn.Module, config: SegmentorConfig, weights: str) -> None:
    encoder = next(each for each in network.modules() if isinstance(each, TimmUniversalEncoder)).model
    load_timm_weights(encoder, config.encoder, config.in_channels, weights)


class DeepLab(nn.Module):
    """The network of segmentation-models, for images of any size.

    They are padded to a multiple of 16 pixels, and the logits cropped to their size.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K H W"]:
        """Logits at the size of the image."""
        height, width = image.shape[-2:]
        padded = F.pad(image, (0, -width % 16, 0, -height % 16), mode="replicate")
        return self.network(padded)[..., :height, :width]


class ReferenceDeepLab(nn.Module):
    """DeepLabV3+ as in the released code of CACPS: dense pyramid, whose pooled branch is added, not concatenated.

    Note: the last stage of the encoder keeps its stride with dilations 2, 4 and 8. The pooled branch averages the whole
    feature map, so that any size is taken; the reference pools 18 x 18 features and needs images of 288 pixels.
    """

    def __init__(self, config: SegmentorConfig, width: int = 256, width_low: int = 48) -> None:
        super().__init__()
        self.encoder = smp.encoders.get_encoder(
            f"tu-{config.encoder}", in_channels=config.in_channels, depth=5, weights=None, output_stride=16
        )
        _set_dilations(self.encoder, (2, 4, 8))
        low, high = self.encoder.out_channels[2], self.encoder.out_channels[-1]
        self.pyramid = nn.ModuleList(
            [nn.Conv2d(high, width, 1, bias=False)]
            + [nn.Conv2d(high, width, 3, padding=rate, dilation=rate, bias=False) for rate in RATES]
        )
        self.join = nn.Sequential(_norm_leaky(4 * width), nn.Conv2d(4 * width, width, 1, bias=False))
        self.pooled = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(high, width, 1, bias=False),
            _norm_leaky(width),
            nn.Conv2d(width, width, 1, bias=False),
        )
        self.after = _norm_leaky(width)
        self.low = nn.Sequential(nn.Conv2d(low, width_low, 1, bias=False), nn.BatchNorm2d(width_low), nn.ReLU(True))
        self.head = nn.Sequential(
            *(nn.Conv2d(width + width_low, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(True)),
            nn.Dropout2d(config.dropout),
            *(nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(True)),
            nn.Conv2d(width, config.n_classes, 1),
        )
        for part in (self.pyramid, self.join, self.pooled, self.low, self.head):
            for module in part.modules():
                if isinstance(module, nn.Conv2d):
                    nn.init.kaiming_normal_(module.weight)  # by the number of inputs

    def forward(self, image: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K H W"]:
        """Logits at the size of the image."""
        features = self.encoder(image)
        deep = features[-1]
        joined = self.join(torch.cat([branch(deep) for branch in self.pyramid], 1))
        context = self.after(joined + self.pooled(deep))
        low = self.low(features[2])
        context = F.interpolate(context, low.shape[-2:], mode="bilinear", align_corners=True)
        logits = self.head(torch.cat([context, low], 1))
        return F.interpolate(logits, image.shape[-2:], mode="bilinear", align_corners=True)


def _norm_leaky(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.BatchNorm2d(channels), nn.LeakyReLU(inplace=True))


def _set_dilations(encoder: nn.Module, dilations: tuple[int, ...]) -> None:
    """Sets the dilation of each block of the last stage; blocks beyond these have the last one."""
    stages = [module for name, module in encoder.named_modules() if name.endswith("layer4")]
    for number, block in enumerate(stages[0].children()):
        rate = dilations[min(number, len(dilations) - 1)]
        for module in block.modules():
            if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
                module.dilation, module.padding = (rate, rate), (rate, rate)
