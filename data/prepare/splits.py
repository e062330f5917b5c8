"""Splits of sets of images: the rules that several sets share; a patient is never divided."""

import logging
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from data.sources.raw_images import RawImage, SplitRule
from dataloaders.description import SplitRule as FractionRule
from dataloaders.images.folder import SPLITS
from util.csv_files import read_csv
from util.errors import ConfigError, DataError
from util.inventory import first_names

SEED = 0

log = logging.getLogger(__name__)


def choose(ids: Sequence[str], n_test: int, generator: random.Random | None = None) -> dict[str, str]:
    """Draws `n_test` of the ids for testing, the rest is for training: `random.Random(0).sample(sorted(ids), n)`.

    Source: T-Loss (MICCAI 2023), released code.
    """
    test = set((generator or random.Random(SEED)).sample(sorted(ids), n_test))
    return {id_: "test" if id_ in test else "train" for id_ in sorted(ids)}


def choose_fraction(images: Sequence[RawImage], share: float) -> dict[str, str]:
    """Draws a fraction of all patients for testing; an image without patient is one of its own."""
    patients = {image.id: image.origin.patient or image.id for image in images}
    splits = choose(sorted(set(patients.values())), round(share * len(set(patients.values()))))
    return {id_: splits[patient] for id_, patient in patients.items()}


def split_by_fractions(images: Sequence[RawImage], rule: FractionRule) -> dict[str, str]:
    """Draws patients for testing and validation by the rule of a description."""
    return rule.divide({image.id: image.origin.patient for image in images})


def choose_stratified(images: Sequence[RawImage], share: float) -> dict[str, str]:
    """Draws a fraction of every part for testing; one generator serves the parts in the order of their names."""
    generator = random.Random(SEED)
    splits = {}
    for part in sorted({image.part for image in images}):
        ids = [image.id for image in images if image.part == part]
        splits |= choose(ids, round(share * len(ids)), generator)
    return splits


def split_by_part(images: Sequence[RawImage], split_of_part: Mapping[str, str]) -> dict[str, str]:
    """Splits by the parts of the data set."""
    return {image.id: split_of_part[image.part] for image in images}


def split_images(
    images: list[RawImage], rule: str | None, rules: Mapping[str, SplitRule], name: str, needs_both: bool = True
) -> tuple[str, dict[str, str]]:
    """Splits images by a rule.

    Args:
        images: of the whole set.
        rule: one of `rules`, `random:FRACTION` of test images, or a CSV file with the columns id and split; None: the
            first of `rules`.
        rules: the data set's own.
        name: of the data set.
        needs_both: whether some images must be for training and some for testing; otherwise one of the two suffices.

    Returns:
        The rule's name, and id -> train, validation, test or unused.

    Raises:
        ConfigError: no such rule.
        DataError: the file is damaged, a patient is in several splits, or there are too few images.
    """
    rule = rule or next(iter(rules))
    choices = f"{', '.join(rules)}, random:FRACTION (such as random:0.25), or a CSV file with the columns id and split"
    if rule in rules:
        splits = rules[rule](images)
    elif rule.startswith("random:"):
        splits = choose_fraction(images, _share(rule))
    elif Path(rule).exists():
        splits = _from_file(images, Path(rule))
    else:
        raise ConfigError(f"--split {rule}: neither a rule nor a file; expected {choices}.")
    _require_separate_patients(images, splits, name)
    counts = Counter(splits.values())
    n_filled = sum(counts[split] > 0 for split in ("train", "test"))
    if n_filled < (2 if needs_both else 1):
        expected = "some of both" if needs_both else "some of at least one of the two"
        raise DataError(
            f"{name}: {counts['train']} images for training and {counts['test']} for testing by the rule {rule!r}; "
            f"expected {expected}. Add the missing files, or choose another --split: {choices}."
        )
    return rule, splits


def _require_separate_patients(images: Sequence[RawImage], splits: Mapping[str, str], name: str) -> None:
    seen: dict[str, RawImage] = {}
    for image in images:
        patient = image.origin.patient
        if patient and splits[image.id] != "unused":
            other = seen.setdefault(patient, image)
            if splits[other.id] != splits[image.id]:
                raise DataError(
                    f"{name}: patient {patient} is in split {splits[other.id]!r} ({other.id}) and in "
                    f"{splits[image.id]!r} ({image.id}); expected all images of a patient in one split. Correct the "
                    "column split, or the column patient."
                )


def _share(rule: str) -> float:
    text = rule.removeprefix("random:")
    try:
        share = float(text)
    except ValueError:
        share = float("nan")
    if not 0 < share < 1:
        raise ConfigError(f"--split {rule}: expected the fraction of test images, such as random:0.25.")
    return share


def _from_file(images: list[RawImage], path: Path) -> dict[str, str]:
    """Images that the file does not list are not used; those and ids without an image are named."""
    rows = read_csv(path, ("id", "split"), "Correct the file.")
    listed: dict[str, str] = {}
    for row in rows:
        if row["split"] not in SPLITS or listed.get(row["id"], row["split"]) != row["split"]:
            raise DataError(
                f"{path}: {row['id']} is in split {row['split']!r}; expected one of {', '.join(SPLITS)}, and every id "
                "in one of them only. Correct the file."
            )
        listed[row["id"]] = row["split"]
    known = {image.id for image in images}
    lost, unlisted = [id_ for id_ in listed if id_ not in known], [id_ for id_ in known if id_ not in listed]
    if lost:
        text = "%s: %d of %d ids match no image and are left out: %s; the images have ids such as %s"
        log.warning(text, path, len(lost), len(listed), first_names(lost), images[0].id)
    if unlisted:
        text = "%s: %d of %d images are not listed and are not used: %s"
        log.warning(text, path, len(unlisted), len(images), first_names(sorted(unlisted)))
    return {image.id: listed.get(image.id, "unused") for image in images}
