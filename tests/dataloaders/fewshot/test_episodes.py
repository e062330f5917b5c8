import dataclasses

import numpy as np
import pytest
import torch

from dataloaders.fewshot.config import FewShotConfig
from dataloaders.fewshot.data import _training_slices, open_fewshot
from dataloaders.ordering import LoaderOptions, item_at
from dataloaders.scans.normalise import Normalisation
from util.errors import ConfigError, DataError
from util.runtime.distributed import Plan

CONFIG = FewShotConfig()


def loader(folder, steps=range(6), **changes):
    given = {"seed": 7, "batch_size": 2, "config": CONFIG} | changes
    data = open_fewshot(given.pop("config"), str(folder))
    seed, batch_size = given.pop("seed"), given.pop("batch_size")
    return data.loader(Normalisation(), seed, batch_size, steps, LoaderOptions(**given))


def tensors(episode):
    return [getattr(episode, field.name) for field in dataclasses.fields(episode)]


def assert_same(one, other):
    for episode, twin in zip(one, other, strict=True):
        for tensor, copy in zip(tensors(episode), tensors(twin), strict=True):
            assert torch.equal(tensor, copy)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("workers", [2, 4])
def test_determinism_across_workers(prepared_folder, workers):
    assert_same(loader(prepared_folder), loader(prepared_folder, num_workers=workers))


def test_iterating_leaves_the_global_generator_alone(prepared_folder):
    before = torch.get_rng_state()
    list(loader(prepared_folder))
    assert torch.equal(before, torch.get_rng_state())


def test_a_loader_that_starts_late_goes_on_with_the_same_batches(prepared_folder):
    assert_same(list(loader(prepared_folder))[4:], loader(prepared_folder, steps=range(4, 6)))


def test_two_ranks_see_together_what_one_sees(prepared_folder):
    whole = list(loader(prepared_folder, batch_size=4, steps=range(3)))
    halves = [list(loader(prepared_folder, steps=range(3), plan=Plan(rank, 2))) for rank in range(2)]
    for step, episode in enumerate(whole):
        for tensor, first, second in zip(*map(tensors, (episode, halves[0][step], halves[1][step])), strict=True):
            torch.testing.assert_close(tensor, torch.cat([first, second]))


def test_another_seed_draws_other_episodes(prepared_folder):
    one, other = next(iter(loader(prepared_folder))), next(iter(loader(prepared_folder, seed=8)))
    assert not torch.equal(one.support_image, other.support_image)


@pytest.mark.parametrize("preset", ["sabs_aug", "aug_v3"])
def test_no_episode_has_an_empty_target(prepared_folder, preset):
    config = dataclasses.replace(CONFIG, which_aug=preset)
    for episode in loader(prepared_folder, range(20), batch_size=8, config=config):
        assert episode.support_mask.flatten(2).any(2).all()
        assert episode.query_mask.flatten(2).any(2).all()


def test_all_pseudo_label_ids_and_slices_get_drawn(prepared_folder):
    stack, drawer = _training_slices(open_fewshot(CONFIG, str(prepared_folder)), Normalisation(), seed=0)
    drawn = {drawer.draw(number)[1:] for number in range(4000)}
    present = {(z, i) for z in range(len(stack)) for i in stack.id_maps([z]).unique().tolist() if i > 0}
    assert drawn == present
    assert len(present) > 200  # the last id of a slice included, gaps between ids never


def test_slices_of_excluded_classes_are_left_out(make_prepared, tmp_path):
    folder = make_prepared(tmp_path, ("1", "2", "3", "5", "8", "10", "13"))
    config = dataclasses.replace(CONFIG, exclude_cls_list=(2,))
    stack, drawer = _training_slices(open_fewshot(config, str(folder)), Normalisation(), seed=0)
    drawn = {drawer.draw(number)[0] for number in range(500)}
    assert drawn == {int(s) for s in np.flatnonzero(np.isin(stack.z, (1, 6, 7)))}  # organs on 2 to 5, nothing on 0


def test_a_pass_shows_every_slice_and_passes_differ():
    slices = np.array([3, 5, 8])
    one, other = ([item_at(slices, number, 1, 7) for number in range(7 * k, 7 * k + 7)] for k in range(2))
    assert sorted(one) == sorted(other) == [3, 3, 3, 5, 5, 8, 8]
    assert one != other


def test_annotated_episodes_pair_two_scans_of_the_training_classes(prepared_folder):
    config = dataclasses.replace(CONFIG, train_on="labels", label_sets=0)
    stack, drawer = _training_slices(open_fewshot(config, str(prepared_folder)), Normalisation(), seed=0)
    for number in range(200):
        support, query, value = drawer.draw(number)
        assert value in (1, 4)
        assert stack.scan[support] != stack.scan[query]
        assert (stack.id_maps([support]) == value).any()
        assert (stack.id_maps([query]) == value).any()


def test_when_nothing_can_be_trained_on_the_message_says_why(make_prepared, tmp_path):
    folder = make_prepared(tmp_path, ("1", "2", "3", "5", "8", "10", "13"), n_slices=5)
    config = dataclasses.replace(CONFIG, exclude_cls_list=(1,), superpix_scale="SLIC")
    with pytest.raises(DataError, match=r"superpix-SLIC_10.*frugalseg superpixels"):
        loader(folder, config=config)
    with pytest.raises(DataError, match=r"no training class.*exclude_cls_list"):
        loader(folder, config=dataclasses.replace(CONFIG, train_on="labels", exclude_cls_list=(1,)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"which_aug": "strong"}, "sabs_aug, aug_v3, none"),
        ({"label_sets": 2}, "expected one of"),
        ({"exclude_cls_list": (9,)}, "no classes of CHAOST2"),
        ({"dataset": "CHAOS"}, "expected one of CHAOST2"),
        ({"z_margin": -1}, "z_margin"),
        ({"train_on": "labels", "label_sets": "all"}, "name a group"),
        ({"n_sup_part": 2}, "odd number"),
    ],
)
def test_impossible_settings_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        FewShotConfig(**changes)
