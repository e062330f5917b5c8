"""Data sets by name, or by the path of a description: the built-in ones are `data/<NAME>/dataset.json5`."""

from functools import lru_cache
from pathlib import Path
from typing import Literal

from dataloaders.description import FILE_NAME, DatasetSpec, read_description
from util.errors import ConfigError

FOLDER = Path(__file__).parents[1] / "data"  # of the built-in descriptions

# Spellings of the reference's configuration that mean the same data.
ALIASES = {"chaost2_superpix": "chaost2", "sabs_superpix": "sabs"}

Kind = Literal["scans", "images"]


def dataset_names(kind: Kind | None = None) -> list[str]:
    """Names of the built-in data sets, of one kind or of both."""
    return [spec.name for spec in _built_in().values() if kind in (None, spec.kind)]


def dataset(name: str | Path, kind: Kind | None = None) -> DatasetSpec:
    """Looks a data set up.

    Args:
        name: of a built-in set, in upper or lower case, or one of `ALIASES`; or the path of a description (.json5 or
            .json), or of the folder that holds it.
        kind: what the set must be; None: either.

    Raises:
        ConfigError: no such set, one of the other kind, or an impossible description.
        DataError: a description that cannot be read.
    """
    spec = _described(name, kind)
    if kind not in (None, spec.kind):
        raise ConfigError(
            f"dataset={str(name)!r}: a set of {spec.kind}, where {kind} are needed; expected one of "
            f"{', '.join(dataset_names(kind))}, or a description with kind: '{kind}'."
        )
    return spec


def is_built_in(spec: DatasetSpec) -> bool:
    """Whether the set comes with the code."""
    return _built_in().get(spec.name.lower()) == spec


def _described(name: str | Path, kind: Kind | None) -> DatasetSpec:
    text = str(name)
    key = ALIASES.get(text.lower(), text.lower())
    if key in _built_in():
        return _built_in()[key]
    path = Path(text).expanduser()
    if path.suffix.lower() in (".json5", ".json"):
        return _read(path, path.stat().st_mtime_ns if path.exists() else 0)
    if (path / FILE_NAME).is_file():
        return _described(path / FILE_NAME, kind)
    raise ConfigError(
        f"dataset={text!r}: unknown data set; expected one of {', '.join(dataset_names(kind))}, or the path of a "
        "description such as my_set.json5 (docs/own_data.md)."
    )


@lru_cache(maxsize=64)
def _read(path: Path, mtime_ns: int) -> DatasetSpec:
    """A description as the file holds it at this time."""
    return read_description(path)


@lru_cache(maxsize=1)
def _built_in() -> dict[str, DatasetSpec]:
    """Name in lower case -> description."""
    specs = [read_description(path) for path in sorted(FOLDER.glob(f"*/{FILE_NAME}"))]
    return {spec.name.lower(): spec for spec in specs}
