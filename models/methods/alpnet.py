"""SSL-ALPNet (ECCV 2020): few-shot segmentation with adaptive local prototypes; PANet as its global variant."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from dataloaders.samples import Episode, EvalCase, SupportSet
from models.methods.base import Method
from models.networks.alp import ALPHead
from models.networks.backbones import OUTPUT_STRIDE, build_encoder
from models.networks.passes import run_in_chunks
from models.networks.postprocessing import PostprocessConfig, follow_image, postprocess_masks
from models.networks.prototypes import MAX_TEMPERATURE, Prototypes
from util.errors import ConfigError
from util.schema import check_bounds, option


@dataclass(frozen=True)
class ALPNetConfig:
    """Hyper-parameters; names as in the reference where the meaning is the same."""

    modelname: str = option("dlfcn_res101", "architecture")  # encoder, see models.networks.backbones.build_encoder
    encoder_weights: str = "coco"  # coco, imagenet, none (random), or a file (reference: use_coco_init)
    prototypes: Literal["local", "global"] = option("local", "architecture")  # global: PANet's one per class
    proto_grid_size: int = option(8, "architecture", ge=1)  # cells per side of the feature grid in training
    val_wsize: int = option(2, "practical", ge=1)  # side of a cell in prediction, in features
    use_wce: bool = True  # weighted cross-entropy on the query: `background_weight`, foreground 1; False: both 1
    background_weight: float = option(0.05, gt=0)  # of `use_wce` (released code)
    usealign: bool = True  # prototype alignment regularisation
    align_weight: float = option(1.0, ge=0)  # of the alignment loss (paper: 1)
    temperature: float = 20.0  # factor on the cosine (as in PANet)
    # coverage above which a cell of the support mask becomes a prototype
    coverage_threshold: float = option(0.95, ge=0, lt=1)
    freeze_batch_norm: bool = False  # True: running statistics also in training
    slices_per_pass: int = option(16, "practical", ge=1)  # slices encoded together in prediction
    postprocess: PostprocessConfig = option(PostprocessConfig, "practical")  # of predictions; not published, hence off

    def __post_init__(self) -> None:
        check_bounds(self)
        if not 0 < self.temperature <= MAX_TEMPERATURE:
            raise ConfigError(f"temperature={self.temperature}: expected a value above 0, up to {MAX_TEMPERATURE:g}.")


class ALPNet(Method):
    """Few-shot segmentation with adaptive local prototypes.

    Source: Ouyang et al., "Self-supervision with superpixels: training few-shot medical image segmentation without
    annotation", ECCV 2020; alignment: Wang et al., "PANet", ICCV 2019.

    Note: all B episodes are encoded together. In training its batch norm therefore sees 2B images; with running
    statistics (`freeze_batch_norm`) the loss of B episodes is the mean of their single losses.
    """

    Config = ALPNetConfig
    family = "fewshot"
    batch_type = Episode

    def __init__(self, config: ALPNetConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = build_encoder(config.modelname, config.encoder_weights)
        self.head = ALPHead(config.prototypes == "local", config.coverage_threshold, config.temperature)

    @classmethod
    def title(cls, settings: Mapping[str, Any]) -> str:
        """SSL-ALPNet or SSL-PANet; without "SSL" if trained on annotations."""
        name = "ALPNet" if settings["prototypes"] == "local" else "PANet"
        return f"SSL-{name}" if settings["train_on"] == "superpixels" else name

    def train(self, mode: bool = True) -> "ALPNet":
        """Training mode; with `freeze_batch_norm` the batch norm stays in evaluation mode."""
        super().train(mode)
        if mode and self.config.freeze_batch_norm:
            for module in self.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    def forward(self, batch: Episode) -> dict[str, Tensor]:
        """Query cross-entropy plus alignment loss, averaged over the episodes.

        Returns:
            loss, query_ce, align (scalars) and background_fallbacks, the share of prototype extractions without a
            qualified background cell.
        """
        support, query = self.encode(batch.support_image, batch.query_image)
        with torch.autocast(query.device.type, enabled=False):
            losses = self.losses(support.float(), query.float(), batch.support_mask, batch.query_mask)
        total = losses["query_ce"] + self.config.align_weight * losses["align"]
        return {"loss": total, **{name: value.detach() for name, value in losses.items()}}

    def encode(
        self, support: Float[Tensor, "B S 1 H W"], query: Float[Tensor, "B Q 1 H W"]
    ) -> tuple[Float[Tensor, "B S C h w"], Float[Tensor, "B Q C h w"]]:
        """Features of all images, encoded together."""
        n_shots = support.shape[1]
        images = torch.cat([support, query], 1)
        features = self.encoder(images.flatten(0, 1)).unflatten(0, images.shape[:2])
        return features[:, :n_shots], features[:, n_shots:]

    def losses(
        self,
        support: Float[Tensor, "B S C h w"],
        query: Float[Tensor, "B Q C h w"],
        support_mask: Bool[Tensor, "B S H W"],
        query_mask: Bool[Tensor, "B Q H W"],
    ) -> dict[str, Tensor]:
        """The two terms of the objective from features: `query_ce`, `align`, and the share of fallbacks.

        Source: SSL-ALPNet, equations 6 to 8.
        """
        window = self._training_window(support.shape[-1])
        soft_mask = shrink(support_mask, support.shape[-2:])
        prototypes, fallback = self.head.prototypes(support, soft_mask, window, window)
        scores = self.head.scores(query, prototypes)  # (B, Q, 2, h, w)
        weight = self.config.background_weight if self.config.use_wce else 1.0
        losses = {"query_ce": binary_cross_entropy(scores, query_mask, weight)}
        if self.config.usealign:
            predicted = (scores[:, :, 1] > scores[:, :, 0]).to(query)  # (B, Q, h, w), no gradient
            prototypes, lost = self.head.prototypes(query, predicted, window, window)
            losses["align"] = binary_cross_entropy(self.head.scores(support, prototypes), support_mask, 1.0)
            fallback = torch.cat([fallback, lost])
        else:
            losses["align"] = losses["query_ce"].new_zeros(())
        return losses | {"background_fallbacks": fallback.float().mean()}

    def _training_window(self, feature_columns: int) -> int:
        if feature_columns < self.config.proto_grid_size:
            raise ConfigError(
                f"proto_grid_size={self.config.proto_grid_size}: the images give only {feature_columns} features "
                f"a side (size / {OUTPUT_STRIDE}); expected at most that many cells."
            )
        return feature_columns // self.config.proto_grid_size

    def inference_network(self) -> nn.Module:
        """The encoder: features of slices; the comparison with annotated ones is no part of it."""
        return self.encoder

    @torch.no_grad()
    def encode_support(self, support: SupportSet) -> Prototypes:
        """Prototypes (K, P, N, C) of K organs and P parts, from one encoding of each annotated slice."""
        n_classes, n_parts = support.image.shape[:2]
        slices = support.image.flatten(0, 2)  # (K*P*S, 1, H, W)
        features = torch.cat(list(run_in_chunks(self.encoder, self.config.slices_per_pass, slices)))
        features = features.unflatten(0, (n_classes * n_parts, -1))
        soft_mask = shrink(support.mask.flatten(0, 1), features.shape[-2:])
        rule_window = self._training_window(features.shape[-1])
        prototypes, _ = self.head.prototypes(features, soft_mask, self.config.val_wsize, rule_window)
        return _map(lambda tensor: tensor.unflatten(0, (n_classes, n_parts)), prototypes)

    @torch.no_grad()
    def probabilities(self, case: EvalCase, support: Prototypes) -> Float[Tensor, "K D H W"]:
        """Sigmoid of the margin of foreground over background score; each slice is encoded once."""
        organs = torch.arange(len(case.part), device=case.part.device)
        options = self.config.postprocess

        def of_slices(images: Float[Tensor, "D 1 H W"], part: Int[Tensor, "D K"]) -> Float[Tensor, "D K y x"]:
            features = self.encoder(images)[:, None]  # (D, 1, C, h, w)
            chosen = _map(lambda tensor: tensor[organs, part], support)  # (D, K, N, C)
            scores = self.head.scores(features, chosen)[:, 0]  # (D, K, 2, h, w)
            margins = scores[:, :, 1] - scores[:, :, 0]
            return margins if options.follows_image else enlarge(margins, images.shape[-2:])

        margins = torch.cat(list(run_in_chunks(of_slices, self.config.slices_per_pass, case.image, case.part.T)))
        found = margins.sigmoid()
        if options.follows_image:
            if case.spacing_mm is None:
                raise ConfigError(
                    "postprocess.appearance and guided_filter need the spacing of the scan in mm; it is unknown."
                )
            found = follow_image(case.image, found, case.spacing_mm, options, self.config.slices_per_pass)
        return found.transpose(0, 1)

    def masks(self, probabilities: Float[Tensor, "K D H W"]) -> Bool[Tensor, "K D H W"]:
        """Each class above 1/2; with `postprocess`, only the most probable of these, and the largest piece."""
        masks = probabilities > 0.5
        if self.config.postprocess.exclusive:
            place = probabilities.argmax(0, keepdim=True)
            masks &= place == torch.arange(len(masks), device=masks.device)[:, None, None, None]
        return postprocess_masks(masks, probabilities, self.config.postprocess)


def shrink(mask: Bool[Tensor, "B S H W"], size: Any) -> Float[Tensor, "B S h w"]:
    """Masks on the feature grid, soft: bilinear without antialiasing, as in the reference."""
    return F.interpolate(mask.float(), tuple(size), mode="bilinear", align_corners=False)


def enlarge(scores: Float[Tensor, "B S h w"], size: Any) -> Float[Tensor, "B S H W"]:
    """Scores on the image grid, bilinear; by two products, as `interpolate` has no deterministic gradient on a GPU."""
    rows, columns = (
        F.interpolate(torch.eye(old, device=scores.device)[None], new, mode="linear")[0]  # (old, new)
        for old, new in zip(scores.shape[-2:], size, strict=True)
    )
    return rows.T @ scores @ columns


def binary_cross_entropy(
    scores: Float[Tensor, "B S 2 h w"], mask: Bool[Tensor, "B S H W"], background_weight: float
) -> Float[Tensor, ""]:
    """Weighted cross-entropy of upsampled background and foreground scores: each image's weighted mean, averaged.

    Enlarging is linear, so the difference of the two scores is enlarged instead of both.
    """
    margin = enlarge(scores[:, :, 1] - scores[:, :, 0], mask.shape[-2:])
    weight = torch.where(mask, 1.0, background_weight)
    per_pixel = F.softplus(torch.where(mask, -margin, margin)) * weight
    return (per_pixel.sum((2, 3)) / weight.sum((2, 3))).mean()


def _map(function: Any, prototypes: Prototypes) -> Prototypes:
    return Prototypes(function(prototypes.direction), function(prototypes.is_valid))
