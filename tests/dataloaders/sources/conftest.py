"""A prepared folder with scans of four domains, some of several frames."""

import numpy as np
import pytest

from dataloaders.description import ClassSpec, DatasetSpec, GridRule, write_description
from dataloaders.io.nifti import write_nifti
from dataloaders.samples import Volume
from dataloaders.scans.manifest import Manifest
from dataloaders.sources.config import SourcesDataConfig
from dataloaders.sources.data import open_sources

SPEC = DatasetSpec("HEARTS", "scans", classes=(ClassSpec("LV"), ClassSpec("RV")), grid=GridRule(size_px=48))
AFFINE = np.diag([-1.5, 1.5, 8.0, 1.0])


def write_hearts(root, patients_per_domain=4, n_slices=3, size=48):
    """Domains A to D; scans of A have three frames, of which the first and the last are annotated; C4 has no label."""
    folder = root / SPEC.prepared_folder()
    folder.mkdir(parents=True)
    write_description(folder, SPEC)
    manifest = Manifest(SPEC.name)
    for number, domain in enumerate("ABCD"):
        for index in range(1, patients_per_domain + 1):
            scan, rng = f"{domain}{index}", np.random.default_rng([number, index])
            n_frames = 3 if domain == "A" else 1
            label = np.zeros((n_frames * n_slices, size, size), np.uint8)
            label[:, 10:24, 12:26], label[:, 26:36, 12:30] = 1, 2
            image = (label * 40 + 20 * (number + 1) + rng.normal(0, 3, label.shape)).astype(np.float32)
            entry = {"patient": f"P{scan}", "domain": domain, "centre": str(1 + index % 2) if domain == "B" else "1"}
            if n_frames > 1:
                label[n_slices : 2 * n_slices] = 0
                entry |= {"frames": n_frames, "labelled_frames": {"0": "ED", "2": "ES"}}
            manifest.scans[scan] = entry
            write_nifti(folder / f"image_{scan}.nii.gz", Volume(image, AFFINE))
            if scan != "C4":
                write_nifti(folder / f"label_{scan}.nii.gz", Volume(label, AFFINE))
    manifest.save(folder)
    return folder


@pytest.fixture(scope="session")
def hearts(tmp_path_factory):
    """The prepared folder; tests must not change it."""
    return write_hearts(tmp_path_factory.mktemp("hearts"))


@pytest.fixture
def make_hearts():
    """`write_hearts`, for tests that change a folder of their own."""
    return write_hearts


@pytest.fixture
def open_hearts():
    """Opens such a folder: `open_hearts(folder, test_domains=("A",))`."""

    def opened(folder, needs=frozenset({"unlabelled"}), **settings):
        usual = {"dataset": str(folder), "test_domains": ("A",), "labelled_fraction": 0.5, "which_aug": "none"}
        return open_sources(SourcesDataConfig(**(usual | settings)), str(folder), needs=needs)

    return opened
