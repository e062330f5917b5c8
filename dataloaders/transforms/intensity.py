"""Intensity augmentation of images, and of single channels ("planes") with one strength per plane."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from dataloaders.transforms.spatial import hash_noise, sample_cubic


def gamma_correct(images: Float[Tensor, "B C H W"], gamma: Float[Tensor, " B"]) -> Float[Tensor, "B C H W"]:
    """Gamma correction of each image, rescaled to [0, 1] and back to its own range.

    Source: SSL-ALPNet, released code: m + R * ((x - m + e) / R) ** gamma, R = max - m + e, e = 1e-5.
    """
    tiny = 1e-5
    lowest = images.amin((1, 2, 3), keepdim=True)
    extent = images.amax((1, 2, 3), keepdim=True) - lowest + tiny
    return lowest + extent * ((images - lowest + tiny) / extent) ** gamma[:, None, None, None]


def add_noise(
    planes: Float[Tensor, "N H W"], sd: Float[Tensor, " N"], seeds: Int[Tensor, " N"]
) -> Float[Tensor, "N H W"]:
    """Adds white Gaussian noise that depends only on the seeds (Box-Muller on hashed counters)."""
    rows, columns = planes.shape[-2:]
    radius, angle = hash_noise(seeds, (rows, columns)).unbind(1)  # both U[-1, 1)
    normal = torch.sqrt(-2 * torch.log((1 - radius) / 2)) * torch.cos(math.pi * angle)
    return planes + sd[:, None, None] * normal


def blur(planes: Float[Tensor, "N H W"], sigma_px: Float[Tensor, " N"], radius: int) -> Float[Tensor, "N H W"]:
    """Gaussian blur with a kernel truncated at `radius` pixels and replicated borders."""
    offsets = torch.arange(-radius, radius + 1, device=planes.device)
    weights = torch.softmax(-0.5 * (offsets / sigma_px[:, None]) ** 2, 1)[:, None, None]  # (N, 1, 1, taps)
    padded = F.pad(planes[None], (radius,) * 4, mode="replicate")[0]
    padded = (padded.unfold(1, len(offsets), 1) * weights).sum(-1)
    return (padded.unfold(2, len(offsets), 1) * weights).sum(-1)


def scale_brightness(planes: Float[Tensor, "N H W"], factor: Float[Tensor, " N"]) -> Float[Tensor, "N H W"]:
    """Multiplies the values by a factor, that is scales them about 0."""
    return planes * factor[:, None, None]


def scale_contrast(planes: Float[Tensor, "N H W"], factor: Float[Tensor, " N"]) -> Float[Tensor, "N H W"]:
    """Scales the values about their mean and clips them to the original range."""
    mean = planes.mean((1, 2), keepdim=True)
    lowest, highest = planes.amin((1, 2), keepdim=True), planes.amax((1, 2), keepdim=True)
    return (mean + (planes - mean) * factor[:, None, None]).clamp(lowest, highest)


def simulate_low_resolution(planes: Float[Tensor, "N H W"], zoom: Float[Tensor, " N"]) -> Float[Tensor, "N H W"]:
    """Downsamples to a fraction `zoom` (0 to 1) of the size by nearest neighbour, then upsamples by cubic convolution.

    Small images are stored in the upper left corner of a full-size canvas, with their last row and column repeated, so
    that planes of different zoom are processed in one batch.
    """
    rows, columns = planes.shape[-2:]
    row, row_back = _resampling_positions(zoom, rows)
    column, column_back = _resampling_positions(zoom, columns)
    each = torch.arange(len(planes), device=planes.device)[:, None, None]
    canvas = planes[each, row[:, :, None], column[:, None, :]]
    return sample_cubic(canvas[:, None], row_back, column_back)[:, 0]


def _resampling_positions(zoom: Float[Tensor, " N"], length: int) -> tuple[Int[Tensor, "N L"], Float[Tensor, "N L"]]:
    """Source pixel of each canvas position, and canvas position at which each output pixel is sampled."""
    small = (zoom * length).round().long().clamp(min=1)[:, None]
    place = torch.arange(length, device=zoom.device)
    shown = (2 * torch.minimum(place, small - 1) + 1) * length // (2 * small)
    return shown, (place + 0.5) * small / length - 0.5


def gamma_retain_stats(planes: Float[Tensor, "N H W"], gamma: Float[Tensor, " N"]) -> Float[Tensor, "N H W"]:
    """Gamma correction of values rescaled to [0, 1], then restores the original mean and standard deviation."""
    tiny = 1e-7
    sd, mean = torch.std_mean(planes, (1, 2), correction=0, keepdim=True)
    lowest = planes.amin((1, 2), keepdim=True)
    curved = ((planes - lowest) / (planes.amax((1, 2), keepdim=True) - lowest + tiny)) ** gamma[:, None, None]
    curved_sd, curved_mean = torch.std_mean(curved, (1, 2), correction=0, keepdim=True)
    return mean + (curved - curved_mean) * (sd / (curved_sd + tiny))


def gamma_inverted(planes: Float[Tensor, "N H W"], gamma: Float[Tensor, " N"]) -> Float[Tensor, "N H W"]:
    """`gamma_retain_stats` of the inverted image, inverted back."""
    return -gamma_retain_stats(-planes, gamma)
