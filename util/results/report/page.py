"""Writes the page of a run: scores, cases, curves, a viewer, and what is needed to reproduce them."""

import base64
import hashlib
import math
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from markupsafe import Markup

from util.errors import DataError
from util.files import write_text
from util.results.confidence import paired
from util.results.report.cases import FAR_RULE, CaseGroup, CaseRow, group_cases
from util.results.report.images import PICTURES_BYTES, Bundle, Picture, encode_picture, encode_view, niivue
from util.results.report.record import Headline
from util.results.report.runs import Run, read_run
from util.results.report.scatter import Scatter, confidence_plot
from util.results.report.strip import Plot, make_plot
from util.results.report.views import View
from util.results.templates import environment
from util.schema import flatten

FILE_NAME = "report.html"
MOST_PICTURES = 12  # in a page; further ones are in the run's folder
MOST_FURTHER_TABLES = 3  # of other scores than the main one that are shown; more of them have to be unfolded
TEMPLATES = Path(__file__).parent / "templates"
LETTERS = {"R": "right", "L": "left", "A": "front", "P": "back", "S": "head", "I": "feet"}


def save_report(folder: Path, out: Path | None = None) -> Path:
    """Writes the page of a run from what its folder holds; returns the page's path.

    Args:
        folder: of the run.
        out: the page; None: `report.html` in the run's folder.

    Raises:
        DataError: its scores cannot be used.
    """
    run = read_run(folder)
    path = out or folder / FILE_NAME
    write_text(path, render("run.html.j2", **_content(run)))
    return path


def render(template: str, *, bundle: Bundle | None = None, own: Path | None = None, **content: Any) -> str:
    """Renders a page with its style, its script, and a policy that allows these alone.

    Args:
        template: file in `templates`, or in `own`.
        bundle: NiiVue, see `images.niivue`.
        own: folder of a template that is not of a report, with a style and a script of that name, added to the usual.
        content: of the template.
    """
    styles, scripts = [TEMPLATES / "style.css"], [TEMPLATES / "page.js"]
    if bundle or content.get("views"):
        scripts += [TEMPLATES / "viewer.js", TEMPLATES / "volume.js"]
    if own is not None:
        stem = template.partition(".")[0]
        styles, scripts = [*styles, own / f"{stem}.css"], [*scripts, own / f"{stem}.js"]
    style, script = ("\n".join(file.read_text(encoding="utf-8") for file in files) for files in (styles, scripts))
    hashes = " ".join(_hash(text) for text in (script.encode(), *([bundle.script] if bundle else [])))
    policy = (
        f"default-src 'none'; script-src {hashes}; style-src {_hash(style.encode())}; img-src data: blob:; "
        f"{'connect-src data: blob:; ' if bundle else ''}base-uri 'none'; form-action 'none'"
    )
    templates = environment(TEMPLATES, *([own] if own else []))
    templates.filters |= {"score": score, "day": day, "signed": signed, "amount": "{:.4g}".format}
    return templates.get_template(template).render(
        policy=policy, style=Markup(style), script=Markup(script), bundle=bundle, **content
    )


def score(value: float | None, digits: int = 1) -> str:
    """A number for a table; a dash where it is undefined."""
    return "–" if value is None or math.isnan(value) else f"{value:.{digits}f}"


def day(time: str) -> str:
    """A time in ISO 8601 as a date in words; empty where it is none."""
    try:
        found = datetime.fromisoformat(time)
    except ValueError:
        return ""
    return f"{found.day} {found:%B %Y}"


def signed(value: float) -> str:
    """A difference for a table; a dash where it is undefined."""
    return "–" if math.isnan(value) else f"{value:+.1f}"


def strip_plot(group: CaseGroup) -> Plot | None:
    """All cases of a group by structure, in printed units; ids of the points are those of the cases' rows."""
    cases = [
        (name, [(row.case, row.anchor, group.factor * row.values.get(name, math.nan)) for row in group.rows])
        for name in group.structures
    ]
    return make_plot(cases, 0.0, group.highest)


def trust_plot(group: CaseGroup) -> Scatter | None:
    """The Dice of all masks of a group over their confidence; ids of the points are those of the cases' rows."""
    return confidence_plot(paired(group.scores), {row.case: row.anchor for row in group.rows})


def _content(run: Run) -> dict[str, Any]:
    record, groups, warnings = run.record, group_cases(run.scores), list(run.warnings)
    shown = [_shown(group, run.views) for group in groups]
    own = {path for view in run.views if (path := view.picture)}
    files = {caption: run.folder / file for caption, file in record.pictures.items()}
    together = {caption: file for caption, file in files.items() if file.resolve() not in {p.resolve() for p in own}}
    curves = {caption: run.folder / file for caption, file in record.curves.items()}
    n_pictures = sum(map(len, shown)) + sum(min(len(each), MOST_PICTURES) for each in (together, curves))
    most_bytes = PICTURES_BYTES // max(n_pictures, 1)
    drawn = {
        "overlays": [_overlays(each, warnings, most_bytes) for each in shown],
        "pictures": _pictures(together, warnings, most_bytes),
        "curves": _pictures(curves, warnings, most_bytes),
        "views": _views(shown[0]) if shown else [],
    }
    flat = flatten(record.settings)
    main = [table for table in record.tables if table.title == record.tables[0].title]
    further = [table for table in record.tables if table.title != record.tables[0].title]
    is_short = len(further) <= MOST_FURTHER_TABLES
    return drawn | {
        "record": record,
        "main_tables": record.tables if is_short else main,
        "further_tables": [] if is_short else further,
        "sentence": _sentence(run, groups),
        "headline": record.headline and _headline(record.headline),
        "warnings": _told(run) + warnings,  # by now with those of the pictures
        "groups": groups,
        "plots": [strip_plot(group) for group in groups],
        "trust": [trust_plot(group) for group in groups],
        "bundle": niivue() if drawn["views"] else None,
        "far_rule": FAR_RULE,
        "changed": {key: flat[key] for key in record.changed if key in flat},
        "unchanged": {key: value for key, value in flat.items() if key not in record.changed},
        "versions": record.versions or _sacred_versions(run.sacred),
        "repositories": run.sacred.get("experiment", {}).get("repositories", []),
    }


def _sentence(run: Run, groups: list[CaseGroup]) -> str:
    """What was run, in one sentence."""
    record, scores = run.record, run.scores
    told = {name: scores[name].unique() for name in ("setting", "weights", "seed") if name in scores}
    known = [f"{name} {values[0]}" for name, values in told.items() if len(values) == 1 and values[0]]
    n_scored = record.n_cases - len(record.failed)
    cases = f"{n_scored} of {record.n_cases} cases scored" if record.n_cases else ""
    if len(groups) > 1:
        cases += f" in {len(groups)} sets ({'; '.join(group.title for group in groups)})"
    when = day(record.finished or str(run.sacred.get("start_time", "")))
    what = ", ".join([record.title, *known])
    return ", ".join(filter(None, [f"{what}: {cases}" if cases else what, when])) + "."


def _headline(headline: Headline) -> dict[str, str]:
    has_interval = headline.low is not None and headline.high is not None
    interval = f"{headline.low:.{headline.digits}f} to {headline.high:.{headline.digits}f}" if has_interval else ""
    patients = f"{headline.n_patients} patient{'s' * (headline.n_patients != 1)}" if headline.n_patients else ""
    return {
        "title": headline.title,
        "line": headline.line,
        "mean": score(headline.mean, headline.digits),
        "interval": interval,
        "patients": patients,
    }


def _told(run: Run) -> list[str]:
    """What a reader must know before the scores."""
    record = run.record
    failed = [f"{len(record.failed)} of {record.n_cases} cases could not be scored; the means are of the others."]
    absent = [name for name in ("run.json", "config.json") if not (run.folder / name).exists()]
    files = [f"{', '.join(absent)} missing in the run's folder: the page cannot tell versions and settings."]
    return failed * bool(record.failed) + record.missing + files * bool(absent and not record.settings)


def _shown(group: CaseGroup, views: list[View]) -> list[tuple[CaseRow, View]]:
    """The marked cases of a group that have a view."""
    found = {}
    for view in views:
        if all(view.about.conditions.get(name, value) == value for name, value in group.conditions.items()):
            found.setdefault(view.about.case, view)
    return [(row, found[row.case]) for row in group.marked if row.case in found]


def _overlays(shown: list[tuple[CaseRow, View]], warnings: list[str], most_bytes: int) -> list[tuple[CaseRow, Picture]]:
    made = []
    for row, view in shown:
        if view.picture is not None:
            pictures = _pictures({f"{row.mark} case, {row.case}": view.picture}, warnings, most_bytes)
            made += [(row, picture) for picture in pictures]
    return made


def _pictures(files: Mapping[str, Path], warnings: list[str], most_bytes: int) -> list[Picture]:
    """The pictures that can be read, at most `MOST_PICTURES`; what is missing is added to the warnings."""
    made = []
    for caption, file in list(files.items())[:MOST_PICTURES]:
        try:
            made.append(encode_picture(file, caption, most_bytes))
        except DataError as error:
            warnings.append(str(error))
    if len(files) > MOST_PICTURES:
        warnings.append(f"{len(files) - MOST_PICTURES} further pictures are in the run's folder.")
    return made


def _views(shown: list[tuple[CaseRow, View]]) -> list[dict[str, Any]]:
    """Cases for the viewer."""
    return [
        encode_view(view)
        | {"label": f"{row.mark} case, {row.case}", "letters": [LETTERS[letter] for letter in view.about.letters]}
        for row, view in shown
    ]


def _sacred_versions(sacred: Mapping[str, Any]) -> dict[str, str]:
    """Python's and the packages' versions, and the hardware, as Sacred has recorded them; without the host's name."""
    host, experiment = sacred.get("host", {}), sacred.get("experiment", {})
    named = [str(each).partition("==") for each in experiment.get("dependencies", [])]
    packages = {name: version for name, _, version in named}
    told = {"python": host.get("python_version"), "cpu": host.get("cpu"), "os": " ".join(map(str, host.get("OS", [])))}
    return {name: str(value) for name, value in told.items() if value} | packages


def _hash(content: bytes) -> str:
    """A source of a content security policy."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(content).digest()).decode()}'"
