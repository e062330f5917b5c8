import numpy as np
import pytest

from data.phantom.bodies.anatomy import Patient, Structure
from data.phantom.bodies.shapes import (
    Deformed,
    Difference,
    Elongated,
    Intersection,
    Offset,
    Slabs,
    Superquadric,
    Tube,
    Union,
    Waves,
)

BALL = Superquadric(np.zeros(3), np.full(3, 10.0))
ROTATED = Superquadric(
    np.array([5.0, -3.0, 2.0]), np.array([30.0, 12.0, 20.0]), np.array([[0.6, -0.8, 0], [0.8, 0.6, 0], [0, 0, 1]])
)
EGG = Superquadric(np.array([20.0, 0, 0]), np.array([25.0, 18, 30]), exponent=2.4)
SEED = 4


def points(*rows):
    return np.array(rows, np.float32).T


def volume_ml(shape, spacing_mm=1.0):
    no_warp = Waves(np.zeros((1, 3)), np.zeros(1), np.zeros((1, 3)))
    return Patient((Structure("organ", "tissue", shape),), np.ones(3), no_warp).volumes_ml(("organ",), spacing_mm)[
        "organ"
    ]


def test_distance_to_a_ball_is_exact():
    distance = BALL.distance(points((10, 0, 0), (0, 0, 4), (0, 6, 8), (0, 30, 40)))
    np.testing.assert_allclose(distance, [0, -6, 0, 40], atol=1e-4)


def test_distance_of_an_ellipsoid_is_finite_at_the_centre_and_accurate_near_the_surface():
    assert np.isfinite(ROTATED.distance(points((5, -3, 2)))).all()
    tip = ROTATED.centre + 31 * ROTATED.rotation[:, 0]
    np.testing.assert_allclose(ROTATED.distance(points(tip)), [1], rtol=0.05)


def test_infinite_radius_gives_a_cylinder_and_open_below_vertical_walls():
    cylinder = Superquadric(np.zeros(3), np.array([10.0, 10, np.inf]))
    vault = Superquadric(np.zeros(3), np.full(3, 10.0), is_open_below=True)
    np.testing.assert_allclose(cylinder.distance(points((13, 0, 500))), [3], atol=1e-4)
    np.testing.assert_allclose(vault.distance(points((13, 0, -500), (0, 0, 13))), [3, 3], atol=1e-4)


def test_tube_interpolates_its_radii():
    tube = Tube(np.array([[0.0, 0, 0], [10, 0, 0]]), np.array([2.0, 4.0]))
    np.testing.assert_allclose(tube.distance(points((5, 7, 0), (-3, 0, 0), (10, 0, 4))), [4, 1, 0], atol=1e-5)


def test_elongation_moves_both_ends_apart_and_fills_the_gap():
    capsule = Elongated(BALL, np.zeros(3), np.array([-5.0, 0, 0]), np.array([20.0, 0, 0]))
    distance = capsule.distance(points((33, 0, 0), (-15, 0, 0), (12, 0, 13), (-5, 6, 8)))
    np.testing.assert_allclose(distance, [3, 0, 3, 0], atol=1e-4)
    np.testing.assert_allclose(capsule.bounds, [[-15, -10, -10], [30, 10, 10]])
    assert volume_ml(capsule) == pytest.approx((4 / 3 * 10 + 25) * np.pi * 100 / 1000, rel=0.02)


def test_boolean_operations():
    twin = Superquadric(np.array([10.0, 0, 0]), np.full(3, 10.0))
    left, middle, right = points((-5, 0, 0), (5, 0, 0), (15, 0, 0)).T[:, :, None]
    assert all(Union((BALL, twin)).distance(each) < 0 for each in (left, middle, right))
    assert [bool(Intersection((BALL, twin)).distance(each) < 0) for each in (left, middle, right)] == [
        False,
        True,
        False,
    ]
    assert [bool(Difference(BALL, twin).distance(each) < 0) for each in (left, middle, right)] == [True, False, False]
    assert (
        Union((BALL, twin), blend_mm=6.0).distance(points((5, 8.8, 0)))
        < 0
        < Union((BALL, twin)).distance(points((5, 8.8, 0)))
    )
    np.testing.assert_allclose(Offset(BALL, 3.0).distance(points((13, 0, 0))), [0], atol=1e-4)


def test_slabs_repeat_periodically():
    rod = Superquadric(np.zeros(3), np.array([10.0, 10, np.inf]))
    discs = Slabs(rod, np.array([0.0, 0, 1]), period_mm=30.0, thickness_mm=10.0)
    inside = discs.distance(points((0, 0, 15), (0, 0, 45), (0, 0, -15), (0, 0, 0), (0, 0, 21))) < 0
    assert inside.tolist() == [True, True, True, False, False]


@pytest.mark.parametrize("shape", [BALL, ROTATED])
def test_sampled_volume_equals_the_analytic_volume(shape):
    expected_ml = 4 / 3 * np.pi * np.prod(shape.radii) / 1000
    assert volume_ml(shape) == pytest.approx(expected_ml, rel=0.01)


@pytest.mark.parametrize(
    "shape",
    [
        ROTATED,
        EGG,
        Offset(ROTATED, 4.0),
        Union((ROTATED, EGG), blend_mm=10.0),
        Intersection((ROTATED, EGG)),
        Deformed(EGG, Waves.draw(np.random.default_rng(SEED), 3.0, 40.0)),
        Tube(np.array([[0.0, 0, 0], [10, 5, 30], [-20, 8, 3]]), np.array([2.0, 7.0, 3.0])),
    ],
    ids=lambda shape: type(shape).__name__,
)
def test_bounds_contain_the_whole_body(shape):
    axis = np.linspace(-70, 70, 57, dtype=np.float32)
    grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij")).reshape(3, -1)
    body = grid[:, shape.distance(grid) <= 0]
    low, high = shape.bounds
    assert body.shape[1] > 50
    assert (body >= low[:, None]).all()
    assert (body <= high[:, None]).all()


def test_waves_have_the_given_standard_deviation_and_stay_within_their_bound():
    waves = Waves.draw(np.random.default_rng(SEED), 3.0, 50.0, channels=3)
    values = waves.at(np.random.default_rng(SEED).uniform(-500, 500, (3, 20000)).astype(np.float32))
    np.testing.assert_allclose(values.std(axis=1), 3.0, rtol=0.1)
    assert np.abs(values).max() <= waves.reach_mm
