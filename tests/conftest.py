"""Fixtures of the whole suite."""

from pathlib import Path

import numpy as np
import pydicom
import pytest

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="session")
def golden_file():
    """Loads a file of reference values: `golden_file("fewshot/alp_module.npz")["case/array"]`."""
    return lambda name: np.load(GOLDEN / name)


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
        header = pydicom.Dataset()
        header.file_meta = pydicom.dataset.FileMetaDataset()
        header.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        header.file_meta.MediaStorageSOPClassUID = header.SOPClassUID = pydicom.uid.MRImageStorage
        header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID = f"{series}.{index + 1}"
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
