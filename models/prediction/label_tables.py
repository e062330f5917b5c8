"""Tables of the label values, with the colours of the overlays, for ITK-SNAP and 3D Slicer."""

from collections.abc import Mapping
from pathlib import Path

from matplotlib.colors import to_rgb

from util.files import write_text
from util.results.pictures import outline_style

SNAP, SLICER = "labels.txt", "labels.ctbl"
_SNAP_HEAD = """################################################
# ITK-SnAP Label Description File
# File format:
# IDX   -R-  -G-  -B-  -A--  VIS MSH  LABEL
# Fields:
#    IDX:   value of the label
#    -R-, -G-, -B-: colour, 0 to 255
#    -A-:   opacity, 0.00 to 1.00
#    VIS:   visibility, 0 or 1
#    MSH:   mesh visibility, 0 or 1
#    LABEL: name
################################################
"""


def write_label_tables(folder: Path, structures: Mapping[str, int], stem: str = "labels", first: int = 0) -> None:
    """Writes `<stem>.txt`, a label description file of ITK-SNAP, and `<stem>.ctbl`, a colour table of 3D Slicer.

    Args:
        folder: of the label maps.
        structures: name -> value, in the order of the overlays, which gives the colours.
        stem: of the files.
        first: place of the first structure among those of the overlays.
    """
    colours = [_rgb(first + place) for place in range(len(structures))]
    labels = sorted(zip(structures.values(), structures, colours, strict=True))
    snap = [_snap_line(0, (0, 0, 0), 0, "Clear Label")]
    snap += [_snap_line(value, colour, 1, name) for value, name, colour in labels]
    write_text(folder / f"{stem}.txt", _SNAP_HEAD + "\n".join(snap) + "\n")
    slicer = [f"# Color table file {stem}.ctbl", f"# {len(labels) + 1} values", "0 Background 0 0 0 0"]
    slicer += [f"{value} {_one_word(name)} {red} {green} {blue} 255" for value, name, (red, green, blue) in labels]
    write_text(folder / f"{stem}.ctbl", "\n".join(slicer) + "\n")


def _rgb(place: int) -> tuple[int, int, int]:
    red, green, blue = (round(255 * part) for part in to_rgb(outline_style(place)[0]))
    return red, green, blue


def _snap_line(value: int, colour: tuple[int, int, int], shown: int, name: str) -> str:
    red, green, blue = colour
    label = " ".join(name.replace('"', "'").split())
    return f'{value:5d} {red:5d} {green:4d} {blue:4d} {shown:8d} {shown:2d} {shown:2d}    "{label}"'


def _one_word(name: str) -> str:
    """3D Slicer reads underscores as spaces."""
    return "_".join(name.split()) or "unnamed"
