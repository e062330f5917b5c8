import itertools
import json
import math
import os
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from matplotlib.contour import ContourSet

from util.errors import ConfigError, DataError
from util.results import pictures
from util.results.pictures import (
    COLOURS,
    for_viewing,
    read_sacred_scalars,
    save_curves,
    save_overlays,
    save_training_curves,
)

UNUSED = Path("unused.png")
AXIS = {"R": (1, 0, 0), "L": (-1, 0, 0), "A": (0, 1, 0), "P": (0, -1, 0), "S": (0, 0, 1), "I": (0, 0, -1)}


def affine_of(codes: str, spacing_xyz=(1.0, 1.0, 1.0)):
    """Affine of a volume whose x, y, z grow towards the named directions."""
    affine = np.eye(4)
    affine[:3, :3] = np.array([AXIS[code] for code in codes], float).T * spacing_xyz
    return affine


def voxel_towards(shape, affine, *directions: str):
    """Volume in which only the voxel that lies farthest in all the directions is set."""
    z, y, x = np.indices(shape)
    world = np.stack([x, y, z], -1) @ affine[:3, :3].T
    far = sum((world @ np.array(AXIS[direction]) for direction in directions), np.zeros(shape))
    volume = np.zeros(shape, np.int16)
    volume[np.unravel_index(far.argmax(), shape)] = 1
    return volume


def axial():
    for x_and_y in itertools.product("LR", "AP"):
        for pair in itertools.permutations(x_and_y):
            yield "".join(pair) + "S"


@pytest.mark.parametrize("codes", list(axial()))
def test_axial_slices_show_the_front_up_and_the_patients_right_at_the_left(codes):
    affine, shape = affine_of(codes), (3, 4, 5)
    corners = {("R", "A"): (0, 0), ("L", "A"): (0, -1), ("R", "P"): (-1, 0), ("L", "P"): (-1, -1)}
    for directions, (row, column) in corners.items():
        turned, letters, _ = for_viewing(voxel_towards(shape, affine, *directions, "S"), affine)
        assert letters == ("R", "A")
        assert turned[2, row, column] == 1


@pytest.mark.parametrize(
    ("codes", "left", "top"),
    [("LSA", "R", "S"), ("RIP", "R", "S"), ("ASL", "A", "S"), ("PIR", "A", "S"), ("IPL", "A", "S")],
)
def test_other_slices_show_the_head_up(codes, left, top):
    affine = affine_of(codes)
    turned, letters, _ = for_viewing(voxel_towards((3, 4, 5), affine, left, top, codes[2]), affine)
    assert letters == (left, top)
    assert turned[-1, 0, 0] == 1  # the slices keep their order


def test_pixels_keep_their_proportions():
    assert for_viewing(np.zeros((1, 4, 5)), affine_of("LAS", (1.0, 1.5, 8.0)))[2] == 1.5
    turned, _, aspect = for_viewing(np.zeros((1, 4, 5)), affine_of("ALS", (1.0, 1.5, 8.0)))
    assert turned.shape == (1, 5, 4)
    assert aspect == pytest.approx(1 / 1.5)


def test_a_rotated_scan_is_turned_to_the_nearest_direction():
    tilt = np.deg2rad(10)
    rotation = np.eye(4)
    rotation[:2, :2] = [[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]]
    image = np.arange(60).reshape(3, 4, 5)
    turned, letters, _ = for_viewing(image, rotation @ affine_of("LAS"))
    assert letters == ("R", "A")
    np.testing.assert_array_equal(turned, image[:, ::-1])


@pytest.fixture
def drawn(monkeypatch):
    """The figures that would have been saved."""
    figures = []
    monkeypatch.setattr(pictures, "save_figure", lambda figure, path: figures.append(figure))
    return figures


@pytest.fixture
def scan():
    image = np.random.default_rng(0).normal(100, 20, (8, 24, 20))
    truth = np.zeros(image.shape, np.uint8)
    truth[2:6, 15:20, 2:8] = 1
    truth[2:4, 4:9, 10:16] = 2
    truth[:, :2] = 255
    return image, truth


def outlines(axes):
    """(left, right, top, bottom) of every outline in the panel."""
    boxes = [one.get_paths()[0].get_extents() for one in axes.collections if isinstance(one, ContourSet)]
    return [(box.x0, box.x1, box.y0, box.y1) for box in boxes]


def test_overlays_are_written_as_png(tmp_path, scan):
    image, truth = scan
    path = tmp_path / "pictures" / "scan_1.png"
    save_overlays(path, image, truth, {"ALPNet": truth == 1}, scan=1, affine=affine_of("LAS"))
    pixels = matplotlib.image.imread(path)
    assert pixels.shape[0] > 1000
    for colour in COLOURS[:2]:
        expected = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
        assert (np.abs(pixels[..., :3] - expected).max(axis=-1) < 0.02).sum() > 50
    before = path.read_bytes()
    save_overlays(path, image, truth, {"ALPNet": truth == 1}, scan=1, affine=affine_of("LAS"))
    assert path.read_bytes() == before


def test_outlines_lie_around_the_organs(drawn, scan):
    image, truth = scan
    moved = np.roll(truth, 1, axis=2)
    save_overlays(UNUSED, image, truth, {"ALPNet": moved}, scan=7, slices=[3, 5])
    rows = np.reshape(drawn[0].axes, (2, 3))
    assert outlines(rows[0, 0]) == []
    assert outlines(rows[0, 1]) == [(1.5, 7.5, 14.5, 19.5), (9.5, 15.5, 3.5, 8.5)]  # 255 is not drawn
    assert outlines(rows[1, 1]) == [(1.5, 7.5, 14.5, 19.5)]
    # The ground truth first (thin and white), the prediction over it.
    assert outlines(rows[1, 2]) == [(1.5, 7.5, 14.5, 19.5), (2.5, 8.5, 14.5, 19.5)]
    np.testing.assert_array_equal(rows[1, 2].images[0].get_array(), image[5])
    assert rows[1, 0].get_ylabel() == "slice 5"
    assert drawn[0].get_suptitle() == "Scan 7"


def test_image_and_outlines_turn_together(drawn, scan):
    image, truth = scan
    save_overlays(UNUSED, image, truth, {}, scan=1, slices=[5], affine=affine_of("LAS"))
    plain, marked = drawn[0].axes
    np.testing.assert_array_equal(marked.images[0].get_array(), image[5, ::-1])
    assert outlines(marked) == [(1.5, 7.5, 24 - 20 - 0.5, 24 - 15 - 0.5)]
    assert {text.get_text(): text.get_position()[0] for text in plain.texts} == {
        "R": 0.03,
        "L": 0.97,
        "A": 0.5,
        "P": 0.5,
    }


def test_outline_closes_at_the_border_of_the_picture(drawn):
    save_overlays(UNUSED, np.zeros((1, 6, 6)), np.ones((1, 6, 6), bool), {}, scan=1)
    panel = drawn[0].axes[1]
    assert outlines(panel) == [(-0.5, 5.5, -0.5, 5.5)]
    assert panel.get_xlim() == (-0.5, 5.5)
    assert panel.get_ylim() == (5.5, -0.5)


def test_titles_name_the_dice_and_the_legend_the_organs(drawn, scan):
    image, truth = scan
    organs = {1: "Liver", 2: "Left kidney", 3: "Spleen"}
    dice = {"A": {1: 0.81234, 2: math.nan, 3: 0.5}}
    save_overlays(UNUSED, image, truth, {"A": truth, "B": truth}, scan=1, organs=organs, dice=dice, slices=[3])
    titles = [axes.get_title() for axes in drawn[0].axes]
    assert titles == ["Image", "Ground truth", "A\nDice Liver 0.812, Left kidney –\nSpleen 0.500", "B"]
    legend = [text.get_text() for text in drawn[0].legends[0].get_texts()]
    assert legend == ["Liver", "Left kidney", "Spleen", "ground truth"]


def test_slices_are_spread_over_what_is_marked(drawn, scan):
    image, truth = scan
    truth[truth == 255] = 0
    save_overlays(UNUSED, image, truth, {}, scan=1)
    save_overlays(UNUSED, image, None, {"A": np.zeros(image.shape, bool)}, scan=1)
    labels = [[axes.get_ylabel() for axes in figure.axes if axes.get_ylabel()] for figure in drawn]
    assert labels == [[f"slice {z}" for z in (2, 3, 4, 5)], [f"slice {z}" for z in (0, 2, 4, 5, 7)]]


def test_bad_volumes_and_slices(tmp_path, scan):
    image, truth = scan
    with pytest.raises(DataError, match=r"scan 3: 'A' has the shape \(7, 24, 20\), the image \(8, 24, 20\).*resample"):
        save_overlays(tmp_path / "x.png", image, truth, {"A": truth[1:]}, scan=3)
    with pytest.raises(ConfigError, match=r"slices=\[8\]: scan 3 has the slices 0 to 7; choose"):
        save_overlays(tmp_path / "x.png", image, truth, {}, scan=3, slices=[8])
    assert not list(tmp_path.iterdir())


def test_running_mean_by_hand():
    values = np.zeros(100)  # a window of three
    values[[0, 50]] = 3.0
    mean = pictures._running_mean(values)
    np.testing.assert_allclose(mean[[0, 1, 2, 49, 50, 51, 52, 99]], [1.5, 1, 0, 1, 1, 1, 0, 0], atol=1e-12)
    values[60:65] = math.nan
    values[66] = math.inf
    values[65] = 6.0
    mean = pictures._running_mean(values)
    np.testing.assert_allclose(mean[59:68], [0, 0, math.nan, math.nan, math.nan, 6, 6, 3, 0], atol=1e-12)
    np.testing.assert_array_equal(pictures._running_mean(np.array([2.0, 5.0])), [2.0, 5.0])


def test_curves(drawn, tmp_path):
    steps = list(range(0, 1000, 10))
    values = [1.0] * 98 + [math.nan, math.inf]
    save_curves(
        tmp_path / "curves.png", {"loss": (steps, values), "lr": ([5], [0.1]), "align": (steps, steps)}, "fold 0"
    )
    titles = [axes.get_title() for axes in drawn[0].axes]
    assert titles == ["loss (2 not finite)", "lr", "align", ""]
    assert drawn[0].get_suptitle() == "fold 0"
    raw, smooth = drawn[0].axes[0].lines
    assert list(raw.get_xdata()) == steps
    assert np.isnan(raw.get_ydata()).sum() == 2
    assert smooth.get_ydata()[50] == pytest.approx(1)


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


@pytest.mark.parametrize("content", [None, "", "[]", json.dumps({"loss": {"steps": [1]}}), json.dumps({"loss": 3})])
def test_no_sacred_run(tmp_path, content):
    if content is not None:
        (tmp_path / "metrics.json").write_text(content)
    with pytest.raises(DataError, match=r"metrics\.json: not the metrics of a Sacred run .*config\.json"):
        read_sacred_scalars(tmp_path)


def test_curves_of_a_resumed_training_are_joined(tmp_path, monkeypatch):
    drawn = {}
    monkeypatch.setattr("util.results.pictures.save_curves", lambda path, curves, title: drawn.update(curves))
    assert not save_training_curves(tmp_path / "curves.png", tmp_path / "runs")
    for run, steps in (("1", [10, 20, 30]), ("2", [30, 40])):
        record = {"steps": steps, "values": [float(f"{run}.{step}") for step in steps]}
        (tmp_path / "runs" / run).mkdir(parents=True)
        metrics = tmp_path / "runs" / run / "metrics.json"
        metrics.write_text(json.dumps({"train/loss": record, "loss": record}))
        os.utime(metrics, (int(run), int(run)))
    assert save_training_curves(tmp_path / "curves.png", tmp_path / "runs")
    assert drawn == {"train/loss": ([10, 20, 30, 40], [1.10, 1.20, 2.30, 2.40])}  # step 30 as the later run saw it
