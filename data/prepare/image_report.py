"""What a prepared set of images consists of: its `dataset.json`, and what the log says about it."""

import logging
import platform
import subprocess
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from data.prepare.splits import SEED
from dataloaders.description import DatasetSpec

WARN_BELOW = 2**14  # largest value of images of 16 bits

log = logging.getLogger(__name__)
Row = dict[str, str]  # a line of the manifest


def describe_set(spec: DatasetSpec, size_px: int, rule: str, rows: Sequence[Row], bits: int) -> dict[str, Any]:
    """The content of `dataset.json`: size, structures, split, unusual masks, versions."""
    names = [structure.name for structure in spec.classes]
    seed = spec.split.seed if rule == "fractions" else SEED
    is_cut = spec.grid.field != "none"
    packages = ("numpy", "pillow", *(("opencv-python",) if spec.files or is_cut else ()))
    return {
        "dataset": spec.name,
        "size_px": size_px,
        "channels": spec.channels,
        "structures": names,
        **({"bits": bits, "aspect": spec.grid.aspect} if spec.files else {}),
        **({"field": spec.grid.field} if is_cut else {}),
        "split": {"rule": rule, "seed": seed, **{f"n_{key}": n for key, n in sorted(_count(rows).items())}},
        "n_empty": {name: len(_empty(rows, name)) for name in names},
        "n_not_binary": {name: len(_not_binary(rows, name)) for name in names},
        **({"n_inverted": sum(row["is_inverted"] == "1" for row in rows)} if "is_inverted" in rows[0] else {}),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in packages},
        "revision": _revision(),
    }


def _revision() -> str | None:
    """The commit of the code that runs; None outside a checkout."""
    command = ["git", "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() or None


def report_set(spec: DatasetSpec, folder: Path, rows: Sequence[Row], n_made: int, bits: int) -> None:
    """Logs what was prepared, and what is unusual about it."""
    counts = _count(rows)
    log.info("%s: %d images prepared, %d already up to date: %s", spec.name, n_made, len(rows) - n_made, folder)
    if {key: counts[key] for key in spec.published} != spec.published:
        found, published = (", ".join(f"{n[key]} {key}" for key in spec.published) for n in (counts, spec.published))
        log.warning("%s: %s images; published: %s", spec.name, found, published)
    for name in (structure.name for structure in spec.classes):
        grey, empty = _not_binary(rows, name), _empty(rows, name)
        if grey:
            text = "%s %s: %d masks with grey pixels, %d in all; those above half of the range are object: %s"
            log.warning(text, spec.name, name, len(grey), sum(grey.values()), _first_ids(list(grey)))
        if empty:
            log.warning("%s %s: %d empty masks, kept: %s", spec.name, name, len(empty), _first_ids(empty))
    largest = max(int(row.get("largest_value", WARN_BELOW)) for row in rows)
    if bits == 16 and largest < WARN_BELOW:
        text = "%s: the largest value is %d of 65535. To use the whole range: intensity: {window: [0, %d]}"
        log.warning(text, spec.name, largest, largest)
    polarities = Counter(row.get("is_inverted") for row in rows)
    if len(polarities) > 1:
        rare = min(polarities, key=lambda key: polarities[key])
        odd = [row["id"] for row in rows if row.get("is_inverted") == rare]
        log.warning("%s: %d images had another polarity than the rest: %s", spec.name, len(odd), _first_ids(odd))


def _count(rows: Sequence[Row]) -> Counter[str]:
    return Counter(row["split"] for row in rows)


def _not_binary(rows: Sequence[Row], structure: str) -> dict[str, int]:
    """Id -> number of grey pixels, of the masks that were not binary."""
    counts = {row["id"]: int(row[f"n_not_binary_px_{structure}"]) for row in rows}
    return {id_: count for id_, count in counts.items() if count}


def _empty(rows: Sequence[Row], structure: str) -> list[str]:
    return [row["id"] for row in rows if row[f"n_object_px_{structure}"] == "0"]


def _first_ids(ids: Sequence[str]) -> str:
    return ", ".join(ids[:5]) + (" ..." if len(ids) > 5 else "")
