"""What a run was trained on, so that it is not resumed on other data without a word."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from util.errors import DataError, UserError
from util.files import read_json, write_json
from util.inventory import first_names
from util.records import different_contents, digest

FILE_NAME = "training_data.json"  # next to the checkpoint: file or line of a table -> hash or text
CASES = "training_cases.json"  # likewise: the data set, and case -> patient of all that was ever trained on

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainedOn:
    """The contents of the training data as they are now, and those that a checkpoint was trained on.

    A checkpoint holds a digest; `training_data.json` next to it holds what the digest stands for, so that a difference
    can be named.

    Attributes:
        contents: see `TrainingData.contents`.
        checkpoint: path of the run's checkpoint.
    """

    contents: Mapping[str, str]
    checkpoint: Path

    @property
    def sha256(self) -> str:
        """The digest of the contents, whatever their order."""
        return _digest(self.contents)

    def require_same(self, saved: Mapping[str, Any], is_finished: bool, accepts_changes: bool) -> None:
        """Checks that a checkpoint was trained on these data.

        Args:
            saved: content of the checkpoint.
            is_finished: nothing remains to be trained: other data are a warning.
            accepts_changes: other data are a warning in any case.

        Raises:
            DataError: it was trained on others; the message says what has changed.
        """
        if "data_sha256" not in saved:
            logger.info(
                "%s: of an earlier version, which did not record the training data. Whether they have changed since is "
                "not checked; the next checkpoint records them.",
                self.checkpoint,
            )
            return
        if saved["data_sha256"] == self.sha256:
            return
        told = (
            f"{self.checkpoint}: the data have changed since its step {saved['step']} ({self._differences(saved)}); "
            "the run would go on training on others than before."
        )
        if is_finished:
            text = "%s: has all its steps, and the data have changed since (%s). To train on them: exp_prefix=NAME."
            logger.warning(text, self.checkpoint, self._differences(saved))
        elif accepts_changes:
            logger.warning("%s Accepted with accept_changed_data=True.", told)
        else:
            raise DataError(
                f"{told} Restore the data; or begin again, with exp_prefix=NAME or after moving "
                f"{self.checkpoint.parent} away; or resume in spite of the change with accept_changed_data=True."
            )

    def _differences(self, saved: Mapping[str, Any]) -> str:
        path = self.checkpoint.with_name(FILE_NAME)
        try:
            before = read_json(path)
        except UserError:
            before = None
        if not isinstance(before, dict) or _digest(before) != saved["data_sha256"]:
            return f"what has changed is not known, as {path.name} is missing or of another run"
        return different_contents(before, self.contents)

    def write(self) -> None:
        """Writes what the digest stands for, next to the checkpoint.

        Raises:
            UserError: the folder cannot be written to.
        """
        write_json(self.checkpoint.with_name(FILE_NAME), dict(sorted(self.contents.items())))


def record_data(
    contents: Mapping[str, str], checkpoint: Path, saved: Mapping[str, Any] | None, n_steps: int, accepts_changes: bool
) -> str | None:
    """Compares the data with those of a checkpoint, and records them for the checkpoints to come.

    Args:
        contents: see `TrainingData.contents`.
        checkpoint: path of the run's checkpoint.
        saved: its content; None: nothing has been trained.
        n_steps: of the whole run.
        accepts_changes: see `TrainedOn.require_same`.

    Returns:
        The digest of the contents; None where nothing remains to be trained.

    Raises:
        DataError: the data have changed.
        UserError: the folder cannot be written to.
    """
    now = TrainedOn(contents, checkpoint)
    is_finished = saved is not None and saved["step"] >= n_steps
    if saved is not None:
        now.require_same(saved, is_finished, accepts_changes)
    if is_finished:
        return None
    now.write()
    return now.sha256


def record_cases(cases: Mapping[str, str], dataset: str, checkpoint: Path, is_new: bool) -> None:
    """Records which cases are trained on; of a resumed run in addition to those before.

    Args:
        cases: see `TrainingData.trained_cases`.
        dataset: name of their data set.
        checkpoint: path of the run's checkpoint.
        is_new: nothing has been trained yet.

    Raises:
        UserError: the folder cannot be written to.
    """
    before = {} if is_new else _recorded_cases(checkpoint.with_name(CASES), dataset)
    write_json(checkpoint.with_name(CASES), {"dataset": dataset, "cases": before | dict(cases)})


def warn_of_trained_cases(checkpoint: Path, dataset: str, tested: Mapping[str, str]) -> None:
    """Warns if cases that are to be scored, or others of their patients, have been trained on.

    Nothing is said where no record is found next to the checkpoint, or that of another data set.

    Args:
        checkpoint: a checkpoint, or a snapshot in the folder below.
        dataset: name of the data set of the cases.
        tested: see `TrainingData.tested_cases`.
    """
    trained = trained_cases(checkpoint, dataset)
    patients = set(trained.values())
    shared = [case for case, patient in tested.items() if case in trained or patient in patients]
    if shared:
        logger.warning(
            "%s: trained on %d of the %d cases that are scored now, or on others of their patients (%s): the folds, "
            "the split or the table have changed since, or it is the checkpoint of another fold. Its scores are too "
            "high. Train again, or choose the fold that it was trained for.",
            *(checkpoint, len(shared), len(tested), first_names(shared)),
        )


def trained_cases(checkpoint: Path, dataset: str) -> dict[str, str]:
    """Case -> patient of all that a checkpoint or snapshot was trained on; empty where no record is found next to it.

    Args:
        checkpoint: a checkpoint, or a snapshot in the folder below.
        dataset: name of the data set.
    """
    folders = (checkpoint.parent, checkpoint.parent.parent)
    return next((found for each in folders if (found := _recorded_cases(each / CASES, dataset))), {})


def _recorded_cases(path: Path, dataset: str) -> dict[str, str]:
    """Case -> patient; empty where there is no readable record, or that of another data set."""
    try:
        content = read_json(path)
    except UserError:
        return {}
    if not isinstance(content, dict) or content.get("dataset") != dataset or not isinstance(content.get("cases"), dict):
        return {}
    return content["cases"]


def _digest(contents: Mapping[str, str]) -> str:
    return digest(dict(sorted(contents.items())))
