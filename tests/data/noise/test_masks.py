"""Noisy masks on disk: files, table, statistics, repetition, pictures, and what is refused."""

import csv
import json
import logging
import pickle

import numpy as np
import pytest
from matplotlib.image import imread

from data.noise import masks as module
from data.noise.__main__ import main
from data.noise.generator import draw_all
from data.noise.masks import draw_noisy_masks, write_noise
from dataloaders.catalog import dataset
from dataloaders.images.folder import ImageFolder, NoiseConfig
from dataloaders.io.png import read_mask, write_png
from util import items
from util.errors import ConfigError, DataError

ISIC2017 = dataset("ISIC2017")
JSRT = dataset("JSRT")

NOISE = NoiseConfig(0.5, 0.5)
N, SIZE = 12, 48


def ellipse(number, size=SIZE):
    rows, columns = np.mgrid[:size, :size] - size / 2 + 0.5
    return (rows / (10 + number % 3)) ** 2 + (columns / (8 + number % 4)) ** 2 <= 1


def prepare(root, spec=ISIC2017, n_images=N, n_test=2):
    """A prepared folder below the data root `root`; image and masks show ellipses."""
    folder = root / spec.prepared_folder()
    ids = [f"case{number:02d}" for number in range(n_images + n_test)]
    lines = [f"{image_id},{'train' if number < n_images else 'test'}" for number, image_id in enumerate(ids)]
    folder.mkdir(parents=True)
    (folder / "manifest.csv").write_text("\n".join(["id,split", *lines]) + "\n")
    for number, image_id in enumerate(ids):
        grey = np.where(ellipse(number), 80, 180).astype(np.uint8)
        write_png(folder / "images" / f"{image_id}.png", np.stack([grey] * 3, -1) if spec.channels == 3 else grey)
        for structure in spec.classes:
            write_png(folder / "masks" / structure.name / f"{image_id}.png", ellipse(number))
    return ImageFolder(folder, spec)


@pytest.fixture
def folder(tmp_path):
    return prepare(tmp_path)


def contents(path):
    return {file.name: file.read_bytes() for file in sorted(path.iterdir())}


def test_every_training_image_gets_a_mask_and_a_line(folder):
    write_noise(folder, NOISE, "lesion")
    output = folder.noise_folder(NOISE, "lesion")
    ids = [f"case{number:02d}" for number in range(N)]
    assert sorted(path.name for path in output.iterdir()) == sorted(
        ["noise.csv", "noise.json", *(f"{image_id}.png" for image_id in ids)]
    )
    with (output / "noise.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == ["id", "type", "angle_deg", "dy_px", "dx_px", "achieved_xor", "dice_to_clean"]
    assert [row["id"] for row in rows] == ids
    draws = draw_all(ids, NOISE, ISIC2017.structure("lesion"))
    for row in rows:
        noisy, clean = read_mask(output / f"{row['id']}.png"), read_mask(folder.mask_path(row["id"], "lesion"))
        assert row["type"] == (draws[row["id"]].type if row["id"] in draws else "clean")
        assert (noisy == clean).all() == (row["type"] == "clean")
        assert float(row["achieved_xor"]) == pytest.approx((noisy ^ clean).sum() / clean.sum())
        assert float(row["dice_to_clean"]) == pytest.approx(2 * (noisy & clean).sum() / (noisy.sum() + clean.sum()))
        assert (float(row["angle_deg"]) != 0) == (row["type"] == "affine")


def test_statistics_are_those_of_all_pixels(folder):
    found = write_noise(folder, NOISE, "lesion")["statistics"]
    assert found == json.loads((folder.noise_folder(NOISE, "lesion") / "noise.json").read_text())["facts"]["statistics"]
    ids = folder.ids("train")
    clean = np.array([read_mask(folder.mask_path(image_id, "lesion")) for image_id in ids])
    noisy = np.array([read_mask(folder.noise_folder(NOISE, "lesion") / f"{image_id}.png") for image_id in ids])
    assert found["R_fg"] == pytest.approx((noisy & clean).sum() / noisy.sum())
    assert found["R_bg"] == pytest.approx((~noisy & ~clean).sum() / (~noisy).sum())
    share = clean.mean()
    assert found["foreground"] == pytest.approx(share)
    assert found["R_fg_formula"] == 0.875
    assert found["R_bg_formula"] == pytest.approx(1 - 0.125 * share / (1 - share))
    assert found["R_fg"] == pytest.approx(found["R_fg_formula"], abs=0.1)
    assert found["n_drawn"] == found["n_images"] / 2 == N / 2
    assert sum(found["count"].values()) == N
    dice = [2 * (a & b).sum() / (a.sum() + b.sum()) for a, b in zip(clean, noisy, strict=True)]
    assert found["mean_dice"]["all"] == pytest.approx(np.mean(dice))
    assert found["mean_dice"]["noisy"] == pytest.approx(np.mean([one for one in dice if one < 1]))
    assert found["mean_dice"]["clean"] == 1


def test_rates_are_counted_within_the_crop(tmp_path):
    clavicle = JSRT.structure("clavicle")
    assert clavicle.window(256) == (slice(0, 96), slice(24, 248))
    folder = prepare(tmp_path, JSRT, n_images=4)
    found = write_noise(folder, NoiseConfig(1.0, 0.5), "clavicle")["statistics"]
    clean = np.array([ellipse(number)[:18, 4:46] for number in range(4)])  # 96 / 256 and 24 to 248 / 256 of 48
    assert found["foreground"] == pytest.approx(clean.mean())
    assert found["n_kept_clean"] == 0


def test_three_structures_share_the_references_noise(tmp_path):
    prepare(tmp_path, JSRT, n_images=8)
    main(["jsrt", "--alpha", "0.5", "--beta", "0.5", "--data-dir", str(tmp_path)])
    tables = [path.read_text() for path in sorted(tmp_path.rglob("noise.csv"))]
    types = [[line.split(",")[1] for line in table.splitlines()] for table in tables]
    assert len(tables) == 3
    assert types[0] == types[1] == types[2]


def test_nothing_is_done_again_until_something_changes(folder, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    first = write_noise(folder, NOISE, "lesion")
    output = folder.noise_folder(NOISE, "lesion")
    before = contents(output)
    calls = []
    work = module._distort_file
    monkeypatch.setattr(module, "_distort_file", lambda item, **more: calls.append(item) or work(item, **more))
    assert write_noise(folder, NOISE, "lesion") == first
    assert not calls
    assert "ISIC2017 lesion a0.5_b0.5: up to date" in caplog.text
    write_png(folder.mask_path("case03", "lesion"), ellipse(5))
    write_noise(folder, NOISE, "lesion")
    assert len(calls) == N
    assert contents(output) != before
    write_png(folder.mask_path("case03", "lesion"), ellipse(3))
    (output / "case00.png").unlink()
    write_noise(folder, NOISE, "lesion")
    assert contents(output) == before


def test_an_interrupted_run_leaves_no_record(folder, monkeypatch):
    write_noise(folder, NOISE, "lesion")
    output = folder.noise_folder(NOISE, "lesion")
    before = contents(output)
    (output / "case01.png").unlink()
    work = module._distort_file

    def fails_at_the_third(item, **more):
        if item[0].stem == "case02":
            raise KeyboardInterrupt
        return work(item, **more)

    monkeypatch.setattr(module, "_distort_file", fails_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        write_noise(folder, NOISE, "lesion")
    assert not (output / "noise.json").exists()
    monkeypatch.setattr(module, "_distort_file", work)
    write_noise(folder, NOISE, "lesion")
    assert contents(output) == before


def test_work_spread_over_processes_gives_the_same(folder, tmp_path, monkeypatch):
    def apart(function, items, jobs, description):
        tasks = [pickle.dumps((function, item)) for item in items]
        return (task(item) for task, item in map(pickle.loads, tasks))

    alone = prepare(tmp_path / "alone")
    write_noise(alone, NOISE, "lesion")
    monkeypatch.setattr(items, "parallel_map", apart)
    write_noise(folder, NOISE, "lesion", jobs=2)
    assert contents(folder.noise_folder(NOISE, "lesion")) == contents(alone.noise_folder(NOISE, "lesion"))


def test_masks_that_bear_no_noise_are_counted_and_named(folder, caplog):
    for image_id in ("case00", "case04"):
        write_png(folder.mask_path(image_id, "lesion"), np.zeros((SIZE, SIZE), bool))
    found = write_noise(folder, NoiseConfig(1.0, 0.5), "lesion")["statistics"]
    assert (found["n_drawn"], found["n_kept_clean"], found["count"]["clean"]) == (N, 2, 2)
    assert "2 of the 12 masks drawn for noise stay clean" in caplog.text
    assert "case00, case04" in caplog.text
    row = (folder.noise_folder(NoiseConfig(1.0, 0.5), "lesion") / "noise.csv").read_text().splitlines()[1]
    assert row == "case00,clean,0.0,0,0,0.0,1.0"


def test_a_folder_of_empty_masks_is_no_crash(tmp_path):
    folder = prepare(tmp_path, n_images=2)
    for image_id in folder.ids("train"):
        write_png(folder.mask_path(image_id, "lesion"), np.zeros((SIZE, SIZE), bool))
    found = write_noise(folder, NoiseConfig(1.0, 0.7), "lesion")["statistics"]
    assert (found["R_fg"], found["R_bg"], found["R_bg_formula"]) == (1, 1, 1)


def test_the_command_makes_every_combination_and_pictures(folder, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    arguments = ["isic2017", "--data-dir", str(tmp_path), "--alpha", "0.5", "1", "--beta", "0.5"]
    main([*arguments, "--picture", str(tmp_path / "sheet.png")])
    made = sorted(path.parent.name for path in folder.folder.rglob("noise.json"))
    assert made == ["a0.5_b0.5", "a1_b0.5"]
    assert sorted(path.name for path in tmp_path.glob("*.png")) == [f"sheet_lesion_{name}.png" for name in made]
    assert "R_fg 0." in caplog.text
    assert "(by formula 0.8750)" in caplog.text
    more = ["--variant", "per_image", "--direction", "uniform8", "--seed", "3", "--types", "erode"]
    main(["isic2017", "--data-dir", str(folder.folder), "--alpha", "1", "--beta", "0.7", *more])
    output = folder.folder / "noisy/lesion/a1_b0.7_erode_uniform8_per_image_seed3"
    assert json.loads((output / "noise.json").read_text())["facts"]["statistics"]["count"]["erode"] == N


def test_the_picture_shows_both_outlines(folder, tmp_path):
    noise = NoiseConfig(1.0, 0.7)
    write_noise(folder, noise, "lesion")
    draw_noisy_masks(folder, noise, "lesion", tmp_path / "sheet.png", per_type=2)
    red, green, blue = imread(tmp_path / "sheet.png")[..., :3].transpose(2, 0, 1)
    assert np.count_nonzero((red > 0.8) & (abs(green - 0.62) < 0.1) & (blue < 0.2)) > 200  # orange
    assert np.count_nonzero((red < 0.45) & (green > 0.6) & (blue > 0.8)) > 200  # blue
    with pytest.raises(DataError, match=r"noise\.csv"):
        draw_noisy_masks(folder, NOISE, "lesion", tmp_path / "other.png")
    assert not (tmp_path / "other.png").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--alpha", "1.5", "--beta", "0.5"], r"noise\.alpha=1\.5: expected a fraction of the images, 0 to 1"),
        (["--alpha", "0", "--beta", "0.5"], r"noise\.alpha=0: .*Give a fraction above 0"),
        (["--alpha", "0.5", "--beta", "1"], r"noise\.beta=1\.0: expected a strength above 0 and below 1"),
        (["--alpha", "0.5", "--beta", "0.5", "--structure", "lung"], r"'lung': unknown in ISIC2017; expected .*lesion"),
        (["--alpha", "0.5", "--beta", "0.5", "--types", "blur"], r"noise\.types=\['blur'\]: .*dilate, erode, affine"),
        (
            ["--alpha", "0.5", "--beta", "0.5", "--part", "test"],
            r"--part test: noise is simulated on the training masks only",
        ),
    ],
)
def test_settings_that_cannot_be_are_refused(folder, tmp_path, arguments, told):
    with pytest.raises(ConfigError, match=told):
        main(["isic2017", "--data-dir", str(tmp_path), *arguments])
    assert not (folder.folder / "noisy").exists()


def test_bad_input_is_named_with_a_remedy(folder, tmp_path):
    with pytest.raises(DataError, match=r"manifest\.csv.*frugalseg prepare isic2017"):
        main(["isic2017", "--data-dir", str(tmp_path / "nowhere"), "--alpha", "0.5", "--beta", "0.5"])
    path = folder.mask_path("case05", "lesion")
    path.write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"case05\.png: cannot be read as an image"):
        write_noise(folder, NOISE, "lesion")
    path.unlink()
    with pytest.raises(DataError, match=r"case05\.png: cannot be read .*frugalseg prepare"):
        write_noise(folder, NOISE, "lesion")
    empty = prepare(tmp_path / "empty", n_images=0)
    with pytest.raises(DataError, match=r"manifest\.csv: no image in split 'train'.*Prepare"):
        write_noise(empty, NOISE, "lesion")
