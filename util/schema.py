"""From a dictionary of settings to a frozen dataclass, strictly: no unknown key, no wrong type, at any depth."""

import difflib
import math
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from typing import Any, Literal, TypeVar, Union

from util.errors import ConfigError

Settings = TypeVar("Settings")
LARGEST_INT = 2**63 - 1  # what 64 bits hold
LONGEST_SHOWN = 80  # characters of a value in a message


def build(settings_type: type[Settings], values: Mapping[str, Any], where: str = "") -> Settings:
    """Builds `settings_type` from `values`; nested dataclasses from nested dictionaries, tuples from lists.

    Args:
        settings_type: a dataclass.
        values: one entry per field; fields with a default may be missing.
        where: prefix of the key names in messages, such as "optim.".

    Raises:
        ConfigError: unknown or missing key, a value of the wrong type, not finite or outside the field's bounds (see
            `option`); the message names the key, the value found, what was expected and similar keys.
    """
    refuse_unknown(values, settings_type, where=where)
    hints = typing.get_type_hints(settings_type)
    known = {each.name: each for each in fields(settings_type)}  # type: ignore[arg-type]
    for name, each in known.items():
        if name not in values and each.default is MISSING and each.default_factory is MISSING:
            raise ConfigError(f"{where}{name}: missing; expected {_describe(hints[name])}.")
    converted = {key: _convert(hints[key], value, f"{where}{key}") for key, value in values.items()}
    built = settings_type(**converted)
    check_bounds(built, where)
    return built


def refuse_unknown(values: Mapping[str, Any], *settings_types: type, where: str = "") -> None:
    """Checks that every key is a field of one of the dataclasses.

    Raises:
        ConfigError: one is not; the message names similar ones.
    """
    known = [each.name for settings_type in settings_types for each in fields(settings_type)]
    for key in values:
        if key not in known:
            close = difflib.get_close_matches(str(key), known, n=3)
            hint = f"did you mean {_join(close)}?" if close else f"expected {_some(sorted(known))}."
            raise ConfigError(f"{where}{key}: unknown setting; {hint}")


def select(settings_type: type[Settings], values: Mapping[str, Any]) -> Settings:
    """Builds `settings_type` from those entries of a larger dictionary that are its fields."""
    names = {each.name for each in fields(settings_type)}  # type: ignore[arg-type]
    return build(settings_type, {key: value for key, value in values.items() if key in names})


def _convert(expected: Any, value: Any, where: str) -> Any:
    """`value` as `expected`, or a ConfigError that names `where`."""
    origin, arguments = typing.get_origin(expected), typing.get_args(expected)
    if origin in (Union, types.UnionType):
        return _convert_union(arguments, value, where, expected)
    if origin is Literal:
        if not any(type(value) is type(each) and value == each for each in arguments):
            raise ConfigError(f"{where}={value!r}: expected one of {_join(map(str, arguments))}.")
        return value
    if origin is tuple and isinstance(value, Sequence) and not isinstance(value, str):
        types_ = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else arguments
        if len(types_) == len(value):
            return tuple(_convert(t, v, f"{where}[{i}]") for i, (t, v) in enumerate(zip(types_, value, strict=True)))
    elif is_dataclass(expected) and isinstance(value, Mapping):
        return build(expected, value, where=f"{where}.")  # type: ignore[arg-type]
    elif expected in (int, float) and isinstance(value, int | float) and not isinstance(value, bool):
        if isinstance(value, int) or expected is float:
            return _finite(expected, value, where)
    elif isinstance(expected, type) and isinstance(value, expected) and (expected is bool or type(value) is not bool):
        return value
    raise _wrong_type(expected, value, where)


def _finite(expected: type, value: int | float, where: str) -> Any:
    """A whole number of at most 64 bits, or a finite floating-point number."""
    if isinstance(value, int) and abs(value) > LARGEST_INT:
        raise ConfigError(f"{where}: a number of {value.bit_length()} bits; expected one of at most 64.")
    if not math.isfinite(value):
        raise ConfigError(f"{where}={value!r}: expected a finite number.")
    return expected(value)


def _wrong_type(expected: Any, value: Any, where: str) -> ConfigError:
    shown = repr(value) if len(repr(value)) <= LONGEST_SHOWN else f"{repr(value)[:LONGEST_SHOWN]}..."
    text = f"{where}={shown} ({type(value).__name__}): expected {_describe(expected)}"
    if is_dataclass(expected):
        return ConfigError(f"{text}, a group of settings; give each of its own, such as {where}.{_first(expected)}=...")
    if typing.get_origin(expected) is tuple and isinstance(value, str):
        return ConfigError(f"{text}. On the command line a list is written in brackets: '{where}=[{value}]'.")
    return ConfigError(f"{text}.")


def _convert_union(choices: tuple[Any, ...], value: Any, where: str, expected: Any) -> Any:
    for choice in choices:
        if choice is type(None) and value is None:
            return None
        if isinstance(choice, type) and type(value) is choice:
            return _convert(choice, value, where)
    for choice in choices:
        if choice is not type(None):
            try:
                return _convert(choice, value, where)
            except ConfigError:
                continue
    raise _wrong_type(expected, value, where)


def _describe(expected: Any) -> str:
    is_plain = isinstance(expected, type) and not typing.get_args(expected)
    return expected.__name__ if is_plain else str(expected).replace("typing.", "")


def _first(settings_type: Any) -> str:
    return fields(settings_type)[0].name


def _join(names: Any) -> str:
    return ", ".join(names)


def _some(names: Sequence[str], most: int = 12) -> str:
    """The first names, and how many more there are."""
    return f"one of {_join(names)}" if len(names) <= most else f"{_join(names[:most])} or {len(names) - most} others"


# What a setting is to a run, besides its value; noted in the metadata of its field.
#   practical     changes neither the data nor the weights: a run resumes, and is found, whatever it is
#   replicate     runs that differ in nothing else are repetitions of each other: tables may average over them
#   architecture  decides which weights there are: taken from the checkpoint when it is loaded
Role = Literal["practical", "replicate", "architecture"]


@dataclass(frozen=True)
class Bounds:
    """The range of a number; None: no bound."""

    ge: int | float | None = None  # least value
    gt: int | float | None = None  # above this
    le: int | float | None = None  # greatest value
    lt: int | float | None = None  # below this

    def hold(self, value: int | float) -> bool:
        """Whether a number is finite and in the range."""
        return (
            math.isfinite(value)
            and (self.ge is None or value >= self.ge)
            and (self.gt is None or value > self.gt)
            and (self.le is None or value <= self.le)
            and (self.lt is None or value < self.lt)
        )

    def __str__(self) -> str:
        low, high = (self.gt if self.ge is None else self.ge), (self.lt if self.le is None else self.le)
        if high is None:
            return f"{low} or more" if self.gt is None else f"a number above {low}"
        if low is None:
            return f"{high} or less" if self.lt is None else f"a number below {high}"
        if self.gt is None and self.lt is None:
            return f"a value from {low} to {high}"
        return f"a value in {'[' if self.gt is None else '('}{low}, {high}{']' if self.lt is None else ')'}"


def option(
    default: Any,
    *roles: Role,
    ge: int | float | None = None,
    gt: int | float | None = None,
    le: int | float | None = None,
    lt: int | float | None = None,
) -> Any:
    """A field of a configuration with its roles and bounds; a callable default makes a new value each time.

    Args:
        default: the value, or what makes it.
        roles: see above.
        ge: least value of a number, or of each number in a tuple.
        gt: they are above this.
        le: the greatest value.
        lt: they are below this.
    """
    metadata: dict[str, Any] = {"roles": roles}
    if any(bound is not None for bound in (ge, gt, le, lt)):
        metadata["bounds"] = Bounds(ge, gt, le, lt)
    if callable(default):
        return field(default_factory=default, metadata=metadata)
    return field(default=default, metadata=metadata)


def check_bounds(settings: Any, where: str = "") -> None:
    """Checks the numbers of a configuration, and those in its tuples, against the bounds of their fields.

    `build` does so; a configuration that is also made without it calls this in `__post_init__`.

    Raises:
        ConfigError: a number is out of range; the message names the key after the prefix `where`.
    """
    for each in fields(settings):
        bounds, value = each.metadata.get("bounds"), getattr(settings, each.name)
        if bounds is None:
            continue
        several = isinstance(value, tuple)
        for index, number in enumerate(value if several else (value,)):
            if isinstance(number, int | float) and not bounds.hold(number):
                place = f"[{index}]" if several else ""
                raise ConfigError(f"{where}{each.name}{place}={number}: expected {bounds}.")


def names_with_role(role: Role, *settings_types: type) -> set[str]:
    """The fields of some dataclasses that have a role; nested ones as "outer.inner"."""
    found = set()
    for settings_type in settings_types:
        hints = typing.get_type_hints(settings_type)
        for each in fields(settings_type):
            if role in each.metadata.get("roles", ()):
                found.add(each.name)
            elif is_dataclass(hints[each.name]):
                found |= {f"{each.name}.{name}" for name in names_with_role(role, hints[each.name])}
    return found


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as one dictionary with dotted keys; tuples become lists, as JSON stores them."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = _listed(value)
    return flat


def merge(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings of several layers; later ones win, key by key at every depth."""
    merged: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            known = merged.get(key)
            if isinstance(known, Mapping) and isinstance(value, Mapping):
                merged[key] = merge(known, value)
            else:
                merged[key] = value
    return merged


def _listed(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _listed(each) for key, each in value.items()}
    return [_listed(each) for each in value] if isinstance(value, tuple | list) else value
