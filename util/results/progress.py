"""The picture of a training in progress: `progress.png` in the experiment's folder."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from util.items import dispensable
from util.results.curves import OF_TRAINING, save_curves
from util.results.run_list import duration_text

FILE_NAME = "progress.png"
SHORTEST_WAIT_S = 60.0  # between two drawings
LARGEST_SHARE = 0.01  # of the training's time that drawing takes

Scalars = Mapping[str, Sequence[Sequence[int | float]]]  # name -> steps and values


class Progress:
    """Draws the curves of a training while it runs, so seldom that drawing takes less than a hundredth of the time."""

    def __init__(self, folder: Path, title: str, step: int, n_steps: int, is_drawn: bool = True) -> None:
        """Remembers when training begins.

        Args:
            folder: of the experiment.
            title: above the curves.
            step: completed steps; more than 0 in a resumed run.
            n_steps: length of the run.
            is_drawn: False without pictures and on all processes but the first, where `draw_if_due` does nothing.
        """
        self.path, self.title, self.first_step, self.n_steps = folder / FILE_NAME, title, step, n_steps
        self.is_drawn = is_drawn
        self.began_s = self.drawn_s = time.monotonic()
        self.wait_s = SHORTEST_WAIT_S

    def draw_if_due(self, step: int, scalars: Scalars) -> None:
        """Draws if the last drawing was long enough ago; see `draw`."""
        if self.is_drawn and time.monotonic() - self.drawn_s >= self.wait_s:
            self.draw(step, scalars)

    def draw(self, step: int, scalars: Scalars) -> None:
        """Writes the picture, atomically. What prevents it is logged, and training continues.

        Args:
            step: completed steps.
            scalars: name -> (steps, values) of all logged metrics; those of `OF_TRAINING` are drawn.
        """
        start_s = time.monotonic()
        curves = {name: (each[0], each[1]) for name, each in scalars.items() if name.startswith(OF_TRAINING)}
        if curves:
            with dispensable(FILE_NAME):
                save_curves(self.path, curves, f"{self.title}\n{self._position(step, start_s)}")
        self.drawn_s = time.monotonic()
        self.wait_s = max(SHORTEST_WAIT_S, (self.drawn_s - start_s) / LARGEST_SHARE)

    def _position(self, step: int, now_s: float) -> str:
        """Such as "step 1200 of 5000, about 3:20 h left"."""
        text, n_done = f"step {step} of {self.n_steps}", step - self.first_step
        if step >= self.n_steps or not n_done:
            return text
        return f"{text}, about {duration_text((now_s - self.began_s) / n_done * (self.n_steps - step))} left"
