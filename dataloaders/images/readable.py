"""Which prepared images can be read, where some cannot."""

from collections import Counter
from collections.abc import Sequence

from dataloaders.images.folder import ImageFolder
from dataloaders.io.png import read_image, read_mask
from util.errors import DataError
from util.items import Failures, catching


def find_readable(
    folder: ImageFolder, ids: Sequence[str], structures: Sequence[str], failures: Failures
) -> tuple[str, ...]:
    """The images that can be read with their masks, and have the size and type that most have.

    Args:
        folder: the prepared images.
        ids: of the images to read.
        structures: whose masks are read, too.
        failures: receives id -> reason of all others.
    """
    kinds: dict[str, str] = {}
    unreadable: Failures = {}
    for image_id in ids:
        with catching(unreadable, image_id, f"image {image_id}"):
            kinds[image_id] = _kind(folder, image_id, structures)
    usual = Counter(kinds.values()).most_common(1)
    for image_id, kind in kinds.items():
        with catching(unreadable, image_id, f"image {image_id}"):
            if kind != usual[0][0]:
                raise DataError(
                    f"{folder.image_path(image_id)}: {kind}; expected {usual[0][0]}, as most have. Prepare it again."
                )
    failures |= unreadable
    return tuple(image_id for image_id in ids if image_id not in unreadable)


def _kind(folder: ImageFolder, image_id: str, structures: Sequence[str]) -> str:
    """Type and size of an image and its masks, in words."""
    image = read_image(folder.image_path(image_id))
    masks = {read_mask(folder.mask_path(image_id, name)).shape for name in structures}
    return f"{image.dtype} of shape {image.shape}, masks of shape {', '.join(map(str, sorted(masks)))}"
