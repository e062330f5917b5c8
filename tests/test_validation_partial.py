"""Validation on several partly labelled data sets, from the command's entry to the tables of several runs."""

from typing import Any

import numpy as np
import pytest
from PIL import Image

import models
import training  # noqa: F401 - registers its command
import validation  # noqa: F401
from config_ssl_upload import InputError, ex
from tests.models.colours import Colours
from tests.partial_sets import BLOBS, DISCS, LINES, MIXED, SIDE, open_sets, write_sets
from util.results.scores import read_scores


@pytest.fixture(autouse=True)
def colours(monkeypatch):
    monkeypatch.setitem(models.METHODS, "colours", Colours)


@pytest.fixture
def root(tmp_path):
    return write_sets(tmp_path / "sets", n_train=2, n_test=2)


def place(root, spec):
    return str(root / spec.prepared_folder(SIDE))


def run(command, root, **changes) -> Any:
    usual = {"method": "colours", "device": "cpu", "datasets": [place(root, spec) for spec in (LINES, BLOBS, DISCS)]}
    usual |= {"path": {"data_dir": str(root), "log_dir": str(root.parent / "logs")}}
    return ex.run(command, config_updates=usual | changes).result


def test_a_network_of_all_tasks_next_to_experts(root):
    logs = root.parent / "logs"
    assert run("validate", root, scored=[place(root, MIXED), place(root, DISCS)]) > 0.5
    run("validate", root, scored=[place(root, MIXED)], tasks=["lesion"])
    run("validate", root, scored=[place(root, MIXED), place(root, DISCS)], tasks=["disc_cup"])
    run("collect", root)
    text = (logs / "table.md").read_text()
    lines = [line.split(" | ") for line in text.splitlines() if "MIXED" in line or "DISCS" in line]
    assert [line[:2] for line in lines[:4]] == [
        ["| Colours", "MIXED"], ["| Colours", "DISCS"], ["| Expert", "MIXED"], ["| Expert", "DISCS"],
    ]  # fmt: skip
    assert lines[0][2:] == lines[2][2:]  # the same rule, and all three structures in one line
    assert len(list(logs.glob("*/validation/1/report.html"))) == 3


def test_a_further_set_and_an_image_that_fails(root):
    (root / LINES.prepared_folder(SIDE) / "images/lines3.png").write_bytes(b"damaged")
    with pytest.raises(InputError) as caught:
        run("validate", root, scored=[place(root, LINES)], test_sets=[place(root, MIXED)], save_predictions=False)
    assert "lines3.png" in str(caught.value)
    assert str(caught.value).endswith("3 of 4 cases scored, 1 failed.")
    (file,) = (root.parent / "logs").glob("*/validation/1/scores.csv")
    (further,) = (root.parent / "logs").glob("*/validation/1/MIXED/scores.csv")
    assert set(read_scores(file)["dataset"]) == {"LINES"}
    assert set(read_scores(further)["dataset"]) == {"MIXED"}
    with pytest.raises(InputError, match="scored already"):
        run("validate", root, scored=[place(root, MIXED)], test_sets=[place(root, MIXED)])


def test_exported_pseudo_labels_are_trained_on(root):
    folder = run("export", root, pseudo_label={"min_area_px": 4})
    assert folder.startswith(str(root.parent / "logs/Colours_"))
    assert folder.endswith("/pseudo_labels")
    data = open_sets(root, frozenset({"pseudo"}), pseudo_labels=folder)
    assert data.pseudo_classes["DISCS"] == ("line", "bright", "dark")
    other = run("export", root, export_to=str(root.parent / "elsewhere"))
    assert other == str(root.parent / "elsewhere")
    with Image.open(root.parent / "elsewhere/LINES/disc/lines0.png") as image:
        assert set(np.unique(np.asarray(image))) == {0, 255}
    with pytest.raises(InputError, match=r"LINES are annotated for all of line"):
        run("export", root, tasks=["vessel"])
