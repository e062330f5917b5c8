"""Prediction of images from the checkpoint alone: the same pixels as in preparation and validation, original sizes."""

import csv
import errno
import json
import logging
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import training  # noqa: F401 - registers its command
import validation  # noqa: F401
from config_ssl_upload import ex
from data.prepare.__main__ import main as prepare
from dataloaders.catalog import dataset
from dataloaders.description import ClassSpec, DatasetSpec, GridRule
from dataloaders.images.framing import Framing
from dataloaders.images.task import ImageTask
from dataloaders.io.png import write_png, write_pngs
from models.methods.base import Method
from models.predict import main
from models.prediction.dense import DensePredictor, overlap, segmentation_files
from models.prediction.fewshot import FewShotPredictor
from models.prediction.images import find_images, name_images, segment_images
from util.errors import CheckpointError, ConfigError, DataError, UserError
from util.results.scores import read_scores

SIDE = 32
SIZES = [(48, 64), (40, 40), (70, 50), (64, 33), (50, 50), (90, 60)]  # rows, columns
VALUES = {"disc": 100, "box": 300}
SMALL = {
    "structures": ["disc", "box"],
    "size_px": SIDE,
    "n_steps": 32,
    "eval_every": 0,
    "batch_size": 4,
    "checkpoint_every": 32,
    "num_workers": 0,
    "device": "cpu",
    "which_aug": "none",
    "optim": {"name": "adam", "lr": 0.03},
    "unet": {"base_features": 8, "max_features": 8, "halvings": [2, 2]},
}


def label_of(shape):
    """A disc on the left and a square on the right, as values 1 and 2."""
    rows, columns = np.mgrid[: shape[0], : shape[1]] / np.array(shape)[:, None, None]
    label = np.zeros(shape, np.uint8)
    label[(rows - 0.5) ** 2 + (columns - 0.28) ** 2 < 0.2**2] = 1
    label[(abs(rows - 0.5) < 0.25) & (abs(columns - 0.75) < 0.2)] = 2
    return label


def picture_of(number, label):
    """16 bits, of which the values below 10,000 mean nothing."""
    grey = np.array([20_000, 60_000, 40_000])[label] + np.random.default_rng(number).normal(0, 500, label.shape)
    return grey.clip(0, 65_535).astype(np.uint16)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Folder with raw images in `img`, checkpoint, validation results; the description and its table are gone."""
    folder = tmp_path_factory.mktemp("own")
    classes = [{"name": name, "value": value} for name, value in VALUES.items()]
    content = {"name": "MINE", "kind": "images", "classes": classes, "files": "mine.csv"}
    content |= {"grid": {"size_px": 64, "aspect": "pad"}, "intensity": {"window": [10_000, 65_535]}}
    (folder / "mine.json5").write_text(json.dumps(content))
    lines = ["id,image,label,patient,split"]
    for n, shape in enumerate(SIZES):
        label = label_of(shape)
        write_png(folder / f"img/c{n}.png", picture_of(n, label))
        write_png(folder / f"map/c{n}.png", np.array([0, *VALUES.values()], np.uint16)[label])
        lines.append(f"c{n},img/c{n}.png,map/c{n}.png,p{n},{'train' if n < 4 else 'test'}")
    (folder / "mine.csv").write_text("\n".join(lines) + "\n")
    data, logs = str(folder / "data"), str(folder / "exps")
    prepare([str(folder / "mine.json5"), "--out", data, "--size-px", str(SIDE)])
    changes = SMALL | {"dataset": str(folder / "mine.json5"), "path": {"data_dir": data, "log_dir": logs}}
    path = ex.run("train", named_configs=["baseline"], config_updates=changes).result
    ex.run("validate", named_configs=["baseline"], config_updates=changes | {"surface_scores": False})
    (folder / path).rename(folder / "checkpoint.pt")
    for file in [folder / "mine.json5", folder / "mine.csv", *(folder / "data").rglob("dataset.json5")]:
        file.unlink()
    return folder


def predict(trained, out, *further, images=("img",)):
    places = [str(trained / place) for place in images]
    return main(
        [f"--checkpoint={trained / 'checkpoint.pt'}", "--device=cpu", f"--out={out}", *further, "--images", *places]
    )


def read(path):
    with Image.open(path) as image:
        return np.asarray(image)


def test_images_are_segmented_from_the_checkpoint_alone(trained, tmp_path):
    assert predict(trained, tmp_path, "--overlays", "--probabilities") == 0
    dice = []
    for n, shape in enumerate(SIZES):
        found, truth = read(tmp_path / f"c{n}_segmentation.png"), label_of(shape)
        assert found.shape == shape
        assert found.dtype == np.uint16
        assert set(np.unique(found)) <= {0, *VALUES.values()}
        for place, value in enumerate(VALUES.values(), start=1):
            dice.append(
                2 * ((found == value) & (truth == place)).sum() / ((found == value).sum() + (truth == place).sum())
            )
        probability = read(tmp_path / f"c{n}_box_probability.png")
        assert probability.shape == shape
        assert (probability[found == VALUES["box"]] >= 65_535 // 3).all()
        assert (tmp_path / f"c{n}_overlay.png").read_bytes().startswith(b"\x89PNG")
    assert np.mean(dice) > 0.7
    with (tmp_path / "areas.csv").open() as stream:
        records = list(csv.DictReader(stream))
    assert [(r["image"], r["label"], r["structure"]) for r in records[:2]] == [
        ("c0", "100", "disc"),
        ("c0", "300", "box"),
    ]
    for record in records:
        is_label = read(tmp_path / f"{record['image']}_segmentation.png") == int(record["label"])
        assert int(record["pixels"]) == is_label.sum()
        assert float(record["fraction_of_image"]) == pytest.approx(is_label.mean(), abs=1e-6)
        probability = read(tmp_path / f"{record['image']}_{record['structure']}_probability.png")
        surely, possibly = is_label & (probability > 0.7 * 65_535), is_label | (probability > 0.3 * 65_535)
        # Of the network's own 32 px, where outlines are sharper than interpolated ones.
        assert float(record["confidence"]) == pytest.approx(surely.sum() / possibly.sum(), abs=0.15)
        assert record["review"] == ""


def test_json_holds_the_areas(trained, tmp_path, capsys):
    assert predict(trained, tmp_path, "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    with (tmp_path / "areas.csv").open() as stream:
        table = list(csv.DictReader(stream))
    results = [{key: "" if value is None else str(value) for key, value in each.items()} for each in answer["results"]]
    assert results == table
    assert answer["segmented"] == answer["found"] == len(SIZES)


def test_a_turned_picture_is_segmented_as_viewers_show_it(trained, tmp_path):
    """A file that is stored turned, with an EXIF orientation, gives the label map of the upright picture."""
    upright = read(trained / "img/c0.png")
    content = Image.Exif()
    content[274] = 6  # to be turned by 90 degrees clockwise
    (tmp_path / "img").mkdir()
    Image.fromarray(upright).save(tmp_path / "img/upright.png")
    Image.fromarray(np.rot90(upright).copy()).save(tmp_path / "img/turned.png", exif=content)
    assert predict(trained, tmp_path / "out", images=(str(tmp_path / "img"),)) == 0
    found = {name: read(tmp_path / f"out/{name}_segmentation.png") for name in ("upright", "turned")}
    assert found["upright"].shape == SIZES[0]
    assert found["upright"].any()
    assert np.array_equal(found["upright"], found["turned"])


def test_validation_writes_the_same_label_maps_and_the_patients(trained, tmp_path):
    (saved,) = trained.glob("exps/*/validation/*/predictions/last/original_size")
    assert predict(trained, tmp_path, images=["img/c4.png", "img/c5.png"]) == 0
    for name in ("c4", "c5"):
        expected, found = (read(folder / f"{name}_segmentation.png") for folder in (saved, tmp_path))
        np.testing.assert_array_equal(found, expected)
    assert read(saved.parent / "disc" / "c4.png").shape == (SIDE, SIDE)
    scores = read_scores(saved.parents[2] / "scores.csv").query("metric == 'dice' and case != ''")
    assert set(zip(scores["case"], scores["patient"], strict=True)) == {("c4", "p4"), ("c5", "p5")}


def test_an_image_is_prepared_as_by_the_command(trained):
    predictor = DensePredictor.from_checkpoint(trained / "checkpoint.pt", "ema", device="cpu")
    assert (predictor.task.spec.name, predictor.values) == ("MINE", VALUES)
    for n in range(len(SIZES)):
        image = predictor.read(trained / f"img/c{n}.png")
        framing = Framing.of(image, predictor.task.spec.grid, SIDE)
        (prepared,) = trained.glob(f"data/MINE/*/images/c{n}.png")
        expected = read(prepared).astype(np.float32) / np.float32(65_535)
        np.testing.assert_array_equal(predictor.network_input(image, framing)[0, 0].numpy(), expected)


@pytest.fixture
def messages(caplog):
    caplog.set_level(logging.INFO)
    return lambda: [r.getMessage() for r in caplog.records if r.name in ("models.predict", "util.items")]


def test_what_fails_is_named_and_the_rest_is_done(trained, tmp_path, messages, monkeypatch):
    folder = tmp_path / "new"
    for name in ("a.png", "broken.png", "odd.png"):
        write_png(folder / name, picture_of(0, label_of((30, 40))))
    (folder / "broken.png").write_bytes((folder / "a.png").read_bytes()[:200])
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(folder / "colour.jpg")
    predict_one = DensePredictor.predict

    def predict_all_but_odd(self, image):
        if image.shape == (7, 7):
            raise ZeroDivisionError("seven")
        return predict_one(self, image)

    write_png(folder / "odd.png", np.zeros((7, 7), np.uint16))
    monkeypatch.setattr(DensePredictor, "predict", predict_all_but_odd)
    assert predict(trained, tmp_path / "out", images=[folder]) == 1
    told = messages()
    assert f"2 of 4 images segmented, in {tmp_path / 'out'}" in told
    failed = [message for message in told if message.startswith("not segmented: ")]
    assert failed[0].startswith(f"not segmented: {folder / 'broken.png'}: cannot be read as an image")
    assert [each.partition(" (")[0] for each in failed[1:]] == [
        f"not segmented: {folder / 'odd.png'}: ZeroDivisionError: seven"
    ]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *("a_segmentation.png", "colour_segmentation.png"),
        *("areas.csv", "segmentations.html", "labels.txt", "labels.ctbl"),
    }
    assert read(tmp_path / "out/colour_segmentation.png").shape == (20, 30)  # grey is made of colours
    with pytest.raises(UserError, match=r"a_segmentation\.png: exists already .*--overwrite"):
        predict(trained, tmp_path / "out", images=[folder / "a.png"])
    assert predict(trained, tmp_path / "out", "--overwrite", images=[folder / "a.png"]) == 0


def test_options_of_the_other_kind_are_refused(trained, tmp_path):
    with pytest.raises(ConfigError, match=r"^--scans, --parts: not for .* dense \(segments images\).*expected --im"):
        predict(trained, tmp_path, "--parts", "3", "--scans", "x")
    with pytest.raises(ConfigError, match=r"^--images: missing; .* needs --images"):
        main([f"--checkpoint={trained / 'checkpoint.pt'}", f"--out={tmp_path}"])
    with pytest.raises(DataError, match=r"nowhere: no such file or folder"):
        predict(trained, tmp_path, images=["nowhere"])
    with pytest.raises(CheckpointError, match=r"method supervised is dense .*; expected one that is few-shot"):
        FewShotPredictor.from_checkpoint(trained / "checkpoint.pt")
    with pytest.raises(ConfigError, match="trained on MINE, not on jsrt"):
        predict(trained, tmp_path, "--dataset", "jsrt")
    assert not list(tmp_path.iterdir())


class Bright(Method):
    """Marks what is red, and what is bright in any colour."""

    Config = dict
    family = "dense"
    batch_type = None

    def forward(self, batch):
        return {}

    def probabilities(self, case, support=None):
        red, brightest = case.image[:, 0], case.image.amax(1)
        return torch.stack([(each + 1) / 2 for each in (red, brightest)][: len(case.classes)])


def bright(*structures, crop=(0.0, 1.0, 0.0, 1.0)):
    classes = (ClassSpec("red", value=7, crop=crop), ClassSpec("bright", value=9))
    spec = DatasetSpec("colours", "images", channels=3, classes=classes, grid=GridRule(size_px=16))
    return DensePredictor(Bright(), ImageTask(spec, structures))


def test_turned_colour_photographs_are_segmented_upright(tmp_path):
    image = np.zeros((16, 32, 3), np.uint8)
    image[:8, :8] = (255, 0, 0)
    exif = Image.Exif()
    exif[0x0112] = 6  # the first row is on the right
    Image.fromarray(image).save(tmp_path / "photo.png", exif=exif)
    predictor = bright("red")
    prediction = predictor.predict(predictor.read(tmp_path / "photo.png"))
    assert prediction.label_map.shape == (32, 16)
    assert prediction.label_map.dtype == np.uint8
    expected = np.zeros((32, 16), np.uint8)
    expected[:8, 8:] = 7
    assert (prediction.label_map != expected).mean() < 0.05


def test_a_structure_is_found_in_its_crop_alone():
    found = bright("red", crop=(0.5, 1.0, 0.0, 1.0)).predict(np.full((40, 20, 3), 200, np.uint8))
    assert not found.masks["red"][:20].any()
    assert found.masks["red"][20:].all()
    assert not found.probabilities["red"][:18].any()  # half a pixel of the network is 1.25 rows


def test_a_network_for_fields_of_view_sees_what_it_was_trained_on():
    """The square that is cut out is 20 px wide, in a picture of 40 x 80; masks come back to their place."""
    spec = DatasetSpec(
        "fundus", "images", channels=3, classes=(ClassSpec("red"),),
        grid=GridRule(size_px=16, aspect="pad", field="largest"),
    )  # fmt: skip
    predictor = DensePredictor(Bright(), ImageTask(spec, ("red",)))
    image = np.zeros((40, 80, 3), np.uint8)
    image[10:30, 50:70] = (60, 90, 60)
    image[20:30, 50:70] = (250, 90, 60)
    found = predictor.predict(image).masks["red"]
    assert found.shape == (40, 80)
    assert found[21:30, 51:69].all()
    assert found.sum() == pytest.approx(200, abs=60)
    assert not found[:18].any()
    with pytest.raises(DataError, match="no field of view"):
        predictor.predict(np.zeros((40, 80, 3), np.uint8))


def test_structures_that_overlap_have_a_file_each(tmp_path):
    image = np.zeros((16, 16, 3), np.uint8)
    image[:, :8], image[:8, 8:] = (150, 0, 200), (0, 255, 0)
    found = bright("red", "bright").predict(image)
    assert overlap(found.masks)
    assert found.label_map.tolist() == [[9] * 16] * 8 + [[9] * 8 + [0] * 8] * 8  # the more probable one
    write_pngs(segmentation_files(tmp_path, "a", found.masks, found.values))
    assert {path.name for path in tmp_path.iterdir()} == {"a_red_segmentation.png", "a_bright_segmentation.png"}
    np.testing.assert_array_equal(read(tmp_path / "a_red_segmentation.png") == 255, found.masks["red"])
    with pytest.raises(DataError, match=r"expected 3 channel\(s\) of 8 or 16 bits"):
        bright("red").predict(image[..., 0])


def test_results_of_an_earlier_run_do_not_stay_next_to_others(tmp_path):
    """Structures overlap in one of the two runs only; `a_red` is an image, too."""
    images, out = tmp_path / "in", tmp_path / "out"
    both, green = np.zeros((2, 16, 16, 3), np.uint8)
    both[:, :8], green[:, :8] = (255, 0, 0), (0, 255, 0)
    masks = {"a_red_segmentation.png", "a_bright_segmentation.png"}
    for shown, expected in ((both, masks), (green, {"a_segmentation.png"}), (both, masks)):
        write_png(images / "a.png", shown)
        segment_images(bright("red", "bright"), {"a": images / "a.png"}, out, None, False, {})
        assert {path.name for path in out.glob("*_segmentation.png")} == expected
    write_png(images / "a_red.png", green)
    write_png(images / "a.png", green)
    segment_images(bright("red", "bright"), name_images([images / "a_red.png", images / "a.png"]), out, None, False, {})
    assert {path.name for path in out.glob("*_segmentation.png")} == {"a_segmentation.png", "a_red_segmentation.png"}


@pytest.fixture
def full_disk(monkeypatch):
    """Pictures whose temporary name contains a word are written in part, then the disk is full; returns the setter."""
    save, words = Image.Image.save, []

    def save_in_part(self, path, *arguments, **options):
        if any(word in str(path) for word in words):
            Path(path).write_bytes(b"\x89PNG")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return save(self, path, *arguments, **options)

    monkeypatch.setattr(Image.Image, "save", save_in_part)
    return words.append


@pytest.mark.parametrize("what", ["c1_segmentation", "c1_box_probability"])
def test_on_a_full_disk_an_image_is_named_and_its_earlier_results_stay(trained, tmp_path, messages, full_disk, what):
    assert predict(trained, tmp_path, "--probabilities") == 0
    lines = (tmp_path / "areas.csv").read_text()
    (tmp_path / "c0_segmentation.png").write_bytes(b"to be replaced")
    earlier = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    messages()
    full_disk(what)
    assert predict(trained, tmp_path, "--probabilities", "--overwrite") == 1
    told = messages()
    assert f"{len(SIZES) - 1} of {len(SIZES)} images segmented, in {tmp_path}" in told
    (failed,) = (message for message in told if message.startswith("not segmented: "))
    assert f"{trained / 'img/c1.png'}: {tmp_path / what}.png: cannot be written (No space left on device)" in failed
    assert "Existing files are unchanged" in failed
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if "c1_" in path.name} == {
        name: content for name, content in earlier.items() if "c1_" in name
    }
    assert (tmp_path / "areas.csv").read_text() == lines
    assert set(earlier) == {path.name for path in tmp_path.iterdir()}
    assert (tmp_path / "c0_segmentation.png").read_bytes().startswith(b"\x89PNG")


def test_overwriting_removes_what_belongs_to_replaced_masks(trained, tmp_path, messages, monkeypatch):
    assert predict(trained, tmp_path, "--probabilities", "--overlays") == 0
    for name in ("c0_notes.png", "c9_overlay.png", "c0_lung_probability.png"):  # not of these images or structures
        (tmp_path / name).write_text("mine")
    before = {path.name for path in tmp_path.iterdir()}
    messages()
    assert predict(trained, tmp_path, "--overwrite", "--overlays", images=["img/c0.png"]) == 0
    gone = {f"c0_{name}_probability.png" for name in VALUES}
    assert {path.name for path in tmp_path.iterdir()} == before - gone
    assert [message for message in messages() if "removed" in message] == [
        "removed 2 files of an earlier run, such as overlays, whose masks this one has replaced "
        "(c0_disc_probability.png, c0_box_probability.png)"
    ]
    assert predict(trained, tmp_path, "--overwrite", "--probabilities", images=["img/c1.png"]) == 0
    assert {path.name for path in tmp_path.iterdir()} == before - gone - {"c1_overlay.png"}
    monkeypatch.setattr("models.prediction.images.save_image_overlays", None)  # cannot be drawn
    assert predict(trained, tmp_path, "--overwrite", "--overlays", images=["img/c2.png"]) == 1
    assert not (tmp_path / "c2_overlay.png").exists()
    assert (tmp_path / "c3_overlay.png").exists()


def test_dark_radiographs_are_told(tmp_path, caplog):
    write_png(tmp_path / "dark.png", np.full((20, 20), 4000, np.uint16))
    DensePredictor(Bright(), ImageTask(dataset("JSRT"))).read(tmp_path / "dark.png")
    assert "dark.png: values up to 4000 of 65535, which a network for JSRT sees as black" in caplog.text


def test_images_are_found_below_a_folder_except_results(tmp_path):
    for name in ("b/2.TIF", "b/1.jpg", "a.bmp", "a.txt", ".hidden/a.png", "a_segmentation.png", "x_overlay.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [path.relative_to(tmp_path).as_posix() for path in find_images(tmp_path)] == ["a.bmp", "b/1.jpg", "b/2.TIF"]
    assert find_images(tmp_path / "a_segmentation.png") == [tmp_path / "a_segmentation.png"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty: no image found; looked for .*\.png"):
        find_images(tmp_path / "empty")
    names = name_images([tmp_path / "b/1.jpg", tmp_path / "c/1.jpg"])
    assert list(names) == ["b_1", "c_1"]
