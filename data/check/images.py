"""Validates a prepared set of single images: files, sizes, values, splits and patients."""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from data.check.rules import Finding
from data.check.splits import separate_patients, sound_splits, unique_images
from dataloaders.description import FILE_NAME, DatasetSpec, read_description
from dataloaders.images.derived import Derived, noise_of, superpixels_of
from dataloaders.images.folder import (
    DESCRIPTION,
    FAILED,
    MANIFEST,
    ImageFolder,
    NoiseConfig,
    SuperpixelConfig,
    prepare_command,
)
from dataloaders.io.png import read_image, read_superpixels
from util.errors import DataError, UserError
from util.files import read_json_object
from util.inventory import NAMED_AT_MOST
from util.items import Failures, catching

MASK_VALUES = (0, 255)

Kind = Literal["image", "mask", "field of view", "noisy mask", "superpixels"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class File:
    """A file that the manifest implies, and the fix where it is not as expected."""

    path: Path
    kind: Kind
    is_training: bool
    remedy: str


@dataclass(frozen=True)
class PictureFacts:
    """Content of a file; `values` are those that occur in a mask, ascending; empty for other kinds."""

    shape: tuple[int, ...]
    values: tuple[int, ...] = ()


def check_images(
    folder: Path,
    spec: DatasetSpec,
    structures: Sequence[str] = (),
    noise: NoiseConfig | None = None,
    superpixel: SuperpixelConfig | None = None,
    jobs: int = 4,
    splits: Sequence[str] = (),
) -> list[Finding]:
    """Validates everything that a training run or a score depends on.

    Args:
        folder: prepared folder.
        spec: the set of images.
        structures: whose masks to check; empty: all.
        noise: also check the noisy masks of the training images; None, or an alpha of 0: none are needed.
        superpixel: also check the superpixels of the training images, those of the first structure; None: none are
            needed.
        jobs: files read at a time.
        splits: that must not be empty, see `data.check.splits.sound_splits`.

    Returns:
        Errors first, then warnings; empty where all is well. Equal findings in one folder are reported once.

    Raises:
        ConfigError: an unknown structure, or superpixels that the images do not allow.
    """
    names = [spec.structure(name).name for name in structures] or [structure.name for structure in spec.classes]
    images = ImageFolder(folder, spec) if (folder / MANIFEST).exists() else None
    try:
        rows = images.rows if images else []
    except DataError as error:
        return [Finding("error", folder / MANIFEST, str(error).removeprefix(f"{folder / MANIFEST}: "))]
    if images is None or not rows:
        text = f"{'no such file' if images is None else 'no image'}. {_prepare(spec, folder)}"
        others = sorted(path.parent.name for path in folder.parent.glob(f"*/{MANIFEST}") if path.parent != folder)
        text += f" Prepared here: {', '.join(others)}; --size-px chooses the size." if others else ""
        return [Finding("error", folder / MANIFEST, text)]
    findings = [
        *_failed_images(images),
        *_same_description(images),
        *sound_splits(images, splits),
        *separate_patients(images),
        *unique_images(images),
    ]
    files = list(_prepared_files(images, names))
    stale = []
    for kind, made in _derived(images, names, noise, superpixel):
        failures: Failures = {}
        with catching(failures, kind, made.folder):
            failures |= {kind: problem} if (problem := made.problem()) else {}
        if problem := failures.get(kind):
            stale.append((made, Finding("error", made.folder, problem)))
        else:
            remedy = f"Delete {made.folder} and run `{made.command}`."
            files += [File(made.path(image_id), kind, True, remedy) for image_id in images.ids("train")]
    with ThreadPoolExecutor(jobs) as pool:
        facts = list(pool.map(_read_facts, files))
    findings += _unreadable(files, facts)
    sound = [(file, each) for file, each in zip(files, facts, strict=True) if isinstance(each, PictureFacts)]
    findings += [*_equal_shapes(sound, spec), *_sound_masks(sound)]
    faulty = {finding.file for finding in findings if finding.severity == "error"}
    findings += [finding for made, finding in stale if faulty.isdisjoint(made.inputs)]  # else a consequence
    return sorted(_gathered(findings), key=lambda finding: finding.severity)


def require_valid_images(
    folder: Path,
    spec: DatasetSpec,
    structures: Sequence[str] = (),
    noise: NoiseConfig | None = None,
    superpixel: SuperpixelConfig | None = None,
    jobs: int = 4,
    splits: Sequence[str] = (),
) -> None:
    """Runs `check_images` and logs the warnings.

    Raises:
        ConfigError: as `check_images`.
        DataError: there are errors; the message lists them all.
    """
    findings = check_images(folder, spec, structures, noise, superpixel, jobs, splits)
    errors = [finding for finding in findings if finding.severity == "error"]
    for finding in findings:
        if finding.severity == "warning":
            log.warning("%s", finding)
    if errors:
        lines = "\n".join(f"  {finding.file}: {finding.text}" for finding in errors)
        raise DataError(f"{folder}: {len(errors)} error(s) in the prepared images of {spec.name}:\n{lines}")


def _prepare(spec: DatasetSpec, folder: Path) -> str:
    return f"Run `{prepare_command(spec, folder)}`."


def _failed_images(images: ImageFolder) -> Iterator[Finding]:
    """Every image that was found could be prepared."""
    path = images.folder / DESCRIPTION
    failed = read_json_object(path).get(FAILED, {}) if path.exists() else {}
    if failed:
        named = "\n    ".join(list(map(str, failed.values()))[:NAMED_AT_MOST])
        more = f"\n    and {len(failed) - NAMED_AT_MOST} more" if len(failed) > NAMED_AT_MOST else ""
        text = (
            f"{len(failed)} images could not be prepared the last time and are missing:\n    {named}{more}\n  Correct "
        )
        yield Finding("error", path, f"{text}or remove these. {_prepare(images.spec, images.folder)}")


def _same_description(images: ImageFolder) -> Iterator[Finding]:
    """The folder was prepared with the classes and channels that the given description has."""
    path = images.folder / FILE_NAME
    if not path.exists():
        return
    try:
        stored = read_description(path)
    except UserError as error:
        yield Finding("error", path, f"{str(error).removeprefix(f'{path}: ')} {_prepare(images.spec, images.folder)}")
        return
    for key in ("name", "class_names", "channels"):
        found, expected = getattr(stored, key), getattr(images.spec, key)
        if found != expected:
            text = (
                f"prepared with {key} {found}; the description has {expected}. {_prepare(images.spec, images.folder)}"
            )
            yield Finding("error", path, text)


def _prepared_files(images: ImageFolder, structures: Sequence[str]) -> Iterator[File]:
    remedy = f"Delete it and run `{prepare_command(images.spec, images.folder)}` again."
    for row in images.rows:
        image_id, is_training = row["id"], row["split"] == "train"
        yield File(images.image_path(image_id), "image", is_training, remedy)
        for name in structures:
            yield File(images.mask_path(image_id, name), "mask", is_training, remedy)
        if row.get("field"):
            yield File(images.field_path(image_id), "field of view", is_training, remedy)


def _derived(
    images: ImageFolder, structures: Sequence[str], noise: NoiseConfig | None, superpixel: SuperpixelConfig | None
) -> Iterator[tuple[Kind, Derived]]:
    """What training needs besides images and masks."""
    for name in structures if noise and noise.alpha else ():
        yield "noisy mask", noise_of(images, noise, name)  # type: ignore[arg-type] - there is noise
    if superpixel is not None:
        yield "superpixels", superpixels_of(images, superpixel, structures[0])


def _read_facts(file: File) -> PictureFacts | str:
    """The facts, or the reason why the file cannot be read."""
    if not file.path.exists():
        return f"is missing, though {MANIFEST} lists its image."
    failures: Failures = {}
    with catching(failures, file.kind, file.path):
        if file.kind == "superpixels":
            return PictureFacts(read_superpixels(file.path).shape)
        array = read_image(file.path)
        values = () if file.kind == "image" else np.flatnonzero(np.bincount(array.ravel(), minlength=256)).tolist()
        return PictureFacts(array.shape, tuple(values))
    return failures[file.kind].removeprefix(f"{file.path}: ")


def _unreadable(files: Sequence[File], facts: Sequence[PictureFacts | str]) -> Iterator[Finding]:
    """Every file exists and is complete."""
    for file, each in zip(files, facts, strict=True):
        if isinstance(each, str):
            yield Finding("error", file.path, f"{each} {file.remedy}")


def _equal_shapes(sound: Sequence[tuple[File, PictureFacts]], spec: DatasetSpec) -> Iterator[Finding]:
    """All images, masks and superpixels have one size; the number of channels is that of the set."""
    sizes = Counter(facts.shape[:2] for file, facts in sound if file.kind == "image")
    usual = sizes.most_common(1)[0][0] if sizes else None
    for file, facts in sound:
        size, n_channels = facts.shape[:2], facts.shape[2] if len(facts.shape) == 3 else 1
        n_expected = spec.channels if file.kind == "image" else 1
        if usual and size != usual:
            text = f"{size[0]} x {size[1]} pixels; expected {usual[0]} x {usual[1]}, as most images have. {file.remedy}"
            yield Finding("error", file.path, text)
        if n_channels != n_expected:
            yield Finding("error", file.path, f"{n_channels} channel(s); expected {n_expected}. {file.remedy}")


def _sound_masks(sound: Sequence[tuple[File, PictureFacts]]) -> Iterator[Finding]:
    """Masks are binary; those of training images are not empty."""
    for file, facts in sound:
        if file.kind not in ("mask", "noisy mask", "field of view"):
            continue
        if set(facts.values) - set(MASK_VALUES):
            text = f"values {', '.join(map(str, facts.values[:5]))}; expected only 0 and 255. {file.remedy}"
            yield Finding("error", file.path, text)
        elif file.kind == "mask" and file.is_training and not any(facts.values):
            text = (
                "an empty mask of a training image. Nothing to do if the image truly shows none; else correct the mask."
            )
            yield Finding("warning", file.path, text)


def _gathered(findings: Iterable[Finding]) -> Iterator[Finding]:
    """Merges equal findings about several files of a folder into one, about the first."""
    groups: dict[tuple[str, Path, str], list[Finding]] = {}
    for finding in findings:
        groups.setdefault((finding.severity, finding.file.parent, finding.text), []).append(finding)
    for first, *others in groups.values():
        more = f" (And {len(others)} more there.)" if others else ""
        yield Finding(first.severity, first.file, first.text + more)
