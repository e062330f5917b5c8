"""Intensity augmentation: of whole images, and of single channels with a strength for each."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from dataloaders.transforms.spatial import hash_noise, sample_cubic


def gamma_correct(images: Float[Tensor, "B C H W"], gamma: Float[Tensor, " B"]) -> Float[Tensor, "B C H W"]:
    """Raises each image, scaled to its own range, to the power `gamma`; the range is kept.

    Source: SSL-ALPNet, released code: m + R * ((x - m + e) / R) ** gamma, R = max - m + e, e = 1e-5.
    """
    tiny = 1e-5
    lowest = images.amin((1, 2, 3), keepdim=True)
    extent = images.amax((1, 2, 3), keepdim=True) - lowest + tiny
    return lowest + extent * ((images - lowest + tiny) / extent) ** gamma[:, None, None, None]


def add_noise(
    planes: Float[Tensor, "N H W"], sd: Float[Tensor, " N"], seeds: Int[Tensor, " N"]
) -> Float[Tensor, "N H W"]:
    """Adds white Gaussian noise, a function of the seeds alone (Box-Muller on hashed counters)."""
    rows, columns = planes.shape[-2:]
    radius, angle = hash_noise(seeds, (rows, columns)).unbind(1)  # both U[-1, 1)
    normal = torch.sqrt(-2 * torch.log((1 - radius) / 2)) * torch.cos(math.pi * angle)
    return planes + sd[:, None, None] * normal


def blur(planes: Float[Tensor, "N H W"], sigma_px: Float[Tensor, " N"], radius: int) -> Float[Tensor, "N H W"]:
    """Gaussian blur, the kernel cut off at `radius` pixels, the border repeated."""
    offsets = torch.arange(-radius, radius + 1, device=planes.device)
    weights = torch.softmax(-0.5 * (offsets / sigma_px[:, None]) ** 2, 1)[:, None, None]  # (N, 1, 1, taps)
    padded = F.pad(planes[None], (radius,) * 4, mode="replicate")[0]
    padded = (padded.unfold(1, len(offsets), 1) * weights).sum(-1)
    return (padded.unfold(2, len(offsets), 1) * weights).sum(-1)


def scale_brightness(planes: Float[Tensor, "N H W"], factor: Float[Tensor, " N"]) -> Float[Tensor, "N H W"]:
    """Multiplies the values, hence scales them about 0."""
    return planes * factor[:, None, None]


def scale_contrast(planes: Float[Tensor, "N H W"], factor: Float[Tensor, " N"]) -> Float[Tensor, "N H W"]:
    """Scales the values about their mean; what leaves the former range is clipped to it."""
    mean = planes.mean((1, 2), keepdim=True)
    lowest, highest = planes.amin((1, 2), keepdim=True), planes.amax((1, 2), keepdim=True)
    return (mean + (planes - mean) * factor[:, None, None]).clamp(lowest, highest)


def lower_resolution(planes: Float[Tensor, "N H W"], zoom: Float[Tensor, " N"]) -> Float[Tensor, "N H W"]:
    """Samples down to `zoom` (0 to 1) of the size by nearest neighbours and up again by cubic convolution.

    The small image lies in the upper left corner of a canvas of full size, its last row and column repeated, so that
    planes of different zoom share each call.
    """
    rows, columns = planes.shape[-2:]
    row, row_back = _down_and_up(zoom, rows)
    column, column_back = _down_and_up(zoom, columns)
    each = torch.arange(len(planes), device=planes.device)[:, None, None]
    canvas = planes[each, row[:, :, None], column[:, None, :]]
    return sample_cubic(canvas[:, None], row_back, column_back)[:, 0]


def _down_and_up(zoom: Float[Tensor, " N"], length: int) -> tuple[Int[Tensor, "N L"], Float[Tensor, "N L"]]:
    """Which pixel each place of the canvas shows, and where on the canvas each pixel is read back."""
    small = (zoom * length).round().long().clamp(min=1)[:, None]
    place = torch.arange(length, device=zoom.device)
    shown = (2 * torch.minimum(place, small - 1) + 1) * length // (2 * small)
    return shown, (place + 0.5) * small / length - 0.5


def gamma_keeping_statistics(planes: Float[Tensor, "N H W"], gamma: Float[Tensor, " N"]) -> Float[Tensor, "N H W"]:
    """Raises values, scaled to [0, 1], to the power `gamma`; mean and standard deviation are those of before."""
    tiny = 1e-7
    sd, mean = torch.std_mean(planes, (1, 2), correction=0, keepdim=True)
    lowest = planes.amin((1, 2), keepdim=True)
    curved = ((planes - lowest) / (planes.amax((1, 2), keepdim=True) - lowest + tiny)) ** gamma[:, None, None]
    curved_sd, curved_mean = torch.std_mean(curved, (1, 2), correction=0, keepdim=True)
    return mean + (curved - curved_mean) * (sd / (curved_sd + tiny))


def gamma_of_negative(planes: Float[Tensor, "N H W"], gamma: Float[Tensor, " N"]) -> Float[Tensor, "N H W"]:
    """`gamma_keeping_statistics` of the negative, made positive again."""
    return -gamma_keeping_statistics(-planes, gamma)
