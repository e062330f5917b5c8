"""The picture page of a prepared set: one tile per case with everything that exists beside the image.

frugalseg pictures my_set.json5 --data-dir data    # writes pictures.html into the prepared folder
"""

from data.pictures.cases import CaseSource
from data.pictures.images import ImageCases
from data.pictures.page import FILE_NAME, save_page
from data.pictures.scans import ScanCases

SOURCES: dict[str, type[CaseSource]] = {"images": ImageCases, "scans": ScanCases}

__all__ = ["FILE_NAME", "SOURCES", "save_page"]
