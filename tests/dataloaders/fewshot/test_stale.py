"""Scans that have changed since superpixels, class index or statistics were made from them."""

import re
import shlex
import shutil

import numpy as np
import pytest

from data.check import check_folder
from data.prepare.__main__ import main as prepare
from data.prepare.class_index import write_class_index
from data.superpixels.__main__ import main as make_superpixels
from data.superpixels.scans import write_pseudo_labels
from dataloaders.catalog import dataset
from dataloaders.fewshot.config import FewShotConfig
from dataloaders.fewshot.data import open_fewshot
from dataloaders.io.nifti import read_nifti, write_nifti
from dataloaders.ordering import LoaderOptions
from dataloaders.samples import Volume
from dataloaders.scans.manifest import Manifest, statistics_of
from util.errors import DataError
from util.records import Record, hash_files

CHAOST2 = dataset("CHAOST2")
COMMANDS = {"superpixels": make_superpixels, "prepare": prepare}


@pytest.fixture(scope="module")
def sound(make_prepared, tmp_path_factory):
    folder = make_prepared(tmp_path_factory.mktemp("sound"), CHAOST2.cases[:7])
    write_pseudo_labels(folder, CHAOST2)
    return folder


@pytest.fixture
def folder(sound, tmp_path):
    return shutil.copytree(sound, tmp_path / "scans")


def change(path, edit):
    volume = read_nifti(path)
    write_nifti(path, Volume(edit(volume.array), volume.affine))


def open_first(folder, **keys):
    return open_fewshot(FewShotConfig(**keys), str(folder))


def first_batch(folder, **keys):
    data = open_first(folder, **keys)
    return next(iter(data.loader(data.fit_normalisation(), 0, 1, range(1), LoaderOptions())))


def run_command_in(message):
    found = re.search(r"Run `frugalseg (\w+) (.*?)`", message)
    assert found, message
    COMMANDS[found[1]](shlex.split(found[2]))


def test_superpixels_of_another_image_are_refused_until_they_are_made_again(folder):
    scan = open_first(folder).fold.train[0]
    change(folder / f"image_{scan}.nii.gz", lambda array: array + 1)
    with pytest.raises(DataError, match=rf"superpix-MIDDLE_{scan}.*stale.*changed: image_{scan}\.nii\.gz") as error:
        first_batch(folder)
    findings = [each for each in check_folder(folder, CHAOST2) if "stale" in each.text]
    assert [(each.severity, each.file.name) for each in findings] == [("error", f"superpix-MIDDLE_{scan}.nii.gz")]
    run_command_in(str(error.value))
    assert first_batch(folder) is not None


@pytest.mark.parametrize("part", ["support", "query"])
def test_a_class_index_of_other_labels_is_refused_until_it_is_made_again(folder, part):
    scan = getattr(open_first(folder).fold, part)[0]
    change(folder / f"label_{scan}.nii.gz", lambda array: np.pad(array[:, 1:], ((0, 0), (0, 1), (0, 0))))
    data = open_first(folder)

    def read():
        task = data.task(data.fit_normalisation(), "reference")
        return task.query_scans, task.read_case(scan) if part == "query" else None

    with pytest.raises(DataError, match=rf"classmap_1\.json: stale.*changed: label_{scan}\.nii\.gz") as error:
        read()
    run_command_in(str(error.value))
    data = open_first(folder)
    assert read()[0] == data.fold.query


def test_one_changed_query_label_leaves_the_other_scans_to_be_scored(folder):
    scan, *others = open_first(folder).fold.query
    path = folder / f"label_{scan}.nii.gz"
    path.write_bytes(path.read_bytes()[:200])
    data = open_first(folder)
    task = data.task(data.fit_normalisation(), "reference")
    assert len(others) >= 1
    for other in others:
        assert task.read_case(other).case.scan_id == other
    with pytest.raises(DataError, match=f"label_{scan}"):
        task.read_case(scan)


@pytest.mark.parametrize("change_labels", [lambda path: path.unlink(), lambda path: path.rename(path.with_name("x"))])
def test_a_label_that_is_gone_makes_the_class_index_stale(folder, change_labels):
    scan = open_first(folder).fold.train[0]
    change_labels(folder / f"label_{scan}.nii.gz")
    with pytest.raises(DataError, match=rf"gone: label_{scan}\.nii\.gz"):
        open_first(folder).folder.class_slices()


def test_a_label_that_came_later_makes_the_class_index_stale(folder):
    write_class_index(folder, CHAOST2)
    shutil.copy(folder / "label_1.nii.gz", folder / "label_99.nii.gz")
    with pytest.raises(DataError, match=r"new: label_99\.nii\.gz"):
        open_first(folder).folder.class_slices()


def test_files_without_a_record_are_taken_on_trust(folder):
    (folder / "manifest.json").unlink()
    change(folder / "image_1.nii.gz", lambda array: array + 1)
    assert first_batch(folder) is not None


def test_statistics_of_an_image_that_has_changed_are_measured(folder):
    image = folder / "image_1.nii.gz"
    manifest = Manifest.load(folder, "CHAOST2")
    manifest.scans["1"] = {"statistics": {"mean": 5.0}}
    manifest.records["scan_1"] = Record({}, {}, hash_files([image], folder))
    manifest.save(folder)
    assert open_first(folder).folder.statistics(["1"]) == [{"mean": 5.0}]
    change(image, lambda array: array + 1)
    (found,) = open_first(folder).folder.statistics(["1"])
    assert found == pytest.approx(statistics_of(read_nifti(image).array))


def test_manifests_of_earlier_versions_are_read(folder):
    text = '{"dataset": "CHAOST2", "parameters": {}, "scans": {}, "pseudo_labels": {"MIDDLE": {"scans": {}}}}'
    (folder / "manifest.json").write_text(text)
    assert first_batch(folder) is not None
    write_pseudo_labels(folder, CHAOST2)
    assert "superpix-MIDDLE_1" in Manifest.load(folder, "CHAOST2").records


@pytest.mark.parametrize("kind", ["image", "superpix-MIDDLE", "label"])
@pytest.mark.parametrize("train_on", ["superpixels", "labels"])
def test_a_run_depends_on_what_it_reads(folder, kind, train_on):
    data = open_first(folder, train_on=train_on)
    scan, before = data.fold.train[0], data.contents()
    change(folder / f"{kind}_{scan}.nii.gz", lambda array: np.roll(array, 3, axis=2))
    is_read = kind == "image" or (kind == "label") == (train_on == "labels")
    assert (data.contents() != before) == is_read


def test_a_run_depends_on_folds_and_patients(folder):
    def contents(**entry):
        manifest = Manifest.load(folder, "CHAOST2")
        manifest.scans["1"] = entry
        manifest.save(folder)
        return open_first(folder).contents()

    before = contents()
    assert contents() == before
    assert contents(patient="p7")["scan 1"].endswith(", p7")
    moved = contents(fold=0)
    assert {name for name in moved if moved[name] != before.get(name)} & {f"scan {scan}" for scan in CHAOST2.cases}
    (folder / "image_1.nii.gz").unlink()
    assert "scan 1" not in open_first(folder).contents()
