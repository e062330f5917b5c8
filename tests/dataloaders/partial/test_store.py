"""Codes of more classes than fit in one plane."""

import numpy as np
import torch

from dataloaders.partial.store import MARKED, PER_PLANE, UNKNOWN, ArrayStore

N_CLASSES = 2 * PER_PLANE + 3


def store():
    rng = np.random.default_rng(0)
    masks = {2 * k: rng.choice([0, MARKED, UNKNOWN], (3, 5, 5)).astype(np.uint8) for k in range(N_CLASSES)}
    return ArrayStore(rng.integers(0, 65_536, (3, 5, 5, 1)).astype(np.uint16), masks)


def test_every_code_survives_packing_and_single_precision():
    own = store()
    where = np.array([2, 0])
    image, planes = own.read(where)
    assert planes.shape == (2, 3, 5, 5)
    assert torch.equal(planes.float().to(planes.dtype), planes)
    marked, unknown = own.unpack(planes, 2 * N_CLASSES)
    for channel, mask in own.masks.items():
        assert np.array_equal(marked[:, channel].numpy(), mask[where] == MARKED)
        assert np.array_equal(unknown[:, channel].numpy(), mask[where] == UNKNOWN)
    assert not marked[:, 1::2].any()
    assert np.array_equal((image[:, 0] * 65_535).round().int().numpy(), own.image[where][..., 0])


def test_the_copy_on_a_device_gives_the_same():
    where = np.array([1, 2])
    for mine, placed in zip(store().read(where), store().on(torch.device("cpu")).read(where), strict=True):
        assert torch.equal(mine, placed)


def test_without_masks_nothing_is_marked():
    empty = ArrayStore(store().image, {})
    marked, unknown = empty.unpack(empty.read(np.array([0]))[1], 4)
    assert marked.shape == (1, 4, 5, 5)
    assert not marked.any()
    assert not unknown.any()
