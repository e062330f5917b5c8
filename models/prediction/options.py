"""The options of `frugalseg predict`, and which of them go together."""

import argparse
from pathlib import Path

from models.prediction import origin
from util.cli import number, whole
from util.errors import ConfigError
from util.ids import invalid_id_reason
from util.parser import CommandParser, add_json

MAIN_OPTIONS = (
    "checkpoints",
    "images",
    "scans",
    "support_image",
    "support_label",
    "out",
    "overlays",
    "overwrite",
    "json",
)
# Options of one family alone, those that it needs first.
NEEDED: dict[str, tuple[str, ...]] = {
    "dense": ("images",),
    "fewshot": ("support_image", "support_label", "scans"),
    "self_trained": ("scans",),
    "sources": ("scans",),
    "partial": ("images",),
    "partial_scans": ("scans",),
}
FOR_SCANS = ("series", "dicom_seg")
FURTHER: dict[str, tuple[str, ...]] = {
    "dense": ("flips",),
    "fewshot": ("classes", "min_confidence", "propagate", "parts", "flips", "modelname", "mean_std", *FOR_SCANS),
    "self_trained": ("min_confidence", *FOR_SCANS),
    "sources": ("flips", *FOR_SCANS),
    "partial": ("flips",),
    "partial_scans": ("flips", *FOR_SCANS),
}
DATASET = (
    "of the training, for checkpoints that do not contain it; without a checkpoint the description of your scans "
    "(.json5), for other intensities, another grid or names of the label values"
)
UNTRAINED = "a segmentation without --checkpoint, which compares scans with annotated ones"
# Options of few-shot networks that have no meaning without one.
ONLY_TRAINED = ("propagate", "parts", "flips", "modelname")


def make_parser(description: str) -> CommandParser:
    """The parser of the command line."""
    parser = CommandParser("predict", description, MAIN_OPTIONS)
    add = parser.add_argument
    text = "trained network; not needed for scans with an annotated one. Several of one method are averaged"
    add("--checkpoint", type=Path, nargs="+", dest="checkpoints", default=[], metavar="FILE", help=text)
    add("--out", type=Path, required=True, help="folder for the results")
    add("--weights", choices=("last", "ema"), default="last", help="ema: the averaged ones (default: last)")
    add("--device", default="auto", help="auto, cpu or cuda (default: auto)")
    add("--overlays", action="store_true", help="also draw a picture per image or scan")
    add("--probabilities", action="store_true", help="also write the probability of each structure: 16-bit PNG, NIfTI")
    text = "average over flipped images or slices, for networks to which left and right are alike; four times as long"
    add("--flips", action="store_true", help=text)
    text = "name structures found with less confidence: 0 to 1, or a validation's folder (default: the last one's)"
    add("--review-below", type=_review_limit, metavar="LIMIT", help=text)
    add("--overwrite", action="store_true", help="replace existing results")
    add("--dataset", help=DATASET)
    add_json(parser)
    add = parser.add_argument_group("images, with a dense network or one of several tasks").add_argument
    add("--images", type=Path, nargs="+", metavar="PLACE", help="files or folders to segment")
    add = parser.add_argument_group("scans").add_argument
    add("--scans", type=Path, nargs="+", metavar="PLACE", help="files or folders to segment")
    add("--series", metavar="NUMBER", help="SeriesNumber to take of folders with several DICOM series")
    add("--dicom-seg", action="store_true", help="also write DICOM SEG of DICOM series; it names the patient")
    add = parser.add_argument_group("scans, compared with annotated ones").add_argument
    add("--support-image", type=Path, nargs="+", metavar="SCAN", help="annotated: NIfTI files, folders of DICOM files")
    add(
        "--support-label",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="their label maps, on the same grids; 0: background",
    )
    add("--classes", type=_class, nargs="+", metavar="[NAME=]VALUE", help="label values to segment (default: all)")
    confidence = number(at_least=0.0, at_most=1.0)
    add("--min-confidence", type=confidence, help="leave out structures found with less, 0 to 1 (default: none)")
    text = "with a checkpoint: compare scans as without one, but by its encoder; more accurate than its own comparison"
    add("--propagate", action="store_true", help=text)
    add("--parts", type=_odd, help="with a checkpoint: annotated slices used per structure; odd (default: 3)")
    add("--modelname", help="encoder, such as dlfcn_res101, of checkpoints released by the authors of SSL-ALPNet")
    add("--mean-std", type=number(), nargs=2, metavar=("MEAN", "STD"), help="of their preprocessed training scans; CT")
    return parser


def _class(text: str) -> tuple[str, int]:
    """`liver=6` or `6`."""
    name, _, value = text.rpartition("=")
    if not value.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r}: expected VALUE or NAME=VALUE with a whole number, e.g. liver=6")
    reason = invalid_id_reason(name) if name else ""
    if reason:
        raise argparse.ArgumentTypeError(f"{text!r}: the name becomes a part of file names, but {reason}")
    return name, int(value)


def _review_limit(text: str) -> float | Path:
    """`0.7`, or the folder of a validation."""
    try:
        float(text)
    except ValueError:
        return Path(text)
    return number(at_least=0.0, at_most=1.0)(text)


def _odd(text: str) -> int:
    value = whole(1)(text)
    if value % 2 == 0:
        raise argparse.ArgumentTypeError(
            f"{text!r}: expected an odd number from 1, as slices lie around the middle one"
        )
    return value


def check_options(given: argparse.Namespace, family: str) -> None:
    """Checks that the options suit the checkpoint, or go without one.

    Raises:
        ConfigError: an option of other families alone, or one that is missing.
    """
    needed = ", ".join(map(_option, NEEDED[family]))
    is_trained = bool(given.checkpoints)
    reader = f"{given.checkpoints[0]}, whose method is {origin.USES[family]}" if is_trained else UNTRAINED
    others = dict.fromkeys(key for other in NEEDED for key in (*NEEDED[other], *FURTHER[other]))
    own = [key for key in (*NEEDED[family], *FURTHER[family]) if is_trained or key not in ONLY_TRAINED]
    foreign = [_option(key) for key in others if key not in own and getattr(given, key) not in (None, False)]
    if foreign:
        raise ConfigError(
            f"{', '.join(foreign)}: not for {reader}. Leave {'it' if len(foreign) == 1 else 'them'} out; expected "
            f"{needed}."
        )
    unused = [_option(key) for key in ("parts", "flips", "modelname") if getattr(given, key) not in (None, False)]
    if given.propagate and unused:
        raise ConfigError(
            f"{', '.join(unused)}: not with --propagate, which uses all annotated slices, an encoder that the "
            "checkpoint names, and finds the same in mirrored scans. Leave it out."
        )
    missing = [_option(key) for key in NEEDED[family] if getattr(given, key) is None]
    if missing:
        raise ConfigError(f"{', '.join(missing)}: missing; {reader} needs {needed}.")
    twice = [path for place, path in enumerate(given.checkpoints) if path in given.checkpoints[:place]]
    if twice:
        raise ConfigError(f"--checkpoint: {twice[0]} was given twice; expected different ones, which are averaged.")
    if not is_trained and given.weights != "last":
        raise ConfigError(f"--weights={given.weights}: not for {reader}. Leave it out.")
    if family == "fewshot" and len(given.support_image) != len(given.support_label):
        raise ConfigError(
            f"--support-image: {len(given.support_image)} given, --support-label: {len(given.support_label)}; expected "
            "as many, in the same order."
        )


def _option(key: str) -> str:
    return f"--{key.replace('_', '-')}"
