"""Truncated files and flipped bits: every reader of pictures gives pixels of a bounded size or one error."""

import io
import resource

import cv2
import numpy as np
import pytest
from PIL import Image

from data.describe.facts import Unreadable, read_facts
from data.describe.folder import Item
from dataloaders.io.decoding import LARGEST_PX
from dataloaders.io.pictures import read_binary_mask, read_grey_codes, read_picture
from dataloaders.io.png import read_image
from tests.dataloaders.io.fuzz import bit_flips, truncations
from util.errors import DataError

NOISE = np.random.default_rng(0).integers(0, 256, (24, 20, 3), dtype=np.uint8)
MOST_KIB = 2 * 2**20  # that the process may grow by


def encoded(kind, array: np.ndarray = NOISE, **options):
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, kind, **options)
    return stream.getvalue()


def deep(suffix, array):
    return cv2.imencode(suffix, array)[1].tobytes()


FILES = {
    "grey.png": encoded("PNG", NOISE[..., 0]),
    "palette.png": encoded("PNG", np.asarray(Image.fromarray(NOISE).quantize(16))),
    "colour.png": encoded("PNG"),
    "deep.png": deep(".png", NOISE.astype(np.uint16) * 257),
    "colour.jpg": encoded("JPEG", quality=80),
    "progressive.jpg": encoded("JPEG", progressive=True),
    "colour.tif": encoded("TIFF"),
    "packed.tif": encoded("TIFF", compression="tiff_lzw"),
    "deflate.tif": encoded("TIFF", compression="tiff_adobe_deflate"),
    "float.tif": encoded("TIFF", NOISE[..., 0].astype(np.float32)),
    "deep.tif": deep(".tif", NOISE.astype(np.uint16) * 257),
    "fractions.tif": deep(".tif", NOISE.astype(np.float32)),
    "mask.gif": encoded("GIF", NOISE[..., 0]),
    "mask.bmp": encoded("BMP", NOISE[..., 0]),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", FILES)
def test_damaged_files_give_pixels_or_an_error(tmp_path, name):
    path, whole = tmp_path / name, FILES[name]
    damaged = [*truncations(whole, 8), *bit_flips(whole, 1, 20), *bit_flips(whole, 2, 20, upto=64)]
    messages = []
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for content in damaged:
        path.write_bytes(content)
        for read in (read_picture, read_binary_mask, read_grey_codes, read_image):
            try:
                found = read(path)
            except DataError as error:
                messages.append(str(error))
            else:
                array = found[0] if isinstance(found, tuple) else found
                assert array.shape[0] * array.shape[1] <= LARGEST_PX
        facts = read_facts(tmp_path, Item(name, "picture"))
        assert not isinstance(facts, Unreadable) or facts.reason
    assert len(messages) > 10
    assert all(str(path) in message for message in messages)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < MOST_KIB
