"""Which settings were published for a method on a data set. The most specific rule comes last and wins."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from util.schema import merge


@dataclass(frozen=True)
class Rule:
    """Settings that hold where some keys have certain values.

    Attributes:
        source: paper and section, or released code.
        values: the settings; may be nested.
        when: key -> the values for which the rule holds; lists are compared as tuples.
    """

    source: str
    values: Mapping[str, Any]
    when: Mapping[str, tuple[Any, ...]]

    def holds(self, settings: Mapping[str, Any]) -> bool:
        """Whether all conditions are met."""
        return all(_hashable(settings.get(key)) in allowed for key, allowed in self.when.items())


def published_values(rules: Iterable[Rule], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of all rules that hold, later ones over earlier ones."""
    return merge(*(rule.values for rule in rules if rule.holds(settings)))


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
