"""Dense segmentation scored on test images, and looked at on the training images: what it has learnt of the noise."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from tqdm import tqdm

from dataloaders.images.data import DenseData
from dataloaders.io.png import write_png
from dataloaders.samples import ImageCase
from dataloaders.scans.normalise import Normalisation
from models.evaluation.base import Evaluated, Evaluation, Scored, ScoreOptions, mean_of
from models.methods.base import Method
from util.files import write_text
from util.results.image_pictures import save_image_overlays
from util.results.metrics import score_volume
from util.results.noise_scores import FILE_NAME, RunScore, noise_tables, write_runs
from util.results.scores import csv_text

COUNTED = 10  # evaluations at the end of a training whose mean is the published figure
IMAGE_COLUMNS = ("weights", "id", "structure", "dice", "iou", "hd95_px")


@dataclass(frozen=True)
class ImageScores:
    """Test images scored one by one.

    Attributes:
        ids: N images.
        dice, iou: (N, K), 0 to 1; an empty mask found empty counts 1, as published.
        pooled_dice: (K,), over all pixels of all images.
        hd95_px: (N, K), NaN where a mask is empty or distances were not asked for.
    """

    ids: tuple[str, ...]
    dice: Float[np.ndarray, "N K"]
    iou: Float[np.ndarray, "N K"]
    pooled_dice: Float[np.ndarray, " K"]
    hd95_px: Float[np.ndarray, "N K"]


def overlap_of_images(prediction: Bool[Tensor, "K N H W"], truth: Bool[Tensor, "K N H W"]) -> Int[Tensor, "3 N K"]:
    """Pixels in both masks, in the prediction and in the truth, per image and class."""
    counts = [(prediction & truth), prediction, truth]
    return torch.stack([mask.sum((2, 3)).T for mask in counts])


def dice_of(counts: Tensor, eps: float = 1e-8) -> Float[Tensor, "..."]:
    """(2I + e) / (P + G + e). Source: superpixel-guided learning, released code."""
    shared, predicted, true = counts.double()
    return (2 * shared + eps) / (predicted + true + eps)


def iou_of(counts: Tensor, eps: float = 1e-8) -> Float[Tensor, "..."]:
    """(I + e) / (P + G - I + e)."""
    shared, predicted, true = counts.double()
    return (shared + eps) / (predicted + true - shared + eps)


class DenseEvaluation(Evaluation):
    """Segments the test images, and some training images for the curves."""

    def __init__(self, data: DenseData, device: torch.device) -> None:
        super().__init__(device)
        self.data, self.config = data, data.config

    def curve(self, method: Method, normalisation: Normalisation) -> dict[str, float]:
        """Scores of the test images, and agreement of training predictions with clean and with given masks.

        Source: T-Loss, section 4 (scores); memorisation curves: ours.
        """
        scores = self._score_images(method, with_distances=False)
        values = {
            "val/dice": float(scores.dice.mean()),
            "val/iou": float(scores.iou.mean()),
            "val/pooled_dice": float(scores.pooled_dice.mean()),
        }
        return values | self._agreement(method)

    def score(self, scored: Sequence[Scored], out: Path, options: ScoreOptions) -> Evaluated:
        """Writes image_scores.csv, summary.csv, a picture of good and bad cases, and the masks as PNG."""
        runs: list[RunScore] = []
        lines: list[dict] = []
        pictures: dict[str, Path] = {}
        for each in scored:
            masks = out / "predictions" / each.weights if options.save_predictions else None
            scores = self._score_images(each.method, options.surface_scores, masks, progress=True)
            runs += self._runs(each, scores, options)
            lines += [line | {"weights": each.weights} for line in self._lines(scores)]
            pictures[f"{each.name}, {each.weights} weights"] = self._draw(each, scores, out)
        write_text(out / "image_scores.csv", csv_text(IMAGE_COLUMNS, lines))
        write_runs(out / FILE_NAME, runs)
        return Evaluated(
            title=f"{scored[0].name} on {'+'.join(self.config.chosen)} of {self.config.spec.name}",
            tables=noise_tables(runs),
            pictures=pictures,
            logged=[
                (f"test/{name}/{run.figure}", getattr(run, name))
                for run in runs
                for name in ("dice", "iou", "pooled_dice", "hd95_px")
                if not np.isnan(getattr(run, name))
            ],
            headline=runs[0].dice,
        )

    def _predictions(self, method: Method) -> Iterator[tuple[ImageCase, np.ndarray, Tensor, Tensor]]:
        was_training = method.training
        method.eval()
        with torch.inference_mode():
            for case, truth in self.data.cases():
                mask = method.predict(case.to(self.device), None)
                yield case, truth, mask, overlap_of_images(mask, torch.from_numpy(truth).to(self.device))
        method.train(was_training)

    def _score_images(
        self, method: Method, with_distances: bool, save_to: Path | None = None, progress: bool = False
    ) -> ImageScores:
        ids: list[str] = []
        counts, distances = [], []
        for case, truth, mask, overlap in tqdm(
            self._predictions(method), desc="test batches", disable=not progress or None
        ):
            ids += case.ids
            counts.append(overlap)
            if with_distances or save_to is not None:
                found = mask.cpu().numpy()
                distances.append(_distances_px(found, truth) if with_distances else None)
                if save_to is not None:
                    self._save(save_to, case, found)
        joined = torch.cat(counts, 1).cpu()  # (3, N, K)
        return ImageScores(
            ids=tuple(ids),
            dice=dice_of(joined).numpy(),
            iou=iou_of(joined).numpy(),
            pooled_dice=dice_of(joined.sum(1)).numpy(),
            hd95_px=np.concatenate(distances) if with_distances else np.full(joined.shape[1:], np.nan),
        )

    def _save(self, folder: Path, case: ImageCase, masks: np.ndarray) -> None:
        for name, mask in zip(self.config.chosen, masks, strict=True):
            for image_id, one in zip(case.ids, mask, strict=True):
                write_png(folder / name / f"{image_id}.png", one)

    def _agreement(self, method: Method) -> dict[str, float]:
        """Mean Dice of predictions on training images with their clean and their given masks, per type of noise."""
        labels, wanted = self.data.labels, self.config.diagnosed_images
        if not wanted:
            return {}
        where = np.unique(np.linspace(0, len(labels) - 1, min(wanted, len(labels))).round().astype(int))
        foreground = range(1, labels.n_classes)
        sums: dict[str, list[float]] = {}
        was_training = method.training
        method.eval()
        with torch.inference_mode():
            for part in np.array_split(where, -(-len(where) // self.config.test_batch)):
                batch = labels.batch(part)
                case = ImageCase(tuple(map(str, part)), tuple(foreground), batch.image)
                masks = method.predict(case.to(self.device), None)
                kinds = {"given": labels.given[part]} | ({} if labels.clean is None else {"clean": labels.clean[part]})
                for kind, values in kinds.items():
                    true = torch.stack([torch.from_numpy(np.asarray(values) == value) for value in foreground])
                    dice = dice_of(overlap_of_images(masks, true.to(self.device))).mean(1).tolist()
                    for position, value in zip(part, dice, strict=True):
                        for group in ("all", labels.noise_types[position]):
                            sums.setdefault(f"train_set/dice_to_{kind}/{group}", []).append(value)
        method.train(was_training)
        return {name: float(np.mean(values)) for name, values in sorted(sums.items())}

    def _runs(self, each: Scored, scores: ImageScores, options: ScoreOptions) -> list[RunScore]:
        noise = self.config.noise
        is_clean = self.data.trains_on_clean or not noise.alpha
        shared: dict[str, Any] = {
            "method": each.name,
            "dataset": self.config.spec.name,
            "structure": "+".join(self.config.chosen),
            "noise": "a0_b0" if is_clean else noise.name,
            "alpha": 0.0 if is_clean else noise.alpha,
            "beta": 0.0 if is_clean else noise.beta,
            "seed": options.seed,
            "recipe": options.recipe,
            "steps": each.step or 0,
            "n_images": len(scores.ids),
        }
        runs = []
        last = [values for values in each.history if "val/dice" in values][-COUNTED:]
        if last and each.weights == "last":
            dice, iou, pooled = (mean_of([v[f"val/{kind}"] for v in last]) for kind in ("dice", "iou", "pooled_dice"))
            runs.append(RunScore(**shared, figure=f"last{COUNTED}", dice=dice, iou=iou, pooled_dice=pooled))
        runs.append(
            RunScore(
                **shared,
                figure=each.weights,
                dice=float(scores.dice.mean()),
                iou=float(scores.iou.mean()),
                pooled_dice=float(scores.pooled_dice.mean()),
                hd95_px=mean_of(scores.hd95_px.ravel().tolist()),
                n_undefined=int(np.isnan(scores.hd95_px).sum()),
            )
        )
        return runs

    def _lines(self, scores: ImageScores) -> Iterator[dict]:
        for n, image_id in enumerate(scores.ids):
            for k, name in enumerate(self.config.chosen):
                figures = {kind: float(getattr(scores, kind)[n, k]) for kind in ("dice", "iou", "hd95_px")}
                yield {"id": image_id, "structure": name, **figures}

    def _draw(self, each: Scored, scores: ImageScores, out: Path) -> Path:
        """The best, the middle and the worst images, by mean Dice."""
        order = np.argsort(-scores.dice.mean(1), kind="stable")
        chosen = np.unique(np.linspace(0, len(order) - 1, min(8, len(order))).round().astype(int))
        wanted = {scores.ids[order[place]]: float(scores.dice[order[place]].mean()) for place in chosen}
        found: dict[str, tuple] = {}
        for case, truth, mask, _ in self._predictions(each.method):
            for n, image_id in enumerate(case.ids):
                if image_id in wanted:
                    found[image_id] = case.image[n].numpy(), truth[:, n], mask[:, n].cpu().numpy()
        path = out / "overlays" / f"{each.weights}.png"
        rows = [(f"{image_id}: Dice {100 * dice:.1f}", *found[image_id]) for image_id, dice in wanted.items()]
        save_image_overlays(path, rows, self.config.chosen, f"{each.name}: test images from best to worst")
        return path


def _distances_px(prediction: Bool[np.ndarray, "K N H W"], truth: Bool[np.ndarray, "K N H W"]) -> np.ndarray:
    """(N, K) 95th percentile Hausdorff distances in pixels; NaN where a mask is empty."""
    unit = (1.0, 1.0, 1.0)
    return np.array(
        [
            [score_volume(mask[None], true[None], unit).hd95_mm for mask, true in zip(masks, trues, strict=True)]
            for masks, trues in zip(prediction.swapaxes(0, 1), truth.swapaxes(0, 1), strict=True)
        ]
    )
