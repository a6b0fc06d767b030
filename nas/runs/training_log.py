"""What the log of a supernet's training says: how far it is, and how its operators do."""

import csv
import math
from collections.abc import Mapping
from pathlib import Path
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
        return dead_operators(self.diagnostics, self.last["step"] / self.last["steps"], self.last["steps"])


def log_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a training's log; those that are damaged are left out, for nothing is computed from them."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [row for row in csv.DictReader(file) if _is_whole(row)]
    except (OSError, ValueError, csv.Error):
        return []


def _is_whole(row: Mapping[str, str]) -> bool:
    try:
        numbers = {name: float(value) for name, value in row.items() if value}
    except (TypeError, ValueError):  # words, or more cells than columns
        return False
    return all(math.isfinite(numbers.get(name, 0)) and numbers.get(name, 0) > 0 for name in ("step", "steps"))


def course_of(run: RunDirectory) -> Course | None:
    """How the training of a run goes; None before the first row of its log."""
    rows = [{name: float(value) for name, value in row.items() if value} for row in log_rows(run.training_log)]
    if not rows:
        return None
    names = [diagnostic.name for diagnostic in DIAGNOSTICS]
    diagnosed = [found for row in rows if (found := {name: row[name] for name in names if name in row})]
    last = {name: value for name, value in rows[-1].items() if name not in names}
    return Course(last, diagnosed[-1] if diagnosed else {})
