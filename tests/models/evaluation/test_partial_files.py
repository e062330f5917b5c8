"""Label maps of validation: what becomes of classes that overlap, by the relation of their task."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from dataloaders.io.nifti import read_nifti
from dataloaders.io.png import read_mask, read_stored
from dataloaders.samples import Task
from models.evaluation import Candidate, ScoreOptions, make_evaluation
from models.evaluation.partial_files import save_masks
from models.evaluation.partial_scores import Segmented
from models.prediction.partial import task_files
from tests.models.colours import Colours, ColoursConfig
from tests.partial_sets import DEPTH, MIXED, SIDE, open_scan_sets, open_sets, write_scan_sets, write_sets
from util.results.scores import read_scores


def test_classes_that_overlap_have_a_file_each(tmp_path):
    masks = {"a": np.array([[True, True, False]]), "b": np.array([[False, True, True]])}
    two = Task("t", ("a", "b"))
    assert {path.name for path in task_files(tmp_path, "x", two, masks)} == {
        "x_t_a_segmentation.png", "x_t_b_segmentation.png",
    }  # fmt: skip
    ((path, label),) = task_files(tmp_path, "x", replace(two, relation="nested"), masks).items()
    assert (path.name, label.tolist()) == ("x_t_segmentation.png", [[1, 2, 2]])


class Lavish(Colours):
    """Sees both kinds of lesions in the left half: bright ones above, at the middle as much, dark ones below."""

    def probabilities(self, case, support=None):
        found = super().probabilities(case, support).clone()
        up, middle = SIDE // 2 - 1, SIDE // 2 + 1
        found[1:3] = 0
        found[1:3, :, :, : SIDE // 2] = 0.8
        found[1, :, :up, : SIDE // 2] = found[2, :, middle:, : SIDE // 2] = 0.9
        return found


def test_exclusive_classes_share_a_label_map_but_are_scored_as_they_are(tmp_path, monkeypatch):
    monkeypatch.setattr("models.evaluation.partial.draw_images", lambda path, *_: None)
    mixed = write_sets(tmp_path / "sets", n_train=2, n_test=1) / MIXED.prepared_folder(SIDE)
    data = open_sets(tmp_path / "sets", scored=[mixed])
    method = Lavish(ColoursConfig(data.config.task_list))
    found = make_evaluation("partial", data, torch.device("cpu"))
    assert not found.score([Candidate("Lavish", method)], tmp_path, ScoreOptions()).failures
    written = tmp_path / "predictions/MIXED"
    assert not list(written.glob("*_lesion_bright_*"))
    label = read_stored(written / "mixed2_lesion_segmentation.png")  # twice as large
    # Of equally probable ones the first, up to where the interpolation of the next row begins.
    left = np.repeat([1, 2], [SIDE + 1, SIDE - 1])[:, None]
    np.testing.assert_array_equal(label[:, :SIDE], np.broadcast_to(left, (2 * SIDE, SIDE)))
    assert not label[:, SIDE:].any()
    scores = read_scores(tmp_path / "scores.csv")
    recall = scores[scores["metric"] == "recall"].set_index("structure")["value"]
    for name in ("bright", "dark"):
        truth = read_mask(mixed / f"masks/{name}/mixed2.png")
        assert recall[name] == pytest.approx(truth[:, : SIDE // 2].sum() / truth.sum())


@pytest.mark.parametrize("relation", ["exclusive", "independent", "nested"])
def test_masks_of_a_scan_follow_the_relation_of_its_classes(tmp_path, relation):
    each = open_scan_sets(write_scan_sets(tmp_path)).scored[1]
    (case, *_) = (read() for read in each.cases("test"))
    tasks = (Task("liver", ("liver",)), Task("kidney", ("left", "right"), relation))
    probabilities = np.zeros((3, DEPTH, SIDE, SIDE), np.float32)
    probabilities[1, :, 8:20, 8:24], probabilities[2, :, 12:24, 8:24] = 0.7, 0.6
    found = Segmented(case, probabilities, probabilities > 0.5, (1.0,) * len(probabilities))
    save_masks(tmp_path / "out", each, found, tasks, Colours(ColoursConfig(tasks)))
    files = {path.name.removeprefix(f"{case.id}_") for path in (tmp_path / "out").iterdir()}
    if relation == "independent":
        assert files == {f"{name}_segmentation.nii.gz" for name in ("liver", "kidney_left", "kidney_right")}
        return
    assert files == {"liver_segmentation.nii.gz", "kidney_segmentation.nii.gz"}
    label = read_nifti(tmp_path / "out" / f"{case.id}_kidney_segmentation.nii.gz").array
    assert label[:, 8:12, 8:24].min() == label[:, 8:12, 8:24].max() == 1
    assert (label[:, 12:20, 8:24] == (1 if relation == "exclusive" else 2)).all()
    assert (label[:, 20:24, 8:24] == 2).all()
    assert label.astype(bool).sum() == DEPTH * 16 * 16
