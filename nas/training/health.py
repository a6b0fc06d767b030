"""What a training says about itself while it runs: progress, losses, and that it diverged."""

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from nas.arch import DIAGNOSTICS
from nas.base import atomic_write_text
from nas.runs import log_rows

LOGGED = 200  # rows of a whole training
DIAGNOSED = 20  # of them also say how the operators do
LEAST_BETWEEN = 100  # steps: a look at the operators takes about as long as one
SMOOTHING = 0.95  # of the losses shown: a step's own are noise
MAX_RESTARTS = 3
RESTART_LR = 0.5  # of the learning rate before


class DivergedError(Exception):
    """A loss or the gradient of a step is not finite."""

    def __init__(self, step: int, losses: list[float]) -> None:
        super().__init__(f"step {step}: loss or gradient is not finite (losses {losses})")
        self.step = step


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainProgress:
    """Where training stands."""

    step: int  # steps done
    steps: int  # steps in all
    epoch: float  # passes over the training images done
    epochs: int  # passes in all
    # cross-entropy with the labels of the largest, the smallest and the mean random subnet, nats, averaged over about
    # the last 20 steps
    losses: tuple[float, float, float]
    lr: float  # learning rate of the last step
    images_per_second: float  # training images per second since the start of this process
    eta_s: float  # seconds left at that rate
    warning: str = ""  # what went wrong since the last report; empty where nothing did
    # what the operators do, by the names of `nas.arch.DIAGNOSTICS`; empty at most steps
    diagnostics: Mapping[str, float] = field(default_factory=dict)

    @property
    def gap(self) -> float:
        """How much more the smallest subnet loses than the largest, nats."""
        return self.losses[1] - self.losses[0]


def smoothed(before: tuple[float, ...] | None, now: tuple[float, float, float]) -> tuple[float, float, float]:
    """The running average of the losses, after one more step."""
    if before is None:
        return now
    first, second, third = (SMOOTHING * old + (1 - SMOOTHING) * new for old, new in zip(before, now, strict=True))
    return first, second, third


class TrainLog:
    """The course of a training of so many steps as a table beside its checkpoints.

    A training that was killed, or diverged, goes on from a checkpoint; rows of steps that it does again are replaced.
    Cells of what was not measured at a step are empty.
    """

    MEASURED = ("step", "steps", "epoch", "loss_largest", "loss_smallest", "loss_random", "lr", "images_per_second")
    COLUMNS = (*MEASURED, *(diagnostic.name for diagnostic in DIAGNOSTICS))

    def __init__(self, path: Path, steps: int) -> None:
        self.path, self.steps, self.every = path, steps, max(steps // LOGGED, 1)
        known = log_rows(path)
        self.rows = [{name: row[name] for name in self.COLUMNS if name in row} for row in known]

    def diagnoses(self, step: int) -> bool:
        """Whether the row after so many steps says how the operators do: the first, the last, some 20 between."""
        rows = max(LOGGED // DIAGNOSED, -(-LEAST_BETWEEN // self.every))
        return step in (self.every, self.steps) or step % (rows * self.every) == 0

    def add(self, progress: TrainProgress) -> None:
        """Take note of a step, if it is one of those that are written down."""
        while self.rows and float(self.rows[-1]["step"]) >= progress.step:
            self.rows.pop()
        if progress.step % self.every and progress.step != progress.steps:
            return
        p = progress
        values = (p.step, p.steps, p.epoch, *p.losses, p.lr, p.images_per_second)
        row = dict(zip(self.MEASURED, values, strict=True)) | dict(p.diagnostics)
        self.rows.append({name: f"{value:.7g}" for name, value in row.items()})

    def write(self) -> None:
        """Replace the file."""
        text = io.StringIO()
        writer = csv.DictWriter(text, self.COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        atomic_write_text(self.path, text.getvalue())
