"""The table of similarities, on small phantoms."""

import sys

import numpy as np
import pytest

from benchmarks import similarity
from dataloaders.samples import Volume
from util.errors import ConfigError


def printed(monkeypatch, capsys, folder, *scans):
    monkeypatch.setattr(sys, "argv", ["similarity", "--data", str(folder), "--device", "cpu", "--scan", *scans])
    similarity.main()
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines()]


def test_pairs_of_the_set_are_set_against_strangers(monkeypatch, capsys, prepared_folder):
    noise = np.random.default_rng(0).normal(100, 20, (8, 64, 64)).astype(np.float32)
    strangers = [("noise", Volume(noise, np.diag([-1.25, 1.25, 7.7, 1.0])))]
    monkeypatch.setattr(similarity, "phantoms", lambda: strangers)
    _, _, *rows = printed(monkeypatch, capsys, prepared_folder, "1", "2")
    names = [row[:2] for row in rows]
    kinds = ["scans of the data set", "turned by 90 degrees", "other body parts"]
    assert names == [*([kind, "2"] for kind in kinds), ["scans by a half of one", "4"]]
    own, _, strange, _ = ([float(cell) for cell in row[2:5]] for row in rows)
    assert own == sorted(own)
    assert strange[2] < own[0]


def test_the_phantoms_are_hearts_and_cords():
    assert [name for name, _ in similarity.phantoms()] == [
        f"{part} {n}" for part in ("heart", "cord") for n in range(3)
    ]


def test_one_scan_is_no_pair(monkeypatch, capsys, prepared_folder):
    with pytest.raises(ConfigError, match="--scan: 1 given; expected at least two"):
        printed(monkeypatch, capsys, prepared_folder, "1")


def test_a_stretch_of_a_scan_stays_where_it_was():
    image = Volume(np.arange(24).reshape(4, 3, 2), np.diag([-1.5, 2.0, 7.0, 1.0]))
    found = similarity.stretch(image, slice(2, None))
    np.testing.assert_array_equal(found.array, image.array[2:])
    assert found.affine[2, 3] == 14.0


def test_a_turned_scan_has_its_slices_turned_and_keeps_the_size_of_its_voxels():
    image = Volume(np.arange(24).reshape(2, 3, 4), np.diag([-1.5, 2.0, 7.0, 1.0]))
    found = similarity.turned(image)
    np.testing.assert_array_equal(found.array[1], np.rot90(image.array[1]))
    assert found.spacing_mm == (7.0, 1.5, 2.0)
