"""Pictures and volumes as text within a page, small."""

import base64
import gzip
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from util.errors import DataError
from util.results.report.views import View

QUALITY = 78  # of WebP
LARGEST_PX = 1100  # width of a picture
SMALLER = (
    (LARGEST_PX, QUALITY),
    (LARGEST_PX, 55),
    (LARGEST_PX, 35),
    (825, 35),
    (550, 35),
)  # width and quality, tried in turn
PICTURES_BYTES = 1_600_000  # of the text of all pictures in a page with a viewer
LARGEST_BYTES = 700_000  # of the text of a case's volumes
GREYS = 64  # levels of an image in the viewer: what an eye can tell apart, at half the size

VENDOR = Path(__file__).parent / "vendor"
NIIVUE = VENDOR / "niivue-0.69.0.umd.js.gz"


@dataclass(frozen=True)
class Picture:
    """A picture in the page."""

    caption: str
    source: str
    width: int
    height: int


def encode_picture(path: Path, caption: str, most_bytes: int = PICTURES_BYTES) -> Picture:
    """A picture as WebP in a data URL, not wider than `LARGEST_PX`.

    Args:
        path: of the picture.
        caption: below it.
        most_bytes: of the text; quality and size are reduced for it, but not below the last of `SMALLER`.

    Raises:
        DataError: it cannot be read.
    """
    try:
        with Image.open(path) as opened:
            image = opened.convert("RGB")
    except OSError as error:
        reason = error.strerror or "not a picture"
        raise DataError(f"{path}: cannot be read ({reason}). Draw it again, or leave it out.") from error
    for width, quality in SMALLER:
        if image.width > width:
            image = image.resize((width, round(image.height * width / image.width)), Image.Resampling.LANCZOS)
        source = data_url(image, quality=quality)
        if len(source) <= most_bytes:
            break
    return Picture(caption, source, *image.size)


def data_url(image: Image.Image, kind: Literal["webp", "png"] = "webp", quality: int = QUALITY) -> str:
    """An image as a data URL: WebP with losses, or PNG, which keeps a palette and a transparent colour."""
    stream = io.BytesIO()
    options = {"quality": quality, "method": 4} if kind == "webp" else {"optimize": True}
    image.save(stream, kind.upper(), **options)
    return f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode()}"


def encode_view(view: View) -> dict[str, Any]:
    """The volumes of a view as gzipped NIfTI in base64, and what is needed to show them.

    Volumes of more than `LARGEST_BYTES` are thinned out, first within slices.
    """
    grey = view.image // (256 // GREYS) * (256 // GREYS)
    volumes = {"image": grey, "truth": view.truth, "prediction": view.prediction}
    steps, affine = [1, 1, 1], view.affine
    while True:
        scaled = affine @ np.diag([*steps[::-1], 1.0])
        kept = tuple(slice(None, None, step) for step in steps)
        texts = {name: _nifti(volume[kept], scaled) for name, volume in volumes.items()}
        if sum(map(len, texts.values())) <= LARGEST_BYTES:
            break
        axes = (1, 2) if steps[1] <= steps[0] else (0,)
        for axis in axes:
            steps[axis] += 1
    about = view.about
    return texts | {
        "letters": about.letters,
        "spacing": [size * step for size, step in zip(about.spacing_mm, steps, strict=True)],
        "names": about.names,
        "step": steps,
    }


def _nifti(volume: UInt8[np.ndarray, "D H W"], affine: np.ndarray) -> str:
    image = nib.Nifti1Image(np.ascontiguousarray(volume).T, affine)
    image.header.set_xyzt_units("mm")
    return base64.b64encode(gzip.compress(image.to_bytes(), 9, mtime=0)).decode()


@dataclass(frozen=True)
class Bundle:
    """NiiVue: its script, gzipped in base64 and as it is run, and its licence."""

    packed: str
    script: bytes
    licence: str


def niivue() -> Bundle | None:
    """Reads NiiVue; None where its file is missing."""
    if not NIIVUE.exists():
        return None
    content, licence = NIIVUE.read_bytes(), (VENDOR / "LICENSE.niivue").read_text(encoding="utf-8")
    return Bundle(base64.b64encode(content).decode(), gzip.decompress(content), licence)
