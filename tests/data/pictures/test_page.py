"""The page of prepared sets: what it tells and shows, its limits, and cases that cannot be read."""

import base64
import io
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from data.pictures import ImageCases, ScanCases, save_page
from data.pictures.__main__ import main
from data.pictures.cases import CasePicture
from data.pictures.choice import Suspicion, choose, read_suspects
from data.pictures.tiles import class_colours, make_tile
from data.superpixels.scans import write_pseudo_labels
from dataloaders.io.nifti import read_nifti, write_nifti
from dataloaders.io.png import read_mask, write_png
from dataloaders.samples import Volume
from tests.conftest import CHAOST2, JSRT, NOISE
from tests.data.pictures.conftest import EVIL, text_of, tiles_of
from util.csv_files import read_csv
from util.errors import ConfigError, DataError
from util.results.pictures import EXPERT_COLOUR, OTHER_COLOUR, outline_style


def pixels_of(url):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition("base64,")[2]))).convert("RGBA"))


def test_the_head_of_a_set_of_images(image_page):
    page = image_page.read_text(encoding="utf-8")
    text = text_of(page)
    assert "JSRT, prepared images, radiograph. All 16 cases are shown." in text
    assert "train 12 12 test 4 4" in text
    assert "lung 16 of 16 heart 16 of 16 clavicle 16 of 16" in text
    assert "rows in px 32 columns in px 32" in text
    assert "Superpixels gray_24_0.0392 (12 cases), Noise a0.7_b0.7 (12 cases), Pseudo-labels (12 cases)." in text
    for index in range(3):
        assert f'stroke="{outline_style(index)[0]}"' in page


def test_the_head_of_a_set_of_scans(scan_page):
    text = text_of(scan_page.read_text(encoding="utf-8"))
    assert "labelled 8 8" in text
    assert "Liver 8 of 8" in text
    assert "slices 8 rows in px 64 columns in px 64" in text
    assert "slice distance in mm 7.7 row distance in mm 1.25" in text
    assert "Superpixels MIDDLE (8 cases)." in text
    assert "Noise" not in text


def test_captions_tell_noise_and_suspicion(image_page, chest_folder):
    tiles = tiles_of(image_page.read_text(encoding="utf-8"))
    table = {row["id"]: row for row in read_csv(chest_folder / f"noisy/heart/{NOISE.name}/noise.csv", ("id",))}
    noisy = next(image_id for image_id, row in table.items() if row["type"] != "clean")
    assert f"heart: Dice {float(table[noisy]['dice_to_clean']):.3f}" in tiles[noisy]
    assert "heart: suspect 1, 9.5 px" in tiles["img_07"]
    assert "lung: suspect 3, 2.2 px" in tiles["img_07"]
    assert "suspect" not in tiles["img_00"]
    assert tiles["img_15"].count("data-layer") == 0  # a test image has no layer


def test_the_picture_is_the_image_and_the_outlines_are_the_masks(chest_folder):
    source = ImageCases(JSRT, chest_folder)
    tile = make_tile("img_00", source, class_colours(["lung", "heart", "clavicle"], ()), 10**6)
    assert (tile.width, tile.height) == (768, 768)
    mask = read_mask(chest_folder / "masks/heart/img_00.png")
    (path,) = [shape.path for shape in tile.expert if shape.stroke == outline_style(1)[0]]
    rows, columns = np.nonzero(mask)
    ((start, steps),) = re.findall(r"^M(\d+ \d+)l([-\d ]+)z$", path)
    points = np.cumsum(np.array([*start.split(), *steps.split()], int).reshape(-1, 2), axis=0) / (768 / 32)
    assert points.min(0) == pytest.approx([columns.min(), rows.min()], abs=0.1)
    assert points.max(0) == pytest.approx([columns.max() + 1, rows.max() + 1], abs=0.1)
    assert tile.labelled == pytest.approx(100 * float(np.mean([
        any(read_mask(chest_folder / f"masks/{name}/img_00.png")[place] for name in ("lung", "heart", "clavicle"))
        for place in np.ndindex(mask.shape)
    ])))  # fmt: skip


def test_added_and_lost_pixels_have_colours_of_their_own(chest_folder, tmp_path):
    folder = shutil.copytree(chest_folder, tmp_path / "set")
    for name in ("lung", "clavicle"):
        shutil.copy(folder / f"masks/{name}/img_00.png", folder / f"noisy/{name}/{NOISE.name}")
    clean = np.zeros((32, 32), bool)
    clean[8:16, 8:16] = True
    write_png(folder / "masks/heart/img_00.png", clean)
    write_png(folder / f"noisy/heart/{NOISE.name}/img_00.png", np.roll(clean, 4, 1))
    tile = make_tile("img_00", ImageCases(JSRT, folder), class_colours(["lung", "heart", "clavicle"], ()), 10**6)
    (overlay,) = [each for each in tile.overlays if each.title == "Noise a0.7_b0.7"]
    assert "heart: Dice 0.500" in overlay.notes
    corners = {shape.fill: shape.path.split("l")[0] for shape in overlay.shapes}
    assert overlay.notes[0] == "lung: Dice 1.000, unchanged"
    assert corners == {OTHER_COLOUR: "M384 192", EXPERT_COLOUR: "M192 192"}  # 24 units a pixel


def test_superpixels_are_boundaries_on_transparent_ground(scan_page):
    tile = tiles_of(scan_page.read_text(encoding="utf-8"))["1"]
    (url,) = re.findall(r'data-layer="Superpixels MIDDLE" hidden><image href="(.*?)"', tile)
    pixels = pixels_of(url)
    assert set(np.unique(pixels[..., 3])) == {0, 255}
    assert 0.02 < float((pixels[..., 3] > 0).mean()) < 0.2
    assert {tuple(colour) for colour in pixels[pixels[..., 3] > 0]} == {(255, 204, 0, 255)}
    assert "16 superpixels" not in tile
    assert "15 superpixels" in tile  # the cell of id 0 belongs to none


def test_a_scan_is_shown_by_its_slice_with_the_largest_labelled_area(make_prepared, tmp_path):
    folder = make_prepared(tmp_path / "scans", ["1", "2"])
    path = folder / "label_1.nii.gz"
    volume = read_nifti(path)
    label = np.zeros_like(volume.array)
    label[5, 10:20, 10:20], label[2, 10:20, 10:14], label[3] = 2, 1, 255
    write_nifti(path, Volume(label, volume.affine))
    (folder / "label_2.nii.gz").unlink()
    source = ScanCases(CHAOST2, folder)
    assert source.splits == {"labelled": ("1",), "unlabelled": ("2",)}
    case = source.read("1")
    assert (case.place, case.n_pixels[1], case.n_pixels[2]) == ("slice 6 of 8", 40, 100)
    middle = source.read("2")
    assert (middle.place, middle.masks) == ("slice 5 of 8", {})
    save_page(source, tmp_path / "page.html")
    assert "not labelled" in tiles_of((tmp_path / "page.html").read_text())["2"]


def test_pseudo_labels_show_what_counts_and_further_classes(image_page):
    page = image_page.read_text(encoding="utf-8")
    tile = tiles_of(page)["img_00"]
    (shapes,) = re.findall(r'<g class="overlay-shapes" data-layer="Pseudo-labels" hidden>(.*?)</g>', tile)
    assert shapes.count("<path") == 3  # what does not count, and two classes
    assert outline_style(3)[0] in shapes  # a class beyond the three of the set
    assert "rib&#39;&amp;&#34;&lt;b&gt;:" in tile


def test_pseudo_labels_of_another_set_are_refused(chest_folder, image_folder, pseudo_folder):
    with pytest.raises(DataError, match="none of the data set ISIC2017; found JSRT"):
        main([str(image_folder), "--dataset", "isic2017", "--pseudo-labels", str(pseudo_folder)])


def test_names_are_no_markup_and_nothing_is_loaded(make_prepared, tmp_path):
    name = "</b><img src=x onerror=y>'\"&"
    evil = replace(CHAOST2, title=EVIL, classes=(replace(CHAOST2.classes[0], title=EVIL), *CHAOST2.classes[1:]))
    folder = make_prepared(tmp_path / "scans", ["1"])
    for kind in ("image", "label"):
        shutil.copy(folder / f"{kind}_1.nii.gz", folder / f"{kind}_{name.replace('/', '')}.nii.gz")
    save_page(ScanCases(evil, folder), tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "&lt;b&gt;&lt;img src=x onerror=y&gt;&#39;&#34;&amp;" in page
    assert "<img" not in page
    assert "<b onclick" not in page
    assert len(re.findall("<script", page)) == len(re.findall("</script", page)) == 1
    assert set(re.findall(r'(?:src|href)="([a-z]+:|#)', page)) == {"data:"}
    (policy,) = re.findall(r'Content-Security-Policy" content="(.*?)"', page)
    assert "unsafe" not in policy
    assert not re.search(r"\son\w+=\"", page)
    assert not re.search(r"\sstyle=\"", page)


def test_a_limit_is_stated_and_shared_between_splits(chest_folder, tmp_path, caplog):
    caplog.set_level("INFO")
    save_page(ImageCases(JSRT, chest_folder), tmp_path / "page.html", limit=7)
    page = (tmp_path / "page.html").read_text()
    assert list(tiles_of(page)) == [f"img_{number:02}" for number in (0, 4, 7, 11, 12, 14, 15)]
    assert "7 of 16 cases are shown: as many of each split as of the others" in text_of(page)
    assert "7 of 16 cases are shown" in caplog.text
    assert "train 12 4 test 4 3" in text_of(page)


def test_cases_are_drawn_evenly_and_the_most_suspect_ones_first():
    splits = {"train": [f"a{n}" for n in range(9)], "test": ["b0", "b1"], "unused": ["c0", "c1", "c2", "c3"]}
    chosen = choose(splits, 8, {})
    assert chosen == dict.fromkeys(["a0", "a4", "a8"], "train") | {"b0": "test", "b1": "test"} | dict.fromkeys(
        ["c0", "c2", "c3"], "unused"
    )
    assert choose(splits, 99, {}) == {one: split for split, ids in splits.items() for one in ids}
    suspects = {"a7": [Suspicion(1, "x", 3.0)], "a1": [Suspicion(5, "x", 1.0)], "b1": [Suspicion(2, "x", 2.0)]}
    assert list(choose(splits, 4, suspects)) == ["a1", "a7", "b1", "c0"]
    assert list(choose(splits, 3, suspects)) == ["a7", "b1", "c0"]


def test_a_case_that_cannot_be_read_is_named_and_the_others_are_shown(chest_folder, tmp_path, caplog):
    folder = shutil.copytree(chest_folder, tmp_path / "set")
    (folder / "images/img_03.png").write_bytes(b"no picture")
    (folder / "masks/heart/img_04.png").unlink()
    write_png(folder / "masks/heart/img_05.png", np.zeros((8, 8), bool))
    assert main([str(folder), "--dataset", "jsrt"]) == 1
    page = (folder / "pictures.html").read_text()
    assert len(tiles_of(page)) == 13
    text = text_of(page)
    assert "3 of these could not be read" in text
    assert "img_03 : images/img_03.png" in text
    assert "img_04 : " in text
    assert "mask of class 2: (8, 8) pixels; expected those of the image, (32, 32)" in text
    assert str(folder) not in page
    assert caplog.text.count("not shown: ") == 3


def test_an_unfinished_layer_is_named_and_left_out(chest_folder, tmp_path):
    folder = shutil.copytree(chest_folder, tmp_path / "set")
    (folder / "noisy/heart/a0.7_b0.7/noise.json").unlink()
    assert main([str(folder), "--dataset", "jsrt", "--out", str(tmp_path / "page.html")]) == 0
    page = (tmp_path / "page.html").read_text()
    assert "noisy/heart/a0.7_b0.7: left out, as the command that writes it has not ended." in page
    assert "heart: Dice" not in page
    assert "lung: Dice" in page


def test_layers_of_changed_images_are_named(chest_folder, tmp_path):
    folder = shutil.copytree(chest_folder, tmp_path / "set")
    mask = folder / "masks/heart/img_00.png"
    write_png(mask, 255 * read_mask(mask).T.astype(np.uint8))
    assert main([str(folder), "--dataset", "jsrt", "--out", str(tmp_path / "page.html")]) == 0
    text = text_of((tmp_path / "page.html").read_text())
    assert "noisy/heart/a0.7_b0.7: shown, but what it was made from has changed since" in text
    assert "img_00.png" in text
    assert "noisy/lung/a0.7_b0.7: shown" not in text


def test_superpixels_of_changed_scans_are_named(prepared_folder, tmp_path):
    folder = shutil.copytree(prepared_folder, tmp_path / "set")
    write_pseudo_labels(folder, CHAOST2)
    assert ScanCases(CHAOST2, folder).stale == {}
    shutil.copy(folder / "image_2.nii.gz", folder / "image_1.nii.gz")
    ((layer, reason),) = ScanCases(CHAOST2, folder).stale.items()
    assert layer == "superpix-MIDDLE of scans 1"
    assert "image_1.nii.gz" in reason


def test_a_set_of_which_no_case_can_be_read_has_a_page_that_says_so(make_prepared, tmp_path):
    folder = make_prepared(tmp_path / "scans", ["1"])
    (folder / "image_1.nii.gz").write_bytes(b"")
    assert main([str(folder), "--dataset", "chaost2"]) == 1
    assert "1 of these could not be read" in text_of((folder / "pictures.html").read_text())


def test_large_pictures_are_reduced_until_they_fit(chest_folder, tmp_path):
    folder = shutil.copytree(chest_folder, tmp_path / "set")
    write_png(folder / "images/img_00.png", np.random.default_rng(0).integers(0, 255, (512, 512), np.uint8))
    for path in folder.glob("*/*/**/img_00.png"):
        write_png(path, np.kron(np.asarray(Image.open(path)), np.ones((16, 16), np.uint16)).astype(np.uint16))
    colours = class_colours(["lung", "heart", "clavicle"], ())
    source = ImageCases(JSRT, folder)
    large, small = (make_tile("img_00", source, colours, size) for size in (10**6, 20_000))
    assert large.width == 768
    assert small.n_bytes <= 20_000
    assert small.width < large.width


def test_suspects_of_other_sets_and_damaged_tables_are_refused(suspects_file, prepared_folder, tmp_path):
    with pytest.raises(DataError, match="2 of 2 ids are not of the set, such as img_07"):
        read_suspects(suspects_file, {"img_00"})
    damaged = tmp_path / "suspects.csv"
    damaged.write_text("rank,id,structure,score\nfirst,img_00,heart,2\n")
    with pytest.raises(DataError, match="expected numbers in the columns rank and score"):
        read_suspects(damaged, {"img_00"})
    with pytest.raises(ConfigError, match="--suspects: not for sets of scans"):
        main([str(prepared_folder), "--dataset", "chaost2", "--suspects", str(suspects_file)])


def test_layers_of_another_size_are_refused():
    image = np.zeros((4, 4), np.uint8)
    with pytest.raises(DataError, match=r"noise x, class 1: \(2, 2\) pixels; expected those of the image, \(4, 4\)"):
        CasePicture(image, {1: image > 0}, {1: 0}, (4, 4), noisy={"x": {1: np.zeros((2, 2), bool)}})
