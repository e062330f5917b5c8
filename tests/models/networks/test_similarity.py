"""Whether two scans show the same places at the same places."""

import dataclasses

import pytest
import torch

from models.networks.label_propagation import Cells
from models.networks.similarity import Likeness, own_similarity, similarity

SIZE = 12


def cells(n_slices=9, seed=0, noise=0.0):
    """A scan in which every place of the plane has a look of its own, about the same on all slices."""
    generator = torch.Generator().manual_seed(seed)
    look = torch.randn(SIZE, SIZE, 48, generator=torch.Generator().manual_seed(1))
    feature = look + noise * torch.randn(n_slices, SIZE, SIZE, 48, generator=generator)
    place = (torch.arange(SIZE) + 0.5) / SIZE
    return Cells(feature / feature.norm(dim=-1, keepdim=True), place, place, torch.arange(n_slices) * 10.0)


def moved(scan, rows):
    return dataclasses.replace(scan, feature=scan.feature.roll(rows, 1))


def test_the_same_places_are_found_and_others_are_not():
    support = cells(noise=0.5)
    assert similarity(cells(seed=2, noise=0.5), support) == 1
    assert similarity(moved(cells(seed=2, noise=0.5), 1), support) > 0.8  # by a twelfth of the body; but for the edge
    assert similarity(moved(cells(seed=2, noise=0.5), 6), support) == 0


def test_slices_are_compared_with_those_at_their_height_alone():
    support = cells(noise=0.2)
    support.feature[5:] = support.feature[5:].roll(4, 1)  # looks of other places
    upper, lower = (dataclasses.replace(cells(3, seed=2, noise=0.2), z_mm=z + torch.arange(3) * 10.0) for z in (0, 70))
    assert similarity(upper, support) == 1
    assert similarity(lower, support) < 0.5
    assert similarity(dataclasses.replace(upper, z_mm=upper.z_mm - 10.0), support) == 1  # those beyond do not count
    assert similarity(dataclasses.replace(upper, z_mm=upper.z_mm + 500.0), support) == 0


def test_thick_slices_are_compared_with_the_next_one():
    support = cells(noise=0.2)
    thick = dataclasses.replace(support, z_mm=support.z_mm * 6)
    assert similarity(dataclasses.replace(cells(3, seed=2, noise=0.2), z_mm=torch.arange(3) * 60.0 + 30), thick) == 1


def test_without_any_likeness_chance_is_left():
    noise = torch.randn(9, SIZE, SIZE, 48)
    other = dataclasses.replace(cells(), feature=noise / noise.norm(dim=-1, keepdim=True))
    assert similarity(other, cells()) < 0.2


def test_places_are_relative_to_the_body():
    """A query whose body fills the middle half of twice as fine a grid."""
    support = cells()
    fine = support.feature.repeat_interleave(2, 1).repeat_interleave(2, 2)
    place = (torch.arange(2 * SIZE) + 0.5) / (2 * SIZE)
    assert similarity(Cells(fine, place, place, support.z_mm), support) == 1
    assert similarity(Cells(fine, 2 * place - 0.5, place, support.z_mm), support) < 0.6


def test_a_scan_is_compared_with_itself_without_the_neighbourhood_of_a_slice():
    assert own_similarity(cells(noise=0.2)) == 1
    changing = cells(noise=0.2)
    for z in range(9):
        changing.feature[z] = changing.feature[z].roll(4 * (z // 3), 0)  # places look alike within 20 mm only
    found = own_similarity(changing)
    assert found is not None
    assert found < 0.2


def test_too_few_slices_cannot_be_compared_with_themselves():
    assert own_similarity(cells(1)) is None
    assert own_similarity(cells(2)) == 1


@pytest.mark.parametrize(("case", "is_low"), [(0.21, True), (0.45, False)])
def test_far_below_the_supports_own_is_low(case, is_low):
    assert Likeness(case, 0.63).is_low == is_low
