"""Number types that other programs read."""

import numpy as np


def portable(array: np.ndarray) -> np.ndarray:
    """The same values in a dtype that other programs read: whole numbers of 64 bits in 8 to 32 where they fit.

    bool becomes uint8, float16 float32, and what is longer than float64 becomes float64.
    """
    if array.dtype == bool:
        return array.astype(np.uint8)
    if array.dtype.kind == "f" and array.dtype.itemsize not in (4, 8):
        return array.astype(np.float32 if array.dtype.itemsize == 2 else np.float64)
    if array.dtype.kind in "iu" and array.dtype.itemsize == 8 and array.size:
        low, high = int(array.min()), int(array.max())
        for dtype in (np.int16, np.uint16, np.int32, np.uint32):
            if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
                return array.astype(dtype)
    return array
