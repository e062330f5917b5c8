"""Users' own images from the table to training batches and test cases, through the commands alone."""

import json
import logging

import numpy as np
import pytest
import torch
from PIL import Image

from data.check.__main__ import main as check
from data.noise.__main__ import main as noise
from data.prepare.__main__ import main as prepare
from data.superpixels.__main__ import main as superpixels
from dataloaders.images.config import DenseConfig
from dataloaders.images.data import open_dense
from dataloaders.images.folder import ImageFolder, NoiseConfig, SuperpixelConfig
from dataloaders.io.png import read_image, read_mask
from dataloaders.ordering import LoaderOptions
from dataloaders.scans.normalise import Normalisation
from util.csv_files import read_csv
from util.errors import ConfigError, DataError

SIDE = 32
SIZES = [(48, 64), (40, 40), (70, 50), (64, 33), (48, 64), (50, 50), (90, 60), (33, 40)]  # rows, columns
SPLITS = ["train"] * 4 + ["validation", "test", "test", "unused"]
RED, GREEN = (255, 0, 0), (0, 255, 0)


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def label_of(number, shape):
    """A disc in the left and a square in the right half, as values 1 and 2."""
    rows, columns = np.mgrid[: shape[0], : shape[1]] / np.array(shape)[:, None, None]
    label = np.zeros(shape, np.uint8)
    label[(rows - 0.5) ** 2 + (columns - 0.28) ** 2 < (0.15 + 0.01 * number) ** 2] = 1
    label[(abs(rows - 0.5) < 0.2) & (abs(columns - 0.75) < 0.15)] = 2
    return label


def picture_of(number, label, channels, dtype):
    levels = np.array([180, 90, 40])[label] + np.random.default_rng(number).normal(0, 4, label.shape)
    scaled = levels.clip(0, 255) * (np.iinfo(dtype).max / 255)
    return np.stack([scaled] * 3, -1).astype(dtype) if channels == 3 else scaled.astype(dtype)


def describe(folder, classes, table, **more):
    content = {"name": "MINE", "kind": "images", "classes": classes, "files": "mine.csv", "grid": {"size_px": SIDE}}
    (folder / "mine.json5").write_text(json.dumps(content | more))
    (folder / "mine.csv").write_text("\n".join(table) + "\n")
    return str(folder / "mine.json5")


def case_lines(cells):
    """A line per case: patient of two neighbouring cases, split, further cells."""
    return [f"c{n},img/c{n}.png,p{n // 2 if n < 4 else n},{SPLITS[n]},{cells(n)}" for n in range(len(SIZES))]


@pytest.fixture
def colours(tmp_path):
    """RGB-coded masks of two annotators; the second one of three cases. They agree but for one pixel."""
    for n, shape in enumerate(SIZES):
        label = label_of(n, shape)
        save(tmp_path / f"img/c{n}.png", picture_of(n, label, 3, np.uint8))
        save(tmp_path / f"ann1/c{n}.png", np.array([(0, 0, 0), RED, GREEN], np.uint8)[label])
        label[0, 0] = 1
        save(tmp_path / f"ann2/c{n}.png", np.array([(0, 0, 0), RED, GREEN], np.uint8)[label])
    classes = [{"name": "disc", "colour": RED, "n_segments": 16}, {"name": "box", "colour": GREEN, "n_segments": 16}]
    header = "id,image,patient,split,label@one,label@two"
    lines = case_lines(lambda n: f"ann1/c{n}.png,{f'ann2/c{n}.png' if n < 3 else ''}")
    return describe(tmp_path, classes, [header, *lines], channels=3)


@pytest.fixture
def greys(tmp_path):
    """16-bit grey pictures, one map of grey codes each; padded; split by the description."""
    for n, shape in enumerate(SIZES):
        label = label_of(n, shape)
        save(tmp_path / f"img/c{n}.png", picture_of(n, label, 1, np.uint16))
        save(tmp_path / f"map/c{n}.tif", label * np.uint8(100))
    classes = [{"name": "disc", "value": 100}, {"name": "box", "value": 200}]
    lines = [f"c{n};img/c{n}.png;map/c{n}.tif;p{n // 2}" for n in range(len(SIZES))]
    more = {"grid": {"size_px": SIDE, "aspect": "pad"}, "split": {"test": 0.25, "validation": 0.25}}
    return describe(tmp_path, classes, ["id;image;label;patient", *lines], **more)


@pytest.fixture
def singles(tmp_path):
    """A mask per structure; no disc in the first case."""
    for n, shape in enumerate(SIZES):
        label = label_of(n, shape)
        save(tmp_path / f"img/c{n}.png", picture_of(n, label, 1, np.uint8))
        for value, name in enumerate(("disc", "box"), start=1):
            save(tmp_path / f"{name}/c{n}.png", (label == value).astype(np.uint8) * 255)
    lines = case_lines(lambda n: f"{f'disc/c{n}.png' if n else ''},box/c{n}.png")
    header = "id,image,patient,split,mask:disc,mask:box"
    return describe(tmp_path, [{"name": "disc"}, {"name": "box"}], [header, *lines], masks="suspect")


def first_batch(data):
    return next(iter(data.loader(Normalisation(), 0, 2, range(1), LoaderOptions(0))))


def test_files_next_to_those_of_the_table_are_counted(colours, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    save(tmp_path / "img/c99.png", np.zeros((9, 9, 3), np.uint8))
    save(tmp_path / "img/c0.png", np.zeros((9, 9), bool))  # cannot be prepared
    with pytest.raises(DataError, match="1 of 8 failed"):
        prepare([colours, "--out", str(tmp_path / "data")])
    last = caplog.messages[-1]
    assert last.startswith(f"{tmp_path / 'mine.csv'}: 25 files found, 17 used, 8 left out: ")
    assert "6 not in the table (ann2/c3.png, " in last
    assert "2 of cases that are not used (column split) (ann1/c7.png, img/c7.png)" in last


def test_colour_coded_masks_of_two_annotators(colours, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    root = str(tmp_path / "data")
    prepare([colours, "--out", root])
    folder = tmp_path / "data/MINE" / f"prepared_{SIDE}px"
    images = ImageFolder(folder)
    assert images.spec.class_names == ("background", "disc", "box")
    assert [images.ids(split) for split in ("train", "validation", "test", "unused")] == [
        ("c0", "c1", "c2", "c3"),
        ("c4",),
        ("c5", "c6"),
        ("c7",),
    ]
    assert [row["n_annotators"] for row in images.rows] == ["2"] * 3 + ["1"] * 5
    assert images.origin("c1").patient == "p0"
    for target in ([colours, "--data-dir", root], [str(folder)]):
        noise([*target, "--alpha", "1", "--beta", "0.5"])
        superpixels(target)
        assert check([*target, "--noise", "1", "0.5", "--superpixels"]) == 0
    assert sum(message.endswith(": up to date") for message in caplog.messages) == 3  # the second target is the same
    config = DenseConfig(colours, ("disc", "box"), size_px=SIDE, noise=NoiseConfig(1.0, 0.5))
    data = open_dense(config, root, needs=frozenset({"superpixels"}))
    batch = first_batch(data)
    assert batch.image.shape == (2, 3, SIDE, SIDE)
    assert set(batch.label.unique().tolist()) == {0, 1, 2}
    assert batch.superpixel is not None
    assert data.labels.clean is not None
    assert not data.labels.is_trusted
    assert "given" not in data.labels.noise_types
    case, truth = next(data.cases())
    assert (case.ids, [each.patient for each in case.origins]) == (("c5", "c6"), ["p5", "p6"])
    assert truth.shape == (2, 2, SIDE, SIDE)


def test_a_prepared_folder_is_a_data_set_of_its_own(colours, tmp_path):
    prepare([colours, "--out", str(tmp_path / "data")])
    folder = (tmp_path / "data/MINE" / f"prepared_{SIDE}px").rename(tmp_path / "elsewhere")
    data = open_dense(DenseConfig(str(folder), size_px=SIDE), str(folder))
    assert len(data.labels) == 4
    assert data.labels.is_trusted
    assert data.labels.label is data.labels.clean


def test_grey_codes_in_deep_pictures(greys, tmp_path):
    prepare([greys, "--out", str(tmp_path / "data")])
    folder = ImageFolder(tmp_path / "data/MINE" / f"prepared_{SIDE}px")
    assert folder.description["bits"] == 16
    assert {split: len(folder.ids(split)) for split in ("train", "validation", "test")} == {
        **{"train": 4, "validation": 2, "test": 2}
    }
    for split in ("train", "validation", "test"):
        assert len({folder.origin(i).patient for i in folder.ids(split)}) == len(folder.ids(split)) / 2
    image = read_image(folder.image_path("c0"))  # 48 x 64: padded above and below
    assert image.dtype == np.uint16
    assert not image[:4].any()
    assert not image[28:].any()
    assert image[4:28].min() > 0
    target = str(folder.folder)
    noise([target, "--alpha", "0.5", "--beta", "0.5", "--picture", str(tmp_path / "noise.png")])
    superpixels([target, "--n-segments", "16", "--picture", str(tmp_path / "sheet.png")])
    assert check([target, "--superpixels"]) == 1  # of 100 segments, not of 16
    data = open_dense(
        DenseConfig(target, ("box",), superpixel=SuperpixelConfig(n_segments=16)),
        target,
        needs=frozenset({"superpixels"}),
    )
    plain = data.labels.batch(np.array([0]))
    first = read_image(folder.image_path(folder.ids("train")[0]))
    np.testing.assert_allclose(plain.image[0, 0].numpy(), first / 65_535, atol=1e-6)
    on_device = data.labels.on(torch.device("cpu"))
    assert torch.equal(on_device.batch(np.array([0])).image, plain.image)
    assert 0.6 < float(first_batch(data).image.amax()) < 1.4
    case, _ = next(data.cases())
    tested = read_image(folder.image_path(case.ids[0]))
    np.testing.assert_allclose(case.image[0, 0].numpy(), tested / 65_535, atol=1e-6)


@pytest.mark.parametrize("aspect", ["squeeze", "pad"])
def test_masks_go_back_to_the_picture(greys, tmp_path, aspect):
    text = (tmp_path / "mine.json5").read_text()
    (tmp_path / "mine.json5").write_text(text.replace("pad", aspect))
    prepare([greys, "--out", str(tmp_path / "data"), "--size-px", "64"])
    folder = tmp_path / "data/MINE/prepared_64px"
    data = open_dense(DenseConfig(greys, ("box",), size_px=64), str(folder))
    for n, shape in enumerate(SIZES):
        prepared = read_mask(folder / f"masks/box/c{n}.png")
        back = data.to_original(f"c{n}", prepared[None].astype(np.float32))[0] > 0.5
        assert back.shape == shape
        truth = label_of(n, shape) == 2
        assert 2 * (back & truth).sum() / (back.sum() + truth.sum()) > 0.93


def test_pictures_of_both_depths_share_a_range(greys, tmp_path, caplog):
    save(tmp_path / "img/c0.png", np.full(SIZES[0], 100, np.uint8))
    prepare([greys, "--out", str(tmp_path / "data")])
    folder = ImageFolder(tmp_path / "data/MINE" / f"prepared_{SIDE}px")
    assert read_image(folder.image_path("c0")).max() == 100 * 257
    assert "largest value" not in caplog.text


def test_a_range_that_is_hardly_used_is_told(greys, tmp_path, caplog):
    for n, shape in enumerate(SIZES):
        save(tmp_path / f"img/c{n}.png", np.full(shape, 4000 + n, np.uint16))
    prepare([greys, "--out", str(tmp_path / "data")])
    text = "MINE: the largest value is 4007 of 65535. To use the whole range: intensity: {window: [0, 4007]}"
    assert text in caplog.messages


def test_suspect_masks_have_no_clean_ones(singles, tmp_path):
    prepare([singles, "--out", str(tmp_path / "data")])
    root = str(tmp_path / "data")
    labels = open_dense(DenseConfig(singles, ("disc", "box"), size_px=SIDE), root).labels
    assert labels.clean is None
    assert not labels.is_trusted
    assert labels.noise_types == ("given",) * 4
    assert labels.clean_rates() is None
    assert labels.accuracy() is None
    assert not (labels.label[0] == 1).any()  # no disc in the first case
    assert (labels.label[1] == 1).any()
    noise([singles, "--data-dir", root, "--alpha", "1", "--beta", "0.5"])
    noisy = open_dense(DenseConfig(singles, ("box",), size_px=SIDE, noise=NoiseConfig(1.0, 0.5)), root)
    assert noisy.labels.clean is None
    assert noisy.labels.noise_types == ("given",) * 4
    with pytest.raises(ConfigError, match="MINE: masks are 'suspect', so there are no clean masks"):
        open_dense(DenseConfig(singles, size_px=SIDE), root, trains_on="clean")


def test_only_changed_images_are_prepared_again(colours, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    prepare([colours, "--out", str(tmp_path / "data")])
    table = tmp_path / "mine.csv"
    table.write_text(
        table.read_text().replace("ann2/c0.png", "").replace("c7,img/c7.png,p7,unused", "c7,img/c7.png,p7,train")
    )
    prepare([colours, "--out", str(tmp_path / "data")])
    assert "MINE: 1 images prepared, 7 already up to date" in caplog.text
    rows = read_csv(tmp_path / f"data/MINE/prepared_{SIDE}px/manifest.csv", ("id", "split"))
    assert (rows[0]["n_annotators"], rows[7]["split"]) == ("1", "train")
    description = tmp_path / "mine.json5"
    description.write_text(description.read_text().replace('"channels": 3', '"channels": 1'))
    prepare([colours, "--out", str(tmp_path / "data")])
    assert "MINE: 8 images prepared, 0 already up to date" in caplog.text


def test_typical_mistakes_are_told(colours, tmp_path):
    table, text = tmp_path / "mine.csv", (tmp_path / "mine.csv").read_text()
    out = ["--out", str(tmp_path / "data")]
    table.write_text(text.replace("p1,train", "p5,train", 1))
    with pytest.raises(DataError, match=r"MINE: patient p5 is in split 'train' \(c2\) and in 'test' \(c5\)"):
        prepare([colours, *out])
    table.write_text(text.replace("ann1/c3.png", "ann1/c33.png"))
    with pytest.raises(DataError, match=r"mine\.csv: 1 problem.*\n  line 5, column label@one: ann1/c33\.png: no such"):
        prepare([colours, *out])
    table.write_text(text)
    with pytest.raises(ConfigError, match=r"--raw x: not for own data; .*mine\.csv names the files"):
        prepare([colours, *out, "--raw", "x"])
    with pytest.raises(DataError, match=r"manifest\.csv: no such file\. Run `frugalseg prepare MINE\.json5"):
        noise([colours, "--data-dir", str(tmp_path / "nowhere"), "--alpha", "1", "--beta", "0.5"])
    table.unlink()
    with pytest.raises(DataError, match=r"mine\.csv: no such file; expected the table of files that .*mine\.json5"):
        prepare([colours, *out])


def test_domains_are_held_out_by_a_column_alone(singles, tmp_path):
    table = (tmp_path / "mine.csv").read_text().splitlines()
    places = ["domain,phase"] + [f"{'ab'[n % 2]},{'early' if n < 6 else ''}" for n in range(len(SIZES))]
    (tmp_path / "mine.csv").write_text("\n".join(map(",".join, zip(table, places, strict=True))) + "\n")
    root = str(tmp_path / "data")
    prepare([singles, "--out", root])
    data = open_dense(DenseConfig(singles, size_px=SIDE, test_domains=("b",)), root)
    assert (data.ids("train"), data.ids("test")) == (("c0", "c2"), ("c1", "c3", "c5"))  # c4: validation, c7: unused
    assert len(data.labels) == 2
    assert data.config.summary("given") == "disc_given_without-b"
    cases = [case for case, _ in data.cases()]
    assert [(each.domain, each.phase) for case in cases for each in case.origins] == [("b", "early")] * 3
    both = open_dense(DenseConfig(singles, size_px=SIDE), root)
    assert (both.ids("train"), both.ids("test")) == (("c0", "c1", "c2", "c3"), ("c5", "c6"))
    assert [each.phase for case, _ in both.cases() for each in case.origins] == ["early", ""]
    with pytest.raises(DataError, match="no image of the domain 'c'; found a, b"):
        open_dense(DenseConfig(singles, size_px=SIDE, test_domains=("c",)), root).ids("test")
