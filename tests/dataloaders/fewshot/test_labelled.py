"""Slices with label maps, and the label maps that were made of unlabelled scans."""

from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from dataloaders.fewshot.config import FewShotConfig
from dataloaders.fewshot.data import open_fewshot
from dataloaders.fewshot.labelled import images_sha256, label_maps, labelled_slices
from dataloaders.fewshot.propagated import RECORD, PropagatedFolder
from dataloaders.ordering import LoaderOptions
from dataloaders.samples import ANNOTATED, PROPAGATED, Volume
from dataloaders.scans.normalise import Normalisation
from dataloaders.transforms.scan_views import UNKNOWN, ScanViewConfig, to_input
from util.errors import ConfigError, DataError
from util.runtime.distributed import Plan

PLAIN = ScanViewConfig(**{each.name: 0.0 for each in fields(ScanViewConfig)})


def marked(scan, shape):
    """A label map that shows which scan it belongs to, with an unknown row."""
    label = np.full(shape, 1 + int(scan) % 4, np.uint8)
    label[:, 0] = UNKNOWN
    return label


@pytest.fixture
def data(prepared_folder, tmp_path):
    """Few-shot data of fold 0 with a finished folder of label maps."""
    config = FewShotConfig(label_sets="all", pseudo_labels=str(tmp_path / "maps"), views=PLAIN)
    opened = open_fewshot(config, str(prepared_folder), needs=frozenset({PROPAGATED}))
    folder = PropagatedFolder(tmp_path / "maps")
    folder.begin("run A")
    for scan in opened.fold.train:
        stored = opened.folder.image(scan)
        folder.write(scan, Volume(marked(scan, stored.array.shape), stored.affine))
    folder.finish("run A", images_sha256(opened.folder, opened.fold), (1, 2, 3, 4), {})
    return opened


def test_annotated_slices_have_their_labels_and_the_others_those_that_were_made(data):
    parts = labelled_slices(data.folder, data.fold, data.config, Normalisation())
    given, made = parts[ANNOTATED], parts[PROPAGATED]
    assert set(given.stack.scan) == set(data.fold.support)
    assert set(made.stack.scan) == set(data.fold.train)
    truth = data.folder.label(data.fold.support[0]).array
    assert np.array_equal(given.labels(range(len(truth))).numpy(), truth)
    for place in (0, len(made.stack) - 1):
        scan = made.stack.scan[place]
        assert set(made.labels([place]).unique().tolist()) == {1 + int(scan) % 4, UNKNOWN}


def test_a_slice_is_shown_between_its_neighbours_of_the_same_scan(data):
    slices = labelled_slices(data.folder, data.fold, data.config, Normalisation())[PROPAGATED]
    scan = data.fold.train[1]
    own = np.flatnonzero(slices.stack.scan == scan).tolist()
    expected = to_input(torch.from_numpy(Normalisation().apply(data.folder.image(scan).array)))
    found = slices.images([own[0], own[3], own[-1]])
    for image, places in zip(found, ((0, 0, 1), (2, 3, 4), (-2, -1, -1)), strict=True):
        torch.testing.assert_close(image, expected[list(places)])


def test_classes_that_are_not_learned_count_as_background(data):
    config = replace(data.config, label_sets=0)
    learned = config.spec.held_out(0)
    slices = labelled_slices(data.folder, data.fold, config, Normalisation())[ANNOTATED]
    found = slices.labels(range(len(slices.stack)))
    truth = torch.from_numpy(data.folder.label(data.fold.support[0]).array)
    assert 0 < len(learned) < 4
    assert set(found.unique().tolist()) == {0, *learned}
    assert all(torch.equal(found == value, truth == value) for value in learned)


def loaded(data, batch_size, steps, plan=None):
    options = LoaderOptions(plan=plan or Plan())
    return list(data.loader(Normalisation(), 0, batch_size, steps, options))


def test_both_parts_have_an_equal_share_of_a_batch(data):
    (batch,) = loaded(data, 6, range(1))
    for name in (ANNOTATED, PROPAGATED):
        part = batch[name]
        assert part.image.shape == (3, 3, 64, 64)
        assert part.label.shape == (3, 64, 64)
        assert part.label.dtype == torch.int64
    (odd,) = loaded(data, 5, range(1))
    assert len(odd[ANNOTATED]) == len(odd[PROPAGATED]) == 3


def test_a_step_is_the_same_after_a_restart_and_for_several_processes(data):
    data = replace(data, config=replace(data.config, views=ScanViewConfig()))
    all_steps = loaded(data, 4, range(6))
    (resumed,) = loaded(data, 4, range(5, 6))
    ranks = [loaded(data, 2, range(5, 6), Plan(rank=rank, world_size=2))[0] for rank in range(2)]
    for name in (ANNOTATED, PROPAGATED):
        assert torch.equal(resumed[name].image, all_steps[5][name].image)
        both = torch.cat([each[name].image for each in ranks])
        torch.testing.assert_close(both, all_steps[5][name].image)


def test_contents_name_what_is_learned(data):
    contents = data.contents()
    for scan in data.fold.train:
        assert f"propagated/label_{scan}.nii.gz" in contents
        assert f"label_{scan}.nii.gz" not in contents  # the true labels of these scans are not read
    assert set(data.trained_cases()) == {*data.fold.support, *data.fold.train}
    assert "with its labels" in data.describe()


def test_a_correction_of_a_label_map_is_allowed_and_seen(data):
    before = data.contents()
    scan = data.fold.train[0]
    folder = label_maps(data.folder, data.fold, data.config)
    stored = data.folder.image(scan)
    folder.write(scan, Volume(np.zeros(stored.array.shape, np.uint8), stored.affine))
    assert data.contents() != before
    slices = labelled_slices(data.folder, data.fold, data.config, Normalisation())[PROPAGATED]
    assert not slices.labels(np.flatnonzero(slices.stack.scan == scan).tolist()).any()


def without_a_map(folder, data):
    folder.path(data.fold.train[0]).unlink()


def of_another_image(folder, data):
    folder.finish("run A", dict.fromkeys(data.fold.train, "other"), (1, 2, 3, 4), {})


def of_other_scans(folder, data):
    folder.finish("run A", {}, (1, 2, 3, 4), {})


def of_other_classes(folder, data):
    folder.finish("run A", images_sha256(data.folder, data.fold), (1,), {})


def unfinished(folder, data):
    folder.begin("run A")


def damaged(folder, data):
    (folder.folder / RECORD).write_text("{}")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (without_a_map, "is missing"),
        (of_another_image, "made of another image"),
        (of_other_scans, "no label map"),
        (of_other_classes, "label 2 was not looked for"),
        (unfinished, "missing, or not finished"),
        (damaged, "damaged, or of another version"),
    ],
    ids=lambda given: getattr(given, "__name__", ""),
)
def test_label_maps_that_do_not_fit_are_refused(data, spoil, message):
    spoil(data.config.label_folder, data)
    with pytest.raises(DataError, match=message + ".*frugalseg pseudo-labels propagation"):
        label_maps(data.folder, data.fold, data.config)


def test_no_label_maps_are_refused(data):
    with pytest.raises(ConfigError, match=r"pseudo_labels: none given.*frugalseg pseudo-labels propagation"):
        label_maps(data.folder, data.fold, replace(data.config, pseudo_labels=""))


def test_the_folder_of_another_run_is_not_replaced(data):
    with pytest.raises(ConfigError, match="of the run run A, not of run B"):
        data.config.label_folder.begin("run B")
    assert data.config.label_folder.maker == "run A"


def test_a_run_is_known_by_the_run_that_made_its_label_maps(data, tmp_path):
    assert data.config.identified["pseudo_labels"] == "run A"
    assert data.config.unidentified == ""
    elsewhere = replace(data.config, pseudo_labels=str(tmp_path / "empty"))
    assert "pseudo_labels" not in elsewhere.identified
    assert "holds no propagated.json" in elsewhere.unidentified
