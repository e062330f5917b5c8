"""Pseudo-labels from a network to the next training."""

import logging

import numpy as np
import pytest
import torch

from dataloaders.io.png import read_stored, write_png
from models.evaluation import make_evaluation
from models.evaluation.base import Evaluation
from models.evaluation.dense import DenseEvaluation
from models.prediction.pseudo_labels import PseudoLabelConfig
from tests.models.colours import Colours, ColoursConfig
from tests.partial_sets import DISCS, LINES, MIXED, SIDE, open_sets, write_sets
from util.errors import ConfigError, DataError, FailedItemsError
from util.files import read_json_object

CPU = torch.device("cpu")
RUN = "run", "recipe", PseudoLabelConfig()


@pytest.fixture
def root(tmp_path):
    return write_sets(tmp_path / "sets", n_train=2, n_test=0)


def export(root, out, run="run", **config):
    data = open_sets(root)
    found = make_evaluation("partial", data, CPU)
    method = Colours(ColoursConfig(data.config.task_list))
    found.export_pseudo_labels(method, out, run, "recipe", PseudoLabelConfig(**config))
    return method.eval(), data


def reopened(root, out):
    return open_sets(root, frozenset({"pseudo"}), pseudo_labels=str(out))


def test_only_classes_without_annotation_get_labels_and_training_reads_them(root, tmp_path):
    method, data = export(root, tmp_path / "out")
    files = {path.parent.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*/*/*.png")}
    expected = {"LINES": ("bright", "dark", "disc", "cup"), "BLOBS": ("line", "disc", "cup")}
    expected["DISCS"] = ("line", "bright", "dark")
    assert files == {f"{name}/{each}" for name, classes in expected.items() for each in classes}
    assert reopened(root, tmp_path / "out").pseudo_classes == expected
    image = next(data.cases(data.trained[0], "train"))()
    probability = method.probabilities(image.case)[:, 0].detach().numpy()
    bright, dark = probability[1:3]
    found = read_stored(tmp_path / "out/LINES/bright/lines0.png")
    np.testing.assert_array_equal(found == 255, (bright > 0.5) & (bright >= dark))
    cup, disc = (read_stored(tmp_path / f"out/LINES/{name}/lines0.png") == 255 for name in ("cup", "disc"))
    np.testing.assert_array_equal(cup, probability[4] > 0.5)
    np.testing.assert_array_equal(disc, (probability[3] > 0.5) | cup)
    record = read_json_object(tmp_path / "out/pseudo_labels.json")
    assert (record["run"], record["settings"]["thresholds"]) == ("run", [0.5])
    assert (tmp_path / "out/pseudo_labels.png").exists()


def test_of_a_task_that_is_annotated_in_part_only_the_rest_is_labelled(root, tmp_path):
    sets = [root / spec.prepared_folder(SIDE) for spec in (MIXED, DISCS)]
    data = open_sets(root, datasets=sets)
    method = Colours(ColoursConfig(data.config.task_list))
    make_evaluation("partial", data, CPU).export_pseudo_labels(method, tmp_path / "out", *RUN)
    found = {path.relative_to(tmp_path / "out").parent.as_posix() for path in (tmp_path / "out").rglob("*/*/*.png")}
    assert found == {"MIXED/cup", "DISCS/bright", "DISCS/dark"}


def test_filters_leave_pixels_unknown(root, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    method, data = export(root, tmp_path / "out", min_confidence=0.9, min_area_px=3)
    image = next(data.cases(data.trained[1], "train"))()
    probability = method.probabilities(image.case)[0, 0].detach().numpy()
    found = read_stored(tmp_path / "out/BLOBS/line/blobs0.png")
    unsure = np.maximum(probability, 1 - probability) < 0.9
    assert unsure.any()
    assert (found[unsure] == 128).all()
    reopened(root, tmp_path / "out").loader  # noqa: B018 - opened without an error
    assert "BLOBS, line: marked in" in caplog.text


def test_thresholds_may_differ_between_the_classes_of_all_tasks(root, tmp_path, caplog):
    export(root, tmp_path / "out", thresholds=(0.999, 0.5, 0.5, 0.5, 0.5))
    assert not read_stored(tmp_path / "out/BLOBS/line/blobs0.png").any()
    assert read_stored(tmp_path / "out/BLOBS/disc/blobs0.png").any()
    assert "line: marked in no image of BLOBS" in caplog.text
    with pytest.raises(ConfigError, match="2 thresholds for 5 classes"):
        export(root, tmp_path / "other", thresholds=(0.5, 0.5))


def test_another_run_or_other_images_are_refused(root, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(DataError, match=r"missing, or not finished\. Make them again with `frugalseg pseudo-labels"):
        assert reopened(root, out).pseudo_classes
    export(root, out)
    export(root, out)  # of the same run: replaced
    with pytest.raises(ConfigError, match="holds pseudo-labels of the run run, not of second"):
        export(root, out, "second")
    path = root / LINES.prepared_folder(SIDE) / "manifest.csv"
    path.write_text(path.read_text().replace("lines0,train,64,64,", "lines0,train,64,64,f"))
    with pytest.raises(DataError, match="made from another image lines0 of LINES"):
        assert reopened(root, out).pseudo_classes


def test_an_image_that_fails_is_named_and_the_folder_is_not_a_finished_one(root, tmp_path):
    (root / LINES.prepared_folder(SIDE) / "images/lines1.png").write_bytes(b"damaged")
    with pytest.raises(FailedItemsError, match=r"1 of 6 failed, the others are done:\n.*lines1\.png"):
        export(root, tmp_path / "out")
    assert (tmp_path / "out/LINES/cup/lines0.png").exists()
    with pytest.raises(DataError, match="not finished"):
        assert reopened(root, tmp_path / "out").pseudo_classes


def test_a_label_that_was_changed_is_found(root, tmp_path):
    export(root, tmp_path / "out")
    path = tmp_path / "out/LINES/cup/lines0.png"
    write_png(path, ~(read_stored(path) > 0))
    with pytest.raises(DataError, match=r"LINES/cup/lines0\.png is not as the run wrote it"):
        assert reopened(root, tmp_path / "out").pseudo_classes


def test_there_must_be_something_to_label(root, tmp_path):
    data = open_sets(root, tasks=("vessel",))
    method = Colours(ColoursConfig(data.config.task_list))
    with pytest.raises(ConfigError, match="LINES are annotated for all of line"):
        make_evaluation("partial", data, CPU).export_pseudo_labels(method, tmp_path, *RUN)
    with pytest.raises(ConfigError, match="pseudo-labels: for methods of several data sets"):
        Evaluation.export_pseudo_labels(DenseEvaluation(None, CPU), method, tmp_path, *RUN)
