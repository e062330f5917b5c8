"""Image encoders with output stride 8: dilated ResNets as in the reference, small ResNets, and timm encoders."""

import pickle
from collections import OrderedDict
from collections.abc import Callable, Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any

import timm
import torch
import torchvision.models as zoo
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models import adapt_input_conv
from torch import Tensor, nn
from torchvision.models.segmentation import DeepLabV3_ResNet50_Weights, DeepLabV3_ResNet101_Weights

from models.networks.packaged import PACKAGES, read_packaged, renamed_by_position
from util.errors import CheckpointError, ConfigError

OUTPUT_STRIDE = 8

_DILATED = {"dlfcn_res50": zoo.resnet50, "dlfcn_res101": zoo.resnet101}  # layers 1-4, the last two dilated
_SHALLOW = {"resnet18": zoo.resnet18, "resnet34": zoo.resnet34}  # layers 1-3, the third at stride 1
_COCO = {"dlfcn_res50": DeepLabV3_ResNet50_Weights, "dlfcn_res101": DeepLabV3_ResNet101_Weights}
_IMAGENET = {
    "dlfcn_res50": zoo.ResNet50_Weights.IMAGENET1K_V2,
    "dlfcn_res101": zoo.ResNet101_Weights.IMAGENET1K_V2,
    "resnet18": zoo.ResNet18_Weights.IMAGENET1K_V1,
    "resnet34": zoo.ResNet34_Weights.IMAGENET1K_V1,
}


class Encoder(nn.Module):
    """A backbone followed by a 1x1 convolution without bias to the channels of the prototypes.

    Parameter names are those of the authors' released checkpoints (`backbone.layer1...`, `localconv.weight`).

    Source: SSL-ALPNet, section 3.3 (ResNet-101, 256 channels at 1/8 of the image).
    """

    def __init__(self, backbone: nn.Module, backbone_channels: int, channels: int = 256) -> None:
        super().__init__()
        self.backbone = backbone
        self.localconv: nn.Module = nn.Conv2d(backbone_channels, channels, kernel_size=1, bias=False)

    def forward(self, images: Float[Tensor, "B 1 H W"]) -> Float[Tensor, "B C h w"]:
        """Encodes one-channel images; the channel is repeated for the backbone's three (a view, not a copy)."""
        return self.localconv(self.backbone(images.expand(-1, 3, -1, -1)))


class _TimmStage(nn.Module):
    """The last stage of a timm encoder with the output stride."""

    def __init__(self, name: str, pretrained: bool) -> None:
        super().__init__()
        probe = timm.create_model(name, features_only=True)
        strides: list[int] = probe.feature_info.reduction()  # type: ignore[operator, union-attr]
        if OUTPUT_STRIDE not in strides:
            raise ConfigError(f"modelname='timm:{name}': its features have strides {strides}; one of 8 is needed.")
        index = len(strides) - 1 - strides[::-1].index(OUTPUT_STRIDE)
        self.features = timm.create_model(name, features_only=True, out_indices=[index], pretrained=pretrained)
        self.channels: int = self.features.feature_info.channels()[0]  # type: ignore[operator, union-attr]

    def forward(self, images: Tensor) -> Tensor:
        (features,) = self.features(images)
        return features if features.shape[1] == self.channels else features.permute(0, 3, 1, 2)  # some are NHWC


class _LiteBackbone(nn.Module):
    """EfficientNet-Lite up to its fifth group of blocks, dilated to the output stride (112 or 120 channels).

    Normalised intensities z become 0.5 z - 0.3, so that most of a scan has the range of the pretraining, -1 to 1.

    Source: Lite variants of Tan and Le, "EfficientNet", ICML 2019; range of the input: chosen on folds 1 and 2 of
    CHAOST2.
    """

    def __init__(self, name: str, pretrained: bool) -> None:
        super().__init__()
        full: Any = timm.create_model(f"tf_{name}", output_stride=OUTPUT_STRIDE, pretrained=pretrained)
        self.conv_stem, self.bn1, self.blocks = full.conv_stem, full.bn1, full.blocks[:5]
        self.channels: int = self.blocks[-1][-1].conv_pwl.out_channels

    def forward(self, images: Tensor) -> Tensor:
        return self.blocks(self.bn1(self.conv_stem(0.5 * images - 0.3)))


def _lite_encoder(name: str, weights: str, channels: int) -> Encoder:
    backbone = download(name, lambda: _LiteBackbone(name, weights == "imagenet"))
    if weights == "package":
        full = timm.create_model(f"tf_{name}").state_dict()
        load_backbone(backbone, renamed_by_position(read_packaged(name), full, name), name, weights)
    return Encoder(backbone, backbone.channels, channels)


def build_encoder(name: str, weights: str, channels: int = 256) -> Encoder:
    """Builds an encoder by name.

    Args:
        name: "dlfcn_res101" or "dlfcn_res50" (ResNet dilated to output stride 8), "resnet18" or "resnet34" (up to the
            third layer, which keeps the stride of the second), "efficientnet_lite0" to "efficientnet_lite2" (dilated),
            or "timm:<any timm encoder with features at stride 8>".
        weights: "coco" (DeepLabV3's backbone; dilated ResNets only), "imagenet", "package" (EfficientNet-Lite, see
            `models.networks.packaged`), "none" (random), or the path of a state dict of the backbone.
        channels: width of the output.

    Raises:
        ConfigError: unknown name, or weights that do not exist for it.
        CheckpointError: the weights cannot be downloaded, read, or do not fit.
    """
    if weights == "package" and name not in PACKAGES:
        read_packaged(name)  # raises the error that names those that exist
    if name in PACKAGES:
        encoder = _lite_encoder(name, weights, channels)
    elif name.startswith("timm:"):
        encoder = _timm_encoder(name.removeprefix("timm:"), weights, channels)
    elif name in _DILATED:
        resnet = _DILATED[name](replace_stride_with_dilation=[False, True, True])
        encoder = Encoder(_without_classifier(resnet), 2048, channels)
    elif name in _SHALLOW:
        resnet = _SHALLOW[name]()
        _keep_stride(resnet.layer3)
        encoder = Encoder(_without_classifier(resnet, last="layer3"), 256, channels)
    else:
        choices = ", ".join([*_DILATED, *_SHALLOW, *PACKAGES, "timm:<name>"])
        raise ConfigError(f"modelname={name!r}: unknown encoder; expected one of {choices}.")
    _load_backbone(encoder, name, weights)
    return encoder


def _timm_encoder(name: str, weights: str, channels: int) -> Encoder:
    if name not in timm.list_models():
        close = ", ".join(timm.list_models(f"*{name[:6]}*")[:8]) or "see timm.list_models()"
        raise ConfigError(f"modelname='timm:{name}': timm has no such encoder; similar: {close}.")
    stage = download(name, lambda: _TimmStage(name, weights == "imagenet"))
    return Encoder(stage, stage.channels, channels)


def _without_classifier(resnet: nn.Module, last: str = "layer4") -> nn.Sequential:
    layers = list(resnet.named_children())
    end = [name for name, _ in layers].index(last) + 1
    return nn.Sequential(OrderedDict(layers[:end]))


def _keep_stride(layer: nn.Module) -> None:
    for name, module in layer.named_modules():
        if isinstance(module, nn.Conv2d) and module.stride == (2, 2):
            layer.get_submodule(name).stride = (1, 1)  # type: ignore[assignment]


def _load_backbone(encoder: Encoder, name: str, weights: str) -> None:
    if weights in ("none", "package") or (weights == "imagenet" and name.startswith(("timm:", "efficientnet_lite"))):
        return  # random, or loaded when the backbone was built
    if weights == "coco":
        if name not in _COCO:
            raise ConfigError(f"encoder_weights='coco': exists for {', '.join(_COCO)}, not for {name}.")
        entry = _COCO[name].COCO_WITH_VOC_LABELS_V1
        state = download(name, lambda: entry.get_state_dict(progress=True, check_hash=True))
        state = {key.removeprefix("backbone."): value for key, value in state.items() if key.startswith("backbone.")}
    elif weights == "imagenet":
        state = download(name, lambda: _IMAGENET[name].get_state_dict(progress=True, check_hash=True))
    else:
        state = read_weights(Path(weights), "coco, imagenet, package, none")
    load_backbone(encoder.backbone, state, name, weights)


def load_backbone(backbone: nn.Module, state: Mapping[str, Tensor], name: str, weights: str) -> None:
    """Loads pretrained weights, which may have further entries, such as those of a classifier.

    Args:
        backbone: whose weights are replaced.
        state: the pretrained weights.
        name: of the backbone, for messages.
        weights: the setting that names them, for messages.

    Raises:
        CheckpointError: entries are missing or have another shape.
    """
    wanted = backbone.state_dict()
    missing = sorted(set(wanted) - set(state))
    misfits = [key for key in wanted if key in state and state[key].shape != wanted[key].shape]
    if missing or misfits:
        raise CheckpointError(
            f"encoder_weights={weights!r}: not the backbone of {name}: {len(missing)} entries missing, {len(misfits)} "
            f"of another shape, such as {(missing + misfits)[0]}. Use the state dict of that backbone."
        )
    backbone.load_state_dict({key: state[key] for key in wanted})


def load_timm_weights(encoder: nn.Module, name: str, in_channels: int, weights: str) -> None:
    """Loads pretrained weights into an encoder of timm, whole or with the features of its stages only.

    Args:
        encoder: whose weights are replaced.
        name: of timm's model.
        in_channels: of the images. The RGB kernels of the first layer are summed for one channel, and repeated for
            another number.
        weights: "none" (they stay as they are), "imagenet" (downloaded by timm), or the path of a state dict of timm's
            model (.pth or .safetensors).

    Raises:
        ConfigError: no such file, or no pretrained weights exist.
        CheckpointError: the weights cannot be downloaded, read, or do not fit.
    """
    if weights == "none":
        return
    if weights != "imagenet":
        state = read_weights(Path(weights), "imagenet, none")
    elif timm.is_model_pretrained(name):
        state = download(name, lambda: timm.create_model(name, pretrained=True).state_dict())
    else:
        raise ConfigError(
            f"encoder_weights='imagenet': timm has none for network.encoder={name!r}; choose one of "
            f"timm.list_pretrained('*{name[:6]}*'), or encoder_weights=none."
        )
    wanted = encoder.state_dict()
    found = {_flat(key): value for key, value in state.items()}  # the stages alone are named "layers_0", not "layers.0"
    state = {key: found[_flat(key)] for key in wanted if _flat(key) in found}
    first = next(key for key, value in wanted.items() if value.ndim == 4)
    if first in state and state[first].shape[1] == 3:
        state[first] = adapt_input_conv(in_channels, state[first])
    load_backbone(encoder, state, name, weights)


def _flat(key: str) -> str:
    return key.replace(".", "_")


def read_weights(path: Path, names: str) -> dict[str, Tensor]:
    """Reads a local file of pretrained weights, a state dict of tensors.

    Args:
        path: as torch.save writes it, or with the suffix .safetensors.
        names: the settings that name no file, for the message.

    Raises:
        ConfigError: no such file.
        CheckpointError: it cannot be read.
    """
    if not path.is_file():
        raise ConfigError(f"encoder_weights={str(path)!r}: expected {names}, or an existing file.")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError, SafetensorError) as error:
        raise CheckpointError(f"{path}: not a readable state dict of tensors ({error}).") from error


def download(name: str, function: Callable[[], Any]) -> Any:
    """Calls a function that downloads the pretrained weights of `name`.

    Raises:
        CheckpointError: it fails; the message lists the options.
    """
    try:
        return function()
    except (OSError, HTTPException, RuntimeError) as error:
        raise CheckpointError(
            f"{name}: its pretrained weights could not be downloaded or read ({error}). Options: run once with "
            "internet access (they are cached in TORCH_HOME); use a local file with encoder_weights=PATH; or start "
            "from random weights with encoder_weights=none."
        ) from error
