import re
from pathlib import Path

import pytest

from dataloaders.catalog import dataset
from models.losses import LOSS_TITLES
from models.presets.published import NOISE_COLUMNS, T_LOSS_TABLES, TEST_IMAGES, published_dice

# T-Loss (MICCAI 2023), tables 1 and 2: Dice, and the standard deviation of its last digits.
CLEAN, LITTLE, MUCH = (0.0, 0.0), (0.3, 0.5), (0.7, 0.7)


@pytest.mark.parametrize(
    ("dataset", "method", "noise", "expected"),
    [
        ("ISIC2017", "T-Loss", MUCH, "76.1 (0.6)"),
        ("ISIC2017", "T-Loss", (0.7, 0.5), "78.8 (0.7)"),
        ("ISIC2017", "T-Loss", CLEAN, "82.5 (0.5)"),
        ("ISIC2017", "GCE", MUCH, "69.1 (2.2)"),
        ("ISIC2017", "RCE", (0.5, 0.7), "74.5 (1.7)"),
        ("ISIC2017", "NGCE+RCE", LITTLE, "80.7 (0.7)"),
        ("ISIC2017", "NGCE+MAE", CLEAN, "82.8 (0.5)"),
        ("SHENZHEN", "T-Loss", MUCH, "87.0 (3.1)"),
        ("SHENZHEN", "T-Loss", LITTLE, "94.8 (0.1)"),
        ("SHENZHEN", "NGCE+MAE", (0.7, 0.5), "86.5 (1.6)"),
        ("SHENZHEN", "MAE", (0.5, 0.5), "91.0 (1.1)"),
    ],
)
def test_figures_are_those_of_the_paper(dataset, method, noise, expected):
    assert published_dice(dataset, method)[noise] == expected


def test_every_line_has_a_plausible_figure_for_every_column():
    for name, lines in T_LOSS_TABLES.items():
        assert set(lines) <= set(LOSS_TITLES.values())
        for method in lines:
            figures = published_dice(name, method)
            assert tuple(figures) == NOISE_COLUMNS
            means = [float(text.partition(" ")[0]) for text in figures.values()]
            assert all(65 < mean < 95 for mean in means)
            assert means[0] == max(means)
            for alpha in (0.3, 0.5, 0.7):  # stronger noise is worse
                assert means[NOISE_COLUMNS.index((alpha, 0.5))] > means[NOISE_COLUMNS.index((alpha, 0.7))]


def test_their_test_images_are_those_of_the_data_sets():
    assert {name: dataset(name).published["test"] for name in T_LOSS_TABLES} == TEST_IMAGES


@pytest.mark.parametrize(("dataset", "method"), [("JSRT", "T-Loss"), ("ISIC2017", "Superpixel-guided")])
def test_nothing_is_claimed_that_could_not_be_verified(dataset, method):
    assert published_dice(dataset, method) == {}


@pytest.mark.parametrize("name", T_LOSS_TABLES)
def test_the_page_of_noisy_masks_has_all_figures(name):
    """The tables of the page come in the order of T_LOSS_TABLES."""
    text = (Path(__file__).parents[3] / "docs/noisy_labels.md").read_text(encoding="utf-8")
    section = text.partition("\n## Published figures\n")[2].partition("\n## ")[0]
    table = re.findall(r"(?:^\|.*\n)+", section, re.MULTILINE)[list(T_LOSS_TABLES).index(name)]
    heading, _, *lines = [[cell.strip() for cell in line.strip("|\n").split("|")] for line in table.splitlines()]
    assert heading == ["loss", "clean", *(f"{alpha:g}, {beta:g}" for alpha, beta in NOISE_COLUMNS[1:])]
    assert {method: figures for method, *figures in lines} == {
        method: list(published_dice(name, method).values()) for method in T_LOSS_TABLES[name]
    }
