"""Pictures of any size segmented into the classes of several tasks, from the checkpoint alone."""

import csv

import numpy as np
import pytest
import torch
from PIL import Image

import models
from data.phantom.simple import make_picture
from dataloaders.description import GridRule
from dataloaders.images.framing import Framing
from dataloaders.io.png import write_png
from dataloaders.samples import Task
from dataloaders.scans.normalise import Normalisation
from models.predict import main
from models.prediction.partial import PartialPredictor, separate
from models.training.average import AverageConfig
from models.training.optim import OptimConfig
from models.training.state import build_state
from tests.models.colours import TrainedColours
from tests.partial_sets import SIDE, open_sets, write_sets
from util.errors import CheckpointError, ConfigError, DataError, UserError
from util.runtime import checkpoint

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def colours(monkeypatch):
    monkeypatch.setitem(models.METHODS, "colours", TrainedColours)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Pictures in `img`, and a checkpoint of a network for images that are cut out by their field of view."""
    folder = tmp_path_factory.mktemp("partial")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(models.METHODS, "colours", TrainedColours)
        config = open_sets(write_sets(folder / "sets", 1, 0)).config
        facts = TrainedColours.derived(config.facts)
        settings = {"method": "colours", "size_px": None, "tasks": []} | facts | config.derived({})
        spec = config.joined.to_dict()
        spec["grid"] |= {"field": "largest", "aspect": "pad"}
        state = build_state(settings, 0, OptimConfig(), AverageConfig(), Normalisation(), CPU)
        content = state.snapshot() | {"dataset": spec}
        checkpoint.save(folder / "net.pth", content)
        checkpoint.save(folder / "bare.pth", content | {"settings": settings | {"mean": []}})
    for n in range(2):
        write_png(folder / f"img/eye{n}.png", picture(n)[0])
    return folder


def picture(seed):
    """A field of view of twice the size at the left of black surroundings, and the masks there."""
    made = make_picture(seed, SIDE)
    whole = np.zeros((2 * SIDE + 10, 4 * SIDE, 3), np.uint8)
    whole[5 : 5 + 2 * SIDE, 8 : 8 + 2 * SIDE] = made.image.repeat(2, 0).repeat(2, 1)
    placed = {name: np.zeros(whole.shape[:2], bool) for name in made.masks}
    for name, mask in made.masks.items():
        placed[name][5 : 5 + 2 * SIDE, 8 : 8 + 2 * SIDE] = mask.repeat(2, 0).repeat(2, 1)
    return whole, placed


def predict(folder, out, *further, images="img"):
    files = [f"--checkpoint={folder / 'net.pth'}", f"--out={out}", "--images", str(folder / images)]
    return main([*files, "--device=cpu", *further])


def read(path):
    with Image.open(path) as image:
        return np.asarray(image)


def test_every_task_has_a_label_map_of_the_size_of_the_picture(folder, tmp_path):
    assert predict(folder, tmp_path, "--overlays", "--probabilities") == 0
    for n in range(2):
        image, masks = picture(n)
        label = read(tmp_path / f"eye{n}_disc_cup_segmentation.png")
        assert label.shape == image.shape[:2]
        assert set(np.unique(label)) <= {0, 1, 2}
        assert not label[:, 8 + 2 * SIDE + 4 :].any()
        disc, found = masks["disc"], label > 0
        assert 2 * (disc & found).sum() / (disc.sum() + found.sum()) > 0.6
        probability = read(tmp_path / f"eye{n}_disc_probability.png")
        assert probability.dtype == np.uint16
        assert (probability[found] > 32_767).all()
        assert (tmp_path / f"eye{n}_overlay.png").read_bytes().startswith(b"\x89PNG")
    with (tmp_path / "areas.csv").open() as stream:
        records = [record for record in csv.DictReader(stream) if record["image"] == "eye0"]
    assert [(r["structure"], r["label"]) for r in records] == [
        ("line", "1"), ("bright", "1"), ("dark", "2"), ("disc", "1"), ("cup", "2"),
    ]  # fmt: skip
    cup = read(tmp_path / "eye0_disc_cup_segmentation.png") == 2
    assert int(records[4]["pixels"]) == cup.sum()


def test_a_picture_is_prepared_as_for_training(folder):
    predictor = PartialPredictor.from_checkpoint(folder / "net.pth", device="cpu")
    assert [task.name for task in predictor.tasks] == ["vessel", "lesion", "disc_cup"]
    image, _ = picture(0)
    seen = []
    inner = predictor.segmenter.method.probabilities
    spy = lambda case, support=None: seen.append(case.image) or inner(case, support)  # noqa: E731 - short
    predictor.segmenter.method.probabilities = spy
    predictor.predict(image)
    square = Framing.of(image, GridRule(SIDE, aspect="pad", field="largest"), SIDE).image_to_square(image)
    mean, sd = np.array([95.523, 57.776, 25.422]), np.array([58.273, 35.645, 16.790])
    expected = ((square.astype(float) - mean) / sd).transpose(2, 0, 1)
    np.testing.assert_allclose(seen[0][0].numpy(), expected, atol=1e-5)


def test_the_most_probable_of_exclusive_classes_keeps_a_pixel():
    tasks = (Task("t", ("a",)), Task("u", ("b", "c", "d"), "exclusive"), Task("v", ("e", "f")))
    tasks += (Task("w", ("g", "h"), "nested"),)
    columns = [[0.9, 0.6, 0.9, 0.6, 0.9, 0.8, 0.9, 0.8], [0.9, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6], [0.0] * 8]
    probabilities = np.array(columns, np.float32).T.reshape(8, 3, 1, 1)
    masks = probabilities > 0.5
    before = masks.copy()
    found = separate(tasks, probabilities, masks)[:, :, 0, 0]
    assert found[1:4].astype(int).tolist() == [[0, 1, 0], [1, 0, 0], [0, 0, 0]]  # of equally probable ones the first
    others = [0, 4, 5, 6, 7]
    np.testing.assert_array_equal(found[others], masks[others, :, 0, 0])
    np.testing.assert_array_equal(masks, before)


def test_exclusive_classes_have_a_label_map_even_where_both_are_probable(folder, tmp_path, monkeypatch):
    """Lesions of both kinds everywhere, dark ones more probable in the lower half."""

    def both(self, case, support=None):
        found = torch.zeros(5, 1, SIDE, SIDE)
        found[1], found[2, :, : SIDE // 2], found[2, :, SIDE // 2 :] = 0.7, 0.6, 0.8
        return found

    monkeypatch.setattr(TrainedColours, "probabilities", both)
    assert predict(folder, tmp_path) == 0
    assert not list(tmp_path.glob("*_lesion_bright_*"))
    label = read(tmp_path / "eye0_lesion_segmentation.png")[5 : 5 + 2 * SIDE, 8 : 8 + 2 * SIDE]
    assert (label[8 : SIDE - 8] == 1).all()
    assert (label[SIDE + 8 : -8] == 2).all()
    with (tmp_path / "areas.csv").open() as stream:
        pixels = {r["structure"]: int(r["pixels"]) for r in csv.DictReader(stream) if r["image"] == "eye0"}
    whole = read(tmp_path / "eye0_lesion_segmentation.png")
    assert [pixels["bright"], pixels["dark"]] == [(whole == 1).sum(), (whole == 2).sum()]


def test_a_picture_without_a_field_of_view_is_a_named_failure(folder, tmp_path, caplog):
    write_png(tmp_path / "img/dark.png", np.full((60, 60, 3), 5, np.uint8))
    write_png(tmp_path / "img/eye.png", picture(0)[0])
    assert predict(folder, tmp_path / "out", images=str(tmp_path / "img")) == 1
    (message,) = [each for each in caplog.messages if each.startswith("not segmented")]
    assert "dark.png" in message
    assert "no field of view: the brightest grey value is 5" in message
    assert (tmp_path / "out/eye_vessel_segmentation.png").exists()


def test_results_are_kept_unless_told_otherwise(folder, tmp_path):
    assert predict(folder, tmp_path, "--probabilities") == 0
    stale = tmp_path / "eye0_lesion_dark_segmentation.png"
    stale.write_bytes(b"of an earlier network")
    with pytest.raises(UserError, match=r"eye0_vessel_segmentation\.png: exists already \(7 such"):
        predict(folder, tmp_path)
    assert predict(folder, tmp_path, "--overwrite") == 0
    assert not stale.exists()
    assert not list(tmp_path.glob("*_probability.png"))


def test_what_does_not_fit_is_refused(folder, tmp_path):
    with pytest.raises(ConfigError, match=r"--scans: not for .* of several tasks \(segments images\).*expected --im"):
        main([f"--checkpoint={folder / 'net.pth'}", f"--out={tmp_path}", "--images", "x", "--scans", "y"])
    with pytest.raises(CheckpointError, match=r"bare\.pth: its settings hold no mean"):
        PartialPredictor.from_checkpoint(folder / "bare.pth", device="cpu")
    with pytest.raises(DataError, match=r"expected 3 channel\(s\) of 8 or 16 bits"):
        PartialPredictor.from_checkpoint(folder / "net.pth", device="cpu").predict(np.zeros((40, 40), np.uint8))
