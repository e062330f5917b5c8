"""Normalised slices, and where they are kept."""

import numpy as np
import pytest
import torch

from dataloaders.sources.store import normalise_slices, pack, slice_quantiles
from util.errors import DataError

PERCENTILES = (0.5, 99.5)


def test_percentiles_of_each_slice_become_0_and_1():
    rng = np.random.default_rng(0)
    array = rng.normal(100, 20, (2, 40, 40)).astype(np.float32)
    array[1] *= 7
    found, tables = normalise_slices(array, PERCENTILES), slice_quantiles(array, PERCENTILES)
    for raw, scaled in zip(array, found, strict=True):
        low, high = np.percentile(raw, PERCENTILES)
        np.testing.assert_allclose(scaled, np.clip((raw - low) / (high - low), 0, 1), atol=1e-5)
    assert tables.shape == (2, 257)
    assert (np.diff(tables, axis=1) >= 0).all()


def test_padding_does_not_count_and_becomes_0():
    rng = np.random.default_rng(1)
    part = rng.uniform(10, 20, (3, 20, 30)).astype(np.float32)
    part[0, 0, 0] = part.min() - 1
    padded = np.pad(part, ((0, 0), (10, 10), (5, 5)), constant_values=part.min())
    found = normalise_slices(padded, PERCENTILES)
    np.testing.assert_array_equal(found[:, 10:-10, 5:-5], normalise_slices(part, PERCENTILES))
    np.testing.assert_array_equal(slice_quantiles(padded, PERCENTILES), slice_quantiles(part, PERCENTILES))
    assert found[:, :10].max() == found[:, :, :5].max() == 0


def test_a_slice_without_contrast_becomes_0():
    array = np.stack([np.full((16, 16), 7.0), np.arange(256.0).reshape(16, 16)]).astype(np.float32)
    found = normalise_slices(array, PERCENTILES)
    assert found[0].max() == 0
    assert found[1].max() == 1
    assert not normalise_slices(array[:1], PERCENTILES).any()


def test_slices_are_the_same_on_disk_and_on_a_device(hearts, open_hearts):
    folder = open_hearts(hearts).folder
    store = pack(folder, ("A1", "B1", "B2"), ("A1", "B2"), PERCENTILES)
    assert len(store) == 9 + 3 + 3
    positions = np.array([14, 0, 10, 8])
    kept = store.on(torch.device("cpu"))
    assert torch.equal(store.images(positions), kept.images(positions))
    with_label = np.array([14, 2, 8])
    assert torch.equal(store.labels(with_label), kept.labels(with_label))
    wanted = normalise_slices(folder.image("B2").array, PERCENTILES)[2]
    np.testing.assert_allclose(store.images(positions)[0], wanted, atol=1e-3)  # half precision
    np.testing.assert_array_equal(store.labels(with_label)[0], folder.label("B2").array[2])


def test_scans_of_another_size_are_refused(make_hearts, open_hearts, tmp_path):
    folder = make_hearts(tmp_path, patients_per_domain=1)
    make_hearts(tmp_path / "other", patients_per_domain=1, size=56)
    odd = next((tmp_path / "other").rglob("image_B1.nii.gz"))
    (folder / "image_B1.nii.gz").write_bytes(odd.read_bytes())
    with pytest.raises(DataError, match=r"image_B1.*56.*expected both alike"):
        pack(open_hearts(folder).folder, ("A1", "B1"), (), PERCENTILES)
