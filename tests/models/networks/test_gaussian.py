import pytest
import torch
from scipy.ndimage import gaussian_filter1d

from models.networks.gaussian import TRUNCATED_AT, blur_along


@pytest.mark.parametrize(("sigma", "dim"), [(0.5, 0), (1.0, 2), (3.0, 1)])
def test_the_filter_is_that_of_scipy(sigma, dim):
    values = torch.rand(5, 7, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = gaussian_filter1d(values.numpy(), sigma, dim, mode="constant", truncate=TRUNCATED_AT)
    torch.testing.assert_close(blur_along(values, sigma, dim), torch.from_numpy(expected))


def test_narrow_kernels_have_three_taps():
    assert (blur_along(torch.tensor([0.0, 1.0, 0.0, 0.0]), 0.05, 0) == torch.tensor([0.0, 1.0, 0.0, 0.0])).all()
