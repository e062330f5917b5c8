"""Memory of a process that draws training episodes, on few and on many scans.

python tests/soak/memory.py FOLDER     # of one prepared folder; `soak.py --memory` compares two
"""

import json
import logging
import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from dataloaders.fewshot.config import FewShotConfig  # noqa: E402
from dataloaders.fewshot.data import open_fewshot  # noqa: E402
from dataloaders.ordering import LoaderOptions  # noqa: E402
from util.files import read_json, write_json  # noqa: E402

logger = logging.getLogger("soak")

FIRST_ID = 101  # not a published one
N_DIFFERENT = 8  # scans; the others are links to the same files
N_BATCHES = 20
SLICES_BYTES = 8 * 64 * 64 * (4 + 4)  # of one scan, as float32 image and int32 ids
MOST_GROWTH = 0.1  # relative to the size of the additional scans


def make_scans(fixtures: Any, folder: Path, count: int) -> Path:
    """A prepared folder of `count` small scans, made by the fixtures of the tests (tests/conftest.py)."""
    different = range(FIRST_ID, FIRST_ID + N_DIFFERENT)
    fixtures.write_prepared(folder, different)
    index = read_json(folder / "classmap_1.json")
    for scan in range(different.stop, FIRST_ID + count):
        twin = different[(scan - FIRST_ID) % N_DIFFERENT]
        for kind in ("image", "label", "superpix-MIDDLE"):
            os.link(folder / f"{kind}_{twin}.nii.gz", folder / f"{kind}_{scan}.nii.gz")
        for slices_of_scan in index.values():
            slices_of_scan[str(scan)] = slices_of_scan[str(twin)]
    write_json(folder / "classmap_1.json", index)
    (folder / "manifest.json").unlink()  # which records the index of the first scans
    return folder


def anonymous_mb() -> float:
    """Memory of this process that is not backed by files, in MB."""
    return int(re.findall(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())[0]) / 1000


def measure(folder: Path) -> dict[str, float]:
    """Draws batches as in training; returns the memory before, at the peak, and at the end, in MB."""
    seen, is_over = [anonymous_mb()], threading.Event()

    def watch() -> None:
        while not is_over.wait(0.005):
            seen.append(anonymous_mb())

    watcher = threading.Thread(target=watch)
    watcher.start()
    data = open_fewshot(FewShotConfig(), str(folder))
    loader = data.loader(data.fit_normalisation(), 1234, 2, range(N_BATCHES), LoaderOptions())
    n_drawn = sum(1 for _ in loader)
    is_over.set()
    watcher.join()
    return {"before": seen[0], "most": max(seen), "end": anonymous_mb(), "n_drawn": n_drawn}


def measured(folder: Path) -> dict[str, float]:
    """`measure` in a new process."""
    command = [sys.executable, str(Path(__file__)), str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{folder}: measuring failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def compare(fixtures: Any, few: int, many: int, out: Path) -> dict[str, Any]:
    """Measures twice on each number of scans, first without packed files; `is_flat`: whether memory does not grow."""
    report: dict[str, Any] = {"allowed_mb": MOST_GROWTH * (many - few) * SLICES_BYTES / 1e6}
    for name, count in (("few", few), ("many", many)):
        folder = make_scans(fixtures, out / f"scans_{count}", count)
        report[name] = {"n_scans": count, "first": measured(folder), "again": measured(folder)}
    growth = [report["many"][start]["most"] - report["few"][start]["most"] for start in ("first", "again")]
    report |= {"growth_mb": growth, "is_flat": max(growth) <= report["allowed_mb"]}
    write_json(out / "memory.json", report)
    logger.info("memory: %s", json.dumps(report))
    return report


if __name__ == "__main__":
    sys.stdout.write(json.dumps(measure(Path(sys.argv[1]))) + "\n")
