"""Simple pictures in colour: a line, bright and dark blobs, a disc with a cup, before a plain or an uneven background.

A network learns them in seconds. In tests and studies of several partly labelled sets they stand for vessels, lesions,
optic disc and cup.
"""

import numpy as np
from scipy import ndimage

from data.phantom.devices.pictures import correlated_noise, to_uint8
from data.phantom.writers.formats import LabelledImage

STRUCTURES = ("line", "bright", "dark", "disc", "cup")
SIDE_PX = 32  # the size for which radii and distances below are given
BACKGROUND = (0.5, 0.3, 0.2)  # red, green, blue, 0 to 1, as all below
# In the order in which they are drawn, one over the other.
COLOURS = {
    "disc": (0.75, 0.6, 0.35),
    "cup": (0.95, 0.9, 0.7),
    "line": (0.35, 0.1, 0.1),
    "bright": (0.9, 0.9, 0.2),
    "dark": (0.1, 0.05, 0.4),
}


def make_picture(
    seed: int, side_px: int = SIDE_PX, cast: tuple[float, ...] = (0, 0, 0), unevenness: float = 0.0
) -> LabelledImage:
    """A picture with all structures; blobs may cover the others, whose masks go on below them.

    Args:
        seed: different seeds give different pictures.
        side_px: rows and columns.
        cast: added to red, green and blue.
        unevenness: standard deviation of the smooth changes in brightness.

    Returns:
        Image (side_px, side_px, 3) uint8, and the masks of `STRUCTURES`, of which bright and dark exclude each other
        and the disc includes the cup.
    """
    rng = np.random.default_rng(seed)
    scale = side_px / SIDE_PX
    row, column = np.mgrid[:side_px, :side_px] / scale
    masks = {}
    slope, start = rng.uniform(-0.5, 0.5), rng.uniform(6, SIDE_PX - 6)
    masks["line"] = abs(row - start - slope * (column - SIDE_PX / 2)) < 1.5
    for name in ("bright", "dark"):
        centres = rng.uniform(4, SIDE_PX - 4, (3, 2))
        masks[name] = np.any([np.hypot(row - y, column - x) < 2.2 for y, x in centres], axis=0)
    masks["dark"] &= ~masks["bright"]
    y, x = rng.uniform(8, SIDE_PX - 8, 2)
    masks["disc"], masks["cup"] = np.hypot(row - y, column - x) < 6, np.hypot(row - y, column - x) < 3
    image = np.full((side_px, side_px, 3), BACKGROUND)
    for name, colour in COLOURS.items():
        image[masks[name]] = colour
    image = ndimage.gaussian_filter(image, (0.5 * scale, 0.5 * scale, 0)) + rng.normal(0, 0.02, image.shape)
    if unevenness:
        image = image + unevenness * correlated_noise((side_px, side_px, 1), side_px / 6, rng)
    return LabelledImage(to_uint8(image + np.array(cast)), masks)
