import pytest
import torch

from models.networks.passes import run_in_chunks


@pytest.mark.parametrize("fitting", [1, 2, 3, 100])
def test_chunks_are_as_large_as_the_memory_allows(fitting):
    sizes = []

    def double(one, other):
        if len(one) > fitting:
            raise torch.OutOfMemoryError("too many")
        sizes.append(len(one))
        return one + other

    number = torch.arange(10)
    assert torch.equal(torch.cat(list(run_in_chunks(double, 8, number, number))), 2 * number)
    assert sizes == {1: [1] * 10, 2: [2] * 5, 3: [2] * 5, 100: [8, 2]}[fitting]


def test_a_single_sample_that_does_not_fit_is_an_error():
    def fail(_):
        raise torch.OutOfMemoryError("too many")

    with pytest.raises(torch.OutOfMemoryError):
        list(run_in_chunks(fail, 8, torch.arange(10)))
