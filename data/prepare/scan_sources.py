"""The source of the raw scans of each data set."""

from data.sources import chaos, mms, own_scans, sabs, scgm
from data.sources.raw_scans import ScanSource
from dataloaders.description import DatasetSpec
from util.errors import ConfigError

OWN = "own"  # any set whose description names a table of files
SCAN_SOURCES: dict[str, ScanSource] = {
    "CHAOST2": chaos.SOURCE,
    "SABS": sabs.SOURCE,
    "MMS": mms.SOURCE,
    "SCGM": scgm.SOURCE,
    OWN: own_scans.SOURCE,
}


def source_for(spec: DatasetSpec) -> ScanSource:
    """How the scans of a set are found and read.

    Raises:
        ConfigError: the set is not built in and its description names no table of files.
    """
    if spec.files or spec.name not in SCAN_SOURCES:
        if not spec.files:
            raise ConfigError(
                f"{spec.name}: the description names no files; expected `files`, a table (CSV) of the scans. Write a "
                "draft with `frugalseg describe FOLDER`."
            )
        return SCAN_SOURCES[OWN]
    return SCAN_SOURCES[spec.name]
