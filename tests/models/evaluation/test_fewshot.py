import math
from dataclasses import asdict
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from dataloaders.description import ClassSpec, DatasetSpec
from dataloaders.fewshot.data import FewShotTask, ScoredCase
from dataloaders.io.geometry import Grid
from dataloaders.io.nifti import read_nifti
from dataloaders.samples import EvalCase, Origin, StoredGeometry, SupportSet, Volume
from models.evaluation.fewshot import FewShotEvaluation, evaluate
from models.methods.base import Method


class Marks(Method):
    """Marks the left half of every slice for every class."""

    Config = dict
    family = "fewshot"
    batch_type = None

    def forward(self, batch):
        return {}

    def encode_support(self, support):
        self.supports = [*getattr(self, "supports", []), support]
        return "encoded"

    def probabilities(self, case, support=None):
        assert support == "encoded"
        assert not self.training
        marked = torch.zeros(len(case.classes), len(case.image), 8, 8)
        marked[..., :4] = 1
        return marked


def task_of(truth, counts, n_scans=1):
    support = SupportSet((2,), torch.zeros(1, 1, 1, 1, 8, 8), torch.zeros(1, 1, 1, 8, 8, dtype=torch.bool))
    stored = Volume(np.zeros(truth.shape), np.diag([1.0, 1.0, 5.0, 1.0]))
    cases = [
        ScoredCase(
            EvalCase(str(n), (2,), torch.zeros(3, 1, 8, 8), torch.zeros(1, 3, dtype=torch.int64)), truth, counts, stored
        )
        for n in range(n_scans)
    ]
    return FewShotTask(support, ("9",), tuple(map(str, range(n_scans))), lambda scan: cases[int(scan)])


def run(method, task, tolerance_mm=None):
    return [result.scores[2] for result in evaluate(method, task, torch.device("cpu"), tolerance_mm)]


@pytest.mark.parametrize("tolerance_mm", [None, 1.0])
def test_only_counted_slices_and_known_pixels_are_scored(tolerance_mm):
    truth = np.zeros((3, 8, 8), np.uint8)
    truth[:, :, :4] = 2
    truth[0] = 0  # wrong, but not counted
    truth[1, :4, :4] = 255  # unknown: not held against the prediction
    counts = np.array([[False, True, True]])
    (scores,) = run(Marks(), task_of(truth, counts), tolerance_mm)
    assert scores.dice == 1
    assert math.isnan(scores.nsd) == (tolerance_mm is None)


def test_the_support_is_encoded_once_and_the_mode_is_restored():
    method = Marks().train()
    truth = np.full((3, 8, 8), 2, np.uint8)
    scores = run(method, task_of(truth, np.ones((1, 3), bool), n_scans=4))
    assert [score.recall for score in scores] == [0.5] * 4
    assert len(method.supports) == 1
    assert method.training


def test_masks_have_the_supplied_values_and_scores_the_patient(tmp_path):
    spec = DatasetSpec("MINE", "scans", classes=(ClassSpec("cyst"), ClassSpec("tumour", value=500)))
    folder = SimpleNamespace(
        spec=spec, manifest=SimpleNamespace(scans={}), origin=lambda scan: Origin(f"patient of {scan}")
    )
    evaluation = FewShotEvaluation(SimpleNamespace(folder=folder), torch.device("cpu"))
    truth = np.full((3, 8, 8), 2, np.uint8)
    (result,) = evaluate(Marks(), task_of(truth, np.ones((1, 3), bool)), torch.device("cpu"))
    evaluation._save_masks(tmp_path, result)
    saved = read_nifti(tmp_path / "scan_0_label_500.nii.gz").array
    assert saved.dtype == np.uint16
    assert np.unique(saved[..., :4]).tolist() == [500]
    assert not saved[..., 4:].any()
    stored = StoredGeometry(0, 0, "mm", (1.0, 1.0, 1.0, 1.0), (0.0,) * 3, (0.0,) * 3, ((0.0,) * 4,) * 3)
    entry = {"original": Grid.of(result.scored.stored).to_json(), "stored_geometry": asdict(stored)}
    folder.manifest.scans["0"] = entry
    evaluation._save_masks(tmp_path, result)
    assert read_nifti(tmp_path / "original_grid/scan_0_label_500.nii.gz").stored == stored
    record = evaluation._records({}, result)[0]
    assert [record[key] for key in ("case", "patient", "structure", "label")] == ["0", "patient of 0", "tumour", 500]
