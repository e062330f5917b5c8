"""Fingerprints of pictures, which are alike for the same picture in another size or compression."""

import cv2
import numpy as np
from jaxtyping import Shaped

SIDE = 16  # rows and columns of differences
# Bits of 256 in which fingerprints of the same picture differ. Measured on the fields of view of five images of IDRiD
# and two of DRIVE: at most 16 between an image and copies of it, 256 px to full size, squeezed to a square or padded,
# JPEG quality down to 30; at least 50 between different eyes.
SAME_BELOW = 25


def fingerprint(image: Shaped[np.ndarray, "H W *C"]) -> str:
    """256 bits in 64 hexadecimal digits: where the picture, thinned out to 16 x 17, becomes brighter to the right.

    Args:
        image: (H, W) or (H, W, 3), uint8 or uint16.

    Source: "difference hash", N. Krawetz, 2013.
    """
    grey = image.astype(np.float32).mean(-1) if image.ndim == 3 else image.astype(np.float32)
    small = cv2.resize(grey, (SIDE + 1, SIDE), interpolation=cv2.INTER_AREA)
    return np.packbits(np.diff(small, axis=1) > 0).tobytes().hex()


def distance(first: str, second: str) -> int:
    """Number of bits in which two fingerprints differ."""
    return (int(first, 16) ^ int(second, 16)).bit_count()
