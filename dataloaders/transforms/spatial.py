"""Affine and elastic deformation with a single resampling, and zoom of images and label maps."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


def affine_matrices(
    rotation_deg: Float[Tensor, " B"],
    shift_px: Float[Tensor, "B 2"],
    shear_deg: Float[Tensor, " B"],
    zoom: Float[Tensor, " B"],
    size: tuple[int, int],
) -> Float[Tensor, "B 3 3"]:
    """Forward matrices Zoom * Shear * Shift * Rotation on homogeneous pixel positions (column, row, 1).

    Rotation (counter-clockwise on the screen) and zoom are about the image centre (W // 2, H / 2), the shear about the
    origin; `shift_px` is (columns, rows).

    Source: SSL-ALPNet, released code, transform `sabs_aug`.
    """
    rows, columns = size
    centre = torch.tensor([columns // 2, rows / 2], dtype=torch.float64)
    angle, shear = torch.deg2rad(rotation_deg.double()), torch.deg2rad(shear_deg.double())
    rotation = torch.eye(3, dtype=torch.float64).repeat(len(angle), 1, 1)
    rotation[:, 0, 0] = rotation[:, 1, 1] = angle.cos()
    rotation[:, 0, 1], rotation[:, 1, 0] = angle.sin(), -angle.sin()
    rotation[:, :2, 2] = centre - (rotation[:, :2, :2] @ centre)
    rotation[:, :2, 2] += shift_px
    shearing = torch.eye(3, dtype=torch.float64).repeat(len(angle), 1, 1)
    shearing[:, 0, 1], shearing[:, 1, 1] = -shear.sin(), shear.cos()
    zooming = torch.eye(3, dtype=torch.float64).repeat(len(angle), 1, 1)
    zooming[:, 0, 0] = zooming[:, 1, 1] = zoom.double()
    zooming[:, :2, 2] = (1 - zoom.double()[:, None]) * centre
    return (zooming @ shearing @ rotation).float()


def hash_noise(seeds: Int[Tensor, " B"], size: tuple[int, int], fields: int = 2) -> Float[Tensor, "B F H W"]:
    """White noise U(-1, 1) as a pure function of (seed, field, row, column), bit-identical on all devices.

    A 32-bit integer hash is applied to the counter of each pixel. Without generator state, the noise does not depend on
    the order in which samples are generated.
    """
    rows, columns = size
    counter = torch.arange(fields * rows * columns, device=seeds.device, dtype=torch.int64)
    key = _mix(seeds.to(torch.int64) & 0xFFFFFFFF)
    bits = _mix((counter[None] + key[:, None]) & 0xFFFFFFFF) ^ key[:, None]
    uniform = (_mix(bits) >> 8).float() / (1 << 24)
    return uniform.mul(2).sub(1).view(-1, fields, rows, columns)


def _mix(value: Int[Tensor, "..."]) -> Int[Tensor, "..."]:
    value = ((value >> 16) ^ value) * 0x7FEB352D & 0xFFFFFFFF
    value = ((value >> 15) ^ value) * 0x846CA68B & 0xFFFFFFFF
    return (value >> 16) ^ value


def smooth_displacement(
    noise: Float[Tensor, "B 2 H W"], amplitude_px: float, sigma_px: float
) -> Float[Tensor, "B 2 H W"]:
    """Displacement (columns, rows) in pixels: Gaussian-blurred noise times `amplitude_px`.

    The kernel is truncated at 2 sigma; borders are reflected without repeating the edge pixel.

    Source: SSL-ALPNet, released code (21 x 21 kernel at sigma 5).
    """
    radius = int(2 * sigma_px)
    offsets = torch.arange(-radius, radius + 1, device=noise.device, dtype=torch.float64)
    kernel = torch.exp(-0.5 * (offsets / sigma_px) ** 2)
    kernel = (kernel / kernel.sum()).to(noise.dtype)
    flat = noise.flatten(0, 1)[:, None]  # (2B, 1, H, W)
    padded = F.pad(flat, (radius, radius, radius, radius), mode="reflect")
    blurred = F.conv2d(F.conv2d(padded, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))
    return blurred.view_as(noise) * amplitude_px


def sampling_positions(
    matrices: Float[Tensor, "B 3 3"], displacement: Float[Tensor, "B 2 H W"]
) -> Float[Tensor, "B H W 2"]:
    """Input position (column, row) in pixels at which each output pixel is sampled.

    The reference warps twice, by the matrix and then by the displacement. Sampling its first result at p + d equals
    sampling the input at M^-1 (p + d). Positions outside that first result are mirrored at the pixel edge.
    """
    rows, columns = displacement.shape[-2:]
    options = {"device": displacement.device, "dtype": displacement.dtype}
    grid = torch.stack(torch.meshgrid(torch.arange(columns, **options), torch.arange(rows, **options), indexing="xy"))
    column, row = (grid + displacement).unbind(1)
    moved = torch.stack([_mirror(column, columns), _mirror(row, rows)], 1).flatten(2)  # (B, 2, H*W)
    inverse = inverse_affine(matrices.double()).to(displacement)
    source = inverse[:, :2, :2] @ moved + inverse[:, :2, 2:]
    return source.view(-1, 2, rows, columns).permute(0, 2, 3, 1)


def inverse_affine(matrices: Float[Tensor, "B 3 3"]) -> Float[Tensor, "B 3 3"]:
    """Closed-form inverse of matrices whose last row is (0, 0, 1); a solver would synchronise with the GPU."""
    (a, b, c), (d, e, f) = matrices[:, 0].unbind(1), matrices[:, 1].unbind(1)
    determinant = a * e - b * d
    rows = [torch.stack([e, -b, b * f - c * e], 1), torch.stack([-d, a, c * d - a * f], 1)]
    last = torch.zeros_like(rows[0])
    last[:, 2] = determinant
    return torch.stack([*rows, last], 1) / determinant[:, None, None]


def _mirror(position: Float[Tensor, "..."], length: int) -> Float[Tensor, "..."]:
    position = (position + 0.5).abs() - 0.5
    position = length - 0.5 - (length - 0.5 - position).abs()
    return position.clamp(0, length - 1)  # up to the edge of the last pixel, the mirror image is that pixel


def warp(images: Float[Tensor, "B C H W"], positions: Float[Tensor, "B h w 2"]) -> Float[Tensor, "B C h w"]:
    """Samples `images` at `positions` (column, row) by bilinear interpolation; 0 outside."""
    rows, columns = images.shape[-2:]
    scale = torch.tensor([2 / (columns - 1), 2 / (rows - 1)], dtype=images.dtype).to(images.device, non_blocking=True)
    return F.grid_sample(images, positions * scale - 1, mode="bilinear", padding_mode="zeros", align_corners=True)


def sample_cubic(
    images: Float[Tensor, "B C H W"], row: Float[Tensor, "B R"], column: Float[Tensor, "B S"]
) -> Float[Tensor, "B C R S"]:
    """Samples each image on the grid of `row` x `column` by cubic convolution, with replicated borders."""
    rows, columns = images.shape[-2:]
    grid = torch.broadcast_tensors(column[:, None, :] * (2 / (columns - 1)) - 1, row[:, :, None] * (2 / (rows - 1)) - 1)
    return F.grid_sample(images, torch.stack(grid, -1), mode="bicubic", padding_mode="border", align_corners=True)


def zoom_in(images: Float[Tensor, "B C H W"], scale: Float[Tensor, " B"]) -> Float[Tensor, "B C H W"]:
    """Enlarges the central fraction `scale` (0 to 1) of height and width to the full frame by cubic convolution."""
    rows, columns = images.shape[-2:]
    return sample_cubic(images, _zoom_positions(scale, rows), _zoom_positions(scale, columns))


def zoom_in_labels(labels: Int[Tensor, "B H W"], scale: Float[Tensor, " B"]) -> Int[Tensor, "B H W"]:
    """`zoom_in` for class labels or superpixel ids: each pixel takes the value with the largest total weight.

    The weights are those of bilinear interpolation; on ties the larger value wins. For two classes this equals
    bilinear interpolation of the mask followed by thresholding at 0.5. Cost is independent of the number of values.
    """
    rows, columns = labels.shape[-2:]
    row, column = _zoom_positions(scale, rows)[:, :, None], _zoom_positions(scale, columns)[:, None, :]
    top, left = row.floor(), column.floor()
    each = torch.arange(len(labels), device=labels.device)[:, None, None]
    values, weights = [], []
    for below, right in ((0, 0), (0, 1), (1, 0), (1, 1)):
        at = (top.long() + below).clamp(max=rows - 1), (left.long() + right).clamp(max=columns - 1)
        values.append(labels[each, *at])
        weights.append((1 - (row - top - below).abs()) * (1 - (column - left - right).abs()))
    values, weights = torch.stack(values), torch.stack(weights)  # (4, B, H, W)
    support = torch.stack([((values == value) * weights).sum(0) for value in values])
    is_best = support >= support.amax(0) - 1e-6
    return torch.where(is_best, values, values.amin(0)).amax(0)


def _zoom_positions(scale: Float[Tensor, " B"], length: int) -> Float[Tensor, "B L"]:
    """Pixel positions scaled by `scale` about the centre of the pixel grid."""
    centre = (length - 1) / 2
    return centre + scale[:, None] * (torch.arange(length, device=scale.device) - centre)
