"""Labels of the released code become files of a prepared folder; whatever does not fit is refused before writing."""

import json
import logging

import numpy as np
import pytest

from data.noise.__main__ import main as noise_main
from data.prepare.import_labels import import_noise, import_superpixels
from data.superpixels.__main__ import main as superpixels_main
from dataloaders.catalog import dataset
from dataloaders.images.folder import ImageFolder, NoiseConfig, SuperpixelConfig
from dataloaders.io.png import read_mask, read_superpixels, write_png
from util.csv_files import read_csv
from util.errors import ConfigError, DataError

ISIC2017 = dataset("ISIC2017")

SIZE = 16


@pytest.fixture
def clean():
    mask = np.zeros((SIZE, SIZE), bool)
    mask[2:6, 2:6] = True
    return mask


@pytest.fixture
def folder(tmp_path, clean):
    """Images a and b for training, c for testing."""
    prepared = tmp_path / "data/ISIC2017/prepared_16px"
    for image_id in "abc":
        write_png(prepared / "images" / f"{image_id}.png", np.zeros((SIZE, SIZE, 3), np.uint8))
        write_png(prepared / "masks/lesion" / f"{image_id}.png", clean)
    (prepared / "manifest.csv").write_text("id,split\na,train\nb,train\nc,test\n")
    return ImageFolder(prepared, ISIC2017)


@pytest.fixture
def source(tmp_path, clean):
    """The mask of a as it is, that of b moved two rows down: half of it overlaps."""
    folder = tmp_path / "json"
    folder.mkdir()
    for image_id, mask in (("a", clean), ("b", np.roll(clean, 2, axis=0))):
        (folder / f"{image_id}.json").write_text(json.dumps({"lesion": mask.astype(int).tolist()}))
    return folder


def test_noisy_masks_arrive(folder, source, clean):
    target = import_noise(source, folder, "lesion", "a0.5_b0.7")
    assert target == folder.noise_folder(NoiseConfig(0.5, 0.7), "lesion")
    np.testing.assert_array_equal(read_mask(target / "a.png"), clean)
    np.testing.assert_array_equal(read_mask(target / "b.png"), np.roll(clean, 2, axis=0))
    assert read_csv(target / "noise.csv", ("id", "type", "dice_to_clean")) == [
        {"id": "a", "type": "clean", "dice_to_clean": "1.0"},
        {"id": "b", "type": "imported", "dice_to_clean": "0.5"},
    ]
    record = json.loads((target / "noise.json").read_text())
    assert (record["settings"], record["facts"]["n_images"]) == ({"imported_from": "json"}, 2)
    assert sorted(record["made_from"]) == ["masks/lesion/a.png", "masks/lesion/b.png"]
    assert sorted(path.name for path in target.parent.iterdir()) == ["a0.5_b0.7"]


def test_superpixels_arrive(folder, source):
    ids = np.arange(SIZE * SIZE).reshape(SIZE, SIZE) * 200
    for image_id in "ab":
        (source / f"{image_id}.json").write_text(json.dumps(ids.tolist()))
    target = import_superpixels(source, folder, "rgb_100_10")
    assert target == folder.superpixel_folder(SuperpixelConfig(), "lesion")
    np.testing.assert_array_equal(read_superpixels(target / "b.png"), ids)
    assert (target / "superpixels.json").exists()


def test_an_existing_folder_is_left_alone(folder, source):
    import_noise(source, folder, "lesion", "x")
    with pytest.raises(DataError, match=r"noisy/lesion/x: exists already.*Move it away, or choose another --name"):
        import_noise(source, folder, "lesion", "x")


def test_labels_of_test_images_are_skipped(folder, source, caplog):
    (source / "c.json").write_text((source / "a.json").read_text())
    target = import_noise(source, folder, "lesion", "x")
    assert not (target / "c.png").exists()
    assert f"{source}: 1 files of images that are not for training are skipped" in caplog.messages


def test_unknown_and_missing_images_are_named(folder, source):
    (source / "z.json").write_text("{}")
    with pytest.raises(
        DataError, match=r"z\.json: .*manifest\.csv has no image z \(1 such files\)\. Name the data set"
    ):
        import_noise(source, folder, "lesion", "x")
    (source / "z.json").unlink()
    (source / "b.json").unlink()
    with pytest.raises(DataError, match=r"json: no b\.json \(missing for 1 of 2 training images\).*--split FILE\.csv"):
        import_noise(source, folder, "lesion", "x")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"lesion": [[0, 1], [1, 0]]}, r"shape \(2, 2\); expected \(16, 16\).*--size-px"),
        ({"lesion": [[0, 2]]}, r"values up to 2; expected only 0 and 1.*Export"),
        ({"lesion": [[0, 0.5]]}, r"not H lists of W whole numbers.*--class-name"),
        ({"lesion": [[0, 1], [0]]}, r"not H lists of W whole numbers"),
        ({"lesion": [["0", "1"]]}, r"not H lists of W whole numbers"),
        ({"lesion": []}, r"not H lists of W whole numbers"),
        ({"mole": [[0]]}, r"mole; expected the class 'lesion'\. Name the class with --class-name"),
        ([[0, 1]], r"a list; expected the class 'lesion'"),
    ],
)
def test_wrong_labels_are_named_and_nothing_is_written(folder, source, content, message):
    (source / "b.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"b\.json: " + message):
        import_noise(source, folder, "lesion", "x")
    assert not (folder.folder / "noisy").exists()


@pytest.mark.parametrize("value", [-1, 65536])
def test_superpixel_ids_must_fit_in_16_bits(folder, source, value):
    for image_id in "ab":
        (source / f"{image_id}.json").write_text(json.dumps([[0, value]]))
    with pytest.raises(DataError, match=r"a\.json: ids from -?\d+ to \d+; expected 0 to 65535\. Renumber them"):
        import_superpixels(source, folder, "x")


def test_the_command_imports(folder, source, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    for image_id in "ab":
        content = json.loads((source / f"{image_id}.json").read_text())
        (source / f"{image_id}.json").write_text(json.dumps({"mole": content["lesion"]}))
    common = ["--data-dir", str(tmp_path / "data"), "--size-px", "16"]
    noise_main(["isic2017", *common, "--import-json", str(source), "--name", "a0.5_b0.7", "--class-name", "mole"])
    assert caplog.messages == [f"{folder.folder / 'noisy/lesion/a0.5_b0.7'}: 2 labels imported"]
    for image_id in "ab":
        (source / f"{image_id}.json").write_text(json.dumps(np.zeros((SIZE, SIZE), int).tolist()))
    superpixels_main(["isic2017", *common, "--import-json", str(source), "--name", "rgb_100_10"])
    assert caplog.messages[1:] == [f"{folder.folder / 'superpixels/rgb_100_10'}: 2 labels imported"]


@pytest.mark.parametrize("name", ["", "../x", "a/b", None])
@pytest.mark.parametrize("main", [noise_main, superpixels_main])
def test_a_wrong_folder_name_is_refused(folder, source, main, name):
    options = [] if name is None else ["--name", name]
    with pytest.raises(ConfigError, match=r"--name .*: expected the folder name of the imported labels"):
        main([str(folder.folder), "--dataset", "isic2017", "--import-json", str(source), *options])


@pytest.mark.parametrize(
    ("main", "options", "message"),
    [
        (noise_main, ["--alpha", "0.5"], "--alpha: not with --import-json"),
        (superpixels_main, ["--n-segments", "9"], "--n-segments: not with --import-json"),
    ],
)
def test_settings_of_the_simulation_are_refused(folder, source, main, options, message):
    arguments = [str(folder.folder), "--dataset", "isic2017", "--import-json", str(source), "--name", "x", *options]
    with pytest.raises(ConfigError, match=message):
        main(arguments)


@pytest.mark.parametrize("main", [noise_main, superpixels_main])
def test_a_name_without_an_import_is_refused(folder, main):
    with pytest.raises(ConfigError, match="--name: only with --import-json"):
        main([str(folder.folder), "--dataset", "isic2017", "--name", "x"])


def test_the_structure_must_be_said_where_there_are_several(folder, source, tmp_path):
    prepared = tmp_path / "data/JSRT/prepared_16px"
    prepared.mkdir(parents=True)
    (prepared / "manifest.csv").write_text("id,split\n")
    with pytest.raises(ConfigError, match="--structure: expected the one of the imported masks, of lung, heart, clav"):
        noise_main([str(prepared), "--dataset", "jsrt", "--import-json", str(source), "--name", "x"])
