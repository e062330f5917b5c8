import csv
import dataclasses
import logging
from typing import Any

import numpy as np
import pytest
import torch

from dataloaders.images.config import DenseConfig
from dataloaders.images.data import open_dense
from dataloaders.images.folder import NoiseConfig
from models import build_method
from models.evaluation.suspects import (
    Disagreement,
    detection_quality,
    measure_disagreement,
    order_suspects,
    rank_suspects,
)
from util.errors import ConfigError

NOISE = NoiseConfig(0.5, 0.7)
CPU = torch.device("cpu")


def square(side, top=4, size=32):
    mask = np.zeros((1, 1, size, size), bool)
    mask[..., top : top + side, 4 : 4 + side] = True
    return mask


def test_disagreement_by_hand():
    """A square of 6 x 6 pixels has an outline of 20; moved down by two rows, 24 pixels differ."""
    found = measure_disagreement(square(6, top=6), square(6))
    assert found.score.item() == pytest.approx(24 / 20)
    assert found.dice.item() == pytest.approx(2 * 24 / 72)
    assert found.doubted_share.item() == pytest.approx(24 / 32**2)
    equal = measure_disagreement(square(6), square(6))
    assert (equal.score.item(), equal.dice.item(), equal.doubted_share.item()) == (0, 1, 0)


def test_empty_masks():
    empty = np.zeros_like(square(6))
    assert measure_disagreement(square(6), empty).score.item() == pytest.approx(36 / 20)
    assert measure_disagreement(empty, empty).score.item() == 0
    assert measure_disagreement(empty, empty).dice.item() == 1


def test_small_structures_are_not_first_only_because_they_are_small():
    """The same shift of the outline scores nearly the same, though the Dice of the small structure is far lower."""
    small, large = (measure_disagreement(square(side, top=5), square(side)) for side in (5, 20))
    assert small.dice.item() < large.dice.item() - 0.1
    assert small.score.item() == pytest.approx(large.score.item(), rel=0.2)


def test_order_by_score_then_by_image():
    score = np.array([[1.0, 3.0], [2.0, 3.0]])
    ordered = order_suspects(["a", "b"], ["lung", "heart"], Disagreement(score, score / 10, score / 100))
    assert [(each.rank, each.id, each.structure) for each in ordered] == [
        (1, "a", "heart"), (2, "b", "heart"), (3, "b", "lung"), (4, "a", "lung"),
    ]  # fmt: skip
    assert (ordered[2].score, ordered[2].dice_to_given, ordered[2].doubted_share) == (2.0, 0.2, 0.02)


def test_detection_quality_by_hand():
    score, is_wrong = np.array([5.0, 4.0, 3.0, 2.0, 1.0]), np.array([True, False, True, False, False])
    assert detection_quality(score, is_wrong) == (pytest.approx(5 / 6), 0.5)
    assert detection_quality(np.zeros(5), is_wrong)[0] == pytest.approx(0.5)
    assert np.isnan(detection_quality(score, np.zeros(5, bool))).all()


@pytest.fixture(scope="module")
def data(make_image_folder, tmp_path_factory):
    """24 training images, half of them with a noisy mask."""
    folder = make_image_folder(tmp_path_factory.mktemp("isic"), n_train=24, noise=NOISE, superpixel=None)
    return open_dense(DenseConfig(size_px=32, noise=NOISE), str(folder))


@pytest.fixture(scope="module")
def trained(data):
    torch.manual_seed(0)
    settings = {"method": "baseline", "unet": {"halvings": [2, 2], "base_features": 8, "max_features": 16}}
    method: Any = build_method(settings)
    optimiser = torch.optim.Adam(method.train().parameters(), 0.01)
    for step in range(30):
        optimiser.zero_grad()
        method(data.labels.batch(np.arange(step, step + 8) % 24))["loss"].backward()
        optimiser.step()
    return method


def test_noisy_masks_are_found_far_better_than_by_chance(data, trained, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    path = rank_suspects(trained, data, CPU, tmp_path / "suspects")
    assert trained.training
    with path.open() as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == ["rank", "id", "structure", "score", "dice_to_given", "doubted_share"]
    assert [int(row["rank"]) for row in rows] == list(range(1, 25))
    assert sorted(row["id"] for row in rows) == sorted(data.folder.ids("train"))
    types = dict(zip(data.folder.ids("train"), data.labels.noise_types, strict=True))
    is_wrong = np.array([types[row["id"]] != "clean" for row in rows])
    auroc, precision = detection_quality(np.array([float(row["score"]) for row in rows]), is_wrong)
    assert is_wrong.sum() == 12
    assert auroc > 0.85
    assert precision > 0.75
    assert f"12 of 24 masks differ from the clean ones; AUROC {auroc:.3f}" in caplog.text
    assert path.with_name("suspects.png").read_bytes().startswith(b"\x89PNG")


def test_clean_masks_are_not_needed(data, trained, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    known = rank_suspects(trained, data, CPU, tmp_path / "known").read_text()
    blind = open_dense(data.config, str(data.folder.folder))
    vars(blind)["labels"] = dataclasses.replace(data.labels, clean=None)  # the cached property
    caplog.clear()
    assert rank_suspects(trained, blind, CPU, tmp_path / "blind").read_text() == known
    assert "AUROC" not in caplog.text


def test_every_structure_has_a_rank(chest_folder, tmp_path):
    config = DenseConfig("JSRT", ("lung", "clavicle"), size_px=32, noise=NoiseConfig(0.7, 0.7))
    data = open_dense(config, str(chest_folder))
    unet = {"in_channels": 1, "n_classes": 3, "halvings": [2, 2], "base_features": 4, "max_features": 8}
    path = rank_suspects(build_method({"method": "baseline", "unet": unet}), data, CPU, tmp_path)
    rows = [line.split(",") for line in path.read_text().splitlines()[1:]]
    assert sorted({(row[1], row[2]) for row in rows}) == sorted(
        (each, name) for each in data.folder.ids("train") for name in config.structures
    )


def test_methods_without_class_probabilities_are_refused(data, tmp_path):
    with pytest.raises(ConfigError, match="no class probabilities"):
        rank_suspects(build_method({"method": "threshold"}), data, CPU, tmp_path)
