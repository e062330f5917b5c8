"""Scores of several data sets in one call, and what is written of them."""

import csv
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from dataloaders.io.png import read_mask, write_png
from dataloaders.scans.normalise import Normalisation
from models.evaluation import Candidate, ScoreOptions, make_evaluation
from models.evaluation.partial import PartialEvaluation
from models.evaluation.partial_pictures import choose_images, draw_images
from models.evaluation.partial_scores import PooledClass, score_class
from tests.models.colours import Colours, ColoursConfig
from tests.partial_sets import BLOBS, DISCS, LINES, MIXED, SIDE, open_sets, write_set, write_sets
from util.errors import DataError, FailedItemsError
from util.results.confidence import paired
from util.results.metrics import METRICS
from util.results.scores import read_scores

CPU = torch.device("cpu")
EVERY = (LINES, BLOBS, DISCS, MIXED)


@pytest.fixture(autouse=True)
def pictures(monkeypatch):
    """Pictures take most of the time; one test is about them."""
    monkeypatch.setattr("models.evaluation.partial.draw_images", lambda path, *_: None)


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    return write_sets(tmp_path_factory.mktemp("sets"), n_train=2, n_test=3)


def evaluation(root, scored=EVERY, **settings) -> PartialEvaluation:
    data = open_sets(root, scored=[root / spec.prepared_folder(SIDE) for spec in scored], **settings)
    found = make_evaluation("partial", data, CPU)
    assert isinstance(found, PartialEvaluation)
    return found


def colours(found):
    return Colours(ColoursConfig(found.data.config.task_list))


def score(root, out, options=None, scored=EVERY, name="Colours", **settings):
    """The result and scores.csv."""
    found = evaluation(root, scored, **settings)
    result = found.score([Candidate(name, colours(found))], out, options or ScoreOptions())
    return result, read_scores(out / "scores.csv")


def damage(folder, image_id):
    (folder / "images" / f"{image_id}.png").write_bytes(b"no picture")


TRUTH = np.array([[True, True, False, False], [False, False, False, False]])
FOUND = np.array([[0.9, 0.4, 0.6, 0.1], [0.2, 0.2, 0.2, 0.95]])


def test_scores_by_hand_within_the_field_of_view():
    """Inside: one hit, one miss, one false alarm and four rejected; the bright pixel outside does not count."""
    inside = np.ones((2, 4), bool)
    inside[1, 3] = False
    found = score_class(FOUND, FOUND > 0.5, TRUTH, inside)
    expected = {"dice": 1 / 2, "iou": 1 / 3, "precision": 1 / 2, "recall": 1 / 2, "specificity": 4 / 5}
    expected |= {"accuracy": 5 / 7, "roc_auc": 9 / 10, "average_precision": (1 + 2 / 3) / 2}
    assert {name: found.values[name] for name in expected} == pytest.approx(expected)
    whole = score_class(FOUND, FOUND > 0.5, TRUTH, None).values
    assert whole["specificity"] == pytest.approx(4 / 6)
    assert whole["accuracy"] == pytest.approx(5 / 8)
    assert whole["average_precision"] == pytest.approx((1 / 2 + 2 / 4) / 2)
    assert found.values.keys() | PooledClass().values.keys() <= METRICS.keys()


def test_otsu_marks_what_half_does_not():
    faint = np.array([[0.30, 0.28, 0.02, 0.01], [0.02, 0.01, 0.01, 0.02]])
    found = score_class(faint, faint > 0.5, TRUTH, None).values
    assert (found["recall"], found["accuracy"]) == (0, 3 / 4)
    assert math.isnan(found["precision"])
    assert [found[f"otsu_{name}"] for name in ("sensitivity", "specificity", "precision", "accuracy")] == [1] * 4


def test_a_structure_that_is_not_there_has_no_areas():
    found = score_class(FOUND, FOUND > 0.5, np.zeros((2, 4), bool), None).values
    assert found["dice"] == 0
    assert math.isnan(found["roc_auc"])
    assert math.isnan(found["average_precision"])
    nothing = np.zeros((2, 4))
    assert math.isnan(score_class(nothing, nothing > 0.5, nothing > 0.5, None).values["dice"])


@pytest.mark.parametrize("kind", range(4))
def test_pooled_scores_equal_the_reference(golden_file, kind):
    golden = golden_file("partial/metrics.npz")
    pooled, sizes = PooledClass(), []
    for probability, label in zip(golden["lesion_prob"][:, kind], golden["lesion_gt"], strict=True):
        pooled.add(score_class(probability, probability > 0.5, label == kind + 1, None))
        sizes.append(len(pooled.ranking.score))
    values = pooled.values
    assert values["pooled_dice"] == pytest.approx(golden["lesion_dice"][kind], abs=1e-9)
    assert values["pooled_iou"] == pytest.approx(golden["lesion_iou"][kind], abs=1e-9)
    assert values["pooled_aupr_11"] == pytest.approx(golden["lesion_aupr_11"][kind], abs=1e-3)
    assert values["pooled_average_precision"] == pytest.approx(golden["lesion_ap_exact"][kind], abs=1e-3)
    assert max(sizes) <= 65_536


def test_every_set_is_scored_for_what_it_is_annotated_for(sets, tmp_path):
    result, scores = score(sets, tmp_path, ScoreOptions(seed=3, config_hash="f00d"))
    found = {name: set(part["structure"]) for name, part in scores.groupby("dataset")}
    assert found == {
        "LINES": {"line"}, "BLOBS": {"bright", "dark"}, "DISCS": {"disc", "cup"}, "MIXED": {"bright", "dark", "disc"},
    }  # fmt: skip
    assert result.n_cases == 12
    assert not result.failed
    dice = scores[(scores["metric"] == "dice") & (scores["dataset"] == "MIXED")]
    assert dice["case"].tolist() == [f"mixed{n}" for n in (2, 3, 4) for _ in range(3)]
    pairs = paired(scores)
    assert len(pairs) == (scores["metric"] == "dice").sum()
    assert pairs["confidence"].dropna().between(0, 1).all()
    assert pairs["confidence"].nunique() > 3
    assert dict(zip(dice["structure"], dice["task"], strict=True)) == {
        "bright": "lesion", "dark": "lesion", "disc": "disc_cup",
    }  # fmt: skip
    shared = scores[["split", "family", "learned", "missing", "fov", "seed", "weights", "config_hash"]]
    assert set(shared.itertuples(index=False, name=None)) == {
        ("test", "partial", "vessel+lesion+disc_cup", "", "", "3", "last", "f00d")
    }
    means = scores[scores["metric"] == "dice"].groupby(["dataset", "structure"])["value"].mean()
    assert result.headline == pytest.approx(means.mean())
    assert result.headline > 0.6
    assert dict(result.logged)["test/dice/last"] == result.headline
    assert dict(result.logged)["test/dice/last/MIXED/disc"] == pytest.approx(means["MIXED", "disc"])


def test_scores_of_all_pixels_together_are_not_means_of_images(sets, tmp_path):
    result, scores = score(sets, tmp_path, scored=[LINES])
    pooled = scores[scores["case"] == ""].set_index("metric")["value"]
    data = evaluation(sets, [LINES]).data
    (each,) = data.scored
    hit = predicted = true = 0
    method = colours(evaluation(sets, [LINES])).eval()
    for read in data.cases(each):
        image = read()
        mask = method.probabilities(image.case)[0].detach().numpy() > 0.5
        hit, predicted = hit + (mask & image.truth[0]).sum(), predicted + mask.sum()
        true += image.truth[0].sum()
    assert pooled["pooled_dice"] == pytest.approx(2 * hit / (predicted + true))
    by_metric = {table.metric: table for table in result.tables}
    line = by_metric["pooled_dice"].printed.iloc[0]
    assert line["line"] == f"{100 * pooled['pooled_dice']:.2f}"
    assert line["Cases"] == "all together"
    assert ", n = 3" in by_metric["dice"].printed.iloc[0]["line"]


def test_an_image_that_fails_and_a_set_that_fails_cost_only_themselves(tmp_path):
    root = write_sets(tmp_path / "sets", n_train=2, n_test=3)
    damage(root / LINES.prepared_folder(SIDE), "lines3")
    for n in (2, 3, 4):
        damage(root / BLOBS.prepared_folder(SIDE), f"blobs{n}")
    result, scores = score(root, tmp_path / "out")
    assert set(scores["dataset"]) == {"LINES", "DISCS", "MIXED"}
    lines = scores[(scores["dataset"] == "LINES") & (scores["metric"] == "dice")]
    assert lines["case"].tolist() == ["lines2", "lines4"]
    assert set(lines["n_failed"]) == {"1"}
    assert set(scores[scores["dataset"] == "DISCS"]["n_failed"]) == {""}
    assert list(result.failed) == ["LINES: lines3", "BLOBS: blobs2", "BLOBS: blobs3", "BLOBS: blobs4"]
    assert "lines3.png" in result.failed["LINES: lines3"]
    (failure,) = result.failed_sets
    assert failure.startswith("test set BLOBS: none of the 3 cases could be scored")
    with pytest.raises(FailedItemsError, match=r"none of the 3 cases.*(\n.*)*blobs2\.png"):
        score(root, tmp_path / "none", scored=[BLOBS])


def test_a_set_without_test_images_is_named(tmp_path):
    root = write_sets(tmp_path / "sets", n_train=2, n_test=0)
    with pytest.raises(DataError, match="none of LINES, BLOBS, DISCS has an image in split 'test'"):
        evaluation(root, ()).score([], tmp_path, ScoreOptions())
    with pytest.raises(FailedItemsError, match=r"test set MIXED: .*nothing in split 'test'"):
        score(root, tmp_path / "out", scored=[MIXED])


def test_images_that_are_trained_on_are_not_scored(tmp_path):
    root = write_sets(tmp_path / "sets", n_train=2, n_test=2)
    folder = root / MIXED.prepared_folder(SIDE)
    text = (folder / "manifest.csv").read_text().replace("mixed1,train", "mixed1,test")
    write_png(
        folder / "images/mixed1.png", np.asarray(Image.open(root / LINES.prepared_folder(SIDE) / "images/lines0.png"))
    )
    known = (root / LINES.prepared_folder(SIDE) / "manifest.csv").read_text().splitlines()[1].rpartition(",")[2]
    lines = [line.rpartition(",")[0] + "," + known if line.startswith("mixed1") else line for line in text.splitlines()]
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    with pytest.raises(DataError, match="MIXED: mixed1 is LINES: lines0"):
        score(root, tmp_path / "out", scored=[MIXED])
    _, scores = score(root, tmp_path / "out", scored=[MIXED], accept_shared_images=True)
    assert "mixed1" in set(scores["case"])


def test_pixels_outside_the_field_of_view_count_only_if_told(tmp_path):
    root = write_sets(tmp_path / "sets", n_train=1, n_test=1)
    field = np.zeros((SIDE, SIDE), bool)
    field[4:28, 4:28] = True
    write_png(root / LINES.prepared_folder(SIDE) / "fields/lines1.png", field)
    _, inside = score(root, tmp_path / "in", scored=[LINES])
    _, whole = score(root, tmp_path / "all", scored=[LINES], fov=False)
    values = [each[each["metric"] == "accuracy"]["value"].item() for each in (inside, whole)]
    assert values[0] != values[1]
    assert [set(each["fov"]) for each in (inside, whole)] == [{""}, {"all pixels"}]
    image = next(evaluation(root, [LINES]).data.cases(evaluation(root, [LINES]).data.scored[0]))()
    mask = colours(evaluation(root, [LINES])).eval().probabilities(image.case)[0].detach().numpy() > 0.5
    assert values[0] == pytest.approx((mask == image.truth[0])[:, 4:28, 4:28].mean())
    assert values[1] == pytest.approx((mask == image.truth[0]).mean())


def read(path):
    with Image.open(path) as image:
        return np.asarray(image)


def test_masks_of_all_tasks_are_written_at_the_size_of_the_picture(sets, tmp_path):
    score(sets, tmp_path, scored=[LINES])
    folder = tmp_path / "predictions/LINES"
    label = read(folder / "lines3_disc_cup_segmentation.png")
    assert label.shape == (2 * SIDE, 2 * SIDE)
    found = evaluation(sets, [LINES])
    image = next(r() for r in list(found.data.cases(found.data.scored[0]))[1:])
    probabilities = colours(found).eval().probabilities(image.case).detach()
    vessel, *_, disc, cup = F.interpolate(probabilities, scale_factor=2, mode="bilinear")[:, 0].numpy() > 0.5
    np.testing.assert_array_equal(label, np.where(cup, 2, disc))
    np.testing.assert_array_equal(read(folder / "lines3_vessel_segmentation.png"), vessel)


def test_a_picture_that_was_cut_out_gets_its_mask_back_at_its_place(tmp_path):
    """The left half of 40 x 80 px was the field of view; nothing is marked elsewhere."""
    root = write_sets(tmp_path / "sets", n_train=1, n_test=1)
    path = root / LINES.prepared_folder(SIDE) / "manifest.csv"
    with path.open() as stream:
        rows = list(csv.DictReader(stream))
    more = {"original_height_px": 40, "original_width_px": 80, "crop_top_px": 0, "crop_left_px": 0}
    more |= {"crop_height_px": 40, "crop_width_px": 40}
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0] | more))
        writer.writeheader()
        writer.writerows(row | more for row in rows)
    score(root, tmp_path / "out", scored=[LINES])
    label = read(tmp_path / "out/predictions/LINES/lines1_vessel_segmentation.png")
    assert label.shape == (40, 80)
    assert label[:, :40].any()
    assert not label[:, 40:].any()


def test_neither_pictures_nor_masks_cost_the_scores(sets, tmp_path, monkeypatch, caplog):
    def fails(*_):
        raise OverflowError("too large")

    monkeypatch.setattr("models.evaluation.partial.draw_images", fails)
    monkeypatch.setattr("models.evaluation.partial.save_masks", fails)
    result, scores = score(sets, tmp_path, scored=[LINES])
    assert len(scores[scores["metric"] == "dice"]) == 3
    assert result.pictures == {}
    assert len(result.failures) == 3
    assert "overlays of LINES: left out" in caplog.text
    caplog.clear()
    result, _ = score(sets, tmp_path / "less", ScoreOptions(save_predictions=False, pictures=False), scored=[LINES])
    assert not result.failures
    assert "overlays" not in caplog.text


def test_three_images_are_chosen():
    assert choose_images({"a": 0.5, "b": math.nan, "c": 0.1, "d": 0.9}) == {"c": "worst", "a": "median", "d": "best"}
    assert choose_images({"a": 0.5}) == {"a": "worst"}
    assert choose_images({"a": math.nan}) == {}


def test_pictures_show_the_worst_the_median_and_the_best(sets, tmp_path, monkeypatch):
    drawn = {}
    monkeypatch.setattr("models.evaluation.partial.draw_images", draw_images)
    monkeypatch.setattr(
        "models.evaluation.partial_pictures.save_image_overlays", lambda *a: drawn.update({a[0]: a[1:]})
    )
    result, scores = score(sets, tmp_path, scored=[MIXED])
    assert result.pictures == {"MIXED: worst, median and best test image": tmp_path / "overlays/MIXED.png"}
    cases, names, *_ = drawn[tmp_path / "overlays/MIXED.png"]
    dice = scores[scores["metric"] == "dice"].groupby("case")["value"].mean().sort_values()
    expected = zip(("worst", "median", "best"), dice.items(), strict=True)
    assert [case[0] for case in cases] == [f"{place}, {n}: Dice {100 * value:.1f}" for place, (n, value) in expected]
    _, image, truth, masks = cases[0]
    folder, image_id = sets / MIXED.prepared_folder(SIDE), dice.index[0]
    np.testing.assert_array_equal(image.transpose(1, 2, 0), read(folder / f"images/{image_id}.png"))
    assert names == ("line", "bright", "dark", "disc", "cup")
    np.testing.assert_array_equal(truth[3], read_mask(folder / f"masks/disc/{image_id}.png"))
    assert not truth[[0, 4]].any()  # not annotated
    assert masks[0].any()  # found all the same


def test_curves_are_of_development_images_alone(tmp_path):
    root = write_sets(tmp_path, n_train=2, n_test=2)
    found = evaluation(root)
    assert found.curve(colours(found).train(), Normalisation()) == {}
    path = root / DISCS.prepared_folder(SIDE) / "manifest.csv"
    path.write_text(path.read_text().replace("discs3,test", "discs3,validation"))
    found = evaluation(root)
    method = colours(found).train()
    values = found.curve(method, Normalisation())
    assert method.training
    assert values.keys() == {"val/dice", "val/dice/DISCS"}
    image = next(found.data.cases(found.data.trained[2], "validation"))()
    masks = method.eval().probabilities(image.case)[3:, 0].detach().numpy() > 0.5
    dice = [2 * (m & t).sum() / (m.sum() + t.sum()) for m, t in zip(masks, image.truth, strict=True)]
    assert values["val/dice"] == values["val/dice/DISCS"] == pytest.approx(np.mean(dice))
    (path.parent / "masks/cup/discs3.png").unlink()
    with pytest.raises(DataError, match="discs3"):
        found.curve(method, Normalisation())


def test_averaged_weights_are_a_method_of_their_own(sets, tmp_path):
    found = evaluation(sets, [LINES])
    both = [Candidate("Colours", colours(found), weights) for weights in ("last", "ema")]
    result = found.score(both, tmp_path, ScoreOptions())
    assert result.tables[0].printed["Method"].tolist() == ["Colours", "Colours EMA"]
    assert (tmp_path / "ema/predictions/LINES/lines2_vessel_segmentation.png").exists()
    assert len(result.pictures) == 2


def test_a_mask_of_another_size_is_a_failure_of_its_image(tmp_path):
    root = tmp_path / "sets"
    for spec in (LINES, BLOBS, DISCS):
        write_set(root, spec, 1, 2)
    path = root / LINES.prepared_folder(SIDE) / "masks/line/lines2.png"
    write_png(path, read_mask(path)[:16])
    result, _ = score(root, tmp_path / "out", scored=[LINES])
    assert list(result.failed) == ["LINES: lines2"]
