"""Users' own images: table of files, three forms of masks, annotators, depths, orientation, typical mistakes."""

import logging
import struct
import zlib
from dataclasses import replace

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from data.prepare.splits import split_by_fractions, split_images
from data.sources.label_codes import read_label_map
from data.sources.own_images import find_images, own_source, read_masks
from dataloaders.description import ClassSpec, DatasetSpec, IntensityRule, SplitRule
from dataloaders.images.preprocess import read_image
from util.errors import ConfigError, DataError

RED, GREEN = (200, 0, 0), (0, 180, 0)
VALUES = DatasetSpec(
    "own", "images", classes=(ClassSpec("disc", value=128), ClassSpec("cup", value=255)), files="t.csv"
)
COLOURS = replace(VALUES, classes=(ClassSpec("disc", colour=RED), ClassSpec("cup", colour=GREEN)))
BINARY = replace(VALUES, classes=(ClassSpec("disc"),))
LABEL = np.array([[0, 0, 1, 1], [0, 2, 2, 1], [0, 2, 2, 0]])


def save(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(array)).save(path, **options)
    return path


def grey_map(label=LABEL):
    return np.array([0, 128, 255], np.uint8)[label]


def colour_map(label=LABEL):
    return np.array([(0, 0, 0), RED, GREEN], np.uint8)[label]


def write_table(folder, *lines, columns="id,image,label"):
    path = folder / "t.csv"
    path.write_text("\n".join([columns, *lines]) + "\n")
    return path


@pytest.fixture
def picture(tmp_path):
    """Colour pictures of 3 x 4 pixels."""
    rng = np.random.default_rng(0)
    for name in "abc":
        save(tmp_path / f"{name}.png", rng.integers(0, 256, (3, 4, 3), dtype=np.uint8))
    return tmp_path


def masks_of(path, spec):
    (raw,) = find_images(path, spec)
    return {name: mask.tolist() for name, (mask, _) in read_masks(raw, (3, 4), spec).items()}


EXPECTED = {"disc": (LABEL == 1).tolist(), "cup": (LABEL == 2).tolist()}


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp"])
def test_a_map_of_grey_codes(picture, suffix):
    save(picture / f"m.{suffix}", grey_map())
    assert masks_of(write_table(picture, f"a,a.png,m.{suffix}"), VALUES) == EXPECTED


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp"])
def test_a_map_of_colours(picture, suffix):
    save(picture / f"m.{suffix}", colour_map())
    assert masks_of(write_table(picture, f"a,a.png,m.{suffix}"), COLOURS) == EXPECTED


def test_a_map_in_a_palette_means_its_indices_or_its_colours(picture):
    indexed = Image.fromarray(np.asarray(LABEL, np.uint8)).convert("P")
    indexed.putpalette([0, 0, 0, *RED, *GREEN])
    indexed.save(picture / "m.png")
    table = write_table(picture, "a,a.png,m.png")
    assert masks_of(table, COLOURS) == EXPECTED
    plain = replace(VALUES, classes=(ClassSpec("disc"), ClassSpec("cup")))
    assert masks_of(table, plain) == EXPECTED


def test_transparent_pixels_are_background(picture):
    rgba = np.concatenate([np.full((3, 4, 3), RED, np.uint8), (LABEL[..., None] == 1) * np.uint8(255)], axis=-1)
    save(picture / "m.png", rgba)
    found = masks_of(write_table(picture, "a,a.png,m.png"), COLOURS)
    assert found == {"disc": EXPECTED["disc"], "cup": np.zeros((3, 4), bool).tolist()}


def test_a_mask_per_structure_and_an_absent_one(picture, caplog):
    save(picture / "d.png", (LABEL == 1).astype(np.uint8) * 255)
    save(picture / "c.png", (LABEL == 2).astype(np.uint16) * 65_535)
    save(picture / "d2.png", (LABEL == 1).astype(np.uint8))
    table = write_table(picture, "a,a.png,d.png,c.png", "b,b.png,d2.png,", columns="id,image,mask:disc,mask:cup")
    first, second = find_images(table, VALUES)
    assert {n: m.tolist() for n, (m, _) in read_masks(first, (3, 4), VALUES).items()} == EXPECTED
    masks = read_masks(second, (3, 4), VALUES)
    assert masks["disc"][0].tolist() == EXPECTED["disc"]
    assert not masks["cup"][0].any()
    assert f"{table}: 1 images have no file of cup, which is taken as absent: b" in caplog.messages


def test_one_class_in_the_column_label_is_a_mask_of_any_value(picture):
    save(picture / "m.png", (LABEL == 1).astype(np.uint8) * 255)
    assert masks_of(write_table(picture, "a,a.png,m.png"), BINARY) == {"disc": EXPECTED["disc"]}


def test_annotators_vote_and_ties_are_background(picture):
    one, two, three = (np.zeros((3, 4), np.uint8) for _ in range(3))
    one[0], two[0, :2], three[0, 1:3] = 128, 128, 255
    for name, array in (("1", one), ("2", two), ("3", three)):
        save(picture / f"{name}.png", array)
    columns = "id,image,label,label@anna,label@ben"
    table = write_table(picture, "a,a.png,1.png,2.png,3.png", columns=columns)
    assert masks_of(table, VALUES)["disc"][0] == [True, True, False, False]
    assert not np.any(masks_of(table, VALUES)["cup"])
    two_only = write_table(picture, "a,a.png,1.png,2.png,", columns=columns)
    assert masks_of(two_only, VALUES)["disc"][0] == [True, True, False, False]  # ties: background
    table = write_table(picture, "a,a.png,1.png,2.png,3.png", columns=columns)
    assert masks_of(table, replace(VALUES, annotators="ben"))["cup"][0] == [False, True, True, False]
    with pytest.raises(DataError, match=r"t\.csv: no mask by the annotator 'eve'.*found anna, ben"):
        find_images(table, replace(VALUES, annotators="eve"))


@pytest.mark.parametrize("exif", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
def test_pictures_are_turned_upright(tmp_path, exif, suffix):
    stored = np.zeros((16, 32), np.uint8)
    stored[:8, :16] = 200  # upper left quarter
    info = Image.Exif()
    info[0x0112] = exif
    path = save(tmp_path / f"a.{suffix}", stored, exif=info, **({"quality": 100} if suffix == "jpg" else {}))
    image = read_image(path, BINARY).astype(int)
    assert image.shape == ((32, 16) if exif >= 5 else (16, 32))
    rows, columns = image.shape
    quarter = {1: "tl", 2: "tr", 3: "br", 4: "bl", 5: "tl", 6: "tr", 7: "br", 8: "bl"}[exif]
    expected = np.zeros((rows, columns))
    top = slice(0, rows // 2) if quarter[0] == "t" else slice(rows // 2, rows)
    left = slice(0, columns // 2) if quarter[1] == "l" else slice(columns // 2, columns)
    expected[top, left] = 200
    assert np.abs(image - expected).max() < 8


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_deep_colours_are_turned_upright_or_refused(tmp_path, suffix):
    values = np.random.default_rng(1).integers(0, 65_536, (5, 6, 3), dtype=np.uint16)
    path = tmp_path / f"a.{suffix}"
    for exif, turns in ((3, 2), (6, -1)):
        if suffix == "tif":
            tifffile.imwrite(path, values, photometric="rgb", extratags=[(274, "H", 1, exif, True)])
        else:
            cv2.imwrite(str(path), values[..., ::-1])
            content = path.read_bytes()
            info = Image.Exif()
            info[0x0112] = exif
            body = b"eXIf" + info.tobytes().removeprefix(b"Exif\0\0")
            chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
            path.write_bytes(content[:33] + chunk + content[33:])
        if suffix == "tif" and exif == 6:
            with pytest.raises(DataError, match=r"a\.tif: a turned TIFF \(orientation 6\).*Save it upright"):
                read_image(path, replace(BINARY, channels=3))
        else:
            np.testing.assert_array_equal(read_image(path, replace(BINARY, channels=3)), np.rot90(values, turns))


def test_a_mask_without_orientation_is_turned_as_its_picture(tmp_path):
    info = Image.Exif()
    info[0x0112] = 6
    save(tmp_path / "a.jpg", np.zeros((3, 4), np.uint8), exif=info)
    save(tmp_path / "m.png", grey_map())
    (raw,) = find_images(write_table(tmp_path, "a,a.jpg,m.png"), VALUES)
    mask, _ = read_masks(raw, (4, 3), VALUES)["disc"]
    assert mask.tolist() == np.rot90(LABEL == 1, -1).tolist()


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_are_kept(tmp_path, suffix, channels):
    values = np.random.default_rng(1).integers(0, 65_536, (5, 6, 3), dtype=np.uint16)
    cv2.imwrite(str(tmp_path / f"a.{suffix}"), values[..., ::-1] if channels == 3 else values[..., 0])
    save(tmp_path / "m.png", np.zeros((5, 6), np.uint8))
    spec = replace(BINARY, channels=channels)
    (raw,) = find_images(write_table(tmp_path, f"a,a.{suffix},m.png"), spec)
    assert raw.bits == 16
    np.testing.assert_array_equal(read_image(raw.image, spec), values if channels == 3 else values[..., 0])


def test_fractions_need_a_known_range(tmp_path):
    save(tmp_path / "a.tif", np.array([[0, 0.25, 1]], np.float32))
    assert read_image(tmp_path / "a.tif", BINARY).tolist() == [[0, 16384, 65535]]
    save(tmp_path / "b.tif", np.array([[-100, 0, 300]], np.float32))
    with pytest.raises(DataError, match=r"b\.tif: fractions from -100 to 300; expected 0 to 1, or a window"):
        read_image(tmp_path / "b.tif", BINARY)
    windowed = replace(BINARY, intensity=IntensityRule(window=(-100.0, 100.0)))
    assert read_image(tmp_path / "b.tif", windowed).tolist() == [[0, 32768, 65535]]


def test_a_window_and_an_inversion_of_bytes(tmp_path):
    save(tmp_path / "a.png", np.array([[0, 50, 150, 255]], np.uint8))
    spec = replace(BINARY, intensity=IntensityRule(window=(50.0, 150.0), inverted=True))
    found = read_image(tmp_path / "a.png", spec)
    assert found.dtype == np.uint8
    assert found.tolist() == [[255, 255, 0, 0]]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_every_mode_is_read(tmp_path, mode):
    picture = Image.fromarray(np.full((3, 4, 3), 255, np.uint8)).convert(mode)
    picture.save(tmp_path / ("a.tif" if mode == "CMYK" else "a.png"))
    path = next(tmp_path.glob("a.*"))
    assert read_image(path, BINARY).tolist() == np.full((3, 4), 255).tolist()
    assert read_image(path, replace(BINARY, channels=3)).shape == (3, 4, 3)


def test_several_pages_are_refused(tmp_path):
    page = Image.fromarray(np.zeros((3, 4), np.uint8))
    page.save(tmp_path / "a.tif", save_all=True, append_images=[page, page])
    save(tmp_path / "m.png", np.zeros((3, 4), np.uint8))
    with pytest.raises(DataError, match=r"a\.tif: 3 pages; expected a single picture\. Save each page"):
        find_images(write_table(tmp_path, "a,a.tif,m.png"), BINARY)


def test_images_without_a_mask_are_named(picture, caplog):
    save(picture / "m.png", grey_map())
    table = write_table(picture, "b,b.png,", "c,c.png,m.png", "a,a.png,")
    assert [image.id for image in find_images(table, VALUES)] == ["c"]
    assert f"{table}: 2 images have no mask and are left out: a, b" in caplog.messages
    with pytest.raises(DataError, match="no image with a mask"):
        find_images(write_table(picture, "a,a.png,"), VALUES)


def test_an_unknown_colour_is_named_with_the_nearest_class(picture):
    colours = colour_map()
    colours[0, 0], colours[0, 1] = (210, 10, 0), (210, 10, 0)
    path = save(picture / "m.png", colours)
    with pytest.raises(
        DataError, match=r"m\.png: colour \[210, 10, 0\] \(2 pixels\) is no class; nearest: disc \(\[200, 0, 0\]\)"
    ):
        read_label_map(path, COLOURS)


def test_an_unknown_grey_value_is_named_with_the_nearest_class(picture):
    greys = grey_map()
    greys[0, 0] = 100
    with pytest.raises(DataError, match=r"grey value 100 \(1 pixels\) is no class; nearest: disc \(128\).*128 disc"):
        read_label_map(save(picture / "m.png", greys), VALUES)


def test_jpeg_masks_are_told_to_be_smeared(picture):
    smooth = np.kron(colour_map(), np.ones((9, 9, 1), np.uint8))
    with pytest.raises(DataError, match=r"m\.jpg: colour .*JPEG has smeared the codes.*export it again as PNG"):
        read_label_map(save(picture / "m.jpg", smooth, quality=50), COLOURS)


def test_smoothed_masks_are_told(picture):
    smooth = Image.fromarray(colour_map()).resize((40, 30), Image.Resampling.BILINEAR)
    with pytest.raises(DataError, match=r"unknown colours in all\) is no class.*without smoothing"):
        read_label_map(save(picture / "m.png", np.asarray(smooth)), COLOURS)


def test_colours_without_colours_in_the_description(picture):
    with pytest.raises(DataError, match=r"m\.png: a picture with colours; expected grey codes.*colour in the descr"):
        read_label_map(save(picture / "m.png", colour_map()), VALUES)
    half = replace(COLOURS, classes=(ClassSpec("disc", colour=RED), ClassSpec("cup")))
    with pytest.raises(ConfigError, match="classes: no colour of cup"):
        own_source(half)


def test_a_mask_of_another_size_is_named(picture):
    save(picture / "m.png", grey_map()[:, :3])
    (raw,) = find_images(write_table(picture, "a,a.png,m.png"), VALUES)
    with pytest.raises(DataError, match=r"m\.png: 3 x 3 pixels .*a\.png has 3 x 4; expected the same\. Export"):
        read_masks(raw, (3, 4), VALUES)


@pytest.mark.parametrize(
    ("columns", "lines", "message"),
    [
        ("id,image,label", ["a,a.png,none.png"], r"line 2, column label: none\.png: no such file"),
        ("id,image,label", ["a,a.png,m.png", "A,b.png,m.png"], "line 3, column id: 'A' differs from 'a' in upper"),
        (
            "id,image,label",
            ["a,a.png,m.png", "b,a.png,m.png"],
            r"line 3, column image: a\.png is also the image",
        ),
        ("id,image,lable", ["a,a.png,m.png"], "column 'lable' is unknown; did you mean label"),
        ("id,image,mask:disc", ["a,a.png,m.png"], "no file in a column mask:cup"),
        ("id,image,mask:disk", ["a,a.png,m.png"], "column 'mask:disk' is unknown; did you mean mask:disc"),
        ("id,image,label,split", ["a,a.png,m.png,val"], "line 2, column split: 'val'; expected one of train, valida"),
        (
            "id,image,label,split",
            ["a,a.png,m.png,test", "b,b.png,m.png,"],
            "line 3, column split: empty, but given",
        ),
        ("id,image,label", ["a,t.csv,m.png"], r"line 2, column image: t\.csv; expected a picture"),
    ],
)
def test_mistakes_in_the_table_are_named(picture, columns, lines, message):
    save(picture / "m.png", grey_map())
    with pytest.raises(DataError, match=message):
        find_images(write_table(picture, *lines, columns=columns), VALUES)


def test_semicolons_and_a_byte_order_mark_are_read(picture):
    save(picture / "m.png", grey_map())
    path = picture / "t.csv"
    path.write_text("﻿id;image;label;note\na;a.png;m.png;one, two\n", encoding="utf-8")
    assert [image.id for image in find_images(path, VALUES)] == ["a"]


def raw_of(table_lines, picture):
    save(picture / "m.png", grey_map())
    for number in range(len(table_lines)):
        save(picture / f"{number}.png", np.full((3, 4), number, np.uint8))
    lines = [f"i{n},{n}.png,m.png,{line}" for n, line in enumerate(table_lines)]
    return find_images(write_table(picture, *lines, columns="id,image,label,patient,split"), VALUES)


def test_fractions_never_divide_a_patient_and_ignore_the_order(picture):
    images = raw_of([f"p{n // 3}," for n in range(24)], picture)
    rule = SplitRule(test=0.25, validation=0.25, seed=3)
    splits = split_by_fractions(images, rule)
    by_patient = {image.origin.patient: set() for image in images}
    for image in images:
        by_patient[image.origin.patient].add(splits[image.id])
    assert (
        sorted(next(iter(split)) for split in by_patient.values()) == ["test"] * 2 + ["train"] * 4 + ["validation"] * 2
    )
    assert all(len(split) == 1 for split in by_patient.values())
    assert split_by_fractions(images[::-1], rule) == splits
    assert split_by_fractions(images, replace(rule, seed=4)) != splits


def test_a_random_split_draws_patients(picture):
    images = raw_of([f"p{n // 2}," for n in range(8)], picture)
    _, splits = split_images(images, "random:0.25", {}, "own")
    tested = {image.origin.patient for image in images if splits[image.id] == "test"}
    assert len(tested) == 1
    assert sum(split == "test" for split in splits.values()) == 2


def test_a_patient_on_both_sides_is_refused(picture):
    images = raw_of(["p,train", "q,test", "p,test"], picture)
    rules = own_source(VALUES).split_rules
    with pytest.raises(DataError, match=r"own: patient p is in split 'train' \(i0\) and in 'test' \(i2\)"):
        split_images(images, "table", rules, "own")
    images = raw_of(["p,train", "q,test", "p,unused"], picture)
    assert split_images(images, "table", rules, "own")[1] == {"i0": "train", "i1": "test", "i2": "unused"}


def test_unused_columns_and_the_log(picture, caplog):
    caplog.set_level(logging.WARNING)
    save(picture / "m.png", grey_map())
    find_images(write_table(picture, "a,a.png,m.png,seen", columns="id,image,label,note"), VALUES)
    assert not caplog.messages
