"""Evaluation of few-shot segmentation on the query scans of a fold, for any method and data set."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, UInt8

from dataloaders.fewshot.data import FewShotData, FewShotTask, ScoredCase
from dataloaders.io.geometry import Grid, paste_back
from dataloaders.io.nifti import write_nifti
from dataloaders.samples import StoredGeometry, Volume
from dataloaders.scans.labels import to_supplied_values
from dataloaders.scans.normalise import Normalisation
from models.evaluation.base import Candidate, Evaluation, EvaluationResult, ScoreOptions, mean_defined, with_failed
from models.evaluation.layouts import FEWSHOT_LAYOUT, organ_heading
from models.evaluation.propagated import export_label_maps
from models.methods.base import Method
from models.prediction.pseudo_labels import PseudoLabelConfig
from models.prediction.segmenter import Segmenter
from util.ids import natural_key
from util.items import Failures, catching, dispensable
from util.progress import ProgressBar
from util.results.metrics import CONFIDENCE, Scores, score_volume
from util.results.overlays import save_overlays
from util.results.report.views import VIEWS, save_view
from util.results.scores import FAMILY, FILE_NAME, N_FOLDS, make_scores, write_scores
from util.results.tables import make_tables
from util.schema import build

PROTOCOLS = {"reference": ("reference",), "blind": ("blind",), "both": ("reference", "blind")}


@dataclass(frozen=True)
class CaseResult:
    """A segmented and scored scan.

    Attributes:
        scored: what was segmented.
        masks: of each class.
        scores: class value -> scores.
        confidence: class value -> how firm the outline of the mask is; NaN: nothing was found.
    """

    scored: ScoredCase
    masks: Bool[np.ndarray, "K D H W"]
    scores: dict[int, Scores]
    confidence: dict[int, float]

    @property
    def painted(self) -> UInt8[np.ndarray, "D H W"]:
        """All masks as one map of label values, the smallest organ on top."""
        painted = np.zeros(self.masks.shape[1:], np.uint8)
        for place in np.argsort([-mask.sum() for mask in self.masks]):
            painted[self.masks[place]] = self.scored.case.classes[place]
        return painted


def evaluate(
    method: Method,
    task: FewShotTask,
    device: torch.device,
    tolerance_mm: float | None = None,
    failures: Failures | None = None,
) -> Iterator[CaseResult]:
    """Segments and scores the scans of a task one after the other; the support set is encoded once.

    Args:
        method: on `device`; its mode is restored after each scan.
        task: support set and query scans.
        device: where to compute.
        tolerance_mm: of the normalised surface Dice; None: no surface scores, which take most of the time.
        failures: receives scan -> reason of each scan that fails, and the others are scored; None: the first one stops.
    """
    segmenter = Segmenter(method, device)
    segmenter.set_support(task.support)
    for scan in task.query_scans:
        result = None
        with catching(failures, scan, f"scan {scan}"):
            scored = task.read_case(scan)
            found = segmenter.segment(scored.case)
            masks = found.masks.cpu().numpy()
            confidence = dict(zip(scored.case.classes, found.confidence.tolist(), strict=True))
            result = CaseResult(scored, masks, _score(scored, masks, tolerance_mm), confidence)
        if result is not None:
            yield result


def _score(scored: ScoredCase, masks: np.ndarray, tolerance_mm: float | None) -> dict[int, Scores]:
    scores = {}
    for value, mask, counts in zip(scored.case.classes, masks, scored.counts, strict=True):
        truth = scored.truth[counts]
        scores[value] = score_volume(mask[counts], truth == value, scored.stored.spacing_mm, truth == 255, tolerance_mm)
    return scores


class FewShotEvaluation(Evaluation):
    """Segments and scores the query scans of a fold under the configured protocols."""

    layout = FEWSHOT_LAYOUT
    data: FewShotData

    def curve(self, method: Method, normalisation: Normalisation) -> dict[str, float]:
        """Computes the mean Dice of each organ under the reference protocol."""
        task, names = self.data.task(normalisation, "reference"), self.data.folder.spec.class_names
        results = list(evaluate(method, task, self.device))
        dice = {v: mean_defined([result.scores[v].dice for result in results]) for v in task.support.classes}
        return {f"val/dice/{names[v].lower()}": d for v, d in dice.items() if not np.isnan(d)}

    def score(self, candidates: Sequence[Candidate], out: Path, options: ScoreOptions) -> EvaluationResult:
        """Writes scores.csv, a picture per scan, and the masks on the prepared and on the original scan's grid.

        Raises:
            FailedItemsError: no scan could be scored.
        """
        records: list[dict[str, Any]] = []
        pictures: dict[str, Path] = {}
        failures: Failures = {}
        failed: Failures = {}
        for candidate in candidates:
            folder = out / "ema" if candidate.weights == "ema" else out
            for protocol in PROTOCOLS[self.data.config.protocol]:
                context = self._context(candidate, options) | {"protocol": protocol}
                found: list[dict[str, Any]] = []
                for result in self._results(candidate, protocol, options.surface_scores, failed):
                    found += self._records(context, result)
                    caption = f"{protocol} protocol, scan {result.scored.case.scan_id}"
                    caption += f", {candidate.weights} weights" if len(candidates) > 1 else ""
                    if options.pictures:
                        with dispensable(f"overlays of {caption}"):
                            pictures[caption] = self._draw(folder, context["method"], protocol, result)
                        with dispensable(f"view of {caption}"):
                            self._save_view(folder, context, result, pictures.get(caption))
                    if options.save_predictions:
                        with catching(failures, caption, f"masks of {caption}"):
                            self._save_masks(folder / "predictions" / protocol, result)
                records += sorted(found, key=lambda record: natural_key(record["case"]))
        query = self.data.fold.query
        scores = make_scores(with_failed(records, failed, len(query)))
        write_scores(out / FILE_NAME, scores)
        dice = scores[(scores["metric"] == "dice") & (scores["protocol"] == scores["protocol"].iloc[0])]
        return EvaluationResult(
            title=f"{_name(candidates[0])} on {self.data.folder.spec.name}, fold {self.data.config.eval_fold}",
            tables=make_tables(scores, self.layout.with_hd95(options.hd95)),
            pictures=pictures,
            logged=_logged(scores),
            headline=mean_defined(dice["value"].tolist()),
            failures=tuple(failures.values()),
            n_cases=len(query),
            failed=failed,
        )

    def export_pseudo_labels(
        self, method: Method, folder: Path, run: str, recipe: str, config: PseudoLabelConfig
    ) -> None:
        """Writes label maps of the fold's training scans, see `models.evaluation.propagated`."""
        export_label_maps(method, self.data, folder, run, config, self.device)

    def _results(
        self, candidate: Candidate, protocol: str, surface_scores: bool, failed: Failures
    ) -> Iterator[CaseResult]:
        normalisation = candidate.normalisation or self.data.fit_normalisation()
        task = self.data.task(normalisation, "blind" if protocol == "blind" else "reference")
        tolerance_mm = self.data.config.nsd_tolerance_mm if surface_scores else None
        results = evaluate(candidate.method, task, self.device, tolerance_mm, failed)
        return iter(ProgressBar(results, total=len(task.query_scans), desc=f"{protocol} protocol"))

    def _context(self, candidate: Candidate, options: ScoreOptions) -> dict[str, Any]:
        """What all scores of a candidate share."""
        config, spec = self.data.config, self.data.folder.spec
        return {
            "method": _name(candidate),
            "dataset": spec.name,
            "split": "test",
            "fold": config.eval_fold,
            FAMILY: "fewshot",
            "setting": config.setting,
            "seed": options.seed,
            "weights": candidate.weights,
            "steps": "" if candidate.step is None else candidate.step,
            "config_hash": options.config_hash,
            N_FOLDS: spec.n_folds,
        }

    def _records(self, context: dict[str, Any], result: CaseResult) -> list[dict[str, Any]]:
        folder, scan = self.data.folder, str(result.scored.case.scan_id)
        return [
            context
            | {"case": scan, **asdict(folder.origin(scan)), "structure": folder.spec.class_names[label]}
            | {"label": folder.spec.supplied_value(label), "metric": metric, "value": value}
            for label, scores in result.scores.items()
            for metric, value in (asdict(scores) | {CONFIDENCE: result.confidence[label]}).items()
        ]

    def _draw(self, out: Path, name: str, protocol: str, result: CaseResult) -> Path:
        scored = result.scored
        path = out / "overlays" / f"{protocol}_scan_{scored.case.scan_id}.png"
        names = self.data.folder.spec.class_names
        save_overlays(
            path,
            scored.stored.array,
            scored.truth,
            {name: result.painted},
            scan=scored.case.scan_id,
            organs={value: organ_heading(names[value]) for value in scored.case.classes},
            dice={name: {value: scores.dice for value, scores in result.scores.items()}},
            affine=scored.stored.affine,
        )
        return path

    def _save_view(self, out: Path, context: dict[str, Any], result: CaseResult, picture: Path | None) -> None:
        scored, names = result.scored, self.data.folder.spec.class_names
        save_view(
            out / VIEWS / f"{context['protocol']}_{scored.case.scan_id}.npz",
            scored.stored.array,
            scored.truth,
            result.painted,
            scored.stored.affine,
            case=str(scored.case.scan_id),
            names={value: names[value] for value in scored.case.classes},
            conditions=context,
            picture=picture,
        )

    def _save_masks(self, out: Path, result: CaseResult) -> None:
        """Writes a mask per organ on the prepared and, where known, on the original grid.

        Its values are 0 and the organ's value in the label maps as they were supplied.
        """
        scan, spec = result.scored.case.scan_id, self.data.folder.spec
        entry = self.data.folder.manifest.scans.get(str(scan), {})
        original, stored = entry.get("original"), entry.get("stored_geometry")
        for value, mask in zip(result.scored.case.classes, result.masks, strict=True):
            prepared = mask.astype(np.uint8) * np.uint8(value)
            labelled = Volume(to_supplied_values(prepared, spec), result.scored.stored.affine)
            name = f"scan_{scan}_label_{spec.supplied_value(value)}.nii.gz"
            write_nifti(out / name, labelled)
            if original:
                grid = Grid.from_json(original)
                pasted = paste_back(labelled, grid.shape, grid.affine)
                geometry = None if stored is None else build(StoredGeometry, stored)
                write_nifti(out / "original_grid" / name, Volume(pasted.array, grid.affine, geometry))


def _name(candidate: Candidate) -> str:
    """The method's name in tables, in which averaged weights are a method of their own."""
    return candidate.name + (" EMA" if candidate.weights == "ema" else "")


def _logged(scores: pd.DataFrame) -> list[tuple[str, float]]:
    """Mean Dice over scans by protocol; for the reference protocol also under the names of the reference code."""
    logged = []
    dice = scores[scores["metric"] == "dice"]
    for protocol, rows in dice.groupby("protocol", sort=False):
        means = {organ: mean_defined(part["value"].tolist()) for organ, part in rows.groupby("structure", sort=False)}
        mean = mean_defined(list(means.values()))
        logged += [(f"{protocol}/dice/{str(organ).lower()}", value) for organ, value in means.items()]
        logged.append((f"{protocol}/dice/mean", mean))
        if protocol == "reference":
            logged += [("mar_val_batches_classDice", value) for value in means.values()]
            logged.append(("mar_val_batches_meanDice", mean))
    return logged
