"""What of a set of images is segmented, and on which part of the prepared image."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Shaped

from dataloaders.description import DatasetSpec


@dataclass(frozen=True)
class ImageTask:
    """The structures that a network segments, and the window of the prepared image that it sees.

    Attributes:
        spec: the data set.
        structures: names of classes; empty: the first class.
        size_px: side of the prepared images; None: the data set's.
    """

    spec: DatasetSpec
    structures: tuple[str, ...] = ()
    size_px: int | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The K structures; their places are the class values from 1 on which the network is trained."""
        return self.structures or (self.spec.classes[0].name,)

    @property
    def supplied_values(self) -> dict[str, int]:
        """Structure -> value in label maps as they were supplied."""
        return {name: self.spec.supplied_value(self.spec.class_names.index(name)) for name in self.names}

    @property
    def side_px(self) -> int:
        """Rows and columns of the prepared images."""
        return self.size_px or self.spec.grid.size_px

    @property
    def window(self) -> tuple[slice, slice]:
        """The rows and columns that are used: a structure's own crop where it is learned alone."""
        first, *others = self.names
        if others:
            return slice(0, self.side_px), slice(0, self.side_px)
        return self.spec.structure(first).window(self.side_px)

    def in_full(self, part: Shaped[np.ndarray, "*K h w"]) -> Shaped[np.ndarray, "*K S S"]:
        """Pads maps of the window to the whole prepared image with 0; same dtype."""
        full = np.zeros((*part.shape[:-2], self.side_px, self.side_px), part.dtype)
        full[..., *self.window] = part
        return full
