"""Segmentation of people's scans by networks of several sources: geometry, frames, files."""

import csv
import dataclasses

import numpy as np
import pytest
import torch
from nibabel.nifti1 import Nifti1Image, load
from torch import nn

import models
from dataloaders.description import ClassSpec, DatasetSpec, GridRule
from dataloaders.io.nifti import read_frames, read_nifti, write_nifti
from dataloaders.samples import JointBatch, StoredGeometry, Volume
from dataloaders.scans.normalise import Normalisation
from dataloaders.scans.preprocess import PrepareParameters, parameters_of
from dataloaders.sources.frames import SliceRule
from models.methods.base import Method
from models.predict import main
from models.prediction.batch import Inventory
from models.prediction.fewshot import FewShotPredictor
from models.prediction.scan_search import find_scans
from models.prediction.sources import SourcesPredictor
from models.training.average import AverageConfig
from models.training.optim import OptimConfig
from models.training.state import build_state
from util.errors import CheckpointError, ConfigError, DataError, UserError
from util.runtime import checkpoint

SPEC = DatasetSpec(
    "HEARTS", "scans", classes=(ClassSpec("LV", value=10), ClassSpec("RV", value=300)),
    grid=GridRule(size_px=52, in_plane_mm=1.5, axis_codes="stored"),
)  # fmt: skip
RULE = SliceRule((0.0, 100.0), 48)
OBLIQUE = np.array([[-1.4, 0.2, 0.4, 38], [0.15, 1.2, -1.5, -35], [-0.1, 0.3, 5.0, -24], [0, 0, 0, 1]])
GRIDS = {
    "anisotropic": ((12, 60, 50), np.array([[1.6, 0, 0, -40], [0, -1.3, 0, 39], [0, 0, 4.0, -22], [0, 0, 0, 1]])),
    "oblique": ((11, 64, 56), OBLIQUE),
}


@dataclasses.dataclass(frozen=True)
class BandsConfig:
    """Nothing to set."""


class Bands(Method):
    """Marks two bands of the range of each slice."""

    Config = BandsConfig
    family = "sources"
    batch_type = JointBatch

    def __init__(self, config=None):
        super().__init__()
        self.edges = nn.Parameter(torch.tensor([0.4, 0.6, 0.8]))
        self.sizes = []

    def forward(self, batch):
        return {"loss": self.edges.sum()}

    def probabilities(self, case, support=None):
        self.sizes.append(tuple(case.image.shape))
        low, middle, high = self.edges
        image = case.image[:, 0]
        return torch.stack([(image > low) & (image < middle), (image >= middle) & (image < high)]).float()


def patient(shape, affine, shift_mm=0.0):
    """A scan and its label map: two ellipsoids of a patient without any symmetry, and a bright rod along all slices."""
    z, y, x = np.indices(shape).reshape(3, -1)
    places = (affine @ np.stack([x, y, z, np.ones_like(x)]))[:3].T
    label = np.zeros(len(places), np.uint8)
    for value, centre, radii in ((1, (-8.0, 3.0, -2.0), (8, 11, 15)), (2, (9.0, -4.0, 3.0), (7, 8, 14))):
        label[(((places - centre - (shift_mm, 0, 0)) / radii) ** 2).sum(1) < 1] = value
    image = np.choose(label, [0, 200, 280])
    image[(np.abs(places[:, 0] - 24) < 4) & (np.abs(places[:, 1] - 18) < 4)] = 400
    values = np.array([0, 10, 300], np.uint16)[label]
    return image.reshape(shape).astype(np.int16), values.reshape(shape)


def predictor(parameters=None, **changes):
    return SourcesPredictor(Bands(), dataclasses.replace(RULE, **changes), parameters or parameters_of(SPEC), SPEC)


def overlap(found, wanted, value):
    return 2 * ((found == value) & (wanted == value)).sum() / ((found == value).sum() + (wanted == value).sum())


@pytest.mark.parametrize("axes", ["stored", "LAS"])
@pytest.mark.parametrize("name", GRIDS)
def test_structures_are_found_where_they_are(name, axes):
    shape, affine = GRIDS[name]
    image, wanted = patient(shape, affine)
    stored = StoredGeometry(2, 0, "mm", (1.0,) * 4, (0.0,) * 3, (0.0,) * 3, tuple(map(tuple, affine[:3].tolist())))
    parameters = dataclasses.replace(parameters_of(SPEC), axis_codes=axes)
    (found,) = predictor(parameters).predict([Volume(image, affine, stored)])
    assert found.array.shape == shape
    assert found.array.dtype == np.uint16
    np.testing.assert_array_equal(found.affine, affine)
    assert found.stored == stored
    for value in (10, 300):
        best = overlap(found.array, wanted, value)
        assert best > 0.85  # edges are blurred by resampling
        moved = [np.roll(found.array, step, axis) for axis in range(3) for step in (-1, 1)]
        assert all(overlap(each, wanted, value) < best for each in moved)


def test_slices_are_prepared_as_in_training():
    shape, affine = GRIDS["anisotropic"]
    one = predictor()
    one.predict([Volume(patient(shape, affine)[0], affine)])
    assert one.segmenter.method.sizes == [(12, 1, 48, 48)]
    with pytest.raises(DataError, match="NaN or infinite"):
        one.predict([Volume(np.full(shape, np.nan), affine)])


def test_frames_are_segmented_each():
    shape, affine = GRIDS["oblique"]
    scans = [patient(shape, affine, shift) for shift in (0.0, 4.0, -3.0)]
    found = predictor().predict([Volume(image, affine) for image, _ in scans])
    assert len(found) == 3
    for label_map, (_, wanted) in zip(found, scans, strict=True):
        overlaps = [overlap(label_map.array, truth, 10) for _, truth in scans]
        assert overlaps[np.argmax(overlaps)] == overlap(label_map.array, wanted, 10) > 0.85
    other = Volume(scans[0][0], affine + 1)
    with pytest.raises(DataError, match=r"at different places; expected one grid"):
        predictor().predict([Volume(scans[0][0], affine), other])
    with pytest.raises(DataError, match="no frames"):
        predictor().predict([])


@pytest.fixture
def inputs(tmp_path, monkeypatch, write_dicom):
    """A checkpoint of a toy method, and scans: 3-D, 4-D, DICOM and damaged."""
    monkeypatch.setitem(models.METHODS, "bands", Bands)
    preparation = parameters_of(SPEC).to_json()
    preparation |= {"slices": {"percentiles": [0.0, 100.0], "crop_px": 48, "reference": []}}
    state = build_state(
        {"method": "bands", "dataset": "HEARTS"}, 0, OptimConfig(), AverageConfig(), Normalisation(),
        torch.device("cpu"), preparation, spec=SPEC,
    )  # fmt: skip
    checkpoint.save(tmp_path / "snapshot.pth", state.snapshot())
    shape, affine = GRIDS["oblique"]
    frames = np.stack([noisy(patient(shape, affine, shift)[0]) for shift in (0.0, 4.0)], -1)  # (D, H, W, T)
    image = Nifti1Image(frames.transpose(2, 1, 0, 3), affine)
    image.header.set_xyzt_units("mm", "msec")
    image.header["pixdim"][4] = 35.5
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans" / "cine.nii").write_bytes(image.to_bytes())
    write_nifti(tmp_path / "scans" / "single.nii.gz", Volume(noisy(patient(*GRIDS["anisotropic"])[0]), affine))
    (tmp_path / "scans" / "broken.nii.gz").write_bytes(b"no scan")
    write_dicom(tmp_path / "scans" / "series", noisy(patient(shape, affine)[0]).clip(0).astype(np.uint16))
    return tmp_path


def noisy(image):
    return (image + np.random.default_rng(0).integers(0, 9, image.shape)).astype(np.int16)


def run(inputs, out, *further):
    given = [f"--checkpoint={inputs / 'snapshot.pth'}", f"--out={out}", "--device=cpu", *further]
    return main([*given, "--scans", str(inputs / "scans")])


def test_scans_of_any_kind_are_segmented_and_the_others_reported(inputs, caplog):
    out = inputs / "out"
    assert run(inputs, out, "--overlays") == 1
    names = ("cine", "single", "series")  # files, then folders
    assert {path.name for path in out.iterdir()} == {
        *("volumes.csv", "segmentations.html", "labels.txt", "labels.ctbl"),
        *(f"{name}{end}" for name in names for end in ("_segmentation.nii.gz", "_overlay.png")),
    }  # fmt: skip
    (failed,) = [message for message in caplog.messages if message.startswith("not segmented: ")]
    assert "broken.nii.gz" in failed
    source, found = load(inputs / "scans" / "cine.nii"), load(out / "cine_segmentation.nii.gz")
    assert found.shape == source.shape
    np.testing.assert_array_equal(found.affine, source.affine)
    assert found.header["pixdim"][4] == pytest.approx(35.5)
    assert found.header.get_xyzt_units() == ("mm", "msec")
    first, second = read_frames(out / "cine_segmentation.nii.gz")
    assert set(np.unique(first.array)) == {0, 10, 300}
    assert (first.array != second.array).any()
    assert load(out / "single_segmentation.nii.gz").ndim == 3
    with (out / "volumes.csv").open() as stream:
        records = list(csv.DictReader(stream))
    assert list(records[0]) == ["scan", "frame", "label", "structure", "voxels", "volume_ml", "confidence", "review"]
    assert all(0 <= float(each["confidence"]) <= 1 for each in records if each["voxels"] != "0")
    keys = [(each["scan"], each["frame"], each["label"], each["structure"]) for each in records]
    classes = (("10", "LV"), ("300", "RV"))
    assert keys == [
        *(("cine", frame, *each) for frame in "01" for each in classes),
        *((name, "", *each) for name in names[1:] for each in classes),
    ]
    voxel_ml = abs(np.linalg.det(OBLIQUE[:3, :3])) / 1000
    count = int((second.array == 300).sum())
    assert int(records[3]["voxels"]) == count
    assert float(records[3]["volume_ml"]) == pytest.approx(count * voxel_ml, abs=1e-3)


def test_results_are_kept_unless_told_otherwise(inputs):
    out = inputs / "out"
    run(inputs, out)
    with pytest.raises(UserError, match=r"exists already .*--overwrite"):
        run(inputs, out)
    before = (out / "volumes.csv").read_text()
    assert run(inputs, out, "--overwrite") == 1
    assert (out / "volumes.csv").read_text() == before


def test_probabilities_are_written_as_the_label_maps_are(inputs):
    out = inputs / "out"
    run(inputs, out, "--probabilities")
    for name in ("cine", "single", "series"):
        label = load(out / f"{name}_segmentation.nii.gz")
        for structure, value in (("LV", 10), ("RV", 300)):
            image = load(out / f"{name}_{structure}_probability.nii.gz")
            assert image.get_data_dtype() == np.float32
            assert image.shape == label.shape
            np.testing.assert_array_equal(image.affine, label.affine)
            found = np.asarray(image.dataobj)
            assert 0 <= found.min() < 0.01 < 0.99 < found.max() <= 1
            assert 2 * ((found > 0.5) & (np.asarray(label.dataobj) == value)).sum() > 1.9 * (found > 0.5).sum()
    inventory = Inventory()
    assert not {path.name for path in find_scans(inputs, inventory) if "probability" in path.name}
    assert sum("probability" in path.name for path in inventory.left_out) == 6
    run(inputs, out, "--overwrite")
    assert not list(out.glob("*probability*"))


@pytest.mark.parametrize("further", [(), ("--dicom-seg",)])
def test_one_series_of_a_folder_with_several_is_segmented(inputs, write_dicom, further):
    shape, affine = GRIDS["oblique"]
    for number in (2, 3):
        image = noisy(patient(shape, affine)[0]).clip(0).astype(np.uint16)[number:]
        folder = inputs / f"part{number}"
        write_dicom(folder, image, series=f"1.2.{number}", SeriesNumber=number, FrameOfReferenceUID="1.2")
        for path in folder.iterdir():
            path.rename(inputs / "scans" / "series" / f"{number}{path.name}")
    out = inputs / "out"
    run(inputs, out, *further)
    assert not (out / "series_segmentation.nii.gz").exists()
    run(inputs, out, "--overwrite", "--series=3", *further)
    assert load(out / "series_segmentation.nii.gz").shape[2] == shape[0] - 3


def test_options_of_other_families_are_refused(inputs):
    with pytest.raises(ConfigError, match=r"^--images, --support-image: not for .*several sources .*expected --scans"):
        run(inputs, inputs / "out", "--images", "x", "--support-image=y")
    with pytest.raises(ConfigError, match=r"^--scans: missing"):
        main([f"--checkpoint={inputs / 'snapshot.pth'}", f"--out={inputs / 'out'}"])
    with pytest.raises(CheckpointError, match=r"method bands is of several sources .*; expected .* few-shot"):
        FewShotPredictor.from_checkpoint(inputs / "snapshot.pth")


def test_a_checkpoint_says_how_scans_and_slices_are_prepared(inputs):
    found = SourcesPredictor.from_checkpoint(inputs / "snapshot.pth", "ema", "cpu")
    assert (found.rule, found.parameters, found.spec) == (RULE, parameters_of(SPEC), SPEC)
    assert isinstance(found.parameters, PrepareParameters)
    assert found.structures == {"LV": 10, "RV": 300}
    scan = read_nifti(inputs / "scans" / "single.nii.gz")
    run(inputs, inputs / "out")
    written = read_nifti(inputs / "out" / "single_segmentation.nii.gz")
    np.testing.assert_array_equal(found.predict([scan])[0].array, written.array)
    content = checkpoint.load(inputs / "snapshot.pth")
    del content["preparation"]["slices"]
    checkpoint.save(inputs / "other.pth", content)
    with pytest.raises(CheckpointError, match="does not say how slices are normalised"):
        SourcesPredictor.from_checkpoint(inputs / "other.pth")
