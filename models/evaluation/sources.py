"""Evaluation on the scans of domains that were not trained on, frame by frame."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from dataloaders.io.nifti import write_nifti
from dataloaders.samples import Origin, Volume
from dataloaders.scans.labels import to_supplied_values
from dataloaders.scans.normalise import Normalisation
from dataloaders.sources.config import SourcesDataConfig
from dataloaders.sources.data import SourcesData
from dataloaders.sources.frames import ScoredFrame, SliceRule
from models.evaluation.base import Candidate, Evaluation, EvaluationResult, ScoreOptions, mean_defined, with_failed
from models.evaluation.frames import FrameResult, GridName, case_ids, evaluate_frame, on_original_grid
from models.evaluation.layouts import SOURCES_LAYOUT
from models.methods.base import Method
from models.prediction.scan_search import SEGMENTATION
from models.prediction.segmenter import Segmenter
from util.errors import ConfigError, DataError
from util.ids import natural_key
from util.items import Failures, catching, dispensable
from util.progress import ProgressBar
from util.results.metrics import CONFIDENCE, NSD_TOLERANCE_MM
from util.results.overlays import save_overlays
from util.results.report.views import VIEWS, save_view
from util.results.scores import FAMILY, FILE_NAME, make_scores, write_scores
from util.results.tables import make_tables

METRICS = ("dice", "hd95_mm", "hd95_pooled_mm", CONFIDENCE)  # of each frame and structure
ALL = "all"  # structures together
DRAWN = {"worst": 0.0, "best": 1.0, "median": 0.5}  # patients in pictures -> place in the order of their Dice


@dataclass
class _Patient:
    """What is gathered of a patient's frames."""

    origin: Origin
    scans: dict[str, None] = field(default_factory=dict)  # in their order
    dice: list[float] = field(default_factory=list)
    legacy: dict[str, list[np.ndarray]] = field(default_factory=dict)

    def add(self, result: FrameResult) -> None:
        self.scans[result.frame.scan] = None
        self.dice.append(result.dice)
        for metric, values in result.legacy.items():
            self.legacy.setdefault(metric, []).append(values)


class SourcesEvaluation(Evaluation):
    """Segments and scores the annotated frames of the tested domains."""

    layout = SOURCES_LAYOUT
    data: SourcesData

    def curve(self, method: Method, normalisation: Normalisation) -> dict[str, float]:
        """Computes the mean Dice of the development scans; {} without any. No tested scan is opened."""
        scans = self.data.division.development
        results = [each for scan in self._evaluate(Candidate("", method), scans) for each in scan]
        names = self.data.spec.class_names
        dice = {"val/dice": mean_defined([result.dice for result in results])}
        for value in range(1, len(names)):
            dice[f"val/dice/{names[value].lower()}"] = mean_defined([each.scores[value].dice for each in results])
        return {name: value for name, value in dice.items() if not np.isnan(value)}

    def score(self, candidates: Sequence[Candidate], out: Path, options: ScoreOptions) -> EvaluationResult:
        """Writes scores.csv, pictures of some patients, and label maps on the grids of the original scans.

        Raises:
            DataError: no domain is tested.
            FailedItemsError: no scan could be scored.
        """
        scans, config, spec = self._tested(), self.data.config, self.data.spec
        grid = self._grid(scans)
        records: list[dict[str, Any]] = []
        pictures: dict[str, Path] = {}
        failures: Failures = {}
        failed: Failures = {}
        for candidate in candidates:
            folder = out / "ema" if candidate.weights == "ema" else out
            context, patients = self._context(candidate, options), {}
            found: list[dict[str, Any]] = []
            results = self._evaluate(candidate, scans, grid, options.surface_scores, failed)
            for result in (each for scan in ProgressBar(results, desc="scans", total=len(scans)) for each in scan):
                found += self._records(context | {"grid": grid}, result)
                patients.setdefault(result.frame.origin.patient, _Patient(result.frame.origin)).add(result)
                if options.save_predictions:
                    with catching(failures, f"{candidate.weights} {result.case}", f"label map of {result.case}"):
                        self._save(folder / "predictions" / f"{result.case}{SEGMENTATION}", result)
            records += sorted(found, key=lambda record: natural_key(record["case"]))
            records += _patient_records(context, patients)
            suffix = f", {candidate.weights} weights" if len(candidates) > 1 else ""
            if options.pictures:
                pictures |= self._draw(candidate, patients, folder / "overlays", suffix)
        scores = make_scores(with_failed(records, failed, len(scans)))
        write_scores(out / FILE_NAME, scores)
        dice = scores[(scores["metric"] == "dice") & (scores["weights"] == candidates[0].weights)]
        return EvaluationResult(
            title=f"{_name(candidates[0])} on {spec.name}, domain {'+'.join(config.test_domains)}",
            tables=make_tables(scores, self.layout.with_hd95(options.hd95)),
            pictures=pictures,
            logged=_logged(records),
            headline=mean_defined(dice["value"].tolist()),
            failures=tuple(failures.values()),
            n_cases=len(scans),
            failed=failed,
        )

    def _tested(self) -> tuple[str, ...]:
        if self.data.division.test:
            return self.data.division.test
        tested = ", ".join(self.data.config.test_domains)
        found = f"no scan of the tested domain {tested} has a label" if tested else "no domain is tested"
        domains = ", ".join(sorted(_domains(self.data)))
        raise DataError(f"{self.data.folder.folder}: {found}; set test_domains to some of {domains}.")

    def _grid(self, scans: Sequence[str]) -> GridName:
        """The grid on which all frames are scored: the original one where it is known of every scan with its labels."""
        folder = self.data.folder
        is_known = ("original" in folder.manifest.scans.get(scan, {}) for scan in scans)
        has_label = (folder.has_original_label(scan) for scan in scans)
        return "original" if all(is_known) and all(has_label) else "prepared"

    def _evaluate(
        self,
        candidate: Candidate,
        scans: Sequence[str],
        grid: GridName = "prepared",
        with_surfaces: bool = False,
        failed: Failures | None = None,
    ) -> Iterator[list[FrameResult]]:
        """Segments and scores scan after scan.

        Args:
            candidate: whose slices are normalised as in its training.
            scans: ids.
            grid: on which frames are scored.
            with_surfaces: whether surface distances are computed.
            failed: receives scan -> reason of each scan that fails, and the others are scored; None: the first stops.
        """
        if not scans:
            return
        segmenter, rule = Segmenter(candidate.method, self.device), self._rule(candidate)
        tolerance_mm = NSD_TOLERANCE_MM if with_surfaces else None
        for scan, read in zip(scans, self.data.cases(tuple(scans), rule), strict=True):
            results = None
            with catching(failed, scan, f"scan {scan}"):
                frames = self._checked(read())
                results = [
                    evaluate_frame(segmenter, case, frame, rule, grid, tolerance_mm)
                    for case, frame in zip(case_ids(frames), frames, strict=True)
                ]
            if results is not None:
                yield results

    def _rule(self, candidate: Candidate) -> SliceRule:
        """How slices are normalised: as in training, by which further test sets are matched to the sources, too."""
        if candidate.slices is not None:
            return candidate.slices
        if self.data.config.hist_match == "train+test" and not self.data.division.sources:
            raise ConfigError(
                f"hist_match=train+test: {self.data.spec.name} has no source to match slices to; expected a trained "
                "network, whose checkpoint holds the reference. Train it first, or leave test_sets out."
            )
        return self.data.rule

    def _checked(self, frames: list[ScoredFrame]) -> list[ScoredFrame]:
        side_px = self.data.config.side_px
        for frame in frames:
            if frame.truth.shape != frame.prepared.array.shape or frame.truth.shape[1:] != (side_px, side_px):
                raise DataError(
                    f"{self.data.folder.path('image', frame.scan)}: slices of {frame.prepared.array.shape[1:]} px, "
                    f"label {frame.truth.shape[1:]}; expected {side_px}. Set size_px to what was prepared, or prepare "
                    "the scans again."
                )
        return frames

    def _context(self, candidate: Candidate, options: ScoreOptions) -> dict[str, Any]:
        """What all scores of a candidate share; conditions of the usual value are empty."""
        config = self.data.config
        is_drawn = config.selection == "random" or config.protocol == "generic"
        return {
            "method": _name(candidate),
            "dataset": self.data.spec.name,
            "split": "held-out domain",
            FAMILY: "sources",
            "held_out_domain": "+".join(config.test_domains),
            "labelled": f"{100 * config.labelled_fraction:g} %",
            "selection": _unusual(config, "selection"),
            "selection_seed": config.selection_seed if is_drawn else "",
            "protocol": _unusual(config, "protocol"),
            "hist_match": _unusual(config, "hist_match"),
            "sources": _some_sources(self.data),
            "seed": options.seed,
            "weights": candidate.weights,
            "steps": "" if candidate.step is None else candidate.step,
            "config_hash": options.config_hash,
        }

    def _records(self, context: Mapping[str, Any], result: FrameResult) -> list[dict[str, Any]]:
        spec = self.data.spec
        return [
            {**context, "case": result.case, **asdict(result.frame.origin), "structure": spec.class_names[value]}
            | {"label": spec.supplied_value(value), "metric": metric, "value": measured}
            for value, scores in result.scores.items()
            for metric, measured in (asdict(scores) | {CONFIDENCE: result.confidence[value]}).items()
            if metric in METRICS
        ]

    def _draw(self, candidate: Candidate, patients: Mapping[str, _Patient], out: Path, suffix: str) -> dict[str, Path]:
        """Draws the frames of the patients with the lowest, the median and the highest Dice; caption -> picture."""
        dice = {patient: mean_defined(each.dice) for patient, each in patients.items()}
        order = sorted((each for each in dice if not np.isnan(dice[each])), key=lambda patient: dice[patient])
        chosen: dict[str, str] = {}
        for name, place in DRAWN.items() if order else ():
            chosen.setdefault(order[round(place * (len(order) - 1))], name)
        pictures: dict[str, Path] = {}
        for patient, name in chosen.items():
            with dispensable(f"overlays of patient {patient}{suffix}"):
                for results in self._evaluate(candidate, tuple(patients[patient].scans)):
                    for result in results:
                        caption = f"{name} patient, {result.case}{suffix}"
                        pictures[caption] = self._draw_frame(out / f"{result.case}.png", candidate, result)
        return pictures

    def _draw_frame(self, path: Path, candidate: Candidate, result: FrameResult) -> Path:
        """Draws the overlays of a frame, and saves a view of it for the page."""
        frame, names, name = result.frame, self.data.spec.class_names, _name(candidate)
        organs = {value: names[value] for value in frame.case.classes}
        save_overlays(
            path,
            *(frame.prepared.array, frame.truth, {name: result.label}),
            scan=result.case,
            organs=organs,
            dice={name: {value: scores.dice for value, scores in result.scores.items()}},
            affine=frame.prepared.affine,
        )
        save_view(
            path.parents[1] / VIEWS / f"{result.case}.npz",
            *(frame.prepared.array, frame.truth, result.label, frame.prepared.affine),
            **{"case": result.case, "names": organs, "picture": path},
            conditions={"weights": candidate.weights, "dataset": self.data.spec.name},
        )
        return path

    def _save(self, path: Path, result: FrameResult) -> None:
        """Writes a label map with the supplied values on the original grid, if it is known, else the prepared one."""
        frame, spec = result.frame, self.data.spec
        if frame.original is None:
            write_nifti(path, Volume(to_supplied_values(result.label, spec), frame.prepared.affine))
        else:
            label = to_supplied_values(on_original_grid(frame, result.label), spec)
            write_nifti(path, Volume(label, frame.original.affine, frame.stored))


def _patient_records(context: Mapping[str, Any], patients: Mapping[str, _Patient]) -> list[dict[str, Any]]:
    """One value of each patient: the mean over the slices of all frames, all structures together."""
    return [
        {**context, "case": patient, **asdict(replace(each.origin, phase="")), "structure": ALL}
        | {"metric": metric, "value": mean_defined(np.concatenate(values).tolist())}
        for patient, each in sorted(patients.items(), key=lambda item: natural_key(item[0]))
        for metric, values in each.legacy.items()
    ]


def _unusual(config: SourcesDataConfig, key: str) -> str:
    """The value of a setting; empty: the default."""
    value = getattr(config, key)
    return "" if value == getattr(SourcesDataConfig, key) else value


def _some_sources(data: SourcesData) -> str:
    """The domains that were trained on, where these are not all that are not tested."""
    others = _domains(data) - set(data.config.test_domains)
    return "" if set(data.division.sources) in (set(), others) else "+".join(data.division.sources)


def _domains(data: SourcesData) -> set[str]:
    return {scan.origin.domain for scan in data.scans.values()}


def _name(candidate: Candidate) -> str:
    """The method's name in tables, in which averaged weights are a method of their own."""
    return candidate.name + (" EMA" if candidate.weights == "ema" else "")


def _logged(records: Sequence[Mapping[str, Any]]) -> list[tuple[str, float]]:
    """Mean of each metric by weights, of Dice also by structure."""
    values: dict[str, list[float]] = {}
    for record in records:
        name = f"test/{record['metric']}/{record['weights']}"
        values.setdefault(name, []).append(record["value"])
        if record["metric"] == "dice":
            values.setdefault(f"{name}/{record['structure'].lower()}", []).append(record["value"])
    means = {name: mean_defined(each) for name, each in values.items()}
    return [(name, mean) for name, mean in means.items() if not np.isnan(mean)]
