"""Label maps of unlabelled scans, from which `self_training` learns."""

import logging
from dataclasses import asdict, replace
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

from dataloaders.fewshot.data import FewShotData
from dataloaders.fewshot.labelled import images_sha256
from dataloaders.fewshot.propagated import PropagatedFolder
from dataloaders.samples import EvalCase, Volume
from dataloaders.scans.normalise import Normalisation
from models.methods.base import Method
from models.prediction.pseudo_labels import UNKNOWN, PseudoLabelConfig
from models.prediction.segmenter import Segmentation, Segmenter, most_probable
from util.errors import ConfigError, DataError
from util.items import Failures, catching, raise_failures
from util.progress import ProgressBar

logger = logging.getLogger(__name__)


def export_label_maps(
    method: Method, data: FewShotData, folder: Path, run: str, config: PseudoLabelConfig, device: torch.device
) -> None:
    """Segments the training scans of a fold with its support scans, one after the other, and writes label maps.

    The labels of the training scans are not read. The folder is a finished one only if every scan succeeds.

    Args:
        method: on `device`.
        data: the scans.
        folder: of the label maps, see `dataloaders.fewshot.propagated`.
        run: name of the experiment.
        config: `min_confidence`, below which a voxel is unknown; the method's own rule marks the others.
        device: where to compute.

    Raises:
        ConfigError: thresholds or a smallest area are given, a method that compares single slices, or a folder of
            another run.
        DataError: no training scan.
        FailedItemsError: scans failed.
    """
    if config != PseudoLabelConfig(min_confidence=config.min_confidence):
        raise ConfigError("pseudo_label: label maps of scans follow the method's rule; expected min_confidence only.")
    if not method.compares_scans:
        raise ConfigError("pseudo-labels: expected a method that takes whole scans: propagation or self_training.")
    train = data.fold.train
    if not train:
        raise DataError(f"{data.folder.folder}: no training scan is left in fold {data.config.eval_fold}.")
    labels = PropagatedFolder(folder)
    labels.begin(run)
    normalisation = data.fit_normalisation()
    task = replace(data, fold=replace(data.fold, query=train)).task(normalisation, "blind")
    segmenter = Segmenter(method, device)
    segmenter.set_support(task.support)
    classes, failures, shares = task.support.classes, Failures(), []
    for scan in ProgressBar(train, desc="label maps"):
        with catching(failures, scan, f"scan {scan}"):
            stored = data.folder.image(scan)
            found = segmenter.segment(_case(stored, normalisation, scan, classes))
            label = label_map(found, classes, config.min_confidence)
            shares.append(float((label == UNKNOWN).float().mean()))
            labels.write(scan, Volume(label.cpu().numpy(), stored.affine))
    raise_failures(failures, len(train), f"label maps in {folder}")
    facts = {"support": list(data.fold.support), "pseudo_label": asdict(config)}
    labels.finish(run, images_sha256(data.folder, data.fold), classes, facts)
    unknown = 100 * sum(shares) / len(shares)
    logger.info("%s: label maps of %d scans, %.1f %% of the voxels unknown", folder, len(train), unknown)


def label_map(found: Segmentation, classes: tuple[int, ...], min_confidence: float) -> UInt8[Tensor, "D H W"]:
    """The classes that a method marked; 255 where the probability of what it marked is below `min_confidence`.

    A voxel that belongs to no mask is background, whose probability is what the classes leave.
    """
    number = most_probable(found.probabilities, found.masks).long()
    background = (1 - found.probabilities.sum(0, keepdim=True)).clamp(min=0)
    chosen = torch.cat([background, found.probabilities]).gather(0, number[None])[0]
    values = torch.tensor([0, *classes], dtype=torch.uint8, device=number.device)
    return torch.where(chosen < min_confidence, UNKNOWN, values[number]).to(torch.uint8)


def _case(stored: Volume, normalisation: Normalisation, scan: str, classes: tuple[int, ...]) -> EvalCase:
    image = torch.from_numpy(normalisation.apply(stored.array))[:, None]
    no_part = torch.zeros(len(classes), len(image), dtype=torch.int64)
    return EvalCase(scan, classes, image, no_part, spacing_mm=stored.spacing_mm)
