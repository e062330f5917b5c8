"""Running the scripts of examples/, and reading the commands that they print."""

import os
import shlex
import subprocess
from pathlib import Path

EXAMPLES = Path(__file__).parents[1] / "examples"
ROOT = EXAMPLES.parent
SETTINGS = (
    *("SETTING", "LABEL_SETS", "FOLDS", "EXCLUDE", "N_STEPS", "SCALE", "SEED", "DATA_DIR", "LOG_DIR", "NUM_WORKERS"),
    *("DEVICE", "EXTRA", "PYTHON", "DRY_RUN"),
    *("METHODS", "ALPHAS", "BETAS", "SEEDS", "STRUCTURES", "SIZE_PX", "JOBS"),
    *("LABELS", "TARGETS", "DATASETS", "SETTINGS", "SITE", "LAUNCH"),
    *("DATASET", "ROUNDS", "CHECKPOINT", "SCORE", "SCANS", "OUT"),
)


def script(name, folder, **settings):
    """Runs a script from `folder`; variables that happen to be set here do not count."""
    clean = {key: value for key, value in os.environ.items() if key not in SETTINGS}
    command = ["bash", str(EXAMPLES / name)]
    return subprocess.run(command, cwd=folder, env=clean | settings, capture_output=True, text=True, check=False)


def commands(name, folder, **settings):
    """The commands that a dry run prints, as words without the interpreter."""
    done = script(name, folder, DRY_RUN="1", **settings)
    assert (done.returncode, done.stderr) == (0, "")
    return [shlex.split(line)[1:] for line in done.stdout.splitlines()]


def keys(words):
    return dict(word.split("=", 1) for word in words if "=" in word)
