"""From configuration keys to data: the only constructors that training and validation call."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dataloaders.fewshot.config import FewShotConfig
from dataloaders.fewshot.data import open_fewshot
from dataloaders.images.config import DenseConfig
from dataloaders.images.data import open_dense
from dataloaders.partial.config import PartialDataConfig
from dataloaders.partial.data import open_partial
from dataloaders.protocol import DataConfig, TrainingData
from dataloaders.sources.config import SourcesDataConfig
from dataloaders.sources.data import open_sources
from util.errors import ConfigError


@dataclass(frozen=True)
class Family:
    """What methods of one kind learn from.

    Attributes:
        config: the configuration keys of the data.
        open: (config, data_dir, trains_on, needs) -> the prepared data, read when asked for.
    """

    config: type[Any]
    open: Callable[[Any, str, str, frozenset[str]], Any]


FAMILIES: dict[str, Family] = {
    "fewshot": Family(FewShotConfig, open_fewshot),
    "dense": Family(DenseConfig, open_dense),
    "sources": Family(SourcesDataConfig, open_sources),
    "partial": Family(PartialDataConfig, open_partial),
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
    method_family: str,
    config: DataConfig,
    data_dir: str,
    trains_on: str = "given",
    needs: frozenset[str] = frozenset(),
) -> TrainingData:
    """The prepared data that a configuration names; read when asked for.

    Args:
        method_family: of the method.
        config: the family's configuration.
        data_dir: the data root, or the prepared folder itself.
        trains_on: "given" or "clean" labels, for images.
        needs: what batches contain besides images and labels, see `Method.needs`.

    Raises:
        ConfigError: no such family.
        DataError: nothing is prepared there.
    """
    return family(method_family).open(config, data_dir, trains_on, needs)
