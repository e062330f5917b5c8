import csv
import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import training  # noqa: F401 - registers its command
import validation  # noqa: F401
from config_ssl_upload import InputError, ex
from data.prepare.class_index import write_class_index
from dataloaders.catalog import dataset
from dataloaders.fewshot.config import FewShotConfig
from dataloaders.fewshot.data import open_fewshot
from dataloaders.io.nifti import read_nifti, write_nifti
from dataloaders.samples import Volume
from dataloaders.scans.manifest import Manifest
from dataloaders.scans.normalise import Normalisation
from models import build_method
from models.evaluation.fewshot import evaluate
from util.results.scores import read_scores
from util.runtime import checkpoint

CHAOST2 = dataset("CHAOST2")

NETWORK = {"modelname": "resnet18", "encoder_weights": "none", "proto_grid_size": 4}
SMALL = NETWORK | {"n_steps": 2, "num_workers": 0, "device": "cpu", "label_sets": "all"}
ORIGINAL = {"shape": [16, 100, 120], "affine": [[-0.8, 0, 0.1, 20], [0, 0.9, 0, -30], [0.05, 0, 4.0, 5], [0, 0, 0, 1]]}


def run(command, folder, logs, **changes) -> Any:
    paths = {"path": {"data_dir": str(folder), "log_dir": str(logs)}}
    done = ex.run(command, named_configs=["alpnet", "chaost2"], config_updates=SMALL | paths | changes)
    return done.result


@pytest.fixture(scope="module")
def folder(make_prepared, tmp_path_factory):
    """Eight scans with their original grids; scan 3 has no left kidney."""
    folder = make_prepared(tmp_path_factory.mktemp("validation"), CHAOST2.cases[:8])
    label = read_nifti(folder / "label_3.nii.gz")
    write_nifti(folder / "label_3.nii.gz", Volume(np.where(label.array == 3, 0, label.array), label.affine))
    write_class_index(folder, CHAOST2)
    manifest = Manifest("CHAOST2", scans={str(scan): {"original": ORIGINAL} for scan in (1, 2, 3, 5)})
    manifest.save(folder)
    return folder


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory):
    """Folder of results in which a tiny network has been trained on fold 0 and validated."""
    logs = tmp_path_factory.mktemp("logs")
    run("train", folder, logs)
    run("validate", folder, logs)
    return logs


def only(paths):
    (path,) = paths
    return path


def test_a_validation_leaves_scores_table_pictures_and_masks(trained):
    out = only(trained.glob("*/validation/1"))
    scores = read_scores(out / "scores.csv")
    assert len(scores) == 2 * 4 * 4 * 8  # protocols, query scans, organs, metrics
    shared = scores[["method", "dataset", "split", "fold", "family", "setting", "seed", "weights", "steps", "n_folds"]]
    assert set(shared.itertuples(index=False, name=None)) == {
        ("SSL-ALPNet", "CHAOST2", "test", "0", "fewshot", "1", "1234", "last", "2", "5")
    }
    assert (scores["patient"] == scores["case"]).all()
    assert list(dict.fromkeys(scores["case"])) == ["1", "2", "3", "5"]
    assert list(dict.fromkeys(scores["structure"] + scores["label"])) == ["LIVER1", "RK2", "LK3", "SPLEEN4"]
    assert "SSL-ALPNet | CHAOST2 | 1 | reference" in (out / "table.md").read_text()
    assert len(list((out / "overlays").glob("*.png"))) == 8
    assert (out / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert "data:image/webp;base64" in (out / "report.html").read_text()
    metrics = json.loads((out / "metrics.json").read_text())
    assert {"reference/dice/liver", "blind/dice/mean", "mar_val_batches_classDice"} <= set(metrics)


def fails(*_, **__):
    raise OverflowError("too large")


def test_neither_pictures_nor_masks_cost_the_scores(trained, folder, monkeypatch, caplog):
    for place in ("models.evaluation.fewshot.save_overlays", "models.evaluation.fewshot.write_nifti"):
        monkeypatch.setattr(place, fails)
    for place in ("util.results.curves.save_training_curves", "models.evaluation.recording.save_report"):
        monkeypatch.setattr(place, fails)
    given = {"reload_model_path": "", "surface_scores": False, "protocol": "blind", "exp_prefix": ""}
    with pytest.raises(InputError, match="the scores are complete, but masks are missing") as caught:
        run("validate", folder, trained, **given)
    assert str(caught.value).count("OverflowError: too large") == 4  # scans
    out = max(trained.glob("*fold0*/validation/*"), key=lambda path: int(path.name) if path.name.isdecimal() else 0)
    first = read_scores(out.parent / "1/scores.csv").query("protocol == 'blind' and metric == 'dice'")
    assert read_scores(out / "scores.csv").query("metric == 'dice'")["value"].tolist() == first["value"].tolist()
    assert "SSL-ALPNet" in (out / "table.md").read_text()
    assert not (out / "report.html").exists()
    told = [line.partition(":")[0] for line in caplog.messages if "left out, the scores are not affected" in line]
    assert told == [*(f"overlays of blind protocol, scan {n}" for n in (1, 2, 3, 5)), "training curves", "report.html"]
    shutil.rmtree(out)


def test_scans_that_were_trained_on_are_told(trained, folder, tmp_path, caplog):
    path = only(trained.glob("*fold0*/checkpoint.pt"))
    given = {"reload_model_path": str(path), "surface_scores": False, "save_predictions": False, "protocol": "blind"}
    run("validate", folder, tmp_path / "logs", **given)
    assert not [each for each in caplog.messages if "trained on" in each]
    run("validate", folder, tmp_path / "logs", eval_fold=1, **given)  # fold 1 was trained on by fold 0
    (told,) = (each for each in caplog.messages if "trained on" in each)
    data = open_fewshot(FewShotConfig(label_sets="all", eval_fold=1), str(folder))
    shared = [scan for scan in data.fold.query if scan in open_fewshot(FewShotConfig(), str(folder)).fold.train]
    assert f"{path}: trained on {len(shared)} of the {len(data.fold.query)} cases" in told
    assert f"({', '.join(shared)})" in told
    assert shared


def test_masks_are_on_the_prepared_and_on_the_original_grid(trained, folder):
    masks = only(trained.glob("*/validation/1")) / "predictions" / "reference"
    prepared = read_nifti(masks / "scan_1_label_4.nii.gz")
    image = read_nifti(folder / "image_1.nii.gz")
    assert prepared.array.shape == image.array.shape
    assert set(np.unique(prepared.array)) <= {0, 4}
    np.testing.assert_allclose(prepared.affine, image.affine, atol=1e-5)
    original = read_nifti(masks / "original_grid" / "scan_1_label_4.nii.gz")
    assert list(original.array.shape) == ORIGINAL["shape"]
    np.testing.assert_allclose(original.affine, ORIGINAL["affine"], atol=1e-5)


def test_an_organ_that_is_not_there_is_undefined_and_counted(trained):
    out = only(trained.glob("*/validation/1"))
    scores = read_scores(out / "scores.csv").query("case == '3' and structure == 'LK' and metric == 'dice'")
    by_protocol = dict(zip(scores["protocol"], scores["value"], strict=True))
    assert math.isnan(by_protocol["reference"])  # no slice counts
    assert math.isnan(by_protocol["blind"]) or by_protocol["blind"] == 0  # nothing marked, or all of it wrong
    table = (out / "table.md").read_text()
    assert "nan" not in table


def test_the_blind_protocol_reads_nothing_of_the_querys_ground_truth(folder, make_prepared, tmp_path):
    other = make_prepared(tmp_path, CHAOST2.cases[:8])
    for scan in (1, 2, 3, 5):
        label = read_nifti(other / f"label_{scan}.nii.gz")
        write_nifti(other / f"label_{scan}.nii.gz", Volume(np.roll(label.array, 3, (0, 1, 2)), label.affine))
    write_class_index(other, CHAOST2)
    config = FewShotConfig(label_sets="all")
    torch.manual_seed(0)
    method = build_method({"method": "alpnet"} | NETWORK)
    masks, parts = {}, {}
    for protocol in ("blind", "reference"):
        for where in (folder, other):
            task = open_fewshot(config, str(where)).task(Normalisation(), protocol)
            results = list(evaluate(method, task, torch.device("cpu"), 3.0))
            masks[protocol, where] = [result.masks for result in results]
            parts[protocol, where] = torch.cat([result.scored.case.part for result in results], 1)
    for one, two in zip(masks["blind", folder], masks["blind", other], strict=True):
        assert np.array_equal(one, two)
    assert torch.equal(parts["blind", folder], parts["blind", other])
    assert not torch.equal(parts["reference", folder], parts["reference", other])


def test_only_slices_of_the_organs_range_count_in_the_reference_protocol(folder):
    for margin in (0, 1):
        config = FewShotConfig(label_sets="all", z_margin=margin)
        task = open_fewshot(config, str(folder)).task(Normalisation(), "reference")
        counts = task.read_case(task.query_scans[0]).counts
        assert counts.sum(1).tolist() == [4 + 2 * margin] * 4  # organs lie on slices 2 to 5


def test_collect_makes_one_table_of_finished_folds(trained, folder):
    run("train", folder, trained, eval_fold=1)
    run("validate", folder, trained, eval_fold=1)
    run("validate", folder, trained, reload_model_path="none", weights="last")
    run("validate", folder, trained)  # again: the newest counts
    table = Path(run("collect", folder, trained)).read_text()
    assert "SSL-ALPNet | CHAOST2 | 1 | blind" in table
    assert "SSL-ALPNet untrained | CHAOST2 | 1 | reference" in table
    with (trained / "table_fewshot_dice.csv").open() as stream:
        assert len(list(csv.DictReader(stream))) == 2 * 2 * 5  # trained and untrained, protocols, organs and mean
    with (trained / "runs.csv").open() as stream:
        assert {(row["method"], row["fold"]) for row in csv.DictReader(stream)} == {
            *[("SSL-ALPNet", "0"), ("SSL-ALPNet", "1"), ("SSL-ALPNet untrained", "0")],
        }


def test_last_and_ema_weights_and_every_kind_of_file_can_be_scored(trained, folder, tmp_path):
    path = only(trained.glob("*fold0*/checkpoint.pt"))
    released = dict(checkpoint.load(path)["method"])
    released["encoder.asppconv.weight"] = torch.zeros(3)  # the authors' checkpoints hold unused layers
    torch.save(released, tmp_path / "released.pth", _use_new_zipfile_serialization=False)
    dice = [
        run("validate", folder, tmp_path, reload_model_path=str(file), weights=weights, protocol="reference")
        for file, weights in ((path, "last"), (tmp_path / "released.pth", "last"), (path, "ema"))
    ]
    assert dice[0] == dice[1]
    assert not math.isnan(dice[2])
    ema = max(tmp_path.glob("*fold0*/validation/*/scores.csv"), key=lambda file: int(file.parent.name))
    assert set(read_scores(ema)["method"]) == {"SSL-ALPNet EMA"}
    assert (ema.parent / "ema/overlays/reference_scan_1.png").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 99}, r"has not been trained.*reload_model_path=none"),
        ({"reload_model_path": "/nowhere.pt"}, "no such checkpoint"),
        ({"reload_model_path": "CHECKPOINT", "modelname": "resnet34"}, None),  # ours says what it was trained with
        ({"reload_model_path": "RELEASED", "modelname": "resnet34"}, "weights of another model.*modelname"),
        ({"reload_model_path": "HOSTILE"}, "refused"),
        ({"n_sup_part": 2}, "odd number"),
        ({"support_idx": [9]}, "held-out list"),
        ({"label_sets": 5}, "unknown group"),
        ({"protocol": "both?"}, "expected one of reference, blind, both"),
    ],
)
def test_bad_input_stops_with_one_clear_message(trained, folder, tmp_path, changes, message):
    path = only(trained.glob("*fold0*/checkpoint.pt"))
    torch.save(checkpoint.load(path)["method"], tmp_path / "released.pth")
    torch.save({"hook": print}, tmp_path / "hostile.pth")
    names = {"CHECKPOINT": path, "RELEASED": tmp_path / "released.pth", "HOSTILE": tmp_path / "hostile.pth"}
    name = changes.get("reload_model_path", "")
    changes = changes | ({"reload_model_path": str(names.get(name, name))} if name else {})
    if message is None:
        assert run("validate", folder, tmp_path, protocol="reference", **changes) >= 0
        return
    with pytest.raises(InputError, match=message):
        run("validate", folder, tmp_path, **changes)


def test_scores_are_those_of_full_precision(trained, folder):
    torch.backends.cudnn.allow_tf32 = True  # PyTorch's own default for convolutions, and here of every test
    run("validate", folder, trained, reload_model_path="none", surface_scores=False)
    is_rounded = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = True
    assert not is_rounded


def test_a_support_scan_without_the_organ_is_named(make_prepared, tmp_path):
    folder = make_prepared(tmp_path, CHAOST2.cases[:8])
    label = read_nifti(folder / "label_8.nii.gz")
    write_nifti(folder / "label_8.nii.gz", Volume(np.where(label.array == 2, 0, label.array), label.affine))
    write_class_index(folder, CHAOST2)
    with pytest.raises(InputError, match=r"support scan 8 does not show RK.*support_idx"):
        run("validate", folder, tmp_path / "logs", reload_model_path="none")


@pytest.fixture
def damaged(make_prepared, tmp_path):
    """Eight scans; the image of scan 3, a query of fold 0, is cut short."""
    folder = make_prepared(tmp_path / "damaged", CHAOST2.cases[:8])
    cut(folder / "image_3.nii.gz")
    return folder


def cut(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


UNTRAINED = {"reload_model_path": "none", "surface_scores": False, "protocol": "both"}


def test_an_unreadable_query_scan_does_not_cost_the_scores_of_the_others(damaged, trained, tmp_path):
    (damaged / "image_5.nii.gz").write_text("no scan")
    root = tmp_path / "logs"
    with pytest.raises(InputError) as caught:
        run("validate", damaged, root, **UNTRAINED)
    message = str(caught.value)
    assert message.endswith("\n2 of 4 cases scored, 2 failed.")
    assert message.count("image_3.nii.gz: ") == message.count("image_5.nii.gz: ") == 1  # for two protocols
    out = only(root.glob("*/validation/1"))
    found = read_scores(out / "scores.csv")
    assert found.groupby("protocol")["case"].unique().map(list).to_dict() == {
        **{"reference": ["1", "2"], "blind": ["1", "2"]},
    }
    assert set(found["n_failed"]) == {"2"}
    for name in ("table.md", "report.html"):
        assert "without 2 case(s) that could not be scored" in (out / name).read_text()
    assert "reference/dice/liver" in json.loads((out / "metrics.json").read_text())
    whole = shutil.copytree(trained, tmp_path / "both", ignore=shutil.ignore_patterns("*fold1*"))
    shutil.copytree(only(root.glob("*_fold0*")), whole / "damaged")
    with pytest.raises(
        InputError, match=r"left out of the tables:\n.*damaged.*2 case\(s\) could not be scored.*n_failed"
    ):
        run("collect", damaged, whole)
    assert "| SSL-ALPNet |" in (whole / "table.md").read_text()


def test_without_any_readable_query_scan_there_are_no_tables(damaged, tmp_path):
    for scan in (1, 2, 5):
        cut(damaged / f"image_{scan}.nii.gz")
    with pytest.raises(InputError, match=r"none of the 4 cases could be scored") as caught:
        run("validate", damaged, tmp_path / "logs", **UNTRAINED)
    assert all(f"image_{scan}.nii.gz: " in str(caught.value) for scan in (1, 2, 3, 5))
    assert not [*tmp_path.glob("logs/**/table.md"), *tmp_path.glob("logs/**/scores.csv")]


def test_without_the_support_scan_nothing_is_scored(damaged, tmp_path):
    cut(damaged / "image_8.nii.gz")
    with pytest.raises(InputError, match=r"^[^\n]*image_8\.nii\.gz[^\n]*$"):
        run("validate", damaged, tmp_path / "logs", **UNTRAINED)
    assert not list(tmp_path.glob("logs/**/scores.csv"))


def test_an_unreadable_scan_stops_the_scores_during_training(damaged, tmp_path):
    with pytest.raises(InputError, match=r"image_3\.nii\.gz"):
        run("train", damaged, tmp_path / "logs", eval_every=1, check_data=False)
