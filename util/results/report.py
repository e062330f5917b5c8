"""One page that holds a run's results: a single HTML file, without network, fit for printing."""

import base64
import html
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

from util.errors import DataError
from util.files import write_text
from util.results.tables import Printable


def save_report(
    path: Path,
    title: str,
    *,
    tables: Sequence[Printable] = (),
    pictures: Mapping[str, Path] | None = None,
    facts: Mapping[str, Any] | None = None,
    command: str = "",
) -> None:
    """Writes one HTML page with the tables, the pictures and what is needed to make them again.

    Args:
        path: the page.
        title: heading.
        tables: see `util.results.tables.paper_table`.
        pictures: caption -> PNG file; the page holds the pictures themselves.
        facts: configuration and versions; may be nested.
        command: the command line that made the results.

    Raises:
        DataError: a picture cannot be read.
    """
    contents = {
        "Scores": "".join(map(_table, tables)),
        "Pictures": "".join(_picture(caption, file) for caption, file in (pictures or {}).items()),
        "Command": f"<pre>{html.escape(command)}</pre>\n" if command else "",
        "Configuration": _facts(facts) if facts else "",
    }
    sections = "".join(f"<h2>{name}</h2>\n{content}" for name, content in contents.items() if content)
    write_text(path, _PAGE.substitute(title=html.escape(title), sections=sections))


def _table(table: Printable) -> str:
    header, lines = table.cells()
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    body = "".join("<tr>" + "".join(map(_table_cell, cells)) + "</tr>\n" for cells in lines)
    notes = "".join(f"<li>{html.escape(note)}</li>\n" for note in table.notes)
    return (
        f'<div class="wide"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody>\n</table></div>\n'
        f'<ul class="notes">\n{notes}</ul>\n'
    )


def _table_cell(cell: str) -> str:
    """Mean ± deviation on one line, the interval below it."""
    figure, bracket, interval = cell.partition(" [")
    below = f"<small>{html.escape(bracket.strip() + interval)}</small>" if bracket else ""
    return f"<td>{html.escape(figure)}{below}</td>"


def _picture(caption: str, path: Path) -> str:
    try:
        content = base64.b64encode(path.read_bytes()).decode()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}). Draw it again, or leave it out.") from error
    text = html.escape(caption)
    return f'<figure><img alt="{text}" src="data:image/png;base64,{content}"><figcaption>{text}</figcaption></figure>\n'


def _facts(facts: Mapping[str, Any]) -> str:
    rows = (f"<dt>{html.escape(name)}</dt><dd>{html.escape(str(value))}</dd>\n" for name, value in _flat(facts))
    return f"<dl>\n{''.join(rows)}</dl>\n"


def _flat(facts: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in facts.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


_PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
:root { color-scheme: light; --ink: #1b1f24; --soft: #5b6570; --line: #d5dae0; --tint: #f5f7f9; }
body { margin: 2.5rem auto; max-width: 72rem; padding: 0 1.5rem; background: white; color: var(--ink);
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 1.5rem; padding-bottom: .75rem;
  border-bottom: 2px solid var(--ink); overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.25rem 0 .75rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: .85rem; }
th { text-align: left; font-weight: 600; border-bottom: 1.5px solid var(--ink); padding: .35rem .6rem .35rem 0; }
td { border-bottom: 1px solid var(--line); padding: .45rem .6rem .45rem 0; vertical-align: top;
  white-space: nowrap; }
td small { display: block; color: var(--soft); }
.notes { color: var(--soft); font-size: .85rem; padding-left: 1.1rem; margin: .75rem 0 1.75rem; }
figure { margin: 0 0 2rem; }
img { max-width: 100%; height: auto; display: block; }
figcaption { color: var(--soft); font-size: .9rem; margin-top: .4rem; }
pre { background: var(--tint); border-left: 3px solid var(--line); padding: .75rem 1rem; font-size: .85rem;
  white-space: pre-wrap; overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1.5rem; font-size: .9rem; margin: 0; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
@page { margin: 12mm; }
@media print {
  html { font-size: 9pt; }
  body { margin: 0; max-width: none; padding: 0; }
  h2 { break-after: avoid; }
  figure, tr { break-inside: avoid; }
  img { max-height: 24cm; }
  .wide { overflow: visible; }
  table { font-size: 7pt; }
  th, td { padding-right: .4rem; }
}
</style>
</head>
<body>
<h1>$title</h1>
$sections
</body>
</html>
""")
