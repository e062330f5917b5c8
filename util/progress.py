"""Progress of long work: in a terminal a bar with the time left, in a batch log a line a minute."""

import io
import logging
import sys
import time
from typing import Any

from tqdm import tqdm

logger = logging.getLogger(__name__)

INTERVAL_S = 60.0  # between two lines of a log; shorter work leaves none
LINE = "{desc}: {n_fmt} of {total_fmt} ({percentage:.0f} %), {elapsed} so far, {remaining} left{postfix}"


class ProgressBar(tqdm):
    """tqdm's bar where the error stream is a terminal; elsewhere lines of the log.

    Args:
        arguments, options: of tqdm.
        is_shown: False: neither.
    """

    def __init__(self, *arguments: Any, is_shown: bool = True, **options: Any) -> None:
        self.is_logged, self._logged_at = not sys.stderr.isatty(), time.monotonic()
        if self.is_logged:
            often = {"mininterval": INTERVAL_S, "maxinterval": INTERVAL_S, "delay": INTERVAL_S}
            options |= often | {"bar_format": LINE, "file": io.StringIO()}
        super().__init__(*arguments, disable=not is_shown, **options)

    def display(self, msg: str | None = None, pos: int | None = None) -> bool:
        """Draws the bar, or logs the line, unless the last one is recent: tqdm also asks for it at every postfix."""
        if not self.is_logged:
            return bool(super().display(msg, pos))
        now = time.monotonic()
        if now - self._logged_at > 0.9 * INTERVAL_S:  # tqdm's own interval may begin a little earlier
            logger.info("%s", msg if msg is not None else str(self))
            self._logged_at = now
        return True
