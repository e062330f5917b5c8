"""From trainings on images with noisy masks to the papers' tables, and to the superpixels of a second pass."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import training  # noqa: F401 - registers its command
import validation  # noqa: F401
from config_ssl_upload import InputError, ex
from data.superpixels.__main__ import main
from dataloaders.catalog import dataset
from dataloaders.description import write_description
from dataloaders.images.labels import normalise
from dataloaders.io.png import read_image, read_mask
from models import build_method
from models.presets.published import TEST_IMAGES
from util.results.scores import read_scores
from util.runtime import checkpoint

SMALL = {
    "size_px": 32,
    "n_steps": 12,
    "round_steps": 2,
    "eval_every": 1,
    "diagnosed_images": 12,
    "batch_size": 4,
    "checkpoint_every": 6,
    "num_workers": 0,
    "device": "cpu",
    "optim": {"lr": 0.01},
    "unet": {"base_features": 4, "max_features": 8, "halvings": [2, 2]},
    "noise": {"alpha": 0.7, "beta": 0.7},
    "superpixel": {"n_segments": 24},
}
TEST = [f"img_{n}" for n in range(12, 16)]


def run(command, words, folder, logs, **changes) -> Any:
    paths = {"path": {"data_dir": str(folder), "log_dir": str(logs)}}
    return ex.run(command, named_configs=words, config_updates=SMALL | paths | changes).result


def rows_of(path):
    with path.open() as stream:
        return list(csv.DictReader(stream))


def scores_of(path):
    """(weights, metric) -> rows of a scores.csv."""
    return dict(iter(read_scores(path).groupby(["weights", "metric"], sort=False)))


def only(paths):
    (path,) = paths
    return path


@pytest.fixture(scope="module")
def logs(image_folder, tmp_path_factory):
    """Trainings of T-Loss with two seeds, of the upper bound and of superpixel-guided learning, all validated."""
    logs = tmp_path_factory.mktemp("logs")
    for word, seed in (("tloss", 1), ("tloss", 2), ("upper", 1), ("spguided", 1)):
        more = {"refine": {"patience": 1}} if word == "spguided" else {}
        for command in ("train", "validate"):
            run(command, ["isic2017", word], image_folder, logs, seed=seed, **more)
    return logs


@pytest.fixture(scope="module")
def out(logs):
    """The folder of one validation."""
    return only(logs.glob("T-Loss_*_seed1_*/validation/1"))


def test_a_validation_leaves_scores_table_pictures_and_masks(out, image_folder):
    scores = scores_of(out / "scores.csv")
    assert {weights: scores[weights, "dice"]["case"].tolist() for weights in ("last10", "last", "ema")} == {
        **{"last10": [""], "last": TEST, "ema": TEST},
    }
    for weights in ("last", "ema"):
        iou, dice = (scores[weights, name]["value"].to_numpy() for name in ("iou", "dice"))
        assert ((iou >= 0) & (iou <= dice) & (dice <= 1)).all()
        assert scores[weights, "confidence"]["case"].tolist() == TEST
        assert scores[weights, "confidence"]["value"].dropna().between(0, 1).all()
    assert (out / "table.md").read_text().count("| T-Loss |") == 3  # last10, last, ema
    for name in ("overlays/last.png", "overlays/ema.png", "memorisation.png", "curves.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG"), name
    report = (out / "report.html").read_text()
    assert report.count("data:image/webp;base64") == 4
    assert "T-Loss on lesion of ISIC2017" in report
    assert {"test/dice/last10", "test/dice/last", "test/iou/ema"} <= set(json.loads((out / "metrics.json").read_text()))
    for weights in ("last", "ema"):
        for image_id, dice in scores[weights, "dice"][["case", "value"]].itertuples(index=False):
            found = read_mask(out / "predictions" / weights / "lesion" / f"{image_id}.png")
            truth = read_mask(image_folder / "masks/lesion" / f"{image_id}.png")
            assert dice == pytest.approx(2 * (found & truth).sum() / (found.sum() + truth.sum()))


def test_the_last_ten_evaluations_the_last_and_the_averaged_weights_have_a_line_each(out):
    scores = scores_of(out / "scores.csv")
    dice = {weights: scores[weights, "dice"]["value"].mean() for weights in ("last10", "last", "ema")}
    history = checkpoint.load(out.parents[1] / "checkpoint.pt")["history"]
    assert len(history) == 12
    assert dice["last10"] == pytest.approx(np.mean([values["val/dice"] for values in history[-10:]]))
    assert dice["last"] == pytest.approx(history[-1]["val/dice"])
    assert dice["ema"] != dice["last"]
    shared = read_scores(out / "scores.csv")[["family", "noise", "seed", "n_cases", "steps"]]
    assert set(shared.itertuples(index=False, name=None)) == {("dense", "a0.7_b0.7", "1", "4", "12")}


def table_lines(text):
    """Heading -> cell, of every line of a text's first table."""
    table = [line.strip("| ").split(" | ") for line in text.partition("\n\n")[0].splitlines()]
    return {line[0]: dict(zip(table[0][1:], line[1:], strict=True)) for line in table[2:]}


def test_collect_sets_methods_against_noise(logs, image_folder, monkeypatch):
    text = Path(run("collect", ["isic2017", "tloss"], image_folder, logs)).read_text()
    assert "published" not in text.lower()  # four images are not the papers' test set
    monkeypatch.setitem(TEST_IMAGES, "ISIC2017", 4)
    text = Path(run("collect", ["isic2017", "tloss"], image_folder, logs)).read_text()
    lines = table_lines(text)
    assert "mean of the last ten evaluations. Dice × 100" in text.partition("\n- ")[2].partition("\n")[0]
    assert list(lines) == ["Superpixel-guided", "T-Loss", "T-Loss, published", "Upper bound"]
    files = logs.glob("T-Loss*/validation/1/scores.csv")
    seeds = [100 * scores_of(path)["last10", "dice"]["value"].item() for path in files]
    assert lines["T-Loss"] == {"clean": "–", "0.7, 0.7": f"{np.mean(seeds):.1f} ± {np.std(seeds, ddof=1):.1f} (2)"}
    assert lines["T-Loss, published"] == {"clean": "82.5 (0.5)", "0.7, 0.7": "76.1 (0.6)"}
    assert lines["Upper bound"]["0.7, 0.7"] == "–"
    assert lines["Upper bound"]["clean"].endswith("(1)")
    assert len(rows_of(logs / "runs.csv")) == 4 * 3
    assert {row["n_runs"] for row in rows_of(logs / "table_dense_dice.csv")} == {"1", "2"}


def test_two_trainings_that_call_themselves_the_same_are_refused(logs, image_folder, tmp_path):
    root = shutil.copytree(logs, tmp_path / "logs", ignore=shutil.ignore_patterns("Super*", "Upper*"))
    for command in ("train", "validate"):
        run(command, ["isic2017", "tloss"], image_folder, root, seed=1, n_steps=2)
    with pytest.raises(
        InputError, match=r"both have scores of method T-Loss.*task lesion.*alpha 0\.7.*seed 1,.*exp_prefix"
    ):
        run("collect", ["isic2017", "tloss"], image_folder, root)
    short = max(root.glob("T-Loss*seed1*"), key=lambda path: path.stat().st_mtime_ns)
    shutil.rmtree(short / "validation")
    for command in ("train", "validate"):
        run(command, ["isic2017", "tloss"], image_folder, root, seed=1, n_steps=2, exp_prefix="short")
    assert "| T-Loss (short) |" in Path(run("collect", ["isic2017", "tloss"], image_folder, root)).read_text()


def test_scans_and_images_under_one_folder_are_both_gathered(out, prepared_folder, tmp_path):
    shutil.copytree(out.parents[1], tmp_path / out.parents[1].name)
    paths = {"path": {"data_dir": str(prepared_folder), "log_dir": str(tmp_path)}}
    quick = {"surface_scores": False, "save_predictions": False, "protocol": "blind"}
    ex.run("validate", named_configs=["threshold", "chaost2"], config_updates=paths | quick)
    done = ex.run("collect", named_configs=["chaost2"], config_updates=paths)
    text = Path(str(done.result)).read_text()
    assert "| CHAOST2 | 1 | blind |" in text
    assert "| T-Loss |" in text


def test_untrained_weights_and_a_named_checkpoint_can_be_scored(logs, image_folder, tmp_path):
    path = only(logs.glob("Superpixel*/checkpoint.pt"))
    more = {"surface_scores": False, "save_predictions": False}
    dice = run("validate", ["isic2017", "spguided"], image_folder, tmp_path, reload_model_path="none", **more)
    assert 0 <= dice <= 1
    untrained = read_scores(only(tmp_path.rglob("scores.csv")))
    assert set(zip(untrained["method"], untrained["weights"], strict=True)) == {
        ("Superpixel-guided untrained", "untrained")
    }
    named = {"reload_model_path": str(path), "weights": "last", "seed": 5}
    run("validate", ["isic2017", "spguided"], image_folder, tmp_path / "named", **named, **more)
    found = scores_of(only((tmp_path / "named").rglob("scores.csv")))
    known = scores_of(only(path.parent.glob("validation/1/scores.csv")))
    assert {weights for weights, _ in found} == {"last10", "last"}
    for weights in ("last10", "last"):
        assert found[weights, "dice"]["value"].tolist() == known[weights, "dice"]["value"].tolist()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 99}, r"has not been trained.*reload_model_path=none"),
        ({"reload_model_path": "/nowhere.pt"}, "no such checkpoint"),
        ({"size_px": 64, "reload_model_path": "none"}, r"expected \(64, 64, 3\)"),
        ({"test_batch": 0}, "test_batch from 1"),
    ],
)
def test_bad_input_stops_with_one_clear_message(logs, image_folder, changes, message):
    with pytest.raises(InputError, match=message):
        run("validate", ["isic2017", "tloss"], image_folder, logs, **changes)


def test_probabilities_feed_the_superpixels_of_a_second_pass(chest_folder, tmp_path):
    folder = shutil.copytree(chest_folder, tmp_path / "jsrt")
    small = {"unet": {"base_features": 4, "max_features": 8}, "n_steps": 4, "eval_every": 0}
    words = ["jsrt_clavicle", "baseline"]
    path = Path(run("train", words, folder, tmp_path, **small))
    written = Path(run("probabilities", words, folder, tmp_path, **small))
    assert written == path.parent / "probabilities"
    assert sorted(file.stem for file in written.glob("*.png")) == [f"img_{n:02}" for n in range(12)]

    with Image.open(written / "img_03.png") as file:
        found = np.asarray(file)
    rows, columns = slice(0, 12), slice(3, 31)  # the clavicle's part of the image
    content = checkpoint.load(path)
    method = build_method(content["settings"]).eval()
    method.load_state_dict(content["method"])
    seen = torch.from_numpy(read_image(chest_folder / "images/img_03.png")[None, rows, columns, None].copy())
    with torch.no_grad():
        expected = (method.network(normalise(seen)) / 5).softmax(1)[0, 1]  # type: ignore[operator]
    assert found.dtype == np.uint16
    np.testing.assert_allclose(found[rows, columns] / 65535, expected, atol=1e-4)
    assert not np.delete(found, np.arange(3, 31), axis=1).any()
    assert not found[12:].any()

    second = ["--structure", "clavicle", "--source", "gray+prob", "--n-segments", "20", "--data-dir", str(folder)]
    main(["JSRT", *second, "--probabilities", str(written)])
    superpixel = {"superpixel": {"source": "gray+prob", "n_segments": 20}}
    assert only(folder.glob("superpixels/gray+prob_20_*_clavicle/superpixels.json"))
    assert Path(run("train", ["jsrt_clavicle", "spguided"], folder, tmp_path, **small | superpixel)).exists()


@pytest.mark.parametrize(("predict_with", "n_networks"), [("first", 1), ("mean", 2)])
def test_probabilities_are_of_the_networks_that_predict(logs, image_folder, tmp_path, predict_with, n_networks):
    path = only(logs.glob("Superpixel*/checkpoint.pt"))
    named = {"reload_model_path": str(path), "predict_with": predict_with}
    written = Path(run("probabilities", ["isic2017", "spguided"], image_folder, tmp_path, **named))
    content = checkpoint.load(path)
    method = build_method(content["settings"]).eval()
    method.load_state_dict(content["method"])
    seen = normalise(torch.from_numpy(read_image(image_folder / "images/img_05.png")[None].copy()))
    with torch.no_grad():
        each = [(net(seen) / 5).softmax(1)[0, 1] for net in list(method.networks)[:n_networks]]  # type: ignore[arg-type]
    with Image.open(written / "img_05.png") as file:
        np.testing.assert_allclose(np.asarray(file) / 65535, sum(each) / n_networks, atol=1e-4)


@pytest.mark.parametrize(
    ("words", "changes"),
    [(["jsrt_lung", "baseline"], {"structures": ["lung", "heart"]}), (["chaost2", "alpnet", "small"], None)],
)
def test_probabilities_are_for_one_structure_of_images(chest_folder, prepared_folder, tmp_path, words, changes):
    folder = prepared_folder if changes is None else chest_folder
    paths = {"path": {"data_dir": str(folder), "log_dir": str(tmp_path)}}
    given = {"reload_model_path": "none"} | paths | ({} if changes is None else SMALL | changes)
    with pytest.raises(InputError, match="probabilities: for one structure of a set of images"):
        ex.run("probabilities", named_configs=words, config_updates=given)


def test_further_data_sets_are_scored_with_the_same_network(image_folder, tmp_path):
    root, logs = tmp_path / "data", tmp_path / "logs"
    other = root / "OTHER/prepared_32px"
    for folder in (root / "ISIC2017/prepared_32px", other):
        shutil.copytree(image_folder, folder)
    write_description(other, replace(dataset("isic2017"), name="OTHER"))
    header, *lines = (other / "manifest.csv").read_text().splitlines()
    places = [f"{line},{'AB'[n % 2]}" for n, line in enumerate(lines)]
    (other / "manifest.csv").write_text("\n".join([f"{header},domain", *places]) + "\n")
    words, changes = ["isic2017", "tloss"], {"reload_model_path": "none", "surface_scores": False}
    run("validate", words, root, logs, test_sets=[str(other)], **changes)
    out = only(logs.glob("*/validation/1"))
    own, further = (read_scores(out / folder / "scores.csv") for folder in (".", "OTHER"))
    np.testing.assert_array_equal(own["value"], further["value"])
    assert set(further["dataset"]) == {"OTHER"}
    assert sorted(path.stem for path in out.glob("OTHER/predictions/*/lesion/*.png")) == TEST
    table = (out / "table.md").read_text()
    assert "lesion of OTHER" in table
    assert "| A | B |" in table.replace("   ", " ")
    assert "OTHER" in (out / "report.html").read_text()
    run("validate", words, root, logs, test_sets=[str(other)], **changes)
    run("collect", words, root, logs)
    assert (logs / "table.md").read_text().count("lesion of OTHER") == 2  # all images, and by domain
    assert (logs / "table_dense_dice_by_domain.csv").exists()
    with pytest.raises(InputError, match="test_sets: ISIC2017 is given twice, or is the run's own"):
        run("validate", words, root, logs, test_sets=["isic2017"], **changes)
