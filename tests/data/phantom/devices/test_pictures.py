import numpy as np
import pytest
from scipy import ndimage
from skimage import measure

from data.phantom import make_image
from data.phantom.bodies.chest import draw_chest
from data.phantom.bodies.skin import draw_frame, draw_lesion
from data.phantom.devices.film import sample_lung_positions
from data.phantom.devices.pictures import (
    Frame,
    Strand,
    correlated_noise,
    deform,
    ellipse,
    rotation_matrix,
    soft_mask,
    to_uint8,
    union_distance,
    waves,
)
from dataloaders.catalog import dataset

JSRT = dataset("JSRT")

N, SIZE = 24, 64
NAMES = ("isic2017", "jsrt", "shenzhen")
AREAS = {  # fraction of the image: lowest and highest
    "lesion": (0.05, 0.45),
    "lung": (0.12, 0.42),
    "left lung": (0.06, 0.20),
    "right lung": (0.08, 0.24),
    "heart": (0.04, 0.14),
    "left clavicle": (0.005, 0.022),
    "right clavicle": (0.005, 0.022),
}


@pytest.fixture(scope="module")
def samples():
    return {name: [make_image(name, index, size_px=SIZE) for index in range(N)] for name in NAMES}


def brightness(sample):
    """Grey image (H, W), dark in air and pigment for either polarity of the file."""
    image = sample.image.astype(float)
    if sample.image.dtype == np.uint16:
        return (4095 - image) / 16
    return image.mean(-1) if image.ndim == 3 else image


def rim(mask, width):
    """The pixels around a mask up to `width` pixels away, without the adjacent ones."""
    distance = np.asarray(ndimage.distance_transform_edt(~mask))
    return (distance > 1) & (distance <= width)


def test_images_have_the_published_type(samples):
    kinds = {"isic2017": (np.uint8, {3}), "jsrt": (np.uint16, {2}), "shenzhen": (np.uint8, {2, 3})}
    for name, (dtype, axes) in kinds.items():
        assert {sample.image.dtype for sample in samples[name]} == {np.dtype(dtype)}
        assert {sample.image.ndim for sample in samples[name]} == axes
    for sample in [each for group in samples.values() for each in group]:
        assert all(mask.dtype == bool and mask.shape == sample.image.shape[:2] for mask in sample.masks.values())
        assert len(np.unique(sample.image)) > 60


@pytest.mark.parametrize("name", NAMES)
def test_an_image_depends_only_on_its_index_and_seed(name, samples):
    again = make_image(name, 5, size_px=SIZE)
    np.testing.assert_array_equal(again.image, samples[name][5].image)
    others = make_image(name, 5, seed=1, size_px=SIZE), samples[name][6]
    for other in others:
        assert other.image.shape != again.image.shape or (other.image != again.image).mean() > 0.5


@pytest.mark.parametrize("name", NAMES)
def test_another_size_shows_the_same_patient(name):
    small, large = (make_image(name, 3, size_px=size) for size in (48, 96))
    for structure, mask in small.masks.items():
        halved = large.masks[structure][::2, ::2][: mask.shape[0], : mask.shape[1]]
        mask = mask[: halved.shape[0], : halved.shape[1]]
        assert 2 * (mask & halved).sum() > 0.75 * (mask.sum() + halved.sum())
    one, other = (brightness(each) for each in (small, large))
    blurred = ndimage.uniform_filter(other, 2, origin=-1)[::2, ::2]
    rows, columns = (min(pair) for pair in zip(one.shape, blurred.shape, strict=True))
    assert np.corrcoef(one[:rows, :columns].ravel(), blurred[:rows, :columns].ravel())[0, 1] > 0.9


def test_areas_are_in_range_and_vary(samples):
    areas = {}
    for group in samples.values():
        for sample in group:
            for name, mask in sample.masks.items():
                areas.setdefault(name, []).append(mask.mean())
    assert areas.keys() == AREAS.keys()
    for name, (lowest, highest) in AREAS.items():
        assert lowest < min(areas[name]) <= max(areas[name]) < highest, name
        assert np.std(areas[name]) > 0.08 * np.mean(areas[name]), name


@pytest.mark.parametrize("seed", range(6))
def test_the_outline_of_a_lesion_has_the_sampled_area(seed):
    rng = np.random.default_rng(seed)
    frame = draw_frame(rng, 96)
    lesion = draw_lesion(rng, frame)
    area_mm2 = (lesion.outline.distance(frame.points()) < 0).mean() * np.prod(frame.extent_mm)
    assert area_mm2 == pytest.approx(np.pi * lesion.radius_mm**2, rel=0.02)


def test_every_structure_is_connected(samples):
    for sample in samples["isic2017"] + samples["jsrt"]:
        for name, mask in sample.masks.items():
            pieces = measure.label(mask, connectivity=2)
            assert np.bincount(np.asarray(pieces)[mask]).max() > 0.97 * mask.sum(), name


def test_lesions_are_darker_than_the_surrounding_skin_with_varying_contrast(samples):
    contrasts = []
    for sample in samples["isic2017"]:
        mask, grey = sample.masks["lesion"], brightness(sample)
        contrasts.append(np.median(grey[rim(mask, 4)]) - np.median(grey[mask]))
    assert min(contrasts) > 5
    assert max(contrasts) > 2.5 * min(contrasts)


def test_a_threshold_does_not_segment_the_lesion(samples):
    dice = []
    for sample in samples["isic2017"]:
        mask, grey = sample.masks["lesion"], brightness(sample)
        found = grey < np.quantile(grey, mask.mean())
        dice.append(2 * (found & mask).sum() / (found.sum() + mask.sum()))
    assert np.quantile(dice, 0.25) < 0.85
    assert np.median(dice) > 0.7


def test_lungs_are_darker_and_clavicles_and_hearts_brighter_than_their_surroundings(samples):
    for sample in samples["jsrt"]:
        grey, masks = brightness(sample), sample.masks
        lungs = masks["left lung"] | masks["right lung"]
        assert grey[lungs].mean() + 20 < grey[rim(lungs, 4)].mean()
        assert grey[masks["heart"]].mean() > grey[lungs].mean() + 40
        for side in ("left", "right"):
            bone = masks[f"{side} clavicle"]
            over = bone & lungs
            if over.sum() > 10:
                assert grey[over].mean() > grey[rim(bone, 4) & lungs].mean() + 5


def test_shenzhen_lungs_are_dark_and_exclude_the_heart(samples):
    for sample in samples["shenzhen"]:
        grey, lung = brightness(sample), sample.masks["lung"]
        assert grey[lung].mean() + 15 < grey[rim(lung, 4)].mean()
        middle = lung[:, lung.shape[1] // 2 - 3 : lung.shape[1] // 2 + 3]
        assert middle.mean() < 0.1


def test_structures_have_the_positions_of_a_frontal_film(samples):
    for sample in samples["jsrt"]:
        centres = {name: np.mean(np.nonzero(mask), axis=1) / SIZE for name, mask in sample.masks.items()}
        row, column = ({name: centre[axis] for name, centre in centres.items()} for axis in (0, 1))
        assert column["right lung"] < column["heart"] < column["left lung"]
        assert column["heart"] > (column["right lung"] + column["left lung"]) / 2 - 0.02
        assert row["right clavicle"] < row["right lung"] < row["heart"]
        assert column["right clavicle"] < 0.5 < column["left clavicle"]
        assert not (sample.masks["heart"] & (sample.masks["left lung"] | sample.masks["right lung"])).any()


def test_clavicles_overlap_the_lungs_and_are_inside_the_published_crop(samples):
    top, bottom, left, right = (fraction * SIZE for fraction in JSRT.structure("clavicle").crop)
    overlaps = 0
    for sample in samples["jsrt"]:
        bones = sample.masks["left clavicle"] | sample.masks["right clavicle"]
        rows, columns = np.nonzero(bones)
        assert top <= rows.min() <= rows.max() < bottom
        assert left <= columns.min() <= columns.max() < right
        overlaps += (bones & (sample.masks["left lung"] | sample.masks["right lung"])).any()
    assert overlaps > 0.8 * N


def test_frame_measures_the_shorter_side():
    wide, tall = Frame(40, 10.0, 1.5), Frame(40, 10.0, 0.8)
    assert (wide.shape, tall.shape) == ((40, 60), (50, 40))
    np.testing.assert_allclose(wide.extent_mm, [15, 10])
    np.testing.assert_allclose(tall.extent_mm, [10, 12.5])
    points = wide.points()
    assert points.shape == (2, 40, 60)
    np.testing.assert_allclose(points[:, 0, 0], [-7.375, -4.875])
    np.testing.assert_allclose(points[:, -1, -1], [7.375, 4.875])


@pytest.mark.parametrize(
    ("point", "expected"),
    [((0, 2), 1.5), ((4, 0), -0.5), ((7, 0), 1.5), ((8, 4), 4.5)],
)
def test_distance_to_a_straight_strand(point, expected):
    strand = Strand(np.zeros(2), 0.0, 5.0, 0.0, 0.5)
    np.testing.assert_allclose(strand.distance(np.array(point, np.float32).reshape(2, 1)), expected, atol=1e-5)


def test_bent_strand_follows_its_parabola():
    strand = Strand(np.array([3.0, 1.0]), np.pi / 2, 4.0, 0.25, 0.1)
    along = np.array([0, 2, -4], np.float32)
    on_curve = np.stack([3 - 0.25 * along**2, 1 + along])
    np.testing.assert_allclose(strand.distance(on_curve), -0.1, atol=1e-5)
    assert (strand.bounds[0] <= on_curve.min(1)).all()
    assert (on_curve.max(1) <= strand.bounds[1]).all()


def test_outlines_in_the_plane():
    points = np.array([[3, 0, 0], [0, 1, 0]], np.float32)
    np.testing.assert_allclose(ellipse([0, 0], [3, 1]).distance(points[:, :2]), 0, atol=1e-5)
    np.testing.assert_allclose(ellipse([0, 0], [1, 3], np.pi / 2).distance(points[:, :2]), 0, atol=1e-5)
    np.testing.assert_allclose(rotation_matrix(np.pi / 2) @ [1, 0], [0, 1], atol=1e-12)
    assert np.isposinf(union_distance((), points)).all()
    two = union_distance((ellipse([0, 0], [1, 1]), ellipse([3, 0], [2, 2])), points)
    np.testing.assert_allclose(two, [-2, 0, -1], atol=1e-5)


def test_deformation_and_texture_have_the_given_amplitude():
    points, disc = Frame(64, 100.0).points(), ellipse([0, 0], [30, 20])
    assert 0.6 < waves(points, 20.0, np.random.default_rng(0)).std() < 1.4
    assert correlated_noise((64, 48, 3), 1.5, np.random.default_rng(0)).std() == pytest.approx(1, rel=1e-5)
    displacement = deform(disc, 1.5, 40.0, np.random.default_rng(0)).distance(points) - disc.distance(points)
    assert 0.8 < displacement.std() < 2.2


def test_soft_mask_is_one_half_at_edges_and_uint8_values_are_clipped():
    np.testing.assert_allclose(soft_mask(np.array([-9, 0, 9], np.float32), 0.5), [1, 0.5, 0], atol=1e-6)
    np.testing.assert_array_equal(to_uint8(np.array([-0.2, 0.5, 1.4])), [0, 128, 255])


def test_sampled_positions_are_inside_the_lungs():
    chest = draw_chest(np.random.default_rng(0))
    positions = sample_lung_positions(chest, 4, 6.0, np.random.default_rng(1))
    assert positions.shape == (4, 2)
    assert (union_distance(chest.lungs.values(), positions.T.astype(np.float32)[:, None]) <= -6).all()
