"""Evaluation of dense segmentation on test images; on training images, its agreement with clean and noisy masks."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dataloaders.images.data import DenseData
from dataloaders.io.png import write_png, write_pngs
from dataloaders.samples import ImageCase
from dataloaders.scans.normalise import Normalisation
from models.evaluation.base import Candidate, Evaluation, EvaluationResult, ScoreOptions, mean_defined, with_failed
from models.evaluation.layouts import DENSE_LAYOUT, LAST, N_LAST
from models.evaluation.overlap import compute_dice, compute_iou, count_overlap, surface_distances_px
from models.evaluation.probabilities import export_probabilities
from models.evaluation.suspects import rank_suspects
from models.methods.base import Method
from models.prediction.dense import segmentation_files
from models.prediction.segmenter import Segmenter, masks_of_image, to_host
from util.ids import natural_key
from util.items import Failures, catching, dispensable
from util.progress import ProgressBar
from util.results.metrics import CONFIDENCE
from util.results.overlays import save_image_overlays
from util.results.scores import FAMILY, FILE_NAME, make_scores, write_scores
from util.results.tables import make_tables

N_DRAWN = 8  # test images in the picture


@dataclass(frozen=True)
class _Batch:
    """Some images, segmented and scored."""

    case: ImageCase
    truth: Bool[np.ndarray, "K N H W"]
    probabilities: Float[Tensor, "K N H W"]  # on the device
    masks: Bool[np.ndarray, "K N H W"]
    confidence: Float[Tensor, "N K"]
    overlap: Int[Tensor, "3 N K"]
    distances: Float[np.ndarray, "2 N K"]  # NaN where they are not computed


@dataclass(frozen=True)
class ImageScores:
    """Scores of the test images.

    Attributes:
        ids: N images.
        dice, iou: (N, K), 0 to 1; an empty mask found empty counts 1, as published.
        pooled_dice: (K,), over all pixels of all images.
        hd95_px, hd95_pooled_px: (N, K), NaN where a mask is empty or distances are not computed.
        confidence: (N, K), how firm the outline is; NaN where nothing was found.
    """

    ids: tuple[str, ...]
    dice: Float[np.ndarray, "N K"]
    iou: Float[np.ndarray, "N K"]
    pooled_dice: Float[np.ndarray, " K"]
    hd95_px: Float[np.ndarray, "N K"]
    hd95_pooled_px: Float[np.ndarray, "N K"]
    confidence: Float[np.ndarray, "N K"]

    @property
    def means(self) -> dict[str, float]:
        """Mean overlap scores over images and classes."""
        return {name: float(getattr(self, name).mean()) for name in ("dice", "iou", "pooled_dice")}


class DenseEvaluation(Evaluation):
    """Segments and scores the test images and, for the training curves, some training images."""

    layout = DENSE_LAYOUT
    data: DenseData

    def export_probabilities(self, method: Method, folder: Path, temperature: float) -> int:
        """See `models.evaluation.probabilities`; for one structure."""
        if len(self.data.config.chosen) > 1:
            return super().export_probabilities(method, folder, temperature)
        return export_probabilities(method, self.data, folder, self.device, temperature)

    def rank_suspects(self, method: Method, out: Path) -> Path:
        """See `models.evaluation.suspects`."""
        return rank_suspects(method, self.data, self.device, out)

    def curve(self, method: Method, normalisation: Normalisation) -> dict[str, float]:
        """Computes the scores of the test images, and agreement with clean and given masks of training images.

        Source: T-Loss, section 4 (scores); the agreement: ours.
        """
        scores = self._score_images(method, with_distances=False)
        means = {} if scores is None else scores.means
        return {f"val/{name}": value for name, value in means.items()} | self._agreement(method)

    def score(self, candidates: Sequence[Candidate], out: Path, options: ScoreOptions) -> EvaluationResult:
        """Writes the masks as PNG, scores.csv, and a picture of good and bad cases for each candidate.

        Raises:
            FailedItemsError: no image could be scored.
        """
        records: list[dict[str, Any]] = []
        pictures: dict[str, Path] = {}
        logged: dict[str, float] = {}
        failures: Failures = {}
        failed: Failures = {}
        scored: dict[str, tuple[Candidate, ImageScores]] = {}  # caption -> what is drawn
        for candidate in candidates:
            save = partial(self._save_masks, out / "predictions" / candidate.weights, candidate.method, failures)
            scores = self._score_images(
                candidate.method, options.surface_scores, save if options.save_predictions else None, failed
            )
            if scores is None:
                continue
            context = self._context(candidate, options, len(scores.ids))
            recent = _average_last(candidate)
            records += [context | {"weights": LAST, "metric": name, "value": recent[name]} for name in recent]
            records += self._records(context, scores)
            logged |= {f"test/{name}/{LAST}": value for name, value in recent.items()}
            means = scores.means | {"hd95_px": mean_defined(scores.hd95_px.ravel().tolist())}
            logged |= {f"test/{name}/{candidate.weights}": value for name, value in means.items()}
            if options.pictures:
                scored[f"{candidate.name}, {candidate.weights} weights"] = candidate, scores
        table = make_scores(with_failed(records, failed, n_cases := len(self.data.ids("test"))))
        write_scores(out / FILE_NAME, table)
        for caption, (candidate, scores) in scored.items():
            with dispensable(f"overlays of {caption}"):
                pictures[caption] = self._draw(candidate, scores, out)
        dice = (value for name, value in logged.items() if name.startswith("test/dice/"))
        return EvaluationResult(
            title=f"{candidates[0].name} on {self._task} of {self.data.config.spec.name}",
            tables=make_tables(table, self.layout.with_hd95(options.hd95)),
            pictures=pictures,
            logged=[(name, value) for name, value in logged.items() if not np.isnan(value)],
            headline=next(dice),
            failures=tuple(failures.values()),
            n_cases=n_cases,
            failed=failed,
        )

    @property
    def _task(self) -> str:
        return "+".join(self.data.config.chosen)

    def _batches(self, method: Method, with_distances: bool, failed: Failures | None) -> Iterator[_Batch]:
        """The test images, segmented and scored; of a batch that fails, each image by itself.

        Args:
            method: on the device.
            with_distances: whether to compute surface distances.
            failed: receives id -> reason of each image that fails, and the others are scored; None: one is an error.
        """
        segmenter = Segmenter(method, self.device)
        for case, truth in self.data.cases(failed):
            in_batch: Failures | None = None if failed is None else {}
            with catching(in_batch, "", ""):
                found = [self._segment(segmenter, case, truth, with_distances)]
            if in_batch:
                found = []
                for n, image_id in enumerate(case.ids):
                    with catching(failed, image_id, f"image {image_id}"):
                        found.append(self._segment(segmenter, case.only(n), truth[:, n : n + 1], with_distances))
            yield from found

    def _segment(self, segmenter: Segmenter, case: ImageCase, truth: np.ndarray, with_distances: bool) -> _Batch:
        found = segmenter.segment(case)
        overlap = count_overlap(found.masks, torch.from_numpy(truth).to(self.device))
        masks = found.masks.cpu().numpy()
        distances = surface_distances_px(masks, truth) if with_distances else np.full((2, *overlap.shape[1:]), np.nan)
        return _Batch(case, truth, found.probabilities, masks, found.confidence_by_image, overlap, distances)

    def _score_images(
        self,
        method: Method,
        with_distances: bool,
        save: Callable[[_Batch], None] | None = None,
        failed: Failures | None = None,
    ) -> ImageScores | None:
        """Scores the test images; None if every one of them failed."""
        ids: list[str] = []
        counts, distances, confidence = [], [], []
        batches = self._batches(method, with_distances, failed)
        for batch in ProgressBar(batches, desc="test batches", is_shown=failed is not None):
            ids += batch.case.ids
            counts.append(batch.overlap)
            distances.append(batch.distances)
            confidence.append(batch.confidence.double().cpu().numpy())
            if save is not None:
                save(batch)
        if not ids:
            return None
        joined = torch.cat(counts, 1).cpu()  # (3, N, K)
        hd95 = np.concatenate(distances, 1)
        return ImageScores(
            ids=tuple(ids),
            dice=compute_dice(joined).numpy(),
            iou=compute_iou(joined).numpy(),
            pooled_dice=compute_dice(joined.sum(1)).numpy(),
            hd95_px=hd95[0],
            hd95_pooled_px=hd95[1],
            confidence=np.concatenate(confidence),
        )

    def _save_masks(self, folder: Path, method: Method, failures: Failures, batch: _Batch) -> None:
        """Writes a mask per structure on the prepared grid and, where its size is known, a label map of the original.

        Args:
            folder: receives `<structure>/<id>.png`, and `original_size/<id>_segmentation.png` as prediction writes it.
            method: with the rule from probabilities to masks.
            failures: receives a message for each image whose masks cannot be written.
            batch: some images.
        """
        task, probabilities = self.data.config.task, to_host(batch.probabilities)
        for place, image_id in enumerate(batch.case.ids):
            with catching(failures, image_id, f"masks of {image_id}"):
                for name, mask in zip(task.names, batch.masks[:, place], strict=True):
                    write_png(folder / name / f"{image_id}.png", mask)
                if self.data.has_original_size(image_id):
                    shares = self.data.to_original(image_id, probabilities[:, place])
                    original = dict(zip(task.names, masks_of_image(method, shares), strict=True))
                    write_pngs(segmentation_files(folder / "original_size", image_id, original, task.supplied_values))

    def _agreement(self, method: Method) -> dict[str, float]:
        """Mean Dice of predictions on training images with their clean and their given masks, per type of noise."""
        labels, wanted = self.data.labels, self.data.config.diagnosed_images
        if not wanted:
            return {}
        where = np.unique(np.linspace(0, len(labels) - 1, min(wanted, len(labels))).round().astype(int))
        foreground = range(1, labels.n_classes)
        sums: dict[str, list[float]] = {}
        segmenter = Segmenter(method, self.device)
        for part in np.array_split(where, -(-len(where) // self.data.config.test_batch)):
            batch = labels.batch(part)
            masks = segmenter.segment(ImageCase(tuple(map(str, part)), tuple(foreground), batch.image)).masks
            kinds = {"given": labels.given[part]} | ({} if labels.clean is None else {"clean": labels.clean[part]})
            for kind, values in kinds.items():
                true = torch.stack([torch.from_numpy(np.asarray(values) == value) for value in foreground])
                dice = compute_dice(count_overlap(masks, true.to(self.device))).mean(1).tolist()
                for position, value in zip(part, dice, strict=True):
                    for group in ("all", labels.noise_types[position]):
                        sums.setdefault(f"train_set/dice_to_{kind}/{group}", []).append(value)
        return {name: float(np.mean(values)) for name, values in sorted(sums.items())}

    def _context(self, candidate: Candidate, options: ScoreOptions, n_cases: int) -> dict[str, Any]:
        """What all scores of a candidate share."""
        noise = self.data.config.noise
        is_clean = self.data.trains_on_clean or not noise.alpha
        name = "a0_b0" if is_clean else noise.name
        _, _, *noise_options = name.split("_", 2)  # a0.7_b0.7_dilate_seed3 -> dilate_seed3
        return {
            "method": candidate.name,
            "dataset": self.data.config.spec.name,
            "split": "test" if not self.data.config.test_domains else "held-out domain",
            "held_out_domain": "+".join(self.data.config.test_domains),
            "structure": self._task,
            FAMILY: "dense",
            "task": self._task,
            "noise": name,
            "alpha": 0.0 if is_clean else noise.alpha,
            "beta": 0.0 if is_clean else noise.beta,
            "noise_options": "".join(noise_options),
            "seed": options.seed,
            "weights": candidate.weights,
            "steps": "" if candidate.step is None else candidate.step,
            "config_hash": options.config_hash,
            "n_cases": "" if self.data.config.test_domains else n_cases,  # domains may differ in size
        }

    def _records(self, context: dict[str, Any], scores: ImageScores) -> list[dict[str, Any]]:
        """Scores of every image and structure, and those over all pixels of all images."""
        names = self.data.config.chosen
        found = [
            context
            | {"case": image_id, **asdict(self.data.folder.origin(image_id)), "structure": name}
            | {"metric": metric, "value": getattr(scores, metric)[n, k]}
            for n, image_id in sorted(enumerate(scores.ids), key=lambda pair: natural_key(pair[1]))
            for k, name in enumerate(names)
            for metric in ("dice", "iou", "hd95_px", "hd95_pooled_px", CONFIDENCE)
        ]
        pooled = zip(names, scores.pooled_dice, strict=True)
        return found + [
            context | {"structure": name, "metric": "pooled_dice", "value": value} for name, value in pooled
        ]

    def _draw(self, candidate: Candidate, scores: ImageScores, out: Path) -> Path:
        """Draws test images evenly spaced from the best to the worst, by mean Dice."""
        order = np.argsort(-scores.dice.mean(1), kind="stable")
        chosen = np.unique(np.linspace(0, len(order) - 1, min(N_DRAWN, len(order))).round().astype(int))
        wanted = {scores.ids[order[place]]: float(scores.dice[order[place]].mean()) for place in chosen}
        found: dict[str, tuple] = {}
        for batch in self._batches(candidate.method, False, {}):
            for n, image_id in enumerate(batch.case.ids):
                if image_id in wanted:
                    found[image_id] = batch.case.image[n].numpy(), batch.truth[:, n], batch.masks[:, n]
        path = out / "overlays" / f"{candidate.weights}.png"
        rows = [(f"{image_id}: Dice {100 * dice:.1f}", *found[image_id]) for image_id, dice in wanted.items()]
        save_image_overlays(path, rows, self.data.config.chosen, f"{candidate.name}: test images from best to worst")
        return path


def _average_last(candidate: Candidate) -> dict[str, float]:
    """Mean scores of the last evaluations during training; empty without any, or for other than the last weights."""
    last = [values for values in candidate.history if "val/dice" in values][-N_LAST:]
    if not last or candidate.weights != "last":
        return {}
    return {name: mean_defined([v[f"val/{name}"] for v in last]) for name in ("dice", "iou", "pooled_dice")}
