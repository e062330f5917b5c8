"""Fixtures of the whole suite."""

import logging
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, MRImageStorage

from data.noise.masks import write_noise
from data.prepare.class_index import write_class_index
from data.superpixels.images import write_superpixels
from dataloaders.catalog import dataset
from dataloaders.description import DatasetSpec
from dataloaders.images.folder import ImageFolder, NoiseConfig, SuperpixelConfig
from dataloaders.io.nifti import write_nifti
from dataloaders.io.png import write_png
from dataloaders.samples import Volume
from tests.browser import chromium
from util.files import write_json

CHAOST2 = dataset("CHAOST2")
ISIC2017 = dataset("ISIC2017")
JSRT = dataset("JSRT")

GOLDEN = Path(__file__).parent / "golden"
NOISE = NoiseConfig(0.7, 0.7)
SUPERPIXEL = SuperpixelConfig(n_segments=24)


def pytest_collection_modifyitems(items):
    """Keeps the tests of a file in one process, and those that share the local Slurm cluster."""
    for item in items:
        folder = item.path.parent.name
        item.add_marker(pytest.mark.xdist_group("cluster" if folder == "cluster" else str(item.path)))


@pytest.fixture(autouse=True)
def logging_is_left_as_found():
    """What one test silences would be missing from the next one's log."""
    before = logging.root.level, logging.root.manager.disable
    yield
    after = logging.root.level, logging.root.manager.disable
    logging.root.setLevel(before[0])
    logging.disable(before[1])
    assert after == before


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
        parts = small_scan(np.random.default_rng([seed, int(scan)]), n_slices, size)
        for name, array in zip(("image", "label", "superpix-MIDDLE"), parts, strict=True):
            write_nifti(folder / f"{name}_{scan}.nii.gz", Volume(array, affine))
    write_class_index(folder, CHAOST2)
    return folder


@pytest.fixture(scope="session")
def prepared_folder(tmp_path_factory):
    """A small prepared CHAOST2 folder of eight scans; tests must not change it."""
    return write_prepared(tmp_path_factory.mktemp("prepared"), CHAOST2.cases[:8])


@pytest.fixture(scope="session")
def make_prepared():
    """`write_prepared`, for tests that damage a folder of their own."""
    return write_prepared


# Centre row, column and radii of what is drawn of each structure, in shares of the side.
BLOBS = {
    "lesion": (0.5, 0.5, 0.25, 0.22),
    "lung": (0.55, 0.3, 0.3, 0.18),
    "heart": (0.65, 0.6, 0.2, 0.2),
    "clavicle": (0.2, 0.5, 0.1, 0.3),
}


def write_images(
    folder: Path, spec: DatasetSpec = ISIC2017, n_train=12, n_test=4, size=32, noise=NOISE, superpixel=SUPERPIXEL
) -> Path:
    """Writes a small prepared image set: dark blobs on a bright ground, noisy masks and superpixels of each structure.

    Images img_00, img_01, ...: those for training come first. `noise` and `superpixel`: None writes none.
    """
    rows, columns = np.mgrid[:size, :size] / size
    lines = ["id,split"]
    for number in range(n_train + n_test):
        generator, name = np.random.default_rng([7, number]), f"img_{number:02}"
        grey = np.full((size, size), 200.0)
        for structure in (each.name for each in spec.classes):
            row, column, height, width = BLOBS[structure] + generator.uniform(-0.05, 0.05, 4)
            mask = ((rows - row) / height) ** 2 + ((columns - column) / width) ** 2 <= 1
            grey[mask] -= 60
            write_png(folder / "masks" / structure / f"{name}.png", mask)
        image = np.stack([grey] * spec.channels, -1) + generator.normal(0, 4, (size, size, spec.channels))
        image = image.clip(0, 255).astype(np.uint8)
        write_png(folder / "images" / f"{name}.png", image if spec.channels == 3 else image[..., 0])
        lines.append(f"{name},{'train' if number < n_train else 'test'}")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    write_json(folder / "dataset.json", {"dataset": spec.name, "size_px": size, "channels": spec.channels})
    images = ImageFolder(folder, spec)
    for structure in (each.name for each in spec.classes):
        if noise:
            write_noise(images, noise, structure)
        if superpixel:
            write_superpixels(images, superpixel, structure)
    return folder


@pytest.fixture(scope="session")
def make_image_folder():
    """`write_images`, for tests that damage a folder of their own."""
    return write_images


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory):
    """A small prepared ISIC2017 folder of 12 training and 4 test images, 32 pixels a side; tests must not change it."""
    return write_images(tmp_path_factory.mktemp("isic"))


@pytest.fixture(scope="session")
def chest_folder(tmp_path_factory):
    """The same of JSRT: grey, with three structures."""
    return write_images(tmp_path_factory.mktemp("jsrt"), JSRT)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A headless Chromium, shared by the tests of a module."""
    with chromium(tmp_path_factory.mktemp("profile")) as page:
        yield page


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
