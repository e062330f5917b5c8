"""What a picture page shows of a case, as arrays: the image, the expert's masks, and what exists beside them."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Integer, UInt8

from dataloaders.description import DatasetSpec
from dataloaders.partial.pseudo import PseudoLabelFolder, read_pseudo_label
from util.errors import DataError

SUPERPIXELS, NOISE, PSEUDO = "superpixels", "noise", "pseudo-labels"


@dataclass(frozen=True)
class Layer:
    """Something that can be shown on the images of a set.

    Attributes:
        kind: `SUPERPIXELS`, `NOISE` or `PSEUDO`.
        name: of the superpixels or of the noise; empty: there is one of the kind.
        n_cases: that have it.
    """

    kind: str
    name: str
    n_cases: int

    @property
    def title(self) -> str:
        """In the page."""
        return layer_title(self.kind, self.name)


def layer_title(kind: str, name: str = "") -> str:
    """How the page names a layer."""
    return f"{kind.capitalize()} {name}".strip()


@dataclass(frozen=True)
class CasePicture:
    """An image, or the slice that stands for a scan.

    Attributes:
        place: which slice; empty for images.
        image: grey or RGB.
        aspect: height of a pixel per width.
        masks: class value -> the expert's mask; empty: not labelled.
        n_pixels: class value -> labelled pixels of the whole case.
        shape: of the whole case, (D, H, W) or (H, W).
        spacing_mm: (z, y, x); empty for images.
        superpixels: name -> ids.
        noisy: name of the noise -> class value -> mask.
        pseudo: class -> 0, `MARKED` or `UNKNOWN`, see `dataloaders.partial.store`.
    """

    image: UInt8[np.ndarray, "H W *C"]
    masks: Mapping[int, Bool[np.ndarray, "_ _"]]
    n_pixels: Mapping[int, int]
    shape: tuple[int, ...]
    place: str = ""
    aspect: float = 1.0
    spacing_mm: tuple[float, ...] = ()
    superpixels: Mapping[str, Integer[np.ndarray, "_ _"]] = field(default_factory=dict)
    noisy: Mapping[str, Mapping[int, Bool[np.ndarray, "_ _"]]] = field(default_factory=dict)
    pseudo: Mapping[str, UInt8[np.ndarray, "_ _"]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        noisy = {
            f"noise {name}, class {value}": one for name, each in self.noisy.items() for value, one in each.items()
        }
        masks = {f"mask of class {value}": mask for value, mask in self.masks.items()}
        for name, array in {**masks, **noisy, **self.superpixels, **self.pseudo}.items():
            if array.shape != self.image.shape[:2]:
                raise DataError(
                    f"{name}: {array.shape} pixels; expected those of the image, {self.image.shape[:2]}. Make it again."
                )


class CaseSource(ABC):
    """The cases of a prepared set; one is read at a time.

    Args:
        spec: the data set.
        folder: the prepared folder.
        pseudo: folder of pseudo-labels; None: none are shown.
    """

    def __init__(self, spec: DatasetSpec, folder: Path, pseudo: Path | None = None) -> None:
        self.spec, self.folder = spec, folder
        self.pseudo = PseudoLabelFolder(pseudo) if pseudo else None
        self.pseudo_classes, self.pseudo_ids = self.pseudo.contents(spec.name) if self.pseudo else ((), frozenset())

    @cached_property
    @abstractmethod
    def splits(self) -> dict[str, tuple[str, ...]]:
        """Split -> ids, none of them empty."""

    @cached_property
    @abstractmethod
    def layers(self) -> tuple[Layer, ...]:
        """What exists beside the images."""

    @property
    @abstractmethod
    def unfinished(self) -> tuple[str, ...]:
        """Folders of layers that are left out, because the command that writes them has not ended."""

    @property
    @abstractmethod
    def stale(self) -> dict[str, str]:
        """Layer -> what has changed since of the files that it was made from; pseudo-labels are not compared.

        Raises:
            DataError: a file cannot be read.
        """

    @abstractmethod
    def path(self, case_id: str) -> Path:
        """The file of an image."""

    @abstractmethod
    def read(self, case_id: str) -> CasePicture:
        """Reads a case.

        Raises:
            DataError: one of its files is absent or damaged.
        """

    def pseudo_layer(self, n_cases: int) -> tuple[Layer, ...]:
        """The layer of pseudo-labels, if there is one."""
        return (Layer(PSEUDO, "", n_cases),) if self.pseudo else ()

    def read_pseudo(self, image_id: str) -> dict[str, UInt8[np.ndarray, "H W"]]:
        """Class -> codes of a training image or slice; empty where it has none."""
        if self.pseudo is None or image_id not in self.pseudo_ids:
            return {}
        paths = {name: self.pseudo.path(self.spec.name, name, image_id) for name in self.pseudo_classes}
        return {name: read_pseudo_label(path) for name, path in paths.items()}
