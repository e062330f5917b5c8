"""Looks a prepared set of single images over: files, sizes, values and splits."""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from data.check.rules import Finding
from dataloaders.description import DatasetSpec
from dataloaders.images.folder import MANIFEST, ImageFolder, NoiseConfig, SuperpixelConfig, settings_of
from dataloaders.io.png import read_image, read_superpixels
from util.errors import DataError, UserError

MASK_VALUES = (0, 255)

Kind = Literal["image", "mask", "noisy mask", "superpixels"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class File:
    """A file that the manifest lets expect, and what to do when it is not as expected."""

    path: Path
    kind: Kind
    is_training: bool
    remedy: str


@dataclass(frozen=True)
class Made:
    """A folder with a file per training image, the record that is written last, and the command that makes it."""

    kind: Kind
    record: Path
    command: str

    def files(self, ids: Iterable[str]) -> list[File]:
        """The file of each image."""
        folder = self.record.parent
        remedy = f"Delete {folder} and run `{self.command}`."
        return [File(folder / f"{image_id}.png", self.kind, True, remedy) for image_id in ids]


@dataclass(frozen=True)
class Facts:
    """What a file holds; `values` are those that occur in a mask, ascending; empty for other kinds."""

    shape: tuple[int, ...]
    values: tuple[int, ...] = ()


def check_images(
    folder: Path,
    spec: DatasetSpec,
    structures: Sequence[str] = (),
    noise: NoiseConfig | None = None,
    superpixel: SuperpixelConfig | None = None,
    jobs: int = 4,
) -> list[Finding]:
    """Looks for everything that would spoil a training or a score.

    Args:
        folder: prepared folder.
        spec: the set of images.
        structures: whose masks to look at; empty: all.
        noise: also look at the training images' noisy masks; None, or an alpha of 0: none are needed.
        superpixel: also look at the training images' superpixels, made for the first structure as training uses them;
            None: none are needed.
        jobs: files read at a time.

    Returns:
        Errors first, then warnings; empty where all is well. Equal findings in one folder are told once.

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
        text = f"{'no such file' if images is None else 'no image'}. {_prepare(spec)}"
        return [Finding("error", folder / MANIFEST, text)]
    findings = [*_sound_splits(images), *_unique_images(images)]
    files = list(_prepared_files(images, names))
    for made in [*_noisy_masks(images, names, noise), *_superpixels(images, names[0], superpixel)]:
        if made.record.exists():
            files += made.files(images.ids("train"))
        else:
            findings.append(Finding("error", made.record.parent, f"not there, or not finished. Run `{made.command}`."))
    with ThreadPoolExecutor(jobs) as pool:
        facts = list(pool.map(_facts_of, files))
    findings += _unreadable(files, facts)
    sound = [(file, each) for file, each in zip(files, facts, strict=True) if isinstance(each, Facts)]
    findings += [*_equal_shapes(sound, spec), *_sound_masks(sound)]
    return sorted(_gathered(findings), key=lambda finding: finding.severity)


def require_valid_images(
    folder: Path,
    spec: DatasetSpec,
    structures: Sequence[str] = (),
    noise: NoiseConfig | None = None,
    superpixel: SuperpixelConfig | None = None,
    jobs: int = 4,
) -> None:
    """Does `check_images`; logs the warnings.

    Raises:
        ConfigError: as `check_images`.
        DataError: there are errors; the message lists them all.
    """
    findings = check_images(folder, spec, structures, noise, superpixel, jobs)
    errors = [finding for finding in findings if finding.severity == "error"]
    for finding in findings:
        if finding.severity == "warning":
            log.warning("%s", finding)
    if errors:
        lines = "\n".join(f"  {finding.file}: {finding.text}" for finding in errors)
        raise DataError(f"{folder}: {len(errors)} error(s) in the prepared images of {spec.name}:\n{lines}")


def _prepare(spec: DatasetSpec) -> str:
    return f"Run `python -m data.prepare {spec.name.lower()} --raw DIR --out DIR`."


def _sound_splits(images: ImageFolder) -> Iterator[Finding]:
    """Every image is in one split, and there are some for training and for testing."""
    manifest = images.folder / MANIFEST
    for image_id, count in Counter(row["id"] for row in images.rows).items():
        if count > 1:
            splits = ", ".join(row["split"] for row in images.rows if row["id"] == image_id)
            yield Finding(
                "error", manifest, f"{image_id} has {count} lines ({splits}); expected one. Remove the others."
            )
    for split in ("train", "test"):
        if not images.ids(split):
            text = f"no image in split {split!r}. Prepare again with the missing part, or with --split random:0.25."
            yield Finding("error", manifest, text)


def _unique_images(images: ImageFolder) -> Iterator[Finding]:
    """No training image is a test image under another name."""
    rows = [row for row in images.rows if row.get("image_sha256")]
    trained = {row["image_sha256"]: row["id"] for row in rows if row["split"] == "train"}
    for row in rows:
        twin = trained.get(row["image_sha256"])
        if row["split"] == "test" and twin not in (None, row["id"]):
            text = f"the same picture as {twin}, which is for training; scores will be too good. Leave one of them out."
            yield Finding("warning", images.image_path(row["id"]), text)


def _prepared_files(images: ImageFolder, structures: Sequence[str]) -> Iterator[File]:
    remedy = f"Delete it and run `python -m data.prepare {images.spec.name.lower()}` as before."
    for row in images.rows:
        image_id, is_training = row["id"], row["split"] == "train"
        yield File(images.image_path(image_id), "image", is_training, remedy)
        for name in structures:
            yield File(images.mask_path(image_id, name), "mask", is_training, remedy)


def _noisy_masks(images: ImageFolder, structures: Sequence[str], noise: NoiseConfig | None) -> Iterator[Made]:
    if noise is None or not noise.alpha:
        return
    for name in structures:
        record = images.noise_folder(noise, name) / "noise.json"
        yield Made("noisy mask", record, _command("noise", images, name, noise))


def _superpixels(images: ImageFolder, structure: str, superpixel: SuperpixelConfig | None) -> Iterator[Made]:
    if superpixel is not None:
        record = images.superpixel_folder(superpixel, structure) / "superpixels.json"
        yield Made("superpixels", record, _command("image_superpixels", images, structure, superpixel))


def _command(module: str, images: ImageFolder, structure: str, config: NoiseConfig | SuperpixelConfig) -> str:
    """The command that makes what a configuration asks for; options as by default are left out."""
    usual = settings_of(type(config)())
    unusual = {key: value for key, value in settings_of(config).items() if value != usual[key]}
    options = ["--clahe"] if unusual.pop("equalised", False) else []
    for key, value in unusual.items():
        options.append(f"--{key.replace('_', '-')} {' '.join(value) if isinstance(value, list) else value}")
    places = (f"--structure {structure}", f"--data-dir {images.folder}")
    return " ".join([f"python -m data.{module} {images.spec.name}", *options, *places])


def _facts_of(file: File) -> Facts | str:
    """The facts, or why the file cannot be read."""
    if not file.path.exists():
        return f"is missing, though {MANIFEST} lists its image."
    try:
        if file.kind == "superpixels":
            return Facts(read_superpixels(file.path).shape)
        array = read_image(file.path)
    except UserError as error:
        return str(error).removeprefix(f"{file.path}: ")
    if file.kind == "image":
        return Facts(array.shape)
    return Facts(array.shape, tuple(np.flatnonzero(np.bincount(array.ravel(), minlength=256)).tolist()))


def _unreadable(files: Sequence[File], facts: Sequence[Facts | str]) -> Iterator[Finding]:
    """Every file is there and whole."""
    for file, each in zip(files, facts, strict=True):
        if isinstance(each, str):
            yield Finding("error", file.path, f"{each} {file.remedy}")


def _equal_shapes(sound: Sequence[tuple[File, Facts]], spec: DatasetSpec) -> Iterator[Finding]:
    """All images have one size, as have their masks and superpixels; colours are those of the set."""
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


def _sound_masks(sound: Sequence[tuple[File, Facts]]) -> Iterator[Finding]:
    """Masks are binary; those of training images show something."""
    for file, facts in sound:
        if file.kind not in ("mask", "noisy mask"):
            continue
        if set(facts.values) - set(MASK_VALUES):
            text = f"values {', '.join(map(str, facts.values[:5]))}; expected only 0 and 255. {file.remedy}"
            yield Finding("error", file.path, text)
        elif file.kind == "mask" and file.is_training and not any(facts.values):
            text = "an empty mask of a training image. Nothing to do if the image truly shows none; else mend the mask."
            yield Finding("warning", file.path, text)


def _gathered(findings: Iterable[Finding]) -> Iterator[Finding]:
    """Findings that say the same about several files of a folder become one, about the first."""
    groups: dict[tuple[str, Path, str], list[Finding]] = {}
    for finding in findings:
        groups.setdefault((finding.severity, finding.file.parent, finding.text), []).append(finding)
    for first, *others in groups.values():
        more = f" (And {len(others)} more there.)" if others else ""
        yield Finding(first.severity, first.file, first.text + more)
