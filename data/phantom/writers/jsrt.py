"""Phantom in the format of the JSRT chest films (Japanese Society of Radiological Technology), with SCR masks."""

from pathlib import Path

import numpy as np

from data.phantom.bodies.chest import FILM_MM, absorption, draw_chest
from data.phantom.devices.film import add_marker, add_nodule, develop
from data.phantom.devices.pictures import SIZES_PX, Frame, write_image
from data.phantom.writers.formats import LabelledImage, RawFormat, ScanRequest
from util.files import atomic_write

NODULE, NO_NODULE = "JPCLN", "JPCNN"
# Alternating, so that a few images include both kinds: JPCLN001, JPCNN001, JPCLN002, ...
IDS = tuple(
    f"{kind}{number:03d}"
    for number in range(1, 155)
    for kind, last in ((NODULE, 154), (NO_NODULE, 93))
    if number <= last
)
STRUCTURES = ("left lung", "right lung", "heart", "left clavicle", "right clavicle")
FILMS = "All247images"
FOLDS = ("fold1", "fold2")  # of the images with odd and with even numbers
WHITE = 4095  # 12 bits


def make(request: ScanRequest) -> LabelledImage:
    """Generates one film in memory: 12-bit image (H, W) uint16, bone dark as in the files; masks of `STRUCTURES`."""
    rng, detector = request.generators("jsrt")
    chest, frame = draw_chest(rng), Frame(request.size_px, FILM_MM)
    points = chest.place(frame.points())
    tissue = absorption(chest, points, rng)
    if IDS[request.scan_index].startswith(NODULE):
        add_nodule(tissue, chest, points, rng)
    bright = develop(tissue, frame, rng, detector)
    add_marker(bright, frame, rng)
    outlines = {**chest.lungs, **chest.clavicles, "heart": chest.heart}
    masks = {name: outlines[name].distance(points) < 0 for name in STRUCTURES}
    return LabelledImage(np.rint((1 - np.clip(bright, 0, 1)) * WHITE).astype(np.uint16), masks)


def write(out: Path, request: ScanRequest) -> None:
    """Writes `<id>.IMG`, headerless and big-endian, and its five masks of half the size; existing files are kept.

    Raises:
        UserError: the folder is not writable, or the disk is full.
    """
    name = IDS[request.scan_index]
    fold = FOLDS[0] if int(name[-3:]) % 2 else FOLDS[1]
    film = out / FILMS / f"{name}.IMG"
    mask_paths = {structure: out / fold / "masks" / structure / f"{name}.gif" for structure in STRUCTURES}
    if all(path.exists() for path in (film, *mask_paths.values())):
        return
    sample = make(request)
    with atomic_write(film) as temporary:
        temporary.write_bytes(sample.image.astype(">u2").tobytes())
    for structure, path in mask_paths.items():
        write_image(path, _downsample(sample.masks[structure]), "GIF")


def _downsample(mask: np.ndarray) -> np.ndarray:
    """Mask (H / 2, W / 2), set if at least two of the four pixels are."""
    rows, columns = mask.shape
    return mask.reshape(rows // 2, 2, columns // 2, 2).sum((1, 3)) >= 2


JSRT_RAW = RawFormat(len(IDS), (FILMS, *FOLDS), make, write, sizes_px=SIZES_PX, size_step_px=2)
