import numpy as np
import pytest
import torch

from models.losses.superpixels import superpixel_mean


@pytest.fixture(scope="module")
def golden(golden_file):
    return golden_file("noisy/sp_guided.npz")


@pytest.mark.parametrize("network", [1, 2])
def test_the_mean_equals_the_reference(golden, network):
    probability = torch.from_numpy(golden[f"logits{network}"]).softmax(1)[:, 1]
    mean = superpixel_mean(probability, torch.from_numpy(golden["superpixel"]))
    np.testing.assert_allclose(mean, golden[f"sp_mean_p{network}"], atol=2e-6)


def test_worked_by_hand_with_equal_ids_in_two_images_and_a_gap():
    superpixel = torch.tensor([[[0, 0, 3]], [[3, 0, 3]]])
    value = torch.tensor([[[1.0, 3.0, 7.0]], [[2.0, 8.0, 4.0]]])
    expected = torch.tensor([[[2.0, 2.0, 7.0]], [[3.0, 8.0, 3.0]]])
    torch.testing.assert_close(superpixel_mean(value, superpixel, 4), expected, rtol=2e-6, atol=0.0)


def test_every_map_of_an_image_is_averaged_on_its_own():
    generator = torch.Generator().manual_seed(0)
    value = torch.rand(2, 3, 8, 6, generator=generator)
    superpixel = torch.randint(0, 9, (2, 8, 6), generator=generator)
    together = superpixel_mean(value, superpixel)
    single = torch.stack([superpixel_mean(value[:, k], superpixel) for k in range(3)], 1)
    torch.testing.assert_close(together, single)
    torch.testing.assert_close(together.sum((2, 3)), value.sum((2, 3)), rtol=1e-4, atol=0.0)


def test_no_gradient_passes():
    value = torch.rand(1, 4, 4, requires_grad=True)
    assert not superpixel_mean(value, torch.zeros(1, 4, 4, dtype=torch.int64)).requires_grad
