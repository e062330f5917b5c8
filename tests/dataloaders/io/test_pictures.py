"""Pictures of any origin: every kind is read right or named; damage is called what it is; sizes are bounded."""

import gzip
import io
import struct
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image, PngImagePlugin

from data.sources.jsrt import read_radiograph
from data.sources.raw_images import read_raw_mask, read_rgb
from dataloaders.io import decoding
from dataloaders.io.pictures import read_binary_mask, read_colour_codes, read_grey_codes, read_picture, to_grey
from dataloaders.io.png import read_image, read_mask, read_png_stack, write_png
from util.errors import DataError

GREY = np.arange(48, dtype=np.uint8).reshape(6, 8)
MASK = GREY > 20
READERS = (read_picture, read_binary_mask, read_grey_codes, read_colour_codes, read_image, read_mask, read_rgb)


def save(path, array, **options):
    Image.fromarray(array).save(path, **options)
    return path


def exif(orientation):
    content = Image.Exif()
    content[274] = orientation
    return content


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
def test_every_reader_turns_pictures_upright(tmp_path, orientation, suffix):
    """Stored so that pillow's own turning, which viewers agree with, gives the picture back."""
    stored = np.kron(MASK, np.ones((8, 8), np.uint8)) * np.uint8(255)
    path = save(tmp_path / f"a.{suffix}", stored, exif=exif(orientation))
    turns = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_270"}
    turns |= {7: "TRANSVERSE", 8: "ROTATE_90"}
    shown = Image.fromarray(stored)
    if orientation in turns:
        shown = shown.transpose(Image.Transpose[turns[orientation]])
    expected = np.asarray(shown) > 127
    assert np.array_equal(read_picture(path) > 127, expected)
    assert np.array_equal(read_binary_mask(path)[0], expected)
    assert np.array_equal(read_raw_mask(path)[0], expected)
    assert np.array_equal(read_rgb(path)[..., 1] > 127, expected)
    if suffix != "jpg":
        assert np.array_equal(read_grey_codes(path) > 127, expected)


@pytest.mark.parametrize(
    "array",
    [MASK.astype(np.uint8) * 255, MASK, MASK.astype(np.uint16) * 65_535, MASK.astype(np.int32), MASK * np.float32(1)],
    ids=["uint8", "bool", "uint16", "int32", "float32"],
)
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_masks_of_every_type(tmp_path, array, suffix):
    if suffix == "png" and array.dtype.kind in "if":
        suffix = "tiff"  # PNG has no such types
    path = save(tmp_path / f"m.{suffix}", array)
    assert np.array_equal(read_binary_mask(path)[0], MASK)
    assert np.array_equal(read_raw_mask(path)[0], MASK)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.uint32, np.int32, np.float32, np.float64])
def test_tiff_masks_of_other_programs(tmp_path, dtype):
    tifffile.imwrite(tmp_path / "m.tif", MASK.astype(dtype))
    assert np.array_equal(read_binary_mask(tmp_path / "m.tif")[0], MASK)


def test_masks_in_palettes_and_with_transparency(tmp_path):
    palette = Image.fromarray(MASK.astype(np.uint8)).convert("P")
    palette.putpalette([0, 0, 0, 128, 0, 0])
    palette.save(tmp_path / "p.png")
    rgba = np.concatenate([np.full((6, 8, 3), 255, np.uint8), MASK[..., None] * np.uint8(255)], axis=-1)
    for path in (tmp_path / "p.png", save(tmp_path / "a.png", rgba)):
        assert np.array_equal(read_binary_mask(path)[0], MASK)


def test_label_values_beyond_16_bits_keep_their_value(tmp_path):
    codes = np.array([[0, 70_001], [2**30 + 1, 5]], np.int32)
    assert np.array_equal(read_grey_codes(save(tmp_path / "m.tif", codes)), codes)


def test_16_bits_where_white_is_zero_are_inverted(tmp_path):
    values = np.array([[0, 1000], [65_535, 7]], np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="miniswhite")
    assert np.array_equal(read_picture(tmp_path / "a.tif"), 65_535 - values)


def test_16_bits_with_transparency_keep_their_depth(tmp_path):
    import cv2

    grey = np.array([[0, 1000], [65_535, 7]], np.uint16)
    cv2.imwrite(str(tmp_path / "a.png"), np.dstack([grey, grey, grey, np.full_like(grey, 65_535)]))
    assert np.array_equal(read_picture(tmp_path / "a.png")[..., 0], grey)


def test_cmyk_is_read_as_colours(tmp_path):
    save(tmp_path / "a.jpg", np.full((16, 16, 3), (200, 30, 30), np.uint8))
    with Image.open(tmp_path / "a.jpg") as image:
        image.convert("CMYK").save(tmp_path / "b.jpg", quality=95)
    found = read_picture(tmp_path / "b.jpg")
    assert np.abs(found.astype(int) - (200, 30, 30)).max() < 12
    assert to_grey(found).shape == (16, 16)


@pytest.mark.parametrize(("suffix", "options"), [("tif", {}), ("gif", {}), ("png", {})])
def test_several_pages_or_frames_are_named(tmp_path, suffix, options):
    pages = [Image.fromarray(GREY * factor) for factor in (1, 2, 3)]
    pages[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=pages[1:], **options)
    with pytest.raises(DataError, match=rf"a\.{suffix}: 3 pages; expected a single picture"):
        read_picture(tmp_path / f"a.{suffix}")


def test_of_a_phone_pictures_file_the_first_is_read(tmp_path):
    first, second = (Image.fromarray(np.full((8, 8), value, np.uint8)) for value in (200, 10))
    first.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[second])
    assert np.abs(read_picture(tmp_path / "a.jpg").astype(int) - 200).max() < 3


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_of_size(width_px, height_px):
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width_px, height_px, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


def png_with_text():
    text, stream = PngImagePlugin.PngInfo(), io.BytesIO()
    text.add_text("comment", "a" * 3_000_000, zip=True)
    Image.fromarray(GREY).save(stream, "PNG", pnginfo=text)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", r"empty \(0 bytes\)"),
        (b"<!DOCTYPE html>", r"it begins with b'<!DOCTYP'; expected PNG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "it begins with b'%!PS-Ado'"),
        (png_with_text(), "too much text in its metadata.*without metadata"),
        (png_of_size(2**14, 2**14), f"16384 x 16384|more than {decoding.LARGEST_PX}.*Scale"),
        (png_of_size(12_000, 12_000), r"12000 x 12000 pixels .* by its header.*Scale the picture down"),
        (png_of_size(2**31 - 1, 2**31 - 1), f"more than {decoding.LARGEST_PX} pixels"),
    ],
    ids=["empty", "html", "eps", "text", "large", "larger than ours", "largest"],
)
@pytest.mark.parametrize("read", READERS, ids=lambda read: read.__name__)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_hostile_files_are_named_by_every_reader(tmp_path, content, found, read):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(DataError, match=rf"a\.png: .*({found})"):
        read(tmp_path / "a.png")


def test_a_tiff_of_absurd_size_is_refused_by_its_header(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((4, 4, 3), np.float32), photometric="rgb")
    content = bytearray((tmp_path / "a.tif").read_bytes())
    for tag in (256, 257):  # width and height: the number of the tag, a type of two or four bytes, one value
        place = next(content.index(start) for kind in (3, 4) if (start := struct.pack("<HHI", tag, kind, 1)) in content)
        content[place : place + 12] = struct.pack("<HHII", tag, 4, 1, 2**30)
    (tmp_path / "a.tif").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.tif: 1073741824 x 1073741824 pixels .* by its header"):
        read_picture(tmp_path / "a.tif")


def test_truncated_is_what_lacks_its_end(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    for suffix in ("png", "jpg"):
        path = save(tmp_path / f"a.{suffix}", noise)
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(DataError, match=rf"a\.{suffix}: cannot be read as an image \(.*truncated.*Copy"):
            read_picture(path)
    damaged = bytearray(whole)
    damaged[700:-2] = bytes(len(whole) - 702)
    path.write_bytes(damaged)
    try:
        read_picture(path)
    except DataError as error:
        assert "truncated" not in str(error)  # noqa: PT017 - some versions of libjpeg read it


def test_slices_of_macos_are_skipped_and_suffixes_have_any_case(tmp_path):
    for number, suffix in ((1, "png"), (2, "PNG")):
        write_png(tmp_path / f"IMG-{number}.png", np.full((2, 3), number, np.uint8))
        (tmp_path / f"IMG-{number}.png").rename(tmp_path / f"IMG-{number}.{suffix}")
        (tmp_path / f"._IMG-{number}.{suffix}").write_bytes(b"\0\5\x16\7 resource fork")
    assert read_png_stack(tmp_path)[:, 0, 0].tolist() == [1, 2]


def test_slices_in_palettes_and_in_three_channels_are_read(tmp_path):
    labels = np.array([[0, 1], [2, 3]], np.uint8)
    palette = Image.fromarray(labels).convert("P")
    palette.putpalette(np.repeat([0, 63, 126, 189], 3).tolist())
    palette.save(tmp_path / "1.png")
    save(tmp_path / "2.png", np.repeat(labels[..., None] * np.uint8(63), 3, axis=-1))
    assert read_png_stack(tmp_path).tolist() == [[[0, 63], [126, 189]]] * 2


def test_radiographs_of_odd_types_are_named(tmp_path):
    path = tmp_path / "JPCLN001.png"
    save(tmp_path / "a.tif", GREY.astype(np.float32)).rename(path)
    with pytest.raises(DataError, match=r"JPCLN001\.png: float32 of shape \(6, 8\); expected grey of 8 to 16 bits"):
        read_radiograph(path)


def test_packed_ppm_files_are_read_up_to_a_size(tmp_path, monkeypatch):
    colour = np.arange(54, dtype=np.uint8).reshape(3, 6, 3)
    for name, array in (("a", colour), ("b", GREY)):
        save(tmp_path / f"{name}.ppm", array)
        content = (tmp_path / f"{name}.ppm").read_bytes()
        (tmp_path / f"{name}.ppm.gz").write_bytes(gzip.compress(content))
        np.testing.assert_array_equal(read_picture(tmp_path / f"{name}.ppm.gz"), array)
    path = tmp_path / "a.ppm.gz"
    whole = path.read_bytes()
    for damaged in (whole[:-20], whole[:4], b"", b"P6 6 3 255 " + bytes(54)):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"a\.ppm\.gz: cannot be read as an image"):
            read_picture(path)
    monkeypatch.setattr(decoding, "LARGEST_PACKED", 1000)
    path.write_bytes(gzip.compress(b"P6 20 20 255 " + bytes(1200)))
    with pytest.raises(DataError, match=r"a\.ppm\.gz: more than 1000 bytes when unpacked"):
        read_picture(path)
