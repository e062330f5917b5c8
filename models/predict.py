r"""Segments your own images or scans with a trained network; the checkpoint decides which of these.

    python -m models.predict --checkpoint checkpoint.pt --images FOLDER --out RESULTS --overlays

    python -m models.predict --checkpoint checkpoint.pt --support-image A.nii.gz --support-label A_label.nii.gz \
        --scans FOLDER --out RESULTS --overlays

    python -m models.predict --checkpoint checkpoint.pt --scans FOLDER --out RESULTS --overlays

Dense networks and those of several tasks segment images: PNG, JPEG, TIFF and BMP files, or folders of them. Few-shot
networks segment scans with one annotated scan: NIfTI files, folders of one DICOM series each, or folders of these.
Networks of several sources segment such scans without an annotated one, and every frame of NIfTI files with time as
fourth axis. RESULTS receives a label map <name>_segmentation of each image or scan at its original size (one for each
of several tasks), areas.csv or volumes.csv, and with --overlays a picture each. What cannot be segmented is reported at
the end with the reason, exit code 1; all other files are processed. Files that are left out, such as label maps of
other files, are counted and named.

Results of an earlier run stay: further files can be added to the same folder, and the table keeps its lines. To replace
results, give --overwrite; where a file then fails, its earlier result and lines stay. Probabilities and overlays of a
replaced result are removed unless they are written again.

Research software, not a medical device. See docs/predict.md.
"""

import argparse
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from dataloaders.io.volumes import read_volume
from dataloaders.scans.normalise import Normalisation
from models.prediction import images as image_files
from models.prediction import origin
from models.prediction import scans as scan_files
from models.prediction.batch import Inventory, find_all, refuse_existing
from models.prediction.dense import DensePredictor as DensePredictor
from models.prediction.fewshot import FewShotPredictor as FewShotPredictor
from models.prediction.partial import PartialPredictor as PartialPredictor
from models.prediction.partial_scans import PartialScanPredictor as PartialScanPredictor
from models.prediction.scan_search import find_scans
from models.prediction.sources import SourcesPredictor as SourcesPredictor
from models.training.load import read_trained
from util.cli import number, run_main, whole
from util.errors import ConfigError
from util.items import Failures, exit_code, naming

logger = logging.getLogger(__name__)

N_SHOWN = 5  # names of removed files in the log

# Options of one family alone, those that it needs first.
NEEDED: dict[str, tuple[str, ...]] = {
    "dense": ("images",),
    "fewshot": ("support_image", "support_label", "scans"),
    "sources": ("scans",),
    "partial": ("images",),
    "partial_scans": ("scans",),
}
FURTHER: dict[str, tuple[str, ...]] = {
    "dense": ("probabilities",),
    "fewshot": ("classes", "parts", "modelname", "mean_std"),
    "sources": (),
    "partial": ("probabilities",),
    "partial_scans": (),
}
ITEMS = {"dense": "images", "fewshot": "scans", "sources": "scans", "partial": "images", "partial_scans": "scans"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Reads the command line and segments; returns 1 if an image or scan failed, else 0."""
    given = _parser().parse_args(arguments)
    family = origin.family(read_trained(given.checkpoint))
    if family not in COMMANDS:
        raise ConfigError(f"{given.checkpoint}: no predictor of {family} methods; expected {' or '.join(COMMANDS)}.")
    _check_options(given, family)
    outcome = COMMANDS[family](given)
    logger.info("%d of %d %s segmented, in %s", outcome.n_done, outcome.n_found, ITEMS[family], given.out)
    if outcome.removed:
        text = "removed %d probability maps and overlays of an earlier run, whose masks this one has replaced (%s%s)"
        shown = ", ".join(outcome.removed[:N_SHOWN])
        logger.info(text, len(outcome.removed), shown, ", ..." * (len(outcome.removed) > N_SHOWN))
    if outcome.inventory.left_out:
        logger.warning("%s", outcome.inventory)
    return max(exit_code(outcome.failures, "not segmented"), exit_code(outcome.pictures, "segmented, but not drawn"))


@dataclass
class Outcome:
    """What became of a run: number of images or scans found and segmented, and the reasons of the others.

    Attributes:
        failures: name -> reason of what could not be segmented.
        pictures: name -> reason of what could not be drawn.
        inventory: of the files.
        removed: names of files of an earlier run that belonged to results which this one has replaced.
    """

    failures: Failures = field(default_factory=dict)
    pictures: Failures = field(default_factory=dict)
    inventory: Inventory = field(default_factory=Inventory)
    removed: list[str] = field(default_factory=list)
    n_found: int = 0
    n_done: int = 0


def _check_options(given: argparse.Namespace, family: str) -> None:
    """Checks that the options suit the checkpoint.

    Raises:
        ConfigError: an option of other families alone, or one that is missing.
    """
    needed = ", ".join(map(_option, NEEDED[family]))
    others = dict.fromkeys(key for other in NEEDED for key in (*NEEDED[other], *FURTHER[other]))
    own = (*NEEDED[family], *FURTHER[family])
    foreign = [_option(key) for key in others if key not in own and getattr(given, key) not in (None, False)]
    if foreign:
        raise ConfigError(
            f"{', '.join(foreign)}: not for {given.checkpoint}, whose method is {origin.USES[family]}. Leave "
            f"{'it' if len(foreign) == 1 else 'them'} out; expected {needed}."
        )
    missing = [_option(key) for key in NEEDED[family] if getattr(given, key) is None]
    if missing:
        raise ConfigError(
            f"{', '.join(missing)}: missing; {given.checkpoint}, whose method is {origin.USES[family]}, needs {needed}."
        )


def _option(key: str) -> str:
    return f"--{key.replace('_', '-')}"


def _segment_images(kind: type[DensePredictor | PartialPredictor], given: argparse.Namespace) -> Outcome:
    outcome = Outcome()
    files, outcome.inventory = find_all(given.images, image_files.find_images, outcome.failures)
    images = image_files.name_images(files)
    predictor = kind.from_checkpoint(given.checkpoint, given.weights, given.device, dataset=given.dataset)
    if not given.overwrite:
        refuse_existing(given.out, image_files.result_names(predictor, images))
    outcome.n_found = len(images) + len(outcome.failures)
    pictures = outcome.pictures if given.overlays else None
    outcome.n_done = image_files.segment_images(
        predictor, images, given.out, pictures, given.probabilities, outcome.failures,
        outcome.removed if given.overwrite else None,
    )  # fmt: skip
    return outcome


def _segment_scans(given: argparse.Namespace) -> Outcome:
    outcome, scans = _find_scans(given)
    classes = dict(given.classes or ())
    if len(classes) < len(given.classes or ()):
        raise ConfigError("--classes: a name or value was given twice; expected different ones.")
    if given.mean_std and given.mean_std[1] <= 0:
        raise ConfigError(f"--mean-std: a standard deviation of {given.mean_std[1]:g}; expected more than 0.")
    predictor = FewShotPredictor.from_checkpoint(
        given.checkpoint, given.weights, given.device, n_parts=3 if given.parts is None else given.parts,
        dataset=given.dataset, modelname=given.modelname,
        normalisation=Normalisation(*given.mean_std) if given.mean_std else None,
    )  # fmt: skip
    with naming(given.support_image):
        image = read_volume(given.support_image)
    with naming(given.support_label):
        label = read_volume(given.support_label)
    with naming(f"{given.support_image}, {given.support_label}"):
        predictor.set_support(image, label, classes or None)
    return _apply(predictor, given, scans, outcome)


def _segment_frames(kind: type[SourcesPredictor], given: argparse.Namespace) -> Outcome:
    outcome, scans = _find_scans(given)
    predictor = kind.from_checkpoint(given.checkpoint, given.weights, given.device, dataset=given.dataset)
    return _apply(predictor, given, scans, outcome)


def _find_scans(given: argparse.Namespace) -> tuple[Outcome, dict[str, Path]]:
    """The scans by name; those in which nothing was found are failures.

    Raises:
        DataError: there are none.
        UserError: a result would be replaced.
    """
    outcome = Outcome()
    files, outcome.inventory = find_all(given.scans, find_scans, outcome.failures)
    scans = scan_files.name_scans(files)
    if not given.overwrite:
        refuse_existing(given.out, scan_files.result_names(scans))
    outcome.n_found = len(scans) + len(outcome.failures)
    return outcome, scans


def _apply(
    predictor: scan_files.Predictor, given: argparse.Namespace, scans: dict[str, Path], outcome: Outcome
) -> Outcome:
    pictures = outcome.pictures if given.overlays else None
    removed = outcome.removed if given.overwrite else None
    outcome.n_done = scan_files.segment_scans(predictor, scans, given.out, pictures, outcome.failures, removed)
    return outcome


COMMANDS: dict[str, Callable[[argparse.Namespace], Outcome]] = {
    "dense": partial(_segment_images, DensePredictor),
    "fewshot": _segment_scans,
    "sources": partial(_segment_frames, SourcesPredictor),
    "partial_scans": partial(_segment_frames, PartialScanPredictor),
    "partial": partial(_segment_images, PartialPredictor),
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m models.predict", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--checkpoint", type=Path, required=True, help="trained network")
    add("--out", type=Path, required=True, help="folder for the results")
    add("--weights", choices=("last", "ema"), default="last", help="ema: the averaged ones (default: last)")
    add("--device", default="auto", help="auto, cpu or cuda (default: auto)")
    add("--overlays", action="store_true", help="also draw a picture per image or scan")
    add("--overwrite", action="store_true", help="replace existing results")
    add("--dataset", help="data set of the training, only for checkpoints that do not contain it")
    add = parser.add_argument_group("images, with a dense network or one of several tasks").add_argument
    add("--images", type=Path, nargs="+", metavar="FILE_OR_FOLDER", help="what to segment")
    add("--probabilities", action="store_true", help="also write the probability of each structure, 16-bit PNG")
    add = parser.add_argument_group("scans, with a few-shot network or one of several sources").add_argument
    add("--scans", type=Path, nargs="+", metavar="FILE_OR_FOLDER", help="what to segment")
    add = parser.add_argument_group("scans, with a few-shot network").add_argument
    add("--support-image", type=Path, help="annotated scan: NIfTI file or folder of DICOM files")
    add("--support-label", type=Path, help="its label map: NIfTI, same grid, 0 is the background")
    add("--classes", type=_class, nargs="+", metavar="[NAME=]VALUE", help="label values to segment (default: all)")
    add("--parts", type=_odd, help="annotated slices used per structure; odd (default: 3)")
    add("--modelname", help="encoder, such as dlfcn_res101, of checkpoints released by the authors of SSL-ALPNet")
    add("--mean-std", type=number(), nargs=2, metavar=("MEAN", "STD"), help="of their preprocessed training scans; CT")
    return parser


def _class(text: str) -> tuple[str, int]:
    """`liver=6` or `6`."""
    name, _, value = text.rpartition("=")
    if not value.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r}: expected VALUE or NAME=VALUE with a whole number, e.g. liver=6")
    return name or f"label {int(value)}", int(value)


def _odd(text: str) -> int:
    value = whole(1)(text)
    if value % 2 == 0:
        raise argparse.ArgumentTypeError(
            f"{text!r}: expected an odd number from 1, as slices lie around the middle one"
        )
    return value


if __name__ == "__main__":
    run_main(main)
