"""Scans of several sets, of which each is annotated for other organs: their slices train with the same words."""

import numpy as np
import pytest
import torch

from dataloaders.description import SplitRule
from dataloaders.ordering import LoaderOptions
from dataloaders.partial.config import PartialDataConfig
from dataloaders.partial.data import LABELLED, PSEUDO
from dataloaders.partial.pseudo import PseudoLabelFolder
from tests.partial_sets import DEPTH, LINES, LIVER, SIDE, draw_scan, open_scan_sets, write_scan_sets, write_sets
from util.errors import ConfigError


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    return write_scan_sets(tmp_path_factory.mktemp("scans"))


def first_batch(data, batch_size=4, device=None):
    loader = data.loader(data.fit_normalisation(), 3, batch_size, range(1), LoaderOptions(device=device))
    return next(iter(loader))


def test_patients_are_divided_by_the_description(scans):
    data = open_scan_sets(scans)
    for each in data.trained:
        parts = {split: set(each.ids(split)) for split in ("train", "test", "validation")}
        assert [len(parts[split]) for split in ("train", "test", "validation")] == [4, 2, 0]
        assert not parts["train"] & parts["test"]
    divided = SplitRule(test=0.5, validation=0.25).divide({f"s{n}": f"p{n // 2}" for n in range(8)})
    assert all(divided[f"s{2 * n}"] == divided[f"s{2 * n + 1}"] for n in range(4))
    assert sorted(divided.values()) == ["test"] * 4 + ["train"] * 2 + ["validation"] * 2


def test_slices_come_with_the_masks_of_their_own_set(scans):
    data = open_scan_sets(scans, which_aug="none", crop_px=SIDE)
    batch = first_batch(data, batch_size=16)[LABELLED]
    assert data.names == ("liver", "left", "right")
    assert batch.image.shape == (32, 1, SIDE, SIDE)
    assert batch.is_known.int().tolist() == 16 * [[1, 0, 0]] + 16 * [[0, 1, 1]]
    seen = set()
    for place in range(32):
        own = [
            f"{first}{number}"
            for first, seed, names in (("L", 0, ("liver",)), ("K", 50, ("left", "right")))
            for number in range(6)
            for masks in [draw_scan(seed + number)[1]]
            if all(np.array_equal(batch.label[place, data.names.index(n)].numpy(), masks[n][0]) for n in names)
            and (place < 16) == (first == "L")
        ]
        seen |= set(own)
        assert own
    assert seen >= {*data.trained[0].ids("train"), *data.trained[1].ids("train")}
    assert torch.equal(first_batch(data, 16, torch.device("cpu"))[LABELLED].label, batch.label)


def test_a_tested_scan_is_one_case_of_all_its_slices(scans):
    data = open_scan_sets(scans)
    each = data.scored[1]
    (first, *_) = data.cases(each)
    found = first()
    number = int(found.id[1:])
    assert found.id == each.ids("test")[0]
    assert found.case.image.shape == (DEPTH, 1, SIDE, SIDE)
    masks = draw_scan(50 + number)[1]
    assert np.array_equal(found.truth, np.stack([masks["left"], masks["right"]]))
    assert found.inside is None


def test_the_checkpoint_learns_how_slices_are_made(scans):
    assert open_scan_sets(scans).preparation == {
        "slices": {"percentiles": [0.5, 99.5], "crop_px": SIDE, "reference": []}
    }


def test_slices_have_pseudo_labels_too(scans, tmp_path):
    labels = PseudoLabelFolder(tmp_path)
    data = open_scan_sets(scans)
    classes = {"LIVER": ("left", "right"), "KIDNEYS": ("liver",)}
    for each in data.trained:
        for name in each.training_images():
            assert each.training_image(name).shape == (1, 1, SIDE, SIDE)
            masks = np.ones((len(classes[each.name]), SIDE, SIDE), bool)
            labels.write(each.name, name, classes[each.name], masks, masks)
    images = {each.name: each.training_images() for each in data.trained}
    labels.finish("run", "recipe", data.config.task_list, images, classes, {})
    pseudo = first_batch(open_scan_sets(scans, frozenset({PSEUDO}), pseudo_labels=str(tmp_path)))[PSEUDO]
    assert pseudo.is_known.int().tolist() == 4 * [[0, 1, 1]] + 4 * [[1, 0, 0]]
    inside = pseudo.valid & pseudo.is_known[:, :, None, None]
    assert inside.any()
    assert pseudo.label[inside].all()


def test_scans_and_images_are_not_mixed(scans, tmp_path):
    write_sets(tmp_path)
    with pytest.raises(ConfigError, match=r"LIVER holds scans of 1 channel.s., LINES images of 3"):
        PartialDataConfig(datasets=(str(scans / LIVER.prepared_folder()), str(tmp_path / LINES.prepared_folder(SIDE))))
