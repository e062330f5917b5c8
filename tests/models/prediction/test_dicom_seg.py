"""DICOM segmentations, read back by programs that have no code in common with the one that writes them."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pydicom
import pytest
import SimpleITK
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import UID, EnhancedMRImageStorage, ExplicitVRLittleEndian

from dataloaders.io.nifti import read_nifti
from dataloaders.io.volumes import read_series
from dataloaders.samples import Volume
from models.prediction.dicom_seg import code_of, source_of, write_dicom_seg
from models.prediction.fewshot import FewShotPredictor, ScanSegmentation
from models.prediction.scan_search import find_scans
from models.prediction.scans import Further, name_scans, segment_scans
from util.errors import DataError

SHAPE = (6, 14, 18)  # (D, H, W)
FRAME_OF_REFERENCE = "1.2.826.0.1.99"
PATIENT = {"PatientName": "Doe^Jane", "PatientID": "77", "PatientBirthDate": "19700101", "PatientSex": "F"}
STRUCTURES = {"LIVER": 5, "LK": 2, "thing_1": 300, "nothing there": 9}
SLANTED = np.array([[0.96, 0.28, 0], [-0.168, 0.576, 0.8]])  # perpendicular, of length 1
NORMAL = np.cross(*SLANTED)

# Directions of columns and rows, and the step between slices.
GEOMETRIES = {
    "axial": {},
    "from head to feet": {"step": (0.0, 0.0, -8.0)},
    "flipped in plane": {"across": (-1.0, 0.0, 0.0), "down": (0.0, -1.0, 0.0)},
    "sagittal": {"across": (0.0, 1.0, 0.0), "down": (0.0, 0.0, -1.0), "step": (3.0, 0.0, 0.0)},
    "oblique": {"across": SLANTED[0], "down": SLANTED[1], "step": 5 * NORMAL},
    "without attributes that may be absent": {"SliceThickness": None, "InstanceNumber": None, "SeriesNumber": None},
    "oblique and backwards": {"across": SLANTED[0], "down": SLANTED[1], "step": -5 * NORMAL},
}


def labels(seed=0):
    """Random voxels of three structures; the first slice is empty, and so is a structure."""
    label = np.random.default_rng(seed).choice(np.array([0, 5, 2, 300], np.uint16), SHAPE, p=(0.7, 0.1, 0.1, 0.1))
    label[0] = 0
    return label


class Random(FewShotPredictor):
    """Finds the same voxels in every scan."""

    def __init__(self):
        self.structures = STRUCTURES
        self.segmenter = SimpleNamespace(method=object())

    def segment(self, image, name="the scan", *, with_probabilities=False):
        return ScanSegmentation(Volume(labels(), image.affine), dict.fromkeys(STRUCTURES, 0.5))


@pytest.fixture
def series(tmp_path, write_dicom):
    def write(name="series", **options):
        array = np.random.default_rng(1).integers(0, 900, SHAPE).astype(np.uint16)
        options = {"FrameOfReferenceUID": FRAME_OF_REFERENCE} | options
        write_dicom(tmp_path / name, array, **options)
        return tmp_path / name

    return write


def segment(folder, out):
    failures: dict[str, str] = {}
    further = Further(dicom_seg=failures)
    assert segment_scans(Random(), name_scans(find_scans(folder)), out, {}, further) == 1
    return failures


def read_with_pydicom(path):
    """Position (LPS, 0.001 mm) of each marked voxel of each segment; frames are put together here."""
    content = pydicom.dcmread(path)
    (shared,) = content.SharedFunctionalGroupsSequence
    rows_mm, columns_mm = map(float, shared.PixelMeasuresSequence[0].PixelSpacing)
    axes = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float).reshape(2, 3)
    found: dict[int, list[np.ndarray]] = {}
    bits = np.unpackbits(np.frombuffer(content.PixelData, np.uint8), bitorder="little")
    size = content.Rows * content.Columns
    for number, frame in enumerate(content.PerFrameFunctionalGroupsSequence):
        mask = bits[number * size : (number + 1) * size].reshape(content.Rows, content.Columns)
        origin = np.array(frame.PlanePositionSequence[0].ImagePositionPatient, float)
        places = np.argwhere(mask)
        points = origin + places[:, 1:] * columns_mm * axes[0] + places[:, :1] * rows_mm * axes[1]
        segment = frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        found.setdefault(segment, []).append(points)
    return {segment: rounded(np.concatenate(points)) for segment, points in found.items()}


def read_with_dcmqi(path, folder):
    """The same by DCMTK's segmentation classes and ITK's geometry."""
    folder.mkdir()
    program = Path(sys.executable).with_name("segimage2itkimage")
    command = [program, "--inputDICOM", path, "--outputDirectory", folder, "--outputType", "nrrd"]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    found = {}
    for file in sorted(folder.glob("*.nrrd")):
        image = SimpleITK.ReadImage(str(file))
        places = np.argwhere(SimpleITK.GetArrayFromImage(image))[:, ::-1].tolist()
        points = np.array([image.TransformIndexToPhysicalPoint(place) for place in places]).reshape(-1, 3)
        found[int(file.stem.rpartition("-")[2])] = rounded(points)
    return found, json.loads(next(folder.glob("*.json")).read_text())


def expected(nifti):
    """The same from the label map in NIfTI."""
    volume = read_nifti(nifti)
    found = {}
    for number, value in enumerate(STRUCTURES.values(), start=1):
        places = np.argwhere(volume.array == value)[:, ::-1]
        points = places @ volume.affine[:3, :3].T + volume.affine[:3, 3]
        found[number] = rounded(points * (-1, -1, 1))
    return found


def rounded(points):
    return {tuple(point) for point in (np.round(points, 2) + 0.0).tolist()}


def assert_same(found, wanted):
    """Every voxel, up to 0.02 mm."""
    for segment, points in wanted.items():
        others = np.array(sorted(found.get(segment, set()))).reshape(-1, 3)
        assert len(others) == len(points)
        if points:
            distance = np.linalg.norm(np.array(sorted(points))[:, None] - others[None], axis=-1)
            assert distance.min(1).max() < 0.02
            assert distance.min(0).max() < 0.02


def test_slices_of_a_tilted_gantry(series, tmp_path):
    assert not segment(series(step=(0.0, 1.5, 8.0)), tmp_path / "out")  # dcmqi has no tilted grids
    wanted = expected(tmp_path / "out/series_segmentation.nii.gz")
    assert_same(read_with_pydicom(tmp_path / "out/series_segmentation.dcm"), wanted)


@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES.keys())
def test_voxels_are_those_of_the_label_map(series, tmp_path, geometry):
    assert not segment(series(**geometry), tmp_path / "out")
    wanted = expected(tmp_path / "out/series_segmentation.nii.gz")
    assert [len(points) > 100 for points in wanted.values()] == [True, True, True, False]
    path = tmp_path / "out/series_segmentation.dcm"
    assert_same(read_with_pydicom(path), wanted)
    found, _ = read_with_dcmqi(path, tmp_path / "read")
    assert_same(found, wanted)


def test_segments_are_named_and_refer_to_the_series(series, tmp_path):
    folder = series(**PATIENT, StudyDate="20260102", InstitutionName="A hospital", DeviceSerialNumber="1")
    segment(folder, tmp_path / "out")
    path = tmp_path / "out/series_segmentation.dcm"
    content = pydicom.dcmread(path)
    assert content.SOPClassUID.name == "Segmentation Storage"
    assert [each.SegmentLabel for each in content.SegmentSequence] == list(STRUCTURES)
    liver, kidney, thing, _ = content.SegmentSequence
    assert liver.SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "Liver"
    (code,) = kidney.SegmentedPropertyTypeCodeSequence
    assert (code.CodeMeaning, code.SegmentedPropertyTypeModifierCodeSequence[0].CodeMeaning) == ("Kidney", "Left")
    assert thing.SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "Anatomical Structure"
    assert (liver.SegmentAlgorithmType, liver.TrackingID) == ("AUTOMATIC", "LIVER")
    assert liver.SegmentationAlgorithmIdentificationSequence[0].AlgorithmName == "FrugalSeg object"
    assert len({each.TrackingUID for each in content.SegmentSequence}) == 4
    sources = [pydicom.dcmread(file) for file in sorted(folder.iterdir())]
    (referred,) = content.ReferencedSeriesSequence
    assert referred.SeriesInstanceUID == sources[0].SeriesInstanceUID
    assert {each.ReferencedSOPInstanceUID for each in referred.ReferencedInstanceSequence} == {
        each.SOPInstanceUID for each in sources
    }
    assert content.FrameOfReferenceUID == FRAME_OF_REFERENCE
    assert content.StudyInstanceUID == sources[0].StudyInstanceUID
    assert {name: str(content[name].value) for name in PATIENT} == PATIENT
    assert b"A hospital" not in path.read_bytes()
    assert b"Philips" not in path.read_bytes()
    _, described = read_with_dcmqi(path, tmp_path / "read")
    colours = [each[0]["recommendedDisplayRGBValue"] for each in described["segmentAttributes"]]
    assert np.abs(np.array(colours[:2]) - [[230, 159, 0], [86, 180, 233]]).max() <= 2  # of the overlays


@pytest.mark.parametrize(
    ("encoding", "name"), [("ISO_IR 100", "Müller^Jörg"), ("ISO_IR 144", "Люкceмбypг"), ("ISO_IR 192", "王^小東")]
)
def test_names_keep_their_letters(series, tmp_path, monkeypatch, encoding, name):
    monkeypatch.setitem(STRUCTURES, "Läsion 肝", 77)
    segment(series(SpecificCharacterSet=encoding, PatientName=name), tmp_path / "out")
    content = pydicom.dcmread(tmp_path / "out/series_segmentation.dcm")
    assert str(content.PatientName) == name
    assert content.SegmentSequence[-1].SegmentLabel == "Läsion 肝"


def test_decimals_are_no_longer_than_dicom_allows(series, tmp_path):
    spacing, position = (1.2345678901234567, 1.1111111111111112), (-40.123456789012345, 1 / 3, 100.0)
    folder = series(SliceThickness=7.699999809265137, pixel_mm=spacing)
    for number, file in enumerate(sorted(folder.iterdir())):
        header = pydicom.dcmread(file)
        header["ImagePositionPatient"].value = [position[0], position[1], position[2] + 8 * number]
        header.save_as(file)
    assert not segment(folder, tmp_path / "out")
    content = pydicom.dcmread(tmp_path / "out/series_segmentation.dcm")
    measures = content.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    frame = content.PerFrameFunctionalGroupsSequence[0]
    places = frame.PlanePositionSequence[0].ImagePositionPatient
    for numbers, wanted in ((measures.PixelSpacing, spacing), (places[:2], position[:2])):
        assert max(len(str(number)) for number in numbers) <= 16
        np.testing.assert_allclose(np.array(numbers, float), wanted, rtol=1e-8)
    assert str(measures.SliceThickness) == "7.69999981"


def test_the_log_is_silent_about_the_series(series, tmp_path, caplog):
    with caplog.at_level("DEBUG"):
        segment(series(**PATIENT, StudyInstanceUID="1.2.3.4567"), tmp_path / "out")
    assert "1.2.3.4567" not in caplog.text
    assert not [record for record in caplog.records if record.name.startswith(("highdicom", "pydicom"))]


def test_an_anonymous_series_stays_anonymous(series, tmp_path):
    segment(series(), tmp_path / "out")
    content = pydicom.dcmread(tmp_path / "out/series_segmentation.dcm")
    assert all(not content[name].value for name in PATIENT)


def test_what_a_segmentation_cannot_refer_to_fails_alone(series, tmp_path):
    failures = segment(series(FrameOfReferenceUID=""), tmp_path / "out")
    assert "no FrameOfReferenceUID" in failures["series"]
    assert (tmp_path / "out/series_segmentation.nii.gz").exists()
    assert not (tmp_path / "out/series_segmentation.dcm").exists()


def enhanced(folder, order):
    """A multi-frame file whose frames are stored in this order of height."""
    content = Dataset()
    content.file_meta = FileMetaDataset()
    content.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    content.SOPClassUID, content.SOPInstanceUID = EnhancedMRImageStorage, UID("1.2.3.7")
    content.file_meta.MediaStorageSOPClassUID = content.SOPClassUID
    content.file_meta.MediaStorageSOPInstanceUID = content.SOPInstanceUID
    content.Modality, content.SeriesInstanceUID, content.StudyInstanceUID = "MR", "1.2.3", "1.2.3.0"
    content.FrameOfReferenceUID, content.NumberOfFrames = FRAME_OF_REFERENCE, len(order)
    content.SamplesPerPixel, content.PhotometricInterpretation = 1, "MONOCHROME2"
    content.Rows, content.Columns = SHAPE[1:]
    content.BitsAllocated, content.BitsStored, content.HighBit, content.PixelRepresentation = 16, 16, 15, 0
    shared, orientation, measures = Dataset(), Dataset(), Dataset()
    orientation.ImageOrientationPatient, measures.PixelSpacing = [1, 0, 0, 0, 1, 0], [1.5, 2]
    measures.SliceThickness = 4
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = Sequence([orientation]), Sequence([measures])
    content.SharedFunctionalGroupsSequence = Sequence([shared])
    frames = []
    for place in order:
        frame, position = Dataset(), Dataset()
        position.ImagePositionPatient = [-10, -20, 4.0 * place]
        frame.PlanePositionSequence = Sequence([position])
        frames.append(frame)
    content.PerFrameFunctionalGroupsSequence = Sequence(frames)
    array = np.random.default_rng(1).integers(0, 900, (len(order), *SHAPE[1:])).astype(np.uint16)
    content.PixelData = array.tobytes()
    folder.mkdir()
    content.save_as(folder / "all.dcm", enforce_file_format=True)
    return folder


def test_frames_of_a_multi_frame_file_in_any_order(tmp_path):
    assert not segment(enhanced(tmp_path / "series", (3, 0, 5, 1, 4, 2)), tmp_path / "out")
    wanted = expected(tmp_path / "out/series_segmentation.nii.gz")
    assert_same(read_with_pydicom(tmp_path / "out/series_segmentation.dcm"), wanted)
    found, _ = read_with_dcmqi(tmp_path / "out/series_segmentation.dcm", tmp_path / "read")
    assert_same(found, wanted)


def test_a_multi_frame_file_of_which_frames_were_left_out_is_refused(tmp_path):
    slices = read_series(enhanced(tmp_path / "series", range(SHAPE[0]))).slices
    with pytest.raises(DataError, match="of which 5 frames are the scan"):
        write_dicom_seg(tmp_path / "a.dcm", labels()[1:], STRUCTURES, source_of(slices[1:]), "ALPNet")


def test_a_result_is_no_scan_of_a_later_run_and_goes_with_its_label_map(series, tmp_path):
    folder = series()
    segment(folder, folder / "out")
    assert (folder / "out/series_segmentation.dcm").exists()
    scans = name_scans(find_scans(folder))
    assert list(scans) == ["series"]
    removed: list[str] = []
    assert segment_scans(Random(), scans, folder / "out", {}, Further(removed=removed)) == 1
    assert removed == ["series_segmentation.dcm"]


@pytest.mark.parametrize(("name", "meaning"), [("Left kidney", "Kidney"), ("KID_R", "Kidney"), ("SPLEEN", "Spleen")])
def test_known_names(name, meaning):
    assert code_of(name)[0].meaning == meaning
