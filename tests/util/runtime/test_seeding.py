import itertools

import numpy as np
import pytest
import torch

from util.runtime.seeding import STREAMS, generator_for, random_state, restore_random_state


def draws(seed, stream, index):
    return generator_for(seed, stream, index).random(8).tolist()


def test_streams_without_a_part_keep_their_numbers():
    for stream, number in STREAMS.items():
        assert draws(3, stream, 5) == np.random.default_rng([3, number, 5]).random(8).tolist()
    assert STREAMS == {"order": 0, "episode": 1, "support_view": 2, "query_view": 3, "augmentation": 4}


def test_streams_of_different_parts_are_independent():
    names = ["augmentation", "augmentation/unlabelled_1", "augmentation/unlabelled_2", "order/unlabelled_1", "order"]
    found = {(name, index): tuple(draws(0, name, index)) for name, index in itertools.product(names, (0, 1))}
    assert len(set(itertools.chain(*found.values()))) == 8 * len(found)
    assert draws(0, names[1], 1) == draws(0, names[1], 1) != draws(1, names[1], 1)


def test_an_unknown_stream_is_an_error():
    with pytest.raises(ValueError, match="stream 'colour/labelled': expected one of order"):
        generator_for(0, "colour/labelled", 0)


def test_the_random_state_is_restored():
    cpu = torch.device("cpu")
    state = random_state(cpu)
    first = torch.rand(3)
    restore_random_state(state, cpu)
    assert torch.equal(torch.rand(3), first)
