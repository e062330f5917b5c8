"""Which images are for training and which for testing: rules that several sets of images share."""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from data.sources.raw_images import RawImage, SplitRule
from dataloaders.images.folder import SPLITS, read_csv
from util.errors import ConfigError, DataError

SEED = 0


def choose(ids: Sequence[str], n_test: int, generator: random.Random | None = None) -> dict[str, str]:
    """Draws `n_test` of the ids for testing, the others are for training: `random.Random(0).sample(sorted(ids), n)`.

    Source: T-Loss (MICCAI 2023), released code.
    """
    test = set((generator or random.Random(SEED)).sample(sorted(ids), n_test))
    return {id_: "test" if id_ in test else "train" for id_ in sorted(ids)}


def choose_share(images: Sequence[RawImage], share: float) -> dict[str, str]:
    """Draws a share of all images for testing."""
    return choose([image.id for image in images], round(share * len(images)))


def choose_stratified(images: Sequence[RawImage], share: float) -> dict[str, str]:
    """Draws a share of every part for testing; one generator goes through the parts in the order of their names."""
    generator = random.Random(SEED)
    splits = {}
    for part in sorted({image.part for image in images}):
        ids = [image.id for image in images if image.part == part]
        splits |= choose(ids, round(share * len(ids)), generator)
    return splits


def by_part(images: Sequence[RawImage], split_of_part: Mapping[str, str]) -> dict[str, str]:
    """Splits as the data set's own parts say."""
    return {image.id: split_of_part[image.part] for image in images}


def split_images(
    images: list[RawImage], rule: str | None, rules: Mapping[str, SplitRule], name: str
) -> tuple[str, dict[str, str]]:
    """Splits images by a rule.

    Args:
        images: of the whole set.
        rule: one of `rules`, `random:SHARE` of test images, or a CSV file with the columns id and split; None: the
            first of `rules`.
        rules: the data set's own.
        name: of the data set.

    Returns:
        The rule's name, and id -> train, test or unused.

    Raises:
        ConfigError: no such rule.
        DataError: the file is damaged, or no image is left for training or testing.
    """
    rule = rule or next(iter(rules))
    choices = f"{', '.join(rules)}, random:SHARE (such as random:0.25), or a CSV file with the columns id and split"
    if rule in rules:
        splits = rules[rule](images)
    elif rule.startswith("random:"):
        splits = choose_share(images, _share(rule))
    elif Path(rule).exists():
        splits = _from_file(images, Path(rule))
    else:
        raise ConfigError(f"--split {rule}: neither a rule nor a file; expected {choices}.")
    counts = Counter(splits.values())
    if not counts["train"] or not counts["test"]:
        raise DataError(
            f"{name}: {counts['train']} images for training and {counts['test']} for testing by the rule {rule!r}; "
            f"expected some of both. Add what is missing of the download, or choose another --split: {choices}."
        )
    return rule, splits


def _share(rule: str) -> float:
    text = rule.removeprefix("random:")
    try:
        share = float(text)
    except ValueError:
        share = float("nan")
    if not 0 < share < 1:
        raise ConfigError(f"--split {rule}: expected the share of test images, such as random:0.25.")
    return share


def _from_file(images: list[RawImage], path: Path) -> dict[str, str]:
    """Images that the file does not list are not used."""
    rows = read_csv(path, ("id", "split"))
    listed: dict[str, str] = {}
    for row in rows:
        if row["split"] not in SPLITS or listed.get(row["id"], row["split"]) != row["split"]:
            raise DataError(
                f"{path}: {row['id']} is in split {row['split']!r}; expected one of {', '.join(SPLITS)}, and every id "
                "in one of them only. Correct the file."
            )
        listed[row["id"]] = row["split"]
    return {image.id: listed.get(image.id, "unused") for image in images}
