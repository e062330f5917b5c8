"""All finished validations below a folder, as the tables that papers print."""

from pathlib import Path

from util.errors import DataError
from util.files import write_text
from util.results import noise_scores, scores
from util.results.scores import csv_text
from util.results.tables import Printable, measured_tables, to_csv, to_markdown


def write_tables(root: Path, n_folds: int) -> str:
    """Writes table.md and table*.csv into `root`; returns the text of the former.

    Args:
        root: folder of experiments.
        n_folds: of a complete cross-validation of scans.

    Raises:
        DataError: no validation below, a damaged file, or two that contradict each other.
    """
    has_scans = any(root.rglob(scores.FILE_NAME))
    runs = noise_scores.collect_runs(root)
    if not has_scans and not runs:
        raise DataError(
            f"{root}: neither {scores.FILE_NAME} nor {noise_scores.FILE_NAME} there or below. Run the validation first."
        )
    tables: list[Printable] = []
    if has_scans:
        measured = measured_tables(scores.collect([root]), n_folds)
        for table in measured:
            write_text(root / ("table.csv" if table.metric == "dice" else f"table_{table.metric}.csv"), to_csv(table))
        tables += measured
    if runs:
        write_text(root / "table_noise.csv", csv_text(noise_scores.COLUMNS, [vars(run) for run in runs]))
        tables += noise_scores.noise_tables(runs)
    text = "\n".join(map(to_markdown, tables))
    write_text(root / "table.md", text)
    return text
