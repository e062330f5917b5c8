"""Prepared folders of volumes, to be damaged one way at a time."""

import shutil

import numpy as np
import pytest

from data.prepare.class_index import write_class_index
from data.superpixels.scans import write_pseudo_labels
from dataloaders.io.nifti import write_nifti
from dataloaders.samples import Volume
from tests.data.check.helpers import AFFINE, SCANS, SPEC, change, refresh, scan


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


@pytest.fixture
def without_kidney(folder):
    """Scan 8, the support of fold 0, has lost its right kidney."""
    change(folder / "label_8.nii.gz", lambda array: np.where(array == 2, 0, array))
    refresh(folder)
    return folder
