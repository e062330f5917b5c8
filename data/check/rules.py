"""The rules of a valid prepared folder of scans. A rule yields a finding for each violation."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from data.check.facts import ImageFacts, LabelFacts, Readable, SuperpixelFacts, Unreadable
from data.check.prepared import Finding as Finding
from data.check.prepared import Prepared
from data.prepare.class_index import make_class_index
from dataloaders.io.geometry import corner_distance_mm
from dataloaders.scans import manifest as manifests
from dataloaders.scans.labels import in_full
from dataloaders.scans.plausibility import AIR_BELOW_HU, is_hounsfield
from util.errors import UserError
from util.files import read_json
from util.ids import natural_key
from util.inventory import first_names
from util.items import Failures, catching
from util.records import hash_files

DARKEST = 0.5  # prepared intensity, of 255, that a window's lower end may become by interpolation
ROUNDED_MM = 0.011  # by which two spacings differ that were rounded to hundredths, one up and one down
TOLERANCE_MM = 0.1  # by which the corners of two grids may differ: far below a voxel, far above rounding


def missing_files(prepared: Prepared) -> Iterator[Finding]:
    """Every scan has an image, where needed pseudo-labels, and a label unless it was prepared without one."""
    scans = sorted({*prepared.facts["image"], *prepared.facts["label"]}, key=natural_key)
    for kind, of_kind in prepared.facts.items():
        remedy = prepared.prepare_again if kind in ("image", "label") else prepared.segment_again
        for scan in scans:
            if scan not in of_kind and (kind != "label" or prepared.needs_label(scan)):
                text = f"is missing, though other files of scan {scan} exist. {remedy}"
                yield Finding("error", prepared.path(kind, scan), text)


def failed_scans(prepared: Prepared) -> Iterator[Finding]:
    """Every scan that was found could be prepared."""
    for scan, reason in prepared.manifest.failed.items():
        remedy = f"Correct or remove that, then run `{prepared.prepare_command}` again."
        yield Finding("error", prepared.path("image", scan), f"could not be prepared the last time: {reason} {remedy}")


def published_scans(prepared: Prepared) -> Iterator[Finding]:
    """The labelled scans of a published set are published ones; else its published folds do not apply."""
    others = [scan for scan in prepared.facts["label"] if prepared.spec.cases and scan not in prepared.spec.cases]
    if others:
        text = (
            f"scans {first_names(others)} are no published scans of {prepared.spec.name}, so the published folds are "
        )
        remedy = "not used: all labelled scans are divided evenly. Remove these scans to use the published folds."
        yield Finding("warning", prepared.folder, f"{text}{remedy}")


def unreadable_files(prepared: Prepared) -> Iterator[Finding]:
    """Every file can be read."""
    for kind, of_kind in prepared.facts.items():
        for scan, facts in of_kind.items():
            if isinstance(facts, Unreadable):
                yield Finding("error", prepared.path(kind, scan), facts.reason)


def equal_grids(prepared: Prepared) -> Iterator[Finding]:
    """The files of a scan share shape and position in the patient."""
    images = prepared.readable("image", ImageFacts)
    for kind in set(prepared.facts) - {"image"}:
        remedy = prepared.prepare_again if kind == "label" else prepared.segment_again
        for scan, facts in prepared.readable(kind, Readable).items():
            difference = _difference(facts, images[scan]) if scan in images else None
            if difference:
                text = f"{difference} of {prepared.path('image', scan).name}; expected the same grid. {remedy}"
                yield Finding("error", prepared.path(kind, scan), text)


def _difference(facts: Readable, image: Readable) -> str | None:
    if facts.shape != image.shape:
        return f"shape (D, H, W) {tuple(facts.shape)} differs from {tuple(image.shape)}"
    if corner_distance_mm(facts.grid, image.grid) <= TOLERANCE_MM:
        return None
    if not np.allclose(facts.spacing_mm, image.spacing_mm, rtol=1e-3):
        return f"spacing (z, y, x) {_mm(facts.spacing_mm)} differs from {_mm(image.spacing_mm)}"
    axes, image_axes = (one.grid.affine[:3, :3].round(3) for one in (facts, image))
    if not np.allclose(axes, image_axes, atol=0.01):
        return f"orientation (affine) {axes.tolist()} differs from {image_axes.tolist()}"
    origin, image_origin = (one.grid.affine[:3, 3].round(2).tolist() for one in (facts, image))
    return f"origin (x, y, z) {origin} mm differs from {image_origin} mm"


def _mm(spacing: Sequence[float]) -> str:
    return f"({', '.join(f'{value:.3g}' for value in spacing)}) mm"


def common_plane(prepared: Prepared) -> Iterator[Finding]:
    """The scans' slices share size and, where the data set has a common grid, spacing; none is below the crop."""
    images = prepared.readable("image", ImageFacts)
    sizes = {scan: (facts.shape[1], facts.shape[2]) for scan, facts in images.items()}
    for scan, size in _unusual(sizes):
        text = f"slices of {size[0]} x {size[1]} pixels, unlike the other scans. {prepared.prepare_again}"
        yield Finding("warning", prepared.path("image", scan), text)
    spacings = {scan: tuple(round(mm, 2) for mm in facts.spacing_mm[1:]) for scan, facts in images.items()}
    grid = prepared.spec.grid
    for scan, spacing in _unusual(spacings, ROUNDED_MM) if grid.spacing_mm or grid.in_plane_mm else ():
        text = f"in-plane spacing (y, x) {_mm(spacing)}, unlike the other scans. {prepared.prepare_again}"
        yield Finding("warning", prepared.path("image", scan), text)
    for scan, size in sizes.items():
        if min(size) < prepared.min_size_px:
            crop = f"the crop of {prepared.min_size_px} x {prepared.min_size_px}"
            text = f"slices of {size[0]} x {size[1]} pixels are smaller than {crop}. {prepared.prepare_again}"
            yield Finding("error", prepared.path("image", scan), text)


def _unusual(values: Mapping[str, tuple], tolerance: float = 0.0) -> list[tuple[str, tuple]]:
    """The scans whose value is not the most frequent one, up to a tolerance in each number."""
    usual = Counter(values.values()).most_common(1)[0][0] if values else ()
    return [(scan, value) for scan, value in values.items() if np.abs(np.subtract(value, usual)).max() > tolerance]


def valid_intensities(prepared: Prepared) -> Iterator[Finding]:
    """Images are finite and not constant."""
    for scan, facts in prepared.readable("image", ImageFacts).items():
        path = prepared.path("image", scan)
        if facts.n_not_finite:
            yield Finding("error", path, f"{facts.n_not_finite} voxels are NaN or infinite. {prepared.prepare_again}")
        elif facts.minimum == facts.maximum:
            yield Finding("error", path, f"every voxel is {facts.minimum:g}: no image. {prepared.prepare_again}")


def plausible_hounsfield(prepared: Prepared) -> Iterator[Finding]:
    """CT shows air: the window's lower end occurs in every image."""
    window = prepared.spec.intensity.window
    if window is None or not is_hounsfield(prepared.spec.modality, window) or window[0] < 3 * AIR_BELOW_HU:
        return
    for scan, facts in prepared.readable("image", ImageFacts).items():
        low, high = (window[0] + value / 255 * (window[1] - window[0]) for value in (facts.minimum, facts.maximum))
        if facts.minimum > DARKEST and facts.maximum > facts.minimum:
            text = (
                f"from {low:.4g} to {high:.4g} HU, none at {window[0]:g} HU or below, where a CT has air: probably no "
                "Hounsfield units. Apply the rescale slope and intercept when converting, and prepare again. If the "
                "scan is cropped to the inside of the body, this is right."
            )
            yield Finding("warning", prepared.path("image", scan), text)


def known_labels(prepared: Prepared) -> Iterator[Finding]:
    """Labels hold the data set's classes and nothing else."""
    highest = len(prepared.spec.class_names) - 1
    for scan, facts in prepared.readable("label", LabelFacts).items():
        if facts.unknown:
            values = ", ".join(map(in_full, facts.unknown))
            text = f"label values {values} are no class of {prepared.spec.name}; expected integers from 0 to {highest}."
            remedy = "Correct the label (resample labels class by class, not as numbers), or name another data set."
            yield Finding("error", prepared.path("label", scan), f"{text} {remedy}")


def classes_present(prepared: Prepared) -> Iterator[Finding]:
    """Every labelled scan shows the scored classes; the support scans must."""
    support = prepared.fold.support if prepared.fold else ()
    for scan, facts in prepared.readable("label", LabelFacts).items():
        absent = [prepared.spec.class_names[value] for value in prepared.spec.evaluated if not any(facts.pixels[value])]
        path = prepared.path("label", scan)
        if absent and scan in support:
            text = (
                f"no voxel of {', '.join(absent)}, but scan {scan} is the fold's support, which must show every class."
            )
            yield Finding("error", path, f"{text} Take another support_idx or another fold, or complete the label.")
        elif absent:
            text = f"no voxel of {', '.join(absent)}; the scan has no score of it."
            yield Finding("warning", path, f"{text} Complete the label if the class is in the image.")


def valid_pseudo_labels(prepared: Prepared) -> Iterator[Finding]:
    """Pseudo-labels hold whole ids without gaps."""
    if prepared.scale is None:
        return
    with_gaps, is_compact = [], False
    for scan, facts in prepared.readable(prepared.superpix, SuperpixelFacts).items():
        path, record = prepared.path(prepared.superpix, scan), prepared.record(f"{prepared.superpix}_{scan}")
        if not facts.is_integer:
            yield Finding("error", path, f"ids that are negative or no integers. {prepared.segment_again}")
        elif not facts.n_ids:
            above = (record.facts if record else {}).get("foreground_above", prepared.spec.foreground_above)
            threshold = "Otsu's threshold" if above is None else f"intensity {above:g}"
            text = f"no superpixel in the whole scan; expected some above {threshold}."
            remedy = "Check that the image has prepared intensities, and `foreground_above` of the description."
            yield Finding("error", path, f"{text} {remedy} {prepared.segment_again}")
        elif not facts.is_consecutive:
            with_gaps.append(scan)
            is_compact |= record is not None and record.settings.get("numbering") == "compact"
    if with_gaps:
        text = f"ids leave gaps in scans {first_names(with_gaps)}; expected 1, 2, 3... (normal in legacy numbering)."
        path = prepared.path(prepared.superpix, with_gaps[0])
        yield Finding("error" if is_compact else "warning", path, f"{text} {prepared.segment_again}")


def fresh_pseudo_labels(prepared: Prepared) -> Iterator[Finding]:
    """Pseudo-labels were made from the images in the folder."""
    if prepared.scale is None:
        return
    unrecorded = []
    for scan in prepared.readable("image", ImageFacts).keys() & prepared.facts[prepared.superpix].keys():
        record = prepared.record(f"{prepared.superpix}_{scan}")
        if record is None:
            unrecorded.append(scan)
        elif record.staleness(prepared.folder):
            text = f"stale: made from another version of {prepared.path('image', scan).name}. {prepared.segment_again}"
            yield Finding("error", prepared.path(prepared.superpix, scan), text)
    if unrecorded:
        scans = first_names(sorted(unrecorded, key=natural_key))
        text = f"no record of the images that {prepared.superpix} of scans {scans} was made from."
        remedy = f"If in doubt: {prepared.segment_again}"
        yield Finding("warning", prepared.folder / manifests.FILE_NAME, f"{text} {remedy}")


def fresh_statistics(prepared: Prepared) -> Iterator[Finding]:
    """The manifest's mean and deviation are those of the images in the folder."""
    for scan in prepared.readable("image", ImageFacts):
        record, path = prepared.record(f"scan_{scan}"), prepared.path("image", scan)
        if record and record.made.get(path.name) != hash_files([path], prepared.folder)[path.name]:
            text = f"changed since {manifests.FILE_NAME} recorded its mean and deviation. {prepared.prepare_again}"
            yield Finding("error", path, text)


def fresh_class_index(prepared: Prepared) -> Iterator[Finding]:
    """`classmap_1.json` exists, and every classmap agrees with the labels (the background is not used)."""
    if prepared.is_part:
        return
    pixels = {scan: np.array(facts.pixels) for scan, facts in prepared.readable("label", LabelFacts).items()}
    has_faults = any(  # which are told on their own, and change the labels when they are mended
        finding.file.name.startswith("label_")
        for rule in (unreadable_files, equal_grids, known_labels)
        for finding in rule(prepared)
    )
    for path in sorted({prepared.folder / "classmap_1.json", *prepared.folder.glob("classmap_*.json")}):
        least = path.stem.removeprefix("classmap_")
        if not least.isdigit() or int(least) < 1:
            continue
        remedy = prepared.command("prepare", f"--step index --min-foreground-px {int(least)}")
        if not path.exists():
            yield Finding("error", path, f"is missing: which slices show which class. {remedy}")
            continue
        try:
            stored = read_json(path)
        except UserError as error:
            yield Finding("error", path, f"{str(error).removeprefix(f'{path}: ')} {remedy}")
            continue
        expected = make_class_index(pixels, prepared.spec, int(least))
        differing = [name for name in prepared.spec.class_names[1:] if _entry(stored, name) != expected[name]]
        record, labels = prepared.record(path.stem), [prepared.path("label", scan).name for scan in pixels]
        changed = record.staleness(prepared.folder, expected=labels) if record else ""
        if differing or (changed and not has_faults):
            reason = f"disagrees with the labels about {', '.join(differing)}" if differing else f"labels {changed}"
            severity = "error" if int(least) == 1 else "warning"
            yield Finding(severity, path, f"stale: {reason}. {remedy}")


def _entry(stored: object, name: str) -> object:
    return stored.get(name) if isinstance(stored, dict) else None


def no_duplicates(prepared: Prepared) -> Iterator[Finding]:
    """No scan exists twice, above all not on both sides of a fold."""
    groups = {}
    if prepared.fold:
        groups = {scan: name for name in ("train", "query", "support") for scan in getattr(prepared.fold, name)}
    first_with: dict[str, str] = {}
    for scan, facts in prepared.readable("image", ImageFacts).items():
        first = first_with.setdefault(facts.sha256, scan)
        if first != scan:
            is_leak = groups.get(first) != groups.get(scan)
            roles = f" ({groups[first]} and {groups[scan]} in this fold)" if is_leak else ""
            text = f"the same image as {prepared.path('image', first).name}{roles}. Remove one of the two scans."
            yield Finding("error" if is_leak else "warning", prepared.path("image", scan), text)


def findings_of(prepared: Prepared) -> Iterator[Finding]:
    """What all rules find; a rule that cannot be applied is a finding, too."""
    for rule in RULES:
        failures: Failures = {}
        with catching(failures, rule.__name__, prepared.folder):
            yield from rule(prepared)
        for reason in failures.values():
            yield Finding(
                "error", prepared.folder, f"cannot be checked for {rule.__name__.replace('_', ' ')}: {reason}"
            )


RULES = (
    missing_files,
    failed_scans,
    published_scans,
    unreadable_files,
    equal_grids,
    common_plane,
    valid_intensities,
    plausible_hounsfield,
    known_labels,
    classes_present,
    valid_pseudo_labels,
    fresh_pseudo_labels,
    fresh_statistics,
    fresh_class_index,
    no_duplicates,
)
