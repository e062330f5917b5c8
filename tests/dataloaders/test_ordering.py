import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from dataloaders.ordering import JointDataset, LoaderOptions, Part, item_at, numbers_of_step, rounds, step_loader
from dataloaders.samples import UnlabelledBatch
from util.runtime.distributed import Plan
from util.runtime.seeding import generator_for


@pytest.mark.parametrize(
    ("first", "n_steps", "round_steps", "expected"),
    [
        (0, 10, 4, [(0, 4), (4, 8), (8, 10)]),
        (5, 10, 4, [(5, 8), (8, 10)]),  # resumed within a round
        (8, 10, 4, [(8, 10)]),
        (3, 10, 0, [(3, 10)]),
        (10, 10, 4, []),
        (11, 10, 0, []),
    ],
)
def test_rounds_end_where_they_would_without_a_stop(first, n_steps, round_steps, expected):
    assert [(r.start, r.stop) for r in rounds(first, n_steps, round_steps)] == expected


def test_processes_together_see_what_one_would_with_their_batches_joined():
    for step in range(3):
        together = [number for rank in range(4) for number in numbers_of_step(step, 2, rank, 4)]
        assert together == list(numbers_of_step(step, 8, 0, 1)) == list(range(8 * step, 8 * step + 8))


def test_every_pass_goes_through_all_items_in_an_order_of_its_own():
    items = np.array([10, 11, 12, 13, 14, 15, 16])
    passes = [[item_at(items, 7 * k + i, seed=3, pass_length=7) for i in range(7)] for k in range(5)]
    assert all(sorted(order) == items.tolist() for order in passes)
    assert len({tuple(order) for order in passes}) == 5
    assert passes[2] != [item_at(items, 14 + i, seed=4, pass_length=7) for i in range(7)]


def test_a_longer_pass_repeats_the_items_evenly():
    seen = [item_at(np.arange(3), n, seed=0, pass_length=6) for n in range(6)]
    assert sorted(seen) == [0, 0, 1, 1, 2, 2]


class Squares(Dataset):
    def __getitem__(self, step):
        return torch.tensor(step**2)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_loader_yields_the_items_of_its_steps_and_draws_no_global_number(num_workers):
    before = torch.get_rng_state()
    loader = step_loader(Squares(), range(5, 9), LoaderOptions(num_workers))
    assert [int(item) for item in loader] == [25, 36, 49, 64]
    assert torch.equal(torch.get_rng_state(), before)


def test_a_part_without_a_name_is_drawn_as_a_whole_batch():
    part = Part(np.arange(5, 12), 2, seed=3, plan=Plan(rank=1, world_size=2))
    assert list(part.numbers(4)) == list(numbers_of_step(4, 2, 1, 2)) == [18, 19]
    assert [part.item(n) for n in range(20)] == [item_at(part.items, n, 3, 7) for n in range(20)]
    assert part.generator("augmentation", 18).random() == generator_for(3, "augmentation", 18).random()


def test_parts_have_their_own_size_pass_and_random_numbers():
    labelled = Part(np.arange(4), 1, seed=3, name="labelled", pass_length=8)
    one, two = (Part(np.arange(8), 3, seed=3, name=f"unlabelled_{number}") for number in (1, 2))
    assert sorted(labelled.item(n) for n in range(8)) == [0, 0, 1, 1, 2, 2, 3, 3]
    first, second = ([part.item(n) for n in range(8)] for part in (one, two))
    assert sorted(first) == sorted(second) == list(range(8))
    assert first != second
    drawn = {part.name: part.generator("augmentation", 5).random() for part in (labelled, one, two)}
    assert len(set(drawn.values())) == 3
    assert [len(part.numbers(6)) for part in (labelled, one)] == [1, 3]


class Images(Dataset):
    def __init__(self, part):
        self.part = part

    def __getitem__(self, step):
        items = [self.part.item(number) for number in self.part.numbers(step)]
        return UnlabelledBatch(torch.tensor(items, dtype=torch.float32)[:, None, None, None])


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_joint_batch_has_the_parts_of_its_step(num_workers):
    parts = {"few": Part(np.arange(3), 1, 0, name="few"), "many": Part(np.arange(9), 2, 0, name="many")}
    joint = JointDataset({name: Images(part) for name, part in parts.items()})
    batches = list(step_loader(joint, range(4, 7), LoaderOptions(num_workers)))
    assert len(batches) == 3
    for step, batch in enumerate(batches, start=4):
        assert len(batch) == 3
        for name, part in parts.items():
            assert batch[name].image.flatten().tolist() == [part.item(number) for number in part.numbers(step)]
