"""Export of pseudo-labels: masks of the classes that training images are not annotated for."""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from dataloaders.partial.data import PartialData
from dataloaders.partial.pseudo import PseudoLabelFolder
from dataloaders.partial.sets import PartialSet
from dataloaders.samples import ImageCase
from models.evaluation.partial_pictures import WIDTH_INCHES, spread_truth
from models.methods.base import Method
from models.prediction.pseudo_labels import PseudoLabelConfig, PseudoLabels, make_pseudo_labels
from models.prediction.segmenter import Segmenter
from util.errors import ConfigError
from util.items import Failures, catching, dispensable, raise_failures
from util.progress import ProgressBar
from util.results.overlays import Case, save_image_overlays

PICTURE = "pseudo_labels.png"
N_SHOWN = 2  # images of each data set in the picture

logger = logging.getLogger(__name__)


@dataclass
class _Tally:
    """What was marked of a class in the images of a data set."""

    n_images: int = 0
    n_marked: int = 0  # images in which some pixel is
    marked: list[float] = field(default_factory=list)  # share of the pixels of each image
    unknown: list[float] = field(default_factory=list)

    def add(self, mask: np.ndarray, certain: np.ndarray) -> None:
        self.n_images += 1
        self.n_marked += bool((mask & certain).any())
        self.marked.append(float((mask & certain).mean()))
        self.unknown.append(float((~certain).mean()))


def export_pseudo_labels(
    method: Method,
    data: PartialData,
    folder: Path,
    run: str,
    recipe: str,
    config: PseudoLabelConfig,
    device: torch.device,
) -> None:
    """Writes pseudo-labels of the training images of all data sets, for the classes they are not annotated for.

    Only the unknown classes of a task have files, though all of them decide which is marked. The images are read one
    by one. The folder is a finished one only if every image succeeds.

    Args:
        method: segments the classes of all tasks; on `device`.
        data: its training images.
        folder: of the labels, see `dataloaders.partial.pseudo`; a picture of some of them is added.
        run: name of the experiment.
        recipe: hash of its settings, which its repetitions share.
        config: thresholds and filters; one threshold, or one for each class of all tasks in their order.
        device: where to compute.

    Raises:
        ConfigError: every image is annotated for every class, another number of thresholds, or a folder of another run.
        FailedItemsError: images failed.
    """
    names = data.names
    config.per_class(len(names))  # refuses another number
    unknown = {each.name: tuple(k for k in range(len(names)) if k not in each.known) for each in data.trained}
    if not any(unknown.values()):
        raise ConfigError(
            f"export: {', '.join(unknown)} are annotated for all of {', '.join(names)}, so there is nothing to add. "
            "Choose a network of several tasks, some of which a data set is not annotated for."
        )
    labels = PseudoLabelFolder(folder)
    labels.begin(run)
    tallies: dict[str, dict[str, _Tally]] = {}
    shown: list[Case] = []
    failures: Failures = {}
    for each in data.trained:
        if unknown[each.name]:
            tallies[each.name] = {names[k]: _Tally() for k in unknown[each.name]}
            _export_set(Segmenter(method, device), data, each, labels, config, tallies[each.name], shown, failures)
    images = {each.name: each.training_images() for each in data.trained}
    n_images = sum(len(images[name]) for name, channels in unknown.items() if channels)
    raise_failures(failures, n_images, f"pseudo-labels in {folder}")
    labels.finish(
        run,
        recipe,
        data.config.task_list,
        images,
        {name: [names[k] for k in channels] for name, channels in unknown.items()},
        asdict(config),
    )
    _log(folder, n_images, tallies)
    with dispensable(PICTURE):
        save_image_overlays(folder / PICTURE, shown, names, "Pseudo-labels", WIDTH_INCHES)


def _export_set(
    segmenter: Segmenter,
    data: PartialData,
    each: PartialSet,
    labels: PseudoLabelFolder,
    config: PseudoLabelConfig,
    tallies: dict[str, _Tally],
    shown: list[Case],
    failures: Failures,
) -> None:
    """Writes the labels of a data set, counts what is marked, and adds some images to those that are shown."""
    names = list(each.training_images())
    drawn = {names[int(place)] for place in np.linspace(0, len(names) - 1, min(N_SHOWN, len(names)))}
    where = [data.names.index(name) for name in tallies]
    for name in ProgressBar(names, f"pseudo-labels of {each.name}"):
        with catching(failures, f"{each.name}: {name}", f"image {name} of {each.name}"):
            image = each.training_image(name)
            found = segmenter.segment(ImageCase((name,), each.classes, data.config.normalise(image)))
            made = _all_labels(found.probabilities[:, 0].float().cpu().numpy(), data, config)
            masks, is_certain = (np.concatenate(parts)[where] for parts in zip(*made, strict=True))
            labels.write(each.name, name, list(tallies), masks, is_certain)
            for tally, mask, certain in zip(tallies.values(), masks, is_certain, strict=True):
                tally.add(mask, certain)
            if name in drawn:
                spread = spread_truth(masks, tuple(where), len(data.names))
                shown.append((f"{each.name}: {name}", 255 * image[0].numpy(), None, spread))


def _all_labels(
    probabilities: Float[np.ndarray, "K H W"], data: PartialData, config: PseudoLabelConfig
) -> list[tuple[np.ndarray, np.ndarray]]:
    """The masks of each task, and which of their pixels are certain."""
    made: list[tuple[np.ndarray, np.ndarray]] = []
    first = 0
    for task in data.config.task_list:
        part = slice(first, first + len(task.classes))
        thresholds = config.thresholds if len(config.thresholds) == 1 else config.thresholds[part]
        labels: PseudoLabels = make_pseudo_labels(
            probabilities[part], task.relation, replace(config, thresholds=thresholds)
        )
        made.append((labels.masks, labels.is_certain))
        first = part.stop
    return made


def _log(folder: Path, n_images: int, tallies: dict[str, dict[str, _Tally]]) -> None:
    """Logs what was marked, and warns of classes that are marked nowhere."""
    lines = [
        f"{dataset}, {name}: marked in {each.n_marked} of {each.n_images} images, {_percent(each.marked)} of the "
        f"pixels; {_percent(each.unknown)} unknown"
        for dataset, classes in tallies.items()
        for name, each in classes.items()
    ]
    logger.info("%s: pseudo-labels of %d training images\n%s", folder, n_images, "\n".join(lines))
    for dataset, classes in tallies.items():
        for name, each in classes.items():
            if not each.n_marked:
                logger.warning(
                    "%s: marked in no image of %s. Look at %s: the training may be too short, or "
                    "pseudo_label.thresholds too high.",
                    name, dataset, folder / PICTURE,
                )  # fmt: skip


def _percent(shares: Sequence[float]) -> str:
    return f"{100 * float(np.mean(shares)):.2f} %"
