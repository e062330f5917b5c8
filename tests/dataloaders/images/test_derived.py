"""Noise and superpixels of images that have changed since: refused, reported, and made again by the command told."""

import dataclasses
import json
import re
import shlex
import shutil

import numpy as np
import pytest

from data.check.images import check_images
from data.noise.__main__ import main as make_noise
from data.noise.masks import write_noise
from data.prepare.import_labels import import_noise
from data.superpixels.__main__ import main as make_superpixels
from dataloaders.catalog import dataset
from dataloaders.images.config import DenseConfig
from dataloaders.images.data import open_dense
from dataloaders.images.derived import noise_of, superpixels_of
from dataloaders.images.folder import ImageFolder, NoiseConfig, SuperpixelConfig
from dataloaders.io.png import read_image, read_mask, write_png
from util.errors import DataError

ISIC2017 = dataset("ISIC2017")
NOISE, SUPERPIXEL = NoiseConfig(0.7, 0.7), SuperpixelConfig(n_segments=24)
CONFIGS = {
    "noise": DenseConfig(size_px=32, noise=NOISE),
    "superpixels": DenseConfig(size_px=32, superpixel=SUPERPIXEL),
}
COMMANDS = {"noise": make_noise, "superpixels": make_superpixels}


@pytest.fixture(scope="module")
def sound(make_image_folder, tmp_path_factory):
    return make_image_folder(tmp_path_factory.mktemp("sound"), n_train=4, n_test=1)


@pytest.fixture
def folder(sound, tmp_path):
    return shutil.copytree(sound, tmp_path / "isic")


def invert_mask(folder):
    path = folder / "masks/lesion/img_02.png"
    write_png(path, ~read_mask(path))


def invert_image(folder):
    path = folder / "images/img_02.png"
    write_png(path, 255 - read_image(path))


def drop_an_image(folder):
    path = folder / "manifest.csv"
    path.write_text(path.read_text().replace("img_02,train\n", ""))


def move_to_test(folder):
    path = folder / "manifest.csv"
    path.write_text(path.read_text().replace("img_02,train", "img_02,test"))


def add_an_image(folder):
    path = folder / "manifest.csv"
    path.write_text(path.read_text().replace("img_04,test", "img_04,train"))


CHANGES = [
    ("noise", invert_mask, "changed: masks/lesion/img_02.png"),
    ("noise", drop_an_image, "gone: masks/lesion/img_02.png"),
    ("noise", move_to_test, "gone: masks/lesion/img_02.png"),
    ("noise", add_an_image, "new: masks/lesion/img_04.png"),
    ("superpixels", invert_mask, "changed: masks/lesion/img_02.png"),
    ("superpixels", invert_image, "changed: images/img_02.png"),
    ("superpixels", drop_an_image, "gone: images/img_02.png, masks/lesion/img_02.png"),
    ("superpixels", add_an_image, "new: images/img_04.png, masks/lesion/img_04.png"),
]


def problem_of(kind, folder):
    """What training, and what the check says."""
    with pytest.raises(DataError) as error:
        _ = open_dense(CONFIGS[kind], str(folder), needs=frozenset({kind})).labels
    noise, superpixel = (NOISE, None) if kind == "noise" else (None, SUPERPIXEL)
    checked = check_images(folder, ISIC2017, noise=noise, superpixel=superpixel)
    found = [each.text for each in checked if each.severity == "error"]
    return str(error.value), [text for text in found if "split 'test'" not in text]


@pytest.mark.parametrize(("kind", "change", "told"), CHANGES)
def test_what_was_made_from_other_files_is_refused_until_it_is_made_again(folder, kind, change, told):
    change(folder)
    message, findings = problem_of(kind, folder)
    assert f"stale: what it was made from has changed since ({told})" in message
    assert len(findings) == 1
    assert findings[0] in message
    command = re.search(r"Run `frugalseg (\w+) (.*?)`", message)
    assert command
    assert command[1] == kind
    COMMANDS[kind](shlex.split(command[2]))
    assert len(open_dense(CONFIGS[kind], str(folder), needs=frozenset({kind})).labels) > 2


def test_what_noise_is_not_made_from_may_change(folder):
    invert_image(folder)
    assert len(open_dense(CONFIGS["noise"], str(folder)).labels) == 4


def test_noise_of_another_description_is_refused(folder, monkeypatch):
    classes = (dataclasses.replace(ISIC2017.classes[0], noise_rotation_deg=3.0),)
    monkeypatch.setattr(DenseConfig, "spec", dataclasses.replace(ISIC2017, classes=classes))
    with pytest.raises(DataError, match=r"rotation_deg: .* then, 3\.0 now"):
        _ = open_dense(CONFIGS["noise"], str(folder)).labels


@pytest.mark.parametrize("content", ['{"made_with": {"masks_sha256": "0"}, "statistics": {}}', "{", "[]"])
def test_records_of_earlier_versions_and_damaged_ones_are_refused_and_made_again(folder, content):
    (folder / "noisy/lesion/a0.7_b0.7/noise.json").write_text(content)
    message, _ = problem_of("noise", folder)
    assert "noise.json does not say what the files were made from: it is damaged or of an earlier version" in message
    write_noise(ImageFolder(folder, ISIC2017), NOISE, "lesion")
    assert noise_of(ImageFolder(folder, ISIC2017), NOISE, "lesion").problem() == ""


def test_a_copied_or_moved_folder_is_as_good_as_the_first(folder, tmp_path):
    moved = folder.rename(tmp_path / "elsewhere")
    for path in moved.rglob("*.png"):
        path.touch()
    images = ImageFolder(moved, ISIC2017)
    assert noise_of(images, NOISE, "lesion").problem() == superpixels_of(images, SUPERPIXEL, "lesion").problem() == ""


def test_a_noisy_mask_that_was_altered_is_made_again(folder):
    path = folder / "noisy/lesion/a0.7_b0.7/img_01.png"
    before = path.read_bytes()
    write_png(path, ~read_mask(path))
    write_noise(ImageFolder(folder, ISIC2017), NOISE, "lesion")
    assert path.read_bytes() == before


def test_imported_noise_is_stale_once_its_masks_change(folder, tmp_path):
    shutil.rmtree(folder / "noisy")
    (tmp_path / "json").mkdir()
    for number in range(4):
        mask = {"lesion": np.eye(32, dtype=int).tolist()}
        (tmp_path / f"json/img_{number:02}.json").write_text(json.dumps(mask))
    import_noise(tmp_path / "json", ImageFolder(folder, ISIC2017), "lesion", NOISE.name)
    assert open_dense(CONFIGS["noise"], str(folder)).labels.noise_types == ("imported",) * 4
    invert_mask(folder)
    with pytest.raises(DataError, match=r"changed: masks/lesion/img_02\.png\)\. Move the folder away and import again"):
        _ = open_dense(CONFIGS["noise"], str(folder)).labels
    with pytest.raises(DataError, match="holds imported files, which are not overwritten"):
        write_noise(ImageFolder(folder, ISIC2017), NOISE, "lesion")


def test_packed_images_follow_their_files(folder):
    first = np.array(open_dense(DenseConfig(size_px=32), str(folder)).labels.image)
    invert_image(folder)
    second = open_dense(DenseConfig(size_px=32), str(folder)).labels.image
    assert np.array_equal(second[2], 255 - first[2])


@pytest.mark.parametrize("change", [invert_mask, invert_image, drop_an_image, move_to_test, add_an_image])
def test_a_run_depends_on_images_masks_and_splits(folder, change):
    before = open_dense(DenseConfig(size_px=32), str(folder)).contents()
    assert open_dense(DenseConfig(size_px=32), str(folder)).contents() == before
    change(folder)
    after = open_dense(DenseConfig(size_px=32), str(folder)).contents()
    differing = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    number = "img_04" if change is add_an_image else "img_02"
    assert differing
    assert all(number in name for name in differing)


def test_a_run_depends_on_patients_noise_and_superpixels_where_they_are_used(folder):
    def contents(kind):
        return open_dense(CONFIGS[kind], str(folder), needs=frozenset({kind})).contents()

    before = {kind: contents(kind) for kind in CONFIGS}
    for path in (folder / "noisy/lesion/a0.7_b0.7/img_01.png", folder / "superpixels/rgb_24_10/img_01.png"):
        path.write_bytes(path.read_bytes() + b"0")
    after = {kind: contents(kind) for kind in CONFIGS}
    for kind, part in (("noise", "noisy/lesion"), ("superpixels", "superpixels/rgb")):
        (differing,) = {name for name in before[kind] if before[kind][name] != after[kind][name]}
        assert differing.startswith(part)
    table = folder / "manifest.csv"
    lines = [line + (",patient" if line.startswith("id") else ",p1") for line in table.read_text().splitlines()]
    table.write_text("\n".join(lines) + "\n")
    assert contents("noise")["line img_01 of manifest.csv"] == "train, p1"
