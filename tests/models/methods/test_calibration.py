"""Widths of the place prior that are fitted on deformed copies of the annotated scan."""

import math
from dataclasses import replace

import pytest
import torch

from dataloaders.samples import EvalCase, SupportScan, SupportSet
from dataloaders.transforms.scan_views import UNKNOWN, ScanViewConfig
from models.methods import propagation
from models.methods.calibration import CalibrationConfig, best_kernels, deformed_copy, dice
from models.methods.propagation import Propagation, PropagationConfig
from models.methods.second_look import SecondLookConfig
from models.networks.brightness import BrightnessConfig
from models.networks.label_propagation import KernelConfig
from models.networks.spread import spread

SPACING_MM = (7.7, 1.25, 1.25)
KERNEL = KernelConfig(sigma_xy=0.3, temperature=4.0)  # too wide for two small discs where features count little
DEPTH, SIZE, CLASSES = 4, 96, (1, 4)


def scan(move=0, seed=0):
    """Two small discs that look alike, side by side in a body."""
    y, x = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    label = torch.zeros(DEPTH, SIZE, SIZE, dtype=torch.uint8)
    for value, column in zip(CLASSES, (34, 60), strict=True):
        label[:, (y - 48 - move) ** 2 + (x - column - move) ** 2 <= 81] = value
    body = ((y - 48) / 44.0) ** 2 + ((x - 48) / 46.0) ** 2 <= 1
    noise = torch.randn(DEPTH, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))
    image = body + 1.5 * (label > 0) + 0.05 * noise
    image = (image - image.mean()) / image.std()
    return SupportScan(image[:, None], label, SPACING_MM, torch.zeros(2, 3, dtype=torch.long))


def support_of(*scans):
    masks = torch.zeros(2, 3, len(scans), 8, 8, dtype=torch.bool)
    return SupportSet(CLASSES, torch.zeros(2, 3, len(scans), 1, 8, 8), masks, scans)


def case_of(one):
    return EvalCase("1", CLASSES, one.image, torch.zeros(2, DEPTH, dtype=torch.long), spacing_mm=SPACING_MM)


def build(**options):
    torch.manual_seed(0)
    plain = PropagationConfig(
        "resnet18",
        "none",
        enlargements=(1.0,),
        kernel=KERNEL,
        brightness=BrightnessConfig(levels=()),
        second_look=SecondLookConfig(below_cells=0.0),
    )
    return Propagation(replace(plain, **options))


def test_narrower_widths_are_found_where_structures_are_small():
    (one,) = build().encode_support(support_of(scan()))
    assert all(kernel.sigma_xy < KERNEL.sigma_xy for kernel in one.kernels)
    query = scan(move=3, seed=1)
    scores = []
    for copies in (0, 2):
        method = build(calibration=CalibrationConfig(copies=copies))
        masks = method.predict(case_of(query), method.encode_support(support_of(scan())))
        scores.append(dice(masks, query.label, CLASSES).mean())
    assert scores[0] < 0.2
    assert scores[1] > 0.9


def test_each_class_is_segmented_with_its_own_widths():
    method = build(calibration=CalibrationConfig(copies=0))
    (one,) = method.encode_support(support_of(scan()))
    assert one.kernels == ()
    query, narrow = case_of(scan(move=3, seed=1)), replace(KERNEL, sigma_xy=0.05)
    alone = [method.probabilities(query, (replace(one, kernels=(each, each)),)) for each in (KERNEL, narrow)]
    mixed = method.probabilities(query, (replace(one, kernels=(KERNEL, narrow)),))
    assert not torch.allclose(alone[0], alone[1], atol=1e-2)
    unnormalised = torch.stack([alone[0][0], alone[1][1]])
    is_sum_below_1 = unnormalised.sum(0) < 0.99
    torch.testing.assert_close(mixed[:, is_sum_below_1], unnormalised[:, is_sum_below_1], atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(method.probabilities(query, (one,)), alone[0])


def test_all_annotated_scans_share_the_widths():
    supports = build(calibration=CalibrationConfig(copies=1, n_slices=2)).encode_support(support_of(scan(), scan(4, 2)))
    assert supports[0].kernels == supports[1].kernels
    assert len(supports[0].kernels) == 2


def test_a_copy_is_changed_in_all_slices_alike_and_repeats():
    original = scan()
    original.image[:] = original.image[:1].clone()
    original.label[0, :5] = UNKNOWN
    original.label[:, 90:] = 7  # another class
    before = original.image.clone()
    image, label = deformed_copy(original, CLASSES, 3, ScanViewConfig())
    assert torch.equal(original.image, before)
    assert set(label.unique().tolist()) == {0, *CLASSES, UNKNOWN}
    assert torch.equal(label[1], label[2])
    assert (label[1] != original.label[1]).any()
    again, _ = deformed_copy(original, CLASSES, 3, ScanViewConfig())
    assert torch.equal(image, again)
    other, _ = deformed_copy(original, CLASSES, 4, ScanViewConfig())
    assert not torch.allclose(image, other, atol=0.1)
    assert not torch.equal(image[1], image[2])  # noise of their own


def test_unchanged_copies_are_the_scan():
    still = ScanViewConfig(**dict.fromkeys(ScanViewConfig.__dataclass_fields__, 0.0))
    image, label = deformed_copy(scan(), CLASSES, 0, still)
    torch.testing.assert_close(image, scan().image, atol=1e-4, rtol=1e-4)
    assert torch.equal(label, scan().label)


def test_dice_counts_known_voxels():
    label = torch.tensor([[[1, 1, 0, UNKNOWN]]], dtype=torch.uint8)
    masks = torch.tensor([[[[True, False, True, True]]], [[[False, False, False, True]]]])
    torch.testing.assert_close(dice(masks, label, (1, 4)), torch.tensor([0.5, math.nan]), equal_nan=True)


def test_the_best_mean_wins_by_a_margin():
    kernels = [KERNEL, replace(KERNEL, sigma_xy=0.1), replace(KERNEL, sigma_xy=0.05)]
    first = torch.tensor([[0.800, 0.5, math.nan], [0.804, 0.6, math.nan], [0.7, math.nan, math.nan]])
    second = torch.tensor([[0.800, 0.5, math.nan], [0.804, 0.6, math.nan], [0.7, 0.7, math.nan]])
    assert best_kernels(kernels, torch.stack([first, second]), 0.005) == (kernels[0], kernels[2], kernels[0])
    assert best_kernels(kernels, torch.stack([first, second]), 0.0)[0] == kernels[1]


@pytest.mark.parametrize(
    ("length", "number", "expected"), [(5, 3, [0, 2, 4]), (3, 10, [0, 1, 2]), (5, 1, [0]), (0, 4, [])]
)
def test_slices_are_spread(length, number, expected):
    assert spread(length, number).tolist() == expected


def test_the_kernel_itself_is_the_first_candidate():
    found = CalibrationConfig(factors_xy=(0.5, 1.0), factors_z=(1.0, 2.0)).candidates(KERNEL)
    assert found[0] == KERNEL
    assert len(found) == len(set(found)) == 4
    assert replace(KERNEL, sigma_xy=0.15, sigma_z_mm=44.0) in found


def test_labels_of_unannotated_slices_say_nothing(monkeypatch):
    seen, copies = [], []

    def make(*arguments):
        copies.append(deformed_copy(*arguments))
        return copies[-1]

    monkeypatch.setattr(propagation, "best_kernels", lambda kernels, scores, _: seen.append(scores) or kernels[:2])
    monkeypatch.setattr(propagation, "deformed_copy", make)
    views = ScanViewConfig(structures_p=1.0)
    for value in (0, 4):
        annotated = scan()
        annotated.label[1:, 40:60] = value  # the parts are those of the first slice
        calibration = CalibrationConfig(copies=1, views=views)
        build(annotation="parts", calibration=calibration).encode_support(support_of(annotated))
    assert torch.equal(copies[0][0], copies[1][0])
    assert torch.equal(seen[0], seen[1])
