"""Fundus photographs from phantom to prepared folder: cut out, padded, pasted back, checked."""

import csv
import json
from itertools import combinations

import numpy as np
import pytest
from PIL import Image

from data.check.images import check_images
from data.phantom import make_image, write_phantom
from data.phantom.writers.fundus import FUNDUS_RAW
from data.prepare.images import prepare_images
from dataloaders.catalog import dataset
from dataloaders.description import DatasetSpec
from dataloaders.images.fingerprint import SAME_BELOW, distance
from dataloaders.images.folder import ImageFolder
from dataloaders.images.framing import Framing
from dataloaders.io.png import read_image, read_mask
from util.errors import DataError, FailedItemsError

SIZE, PREPARED = 96, 64


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Name -> prepared phantom of four images; tests must not change them."""
    root = tmp_path_factory.mktemp("fundus")
    for name in FUNDUS_RAW:
        write_phantom(name, root / "raw" / name, 4, SIZE)
    return {
        name: ImageFolder(prepare_images(dataset(name), root / "raw" / name, root / "data", PREPARED), dataset(name))
        for name in FUNDUS_RAW
    }


@pytest.fixture
def drive(tmp_path):
    """A download of two images."""
    write_phantom("drive", tmp_path / "raw", 2, SIZE)
    return tmp_path / "raw"


@pytest.mark.parametrize("name", FUNDUS_RAW)
def test_a_prepared_phantom_passes_the_check(name, folders):
    images = folders[name]
    assert [finding for finding in check_images(images.folder, images.spec) if finding.severity == "error"] == []
    n_expected = {"reta": 3}.get(name, 4)
    assert len(images.rows) == n_expected
    assert len(list((images.folder / "fields").iterdir())) == n_expected
    for row in images.rows:
        assert read_image(images.image_path(row["id"])).shape == (PREPARED, PREPARED, 3)
    assert json.loads((images.folder / "dataset.json").read_text())["field"] == "largest"


def to_picture(framing, file):
    return framing.to_picture(read_mask(file)[None].astype(np.float32))[0] > 0.5


@pytest.mark.parametrize("name", FUNDUS_RAW)
def test_masks_return_to_the_picture(name, folders):
    images, image_id = folders[name], {"drive": "21_training", "refuge": "g0001"}.get(name, folders[name].rows[0]["id"])
    sample = make_image(name, 0, size_px=SIZE)
    row = images.row(image_id)
    assert (row["original_height_px"], row["original_width_px"]) == tuple(map(str, sample.image.shape[:2]))
    framing = Framing.from_row(row, PREPARED)
    for structure in images.spec.class_names[1:]:
        back, drawn = to_picture(framing, images.mask_path(image_id, structure)), sample.masks[structure]
        assert back.shape == drawn.shape
        if structure in ("vessel", "disc"):  # at 64 of 96 px; others are too small
            least = 0.65 if structure == "vessel" else 0.85
            assert 2 * (back & drawn).sum() > least * (back.sum() + drawn.sum())
    field = to_picture(framing, images.field_path(image_id))
    assert 2 * (field & sample.masks["field"]).sum() > 0.95 * (field.sum() + sample.masks["field"].sum())


def test_the_field_fills_the_longer_side_and_the_rest_is_padding(folders):
    images = folders["idrid"]  # whose field is cut off above and below
    for row in images.rows:
        field = read_mask(images.field_path(row["id"]))
        image = read_image(images.image_path(row["id"]))
        assert field[:, [2, -3]].any(axis=0).all()
        assert not field[:2].any()
        assert not field[-2:].any()
        assert not image[:2].any()
        assert int(row["crop_width_px"]) > int(row["crop_height_px"]) == int(row["original_height_px"])


def test_padding_is_no_cup(folders):
    images = folders["refuge"]
    for row in images.rows:
        disc, cup = (read_mask(images.mask_path(row["id"], name)) for name in ("disc", "cup"))
        assert 0.01 < disc.mean() < 0.06
        assert cup.any()
        assert not (cup & ~disc).any()


def test_lesions_are_exclusive(folders):
    for name in ("ddr", "idrid"):
        for row in folders[name].rows:
            masks = [read_mask(folders[name].mask_path(row["id"], kind)) for kind in ("EX", "HE", "SE", "MA")]
            assert np.sum(masks, axis=0).max() == 1


def test_vessels_are_visible(folders):
    for name in ("drive", "stare", "aria", "reta"):
        images = folders[name]
        for row in images.rows:
            vessel, field = read_mask(images.mask_path(row["id"], "vessel")), read_mask(images.field_path(row["id"]))
            green = read_image(images.image_path(row["id"]))[..., 1].astype(float)
            assert 0.08 < vessel[field].mean() < 0.4
            assert green[vessel].mean() < 0.85 * green[field & ~vessel].mean()


def test_reta_is_told_to_be_idrid_by_its_fingerprints(folders):
    marks = {(name, row["id"]): row["fingerprint"] for name in ("reta", "idrid", "ddr") for row in folders[name].rows}
    for first, second in combinations(marks, 2):
        is_copy = first[0] == "reta" and second == ("idrid", first[1])
        assert (distance(marks[first], marks[second]) < SAME_BELOW) == is_copy, (first, second)


def test_a_second_run_prepares_what_lacks_its_field(drive, tmp_path, caplog):
    folder = prepare_images(dataset("drive"), drive, tmp_path, 32)
    field = folder / "fields/01_test.png"
    content = field.read_bytes()
    field.unlink()
    caplog.set_level("INFO")
    prepare_images(dataset("drive"), drive, tmp_path, 32)
    assert f"DRIVE: 1 images prepared, 1 already up to date: {folder}" in caplog.messages
    assert field.read_bytes() == content


def test_the_field_of_drive_is_its_own_mask(drive, tmp_path):
    file = drive / "test/mask/01_test_mask.gif"
    with Image.open(file) as picture:
        shape = picture.size[::-1]
    half = np.zeros(shape, np.uint8)
    half[: shape[0] // 2] = 255
    Image.fromarray(half).save(file)
    folder = prepare_images(dataset("drive"), drive, tmp_path, 32)
    assert not read_mask(folder / "fields/01_test.png")[18:].any()
    assert read_mask(folder / "fields/21_training.png")[18:].any()
    Image.fromarray(half[:-1]).save(file)
    with pytest.raises(DataError, match=r"01_test_mask\.gif: \d+ x \d+ pixels .*01_test\.tif has .*expected the same"):
        prepare_images(dataset("drive"), drive, tmp_path, 32)


def test_an_image_without_a_field_is_named_and_the_others_are_done(drive, tmp_path):
    Image.fromarray(np.full((99, 96, 3), 9, np.uint8)).save(drive / "test/images/01_test.tif")
    with pytest.raises(FailedItemsError, match=r"01_test\.tif: no field of view: the brightest grey value is 9 of 255"):
        prepare_images(dataset("drive"), drive, tmp_path, 32)
    with (tmp_path / "DRIVE/prepared_32px/manifest.csv").open(newline="") as stream:
        assert [row["id"] for row in csv.DictReader(stream)] == ["21_training"]


def test_own_photographs_are_cut_out_too(tmp_path):
    sample = make_image("idrid", 0, size_px=SIZE)
    for number in range(2):
        Image.fromarray(sample.image).save(tmp_path / f"{number}.png")
        Image.fromarray(sample.masks["disc"].astype(np.uint8) * 255).save(tmp_path / f"{number}_disc.png")
    table = tmp_path / "mine.csv"
    table.write_text("id,image,mask:disc,split\na,0.png,0_disc.png,train\nb,1.png,1_disc.png,train\n")
    content = {"name": "mine", "kind": "images", "channels": 3, "classes": [{"name": "disc"}], "files": "mine.csv"}
    tasks = [{"name": "disc_cup", "classes": ["disc"]}]
    spec = DatasetSpec.from_dict({**content, "tasks": tasks, "grid": {"aspect": "pad", "field": "largest"}})
    images = ImageFolder(prepare_images(spec, table, tmp_path, PREPARED), spec)
    assert [finding for finding in check_images(images.folder, spec) if finding.severity == "error"] == []
    row = images.row("a")
    assert int(row["crop_width_px"]) < int(row["original_width_px"])
    back = to_picture(Framing.from_row(row, PREPARED), images.mask_path("a", "disc"))
    assert 2 * (back & sample.masks["disc"]).sum() > 0.9 * (back.sum() + sample.masks["disc"].sum())
    assert read_mask(images.field_path("a")).mean() > 0.5
    assert row["fingerprint"]
    without = DatasetSpec.from_dict({**content, "grid": {"aspect": "pad", "field": "largest"}})
    with pytest.raises(DataError, match=r"2 images for training and 0 for testing .*expected some of both"):
        prepare_images(without, table, tmp_path, PREPARED)
