"""From a dictionary of settings to a frozen dataclass, strictly: no unknown key, no wrong type, at any depth."""

import difflib
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, field, fields, is_dataclass
from typing import Any, Literal, TypeVar, Union

from util.errors import ConfigError

Settings = TypeVar("Settings")


def build(settings_type: type[Settings], values: Mapping[str, Any], where: str = "") -> Settings:
    """Builds `settings_type` from `values`; nested dataclasses from nested dictionaries, tuples from lists.

    Args:
        settings_type: a dataclass.
        values: one entry per field; fields with a default may be missing.
        where: prefix of the key names in messages, such as "optim.".

    Raises:
        ConfigError: unknown or missing key, or a value of the wrong type; the message names the key, the value found,
            the type expected and similar keys.
    """
    refuse_unknown(values, settings_type, where=where)
    hints = typing.get_type_hints(settings_type)
    known = {each.name: each for each in fields(settings_type)}  # type: ignore[arg-type]
    for name, each in known.items():
        if name not in values and each.default is MISSING and each.default_factory is MISSING:
            raise ConfigError(f"{where}{name}: missing; expected {_describe(hints[name])}.")
    converted = {key: _convert(hints[key], value, f"{where}{key}") for key, value in values.items()}
    return settings_type(**converted)


def refuse_unknown(values: Mapping[str, Any], *settings_types: type, where: str = "") -> None:
    """Checks that every key is a field of one of the dataclasses.

    Raises:
        ConfigError: one is not; the message names similar ones.
    """
    known = [each.name for settings_type in settings_types for each in fields(settings_type)]
    for key in values:
        if key not in known:
            close = difflib.get_close_matches(str(key), known, n=3) or sorted(known)
            raise ConfigError(f"{where}{key}: unknown setting; did you mean {_join(close)}?")


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
        if value not in arguments:
            raise ConfigError(f"{where}={value!r}: expected one of {_join(map(str, arguments))}.")
        return value
    if origin is tuple and isinstance(value, Sequence) and not isinstance(value, str):
        types_ = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else arguments
        if len(types_) == len(value):
            return tuple(_convert(t, v, f"{where}[{i}]") for i, (t, v) in enumerate(zip(types_, value, strict=True)))
    elif is_dataclass(expected) and isinstance(value, Mapping):
        return build(expected, value, where=f"{where}.")  # type: ignore[arg-type]
    elif expected is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            raise ConfigError(f"{where}: too large a number; expected {_describe(expected)}.") from None
    elif isinstance(expected, type) and isinstance(value, expected) and (expected is bool or type(value) is not bool):
        return value
    raise ConfigError(f"{where}={value!r} ({type(value).__name__}): expected {_describe(expected)}.")


def _convert_union(choices: tuple[Any, ...], value: Any, where: str, expected: Any) -> Any:
    for choice in choices:
        if choice is type(None) and value is None:
            return None
        if isinstance(choice, type) and type(value) is choice:
            return value
    for choice in choices:
        if choice is not type(None):
            try:
                return _convert(choice, value, where)
            except ConfigError:
                continue
    raise ConfigError(f"{where}={value!r} ({type(value).__name__}): expected {_describe(expected)}.")


def _describe(expected: Any) -> str:
    return expected.__name__ if isinstance(expected, type) else str(expected).replace("typing.", "")


def _join(names: Any) -> str:
    return ", ".join(names)


# What a setting is to a run, besides its value; noted in the metadata of its field.
#   practical     changes neither the data nor the weights: a run resumes, and is found, whatever it is
#   replicate     runs that differ in nothing else are repetitions of each other: tables may average over them
#   architecture  decides which weights there are: taken from the checkpoint when it is loaded
Role = Literal["practical", "replicate", "architecture"]


def option(default: Any, *roles: Role) -> Any:
    """A field of a configuration with its roles; a callable default makes a new value each time."""
    if callable(default):
        return field(default_factory=default, metadata={"roles": roles})
    return field(default=default, metadata={"roles": roles})


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
    return [_listed(each) for each in value] if isinstance(value, tuple | list) else value
