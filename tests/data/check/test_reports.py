"""The whole folder: sound, missing or with several findings, and the command that tells them."""

import json
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from data.check import Finding, check_folder, require_valid
from tests.data.check.helpers import PREPARE, SPEC, assert_told, change, the_only
from util.errors import DataError

ROOT = Path(__file__).parents[3]


def test_a_sound_folder_has_no_findings(folder):
    assert check_folder(folder, SPEC, eval_fold=0) == []
    assert check_folder(folder, SPEC, scale=None) == []
    require_valid(folder, SPEC, eval_fold=0)


def test_no_folder_and_empty_folder(tmp_path):
    assert_told(the_only(check_folder(tmp_path / "no", SPEC)), "error", tmp_path / "no", "no such folder", PREPARE)
    assert_told(the_only(check_folder(tmp_path, SPEC)), "error", tmp_path, "no image_", PREPARE)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("image_4.nii", "does not end in .nii.gz"),
        ("image_.nii.gz", "is empty"),
        ("image_ a.nii.gz", "begins or ends with white space"),
        ("image_a\nb.nii.gz", "a control character"),
        (f"image_{'é' * 41}.nii.gz", "82 bytes"),
    ],
)
def test_an_image_of_another_name(folder, name, reason):
    (folder / name).touch()
    assert_told(the_only(check_folder(folder, SPEC)), "warning", folder / name, "not used", reason, "Rename")


def test_all_errors_are_raised_together_and_warnings_logged(without_kidney, caplog):
    folder = without_kidney
    (folder / "classmap_1.json").unlink()
    change(folder / "superpix-MIDDLE_3.nii.gz", np.zeros_like)
    with caplog.at_level(logging.WARNING), pytest.raises(DataError) as caught:
        require_valid(folder, SPEC)
    message = str(caught.value)
    assert message.startswith(f"{folder}: 2 error(s)")
    assert str(folder / "classmap_1.json") in message
    assert str(folder / "superpix-MIDDLE_3.nii.gz") in message
    assert "label_8" not in message
    assert [line for line in caplog.messages if "label_8.nii.gz: no voxel of RK" in line]


def test_errors_come_before_warnings_and_read_as_one_line(without_kidney):
    (without_kidney / "classmap_1.json").unlink()
    findings = check_folder(without_kidney, SPEC)
    assert [finding.severity for finding in findings] == ["error", "warning"]
    assert str(Finding("error", Path("a"), "b. Do c.")) == "error: a: b. Do c."


def test_the_command_tells_each_finding_and_fails_on_errors(folder):
    command = [sys.executable, "-m", "data.check", folder, "--dataset", "chaost2", "--scale", "SLIC"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"error: {folder / 'superpix-SLIC_1.nii.gz'}: is missing" in done.stdout
    assert f"error: {folder / 'image_1.nii.gz'}: slices of 32 x 32 pixels are smaller than the crop" in done.stdout
    assert "Traceback" not in done.stderr


def test_the_command_succeeds_on_warnings(folder, monkeypatch, capsys):
    from data.check import __main__ as command

    (folder / "manifest.json").unlink()
    monkeypatch.setattr(command, "resolve_target", lambda target, *more: (SPEC, Path(target)))
    monkeypatch.setattr(sys, "argv", ["check", str(folder), "--dataset", "CHAOST2", "--fold", "0"])
    assert command.main() == 0
    first, *_, last = capsys.readouterr().out.splitlines()
    assert "warning: " in first
    assert "0 error(s), 1 warning(s)" in last
    monkeypatch.setattr(sys, "argv", ["check", str(folder), "--dataset", "CHAOST2", "--fold", "3"])
    assert command.main() == 1


def test_the_findings_as_json(folder, capsys):
    from data.check.__main__ import main

    assert main([str(folder), "--dataset", "chaost2", "--scale", "SLIC", "--json"]) == 1
    answer = json.loads(capsys.readouterr().out)
    assert answer["folder"] == str(folder)
    severities = [finding["severity"] for finding in answer["findings"]]
    assert (severities.count("error"), severities.count("warning")) == (answer["errors"], answer["warnings"])
    files = {finding["file"]: finding["text"] for finding in answer["findings"]}
    assert "is missing" in files[str(folder / "superpix-SLIC_1.nii.gz")]
