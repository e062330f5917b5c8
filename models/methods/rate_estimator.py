"""Measures how far networks agree with the labels of all training images, to estimate the share of correct ones."""

import logging
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dataloaders.images.labels import LabelStore
from models.losses.noise_rate import LOWEST_RATE, count_agreement, estimate_rates
from models.losses.reduction import weights_from_counts

logger = logging.getLogger(__name__)

CHUNK = 64  # images read together

Predict = Callable[[Float[Tensor, "B C H W"]], Float[Tensor, "B K H W"]]


class RateEstimator:
    """Running counts of agreement; they stay on the device, and memory does not grow with the data.

    The counts live only while all images are predicted once, at the end of a round. No state is kept between steps, so
    that a resumed run estimates the same rates.
    """

    def __init__(self, n_pixels: Int[Tensor, " K"]) -> None:
        """Takes the number of training pixels per class, background first; its device is that of the counts."""
        self.weights = weights_from_counts(n_pixels)
        self.counts = torch.zeros(len(n_pixels), 2, dtype=torch.int64, device=n_pixels.device)

    def add(self, probability: Float[Tensor, "B K H W"], label: Int[Tensor, "B H W"]) -> None:
        """Counts some images: probabilities of networks trained with class weights, and the given labels."""
        self.counts += count_agreement(probability, label, self.weights)

    def estimate(self) -> Float[Tensor, " K"]:
        """Share of correct labels per class in [0.5, 1], double precision; logs where the bound applied."""
        rates, too_low = estimate_rates(self.counts)
        for value in too_low:
            share = float(self.counts[value, 0] / self.counts[value, 1])
            logger.warning(
                "class %d: the networks agree with %.1f %% of its labels, too few to tell wrong labels from errors of "
                "the networks; remember rate set to %g. Estimate later (selection.estimate_after), or give "
                "selection.remember.",
                *(value, 100 * share, LOWEST_RATE),
            )
        return rates


def estimate_remember_rates(
    predict: Predict, labels: LabelStore, n_classes: int, device: torch.device
) -> Float[Tensor, " K"]:
    """Estimates the share of correct labels per class from one prediction of all training images.

    Args:
        predict: class probabilities of a batch on the device, from networks trained with class weights.
        labels: images and labels as trained on; clean labels are not read.
        n_classes: K, with the background.
        device: of the networks.

    Returns:
        Rates in [0.5, 1], double precision, on the device.
    """
    estimator = RateEstimator(labels.count_pixels(n_classes).to(device))
    for _, batch in labels.chunks(CHUNK):
        batch = batch.to(device)
        estimator.add(predict(batch.image), batch.label)
    return estimator.estimate()
