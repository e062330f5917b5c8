"""UPerNet with one head per task on a shared encoder, for images that are annotated for some tasks only."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from models.networks.cross_attention import CrossTaskAttention
from models.networks.pyramid import STRIDES, PyramidEncoder, pad_to_stride
from models.networks.rows import EVERY, Rows, select_rows
from util.schema import check_bounds, option

BINS = (1, 2, 3, 6)  # cells a side in which the deepest features are pooled
CLASSIFIER_SD = 0.01  # of a classifier's initial weights
AUXILIARY_STAGE = STRIDES.index(16)


@dataclass(frozen=True)
class UPerConfig:
    """Size of the network. Source: PSSNet (Pattern Recognition 2024), released code."""

    encoder: str = "swin_tiny_patch4_window7_224"  # a model of timm with features at strides 4, 8, 16 and 32
    in_channels: int = option(3, ge=1, le=64)  # of the image: 3 colour, 1 grey
    channels: int = option(128, ge=4, le=4096)  # of each task's head; a multiple of 4 with attention between tasks
    dropout: float = option(0.1, ge=0, lt=1)  # of a head's channels before its classifier, in training
    drop_path: float = option(0.3, ge=0, lt=1)  # probability that the encoder's last residual block is skipped

    def __post_init__(self) -> None:
        check_bounds(self, "network.")


@dataclass(frozen=True)
class TaskLogits:
    """Logits of each of T tasks, before the sigmoid, at the size of the images.

    Attributes:
        main: T tensors (images of the task, classes of the task, H, W) float32.
        auxiliary: of the auxiliary heads; empty in evaluation mode and where there are none.
    """

    main: tuple[Tensor, ...]
    auxiliary: tuple[Tensor, ...] = ()

    def map(self, function: Callable[[int, Tensor], Tensor]) -> "TaskLogits":
        """The same with a function of the task's number and its logits applied to all."""
        return TaskLogits(*(tuple(function(*each) for each in enumerate(maps)) for maps in (self.main, self.auxiliary)))


class UPerHead(nn.Module):
    """Pools the deepest features, joins all stages from deep to fine, and classifies at stride 4.

    Source: Xiao et al., "Unified perceptual parsing", ECCV 2018; group norm as in PSSNet's released code, whose grouped
    convolutions are independent heads.
    """

    def __init__(self, in_channels: Sequence[int], channels: int, n_classes: int, dropout: float) -> None:
        """Takes the channels of the encoder's features, the finest first."""
        super().__init__()
        *fine, deep = in_channels
        self.pyramid = nn.ModuleList(_block(deep, channels, 1) for _ in BINS)
        self.bottleneck = _block(deep + len(BINS) * channels, channels, 3)
        self.laterals = nn.ModuleList(_block(each, channels, 1) for each in fine)
        self.refine = nn.ModuleList(_block(channels, channels, 3) for _ in fine)
        self.fusion = _block(len(in_channels) * channels, channels, 3)
        self.classifier = _classifier(channels, n_classes, dropout)

    def forward(self, features: Sequence[Float[Tensor, "B _ _ _"]]) -> Float[Tensor, "B C h w"]:
        """The head's map at the size of the finest features, which `classifier` turns into logits."""
        *fine, deep = features
        pooled = [
            _resize(block(F.adaptive_avg_pool2d(deep, cells)), deep)
            for block, cells in zip(self.pyramid, BINS, strict=True)
        ]
        joined = [self.bottleneck(torch.cat([deep, *pooled], 1))]  # the deepest first
        for block, each in zip(reversed(self.laterals), reversed(fine), strict=True):
            joined.append(block(each) + _resize(joined[-1], each))
        joined[1:] = [block(each) for block, each in zip(reversed(self.refine), joined[1:], strict=True)]
        return self.fusion(torch.cat([_resize(each, fine[0]) for each in reversed(joined)], 1))


class MultiHeadUPerNet(nn.Module):
    """An encoder with a head and an auxiliary head per task, and attention between the tasks where requested.

    Each head computes only the images that its task is asked for, so that no memory is spent on logits without labels.

    Source: PSSNet (Pattern Recognition 2024), released code.
    Note: there, images find their heads by a change of shape that holds for a single image per data set.
    """

    def __init__(
        self,
        config: UPerConfig,
        tasks: Mapping[str, int],
        encoder_weights: str = "none",
        *,
        attention: bool = False,
        auxiliary: bool = True,
        task_dropout: float = 0.0,
    ) -> None:
        """Builds the network.

        Args:
            config: its size.
            tasks: number of classes of each task, in the order of the outputs.
            encoder_weights: see `models.networks.backbones.load_timm_weights`.
            attention: whether the maps of the tasks attend to each other.
            auxiliary: whether there are auxiliary heads, which are computed in training only.
            task_dropout: probability that an image's map of a task is replaced by 0 in training.

        Raises:
            ConfigError: an unsuitable encoder, or unknown weights.
            CheckpointError: weights that cannot be downloaded, read, or do not fit.
        """
        super().__init__()
        self.encoder = PyramidEncoder(config.encoder, config.in_channels, config.drop_path, encoder_weights)
        widths, channels, dropout = self.encoder.channels, config.channels, config.dropout
        names = {name: _module_name(name) for name in tasks}
        self.heads = nn.ModuleDict(
            {names[name]: UPerHead(widths, channels, n_classes, dropout) for name, n_classes in tasks.items()}
        )
        self.auxiliary = nn.ModuleDict()
        if auxiliary:
            stage = widths[AUXILIARY_STAGE]
            for name, n_classes in tasks.items():
                block = _block(stage, channels, 3), _classifier(channels, n_classes, dropout)
                self.auxiliary[names[name]] = nn.Sequential(*block)
        self.attention = CrossTaskAttention(len(tasks), channels) if attention and len(tasks) > 1 else None
        self.task_dropout = task_dropout

    def forward(self, image: Float[Tensor, "B C H W"], rows: Sequence[Rows] | None = None) -> TaskLogits:
        """Logits of every task.

        Args:
            image: of any size from 32; padded to multiples of 32 for the encoder.
            rows: of each task, the images to be segmented, possibly none; None: all. With attention, the heads compute
                all images, and only attention and classifiers are limited to these.
        """
        padded = pad_to_stride(image)
        features = self.encoder(padded)
        wanted = [EVERY] * len(self.heads) if rows is None else rows
        maps = self._maps(features, wanted)
        main = [head.get_submodule("classifier")(each) for head, each in zip(self.heads.values(), maps, strict=True)]
        auxiliary = []
        if self.training and self.auxiliary:
            stage = features[AUXILIARY_STAGE]
            pairs = zip(self.auxiliary.values(), wanted, strict=True)
            auxiliary = [head(select_rows(stage, chosen)) for head, chosen in pairs]
        size, whole = image.shape[-2:], padded.shape[-2:]
        return TaskLogits(*(tuple(_upsample(each, whole, size) for each in kind) for kind in (main, auxiliary)))

    def _maps(self, features: Sequence[Tensor], rows: Sequence[Rows]) -> list[Tensor]:
        """Each head's map of its images."""
        heads = list(self.heads.values())
        if self.attention is not None:
            return self.attention([self._drop(head(features)) for head in heads], rows)
        chosen = ([select_rows(each, wanted) for each in features] for wanted in rows)
        return [self._drop(head(each)) for head, each in zip(heads, chosen, strict=True)]

    def _drop(self, maps: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
        """Replaces whole maps of some images by 0 in training, and scales the others."""
        if not (self.training and self.task_dropout):
            return maps
        return maps * F.dropout(maps.new_ones(len(maps), 1, 1, 1), self.task_dropout)


class JoinedLogits(nn.Module):
    """The logits of all tasks of a network as one tensor, in the order of the tasks."""

    def __init__(self, network: nn.Module) -> None:
        """Takes a `MultiHeadUPerNet`, or what wraps one."""
        super().__init__()
        self.network = network

    def forward(self, image: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K H W"]:
        """Logits of K classes, for the sigmoid."""
        return torch.cat(self.network(image).main, 1)


def _module_name(task: str) -> str:
    """A name that a module can have, which no attribute has and no other task."""
    return "task_" + task.replace("%", "%25").replace(".", "%2E")


def _block(in_channels: int, channels: int, kernel: int) -> nn.Sequential:
    """Convolution, normalisation of all channels of an image together, ReLU."""
    convolution = nn.Conv2d(in_channels, channels, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.GroupNorm(1, channels), nn.ReLU(inplace=True))


def _classifier(channels: int, n_classes: int, dropout: float) -> nn.Sequential:
    convolution = nn.Conv2d(channels, n_classes, 1)
    nn.init.normal_(convolution.weight, std=CLASSIFIER_SD)
    nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]
    return nn.Sequential(nn.Dropout2d(dropout), convolution)


def _resize(maps: Float[Tensor, "B C _ _"], like: Float[Tensor, "B _ h w"]) -> Float[Tensor, "B C h w"]:
    if maps.shape[-2:] == like.shape[-2:]:
        return maps
    return F.interpolate(maps, like.shape[-2:], mode="bilinear", align_corners=False)


def _upsample(logits: Tensor, whole: Sequence[int], size: Sequence[int]) -> Tensor:
    """Logits of a padded image, at the size of the image."""
    return F.interpolate(logits.float(), tuple(whole), mode="bilinear", align_corners=False)[..., : size[0], : size[1]]
