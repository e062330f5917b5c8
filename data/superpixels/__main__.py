"""Computes superpixels of prepared scans or images.

TARGET is the name of a built-in set, the description of your own data, or a prepared folder.

    frugalseg superpixels chaost2 --scale MIDDLE --jobs 8
    frugalseg superpixels isic2017 --jobs 8 --picture superpixels.png
    frugalseg superpixels jsrt --structure heart --source gray+prob --probabilities FOLDER
    frugalseg superpixels isic2017 --import-json FOLDER --name rgb_100_10

Scans: writes superpix-<scale>_<scan id>.nii.gz next to image_<scan id>.nii.gz, the pseudo-labels of self-supervised
training. Images: writes superpixels/<kind>/<id>.png of the training images, and superpixels.json with the parameters
and the agreement with the experts' masks. For gray+prob, FOLDER holds the probabilities of a first network;
`frugalseg probabilities ...` writes them. --import-json imports superpixels of the released code of
superpixel-guided learning, a folder of <id>.json.

Results that are up to date are not computed again; an interrupted run resumes.
"""

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from data.prepare.import_labels import import_superpixels, require_name
from data.prepare.steps import (
    add_structures,
    add_target,
    open_images,
    refuse_options,
    resolve_target,
    select_structures,
)
from data.superpixels import images, scans
from data.superpixels.regions import MIN_AREA_PX, SCALES
from dataloaders.description import DatasetSpec
from dataloaders.images.folder import SuperpixelConfig
from util.cli import number, run_main, whole
from util.items import run_all
from util.parser import CommandParser, add_json, answering

MAIN_OPTIONS = ("data_dir", "jobs", "scale", "structure", "source", "picture", "json")
SCAN_OPTIONS = ("scale", "numbering", "min_area_px")
IMPORT_OPTIONS = ("name",)
MAKING_OPTIONS = ("structure", "source", "n_segments", "compactness", "probabilities", "clahe", "picture")
IMAGE_OPTIONS = ("size_px", "import_json", *IMPORT_OPTIONS, *MAKING_OPTIONS[:-1])


def main(arguments: Sequence[str] | None = None) -> None:
    """Reads the command line; writes the superpixels and, on request, the picture."""
    parser = make_parser()
    given = parser.parse_args(arguments)
    spec, folder = resolve_target(given.target, given.data_dir, given.dataset, given.size_px)
    if spec.kind == "images":
        refuse_options(given, parser, SCAN_OPTIONS, "not for sets of images")
        refuse_options(
            given,
            parser,
            IMPORT_OPTIONS if given.import_json is None else MAKING_OPTIONS,
            "only with --import-json" if given.import_json is None else "not with --import-json",
        )
    else:
        refuse_options(given, parser, IMAGE_OPTIONS, "not for sets of scans")
    with answering(given.json) as answer:
        answer |= {"dataset": spec.name, "folder": folder}
        if spec.kind == "images":
            _write_of_images(given, answer)
        else:
            _write_of_scans(given, spec, folder, answer)


def _write_of_scans(given: argparse.Namespace, spec: DatasetSpec, folder: Path, answer: dict[str, Any]) -> None:
    answer["scale"] = given.scale
    write = partial(
        scans.write_pseudo_labels, folder, spec, given.scale, given.numbering, given.min_area_px, given.jobs
    )

    def count() -> None:
        answer["n_superpixels"] = scans.count_pseudo_labels(folder, spec, given.scale)

    run_all([write, count])
    if given.picture:
        scans.draw_pseudo_labels(folder, spec, given.scale, given.picture)


def _write_of_images(given: argparse.Namespace, answer: dict[str, Any]) -> None:
    folder = open_images(given.target, given.data_dir, given.dataset, given.size_px)
    answer["superpixels"] = made = []
    if given.import_json is not None:
        made.append({"folder": import_superpixels(given.import_json, folder, require_name(given.name, "rgb_100_10"))})
        return
    config = SuperpixelConfig(given.source, given.n_segments, given.compactness, given.clahe)
    structures = select_structures(folder.spec, given.structure)
    settings = {folder.superpixel_folder(config, structure): structure for structure in structures}

    def write(output: Path, structure: str) -> None:
        facts = images.write_superpixels(folder, config, structure, probabilities=given.probabilities, jobs=given.jobs)
        made.append({"folder": output, "structure": structure} | facts["quality"])
        if given.picture:
            stem = given.picture.stem + (f"_{output.name}" if len(settings) > 1 else "")
            images.draw_superpixels(folder, config, structure, given.picture.with_stem(stem))

    run_all(partial(write, output, structure) for output, structure in settings.items())


def make_parser() -> CommandParser:
    """The parser of the command line."""
    parser = CommandParser("superpixels", __doc__ or "", MAIN_OPTIONS)
    add_target(parser)
    add = parser.add_argument
    add("--jobs", type=whole(1), default=1, help="processes (default: 1)")
    add("--picture", type=Path, metavar="FILE.png", help="also draw some slices or images with outlines")
    add("--scale", default="MIDDLE", choices=SCALES, help="scans: kind of superpixels (default: MIDDLE)")
    add("--numbering", default="compact", choices=("compact", "legacy"), help="scans: of the ids (default: compact)")
    add(
        "--min-area-px", type=whole(0), default=MIN_AREA_PX, help=f"scans: drop smaller pieces (default: {MIN_AREA_PX})"
    )
    add_structures(parser)
    add("--source", choices=("rgb", "gray", "gray+prob"), help="images: default: rgb for colour images, else gray")
    add("--n-segments", type=whole(2, 65_535), help="images: superpixels per image (default: the structure's)")
    add(
        "--compactness",
        type=number(above=0.0),
        help="images: default: 10 for rgb (Lab), 10/255 for grey (intensities 0 to 1)",
    )
    add("--probabilities", type=Path, metavar="FOLDER", help="images: <id>.png of a first network, for gray+prob")
    add("--clahe", action="store_true", help="images: equalise the contrast locally first")
    add("--import-json", type=Path, metavar="FOLDER", help="images: import superpixels from <id>.json")
    add("--name", help="images: with --import-json: folder name of the imported superpixels, such as rgb_100_10")
    add_json(parser)
    return parser


if __name__ == "__main__":
    run_main(main)
