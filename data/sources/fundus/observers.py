"""STARE and ARIA: vessels by two observers, of whom the description names one (`annotators`); all for testing.

Source: Hoover et al., IEEE Transactions on Medical Imaging 19(3), 2000 (STARE); Farnell et al., Journal of the Franklin
Institute 345, 2008 (ARIA).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from data.sources.fundus.downloads import Download, make_source, put_all
from data.sources.raw_images import ImageSource, RawImage, refuse_unpaired
from dataloaders.description import DatasetSpec
from dataloaders.samples import Origin
from util.errors import ConfigError


@dataclass(frozen=True)
class Layout:
    """Where photographs and drawings are.

    Attributes:
        observers: their names.
        image_folder, drawing_folder: patterns of the end of a path.
        image_name: pattern, whose group is the id.
        drawing_name: likewise, with the observer's name in place of {}.
        example: of both, for messages.
        domains: start of an id -> group of patients.
    """

    observers: tuple[str, ...]
    image_folder: str
    image_name: str
    drawing_folder: str
    drawing_name: str
    example: str
    domains: Mapping[str, str] = field(default_factory=dict)


LAYOUTS = {
    "STARE": Layout(
        observers=("VK", "AH"),
        image_folder="",
        image_name=r"(im\d{4})\.ppm(?:\.gz)?",
        drawing_folder="",
        drawing_name=r"(im\d{{4}})\.{}\.ppm(?:\.gz)?",
        example="im0001.ppm.gz and im0001.vk.ppm.gz",
    ),
    "ARIA": Layout(
        observers=("BSS", "BDP"),
        image_folder=r"/aria_[acd]_markups",
        image_name=r"(?:\(\d+\))?(aria_[acd]_[\w -]+)\.tiff?",
        drawing_folder=r"/aria_[acd]_markup_vessel",
        drawing_name=r"(?:\(\d+\))?(aria_[acd]_[\w -]+)_{}\.tiff?",
        example="aria_a_markups/aria_a_11_1.tif and aria_a_markup_vessel/aria_a_11_1_BSS.tif",
        domains={"aria_a": "AMD", "aria_c": "Control", "aria_d": "Diabetic"},
    ),
}


def source(spec: DatasetSpec) -> ImageSource:
    """How one of the two sets is found, read and split.

    Raises:
        ConfigError: the description names no observer.
    """
    observers = LAYOUTS[spec.name].observers
    if spec.annotators not in observers:
        raise ConfigError(
            f"annotators={spec.annotators!r} of {spec.name}: expected the observer whose vessels count, one of "
            f"{', '.join(observers)}."
        )
    find = partial(find_images, name=spec.name, observer=spec.annotators)
    return make_source(spec, find, {"all_test": put_all("test")})


def find_images(raw: Path, name: str, observer: str) -> list[RawImage]:
    """Finds the photographs and the vessels that an observer drew; images without are named and left out.

    Args:
        raw: folder of the download.
        name: of the data set, a key of `LAYOUTS`.
        observer: one of its observers.

    Raises:
        DataError: nothing there, two files for one id, or a drawing without its image.
    """
    layout, download = LAYOUTS[name], Download.open(name, raw)
    images = download.find(layout.image_folder, layout.image_name)
    drawings = download.find(layout.drawing_folder, layout.drawing_name.format(observer))
    for found, what in ((images, "images"), (drawings, f"vessels of the observer {observer}")):
        download.require(found, what, layout.example)
    refuse_unpaired(drawings, images, "image")
    result = []
    for key in sorted(drawings):
        id_ = key.lower()
        domain = next((group for start, group in layout.domains.items() if id_.startswith(start)), "")
        result.append(RawImage(id_, images[key], {"vessel": (drawings[key],)}, "test", origin=Origin(domain=domain)))
    others = [each for each in layout.observers if each != observer]
    reasons = [(f"/{layout.drawing_name.format(each)}$", f"vessels of the observer {each}") for each in others]
    reasons += [
        ("discfovea/", "of disc and fovea"),
        (f"/{layout.image_name}$", f"images without vessels of {observer}"),
    ]
    download.account(result, reasons)
    return result
