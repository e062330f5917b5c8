"""Writes the picture page of a prepared set: a head, and a tile for each case."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from data.pictures.cases import NOISE, PSEUDO, SUPERPIXELS, CaseSource, Layer
from data.pictures.choice import HOW, HOW_SUSPECT, Suspicion, choose
from data.pictures.tiles import UNKNOWN_COLOUR, Tile, class_colours, make_tile
from util.files import write_text
from util.items import Failures, attempt_each
from util.results.pictures import BOUNDARY_COLOUR, EXPERT_COLOUR, OTHER_COLOUR
from util.results.report.page import render

FILE_NAME = "pictures.html"
LARGEST_BYTES = 4_800_000  # of all tiles
SMALLEST_SHARE = 12_000  # bytes of a tile; pages of many cases are larger for it
TEMPLATES = Path(__file__).parent / "templates"

log = logging.getLogger(__name__)


def save_page(
    source: CaseSource,
    path: Path,
    limit: int = 200,
    suspects: Mapping[str, Sequence[Suspicion]] | None = None,
    jobs: int = 1,
) -> Failures:
    """Writes the page of a set; each case is read, encoded and forgotten before the next one.

    Args:
        source: the cases.
        path: the page; replaced when it exists.
        limit: number of cases at most, see `choose`.
        suspects: see `read_suspects`; None: there is no table.
        jobs: processes.

    Returns:
        Id -> why the case is not shown.
    """
    chosen = choose(source.splits, limit, suspects or {})
    colours = class_colours([each.name for each in source.spec.classes], source.pseudo_classes)
    share = max(LARGEST_BYTES // len(chosen), SMALLEST_SHARE)
    failures: Failures = {}
    work = partial(make_tile, source=source, colours=colours, largest_bytes=share)
    items = {case_id: case_id for case_id in chosen}
    tiles = [tile for _, tile in attempt_each(work, items, jobs, "pictures", failures, source.path)]
    n_cases = sum(map(len, source.splits.values()))
    statement = _statement(len(chosen), n_cases, HOW_SUSPECT if suspects else HOW)
    log.info("%s: %s", source.spec.name, statement)
    for folder in source.unfinished:
        log.warning("%s: left out, as the command that writes it has not ended", folder)
    stale = source.stale
    for layer, reason in stale.items():
        log.warning("%s: what it was made from has changed since (%s); make it again", layer, reason)
    content = _content(source, tiles, chosen, colours, suspects or {})
    failed = {name: reason.replace(f"{source.folder}/", "") for name, reason in failures.items()}
    write_text(
        path, render("pictures.html.j2", own=TEMPLATES, statement=statement, stale=stale, failed=failed, **content)
    )
    return failures


def _statement(n_chosen: int, n_cases: int, how: str) -> str:
    """How many cases are shown, and which."""
    if n_chosen == n_cases:
        return f"All {n_cases} cases are shown." if n_cases > 1 else "The set has one case."
    return f"{n_chosen} of {n_cases} cases are shown: {how}."


def _content(
    source: CaseSource,
    tiles: Sequence[Tile],
    chosen: Mapping[str, str],
    colours: Mapping[str, tuple[str, str]],
    suspects: Mapping[str, Sequence[Suspicion]],
) -> dict[str, Any]:
    spec, n_shown = source.spec, Counter(chosen[tile.id] for tile in tiles)
    counts = Counter(value for tile in tiles for value in tile.classes)
    return {
        "spec": spec,
        "splits": {name: (len(ids), n_shown[name]) for name, ids in source.splits.items()},
        "classes": [(spec.headings[v], *colours[spec.class_names[v]], v, counts[v]) for v in spec.headings],
        "n_labelled": sum(tile.labelled is not None for tile in tiles),
        "further": {name: style for name, style in colours.items() if name not in spec.class_names},
        "facts": _sizes(tiles, spec.kind),
        "layers": source.layers,
        "unfinished": source.unfinished,
        "keys": {each.title: _key(each) for each in source.layers},
        "tiles": [(tile, chosen[tile.id], suspects.get(tile.id, ())) for tile in tiles],
        "has_suspects": bool(suspects),
    }


def _key(layer: Layer) -> list[tuple[str, str]]:
    """What the colours of a layer mean, but those of classes: colour and meaning."""
    gold = "#" + "".join(f"{round(255 * part):02x}" for part in BOUNDARY_COLOUR)
    keys = {
        SUPERPIXELS: [(gold, "boundary of a superpixel")],
        NOISE: [(OTHER_COLOUR, "added: in the noisy mask alone"), (EXPERT_COLOUR, "lost: in the expert's mask alone")],
        PSEUDO: [(UNKNOWN_COLOUR, "does not count")],
    }
    return keys[layer.kind]


def _sizes(tiles: Sequence[Tile], kind: str) -> dict[str, str]:
    """Sizes and spacings of the cases that are shown: the median, and the range where they differ."""
    if not tiles:
        return {}
    axes = ("slices", "rows in px", "columns in px")[-len(tiles[0].shape) :]
    found = {axis: [tile.shape[n] for tile in tiles] for n, axis in enumerate(axes)}
    if kind == "scans":
        names = ("slice distance", "row distance", "column distance")
        found |= {f"{name} in mm": [tile.spacing_mm[n] for tile in tiles] for n, name in enumerate(names)}
    return {name: _summary(values) for name, values in found.items()}


def _summary(values: Sequence[float | int]) -> str:
    low, middle, high = min(values), sorted(values)[len(values) // 2], max(values)
    return f"{middle:.4g}" if f"{low:.4g}" == f"{high:.4g}" else f"{middle:.4g} ({low:.4g} to {high:.4g})"
