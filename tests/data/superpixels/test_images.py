"""Superpixels on disk: files, quality, repetition, the second pass with probabilities, and what is refused."""

import json
import logging
import pickle
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.image import imread
from PIL import Image

from data.superpixels import images as module
from data.superpixels.__main__ import main
from data.superpixels.images import draw_superpixels, write_superpixels
from data.superpixels.slic import majority_mask, segment_slic, under_segmentation_error
from dataloaders.catalog import dataset
from dataloaders.images.folder import ImageFolder, SuperpixelConfig, as_settings
from dataloaders.io.png import read_mask, read_superpixels, write_png
from util import items
from util.errors import ConfigError, DataError
from util.records import Record

ISIC2017 = dataset("ISIC2017")
JSRT = dataset("JSRT")

CONFIG = SuperpixelConfig(n_segments=16)
PROBABLE = SuperpixelConfig("gray+prob", n_segments=16)
SIZE = 48


def square(shift=0):
    mask = np.zeros((SIZE, SIZE), bool)
    mask[10 + shift : 30, 12:34] = True
    return mask


def grainy(mask, seed, n_channels):
    noise = np.random.default_rng(seed).normal(0, 5, (*mask.shape, n_channels))
    image = np.clip(np.where(mask, 90, 170)[..., None] + noise, 0, 255).astype(np.uint8)
    return image if n_channels == 3 else image[..., 0]


def prepare(root, spec=ISIC2017, n_images=4):
    """A prepared folder below the data root `root`, and one test image."""
    folder = root / spec.prepared_folder()
    ids = [f"case{number:02d}" for number in range(n_images + 1)]
    lines = [f"{image_id},{'train' if number < n_images else 'test'}" for number, image_id in enumerate(ids)]
    folder.mkdir(parents=True)
    (folder / "manifest.csv").write_text("\n".join(["id,split", *lines]) + "\n")
    for number, image_id in enumerate(ids):
        write_png(folder / "images" / f"{image_id}.png", grainy(square(number), number, spec.channels))
        for structure in spec.classes:
            write_png(folder / "masks" / structure.name / f"{image_id}.png", square(number))
    return ImageFolder(folder, spec)


def write_probabilities(folder, output, bits=16):
    """The left half of each square is thought to be the object."""
    for image_id in folder.ids("train"):
        half = read_mask(folder.mask_path(image_id, "heart"))
        half[:, SIZE // 2 :] = False
        top = 2**bits - 1
        write_png(output / f"{image_id}.png", np.where(half, top, 0).astype(np.uint8 if bits == 8 else np.uint16))
    return output


@pytest.fixture
def folder(tmp_path):
    return prepare(tmp_path)


@pytest.fixture
def heart(tmp_path):
    return prepare(tmp_path, JSRT)


def contents(path):
    return {file.name: file.read_bytes() for file in sorted(path.iterdir())}


def test_training_images_are_cut_into_numbered_pieces(folder):
    record = write_superpixels(folder, CONFIG, "lesion")
    output = folder.superpixel_folder(CONFIG, "lesion")
    assert output.name == "rgb_16_10"
    assert [path.name for path in sorted(output.iterdir())] == [
        *(f"case{number:02d}.png" for number in range(4)),
        "superpixels.json",
    ]
    numbers = []
    for image_id in folder.ids("train"):
        with Image.open(output / f"{image_id}.png") as image:
            assert np.asarray(image).dtype == np.uint16
        ids = read_superpixels(output / f"{image_id}.png")
        np.testing.assert_array_equal(np.unique(ids), np.arange(ids.max() + 1))
        numbers.append(len(np.unique(ids)))
    found = record["quality"]
    assert found["n_segments"] == {"mean": np.mean(numbers), "min": min(numbers), "max": max(numbers)}
    assert 8 <= min(numbers) <= max(numbers) <= 24
    assert record["scikit_image"][0].isdigit()
    written = Record.from_json(json.loads((output / "superpixels.json").read_text()))
    assert written
    assert written.facts == record
    assert written.settings["superpixel"] == as_settings(CONFIG.resolved(ISIC2017, "lesion"))
    pictures = [f"{kind}/case{number:02d}.png" for kind in ("images", "masks/lesion") for number in range(4)]
    assert sorted(written.made_from) == pictures
    assert sorted(written.made) == [f"superpixels/rgb_16_10/case{number:02d}.png" for number in range(4)]


def test_quality_is_the_mean_over_the_images(folder):
    write_png(folder.mask_path("case02", "lesion"), np.zeros((SIZE, SIZE), bool))  # has no say
    found = write_superpixels(folder, CONFIG, "lesion")["quality"]["structures"]["lesion"]
    dice, errors = [], []
    for image_id in ("case00", "case01", "case03"):
        ids = read_superpixels(folder.superpixel_folder(CONFIG, "lesion") / f"{image_id}.png")
        mask = read_mask(folder.mask_path(image_id, "lesion"))
        best = majority_mask(ids, mask)
        dice.append(2 * (best & mask).sum() / (best.sum() + mask.sum()))
        errors.append(under_segmentation_error(ids, mask))
    assert found["majority_dice"] == pytest.approx(np.mean(dice))
    assert found["under_segmentation_error"] == pytest.approx(np.mean(errors))
    assert found["n_images"] == 3
    assert found["majority_dice"] > 0.9  # the squares' edges are sharp


def test_pieces_of_the_image_alone_serve_every_structure(heart, caplog):
    caplog.set_level(logging.INFO)
    main(["JSRT", "--data-dir", str(heart.folder), "--n-segments", "16"])
    folders = list((heart.folder / "superpixels").iterdir())
    assert [path.name for path in folders] == ["gray_16_0.0392"]
    record = json.loads((folders[0] / "superpixels.json").read_text())["facts"]
    assert set(record["quality"]["structures"]) == {"lung", "heart", "clavicle"}
    caplog.clear()
    main(["JSRT", "--data-dir", str(heart.folder), "--n-segments", "16", "--structure", "heart"])
    assert "JSRT gray_16_0.0392: up to date" in caplog.text


def test_each_structure_has_its_own_number_of_pieces(heart):
    main(["JSRT", "--data-dir", str(heart.folder)])
    names = sorted(path.name for path in (heart.folder / "superpixels").iterdir())
    assert names == ["gray_1200_0.0392", "gray_800_0.0392"]


@pytest.mark.parametrize("bits", [8, 16])
def test_probabilities_draw_borders_that_the_image_does_not_show(heart, tmp_path, bits):
    flat = np.full((SIZE, SIZE), 120, np.uint8)
    for image_id in heart.ids("train"):
        write_png(heart.image_path(image_id), flat)
    probabilities = write_probabilities(heart, tmp_path / "probabilities", bits)
    record = write_superpixels(heart, PROBABLE, "heart", probabilities=probabilities)
    output = heart.superpixel_folder(PROBABLE, "heart")
    assert output.name == "gray+prob_16_0.0392_heart"
    assert set(record["quality"]["structures"]) == {"heart"}
    for image_id in heart.ids("train"):
        half = read_mask(heart.mask_path(image_id, "heart"))
        half[:, SIZE // 2 :] = False
        ids = read_superpixels(output / f"{image_id}.png")
        np.testing.assert_array_equal(majority_mask(ids, half), half)
        expected = segment_slic(flat, PROBABLE.resolved(JSRT, "heart"), half.astype(float))
        np.testing.assert_array_equal(ids, expected)


def test_other_probabilities_make_other_superpixels(heart, tmp_path):
    probabilities = write_probabilities(heart, tmp_path / "probabilities")
    write_superpixels(heart, PROBABLE, "heart", probabilities=probabilities)
    before = contents(heart.superpixel_folder(PROBABLE, "heart"))
    write_png(probabilities / "case00.png", np.zeros((SIZE, SIZE), np.uint16))
    write_superpixels(heart, PROBABLE, "heart", probabilities=probabilities)
    after = contents(heart.superpixel_folder(PROBABLE, "heart"))
    assert [name for name in after if after[name] != before[name]] == ["case00.png", "superpixels.json"]


def test_nothing_is_done_again_until_something_changes(folder, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    first = write_superpixels(folder, CONFIG, "lesion")
    before = contents(folder.superpixel_folder(CONFIG, "lesion"))
    cut = []
    monkeypatch.setattr(module, "segment_slic", lambda image, *rest: cut.append(1) or segment_slic(image, *rest))
    assert write_superpixels(folder, CONFIG, "lesion") == first
    assert not cut
    assert "rgb_16_10: up to date" in caplog.text
    equalised = replace(CONFIG, equalised=True)
    write_superpixels(folder, equalised, "lesion")
    assert len(cut) == 4
    assert folder.superpixel_folder(equalised, "lesion").name == "rgb_16_10_clahe"
    assert contents(folder.superpixel_folder(CONFIG, "lesion")) == before
    write_png(folder.image_path("case01"), grainy(square(9), 0, 3))
    write_superpixels(folder, CONFIG, "lesion")
    assert len(cut) == 8


def test_an_interrupted_run_goes_on_where_it_stopped(folder, monkeypatch):
    write_superpixels(folder, CONFIG, "lesion")
    output = folder.superpixel_folder(CONFIG, "lesion")
    before = contents(output)
    (output / "superpixels.json").unlink()
    cut = []

    def fails_at_the_third(image, *rest):
        cut.append(1)
        if len(cut) == 3:
            raise KeyboardInterrupt
        return segment_slic(image, *rest)

    monkeypatch.setattr(module, "segment_slic", fails_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        write_superpixels(folder, CONFIG, "lesion")
    assert not (output / "superpixels.json").exists()
    write_superpixels(folder, CONFIG, "lesion")
    assert len(cut) == 5  # two, the failing one, and the two that were left
    assert contents(output) == before


def test_what_an_interrupted_run_left_is_of_no_use_once_an_image_has_changed(folder, monkeypatch):
    cut = []

    def fails_at_the_third(image, *rest):
        cut.append(1)
        if len(cut) == 3:
            raise KeyboardInterrupt
        return segment_slic(image, *rest)

    monkeypatch.setattr(module, "segment_slic", fails_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        write_superpixels(folder, CONFIG, "lesion")
    write_png(folder.image_path("case00"), grainy(square(9), 0, 3))
    write_superpixels(folder, CONFIG, "lesion")
    assert len(cut) == 3 + 4


def test_work_spread_over_processes_gives_the_same(folder, tmp_path, monkeypatch):
    def apart(function, items, jobs, description):
        tasks = [pickle.dumps((function, item)) for item in items]
        return (task(item) for task, item in map(pickle.loads, tasks))

    alone = prepare(tmp_path / "alone")
    write_superpixels(alone, CONFIG, "lesion")
    monkeypatch.setattr(items, "parallel_map", apart)
    write_superpixels(folder, CONFIG, "lesion", jobs=2)
    assert contents(folder.superpixel_folder(CONFIG, "lesion")) == contents(alone.superpixel_folder(CONFIG, "lesion"))


def test_the_picture_shows_the_pieces_and_the_mask(folder, tmp_path):
    main(["isic2017", "--data-dir", str(tmp_path), "--n-segments", "16", "--picture", str(tmp_path / "sheet.png")])
    red, green, blue = imread(tmp_path / "sheet.png")[..., :3].transpose(2, 0, 1)
    assert np.count_nonzero((red > 0.9) & (abs(green - 0.8) < 0.1) & (blue < 0.2)) > 500  # yellow
    assert np.count_nonzero((red < 0.45) & (green > 0.6) & (blue > 0.8)) > 200  # blue
    with pytest.raises(DataError, match=r"rgb_20_10.*case00\.png: no such file"):
        draw_superpixels(folder, SuperpixelConfig(n_segments=20), "lesion", tmp_path / "other.png")
    assert not (tmp_path / "other.png").exists()


def test_settings_that_cannot_be_are_refused(folder, heart, tmp_path, capsys):
    with pytest.raises(ConfigError, match=r"superpixel\.source='gray'.*3 channel"):
        main(["isic2017", "--data-dir", str(tmp_path), "--source", "gray"])
    with pytest.raises(ConfigError, match=r"'lung': unknown in ISIC2017"):
        main(["isic2017", "--data-dir", str(tmp_path), "--structure", "lung"])
    with pytest.raises(SystemExit):
        main(["isic2017", "--data-dir", str(tmp_path), "--n-segments", "1"])
    assert "argument --n-segments: '1': expected a whole number from 2 to 65535" in capsys.readouterr().err
    with pytest.raises(ConfigError, match=r"'gray\+prob' needs --probabilities.*frugalseg probabilities"):
        write_superpixels(heart, PROBABLE, "heart")
    with pytest.raises(ConfigError, match=r"'gray' does not use --probabilities"):
        write_superpixels(heart, CONFIG, "heart", probabilities=tmp_path)
    assert not (folder.folder / "superpixels").exists()
    assert not (heart.folder / "superpixels").exists()


def test_bad_probabilities_are_named_with_a_remedy(heart, tmp_path):
    probabilities = write_probabilities(heart, tmp_path / "probabilities")
    path = probabilities / "case02.png"
    write_png(path, np.zeros((8, 8), np.uint16))
    with pytest.raises(DataError, match=r"case02\.png: uint16 of shape \(8, 8\).*frugalseg probabilities"):
        write_superpixels(heart, PROBABLE, "heart", probabilities=probabilities)
    path.write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"case02\.png: cannot be read as an image.*frugalseg probabilities"):
        write_superpixels(heart, PROBABLE, "heart", probabilities=probabilities)
    path.unlink()
    with pytest.raises(DataError, match=r"case02\.png: no such file \(1 of 4.*frugalseg probabilities"):
        write_superpixels(heart, PROBABLE, "heart", probabilities=probabilities)


def test_a_missing_image_is_named_with_a_remedy(folder):
    folder.image_path("case03").unlink()
    with pytest.raises(DataError, match=r"case03\.png: cannot be read.*frugalseg prepare"):
        write_superpixels(folder, CONFIG, "lesion")
