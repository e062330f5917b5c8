"""Accuracy of the estimated remember rates, where the true ones are known: phantom skin images with simulated noise.

    python -m data.phantom isic2017 --out study/raw --scans 200 --size-px 96
    python -m data.prepare isic2017 --raw study/raw --out study/data --size-px 64
    python -m data.noise isic2017 --alpha 0.3 0.7 --beta 0.5 0.7 --data-dir study/data --size-px 64
    python -m benchmarks.noise_rate --data-dir study/data --seeds 1

Trains small networks on the noisy masks without excluding pixels, then compares the estimate of
`models.methods.rate_estimator` with alternatives: the share of labels that the networks predict, once the class weights
of the loss are divided out; confident learning (Northcutt et al., "Confident learning:
estimating uncertainty in dataset labels", JAIR 2021), and the weight of the likelier of two components fitted to the
pixels' predictions, Gaussians on the log-odds (Li et al., "DivideMix", ICLR 2020) or Beta distributions on the
probability (Arazo et al., "Unsupervised label noise modeling and loss correction", ICML 2019).
"""

import argparse
import dataclasses
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy.special import betaln, expit

from dataloaders.images.config import DenseConfig
from dataloaders.images.data import DenseData, open_dense
from dataloaders.images.folder import NoiseConfig
from dataloaders.images.labels import LabelStore
from dataloaders.ordering import LoaderOptions
from dataloaders.scans.normalise import Normalisation
from models import build_method
from models.losses.noise_rate import LIMIT, N_BINS
from models.methods.peers import Peers, SelectionConfig
from models.methods.rate_estimator import CHUNK, RateEstimator
from models.presets.noisy import SMALL
from util.cli import run_main
from util.runtime.seeding import seed_everything

NOISES = ((0.0, 0.5), (0.3, 0.5), (0.7, 0.7))
CENTRES = (np.arange(N_BINS) + 0.5) / N_BINS * 2 * LIMIT - LIMIT  # log-odds of the given label
ITERATIONS = 200  # of expectation maximisation


def train(name: str, data: DenseData, seed: int, n_rounds: int) -> tuple[Peers, LabelStore]:
    """Trains as `noisy_small` does, without the clean labels; the rates are estimated at the end, by the method."""
    seed_everything(seed)
    settings = {"method": name, "unet": SMALL["unet"], "selection": {"estimate_after": n_rounds}}
    method: Any = build_method(settings)
    blind = dataclasses.replace(data.labels, clean=None)
    method.train().before_training(blind)
    optimiser = torch.optim.Adam(method.parameters(), SMALL["optim"]["lr"])
    round_steps = SMALL["round_steps"]
    steps = range(n_rounds * round_steps)
    loader = data.loader(Normalisation(), seed, SMALL["batch_size"], steps, LoaderOptions())
    for step, batch in enumerate(loader, start=1):
        optimiser.zero_grad()
        method(batch)["loss"].backward()
        optimiser.step()
        if step % round_steps == 0:
            method.after_round(blind)
    return method, blind


def log_odds(method: Peers, labels: LabelStore) -> Float[np.ndarray, "2 bins"]:
    """Histogram per class of the log-odds of the given label, class weights divided out; of two classes."""
    estimator = RateEstimator(2, torch.device("cpu"))
    for _, batch in labels.chunks(CHUNK):
        estimator.add(method.mean_probability(batch.image, method.networks), batch.label)
    own = estimator.counts[:, 1].double()  # (2, bins)
    log_weight = (own[0].sum() / own[1].sum()).log().item()
    shifts = (-log_weight, log_weight)
    return np.stack([np.interp(CENTRES + s, CENTRES, each, 0, 0) for s, each in zip(shifts, own, strict=True)])


def agreement(histogram: Float[np.ndarray, "2 bins"]) -> list[float]:
    """Share of the pixels of each label that are predicted as it."""
    return (histogram[:, CENTRES > 0].sum(1) / histogram.sum(1)).tolist()


def confident_learning(histogram: Float[np.ndarray, "2 bins"]) -> list[float]:
    """Share of the confident joint on its diagonal; thresholds are the mean probabilities of the given labels."""
    probability = expit(CENTRES)
    threshold = (histogram * probability).sum(1) / histogram.sum(1)
    rates = []
    for value in range(2):
        own = histogram[value][probability >= threshold[value]].sum()
        other = histogram[value][1 - probability >= threshold[1 - value]].sum()
        rates.append(own / max(own + other, 1))
    return rates


def mixture(counts: Float[np.ndarray, " bins"], is_beta: bool) -> float:
    """Weight of the likelier of two components, by expectation maximisation on a histogram."""
    share, value = counts / counts.sum(), expit(CENTRES) if is_beta else CENTRES
    inside = value.clip(1e-4, 1 - 1e-4)
    likelier = np.where(CENTRES > 0, 0.9, 0.1)
    for _ in range(ITERATIONS):
        logs = []
        for member in (likelier, 1 - likelier):
            weight = (share * member).sum()
            mean = (share * member * value).sum() / weight
            spread = max((share * member * (value - mean) ** 2).sum() / weight, 1e-6)
            if is_beta:
                total = max(mean * (1 - mean) / spread - 1, 0.05)
                a, b = mean * total, (1 - mean) * total
                density = (a - 1) * np.log(inside) + (b - 1) * np.log1p(-inside) - betaln(a, b)
            else:
                density = -((value - mean) ** 2) / (2 * spread) - np.log(spread) / 2
            logs.append(np.log(weight + 1e-12) + density)
        likelier = expit((logs[0] - logs[1]).clip(-50, 50))
    return float((share * likelier).sum())


def compare(name: str, data: DenseData, seed: int, n_rounds: int) -> dict[str, list[float]]:
    """True and estimated rates, background first."""
    method, blind = train(name, data, seed, n_rounds)
    histogram = log_odds(method.eval(), blind)
    true = data.labels.clean_rates()
    return {
        "true": [1.0, 1.0] if true is None else true.tolist(),
        "break-even": method.remember_rates.tolist(),
        "agreement": agreement(histogram),
        "confident learning": confident_learning(histogram),
        "Gaussian mixture": [mixture(each, is_beta=False) for each in histogram],
        "Beta mixture": [mixture(each, is_beta=True) for each in histogram],
    }


def main() -> None:
    """Prints the table line by line as results come in."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.noise_rate", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--data-dir", required=True, help="data root with the prepared phantom images, see above")
    parser.add_argument("--methods", nargs="+", default=["coteaching", "jocor"], metavar="NAME")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--rounds", type=int, default=SelectionConfig().estimate_after, help="before the estimate")
    options = parser.parse_args()
    columns = "true | break-even | agreement | confident learning | Gaussian mixture | Beta mixture"
    print(f"| method | seed | noise | {columns} |\n|" + "---|" * 9)
    for seed in options.seeds:
        for name in options.methods:
            for alpha, beta in NOISES:
                config = DenseConfig(size_px=SMALL["size_px"], noise=NoiseConfig(alpha, beta))
                found = compare(name, open_dense(config, options.data_dir), seed, options.rounds)
                cells = [" / ".join(f"{rate:.3f}" for rate in rates) for rates in found.values()]
                noise = f"{alpha:g}, {beta:g}" if alpha else "none"
                print(f"| {name} | {seed} | {noise} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    run_main(main)
