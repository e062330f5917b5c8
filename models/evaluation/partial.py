"""Evaluation on the test images of several data sets, each for the classes that it is annotated for."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from dataloaders.partial.data import PartialData
from dataloaders.partial.sets import PartialSet
from dataloaders.samples import Origin
from dataloaders.scans.normalise import Normalisation
from models.evaluation.base import Candidate, Evaluation, EvaluationResult, ScoreOptions, mean_defined, with_failed
from models.evaluation.layouts import PARTIAL_LAYOUT
from models.evaluation.partial_files import save_masks
from models.evaluation.partial_pictures import choose_images, draw_images
from models.evaluation.partial_scores import PooledClass, Segmented, mean_dice, score_case, segment_case
from models.evaluation.pseudo_export import export_pseudo_labels
from models.methods.base import Method
from models.prediction.pseudo_labels import PseudoLabelConfig
from models.prediction.segmenter import Segmenter
from util.errors import DataError
from util.ids import natural_key
from util.items import Failures, catching, dispensable
from util.progress import ProgressBar
from util.results.metrics import CONFIDENCE
from util.results.scores import FAMILY, FILE_NAME, make_scores, write_scores
from util.results.tables import make_tables

Result = TypeVar("Result")


@dataclass
class _Report:
    """What is gathered over all candidates and data sets."""

    records: list[dict[str, Any]] = field(default_factory=list)
    pictures: dict[str, Path] = field(default_factory=dict)
    unwritten: Failures = field(default_factory=dict)  # masks that could not be written
    failed: Failures = field(default_factory=dict)  # images that could not be scored
    failed_sets: Failures = field(default_factory=dict)  # data sets without any score


class PartialEvaluation(Evaluation):
    """Segments the test images of every scored data set; scores the classes that the set is annotated for.

    A set that is annotated for a part of a task only, such as the disc without the cup, is scored for that part.
    """

    layout = PARTIAL_LAYOUT
    data: PartialData

    def curve(self, method: Method, normalisation: Normalisation) -> dict[str, float]:
        """Mean Dice of the images in split "validation" of the trained sets; {} without any.

        No test image is opened, so that nothing is chosen by what is reported later.
        """
        dice: dict[str, list[float]] = {}
        for each in self.data.trained:
            found = list(self._each(method, each, "validation", lambda image, each=each: mean_dice(image, each.known)))
            if found:
                dice[f"val/dice/{each.name}"] = found
        means = {name: mean_defined(values) for name, values in dice.items()}
        means = {"val/dice": mean_defined(list(means.values()))} | means
        return {name: value for name, value in means.items() if not np.isnan(value)}

    def score(self, candidates: Sequence[Candidate], out: Path, options: ScoreOptions) -> EvaluationResult:
        """Writes scores.csv, pictures of some images of each set, and masks of all tasks at the original sizes.

        A data set that fails does not cost the scores of the others.

        Raises:
            DataError: no data set has test images, or a tested image is trained on.
            FailedItemsError: no image of any set could be scored.
        """
        scored = self.data.scored
        if not scored:
            names = ", ".join(each.name for each in self.data.trained)
            raise DataError(f"none of {names} has an image in split 'test'. Name other data sets with scored.")
        self.data.require_separate()
        report = _Report()
        for candidate in candidates:
            folder = out / "ema" if candidate.weights == "ema" else out
            suffix = f", {candidate.weights} weights" if len(candidates) > 1 else ""
            for each in scored:
                with catching(report.failed_sets, each.name, f"test set {each.name}"):
                    self._score_set(candidate, each, options, folder, suffix, report)
        n_cases = sum(len(each.ids("test")) for each in scored)
        if not report.records:
            with_failed([], report.failed_sets | report.failed, n_cases)
        scores = make_scores(report.records)
        write_scores(out / FILE_NAME, scores)
        return EvaluationResult(
            title=f"{_name(candidates[0])} on {', '.join(each.name for each in scored)}",
            tables=make_tables(scores, self.layout),
            pictures=report.pictures,
            logged=_logged(report.records),
            headline=_headline(report.records, candidates[0].weights),
            failures=tuple(report.unwritten.values()),
            n_cases=n_cases,
            failed=report.failed,
            failed_sets=tuple(report.failed_sets.values()),
        )

    def export_pseudo_labels(
        self, method: Method, folder: Path, run: str, recipe: str, config: PseudoLabelConfig
    ) -> None:
        """See `models.evaluation.pseudo_export`."""
        export_pseudo_labels(method, self.data, folder, run, recipe, config, self.device)

    def _score_set(
        self, candidate: Candidate, each: PartialSet, options: ScoreOptions, folder: Path, suffix: str, report: _Report
    ) -> None:
        """Adds what is found in the test images of a data set to the report.

        Raises:
            DataError: it has no test image.
            FailedItemsError: none of them could be scored.
        """
        ids = each.ids("test")
        if not ids:
            raise DataError(f"{each.place}: nothing in split 'test'. Leave the set out of scored.")
        context = self._context(candidate, each, options)
        pooled = {channel: PooledClass() for channel in each.known}
        dice: dict[str, float] = {}
        records: list[dict[str, Any]] = []
        failed: Failures = {}

        def work(found: Segmented) -> None:
            scores = score_case(found, each.known)
            for channel, one in scores.items():
                pooled[channel].add(one)
                values = {**self._about(channel), "case": found.id, **asdict(_origin(found))}
                measured = one.values | {CONFIDENCE: found.confidence[channel]}
                records.extend(context | values | {"metric": name, "value": v} for name, v in measured.items())
            dice[found.id] = mean_defined([one.values["dice"] for one in scores.values()])
            if options.save_predictions:
                with catching(report.unwritten, f"{suffix}{each.name}/{found.id}", f"masks of {found.id}, {each.name}"):
                    place, tasks = folder / "predictions" / each.name, self.data.config.task_list
                    save_masks(place, each, found, tasks, candidate.method)

        for _ in ProgressBar(self._each(candidate.method, each, "test", work, failed), each.name, len(ids)):
            pass
        report.failed |= failed
        records.sort(key=lambda record: natural_key(record["case"]))
        if records:
            for channel, together in pooled.items():
                values = context | self._about(channel)
                records += [values | {"metric": name, "value": value} for name, value in together.values.items()]
        report.records += with_failed(records, failed, len(ids))
        if options.pictures:
            with dispensable(f"overlays of {each.name}{suffix}"):
                self._draw(candidate, each, dice, folder / "overlays" / f"{each.name}.png", suffix, report)

    def _each(
        self,
        method: Method,
        each: PartialSet,
        split: str,
        work: Callable[[Segmented], Result],
        failed: Failures | None = None,
        chosen: Sequence[str] | None = None,
    ) -> Iterator[Result]:
        """Segments one image or scan of a split after the other and does some work on each.

        Args:
            method: on the device.
            each: the data set.
            split: of its images.
            work: on a segmented image.
            failed: receives the reason of each image that fails, and the others are done; None: the first stops.
            chosen: ids; None: all.
        """
        segmenter = Segmenter(method, self.device)
        for image_id, read in zip(each.ids(split), self.data.cases(each, split), strict=True):
            if chosen is None or image_id in chosen:
                done: list[Result] = []
                with catching(failed, f"{each.name}: {image_id}", f"image {image_id} of {each.name}"):
                    done.append(work(segment_case(segmenter, read())))
                yield from done

    def _context(self, candidate: Candidate, each: PartialSet, options: ScoreOptions) -> dict[str, Any]:
        """What all scores of a candidate on a data set share; conditions of the usual value are empty."""
        config = self.data.config
        learned = [task.name for task in config.task_list]
        return {
            "method": _name(candidate),
            "dataset": each.name,
            "split": "test",
            FAMILY: "partial",
            "learned": "+".join(learned) if len(learned) > 1 else "one task",
            "missing": "" if config.missing == "unknown" else config.missing,
            "fov": "" if config.fov else "all pixels",
            "seed": options.seed,
            "weights": candidate.weights,
            "steps": "" if candidate.step is None else candidate.step,
            "config_hash": options.config_hash,
        }

    def _about(self, channel: int) -> dict[str, str]:
        name = self.data.names[channel]
        task = next(task.name for task in self.data.config.task_list if name in task.classes)
        return {"structure": name, "task": task}

    def _draw(
        self,
        candidate: Candidate,
        each: PartialSet,
        dice: Mapping[str, float],
        path: Path,
        suffix: str,
        report: _Report,
    ) -> None:
        """Draws the images with the lowest, the median and the highest Dice."""
        chosen = choose_images(dice)
        images = list(self._each(candidate.method, each, "test", lambda found: found, {}, list(chosen)))
        if images:
            named = {
                image_id: f"{place}, {image_id}: Dice {100 * dice[image_id]:.1f}" for image_id, place in chosen.items()
            }
            draw_images(path, each, images, named, f"{_name(candidate)}: test images of {each.name}")
            report.pictures[f"{each.name}: worst, median and best test image{suffix}"] = path


def _origin(found: Segmented) -> Origin:
    return found.scored.case.origins[0]


def _name(candidate: Candidate) -> str:
    """The method's name in tables, in which averaged weights are a method of their own."""
    return candidate.name + (" EMA" if candidate.weights == "ema" else "")


def _means(records: Sequence[Mapping[str, Any]], weights: str) -> dict[tuple[str, str, str], float]:
    """(metric, data set, structure) -> mean over images, of one set of weights."""
    values: dict[tuple[str, str, str], list[float]] = {}
    for record in records:
        if record["weights"] == weights:
            values.setdefault((record["metric"], record["dataset"], record["structure"]), []).append(record["value"])
    return {key: mean_defined(each) for key, each in values.items()}


def _headline(records: Sequence[Mapping[str, Any]], weights: str) -> float:
    """Mean Dice over data sets and classes, which all count alike."""
    return mean_defined([value for (metric, *_), value in _means(records, weights).items() if metric == "dice"])


def _logged(records: Sequence[Mapping[str, Any]]) -> list[tuple[str, float]]:
    """Mean of each metric over data sets and classes, by weights; of Dice also each of them."""
    logged: dict[str, float] = {}
    for weights in dict.fromkeys(record["weights"] for record in records):
        means = _means(records, weights)
        for metric in dict.fromkeys(metric for metric, _, _ in means):
            logged[f"test/{metric}/{weights}"] = mean_defined(
                [v for (name, _, _), v in means.items() if name == metric]
            )
        for (metric, dataset, structure), value in means.items():
            if metric == "dice":
                logged[f"test/dice/{weights}/{dataset}/{structure}"] = value
    return [(name, value) for name, value in logged.items() if not np.isnan(value)]
