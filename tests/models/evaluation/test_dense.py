import csv
import math

import numpy as np
import pytest
import torch
from torch import tensor
from util.results.noise_scores import read_runs

from dataloaders.images.data import DenseConfig, open_dense
from dataloaders.images.folder import NoiseConfig, read_csv
from dataloaders.io.png import read_mask, write_png
from dataloaders.scans.normalise import Normalisation
from models.evaluation import Scored, ScoreOptions, evaluation_of
from models.evaluation.dense import DenseEvaluation, dice_of, iou_of, overlap_of_images
from models.methods.base import Method

NOISE = NoiseConfig(0.7, 0.7)
CPU = torch.device("cpu")


def masks(*pixels, size=8):
    """(1, N, size, size): the first so many pixels of each image."""
    return (torch.arange(size**2) < tensor(pixels)[:, None]).reshape(1, -1, size, size)


def test_overlap_by_hand():
    # 6 of 10 marked are right, 4 of 8 true ones are missed; nothing where nothing is; 5 marked where nothing is.
    prediction, truth = masks(6, 0, 5), masks(10, 0, 0)
    counts = overlap_of_images(prediction, truth)
    assert counts[:, :, 0].tolist() == [[6, 0, 0], [6, 0, 5], [10, 0, 0]]
    assert dice_of(counts)[:, 0].tolist() == pytest.approx([12 / 16, 1, 0], abs=1e-8)
    assert iou_of(counts)[:, 0].tolist() == pytest.approx([6 / 10, 1, 0], abs=1e-8)
    assert dice_of(counts.sum(1)).tolist() == pytest.approx([12 / 21])


def test_classes_do_not_mix():
    first, second = masks(6, 3), masks(2, 8)
    counts = overlap_of_images(torch.cat([first, second]), torch.cat([second, second]))
    assert counts.shape == (3, 2, 2)  # what, image, class
    assert dice_of(counts).flatten().tolist() == pytest.approx([4 / 8, 1, 6 / 11, 1])


def test_dice_equals_the_references(golden_file):
    golden = golden_file("noisy/sp_guided.npz")
    found = torch.from_numpy(golden["logits1"]).softmax(1)[:, 1] > 0.5
    counts = overlap_of_images(found[None], torch.from_numpy(golden["clean"]).bool()[None])
    np.testing.assert_allclose(dice_of(counts)[:, 0], golden["dice_per_image"], rtol=1e-6)
    assert dice_of(counts).mean().item() == pytest.approx(float(golden["dice_mean"]), rel=1e-6)
    assert dice_of(counts.sum(1)).item() == pytest.approx(float(golden["dice_global"]), rel=1e-6)
    empty = torch.zeros_like(found[None])
    assert dice_of(overlap_of_images(empty, empty))[0, 0] == pytest.approx(float(golden["dice_both_empty"]))
    false_alarm = dice_of(overlap_of_images(found[None], empty))[0, 0]
    assert false_alarm == pytest.approx(float(golden["dice_false_alarm"]), abs=1e-6)


class Knows(Method):
    """Marks what it was told of each image; training images go by their place."""

    Config = dict
    family = "dense"
    batch_type = None

    def __init__(self, answers):
        super().__init__()
        self.answers, self.batches = answers, []

    def forward(self, batch, player="main"):
        return {}

    def predict(self, case, support):
        assert support is None
        assert not self.training
        self.batches.append(case.ids)
        return torch.from_numpy(np.stack([self.answers[image_id] for image_id in case.ids], 1))


def truths(folder, structure="lesion"):
    """Experts' masks as answers, test images by their id and training images by their place."""
    names = {f"img_{n:02}": f"img_{n:02}" for n in range(12, 16)} | {str(n): f"img_{n:02}" for n in range(12)}
    return {key: read_mask(folder / f"masks/{structure}/{name}.png")[None] for key, name in names.items()}


def evaluation(folder, **config) -> DenseEvaluation:
    data = open_dense(DenseConfig(size_px=32, **config), str(folder))
    found = evaluation_of(data, CPU)
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
    each = each or {}
    found = evaluation(folder, **config).score(
        [Scored("T-Loss", Knows(answers), **each)], out, options or ScoreOptions()
    )
    with (out / "image_scores.csv").open() as stream:
        return found, list(csv.DictReader(stream)), read_runs(out / "summary.csv")


def test_shifted_squares_by_hand(squares, tmp_path):
    answers = truths(squares)
    answers["img_13"] = np.roll(answers["img_13"], 3, axis=2)  # half of it right
    answers["img_14"] = np.zeros_like(answers["img_14"])
    found, rows, runs = scored(squares, tmp_path, answers)
    assert [row["id"] for row in rows] == ["img_12", "img_13", "img_14", "img_15"]
    assert {(row["weights"], row["structure"]) for row in rows} == {("last", "lesion")}
    assert [float(row["dice"]) for row in rows] == pytest.approx([1, 0.5, 0, 1], abs=1e-8)
    assert [float(row["iou"]) for row in rows] == pytest.approx([1, 1 / 3, 0, 1], abs=1e-8)
    assert [row["hd95_px"] for row in rows] == ["0.0", "3.0", "", ""]  # no outline, no distance
    (run,) = runs
    assert run.dice == found.headline == pytest.approx(2.5 / 4)
    assert run.pooled_dice == pytest.approx(2 * 54 / (72 + 108))
    assert (run.hd95_px, run.n_undefined, run.n_images) == (1.5, 2, 4)


def test_files_of_a_scoring(squares, tmp_path):
    found, _, _ = scored(squares, tmp_path, truths(squares))
    saved = read_mask(tmp_path / "predictions/last/lesion/img_12.png")
    assert np.array_equal(saved, read_mask(squares / "masks/lesion/img_12.png"))
    assert found.title == "T-Loss on lesion of ISIC2017"
    assert list(found.pictures.values()) == [tmp_path / "overlays/last.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in found.pictures.values())
    assert ("test/dice/last", pytest.approx(1)) in found.logged


def test_what_is_not_asked_for_is_not_made(squares, tmp_path):
    _, rows, runs = scored(squares, tmp_path, truths(squares), options=ScoreOptions(False, False))
    assert not (tmp_path / "predictions").exists()
    assert {row["hd95_px"] for row in rows} == {""}
    assert math.isnan(runs[0].hd95_px)


def test_the_figure_of_the_papers_is_the_mean_of_the_last_ten_evaluations(squares, tmp_path):
    history = [
        {"step": 5.0 * n, "val/dice": n / 100, "val/iou": n / 200, "val/pooled_dice": n / 400} for n in range(1, 13)
    ]
    history.insert(8, {"step": 41.0})  # without figures
    each = {"history": history, "step": 60}
    found, _, (ten, last) = scored(squares, tmp_path, truths(squares), each, noise=NOISE)
    assert (ten.figure, last.figure) == ("last10", "last")
    assert ten.dice == pytest.approx(np.mean(range(3, 13)) / 100) == found.headline
    assert ten.iou == pytest.approx(ten.dice / 2)
    assert ten.pooled_dice == pytest.approx(ten.dice / 4)
    assert (ten.steps, last.steps, last.noise, last.alpha, last.beta) == (60, 60, "a0.7_b0.7", 0.7, 0.7)
    *_, runs = scored(squares, tmp_path / "ema", truths(squares), each | {"weights": "ema"}, noise=NOISE)
    assert [run.figure for run in runs] == ["ema"]  # the history is that of the last weights


def test_every_structure_is_scored_by_its_own_mask(chest_folder, tmp_path):
    names = ("lung", "clavicle")
    answers = {
        f"img_{n}": np.concatenate([truths(chest_folder, name)[f"img_{n}"] for name in names]) for n in range(12, 16)
    }
    for n in range(12, 16):
        answers[f"img_{n}"][1] = False
    _, rows, (run,) = scored(chest_folder, tmp_path, answers, dataset="JSRT", structures=names)
    assert [row["structure"] for row in rows] == [*names] * 4
    assert [float(row["dice"]) for row in rows] == pytest.approx([1, 0] * 4, abs=1e-8)
    assert run.structure == "lung+clavicle"
    assert run.dice == pytest.approx(0.5)
    assert run.n_undefined == 4
