"""What the log of a supernet's training says: how far it is, and how its operators do."""

import csv
from typing import NamedTuple

from nas.arch import DIAGNOSTICS, dead_operators
from nas.runs.directory import RunDirectory


class Course(NamedTuple):
    """The newest numbers of a training's log."""

    last: dict[str, float]  # the last row, by its columns, without what the operators do
    diagnostics: dict[str, float]  # what they did last, by the names of `nas.arch.DIAGNOSTICS`; empty in older logs

    @property
    def dead(self) -> list[str]:
        """A line for every operator that is dead, once that can be said."""
        return dead_operators(self.diagnostics, self.last["step"] / self.last["steps"])


def course_of(run: RunDirectory) -> Course | None:
    """How the training of a run goes; None before the first row of its log."""
    if not run.training_log.exists():
        return None
    with run.training_log.open(newline="") as file:
        rows = [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]
    if not rows:
        return None
    names = [diagnostic.name for diagnostic in DIAGNOSTICS]
    diagnosed = [found for row in rows if (found := {name: row[name] for name in names if name in row})]
    last = {name: value for name, value in rows[-1].items() if name not in names}
    return Course(last, diagnosed[-1] if diagnosed else {})
