import json
import logging
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data.check import Finding, check_folder, facts, require_valid
from data.class_index import write_class_index
from data.superpixels import write_pseudo_labels
from dataloaders.catalog import CHAOST2
from dataloaders.manifest import Manifest
from dataloaders.samples import Volume
from dataloaders.volume_io import read_nifti, voxel_hash, write_nifti
from util.errors import DataError

ROOT = Path(__file__).parents[2]
SPEC = replace(CHAOST2, size_px=32)
AFFINE = np.array([[-1.25, 0, 0, 10], [0, 1.25, 0, -20], [0, 0, 7.7, 30], [0, 0, 0, 1]])
SCANS = (1, 2, 3, 5, 8, 10)  # fold 0: query 1 2 3 5, support 8, train 10


def scan(seed):
    image = np.random.default_rng(seed).normal(300, 20, (3, 32, 32))
    image[:, :4] = 0
    label = np.zeros((3, 32, 32))
    for value, column in enumerate((4, 10, 16, 22), start=1):
        label[1:, 10:20, column : column + 5] = value
        image[1:, 10:20, column : column + 5] += 100 * value
    return image, label


@pytest.fixture(scope="session")
def sound(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sound")
    for number in SCANS:
        image, label = scan(number)
        write_nifti(folder / f"image_{number}.nii.gz", Volume(image, AFFINE))
        write_nifti(folder / f"label_{number}.nii.gz", Volume(label, AFFINE))
    write_class_index(folder, SPEC)
    write_pseudo_labels(folder, SPEC)
    return folder


@pytest.fixture
def folder(sound, tmp_path):
    return shutil.copytree(sound, tmp_path / "prepared")


def change(path, edit=lambda array: array, affine=None):
    """Rewrites a volume: `edit` gets its array, to be changed in place or replaced."""
    volume = read_nifti(path)
    array = volume.array.copy()
    edited = edit(array)
    write_nifti(path, Volume(array if edited is None else edited, volume.affine if affine is None else affine))


def refresh(folder):
    """Makes index and pseudo-labels anew, so that one damage gives one finding."""
    write_class_index(folder, SPEC)
    write_pseudo_labels(folder, SPEC)


def the_only(findings):
    assert len(findings) == 1, list(map(str, findings))
    return findings[0]


def assert_told(finding, severity, path, *words):
    assert (finding.severity, finding.file) == (severity, path)
    for word in words:
        assert word in finding.text
    assert str(finding).startswith(f"{severity}: {path}: ")


PREPARE = "python -m data.prepare CHAOST2"


def cut_again(folder):
    return f"python -m data.superpixels {folder} --dataset CHAOST2 --scale MIDDLE"


def test_a_sound_folder_has_no_findings(folder):
    assert check_folder(folder, SPEC, eval_fold=0) == []
    assert check_folder(folder, SPEC, scale=None) == []
    require_valid(folder, SPEC, eval_fold=0)


def test_no_folder_and_empty_folder(tmp_path):
    assert_told(the_only(check_folder(tmp_path / "no", SPEC)), "error", tmp_path / "no", "no such folder", PREPARE)
    assert_told(the_only(check_folder(tmp_path, SPEC)), "error", tmp_path, "holds no image_", PREPARE)


@pytest.mark.parametrize("kind", ["image", "label", "superpix-MIDDLE"])
def test_a_missing_file(folder, kind):
    path = folder / f"{kind}_3.nii.gz"
    path.unlink()
    found = [finding for finding in check_folder(folder, SPEC) if finding.file == path]
    remedy = cut_again(folder) if kind.startswith("superpix") else PREPARE
    assert_told(the_only(found), "error", path, "is missing", "scan 3", remedy)


@pytest.mark.parametrize("kind", ["image", "label", "superpix-MIDDLE"])
def test_a_truncated_file(folder, kind):
    path = folder / f"{kind}_3.nii.gz"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    found = [finding for finding in check_folder(folder, SPEC) if finding.file == path]
    assert_told(the_only(found), "error", path, "truncated", "Make or copy it again")


@pytest.mark.parametrize(("kind", "step"), [("label", PREPARE), ("superpix-MIDDLE", "python -m data.superpixels")])
def test_shapes_that_differ(folder, kind, step):
    path = folder / f"{kind}_3.nii.gz"
    change(path, lambda array: array[:, :, :-1])
    found = [finding for finding in check_folder(folder, SPEC) if "shape" in finding.text]
    assert_told(the_only(found), "error", path, "(3, 32, 31) differs from (3, 32, 32) of image_3.nii.gz", step)


FLIPPED = AFFINE @ np.diag([1, -1, 1, 1])


@pytest.mark.parametrize("kind", ["label", "superpix-MIDDLE"])
@pytest.mark.parametrize(
    ("affine", "words"),
    [
        (AFFINE @ np.diag([1, 1, 1.1, 1]), ["spacing (z, y, x) (8.47, 1.25, 1.25) mm differs from (7.7, 1.25, 1.25)"]),
        (FLIPPED, ["orientation", "-1.25, 0.0], [0.0, 0.0, 7.7]]"]),
        (AFFINE + np.eye(4, k=3) * 3, ["origin (x, y, z) [13.0, -20.0, 30.0] mm differs from [10.0, -20.0, 30.0]"]),
    ],
)
def test_positions_that_differ(folder, kind, affine, words):
    path = folder / f"{kind}_3.nii.gz"
    change(path, affine=affine)
    assert_told(the_only(check_folder(folder, SPEC)), "error", path, *words, "of image_3.nii.gz", "un `python -m data.")


def test_positions_that_differ_by_rounding_are_the_same(folder):
    change(folder / "label_3.nii.gz", affine=AFFINE + 1e-4)
    assert check_folder(folder, SPEC) == []


def test_slices_of_another_spacing(folder):
    other = AFFINE @ np.diag([1.2, 1.2, 1, 1])
    for kind in ("image", "label", "superpix-MIDDLE"):
        change(folder / f"{kind}_3.nii.gz", affine=other)
    finding = the_only(check_folder(folder, SPEC))
    assert_told(finding, "warning", folder / "image_3.nii.gz", "in-plane spacing (y, x) (1.5, 1.5) mm", PREPARE)
    assert check_folder(folder, replace(SPEC, spacing_mm=None)) == []


def test_slices_of_another_size(folder):
    for kind in ("image", "label"):
        change(folder / f"{kind}_3.nii.gz", lambda array: np.pad(array, ((0, 0), (0, 2), (0, 0)), mode="edge"))
    refresh(folder)
    finding = the_only(check_folder(folder, SPEC))
    assert_told(finding, "warning", folder / "image_3.nii.gz", "34 x 32 pixels, unlike the other scans", PREPARE)


def test_slices_below_the_crop(folder):
    findings = check_folder(folder, SPEC, min_size_px=40)
    assert [finding.file.name for finding in findings] == [f"image_{number}.nii.gz" for number in SCANS]
    assert_told(findings[2], "error", folder / "image_3.nii.gz", "32 x 32", "crop of 40 x 40", PREPARE)
    assert len(check_folder(folder, CHAOST2)) == len(SCANS)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_voxels_that_are_not_finite(folder, value):
    path = folder / "image_3.nii.gz"

    def spoil(array):
        array[1, 2, 3:5] = value

    change(path, spoil)
    found = [finding for finding in check_folder(folder, SPEC) if finding.file == path]
    assert_told(the_only(found), "error", path, "2 voxels are NaN or infinite", PREPARE)


def test_an_image_of_one_value(folder):
    path = folder / "image_3.nii.gz"
    change(path, lambda array: np.full_like(array, 7))
    found = [finding for finding in check_folder(folder, SPEC) if "every voxel" in finding.text]
    assert_told(the_only(found), "error", path, "every voxel is 7", PREPARE)


@pytest.mark.parametrize("value", [5, 1.5, -1, np.nan])
def test_labels_that_are_no_class(folder, value):
    path = folder / "label_3.nii.gz"

    def spoil(array):
        array[0, 0, 0] = value

    change(path, spoil)
    words = [f"label values {value:g} are no class of CHAOST2", "integers from 0 to 4", "Correct the label"]
    assert_told(the_only(check_folder(folder, SPEC)), "error", path, *words)


@pytest.fixture
def without_kidney(folder):
    """Scan 8, the support of fold 0, has lost its right kidney."""
    change(folder / "label_8.nii.gz", lambda array: np.where(array == 2, 0, array))
    refresh(folder)
    return folder


def test_an_organ_that_a_scan_lacks(without_kidney):
    finding = the_only(check_folder(without_kidney, SPEC))
    assert_told(finding, "warning", without_kidney / "label_8.nii.gz", "no voxel of RK", "Complete the label")


def test_an_organ_that_the_support_lacks(without_kidney):
    finding = the_only(check_folder(without_kidney, SPEC, eval_fold=0))
    assert_told(finding, "error", without_kidney / "label_8.nii.gz", "no voxel of RK", "support", "another fold")
    assert the_only(check_folder(without_kidney, SPEC, eval_fold=0, support_idx=[0])).severity == "warning"


def test_pseudo_labels_without_an_id(folder):
    path = folder / "superpix-MIDDLE_3.nii.gz"
    change(path, np.zeros_like)
    words = ["no superpixel in the whole scan", "above intensity 50", cut_again(folder)]
    assert_told(the_only(check_folder(folder, SPEC)), "error", path, *words)


@pytest.mark.parametrize("highest", [None, 30_000])
def test_pseudo_labels_with_gaps(folder, highest):
    path = folder / "superpix-MIDDLE_3.nii.gz"

    def spoil(array):
        array[1][array[1] == 1] = highest or array[1].max() + 1

    change(path, spoil)
    finding = the_only(check_folder(folder, SPEC))
    assert_told(finding, "error", path, "ids leave gaps", cut_again(folder))


def test_gaps_in_legacy_pseudo_labels_are_a_warning(folder):
    write_pseudo_labels(folder, SPEC, numbering="legacy")

    def first_and_third(array):
        array[:] = 0
        array[1, 0, :5], array[1, 1, :5] = 1, 3

    for number in SCANS:
        change(folder / f"superpix-MIDDLE_{number}.nii.gz", first_and_third)
    words = [f"in scans {', '.join(map(str, SCANS))}; expected", "normal in legacy numbering"]
    assert_told(the_only(check_folder(folder, SPEC)), "warning", folder / "superpix-MIDDLE_1.nii.gz", *words)


@pytest.mark.parametrize("value", [-1, 1.5, np.nan])
def test_pseudo_labels_that_are_no_ids(folder, value):
    path = folder / "superpix-MIDDLE_3.nii.gz"

    def spoil(array):
        array = array.astype(np.float64)
        array[0, 0, 0] = value
        return array

    change(path, spoil)
    assert_told(the_only(check_folder(folder, SPEC)), "error", path, "negative or no integers", cut_again(folder))


def test_supervoxels_are_numbered_over_the_scan(folder):
    write_pseudo_labels(folder, SPEC, scale="SUPERVOXEL")
    assert check_folder(folder, SPEC, scale="SUPERVOXEL") == []

    def two_slabs(array):
        array[0], array[1:] = 1, 2

    change(folder / "superpix-SUPERVOXEL_3.nii.gz", two_slabs)
    assert check_folder(folder, SPEC, scale="SUPERVOXEL") == []
    change(folder / "superpix-SUPERVOXEL_3.nii.gz", lambda array: np.where(array == 2, 3, array))
    finding = the_only(check_folder(folder, SPEC, scale="SUPERVOXEL"))
    assert_told(finding, "error", folder / "superpix-SUPERVOXEL_3.nii.gz", "gaps", "--scale SUPERVOXEL")


def test_pseudo_labels_of_another_image(folder):
    change(folder / "image_3.nii.gz", lambda array: array * 1.01)
    path = folder / "superpix-MIDDLE_3.nii.gz"
    finding = the_only(check_folder(folder, SPEC))
    assert_told(finding, "error", path, "stale", "another version of image_3.nii.gz", cut_again(folder))


def test_pseudo_labels_without_a_record(folder):
    (folder / "manifest.json").unlink()
    finding = the_only(check_folder(folder, SPEC))
    assert_told(finding, "warning", folder / "manifest.json", "scans 1, 2, 3, 5, 8, 10", cut_again(folder))


def test_a_manifest_of_another_data_set(folder):
    path = folder / "manifest.json"
    Manifest("SABS").save(folder)
    findings = check_folder(folder, SPEC)
    assert_told(findings[0], "error", path, "manifest of 'SABS'", "python -m data.prepare")
    path.write_text("{")
    assert_told(check_folder(folder, SPEC)[0], "error", path, "not valid JSON", f"delete it and run `{PREPARE}`")


def test_statistics_of_another_image(folder):
    manifest = Manifest.load(folder, "CHAOST2")
    manifest.scans["3"] = {"image_sha256": voxel_hash(read_nifti(folder / "image_3.nii.gz").array)}
    manifest.save(folder)
    assert check_folder(folder, SPEC) == []
    manifest.scans["3"]["image_sha256"] = "0" * 64
    manifest.save(folder)
    words = ["changed since manifest.json", "mean and deviation", PREPARE]
    assert_told(the_only(check_folder(folder, SPEC)), "error", folder / "image_3.nii.gz", *words)


def index_again(folder, least=1):
    return f"python -m data.class_index {folder} --dataset CHAOST2 --min-foreground-px {least}"


def test_a_missing_class_index(folder):
    path = folder / "classmap_1.json"
    path.unlink()
    assert_told(the_only(check_folder(folder, SPEC)), "error", path, "is missing", index_again(folder))


def test_a_stale_class_index(folder):
    write_class_index(folder, SPEC, 40)
    change(folder / "label_3.nii.gz", lambda array: np.where(np.arange(3)[:, None, None] == 1, 0, array))
    first, second = check_folder(folder, SPEC)
    words = ["stale", "LIVER, RK, LK, SPLEEN"]
    assert_told(first, "error", folder / "classmap_1.json", *words, index_again(folder))
    assert_told(second, "warning", folder / "classmap_40.json", *words, index_again(folder, 40))


@pytest.mark.parametrize(("text", "found"), [("[]", "stale"), ("{", "not valid JSON")])
def test_a_damaged_class_index(folder, text, found):
    (folder / "classmap_1.json").write_text(text)
    words = [found, index_again(folder)]
    assert_told(the_only(check_folder(folder, SPEC)), "error", folder / "classmap_1.json", *words)


def test_the_background_of_a_class_index_does_not_matter(folder):
    path = folder / "classmap_1.json"
    index = json.loads(path.read_text())
    index["BG"] = {key: [1, 2] for key in index["BG"]}
    path.write_text(json.dumps(index))
    assert check_folder(folder, SPEC) == []


def duplicate(folder, source, target):
    for kind in ("image", "label"):
        shutil.copy(folder / f"{kind}_{source}.nii.gz", folder / f"{kind}_{target}.nii.gz")
    refresh(folder)


def test_a_scan_on_two_sides_of_the_fold(folder):
    duplicate(folder, 3, 10)
    finding = the_only(check_folder(folder, SPEC, eval_fold=0))
    words = ["same image as image_3.nii.gz", "query and train", "Remove one"]
    assert_told(finding, "error", folder / "image_10.nii.gz", *words)
    assert the_only(check_folder(folder, SPEC)).severity == "warning"


def test_a_scan_twice_on_one_side_of_the_fold(folder):
    duplicate(folder, 2, 3)
    words = ["same image as image_2.nii.gz.", "Remove one"]
    assert_told(the_only(check_folder(folder, SPEC, eval_fold=0)), "warning", folder / "image_3.nii.gz", *words)


def test_a_fold_without_scans(folder):
    words = ["fold 3", "0 in this fold's interval", "Prepare more scans or take another fold"]
    assert_told(the_only(check_folder(folder, SPEC, eval_fold=3)), "error", folder, *words)


@pytest.mark.parametrize("name", ["image_a.nii.gz", "image_03.nii.gz", "image_4.nii"])
def test_an_image_of_another_name(folder, name):
    (folder / name).touch()
    assert_told(the_only(check_folder(folder, SPEC)), "warning", folder / name, "not used", "Rename")


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


def test_a_folder_that_cannot_be_written_to_is_checked_all_the_same(folder, monkeypatch):
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


def test_errors_come_before_warnings_and_read_as_one_line(without_kidney):
    (without_kidney / "classmap_1.json").unlink()
    findings = check_folder(without_kidney, SPEC)
    assert [finding.severity for finding in findings] == ["error", "warning"]
    assert str(Finding("error", Path("a"), "b. Do c.")) == "error: a: b. Do c."


def test_the_command_tells_each_finding_and_fails_on_errors(folder):
    command = [sys.executable, "-m", "data.check", folder, "--dataset", "chaost2", "--scale", "SLIC"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"error: {folder / 'superpix-SLIC_1.nii.gz'}: is missing" in done.stderr
    assert f"error: {folder / 'image_1.nii.gz'}: slices of 32 x 32 pixels are smaller than the crop" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_command_succeeds_on_warnings(folder, monkeypatch, caplog):
    from data.check import __main__ as command

    (folder / "manifest.json").unlink()
    monkeypatch.setattr(command, "dataset", lambda name: SPEC)
    monkeypatch.setattr(sys, "argv", ["check", str(folder), "--dataset", "CHAOST2", "--fold", "0"])
    with caplog.at_level(logging.INFO):
        assert command.main() == 0
    assert "warning: " in caplog.messages[0]
    assert "0 error(s), 1 warning(s)" in caplog.messages[-1]
    monkeypatch.setattr(sys, "argv", ["check", str(folder), "--dataset", "CHAOST2", "--fold", "3"])
    assert command.main() == 1
