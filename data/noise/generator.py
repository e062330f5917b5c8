"""Simulated annotation noise: an object dilated, eroded, or rotated and shifted, until about beta of its area is wrong.

Pure functions; no files. Dilation and erosion by single pixels follow from one distance transform: after n
steps of the four-neighbour cross, exactly the pixels within n steps (taxicab distance) have changed.

Source: released code of superpixel-guided learning (MICCAI 2021) and of T-Loss (MICCAI 2023); identical in both.
"""

import hashlib
import random
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Integer
from scipy.ndimage import distance_transform_cdt
from skimage.transform import rotate

from dataloaders.description import ClassSpec
from dataloaders.images.folder import NoiseConfig

CLEAN = "clean"  # the type of an unchanged mask
MAX_STEP_PX = 100  # farthest shift along each axis
# (rows, columns) of a shift per step. The reference drops the signs, so that its masks only ever move down,
# right, or both.
DIRECTIONS = ((1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1))

Mask = Bool[np.ndarray, "H W"]


@dataclass(frozen=True)
class Draw:
    """The random parameters of one mask.

    Attributes:
        type: "dilate", "erode" or "affine".
        angle_deg: turn about the image's centre, counter-clockwise; 0 unless affine.
        direction: (rows, columns) per step of the shift; (0, 0) unless affine.
    """

    type: str
    angle_deg: float = 0.0
    direction: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Distorted:
    """A mask after the noise.

    Attributes:
        mask: the noisy mask.
        type: as drawn, or "clean" where the mask was too small for it.
        angle_deg: turn about the image's centre, counter-clockwise.
        dy_px, dx_px: shift after the turn, downwards and to the right.
    """

    mask: Mask
    type: str = CLEAN
    angle_deg: float = 0.0
    dy_px: int = 0
    dx_px: int = 0


def draw_all(ids: Iterable[str], noise: NoiseConfig, structure: ClassSpec) -> dict[str, Draw]:
    """Draws which training images get a noisy mask, and of which type.

    Args:
        ids: of all training images, in any order.
        noise: the noise; `variant` "reference" draws one image after the other, so that types depend on the share
            alpha and are equal for all structures; "per_image" draws from the id, beta, structure and seed alone.
        structure: gives the largest turn.

    Returns:
        A draw for each of the int(N alpha) noisy images. Those of a smaller alpha are among those of a larger one.
    """
    ids = sorted(ids)
    n_noisy, name = int(len(ids) * noise.alpha), structure.name
    if noise.variant == "per_image":
        noisy = sorted(ids, key=lambda image_id: _hash_number(image_id, name, noise.seed))[:n_noisy]
        generators = {i: random.Random(_hash_number(i, name, noise.seed, f"{noise.beta:g}")) for i in noisy}
        return {i: draw_one(generators[i], noise, structure.noise_rotation_deg) for i in sorted(noisy)}
    generator = random.Random(noise.seed)
    shuffled = ids.copy()
    generator.shuffle(shuffled)
    noisy = set(shuffled[:n_noisy])
    return {i: draw_one(generator, noise, structure.noise_rotation_deg) for i in ids if i in noisy}


def _hash_number(*parts: object) -> int:
    return int.from_bytes(hashlib.sha256("\n".join(map(str, parts)).encode()).digest())


def draw_one(generator: random.Random, noise: NoiseConfig, rotation_deg: float) -> Draw:
    """Draws a type and, for affine noise, an angle up to `rotation_deg` either way and a direction."""
    kind = generator.choice(noise.types)
    return draw_affine(generator, noise, rotation_deg) if kind == "affine" else Draw(kind)


def draw_affine(generator: random.Random, noise: NoiseConfig, rotation_deg: float) -> Draw:
    """Draws an angle up to `rotation_deg` either way and a direction."""
    angle_deg = generator.uniform(-rotation_deg, rotation_deg)
    dy, dx = generator.choice(DIRECTIONS)
    return Draw("affine", angle_deg, (abs(dy), abs(dx)) if noise.direction == "reference" else (dy, dx))


def distort(mask: Mask, drawn: Draw, noise: NoiseConfig) -> Distorted:
    """Applies the drawn noise.

    Note: The reference stops with an error at an empty mask, at one of fewer than 1/beta pixels and at the dilation of
        a full one, and lets a turn erase a thin object. Here such masks stay clean, and are of the type "clean".
    """
    if int(mask.sum() * noise.beta) < 1 or (drawn.type == "dilate" and mask.all()):
        return Distorted(mask)
    if drawn.type != "affine":
        return Distorted((dilate if drawn.type == "dilate" else erode)(mask, noise.beta), drawn.type)
    turned = turn(mask, drawn.angle_deg, keeps_rim=noise.variant == "per_image")
    moved, step = move(turned, mask, noise.beta, drawn.direction)
    dy, dx = (step * along for along in drawn.direction)
    return Distorted(moved, drawn.type, drawn.angle_deg, dy, dx) if moved.any() else Distorted(mask)


def dilate(mask: Mask, beta: float) -> Mask:
    """Grows the object, one pixel at a time, by about int(beta * area) pixels; never over the whole image.

    Args:
        mask: an object of at least 1/beta pixels, and some background.
        beta: share of the object's area, above 0 and below 1.
    """
    distance = _distance_to_false(~mask)
    return distance <= _steps(distance, int(mask.sum() * beta))


def erode(mask: Mask, beta: float) -> Mask:
    """Shrinks the object, one pixel at a time, by about int(beta * area) pixels; never to nothing.

    What lies outside the image is background.

    Args:
        mask: an object of at least 1/beta pixels.
        beta: share of the object's area, above 0 and below 1.
    """
    distance = _distance_to_false(np.pad(mask, 1))[1:-1, 1:-1]
    return distance > _steps(distance, int(mask.sum() * beta))


def _distance_to_false(mask: Mask) -> Integer[np.ndarray, "H W"]:
    return np.asarray(distance_transform_cdt(mask, "taxicab"))


def _steps(distance: Integer[np.ndarray, "H W"], wanted: int) -> int:
    """Steps after which the number of changed pixels is nearest to `wanted` (ties: the later), but never all."""
    counts = np.bincount(distance.ravel())
    changed = np.cumsum(counts) - counts[0]
    last = len(changed) - 1
    step = min(int(np.searchsorted(changed, wanted)), last)
    is_nearer_before = wanted - changed[step - 1] < changed[step] - wanted
    return step - 1 if step == last or is_nearer_before else step


def turn(mask: Mask, angle_deg: float, keeps_rim: bool) -> Mask:
    """Turns the object counter-clockwise about the image's centre.

    Args:
        mask: the object.
        angle_deg: the angle.
        keeps_rim: take pixels that are covered by half. False: only those covered wholly, as the reference does by
            truncation; a ring of about 5 % of the area is lost.
    """
    covered = rotate(mask.astype(np.float64), angle_deg)
    return covered >= (0.5 if keeps_rim else 1.0)


def move(turned: Mask, mask: Mask, beta: float, direction: tuple[int, int]) -> tuple[Mask, int]:
    """Shifts a turned object until it differs from the original one on about beta of the object's area.

    The step is found by bisection; as in the reference, the result is the last one measured, not the nearest.

    Args:
        turned: the object after its turn.
        mask: the object before.
        beta: share of the object's area, above 0 and below 1.
        direction: rows and columns per step.

    Returns:
        The shifted object, and the step.
    """
    low, high = 0, MAX_STEP_PX
    area, moved, step = np.count_nonzero(mask), turned, 0
    while low < high:
        step = (low + high) // 2
        moved = shifted(turned, step * direction[0], step * direction[1])
        strength = np.count_nonzero(moved ^ mask) / area
        if strength == beta:
            break
        low, high = (low, step - 1) if strength > beta else (step + 1, high)
    return moved, step


def shifted(mask: Mask, dy: int, dx: int) -> Mask:
    """Shifts down by `dy` and right by `dx` pixels; what leaves the image is lost."""
    (target_rows, rows), (target_columns, columns) = (
        (slice(max(by, 0), max(size + by, 0)), slice(max(-by, 0), max(size - by, 0)))
        for by, size in zip((dy, dx), mask.shape, strict=True)
    )
    result = np.zeros_like(mask)
    result[target_rows, target_columns] = mask[rows, columns]
    return result
