import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image
from util.results.image_pictures import save_image_overlays, save_memorisation


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


def share_of(picture, colour, tolerance=12):
    """Share of the pixels that have about this colour."""
    wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    return float((np.abs(picture - wanted).max(-1) <= tolerance).mean())


@pytest.mark.parametrize("channels", [1, 3])
def test_overlays_show_the_truth_in_white_and_the_prediction_in_colour(tmp_path, channels):
    path = tmp_path / "overlays" / "last.png"
    cases = [case(channels, f"img_{n}: Dice {90 - n}.0") for n in range(5)]
    save_image_overlays(path, cases, ("lung", "clavicle"), "T-Loss: test images from best to worst")
    picture = pixels(path)
    assert picture.shape[1] == 4 * 336  # 2.8 inches at 120 dots, four columns
    assert share_of(picture, "#E69F00") > 1e-3
    without = [(*one[:3], np.zeros_like(one[3])) for one in cases]
    save_image_overlays(path, without, ("lung", "clavicle"), "nothing found")
    assert share_of(pixels(path), "#E69F00") < 1e-3  # only the legend's


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
    assert share_of(picture, "#0072B2") > 1e-4
    assert share_of(picture, "#D55E00") > 1e-4
    assert save_memorisation(tmp_path / "one.png", history(("all",)), "one type")
    assert pixels(tmp_path / "one.png").shape[1] < picture.shape[1] / 2
    assert not plt.get_fignums()


def test_a_single_evaluation_is_a_point(tmp_path):
    assert save_memorisation(tmp_path / "point.png", history()[:1], "one evaluation")
    assert share_of(pixels(tmp_path / "point.png"), "#D55E00") > 1e-5


@pytest.mark.parametrize("values", [[], [{"step": 1.0, "val/dice": 0.5}]])
def test_without_agreement_nothing_is_drawn(tmp_path, values):
    assert not save_memorisation(tmp_path / "none.png", values, "nothing")
    assert not (tmp_path / "none.png").exists()
