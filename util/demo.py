"""Runs the demo: trains and validates on a phantom data set, without data or a GPU, in about six minutes.

frugalseg demo
frugalseg demo --out my_demo --jobs 8
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from util.cli import run_main, whole
from util.parser import CommandParser

SCRIPT = Path(__file__).resolve().parents[1] / "examples/demo.sh"


def main(arguments: Sequence[str] | None = None) -> int:
    """Reads the command line and runs the script; returns its exit code."""
    given = make_parser().parse_args(arguments)
    settings = {"PYTHON": sys.executable, "OUT": str(given.out.expanduser().absolute()), "JOBS": str(given.jobs)}
    code = subprocess.run(["bash", str(SCRIPT)], env=os.environ | settings, check=False).returncode
    return code if code >= 0 else 128 - code


def make_parser() -> CommandParser:
    """The parser of the command line."""
    parser = CommandParser("demo", __doc__ or "")
    add = parser.add_argument
    add("--out", type=Path, default=Path("demo"), help="folder for data and results; reused (default: demo)")
    add("--jobs", type=whole(1), default=min(8, os.cpu_count() or 1), help="processes (default: one per core, up to 8)")
    return parser


if __name__ == "__main__":
    run_main(main)
