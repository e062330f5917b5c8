import math
import re

import numpy as np
import pytest
import torch

from dataloaders.images.config import DenseConfig
from dataloaders.images.data import open_dense
from dataloaders.images.folder import NoiseConfig
from dataloaders.io.png import read_mask, write_png
from dataloaders.scans.normalise import Normalisation
from models.evaluation import Candidate, ScoreOptions, make_evaluation
from models.evaluation.dense import DenseEvaluation
from models.methods.base import Method
from util.csv_files import read_csv
from util.errors import DataError, FailedItemsError
from util.results.scores import read_scores

NOISE = NoiseConfig(0.7, 0.7)
CPU = torch.device("cpu")


class Knows(Method):
    """Marks what it was told of each image; training images go by their place."""

    Config = dict
    family = "dense"
    batch_type = None

    def __init__(self, answers):
        super().__init__()
        self.answers, self.batches = answers, []

    def forward(self, batch):
        return {}

    def probabilities(self, case, support=None):
        assert support is None
        assert not self.training
        self.batches.append(case.ids)
        return torch.from_numpy(np.stack([self.answers[image_id] for image_id in case.ids], 1)).float()


def truths(folder, structure="lesion"):
    """Experts' masks as answers, test images by their id and training images by their place."""
    names = {f"img_{n:02}": f"img_{n:02}" for n in range(12, 16)} | {str(n): f"img_{n:02}" for n in range(12)}
    return {key: read_mask(folder / f"masks/{structure}/{name}.png")[None] for key, name in names.items()}


def evaluation(folder, **config) -> DenseEvaluation:
    data = open_dense(DenseConfig(size_px=32, **config), str(folder))
    found = make_evaluation("dense", data, CPU)
    assert isinstance(found, DenseEvaluation)
    return found


def curve(folder, answers, **config):
    method = Knows(answers).train()
    values = evaluation(folder, **config).curve(method, Normalisation())
    assert method.training
    return values, method


def test_agreement_with_given_masks_is_what_the_noise_has_left_of_them(image_folder):
    """Whoever knows the truth agrees with noisy masks as much as the truth does, for each type of noise."""
    values, _ = curve(image_folder, truths(image_folder), noise=NOISE)
    assert values["val/dice"] == values["val/iou"] == values["val/pooled_dice"] == pytest.approx(1)
    rows = read_csv(image_folder / "noisy/lesion/a0.7_b0.7/noise.csv", ("type", "dice_to_clean"))
    for kind in ("clean", "dilate", "erode", "affine"):
        dice = [float(row["dice_to_clean"]) for row in rows if row["type"] == kind]
        assert values[f"train_set/dice_to_given/{kind}"] == pytest.approx(np.mean(dice))
        assert values[f"train_set/dice_to_clean/{kind}"] == pytest.approx(1)
    assert values["train_set/dice_to_given/all"] == pytest.approx(np.mean([float(r["dice_to_clean"]) for r in rows]))


@pytest.mark.parametrize(("wanted", "looked_at"), [(3, ["0", "6", "11"]), (0, []), (100, [str(n) for n in range(12)])])
def test_training_images_looked_at_are_evenly_spaced(image_folder, wanted, looked_at):
    values, method = curve(image_folder, truths(image_folder), diagnosed_images=wanted, test_batch=2)
    ids = [image_id for batch in method.batches for image_id in batch]
    assert [image_id for image_id in ids if not image_id.startswith("img")] == looked_at
    assert max(map(len, method.batches)) == 2
    assert ("train_set/dice_to_clean/all" in values) == bool(wanted)


def test_labels_that_were_rewritten_are_not_the_given_ones(image_folder):
    found = evaluation(image_folder, noise=NOISE)
    method = Knows(truths(image_folder))
    before = found.curve(method, Normalisation())
    found.data.labels.replace(np.ascontiguousarray(found.data.labels.clean))
    assert found.curve(method, Normalisation()) == before


@pytest.fixture
def squares(make_image_folder, tmp_path):
    """A folder whose four test images show a square of 6 x 6 pixels, an empty mask the last."""
    folder = make_image_folder(tmp_path / "isic", noise=None, superpixel=None)
    for n in range(12, 16):
        square = np.zeros((32, 32), bool)
        square[10:16, 8:14] = n < 15
        write_png(folder / f"masks/lesion/img_{n}.png", square)
    return folder


def scored(folder, out, answers, each=None, options=None, **config):
    """The result, and scores.csv by weights and metric."""
    candidate = Candidate("T-Loss", Knows(answers), **(each or {}))
    found = evaluation(folder, **config).score([candidate], out, options or ScoreOptions())
    groups = read_scores(out / "scores.csv").groupby(["weights", "metric"], sort=False)
    return found, {key: rows.reset_index(drop=True) for key, rows in groups}


def test_shifted_squares_by_hand(squares, tmp_path):
    answers = truths(squares)
    answers["img_13"] = np.roll(answers["img_13"], 3, axis=2)  # half of it right
    answers["img_14"] = np.zeros_like(answers["img_14"])
    found, scores = scored(squares, tmp_path, answers)
    dice, iou, hd95 = (scores["last", name] for name in ("dice", "iou", "hd95_px"))
    assert dice["case"].tolist() == ["img_12", "img_13", "img_14", "img_15"]
    assert set(dice["structure"]) == {"lesion"}
    assert dice["value"].tolist() == pytest.approx([1, 0.5, 0, 1], abs=1e-8)
    assert iou["value"].tolist() == pytest.approx([1, 1 / 3, 0, 1], abs=1e-8)
    assert hd95["value"].tolist() == pytest.approx([0, 3, math.nan, math.nan], nan_ok=True)  # no outline, no distance
    (pooled,) = scores["last", "pooled_dice"].to_dict("records")
    assert (pooled["case"], pooled["n_cases"]) == ("", "4")
    assert pooled["value"] == pytest.approx(2 * 54 / (72 + 108))
    assert found.headline == pytest.approx(2.5 / 4)
    logged = dict(found.logged)
    assert logged["test/dice/last"] == found.headline
    assert logged["test/hd95_px/last"] == 1.5
    assert found.tables[0].printed.to_dict("records") == [{"Method": "T-Loss", "clean": "62.5 (1)"}]


def test_files_of_a_scoring(squares, tmp_path):
    found, _ = scored(squares, tmp_path, truths(squares))
    saved = read_mask(tmp_path / "predictions/last/lesion/img_12.png")
    assert np.array_equal(saved, read_mask(squares / "masks/lesion/img_12.png"))
    assert found.title == "T-Loss on lesion of ISIC2017"
    assert list(found.pictures.values()) == [tmp_path / "overlays/last.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in found.pictures.values())
    assert ("test/dice/last", pytest.approx(1)) in found.logged


def test_neither_pictures_nor_masks_cost_the_scores(squares, tmp_path, monkeypatch, caplog):
    def fails(path, *_):
        if "img_13" in str(path):
            raise OverflowError("too large")

    monkeypatch.setattr("models.evaluation.dense.save_image_overlays", lambda *_: fails("img_13"))
    monkeypatch.setattr("models.evaluation.dense.write_png", fails)
    found, scores = scored(squares, tmp_path, truths(squares))
    assert len(scores["last", "dice"]) == 4
    assert found.pictures == {}
    (failure,) = found.failures
    assert failure.startswith("masks of img_13: OverflowError: too large")
    assert "overlays of T-Loss, last weights: left out" in caplog.text


@pytest.mark.parametrize(
    ("damaged", "reason"),
    [
        (("images/img_13.png", b"no picture"), r"image img_13: .*images/img_13\.png: "),
        (("masks/lesion/img_13.png", None), r"image img_13: .*masks/lesion/img_13\.png: no such file"),
        (
            ("images/img_13.png", np.zeros((32, 16, 3), np.uint8)),
            r".*img_13\.png: .*\(32, 16, 3\).*expected .*\(32, 32, 3\)",
        ),
        (("images/img_13.png", np.zeros((32, 32, 3), np.uint16)), r".*img_13\.png: uint16 .*; expected uint8"),
    ],
)
def test_an_image_that_cannot_be_read_costs_only_its_own_scores(squares, tmp_path, damaged, reason):
    (name, content), answers = damaged, truths(squares)
    scored(squares, tmp_path, answers)  # all are packed
    (squares / name).unlink()
    if isinstance(content, bytes):
        (squares / name).write_bytes(content)
    elif content is not None:
        write_png(squares / name, content)
    found, scores = scored(squares, tmp_path, answers)
    assert scores["last", "dice"]["case"].tolist() == ["img_12", "img_14", "img_15"]
    assert scores["last", "dice"]["value"].tolist() == pytest.approx([1, 1, 1])
    assert set(scores["last", "dice"]["n_cases"]) == {"3"}
    assert (found.n_cases, list(found.failed)) == (4, ["img_13"])
    assert re.match(reason, found.failed["img_13"])
    assert found.tables[0].notes[-1] == "T-Loss: without 1 case(s) that could not be scored."
    assert len(found.pictures) == 1
    with pytest.raises(DataError, match="img_13"):  # during training
        evaluation(squares).curve(Knows(answers), Normalisation())


def test_of_a_batch_that_fails_only_the_image_at_fault_is_lost(squares, tmp_path):
    answers = truths(squares)
    del answers["img_14"]
    found, scores = scored(squares, tmp_path, answers)
    assert scores["last", "dice"]["case"].tolist() == ["img_12", "img_13", "img_15"]
    assert found.failed["img_14"].startswith("image img_14: KeyError: 'img_14'")
    for image_id in ("img_12", "img_13", "img_15"):
        del answers[image_id]
    with pytest.raises(FailedItemsError, match=r"none of the 4 cases could be scored.*\n.*img_12(.*\n)*.*img_15"):
        scored(squares, tmp_path / "none", answers, {"history": [{"step": 1.0, "val/dice": 1.0}]})
    assert not (tmp_path / "none/scores.csv").exists()


def test_what_is_not_asked_for_is_not_made(squares, tmp_path):
    found, scores = scored(squares, tmp_path, truths(squares), options=ScoreOptions(False, False, False))
    assert found.pictures == {}
    assert not (tmp_path / "predictions").exists()
    assert scores["last", "hd95_px"]["value"].isna().all()
    assert "test/hd95_px/last" not in dict(found.logged)


def test_the_published_figure_is_the_mean_of_the_last_ten_evaluations(squares, tmp_path):
    history = [
        {"step": 5.0 * n, "val/dice": n / 100, "val/iou": n / 200, "val/pooled_dice": n / 400} for n in range(1, 13)
    ]
    history.insert(8, {"step": 41.0})  # without scores
    each = {"history": history, "step": 60}
    found, scores = scored(
        squares, tmp_path, truths(squares), each, ScoreOptions(seed=3, config_hash="f00d"), noise=NOISE
    )
    assert list(dict.fromkeys(weights for weights, _ in scores)) == ["last10", "last"]
    (ten,) = scores["last10", "dice"].to_dict("records")
    assert ten["value"] == pytest.approx(np.mean(range(3, 13)) / 100) == found.headline
    assert (ten["case"], ten["structure"]) == ("", "lesion")
    assert scores["last10", "iou"]["value"].tolist() == pytest.approx([ten["value"] / 2])
    assert scores["last10", "pooled_dice"]["value"].tolist() == pytest.approx([ten["value"] / 4])
    for rows in scores.values():
        conditions = ["split", "steps", "noise", "alpha", "beta", "noise_options", "seed", "config_hash", "n_cases"]
        assert set(rows[conditions].itertuples(index=False, name=None)) == {
            ("test", "60", "a0.7_b0.7", "0.7", "0.7", "", "3", "f00d", "4")
        }
    _, scores = scored(squares, tmp_path / "ema", truths(squares), each | {"weights": "ema"}, noise=NOISE)
    assert {weights for weights, _ in scores} == {"ema"}  # the history is that of the last weights


def test_every_structure_is_scored_by_its_own_mask(chest_folder, tmp_path):
    names = ("lung", "clavicle")
    answers = {
        f"img_{n}": np.concatenate([truths(chest_folder, name)[f"img_{n}"] for name in names]) for n in range(12, 16)
    }
    for n in range(12, 16):
        answers[f"img_{n}"][1] = False
    found, scores = scored(chest_folder, tmp_path, answers, dataset="JSRT", structures=names)
    dice = scores["last", "dice"]
    assert dice["structure"].tolist() == [*names] * 4
    assert dice["value"].tolist() == pytest.approx([1, 0] * 4, abs=1e-8)
    assert set(dice["task"]) == {"lung+clavicle"}
    assert found.headline == pytest.approx(0.5)
    assert scores["last", "hd95_px"]["value"].isna().sum() == 4
    assert found.tables[0].printed["clean"].tolist() == ["50.0 (1)"]
