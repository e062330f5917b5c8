"""A report page: the results of a run in a single HTML file that needs no network and prints well."""

import base64
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from util.errors import DataError
from util.files import write_text
from util.results.tables import Table

TEMPLATE = Path(__file__).with_name("report.html.j2")


def save_report(
    path: Path,
    title: str,
    *,
    tables: Sequence[Table] = (),
    pictures: Mapping[str, Path] | None = None,
    facts: Mapping[str, Any] | None = None,
    command: str = "",
) -> None:
    """Writes one HTML page with the tables, the pictures and what is needed to reproduce them, atomically.

    Args:
        path: the page.
        title: heading.
        tables: see `util.results.tables.make_tables`.
        pictures: caption -> PNG file; the page contains the pictures themselves.
        facts: configuration and versions; may be nested.
        command: the command line that produced the results.

    Raises:
        DataError: a picture cannot be read.
    """
    environment = Environment(
        loader=FileSystemLoader(TEMPLATE.parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template(TEMPLATE.name).render(
        title=title,
        tables=tables,
        pictures={caption: _encode(file) for caption, file in (pictures or {}).items()},
        facts=dict(_flatten(facts or {})),
        command=command,
    )
    write_text(path, page)


def _encode(path: Path) -> str:
    try:
        return base64.b64encode(path.read_bytes()).decode()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}). Draw it again, or leave it out.") from error


def _flatten(facts: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested mappings as one, with keys like "optim.lr"."""
    for name, value in facts.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
