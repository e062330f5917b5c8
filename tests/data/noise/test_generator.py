"""The noise of single masks: hand-worked, against the reference's masks, and what is drawn for whom."""

import random
from collections import Counter

import numpy as np
import pytest
from scipy import ndimage

from data.noise.generator import (
    CLEAN,
    DIRECTIONS,
    MAX_STEP_PX,
    Draw,
    dilate,
    distort,
    draw_affine,
    draw_all,
    erode,
    move,
    shifted,
    turn,
)
from dataloaders.description import ClassSpec
from dataloaders.images.folder import NoiseConfig

LESION = ClassSpec("lesion", noise_rotation_deg=30.0, n_segments=100)
IDS = [f"m{number:03d}" for number in range(100)]
THEORY = {"dilate": lambda beta: 2 / (2 + beta), "erode": lambda beta: 2 * (1 - beta) / (2 - beta)}
GOLDEN_DICE = {  # means of the reference over the golden masks
    ("dilate", 0.5): 0.8005,
    ("erode", 0.5): 0.6682,
    ("affine", 0.5): 0.7537,
    ("dilate", 0.7): 0.7422,
    ("erode", 0.7): 0.4606,
    ("affine", 0.7): 0.6594,
}


@pytest.fixture(scope="module")
def golden(golden_file):
    """Name -> array; packed masks as (100, 128, 128) bool."""
    with golden_file("noisy/noise_generator.npz") as file:
        return {
            name: np.unpackbits(array, axis=1).reshape(-1, 128, 128).astype(bool) if "packed" in name else array
            for name, array in file.items()
        }


def disc(size=64, radius=15):
    rows, columns = np.ogrid[:size, :size]
    return (rows - size / 2) ** 2 + (columns - size / 2) ** 2 <= radius**2


def dice(first, second):
    return 2 * (first & second).sum() / (first.sum() + second.sum())


def one_by_one(mask, beta, operation):
    """The reference's way: a step of the cross at a time."""
    wanted = int(mask.sum() * beta)
    is_all = (lambda m: m.all()) if operation is ndimage.binary_dilation else (lambda m: not m.any())
    before = after = mask
    while (after ^ mask).sum() < wanted and not is_all(after):
        before, after = after, operation(after)
    gaps = [abs(int((step ^ mask).sum()) - wanted) for step in (before, after)]
    return before if is_all(after) or gaps[0] < gaps[1] else after


def drawn_by_reference(kind, index, noise):
    return draw_affine(random.Random(10_000 + index), noise, 30.0) if kind == "affine" else Draw(kind)


@pytest.mark.parametrize("kind", ["dilate", "erode", "affine"])
def test_masks_are_the_references(golden, kind):
    noise = NoiseConfig(1.0, 0.5)
    for index, clean in enumerate(golden["clean_packed"]):
        noisy = distort(clean, drawn_by_reference(kind, index, noise), noise)
        np.testing.assert_array_equal(noisy.mask, golden[f"{kind}_b0.5_packed"][index])
        assert noisy.type == kind


@pytest.mark.parametrize(("kind", "beta"), GOLDEN_DICE)
def test_mean_dice_is_the_references(golden, kind, beta):
    noise, masks = NoiseConfig(1.0, beta), golden["clean_packed"]
    noisy = [distort(mask, drawn_by_reference(kind, index, noise), noise).mask for index, mask in enumerate(masks)]
    mean = np.mean([dice(*pair) for pair in zip(masks, noisy, strict=True)])
    assert mean == pytest.approx(GOLDEN_DICE[kind, beta], abs=0.0003)
    if kind in THEORY:
        assert mean == pytest.approx(THEORY[kind](beta), abs=0.003)


def test_the_whole_protocol_is_the_references(golden):
    noise = NoiseConfig(0.3, 0.5)
    draws = draw_all(IDS, noise, LESION)
    masks = [
        distort(mask, draws[image_id], noise).mask if image_id in draws else mask
        for image_id, mask in zip(IDS, golden["clean_packed"], strict=True)
    ]
    types = [draws[image_id].type if image_id in draws else CLEAN for image_id in IDS]
    assert types == golden["proto_a0.3_b0.5_types"].tolist()
    np.testing.assert_array_equal(masks, golden["proto_a0.3_b0.5_packed"])


def test_the_first_noisy_images_are_the_references(golden):
    ids = [f"ISIC_{number:07d}" for number in range(2000)]
    draws = draw_all(ids, NoiseConfig(0.01, 0.5), LESION)
    assert set(draws) == {ids[index] for index in golden["isic_seed0_first20_of_2000"]}


@pytest.mark.parametrize(
    ("alpha", "counts"), [(0.3, (10, 5, 15)), (0.5, (19, 9, 22)), (0.7, (33, 12, 25))]
)  # affine, erode, dilate, of the reference for these 100 ids
def test_types_depend_on_alpha_but_not_on_beta_as_in_the_reference(alpha, counts):
    weak, strong = (draw_all(IDS, NoiseConfig(alpha, beta), LESION) for beta in (0.5, 0.7))
    assert weak == strong
    found = Counter(drawn.type for drawn in weak.values())
    assert tuple(found[kind] for kind in ("affine", "erode", "dilate")) == counts


def test_dilation_worked_by_hand():
    square = np.zeros((9, 9), bool)
    square[3:6, 3:6] = True  # 9 pixels; one step adds 12, two steps 28
    assert dilate(square, 0.6).sum() == 9  # 5 wanted: nearer to 0
    assert dilate(square, 0.7).sum() == 21  # 6 wanted: as near to 0 as to 12, hence the later
    assert dilate(square, 0.99).sum() == 21  # 8 wanted: nearer to 12


def test_erosion_worked_by_hand():
    square = np.zeros((9, 9), bool)
    square[2:7, 2:7] = True  # 25 pixels; one step leaves 9, two steps 1
    assert erode(square, 0.4).sum() == 9  # 10 wanted; 16 are nearer than 0
    assert erode(square, 0.28).sum() == 25  # 7 wanted
    assert erode(square, 0.99).sum() == 1  # 24 wanted, and exactly reached
    square[2:7, 1] = True  # 30 pixels, six wide: two steps leave two
    assert erode(square, 0.98).sum() == 2  # 29 wanted: never nothing


def test_erosion_comes_in_from_the_border_of_the_image():
    half = np.zeros((8, 8), bool)
    half[:, :4] = True
    expected = np.zeros((8, 8), bool)
    expected[1:-1, 1:3] = True
    np.testing.assert_array_equal(erode(half, 0.6), expected)


def test_dilation_never_fills_the_image():
    mask = np.ones((6, 6), bool)
    mask[0, 0] = mask[0, 1] = mask[1, 0] = False  # one step leaves the corner, two nothing
    assert dilate(mask, 0.9).sum() == 35
    mask[0, 1] = mask[1, 0] = True
    np.testing.assert_array_equal(dilate(mask, 0.9), mask)


@pytest.mark.parametrize(
    ("quick", "slow"), [(dilate, ndimage.binary_dilation), (erode, ndimage.binary_erosion)], ids=["dilate", "erode"]
)
def test_distance_transform_equals_steps_of_the_cross(quick, slow):
    generator = np.random.default_rng(3)
    n_compared = 0
    while n_compared < 150:
        noise = generator.normal(size=generator.integers(3, 20, 2))
        mask = ndimage.gaussian_filter(noise, generator.uniform(0.3, 2)) > 0.1 * generator.normal()
        beta = generator.uniform(0.05, 0.95)
        if int(mask.sum() * beta) >= 1 and not mask.all():
            np.testing.assert_array_equal(quick(mask, beta), one_by_one(mask, beta, slow))
            n_compared += 1


def test_a_shift_loses_what_leaves_the_image():
    mask = np.arange(12).reshape(3, 4) % 5 == 0  # (0, 0), (1, 1), (2, 2)
    np.testing.assert_array_equal(np.argwhere(shifted(mask, 1, 0)), [(1, 0), (2, 1)])
    np.testing.assert_array_equal(np.argwhere(shifted(mask, -1, 2)), [(0, 3)])
    np.testing.assert_array_equal(np.argwhere(shifted(mask, 0, -1)), [(1, 0), (2, 1)])
    assert not shifted(mask, 50, 0).any()
    assert not shifted(mask, 0, -50).any()


def test_the_shift_is_found_by_bisection():
    square = np.zeros((64, 64), bool)
    square[20:40, 20:40] = True  # a step down changes 2 * 20 of 400 pixels: a tenth
    moved, step = move(square, square, 0.5, (1, 0))
    assert step == 5
    np.testing.assert_array_equal(moved, shifted(square, 5, 0))
    upwards, step = move(square, square, 0.5, (-1, 0))
    assert step == 5
    np.testing.assert_array_equal(upwards, shifted(square, -5, 0))


def test_a_turn_is_counter_clockwise_about_the_centre_and_may_keep_the_rim():
    bar = np.zeros((33, 33), bool)
    bar[2:16, 15:18] = True  # upwards from the centre
    np.testing.assert_array_equal(turn(bar, 90.0, keeps_rim=True), np.rot90(bar))
    full, thin = (turn(disc(), 17.0, keeps_rim=keeps).sum() / disc().sum() for keeps in (True, False))
    assert full == pytest.approx(1, abs=0.01)
    assert 0.8 < thin < 0.97


def test_the_reference_moves_down_and_right_only():
    draws = [draw_affine(random.Random(n), NoiseConfig(1.0, 0.5), 30.0) for n in range(400)]
    share = Counter(drawn.direction for drawn in draws)
    assert set(share) == {(1, 0), (0, 1), (1, 1)}
    assert share[1, 1] / 400 == pytest.approx(0.5, abs=0.08)
    assert all(-30 <= drawn.angle_deg <= 30 for drawn in draws)
    eight = [draw_affine(random.Random(n), NoiseConfig(1.0, 0.5, direction="uniform8"), 30.0) for n in range(400)]
    assert {drawn.direction for drawn in eight} == set(DIRECTIONS)
    assert len(set(DIRECTIONS)) == 8
    assert [drawn.angle_deg for drawn in eight] == [drawn.angle_deg for drawn in draws]


@pytest.mark.parametrize("variant", ["reference", "per_image"])
def test_noisy_images_are_nested_in_alpha_and_equal_for_all_beta(variant):
    groups = [set(draw_all(IDS, NoiseConfig(alpha, 0.5, variant=variant), LESION)) for alpha in (0.1, 0.3, 0.7, 1.0)]
    assert [len(group) for group in groups] == [10, 30, 70, 100]
    assert groups[0] < groups[1] < groups[2] < groups[3] == set(IDS)
    assert set(draw_all(IDS, NoiseConfig(0.3, 0.7, variant=variant), LESION)) == groups[1]
    assert set(draw_all(IDS, NoiseConfig(0.3, 0.5, variant=variant, seed=1), LESION)) != groups[1]


def test_what_is_drawn_per_image_depends_on_nothing_else():
    noise = NoiseConfig(0.4, 0.5, variant="per_image")
    draws = draw_all(IDS, noise, LESION)
    assert draw_all(IDS[::-1], noise, LESION) == draws
    more = draw_all(IDS, NoiseConfig(0.9, 0.5, variant="per_image"), LESION)
    assert {image_id: more[image_id] for image_id in draws} == draws
    every = draw_all(IDS, NoiseConfig(1.0, 0.5, variant="per_image"), LESION)
    some = draw_all(IDS[:10], NoiseConfig(1.0, 0.5, variant="per_image"), LESION)
    assert some == {image_id: every[image_id] for image_id in IDS[:10]}
    for other in (
        draw_all(IDS, NoiseConfig(1.0, 0.7, variant="per_image"), LESION),
        draw_all(IDS, NoiseConfig(1.0, 0.5, variant="per_image", seed=1), LESION),
        draw_all(IDS, NoiseConfig(1.0, 0.5, variant="per_image"), ClassSpec("heart", noise_rotation_deg=30.0)),
    ):
        assert sum(other[image_id].type == every[image_id].type for image_id in IDS) < 60


def test_types_may_be_fewer_and_rotation_is_the_structures():
    draws = draw_all(IDS, NoiseConfig(1.0, 0.5, types=("affine",)), ClassSpec("clavicle", noise_rotation_deg=2.0))
    assert {drawn.type for drawn in draws.values()} == {"affine"}
    assert 1.5 < max(abs(drawn.angle_deg) for drawn in draws.values()) <= 2


@pytest.mark.parametrize("kind", ["dilate", "erode", "affine"])
@pytest.mark.parametrize("n_pixels", [0, 1])
def test_empty_and_tiny_masks_stay_clean(kind, n_pixels):
    mask = np.zeros((16, 16), bool)
    mask[8, 8 : 8 + n_pixels] = True
    noisy = distort(mask, Draw(kind, 20.0, (1, 0)), NoiseConfig(1.0, 0.5))  # below 1/beta = 2 pixels
    assert noisy.type == CLEAN
    assert (noisy.angle_deg, noisy.dy_px, noisy.dx_px) == (0, 0, 0)
    np.testing.assert_array_equal(noisy.mask, mask)


def test_a_mask_of_just_enough_pixels_is_distorted():
    mask = np.zeros((16, 16), bool)
    mask[8, 8:10] = True
    assert distort(mask, Draw("dilate"), NoiseConfig(1.0, 0.5)).type == "dilate"


def test_full_masks_cannot_grow_and_thin_ones_survive_a_turn():
    full = np.ones((16, 16), bool)
    assert distort(full, Draw("dilate"), NoiseConfig(1.0, 0.5)).type == CLEAN
    assert distort(full, Draw("erode"), NoiseConfig(1.0, 0.5)).mask.sum() == 144  # 12 x 12; 128 wanted
    line = np.zeros((32, 32), bool)
    line[10, 5:25] = True
    erased = distort(line, Draw("affine", 20.0, (1, 0)), NoiseConfig(1.0, 0.5))
    assert erased.type == CLEAN
    np.testing.assert_array_equal(erased.mask, line)


def test_the_shift_is_noted():
    noisy = distort(disc(), Draw("affine", 10.0, (-1, 1)), NoiseConfig(1.0, 0.5, direction="uniform8"))
    assert 0 < noisy.dx_px == -noisy.dy_px < MAX_STEP_PX
    expected = shifted(turn(disc(), 10.0, keeps_rim=False), noisy.dy_px, noisy.dx_px)
    np.testing.assert_array_equal(noisy.mask, expected)
    assert (noisy.mask ^ disc()).sum() / disc().sum() == pytest.approx(0.5, abs=0.15)


@pytest.mark.parametrize(("variant", "keeps_rim"), [("reference", False), ("per_image", True)])
def test_only_the_reference_loses_the_rim_in_a_turn(variant, keeps_rim):
    noisy = distort(disc(), Draw("affine", 17.0, (0, 1)), NoiseConfig(1.0, 0.5, variant=variant))
    assert noisy.mask.sum() == turn(disc(), 17.0, keeps_rim).sum()  # nothing was shifted out
