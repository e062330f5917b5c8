"""Pictures of the documents: what is shown of a scan, and how scans are made in which propagation goes wrong."""

import numpy as np
import pytest

from data.phantom import make_patient
from data.phantom.writers.chaos import LABELS
from docs.failures import SPLEEN, inverted, upper_third, with_dark_spleen
from docs.overview import HEIGHT, body_window, mean_dice, telling_slice


def test_the_picture_shows_the_slice_with_all_structures():
    label = np.zeros((4, 8, 8), np.int16)
    for row, value in enumerate(LABELS.values()):
        label[1:3, row] = value
        label[1, row, 1:] = 0
    label[3, :3] = LABELS["liver"]
    assert telling_slice(label) == 2
    assert mean_dice(label, label) == 1
    assert mean_dice(label * (label != LABELS["spleen"]), label) == 0.75


def test_the_picture_shows_the_body_without_the_air():
    pixels = np.zeros((100, 100))
    pixels[40:60, 30:70] = 100
    rows, columns = body_window(pixels)
    assert rows.start < 40 < 60 <= rows.stop
    assert columns.start < 30 < 70 <= columns.stop
    assert rows.stop - rows.start == pytest.approx((columns.stop - columns.start) * HEIGHT, abs=1.5)


@pytest.fixture(scope="module")
def patient():
    return make_patient("chaost2", 3, size_px=64)


def test_a_spleen_can_be_as_dark_as_what_is_around_it(patient):
    image, label = patient
    changed, same = with_dark_spleen(image, label)
    spleen = label.array == SPLEEN
    assert same is label
    assert np.array_equal(changed.array[~spleen], image.array[~spleen])
    around = image.array[(label.array == 0) & (image.array > np.percentile(image.array, 99) / 20)]
    assert np.median(changed.array[spleen]) == pytest.approx(np.median(around), rel=0.05)
    assert np.median(image.array[spleen]) > 1.3 * np.median(around)


def test_a_third_of_a_scan_stays_where_it_was(patient):
    image, label = patient
    part, its_label = upper_third(image, label)
    assert len(part.array) == len(its_label.array) == pytest.approx(len(image.array) / 3, abs=1)
    heights, kept = (sorted((each.affine @ [0, 0, z, 1])[2] for z in range(len(each.array))) for each in (image, part))
    assert kept == pytest.approx(heights[-len(kept) :])


def test_inverted_contrast_reverses_the_order_in_the_body(patient):
    image, label = patient
    changed, _ = inverted(image, label)
    body = (image.array > np.percentile(image.array, 99.5) / 15) & (image.array < np.percentile(image.array, 99.5))
    assert np.corrcoef(image.array[body], changed.array[body])[0, 1] < -0.99
    assert np.array_equal(changed.array[image.array == 0], image.array[image.array == 0])
