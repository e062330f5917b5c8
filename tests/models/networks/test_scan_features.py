"""Features of scans at several sizes."""

import pytest
import torch
import torch.nn.functional as F

from models.networks.scan_features import scan_features

DEPTH, HEIGHT, WIDTH = 5, 40, 52


def image():
    return torch.rand(DEPTH, 1, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0))


class Patches:
    """An encoder whose features are the mean, the deviation and the middle of each patch of 8 x 8 pixels."""

    def __init__(self):
        self.seen = []

    def __call__(self, slices):
        self.seen.append(slices.shape)
        slices = F.pad(slices, [0, -slices.shape[3] % 8, 0, -slices.shape[2] % 8], mode="replicate")
        patches = slices.unfold(2, 8, 8).unfold(3, 8, 8).flatten(4)[:, 0]
        return torch.stack([patches.mean(-1), patches.std(-1), patches[..., 36]], 1)


def test_features_have_unit_length_and_the_grid_of_the_image():
    found = scan_features(Patches(), image(), (1.0, 1.5, 2.0))
    assert found.shape == (DEPTH, 5, 7, 9)
    torch.testing.assert_close(found.norm(dim=-1), torch.ones(DEPTH, 5, 7))


def test_the_size_of_the_image_gives_the_centred_features_of_the_encoder():
    plain = Patches()(image())
    plain = F.normalize(plain - plain.mean((0, 2, 3), keepdim=True), dim=1)
    torch.testing.assert_close(scan_features(Patches(), image()), plain.permute(0, 2, 3, 1))


def test_the_cosine_of_two_places_is_the_mean_over_sizes():
    first, second, both = (scan_features(Patches(), image(), sizes) for sizes in ((1.0,), (2.0,), (1.0, 2.0)))

    def cosines(features):
        return features.flatten(0, 2) @ features.flatten(0, 2).T

    torch.testing.assert_close(cosines(both), (cosines(first) + cosines(second)) / 2)
    assert (cosines(first) - cosines(second)).abs().max() > 0.1


@pytest.mark.parametrize(("factor", "at_once"), [(1.0, 4), (2.0, 1), (0.5, 4)])
def test_fewer_slices_are_encoded_together_where_they_are_larger(factor, at_once):
    encoder = Patches()
    whole = scan_features(Patches(), image(), (factor,), DEPTH * 4)
    torch.testing.assert_close(scan_features(encoder, image(), (factor,), 4), whole)
    assert encoder.seen[0] == (at_once, 1, HEIGHT * factor, WIDTH * factor)
