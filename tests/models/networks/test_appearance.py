"""Maps that follow how structures look, on a disc beside others."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from models.networks.appearance import N_BINS, UNSURE, AppearanceConfig, _likelihood_ratio, follow_appearance

SPACING_MM = (5.0, 1.25, 1.25)
CONFIG = AppearanceConfig()
DEPTH, SIZE, CELLS = 4, 96, 12


def disc(row, column, radius):
    y, x = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    return (((y - row) ** 2 + (x - column) ** 2) <= radius**2).expand(DEPTH, SIZE, SIZE)


def scan(*bright):
    """A body with bright or dark discs: (mask, what is added)."""
    noise = torch.randn(DEPTH, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    return (0.2 * noise + sum(mask * value for mask, value in bright))[:, None]


def maps_of(*places):
    """(D, K, h, w) of probabilities, each (mask, within, elsewhere nearby)."""
    found = [torch.where(mask, inside, outside) for mask, inside, outside in places]
    return torch.nn.functional.interpolate(torch.stack(found, 1), (CELLS, CELLS), mode="area")


def means(found, *masks):
    large = torch.nn.functional.interpolate(found, (SIZE, SIZE))[:, 0]
    return [float(large[mask].mean()) for mask in masks]


def test_the_rest_of_a_structure_is_added_and_what_looks_different_is_taken_away():
    organ, leak, left = disc(48, 48, 20), disc(48, 20, 6), torch.arange(SIZE) < 56
    maps = maps_of(((organ & left) | leak, 0.9, 0.0)) + maps_of((organ & ~left, 0.3, 0.02))
    found = follow_appearance(scan((organ, 2.0)), maps, SPACING_MM, CONFIG)
    rest, wrong, right = disc(48, 48, 14) & ~left, disc(48, 20, 3), disc(48, 48, 14) & left
    before, after = means(maps, rest, wrong), means(found, rest, wrong, right)
    assert before[0] < 0.4
    assert before[1] > 0.6
    assert after[0] > 0.6
    assert after[1] < 0.4
    assert after[2] > 0.9


def test_texture_tells_structures_of_equal_brightness():
    organ = disc(48, 48, 20)
    rough = torch.randn(DEPTH, SIZE // 2, SIZE // 2, generator=torch.Generator().manual_seed(1))
    rough = rough.repeat_interleave(2, 1).repeat_interleave(2, 2)
    image = scan((organ, 1.0)) + (1.0 + rough)[:, None] * ~organ[:, None]
    maps = maps_of((disc(48, 40, 20), 0.8, 0.1))
    found = follow_appearance(image, maps, SPACING_MM, CONFIG)
    inside, outside = disc(48, 62, 3), disc(48, 24, 3)
    before, after = means(maps, inside, outside), means(found, inside, outside)
    assert after[0] > before[0] + 0.2
    assert after[1] < before[1] - 0.1


def test_nothing_changes_where_there_is_nothing_to_learn():
    maps = maps_of((disc(48, 48, 20), 0.9, 0.02), (disc(20, 20, 12), 0.25, 0.0))
    enlarged = torch.nn.functional.interpolate(maps, (48, 48), mode="bilinear")
    flat = follow_appearance(torch.zeros(DEPTH, 1, SIZE, SIZE), maps, SPACING_MM, CONFIG)
    torch.testing.assert_close(flat, enlarged)  # an image without content
    found = follow_appearance(scan((disc(48, 48, 20), 2.0)), maps, SPACING_MM, CONFIG)
    torch.testing.assert_close(found[:, 1], enlarged[:, 1])  # a structure that was hardly found anywhere
    torch.testing.assert_close(found[:, 0, :4, :4], enlarged[:, 0, :4, :4])  # far away
    empty = follow_appearance(scan(), torch.zeros(DEPTH, 1, CELLS, CELLS), SPACING_MM, CONFIG)
    assert not empty.any()


def test_structures_do_not_depend_on_each_other_and_slices_not_on_passes():
    image = scan((disc(48, 48, 20), 2.0), (disc(20, 20, 12), -1.0))
    maps = maps_of((disc(48, 42, 20), 0.8, 0.05), (disc(22, 20, 12), 0.7, 0.1))
    before = maps.clone()
    both = follow_appearance(image, maps, SPACING_MM, CONFIG)
    assert torch.equal(maps, before)
    for k in range(2):
        assert torch.equal(follow_appearance(image, maps[:, k : k + 1], SPACING_MM, CONFIG)[:, 0], both[:, k])
    assert torch.equal(follow_appearance(image, maps, SPACING_MM, CONFIG, slices_per_pass=1), both)


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_the_ratio_is_that_of_smoothed_histograms(scale):
    generator = torch.Generator().manual_seed(0)
    share = torch.rand(3000, generator=generator)
    looks = scale * (torch.randn(2, 3000, generator=generator) + 2 * share)
    weight = np.where(share.numpy() > 0.3, share.numpy(), 0)
    bins = []
    for values in looks.numpy():
        mean = np.average(values, weights=weight)
        sd = np.average((values - mean) ** 2, weights=weight) ** 0.5 + 0.05
        bins.append(np.clip(((values - mean) / sd + 6) / 12 * N_BINS, 0, N_BINS - 1).astype(int))
    counts = []
    for each in (share.numpy(), 1 - share.numpy()):
        table = np.zeros((N_BINS, N_BINS))
        np.add.at(table, tuple(bins), each)
        counts.append(gaussian_filter(table, 1.0, mode="constant", truncate=2.5))
    overall = sum(counts) / np.sum(counts)
    inside, around = ((table + UNSURE * overall) / (table.sum() + UNSURE) for table in counts)
    expected = torch.from_numpy(inside[tuple(bins)] / around[tuple(bins)]).float()
    torch.testing.assert_close(_likelihood_ratio(looks, share), expected, rtol=2e-3, atol=1e-4)
