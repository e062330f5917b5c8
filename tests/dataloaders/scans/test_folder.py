"""A prepared folder: what its files must hold, also where another program wrote them."""

import numpy as np
import pytest

from dataloaders.catalog import dataset
from dataloaders.io.nifti import write_nifti
from dataloaders.samples import Volume
from dataloaders.scans.folder import PreparedFolder
from util.errors import DataError

AFFINE = np.diag([-1.25, 1.25, 7.7, 1.0])


def folder_with(path, label):
    write_nifti(path / "image_1.nii.gz", Volume(np.arange(128, dtype=np.float32).reshape(2, 8, 8), AFFINE))
    write_nifti(path / "label_1.nii.gz", Volume(label, AFFINE))
    return PreparedFolder(path, dataset("CHAOST2"))


def test_labels_that_are_slightly_off_are_rounded_not_truncated(tmp_path):
    label = np.full((2, 8, 8), 0.99999994, np.float32)
    assert folder_with(tmp_path, label).label("1").array.tolist() == np.ones((2, 8, 8)).tolist()
    assert folder_with(tmp_path, label).shape("1") == (2, 8, 8)


@pytest.mark.parametrize(("value", "found"), [(500, "values from 500 to 500; expected 0 to 255"), (0.5, "values 0.5")])
def test_labels_that_do_not_fit_are_named_and_do_not_wrap(tmp_path, value, found):
    with pytest.raises(DataError, match=rf"label_1\.nii\.gz: .*{found}"):
        folder_with(tmp_path, np.full((2, 8, 8), value)).label("1")
