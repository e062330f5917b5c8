"""The data types passed between files, samplers, methods and scores: frozen, typed, without behaviour of their own.

Axes, everywhere in this project: B batch, S support shots, Q queries, N prototypes, K classes, P parts of an organ
along z, C channels, D slices (z), H rows, W columns, h w feature grid.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor


@dataclass(frozen=True)
class StoredGeometry:
    """The fields of a NIfTI header that say where the voxels are, as they were read.

    A result that covers the same voxels is written with the same fields, so that every viewer shows it on the scan,
    whichever of them the viewer believes.

    Attributes:
        sform_code, qform_code: what the two matrices refer to; 0: not valid.
        unit: mm, meter or micron, of all lengths below.
        pixdim: (4,) handedness of the qform, then the voxel's size (x, y, z).
        quaternion: (3,) b, c, d of the qform.
        qoffset: (3,) place of the first voxel in the qform.
        sform: (3, 4).
    """

    sform_code: int
    qform_code: int
    unit: str
    pixdim: tuple[float, ...]
    quaternion: tuple[float, ...]
    qoffset: tuple[float, ...]
    sform: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Volume:
    """A scan and its position in the patient.

    Attributes:
        array: (D, H, W), any dtype; `array[z, y, x]`.
        affine: (4, 4) float64; maps a voxel's (column x, row y, slice z, 1) to RAS+ millimetres, as NIfTI does.
        stored: how the file says so, where that is more than this affine with both codes 1; only for its own grid.
    """

    array: np.ndarray
    affine: np.ndarray
    stored: StoredGeometry | None = None

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between neighbouring voxel centres along (z, y, x), in millimetres."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(z), float(y), float(x)


@dataclass(frozen=True)
class Cine:
    """A scan of one or several frames, all on one grid, and the label maps of those that are annotated.

    Attributes:
        frames: in their order in time; a scan without time has one.
        labels: number of the frame, from 0 -> its label map; empty: the scan is not labelled.
    """

    frames: tuple[Volume, ...]
    labels: Mapping[int, Volume]


Sample = TypeVar("Sample")


def map_tensors(value: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """Applies `function` to every tensor within dataclasses, tuples, lists and dicts of any depth; the rest is kept."""
    if isinstance(value, Tensor):
        return function(value)
    if is_dataclass(value) and not isinstance(value, type):
        return type(value)(**{each.name: map_tensors(getattr(value, each.name), function) for each in fields(value)})
    if isinstance(value, Mapping):
        return {name: map_tensors(each, function) for name, each in value.items()}
    if isinstance(value, tuple | list):
        mapped = [map_tensors(each, function) for each in value]
        return type(value)(*mapped) if hasattr(value, "_fields") else type(value)(mapped)
    return value


class _OnDevice:
    """Moves every tensor of a frozen dataclass at once."""

    def to(self: Sample, device: torch.device, non_blocking: bool = False) -> Sample:
        """The same sample with its tensors on `device`."""
        return map_tensors(self, lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self: Sample) -> Sample:
        """The same sample in page-locked memory (called by `DataLoader(pin_memory=True)`)."""
        return map_tensors(self, Tensor.pin_memory)


@dataclass(frozen=True)
class Episode(_OnDevice):
    """B independent 1-way episodes: the query is to be segmented for what the mask marks in the support.

    Images are normalised intensities with one channel; the encoder repeats it where it needs three.
    """

    support_image: Float[Tensor, "B S 1 H W"]
    support_mask: Bool[Tensor, "B S H W"]
    query_image: Float[Tensor, "B Q 1 H W"]
    query_mask: Bool[Tensor, "B Q H W"]

    def __len__(self) -> int:
        return len(self.query_image)


@dataclass(frozen=True)
class SupportScan(_OnDevice):
    """An annotated scan as a whole.

    Attributes:
        image: normalised intensities.
        label: class values of all D slices; 255: unknown.
        spacing_mm: distance between neighbouring voxel centres along (z, y, x).
        slices: numbers of the P slices that represent the parts of each of the K classes, ascending.
    """

    image: Float[Tensor, "D 1 H W"]
    label: UInt8[Tensor, "D H W"]
    spacing_mm: tuple[float, float, float]
    slices: Int[Tensor, "K P"]


@dataclass(frozen=True)
class SupportSet(_OnDevice):
    """What defines the classes to segment: K classes, P annotated slices along z, S shots each; and the whole scans.

    Attributes:
        classes: label values, K of them.
        image: of the supporting slices.
        mask: of each class on its slices.
        scans: the S annotated scans, for methods that compare whole scans; empty where only slices are known.
    """

    classes: tuple[int, ...]
    image: Float[Tensor, "K P S 1 H W"]
    mask: Bool[Tensor, "K P S H W"]
    scans: tuple[SupportScan, ...] = ()


@dataclass(frozen=True)
class Origin:
    """Where a case comes from; empty: unknown.

    Attributes:
        patient: cases of one patient are never divided between training and test.
        phase: of a motion or an examination, such as "ED" of a heart.
        domain: hospital, scanner or study whose images look alike.
        centre: part of a domain, such as one of several hospitals with scanners of one vendor.
    """

    patient: str = ""
    phase: str = ""
    domain: str = ""
    centre: str = ""

    @classmethod
    def read(cls, cells: Mapping[str, Any]) -> "Origin":
        """The origin in a line of a table or an entry of a manifest."""
        return cls(**{name: str(cells.get(name) or "") for name in ORIGIN})

    def known(self) -> dict[str, str]:
        """What is known, by name."""
        return {name: value for name, value in asdict(self).items() if value}


# How the classes of a task relate to each other. independent: they may overlap. exclusive: at most one a pixel, such as
# lesions. nested: each is a part of the one before, such as the cup of the disc.
ClassRelation = Literal["independent", "exclusive", "nested"]


@dataclass(frozen=True)
class Task:
    """Classes that are annotated together; of nested ones the outermost first."""

    name: str
    classes: tuple[str, ...]  # each has a channel of its own
    relation: ClassRelation = "independent"


UNKNOWN = Origin()
ORIGIN = tuple(each.name for each in fields(Origin))  # columns of tables of files, manifests and scores


@dataclass(frozen=True)
class EvalCase(_OnDevice):
    """One scan to be segmented, without its ground truth.

    Attributes:
        scan_id: its name.
        classes: label values, K of them.
        image: normalised intensities.
        part: for each class and slice, the part of the support set that is nearest along z.
        origin: where it comes from.
        spacing_mm: distance between neighbouring voxel centres along (z, y, x); None: unknown.
        encoded: what a method has computed of the image, see `Method.encode_case`; None: nothing yet.
    """

    scan_id: str
    classes: tuple[int, ...]
    image: Float[Tensor, "D 1 H W"]
    part: Int[Tensor, "K D"]
    origin: Origin = UNKNOWN
    spacing_mm: tuple[float, float, float] | None = None
    encoded: Any = None


@dataclass(frozen=True)
class DenseBatch(_OnDevice):
    """B images with one class value per pixel.

    Images are normalised. Labels are 0 (background) to K - 1, as the method is to learn them: noisy, refined or clean.
    Superpixel ids start at 0 in every image; None if the method needs none.
    """

    image: Float[Tensor, "B C H W"]
    label: Int[Tensor, "B H W"]
    superpixel: Int[Tensor, "B H W"] | None = None

    def __len__(self) -> int:
        return len(self.image)


@dataclass(frozen=True)
class UnlabelledBatch(_OnDevice):
    """B normalised images without labels."""

    image: Float[Tensor, "B C H W"]

    def __len__(self) -> int:
        return len(self.image)


@dataclass(frozen=True)
class PartialBatch(_OnDevice):
    """B images of several data sets with K masks that may overlap, some of which are not annotated.

    The images of a data set are neighbours, and every batch of a run has equally many of each.

    Attributes:
        image: normalised.
        label: one mask per class, without a background class; False where nothing is known.
        is_known: whether the class is annotated in the image; if not, its mask is meaningless.
        valid: pixels that count, of all classes (V = 1) or of each (V = K); False in padding and other areas without a
            label.
        source: number of the image's data set.
        tasks: of each image, the numbers of the tasks of which a class is known. On the host, so that images can be
            sent to the heads of their tasks without waiting for the device.
        weak: the same views without the change of colours and the holes of `image`; None: not made.
    """

    image: Float[Tensor, "B C H W"]
    label: Bool[Tensor, "B K H W"]
    is_known: Bool[Tensor, "B K"]
    valid: Bool[Tensor, "B V H W"]
    source: Int[Tensor, " B"]
    tasks: tuple[tuple[int, ...], ...]
    weak: Float[Tensor, "B C H W"] | None = None

    def __len__(self) -> int:
        return len(self.image)


@dataclass(frozen=True)
class SourceBatch(_OnDevice):
    """B images of several sources, each with a partner whose look it may take on.

    Attributes:
        image: normalised intensities, 0 to 1.
        partner: images of any source, under the geometric augmentation of `image`.
        uniform: `N_UNIFORM` random numbers from 0 to 1 of each image, for what a method draws; they belong to the
            sample, so that any number of processes draws the same.
        label: class values; None: not annotated.
    """

    image: Float[Tensor, "B C H W"]
    partner: Float[Tensor, "B C H W"]
    uniform: Float[Tensor, "B N"]
    label: Int[Tensor, "B H W"] | None = None

    def __len__(self) -> int:
        return len(self.image)


N_UNIFORM = 64  # random numbers of each image in a `SourceBatch`
# Parts of a batch for methods that learn from label maps: slices of annotated scans, and of scans whose label maps were
# made without an annotation.
ANNOTATED, PROPAGATED = "annotated", "propagated"


@dataclass(frozen=True)
class JointBatch(_OnDevice):
    """The batch of a step that has several parts, such as labelled and unlabelled images; its length is their sum."""

    parts: Mapping[str, Any]  # name -> batch

    def __getitem__(self, name: str) -> Any:
        return self.parts[name]

    def __len__(self) -> int:
        return sum(map(len, self.parts.values()))


@dataclass(frozen=True)
class ImageCase(_OnDevice):
    """D independent images, segmented together into K classes, without their ground truth."""

    ids: tuple[str, ...]  # D of them
    classes: tuple[int, ...]  # the K foreground values
    image: Float[Tensor, "D C H W"]
    origins: tuple[Origin, ...] = ()  # D of them; empty: unknown

    def only(self, place: int) -> "ImageCase":
        """The case of a single one of the images."""
        part = slice(place, place + 1)
        return ImageCase(self.ids[part], self.classes, self.image[part], self.origins[part])
