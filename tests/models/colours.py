"""A method of several tasks that knows the colours of what `tests.partial_sets` draws; nothing is learned."""

from dataclasses import asdict, dataclass

import torch
from torch import nn

from dataloaders.partial.config import FUNDUS_MEAN, FUNDUS_SD
from dataloaders.samples import JointBatch, Task
from models.methods.base import Method
from util.schema import option

COLOURS = {
    "background": (0.5, 0.3, 0.2), "disc": (0.75, 0.6, 0.35), "cup": (0.95, 0.9, 0.7), "line": (0.35, 0.1, 0.1),
    "bright": (0.9, 0.9, 0.2), "dark": (0.2, 0.05, 0.05),
}  # fmt: skip


@dataclass(frozen=True)
class ColoursConfig:
    """The tasks and the data sets, which follow from the data."""

    heads: tuple[Task, ...] = option((), "architecture")
    sources: tuple[str, ...] = option((), "architecture")


class Colours(Method):
    """Probability of each class by the distance of its colour; a pixel of the cup is one of the disc, too."""

    Config = ColoursConfig
    family = "partial"
    batch_type = None

    def __init__(self, config):
        super().__init__()
        self.names = [name for task in config.heads for name in task.classes]
        self.sharpness = nn.Parameter(torch.tensor(40.0))

    @classmethod
    def title(cls, settings):
        return "Expert" if len(settings["heads"]) == 1 else "Colours"

    @classmethod
    def derived(cls, facts):
        if facts is None:
            return {}
        heads = [asdict(task) | {"classes": list(task.classes)} for task in facts.tasks]
        return {"heads": heads, "sources": list(facts.sources)}

    def forward(self, batch):
        return {"loss": self.sharpness}

    def probabilities(self, case, support=None):
        assert not self.training
        mean, sd = (torch.tensor(each)[:, None, None] for each in (FUNDUS_MEAN, FUNDUS_SD))
        image = (case.image * sd + mean) / 255
        distance = torch.stack([((image - torch.tensor(c)[:, None, None]) ** 2).sum(1) for c in COLOURS.values()])
        share = dict(zip(COLOURS, torch.softmax(-self.sharpness * distance, 0), strict=True))
        share["disc"] = share["disc"] + share["cup"]
        found = torch.stack([share[name] for name in self.names]).clamp(0, 1)
        return found[[value - 1 for value in case.classes]]


class TrainedColours(Colours):
    """The same with weights that a checkpoint holds."""

    batch_type = JointBatch
