"""Folders that are made from the prepared images, one PNG per training image: noisy masks and superpixels."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dataloaders.images.folder import ImageFolder, NoiseConfig, SuperpixelConfig, as_settings, command_options
from util.errors import DataError
from util.records import Record, read_record

IMPORTED = "imported_from"  # setting of labels that were imported, not made here


@dataclass(frozen=True)
class Derived:
    """A folder of noisy masks or superpixels of the training images, and what it must be made from.

    Attributes:
        images: the prepared images.
        folder: of the files `<image id>.png`.
        record_path: of the record (JSON), which is written last.
        settings: that shape its content.
        inputs: the prepared files that it is made from.
        command: that makes it, for messages.
    """

    images: ImageFolder
    folder: Path
    record_path: Path
    settings: Mapping[str, Any]
    inputs: tuple[Path, ...]
    command: str

    def path(self, image_id: str) -> Path:
        """The file of an image."""
        return self.folder / f"{image_id}.png"

    def problem(self) -> str:
        """Why the folder cannot be used, and the remedy; empty where it is up to date.

        Raises:
            DataError: a file that it is made from cannot be read.
        """
        if not self.record_path.exists():
            return f"missing, or not finished. Run `{self.command}`."
        record = self.record()
        if record is None:
            return (
                f"{self.record_path.name} does not say what the files were made from: it is damaged or of an earlier "
                f"version. {self._again(is_imported=False)}"
            )
        root, is_imported = self.images.folder, IMPORTED in record.settings
        foreign = [name for name in record.made_from if not name.startswith(("images/", "masks/", "../"))]
        expected = None if is_imported else [*(path.relative_to(root).as_posix() for path in self.inputs), *foreign]
        found = record.staleness(root, None if is_imported else self.settings, expected)
        return f"stale: what it was made from has changed since ({found}). {self._again(is_imported)}" if found else ""

    def _again(self, is_imported: bool) -> str:
        if is_imported:
            return f"Move the folder away and import again: `{self.command.split(' --')[0]} --import-json ...`."
        return f"Run `{self.command}`."

    def record(self) -> Record | None:
        """The record of a finished folder; None where there is none, or it is of an earlier version."""
        return read_record(self.record_path)

    def require_current(self) -> "Derived":
        """Itself.

        Raises:
            DataError: it is missing, unfinished or stale; the message gives the command that makes it.
        """
        problem = self.problem()
        if problem:
            raise DataError(f"{self.folder}: {problem}")
        return self


def noise_of(images: ImageFolder, noise: NoiseConfig, structure: str) -> Derived:
    """The noisy masks of a structure, which are made from the masks of all training images."""
    described, folder = images.spec.structure(structure), images.noise_folder(noise, structure)
    settings = {
        "noise": as_settings(noise),
        "structure": structure,
        "rotation_deg": described.noise_rotation_deg,
        "crop": list(described.crop),
    }
    command = images.command("noise", *_options(noise), f"--structure {structure}")
    inputs = tuple(images.mask_path(image_id, structure) for image_id in images.ids("train"))
    return Derived(images, folder, folder / "noise.json", settings, inputs, command)


def superpixels_of(images: ImageFolder, superpixel: SuperpixelConfig, structure: str) -> Derived:
    """The superpixels of a structure. They are made from the images, and their quality is that for the masks.

    Superpixels of the image alone serve every structure; those of a structure's probabilities serve it alone.
    """
    folder, resolved = images.superpixel_folder(superpixel, structure), superpixel.resolved(images.spec, structure)
    is_probable = resolved.source == "gray+prob"
    names = [structure] if is_probable else [one.name for one in images.spec.classes]
    ids = images.ids("train")
    inputs = [images.image_path(image_id) for image_id in ids]
    inputs += [images.mask_path(image_id, name) for image_id in ids for name in names]
    options = [*_options(superpixel), *(["--probabilities FOLDER"] if is_probable else [])]
    command = images.command("superpixels", *options, f"--structure {structure}")
    settings = {"superpixel": as_settings(resolved), "structures": names}
    return Derived(images, folder, folder / "superpixels.json", settings, tuple(inputs), command)


def _options(config: NoiseConfig | SuperpixelConfig) -> list[str]:
    """Options of the command that computes this noise or these superpixels; defaults are left out."""
    usual = as_settings(type(config)())
    return command_options({key: value for key, value in as_settings(config).items() if value != usual[key]})
