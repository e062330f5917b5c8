"""Networks, losses, and the methods built of them."""

from collections.abc import Mapping
from typing import Any

from models.methods.alpnet import ALPNet
from models.methods.base import Method
from models.methods.noisy import CoTeaching, JoCoR, SuperpixelGuided, TriNet
from models.methods.partial.adversarial import PartialAdversarial
from models.methods.partial.generator import PartialGenerator
from models.methods.partial.teacher import PartialTeacher
from models.methods.propagation import Propagation
from models.methods.registration import Registration
from models.methods.self_training import SelfTraining
from models.methods.sources.base import LabelledOnly
from models.methods.sources.cacps import CACPS, CPS
from models.methods.sources.mean_teacher import MeanTeacher
from models.methods.sources.mixed_teacher import MixedTeacher
from models.methods.supervised import Supervised, UpperBound
from models.methods.threshold import IntensityThreshold
from util.errors import ConfigError
from util.schema import select

METHODS: dict[str, type[Method]] = {
    "alpnet": ALPNet,
    "propagation": Propagation,
    "self_training": SelfTraining,
    "registration": Registration,
    "threshold": IntensityThreshold,
    "supervised": Supervised,
    "upper": UpperBound,
    "coteaching": CoTeaching,
    "jocor": JoCoR,
    "trinet": TriNet,
    "spguided": SuperpixelGuided,
    "labelled_only": LabelledOnly,
    "cacps": CACPS,
    "cps": CPS,
    "mean_teacher": MeanTeacher,
    "mixed_teacher": MixedTeacher,
    "partial_generator": PartialGenerator,
    "partial_adversarial": PartialAdversarial,
    "partial_teacher": PartialTeacher,
}


ALIASES = {"baseline": "supervised"}  # former names, in older checkpoints


def method_class(name: str) -> type[Method]:
    """Looks up a method by name.

    Raises:
        ConfigError: unknown method; the message lists the known ones.
    """
    return METHODS[canonical_name(name)]


def title_of(settings: Mapping[str, Any]) -> str:
    """The name in tables of a trained method; where settings that decide on it are gone, its key.

    Raises:
        ConfigError: unknown method.
    """
    try:
        return method_class(settings["method"]).title(settings)
    except KeyError:
        return settings["method"]


def canonical_name(name: str) -> str:
    """The present name of a method.

    Raises:
        ConfigError: unknown method; the message lists the known ones.
    """
    current = ALIASES.get(name, name)
    if current not in METHODS:
        raise ConfigError(f"method={name!r}: unknown method; expected one of {', '.join(METHODS)}.")
    return current


def build_method(settings: Mapping[str, Any]) -> Method:
    """Builds `settings["method"]` from those settings that are its hyper-parameters."""
    chosen = method_class(settings["method"])
    return chosen(select(chosen.Config, settings))
