"""Writes a draft of the description of your own data, and the table of its files.

frugalseg describe my_scans --out my_set.json5
frugalseg describe my_scans --kind scans --ignore "*_t1*" "*.bmp"
"""

import logging
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from data.describe.draft import choose_name, render_description, render_table
from data.describe.proposal import propose_classes, propose_modality
from data.describe.report import write_report
from data.describe.survey import Survey, survey_folder
from dataloaders.catalog import dataset
from util.cli import run_main, whole
from util.errors import ConfigError
from util.files import write_text
from util.parser import CommandParser, add_json, print_json

MAIN_OPTIONS = ("out", "kind", "ignore", "overwrite", "json")
MOST_JOBS = 4

log = logging.getLogger("data.describe")


def main(arguments: Sequence[str] | None = None) -> None:
    """Reads the command line, looks through the folder and writes the draft, the table and the full report."""
    given = make_parser().parse_args(arguments)
    out: Path = given.out or Path(f"{choose_name(given.folder.resolve().name)}.json5")
    if out.suffix.lower() not in (".json5", ".json"):
        raise ConfigError(f"--out {out}: expected the name of a description, ending in .json5.")
    table, report = out.with_suffix(".csv"), out.with_suffix(".report.txt")
    _refuse_overwriting([out, table], given.overwrite)
    survey = survey_folder(given.folder, given.kind, given.ignore, given.jobs)
    description = render_description(survey, choose_name(out.stem), table.name, str(out))
    write_text(table, render_table(survey, out.parent))
    write_text(out, description)
    write_text(report, "\n".join(write_report(survey, most=None)) + "\n")
    dataset(out)  # what is written must be readable
    for line in write_report(survey):
        log.info("%s", line)
    log.info("written: %s, %s, %s (everything that was found)", out, table, report)
    log.info("next: check %s, then run `frugalseg prepare %s --out data`", out, out)
    if given.json:
        print_json({"description": out, "table": table, "report": report} | _found(survey))


def _found(survey: Survey) -> dict[str, Any]:
    """What the draft is made of, for `--json`."""
    classes, _ = propose_classes(survey)
    patients = {case.patient for case in survey.cases if case.patient}
    return {
        "kind": survey.kind,
        "modality": (propose_modality(survey)[0] or None) if survey.kind == "scans" else None,
        "cases": len(survey.cases),
        "labelled": survey.n_labelled,
        "patients": len(patients) or None,
        "classes": [asdict(each) for each in classes],
        "files_found": survey.n_files,
        "left_out": {each.path: each.reason for each in survey.left_out},
        "remarks": survey.remarks,
    }


def _refuse_overwriting(paths: Sequence[Path], overwrite: bool) -> None:
    existing = [path for path in paths if path.exists()]
    if existing and not overwrite:
        raise ConfigError(
            f"{existing[0]}: exists already, perhaps edited by hand; nothing was written. Choose another name with "
            "--out, or replace it with --overwrite."
        )


def make_parser() -> CommandParser:
    """The parser of the command line."""
    parser = CommandParser("describe", __doc__ or "", MAIN_OPTIONS)
    add = parser.add_argument
    add("folder", type=Path, help="your scans or images with their labels, in any layout")
    add("--out", type=Path, metavar="FILE.json5", help="the draft (default: <folder>.json5 in the current directory)")
    add(
        "--kind",
        choices=("scans", "images"),
        help="where a folder holds both (default: the larger part)",
    )
    add("--ignore", nargs="+", default=[], metavar="PATTERN", help='paths to leave out, such as "*_t1*"')
    add("--jobs", type=whole(1), default=min(MOST_JOBS, os.cpu_count() or 1), help="files read at a time")
    add("--overwrite", action="store_true", help="replace an existing draft and table")
    add_json(parser)
    return parser


if __name__ == "__main__":
    run_main(main)
