"""What is recorded of the scans: manifest, statistics and class index."""

import json

import numpy as np
import pytest

from data.check import check_folder
from data.prepare.class_index import write_class_index
from dataloaders.scans.manifest import Manifest
from tests.data.check.helpers import PREPARE, SPEC, assert_told, change, the_only
from util.records import Record, hash_files


def test_a_manifest_of_another_data_set(folder):
    path = folder / "manifest.json"
    Manifest("SABS").save(folder)
    findings = check_folder(folder, SPEC)
    assert_told(findings[0], "error", path, "manifest of 'SABS'", "frugalseg prepare")
    path.write_text("{")
    assert_told(check_folder(folder, SPEC)[0], "error", path, "not valid JSON", f"delete it and run `{PREPARE}`")


def test_statistics_of_another_image(folder):
    manifest = Manifest.load(folder, "CHAOST2")
    image = folder / "image_3.nii.gz"
    manifest.records["scan_3"] = Record({}, {}, hash_files([image], folder))
    manifest.save(folder)
    assert check_folder(folder, SPEC) == []
    manifest.records["scan_3"] = Record({}, {}, {image.name: "0" * 64})
    manifest.save(folder)
    words = ["changed since manifest.json", "mean and deviation", PREPARE]
    assert_told(the_only(check_folder(folder, SPEC)), "error", image, *words)


def index_again(folder, least=1):
    return f"frugalseg prepare {folder} --dataset CHAOST2 --step index --min-foreground-px {least}"


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


def test_a_class_index_of_labels_that_have_changed_without_changing_it(folder):
    change(folder / "label_3.nii.gz", lambda array: np.where(np.roll(array, 1, axis=2) > 0, array, 0))
    finding = the_only(check_folder(folder, SPEC))
    words = ["stale", "labels changed: label_3.nii.gz", index_again(folder)]
    assert_told(finding, "error", folder / "classmap_1.json", *words)


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
