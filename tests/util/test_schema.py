from dataclasses import dataclass, field
from typing import Literal

import pytest

from util.errors import ConfigError
from util.schema import build, refuse_unknown, select


@dataclass(frozen=True)
class Inner:
    rate: float = 0.1
    name: str = "a"


@dataclass(frozen=True)
class Outer:
    count: int
    mode: Literal["x", "y"] = "x"
    group: int | str = 0
    limit: int | None = None
    sizes: tuple[int, ...] = ()
    pair: tuple[float, float] = (0.0, 1.0)
    is_on: bool = True
    inner: Inner = field(default_factory=Inner)


def test_nested_values_lists_and_whole_floats_are_converted():
    built = build(
        Outer,
        {"count": 3, "inner": {"rate": 2}, "sizes": [1, 2], "pair": [1, 2.5], "group": "all", "limit": 4, "mode": "y"},
    )
    assert built == Outer(3, "y", "all", 4, (1, 2), (1.0, 2.5), True, Inner(2.0))
    assert isinstance(built.inner.rate, float)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"count": 1, "modes": "x"}, "modes: unknown setting; did you mean mode"),
        ({"count": 1, "inner": {"rates": 1}}, r"inner\.rates: unknown setting; did you mean rate"),
        ({"count": "1"}, r"count='1' \(str\): expected int"),
        ({"count": True}, "count=True"),
        ({"count": 1, "is_on": 1}, "is_on=1"),
        ({"count": 1, "mode": "z"}, "expected one of x, y"),
        ({"count": 1, "group": 1.5}, "group=1.5"),
        ({"count": 1, "limit": "many"}, "limit='many'"),
        ({"count": 1, "sizes": "12"}, "sizes='12'"),
        ({"count": 1, "sizes": [1, "2"]}, r"sizes\[1\]='2'"),
        ({"count": 1, "pair": [1.0]}, "pair="),
        ({"count": 1, "inner": 3}, "inner=3"),
        ({}, "count: missing; expected int"),
    ],
)
def test_wrong_settings_are_named(values, message):
    with pytest.raises(ConfigError, match=message):
        build(Outer, values)


def test_select_takes_what_belongs_to_it():
    assert select(Inner, {"rate": 0.5, "count": 7}) == Inner(0.5)
    refuse_unknown({"rate": 1, "count": 2}, Inner, Outer)
    with pytest.raises(ConfigError, match="counts"):
        refuse_unknown({"counts": 2}, Inner, Outer)
