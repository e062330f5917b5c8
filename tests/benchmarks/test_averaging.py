"""What averaging gains: the table, by methods whose masks are known."""

import numpy as np
import pytest
import torch

from benchmarks.averaging import mean_dice, table
from dataloaders.samples import ImageCase
from models.methods.base import Untrained


class Constant(Untrained):
    """Finds the left half with some probability, wherever images are flipped to."""

    family = "dense"

    def __init__(self, probability):
        super().__init__()
        self.probability = probability

    def probabilities(self, case, support=None):
        found = torch.zeros(1, *case.image.shape[:1], *case.image.shape[2:])
        found[..., : found.shape[-1] // 2] = self.probability
        return found


def cases():
    """Two images, whose left half is the structure in one, and all of it in the other."""
    truth = np.zeros((1, 2, 4, 8), bool)
    truth[:, 0, :, :4] = truth[:, 1] = True
    return [(ImageCase(("a", "b"), (1,), torch.zeros(2, 1, 4, 8)), truth)]


def test_dice_is_the_mean_over_images_and_flips_are_averaged():
    assert mean_dice([Constant(0.9)], False, cases()) == pytest.approx(np.mean([1, 2 / 3]))
    # Flipped left to right and averaged, each side has 0.45 and nothing is found.
    assert mean_dice([Constant(0.9)], True, cases()) == 0
    assert mean_dice([Constant(0.9), Constant(0.2)], False, cases()) == pytest.approx(np.mean([1, 2 / 3]))
    assert mean_dice([Constant(0.6), Constant(0.2)], False, cases()) == 0


def test_the_table_has_every_network_their_mean_and_their_average():
    rows = [line.split("|")[1:-1] for line in table([Constant(0.9), Constant(0.2)], cases()).splitlines()[2:]]
    found = {row[0].strip(): [float(cell) for cell in row[1:]] for row in rows}
    assert list(found) == ["network 1", "network 2", "average of all networks", "mean of the single networks"]
    assert found["network 1"] == [83.3, 0.0]
    assert found["network 2"] == [0.0, 0.0]
    assert found["mean of the single networks"] == [41.7, 0.0]
    assert found["average of all networks"] == [83.3, 0.0]
