import json
import logging

import numpy as np
import pytest
from PIL import Image

from data.phantom import IMAGES, make_image, write_phantom
from data.phantom.__main__ import main
from data.phantom.writers.formats import ScanRequest
from data.phantom.writers.jsrt import IDS
from dataloaders.catalog import dataset, dataset_names
from util.errors import ConfigError, UserError

SIZE, N = 32, 8


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folders = {name: tmp_path_factory.mktemp(name) for name in IMAGES}
    for name, out in folders.items():
        write_phantom(name, out, n_scans=N, size_px=SIZE)
    return folders


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def contents(folder):
    return {name: (folder / name).read_bytes() for name in files(folder)}


def read(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("L") if image.mode == "P" else image)


def test_every_image_data_set_has_a_phantom():
    assert set(IMAGES) == {name.lower() for name in dataset_names("images")}
    for name in ("isic2017", "jsrt"):
        assert IMAGES[name].n_published == sum(dataset(name).published.values())


def test_isic_layout_is_the_published_one(written):
    train, test = [0, 2, 3, 4, 6, 7], [1, 5]
    expected = ["phantom.json"]
    for part, indices in (("Training", train), ("Test_v2", test)):
        expected += [f"ISIC-2017_{part}_Data/ISIC_{index:07d}.jpg" for index in indices]
        expected += [f"ISIC-2017_{part}_Part1_GroundTruth/ISIC_{index:07d}_segmentation.png" for index in indices]
        expected += [f"ISIC-2017_{part}_Data/ISIC_{indices[0]:07d}_superpixels.png"]
    assert files(written["isic2017"]) == sorted(expected)


def test_isic_files_equal_the_image_in_memory(written):
    sample = make_image("isic2017", 1, size_px=SIZE)
    image = read(written["isic2017"] / "ISIC-2017_Test_v2_Data/ISIC_0000001.jpg")
    mask = read(written["isic2017"] / "ISIC-2017_Test_v2_Part1_GroundTruth/ISIC_0000001_segmentation.png")
    superpixels = read(written["isic2017"] / "ISIC-2017_Test_v2_Data/ISIC_0000001_superpixels.png")
    assert image.shape == sample.image.shape == superpixels.shape
    assert np.abs(image.astype(int) - sample.image).mean() < 3
    assert mask.dtype == np.uint8
    assert set(np.unique(mask)) == {0, 255}
    np.testing.assert_array_equal(mask == 255, sample.masks["lesion"])


def test_isic_images_differ_in_aspect_ratio_with_a_fixed_shorter_side():
    shapes = {make_image("isic2017", index, size_px=SIZE).image.shape for index in range(12)}
    assert shapes == {(SIZE, SIZE, 3), (SIZE, round(SIZE * 4 / 3), 3), (SIZE, SIZE * 3 // 2, 3)}


def test_jsrt_layout_is_the_published_one(written):
    folds = {"fold1": ("JPCLN001", "JPCNN001", "JPCLN003", "JPCNN003")}
    folds["fold2"] = ("JPCLN002", "JPCNN002", "JPCLN004", "JPCNN004")
    structures = ("left lung", "right lung", "heart", "left clavicle", "right clavicle")
    expected = ["phantom.json", *(f"All247images/{id_}.IMG" for ids in folds.values() for id_ in ids)]
    expected += [f"{fold}/masks/{name}/{id_}.gif" for fold, ids in folds.items() for name in structures for id_ in ids]
    assert files(written["jsrt"]) == sorted(expected)


def test_jsrt_ids_are_the_published_ones():
    published = {f"JPCLN{n:03d}" for n in range(1, 155)} | {f"JPCNN{n:03d}" for n in range(1, 94)}
    assert set(IDS) == published
    assert len(IDS) == len(published) == 247


def test_jsrt_films_are_headerless_big_endian_12_bit_with_half_size_masks(written):
    sample = make_image("jsrt", 2, size_px=SIZE)
    film = (written["jsrt"] / "All247images/JPCLN002.IMG").read_bytes()
    assert len(film) == 2 * SIZE**2
    array = np.frombuffer(film, ">u2").reshape(SIZE, SIZE)
    assert array.max() < 4096
    np.testing.assert_array_equal(array, sample.image)
    for name, full in sample.masks.items():
        mask = read(written["jsrt"] / "fold2/masks" / name / "JPCLN002.gif")
        assert mask.shape == (SIZE // 2, SIZE // 2)
        assert set(np.unique(mask)) == {0, 255}
        inside = full.reshape(SIZE // 2, 2, SIZE // 2, 2).mean((1, 3))
        assert (mask[inside == 1] == 255).all()
        assert (mask[inside < 0.5] == 0).all()


def test_shenzhen_layout_is_the_published_one_and_some_images_have_no_mask(written):
    ids = [f"CHNCXR_{index + 1:04d}_{index % 2}" for index in range(N)]
    expected = ["phantom.json", *(f"img/{id_}.png" for id_ in ids)]
    expected += [f"mask/{id_}_mask.png" for id_ in ids if id_ != "CHNCXR_0005_0"]
    assert files(written["shenzhen"]) == sorted(expected)


def test_shenzhen_files_equal_the_images_in_memory_and_some_are_rgb(written):
    for index, n_axes in ((0, 3), (1, 2)):
        sample = make_image("shenzhen", index, size_px=SIZE)
        id_ = f"CHNCXR_{index + 1:04d}_{index % 2}"
        image = read(written["shenzhen"] / f"img/{id_}.png")
        assert image.ndim == n_axes
        np.testing.assert_array_equal(image, sample.image)
        np.testing.assert_array_equal(read(written["shenzhen"] / f"mask/{id_}_mask.png"), 255 * sample.masks["lung"])
    colour = read(written["shenzhen"] / "img/CHNCXR_0001_0.png")
    assert (colour == colour[..., :1]).all()


@pytest.mark.parametrize("name", IMAGES)
def test_files_do_not_depend_on_the_order_or_number_of_images(name, written, tmp_path):
    for index in (5, 2, 0):
        IMAGES[name].write(tmp_path, ScanRequest(index, seed=0, size_px=SIZE))
    again = contents(tmp_path)
    assert len(again) >= 4
    assert again.items() <= contents(written[name]).items()


@pytest.mark.parametrize("name", IMAGES)
def test_existing_images_are_kept_and_missing_ones_added(name, tmp_path):
    write_phantom(name, tmp_path, n_scans=2, size_px=SIZE)
    before = contents(tmp_path)
    stamps = {key: (tmp_path / key).stat().st_mtime_ns for key in before if key != "phantom.json"}
    for lost in list(stamps)[::2]:
        (tmp_path / lost).unlink()
        stamps.pop(lost)
    write_phantom(name, tmp_path, n_scans=2, size_px=SIZE)
    assert contents(tmp_path) == before
    assert all((tmp_path / key).stat().st_mtime_ns == stamp for key, stamp in stamps.items())


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("isic2017", "ISIC-2017_Training_Data/ISIC_0000000.jpg"),
        ("jsrt", "fold2/masks/heart/JPCLN002.gif"),
        ("shenzhen", "img/CHNCXR_0001_0.png"),
    ],
)
def test_folders_with_other_images_are_rejected_unchanged(name, file, tmp_path):
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).write_bytes(b"a patient")
    with pytest.raises(UserError, match=rf"contains {file.partition('/')[0]} but no phantom\.json.*another --out"):
        write_phantom(name, tmp_path, n_scans=1, size_px=SIZE)
    assert contents(tmp_path) == {file: b"a patient"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dataset": "isic2018"}, "'isic2018'.*expected one of chaost2, sabs, scgm, mms, isic2017, jsrt, shenzhen"),
        ({"n_scans": 2601}, "isic2017: scans=2601; expected 1 to 2600"),
        ({"dataset": "jsrt", "n_scans": 248}, "jsrt: scans=248; expected 1 to 247"),
        ({"dataset": "shenzhen", "size_px": 16}, "size_px=16; expected 32 to 2048"),
        ({"dataset": "jsrt", "size_px": 33}, "size_px=33; expected a multiple of 2"),
    ],
)
def test_the_error_names_the_invalid_setting(arguments, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        write_phantom(**{"dataset": "isic2017", "out": tmp_path, **arguments})
    assert not list(tmp_path.iterdir())


def test_make_image_rejects_volumetric_data_sets():
    with pytest.raises(ConfigError, match=r"'sabs'.*expected one of isic2017, jsrt, shenzhen"):
        make_image("sabs", 0)


def test_command_line(tmp_path, monkeypatch, caplog):
    arguments = ["phantom", "isic2017", "--out", str(tmp_path), "--scans", "1", "--size-px", str(SIZE), "--seed", "3"]
    monkeypatch.setattr("sys.argv", arguments)
    with caplog.at_level(logging.INFO):
        main()
    record = json.loads((tmp_path / "phantom.json").read_text())
    assert record == {"dataset": "isic2017", "n_scans": 1, "size_px": SIZE, "seed": 3, "revision": 1}
    assert "1 scans, seed 3" in caplog.text
    mask = read(tmp_path / "ISIC-2017_Training_Part1_GroundTruth/ISIC_0000000_segmentation.png")
    np.testing.assert_array_equal(mask == 255, make_image("isic2017", 0, seed=3, size_px=SIZE).masks["lesion"])
