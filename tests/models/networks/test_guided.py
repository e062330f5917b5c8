import numpy as np
import pytest
import torch

from models.networks.guided import guided_filter


def directly(guide, maps, radius, epsilon):
    """Window by window, as the paper writes it."""
    height, width = guide.shape
    slope, offset = np.zeros((2, height, width))

    def window(y, x):
        return (
            slice(max(0, y - radius[0]), y + radius[0] + 1),
            slice(max(0, x - radius[1]), x + radius[1] + 1),
        )

    for y in range(height):
        for x in range(width):
            i, p = guide[window(y, x)], maps[window(y, x)]
            slope[y, x] = ((i * p).mean() - i.mean() * p.mean()) / (i.var() + epsilon)
            offset[y, x] = p.mean() - slope[y, x] * i.mean()
    # Means of windows, separable and without what is beyond the edge.
    result = np.zeros_like(guide)
    for y in range(height):
        for x in range(width):
            result[y, x] = slope[window(y, x)].mean() * guide[y, x] + offset[window(y, x)].mean()
    return result


@pytest.mark.parametrize("radius", [(2, 2), (1, 3)])
def test_the_filter_equals_the_direct_formula(radius):
    generator = np.random.default_rng(0)
    guide, maps = generator.normal(size=(12, 10)), generator.random((2, 12, 10))
    found = guided_filter(torch.from_numpy(guide)[None, None], torch.from_numpy(maps)[None], radius, 0.02)
    for result, one in zip(found[0].numpy(), maps, strict=True):
        np.testing.assert_allclose(result, directly(guide, one, radius, 0.02), atol=1e-10)


def test_maps_that_sum_to_one_still_do_and_outlines_move_to_the_edge():
    guide = torch.zeros(1, 1, 32, 32)
    guide[..., 17:] = 3
    maps = torch.zeros(1, 1, 4, 4)
    maps[..., 2:] = 1  # the edge is between columns 15 and 16
    both = guided_filter(guide, torch.cat([maps, 1 - maps], 1), (4, 4), 0.02)
    torch.testing.assert_close(both.sum(1), torch.ones(1, 32, 32))
    assert torch.equal(both[0, 0] > 0.5, guide[0, 0] > 1)


def test_a_coarser_grid_gives_nearly_the_same():
    generator = torch.Generator().manual_seed(0)
    guide = torch.nn.functional.interpolate(torch.randn(2, 1, 8, 8, generator=generator), (64, 64), mode="bilinear")
    maps = torch.rand(2, 3, 8, 8, generator=generator)
    fine, fast = guided_filter(guide, maps, (8, 8), 0.1), guided_filter(guide, maps, (4, 4), 0.1, stride=2)
    assert (fine - fast).abs().mean() < 0.02
