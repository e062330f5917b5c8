"""Folders of scans: what is found, and what is no scan by its content."""

import numpy as np
from nibabel.nifti1 import Nifti1Pair

from dataloaders.io.nifti import write_nifti
from dataloaders.samples import Volume
from models.prediction.fewshot import FewShotPredictor, ScanSegmentation
from models.prediction.scan_search import find_scans
from models.prediction.scans import name_scans, segment_scans

AFFINE = np.diag([-2.0, 2.0, 4.0, 1.0])


class Everything(FewShotPredictor):
    """Marks every voxel."""

    def __init__(self):
        self.structures = {"liver": 1}

    def segment(self, image, name="the scan", *, with_probabilities=False):
        return ScanSegmentation(Volume(np.ones(image.array.shape, np.uint8), image.affine), {"liver": 0.5})


def test_a_label_map_without_a_telling_name_is_refused_and_the_scan_is_done(tmp_path):
    scan = np.random.default_rng(0).integers(0, 900, (6, 20, 20)).astype(np.int16)
    label = np.repeat(np.arange(3, dtype=np.uint8), 2)[:, None, None] * np.ones((20, 20), np.uint8)
    write_nifti(tmp_path / "in/a.nii.gz", Volume(scan, AFFINE))
    write_nifti(tmp_path / "in/b.nii.gz", Volume(label, AFFINE))
    scans = name_scans(find_scans(tmp_path / "in"))
    failures = {}
    assert segment_scans(Everything(), scans, tmp_path / "out", failures) == 1
    assert list(failures) == ["b"]
    assert "b.nii.gz: 3 whole values from 0 to 2 in uniform regions: a label map or mask" in failures["b"]
    found = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert found == ["a_segmentation.nii.gz", "labels.ctbl", "labels.txt", "volumes.csv"]


def test_a_pair_is_one_scan(tmp_path):
    Nifti1Pair(np.zeros((3, 4, 5), np.int16), AFFINE).to_filename(tmp_path / "a.img")
    assert name_scans(find_scans(tmp_path)) == {"a": tmp_path / "a.hdr"}
