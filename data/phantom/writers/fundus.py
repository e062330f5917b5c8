"""Phantoms of seven sets of fundus photographs, in the layouts and formats of their downloads.

The photographs of RETA are those of IDRiD at the same places of the list, squeezed to a square.
"""

import gzip
import io
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from data.phantom.bodies import eye
from data.phantom.devices.pictures import SIZES_PX, union_distance
from data.phantom.writers.formats import LabelledImage, RawFormat, ScanRequest
from data.phantom.writers.fundus_layouts import DISC_CUP, FIELD, IMAGE, LAYOUTS, SECOND
from dataloaders.images.geometry import resize_image, resize_nearest
from util.files import atomic_write

JPEG = {"quality": 95, "subsampling": 0}
FORMATS = {".jpg": "JPEG", ".tif": "TIFF", ".gif": "GIF", ".bmp": "BMP", ".png": "PNG", ".gz": "PPM"}
SECOND_OBSERVER_MM = 0.04  # by which the vessels of the second observer are thinner
CUP, RIM, BACKGROUND = 0, 128, 255  # grey values of the maps of disc and cup
RED_ON_BLACK = [0, 0, 0, 255, 0, 0]  # palette


def make(request: ScanRequest, name: str) -> LabelledImage:
    """Generates one photograph in memory.

    Args:
        request: which one.
        name: of the data set, a key of `LAYOUTS`.

    Returns:
        The picture (H, W, 3) uint8; the masks of all structures, annotated or not, of the field of view ("field") and
        of the vessels as a second observer draws them ("second").
    """
    layout = LAYOUTS[name]
    rng, noise = request.generators(layout.eyes)
    camera = layout.camera(request.scan_index)
    body = eye.draw_eye(rng, layout.lacks(request.scan_index))
    frame = camera.frame(request.size_px)
    points = frame.points()
    image = camera.photograph(eye.colours(body, frame, points, rng), frame, points, noise)
    field = camera.field(points)
    masks = {key: mask & field for key, mask in body.masks(points).items()}
    masks[FIELD] = field
    masks[SECOND] = (union_distance(body.vessels, points) < -SECOND_OBSERVER_MM) & field
    if layout.is_square:
        side = request.size_px
        return LabelledImage(resize_image(image, side), {k: resize_nearest(m, side, side) for k, m in masks.items()})
    return LabelledImage(image, masks)


def write(out: Path, request: ScanRequest, name: str) -> None:
    """Writes the files of one photograph; existing files are kept.

    Raises:
        UserError: the folder is not writable, or the disk is full.
    """
    layout = LAYOUTS[name]
    files = {out / path: shown for path, shown in layout.files(request.scan_index).items()}
    missing = {path: shown for path, shown in files.items() if not path.exists()}
    if not missing:
        return
    sample = make(request, name)
    for path, shown in missing.items():
        picture = Image.fromarray(_pixels(sample, shown))
        if layout.has_palette and shown != IMAGE:
            picture = Image.fromarray(sample.masks[shown].astype(np.uint8), "P")
            picture.putpalette(RED_ON_BLACK)
        with atomic_write(path) as temporary:
            temporary.write_bytes(_encoded(picture, path.suffix))


def _pixels(sample: LabelledImage, shown: str) -> np.ndarray:
    """The pixels of a file, uint8, by what it shows; masks as 0 and 255."""
    if shown == IMAGE:
        return sample.image
    if shown == DISC_CUP:
        disc, cup = sample.masks["disc"], sample.masks["cup"]
        return np.where(cup, CUP, np.where(disc, RIM, BACKGROUND)).astype(np.uint8)
    return sample.masks[shown].astype(np.uint8) * 255


def _encoded(picture: Image.Image, suffix: str) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, FORMATS[suffix], **(JPEG if suffix == ".jpg" else {}))
    content = stream.getvalue()
    return gzip.compress(content, mtime=0) if suffix == ".gz" else content


FUNDUS_RAW = {
    name: RawFormat(
        layout.n_published, layout.folders, partial(make, name=name), partial(write, name=name), sizes_px=SIZES_PX
    )
    for name, layout in LAYOUTS.items()
}
