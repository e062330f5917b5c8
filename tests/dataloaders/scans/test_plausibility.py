"""What is said of scans that are none: constant ones, scaled CT, label maps, and slices cut across thick ones."""

import re

import numpy as np
import pytest

from dataloaders.io.geometry import Grid
from dataloaders.scans.plausibility import hounsfield_doubt, is_hounsfield, label_map_values, slicing_doubt
from util.errors import DataError


@pytest.mark.parametrize(
    ("low", "high", "doubt"),
    [
        (-1024, 3071, ""),
        (-3024, 1500, ""),  # padding outside the field of view
        (0, 255, "from 0 to 255, none below -200 HU"),
        (0, 4095, "from 0 to 4095, none below -200 HU.*rescale"),
        (-120, 200, "cropped to the inside"),
        (-1024, 64_512, "above 32767 HU.*wrapped"),
    ],
)
def test_intensities_that_are_hardly_hounsfield_units(low, high, doubt):
    found = hounsfield_doubt(float(low), float(high))
    assert bool(found) == bool(doubt)
    assert re.search(doubt, found)


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-3.1, 9.8), (0, 0.64)])
def test_intensities_that_are_no_hounsfield_units(low, high):
    with pytest.raises(DataError, match=rf"from {low:g} to {high:g}: a range of {high - low:g}; expected a CT"):
        hounsfield_doubt(float(low), float(high))


def test_where_hounsfield_units_are_expected():
    assert is_hounsfield("CT", None)
    assert is_hounsfield("", (-125.0, 275.0))
    assert not is_hounsfield("MR", (0.0, 900.0))


def label_map(n_classes, size=40):
    cells = np.arange(size) * 4 // size
    label = (cells[:, None, None] * 16 + cells[:, None] * 4 + cells) % (n_classes + 1)
    return label.astype(np.int16)


@pytest.mark.parametrize(
    ("array", "n_values"),
    [
        (label_map(4).astype(np.uint8), 5),
        (label_map(4).astype(np.float32) + np.float32(1e-4), 5),
        (label_map(1) * 255, 2),
        (label_map(1) * 2048, 2),
        (label_map(50), 51),
    ],
    ids=["five classes", "scaled", "mask", "mask of one high value", "parcellation"],
)
def test_label_maps_are_recognised_by_their_content(array, n_values):
    assert label_map_values(array) == n_values


def image(high, dtype, noise=0.03, seed=1):
    z, y, x = np.indices((20, 40, 40)) / 40
    clean = np.exp(-((y - 0.5) ** 2 + (x - 0.4) ** 2 + (z - 0.2) ** 2) * 12)
    noisy = np.clip(clean + np.random.default_rng(seed).normal(0, noise, clean.shape), 0, 1)
    return (noisy * high).astype(dtype)


def phantom(values):
    _, y, x = np.indices((20, 40, 40))
    return np.choose(((y - 20) ** 2 + (x - 20) ** 2 < 150).astype(int) + ((y - 20) ** 2 + (x - 20) ** 2 < 40), values)


@pytest.mark.parametrize(
    "array",
    [
        image(255, np.uint8),
        image(15, np.uint8),
        image(1200, np.int16),
        image(1, np.float32),
        phantom([-1000, 0, 100]),
        phantom([0, 1024, 1100]),
        np.full((4, 9, 9), 7),
    ],
    ids=["8-bit MR", "4-bit MR", "MR", "float", "CT phantom", "CT phantom without rescale", "constant"],
)
def test_images_are_no_label_maps(array):
    assert label_map_values(array) == 0


def grid(columns, rows, slices):
    affine = np.eye(4)
    affine[:3, :3] = np.column_stack([columns, rows, slices])
    return Grid((8, 9, 10), affine)


def test_thick_slices_in_another_plane_are_a_doubt():
    coronal = grid((-1.2, 0, 0), (0, 0, -1.2), (0, 6, 0))
    text = slicing_doubt(coronal, "LAS")
    assert "coronal slices 6 mm apart" in text
    assert "pixels of 1.2 x 6 mm" in text
    assert "sagittal slices 5 mm apart" in slicing_doubt(grid((0, -1, 0), (0, 0, -1), (5, 0, 0)), "LAS")
    for usual in (
        grid((-1.2, 0, 0), (0, 1.2, 0), (0, 0, 8)),
        grid((1, 0, 0), (0, 0, 1), (0, 1.5, 0)),
        grid((-1, 0, 0), (0, -0.9, 0.4), (0, 2, 4.5)),
    ):
        assert slicing_doubt(usual, "LAS") == ""
