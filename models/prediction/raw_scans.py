"""What is checked of a person's scan before it is segmented."""

import logging
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from dataloaders.description import DatasetSpec
from dataloaders.samples import Volume
from dataloaders.scans.brightness_profile import LIMIT, brightness_profile, profile_distance
from dataloaders.scans.preprocess import PrepareParameters, scan_doubts
from util.errors import DataError

logger = logging.getLogger(__name__)


def check_array(volume: Volume, what: str, kinds: str = "iuf") -> None:
    """Checks that a volume holds one finite number per voxel.

    Args:
        volume: raw scan or label map.
        what: it is, for the message.
        kinds: of dtype that are allowed, as in `numpy.dtype.kind`.

    Raises:
        DataError: it does not.
    """
    array = volume.array
    if array.ndim != 3 or not array.size or array.dtype.kind not in kinds:
        raise DataError(
            f"the {what} is an array of shape {array.shape} and type {array.dtype}; expected one number per voxel in "
            "three dimensions. Extract a single volume first."
        )
    if not np.isfinite(array).all():
        raise DataError(f"the {what} contains NaN or infinite values. Convert or copy it again.")


def warn_of_doubts(volume: Volume, parameters: PrepareParameters, spec: DatasetSpec | None, name: str) -> None:
    """Logs what is doubtful about a scan.

    Args:
        volume: raw scan.
        parameters: how it will be prepared.
        spec: of the training data; None: unknown.
        name: of the scan.

    Raises:
        DataError: see `scan_doubts`.
    """
    for doubt in scan_doubts(volume, parameters, "" if spec is None else spec.modality):
        logger.warning("%s: %s", name, doubt)


def warn_of_brightness(array: np.ndarray, supports: Sequence[Float[np.ndarray, "100"]], name: str) -> None:
    """Logs when the brightness of a scan is distributed unlike that of every annotated one.

    Args:
        array: (D, H, W) prepared intensities.
        supports: profiles of the annotated scans; empty: there is nothing to compare with.
        name: of the scan.
    """
    if not supports:
        return
    own = brightness_profile(array)
    distance = min(profile_distance(own, each) for each in supports)
    if distance > LIMIT:
        logger.warning(
            "%s: brightness is distributed unlike in the annotated scan: %.2f standard deviations apart within the "
            "body; scans of one kind are at most %.1f. Another sequence, or inverted, saturated or edited intensities? "
            "Compare both in a viewer.",
            name,
            distance,
            LIMIT,
        )
