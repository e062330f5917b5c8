"""Self-training with one annotated scan and all other scans of a folder as unlabelled ones; scored on some of them.

python -m benchmarks.self_training_pairs --data DATA --support 8 10 13 15 --query 1 2 3 5 --rounds 2 --out study
python -m benchmarks.self_training_pairs --data DATA --support 8 --query 1 2 3 5 --out study --set n_steps=300

Label maps of propagation, a network that learns from them, label maps of this network, and so on, with the settings of
the named configuration `self_training`; no label but those of the support is read. One line a step: mean blind Dice x
100 of each structure over the pairs. `--checkpoint` propagates by the encoder of a trained few-shot network.
"""

import argparse
import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.runs import Settings, settings_of
from dataloaders.fewshot.data import FewShotData, open_fewshot
from dataloaders.fewshot.folds import Fold
from dataloaders.ordering import LoaderOptions
from dataloaders.scans.normalise import Normalisation
from models import build_method, method_class
from models.evaluation.fewshot import evaluate
from models.evaluation.propagated import export_label_maps
from models.methods.base import Method
from models.training.load import load_with_encoder
from models.training.state import build_state
from util.cli import run_main, whole
from util.config_words import parse_words
from util.progress import ProgressBar
from util.results.tables import markdown_header, markdown_row
from util.runtime.device import choose_device, set_precision
from util.schema import merge

logger = logging.getLogger(__name__)

Dice = dict[tuple[str, str], list[float]]  # support, query -> of each structure


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the table, each support's scores as soon as they are measured."""
    given = _parser().parse_args(arguments)
    values, _ = parse_words(given.set)
    settings = settings_of(("self_training",), merge({"dataset": given.dataset, "label_sets": "all"}, values))
    needs = method_class("self_training").needs
    opened = open_fewshot(settings.data, given.data, needs=needs)  # type: ignore[arg-type] - of this family
    names = [opened.spec.class_names[value].lower() for value in opened.spec.held_out("all")]
    found: dict[str, Dice] = {}
    for support in given.support:
        others = tuple(scan for scan in given.unlabelled or opened.folder.scan_ids if scan != support)
        queries = tuple(scan for scan in given.query if scan != support)
        data = replace(opened, fold=Fold(others, queries, (support,)))
        start = time.perf_counter()
        method = _propagation(given.checkpoint).to(given.device)
        for step in range(given.rounds + 1):
            name = f"round {step}" if step else "propagation"
            scores = _scores(method, data, given.device)
            found.setdefault(name, {}).update(scores)
            if given.verbose:
                for pair, dice in scores.items():
                    logger.info("%s, %s", " to ".join(pair), f"{name}: " + " ".join(f"{100 * x:.1f}" for x in dice))
            took = time.perf_counter() - start
            shown = " ".join(f"{value:.1f}" for value in _means(found[name], (support,)))
            logger.info("%s, %s: %s (%.0f s)", support, name, shown, took)
            if step < given.rounds:
                maps = given.out / f"{support}_round{step + 1}"
                export_label_maps(method, data, maps, f"{support} {name}", settings.run.pseudo_label, given.device)
                method = _train(replace(data, config=replace(data.config, pseudo_labels=str(maps))), settings, given)
    rows = {name: _means(dice, given.support) for name, dice in found.items()}
    text = [markdown_header(["", *names, "mean"], 1)]
    text += [markdown_row([name, *(f"{value:.1f}" for value in (*row, row.mean()))]) for name, row in rows.items()]
    logger.info("\n%s", "\n".join(text))


def _means(dice: Dice, supports: Sequence[str]) -> np.ndarray:
    return 100 * np.nanmean([values for (support, _), values in dice.items() if support in supports], 0)


def _propagation(checkpoint: Path | None) -> Method:
    settings = {"method": "propagation"} | asdict(method_class("propagation").Config())
    if checkpoint is None:
        return build_method(settings).eval()
    return load_with_encoder(checkpoint, settings, "last", torch.device("cpu")).method


def _scores(method: Method, data: FewShotData, device: torch.device) -> Dice:
    task = data.task(_normalisation(data), "blind")
    return {
        (data.fold.support[0], str(each.scored.case.scan_id)): [score.dice for score in each.scores.values()]
        for each in evaluate(method, task, device)
    }


def _normalisation(data: FewShotData) -> Normalisation:
    return Normalisation.fit(data.spec, data.folder.statistics(data.folder.scan_ids))


def _train(data: FewShotData, settings: Settings, given: argparse.Namespace) -> Method:
    run = settings.run
    state = build_state(settings.values, run.seed, run.optim, run.ema, _normalisation(data), given.device)
    net, precision = state.method.train(), set_precision(given.precision, given.device)
    options = LoaderOptions(device=given.device)
    batches = data.loader(state.normalisation, run.seed, run.batch_size, range(run.n_steps), options)
    for batch in ProgressBar(batches, desc="training", total=run.n_steps):
        state.train_step(net, batch.to(given.device), precision)
    set_precision("float32", given.device)
    return state.method.eval()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add: Any = parser.add_argument
    add("--data", required=True, help="data root, or prepared folder")
    add("--dataset", default="CHAOST2", help="its name or description (default: CHAOST2)")
    add("--support", nargs="+", required=True, metavar="SCAN", help="annotated scans, one at a time")
    add("--query", nargs="+", required=True, metavar="SCAN", help="scans that are scored")
    add("--unlabelled", nargs="+", metavar="SCAN", help="scans to learn from without labels (default: all others)")
    add("--rounds", type=whole(1), default=2, help="networks trained one after the other (default: 2)")
    add("--out", type=Path, required=True, help="folder of the label maps")
    add("--checkpoint", type=Path, help="trained few-shot network whose encoder propagates")
    add("--device", default="auto", type=choose_device, help="auto, cpu or cuda (default: auto)")
    add("--precision", choices=("float32", "bf16"), default="float32", help="of the training (default: float32)")
    add("--verbose", action="store_true", help="also print the scores of each pair")
    add("--set", nargs="+", default=[], metavar="KEY=VALUE", help="further settings of the trainings")
    return parser


if __name__ == "__main__":
    run_main(main)
