"""Whether images that are tested are trained on, under another name or in another data set."""

from collections.abc import Iterator, Mapping, Sequence

from dataloaders.images.fingerprint import SAME_BELOW, distance

Rows = Mapping[str, Sequence[Mapping[str, str]]]  # data set -> lines of its manifest


def shared_images(trained: Rows, tested: Rows) -> Iterator[tuple[str, str]]:
    """Pairs of a training and a test image that are the same picture, as "data set: id".

    They are the same if their prepared files are equal, or their fingerprints nearly so, as those of one picture in
    two sizes. Without fingerprints, which only some sets have, only equal files are found.

    Args:
        trained: lines of the training images.
        tested: lines of the test images.
    """
    known = [(f"{name}: {row['id']}", row) for name, rows in trained.items() for row in rows]
    for name, rows in tested.items():
        for row in rows:
            twin = next((title for title, other in known if _is_same(row, other)), None)
            if twin is not None:
                yield twin, f"{name}: {row['id']}"


def _is_same(row: Mapping[str, str], other: Mapping[str, str]) -> bool:
    if row.get("image_sha256") and row.get("image_sha256") == other.get("image_sha256"):
        return True
    marks = row.get("fingerprint"), other.get("fingerprint")
    return bool(marks[0] and marks[1]) and distance(str(marks[0]), str(marks[1])) < SAME_BELOW
