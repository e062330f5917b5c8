"""Atlas registration: annotated scans are deformed onto the query, and their labels vote; nothing is trained."""

from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dataloaders.samples import EvalCase, SupportSet
from models.methods.whole_scans import Spacing, WholeScanMethod, require_scans, require_spacing
from models.networks.body import BodyConfig, find_body
from models.networks.image_registration import RegisteredScan, RegistrationSteps, register, warp
from models.networks.postprocessing import PostprocessConfig, follow_image
from util.schema import option


@dataclass(frozen=True)
class RegistrationConfig:
    """How scans are registered; usual values, not tuned."""

    body: BodyConfig = option(BodyConfig)
    registration: RegistrationSteps = option(RegistrationSteps)
    postprocess: PostprocessConfig = field(default_factory=lambda: PostprocessConfig(exclusive=True))


@dataclass(frozen=True)
class Atlas:
    """An annotated scan and one map per class, on the host."""

    scan: RegisteredScan
    maps: Float[np.ndarray, "K D H W"]


class Registration(WholeScanMethod):
    """The yardstick of few-shot segmentation without learning: the support is registered onto each query.

    The maps of several supports are averaged; with the rule of the most probable class this is a majority vote.

    Source: atlas-based segmentation, see Iglesias and Sabuncu, "Multi-atlas segmentation of biomedical images",
    Medical Image Analysis 2015.
    """

    Config = RegistrationConfig
    config: RegistrationConfig

    def __init__(self, config: RegistrationConfig) -> None:
        super().__init__()
        self.config = config

    def encode_support(self, support: SupportSet) -> tuple[Atlas, ...]:
        """The annotated scans on the host.

        Raises:
            ConfigError: the support has slices only, and no whole scans.
        """
        atlases = []
        for scan in require_scans(support):
            label = scan.label.cpu().numpy()
            maps = np.stack([label == value for value in support.classes]).astype(np.float32)
            atlases.append(Atlas(self._read(scan.image, scan.spacing_mm), maps))
        return tuple(atlases)

    def probabilities(self, case: EvalCase, support: tuple[Atlas, ...]) -> Float[Tensor, "K D H W"]:
        """Mean over the supports of their deformed masks; with the background they sum to 1.

        Raises:
            ConfigError: the spacing of the scan is unknown.
        """
        spacing_mm = require_spacing(case.spacing_mm)
        query = self._read(case.image, spacing_mm)
        warped = []
        for atlas in support:
            transform = register(query, atlas.scan, self.config.registration)
            warped.append(warp(atlas.maps, query, atlas.scan, transform))
        maps = torch.from_numpy(np.mean(warped, 0)).to(case.image).clamp(0, 1)
        maps = follow_image(case.image, maps.transpose(0, 1), spacing_mm, self.config.postprocess).transpose(0, 1)
        return maps / maps.sum(0).clamp_min(1)

    def _read(self, image: Float[Tensor, "D 1 H W"], spacing_mm: Spacing) -> RegisteredScan:
        return RegisteredScan(image[:, 0].cpu().numpy(), find_body(image, self.config.body), spacing_mm)
