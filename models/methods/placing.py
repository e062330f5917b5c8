"""Where a scan and its structures lie in an annotated one."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from models.methods.encoded_scans import EncodedScan, EncodedSupport, PlacedSupport
from models.networks.alignment import Alignment, AlignmentConfig, align_slices, relative_alignment
from models.networks.backbones import OUTPUT_STRIDE
from models.networks.deformation import DeformationConfig, fit_deformation
from models.networks.displacement import DisplacementConfig, fit_displacements, shift_field


@dataclass(frozen=True)
class Placer:
    """Aligns scans along z, finds each structure as a whole, and then how it and its surroundings are bent."""

    align_z: Literal["features", "heights"]  # heights: relative ones
    alignment: AlignmentConfig
    displacement: DisplacementConfig
    deformation: DeformationConfig

    def place(self, query: EncodedScan, support: EncodedSupport) -> Iterator[PlacedSupport]:
        """By features alone, and then, where it differs, with structures in agreement; see `fit_displacements`."""
        return self.shift(query, support, self.align(query, support.scan).of(query.z_mm))

    def shift(self, query: EncodedScan, support: EncodedSupport, z_mm: Float[Tensor, " D"]) -> Iterator[PlacedSupport]:
        """The same for a query whose slices are aligned.

        Args:
            query: all of it.
            support: the annotated scan.
            z_mm: of the query's slices, in the annotated scan's coordinates; on the host.
        """
        places, cells = query.cells(OUTPUT_STRIDE, z_mm), support.scan.cells(OUTPUT_STRIDE)
        candidates, config = (None,), self.displacement
        if config.reach:
            (height, width), (own_height, own_width) = query.body_mm, support.scan.body_mm
            stretch = own_height / height, own_width / width
            candidates = fit_displacements(places, cells, support.label, support.is_annotated, config, stretch)
        for found in candidates:
            moved = cells
            if found is not None:
                moved = replace(cells, shift=shift_field(cells, support.label, found, config))
            if self.deformation.reach:
                moved = replace(moved, shift=fit_deformation(places, moved, self.deformation))
            yield PlacedSupport(support, z_mm, found, moved.shift)

    def align(self, query: EncodedScan, support: EncodedScan) -> Alignment:
        """Which heights correspond."""
        query_mm, support_mm = query.spacing_mm[0], support.spacing_mm[0]
        if self.align_z == "heights":
            return relative_alignment(len(query.feature), query_mm, len(support.feature), support_mm)
        return align_slices(query.description, support.description, query_mm, support_mm, self.alignment)
