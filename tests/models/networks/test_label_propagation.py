from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from models.networks import label_propagation
from models.networks.label_propagation import Cells, KernelConfig, propagate

CONFIG = KernelConfig()


def cells(seed, depth=9, height=7, width=6, channels=5, spacing_mm=7.7):
    generator = torch.Generator().manual_seed(seed)
    feature = F.normalize(torch.randn(depth, height, width, channels, generator=generator), dim=-1)
    row, column = (torch.arange(n) / n + 0.05 * seed for n in (height, width))
    return Cells(feature, row, column, torch.arange(depth) * spacing_mm)


def labels(depth=9, height=7, width=6):
    value = torch.randint(0, 3, (depth, height, width), generator=torch.Generator().manual_seed(5))
    return F.one_hot(value, 3).float()


def in_full(query, support, label, is_annotated, config):
    """The definition, with every pair of places at once."""

    def places(one, row, column, z_mm):
        z, y, x = torch.meshgrid(z_mm, row, column, indexing="ij")
        return (torch.stack([z, y, x], -1) + (0 if one.shift is None else one.shift)).double()

    row = query.row.clamp(support.row.min(), support.row.max())
    column = query.column.clamp(support.column.min(), support.column.max())
    known = support.z_mm[is_annotated]
    z_mm = query.z_mm.clamp(known.min() - config.window_z_mm, known.max() + config.window_z_mm)
    sigma = torch.tensor([config.sigma_z_mm, config.sigma_xy, config.sigma_xy]).double()
    there = places(support, support.row, support.column, support.z_mm).flatten(0, 2)
    here = places(query, row, column, z_mm).flatten(0, 2)
    apart = ((here[:, None] - there) / sigma).square().sum(-1)
    cosine = query.feature.flatten(0, 2).double() @ support.feature.flatten(0, 2).double().T
    weight = (config.temperature * (cosine - 1) - apart / 2).exp()
    is_near = ((here[:, None] - there)[..., 1].abs() <= config.band * config.sigma_xy) & _in_window(
        query.z_mm.repeat_interleave(query.feature[0, ..., 0].numel()), there, support, is_annotated, config
    )
    return ((weight * is_near) @ label.double().flatten(0, 2)).unflatten(0, query.feature.shape[:3])


def _in_window(z_mm, there, support, is_annotated, config):
    """Annotated places in the window along z; where there are none, those of the nearest annotated slice."""
    slices = torch.arange(len(support.z_mm)).repeat_interleave(support.feature[0, ..., 0].numel())
    is_known = is_annotated[slices]
    is_near = ((z_mm[:, None] - there[:, 0]).abs() <= config.window_z_mm + 1e-3) & is_known
    nearest = (z_mm[:, None] - support.z_mm).abs().masked_fill(~is_annotated, torch.inf).argmin(1)
    return is_near | (~is_near.any(1, keepdim=True) & (slices == nearest[:, None]))


@pytest.mark.parametrize("n_rows", [1, 3, 100])
@pytest.mark.parametrize("annotated", [range(9), (2, 3, 7), (8,)])
@pytest.mark.parametrize("farthest", [0.0, 0.2])
def test_the_banded_product_equals_the_full_one(monkeypatch, n_rows, annotated, farthest):
    monkeypatch.setattr(label_propagation, "ROWS_AT_ONCE", n_rows)
    query, support = cells(1, depth=11, height=8), cells(2)
    query = replace(query, z_mm=query.z_mm * 1.1 - 20)
    if farthest:
        shift = torch.rand(9, 7, 6, 3, generator=torch.Generator().manual_seed(4)) - 0.5
        support = replace(support, shift=2 * farthest * shift * torch.tensor([100.0, 1.0, 1.0]))
    is_annotated = torch.zeros(9, dtype=torch.bool)
    is_annotated[list(annotated)] = True
    config = replace(CONFIG, window_z_mm=15.0, band=2.1)
    found = propagate(query, support, labels(), is_annotated, config)
    full = in_full(query, support, labels(), is_annotated, config)
    is_reached = full.sum(-1) > 1e-30  # shifts may leave no place in the band, or none that float32 could tell
    assert is_reached.float().mean() > 0.9
    shares, expected = (each[is_reached] / each[is_reached].sum(-1, keepdim=True) for each in (found, full))
    torch.testing.assert_close(shares, expected.float(), rtol=0, atol=1e-5)
    torch.testing.assert_close(found, full.float(), rtol=1e-3, atol=1e-30)


def test_places_outside_the_body_neither_vote_nor_get_votes():
    generator = torch.Generator().manual_seed(3)
    query, support = cells(1), cells(2)
    asked, known = (torch.rand(9, 7, 6, generator=generator) > 0.4 for _ in range(2))
    everything = torch.ones(9, dtype=torch.bool)
    within = replace(query, inside=asked), replace(support, inside=known)
    found = propagate(*within, labels(), everything, CONFIG)
    expected = propagate(query, support, labels() * known[..., None], everything, CONFIG)
    torch.testing.assert_close(found, expected * asked[..., None], rtol=1e-3, atol=1e-12)


def test_no_more_pairs_at_once_however_long_the_scans_are(monkeypatch):
    pairs = []

    def record(queries, asked, near):
        pairs.append(int(asked.sum()) * len(near.index))
        return torch.zeros(*asked.shape, 3)

    monkeypatch.setattr(label_propagation, "_votes", record)
    most = []
    for depth in (20, 120):
        query, support = cells(1, depth=depth), cells(2, depth=depth)
        propagate(query, support, labels(depth), torch.ones(depth, dtype=torch.bool), CONFIG)
        most.append(max(pairs))
    assert most[0] == most[1] > 0


@pytest.mark.parametrize(
    ("device", "pairs_per_row", "expected"),
    [("cpu", 100, 4), ("cuda", 2**20, 64), ("cuda", 2**30, 4), ("cuda", 0, 2**26)],
)
def test_more_rows_at_once_on_a_gpu_as_long_as_memory_is_bounded(device, pairs_per_row, expected):
    assert label_propagation._rows_at_once(torch.device(device), pairs_per_row) == expected


def test_rows_between_those_of_a_coarse_support_are_compared_with_the_nearest():
    query, support = cells(1, height=20), cells(2, height=2)
    found = propagate(query, support, labels(height=2), torch.ones(9, dtype=torch.bool), CONFIG)
    assert (found.sum(-1) > 0).all()


def test_far_away_and_outside_there_is_still_an_answer():
    query, support = cells(1), cells(2)
    query = replace(query, z_mm=query.z_mm + 900, row=query.row + 3, column=query.column - 3)
    found = propagate(query, support, labels(), torch.ones(9, dtype=torch.bool), CONFIG)
    assert found.isfinite().all()
    assert (found.sum(-1) > 0).all()
