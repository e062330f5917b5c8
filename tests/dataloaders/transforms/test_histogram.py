"""Histogram matching by tables of quantiles, against scikit-image's."""

import numpy as np
import torch
from skimage.exposure import match_histograms

from dataloaders.transforms.histogram import match, quantile_table


def pair(seed=0):
    rng = np.random.default_rng(seed)
    return rng.gamma(2.0, 30.0, (40, 50)).astype(np.float32), rng.normal(5.0, 2.0, (30, 30)).astype(np.float32)


def matched(image, reference):
    tables = [torch.from_numpy(quantile_table(each))[None] for each in (image, reference)]
    return match(torch.from_numpy(image)[None], *tables)[0].numpy()


def test_it_agrees_with_scikit_image_to_a_quantile():
    image, reference = pair()
    found, wanted = matched(image, reference), match_histograms(image, reference)
    middle = (wanted > np.quantile(reference, 0.02)) & (wanted < np.quantile(reference, 0.98))
    assert np.abs(found - wanted)[middle].max() < 0.1  # of a spread of 2


def test_an_image_matched_to_itself_stays():
    image, _ = pair()
    np.testing.assert_allclose(matched(image, image), image, atol=1e-3)


def test_order_and_range_are_kept():
    image, reference = pair(1)
    found = matched(image, reference)
    order = np.argsort(image.ravel())
    assert (np.diff(found.ravel()[order]) >= -1e-5).all()
    assert (found.min(), found.max()) == (reference.min(), reference.max())


def test_a_run_of_equal_values_takes_the_quantile_at_its_end():
    image = np.concatenate([np.zeros(512), np.linspace(0.1, 1, 512)]).astype(np.float32).reshape(32, 32)
    reference = np.linspace(0, 1, 1024).astype(np.float32).reshape(32, 32)
    found = matched(image, reference)
    np.testing.assert_allclose(found[image == 0], 0.5, atol=0.01)


def test_constant_images_do_not_divide_by_zero():
    found = matched(np.full((8, 8), 3, np.float32), pair()[1])
    assert np.isfinite(found).all()
