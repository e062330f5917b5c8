"""From configuration keys to data: the only constructors that training and validation call."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dataloaders.fewshot.config import FewShotConfig
from dataloaders.fewshot.data import open_fewshot
from dataloaders.images.config import DenseConfig
from dataloaders.images.data import open_dense
from dataloaders.protocol import DataConfig, TrainingData
from util.errors import ConfigError


@dataclass(frozen=True)
class Family:
    """What methods of one kind learn from.

    Attributes:
        config: the configuration keys of the data.
        open: (config, data_dir, trains_on, needs_superpixels) -> the prepared data, read when asked for.
    """

    config: type[Any]
    open: Callable[[Any, str, str, bool], Any]


FAMILIES: dict[str, Family] = {
    "fewshot": Family(FewShotConfig, open_fewshot),
    "dense": Family(DenseConfig, open_dense),
}


def family(name: str) -> Family:
    """Looks a family up by name.

    Raises:
        ConfigError: no such family; the message lists those that exist.
    """
    if name not in FAMILIES:
        raise ConfigError(f"family {name!r}: unknown; expected one of {', '.join(FAMILIES)}.")
    return FAMILIES[name]


def open_data(
    method_family: str, config: DataConfig, data_dir: str, trains_on: str = "given", needs_superpixels: bool = False
) -> TrainingData:
    """The prepared data that a configuration names; read when asked for.

    Args:
        method_family: of the method.
        config: the family's configuration.
        data_dir: the data root, or the prepared folder itself.
        trains_on: "given" or "clean" labels, for images.
        needs_superpixels: whether batches carry superpixel ids, for images.

    Raises:
        ConfigError: no such family.
        DataError: nothing is prepared there.
    """
    return family(method_family).open(config, data_dir, trains_on, needs_superpixels)
