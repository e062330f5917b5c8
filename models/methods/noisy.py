"""Learning from noisy labels with peers: co-teaching, JoCoR, tri-network, superpixel-guided selection and refinement.

Several networks of one architecture are trained on the same images. In each batch, only the pixels with a small score
(the loss of a peer or of all, or their disagreement) are used, as their labels are probably correct.
"""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from dataloaders.images.labels import LabelStore
from dataloaders.samples import DenseBatch
from models.losses.reduction import weighted_mean
from models.losses.refinement import correction_ratio, refine_labels, update_remember_rates
from models.losses.selection import ce_map, jocor_score, small_loss_selection, smoothed_log_probability
from models.losses.superpixels import superpixel_mean
from models.methods.peers import Ids, Logits, Peers, PeersConfig, Rates, kept_shares, log_probability
from util.errors import ConfigError
from util.schema import check_bounds, option


@dataclass(frozen=True)
class RefineConfig:
    """When and how labels are refined. Source: superpixel-guided learning, released code (ISIC)."""

    style: Literal["mean", "pixel"] = "mean"  # mean: whole superpixels; pixel: each pixel on its own
    # factor on the share of labels to refine, 1 - remember rate (reference: 0.5 for the clavicle)
    decay: float = option(1.0, ge=0, le=1)
    confidence: float = option(0.0, ge=0, le=1)  # a label changes only to a class more probable than this
    patience: int = option(5, ge=1)  # rounds without a wider loss gap before labels are refined
    # Upper bounds of the remember rates after refinement (reference: 0.99 and 0.83 for JSRT); 1: no bound. thr_bg=None:
    # that of the foreground, which the reference takes for 1 too.
    thr_bg: float | None = option(0.95, ge=0, le=1)
    thr_fg: float = option(0.9, ge=0, le=1)
    factor: float = option(1.1, ge=1)  # on the remember rates at each refinement
    max_refinements: int = option(1, ge=0)
    chunk: int = option(200, ge=1)  # images ranked together

    def __post_init__(self) -> None:
        check_bounds(self, "refine.")


@dataclass(frozen=True)
class JoCoRConfig(PeersConfig):
    """Hyper-parameters of JoCoR."""

    # weight of the networks' agreement against the labels' cross-entropy
    jocor_lambda: float = option(0.65, ge=0, le=1)


@dataclass(frozen=True)
class SuperpixelGuidedConfig(JoCoRConfig):
    """Hyper-parameters of superpixel-guided learning."""

    refine: RefineConfig = field(default_factory=RefineConfig)


class CoTeaching(Peers):
    """Each network learns from the pixels for which the other has a small loss.

    Source: Han et al., "Co-teaching: robust training of deep neural networks with extremely noisy labels", NeurIPS
    2018; per pixel and class as in the released code of superpixel-guided learning.
    """

    name_in_tables = "Co-teaching"

    def objective(self, logits: Logits, label: Ids, superpixel: Ids | None, forget: Rates) -> dict[str, Tensor]:
        """Sum of both networks' cross-entropy, each over the pixels selected by the other."""
        first, second = (ce_map(log_probability(x), label) for x in logits)
        kept_by_first, kept_by_second = (small_loss_selection(x.detach(), label, forget) for x in (first, second))
        loss = weighted_mean(first, label, kept_by_second, self.n_classes)
        loss = loss + weighted_mean(second, label, kept_by_first, self.n_classes)
        return {"loss": loss, "ce": first.detach().mean(), **kept_shares(kept_by_first, label)}


class TriNet(Peers):
    """Each of three networks learns from the pixels on which the other two disagree least.

    Source: the tri-network that superpixel-guided learning compares with, in its released code.
    """

    name_in_tables = "Tri-network"
    n_networks = 3

    def objective(self, logits: Logits, label: Ids, superpixel: Ids | None, forget: Rates) -> dict[str, Tensor]:
        """Sum of the networks' cross-entropy, each over the pixels for which the other two have a similar loss."""
        one, two, three = losses = [ce_map(log_probability(x), label) for x in logits]
        pairs = ((two, three), (one, three), (one, two))
        kept = [small_loss_selection((a - b).detach().abs(), label, forget) for a, b in pairs]
        parts = [weighted_mean(x, label, k, self.n_classes) for x, k in zip(losses, kept, strict=True)]
        return {"loss": torch.stack(parts).sum(), "ce": one.detach().mean(), **kept_shares(kept[0], label)}


class JoCoR(Peers):
    """Two networks with one joint loss, which also rewards their agreement, and one selection of pixels.

    Source: Wei et al., "Combating noisy labels by agreement", CVPR 2020.
    """

    name_in_tables = "JoCoR"
    Config = JoCoRConfig
    config: JoCoRConfig

    def objective(self, logits: Logits, label: Ids, superpixel: Ids | None, forget: Rates) -> dict[str, Tensor]:
        """The joint loss of the pixels for which it is small."""
        return joint_objective(logits, label, None, forget, self.config.jocor_lambda)


class SuperpixelGuided(Peers):
    """JoCoR with selection by superpixel, and with refinement of improbable labels once the selection is stable.

    Source: Li et al., "Superpixel-guided iterative learning from noisy labels for medical image segmentation", MICCAI
    2021, released code (its configurations `spemj`).

    Note: labels can be refined more than once (`max_refinements`); the wait for `patience` rounds then starts again.
    """

    name_in_tables = "Superpixel-guided"
    Config = SuperpixelGuidedConfig
    config: SuperpixelGuidedConfig
    needs = frozenset({"superpixels"})
    n_refinements: Int[Tensor, ""]

    def __init__(self, config: SuperpixelGuidedConfig) -> None:
        super().__init__(config)
        self.monitor = GapMonitor()
        self.register_buffer("n_refinements", torch.tensor(0))

    def forward(self, batch: DenseBatch) -> dict[str, Tensor]:
        """As in `Peers`; in training mode the gap is recorded until the round ends."""
        terms = super().forward(batch)
        if self.training:
            self.monitor.add(terms["gap"])
        return terms

    def forget_rates(self) -> Float[Tensor, " K"]:
        """Share of each class's pixels to exclude in the current round; no warm-up after a refinement."""
        return torch.where(self.n_refinements > 0, 1 - self.remember_rates, super().forget_rates())

    def objective(self, logits: Logits, label: Ids, superpixel: Ids | None, forget: Rates) -> dict[str, Tensor]:
        """The joint loss of the pixels whose superpixel has a small one, from its mean probabilities."""
        by_pixel = self.config.selection.level == "pixel"
        chosen_by = None if by_pixel else _required(superpixel)
        return joint_objective(logits, label, chosen_by, forget, self.config.jocor_lambda)

    def after_round(self, labels: LabelStore | None) -> dict[str, float]:
        """Ends the round; refines the labels if the gap has not widened for `patience` rounds."""
        awaited_rates = self.awaits_rates(labels)
        logged = super().after_round(labels) | {"round_gap": self.monitor.close_round()}
        if awaited_rates:  # no pixels are excluded yet, hence there is no gap
            self.monitor.reset()
        refine, is_stalled = self.config.refine, self.monitor.n_stalled >= self.config.refine.patience
        if labels is not None and is_stalled and self.n_refinements < refine.max_refinements:
            logged |= self.refine(labels)
        return logged | {"n_refinements": float(self.n_refinements)}

    def refine(self, labels: LabelStore) -> dict[str, float]:
        """Refines the labels of all training images and raises the remember rates.

        Returns:
            labels_changed, the share of pixels; labels_right_before and labels_right_after, if clean labels are known.
        """
        refine, refined = self.config.refine, self.refined(labels)
        before, n_changed = labels.accuracy(), np.count_nonzero(refined != labels.label)
        labels.replace(refined)
        ceiling = torch.full_like(self.remember_rates, refine.thr_fg)
        ceiling[0] = refine.thr_fg if refine.thr_bg is None else refine.thr_bg
        self.remember_rates.copy_(update_remember_rates(self.remember_rates, ceiling, refine.factor))
        self.n_refinements.add_(1)
        self.monitor.reset()
        right = {"labels_right_before": before, "labels_right_after": labels.accuracy()}
        known = {name: share for name, share in right.items() if share is not None}
        return {"labels_changed": n_changed / refined.size, **known}

    def refined(self, labels: LabelStore) -> np.ndarray:
        """The labels (N, H, W) uint8 proposed by the mean of both networks; the current ones are not changed."""
        refine, was_training, device = self.config.refine, self.training, self.remember_rates.device
        ratio = correction_ratio(self.remember_rates, refine.decay)
        refined = np.empty(labels.label.shape, np.uint8)
        self.eval()
        for where, batch in labels.chunks(refine.chunk):
            batch = batch.to(device)
            probability = self.mean_probability(batch.image, self.networks)
            if refine.style == "mean":
                probability = superpixel_mean(probability, _required(batch.superpixel))
            refined[where] = refine_labels(probability, batch.label, ratio, refine.confidence).cpu().numpy()
        self.train(was_training)
        return refined


class GapMonitor(nn.Module):
    """Counts the rounds in which the gap between the losses of excluded and kept pixels has not widened.

    The gap widens while the networks learn from correct labels; once it does not, the labels are refined.

    Source: superpixel-guided learning, released code.
    """

    total: Float[Tensor, ""]
    count: Int[Tensor, ""]
    best: Float[Tensor, ""]
    n_stalled: Int[Tensor, ""]

    def __init__(self) -> None:
        super().__init__()
        for name, start in (("total", 0.0), ("count", 0), ("best", 0.0), ("n_stalled", 0)):
            self.register_buffer(name, torch.tensor(start))

    def add(self, gap: Float[Tensor, ""]) -> None:
        """Adds a batch to the current round."""
        self.total.add_(gap)
        self.count.add_(1)

    def close_round(self) -> float:
        """Ends a round; returns its mean gap over the batches (of several processes: the first one's)."""
        gap = self.total / self.count.clamp(min=1)
        has_widened = gap > self.best
        self.n_stalled.copy_(torch.where(has_widened, 0, self.n_stalled + 1))
        self.best.copy_(torch.where(has_widened, gap, self.best))
        self.total.zero_()
        self.count.zero_()
        return float(gap)

    def reset(self) -> None:
        """Clears the widest gap and the count of rounds, after the labels have changed."""
        self.best.zero_()
        self.n_stalled.zero_()


def joint_objective(
    logits: Logits, label: Ids, superpixel: Ids | None, forget: Rates, weight: float
) -> dict[str, Tensor]:
    """Joint loss of two networks over the pixels for which it is small, see `jocor_score`.

    Args:
        logits: of both networks.
        label: 0 to K - 1.
        superpixel: pixels are selected by the joint loss of their superpixel's mean probabilities; None: by their own.
        forget: share of each class's pixels to exclude.
        weight: of the agreement.
    """
    n_classes = len(forget)
    first, second = (log_probability(x) for x in logits)
    score = jocor_score(first, second, label, weight)
    ranking = score.detach()
    if superpixel is not None:
        smooth_first, smooth_second = (smoothed_log_probability(x, superpixel) for x in (first, second))
        ranking = jocor_score(smooth_first, smooth_second, label, weight)
    is_kept = small_loss_selection(ranking, label, forget)
    loss = weighted_mean(score, label, is_kept, n_classes)
    gap = weighted_mean(score.detach(), label, ~is_kept, n_classes) - loss.detach()
    ce = ce_map(first.detach(), label).mean()
    return {"loss": loss, "gap": gap, "ce": ce, **kept_shares(is_kept, label)}


def _required(superpixel: Ids | None) -> Ids:
    if superpixel is None:
        raise ConfigError(
            "method='spguided': the images have no superpixels. Make them with `frugalseg superpixels DATASET`, "
            "or select by pixel with selection.level=pixel and refine.style=pixel."
        )
    return superpixel
