import numpy as np
import pytest
import torch

from dataloaders.transforms import spatial


def zero_displacement(size):
    """A displacement field of zeros."""
    return torch.zeros(1, 2, *size)


@pytest.fixture(scope="module")
def golden(golden_file):
    return golden_file("fewshot/augmentation.npz")


@pytest.mark.parametrize("case", [0, 1])
def test_matrices_and_affine_warp_equal_the_reference(golden, case):
    rotation, tx, ty, shear, zoom = golden[f"affine{case}/params_rot_tx_ty_shear_zoom"]
    one = lambda value: torch.tensor([value])  # noqa: E731
    matrix = spatial.affine_matrices(one(rotation), torch.tensor([[tx, ty]]), one(shear), one(zoom), (128, 128))
    np.testing.assert_allclose(matrix[0], golden[f"affine{case}/matrix"], atol=5e-6)
    image = torch.from_numpy(golden["input"]).permute(2, 0, 1)[None]
    warped = spatial.warp(image, spatial.sampling_positions(matrix, zero_displacement((128, 128))))[0].permute(1, 2, 0)
    np.testing.assert_allclose(warped, golden[f"affine{case}/output"], rtol=0, atol=1e-4)


def test_elastic_field_and_warp_equal_the_reference(golden):
    state = np.random.RandomState(int(golden["elastic/seed"]))
    noise = np.stack([state.rand(128, 128) * 2 - 1 for _ in range(2)])
    field = spatial.smooth_displacement(torch.from_numpy(noise)[None].float(), 10.0, 5.0)
    np.testing.assert_allclose(field[0, 0], golden["elastic/dx"], atol=1e-5)
    np.testing.assert_allclose(field[0, 1], golden["elastic/dy"], atol=1e-5)
    image = torch.from_numpy(golden["input"]).permute(2, 0, 1)[None]
    warped = spatial.warp(image, spatial.sampling_positions(torch.eye(3)[None], field))[0].permute(1, 2, 0)
    np.testing.assert_allclose(warped, golden["elastic/output"], atol=2e-5)


def test_identity_returns_the_image():
    image = torch.rand(1, 2, 24, 40)
    positions = spatial.sampling_positions(torch.eye(3)[None], zero_displacement((24, 40)))
    torch.testing.assert_close(spatial.warp(image, positions), image, atol=1e-5, rtol=0)


def test_a_shift_moves_the_content_by_that_many_pixels():
    image = torch.zeros(1, 1, 16, 16)
    image[0, 0, 5, 6] = 1
    matrix = spatial.affine_matrices(
        torch.zeros(1), torch.tensor([[3.0, -2.0]]), torch.zeros(1), torch.ones(1), (16, 16)
    )
    moved = spatial.warp(image, spatial.sampling_positions(matrix, zero_displacement((16, 16))))
    assert moved[0, 0, 3, 9] == pytest.approx(1, abs=1e-5)
    assert moved.sum() == pytest.approx(1, abs=1e-4)


def test_positions_outside_the_image_are_mirrored_at_the_pixel_edge():
    displacement = torch.zeros(1, 2, 4, 4)
    displacement[0, 0, :, 0] = -1.5  # column 0 -> -1.5, mirrored to 0.5
    displacement[0, 1, 3, :] = 0.4  # row 3 -> 3.4: beyond the last centre, its mirror image is the pixel itself
    positions = spatial.sampling_positions(torch.eye(3)[None], displacement)
    torch.testing.assert_close(positions[0, :, 0, 0], torch.full((4,), 0.5))
    torch.testing.assert_close(positions[0, 3, :, 1], torch.full((4,), 3.0))


def test_hash_noise_is_uniform_white_and_depends_only_on_the_seed():
    seeds = torch.tensor([0, 1, 2**32 - 1, 77])
    noise = spatial.hash_noise(seeds, (128, 128))
    assert torch.equal(noise[1], spatial.hash_noise(seeds[1:2], (128, 128))[0])
    values = noise.flatten()
    assert abs(values.mean()) < 0.01
    assert values.var().item() == pytest.approx(1 / 3, rel=0.02)
    assert values.min() >= -1
    assert values.max() < 1
    neighbours = torch.corrcoef(torch.stack([noise[:, :, :, 1:].flatten(), noise[:, :, :, :-1].flatten()]))[0, 1]
    assert abs(neighbours) < 0.01
    between_seeds = torch.corrcoef(noise.flatten(1)) - torch.eye(4)
    assert between_seeds.abs().max() < 0.03


def test_displacement_has_the_standard_deviation_of_its_kernel():
    field = spatial.smooth_displacement(spatial.hash_noise(torch.arange(8), (128, 128)), 10.0, 5.0)
    kernel = np.exp(-0.5 * (np.arange(-10, 11) / 5.0) ** 2)
    expected = 10 / np.sqrt(3) * np.sum((kernel / kernel.sum()) ** 2)  # of U(-1, 1) noise, two one-dimensional passes
    assert field.std().item() == pytest.approx(expected, rel=0.05)


def test_zoom_keeps_the_centre_of_the_pixel_grid_and_enlarges():
    ramp = torch.arange(16.0)[:, None].expand(16, 12) + 0.0
    zoomed = spatial.zoom_in(ramp[None, None], torch.tensor([0.9]))[0, 0]
    expected = 7.5 + 0.9 * (torch.arange(16.0) - 7.5)
    torch.testing.assert_close(zoomed[2:-2, 5], expected[2:-2], atol=0.05, rtol=0)  # linear up to 1/20
    torch.testing.assert_close(zoomed, 15 - zoomed.flip(0), atol=1e-4, rtol=0)  # half a pixel off centre would give 0.1


def test_zoomed_labels_follow_the_image():
    rows, columns = torch.meshgrid(torch.arange(64), torch.arange(48), indexing="ij")
    disc = (((rows - 30) ** 2 + (columns - 20) ** 2) < 15**2)[None]
    scale = torch.tensor([0.85])
    image = spatial.zoom_in(disc[:, None].float(), scale)[0, 0]
    label = spatial.zoom_in_labels(disc.long(), scale)[0]
    assert ((image > 0.5) != (label == 1)).float().mean() < 0.002
    assert label.sum().item() == pytest.approx(disc.sum().item() / 0.85**2, rel=0.02)


def test_zoomed_labels_take_the_value_with_the_largest_weight():
    # a scale of 1/3 about the centre (0.5, 0.5) of 2 x 2 samples at 1/3 and 2/3: weights 4/9, 2/9, 2/9, 1/9
    third = torch.tensor([1 / 3])
    label = torch.tensor([[[7, 9], [2, 2]]])
    expected = [[7, 9], [2, 2]]  # above: 7 by 4/9 against 2 by 3/9; below: 2 by 6/9
    assert spatial.zoom_in_labels(label, third)[0].tolist() == expected
    label = torch.tensor([[[7, 2], [2, 9]]])  # at the upper left 7 and 2 have 4/9 each
    assert spatial.zoom_in_labels(label, third)[0].tolist() == [[7, 2], [2, 9]]


def test_zoomed_binary_labels_are_set_where_linear_interpolation_is_at_least_one_half():
    label = torch.rand(4, 20, 26) > 0.5
    scale = torch.tensor([0.85, 0.9, 0.95, 0.99])
    centre = torch.tensor([9.5, 12.5])
    for single, factor, zoomed in zip(label, scale, spatial.zoom_in_labels(label.long(), scale), strict=True):
        positions = torch.stack(torch.meshgrid(torch.arange(20.0), torch.arange(26.0), indexing="ij"), -1)
        positions = (centre + factor * (positions - centre))[None].flip(-1)
        interpolated = spatial.warp(single[None, None].float(), positions)[0, 0]
        decided = (interpolated - 0.5).abs() > 1e-4
        assert torch.equal((interpolated > 0.5)[decided], (zoomed == 1)[decided])


def test_cubic_sampling_at_pixel_centres_returns_the_pixels():
    image = torch.rand(2, 3, 9, 7)
    row, column = torch.tensor([[0.0, 4.0, 8.0]] * 2), torch.tensor([[6.0, 1.0]] * 2)
    sampled = spatial.sample_cubic(image, row, column)
    torch.testing.assert_close(sampled, image[:, :, [0, 4, 8]][..., [6, 1]], atol=1e-5, rtol=0)


def test_cubic_sampling_midway_between_pixels():
    impulse = torch.zeros(1, 1, 9, 3)
    impulse[0, 0, 4] = 1
    half_way = torch.tensor([[1.5, 2.5, 3.5, 4.5, 5.5, 6.5]])
    sampled = spatial.sample_cubic(impulse, half_way, torch.tensor([[1.0]]))[0, 0, :, 0]
    expected = torch.tensor([0, -3, 19, 19, -3, 0]) / 32  # Keys' kernel with a = -3/4
    torch.testing.assert_close(sampled, expected, atol=1e-5, rtol=0)


def test_closed_form_inverse_of_affine_matrices():
    values = torch.rand(5, 4, dtype=torch.float64)
    matrices = spatial.affine_matrices(
        values[:, 0] * 60 - 30, values[:, 1:3] * 20, values[:, 3] * 10, values[:, 0] + 0.5, (32, 48)
    ).double()
    product = spatial.inverse_affine(matrices) @ matrices
    torch.testing.assert_close(product, torch.eye(3, dtype=torch.float64).expand(5, 3, 3))
