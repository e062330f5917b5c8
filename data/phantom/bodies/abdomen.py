"""Upper abdomen: organs and their variation between patients in size, position, pose, surface and bowel content.

Coordinates are those of `data.phantom.bodies.anatomy`. Centres, radii and paths are rounded values of textbook anatomy.
"""

from dataclasses import dataclass, field, replace

import numpy as np
from scipy.spatial.transform import Rotation

from data.phantom.bodies.anatomy import Patient, Structure
from data.phantom.bodies.build import Build
from data.phantom.bodies.regions import SKIN_MM, Regions, draw_regions
from data.phantom.bodies.shapes import (
    Deformed,
    Difference,
    Intersection,
    Offset,
    Shape,
    Slabs,
    Superquadric,
    Tube,
    Union,
    Waves,
)

# Scan index -> missing organs; this scan is a query scan of fold 0 in every data set.
MISSING_ORGANS = {2: ("left kidney", "left adrenal gland")}


@dataclass(eq=False)
class _BodySampler:
    """Samples bodies around their mean position, size and pose."""

    rng: np.random.Generator
    move_mm: float = 3.0
    resize: float = 0.05
    turn_deg: float = 5.0
    tissue_brightness: dict[str, float] = field(default_factory=dict)

    def ellipsoid(self, centre, radii, turn=(0.0, 0.0, 0.0), exponent: float = 2.0, size: float = 1.0) -> Superquadric:
        """An ellipsoid (superquadric) near `centre`; `turn` is in degrees about the patient's x, y and z axes."""
        rotation = Rotation.from_euler("xyz", self.rng.normal(turn, self.turn_deg), degrees=True).as_matrix()
        resized = np.asarray(radii) * size * np.exp(self.rng.normal(0, self.resize, 3))
        return Superquadric(self.rng.normal(centre, self.move_mm), resized, rotation, exponent)

    def tube(self, path, radii, move_mm: float | None = None) -> Tube:
        """A tube along `path`, with each point slightly displaced."""
        moved = self.rng.normal(path, self.move_mm if move_mm is None else move_mm)
        widths = np.broadcast_to(np.asarray(radii, float), len(moved))
        return Tube(moved, widths * np.exp(self.rng.normal(0, self.resize)))

    def deform(self, shape: Shape, amplitude_mm: float, length_mm: float = 70.0) -> Deformed:
        """`shape` with a smoothly deformed surface."""
        return Deformed(shape, Waves.draw(self.rng, amplitude_mm, length_mm))

    def brightness(self, tissue: str) -> float:
        """Brightness of a tissue in this patient, the same wherever the tissue occurs; see `Structure`."""
        if tissue not in self.tissue_brightness:
            self.tissue_brightness[tissue] = float(np.clip(self.rng.normal(), -2, 2))
        return self.tissue_brightness[tissue]

    def structure(self, organ: str, tissue: str, shape: Shape) -> Structure:
        """A structure with the patient's brightness of its tissue."""
        return Structure(organ, tissue, shape, self.brightness(tissue))


def draw_patient(rng: np.random.Generator, missing: tuple[str, ...] = (), build: Build | None = None) -> Patient:
    """Samples a patient.

    Args:
        rng: generates the same organs for every build.
        missing: organs that are replaced by fat.
        build: None: the standard one.
    """
    draw = _BodySampler(rng)
    regions = draw_regions(rng, build)
    body = [*_trunk(draw, regions), *_spine(draw, regions)]
    organs = [
        *_bowel(draw, regions),
        *_stomach(draw, regions),
        *_liver(draw, regions),
        *_spleen_and_pancreas(draw, regions),
        *_kidney(draw, regions, "right"),
        *_kidney(draw, regions, "left"),
        *_vessels(draw, regions),
    ]
    present = [regions.place(organ) for organ in organs if organ.organ not in missing]
    stretch = rng.uniform(0.94, 1.06) * rng.uniform(0.97, 1.03, 3) * (build.scale if build else 1)
    warp = Waves.draw(rng, 3.0, 180.0, channels=3)
    return Patient((*body, *present), stretch, warp, regions.middle_mm * stretch)


def _trunk(draw: _BodySampler, regions: Regions) -> list[Structure]:
    slope = np.array([0, 0.45, 1]) / np.hypot(0.45, 1)
    rib_layer = Difference(Offset(regions.oval, 7.0), Offset(regions.oval, 2.0))
    chest = Superquadric(np.array([0, -160, 250]), np.array([400, 200, 285]), exponent=8.0)  # y < 40 and z > -35
    ribs = Intersection((Slabs(rib_layer, slope, 27.0, 9.0, draw.rng.uniform(0, 27)), chest))
    return [
        draw.structure("", "skin", regions.trunk),
        draw.structure("", "subcutaneous fat", Offset(regions.trunk, -SKIN_MM)),
        draw.structure("", "muscle", regions.wall),
        draw.structure("", "rib", ribs),
        draw.structure("", "lung", regions.cavity),
        regions.place(draw.structure("", "heart muscle", draw.ellipsoid((-28, 32, 138), (56, 44, 40), (0, 20, 20)))),
        regions.place(draw.structure("", "blood", draw.ellipsoid((-30, 32, 140), (40, 28, 27), (0, 20, 20)))),
        draw.structure("", "muscle", Intersection((regions.diaphragm, regions.cavity))),
        draw.structure("", "visceral fat", Intersection((Offset(regions.diaphragm, -3.0), regions.cavity))),
    ]


def _spine(draw: _BodySampler, regions: Regions) -> list[Structure]:
    upward, phase = np.array([0.0, 0.0, 1.0]), draw.rng.uniform(0, 34)

    def column(x, y, width, depth, exponent: float = 2.0) -> Superquadric:
        return Superquadric(np.array([x, y, 0]), np.array([width, depth, np.inf]), exponent=exponent)

    vertebra = column(0, -50, 22, 17, 2.5)
    spines = Union((column(0, -97, 3.5, 11), column(-22, -76, 17, 3.5), column(22, -76, 17, 3.5)), blend_mm=3.0)
    psoas = [draw.ellipsoid((side * 38, -46, -95), (17, 18, 85), (0, side * -5, 0)) for side in (-1, 1)]
    return [
        *(draw.structure("", "muscle", Intersection((shape, regions.trunk))) for shape in psoas),
        draw.structure("", "marrow", Slabs(spines, upward, 34.0, 18.0, phase + 8)),
        draw.structure("", "marrow", column(0, -77, 17, 13)),
        draw.structure("", "marrow", vertebra),
        draw.structure("", "disc", Slabs(vertebra, upward, 34.0, 8.0, phase)),
        draw.structure("", "spinal fluid", column(0, -76, 9.5, 8)),
        draw.structure("", "spinal cord", column(0, -76, 5.5, 4.5)),
    ]


def _bowel(draw: _BodySampler, regions: Regions) -> list[Structure]:
    rng = draw.rng
    colon = [
        ([(102, -8, -170), (106, -2, -120), (100, 8, -75), (88, 36, -48)], 21.0),
        ([(88, 42, -50), (40, 62, -72), (-20, 66, -70), (-75, 48, -35), (-104, 8, 0)], 17.0),
        ([(-110, 0, 5), (-114, -18, -50), (-110, -12, -110), (-98, -6, -170)], 15.0),
    ]
    loops = []
    for _ in range(20):
        start = rng.uniform((-90, 10, -150), (80, 70, -35))
        path = start + np.cumsum(rng.normal(0, (24, 15, 13), (5, 3)), axis=0)
        path[:, 2] = np.minimum(path[:, 2], -12)
        loops.append((path, rng.uniform(9, 15)))
    structures = []
    for path, width in loops + colon:
        tube = draw.deform(draw.tube(path, width), 2.0, 40.0)
        brightness = float(np.clip(rng.normal(), -2, 2))  # the content differs between loops
        structures.append(draw.structure("", "bowel wall", regions.clip(tube)))
        content = Structure("", "bowel content", regions.clip(Offset(tube, -2.5)), brightness)
        structures.append(content)
        if rng.random() < 0.35:
            structures.append(draw.structure("", "gas", _gas(content.shape, path, width)))
    return structures


def _gas(shape: Shape, path, width: float) -> Intersection:
    """Gas in a hollow organ of a supine patient: the part of `shape` above a fluid level."""
    top = np.max(np.asarray(path)[:, 1]) + width
    front = Superquadric(np.array([0, top + 200 - 0.9 * width, 0]), np.array([np.inf, 200, np.inf]))
    return Intersection((shape, front))


def _stomach(draw: _BodySampler, regions: Regions) -> list[Structure]:
    size = np.exp(draw.rng.normal(0, 0.12))
    parts = (
        draw.ellipsoid((-64, -2, 74), (40, 42, 38), size=size),
        draw.ellipsoid((-52, 30, 38), (30, 28, 44), (15, 0, 0), size=size),
        draw.ellipsoid((-14, 46, 2), (34, 18, 19), (0, 10, 0), size=size),
    )
    outer = regions.clip(draw.deform(Union(parts, blend_mm=16.0), 2.0))
    inner = draw.deform(Offset(outer, -5.0), 1.5, 25.0)
    structures = [
        draw.structure("stomach", "stomach wall", outer),
        draw.structure("stomach", "stomach content", inner),
    ]
    if draw.rng.random() < 0.6:
        structures.append(draw.structure("stomach", "gas", _gas(inner, [(0, 50 * size, 0)], 14.0)))
    return structures


def _liver(draw: _BodySampler, regions: Regions) -> list[Structure]:
    size = np.exp(draw.rng.normal(0, 0.06))
    lobes = (
        draw.ellipsoid((78, 4, 42), (63, 75, 73), (0, -8, 0), 2.3, size),
        draw.ellipsoid((96, 2, -18), (41, 56, 58), (0, 8, 0), 2.2, size),
        draw.ellipsoid((6, 50, 62), (76, 33, 38), (-12, 10, 0), 2.0, size),
    )
    porta = draw.ellipsoid((24, -6, 8), (26, 34, 30))
    fossa = draw.ellipsoid((36, -42, -10), (27, 26, 56))  # between the right kidney and the spine
    body = Difference(Union(lobes, blend_mm=18.0), Union((porta, fossa)), blend_mm=14.0)
    liver = regions.clip(draw.deform(body, 3.0))
    veins = [
        ([(22, -10, 98), (55, -5, 84), (92, -18, 58), (104, -22, 30)], (6, 5, 3.5, 2)),
        ([(22, -8, 98), (45, 16, 82), (66, 34, 52), (72, 42, 20)], (6, 4.5, 3, 2)),
        ([(20, -6, 98), (8, 22, 86), (-14, 46, 72)], (5, 4, 2)),
        ([(32, 4, 34), (60, 2, 38), (88, 28, 44), (112, 30, 60)], (6.5, 5.5, 3.5, 2)),
        ([(60, 2, 38), (88, -26, 26), (112, -32, 8)], (5, 3.5, 2)),
        ([(88, 10, 40), (96, 8, 0), (98, 8, -40)], (3.5, 3, 1.5)),
        ([(32, 4, 34), (22, 36, 50), (-6, 52, 60), (-34, 56, 66)], (5, 4, 3, 1.5)),
        ([(75, -4, 78), (84, 22, 88), (92, 40, 80)], (3.5, 2.5, 1.5)),
        ([(88, -22, 62), (112, -2, 66), (122, 14, 60)], (3, 2.5, 1.5)),
    ]
    gallbladder = regions.clip(
        draw.ellipsoid((46, 42, -14), (14, 15, 28), (-25, 12, 0), size=np.exp(draw.rng.normal(0, 0.15)))
    )
    return [
        draw.structure("liver", "liver", liver),
        *(
            draw.structure("liver", "liver vein", Intersection((draw.tube(*vein, move_mm=4.0), liver)))
            for vein in veins
        ),
        draw.structure("gallbladder", "gallbladder wall", gallbladder),
        draw.structure("gallbladder", "bile", Offset(gallbladder, -2.0)),
    ]


def _spleen_and_pancreas(draw: _BodySampler, regions: Regions) -> list[Structure]:
    size = np.exp(draw.rng.normal(0, 0.14))
    body = draw.ellipsoid((-102, -26, 56), (35, 52, 48), (20, 0, -15), 2.2, size)
    hollow = draw.ellipsoid((-66, 10, 60), (30, 46, 62))
    spleen = regions.clip(draw.deform(Difference(body, hollow, blend_mm=8.0), 2.5, 60.0))
    path = [(34, 14, -14), (28, 18, 0), (4, 26, 8), (-20, 22, 16), (-48, 4, 28), (-74, -10, 40)]
    pancreas = draw.deform(draw.tube(path, (13, 13, 9, 10, 9.5, 8)), 1.5, 30.0)
    duodenum = draw.tube([(22, 44, 4), (44, 26, -4), (50, 8, -28), (34, 2, -52), (0, 2, -54)], 11.0)
    return [
        draw.structure("", "bowel wall", regions.clip(duodenum)),
        draw.structure("", "bowel content", regions.clip(Offset(duodenum, -3.0))),
        draw.structure("pancreas", "pancreas", regions.clip(pancreas)),
        draw.structure("spleen", "spleen", spleen),
    ]


def _kidney(draw: _BodySampler, regions: Regions, side: str) -> list[Structure]:
    right = 1 if side == "right" else -1
    height = -4 if side == "right" else 8
    bean = draw.ellipsoid((right * 62, -34, height), (29, 27, 53), (-8, right * -12, right * 18), 2.1)
    toward_hilum = bean.rotation @ np.array([-right, 0.25, 0])
    hilum = replace(bean, centre=bean.centre + 27 * toward_hilum, radii=np.array([15.0, 11, 17]), exponent=2.0)
    whole = regions.clip(draw.deform(Difference(bean, hilum, blend_mm=6.0), 1.5, 45.0))
    organ, gland = f"{side} kidney", f"{side} adrenal gland"
    medulla = Intersection((draw.deform(Offset(whole, -9.0), 5.0, 28.0), Offset(whole, -3.0)))
    sinus = replace(hilum, centre=bean.centre + 12 * toward_hilum, radii=np.array([11.0, 8, 24]))
    apex = np.array([right * 36, -24, height + 58])
    limbs = [apex + np.array(step) for step in ((right * 3, -20, -8), (0, 0, 0), (right * 16, -14, -14))]
    return [
        draw.structure(gland, "adrenal gland", regions.clip(draw.tube(limbs, 4.5, move_mm=1.0))),
        draw.structure(organ, "renal cortex", whole),
        draw.structure(organ, "renal medulla", medulla),
        draw.structure(organ, "renal sinus", Intersection((draw.deform(sinus, 1.5, 25.0), Offset(whole, -3.0)))),
    ]


def _vessels(draw: _BodySampler, regions: Regions) -> list[Structure]:
    aorta = [(-4, -20, -98), (-8, -18, -40), (-8, -20, 30), (-5, -24, 100)]
    cava = [(18, -20, -98), (20, -18, -40), (24, -14, 40), (21, -8, 104)]
    splenic = [(-82, -14, 48), (-48, -2, 34), (-16, 8, 18), (12, 10, 12)]
    portal = [(12, 10, -22), (12, 10, 10), (24, 6, 26), (34, 4, 36)]
    branches = [
        ("aorta", "aorta", aorta, 10.0),
        ("", "aorta", [aorta[-1], (-8, -26, 150), (-12, -28, 260)], 10.5),
        ("", "aorta", [(-26, -28, -190), aorta[0], (24, -26, -190)], 6.5),
        ("inferior vena cava", "caval blood", cava, 12.0),
        ("", "caval blood", [(-24, -32, -190), cava[0], (30, -32, -190)], 8.0),
        ("portal and splenic veins", "portal blood", splenic, 4.5),
        ("portal and splenic veins", "portal blood", portal, 6.5),
        ("oesophagus", "oesophagus", [(-2, -14, 118), (-8, -8, 98), (-30, 6, 80)], 8.0),
        ("", "oesophagus", [(-4, -16, 260), (-2, -14, 118)], 8.0),
    ]
    return [
        draw.structure(organ, tissue, draw.tube(path, width, move_mm=1.5)) for organ, tissue, path, width in branches
    ]
