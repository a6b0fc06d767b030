"""How a search stands: its limits, how far it is from them, and the front that a proposal may see."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from nas.arch import Architecture
from nas.base import BALANCED, TOP1, Metric, Objective, duration
from nas.evaluation import FIRST, FrontRunner, RacePlan, race_order
from nas.runs import Measurement, Trial, non_dominated

FEW = 5  # trials after the first, before it is said how long the others take


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How a search stands."""

    complete: int  # architectures measured
    failed: int  # trials that failed, without those that failed before
    repeated: int  # proposals answered from earlier trials
    pruned: int  # architectures that were beaten on some of the images
    known: int  # architectures taken over from earlier searches that count as trials
    total: int | None  # trials to pay for; None when time is the limit
    seconds: float  # since this process began to search
    eta_s: float | None  # seconds left; None while unknown
    hypervolume: float  # share of the box between ideal and reference
    front_size: int  # architectures that no other dominates
    accuracy: Metric  # that architectures are ranked by
    best_accuracy: float | None  # percent; None before the first
    trial: Trial  # the architecture that was measured last

    @property
    def paid(self) -> int:
        """What counts against the budget of trials."""
        return self.complete + self.failed + self.pruned + self.known

    @property
    def text(self) -> str:
        """The line for people."""
        total = "" if self.total is None else f"/{self.total}"
        best = "-" if self.best_accuracy is None else f"{self.best_accuracy:.1f} %"
        left = "" if self.eta_s is None else f"left {duration(self.eta_s)}  "
        return (
            f"{left}trial {self.paid}{total}  best {self.accuracy.label} {best}  front {self.front_size}  "
            f"hypervolume {self.hypervolume:.3f}  beaten early {self.pruned}  failed {self.failed}  "
            f"repeats saved {self.repeated}"
        )


@dataclass(slots=True)
class Clock:
    """The limits of a search, and how far it is from them; `paid_before` is what earlier processes paid for."""

    trials: int | None
    minutes: float | None
    paid_before: int = 0
    _started: float = field(default_factory=time.monotonic)
    _first: tuple[int, float] | None = None  # trials paid for, and seconds, when the first of this process had ended

    @property
    def seconds(self) -> float:
        """Since it was made."""
        return time.monotonic() - self._started

    @property
    def is_over(self) -> bool:
        """Whether the minutes are spent."""
        return self.minutes is not None and self.seconds >= 60 * self.minutes

    def left(self, paid: int) -> float | None:
        """Seconds until the first limit, at the speed so far; None while that is unknown.

        The first trials wait for the workers to begin: time counts from the first result, and says something after
        `FEW` more.
        """
        lefts = []
        if self.minutes is not None:
            lefts.append(max(0.0, 60 * self.minutes - self.seconds))
        if self._first is None and paid > self.paid_before:
            self._first = paid, self.seconds
        if self.trials is not None and paid >= self.trials:
            lefts.append(0.0)
        elif self.trials is not None and self._first is not None and paid - self._first[0] >= FEW:
            lefts.append((self.trials - paid) * (self.seconds - self._first[1]) / (paid - self._first[0]))
        return min(lefts, default=None)


class VisibleFront:
    """The front of the trials up to a number: what a later proposal may know, whoever finished first.

    What breaks a bound on latency, given by name, is on no front (`Measurement.keeps`).
    """

    def __init__(self, objectives: Sequence[Objective], bounds: Mapping[str, float]) -> None:
        self._metrics = [objective.metric for objective in objectives]
        self._bounds = bounds
        self._members: list[tuple[Trial, list[float]]] = []
        self._first: list[Measurement] = []  # whole, with answers, by number
        self._order: tuple[NDArray[np.int32], NDArray[np.float32]] | None = None
        self._seen = -1

    def advance(self, trials: Mapping[int, Trial], last: int) -> None:
        """Take in the trials up to number `last`, all of which have ended."""
        for number in range(self._seen + 1, last + 1):
            trial = trials.get(number)
            if trial and trial.repeat_of is None and (found := trial.whole) is not None:
                self._add(trial, found)
        self._seen = max(self._seen, last)

    def _add(self, trial: Trial, measurement: Measurement) -> None:
        if len(self._first) < FIRST and measurement.correct:
            self._first.append(measurement)
        if not measurement.keeps(self._bounds):
            return
        members = [*self._members, (trial, [measurement.values[metric.name] for metric in self._metrics])]
        mask = non_dominated(np.array([row for _, row in members]), [metric.direction for metric in self._metrics])
        self._members = [member for member, is_best in zip(members, mask, strict=True) if is_best]

    @property
    def architectures(self) -> list[Architecture]:
        """Of the members, by trial number."""
        return [trial.architecture for trial, _ in self._members]

    def race_plan(self) -> RacePlan | None:
        """What is measured next races over; None where top-1 is no objective, or too little is known yet.

        Nor where balanced accuracy is one: who is surely beaten in top-1 may still win in a rare class, of which the
        few images of a look say too little.
        """
        if TOP1 not in self._metrics or BALANCED in self._metrics or len(self._first) < FIRST:
            return None
        if self._order is None:
            num_images = self._first[0].conditions.num_images
            self._order = race_order([found.correct for found in self._first], num_images)
        costs = [metric.name for metric in self._metrics if metric is not TOP1]
        front_runners = [
            FrontRunner(trial.number, {name: found.values[name] for name in costs}, found.correct)
            for trial, _ in self._members
            if (found := trial.measurement) is not None
        ]
        return RacePlan(tuple(front_runners), *self._order)
