import numpy as np
import pytest
import torch

from dataloaders.transforms.cutmix import CutMixConfig, box_masks, draw_masks, mix
from util.errors import ConfigError


def test_boxes_equal_the_reference(golden_file):
    golden = golden_file("semi_dg/cutmix_boxes.npz")
    area, aspect, position = (torch.from_numpy(golden[key]) for key in ("area_props", "u_aspect", "u_position"))
    masks = box_masks(area, aspect, position, tuple(golden["shape"].tolist()))
    assert masks.dtype == torch.float64
    np.testing.assert_array_equal(masks.numpy(), golden["mask"])


def test_drawn_masks_mix_about_a_third_of_the_pixels():
    torch.manual_seed(0)
    masks = draw_masks(torch.rand(200, 3, 4), (40, 60), CutMixConfig())
    assert set(masks.unique().tolist()) == {0.0, 1.0}
    assert 0.2 < masks.mean() < 0.4
    assert not draw_masks(torch.rand(2, 0, 4), (8, 8), CutMixConfig(n_boxes=0)).any()


def test_the_second_image_is_in_the_boxes():
    mask = box_masks(torch.ones(1, 1), torch.ones(1, 1) / 2, torch.zeros(1, 1, 2), (4, 6))
    first, second = torch.zeros(1, 2, 4, 6), torch.ones(1, 2, 4, 6)
    assert torch.equal(mix(first, second, mask), second)
    assert torch.equal(mix(first, second, 1 - mask), first)


@pytest.mark.parametrize("values", [{"n_boxes": -1}, {"area": (0.5, 0.2)}, {"area": (0.0, 0.2)}])
def test_impossible_boxes_are_refused(values):
    with pytest.raises(ConfigError, match="cutmix"):
        CutMixConfig(**values)
