"""Named configurations and published settings, one module per group of methods.

A word of the command line says which method or data set is meant (`tloss shenzhen`); the settings that were published
for this method on this data set follow from `RULES`, and any key can still be given.

    frugalseg presets                       # every published run: words, source, hardware, Dice to expect
    frugalseg presets isic2017 tloss 0.7    # those whose line holds all of these words
"""

from collections.abc import Mapping
from typing import Any

from models.presets import fewshot, noisy, several_tasks, sources
from models.presets.rules import published_values

# Precision and compilation for any method; what they cost in Dice: docs/performance.md. Not published.
FAST: dict[str, Any] = {"precision": "bf16", "compile": "auto"}

# What a word decides -> word -> settings. No two axes share a key, so that the order of their words does not matter.
AXES = {
    "method": {
        **fewshot.METHODS,
        **noisy.GUIDED_METHODS,
        **noisy.ROBUST_LOSSES,
        **sources.METHODS,
        **several_tasks.METHODS,
    },
    "data set": {**fewshot.DATA, **noisy.DATA, **sources.DATA, **several_tasks.DATA},
    "setting": fewshot.SETTINGS,
    "labels": sources.LABELS,
    "size": {
        "small": fewshot.SMALL,
        "packaged": fewshot.PACKAGED,
        "noisy_small": noisy.SMALL,
        "semidg_small": sources.SMALL,
        "partial_small": several_tasks.SMALL,
    },
    "speed": {"fast": FAST},
}
NAMED_CONFIGS: dict[str, dict[str, Any]] = {word: values for words in AXES.values() for word, values in words.items()}

RULES = (*fewshot.RULES, *noisy.RULES, *sources.RULES, *several_tasks.RULES)


def resolve(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The published settings for the method and the data set of `settings` (all keys, with defaults)."""
    return published_values(RULES, settings)
