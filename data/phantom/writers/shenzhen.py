"""Phantom in the format of the Shenzhen chest films: grey and RGB PNG images, and lung masks of most of them."""

from pathlib import Path

import numpy as np

from data.phantom.bodies.chest import FILM_MM, absorption, draw_chest
from data.phantom.devices.film import add_marker, add_opacities, add_wires, collimate, develop
from data.phantom.devices.pictures import SIZES_PX, Frame, to_uint8, write_image
from data.phantom.writers.formats import LabelledImage, RawFormat, ScanRequest

N_FILMS = 662  # published; 566 of them have a mask
UNMASKED_EVERY, FIRST_UNMASKED = 7, 4  # every seventh image, starting with the fifth, has no mask
COLOUR_EVERY = 3  # every third image is stored as RGB of three equal channels


def make(request: ScanRequest) -> LabelledImage:
    """Generates one film in memory: image uint8, (H, W) or (H, W, 3) with equal channels, not square; mask "lung".

    Images with an odd index show tuberculosis.
    """
    rng, detector = request.generators("shenzhen")
    chest, frame = draw_chest(rng), Frame(request.size_px, FILM_MM, float(rng.uniform(0.9, 1.12)))
    points = chest.place(frame.points())
    tissue = absorption(chest, points, rng)
    if _is_tuberculous(request.scan_index):
        add_opacities(tissue, chest, points, rng, detector)
    has_wires, has_marker, has_edges = rng.random(3) < [0.2, 0.6, 0.5]
    if has_wires:
        add_wires(tissue, points, rng)
    bright = develop(tissue, frame, rng, detector)
    if has_marker:
        add_marker(bright, frame, rng)
    if has_edges:
        collimate(bright, frame, rng)
    grey = to_uint8(bright)
    image = np.repeat(grey[..., None], 3, axis=-1) if request.scan_index % COLOUR_EVERY == 0 else grey
    lung = np.logical_or.reduce([outline.distance(points) < 0 for outline in chest.lungs.values()])
    return LabelledImage(image, {"lung": lung})


def _is_tuberculous(index: int) -> bool:
    return index % 2 == 1


def write(out: Path, request: ScanRequest) -> None:
    """Writes `img/CHNCXR_<number>_<0|1>.png` and, for most, `mask/<same>_mask.png`; existing files are kept.

    Raises:
        UserError: the folder is not writable, or the disk is full.
    """
    index = request.scan_index
    name = f"CHNCXR_{index + 1:04d}_{int(_is_tuberculous(index))}"
    image_path, mask_path = out / "img" / f"{name}.png", out / "mask" / f"{name}_mask.png"
    has_mask = index % UNMASKED_EVERY != FIRST_UNMASKED
    if image_path.exists() and (mask_path.exists() or not has_mask):
        return
    sample = make(request)
    write_image(image_path, sample.image, "PNG")
    if has_mask:
        write_image(mask_path, sample.masks["lung"], "PNG")


SHENZHEN_RAW = RawFormat(N_FILMS, ("img", "mask"), make, write, sizes_px=SIZES_PX)
