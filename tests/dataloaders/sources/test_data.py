"""Batches of several sources, and the scans that are scored."""

import builtins
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from data.check.training import require_fit
from dataloaders.ordering import LoaderOptions
from dataloaders.scans.normalise import Normalisation
from util.errors import DataError
from util.runtime.distributed import Plan

PARTS = ("labelled", "unlabelled_1", "unlabelled_2")


def batches(data, steps=2, batch_size=4, options=None, seed=0):
    options = options or LoaderOptions()
    return list(data.loader(Normalisation(), seed, batch_size, range(steps), options))


def test_a_step_has_labelled_and_two_unlabelled_parts_of_equal_size(hearts, open_hearts):
    (batch,) = batches(open_hearts(hearts), steps=1)
    assert tuple(batch.parts) == PARTS
    for name in PARTS:
        part = batch[name]
        assert part.image.shape == part.partner.shape == (4, 1, 48, 48)
        assert part.uniform.shape == (4, 64)
        assert 0 <= part.image.min() < part.image.max() <= 1
        assert (part.label is None) == (name != "labelled")
    assert set(batch["labelled"].label.unique().tolist()) == {0, 1, 2}


def test_a_method_that_needs_no_unlabelled_slices_gets_none(hearts, open_hearts):
    (batch,) = batches(open_hearts(hearts, needs=frozenset()), steps=1)
    assert tuple(batch.parts) == ("labelled",)


def test_labelled_slices_are_those_of_annotated_frames(hearts, open_hearts):
    data = open_hearts(hearts, test_domains=("B",), labelled_fraction=0.1)
    assert data.division.labelled == ("A1", "C1", "D1")
    drawn = torch.cat([batch["labelled"].label for batch in batches(data, steps=12, batch_size=1)])
    assert len(drawn) == 12  # one pass: 2 annotated frames of A1 and one each of C1 and D1, of 3 slices
    assert (drawn.flatten(1).amax(1) == 2).all()  # the frame between, without annotation, is never drawn


def test_batches_depend_neither_on_processes_nor_on_the_place_of_the_data(hearts, open_hearts):
    data = open_hearts(hearts, which_aug="mms", crop_px=40, hist_match="train")
    wanted = batches(data)
    with_workers = batches(data, options=LoaderOptions(num_workers=2))
    on_device = batches(data, options=LoaderOptions(device=torch.device("cpu")))
    halves = [batches(data, batch_size=2, options=LoaderOptions(plan=Plan(rank, 2))) for rank in (0, 1)]
    for step, batch in enumerate(wanted):
        for name in PARTS:
            joined = torch.cat([half[step][name].image for half in halves])
            for other in (with_workers[step][name].image, on_device[step][name].image, joined):
                torch.testing.assert_close(other, batch[name].image, rtol=0, atol=1e-6)
            assert batch[name].image.shape[-1] == 40
    assert not torch.equal(wanted[0]["unlabelled_1"].image, wanted[0]["unlabelled_2"].image)


def test_labelled_slices_are_cropped_in_the_middle_and_others_anywhere(hearts, open_hearts):
    data = open_hearts(hearts, crop_px=40)
    store = data._store(data.division.unlabelled, data.division.labelled)
    middle = store.images(np.arange(len(store)))[:, 4:44, 4:44]
    (batch,) = batches(data, steps=1, batch_size=8)
    distances = {
        name: torch.stack([(middle - image[0]).abs().amax((1, 2)).min() for image in batch[name].image])
        for name in PARTS
    }
    assert distances["labelled"].max() < 1e-5
    assert (distances["unlabelled_1"] > 0.05).any()


def test_every_unlabelled_slice_comes_once_in_a_pass(hearts, open_hearts):
    data = open_hearts(hearts, unlabelled_stride=2)
    pool = data._store(data.division.unlabelled, ()).images(np.arange(0, 36, 2))
    drawn = torch.cat([batch["unlabelled_1"].image for batch in batches(data, steps=9, batch_size=2)])
    assert sorted(drawn.flatten(1).sum(1).tolist()) == pytest.approx(sorted(pool.flatten(1).sum(1).tolist()), rel=1e-5)


def test_partners_can_be_of_other_domains_only(hearts, open_hearts):
    means = {}
    for partner in ("any", "other_domain"):
        data = open_hearts(hearts, partner=partner, percentiles=(0.0, 100.0))
        parts = [batch["unlabelled_1"] for batch in batches(data, steps=6, batch_size=6)]
        means[partner] = [
            bool(torch.equal(i, p)) for part in parts for i, p in zip(part.image, part.partner, strict=True)
        ]
    assert any(means["any"])
    assert not any(means["other_domain"])


def test_no_file_of_the_target_is_opened_in_training(hearts, open_hearts, monkeypatch, tmp_path):
    opened = []

    def spy(original):
        def open_(file, *arguments, **options):
            opened.append(Path(str(file)).name)
            return original(file, *arguments, **options)

        return open_

    for module in (builtins, io):
        monkeypatch.setattr(module, "open", spy(builtins.open))
    data = open_hearts(hearts, test_domains=("B",), hist_match="train+test", development_patients=1, which_aug="mms")
    require_fit("sources", data)
    batches(data)
    data.contents()
    _ = data.preparation
    for case in data.cases(data.division.development):
        case()
    assert any(name.startswith("image_A") for name in opened)  # the spy sees what is read
    assert not [name for name in opened if "_B" in name]


def test_tested_frames_carry_phase_origin_and_truth(hearts, open_hearts):
    data = open_hearts(hearts, crop_px=40)
    frames = [frame for case in data.cases(data.division.test) for frame in case()]
    assert [frame.id for frame in frames[:3]] == ["A1_ED", "A1_ES", "A2_ED"]
    first = frames[1]
    assert (first.origin.patient, first.origin.phase, first.origin.domain) == ("PA1", "ES", "A")
    assert first.case.image.shape == (3, 1, 40, 40)
    assert first.truth.shape == (3, 48, 48)
    assert first.case.classes == (1, 2)
    assert first.counts.all()
    np.testing.assert_array_equal(
        data.rule.in_full(first.truth[:, 4:44, 4:44], (48, 48))[:, 4:44, 4:44], first.truth[:, 4:44, 4:44]
    )


def test_the_generic_protocol_scores_the_outlined_slices_only(hearts, open_hearts, tmp_path):
    data = open_hearts(hearts, protocol="generic")
    truth = np.zeros((5, 4, 4), np.uint8)
    truth[1, 0, 0] = truth[3, 1, 1] = 1
    assert data._scored(truth).tolist() == [False, True, True, True, False]
    assert not data._scored(truth * 0).any()


def test_matching_at_test_uses_one_reference_of_the_first_source(hearts, open_hearts):
    rules = {mode: open_hearts(hearts, hist_match=mode).rule for mode in ("none", "train", "train+test")}
    assert rules["none"].reference == rules["train"].reference == ()
    assert len(rules["train+test"].reference) == 257
    data = open_hearts(hearts, hist_match="train+test")
    assert data.preparation["slices"]["reference"] == list(rules["train+test"].reference)
    (frame, *_) = next(data.cases(data.division.test))()
    plain = rules["none"].apply(frame.prepared.array)
    matched = rules["train+test"].apply(frame.prepared.array)
    assert (plain - matched).abs().max() > 0.01
    assert (matched.flatten(1).quantile(0.5, 1) - torch.tensor(rules["train+test"].reference[128])).abs().max() < 0.1


def test_a_folder_prepared_at_another_size_is_refused(hearts, open_hearts):
    with pytest.raises(DataError, match=r"slices of 48 px; expected 56. Set size_px"):
        batches(open_hearts(hearts, size_px=56))


def test_contents_tell_what_has_changed(make_hearts, open_hearts, tmp_path):
    folder = make_hearts(tmp_path)
    before = open_hearts(folder).contents()
    other = open_hearts(folder, test_domains=("B",)).contents()
    assert before["scan B1"].startswith("labelled")
    assert other["scan B1"].startswith("test")
    assert "image_A1.nii.gz" not in before
    image = folder / "image_C1.nii.gz"
    image.write_bytes(image.read_bytes()[:-4] + b"abcd")
    assert open_hearts(folder).contents()["image_C1.nii.gz"] != before["image_C1.nii.gz"]


def test_the_log_names_the_labelled_patients(hearts, open_hearts):
    text = open_hearts(hearts, labelled_fraction=0.1).describe()
    assert "domains B, C, D, tested on A" in text
    assert "B 1: PB2" in text
    assert "C 1: PC1" in text


def test_the_other_data_set_of_a_test_is_tested_whole(hearts, open_hearts):
    data = open_hearts(hearts)
    other = replace(data, config=data.config.on(str(hearts)))
    assert other.config.test_domains == ("all",)
    everything = open_hearts(hearts, test_domains=("all",)).division
    assert len(everything.test) == 15
    assert not everything.unlabelled
