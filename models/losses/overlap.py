"""Overlap losses of whole images, averaged over the foreground classes."""

from monai.losses.dice import DiceLoss
from torch import Tensor

from models.losses.base import SegmentationLoss, one_hot
from models.losses.noise_robust import cross_entropy


class Dice(SegmentationLoss):
    """One minus soft Dice of each image and foreground class; optionally plus the mean cross-entropy.

    Source: nnU-Net (Dice + CE, equal weights); MONAI's `DiceLoss`.
    """

    def __init__(self, with_cross_entropy: bool, n_classes: int) -> None:
        super().__init__(n_classes)
        self.with_cross_entropy = with_cross_entropy
        self.dice = DiceLoss(include_background=False, to_onehot_y=True, softmax=True)

    def loss(self, logits: Tensor, label: Tensor) -> Tensor:
        """Mean over images, classes, and pixels."""
        dice = self.dice(logits, label[:, None])
        return dice + cross_entropy(logits, label).mean() if self.with_cross_entropy else dice


class NoiseRobustDice(SegmentationLoss):
    """sum |p - y|^gamma / sum (p^2 + y^2) over the batch, per foreground class: between MAE (1) and Dice (2).

    Source: Wang et al., "A noise-robust framework for automatic segmentation of COVID-19 pneumonia lesions from CT
    images", IEEE TMI 2020, equation 2; gamma 1.5 and sums over the batch as there.
    """

    def __init__(self, gamma: float, n_classes: int) -> None:
        super().__init__(n_classes)
        self.gamma = gamma

    def loss(self, logits: Tensor, label: Tensor) -> Tensor:
        """Mean over the foreground classes."""
        p, y = logits.softmax(1)[:, 1:], one_hot(label, self.n_classes)[:, 1:].to(logits.dtype)
        over_batch = (0, 2, 3)
        error = ((p - y).abs() ** self.gamma).sum(over_batch)
        return (error / ((p.square() + y).sum(over_batch) + 1e-5)).mean()
