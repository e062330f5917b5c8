r"""Segments your own images or scans: scans with an annotated one, or both with a trained network.

    frugalseg predict --support-image A.nii.gz --support-label A_label.nii.gz --scans FOLDER \
        --out RESULTS --overlays
    frugalseg predict --checkpoint checkpoint.pt --images FOLDER --out RESULTS --overlays
    frugalseg predict --checkpoint checkpoint.pt --scans FOLDER --out RESULTS --overlays
    frugalseg predict --checkpoint checkpoint.pt --support-image A.nii.gz --support-label A_label.nii.gz \
        --scans FOLDER --out RESULTS --overlays
    frugalseg predict --checkpoint fold0.pt fold1.pt fold2.pt --flips --images FOLDER --out RESULTS --probabilities

Without a checkpoint, scans are compared with one or several annotated scans, without any training. Else the checkpoint
decides: dense networks and those of several tasks segment images: PNG, JPEG, TIFF and BMP files, or folders of them.
Few-shot networks segment scans with annotated ones: NIfTI files, folders of one DICOM series each, or folders of these.
Networks of several sources segment such scans without an annotated one, and every frame of NIfTI files with time as
fourth axis. RESULTS receives a label map <name>_segmentation of each image or scan at its original size (one for each
of several tasks), tables of the label values for ITK-SNAP and 3D Slicer, areas.csv or volumes.csv, a page of all
results, segmentations.html, and with --overlays a picture each. With --dicom-seg, DICOM series also get a DICOM
segmentation, which names the patient as the series does. What cannot be segmented is reported at the end with the
reason, exit code 1; all other files are processed.
Files that are left out, such as label maps of other files, are counted and named.

Results of an earlier run stay: further files can be added to the same folder, and the table keeps its lines. To replace
results, give --overwrite; where a file then fails, its earlier result and lines stay. Probabilities, overlays and
DICOM segmentations of a replaced result are removed unless they are written again.

Research software, not a medical device. See docs/predict.md.
"""

import argparse
import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

from dataloaders.io.volumes import read_volume
from dataloaders.scans.normalise import Normalisation
from models.prediction import images as image_files
from models.prediction import options, origin
from models.prediction import scans as scan_files
from models.prediction.annotated import Annotated, check_annotated
from models.prediction.averaging import averaged as averaged
from models.prediction.batch import Outcome, Record, find_all, refuse_existing
from models.prediction.dense import DensePredictor as DensePredictor
from models.prediction.fewshot import FewShotPredictor as FewShotPredictor
from models.prediction.options import check_options
from models.prediction.partial import PartialPredictor as PartialPredictor
from models.prediction.partial_scans import PartialScanPredictor as PartialScanPredictor
from models.prediction.propagation import PropagationPredictor as PropagationPredictor
from models.prediction.review import limit_of
from models.prediction.scan_search import find_scans
from models.prediction.self_trained import SelfTrainedPredictor as SelfTrainedPredictor
from models.prediction.sources import SourcesPredictor as SourcesPredictor
from models.training.load import read_trained
from util.cli import command_line, run_main
from util.errors import ConfigError
from util.items import dispensable, exit_code, naming
from util.parser import CommandParser, print_json
from util.results.report.prediction import FILE_NAME as PAGE
from util.results.report.prediction import About, save_prediction_page

logger = logging.getLogger(__name__)

P = TypeVar("P", bound=DensePredictor | PartialPredictor | FewShotPredictor | SourcesPredictor)
N_SHOWN = 5  # names of removed files, and of doubtful masks, in the log
ITEMS = {
    "dense": "images",
    "fewshot": "scans",
    "self_trained": "scans",
    "sources": "scans",
    "partial": "images",
    "partial_scans": "scans",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Reads the command line and segments; returns 1 if an image or scan failed, else 0."""
    given = make_parser().parse_args(arguments)
    given.checkpoint = next(iter(given.checkpoints), None)
    content = None if given.checkpoint is None else read_trained(given.checkpoint)
    family = "fewshot" if content is None else origin.family(content)
    if family not in COMMANDS:
        raise ConfigError(f"{given.checkpoint}: no predictor of {family} methods; expected {' or '.join(COMMANDS)}.")
    check_options(given, family)
    given.limit = limit_of(given, content)
    outcome = COMMANDS[family](given)
    logger.info("%d of %d %s segmented, in %s", outcome.n_done, outcome.n_found, ITEMS[family], given.out)
    if outcome.removed:
        text = "removed %d files of an earlier run, such as overlays, whose masks this one has replaced (%s%s)"
        shown = ", ".join(outcome.removed[:N_SHOWN])
        logger.info(text, len(outcome.removed), shown, ", ..." * (len(outcome.removed) > N_SHOWN))
    doubtful = [each for each in outcome.records if each["review"] == "yes" and each.get("voxels", True)]
    if doubtful:
        shown = ", ".join(map(_doubt, doubtful[:N_SHOWN])) + ", ..." * (len(doubtful) > N_SHOWN)
        number = f"{len(doubtful)} mask{'s' if len(doubtful) > 1 else ''}"
        logger.warning("%s to look at, with a confidence below %.3g: %s", number, given.limit, shown)
    if outcome.inventory.left_out:
        logger.warning("%s", outcome.inventory)
    _write_page(given, family, outcome)
    if given.json:
        print_json({"out": given.out} | outcome.to_json())
    return max(
        exit_code(outcome.failures, "not segmented"),
        exit_code(outcome.pictures, "segmented, but not drawn"),
        exit_code(outcome.dicom_seg, "segmented, but without a DICOM segmentation"),
    )


def _doubt(record: Record) -> str:
    name = record.get("scan", record.get("image"))
    frame = f" frame {record['frame']}" if record.get("frame", "") != "" else ""
    return f"{name}{frame} {record['structure']} ({record['confidence']:.2f})"


def make_parser() -> CommandParser:
    """The parser of the command line."""
    return options.make_parser(__doc__ or "")


def _write_page(given: argparse.Namespace, family: str, outcome: Outcome) -> None:
    """Writes the page of all results in the folder; whatever prevents it costs nothing else."""
    files = scan_files if ITEMS[family] == "scans" else image_files
    if not outcome.n_done:
        return
    method = f"Compared with {len(given.support_image)} annotated scan(s)" if family == "fewshot" else "Segmented"
    method += f" by {outcome.method}"
    if given.checkpoint:  # the name of its folder tells which run it is of
        method += f", {'/'.join(given.checkpoint.resolve().parts[-2:])}"
    about = About(method, command_line(), outcome.failures, given.limit)
    with dispensable(PAGE):
        page = save_prediction_page(given.out / files.TABLE, files.OVERLAY, about)
        logger.info("page: %s", page)


def _segment_images(kind: type[DensePredictor | PartialPredictor], given: argparse.Namespace) -> Outcome:
    outcome = Outcome()
    files, outcome.inventory = find_all(given.images, image_files.find_images, outcome.failures)
    images = image_files.name_images(files)
    predictor = _trained(kind, given)
    if not given.overwrite:
        refuse_existing(given.out, image_files.result_names(predictor, images))
    outcome.n_found, outcome.method = len(images) + len(outcome.failures), type(predictor.segmenter.method).__name__
    pictures = outcome.pictures if given.overlays else None
    outcome.n_done = image_files.segment_images(
        predictor, images, given.out, pictures, given.probabilities, outcome.failures,
        outcome.removed if given.overwrite else None, outcome.records, given.limit,
    )  # fmt: skip
    return outcome


def _segment_scans(given: argparse.Namespace) -> Outcome:
    outcome, scans = _find_scans(given)
    if given.mean_std and given.mean_std[1] <= 0:
        raise ConfigError(f"--mean-std: a standard deviation of {given.mean_std[1]:g}; expected more than 0.")
    pairs = zip(given.support_image, given.support_label, strict=True)
    supports = [_read_annotated(image, label, given.series or "") for image, label in pairs]
    predictor = _fewshot_predictor(given, supports[0])
    predictor.set_supports(supports, _classes(given.classes, predictor))
    return _apply(predictor, given, scans, outcome)


def _read_annotated(image: Path, label: Path, series: str) -> Annotated:
    with naming(image):
        scan = read_volume(image, series)
    with naming(label):
        return Annotated(scan, read_volume(label), f"{image}, {label}")


def _fewshot_predictor(given: argparse.Namespace, first: Annotated) -> FewShotPredictor:
    normalisation = Normalisation(*given.mean_std) if given.mean_std else None
    least = given.min_confidence or 0.0
    if given.checkpoint is None:
        with naming(first.name):
            check_annotated(first)
        return PropagationPredictor.from_scan(
            first.image, given.device, dataset=given.dataset, normalisation=normalisation, min_confidence=least
        )
    kind, n_parts = PropagationPredictor if given.propagate else FewShotPredictor, given.parts or 3
    more = {"modelname": given.modelname, "normalisation": normalisation, "min_confidence": least}
    return _trained(kind, given, n_parts=n_parts, **more)


def _classes(given: Sequence[tuple[str, int]] | None, predictor: FewShotPredictor) -> dict[str, int] | None:
    named = {name or predictor.name_of(value): value for name, value in given or ()}
    if len(named) < len(given or ()):
        raise ConfigError("--classes: a name or value was given twice; expected different ones.")
    return named or None


def _segment_self_trained(given: argparse.Namespace) -> Outcome:
    outcome, scans = _find_scans(given)
    predictor = _trained(SelfTrainedPredictor, given, min_confidence=given.min_confidence or 0.0)
    return _apply(predictor, given, scans, outcome)


def _segment_frames(kind: type[SourcesPredictor], given: argparse.Namespace) -> Outcome:
    outcome, scans = _find_scans(given)
    return _apply(_trained(kind, given), given, scans, outcome)


def _trained(kind: type[P], given: argparse.Namespace, **more: Any) -> P:
    """The predictor of the checkpoints, which are averaged."""
    read = partial(kind.from_checkpoint, weights=given.weights, device=given.device, dataset=given.dataset, **more)
    return averaged(cast(Callable[[Path], P], read), given.checkpoints, given.flips)


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
    further = scan_files.Further(
        outcome.pictures if given.overlays else None,
        given.probabilities,
        outcome.dicom_seg if given.dicom_seg else None,
        outcome.removed if given.overwrite else None,
        given.limit,
        given.series or "",
    )
    outcome.method = type(predictor.segmenter.method).__name__
    outcome.n_done = scan_files.segment_scans(predictor, scans, given.out, outcome.failures, further, outcome.records)
    if outcome.records and isinstance(predictor, FewShotPredictor):
        logger.info("\n%s", scan_files.summary(outcome.records))
    return outcome


COMMANDS: dict[str, Callable[[argparse.Namespace], Outcome]] = {
    "dense": partial(_segment_images, DensePredictor),
    "fewshot": _segment_scans,
    "self_trained": _segment_self_trained,
    "sources": partial(_segment_frames, SourcesPredictor),
    "partial_scans": partial(_segment_frames, PartialScanPredictor),
    "partial": partial(_segment_images, PartialPredictor),
}


if __name__ == "__main__":
    run_main(main)
