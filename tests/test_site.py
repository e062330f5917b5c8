"""The documentation: the site is built without a warning, links hold, and nothing is fetched from elsewhere."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from docs.site_hooks import PAGES, linked_files

ROOT = Path(__file__).parents[1]
SOURCES = ("data", "dataloaders", "models", "util", "benchmarks", "examples", "tests", "containers", ".ci")
LINES = 130  # of the README
FETCHED = re.compile(
    r"<(?:script|img|iframe|source)\b[^>]*\bsrc=[\"']?(?:https?:)?//|<link\b[^>]*\bhref=[\"']?https?://|url\(http"
)


def pages(root: Path) -> set[Path]:
    return {page for pattern in PAGES for page in root.glob(pattern)}


def build(root: Path, out: Path) -> subprocess.CompletedProcess[str]:
    """Runs mkdocs. Not with --quiet: warnings that are not shown are not counted by `strict` either."""
    command = [sys.executable, "-m", "mkdocs", "build", "--config-file", str(root / "mkdocs.yml")]
    return subprocess.run([*command, "--site-dir", str(out)], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The built site; a warning, such as a link or an anchor that does not exist, is an error."""
    out = tmp_path_factory.mktemp("site")
    run = build(ROOT, out)
    assert run.returncode == 0, run.stdout + run.stderr
    return out


def test_every_page_is_in_the_site(site):
    names = {page.relative_to(ROOT).with_suffix(".html").as_posix() for page in pages(ROOT)}
    names = {re.sub(r"README\.html$", "index.html", name) for name in names}
    assert {"index.html", "docs/questions.html", "data/CHAOST2/index.html"} <= names
    assert [name for name in sorted(names) if not (site / name).is_file()] == []
    assert (site / "docs/images/overview.png").is_file()
    assert (site / "models/methods/base.py").is_file()  # linked from a page


def test_the_site_fetches_nothing_from_elsewhere(site):
    files = [*site.rglob("*.html"), *site.rglob("*.css")]
    assert len(files) > 30
    assert [file.name for file in files if FETCHED.search(file.read_text(encoding="utf-8"))] == []
    assert FETCHED.search('<script src="https://unpkg.com/x"></script>')


def test_pictures_styles_and_scripts_are_in_the_site(site):
    missing, found = [], 0
    for page in [site / "index.html", site / "docs/metrics.html"]:
        text = page.read_text(encoding="utf-8")
        for target in re.findall(r"<(?:script|img|link)\b[^>]*\b(?:src|href)=\"?([^\"\s>?#]+)", text):
            found += 1
            missing += [target for file in [page.parent / target] if not file.is_file()]
    assert found > 10
    assert missing == []


@pytest.mark.parametrize(
    ("link", "complaint"),
    [
        ("metrics.md#nowhere", "does not contain an anchor '#nowhere'"),
        ("#nowhere", "there is no such anchor on this page"),
        ("nothing.md", "is not found among documentation files"),
        ("../models/nothing.py", "is not found among documentation files"),
        ("../examples/launch/sites", "unrecognized relative link"),
    ],
)
def test_broken_links_stop_the_build(link, complaint, tmp_path):
    for name in (
        "mkdocs.yml",
        "docs/site_hooks.py",
        "docs/site.css",
        "docs/metrics.md",
        "docs/reports.md",
        "docs/runs.md",
        "README.md",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    with (tmp_path / "docs/runs.md").open("a") as page:
        page.write(f"\n[broken]({link})\n")
    run = build(tmp_path, tmp_path / "site")
    assert run.returncode == 1
    assert [line for line in run.stderr.splitlines() if "docs/runs.md" in line and link in line and complaint in line]


def test_links_hold_in_the_repository():
    for page in pages(ROOT):
        targets = re.findall(r"\]\((?!https?://|#)([^()\s#]+)", page.read_text(encoding="utf-8"))
        assert {(page.parent / target).resolve() for target in targets} == set(linked_files(ROOT, page)), page


def test_pages_that_code_names_exist():
    files = [file for place in SOURCES for file in (ROOT / place).rglob("*") if file.suffix in (".py", ".sh", ".j2")]
    files += [*ROOT.glob("*.py"), *ROOT.glob("*.toml"), ROOT / "Makefile"]
    named = {name for file in files for name in re.findall(r"\bdocs/\w+\.md", file.read_text(encoding="utf-8"))}
    assert {"docs/predict.md", "docs/clusters.md"} <= named
    assert [name for name in sorted(named) if not (ROOT / name).is_file()] == []


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= LINES
    assert (ROOT / "docs/images/overview.png").stat().st_size < 300_000


def test_lists_have_a_blank_line_before_them():
    """Without one, GitHub shows a list, but the site a paragraph."""
    for page in pages(ROOT):
        text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
        assert re.findall(r"^(?![-*|#>]|\d+\. |    |  ).+\n(?:- |1\. ).*", text, re.MULTILINE) == [], page
