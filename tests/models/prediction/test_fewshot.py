import dataclasses
import logging
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from dataloaders.catalog import dataset
from dataloaders.fewshot.config import FewShotConfig
from dataloaders.fewshot.data import open_fewshot
from dataloaders.fewshot.protocol import blind_parts, support_slices
from dataloaders.samples import StoredGeometry, Volume
from dataloaders.scans.normalise import Normalisation
from dataloaders.scans.preprocess import PrepareParameters
from models.methods.alpnet import ALPNet, ALPNetConfig
from models.prediction.annotated import Annotated
from models.prediction.fewshot import FewShotPredictor
from util.errors import ConfigError, DataError, UserError

CHAOST2 = dataset("CHAOST2")

SPACING_MM = (4.0, 2.0, 2.0)
PARAMETERS = PrepareParameters("LAS", None, None, 0.0, SPACING_MM, 32, "clean")
INTENSITIES = Normalisation(0.0, 1.0)  # as they are


class ByIntensity(ALPNet):
    """Marks what is about as bright as the annotated pixels of a slice's part, and remembers what it was given."""

    def __init__(self, half_width=40.0):
        nn.Module.__init__(self)
        self.config = ALPNetConfig()
        self.half_width = half_width

    def encode_support(self, support):
        self.support = support
        pixels = torch.where(support.mask, support.image[:, :, :, 0], torch.nan)
        return torch.nanmedian(pixels.flatten(2), 2).values  # (K, P)

    def probabilities(self, case, support: Any):
        self.case = case
        typical = support.gather(1, case.part)[..., None, None]
        margin = self.half_width - (case.image[None, :, 0] - typical).abs()
        return (margin / 100).sigmoid()


def patient(shape, affine, brightness=(200, 300)):
    """A scan and its label map, sampled from a patient with two structures (values 1, 2) without any symmetry."""
    z, y, x = np.indices(shape).reshape(3, -1)
    places = (affine @ np.stack([x, y, z, np.ones_like(x)]))[:3]
    label = np.zeros(x.size, np.uint8)
    for value, centre, radii in ((1, (-9.1, 4.2, -3.3), (8, 11, 15)), (2, (8.3, -3.7, 6.9), (7, 6, 12))):
        label[(((places.T - centre) / radii) ** 2).sum(1) < 1] = value
    image = np.choose(label, [100, *brightness]).astype(np.int16)
    return Volume(image.reshape(shape), affine), Volume(label.reshape(shape), affine)


def grid(columns, rows, slices, shape=(12, 24, 22), turn_deg=0.0):
    """An affine with axes along signed unit vectors of the patient, turned about x, centred on the origin."""
    angle = np.deg2rad(turn_deg)
    turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.column_stack([columns, rows, slices])
    affine[:3, 3] = -affine[:3, :3] @ (np.array(shape[::-1]) - 1) / 2
    return shape, affine


AXIAL = grid((-2, 0, 0), (0, 2, 0), (0, 0, 4))
GRIDS = {
    "as prepared": AXIAL,
    "dicom": grid((-2, 0, 0), (0, -2, 0), (0, 0, 4)),
    "feet last": grid((2, 0, 0), (0, 2, 0), (0, 0, -4)),
    "coronal": grid((2, 0, 0), (0, 0, -4), (0, 2, 0), (24, 12, 22)),
    "sagittal": grid((0, -2, 0), (0, 0, 4), (2, 0, 0), (22, 12, 24)),
    "oblique": grid((-2, 0, 0), (0, -2, 0), (0, 0, 4), turn_deg=20),
    "longer": grid((-2, 0, 0), (0, 2, 0), (0, 0, 4), (14, 40, 36)),
}


def make_predictor(half_width=40.0, normalisation=INTENSITIES, n_parts=3, support=AXIAL, classes=None):
    predictor = FewShotPredictor(ByIntensity(half_width), normalisation, PARAMETERS, n_parts)
    predictor.set_support(*patient(*support), classes)
    return predictor


@pytest.mark.parametrize("name", GRIDS)
def test_label_maps_come_back_exactly_on_the_scans_own_grid(name):
    image, truth = patient(*GRIDS[name])
    before = image.array.copy()
    result = make_predictor().predict(image)
    assert result.array.dtype == np.uint8
    np.testing.assert_array_equal(result.affine, image.affine)
    np.testing.assert_array_equal(result.array, truth.array)
    assert (np.bincount(truth.array.ravel()) > 100).all()  # else nothing was compared
    np.testing.assert_array_equal(image.array, before)


@pytest.mark.parametrize("name", GRIDS)
def test_probabilities_lie_on_the_scans_own_grid(name):
    image, truth = patient(*GRIDS[name])
    predictor = make_predictor()
    assert predictor.segment(image).probabilities == {}
    found = predictor.segment(image, with_probabilities=True).probabilities
    assert list(found) == ["label 1", "label 2"]
    for value, each in enumerate(found.values(), start=1):
        assert each.array.dtype == np.float32
        np.testing.assert_array_equal(each.affine, image.affine)
        np.testing.assert_array_equal(each.array > 0.5, truth.array == value)


@pytest.mark.parametrize("name", GRIDS)
def test_the_annotated_scan_may_have_any_orientation(name):
    image, truth = patient(*AXIAL)
    np.testing.assert_array_equal(make_predictor(support=GRIDS[name]).predict(image).array, truth.array)


def test_other_spacings_are_resampled_there_and_back():
    shape, affine = grid((1.1, 0, 0), (0, -1.3, 0), (0, 0, 2.5), (19, 37, 40), turn_deg=10)
    image, truth = patient(shape, affine)
    result = make_predictor().predict(image)
    assert result.array.shape == shape
    for value in (1, 2):
        found, true = result.array == value, truth.array == value
        assert 2 * (found & true).sum() / (found.sum() + true.sum()) > 0.85


def test_label_map_may_count_its_axes_in_other_directions():
    image, label = patient(*AXIAL)
    turned = Volume(label.array[:, ::-1].astype(np.float32), label.affine @ np.diag([1, -1, 1, 1.0]))
    turned.affine[:3, 3] += label.affine[:3, 1] * (label.array.shape[1] - 1)
    predictor = make_predictor()
    predictor.set_support(image, turned)
    np.testing.assert_array_equal(predictor.predict(image).array, label.array)


def test_values_and_names_are_the_users_own():
    image, label = patient(*AXIAL)
    own = Volume(np.array([0, 700, 3], np.int32)[label.array], label.affine)
    predictor = make_predictor()
    predictor.set_support(image, own)
    assert predictor.structures == {"label 3": 3, "label 700": 700}
    np.testing.assert_array_equal(predictor.predict(image).array, own.array)
    predictor.set_support(image, own, {"liver": 700})
    assert predictor.structures == {"liver": 700}
    np.testing.assert_array_equal(predictor.predict(image).array, np.where(own.array == 700, 700, 0))
    predictor.set_support(image, own, [3])
    np.testing.assert_array_equal(predictor.predict(image).array, np.where(own.array == 3, 3, 0))


def test_values_beyond_16_bit_and_scaled_ones_are_taken():
    image, label = patient(*AXIAL)
    own = Volume(np.array([0, 614_454_277, 3], np.float64)[label.array] * (1 - 1e-12), label.affine)
    predictor = make_predictor()
    predictor.set_support(image, own)
    assert predictor.structures == {"label 3": 3, "label 614454277": 614_454_277}
    np.testing.assert_array_equal(predictor.predict(image).array, np.rint(own.array))
    predictor.set_support(image, changed(label, lambda a: a * np.float32(0.99999994)))
    np.testing.assert_array_equal(predictor.predict(image).array, label.array)


def test_a_result_carries_the_header_fields_of_its_scan():
    image, _ = patient(*AXIAL)
    stored = StoredGeometry(2, 0, "micron", (1.0,) * 4, (0.0,) * 3, (0.0,) * 3, ((0.0,) * 4,) * 3)
    assert make_predictor().predict(Volume(image.array, image.affine, stored)).stored == stored


@pytest.mark.parametrize("dtype", [np.int64, np.uint64, np.float16, np.float64, np.uint8])
def test_scans_of_every_number_type(dtype):
    image, truth = patient(*AXIAL, brightness=(180, 240))
    predictor = make_predictor(half_width=20)
    predictor.set_support(image, truth)
    result = predictor.predict(Volume(image.array.astype(dtype), image.affine))
    np.testing.assert_array_equal(result.array, truth.array)


def test_a_label_map_without_a_position_is_not_to_be_resampled():
    image, label = patient(*AXIAL)
    for affine in (np.eye(4), np.diag([-1.0, -1, 1, 1])):
        with pytest.raises(DataError, match=r"no position .*copy the image's header to it\. Do not resample"):
            make_predictor().set_support(image, Volume(label.array, affine))


def test_scans_that_are_none_are_refused_or_warned_of(caplog):
    predictor, (image, _) = make_predictor(), patient(*AXIAL)
    with pytest.raises(DataError, match="every voxel is 0: no image"):
        predictor.predict(Volume(np.zeros_like(image.array), image.affine))
    predictor.parameters = dataclasses.replace(PARAMETERS, window_hu=(-125.0, 275.0))
    with pytest.raises(DataError, match=r"from 0 to 1: a range of 1; expected a CT in Hounsfield units"):
        predictor.predict(Volume((image.array > 150).astype(np.float32), image.affine))
    predictor.predict(image, "scan 7")
    assert "scan 7: intensities from 100 to 300, none below -200 HU" in caplog.text


def test_thick_coronal_slices_are_warned_of(caplog):
    shape, affine = grid((2, 0, 0), (0, 0, -2), (0, 6, 0), (9, 24, 22))
    make_predictor().predict(patient(shape, affine)[0], "scan 7")
    assert "scan 7: coronal slices 6 mm apart" in caplog.text


def test_a_contested_voxel_goes_to_the_most_probable_structure():
    predictor = make_predictor(half_width=90.0)  # typical: 200 and 300
    shape, affine = AXIAL
    image = Volume(np.full(shape, 100, np.int16), affine)
    image.array[5, 8:16, 3:9], image.array[5, 8:16, 9:15] = 240, 260
    expected = np.zeros(shape, np.uint8)
    expected[5, 8:16, 3:9], expected[5, 8:16, 9:15] = 1, 2
    np.testing.assert_array_equal(predictor.predict(image).array, expected)


@pytest.mark.parametrize("name", ["as prepared", "feet last", "longer"])
def test_parts_follow_relative_heights_from_feet_to_head(name):
    shape, affine = AXIAL
    image, label = patient(shape, affine)
    label.array[label.array == 2] = 0
    shown = np.flatnonzero(label.array.any((1, 2)))
    chosen = shown[[int(len(shown) * share) for share in (1 / 6, 1 / 2, 5 / 6)]].tolist()
    method = ByIntensity()
    predictor = FewShotPredictor(method, INTENSITIES, PARAMETERS)
    predictor.set_support(image, label)
    for part, z in enumerate(chosen):
        np.testing.assert_allclose(method.support.image[0, part, 0, 0, 4:28, 5:27], image.array[z], atol=1)
    scan, _ = patient(*GRIDS[name])
    predictor.predict(scan)
    expected = blind_parts(len(scan.array), chosen, len(image.array))
    assert sorted(set(expected)) == [0, 1, 2]
    np.testing.assert_array_equal(method.case.part[0], expected)


def test_mr_is_normalised_per_scan():
    predictor = make_predictor(half_width=0.5, normalisation=Normalisation())
    image, truth = patient(*AXIAL)
    other_scanner = Volume(image.array * 5 + 37, image.affine)
    np.testing.assert_array_equal(predictor.predict(other_scanner).array, truth.array)


def test_predict_needs_a_support():
    predictor = FewShotPredictor(ByIntensity(), INTENSITIES, PARAMETERS)
    with pytest.raises(UserError, match="call set_support"):
        predictor.predict(patient(*AXIAL)[0])


def changed(volume, function):
    array = volume.array.astype(np.float32)
    return Volume(function(array), volume.affine)


def with_value(array, value):
    array[0, 0, 0] = value
    return array


@pytest.mark.parametrize(
    ("change_image", "change_label", "message"),
    [
        (lambda a: with_value(a, np.nan), None, "image contains NaN"),
        (lambda a: a[None], None, "image is an array of shape .* single volume"),
        (lambda a: a.astype(np.complex64), None, "type complex64"),
        (None, lambda a: with_value(a, np.inf), "label map contains NaN"),
        (None, lambda a: a[..., None], "label map is an array of shape"),
        (None, lambda a: a * 0, "label map is empty"),
        (None, lambda a: a * 0.5, "whole numbers"),
        (None, lambda a: with_value(a, -1), "whole numbers"),
        (None, lambda a: np.arange(a.size, dtype=np.int32).reshape(a.shape), "Is it an image"),
        (None, lambda a: a[1:], "expected the grid of the image. .*nearest neighbours"),
        (None, lambda a: a * (np.arange(len(a)) == 5)[:, None, None], "label 1 on 1 slices .* expected at least 3"),
    ],
)
def test_unusable_annotation_is_refused_and_the_former_one_kept(change_image, change_label, message):
    image, label = patient(*AXIAL)
    bad_image = changed(image, change_image) if change_image else image
    bad_label = changed(label, change_label) if change_label else label
    predictor = make_predictor(classes={"first": 1})
    with pytest.raises(DataError, match=message):
        predictor.set_support(bad_image, bad_label)
    assert predictor.structures == {"first": 1}
    np.testing.assert_array_equal(predictor.predict(image).array, label.array == 1)


def test_label_map_shifted_against_its_image_is_refused():
    image, label = patient(*AXIAL)
    shift = np.eye(4)
    shift[0, 3] = 2.1
    label = Volume(label.array, shift @ label.affine)
    with pytest.raises(DataError, match=r"2\.1 mm from the image's"):
        make_predictor().set_support(image, label)


def test_one_part_suits_a_single_annotated_slice():
    image, label = patient(*AXIAL)
    one = Volume(label.array * (np.arange(12) == 5)[:, None, None].astype(np.uint8), label.affine)
    predictor = make_predictor(n_parts=1)
    predictor.set_support(image, one, [1])
    np.testing.assert_array_equal(predictor.predict(image).array, label.array == 1)


@pytest.mark.parametrize("classes", [[], [0], [1, 1], {"a": 1, "b": 1}])
def test_impossible_classes(classes):
    with pytest.raises(ConfigError, match="different label values from 1"):
        make_predictor(classes=classes)


def test_absent_class_and_even_parts():
    with pytest.raises(DataError, match=r"values \[1, 2\], not \[4\]"):
        make_predictor(classes=[1, 4])
    with pytest.raises(ConfigError, match="odd number"):
        make_predictor(n_parts=2)


def test_a_scan_of_another_stretch_of_the_body_is_warned_of(caplog):
    predictor = make_predictor()
    predictor.predict(patient(*AXIAL)[0], "short")
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        predictor.predict(patient(*grid((-2, 0, 0), (0, 2, 0), (0, 0, 4), (20, 24, 22)))[0], "scan 7")
    assert "scan 7 covers 80 mm along the body, the annotated scan 48 mm" in caplog.text


def test_equals_the_evaluation_of_prepared_scans(prepared_folder):
    config = FewShotConfig(label_sets="all")
    data = open_fewshot(config, str(prepared_folder))
    folder, fold = data.folder, data.fold
    torch.manual_seed(0)
    method = ALPNet(ALPNetConfig(modelname="resnet18", encoder_weights="none")).eval()
    task = data.task(Normalisation(), "reference")
    encoded = method.encode_support(task.support)
    parameters = PrepareParameters("LAS", None, None, 0.0, (7.7, 1.25, 1.25), 64, "clean")
    predictor = FewShotPredictor(method, Normalisation(), parameters)
    (support,) = fold.support
    label = folder.label(support).array
    scored = task.read_case(task.query_scans[0])
    for place, value in enumerate(task.support.classes):
        z = support_slices(np.flatnonzero((label == value).any((1, 2))).tolist(), 3).tolist()
        part = torch.from_numpy(np.tile(blind_parts(len(scored.truth), z, len(label)), (4, 1)))
        expected = method.predict(dataclasses.replace(scored.case, part=part), encoded)[place]
        predictor.set_support(folder.image(support), folder.label(support), [value])
        found = predictor.predict(folder.image(scored.case.scan_id)).array == value
        assert found.any()
        assert (found != expected.numpy()).mean() < 1e-4  # rounding differs between processors and sizes of batches


def test_several_annotated_scans_are_shots_of_one_support_set():
    predictor = make_predictor()
    image, label = patient(*AXIAL)
    brighter = Volume(image.array + np.int16(20), image.affine)
    predictor.set_supports([Annotated(image, label), Annotated(brighter, label)])
    support: Any = predictor.segmenter.method.support
    assert support.image.shape[:4] == (2, 3, 2, 1)
    assert support.mask.shape == support.image[:, :, :, 0].shape
    inside = support.mask[0, 0, 0]
    assert (support.image[0, 0, 1, 0] - support.image[0, 0, 0, 0])[inside].eq(20).all()
    np.testing.assert_array_equal(predictor.predict(image).array, label.array)


def test_a_structure_is_left_out_below_the_least_confidence():
    image, label = patient(*AXIAL)
    found = make_predictor().segment(image)
    assert found.confidence == {"label 1": 0.0, "label 2": 0.0}  # all probabilities are between the two levels
    predictor = make_predictor()
    predictor.min_confidence = 0.1
    strict = predictor.segment(image)
    assert not strict.label_map.array.any()
    assert strict.confidence == found.confidence
    label.array[:] = 0
    assert predictor.segment(Volume(image.array // 9, image.affine)).confidence == {"label 1": None, "label 2": None}


def test_other_intensities_than_those_of_the_annotated_scan_are_named(caplog):
    predictor = make_predictor()
    image, _ = patient(*AXIAL)
    predictor.predict(image, "like it")
    assert not caplog.messages
    predictor.predict(dataclasses.replace(image, array=400 - image.array), "inverted")
    (message,) = caplog.messages
    assert message.startswith("inverted: brightness is distributed unlike in the annotated scan: ")
