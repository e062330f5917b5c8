import logging

import numpy as np

from models.networks.body import BodyBox
from models.networks.image_registration import RegisteredScan, RegistrationSteps, register, warp

SPACING_MM = (5.0, 2.0, 2.0)


def scan(shift=(0, 0), depth=12, size=64, contrast=1.0):
    """An ellipsoid with a bright ball in it; the ball is the structure."""
    z, y, x = np.mgrid[:depth, :size, :size].astype(float)
    body = ((y - 32) / 26) ** 2 + ((x - 32) / 28) ** 2 <= 1
    ball = ((z - depth / 2) * 2.5) ** 2 + (y - 30 - shift[0]) ** 2 + (x - 24 - shift[1]) ** 2 <= 64
    image = contrast * (body + 0.3 * np.sin(x / 5) * body + 2.0 * ball)
    return RegisteredScan(image.astype(np.float32), BodyBox((6.0, 58.0), (4.0, 60.0)), SPACING_MM), ball


def dice(one, other):
    return 2 * (one & other).sum() / (one.sum() + other.sum())


def test_a_moved_structure_is_followed():
    (fixed, truth), (moving, label) = scan((2, 2), contrast=2.0), scan()
    transform = register(fixed, moving, RegistrationSteps(shrink=1))
    warped = warp(label[None].astype(np.float32), fixed, moving, transform)[0] > 0.5
    assert dice(warped, truth) > max(0.85, dice(label, truth) + 0.1)


def test_a_scan_of_one_slice_is_placed_by_its_body(caplog):
    (fixed, _), (moving, label) = scan(depth=1), scan()
    with caplog.at_level(logging.WARNING):
        transform = register(fixed, moving, RegistrationSteps())
    warped = warp(label[None].astype(np.float32), fixed, moving, transform)
    assert warped.shape == (1, 1, 64, 64)
    assert np.isfinite(warped).all()
    assert "registration failed" in caplog.text
