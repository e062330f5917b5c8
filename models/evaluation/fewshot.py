"""Few-shot segmentation scored on a fold's query scans; knows no method and no data set by name."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool
from tqdm import tqdm

from dataloaders.fewshot.data import FewShotData, FewShotTask, ScoredCase
from dataloaders.io.geometry import Grid, paste_back
from dataloaders.io.nifti import write_nifti
from dataloaders.samples import Volume
from dataloaders.scans.normalise import Normalisation
from models.evaluation.base import Evaluated, Evaluation, Scored, ScoreOptions, mean_of
from models.methods.base import Method
from util.results.metrics import Scores, overlap_counts, overlap_scores, score_volume
from util.results.pictures import save_overlays
from util.results.scores import FILE_NAME, ScoreRow, write_scores
from util.results.tables import heading_of, measured_tables

PROTOCOLS = {"reference": ("reference",), "blind": ("blind",), "both": ("reference", "blind")}


@dataclass(frozen=True)
class CaseResult:
    """A segmented and scored scan."""

    scored: ScoredCase
    masks: Bool[np.ndarray, "K D H W"]
    scores: dict[int, Scores]  # by label value


def evaluate(
    method: Method, task: FewShotTask, device: torch.device, tolerance_mm: float | None = None
) -> Iterator[CaseResult]:
    """Yields the result of one scan after the other; the support is encoded once.

    Args:
        method: on `device`; it is put into evaluation mode and back.
        task: support and scans.
        device: where to compute.
        tolerance_mm: of the normalised surface Dice; None: no surface scores, which take most of the time.
    """
    was_training = method.training
    method.eval()
    with torch.inference_mode():
        support = method.encode_support(task.support.to(device))
        for scored in task.cases:
            masks = method.predict(scored.case.to(device), support).cpu().numpy()
            yield CaseResult(scored, masks, _score(scored, masks, tolerance_mm))
    method.train(was_training)


def _score(scored: ScoredCase, masks: np.ndarray, tolerance_mm: float | None) -> dict[int, Scores]:
    scores = {}
    for value, mask, counts in zip(scored.case.classes, masks, scored.counts, strict=True):
        truth = scored.truth[counts]
        volumes = mask[counts], truth == value
        if tolerance_mm is None:
            overlap = overlap_scores(overlap_counts(*volumes, ignore=truth == 255))
            scores[value] = Scores(**overlap._asdict(), hd95_mm=float("nan"), nsd=float("nan"))
        else:
            scores[value] = score_volume(*volumes, scored.stored.spacing_mm, truth == 255, tolerance_mm)
    return scores


class FewShotEvaluation(Evaluation):
    """Segments and scores the fold's query scans under the protocols asked for."""

    def __init__(self, data: FewShotData, device: torch.device) -> None:
        super().__init__(device)
        self.data, self.spec = data, data.folder.spec

    def curve(self, method: Method, normalisation: Normalisation) -> dict[str, float]:
        """Mean Dice of each organ under the reference protocol."""
        task = self.data.task(normalisation, "reference")
        results = list(evaluate(method, task, self.device))
        dice = {v: mean_of([result.scores[v].dice for result in results]) for v in task.support.classes}
        return {f"val/dice/{self.spec.class_names[v].lower()}": d for v, d in dice.items() if not np.isnan(d)}

    def score(self, scored: Sequence[Scored], out: Path, options: ScoreOptions) -> Evaluated:
        """Writes scores.csv, a picture per scan, and the masks on the prepared and on the original scan's grid."""
        rows: list[ScoreRow] = []
        pictures: dict[str, Path] = {}
        for each in scored:
            for protocol in PROTOCOLS[self.data.config.protocol]:
                for result in self._results(each, protocol, options.surface_scores):
                    rows += self._rows(each.name, options, protocol, result)
                    caption = f"{protocol} protocol, scan {result.scored.case.scan_id}"
                    folder = out if each.weights != "ema" else out / "ema"
                    pictures[f"{caption}, {each.weights}" if len(scored) > 1 else caption] = self._draw(
                        folder, each.name, protocol, result
                    )
                    if options.save_predictions:
                        self._save_masks(folder / "predictions" / protocol, result)
        write_scores(out / FILE_NAME, rows)
        return Evaluated(
            title=f"{scored[0].name} on {self.spec.name}, fold {self.data.config.eval_fold}",
            tables=measured_tables(rows, n_folds=0),
            pictures=pictures,
            logged=_logged(rows),
            headline=mean_of([row.scores.dice for row in rows if row.protocol == rows[0].protocol]),
        )

    def _results(self, each: Scored, protocol: str, surface_scores: bool) -> Iterator[CaseResult]:
        normalisation = each.normalisation or self.data.fit_normalisation()
        task = self.data.task(normalisation, "blind" if protocol == "blind" else "reference")
        tolerance_mm = self.data.config.nsd_tolerance_mm if surface_scores else None
        results = evaluate(each.method, task, self.device, tolerance_mm)
        return iter(tqdm(results, total=len(task.query_scans), desc=f"{protocol} protocol", disable=None))

    def _rows(self, name: str, options: ScoreOptions, protocol: str, result: CaseResult) -> list[ScoreRow]:
        return [
            ScoreRow(
                method=name,
                dataset=self.spec.name,
                setting=str(self.data.config.setting),
                seed=str(options.seed),
                recipe=options.recipe,
                protocol=protocol,
                fold=self.data.config.eval_fold,
                scan=result.scored.case.scan_id,
                label=value,
                organ=self.spec.class_names[value],
                scores=scores,
            )
            for value, scores in result.scores.items()
        ]

    def _draw(self, out: Path, name: str, protocol: str, result: CaseResult) -> Path:
        scored = result.scored
        painted = np.zeros(scored.truth.shape, np.uint8)
        for place in np.argsort([-mask.sum() for mask in result.masks]):  # the smallest organ on top
            painted[result.masks[place]] = scored.case.classes[place]
        path = out / "overlays" / f"{protocol}_scan_{scored.case.scan_id}.png"
        save_overlays(
            path,
            scored.stored.array,
            scored.truth,
            {name: painted},
            scan=scored.case.scan_id,
            organs={value: heading_of(self.spec.class_names[value]) for value in scored.case.classes},
            dice={name: {value: scores.dice for value, scores in result.scores.items()}},
            affine=scored.stored.affine,
        )
        return path

    def _save_masks(self, out: Path, result: CaseResult) -> None:
        """Writes a mask per organ (values 0 and the label), on the prepared and, where known, on the original grid."""
        scan = result.scored.case.scan_id
        original = self.data.folder.manifest.scans.get(str(scan), {}).get("original")
        for value, mask in zip(result.scored.case.classes, result.masks, strict=True):
            labelled = Volume(mask.astype(np.uint8) * value, result.scored.stored.affine)
            write_nifti(out / f"scan_{scan}_label_{value}.nii.gz", labelled)
            if original:
                grid = Grid.from_json(original)
                pasted = paste_back(labelled, grid.shape, grid.affine)
                write_nifti(out / "original_grid" / f"scan_{scan}_label_{value}.nii.gz", pasted)


def _logged(rows: Sequence[ScoreRow]) -> list[tuple[str, float]]:
    """Mean scores over scans; for the reference protocol also under the reference's names."""
    logged = []
    for protocol in dict.fromkeys(row.protocol for row in rows):
        mine = [row for row in rows if row.protocol == protocol]
        organs = dict.fromkeys(row.organ for row in mine)
        dice = {organ: mean_of([row.scores.dice for row in mine if row.organ == organ]) for organ in organs}
        mean = mean_of(list(dice.values()))
        logged += [(f"{protocol}/dice/{organ.lower()}", value) for organ, value in dice.items()]
        logged.append((f"{protocol}/dice/mean", mean))
        if protocol == "reference":
            logged += [("mar_val_batches_classDice", value) for value in dice.values()]
            logged.append(("mar_val_batches_meanDice", mean))
    return logged
