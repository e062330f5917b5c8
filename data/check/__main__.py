"""Validates prepared data and suggests fixes, one line per finding.

TARGET is the name of a built-in set, the description of your own data, or a prepared folder.

    frugalseg check chaost2 --fold 0
    frugalseg check my_set.json5 --data-dir data
    frugalseg check data/JSRT/prepared_256px --structure lung --noise 0.7 0.7 --superpixels
"""

from collections.abc import Sequence
from dataclasses import asdict

from data.check import check_folder
from data.check.images import check_images
from data.check.rules import Finding
from data.prepare.steps import add_structures, add_target, refuse_options, resolve_target
from data.superpixels.regions import SCALES
from dataloaders.images.folder import NoiseConfig, SuperpixelConfig
from util.cli import number, run_main, whole
from util.parser import CommandParser, add_json, print_json, print_text

MAIN_OPTIONS = ("data_dir", "jobs", "fold", "structure", "noise", "superpixels", "json")
SCAN_OPTIONS, IMAGE_OPTIONS = ("scale", "fold"), ("size_px", "structure", "noise", "superpixels")


def main(arguments: Sequence[str] | None = None) -> int:
    """Reads the command line and validates; returns 1 where there are errors, else 0."""
    parser = make_parser()
    given = parser.parse_args(arguments)
    spec, folder = resolve_target(given.target, given.data_dir, given.dataset, given.size_px)
    findings: list[Finding]
    if spec.kind == "images":
        refuse_options(given, parser, SCAN_OPTIONS, "not for sets of images")
        noise = NoiseConfig(*given.noise) if given.noise else None
        superpixel = SuperpixelConfig() if given.superpixels else None
        findings = check_images(folder, spec, given.structure or (), noise, superpixel, given.jobs)
    else:
        refuse_options(given, parser, IMAGE_OPTIONS, "not for sets of scans")
        scale = given.scale or ("MIDDLE" if spec.superpixels else "none")
        scale = None if scale == "none" else scale
        findings = check_folder(folder, spec, scale, given.fold, jobs=given.jobs)
    n_errors = sum(finding.severity == "error" for finding in findings)
    n_warnings = len(findings) - n_errors
    if given.json:
        print_json(
            {"folder": folder, "errors": n_errors, "warnings": n_warnings, "findings": [asdict(f) for f in findings]}
        )
        return 1 if n_errors else 0
    counts = f"{folder}: {n_errors} error(s), {n_warnings} warning(s)"
    print_text("".join(f"{line}\n" for line in (*findings, counts)))
    return 1 if n_errors else 0


def make_parser() -> CommandParser:
    """The parser of the command line."""
    parser = CommandParser("check", __doc__ or "", MAIN_OPTIONS)
    add_target(parser)
    add = parser.add_argument
    add("--jobs", type=whole(1), default=2, help="files read at a time (default: 2)")
    add(
        "--scale", choices=(*SCALES, "none"), help="scans: which pseudo-labels (default: MIDDLE, where the set has any)"
    )
    add("--fold", type=whole(0), help="scans: also check the train, query and support scans of this fold")
    add_structures(parser)
    add("--noise", type=number(), nargs=2, metavar=("ALPHA", "BETA"), help="images: also check these noisy masks")
    add("--superpixels", action="store_true", help="images: also check the superpixels")
    add_json(parser)
    return parser


if __name__ == "__main__":
    run_main(main)
