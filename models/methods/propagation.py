"""Label propagation: segments scans with annotated ones by comparing features and places; nothing is trained."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dataloaders.samples import EvalCase, SupportScan, SupportSet
from models.methods.calibration import CalibrationConfig, best_kernels, deformed_copy, dice
from models.methods.encoded_scans import (
    UNKNOWN,
    Annotation,
    Detail,
    EncodedScan,
    EncodedSupport,
    PlacedSupport,
    annotated_slices,
    shrink_labels,
)
from models.methods.placing import Placer
from models.methods.second_look import (
    SecondLookConfig,
    cut_out,
    enlarge,
    largest,
    mean_box,
    put_back,
    surroundings,
    whole,
)
from models.methods.whole_scans import Spacing, WholeScanMethod, require_scans, require_spacing
from models.networks.alignment import AlignmentConfig, describe_slices
from models.networks.backbones import OUTPUT_STRIDE, build_encoder
from models.networks.body import BodyConfig, find_body, find_inside
from models.networks.brightness import BrightnessConfig, with_brightness
from models.networks.deformation import DeformationConfig
from models.networks.displacement import DisplacementConfig
from models.networks.folding import FoldedForm
from models.networks.label_propagation import KernelConfig, propagate
from models.networks.postprocessing import PostprocessConfig, firmness, follow_image
from models.networks.scan_features import scan_features
from models.networks.similarity import Likeness, similarity
from models.networks.spread import spread
from util.errors import ConfigError
from util.schema import check_bounds, option

logger = logging.getLogger(__name__)


def _all_switches() -> PostprocessConfig:
    return PostprocessConfig(exclusive=True, largest_component=True, appearance=True, guided_filter=True)


@dataclass(frozen=True)
class PropagationConfig:
    """Constants; where not said otherwise, they were chosen on folds 1 and 2 of CHAOST2."""

    modelname: str = option("efficientnet_lite0", "architecture")  # see models.networks.backbones.build_encoder
    encoder_weights: str = "package"  # package, imagenet, coco, none (random), or a file
    # whether features pass the 1x1 convolution of the few-shot methods; True with the encoder of such a checkpoint
    use_projection: bool = option(False, "architecture")
    # factors on the sides of slices that are encoded; all sizes count alike, see `models.networks.scan_features`
    enlargements: tuple[float, ...] = option((1.0, 2.0), gt=0, le=8)
    # which slices of a support scan are used: all, those that show any class, or those of the `n_sup_part` parts
    annotation: Annotation = "all"
    align_z: Literal["features", "heights"] = "features"  # heights: relative ones, for scans of the same stretch
    body: BodyConfig = option(BodyConfig)
    alignment: AlignmentConfig = option(AlignmentConfig)
    displacement: DisplacementConfig = option(DisplacementConfig)
    deformation: DeformationConfig = option(DeformationConfig)
    kernel: KernelConfig = option(KernelConfig)
    calibration: CalibrationConfig = option(CalibrationConfig)
    brightness: BrightnessConfig = option(BrightnessConfig)
    second_look: SecondLookConfig = option(SecondLookConfig)
    postprocess: PostprocessConfig = field(default_factory=_all_switches)
    slices_per_pass: int = option(16, "practical", ge=1)  # slices encoded together

    def __post_init__(self) -> None:
        check_bounds(self)
        if not self.enlargements:
            raise ConfigError("enlargements: empty; expected at least one, such as 1.0.")


class Propagation(WholeScanMethod):
    """Each place of a scan takes its label from the places of annotated scans that look alike and lie about there.

    Looking alike: the cosine of an encoder's features, of which each scan's mean is subtracted. Lying about there: in
    the plane relative to the body, along z in millimetres, after the scans were aligned along z, each structure was
    found as a whole (`models.networks.displacement`), and a smooth deformation was fitted
    (`models.networks.deformation`). Where a structure by its looks lies elsewhere than the other structures let expect,
    the scan is segmented both ways, and the firmer map of each structure is kept. How near, is calibrated for each
    structure on deformed copies of the annotated scans (`models.methods.calibration`). Several supports vote together,
    and copies with darker and brighter structures, as patients differ (iron in liver and spleen). The maps then follow
    how each structure looks in this scan (`models.networks.appearance`) and the image's edges (guided filter), and of
    each structure the largest piece is kept. Small structures are looked at again, enlarged, where they were found
    (`models.methods.second_look`).

    All classes of an annotated slice count as annotated. Beyond the annotated slices structures fade.

    Source: our own. Related: Coupe et al., "Patch-based segmentation using expert priors", NeuroImage 2011.
    """

    Config = PropagationConfig
    config: PropagationConfig

    def __init__(self, config: PropagationConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = build_encoder(config.modelname, config.encoder_weights).requires_grad_(False)
        if not config.use_projection:
            self.encoder.localconv = torch.nn.Identity()
        self._fast = FoldedForm()
        self.placer = Placer(config.align_z, config.alignment, config.displacement, config.deformation)
        self.eval()

    @classmethod
    def title(cls, settings: Mapping[str, Any]) -> str:
        """Its name; "plain" without all that the named configuration `propagation_plain` leaves out."""
        parts = (
            settings["displacement"]["agreement"],
            settings["deformation"]["reach"],
            settings["calibration"]["copies"],
            settings["postprocess"]["appearance"],
        )
        return "propagation" if any(parts) or len(settings["enlargements"]) > 1 else "plain propagation"

    @torch.no_grad()
    def encode_scan(self, image: Float[Tensor, "D 1 H W"], spacing_mm: Spacing | None, name: str) -> EncodedScan:
        """Features of all slices, without the scan's mean and of unit length; the name is for warnings.

        Raises:
            ConfigError: the spacing is unknown.
        """
        spacing_mm = require_spacing(spacing_mm)
        features = self._features(image, self.config.enlargements)
        box = find_body(image, self.config.body, name)
        description = describe_slices(features.permute(0, 3, 1, 2), box, OUTPUT_STRIDE, self.config.alignment)
        inside = find_inside(image, self.config.body, (features.shape[1], features.shape[2]))
        return EncodedScan(features, description, box, spacing_mm, inside, len(self.config.enlargements))

    def fast_encoder(self, image: Float[Tensor, "D 1 H W"]) -> torch.nn.Module:
        """The encoder as it runs: with folded batch norms; the image is an example of its input."""
        return self._fast.of(self.encoder, image[:1])

    def _features(self, image: Float[Tensor, "D 1 H W"], enlargements: tuple[float, ...]) -> Float[Tensor, "D h w C"]:
        return scan_features(self.fast_encoder(image), image, enlargements, self.config.slices_per_pass)

    def encode_support(self, support: SupportSet) -> tuple[EncodedSupport, ...]:
        """Features and labels of each annotated scan.

        Raises:
            ConfigError: the support has slices only, and no whole scans.
            DataError: a scan without an annotated slice.
        """
        scans = require_scans(support)
        encoded = tuple(self._with_details(scan, support.classes) for scan in scans)
        if not self.config.calibration.copies:
            return encoded
        kernels = self._calibrate(scans, support.classes, encoded)
        return tuple(replace(one, kernels=kernels) for one in encoded)

    @torch.no_grad()
    def _calibrate(
        self, scans: tuple[SupportScan, ...], classes: tuple[int, ...], supports: tuple[EncodedSupport, ...]
    ) -> tuple[KernelConfig, ...]:
        """The place prior of each class with which all annotated scans find it best in deformed copies of theirs."""
        config, scores = self.config.calibration, []
        candidates = config.candidates(self.config.kernel)
        for scan, own in zip(scans, supports, strict=True):
            known = own.is_annotated.to(scan.label.device)[:, None, None]
            scan = replace(scan, label=torch.where(known, scan.label, UNKNOWN))
            annotated = own.is_annotated.nonzero()[:, 0]
            slices = annotated[spread(len(annotated), config.n_slices)]
            for number in range(config.copies):
                image, label = deformed_copy(scan, classes, number, config.views)
                query = self.encode_scan(image, scan.spacing_mm, "a deformed copy")
                placed = [next(self.placer.place(query, replace(one, copies=()))).of_slices(slices) for one in supports]
                image, label = image[slices.to(image.device)], label[slices.to(label.device)]
                found = []
                for kernel in candidates:
                    shares = self._shares(query.of_slices(slices), placed, kernel)
                    masks = self.masks(self._follow_image(image, shares[:, 1:], scan.spacing_mm))
                    found.append(dice(masks, label, classes))
                scores.append(torch.stack(found))
        kernels = best_kernels(candidates, torch.stack(scores), config.margin)
        chosen = (
            f"{value}: {one.sigma_xy:.3f}, {one.sigma_z_mm:.0f} mm" for value, one in zip(classes, kernels, strict=True)
        )
        logger.info("place prior of each class, in the plane (shares of the body) and along z: %s", "; ".join(chosen))
        return kernels

    def _with_details(self, scan: SupportScan, classes: tuple[int, ...]) -> EncodedSupport:
        """An annotated scan, and the surroundings of its small structures."""
        encoded = self.encode_scan(scan.image, scan.spacing_mm, "an annotated scan")
        is_annotated = annotated_slices(scan, classes, self.config.annotation)
        scan = replace(scan, label=torch.where(is_annotated.to(scan.label.device)[:, None, None], scan.label, 0))
        support = self._with_labels(encoded, scan, classes, is_annotated, self.config.enlargements)
        return replace(support, details=tuple(self._detail(scan, value, is_annotated) for value in classes))

    def _detail(self, scan: SupportScan, value: int, is_annotated: Bool[Tensor, " D"]) -> Detail | None:
        spacing_mm = require_spacing(scan.spacing_mm)
        part = surroundings(scan.label, value, spacing_mm, self.config.second_look)
        if part is None:
            return None
        box, size = part
        label = cut_out(scan.label[:, None].float(), box, size, "nearest")[:, 0].to(scan.label)
        image, spacing_mm = enlarge(scan.image, spacing_mm, box, size)
        scan = replace(scan, image=image, label=label, spacing_mm=spacing_mm)
        encoded = self._encode_part(image, spacing_mm)
        return Detail(box, size, self._with_labels(encoded, scan, (value,), is_annotated, (1.0,)))

    def _encode_part(self, image: Float[Tensor, "D 1 h w"], spacing_mm: Spacing) -> EncodedScan:
        """Of enlarged slices, where everything counts as inside."""
        features = self._features(image, (1.0,))
        inside = torch.ones(features.shape[:3], dtype=torch.bool)
        height, width = image.shape[-2:]
        return EncodedScan(features, features.new_zeros(len(image), 0), whole((height, width)), spacing_mm, inside)

    def _with_labels(
        self,
        encoded: EncodedScan,
        scan: SupportScan,
        classes: tuple[int, ...],
        is_annotated: Bool[Tensor, " D"],
        enlargements: tuple[float, ...],
    ) -> EncodedSupport:
        """With copies of other brightness: structures at the original's places; nothing else of a copy votes."""
        label = shrink_labels(scan.label, classes, (encoded.feature.shape[1], encoded.feature.shape[2]))
        label = label * is_annotated.to(label.device)[:, None, None, None]
        encoded = replace(encoded, inside=encoded.inside | (label[..., 1:] > 0).any(-1).cpu())
        original, config, copies = EncodedSupport(encoded, label, is_annotated), self.config.brightness, []
        is_structure = label[..., 1:].sum(-1) > config.least_share
        votes = config.weight * label * is_structure[..., None]
        for level in config.levels:
            feature = self._features(with_brightness(scan.image, scan.label, classes, level), enlargements)
            copy = replace(encoded, feature=feature, inside=is_structure.cpu())
            copies.append(replace(original, scan=copy, label=votes))
        return replace(original, copies=tuple(copies))

    @torch.no_grad()
    def probabilities(self, case: EvalCase, support: tuple[EncodedSupport, ...]) -> Float[Tensor, "K D H W"]:
        """Share of each class among the votes; with the background they sum to 1."""
        query = self._encoded(case)
        candidates = [list(self.placer.place(query, one)) for one in support]
        maps = self._maps(case, query, [found[0] for found in candidates])
        if any(len(found) > 1 for found in candidates):
            others = self._maps(case, query, [found[-1] for found in candidates])
            is_firmer = firmness(others) > firmness(maps)
            maps = torch.where(is_firmer[:, None, None, None], others, maps)
        return maps / maps.sum(0).clamp_min(1)

    def _maps(self, case: EvalCase, query: EncodedScan, placed: list[PlacedSupport]) -> Float[Tensor, "K D H W"]:
        """Share of each class; of one that is looked at again, by the scans in which it is small."""
        kernels = placed[0].support.kernels or (self.config.kernel,) * len(case.classes)
        again = [[(one, part) for one in placed if (part := one.support.details[k])] for k in range(len(kernels))]
        once = [k for k, parts in enumerate(again) if not parts]
        maps = case.image.new_zeros(len(kernels), len(case.image), *case.image.shape[-2:])
        if once:
            shares = {kernel: self._shares(query, placed, kernel) for kernel in dict.fromkeys(kernels[k] for k in once)}
            of_first_look = torch.stack([shares[kernels[k]][:, k + 1] for k in once], 1)
            maps[once] = self._follow_image(case.image, of_first_look, query.spacing_mm)
        for k, parts in enumerate(again):
            if parts:
                maps[k] = self._look_again(case.image, query, parts, k)
        return maps

    def _look_again(
        self,
        image: Float[Tensor, "D 1 H W"],
        query: EncodedScan,
        details: list[tuple[PlacedSupport, Detail]],
        number: int,
    ) -> Float[Tensor, "D H W"]:
        """Probability of a structure, from its enlarged surroundings; 0 elsewhere."""
        box = mean_box([detail.box_in(query, one, number) for one, detail in details])
        size = largest([detail for _, detail in details])
        part, spacing_mm = enlarge(image, query.spacing_mm, box, size)
        encoded = self._encode_part(part, spacing_mm)
        placed = [next(self.placer.shift(encoded, detail.support, one.z_mm)) for one, detail in details]
        maps = self._shares(encoded, placed, self.config.kernel)[:, 1:]
        found = self._follow_image(part, maps, query.spacing_mm)  # widths in mm are those of structures of usual size
        height, width = image.shape[-2:]
        return put_back(found.transpose(0, 1), box, (height, width))[:, 0]

    def _follow_image(
        self, image: Float[Tensor, "D 1 H W"], maps: Float[Tensor, "D K h w"], spacing_mm: Spacing
    ) -> Float[Tensor, "K D H W"]:
        options, per_pass = self.config.postprocess, self.config.slices_per_pass
        maps = follow_image(image, maps, spacing_mm, options, per_pass).transpose(0, 1)
        return maps / maps.sum(0).clamp_min(1)

    def encode_case(self, case: EvalCase) -> EvalCase:
        """The case with its `EncodedScan`."""
        return replace(case, encoded=self._encoded(case))

    def _encoded(self, case: EvalCase) -> EncodedScan:
        return case.encoded or self.encode_scan(case.image, case.spacing_mm, case.scan_id)

    @torch.no_grad()
    def likeness(self, case: EvalCase, support: tuple[EncodedSupport, ...]) -> Likeness | None:
        """The most similar of the supports, relative to itself; see `models.networks.similarity`.

        By slices at the first size: larger ones tell other planes and body parts less well.
        """
        query, found = self._encoded(case), []
        for one in support:
            if one.own_similarity is not None:
                cells = query.of_first_size(self.placer.align(query, one.scan).of(query.z_mm))
                found.append(Likeness(similarity(cells, one.scan.of_first_size()), one.own_similarity))
        return max(found, key=lambda each: each.relative, default=None)

    def _shares(
        self, query: EncodedScan, placed: list[PlacedSupport], kernel: KernelConfig
    ) -> Float[Tensor, "D M h w"]:
        """Of background and classes among the votes of all annotated scans and their copies; they sum to 1."""
        total = query.feature.new_zeros(())
        for one in placed:
            cells = query.cells(OUTPUT_STRIDE, one.z_mm)
            for each in (one.support, *one.support.copies):
                known = each.scan.cells(OUTPUT_STRIDE, shift=one.shift)
                votes = propagate(cells, known, each.label, each.is_annotated, kernel)
                votes = one.fade(votes, kernel.sigma_z_mm)
                total = total + each.scan.spacing_mm[0] * votes  # scans with thin slices have no more say than others
        total[..., :1] += (total.sum(-1, keepdim=True) <= 0).to(total)  # no known place nearby
        return (total / total.sum(-1, keepdim=True)).permute(0, 3, 1, 2)
