"""Training episodes: which slice, which pseudo-class, which two views of it. Drawn by number, so replayable."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.data import Dataset

from dataloaders import transforms
from dataloaders.ordering import item_at, numbers_of_step
from dataloaders.samples import Episode
from util.errors import DataError
from util.runtime.seeding import generator_for

VIEWS = ("support_view", "query_view")  # names of their random streams


@dataclass(frozen=True)
class SliceStack:
    """All training slices, one after another, with an id map each (superpixels, or classes).

    The large arrays are memory-mapped, one per scan, or on a device; only the slices asked for are read.

    Attributes:
        image: of each scan (D, H, W) stored intensities, float32; or one tensor of all slices.
        ids: likewise what a pixel belongs to, int32; 0 is nothing.
        mean, std: (slices,) float64, what the intensities are normalised by.
        scan, z: (slices,) where a slice comes from: the scan's id (text), and its place in the scan.
        place: (slices,) the scan's place among `image` and `ids`.
        present: ids on each slice: `values[offsets[s] : offsets[s + 1]]`; None for labels.
    """

    image: Sequence[np.ndarray] | Tensor
    ids: Sequence[np.ndarray] | Tensor
    mean: np.ndarray
    std: np.ndarray
    scan: np.ndarray
    z: np.ndarray
    place: np.ndarray
    present: tuple[np.ndarray, np.ndarray] | None = None

    def __len__(self) -> int:
        return len(self.z)

    def images(self, slices: Sequence[int]) -> Float[Tensor, "B 1 H W"]:
        """Normalised intensities."""
        image = self._take(self.image, slices)
        mean, std = (
            torch.from_numpy(values[list(slices)]).to(image.device, non_blocking=True)
            for values in (self.mean, self.std)
        )
        return ((image.double() - mean[:, None, None]) / std[:, None, None]).float()[:, None]

    def id_maps(self, slices: Sequence[int]) -> Int[Tensor, "B H W"]:
        """Id maps."""
        return self._take(self.ids, slices)

    @property
    def nbytes(self) -> int:
        """What the large arrays take."""
        return sum(array.nbytes for arrays in (self.image, self.ids) for array in arrays)

    def on(self, device: torch.device) -> "SliceStack":
        """The same with its large arrays on a device, copied scan by scan."""
        large = (self.image, self.ids)
        image, ids = (torch.cat([torch.from_numpy(np.array(one)).to(device) for one in each]) for each in large)
        return replace(self, image=image, ids=ids)

    def _take(self, arrays: Sequence[np.ndarray] | Tensor, slices: Sequence[int]) -> Tensor:
        if isinstance(arrays, Tensor):
            return arrays[torch.tensor(slices).to(arrays.device, non_blocking=True)]
        return torch.from_numpy(np.stack([arrays[self.place[s]][self.z[s]] for s in slices]))


@runtime_checkable
class Drawer(Protocol):
    """Chooses the slices and the target of an episode."""

    def draw(self, number: int) -> tuple[int, int, int]:
        """(slice of the support, slice of the query, id) of the episode with this number."""
        ...


class PseudoClassDrawer:
    """Superpixel episodes: both views show one slice, the target is one of the ids present on it.

    Slices are shuffled anew in every pass, ids are drawn uniformly among those present; no id is missed, no target is
    empty. (The reference draws from 1 to the second highest id, present or not.)

    Source: SSL-ALPNet, section 3.2.
    """

    def __init__(self, stack: SliceStack, is_usable: np.ndarray, seed: int, pass_length: int | None = None) -> None:
        """Lists the ids of every usable slice.

        Args:
            stack: the training slices with superpixel ids.
            is_usable: (D,) bool; False for slices that show a class kept from training.
            seed: of the whole run.
            pass_length: episodes in one pass; None or less than the slices: every slice once.

        Raises:
            DataError: no usable slice has a pseudo-label.
        """
        if stack.present is None:
            raise ValueError("a stack of labels; expected one of superpixels")
        self.values, self.offsets = stack.present
        self.slices = np.flatnonzero((np.diff(self.offsets) > 0) & is_usable)
        if not len(self.slices):
            raise DataError(
                "no training slice is left: each is without pseudo-labels or shows a class of exclude_cls_list. Check "
                "the folder with `frugalseg check`, or exclude fewer classes."
            )
        self.seed = seed
        self.pass_length = max(pass_length or 0, len(self.slices))

    def draw(self, number: int) -> tuple[int, int, int]:
        """One slice for both views, and one id on it."""
        place = item_at(self.slices, number, self.seed, self.pass_length)
        ids = self.values[self.offsets[place] : self.offsets[place + 1]]
        generator = generator_for(self.seed, "episode", number)
        return place, place, int(ids[generator.integers(len(ids))])


class ClassDrawer:
    """Annotated episodes: support and query are two slices that show the same class, of two scans where possible.

    Source: the paper's comparison methods trained on annotations (PANet, ALPNet without self-supervision).
    """

    def __init__(self, slices_of_class: dict[int, list[int]], stack: SliceStack, seed: int) -> None:
        """Takes {class value: positions of the slices that show it}; classes on fewer than two slices are left out.

        Raises:
            DataError: no class has two slices.
        """
        self.slices_of_class = {value: np.array(s) for value, s in sorted(slices_of_class.items()) if len(s) > 1}
        if not self.slices_of_class:
            raise DataError("no training class is on two slices: check label_sets, exclude_cls_list, min_fg_data.")
        self.scan, self.seed = stack.scan, seed

    def draw(self, number: int) -> tuple[int, int, int]:
        """A class, a support slice showing it, and a query slice showing it."""
        generator = generator_for(self.seed, "episode", number)
        value = list(self.slices_of_class)[int(generator.integers(len(self.slices_of_class)))]
        slices = self.slices_of_class[value]
        support = int(generator.choice(slices))
        others = slices[self.scan[slices] != self.scan[support]]
        if not len(others):
            others = slices[slices != support]
        return support, int(generator.choice(others)), value


class EpisodeDataset(Dataset[Episode]):
    """Item k is the batch of training step k on this process."""

    def __init__(
        self,
        stack: SliceStack,
        drawer: Drawer,
        augmentation: transforms.AugmentConfig,
        seed: int,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        apply: Callable[..., tuple[Tensor, Tensor]] = transforms.apply,
    ) -> None:
        self.stack, self.drawer, self.augmentation, self.seed = stack, drawer, augmentation, seed
        self.batch_size, self.rank, self.world_size, self.apply = batch_size, rank, world_size, apply

    def numbers(self, step: int) -> Sequence[int]:
        """Episode numbers of this process at a step."""
        return numbers_of_step(step, self.batch_size, self.rank, self.world_size)

    def __getitem__(self, step: int) -> Episode:
        numbers = self.numbers(step)
        support, query, target = (list(part) for part in zip(*map(self.drawer.draw, numbers), strict=True))
        slices, targets = [*support, *query], torch.tensor(target).repeat(2)
        image = self.stack.images(slices)
        mask = self.stack.id_maps(slices) == targets.to(image.device, non_blocking=True)[:, None, None]
        generators = [generator_for(self.seed, view, number) for view in VIEWS for number in numbers]
        drawn = transforms.draw(generators, self.augmentation, (image.shape[-2], image.shape[-1]))
        image, mask = self.apply(image, mask, drawn.to(image.device), self.augmentation)
        (support_image, query_image), (support_mask, query_mask) = image.chunk(2), mask.chunk(2)
        return Episode(support_image[:, None], support_mask[:, None], query_image[:, None], query_mask[:, None])
