"""Fundus photographs with vessels, lesions, or disc and cup: how the raw files of seven public sets are found and read.

The field of view is cut out by the rule of the description (`grid.field`).
"""

from collections.abc import Callable, Mapping

from data.sources.fundus import ddr, drive, idrid, observers, refuge, reta
from data.sources.raw_images import ImageSource
from dataloaders.description import DatasetSpec

# By name of the data set.
FUNDUS_SOURCES: Mapping[str, Callable[[DatasetSpec], ImageSource]] = {
    "ARIA": observers.source,
    "DDR": ddr.source,
    "DRIVE": drive.source,
    "IDRiD": idrid.source,
    "REFUGE": refuge.source,
    "RETA": reta.source,
    "STARE": observers.source,
}
