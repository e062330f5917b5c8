"""Few-shot methods on pairs of scans: each support scan with each query scan, scored under both protocols.

python -m benchmarks.propagation_pairs --data DATA --support 8 10 13 15 --query 1 2 3 5 --run "propagation"
python -m benchmarks.propagation_pairs --data DATA --support 8 10 13 15 --query 8 10 13 15 --reuse-features \
    --run "propagation" --run "propagation kernel.sigma_xy=0.1" --run "alpnet modelname=efficientnet_lite0"
python -m benchmarks.propagation_pairs --data DATA --support 8 10 13 15 --query 1 2 3 5 --shots 2 --run "propagation"
python -m benchmarks.propagation_pairs --data DATA --support 1 2 3 --query 1 2 3 --confidence --run "propagation"

DATA is the data root or a prepared folder with class index. A run is a named configuration (models/presets) and any
settings of its method; "propagation reload_model_path=CHECKPOINT" takes the encoder of a trained few-shot network.
"blind" scores all slices, "reference" the structure's true ones. One line a run: Dice x 100 of each structure, mean
over pairs (a scan with itself is no pair), their mean, and seconds per scan after the support was encoded. With
--confidence, also how the confidence of a mask (blind) goes with its Dice, and how its mean probability does.
"""

import argparse
import copy
import hashlib
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from dataloaders.fewshot.config import FewShotConfig
from dataloaders.fewshot.data import FewShotData, ScoredCase, open_fewshot
from dataloaders.fewshot.folds import Fold
from dataloaders.scans.normalise import Normalisation
from models import build_method, method_class
from models.methods.base import Method
from models.prediction.segmenter import Segmenter
from models.presets import NAMED_CONFIGS
from models.training.load import load_with_encoder
from util.cli import whole
from util.config_words import parse_words
from util.errors import ConfigError
from util.results.confidence import GOOD_DICE, ConfidenceWorth, measure_worth
from util.results.metrics import CONFIDENCE, score_volume
from util.results.report.scatter import confidence_plot, save_scatter
from util.results.tables import markdown_header, markdown_row
from util.runtime.device import choose_device
from util.schema import merge

PROTOCOLS = ("blind", "reference")
YARDSTICK = "mean probability within the mask"
CONFIDENCES = (0.0, 0.2, 0.4, 0.5, 0.6, 1.0)  # edges of the lines of the table


class Measured(NamedTuple):
    """Scores of one query scan."""

    dice: dict[str, list[float]]  # by protocol; of each structure
    confidence: list[float]  # of each structure, blind; NaN: nothing was found
    mean_probability: list[float]  # within its mask, likewise; a yardstick for the confidence
    seconds: float


class RememberedEncoder(nn.Module):
    """An encoder that computes the features of each image once; for many runs on few scans."""

    def __init__(self, encoder: nn.Module, memory: dict[str, Tensor]) -> None:
        super().__init__()
        self.encoder, self.memory = encoder, memory

    def forward(self, images: Tensor) -> Tensor:
        """The features, from memory where the same images were encoded before."""
        key = hashlib.sha256(images.cpu().numpy().tobytes()).hexdigest()
        if key not in self.memory:
            self.memory[key] = self.encoder(images)
        return self.memory[key]

    def __deepcopy__(self, _: Any) -> "RememberedEncoder":
        return RememberedEncoder(copy.deepcopy(self.encoder), self.memory)


def main() -> None:
    """Prints the table, each line as soon as it is measured."""
    given = _parser().parse_args()
    config = FewShotConfig(dataset=given.dataset, label_sets="all", support_idx=(-1,), n_sup_part=given.parts)
    data = open_fewshot(config, given.data)
    groups = list(combinations(given.support, given.shots))
    pairs = [(support, query) for support in groups for query in given.query if query not in support]
    names = [data.spec.class_names[value].lower() for value in data.spec.held_out("all")]
    print(f"{len(pairs)} pairs of {data.spec.name}, {given.device}")
    print(markdown_header(["run", "protocol", *names, "mean", "s per scan"], 2), flush=True)
    memories: dict[str, dict[str, Tensor]] = {}
    for words in given.run:
        method = method_of(words).to(given.device)
        if given.reuse_features and hasattr(method, "encoder"):
            key = f"{getattr(method.config, 'modelname', '')} {getattr(method.config, 'encoder_weights', '')}"
            key += f" {getattr(method.config, 'use_projection', '')} {type(method).__name__}"
            key += words if "reload_model_path" in words else ""
            method.encoder = RememberedEncoder(cast(nn.Module, method.encoder), memories.setdefault(key, {}))
        found = _measure(method, data, pairs, given.device, given.verbose)
        for protocol in PROTOCOLS:
            means = 100 * np.nanmean([each.dice[protocol] for each in found], 0)
            cells = [f"{value:.1f}" for value in (*means, means.mean())]
            took = np.median([each.seconds for each in found])
            print(markdown_row([words, protocol, *cells, f"{took:.1f}"]), flush=True)
        if given.confidence:
            masks = [
                {"case": case, "structure": name, CONFIDENCE: confidence, YARDSTICK: probability, "dice": dice}
                for case, each in zip((f"{' + '.join(s)} to {q}" for s, q in pairs), found, strict=True)
                for name, confidence, probability, dice in zip(
                    names, each.confidence, each.mean_probability, each.dice["blind"], strict=True
                )
            ]
            table = pd.DataFrame(masks)
            plot = confidence_plot(table, {})
            if plot is not None:
                other = measure_worth(table[YARDSTICK].to_numpy(float), table["dice"].to_numpy(float)).correlation
                print(f"\n{confidence_table(plot.worth)}\n\nThe same correlation of the {YARDSTICK}: {other:.2f}")
                if given.picture:
                    save_scatter(given.picture, plot)


def confidence_table(worth: ConfidenceWorth) -> str:
    """How Dice goes with confidence, in Markdown."""
    known, scores = worth.confidence, worth.dice
    lines = [*worth.sentences, "", markdown_header(["confidence", "masks", "mean Dice", f"Dice above {GOOD_DICE}"], 1)]
    for low, high in pairwise(CONFIDENCES):
        chosen = scores[(known >= low) & ((known < high) | (high == CONFIDENCES[-1]))]
        if len(chosen):
            cells = [str(len(chosen)), f"{chosen.mean():.2f}", f"{100 * (chosen > GOOD_DICE).mean():.0f} %"]
            lines.append(markdown_row([f"{low:g} to {high:g}", *cells]))
    return "\n".join(lines)


def method_of(words: str) -> Method:
    """The method that a run names.

    Args:
        words: a named configuration and settings of its method, in one string.

    Raises:
        ConfigError: an unknown word or setting.
    """
    values, names = parse_words(words.split())
    unknown = [name for name in names if name not in NAMED_CONFIGS]
    if unknown:
        raise ConfigError(
            f"--run {words!r}: {unknown[0]} is no named configuration; expected one, such as propagation."
        )
    settings = merge({"method": "alpnet"}, *(NAMED_CONFIGS[name] for name in names), values)
    path = settings.pop("reload_model_path", None)
    settings = merge(asdict(method_class(settings["method"]).Config()), settings)
    if path is not None:
        return load_with_encoder(Path(path), settings, "last", torch.device("cpu")).method
    return build_method(settings).eval()


def _measure(
    method: Method, data: FewShotData, pairs: list[tuple[tuple[str, ...], str]], device: torch.device, verbose: bool
) -> list[Measured]:
    """The scores of each pair."""
    found = []
    for support in dict.fromkeys(support for support, _ in pairs):
        queries = tuple(query for first, query in pairs if first == support)
        for query, one in _segment(method, data, support, queries, device):
            found.append(one)
            if verbose:
                shown = " ".join(f"{100 * value:.1f}" for value in one.dice["blind"])
                print(f"  {' + '.join(support)} to {query}: {shown}", flush=True)
    return found


def _segment(
    method: Method, data: FewShotData, support: tuple[str, ...], queries: tuple[str, ...], device: torch.device
) -> Iterator[tuple[str, Measured]]:
    """Each query and its scores; a case without other parts is segmented once for both protocols."""
    fold = Fold((), queries, support)
    one = replace(data, fold=fold)
    normalisation = _normalisation(data)
    tasks = {protocol: one.task(normalisation, protocol) for protocol in PROTOCOLS}
    segmenter = Segmenter(method, device)
    segmenter.set_support(tasks["blind"].support)
    for query in queries:
        cases = {protocol: task.read_case(query) for protocol, task in tasks.items()}
        start = time.perf_counter()
        blind = segmenter.segment(cases["blind"].case)
        masks = blind.masks.cpu().numpy()
        took = time.perf_counter() - start
        dice = {"blind": _dice(cases["blind"], masks)}
        if not method.compares_scans:
            masks = segmenter.segment(cases["reference"].case).masks.cpu().numpy()
        dice["reference"] = _dice(cases["reference"], masks)
        inside = (blind.probabilities * blind.masks).flatten(1).sum(1) / blind.masks.flatten(1).sum(1)
        yield query, Measured(dice, blind.confidence.tolist(), inside.tolist(), took)


def _normalisation(data: FewShotData) -> Normalisation:
    return Normalisation.fit(data.spec, data.folder.statistics(data.folder.scan_ids))


def _dice(scored: ScoredCase, masks: np.ndarray) -> list[float]:
    return [
        score_volume(
            mask[counts],
            scored.truth[counts] == value,
            scored.stored.spacing_mm,
            scored.truth[counts] == 255,
            None,
        ).dice
        for value, mask, counts in zip(scored.case.classes, masks, scored.counts, strict=True)
    ]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add: Any = parser.add_argument
    add("--data", required=True, help="data root, or prepared folder")
    add("--dataset", default="CHAOST2", help="its name or description (default: CHAOST2)")
    add("--support", nargs="+", required=True, metavar="SCAN", help="annotated scans")
    add("--query", nargs="+", required=True, metavar="SCAN", help="scans to segment")
    add("--run", action="append", required=True, metavar="'WORDS'", help="a named configuration and settings")
    add("--parts", type=int, default=3, help="annotated slices per structure, for methods that take them (default: 3)")
    add("--shots", type=whole(1), default=1, help="annotated scans that are used together (default: 1, each alone)")
    add("--confidence", action="store_true", help="also print how confidence goes with Dice")
    add("--picture", type=Path, metavar="FILE.svg", help="of that; the last run's")
    add("--device", default="auto", type=choose_device, help="auto, cpu or cuda (default: auto)")
    add("--reuse-features", action="store_true", help="encode each image once; seconds are then without the encoder")
    add("--verbose", action="store_true", help="also print the blind Dice of each pair")
    return parser


if __name__ == "__main__":
    main()
