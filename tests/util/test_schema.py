from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from util.errors import ConfigError
from util.schema import build, check_bounds, option, refuse_unknown, select


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


@dataclass(frozen=True)
class Bounded:
    least: int = option(1, ge=1)
    above: float = option(1.0, gt=0)
    share: float = option(0.5, ge=0, lt=1)
    pair: tuple[float, float] | None = option(None, gt=0, le=1)
    most: int = option(0, "practical", le=3)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"least": 0}, "b.least=0: expected 1 or more."),
        ({"above": 0}, "b.above=0.0: expected a number above 0."),
        ({"share": 1}, "b.share=1.0: expected a value in [0, 1)."),
        ({"pair": [1, 2]}, "b.pair[1]=2.0: expected a value in (0, 1]."),
        ({"most": 4}, "b.most=4: expected 3 or less."),
        ({"share": float("nan")}, "b.share=nan: expected a finite number."),
        ({"above": float("inf")}, "b.above=inf: expected a finite number."),
        ({"above": 10**400}, "b.above: a number of 1329 bits; expected one of at most 64."),
        ({"most": -(2**63)}, "b.most: a number of 64 bits; expected one of at most 64."),
    ],
)
def test_numbers_out_of_range_are_named(values, message):
    with pytest.raises(ConfigError) as error:
        build(Bounded, values, where="b.")
    assert str(error.value) == message


def test_bounds_hold_without_build_too():
    check_bounds(Bounded(pair=(0.5, 1.0)))
    assert build(Bounded, {"pair": None, "most": 3}) == Bounded(most=3)
    for wrong in (Bounded(least=0), Bounded(share=float("nan"))):
        with pytest.raises(ConfigError, match=r"=(0|nan): expected"):
            check_bounds(wrong)


@pytest.mark.parametrize("value", [True, 1.0])
def test_a_choice_among_numbers_takes_no_other_type(value):
    @dataclass(frozen=True)
    class Chosen:
        setting: Literal[1, 2] = 1

    wrong: Any = {"setting": value}
    with pytest.raises(ConfigError, match="expected one of 1, 2"):
        build(Chosen, wrong)
