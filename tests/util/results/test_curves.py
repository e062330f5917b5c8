import json
import math

import matplotlib.image
import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from util.errors import DataError
from util.results import curves
from util.results.curves import (
    LINE_COLOURS,
    group_names,
    read_sacred_scalars,
    save_curves,
    save_memorisation,
    save_training_curves,
)


@pytest.fixture
def drawn(monkeypatch):
    """The figures that would have been saved."""
    figures = []
    monkeypatch.setattr(curves, "save_figure", lambda figure, path: figures.append(figure))
    return figures


def test_running_mean_by_hand():
    values = np.zeros(100)  # a window of three
    values[[0, 50]] = 3.0
    mean = curves._running_mean(values)
    np.testing.assert_allclose(mean[[0, 1, 2, 49, 50, 51, 52, 99]], [1.5, 1, 0, 1, 1, 1, 0, 0], atol=1e-12)
    values[60:65] = math.nan
    values[66] = math.inf
    values[65] = 6.0
    mean = curves._running_mean(values)
    np.testing.assert_allclose(mean[59:68], [0, 0, math.nan, math.nan, math.nan, 6, 6, 3, 0], atol=1e-12)
    np.testing.assert_array_equal(curves._running_mean(np.array([2.0, 5.0])), [2.0, 5.0])


def test_curves(drawn, tmp_path):
    steps = list(range(0, 1000, 10))
    values = [1.0] * 98 + [math.nan, math.inf]
    save_curves(
        tmp_path / "curves.png", {"loss": (steps, values), "lr": ([5], [0.1]), "align": (steps, steps)}, "fold 0"
    )
    titles = [axes.get_title() for axes in drawn[0].axes]
    assert titles == ["loss (2 not finite)", "lr", "align"]
    assert drawn[0].get_suptitle() == "fold 0"
    raw, smooth = drawn[0].axes[0].lines
    assert list(raw.get_xdata()) == steps
    assert np.isnan(raw.get_ydata()).sum() == 2
    assert smooth.get_ydata()[50] == pytest.approx(1)


def test_curves_of_a_kind_share_a_panel(drawn, tmp_path):
    parts = ["train/kept_background", "train/kept_foreground"]
    val = ["val/dice", "val/dice/liver"]
    assert group_names(["train/loss", *parts, *val, "val/iou", "round/x"]) == {
        "train/loss": ["train/loss"],
        "train/kept": parts,
        "val/dice": val,
        "val/iou": ["val/iou"],
        "round/x": ["round/x"],
    }
    save_curves(tmp_path / "x.png", {name: ([1, 2], [0.5, math.nan]) for name in [*parts, "train/loss"]})
    kept, loss = drawn[0].axes
    assert kept.get_title() == "train/kept (2 not finite)"
    assert [text.get_text() for text in kept.get_legend().get_texts()] == ["kept_background", "kept_foreground"]
    assert [line.get_color() for line in kept.lines] == [LINE_COLOURS[i] for i in (0, 0, 1, 1)]
    assert loss.get_legend() is None


def test_curves_are_written(tmp_path):
    save_curves(tmp_path / "curves.png", {"loss": ([0, 1], [1.0, 0.5])})
    assert matplotlib.image.imread(tmp_path / "curves.png").ndim == 3
    with pytest.raises(DataError, match=r"none\.png: no curve to draw"):
        save_curves(tmp_path / "none.png", {})


def test_scalars_of_a_real_sacred_run(tmp_path):
    from sacred import Experiment
    from sacred.observers import FileStorageObserver

    experiment = Experiment("demo", save_git_info=False)
    experiment.observers.append(FileStorageObserver(tmp_path, copy_sources=False))

    @experiment.main
    def main(_run):
        for step in (10, 20):
            _run.log_scalar("train/loss", np.float64(1 / step), step)
        _run.log_scalar("val/raw", [0.5, 0.6], 20)

    experiment.run(options={"--capture": "no"})
    assert read_sacred_scalars(tmp_path / "1") == {"train/loss": ([10, 20], [0.1, 0.05])}


NOT_OF_A_RUN = ({"steps": [1]}, {"steps": [1], "values": [1, 2]}, {"steps": ["a"], "values": [1]}, 3)


@pytest.mark.parametrize("content", [None, "", "[]", *(json.dumps({"loss": record}) for record in NOT_OF_A_RUN)])
def test_no_sacred_run(tmp_path, content):
    if content is not None:
        (tmp_path / "metrics.json").write_text(content)
    with pytest.raises(DataError, match=r"metrics\.json: not the metrics of a Sacred run .*config\.json"):
        read_sacred_scalars(tmp_path)


def log_run(runs, number, steps, values):
    record = {"steps": steps, "values": values}
    (runs / str(number)).mkdir(parents=True)
    (runs / str(number) / "metrics.json").write_text(json.dumps({"train/loss": record, "loss": record}))


def test_curves_of_a_resumed_training_are_joined_by_number(tmp_path, monkeypatch):
    drawn = {}
    monkeypatch.setattr("util.results.curves.save_curves", lambda path, curves, title: drawn.update(curves))
    assert not save_training_curves(tmp_path / "curves.png", tmp_path / "runs")
    log_run(tmp_path / "runs", 10, [30, 40], [2.3, 2.4])
    log_run(tmp_path / "runs", 9, [10, 20, 30], [1.1, 1.2, 1.3])  # the younger file
    assert save_training_curves(tmp_path / "curves.png", tmp_path / "runs")
    assert drawn == {"train/loss": ([10, 20, 30, 40], [1.1, 1.2, 2.3, 2.4])}  # step 30 as the later run saw it


@pytest.mark.parametrize("content", ["", '{"train/loss": {"steps": [1, "b"], "values": [1, 2]}}', "[" * 100_000])
def test_a_run_with_damaged_metrics_is_left_out_and_named(tmp_path, content, caplog):
    log_run(tmp_path / "runs", 1, [10], [1.0])
    log_run(tmp_path / "runs", 2, [20], [0.5])
    (tmp_path / "runs/2/metrics.json").write_text(content)
    assert save_training_curves(tmp_path / "curves.png", tmp_path / "runs")
    assert (tmp_path / "curves.png").exists()
    (line,) = caplog.messages
    assert line.startswith("training curves of run 2: left out, the scores are not affected (")


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def colour_fraction(picture, colour, tolerance=12):
    """Fraction of the pixels that have about this colour."""
    wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    return float((np.abs(picture - wanted).max(-1) <= tolerance).mean())


def history(types=("all", "dilate", "erode", "affine", "clean")):
    """Clean masks are learned first; then the network begins to agree with the noisy ones."""
    steps = np.arange(100, 1001, 100)
    return [
        {"step": float(step), "val/dice": 0.7}
        | {f"train_set/dice_to_clean/{kind}": 0.8 - 0.1 * (step / 1000) ** 2 for kind in types}
        | {f"train_set/dice_to_given/{kind}": 0.6 + 0.2 * step / 1000 for kind in types}
        for step in steps
    ]


def test_memorisation_has_a_panel_per_type_of_noise(tmp_path):
    path = tmp_path / "memorisation.png"
    assert save_memorisation(path, history(), "T-Loss: predictions on training images")
    picture = pixels(path)
    assert colour_fraction(picture, "#0072B2") > 1e-4
    assert colour_fraction(picture, "#D55E00") > 1e-4
    assert save_memorisation(tmp_path / "one.png", history(("all",)), "one type")
    assert pixels(tmp_path / "one.png").shape[1] < picture.shape[1] / 2
    assert not plt.get_fignums()


def test_a_single_evaluation_is_a_point(tmp_path):
    assert save_memorisation(tmp_path / "point.png", history()[:1], "one evaluation")
    assert colour_fraction(pixels(tmp_path / "point.png"), "#D55E00") > 1e-5


@pytest.mark.parametrize("values", [[], [{"step": 1.0, "val/dice": 0.5}]])
def test_without_agreement_nothing_is_drawn(tmp_path, values):
    assert not save_memorisation(tmp_path / "none.png", values, "nothing")
    assert not (tmp_path / "none.png").exists()
