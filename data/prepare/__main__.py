"""Prepares raw data for training.

TARGET is the name of a built-in set (scans: chaost2, sabs, mms, scgm; images: isic2017, jsrt, shenzhen; photographs
of the fundus: ddr, idrid, refuge, reta, drive, stare, aria), or the description of your own data; its table says where
the files are, so that --raw is not needed. A scan or image that cannot be prepared is named at the end with the reason,
exit code 1; all others are done. The folder does not pass the check until it is corrected or removed:

    frugalseg prepare chaost2 --raw FOLDER --out data
    frugalseg prepare my_set.json5 --out data

Scans are prepared in steps; --step runs one of them. Finished work is not repeated:

    convert      raw files -> one image and one label file per scan (built-in sets)
    normalise    -> common grid and intensities, the prepared folder
    index        -> classmap_1.json there: the slices that show each class; [--min-foreground-px N]
    superpixels  -> superpix-MIDDLE_<scan id>.nii.gz there: the pseudo-labels of self-supervised training (left out of
                 `all` where the description says `superpixels: false`)

Of your own data, the last line counts the files next to those of the table, and names those that are not in it.

TARGET of the steps index and superpixels can also be a prepared folder. Images are prepared in one step:

    frugalseg prepare isic2017 --raw FOLDER --out data --size-px 256 --split random:0.25 --jobs 4
"""

import argparse
import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from data.prepare.class_index import write_class_index
from data.prepare.images import prepare_images
from data.prepare.scans import convert, normalise
from data.prepare.steps import LEAST_PX, files_table, is_prepared_folder, refuse_options, resolve_target
from data.sources.own_files import account_for_table
from data.superpixels.scans import write_pseudo_labels
from dataloaders.description import DatasetSpec
from dataloaders.images.folder import MANIFEST, SPLITS, ImageFolder
from dataloaders.scans.folder import scan_files
from dataloaders.scans.preprocess import parameters_of
from util.cli import number, run_main, whole
from util.errors import ConfigError
from util.items import run_all
from util.parser import CommandParser, add_json, answering

log = logging.getLogger(__name__)

MAIN_OPTIONS = ("raw", "out", "jobs", "size_px", "step", "split", "json")
STEPS = ("convert", "normalise", "index", "superpixels")
FOLDER_STEPS = ("index", "superpixels")  # that need nothing but a prepared folder
SCAN_OPTIONS = ("step", "spacing_mm", "size_rule", "numbering", "min_foreground_px")
IMAGE_OPTIONS = ("split",)


def main(arguments: Sequence[str] | None = None) -> None:
    """Reads the command line and runs the requested steps."""
    parser = make_parser()
    given = parser.parse_args(arguments)
    if is_prepared_folder(given.target) and given.step not in FOLDER_STEPS:
        raise ConfigError(
            f"{given.target}: a folder; expected the name of a built-in set or the path of a description. For a "
            f"download of a built-in set: `frugalseg prepare NAME --raw {given.target}`."
        )
    spec, folder = resolve_target(given.target, given.out, given.dataset)
    kind, others = ("images", SCAN_OPTIONS) if spec.kind == "images" else ("scans", IMAGE_OPTIONS)
    refuse_options(given, parser, others, f"not for sets of {kind}")
    table = files_table(given.target, spec) if not is_prepared_folder(given.target) else None
    if table is not None and given.raw is not None:
        raise ConfigError(f"--raw {given.raw}: not for own data; {table} names the files. Leave it out.")
    raw = table or given.raw or given.out / spec.name
    if spec.kind == "images":
        steps: list[Callable[[], object]] = [
            partial(prepare_images, spec, raw, given.out, given.size_px, given.split, given.jobs)
        ]
        folder = given.out / spec.prepared_folder(given.size_px)
    else:
        steps = _scan_steps(given, spec, raw, folder)
    with answering(given.json) as answer:
        answer |= {"dataset": spec.name, "kind": spec.kind, "folder": folder}
        steps.append(partial(_count_prepared, folder, spec, answer))
        if table is not None:
            steps.append(partial(_account, table, spec, Path(given.target), given.out, answer))
        run_all(steps)


def _count_prepared(folder: Path, spec: DatasetSpec, answer: dict[str, Any]) -> None:
    """Adds the ids of what the folder holds; of images by split."""
    if spec.kind == "scans":
        answer |= {"prepared": list(scan_files(folder, "image")), "labelled": list(scan_files(folder, "label"))}
        return
    images = ImageFolder(folder, spec) if (folder / MANIFEST).exists() else None
    answer["prepared"] = {split: images.ids(split) if images else () for split in SPLITS}


def _account(table: Path, spec: DatasetSpec, description: Path, out: Path, answer: dict[str, Any]) -> None:
    found = account_for_table(table, spec, description, out)
    answer |= {"files_found": found.n_found, "left_out": found.left_out}
    log.info("%s", found)


def _scan_steps(given: argparse.Namespace, spec: DatasetSpec, raw: Path, folder: Path) -> list[Callable[[], object]]:
    steps = [step for step in STEPS if spec.superpixels or step != "superpixels"]
    steps = steps if given.step == "all" else [given.step]
    spacing_mm = tuple(given.spacing_mm) if given.spacing_mm else None
    parameters = parameters_of(spec, given.size_px, spacing_mm, given.size_rule)
    work = {
        "convert": partial(convert, spec, raw, given.out, given.jobs),
        "normalise": partial(normalise, spec, given.out, parameters, given.jobs, raw),
        "index": partial(write_class_index, folder, spec, given.min_foreground_px),
        "superpixels": partial(write_pseudo_labels, folder, spec, numbering=given.numbering, jobs=given.jobs),
    }
    return [work[step] for step in steps]


def make_parser() -> CommandParser:
    """The parser of the command line."""
    parser = CommandParser("prepare", __doc__ or "", MAIN_OPTIONS)
    add = parser.add_argument
    add("target", metavar="TARGET", help="built-in name, or description of your own data (my_set.json5)")
    add("--raw", type=Path, help="folder of the download of a built-in set (default: <out>/CHAOST2 and so on)")
    add("--out", type=Path, default=Path("data"), help="data root, in which all results are written (default: data)")
    add("--jobs", type=whole(1), default=1, help="processes; each holds one case in memory (default: 1)")
    add("--size-px", type=whole(LEAST_PX), help="rows and columns (default: the data set's); the field of view stays")
    add("--step", choices=(*STEPS, "all"), default="all", help="scans: one step only (default: all)")
    add("--dataset", metavar="NAME", help="scans: data set of a prepared folder that has no dataset.json5")
    add(
        "--spacing-mm",
        type=number(above=0.0),
        nargs=3,
        metavar=("Z", "Y", "X"),
        help="scans: voxel size (default: the set's)",
    )
    add("--size-rule", choices=("clean", "reference"), default="clean", help="scans: reference: one slice too many")
    add("--numbering", choices=("compact", "legacy"), default="compact", help="scans: numbering of superpixels")
    add(
        "--min-foreground-px",
        type=whole(1),
        default=1,
        help="scans, index: pixels that make a class present (default: 1)",
    )
    add("--split", help="images: a rule of the set, random:FRACTION for testing, or a CSV file: id, split")
    add_json(parser)
    return parser


if __name__ == "__main__":
    run_main(main)
