"""Fixtures of the whole suite."""

from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, MRImageStorage

from data.class_index import write_class_index
from dataloaders.catalog import CHAOST2
from dataloaders.samples import Volume
from dataloaders.volume_io import write_nifti

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="session")
def golden_file():
    """Loads a file of reference values: `golden_file("fewshot/alp_module.npz")["case/array"]`."""
    return lambda name: np.load(GOLDEN / name)


def small_scan(generator, n_slices, size):
    """Four bright boxes (classes 1 to 4) in a noisy body, and a chequerboard of superpixels with gaps between ids."""
    label = np.zeros((n_slices, size, size), np.uint8)
    half, quarter = size // 2, size // 4
    for value, (row, column) in enumerate([(0, 0), (0, half), (half, 0), (half, half)], start=1):
        top, left = row + generator.integers(2, 5), column + generator.integers(2, 5)
        label[2:-2, top : top + quarter, left : left + quarter + 4] = value
    image = 200 + 100 * label + generator.normal(0, 20, label.shape)
    cells = np.arange(size) // (size // 4)
    superpixels = np.broadcast_to((cells[:, None] * 4 + cells[None]) * 3, label.shape).astype(np.int16).copy()
    superpixels[0] = 0  # a slice without any
    return image.astype(np.float32), label, superpixels


def write_prepared(folder, scan_ids, n_slices=8, size=64, seed=0):
    """Writes a small prepared CHAOST2 folder with pseudo-labels and class index."""
    affine = np.diag([-1.25, 1.25, 7.7, 1.0])
    for scan in scan_ids:
        parts = small_scan(np.random.default_rng([seed, scan]), n_slices, size)
        for name, array in zip(("image", "label", "superpix-MIDDLE"), parts, strict=True):
            write_nifti(folder / f"{name}_{scan}.nii.gz", Volume(array, affine))
    write_class_index(folder, CHAOST2)
    return folder


@pytest.fixture(scope="session")
def prepared_folder(tmp_path_factory):
    """A small prepared CHAOST2 folder of eight scans; tests must not change it."""
    return write_prepared(tmp_path_factory.mktemp("prepared"), CHAOST2.scan_ids[:8])


@pytest.fixture(scope="session")
def make_prepared():
    """`write_prepared`, for tests that damage a folder of their own."""
    return write_prepared


@pytest.fixture(scope="session")
def write_dicom():
    """Writes an array as a DICOM series; see `_write_dicom`."""
    return _write_dicom


def _write_dicom(
    folder: Path,
    array: np.ndarray,
    across=(1.0, 0.0, 0.0),
    down=(0.0, 1.0, 0.0),
    step=(0.0, 0.0, 8.0),
    origin=(-40.0, -30.0, 100.0),
    pixel_mm=(1.5, 2.0),
    series: str = "1.2.3",
    **tags,
) -> list[Path]:
    """Writes slice i of `array` (D, H, W) as IMG-0001-0000<i + 1>.dcm, at `origin` + i * `step` (LPS millimetres).

    `pixel_mm` is the distance between rows and between columns; `tags` override header fields, None removes them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for index, slice_ in enumerate(array):
        header = Dataset()
        header.file_meta = FileMetaDataset()
        header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        header.file_meta.MediaStorageSOPClassUID = header.SOPClassUID = MRImageStorage
        header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID = UID(f"{series}.{index + 1}")
        header.Modality, header.SeriesInstanceUID, header.InstanceNumber = "MR", series, index + 1
        header.StudyInstanceUID, header.SeriesNumber, header.Manufacturer = f"{series}.0", 1, "Philips"
        header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
        header.Rows, header.Columns = slice_.shape
        header.BitsAllocated, header.BitsStored, header.HighBit = 16, 16, 15
        header.PixelRepresentation = int(slice_.dtype == np.int16)
        header.PixelSpacing, header.SliceThickness = list(pixel_mm), 3.0
        header.ImageOrientationPatient = [f"{value:.10g}" for value in (*across, *down)]
        header.ImagePositionPatient = [f"{value:.10g}" for value in np.add(origin, np.multiply(index, step))]
        header.PixelData = slice_.tobytes()
        for name, value in tags.items():
            if value is None:
                delattr(header, name)
            else:
                setattr(header, name, value)
        paths.append(folder / f"IMG-0001-{index + 1:05d}.dcm")
        header.save_as(paths[-1], enforce_file_format=True)
    return paths
