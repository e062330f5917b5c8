"""The adaptive local prototype head: which prototypes each class uses, and the scores they give a query."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from models.networks.prototypes import Prototypes, cosine_scores, extract


@dataclass(frozen=True)
class ALPHead:
    """Turns support features and masks into background and foreground prototypes, and those into scores.

    Attributes:
        is_local: False gives PANet's head: one masked average per class.
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
    ) -> tuple[Prototypes, Prototypes, Bool[Tensor, " B"]]:
        """Background and foreground prototypes of each episode.

        The background uses its cells alone. The foreground uses cells and global average if one cell of `rule_window`
        (the training window, also at test time) is covered to the threshold, else the global average alone.

        Returns:
            (background, foreground, is_fallback): the last marks the episodes whose background covers no cell, for
            which its masked average stands in (the reference stops with an error there).
        """
        local = torch.full((len(features),), self.is_local, device=features.device)
        background = 1 - foreground
        is_large = F.avg_pool2d(foreground, rule_window).flatten(1).amax(1) >= self.threshold
        bg = extract(features, background, window, self.threshold, local, with_global=False)
        fg = extract(features, foreground, window, self.threshold, local & is_large, with_global=True)
        return bg, fg, local & bg.is_valid[:, -1]

    def scores(
        self, query: Float[Tensor, "*#B C h w"], background: Prototypes, foreground: Prototypes
    ) -> Float[Tensor, "... 2 h w"]:
        """Background and foreground scores on the feature grid (logits before upsampling)."""
        pair = [cosine_scores(query, prototypes, self.temperature) for prototypes in (background, foreground)]
        return torch.stack(pair, -3)
