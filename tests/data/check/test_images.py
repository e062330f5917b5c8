"""Every breach that `data.check.images` is to find, one at a time, in a small sound folder."""

import csv
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from data.check.__main__ import main
from data.check.images import check_images, require_valid_images
from dataloaders.catalog import dataset
from dataloaders.description import ClassSpec, write_description
from dataloaders.images.derived import noise_of, superpixels_of
from dataloaders.images.folder import ImageFolder, NoiseConfig, SuperpixelConfig
from dataloaders.io.png import write_png
from dataloaders.samples import Task
from tests.data.check.helpers import the_only
from util.errors import ConfigError, DataError
from util.files import write_json
from util.records import Record, hash_files

ISIC2017 = dataset("ISIC2017")
JSRT = dataset("JSRT")

IDS = tuple("abcdef")  # the last two are for testing
NOISE, SUPERPIXEL = NoiseConfig(0.5, 0.7), SuperpixelConfig()
PREPARE = "Delete it and run `frugalseg prepare isic2017 --raw DIR --out DIR --size-px 16` again."


def write_manifest(folder, rows):
    with (folder / "manifest.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, tuple(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def usual_rows():
    return [{"id": i, "split": "test" if i in "ef" else "train", "image_sha256": i * 3} for i in IDS]


def record_derived(folder):
    """Records noise and superpixels as made from the files as they are."""
    images = ImageFolder(folder, ISIC2017)
    for made in (noise_of(images, NOISE, "lesion"), superpixels_of(images, SUPERPIXEL, "lesion")):
        write_json(made.record_path, Record(dict(made.settings), hash_files(made.inputs, folder)).to_json())


@pytest.fixture(scope="session")
def sound(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sound")
    rng = np.random.default_rng(0)
    mask = np.zeros((16, 16), bool)
    mask[4:9, 3:12] = True
    for image_id in IDS:
        write_png(folder / "images" / f"{image_id}.png", rng.integers(0, 255, (16, 16, 3), dtype=np.uint8))
        write_png(folder / "masks/lesion" / f"{image_id}.png", mask)
        if image_id not in "ef":
            write_png(folder / "noisy/lesion/a0.5_b0.7" / f"{image_id}.png", ~mask)
            write_png(
                folder / "superpixels/rgb_100_10" / f"{image_id}.png", np.arange(256, dtype=np.uint16).reshape(16, 16)
            )
    write_manifest(folder, usual_rows())
    record_derived(folder)
    return folder


@pytest.fixture
def folder(sound, tmp_path):
    return shutil.copytree(sound, tmp_path / "prepared_16px")


def check(folder):
    return check_images(folder, ISIC2017, noise=NOISE, superpixel=SUPERPIXEL)


def noise_again(folder):
    return f"`frugalseg noise {folder} --dataset ISIC2017 --alpha 0.5 --beta 0.7 --structure lesion`"


def test_a_sound_folder_has_no_findings(folder):
    assert check(folder) == []
    require_valid_images(folder, ISIC2017, ("lesion",), NOISE, SUPERPIXEL)


def test_what_is_not_needed_is_not_looked_for(folder):
    shutil.rmtree(folder / "noisy")
    shutil.rmtree(folder / "superpixels")
    assert check_images(folder, ISIC2017) == []
    assert check_images(folder, ISIC2017, noise=NoiseConfig()) == []  # alpha 0: clean masks


@pytest.mark.parametrize("name", ["images/f.png", "masks/lesion/a.png"])
def test_missing_files(folder, name):
    (folder / name).unlink()
    finding = the_only(check(folder))
    assert (finding.severity, finding.file) == ("error", folder / name)
    assert finding.text == f"is missing, though manifest.csv lists its image. {PREPARE}"


def test_missing_files_of_a_folder_are_told_once(folder):
    for image_id in "bcd":
        (folder / "noisy/lesion/a0.5_b0.7" / f"{image_id}.png").unlink()
    finding = the_only(check(folder))
    assert finding.file.name == "b.png"
    assert f"Delete {finding.file.parent} and run {noise_again(folder)}. (And 2 more there.)" in finding.text


@pytest.mark.parametrize(
    ("record", "command"),
    [
        ("noisy/lesion/a0.5_b0.7/noise.json", ("noise", "--alpha 0.5 --beta 0.7 --structure lesion")),
        ("superpixels/rgb_100_10/superpixels.json", ("superpixels", "--structure lesion")),
    ],
)
def test_an_unfinished_step(folder, record, command):
    (folder / record).unlink()
    finding = the_only(check(folder))
    assert finding.file == (folder / record).parent
    command = f"frugalseg {command[0]} {folder} --dataset ISIC2017 {command[1]}"
    assert finding.text == f"missing, or not finished. Run `{command}`."


def test_the_command_for_a_step_names_unusual_options(folder):
    noise = NoiseConfig(0.3, 0.5, types=("dilate", "erode"), direction="uniform8", seed=3)
    finding = the_only(check_images(folder, ISIC2017, noise=noise))
    assert "--alpha 0.3 --beta 0.5 --types dilate erode --direction uniform8 --seed 3 --structure" in finding.text
    finding = the_only(check_images(folder, ISIC2017, superpixel=SuperpixelConfig(n_segments=50, equalised=True)))
    assert (
        f"frugalseg superpixels {folder} --dataset ISIC2017 --clahe --n-segments 50 --structure lesion" in finding.text
    )


def test_damaged_files(folder):
    path = folder / "images/c.png"
    path.write_bytes(path.read_bytes()[:60])
    finding = the_only(check(folder))
    assert (finding.severity, finding.file) == ("error", path)
    assert "cannot be read as an image" in finding.text
    assert PREPARE in finding.text


@pytest.mark.parametrize(
    "name", ["images/b.png", "masks/lesion/e.png", "noisy/lesion/a0.5_b0.7/b.png", "superpixels/rgb_100_10/d.png"]
)
def test_sizes_that_differ(folder, name):
    Image.open(folder / name).crop((0, 0, 15, 16)).save(folder / name)
    finding = the_only(check(folder))
    assert (finding.severity, finding.file) == ("error", folder / name)
    assert finding.text.startswith("16 x 15 pixels; expected 16 x 16, as most images have. Delete ")


def test_wrong_channels(folder):
    Image.open(folder / "images/b.png").convert("L").save(folder / "images/b.png")
    finding = the_only(check(folder))
    assert finding.text == f"1 channel(s); expected 3. {PREPARE}"


@pytest.mark.parametrize("name", ["masks/lesion/f.png", "noisy/lesion/a0.5_b0.7/b.png"])
def test_masks_that_are_not_binary(folder, name):
    grey = np.zeros((16, 16), np.uint8)
    grey[3:5, 3:9] = 255
    grey[5] = 7
    write_png(folder / name, grey)
    finding = the_only(check(folder))
    assert (finding.severity, finding.file) == ("error", folder / name)
    assert "values 0, 7, 255; expected only 0 and 255. Delete" in finding.text


def test_empty_masks_are_told_of_training_images_only(folder, caplog):
    for image_id in "aef":
        write_png(folder / "masks/lesion" / f"{image_id}.png", np.zeros((16, 16), bool))
    finding = the_only(check_images(folder, ISIC2017))
    assert (finding.severity, finding.file.name) == ("warning", "a.png")
    assert finding.text.endswith("correct the mask.")  # and no more there
    require_valid_images(folder, ISIC2017)
    assert str(finding) in caplog.messages


def test_an_image_in_both_splits(folder):
    write_manifest(folder, [*usual_rows(), {"id": "a", "split": "test", "image_sha256": "aaa"}])
    finding = the_only(check_images(folder, ISIC2017))
    assert (finding.severity, finding.file) == ("error", folder / "manifest.csv")
    assert finding.text == "a has 2 lines (train, test); expected one. Remove the others."


def test_a_picture_under_two_names(folder):
    rows = usual_rows()
    rows[5]["image_sha256"] = "bbb"
    write_manifest(folder, rows)
    finding = the_only(check_images(folder, ISIC2017))
    assert (finding.severity, finding.file.name) == ("warning", "f.png")
    assert "the same picture as b, which is in split 'train'" in finding.text


@pytest.mark.parametrize(("split", "other"), [("test", "train"), ("validation", "train"), ("train", "train")])
def test_a_picture_twice_is_told_of_all_splits_in_use(folder, split, other):
    rows = usual_rows()
    rows[2] |= {"split": split, "image_sha256": "aaa"}
    write_manifest(folder, rows)
    finding = the_only(check_images(folder, ISIC2017))
    assert (finding.severity, finding.file.name) == ("warning", "c.png")
    place = "in the same split" if split == other else f"which is in split {other!r}; scores will be too good"
    assert f"the same picture as a, {place}" in finding.text


@pytest.mark.parametrize("split", ["validation", "unused"])
def test_patients_on_both_sides(folder, split):
    rows = [row | {"patient": patient} for row, patient in zip(usual_rows(), "ppqqqr", strict=True)]
    rows[3]["split"] = "test"
    rows[1]["split"] = split
    write_manifest(folder, rows)
    findings = check_images(folder, ISIC2017)
    texts = ["patient q is in several splits (test: d, train: c); scores will be too good. Correct the split."]
    if split == "validation":
        texts.insert(
            0, texts[0].replace("patient q", "patient p").replace("test: d, train: c", "train: a, validation: b")
        )
    assert [(finding.severity, finding.text) for finding in findings] == [("error", text) for text in texts]
    assert findings[0].file == folder / "manifest.csv"


def test_a_folder_prepared_with_another_description(folder):
    write_description(folder, ISIC2017)
    assert check_images(folder, ISIC2017) == []
    write_description(folder, replace(ISIC2017, classes=(ClassSpec("mole"),)))
    finding = the_only(check_images(folder, ISIC2017))
    assert (finding.severity, finding.file) == ("error", folder / "dataset.json5")
    assert (
        "prepared with class_names ('background', 'mole'); the description has ('background', 'lesion')" in finding.text
    )
    (folder / "dataset.json5").write_text("{")
    assert "not valid JSON5" in the_only(check_images(folder, ISIC2017)).text


def test_the_commands_of_a_folder_that_describes_itself(folder):
    write_description(folder, ISIC2017)
    (folder / "noisy/lesion/a0.5_b0.7/noise.json").unlink()
    assert f"Run `frugalseg noise {folder} --alpha 0.5 --beta 0.7 --structure lesion`" in the_only(check(folder)).text


def test_the_command_finds_the_folder_by_name(folder, tmp_path, capsys):
    (tmp_path / "ISIC2017").mkdir()
    folder.rename(tmp_path / "ISIC2017/prepared_16px")
    assert main(["isic2017", "--data-dir", str(tmp_path), "--size-px", "16"]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'ISIC2017/prepared_16px'}: 0 error(s), 0 warning(s)\n"


@pytest.mark.parametrize("split", ["train", "test"])
def test_an_empty_split(folder, split):
    write_manifest(folder, [row for row in usual_rows() if row["split"] != split])
    finding = the_only(check_images(folder, ISIC2017))
    assert finding.text.startswith(f"no image in split '{split}'. Prepare the set again")


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_set_with_tasks_needs_one_of_the_two_splits(folder, split):
    partial = replace(ISIC2017, tasks=(Task("mole", ("lesion",)),), published={"train": 4})
    write_manifest(folder, [row for row in usual_rows() if row["split"] != split])
    findings = check_images(folder, partial)
    assert [finding.severity for finding in findings] == (["warning"] if split == "train" else [])  # as published
    assert the_only(check_images(folder, partial, splits=(split,))).severity == "error"
    write_manifest(folder, [row | {"split": "unused"} for row in usual_rows()])
    assert [finding.severity for finding in check_images(folder, partial)] == ["error", "error"]


def test_fields_of_view_are_checked_as_masks_are(folder):
    rows = [row | {"field": f"fields/{row['id']}.png"} for row in usual_rows()]
    write_manifest(folder, rows)
    for row in rows:
        write_png(folder / row["field"], np.ones((16, 16), bool))
    assert check_images(folder, ISIC2017) == []
    write_png(folder / "fields/b.png", np.full((16, 16), 7, np.uint8))
    (folder / "fields/c.png").unlink()
    write_png(folder / "fields/d.png", np.ones((16, 8), bool))
    found = {finding.file.name: finding.text for finding in check_images(folder, ISIC2017)}
    assert found.keys() == {"b.png", "c.png", "d.png"}
    assert "values 7; expected only 0 and 255" in found["b.png"]
    assert "is missing" in found["c.png"]
    assert "16 x 8 pixels; expected 16 x 16" in found["d.png"]


def test_no_manifest_or_a_damaged_one(folder):
    (folder / "manifest.csv").write_text("id\na\n")
    assert "no column split" in the_only(check(folder)).text
    (folder / "manifest.csv").write_text("id,split\n")
    assert the_only(check(folder)).text.startswith("no image. Run `frugalseg prepare isic2017")
    (folder / "manifest.csv").unlink()
    assert the_only(check(folder)).text.startswith("no such file. Run `frugalseg prepare isic2017")


def test_all_errors_are_raised_together(folder):
    (folder / "images/a.png").unlink()
    (folder / "masks/lesion/b.png").unlink()
    with pytest.raises(DataError, match=r"(?s)2 error\(s\).*images/a\.png.*masks/lesion/b\.png"):
        require_valid_images(folder, ISIC2017)


def test_only_the_structures_asked_for_are_looked_at(tmp_path):
    for image_id in "ab":
        write_png(tmp_path / "images" / f"{image_id}.png", np.zeros((16, 16), np.uint8))
        write_png(tmp_path / "masks/heart" / f"{image_id}.png", np.eye(16, dtype=bool))
    write_manifest(
        tmp_path, [{"id": "a", "split": "train", "image_sha256": ""}, {"id": "b", "split": "test", "image_sha256": ""}]
    )
    assert check_images(tmp_path, JSRT, ("heart",)) == []
    assert {finding.file.parent.name for finding in check_images(tmp_path, JSRT)} == {"lung", "clavicle"}
    with pytest.raises(ConfigError, match="structure 'liver': unknown in JSRT"):
        check_images(tmp_path, JSRT, ("liver",))


def test_the_command_counts_errors(folder, capsys):
    arguments = [str(folder), "--dataset", "isic2017", "--noise", "0.5", "0.7", "--superpixels"]
    assert main(arguments) == 0
    (folder / "noisy/lesion/a0.5_b0.7/a.png").unlink()
    assert main(arguments) == 1
    assert capsys.readouterr().out.splitlines()[-1] == f"{folder}: 1 error(s), 0 warning(s)"
    with pytest.raises(ConfigError, match="--fold: not for sets of images"):
        main([*arguments, "--fold", "0"])
    with pytest.raises(ConfigError, match="--noise: not for sets of scans"):
        main([str(folder), "--dataset", "sabs", "--noise", "0.5", "0.7"])
