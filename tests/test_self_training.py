"""Self-training with the commands that a user types: label maps, training, a second round, scores, prediction."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import training  # noqa: F401 - registers its command
import validation  # noqa: F401
from config_ssl_upload import InputError, ex
from data.prepare.class_index import write_class_index
from dataloaders.catalog import dataset
from dataloaders.io.nifti import read_nifti
from dataloaders.scans.preprocess import PrepareParameters
from models import predict
from models.export.__main__ import main as export
from tests.example_scripts import commands, keys
from util.files import write_json
from util.results.scores import read_scores
from util.runtime import checkpoint

CHAOST2 = dataset("CHAOST2")
SMALL = {"device": "cpu", "num_workers": 0, "label_sets": "all", "check_data": True}
TRAINED = SMALL | {
    "n_steps": 130,
    "batch_size": 8,
    "checkpoint_every": 130,
    "print_interval": 50,
    "ramp_up_steps": 5,
    "views": {"structures": 0.0, "contrast": 0.0, "gain": 0.05, "offset": 0.05},  # brightness tells these boxes apart
    "decoder_channels": [32, 16, 16, 8, 8],
    "encoder_lr_factor": 1.0,
    "optim": {"lr": 1e-2, "warmup_steps": 0},
}


def run(command, folder, logs, method, **changes):
    updates = {"dataset": "CHAOST2", "path": {"data_dir": str(folder), "log_dir": str(logs)}} | changes
    result: Any = ex.run(command, named_configs=[method], config_updates=updates).result
    return result


@pytest.fixture(scope="module")
def finished(prepared_folder, tmp_path_factory):
    """A training with its label maps, those of a second round, the checkpoint, and the mean Dice of both methods."""
    logs, scores = tmp_path_factory.mktemp("logs"), {}
    quick = {"surface_scores": False, "save_predictions": False, "protocol": "blind", "pictures": False}
    first = run("export", prepared_folder, logs, "propagation", **SMALL)
    scores["propagation"] = run("validate", prepared_folder, logs, "propagation", **SMALL, **quick)
    given = TRAINED | {"pseudo_labels": first}
    path = run("train", prepared_folder, logs, "self_training", **given)
    scores["network"] = run("validate", prepared_folder, logs, "self_training", **given, **quick)
    second = run("export", prepared_folder, logs, "self_training", **given)
    return (first, second), path, scores


def test_label_maps_are_of_the_training_scans_and_say_what_is_unknown(finished, prepared_folder):
    folders, *_ = finished
    for folder in map(Path, folders):
        record = json.loads((folder / "propagated.json").read_text())
        assert record["classes"] == [1, 2, 3, 4]
        for scan in record["images"]:
            label = read_nifti(folder / f"label_{scan}.nii.gz")
            image = read_nifti(prepared_folder / f"image_{scan}.nii.gz")
            assert label.array.shape == image.array.shape
            np.testing.assert_allclose(label.affine, image.affine)
            assert set(np.unique(label.array)) <= {0, 1, 2, 3, 4, 255}
            assert 0 < (label.array == 255).mean() < 0.5
        assert set(record["images"]).isdisjoint(record["made"]["support"])


def test_the_network_finds_what_propagation_finds(finished):
    *_, scores = finished
    assert scores["propagation"] > 0.8
    assert scores["network"] > 0.7


def test_without_pictures_there_are_scores_and_no_page(finished):
    _, path, _ = finished
    trained = {each.name for each in Path(path).parent.iterdir()}
    (validation_folder,) = Path(path).parent.glob("validation/1")
    scored = {each.name for each in validation_folder.iterdir()}
    assert {"progress.png", "report.html"} <= trained
    assert "scores.csv" in scored
    assert {"overlays", "views", "report.html", "curves.png"}.isdisjoint(scored)


def test_annotated_scans_are_among_the_trained_ones(finished, prepared_folder):
    _, path, _ = finished
    content = checkpoint.load(Path(path))
    assert content["settings"]["n_classes"] == 5
    table = read_scores(next(Path(path).parent.glob("validation/*/scores.csv")))
    tested = set(table["case"]) - {""}
    contents = json.loads((Path(path).parent / "training_data.json").read_text())
    assert any(name.startswith("propagated/label_") for name in contents)
    trained = json.loads((Path(path).parent / "training_cases.json").read_text())["cases"]
    assert "8" in trained  # the support of fold 0
    assert tested.isdisjoint(trained)


def test_scans_are_segmented_without_annotated_ones(finished, prepared_folder, tmp_path):
    _, path, _ = finished
    content = checkpoint.load(Path(path))
    grid = PrepareParameters("LAS", None, None, 0.0, (7.7, 1.25, 1.25), 64, "clean")  # the folder does not tell it
    own = tmp_path / "own.pt"
    checkpoint.save(own, content | {"preparation": grid.to_json()})
    image, out = prepared_folder / "image_1.nii.gz", tmp_path / "results"
    assert predict.main(["--checkpoint", str(own), "--scans", str(image), "--out", str(out), "--device", "cpu"]) == 0
    found = read_nifti(next(out.glob("*_segmentation.nii.gz"))).array
    truth = read_nifti(prepared_folder / "label_1.nii.gz").array
    dice = []
    for value in CHAOST2.evaluated:
        one, other = found == CHAOST2.supplied_value(value), truth == value
        dice.append(2 * (one & other).sum() / (one.sum() + other.sum()))
    assert np.mean(dice) > 0.5


def test_an_export_tells_its_input_and_predicts_the_same_classes(finished, tmp_path):
    _, path, _ = finished
    export([path, "--out", str(tmp_path / "model")])
    card = (tmp_path / "model" / "MODEL_CARD.md").read_text()
    assert "the network sees 3 channel(s)" in card
    assert "each slice between its two neighbours" in card
    one, other = (predict.SelfTrainedPredictor.from_checkpoint(each) for each in (Path(path), tmp_path / "model"))
    assert one.structures == other.structures
    assert set(one.structures) == {CHAOST2.class_names[value] for value in CHAOST2.evaluated}


def test_an_annotated_scan_is_not_asked_for(finished, prepared_folder, tmp_path):
    _, path, _ = finished
    image = str(prepared_folder / "image_1.nii.gz")
    given = ["--checkpoint", path, "--scans", image, "--out", str(tmp_path), "--support-image", image]
    with pytest.raises(Exception, match=r"--support-image: not for .*self-trained"):
        predict.main(given)


def test_label_maps_of_methods_that_compare_slices_are_refused(prepared_folder, tmp_path):
    with pytest.raises(InputError, match="expected a method that takes whole scans"):
        run("export", prepared_folder, tmp_path, "threshold", **SMALL)
    with pytest.raises(InputError, match="expected min_confidence only"):
        run("export", prepared_folder, tmp_path, "propagation", **SMALL, pseudo_label={"thresholds": [0.3]})


def test_a_second_round_learns_from_label_maps_of_the_network(finished, prepared_folder, tmp_path):
    (first, second), path, _ = finished
    given = TRAINED | {"n_steps": 2, "pictures": False}
    other = run("train", prepared_folder, tmp_path, "self_training", **given, pseudo_labels=second)
    written = {each.name for each in Path(other).parent.iterdir()}
    assert {"progress.png", "report.html"}.isdisjoint(written)
    settings = checkpoint.load(Path(other))["settings"]
    assert settings["pseudo_labels"] == Path(path).parent.name  # known by the run that made them
    assert checkpoint.load(Path(path))["settings"]["pseudo_labels"] == Path(first).parent.name


def test_training_without_label_maps_is_refused(prepared_folder, tmp_path):
    with pytest.raises(InputError, match="pseudo_labels: none given"):
        run("train", prepared_folder, tmp_path, "self_training", **TRAINED)


def test_a_single_labelled_scan_is_enough(make_prepared, tmp_path):
    """Of one's own data; nothing can be scored then."""
    folder = make_prepared(tmp_path / "own", ["1", "2", "3"])
    description = tmp_path / "own.json5"
    classes = [{"name": name} for name in ("first", "second", "third", "fourth")]
    write_json(description, {"name": "own", "kind": "scans", "classes": classes, "grid": {"size_px": 64}})
    for scan in ("2", "3"):
        (folder / f"label_{scan}.nii.gz").unlink()
    (folder / "manifest.json").unlink()
    write_class_index(folder, dataset(str(description)))
    own = {"dataset": str(description)}
    maps = run("export", folder, tmp_path / "logs", "propagation", **SMALL, **own)
    assert set(json.loads((Path(maps) / "propagated.json").read_text())["images"]) == {"2", "3"}
    path = run(
        "train", folder, tmp_path / "logs", "self_training", **TRAINED | own | {"n_steps": 1}, pseudo_labels=maps
    )
    assert set(json.loads((Path(path).parent / "training_cases.json").read_text())["cases"]) == {"1", "2", "3"}
    with pytest.raises(InputError, match="nothing can be scored"):
        run("validate", folder, tmp_path / "logs", "propagation", **SMALL, **own)


def test_the_script_alternates_label_maps_and_training(tmp_path):
    given = {"FOLDS": "1", "ROUNDS": "2", "DATASET": "my.json5", "SCANS": "others", "LOG_DIR": "logs"}
    found = commands("self_training.sh", tmp_path, **given)
    kinds = [[word for word in words if "/" not in word and "=" not in word] for words in found]
    assert kinds == [
        ["export", "with", "propagation"],
        ["validate", "with", "propagation"],
        ["with", "self_training"],
        ["validate", "with", "self_training"],
        ["export", "with", "self_training"],
        ["with", "self_training"],
        ["validate", "with", "self_training"],
        ["predict", "--checkpoint", "--scans", "others", "--out", "segmentations", "--overlays"],
    ]
    maps = [(keys(words).get("pseudo_labels"), keys(words).get("export_to")) for words in found[:-1]]
    first, second = (f"logs/label_maps/my_fold1_seed1234_round{number}" for number in (1, 2))
    assert maps == [(None, first), (None, None), (first, None), (first, None), (first, second), *[(second, None)] * 2]
    assert all(keys(words)["eval_fold"] == "1" and keys(words)["dataset"] == "my.json5" for words in found[:-1])
    unscored = commands("self_training.sh", tmp_path, SCORE="0", ROUNDS="1", CHECKPOINT="net.pt")
    assert [words[0].rpartition("/")[2] for words in unscored] == ["validation.py", "training.py"]
    assert keys(unscored[0])["reload_model_path"] == "net.pt"
