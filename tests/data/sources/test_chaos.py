"""CHAOS: layouts, the pairing of DICOM with PNG, grey values, and what is said of damaged downloads."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.sources.chaos import PNG_VALUES, find_scans, labels_from_png, read_scan
from data.sources.raw_scans import RawScan
from dataloaders.catalog import dataset
from util.errors import DataError

CHAOST2 = dataset("CHAOST2")

DEPTH, HEIGHT, WIDTH = 4, 6, 5
SCRIPT = Path("data/CHAOST2/dcm_img_to_nii.sh").resolve()


@pytest.fixture
def image():
    """Every slice has a bright spot of its own: label 1 + z lies on it."""
    array = np.full((DEPTH, HEIGHT, WIDTH), 10, np.uint16)
    for z in range(DEPTH):
        array[z, 1, z] = 500 + z
    return array


def write_ground(folder, image):
    folder.mkdir(parents=True, exist_ok=True)
    for z, slice_ in enumerate(image):
        grey = np.where(slice_ > 100, PNG_VALUES[1 + z], 0).astype(np.uint8)
        Image.fromarray(grey).save(folder / f"IMG-0001-{z + 1:05d}.png")


@pytest.fixture
def write_patient(write_dicom):
    def write(mr, patient, image, **geometry):
        base = mr / str(patient) / "T2SPIR"
        paths = write_dicom(base / "DICOM_anon", image, **geometry)
        write_ground(base / "Ground", image)
        return paths

    return write


def assert_labels_lie_on_their_spots(image, label):
    assert label.array.dtype == np.uint8
    np.testing.assert_array_equal(label.affine, image.affine)
    np.testing.assert_array_equal(label.array > 0, image.array >= 500)
    spots = image.array >= 500
    np.testing.assert_array_equal(label.array[spots], image.array[spots] - 499)


@pytest.mark.parametrize("place", ["MR", "MR/..", "Train_Sets/MR/../..", "CHAOS_Train_Sets/Train_Sets/MR/../../.."])
def test_patients_are_found_wherever_the_download_was_unpacked(tmp_path, write_patient, image, place):
    mr, *up = place.split("/..")
    for patient in (10, 2):
        write_patient(tmp_path / mr, patient, image)
    (tmp_path / mr / "notes").mkdir()
    raw = tmp_path / mr
    for _ in up:
        raw = raw.parent
    scans = find_scans(raw, CHAOST2)
    assert [scan.id for scan in scans] == ["2", "10"]
    base = tmp_path / mr / "10" / "T2SPIR"
    assert scans[1] == RawScan.with_label("10", base / "DICOM_anon", base / "Ground")


@pytest.mark.parametrize("step", [(0, 0, 8), (0, 0, -8), (1, 0.5, -6)], ids=["upwards", "downwards", "tilted"])
def test_labels_follow_their_slices(tmp_path, write_patient, image, step):
    write_patient(tmp_path, 1, image, step=step)
    assert_labels_lie_on_their_spots(*read_scan(find_scans(tmp_path, CHAOST2)[0], CHAOST2))


def test_interleaved_numbers_are_paired(tmp_path, write_patient, image):
    write_patient(tmp_path, 1, image)
    for folder in find_scans(tmp_path, CHAOST2)[0].inputs:
        paths = sorted(folder.iterdir())
        for path, number in zip(paths, (3, 1, 4, 2), strict=True):
            path.rename(folder / f"new-{number:05d}{path.suffix}")
    assert_labels_lie_on_their_spots(*read_scan(find_scans(tmp_path, CHAOST2)[0], CHAOST2))


@pytest.mark.parametrize("step", [(0, 0, 8), (0, 0, -8)], ids=["upwards", "downwards"])
def test_renamed_dicom_files_are_paired_by_instance_number(tmp_path, write_patient, image, step):
    paths = write_patient(tmp_path, 1, image, step=step)
    for path, name in zip(paths, ("d", "b", "c", "a"), strict=True):
        path.rename(path.with_name(f"{name}.dcm"))
    assert_labels_lie_on_their_spots(*read_scan(find_scans(tmp_path, CHAOST2)[0], CHAOST2))


def test_files_that_cannot_be_paired_are_refused(tmp_path, write_patient, image):
    paths = write_patient(tmp_path, 1, image, InstanceNumber=None)
    for path in paths:
        path.rename(path.with_name(f"{path.stem}x.dcm"))
    with pytest.raises(DataError, match=r"Ground: cannot tell.*IMG-0001-00001x\.dcm.*InstanceNumber.*original names"):
        read_scan(find_scans(tmp_path, CHAOST2)[0], CHAOST2)


def test_an_absent_organ_does_not_rename_the_others(tmp_path):
    (tmp_path / "Ground").mkdir()
    grey = np.array([[0, 126], [252, 0]], np.uint8)
    Image.fromarray(grey).save(tmp_path / "Ground" / "IMG-0001-00001.png")
    assert labels_from_png(tmp_path / "Ground").tolist() == [[[0, 2], [4, 0]]]


def test_an_unknown_grey_value_is_named(tmp_path, image):
    write_ground(tmp_path, image)
    grey = np.full((HEIGHT, WIDTH), 63, np.uint8)
    grey[2, 2] = 64
    Image.fromarray(grey).save(tmp_path / "IMG-0001-00003.png")
    with pytest.raises(
        DataError, match=r"IMG-0001-00003\.png: grey value 64; expected only 0, 63, .*Copy the original"
    ):
        labels_from_png(tmp_path)


def test_a_stack_of_another_size_is_named(tmp_path, write_patient, image):
    write_patient(tmp_path, 1, image)
    (tmp_path / "1" / "T2SPIR" / "Ground" / "IMG-0001-00004.png").unlink()
    with pytest.raises(DataError, match=re.escape("Ground: PNG stack of shape (3, 6, 5); expected (4, 6, 5)")):
        read_scan(find_scans(tmp_path, CHAOST2)[0], CHAOST2)


def test_an_empty_download_is_named_with_the_remedy(tmp_path):
    with pytest.raises(
        DataError, match=rf"{tmp_path}; expected MR/<id>.*Download CHAOS_Train.*frugalseg phantom chaost2"
    ):
        find_scans(tmp_path, CHAOST2)


def test_a_patient_without_ground_truth_is_named(tmp_path, write_patient, image):
    write_patient(tmp_path, 3, image)
    (tmp_path / "3" / "T2SPIR" / "Ground").rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=r"no PNG ground truth under .*3/T2SPIR.*folder Ground.*test part"):
        read_scan(find_scans(tmp_path, CHAOST2)[0], CHAOST2)


FAKE_DCM2NIIX = """#!/usr/bin/env bash
while (($# > 1)); do
    [[ $1 == -o ]] && folder=$2
    [[ $1 == -f ]] && name=$2
    shift
done
echo "from $1" > "$folder/$name.nii.gz"
[[ $1 == *"/2/"* && -n ${TWO_SERIES:-} ]] && echo > "$folder/${name}a.nii.gz"
exit 0
"""


def run_script(tmp_path, *arguments, **environment):
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "dcm2niix").write_text(FAKE_DCM2NIIX)
    (tools / "dcm2niix").chmod(0o755)
    path = f"{tools}:{os.environ['PATH']}"
    return subprocess.run(
        ["bash", SCRIPT, *arguments], env=os.environ | {"PATH": path} | environment, capture_output=True, text=True
    )


def test_the_dcm2niix_script_writes_where_preparation_looks(tmp_path, write_patient, image):
    for patient in (1, 2):
        write_patient(tmp_path / "raw dir" / "MR", patient, image)
    done = run_script(tmp_path, tmp_path / "raw dir", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "out" / "CHAOST2" / "niis" / "T2SPIR"
    assert sorted(path.name for path in folder.iterdir()) == ["image_1.nii.gz", "image_2.nii.gz"]
    assert "/2/T2SPIR/DICOM_anon" in (folder / "image_2.nii.gz").read_text()


def test_the_dcm2niix_script_stops_at_two_series(tmp_path, write_patient, image):
    for patient in (1, 2):
        write_patient(tmp_path / "raw" / "MR", patient, image)
    done = run_script(tmp_path, tmp_path / "raw", tmp_path / "out", TWO_SERIES="yes")
    assert done.returncode == 1
    assert "2/T2SPIR/DICOM_anon: dcm2niix made 2 images, expected 1" in done.stderr


def test_the_dcm2niix_script_names_an_empty_folder(tmp_path):
    done = run_script(tmp_path, tmp_path / "nothing", tmp_path / "out")
    assert done.returncode == 1
    assert "nothing: no MR/<id>/T2SPIR/DICOM_anon found" in done.stderr


def test_the_dcm2niix_script_passes_shellcheck():
    shellcheck = Path(sys.executable).with_name("shellcheck")
    if not shellcheck.exists():
        pytest.skip("shellcheck is not installed")
    done = subprocess.run([shellcheck, SCRIPT], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
