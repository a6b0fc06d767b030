"""Where architectures are measured: what all workers have in common, and those of this process.

Whatever happens to one architecture ends as its `Result`, an error with a reason; the search goes on.
"""

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from nas.arch import Architecture
from nas.base import OutOfMemoryError, disk_error, one_line
from nas.cluster import ATTEMPTS, Arrays, quarantined, reason_of
from nas.runs import Measurement

if TYPE_CHECKING:  # keeps torch out of this import
    from nas.evaluation import Evaluator, RacePlan

Build = Callable[[Arrays], "Evaluator"]


@dataclass(frozen=True, slots=True)
class Task:
    """An architecture to measure."""

    number: int  # the trial's
    architecture: Architecture  # to measure
    plan: "RacePlan | None" = None  # what it races over; the evaluator may stop once a front runner surely dominates it


@dataclass(frozen=True, slots=True)
class Result:
    """How a measurement ended."""

    number: int  # the trial's
    measurement: Measurement | None  # present when it succeeded
    error: str | None  # one line why it failed; present when it failed


class Workers(Protocol):
    """Measures architectures; with `slots` trials submitted no worker is idle. More may be submitted; they wait."""

    slots: int

    def submit(self, task: Task) -> None:
        """Queue a trial."""

    def next_result(self) -> Result:
        """Wait for a submitted trial to end, whichever is first."""

    def finished(self) -> list[Result]:
        """Results that are there already, without waiting."""

    def close(self) -> None:
        """Stop; what is in flight is abandoned. May be called twice."""


class InlineWorkers:
    """Measures in this process, one at a time, without Ray and without a time limit."""

    slots = 1

    def __init__(self, evaluator: "Evaluator") -> None:
        self._evaluator = evaluator
        self._queue: deque[Task] = deque()

    def submit(self, task: Task) -> None:
        """Queue a trial."""
        self._queue.append(task)

    def next_result(self) -> Result:
        """Measure the trial that has waited longest; where memory runs out, again in smaller batches."""
        task = self._queue.popleft()
        reason = ""
        for attempt in range(ATTEMPTS):
            try:
                return measure(self._evaluator, task, attempt)
            except OutOfMemoryError as error:
                reason = one_line(error.message)
        return Result(task.number, None, quarantined(reason))

    def finished(self) -> list[Result]:
        """Return none: a trial is measured when its result is asked for."""
        return []

    def close(self) -> None:
        """Forget what is queued."""
        self._queue.clear()


def measure(evaluator: "Evaluator", task: Task, attempt: int = 0) -> Result:
    """Measure, or say in one line why it was not possible: an exception, or a value that is not finite.

    Raises:
        OutOfMemoryError: Worth another attempt, which computes in smaller batches: `attempt` counts earlier tries.
        DiskError: Not the candidate's fault, and the next ones would fail, too.
    """
    try:
        measurement = evaluator.evaluate(task.architecture, task.plan, attempt=attempt)
        bad = [f"{name} is {value}" for name, value in measurement.values.items() if not math.isfinite(value)]
    except OutOfMemoryError:
        raise
    except MemoryError as error:
        raise OutOfMemoryError(f"out of memory: {error}".removesuffix(": ")) from error
    except Exception as error:
        if full := disk_error(error):
            raise full from error
        return Result(task.number, None, reason_of(error))  # whatever a candidate does, the search goes on (law 6)
    return Result(task.number, None, ", ".join(bad)) if bad else Result(task.number, measurement, None)
