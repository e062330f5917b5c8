"""The adaptive local prototype head: prototypes of each class, and the scores of a query."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from models.networks.prototypes import Prototypes, cosine_scores, extract


@dataclass(frozen=True)
class ALPHead:
    """Computes background and foreground prototypes from support features and masks, and scores from prototypes.

    Attributes:
        is_local: False: the head of PANet, one masked average per class.
        threshold: coverage above which a cell of the support mask becomes a prototype.
        temperature: factor on the cosine.

    Source: SSL-ALPNet, section 3.3; thresholds and temperature as in the released code.
    """

    is_local: bool = True
    threshold: float = 0.95
    temperature: float = 20.0

    def prototypes(
        self,
        features: Float[Tensor, "B S C h w"],
        foreground: Float[Tensor, "B S h w"],
        window: int,
        rule_window: int,
    ) -> tuple[Prototypes, Bool[Tensor, " B"]]:
        """Prototypes of background (class 0) and foreground (class 1) of each episode.

        The background uses its cells alone. The foreground uses cells and global average if one cell of `rule_window`
        (the training window, also in prediction) is covered to the threshold, else the global average alone.

        Returns:
            (prototypes, is_fallback): the latter marks episodes whose background covers no cell; its masked average is
            used instead (the reference stops with an error).
        """
        is_large = F.avg_pool2d(foreground, rule_window).flatten(1).amax(1) >= self.threshold
        use_local = torch.stack([torch.ones_like(is_large), is_large], 1) & self.is_local
        is_foreground = torch.arange(2, device=features.device) > 0
        masks = torch.stack([1 - foreground, foreground], 1)
        found = extract(features, masks, window, self.threshold, use_local, with_global=is_foreground)
        return found, found.is_valid[:, 0, -2] & self.is_local  # the mean of the background's averages

    def scores(self, query: Float[Tensor, "B Q C h w"], prototypes: Prototypes) -> Float[Tensor, "B Q *G M h w"]:
        """Scores of each class on the feature grid (logits before upsampling)."""
        return cosine_scores(query, prototypes, self.temperature)
