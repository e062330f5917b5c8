"""Strong views of slices with their label maps: deformed, and with the contrast of another scanner or patient.

drawn = draw(generators, config, n_classes)
image, label = apply(to_input(image), label, drawn.to(image.device))
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from dataloaders.transforms.spatial import hash_noise
from util.schema import check_bounds, option

DARKEST, BRIGHTEST = -1.0, 1.5  # ends of the range whose contrast changes
N_KNOTS = 8  # pieces of a curve of contrast
ELASTIC_NODES, FIELD_NODES = 6, 3  # a side: of the elastic deformation and of the uneven brightness
UNKNOWN = 255  # in label maps


@dataclass(frozen=True)
class ScanViewConfig:
    """Strength of the views; 0 switches a change off. Lengths are shares of a slice's side. Our own choice."""

    rotation_deg: float = option(15.0, ge=0, le=180)  # uniform up to this, both ways
    scale: float = option(0.25, ge=0, le=2)  # of rows and of columns: uniform up to this in the logarithm, both ways
    shear: float = option(0.1, ge=0, le=1)  # uniform up to this, both ways
    shift: float = option(0.05, ge=0, le=1)  # uniform up to this, both ways
    elastic: float = option(0.0225, ge=0, le=1)  # largest standard deviation of the displacement of a node
    structures: float = option(0.3, ge=0, le=2)  # standard deviation of a structure's change of brightness
    structures_p: float = option(0.5, ge=0, le=1)  # probability that the structures of a slice change
    contrast: float = option(0.6, ge=0, le=5)  # of a curve's slopes: standard deviation of their logarithm
    contrast_p: float = option(0.8, ge=0, le=1)  # probability of another curve
    unevenness: float = option(0.15, ge=0, le=2)  # standard deviation of the logarithm of the brightness of a node
    gain: float = option(0.2, ge=0, lt=1)  # uniform up to this, both ways
    offset: float = option(0.2, ge=0, le=2)  # likewise
    noise: float = option(0.08, ge=0, le=2)  # largest standard deviation of the noise

    def __post_init__(self) -> None:
        check_bounds(self, "views.")


def to_input(image: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Normalised intensities z as 0.5 z - 0.3, so that most of a scan lies from -1 to 1."""
    return 0.5 * image - 0.3


def from_input(image: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """The inverse of `to_input`."""
    return 2 * (image + 0.3)


@dataclass(frozen=True)
class ScanViews:
    """Drawn parameters of B slices."""

    matrix: Float[Tensor, "B 2 3"]  # place in the view -> place in the slice; -1 to 1, columns first
    elastic: Float[Tensor, "B 2 e e"]  # displacement of the nodes, likewise
    structures: Float[Tensor, "B K"]  # added to each structure
    curve: Float[Tensor, "B k"]  # values of the curve of contrast at its knots
    unevenness: Float[Tensor, "B 1 f f"]  # logarithm of the factor at the nodes
    gain: Float[Tensor, " B"]
    offset: Float[Tensor, " B"]
    noise: Float[Tensor, " B"]
    noise_seeds: Int[Tensor, " B"]

    def to(self, device: torch.device) -> "ScanViews":
        """Copies the parameters to `device`."""
        return ScanViews(*(getattr(self, each.name).to(device, non_blocking=True) for each in fields(self)))


def draw(generators: Sequence[np.random.Generator], config: ScanViewConfig, n_classes: int) -> ScanViews:
    """Draws the parameters of one slice from each generator.

    Args:
        generators: one per slice; each gives the same number of values, whatever the strength.
        config: the strength.
        n_classes: of the label maps, with the background, which keeps its brightness.
    """
    number = len(generators)
    uniform = np.stack([each.random(12) for each in generators])
    n_normal = n_classes - 1 + 2 * ELASTIC_NODES**2 + N_KNOTS + FIELD_NODES**2
    normal = np.stack([each.standard_normal(n_normal) for each in generators])
    seeds = np.stack([each.integers(2**32) for each in generators])
    signed = 2 * uniform - 1
    ends = np.cumsum([n_classes - 1, 2 * ELASTIC_NODES**2, N_KNOTS])
    structures, elastic, slopes, uneven = np.split(normal, ends, axis=1)
    changed = structures * config.structures * (uniform[:, 10:11] < config.structures_p)
    steps = np.exp(slopes * config.contrast * (uniform[:, 11:12] < config.contrast_p))
    curve = np.concatenate([np.zeros((number, 1)), np.cumsum(steps, 1)], 1)
    curve = DARKEST + (BRIGHTEST - DARKEST) * curve / curve[:, -1:]
    nodes = 2 * config.elastic * uniform[:, 6, None] * elastic  # a side is 2 long
    return ScanViews(
        matrix=_tensor(_matrices(signed[:, :6], config)),
        elastic=_tensor(nodes.reshape(number, 2, ELASTIC_NODES, ELASTIC_NODES)),
        structures=_tensor(np.concatenate([np.zeros((number, 1)), changed], 1)),
        curve=_tensor(curve),
        unevenness=_tensor(config.unevenness * uneven.reshape(number, 1, FIELD_NODES, FIELD_NODES)),
        gain=_tensor(1 + config.gain * signed[:, 7]),
        offset=_tensor(config.offset * signed[:, 8]),
        noise=_tensor(config.noise * uniform[:, 9]),
        noise_seeds=torch.from_numpy(seeds),
    )


def _tensor(values: np.ndarray) -> Tensor:
    return torch.from_numpy(values).float()


def _matrices(signed: np.ndarray, config: ScanViewConfig) -> np.ndarray:
    """(B, 2, 3) of six numbers each, from -1 to 1."""
    angle = np.deg2rad(config.rotation_deg) * signed[:, 0]
    scale = np.exp(config.scale * signed[:, 1:3])
    shear, shift = config.shear * signed[:, 3], 2 * config.shift * signed[:, 4:6]
    cos, sin = np.cos(angle), np.sin(angle)
    turn = np.stack([np.stack([cos, shear - sin], 1), np.stack([sin, cos], 1)], 1)
    return np.concatenate([turn * scale[:, :, None], shift[:, :, None]], 2)


def apply(
    image: Float[Tensor, "B C H W"], label: UInt8[Tensor, "B H W"], drawn: ScanViews
) -> tuple[Float[Tensor, "B C H W"], UInt8[Tensor, "B H W"]]:
    """The views of slices, whose channels (neighbouring slices) change alike, and of their label maps.

    Args:
        image: intensities of about -1 to 1, see `to_input`.
        label: class values below the number of classes that `draw` was told; 255: unknown.
        drawn: the parameters, on the same device.

    Returns:
        Bilinear in the image, nearest in the label map; edges are continued outwards in both.
    """
    size = (image.shape[-2], image.shape[-1])
    places = F.affine_grid(drawn.matrix, [len(image), 1, *size], align_corners=False)
    elastic = F.interpolate(drawn.elastic, size, mode="bicubic", align_corners=False)
    places = places + elastic.permute(0, 2, 3, 1)
    image = image + _brightness_of_structures(label, drawn.structures)
    image = F.grid_sample(image, places, padding_mode="border", align_corners=False)
    moved = F.grid_sample(label[:, None].float(), places, "nearest", padding_mode="border", align_corners=False)
    uneven = F.interpolate(drawn.unevenness, size, mode="bicubic", align_corners=False)
    image = (_with_contrast(image, drawn.curve) - DARKEST) * uneven.exp() + DARKEST
    image = image * drawn.gain[:, None, None, None] + drawn.offset[:, None, None, None]
    noise = hash_noise(drawn.noise_seeds, size, image.shape[1]) * 3**0.5  # of standard deviation 1
    return image + noise * drawn.noise[:, None, None, None], moved[:, 0].to(torch.uint8)


def _brightness_of_structures(label: UInt8[Tensor, "B H W"], added: Float[Tensor, "B K"]) -> Float[Tensor, "B 1 H W"]:
    """What is added to each pixel, with soft edges."""
    value = torch.where(label == UNKNOWN, 0, label).long()
    each = torch.gather(added, 1, value.flatten(1)).view(value.shape)[:, None]
    return F.avg_pool2d(each, 5, stride=1, padding=2)


def _with_contrast(image: Float[Tensor, "B C H W"], curve: Float[Tensor, "B k"]) -> Float[Tensor, "B C H W"]:
    """Intensities on a rising curve that is linear between its knots, and continued with slope 1."""
    within = image.clamp(DARKEST, BRIGHTEST)
    place = (within - DARKEST) / (BRIGHTEST - DARKEST) * N_KNOTS
    knot = place.floor().clamp(max=N_KNOTS - 1)
    flat = knot.long().flatten(1)
    low, high = torch.gather(curve, 1, flat).view_as(image), torch.gather(curve, 1, flat + 1).view_as(image)
    return low + (high - low) * (place - knot) + (image - within)
