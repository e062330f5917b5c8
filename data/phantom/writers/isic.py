"""Phantom in the format of the ISIC 2017 challenge: dermoscopic JPEGs, PNG masks, and additional superpixel files."""

from pathlib import Path

import numpy as np

from data.phantom.bodies import skin
from data.phantom.devices import dermatoscope
from data.phantom.devices.pictures import SIZES_PX, write_image
from data.phantom.writers.formats import LabelledImage, RawFormat, ScanRequest
from dataloaders.catalog import dataset

ISIC2017 = dataset("ISIC2017")

TRAIN_FOLDERS = ("ISIC-2017_Training_Data", "ISIC-2017_Training_Part1_GroundTruth")
TEST_FOLDERS = ("ISIC-2017_Test_v2_Data", "ISIC-2017_Test_v2_Part1_GroundTruth")
TEST_EVERY, FIRST_TEST = 4, 1  # every fourth image, starting with the second, is in the test set
SUPERPIXELS_ACROSS = 12


def make(request: ScanRequest) -> LabelledImage:
    """Generates one image in memory: (H, W, 3) uint8 with aspect ratio 4:3, 3:2 or 1:1, and the mask "lesion"."""
    rng, camera = request.generators("isic2017")
    frame = skin.draw_frame(rng, request.size_px)
    points = frame.points()
    lesion = skin.draw_lesion(rng, frame)
    melanin, blood = skin.pigments(lesion, frame, points, rng, camera)
    dermatoscope.add_small_moles(melanin, lesion, frame, points, rng)
    image = skin.colours(melanin, blood)
    is_present = rng.random(6) < [0.2, 0.5, 0.3, 0.2, 0.2, 0.25]
    has_veil, has_hairs, has_bubbles, has_ruler, has_sticker, has_dark_corners = is_present
    if has_veil:
        skin.add_veil(image, lesion, points, rng)
    if has_sticker:
        dermatoscope.add_sticker(image, lesion, frame, points, rng)
    if has_ruler:
        dermatoscope.add_ruler(image, lesion, frame, points, rng)
    if has_hairs:
        dermatoscope.add_hairs(image, frame, points, rng)
    if has_bubbles:
        dermatoscope.add_bubbles(image, frame, points, rng)
    image = dermatoscope.illuminate(image, frame, points, rng)
    if has_dark_corners:
        image = dermatoscope.darken_corners(image, frame, points, rng)
    return LabelledImage(dermatoscope.add_camera_noise(image, camera), {"lesion": lesion.outline.distance(points) < 0})


def write(out: Path, request: ScanRequest) -> None:
    """Writes `<images>/ISIC_<number>.jpg`, then its mask; an existing image with its mask is kept.

    The first image of each set also gets a superpixel file; in the published data, every image has one.

    Raises:
        UserError: the folder is not writable, or the disk is full.
    """
    index = request.scan_index
    image_folder, mask_folder = TEST_FOLDERS if index % TEST_EVERY == FIRST_TEST else TRAIN_FOLDERS
    name = f"ISIC_{index:07d}"
    image_path, mask_path = out / image_folder / f"{name}.jpg", out / mask_folder / f"{name}_segmentation.png"
    superpixel_path = image_path.with_name(f"{name}_superpixels.png")
    has_superpixels = index in (0, FIRST_TEST)
    if image_path.exists() and mask_path.exists() and (superpixel_path.exists() or not has_superpixels):
        return
    sample = make(request)
    write_image(image_path, sample.image, "JPEG", quality=95, subsampling=0)
    if has_superpixels:
        write_image(superpixel_path, _superpixels(sample.image.shape[:2]), "PNG")
    write_image(mask_path, sample.masks["lesion"], "PNG")


def _superpixels(shape: tuple[int, int]) -> np.ndarray:
    """A grid of square superpixels, ids encoded as colours (H, W, 3) uint8 as in the published files."""
    row, column = (np.arange(count) * SUPERPIXELS_ACROSS // count for count in shape)
    ids = row[:, None] * SUPERPIXELS_ACROSS + column
    return np.stack([ids % 256, ids // 256, np.zeros_like(ids)], axis=-1).astype(np.uint8)


ISIC_RAW = RawFormat(sum(ISIC2017.published.values()), (*TRAIN_FOLDERS, *TEST_FOLDERS), make, write, sizes_px=SIZES_PX)
