from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from models.networks import deformation
from models.networks.deformation import DeformationConfig, fit_deformation
from models.networks.label_propagation import Cells

CONFIG = DeformationConfig()
SHAPE = (20, 18, 16)
SIZE = torch.tensor([8.0, 0.05, 0.04])  # of a place: mm, heights and widths of the body


def cells(feature, shift=None):
    z, row, column = (torch.arange(n) * size for n, size in zip(feature.shape[:3], SIZE, strict=True))
    return Cells(feature, row + 0.1, column + 0.2, z, shift=shift)


def smooth_noise(seed=0, channels=24):
    noise = torch.randn(1, channels, *SHAPE, generator=torch.Generator().manual_seed(seed))
    smooth = F.avg_pool3d(F.avg_pool3d(noise, 3, stride=1, padding=1), 3, stride=1, padding=1)
    return F.normalize(smooth[0].permute(1, 2, 3, 0), dim=-1)


def bent():
    """A field of up to 1.5 rows and columns and 1 slice, with other signs in different parts."""
    z, row, column = torch.meshgrid(*(torch.linspace(-1.5, 1.5, n) for n in SHAPE), indexing="ij")
    return torch.stack([column.sin(), 1.5 * z.sin(), 1.5 * row.sin()], -1) * SIZE


def inner(field):
    """Without the margin, where a place may lie outside the other scan."""
    return field[3:-3, 3:-3, 3:-3]


def as_seen_with(field, query):
    """A scan that shows at each place what the query shows at place + field."""
    places = replace(query, shift=field)
    return cells(F.normalize(query.sample(places.places()), dim=-1))


def test_a_bent_scan_is_found():
    query, truth = cells(smooth_noise()), bent()
    found = fit_deformation(query, as_seen_with(truth, query), CONFIG)
    error = (inner(found - truth) / SIZE).abs()
    assert error.mean() < 0.2
    assert inner(truth / SIZE).abs().mean() > 0.5


def test_a_shift_that_is_known_is_refined():
    """Half of the field is known: the other half is added. Twice the reach is out of reach, but not with a start."""
    query, truth = cells(smooth_noise()), 2 * bent()
    support = as_seen_with(truth, query)
    found = fit_deformation(query, replace(support, shift=truth / 2), CONFIG)
    assert (inner(found - truth) / SIZE).abs().mean() < 0.3


@pytest.mark.parametrize(("slices", "values"), [(3, 2**24), (16, 1)])
def test_slabs_of_slices_are_those_of_the_whole(monkeypatch, slices, values):
    query = cells(smooth_noise())
    support = replace(as_seen_with(bent(), query), shift=0.2 * bent())
    found = fit_deformation(query, support, CONFIG)
    monkeypatch.setattr(deformation, "SLICES_AT_ONCE", slices)
    monkeypatch.setattr(deformation, "VALUES_AT_ONCE", values)
    torch.testing.assert_close(fit_deformation(query, support, CONFIG), found)


def test_what_looks_alike_everywhere_stays():
    flat = torch.ones(*SHAPE, 2) / 2**0.5
    found = fit_deformation(cells(flat), cells(flat), CONFIG)
    inside = inner(inner(found))  # a neighbourhood and a reach away from the edges
    torch.testing.assert_close(inside, torch.zeros_like(inside), atol=1e-4, rtol=0)


def test_the_cost_holds_back():
    query, truth = cells(smooth_noise()), bent()
    support = as_seen_with(truth, query)
    sizes = [fit_deformation(query, support, replace(CONFIG, cost=cost)).abs().sum() for cost in (0.0, 0.5, 10.0)]
    assert sizes[0] > sizes[1] > 20 * sizes[2]


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_flips_of_both_flip_the_field(axis):
    query = cells(smooth_noise())
    support = as_seen_with(bent(), query)
    found = fit_deformation(query, support, CONFIG)
    other, own = (cells(each.feature.flip(axis)) for each in (query, support))
    expected = found.flip(axis) * torch.where(torch.arange(3) == axis, -1, 1)
    torch.testing.assert_close(fit_deformation(other, own, CONFIG), expected, atol=1e-4, rtol=1e-4)


def test_one_slice_moves_in_the_plane_alone():
    query = cells(smooth_noise()[:1])
    found = fit_deformation(query, cells(smooth_noise(1)[:1]), CONFIG)
    assert (found[..., 0] == 0).all()
    assert (found[..., 1:] != 0).any()
