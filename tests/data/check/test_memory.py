"""Files are read again only when they change, and what is remembered of them is never in the way."""

import json
from dataclasses import replace

import numpy as np
import pytest

from data.check import check_folder, facts
from tests.data.check.helpers import SCANS, SPEC, change


def test_files_are_read_again_only_when_they_change(folder, monkeypatch):
    read = []
    real = facts.read_nifti
    monkeypatch.setattr(facts, "read_nifti", lambda path: read.append(path.name) or real(path))
    check_folder(folder, SPEC)
    assert len(read) == len(set(read)) == 3 * len(SCANS)
    read.clear()
    assert check_folder(folder, SPEC) == []
    assert read == []
    change(folder / "label_3.nii.gz", lambda array: array + 1)
    assert {finding.severity for finding in check_folder(folder, SPEC)} == {"error"}
    assert read == ["label_3.nii.gz"]
    read.clear()
    check_folder(folder, replace(SPEC, name="OTHER"))
    assert len(read) == 3 * len(SCANS)


@pytest.mark.parametrize("text", ["{", "[]", '{"format": 0}', '{"format": 1, "dataset": "CHAOST2"}'])
def test_a_damaged_memory_is_no_obstacle(folder, text):
    (folder / facts.CACHE_NAME).write_text(text)
    assert check_folder(folder, SPEC) == []
    assert json.loads((folder / facts.CACHE_NAME).read_text())["dataset"] == "CHAOST2"


def test_a_folder_that_cannot_be_written_to_is_checked_without_cache(folder, monkeypatch):
    def refuse(path, text):
        raise facts.UserError(f"{path}: cannot be written")

    monkeypatch.setattr(facts, "write_text", refuse)
    assert check_folder(folder, SPEC) == []
    assert not (folder / facts.CACHE_NAME).exists()


def test_the_remembered_facts_give_the_same_findings(folder):
    change(folder / "image_3.nii.gz", lambda array: array * np.nan)
    change(folder / "label_5.nii.gz", lambda array: array * 1.5)
    (folder / "label_8.nii.gz").write_bytes((folder / "label_8.nii.gz").read_bytes()[:100])
    first = check_folder(folder, SPEC, eval_fold=0)
    assert len(first) >= 3
    assert check_folder(folder, SPEC, eval_fold=0) == first
