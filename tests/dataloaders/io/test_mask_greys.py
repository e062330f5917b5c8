"""Masks with greys: what interpolation and compression leave is thresholded, labels and pictures are refused."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from dataloaders.io.mask_greys import threshold_mask
from util.errors import DataError

MASK = Path("mask.png")
RESAMPLING = Image.Resampling


def drawn(side_px, seed=0):
    """Ellipses and a thin line, 255 on 0."""
    image = Image.new("L", (side_px, side_px))
    draw = ImageDraw.Draw(image)
    for x, y, width, height in np.random.default_rng(seed).uniform(0.1, 0.4, (4, 4)) * side_px:
        draw.ellipse([x, y, x + width + 2, y + height + 2], fill=255)
    draw.line([side_px // 4, side_px - 9, side_px - 9, side_px // 2], fill=255, width=max(1, side_px // 128))
    return image


def discs(side_px, *values):
    """A disc of each value next to each other on 0."""
    y, x = np.ogrid[:side_px, :side_px]
    mask = np.zeros((side_px, side_px), np.uint8)
    for place, value in enumerate(values):
        radius, centre = side_px / len(values) / 3, side_px * (place + 0.5) / len(values)
        mask[(y - side_px / 2) ** 2 + (x - centre) ** 2 <= radius**2] = value
    return mask


@pytest.mark.parametrize("filter_", [RESAMPLING.BILINEAR, RESAMPLING.BICUBIC, RESAMPLING.LANCZOS, RESAMPLING.BOX])
@pytest.mark.parametrize(("before_px", "after_px"), [(512, 128), (512, 150), (64, 128), (64, 300), (64, 448)])
def test_interpolated_greys_are_split_at_half(filter_, before_px, after_px):
    grey = np.asarray(drawn(before_px).resize((after_px, after_px), filter_))
    mask, n_grey = threshold_mask(MASK, grey)
    assert np.array_equal(mask, grey > 127)
    assert n_grey == np.count_nonzero((grey > 0) & (grey < 255))
    assert n_grey > 0 or (filter_ == RESAMPLING.BOX and after_px > before_px)
    deep, n_deep = threshold_mask(MASK, grey.astype(np.uint16) * 257)
    assert np.array_equal(deep, mask)
    assert n_deep == n_grey


@pytest.mark.parametrize("quality", [10, 30, 60, 80, 95])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_greys_of_lossy_compression_are_split_at_half(quality, mode):
    stream = io.BytesIO()
    clean = drawn(200)
    clean.convert(mode).save(stream, "JPEG", quality=quality)
    mask, _ = threshold_mask(MASK, np.asarray(Image.open(stream).convert("L")))
    assert (mask != (np.asarray(clean) > 0)).mean() < 0.01


def test_blurred_and_turned_outlines_are_split_at_half():
    for grey in (drawn(256).filter(ImageFilter.GaussianBlur(3)), drawn(256).rotate(13, RESAMPLING.BICUBIC)):
        assert np.array_equal(threshold_mask(MASK, np.asarray(grey))[0], np.asarray(grey) > 127)


@pytest.mark.parametrize("side_px", [24, 64, 256])
@pytest.mark.parametrize(
    "values",
    [(100, 200), (200, 100), (128, 255), (85, 170, 255), (64, 128, 192, 255), (1, 255), (254, 255, 10), (30, 255)],
)
def test_labels_are_refused_with_values_counts_and_a_remedy(side_px, values):
    mask = discs(side_px, *values) if len(values) < 4 or side_px > 24 else discs(32, *values)
    if side_px == 24 and values == (254, 255, 10):
        mask[-4:] = 10  # discs of 4 pixels are too small for greys near to background
    found = rf"{min(values)} \({np.count_nonzero(mask == min(values))} pixels\)"
    with pytest.raises(DataError, match=rf"mask\.png: values .*{found}.*labels.*classes: \[\{{name"):
        threshold_mask(MASK, mask)


def test_a_structure_within_another_is_a_label():
    for inner, outer in ((128, 255), (255, 128)):
        mask = discs(64, outer)
        mask[28:36, 28:36] = inner
        with pytest.raises(DataError, match="labels or a picture"):
            threshold_mask(MASK, mask)


def test_a_small_second_label_among_smooth_outlines_is_not_lost():
    grey = np.asarray(drawn(512).resize((128, 128), RESAMPLING.BILINEAR)).copy()
    grey[:8, :8] = 0
    threshold_mask(MASK, grey)
    grey[2:6, 2:6] = 100
    with pytest.raises(DataError, match="labels or a picture"):
        threshold_mask(MASK, grey)
    few = discs(64, 200)
    few[2:4, 2:4] = 100
    with pytest.raises(DataError, match=r"100 \(4 pixels\)"):
        threshold_mask(MASK, few)


def test_a_picture_is_no_mask():
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (64, 64), dtype=np.uint8)
    dark = np.clip(rng.normal(20, 60, (64, 64)), 0, 255).astype(np.uint8)
    for picture in (noise, dark, np.tile(np.arange(256, dtype=np.uint8), (50, 1))):
        with pytest.raises(DataError, match="labels or a picture"):
            threshold_mask(MASK, picture)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0, 200]], np.uint8), [[False, True]]),
        (np.array([[0, 70_000]], np.int32), [[False, True]]),
        (np.array([[0, 0.5]], np.float32), [[False, True]]),
        (np.array([[9, 9]], np.uint8), [[True, True]]),
        (np.zeros((1, 2), np.uint16), [[False, False]]),
    ],
)
def test_one_value_is_the_object_whatever_it_is(values, expected):
    assert threshold_mask(MASK, values)[0].tolist() == expected


@pytest.mark.parametrize(
    ("values", "found"),
    [([0, np.nan], "not finite"), ([0, -1], "values from -1"), ([0, 0.5, 1], "0.5 .*1 "), ([0, 1, 2], "1 .*2 ")],
)
def test_impossible_values_are_named(values, found):
    with pytest.raises(DataError, match=rf"mask\.png: .*{found}"):
        threshold_mask(MASK, np.array([values], np.float32))
