"""Training scans as memory-mapped arrays, packed once, so that a step reads slices instead of files."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from dataloaders.fewshot.episodes import SliceStack
from dataloaders.fewshot.propagated import PropagatedFolder
from dataloaders.io.packed import packed
from dataloaders.scans.folder import PreparedFolder
from dataloaders.scans.normalise import Normalisation
from util.errors import DataError
from util.records import hash_files

PACKED = ".packed"  # folder of the packed arrays, in the prepared folder


def pack_slices(
    folder: PreparedFolder,
    scans: Sequence[str],
    scale: str | None,
    normalisation: Normalisation,
    propagated: PropagatedFolder | None = None,
) -> SliceStack:
    """Packs the slices of some scans with their superpixels of a scale, or with their labels (`scale` None).

    Each scan is packed at its first use; later uses read a few numbers per slice only. With `propagated`, the labels
    are those of another folder.

    Raises:
        DataError: scans of different in-plane sizes, or superpixels that are missing, stale or do not fit their image.
    """
    kind = "label" if scale is None else f"superpix-{scale}"
    kinds = ("image",) if propagated else ("image", kind)
    hash_files([folder.path(each, scan) for each in kinds for scan in scans], folder.folder)  # all at once
    if scale is not None:
        folder.require_current_pseudo_labels(scans, scale)
    image = [_packed(folder, scan, "image", "image", partial(_image, folder, scan)) for scan in scans]
    facts = [_packed(folder, scan, "image", "facts", partial(_facts, folder, scan)) for scan in scans]
    if propagated is None:
        ids = [_packed(folder, scan, kind, kind, partial(_ids, folder, scan, scale)) for scan in scans]
    else:
        ids = [_packed_labels(propagated, scan) for scan in scans]
    for scan, one, other in zip(scans, image, ids, strict=True):
        _check(folder, scan, one, other, image[0])
    lengths = [len(each) for each in image]
    present = None
    if scale is not None:
        listed = [_packed(folder, scan, kind, f"{kind}-ids", partial(_present, folder, scan, scale)) for scan in scans]
        values = np.concatenate([each[1] for each in listed]).astype(np.int32)
        counts = np.concatenate([np.bincount(each[0], minlength=n) for each, n in zip(listed, lengths, strict=True)])
        present = values, np.concatenate([[0], np.cumsum(counts)])
    mean, std = np.array(facts).T if normalisation.mean is None else ([normalisation.mean], [normalisation.std])
    return SliceStack(
        image,
        ids,
        _per_slice(mean, lengths),
        np.maximum(_per_slice(std, lengths), 1e-8),
        np.repeat(scans, lengths),
        np.concatenate([np.arange(length) for length in lengths]),
        np.repeat(np.arange(len(scans)), lengths),
        present,
    )


def _packed(folder: PreparedFolder, scan: str, kind: str, name: str, read: Callable[[Path], np.ndarray]) -> np.ndarray:
    file = folder.path(kind, scan)
    if not file.exists():
        read(file)  # raises the error that names the file and the remedy
    return packed([file], read, folder.folder / PACKED / f"{name}_{scan}", folder.folder)[0]


def _packed_labels(propagated: PropagatedFolder, scan: str) -> np.ndarray:
    cache = propagated.folder / PACKED / f"label_{scan}"
    return packed([propagated.path(scan)], lambda _: propagated.read(scan).astype(np.int32), cache)[0]


def _per_slice(values: Sequence[float | None] | np.ndarray, lengths: Sequence[int]) -> np.ndarray:
    return np.repeat(np.broadcast_to(np.asarray(values, np.float64), len(lengths)), lengths)


def _image(folder: PreparedFolder, scan: str, _: Path) -> np.ndarray:
    return folder.image(scan).array.astype(np.float32)


def _facts(folder: PreparedFolder, scan: str, _: Path) -> np.ndarray:
    """(2,) mean and standard deviation of all voxels."""
    array = folder.image(scan).array.astype(np.float64)
    return np.array([array.mean(), array.std()])


def _ids(folder: PreparedFolder, scan: str, scale: str | None, _: Path) -> np.ndarray:
    labelled = folder.label(scan) if scale is None else folder.pseudo_label(scan, scale)
    return labelled.array.astype(np.int32)


def _present(folder: PreparedFolder, scan: str, scale: str, _: Path) -> np.ndarray:
    """(2, M) slice and id of every superpixel, in ascending order."""
    array = folder.pseudo_label(scan, scale).array
    pairs = [(z, value) for z, ids in enumerate(array) for value in np.setdiff1d(ids, 0)]
    return np.array(pairs, np.int64).reshape(-1, 2).T.copy()


def _check(folder: PreparedFolder, scan: str, image: np.ndarray, ids: np.ndarray, first: np.ndarray) -> None:
    if ids.shape != image.shape:
        raise DataError(
            f"{folder.folder}: scan {scan} has an image of shape {image.shape} but labels of shape {ids.shape}; "
            "expected the same. Run `frugalseg check` on the folder."
        )
    if image.shape[1:] != first.shape[1:]:
        sizes = sorted({image.shape[1:], first.shape[1:]})
        raise DataError(f"{folder.folder}: training scans of different in-plane sizes {sizes}; expected one.")
