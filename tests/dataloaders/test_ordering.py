import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from dataloaders.ordering import LoaderOptions, item_at, numbers_of_step, rounds, step_loader


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
