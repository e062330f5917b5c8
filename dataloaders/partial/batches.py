"""The batches of a training step: as many images of each data set, as views, with what is known of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.utils.data import Dataset

from dataloaders.ordering import Part
from dataloaders.partial.config import PartialDataConfig
from dataloaders.partial.store import Store
from dataloaders.partial.tasks import known_task_numbers
from dataloaders.samples import PartialBatch
from dataloaders.transforms import views


@dataclass(frozen=True)
class Stream:
    """The images of one data set in one part of a batch.

    Attributes:
        store: images and masks.
        part: which images, in which order.
        source: number of the data set.
        known: (K,) bool, the channels that its masks are given for.
        mirror_p: of each image, the probability that its columns are mirrored; None: that of the augmentation.
    """

    store: Store
    part: Part
    source: int
    known: np.ndarray
    mirror_p: Float[np.ndarray, " N"] | None = None


class PartialDataset(Dataset[PartialBatch]):
    """Item k is one part of the batch of step k on this process.

    Args:
        streams: one per data set.
        config: tasks, size and augmentation.
        is_strong: strong views, with the weak ones beside them; else plain views.
    """

    def __init__(self, streams: Sequence[Stream], config: PartialDataConfig, is_strong: bool) -> None:
        self.streams, self.config, self.is_strong = tuple(streams), config, is_strong

    def __getitem__(self, step: int) -> PartialBatch:
        parts = [self._views(stream, step) for stream in self.streams]
        whole = [torch.cat(each) for each in zip(*(part[:4] for part in parts), strict=True)]
        image, label, valid, unmoved = whole
        known = torch.from_numpy(np.repeat([stream.known for stream in self.streams], self._sizes, axis=0))
        source = torch.tensor([stream.source for stream in self.streams]).repeat_interleave(torch.tensor(self._sizes))
        return PartialBatch(
            image=self.config.normalise(image),
            label=label,
            is_known=known.to(image.device, non_blocking=True),
            valid=valid,
            source=source.to(image.device, non_blocking=True),
            tasks=tuple(numbers for stream in self.streams for numbers in self._tasks(stream)),
            weak=self.config.normalise(unmoved) if self.is_strong else None,
        )

    @property
    def _sizes(self) -> list[int]:
        return [stream.part.batch_size for stream in self.streams]

    def _tasks(self, stream: Stream) -> list[tuple[int, ...]]:
        known = [int(channel) for channel in np.flatnonzero(stream.known)]
        return [known_task_numbers(known, self.config.task_list)] * stream.part.batch_size

    def _views(
        self, stream: Stream, step: int
    ) -> tuple[Tensor, Bool[Tensor, "B K h w"], Bool[Tensor, "B V h w"], Tensor]:
        """Images (B, C, h, w) from 0 to 1, masks, pixels that count, and the images before they were disturbed."""
        numbers = stream.part.numbers(step)
        positions = np.array([stream.part.item(number) for number in numbers])
        generators = [stream.part.generator("augmentation", number) for number in numbers]
        image, planes = stream.store.images(positions), stream.store.planes(positions)
        drawn = views.draw(
            generators, self.config.augmentation, self.config.side_px, self.config.input_px, self.is_strong,
            None if stream.mirror_p is None else stream.mirror_p[positions],
        ).to(image.device)  # fmt: skip
        weak, inside = views.move(image, drawn)
        marked, unknown = stream.store.unpack(views.move_labels(planes, drawn), len(stream.known))
        if not self.is_strong:
            return weak, marked, inside[:, None], weak
        strong, kept = views.disturb(weak, drawn, self.config.augmentation)
        return strong, marked, (inside & kept)[:, None] & ~unknown, weak
