"""A small data set, how a folder of it is damaged, and what is expected of the findings."""

from dataclasses import replace

import numpy as np

from data.prepare.class_index import write_class_index
from data.superpixels.scans import write_pseudo_labels
from dataloaders.catalog import dataset
from dataloaders.io.nifti import read_nifti, write_nifti
from dataloaders.samples import Volume

CHAOST2 = dataset("CHAOST2")

SPEC = replace(CHAOST2, grid=replace(CHAOST2.grid, size_px=32))
AFFINE = np.array([[-1.25, 0, 0, 10], [0, 1.25, 0, -20], [0, 0, 7.7, 30], [0, 0, 0, 1]])
SCANS = ("1", "2", "3", "5", "8", "10")  # fold 0: query 1 2 3 5, support 8, train 10
PREPARE = "frugalseg prepare CHAOST2 --raw DIR --out DIR"


def scan(scan_id):
    image = np.random.default_rng(int(scan_id)).normal(300, 20, (3, 32, 32))
    image[:, :4] = 0
    label = np.zeros((3, 32, 32))
    for value, column in enumerate((4, 10, 16, 22), start=1):
        label[1:, 10:20, column : column + 5] = value
        image[1:, 10:20, column : column + 5] += 100 * value
    return image, label


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


def segment_again(folder):
    return f"frugalseg superpixels {folder} --dataset CHAOST2 --scale MIDDLE"
