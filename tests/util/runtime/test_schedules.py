import pytest

from util.runtime.schedules import step_decay


def test_the_rate_falls_after_each_completed_interval():
    assert [step_decay(step, 1000, 0.95) for step in (0, 999, 1000, 1999)] == [1, 1, 0.95, 0.95]
    assert step_decay(99_999, 1000, 0.95) == pytest.approx(0.95**99)
    assert step_decay(5000, 0, 0.5) == 1
