"""What training, validation and checks ask of data, whatever the family of methods."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch.utils.data import DataLoader

from dataloaders.catalog import is_built_in
from dataloaders.description import DatasetSpec
from dataloaders.ordering import LoaderOptions
from dataloaders.samples import Task
from dataloaders.scans.normalise import Normalisation


@dataclass(frozen=True)
class DataFacts:
    """What a network must fit.

    Attributes:
        channels: of the images.
        n_classes: with the background; of several tasks, whose classes may overlap, without it.
        shape: rows and columns of the images.
        tasks: what is learned from data sets that are annotated for some tasks only; else empty.
        sources: names of these data sets, in the order of their numbers.
    """

    channels: int
    n_classes: int
    shape: tuple[int, int]
    tasks: tuple[Task, ...] = ()
    sources: tuple[str, ...] = ()


class DataConfig(ABC):
    """The configuration keys of a family's data: a frozen dataclass that can be built without arguments.

    One of its fields is `dataset`, the name of a built-in data set or the path of a description.
    """

    @property
    @abstractmethod
    def spec(self) -> DatasetSpec:
        """The description of the data set."""

    @property
    def facts(self) -> DataFacts | None:
        """What a network must fit; None where any size and number of classes will do."""
        return None

    @abstractmethod
    def derived(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Defaults that follow from the data set and from other keys."""

    def on(self, dataset: str) -> "DataConfig":
        """The same for another data set, on which a trained network is to be tested.

        Raises:
            ConfigError: no such data set, or one that the network does not fit.
        """
        return replace(self, dataset=dataset)  # type: ignore[call-arg]

    @abstractmethod
    def summary(self, trains_on: str) -> str:
        """What is trained on, as a part of the experiment folder's name."""

    @property
    def identified(self) -> dict[str, str]:
        """What stands for keys that name places on this machine, so that a run is found wherever they are."""
        spec = self.spec
        return {"dataset": spec.name if is_built_in(spec) else f"{spec.name}@{spec.digest}"}

    @property
    def unidentified(self) -> str:
        """Which named place is empty, so that a run cannot be found by what was there; "": none."""
        return ""

    @classmethod
    def ignored_keys(cls, values: Mapping[str, Any], trains_on: str) -> set[str]:
        """Keys that have no effect on the weights because of others."""
        return set()


class TrainingData(ABC):
    """A prepared folder, opened for one configuration.

    Attributes:
        config: the configuration that it was opened for.
        labels: the labels that a method may refine; None where there are none.
        preparation: how the cases were prepared, for the checkpoint; None: unknown, or not needed.
        nbytes: memory that the training data take on a device.
    """

    config: Any
    labels: Any
    preparation: Any
    nbytes: Any

    @property
    def spec(self) -> DatasetSpec:
        """The description of the data set, which the checkpoint stores for prediction."""
        return self.config.spec

    @abstractmethod
    def fit_normalisation(self) -> Normalisation:
        """The intensity rule, with statistics of the training cases where it needs them."""

    @abstractmethod
    def loader(
        self, normalisation: Normalisation, seed: int, batch_size: int, steps: range, options: LoaderOptions
    ) -> DataLoader:
        """A loader whose k-th batch belongs to the k-th of `steps`, for this process."""

    @abstractmethod
    def contents(self) -> dict[str, str]:
        """What the run and its scores depend on, as it is now: file -> hash, and line of a table -> its text.

        Unchanged files are not read again (see `util.records.hash_files`).
        """

    @abstractmethod
    def trained_cases(self) -> dict[str, str]:
        """Case -> patient, of the cases that are trained on."""

    @abstractmethod
    def tested_cases(self) -> dict[str, str]:
        """Case -> patient, of the cases that are scored.

        Raises:
            DataError: there are none.
        """

    @abstractmethod
    def describe(self) -> str:
        """What is trained on, for the log."""
