"""Runs with scores, pictures and views, made up by hand."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from util.results.layout import GENERIC
from util.results.report import Record
from util.results.report.record import headline_of, print_tables
from util.results.report.views import VIEWS, save_view
from util.results.scores import FILE_NAME, make_scores, write_scores
from util.results.tables import make_tables

EVIL = '</script><script>alert("1")</script>\'&'
DICE = {"1": (0.9, 0.8), "2": (0.5, 0.4), "3": (0.7, 0.6), "10": (0.95, float("nan")), EVIL: (0.6, 0.75)}
STRUCTURES = ("LIVER", f"RK {EVIL}")
HD95_MM = {"3": (120.0, 8.0)}  # a far-off piece of the liver
AFFINE = np.diag([-1.5, 1.5, 5.0, 1.0])


def scores_of(dice=None, method="Mine", **conditions):
    """The scores of a run, by case and structure."""
    shared = {"method": method, "dataset": "CHAOST2", "split": "test", "fold": 0, "weights": "last", "n_folds": 5}
    return make_scores([
        shared | conditions | {"case": case, "patient": f"SECRET{case[:1]}", "structure": structure}
        | {"metric": metric, "value": value}
        for case, values in (dice or DICE).items()
        for place, structure in enumerate(STRUCTURES)
        for metric, value in {
            "dice": values[place],
            "hd95_mm": HD95_MM.get(case, (9.0, 8.0))[place],
            "confidence": 0.5 + values[place] / 3,
        }.items()
    ])  # fmt: skip


def volumes(shift=0):
    """Image, truth and prediction (8, 40, 48): a body with two boxes, the prediction shifted by some columns."""
    image = np.zeros((8, 40, 48), np.float32)
    image[:, 6:34, 8:40] = np.random.default_rng(0).uniform(150, 250, (8, 28, 32))
    truth = np.zeros(image.shape, np.uint8)
    truth[2:6, 10:20, 12:20] = 1
    truth[3:5, 22:30, 24:34] = 2
    return image, truth, np.roll(truth, shift, axis=2)


@pytest.fixture(scope="session")
def write_run():
    """Writes a run's folder: scores, record, a picture and a view of each case; returns the folder."""

    def write(folder: Path, dice=None, title=f"Mine on {EVIL}", failed=None, **conditions) -> Path:
        scores = scores_of(dice, **conditions)
        write_scores(folder / FILE_NAME, scores)
        tables = make_tables(scores, GENERIC)
        for n, case in enumerate(dice or DICE):
            picture = folder / "overlays" / f"{n}.png"
            picture.parent.mkdir(exist_ok=True)
            Image.fromarray(np.random.default_rng(n).integers(0, 255, (90, 1400, 3), np.uint8)).save(picture)
            names = {1: STRUCTURES[0], 2: STRUCTURES[1]}
            about = {"case": case, "names": names, "conditions": {"weights": "last"}, "picture": picture}
            save_view(folder / VIEWS / f"{n}.npz", *volumes(2 + n), AFFINE, **about)
        (folder / "curves.png").write_bytes(picture.read_bytes())
        Record(
            title=title,
            command=f"python validation.py with {EVIL}",
            finished="2026-11-26T10:00:00+00:00",
            n_cases=len(dice or DICE) + len(failed or {}),
            failed=failed or {},
            headline=headline_of(tables),
            tables=print_tables(tables),
            pictures={f"scan {EVIL}": "overlays/0.png"},
            curves={"training": "curves.png"},
            settings={"seed": 1234, "optim": {"lr": 0.01}, EVIL: EVIL},
            changed=["optim.lr"],
            versions={"torch": "2.0"},
            data={"training data (3 entries)": "ab12"},
        ).save(folder)
        return folder

    return write
