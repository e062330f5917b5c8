"""Validates how prepared images are split: every image once, no patient and no picture on two sides."""

from collections import Counter
from collections.abc import Iterator, Sequence

from data.check.rules import Finding
from dataloaders.images.folder import MANIFEST, ImageFolder

USED = ("train", "test")  # splits without which there is nothing to train on, or to score


def sound_splits(images: ImageFolder, needed: Sequence[str] = ()) -> Iterator[Finding]:
    """Every image is in one split; the needed splits are not empty.

    Args:
        images: the prepared folder.
        needed: splits that must not be empty. None given: training and test split; of a set with `tasks`, which may be
            for training alone or for testing alone, one of the two, and a warning where a published one is missing.
    """
    manifest = images.folder / MANIFEST
    for image_id, count in Counter(row["id"] for row in images.rows).items():
        if count > 1:
            splits = ", ".join(row["split"] for row in images.rows if row["id"] == image_id)
            yield Finding(
                "error", manifest, f"{image_id} has {count} lines ({splits}); expected one. Remove the others."
            )
    empty = [split for split in needed or USED if not images.ids(split)]
    is_partial = bool(images.spec.tasks) and not needed and len(empty) < len(USED)
    for split in empty:
        if not is_partial or split in images.spec.published:
            text = f"no image in split {split!r}. Prepare the set again with the missing part, or with another split."
            yield Finding("warning" if is_partial else "error", manifest, text)


def separate_patients(images: ImageFolder) -> Iterator[Finding]:
    """No patient has images in two of the splits that are used."""
    splits: dict[str, dict[str, str]] = {}  # patient -> split -> one of the images
    for row in images.rows:
        if row["split"] != "unused" and row.get("patient"):
            splits.setdefault(row["patient"], {}).setdefault(row["split"], row["id"])
    for patient, shown in splits.items():
        if len(shown) > 1:
            places = ", ".join(f"{split}: {image_id}" for split, image_id in sorted(shown.items()))
            text = f"patient {patient} is in several splits ({places}); scores will be too good. Correct the split."
            yield Finding("error", images.folder / MANIFEST, text)


def unique_images(images: ImageFolder) -> Iterator[Finding]:
    """No image of one split is an image of another split under another name; nor twice in one."""
    rank = {"train": 0, "validation": 1, "test": 2}
    rows = [row for row in images.rows if row.get("image_sha256") and row["split"] in rank]
    first: dict[str, dict[str, str]] = {}
    for row in sorted(rows, key=lambda row: rank[row["split"]]):
        twin = first.setdefault(row["image_sha256"], row)
        if twin["split"] != row["split"] and twin["id"] != row["id"]:
            text = (
                f"the same picture as {twin['id']}, which is in split {twin['split']!r}; scores will be too good. "
                "Leave one of them out."
            )
            yield Finding("warning", images.image_path(row["id"]), text)
        elif twin["id"] != row["id"]:
            text = f"the same picture as {twin['id']}, in the same split. Leave one of them out."
            yield Finding("warning", images.image_path(row["id"]), text)
