import matplotlib.image
import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from matplotlib.text import Text
from skimage.color import deltaE_ciede2000, rgb2lab

from util.results.pictures import (
    COLOURS,
    draw_label_outlines,
    draw_legend,
    draw_outline,
    enlarge,
    literal,
    mark_regions,
    outline_path,
    outline_style,
    panel_grid,
    save_figure,
    show_image,
    stretch_greys,
    trace_outlines,
)


def mask_of(*rows):
    return np.array([[pixel == "#" for pixel in row] for row in rows])


def points(outline):
    return {(float(x), float(y)) for x, y in outline}


def test_the_outline_of_a_pixel_is_its_square():
    (outline,) = trace_outlines(mask_of("...", "..#"))
    assert points(outline) == {(1.5, 0.5), (2.5, 0.5), (2.5, 1.5), (1.5, 1.5)}
    assert outline[0].tolist() == outline[-1].tolist()  # closed


def test_a_path_has_the_corners_of_the_outlines_in_scaled_whole_units():
    path = outline_path(mask_of("...", ".##"), (10.0, 20.0))
    start, steps = path.removeprefix("M").removesuffix("z").split("l")
    corners = np.cumsum(np.array(f"{start} {steps}".split(), int).reshape(-1, 2), axis=0)
    assert {tuple(corner) for corner in corners.tolist()} == {(10, 20), (30, 20), (30, 40), (10, 40)}
    assert outline_path(mask_of("##.", "...", "..#")).count("M") == 2
    assert outline_path(mask_of("...")) == ""


def test_a_pixel_smaller_than_a_unit_still_has_a_path():
    assert outline_path(mask_of("....", ".#..", "...."), (0.1, 0.1)) == "M0 0l0 0z"


def test_few_dark_and_bright_pixels_do_not_determine_the_contrast():
    greys = np.tile(np.linspace(100.0, 200.0, 100), (100, 1))
    greys[0, 0], greys[0, 1] = -1e6, 1e6
    shown = stretch_greys(greys)
    assert (shown.min(), shown.max()) == (0, 1)
    assert shown[50, 50] == pytest.approx(0.5, abs=0.02)


def test_outlines_close_at_the_border_of_the_image():
    (outline,) = trace_outlines(np.ones((4, 6), bool))
    assert points(outline) == {(-0.5, -0.5), (5.5, -0.5), (5.5, 3.5), (-0.5, 3.5)}


def test_every_part_and_every_hole_has_an_outline():
    outlines = trace_outlines(mask_of("#####.", "#...#.", "#...#.", "#...#.", "#####.", ".....#"))
    boxes = sorted((*outline.min(0).tolist(), *outline.max(0).tolist()) for outline in outlines)
    assert boxes == [(-0.5, -0.5, 5.5, 5.5), (0.5, 0.5, 3.5, 3.5)]  # the last pixel touches the corner
    assert len(trace_outlines(mask_of("#.#"))) == 2
    assert trace_outlines(mask_of("...")) == []


def test_an_outline_leaves_the_view_as_it_is():
    _, grid = panel_grid("title", 1, 2)
    for axes, mask in zip(grid.flat, (np.ones((4, 6), bool), np.zeros((4, 6), bool)), strict=True):
        show_image(axes, mask.astype(np.uint8))
        draw_outline(axes, mask, COLOURS[0])
        assert axes.get_xlim() == (-0.5, 5.5)
        assert axes.get_ylim() == (3.5, -0.5)
    assert [len(axes.collections) for axes in grid.flat] == [1, 0]


def test_labels_have_a_style_each_and_the_truth_is_white():
    figure, grid = panel_grid("title", 1, 2)
    labels = mask_of("##.", "...").astype(np.uint8) + 2 * mask_of("..#", "...")
    names = {1: "liver", 3: "spleen", 2: "kidney"}
    for axes, is_truth in zip(grid.flat, (False, True), strict=True):
        show_image(axes, labels)
        draw_label_outlines(axes, labels, names, is_truth)
    colours = [[line.get_color()[0].tolist() for line in axes.collections] for axes in grid.flat]  # type: ignore[attr-defined]
    assert colours[1] == [[1, 1, 1, 1]] * 2
    assert colours[0][0] != colours[0][1]
    assert all(isinstance(line, LineCollection) for line in grid[0, 0].collections)
    draw_legend(figure, list(names.values()), truth="ground truth")
    legend = figure.legends[0]
    assert [text.get_text() for text in legend.get_texts()] == ["liver", "spleen", "kidney", "ground truth"]
    kidney = np.array([int(COLOURS[2][i : i + 2], 16) / 255 for i in (1, 3, 5)])  # the third of the names
    np.testing.assert_allclose(colours[0][1][:3], kidney)


def test_all_classes_of_a_picture_have_colours_that_are_told_apart():
    assert COLOURS[:6] == ("#E69F00", "#56B4E9", "#F0E442", "#CC79A7", "#009E73", "#D55E00")
    assert len(COLOURS) >= 12
    assert [outline_style(place)[0] for place in range(len(COLOURS))] == list(COLOURS)
    lab = rgb2lab(np.array([to_rgb(colour) for colour in (*COLOURS, "white")]))
    one, other = np.triu_indices(len(lab), 1)
    assert deltaE_ciede2000(lab[one], lab[other]).min() > 15
    styles = [outline_style(place) for place in range(4 * len(COLOURS))]
    assert len(set(styles)) == len(styles)  # more classes than colours differ in their dashes


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 3)])
def test_enlarging_repeats_every_pixel(dtype, shape):
    array = (np.arange(np.prod(shape)) * 7).reshape(shape).astype(dtype)
    found = enlarge(array, 3)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, array.repeat(3, 0).repeat(3, 1))


@pytest.mark.parametrize("image", [np.full((4, 4), 0.5), np.full((4, 4), 51, np.uint8), np.full((4, 4, 3), 0.2)])
def test_boundaries_of_regions_are_thin_and_yellow(image):
    regions = np.repeat([[70_000, 70_000, 1, 1]], 4, axis=0)
    found = mark_regions(image, regions, 3)
    assert found.shape == (12, 12, 3)
    is_yellow = np.isclose(found, (1, 0.8, 0)).all(-1)
    assert np.flatnonzero(is_yellow.all(0)).tolist() == np.flatnonzero(is_yellow.any(0)).tolist() == [5, 6]
    assert np.unique(found[:, 0]).tolist() == [0.5 if image.ndim == 2 and image.dtype != np.uint8 else 0.2]


def test_an_image_of_one_value_and_an_empty_panel_are_drawn(tmp_path):
    figure, grid = panel_grid("title", 1, 2)
    show_image(grid[0, 0], np.zeros((4, 4)), "flat")
    save_figure(figure, tmp_path / "deep/flat.png")
    assert matplotlib.image.imread(tmp_path / "deep/flat.png").ndim == 3


@pytest.mark.parametrize("names", [["liver", "spleen"], [f"a structure with a long name {n}" for n in range(9)]])
def test_a_legend_is_not_wider_than_its_figure(tmp_path, names):
    figure, grid = panel_grid("title", 1, 2)
    show_image(grid[0, 0], np.zeros((4, 4)))
    draw_legend(figure, names, truth=None)
    save_figure(figure, tmp_path / "one.png")
    (legend,) = figure.legends
    assert len(legend.get_texts()) == len(names)
    extent = legend.get_window_extent()
    assert extent.x0 >= 0
    assert extent.x1 <= figure.bbox.width
    assert extent.width > 0.3 * figure.bbox.width


@pytest.mark.parametrize(
    "title", ["$x_1$", r"$\frac{$", "5$", "$", "bell \x07", "Latin 1 \udce9", "two\nlines", "_ $_$"]
)
def test_names_are_drawn_as_they_are(tmp_path, title):
    figure, grid = panel_grid(title, 1, 1)
    show_image(grid[0, 0], np.zeros((4, 4)), title)
    grid[0, 0].set_ylabel(title)
    grid[0, 0].text(0, 0, title)
    draw_legend(figure, [title], truth=None)
    save_figure(figure, tmp_path / "one.png")
    assert (tmp_path / "one.png").exists()
    assert not any(text.get_parse_math() for text in figure.findobj(Text))  # type: ignore[attr-defined]
    assert [text.get_text() for text in figure.findobj(Text)].count(literal(title)) >= 4


def test_only_what_cannot_be_drawn_is_escaped():
    assert literal("a\x07b\tc\udce9d") == r"a\x07b\tc\udce9d"
    assert literal("$x$ 日本\nżółw \\n") == "$x$ 日本\nżółw \\n"


def test_the_same_figure_is_the_same_file(tmp_path):
    for name in ("a", "b"):
        figure, grid = panel_grid("title", 1, 1)
        show_image(grid[0, 0], np.eye(5))
        save_figure(figure, tmp_path / f"{name}.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
