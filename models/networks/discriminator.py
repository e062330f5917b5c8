"""The discriminator of a task: what a predicted map looks like, patch by patch."""

from itertools import pairwise

from jaxtyping import Float
from torch import Tensor, nn

from util.errors import ConfigError

SMALLEST_PX = 32  # whose logits are a single patch


class PatchDiscriminator(nn.Sequential):
    """Five 4 x 4 convolutions of stride 2, with leaky ReLU between them and no normalisation.

    Source: PSSNet (Pattern Recognition 2024), released code; Tsai et al., "AdaptSegNet", CVPR 2018.
    """

    def __init__(self, in_channels: int, channels: int = 64) -> None:
        """Takes the number of classes of the task, and the channels of the first layer, which double from each."""
        pairs = list(pairwise((in_channels, *(channels * 2**number for number in range(4)), 1)))
        layers = [nn.Conv2d(*each, kernel_size=4, stride=2, padding=1) for each in pairs]
        super().__init__(*(each for layer in layers for each in (layer, nn.LeakyReLU(0.2, inplace=True))))
        del self[-1]

    def forward(self, maps: Float[Tensor, "B K H W"]) -> Float[Tensor, "B 1 h w"]:
        """Logits at a thirty-second of the size: above 0, of a data set that is annotated for the task.

        Args:
            maps: probabilities of the task's classes.

        Raises:
            ConfigError: they are smaller than 32 pixels a side.
        """
        if min(maps.shape[-2:]) < SMALLEST_PX:
            height, width = maps.shape[-2:]
            raise ConfigError(
                f"crop_px: views of {height} x {width} px; discriminators need at least {SMALLEST_PX}. Use larger "
                "views, or adversarial_weight=0."
            )
        return super().forward(maps)
