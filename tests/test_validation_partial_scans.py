"""Several partly labelled sets of scans with real networks: training, scores, label maps, pseudo-labels, prediction."""

import numpy as np
import pytest

import training  # noqa: F401 - registers the command
import validation  # noqa: F401 - likewise
from config_ssl_upload import ex
from dataloaders.io.nifti import read_nifti, write_nifti
from models.predict import main as predict
from tests.partial_sets import DEPTH, KIDNEYS, LIVER, SIDE, write_scan_sets
from util.csv_files import read_csv
from util.results.scores import read_scores

TINY = {
    "network": {"encoder": "resnet10t", "channels": 8, "drop_path": 0.0},
    "encoder_weights": "none",
    "n_steps": 2,
    "batch_size": 2,
    "num_workers": 0,
    "crop_px": SIDE,
    "which_aug": "slices",
    "optim": {"warmup_steps": 0},
    "device": "cpu",
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Folder with data, and the experiment of a short training that has been validated and exported."""
    root = tmp_path_factory.mktemp("scans")
    write_scan_sets(root / "data", n_scans=4)
    sets = [str(root / "data" / spec.prepared_folder()) for spec in (LIVER, KIDNEYS)]
    keys = TINY | {"datasets": sets, "path": {"data_dir": str(root / "data"), "log_dir": str(root / "exps")}}
    keys |= {"export_to": str(root / "labels")}
    for name in ("train", "validate", "export"):
        ex.run(name, keys, named_configs=("partial_generator",))
    (experiment,) = (root / "exps").iterdir()
    return root, experiment


def test_every_scan_is_scored_for_the_organs_of_its_set(trained):
    _, experiment = trained
    scores = read_scores(experiment / "validation/1/scores.csv")
    dice = scores[(scores["metric"] == "dice") & (scores["case"] != "")]
    found = {(row.dataset, row.structure) for row in dice.itertuples()}
    assert found == {("LIVER", "liver"), ("KIDNEYS", "left"), ("KIDNEYS", "right")}
    assert dice.groupby("dataset")["case"].nunique().to_dict() == {"LIVER": 1, "KIDNEYS": 1}


def test_label_maps_of_all_tasks_are_on_the_grid_of_the_scan(trained):
    root, experiment = trained
    files = sorted(path.name for path in (experiment / "validation/1/predictions/LIVER").iterdir())
    assert len(files) == 3
    assert {name.split("_", 1)[1] for name in files} == {
        f"{task}_segmentation.nii.gz" for task in ("liver", "left", "right")
    }
    scan = files[0].split("_")[0]
    made = read_nifti(experiment / "validation/1/predictions/LIVER" / files[0])
    original = read_nifti(root / "data" / LIVER.prepared_folder() / f"image_{scan}.nii.gz")
    assert made.array.shape == original.array.shape == (DEPTH, SIDE, SIDE)
    np.testing.assert_allclose(made.affine, original.affine)


def test_slices_get_pseudo_labels_of_the_other_organs(trained):
    root, _ = trained
    assert {path.name for path in (root / "labels/LIVER").iterdir()} == {"left", "right"}
    assert {path.name for path in (root / "labels/KIDNEYS").iterdir()} == {"liver"}
    assert len(list((root / "labels/LIVER/left").iterdir())) == 3 * DEPTH


def test_people_segment_scans_with_it(trained, tmp_path):
    root, experiment = trained
    scan = read_nifti(root / "data" / LIVER.prepared_folder() / "image_L0.nii.gz")
    write_nifti(tmp_path / "mine.nii.gz", scan)
    given = ["--checkpoint", str(experiment / "checkpoint.pt"), "--device", "cpu", "--out", str(tmp_path / "out")]
    assert predict([*given, "--scans", str(tmp_path / "mine.nii.gz")]) == 0
    label = read_nifti(tmp_path / "out/mine_segmentation.nii.gz")
    assert label.array.shape == scan.array.shape
    np.testing.assert_allclose(label.affine, scan.affine)
    rows = read_csv(tmp_path / "out/volumes.csv", ("structure",))
    assert [row["structure"] for row in rows] == ["liver", "left", "right"]
