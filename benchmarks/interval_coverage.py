"""How often 95 % intervals of a mean cover the true mean, by simulation, for few patients and skewed scores.

    python -m benchmarks.interval_coverage                  # the table of docs/metrics.md, a few minutes
    python -m benchmarks.interval_coverage --samples 200    # a quick look

Each cell is the percentage of samples whose interval covers the true mean. "t" is the interval of the tables
(`util.results.intervals`), "percentile" the percentile bootstrap that it replaced.
"""

import argparse
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from util.cli import run_main
from util.results.intervals import mean_interval
from util.results.tables import markdown_header, markdown_row

logger = logging.getLogger(__name__)

SIZES = (2, 3, 4, 6, 8, 12, 20, 50)  # patients
N_RESAMPLES = 1000  # of the bootstrap


@dataclass(frozen=True)
class Population:
    """Scores to sample from: `draw(generator, shape)`, their true mean, and their largest possible value."""

    draw: Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]
    mean: float
    highest: float = 1.0


def _beta(a: float, b: float) -> Population:
    return Population(lambda generator, shape: generator.beta(a, b, shape), a / (a + b))


def _with_misses(share: float) -> Population:
    """An organ that is found with a Dice of about 0.9, or missed altogether."""
    return Population(
        lambda generator, shape: generator.beta(18, 2, shape) * (generator.random(shape) >= share), 0.9 * (1 - share)
    )


def _log_normal(sigma: float) -> Population:
    """Distances in mm with a median of 5."""
    return Population(
        lambda generator, shape: 5 * generator.lognormal(0, sigma, shape), 5 * math.exp(sigma**2 / 2), math.inf
    )


POPULATIONS = {
    "Dice 0.80 ± 0.04, symmetric": _beta(80, 20),
    "Dice 0.80 ± 0.10": _beta(12, 3),
    "Dice 0.90 ± 0.09, skewed": _beta(9, 1),
    "Dice 0.50 ± 0.22": _beta(2, 2),
    "Dice 0.83 ± 0.22, most near 1": _beta(1.5, 0.3),
    "Dice 0.9, 20 % missed": _with_misses(0.2),
    "Dice 0.9, 5 % missed": _with_misses(0.05),
    "HD95, log-normal, sigma 0.5": _log_normal(0.5),
    "HD95, log-normal, sigma 1": _log_normal(1.0),
}


def percentile_interval(values: np.ndarray, generator: np.random.Generator) -> tuple[float, float]:
    """The percentile bootstrap of a mean. Source: Efron & Tibshirani (1993), chapter 13."""
    means = generator.choice(values, (N_RESAMPLES, len(values))).mean(1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


def coverage(
    population: Population, n: int, n_samples: int, generator: np.random.Generator, with_bootstrap: bool = True
) -> tuple[float, float]:
    """Percentage of samples of `n` patients whose interval covers the true mean: Student's, percentile bootstrap.

    A sample without any spread has no interval by Student's rule, and counts as not covered.
    """
    hits = np.zeros(2)
    for values in population.draw(generator, (n_samples, n)):
        intervals = [mean_interval(values, np.arange(n), highest=population.highest)[:2]]
        intervals += [percentile_interval(values, generator)] if with_bootstrap else []
        hits[: len(intervals)] += [low <= population.mean <= high for low, high in intervals]
    student, percentile = 100 * hits / n_samples
    return float(student), float(percentile)


def main() -> None:
    """Parses the command line and prints the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.interval_coverage", description="Measures how often intervals cover the true mean."
    )
    parser.add_argument("--samples", type=int, default=4000, help="per cell")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    generator = np.random.default_rng(options.seed)
    lines = [markdown_header(["Scores", "Interval", *(f"n = {n}" for n in SIZES)], 2)]
    for name, population in POPULATIONS.items():
        found = [coverage(population, n, options.samples, generator) for n in SIZES]
        for interval, cells in zip(("t", "percentile"), zip(*found, strict=True), strict=True):
            lines.append(markdown_row([name, interval, *(f"{cell:.1f}" for cell in cells)]))
    logger.info("\n".join(lines))


if __name__ == "__main__":
    run_main(main)
