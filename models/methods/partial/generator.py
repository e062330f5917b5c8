"""Learning from annotated images alone: the first stage of PSSNet, single-task experts, and missing as background."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from dataloaders.samples import JointBatch
from models.methods.partial.base import LABELLED, PartialMethod
from models.methods.partial.routing import rows_by_task


class PartialGenerator(PartialMethod):
    """Each head learns from the images that are annotated for its task; its predictions become pseudo-labels.

    Source: PSSNet (Pattern Recognition 2024), first stage, released code.
    """

    @classmethod
    def title(cls, settings: Mapping[str, Any]) -> str:
        """What is compared: one network per task, missing annotations as background, or one head per task."""
        if len(settings["heads"]) == len(settings["sources"]) == 1:
            return "Single-task expert"
        return "Missing as background" if settings["missing"] == "background" else "Stage 1"

    def forward(self, batch: JointBatch) -> dict[str, Tensor]:
        """The objective of a step.

        Returns:
            loss; dice_<task>, the loss of the main head of each task on its own images.
        """
        labelled = self.part(batch, LABELLED)
        rows = rows_by_task(labelled.tasks, len(self.sizes))
        return self.supervised(self.network(labelled.image, rows), labelled, rows)
