"""What `mkdocs` does not do by itself: pages keep their paths in the repository, so that links between them hold.

The README is the index, and the notes next to data sets, scripts and recipes are pages, too. Other files that a page
links to, such as modules, are copied into the site as they are.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

PAGES = ("*.md", "docs/*.md", "data/*/README.md", "containers/*.md", "examples/launch/*.md")
LINK = re.compile(r"\]\(([^()\s#]+)(?:#[^()\s]*)?\)")


def linked_files(root: Path, page: Path) -> Iterator[Path]:
    """The files of the repository that a page links to, or shows as a picture."""
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        path = (page.parent / target).resolve()
        if "://" not in target and path.is_file() and path.is_relative_to(root):
            yield path


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Replaces the files of the folder docs by the pages of the whole repository, with their paths there."""
    root = Path(config.config_file_path).parent.resolve()
    for file in list(files):
        if file.src_dir == config.docs_dir:  # others are of the theme
            files.remove(file)
    pages = {page for pattern in PAGES for page in root.glob(pattern)}
    linked = {path for page in pages for path in linked_files(root, page)}
    styles = {root / name for name in config.extra_css}
    for path in sorted(pages | linked | styles):
        name = path.relative_to(root).as_posix()
        files.append(File.generated(config, name, abs_src_path=str(path)))
    return files
