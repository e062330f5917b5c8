import itertools
import math
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from matplotlib.collections import LineCollection
from PIL import Image

from util.errors import ConfigError, DataError
from util.results import overlays
from util.results.overlays import for_viewing, save_image_overlays, save_overlays
from util.results.pictures import COLOURS

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
    monkeypatch.setattr(overlays, "save_figure", lambda figure, path: figures.append(figure))
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
    lines = [line for line in axes.collections if isinstance(line, LineCollection)]
    boxes = [path.get_extents() for line in lines for path in line.get_paths()]
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


def case(channels, caption="img", size=32):
    """An ellipse, and a prediction of it that is off by a few pixels; the second structure is nowhere found."""
    rows, columns = np.mgrid[:size, :size]
    ellipse = ((rows - 16) / 9) ** 2 + ((columns - 14) / 6) ** 2 <= 1
    truth = np.stack([ellipse, (rows < 5) & (columns > 20)])
    found = np.stack([np.roll(ellipse, 3, 1), np.zeros_like(ellipse)])
    image = np.random.default_rng(0).normal(0, 0.1, (channels, size, size)) - ellipse
    return caption, image.astype(np.float32), truth, found


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def colour_fraction(picture, colour, tolerance=12):
    """Fraction of the pixels that have about this colour."""
    wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    return float((np.abs(picture - wanted).max(-1) <= tolerance).mean())


@pytest.mark.parametrize("channels", [1, 3])
def test_overlays_show_the_truth_in_white_and_the_prediction_in_colour(tmp_path, channels):
    path = tmp_path / "overlays" / "last.png"
    cases = [case(channels, f"img_{n}: Dice {90 - n}.0") for n in range(5)]
    save_image_overlays(path, cases, ("lung", "clavicle"), "T-Loss: test images from best to worst")
    picture = pixels(path)
    assert picture.shape[1] == 4 * 336  # 2.8 inches at 120 dots, four columns
    assert colour_fraction(picture, "#E69F00") > 1e-3
    without = [(*one[:3], np.zeros_like(one[3])) for one in cases]
    save_image_overlays(path, without, ("lung", "clavicle"), "nothing found")
    assert colour_fraction(pixels(path), "#E69F00") < 1e-3  # only the legend's


def test_one_image_needs_one_row(tmp_path):
    heights = []
    for n in (1, 4, 5):
        save_image_overlays(tmp_path / f"{n}.png", [case(1)] * n, ("lung", "clavicle"), "title")
        heights.append(len(pixels(tmp_path / f"{n}.png")))
    assert heights[0] == heights[1] < heights[2]


def test_an_image_of_one_value_is_drawn(tmp_path):
    caption, image, truth, found = case(1)
    save_image_overlays(tmp_path / "flat.png", [(caption, np.zeros_like(image), truth, found)], ("a", "b"), "flat")
    assert (tmp_path / "flat.png").exists()


def test_ids_with_formulas_are_printed_as_they_are(tmp_path):
    """A mathtext error would stop the validation; a valid formula would change the id."""
    title = r"$\frac{1}$ and $x_1$"
    save_image_overlays(tmp_path / "image.png", [case(1, title)], (title, "b"), title)
    volume = np.ones((1, 6, 6), bool)
    options = {"scan": title, "organs": {1: title}, "dice": {title: {1: 0.5}}}
    save_overlays(tmp_path / "scan.png", np.zeros((1, 6, 6)), volume, {title: volume}, **options)
    assert (tmp_path / "image.png").exists()
    assert (tmp_path / "scan.png").exists()
