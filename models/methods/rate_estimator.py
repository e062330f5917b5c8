"""Measures how far networks agree with the labels of all training images, to estimate the share of correct ones."""

import logging
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dataloaders.images.labels import LabelStore
from models.losses.noise_rate import LOWEST_RATE, N_BINS, break_even_rates, count_log_odds

logger = logging.getLogger(__name__)

CHUNK = 64  # images read together

Predict = Callable[[Float[Tensor, "B C H W"]], Float[Tensor, "B K H W"]]


class RateEstimator:
    """Histograms of the networks' predictions; they stay on the device, and memory does not grow with the data.

    They exist only while all training images are predicted once, at the end of a round. No state is kept between
    steps, so that a resumed run estimates the same rates.
    """

    def __init__(self, n_classes: int, device: torch.device) -> None:
        self.counts = torch.zeros(n_classes, 2, N_BINS, dtype=torch.int64, device=device)

    def add(self, probability: Float[Tensor, "B K H W"], label: Int[Tensor, "B H W"]) -> None:
        """Counts some images: predicted probabilities and given labels."""
        self.counts += count_log_odds(probability, label)

    def estimate(self) -> Float[Tensor, " K"]:
        """Share of correct labels per class, at least `LOWEST_RATE`, double precision; logs where the bound applied."""
        rates = break_even_rates(self.counts)
        for value in (rates < LOWEST_RATE).nonzero().flatten().tolist():
            logger.warning(
                "class %d: the networks agree with %.1f %% of its labels, too few to tell wrong labels from errors of "
                "the networks; remember rate set to %g. Estimate later (selection.estimate_after), or give "
                "selection.remember.",
                *(value, 100 * float(rates[value]), LOWEST_RATE),
            )
        return rates.clamp(min=LOWEST_RATE)


def estimate_remember_rates(
    predict: Predict, labels: LabelStore, n_classes: int, device: torch.device
) -> Float[Tensor, " K"]:
    """Estimates the share of correct labels per class from one prediction of all training images.

    Args:
        predict: class probabilities of a batch on the device.
        labels: images and labels as trained on; clean labels are not read.
        n_classes: K, with the background.
        device: of the networks.

    Returns:
        Rates from `LOWEST_RATE` to 1, double precision.
    """
    estimator = RateEstimator(n_classes, device)
    for _, batch in labels.chunks(CHUNK):
        batch = batch.to(device)
        estimator.add(predict(batch.image), batch.label)
    return estimator.estimate()
