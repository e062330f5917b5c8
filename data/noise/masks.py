"""Simulated annotation noise of the training masks of a set of images: see `frugalseg noise --help`."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from data.noise.generator import CLEAN, Distorted, Draw, distort, draw_all
from data.prepare.steps import Output, training_ids
from dataloaders.description import ClassSpec
from dataloaders.images.derived import noise_of
from dataloaders.images.folder import NOISE_TYPES, ImageFolder, NoiseConfig
from dataloaders.io.png import read_image, read_mask, to_8_bit, write_png
from util.csv_files import read_csv
from util.errors import ConfigError
from util.files import write_text
from util.items import Failures, attempt_each, raise_failures
from util.results.metrics import overlap_counts, overlap_scores
from util.results.pictures import EXPERT_COLOUR, OTHER_COLOUR, draw_outline, panel_grid, save_figure, show_image
from util.results.scores import csv_text

TABLE = "noise.csv"
COLUMNS = ("id", "type", "angle_deg", "dy_px", "dx_px", "achieved_xor", "dice_to_clean")
NAMED_AT_MOST = 5  # ids in a warning

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MaskRecord:
    """Noise of one mask: a line of noise.csv, and the counts of the statistics.

    Attributes:
        id: the image.
        type: "clean", "dilate", "erode" or "affine".
        angle_deg, dy_px, dx_px: turn and shift; 0 unless affine.
        achieved_xor: pixels that differ from the clean mask, per pixel of the clean object; 0 without object.
        dice_to_clean: Dice of the noisy and the clean mask; 1 where both are empty.
        counts: pixels of the noisy object, of the clean object, of both, and of all, within the structure's crop.
    """

    id: str
    type: str
    angle_deg: float
    dy_px: int
    dx_px: int
    achieved_xor: float
    dice_to_clean: float
    counts: tuple[int, ...]

    @classmethod
    def measure(cls, image_id: str, clean: np.ndarray, noisy: Distorted, structure: ClassSpec) -> "MaskRecord":
        """Measures a noisy mask (H, W) against the clean one."""
        overlap = overlap_counts(noisy.mask, clean)
        dice = overlap_scores(overlap).dice if clean.any() or noisy.mask.any() else 1.0
        changed = (overlap.false_positive + overlap.false_negative) / max(np.count_nonzero(clean), 1)
        rows, columns = structure.window(len(clean))
        noisy_part, clean_part = noisy.mask[rows, columns], clean[rows, columns]
        parts = noisy_part, clean_part, noisy_part & clean_part, np.ones_like(clean_part)
        counts = tuple(int(np.count_nonzero(part)) for part in parts)
        return cls(image_id, noisy.type, noisy.angle_deg, noisy.dy_px, noisy.dx_px, changed, dice, counts)


def write_noise(folder: ImageFolder, noise: NoiseConfig, structure: str, jobs: int = 1) -> dict[str, Any]:
    """Writes the noisy masks of one structure for all training images, with `noise.csv` and `noise.json`.

    The noise is simulated on the whole image, before a structure is cropped.

    Args:
        folder: the prepared images.
        noise: the noise; alpha above 0.
        structure: whose masks.
        jobs: processes.

    Returns:
        statistics (see `summarise_noise`) and versions; the facts of `noise.json`.

    Raises:
        ConfigError: alpha is 0, or the structure unknown.
        DataError: no training image.
        FailedItemsError: masks are missing or damaged; the message names them. The others are written, but not
            recorded, so that nothing trains on them.
    """
    described = folder.spec.structure(structure)
    if not noise.alpha:
        raise ConfigError(
            "noise.alpha=0: no noise to simulate, clean masks are used. Give a fraction above 0, up to 1."
        )
    ids = training_ids(folder)
    output = Output(noise_of(folder, noise, structure), tables=(TABLE,))
    title = f"{folder.spec.name} {structure} {noise.name}"

    def make() -> dict[str, Any]:
        draws = draw_all(ids, noise, described)
        work = partial(_distort_file, output=output, noise=noise, structure=described)
        items = {image_id: (folder.mask_path(image_id, structure), draws.get(image_id)) for image_id in ids}
        failures: Failures = {}
        made = [one for _, one in attempt_each(work, items, jobs, title, failures, lambda item: item[0])]
        raise_failures(failures, len(items), title)
        _warn_of_kept([one.id for one in made if one.type == CLEAN and one.id in draws], len(draws), title)
        write_text(output.folder / TABLE, csv_text(COLUMNS, map(vars, made)))
        versions = {name: version(name) for name in ("numpy", "scipy", "scikit-image")}
        return {"statistics": summarise_noise(made, noise, len(draws)), "versions": versions}

    facts = output.update(ids, title, make)
    _log_statistics(title, facts["statistics"])
    return facts


def _distort_file(
    item: tuple[Path, Draw | None], output: Output, noise: NoiseConfig, structure: ClassSpec
) -> MaskRecord:
    path, drawn = item
    clean = read_mask(path)
    noisy = distort(clean, drawn, noise) if drawn else Distorted(clean)
    write_png(output.path(path.stem), noisy.mask)
    return MaskRecord.measure(path.stem, clean, noisy, structure)


def _warn_of_kept(kept: list[str], n_drawn: int, title: str) -> None:
    if kept:
        named = ", ".join(kept[:NAMED_AT_MOST]) + (", ..." if len(kept) > NAMED_AT_MOST else "")
        log.warning(
            "%s: %d of the %d masks drawn for noise stay clean, being empty or too small for it: %s",
            *(title, len(kept), n_drawn, named),
        )


def summarise_noise(made: Sequence[MaskRecord], noise: NoiseConfig, n_drawn: int) -> dict[str, Any]:
    """Statistics over all masks.

    Returns:
        n_images, n_drawn (for noise), n_kept_clean (too small for noise); count and mean_dice per type, over all and
        over all noisy masks; foreground (fraction of clean object pixels); R_fg and R_bg, the fractions of the pixels
        labelled object and background with that clean label, over all training pixels within the structure's crop, 1
        where no pixel has the label; R_fg_formula and R_bg_formula, their expectation from alpha, beta and foreground.

    Source: superpixel-guided learning, released code ("remember rates", there copied by hand).
    """
    dice = {kind: [one.dice_to_clean for one in made if one.type == kind] for kind in (CLEAN, *NOISE_TYPES)}
    noisy_dice = [one.dice_to_clean for one in made if one.type != CLEAN]
    groups = dice | {"noisy": noisy_dice, "all": [one.dice_to_clean for one in made]}
    noisy, clean, both, total = np.sum([one.counts for one in made], axis=0).tolist()
    wrong_share = noise.alpha * noise.beta / 2  # of the object's area: missed, and as much claimed in excess
    return {
        "n_images": len(made),
        "n_drawn": n_drawn,
        "n_kept_clean": n_drawn - len(noisy_dice),
        "count": {kind: len(values) for kind, values in dice.items()},
        "mean_dice": {kind: float(np.mean(values)) for kind, values in groups.items() if values},
        "foreground": clean / total,
        "R_fg": both / noisy if noisy else 1.0,
        "R_bg": (total - noisy - clean + both) / (total - noisy) if total > noisy else 1.0,
        "R_fg_formula": 1 - wrong_share,
        "R_bg_formula": 1 - wrong_share * clean / (total - clean) if total > clean else 1.0,
    }


def _log_statistics(title: str, found: dict[str, Any]) -> None:
    types = ", ".join(f"{count} {kind}" for kind, count in found["count"].items())
    dice = ", ".join(f"{kind} {value:.4f}" for kind, value in found["mean_dice"].items() if kind != CLEAN)
    log.info("%s: %d masks: %s", title, found["n_images"], types)
    log.info("%s: Dice to the clean mask: %s", title, dice)
    log.info(
        "%s: R_fg %.4f (by formula %.4f), R_bg %.4f (by formula %.4f)",
        *(title, *(found[key] for key in ("R_fg", "R_fg_formula", "R_bg", "R_bg_formula"))),
    )


def draw_noisy_masks(folder: ImageFolder, noise: NoiseConfig, structure: str, path: Path, per_type: int = 5) -> None:
    """Draws some images of each type with the outlines of the clean and the noisy mask.

    Args:
        folder: the prepared images, with this noise.
        noise: the noise.
        structure: whose masks.
        path: the picture, .png; replaced when it exists.
        per_type: images per type.

    Raises:
        DataError: the noise does not exist, or an image is missing.
    """
    noisy_folder = folder.noise_folder(noise, structure)
    rows = read_csv(noisy_folder / TABLE, COLUMNS)
    title = f"{folder.spec.name} {structure}, {noise.name}: clean (blue, dashed) and noisy (orange) outlines"
    figure, grid = panel_grid(title, len(noise.types), per_type)
    for panels, kind in zip(grid, noise.types, strict=True):
        of_kind = [row for row in rows if row["type"] == kind]
        chosen = np.unique(np.linspace(0, len(of_kind) - 1, per_type).round().astype(int)) if of_kind else []
        for axes, row in zip(panels, (of_kind[index] for index in chosen), strict=False):
            image_id = row["id"]
            caption = f"{image_id}\n{kind}, Dice {float(row[COLUMNS[-1]]):.3f}"
            show_image(axes, to_8_bit(read_image(folder.image_path(image_id))), caption, (0.0, 255.0))
            draw_outline(axes, read_mask(folder.mask_path(image_id, structure)), EXPERT_COLOUR, (0, (3, 1)))
            draw_outline(axes, read_mask(noisy_folder / f"{image_id}.png"), OTHER_COLOUR)
    save_figure(figure, path)
