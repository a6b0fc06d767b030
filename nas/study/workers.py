"""Where architectures are measured: what all workers have in common, and those of this process.

Whatever happens to one architecture ends as its `Result`, an error with a reason; the search goes on.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

from nas.arch import Architecture
from nas.base import OutOfMemoryError, disk_error, one_line
from nas.cluster import ATTEMPTS, Arrays, quarantined, reason_of
from nas.runs import Measurement

if TYPE_CHECKING:  # keeps torch out of this import
    from nas.evaluation import Evaluator, RacePlan

Build = Callable[[Arrays], "Evaluator"]

TOGETHER = 64  # trials that are measured at once
TOGETHER_S = 10.0


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
    """Measures in this process, without Ray and without a time limit.

    With an evaluator that has `evaluate_many`, what is submitted is measured together, as far as it takes some
    `TOGETHER_S`: a Ctrl-C loses no more. Others measure one at a time.
    """

    def __init__(self, evaluator: "Evaluator") -> None:
        self._evaluator = evaluator
        self._evaluate_many = getattr(evaluator, "evaluate_many", None)
        self.slots = 1 if self._evaluate_many is None else TOGETHER
        self._queue: deque[Task] = deque()
        self._results: deque[Result] = deque()
        self._size = 1  # of what is measured next

    def submit(self, task: Task) -> None:
        """Queue a trial."""
        self._queue.append(task)

    def next_result(self) -> Result:
        """Measure those that have waited longest; where memory runs out, again in smaller batches."""
        if not self._results:
            tasks = [self._queue.popleft() for _ in range(min(self._size, len(self._queue)))]
            started = time.perf_counter()
            self._results.extend(self._measure(tasks))
            each_s = (time.perf_counter() - started) / len(tasks)
            self._size = max(1, min(self.slots, int(TOGETHER_S / max(each_s, 1e-9))))
        return self._results.popleft()

    def _measure(self, tasks: Sequence[Task]) -> Iterator[Result]:
        if self._evaluate_many is None or len(tasks) == 1:
            outcomes: Sequence[Measurement | Exception | None] = [None] * len(tasks)
        else:
            outcomes = self._evaluate_many([(task.architecture, task.plan) for task in tasks])
        for task, outcome in zip(tasks, outcomes, strict=True):
            if outcome is None or isinstance(outcome, OutOfMemoryError | MemoryError):
                yield self._measure_alone(task)
            else:
                yield result_of(task, partial(_returned, outcome))

    def _measure_alone(self, task: Task) -> Result:
        reason = ""
        for attempt in range(ATTEMPTS):
            try:
                return measure(self._evaluator, task, attempt)
            except OutOfMemoryError as error:
                reason = one_line(error.message)
        return Result(task.number, None, quarantined(reason))

    def finished(self) -> list[Result]:
        """Those of trials that were measured together with one whose result was asked for."""
        results = list(self._results)
        self._results.clear()
        return results

    def close(self) -> None:
        """Forget what is queued."""
        self._queue.clear()


def measure(evaluator: "Evaluator", task: Task, attempt: int = 0) -> Result:
    """Measure, where `attempt` counts earlier tries: each computes in smaller batches; see `result_of`."""
    return result_of(task, partial(evaluator.evaluate, task.architecture, task.plan, attempt=attempt))


def result_of(task: Task, evaluate: Callable[[], Measurement]) -> Result:
    """Measure, or say in one line why it was not possible: an exception, or a value that is not finite.

    Raises:
        OutOfMemoryError: Worth another attempt.
        DiskError: Not the candidate's fault, and the next ones would fail, too.
    """
    try:
        measurement = evaluate()
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


def _returned(outcome: Measurement | Exception) -> Measurement:
    if isinstance(outcome, Exception):
        raise outcome
    return outcome
