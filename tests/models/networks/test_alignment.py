import pytest
import torch

from models.networks.alignment import Alignment, AlignmentConfig, align_slices, describe_slices, relative_alignment
from models.networks.body import BodyBox

CONFIG = AlignmentConfig()


def profile(z_mm):
    """Smooth random descriptions of the slices at some heights of the same body."""
    generator = torch.Generator().manual_seed(0)
    frequency = torch.randn(64, generator=generator) / 15
    phase = 6 * torch.rand(64, generator=generator)
    return torch.sin(z_mm[:, None] * frequency + phase)


@pytest.mark.parametrize("shift_mm", [-46.2, 0.0, 38.5, 80.85])
@pytest.mark.parametrize("scale", [0.9, 1.0, 1.1])
@pytest.mark.parametrize("query_mm", [7.7, 5.0])
def test_known_shifts_and_scales_are_recovered_to_half_a_slice(shift_mm, scale, query_mm):
    support_mm, n_query = 7.7, round(230 / query_mm)
    heights = torch.arange(n_query) * query_mm
    query, support = profile(shift_mm + scale * heights), profile(torch.arange(34) * support_mm)
    found = align_slices(query, support, query_mm, support_mm, CONFIG)
    error = found.shift_mm + found.scale * heights - (shift_mm + scale * heights)
    assert error.abs().max() <= support_mm / 2 + 1e-3


@pytest.mark.parametrize("in_common", [5, 8])
def test_scans_that_share_a_small_part_are_aligned(in_common):
    """As a chest and an abdomen do, of 160 mm each."""
    heights = torch.arange(20) * 8.0
    offset_mm = 8.0 * (20 - in_common)
    found = align_slices(profile(heights), profile(heights + offset_mm), 8.0, 8.0, CONFIG)
    assert (found.shift_mm, found.scale) == (pytest.approx(-offset_mm, abs=4), 1.0)


def test_too_small_overlaps_are_no_candidates():
    query, support = profile(torch.arange(20) * 8.0), profile(torch.arange(20) * 8.0 + 144)  # two slices in common
    found = align_slices(query, support, 8.0, 8.0, CONFIG)
    place = found.shift_mm / 8 + found.scale * torch.arange(20)
    assert ((place > -0.5) & (place < 19.5)).sum() >= 3


def test_a_single_slice_is_put_where_it_looks_alike():
    support = profile(torch.arange(30) * 8.0)
    found = align_slices(support[11:12], support, 8.0, 8.0, CONFIG)
    assert found.shift_mm == pytest.approx(88, abs=4)
    assert align_slices(support, support[:1], 8.0, 8.0, CONFIG).shift_mm == 0


def test_equal_relative_heights_by_hand():
    assert relative_alignment(10, 8.0, 10, 8.0) == Alignment(0.0, 1.0)
    assert relative_alignment(20, 4.0, 10, 8.0) == Alignment(-2.0, 1.0)  # edges at -2 and -4 mm coincide


def test_slices_are_described_within_the_body():
    features = torch.zeros(2, 3, 8, 8)
    features[..., 4:] = 5  # right of the body
    inside = describe_slices(features, BodyBox((0.0, 63.0), (0.0, 16.0)), 8, CONFIG)
    assert inside.shape == (2, 3 * 8 * 8)
    assert inside.abs().max() == 0
    whole = describe_slices(features, BodyBox((0.0, 63.0), (0.0, 63.0)), 8, CONFIG)
    torch.testing.assert_close(whole.max(), torch.tensor(5.0))
