import pytest

from util.runtime.schedules import cosine_decay, linear_warmup, polynomial_decay, step_decay


def test_steps_by_hand():
    assert [step_decay(step, 1000, 0.95) for step in (0, 999, 1000, 1999)] == [1, 1, 0.95, 0.95]
    assert step_decay(99_999, 1000, 0.95) == pytest.approx(0.95**99)


def test_a_polynomial_by_hand():
    assert [polynomial_decay(step, 4, 2.0) for step in range(6)] == pytest.approx([1, 9 / 16, 1 / 4, 1 / 16, 0, 0])
    assert [polynomial_decay(step, 4, 1.0, 0.2) for step in (0, 2, 4)] == pytest.approx([1, 0.6, 0.2])


def test_a_cosine_by_hand():
    assert [cosine_decay(step, 6) for step in (0, 2, 3, 6, 9)] == pytest.approx([1, 0.75, 0.5, 0, 0])
    assert [cosine_decay(step, 6, 0.2) for step in (0, 3, 6)] == pytest.approx([1, 0.6, 0.2])


def test_a_warmup_by_hand():
    assert [linear_warmup(step, 4, 0.2) for step in range(6)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1, 1])
    assert linear_warmup(0, 0, 0.2) == 1
