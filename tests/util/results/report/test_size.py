"""Pages stay small: with volumes and pictures of the size that validations and predictions have."""

import re
import shutil

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from tests.util.results.report.test_prediction import page_of, write_scans
from util.results.curves import save_curves
from util.results.layout import GENERIC
from util.results.overlays import save_overlays
from util.results.report import Record, save_report
from util.results.report.images import SMALLER, encode_picture
from util.results.report.prediction import MOST_PICTURES
from util.results.report.record import headline_of, print_tables
from util.results.report.views import VIEWS, save_view
from util.results.scores import FILE_NAME, make_scores, write_scores
from util.results.tables import make_tables

MEGABYTE = 1_000_000
ORGANS = {1: "LIVER", 2: "RK", 3: "LK", 4: "SPLEEN"}
CENTRES = ((-0.4, -0.1), (-0.35, 0.35), (0.35, 0.35), (0.55, 0.0))  # x, y of the body's half width and height
RADII = (0.4, 0.15, 0.15, 0.22)
AFFINE = np.diag([-1.4, 1.4, 7.0, 1.0])
PROTOCOLS = ("reference", "blind")
CASES = ("1", "2", "3", "4")


def make_scan():
    """A noisy body with four organs, their labels, and these shifted by some columns; (36, 256, 256) each."""
    rng = np.random.default_rng(0)
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, size, dtype=np.float32) for size in (36, 256, 256)), indexing="ij")
    texture = gaussian_filter(rng.standard_normal(z.shape, np.float32), (1, 4, 4))
    image = np.where((x / 0.9) ** 2 + (y / 0.7) ** 2 < 1, 0.45 + 0.12 * texture / texture.std(), 0)
    truth = np.zeros(z.shape, np.uint8)
    for label, ((left, top), radius) in enumerate(zip(CENTRES, RADII, strict=True), 1):
        is_organ = (x - left) ** 2 + (y - top) ** 2 + (z / 1.6) ** 2 < radius**2
        truth[is_organ], image[is_organ] = label, image[is_organ] + 0.1 * label
    real, imaginary = 0.08 * rng.standard_normal((2, *z.shape), np.float32)
    return np.hypot(image + real, imaginary), truth, np.roll(truth, 4, 2)


@pytest.fixture(scope="module")
def fold(tmp_path_factory):
    """The folder of a validation of four scans under two protocols, with curves."""
    folder = tmp_path_factory.mktemp("fold")
    image, truth, prediction = make_scan()
    drawn, view = folder / "overlay.png", folder / "view.npz"
    save_overlays(drawn, image, truth, {"Mine": prediction}, scan=1, organs=ORGANS, affine=AFFINE)
    pictures = {}
    for protocol in PROTOCOLS:
        for case in CASES:
            name = f"{protocol}_{case}"
            picture, view = folder / "overlays" / f"{name}.png", folder / VIEWS / f"{name}.npz"
            picture.parent.mkdir(exist_ok=True)
            pictures[name] = str(shutil.copy(drawn, picture).relative_to(folder))
            about = {"case": case, "names": ORGANS, "picture": picture, "conditions": {"protocol": protocol}}
            save_view(view, np.roll(image, 3 * int(case), 2), truth, prediction, AFFINE, **about)
    steps = np.arange(0, 50_000, 100)
    noisy = np.exp(-steps / 20_000) + np.random.default_rng(0).normal(0, 0.1, len(steps))
    losses = ("train/loss", "train/query_ce", *(f"val/dice/{organ}" for organ in ORGANS.values()))
    save_curves(folder / "curves.png", dict.fromkeys(losses, (steps.tolist(), noisy.tolist())), "Training")
    shared = {"method": "Mine", "dataset": "CHAOST2", "split": "test", "fold": 0, "weights": "last", "n_folds": 5}
    scores = make_scores([
        shared | {"protocol": protocol, "case": case, "patient": case, "structure": organ, "metric": "dice"}
        | {"value": 0.5 + 0.1 * int(case)}
        for protocol in PROTOCOLS for case in CASES for organ in ORGANS.values()
    ])  # fmt: skip
    write_scores(folder / FILE_NAME, scores)
    tables = make_tables(scores, GENERIC)
    Record(
        title="Mine",
        n_cases=len(CASES),
        headline=headline_of(tables),
        tables=print_tables(tables),
        pictures=pictures,
        curves={"training": "curves.png"},
    ).save(folder)
    return folder


def test_the_page_of_a_fold_is_below_five_megabytes(fold):
    page = save_report(fold)
    text = page.read_text(encoding="utf-8")
    assert page.stat().st_size < 5 * MEGABYTE
    assert len(re.findall("<img", text)) == 3 * len(PROTOCOLS) + 1  # worst, median and best case, and the curves
    assert 'id="niivue-bundle"' in text
    assert '"step":[1,2,2]' in text  # all slices are there


def test_pictures_lose_quality_first_and_size_only_where_that_is_not_enough(fold, tmp_path):
    with Image.open(fold / "overlay.png") as overlay:
        overlay.crop((0, 0, overlay.width, 400)).save(tmp_path / "part.png")
    full, poorer, smallest = (encode_picture(tmp_path / "part.png", "", most) for most in (MEGABYTE, 60_000, 1))
    assert (full.width, full.height) == (poorer.width, poorer.height)
    assert len(poorer.source) <= 60_000 < len(full.source)
    assert smallest.width == SMALLER[-1][0]


def test_as_many_overlays_as_a_page_of_predictions_shows_are_below_five_megabytes(fold, tmp_path):
    table = write_scans(tmp_path)
    empty = len(page_of(table))
    shutil.copy(fold / "overlay.png", tmp_path / "s9_overlay.png")
    assert empty + MOST_PICTURES * (len(page_of(table)) - empty) < 5 * MEGABYTE
