"""The search loop: propose, measure, record. The same trials whatever ends first and whenever it is killed.

Trial n is proposed once all trials up to n - window have ended, and from their results only (see `study`).
Which trial of an architecture is paid for is decided by number: the first one; later ones repeat its outcome.
A trial is on disk before it is told, and a proposal before it is measured, so that a crash loses only what
was in flight, and that is measured again under its old number.
"""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from nas.architecture import Architecture
from nas.errors import ConfigError, RunError
from nas.metrics import LATENCY, TOP1, Objective
from nas.pareto import hypervolume, non_dominated
from nas.run_directory import RunDirectory
from nas.search.study import ArchitectureStudy
from nas.search.workers import Result, Workers
from nas.space import SearchSpace
from nas.trial import Measurement, Trial, TrialState

PATIENCE = 20  # repeats in a row before an architecture that was not seen yet is proposed
TRIES = 200  # neighbours drawn in looking for one

ENDED = (TrialState.COMPLETE, TrialState.FAILED, TrialState.REPEATED)

Outcome = Literal["trials", "minutes", "space exhausted"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How a search stands.

    Attributes:
        complete: Architectures measured.
        failed: Trials that failed, without those that failed before.
        repeated: Proposals answered from earlier trials.
        total: Trials to pay for; None when time is the limit.
        seconds: Since this process began to search.
        eta_s: Seconds left; None while unknown.
        hypervolume: Share of the box between ideal and reference.
        front_size: Architectures that no other dominates.
        best_top1: Percent; None before the first.
    """

    complete: int
    failed: int
    repeated: int
    total: int | None
    seconds: float
    eta_s: float | None
    hypervolume: float
    front_size: int
    best_top1: float | None


class Search:
    """Searches one space with one study and one set of workers, and writes every trial into a run.

    Hold `run.lock()` meanwhile. The caller closes study and workers.

    Args:
        space: What may be proposed. Its bound on latency, if any, holds for the front that is reported.
        objectives: What is optimised; a measurement without one of them is a failure.
        study: Proposes.
        workers: Measure.
        run: Keeps the trials.

    Attributes:
        outcome: Why the last `run` ended.
    """

    outcome: Outcome

    def __init__(
        self,
        space: SearchSpace,
        objectives: Sequence[Objective],
        study: ArchitectureStudy,
        workers: Workers,
        run: RunDirectory,
    ) -> None:
        self.space = space
        self.objectives = tuple(objectives)
        self._study = study
        self._workers = workers
        self._run = run
        self._forget()

    def _forget(self) -> None:
        self._trials: dict[int, Trial] = {}
        self._told: set[int] = set()
        self._first: dict[str, int] = {}  # digest -> number of the trial that is paid for
        self._in_flight: dict[int, _Pending] = {}
        self._repeats: dict[int, list[tuple[int, _Pending]]] = {}  # of a trial in flight
        self._counts = Counter[str]()  # of ended trials, by their field in `Progress`
        self._best_top1: float | None = None
        self._front = np.empty((0, len(self.objectives)))
        self._next = 0
        self._streak = 0  # repeats since the last new architecture
        self._recorded: dict[int, Trial] = {}
        self._is_exhausted = False

    def run(
        self,
        *,
        trials: int | None = None,
        minutes: float | None = None,
        on_progress: Callable[[Progress], None] = lambda _: None,
    ) -> tuple[Trial, ...]:
        """Search, or go on with it. Returns all trials of the run by number.

        Args:
            trials: Architectures to pay for over the life of the run, whether they succeed or fail.
            minutes: Propose nothing after this time.
            on_progress: Called after every paid trial.

        Raises:
            ConfigError: No limit was given.
            RunError: The recorded trials contradict the study, or a file cannot be written.
            KeyboardInterrupt: Ctrl-C, after what is finished was recorded and the workers were closed.
        """
        if trials is None and minutes is None:
            raise ConfigError("a search needs a limit", hint="--trials N or --minutes M")
        clock = _Clock(trials, minutes)
        try:
            self._resume()
            clock.paid_before = self._num_paid
            while True:
                while not self._is_over(clock) and self._may_ask():
                    self._propose()
                if not self._in_flight:
                    break
                self._end(self._workers.next_result())
                on_progress(self._progress(clock))
        except KeyboardInterrupt:
            for result in self._workers.finished():
                self._end(result)
            self._workers.close()
            raise
        self._study.commit()
        return tuple(self._trials[number] for number in sorted(self._trials))

    # --- where an earlier process stopped ------------------------------------------------------------------

    def _resume(self) -> None:
        """Take over the recorded trials, finish the telling, and submit again what was in flight."""
        self._forget()
        self._recorded = {trial.number: trial for trial in self._run.trials() if trial.state in ENDED}
        finished, running = self._study.finished(), self._study.running()
        self._told = set(finished)
        for number in range(len(finished) + len(running)):
            if number in running:
                architecture = running[number]
            elif number in self._recorded:
                architecture = self._recorded[number].architecture
                if finished[number] != architecture.digest:
                    raise _contradiction(number, architecture.digest, finished[number])
            else:  # its damaged record was removed
                architecture = self._study.architecture(number)
            self._admit(number, architecture)

    # --- proposing -----------------------------------------------------------------------------------------

    def _is_over(self, clock: "_Clock") -> bool:
        if clock.trials is not None and len(self._first) >= clock.trials:
            self.outcome = "trials"
        elif clock.minutes is not None and clock.seconds >= 60 * clock.minutes:
            self.outcome = "minutes"
        elif self._is_exhausted or len(self._first) >= self.space.size():
            self.outcome = "space exhausted"
        else:
            return False
        return True

    def _may_ask(self) -> bool:
        window = self._study.window
        if len(self._in_flight) >= min(self._workers.slots, window):
            return False
        return min(self._in_flight, default=self._next) > self._next - window

    def _propose(self) -> None:
        if self._streak >= PATIENCE:
            unseen = self._unseen_neighbour()
            if unseen is None:
                self._is_exhausted = True
                return
            self._study.enqueue(unseen)
        number, architecture = self._study.ask()
        self._study.commit()
        if number != self._next:
            raise RunError(
                f"trial {number} was proposed where {self._next} was due: another process uses this study",
                hint="one search per study",
            )
        self._admit(number, architecture)

    def _unseen_neighbour(self) -> Architecture | None:
        """Search around the front, then anywhere, for an architecture that was not proposed yet."""
        visible = [
            trial
            for trial in self._trials.values()
            if trial.state is TrialState.COMPLETE and trial.number <= self._next - self._study.window
        ]
        visible.sort(key=lambda trial: trial.number)
        values = [self._row(trial.measurement) for trial in visible if trial.measurement is not None]
        mask = non_dominated(np.array(values), [objective.metric.direction for objective in self.objectives])
        parents = [trial.architecture for trial, is_best in zip(visible, mask, strict=True) if is_best]
        rng = self._study.generator(self._next)
        for i in range(TRIES):
            if parents and i < TRIES // 2:
                found = self.space.mutate(parents[int(rng.integers(len(parents)))], rng)
            else:
                found = self.space.sample(rng)
            if found.digest not in self._first:
                return found
        return None

    def _admit(self, number: int, architecture: Architecture) -> None:
        """Decide what becomes of a proposal: recorded already, a repeat, or to be measured."""
        self._next = number + 1
        first = self._first.setdefault(architecture.digest, number)
        self._streak = self._streak + 1 if first != number else 0
        record = self._recorded.get(number)
        pending = _Pending(architecture, time.time())
        if record is not None:
            if record.architecture != architecture:
                raise _contradiction(number, record.architecture.digest, architecture.digest)
            self._keep(record)
        elif first == number:
            self._in_flight[number] = pending
            self._workers.submit(number, architecture)
        elif first in self._in_flight:
            self._repeats.setdefault(first, []).append((number, pending))
        else:
            self._repeat(number, pending, first)

    # --- ending --------------------------------------------------------------------------------------------

    def _end(self, result: Result) -> None:
        """Record a measured trial and the repeats that waited for it."""
        pending = self._in_flight.pop(result.number)
        measurement, error = result.measurement, result.error
        if measurement is not None:
            names = [objective.metric.name for objective in self.objectives]
            if missing := [name for name in names if name not in measurement.values]:
                measurement, error = None, f"not measured: {', '.join(missing)}"
        self._record(
            Trial(
                number=result.number,
                state=TrialState.FAILED if measurement is None else TrialState.COMPLETE,
                architecture=pending.architecture,
                measurement=measurement,
                error=error,
                started=pending.started,
                finished=time.time(),
            )
        )
        for number, repeat in self._repeats.pop(result.number, []):
            self._repeat(number, repeat, result.number)
        self._study.commit()

    def _repeat(self, number: int, pending: "_Pending", first: int) -> None:
        original = self._trials[first]
        has_failed = original.measurement is None
        self._record(
            Trial(
                number=number,
                state=TrialState.FAILED if has_failed else TrialState.REPEATED,
                architecture=pending.architecture,
                measurement=original.measurement,
                error=f"failed before as trial {first}: {original.error}" if has_failed else None,
                repeat_of=None if has_failed else first,
                started=pending.started,
                finished=time.time(),
            )
        )

    def _record(self, trial: Trial) -> None:
        self._run.append_trial(trial)
        self._keep(trial)

    def _keep(self, trial: Trial) -> None:
        self._trials[trial.number] = trial
        if trial.number not in self._told:
            self._told.add(trial.number)
            if trial.measurement is not None:
                self._study.tell_complete(trial.number, trial.measurement)
            else:
                self._study.tell_failed(trial.number, trial.error or "")
        if self._first[trial.architecture.digest] != trial.number:
            self._counts["repeated"] += 1
        elif trial.measurement is None:
            self._counts["failed"] += 1
        else:
            self._counts["complete"] += 1
            self._extend_front(trial.measurement)

    # --- progress ------------------------------------------------------------------------------------------

    def _row(self, measurement: Measurement) -> list[float]:
        return [measurement.values[objective.metric.name] for objective in self.objectives]

    def _extend_front(self, measurement: Measurement) -> None:
        if TOP1.name in measurement.values:
            self._best_top1 = max(self._best_top1 or 0.0, measurement.values[TOP1.name])
        bound = self.space.constraints.max_latency_ms
        if bound is not None and measurement.values.get(LATENCY.name, 0.0) > bound:
            return
        rows = np.vstack([self._front, self._row(measurement)])
        directions = [objective.metric.direction for objective in self.objectives]
        self._front = rows[non_dominated(rows, directions)]

    @property
    def _num_paid(self) -> int:
        return self._counts["complete"] + self._counts["failed"]

    def _progress(self, clock: "_Clock") -> Progress:
        return Progress(
            complete=self._counts["complete"],
            failed=self._counts["failed"],
            repeated=self._counts["repeated"],
            total=clock.trials,
            seconds=clock.seconds,
            eta_s=clock.left(self._num_paid),
            hypervolume=hypervolume(self._front, self.objectives),
            front_size=len(self._front),
            best_top1=self._best_top1,
        )


@dataclass(frozen=True, slots=True)
class _Pending:
    """A proposal that has not ended."""

    architecture: Architecture
    started: float


class _Clock:
    """The limits of a search, and how far it is from them."""

    def __init__(self, trials: int | None, minutes: float | None) -> None:
        self.trials = trials
        self.minutes = minutes
        self.paid_before = 0
        self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._started

    def left(self, paid: int) -> float | None:
        """Seconds until the first limit, at the speed so far; None while that is unknown."""
        lefts = []
        if self.minutes is not None:
            lefts.append(max(0.0, 60 * self.minutes - self.seconds))
        if self.trials is not None and paid > self.paid_before:
            lefts.append(max(0, self.trials - paid) * self.seconds / (paid - self.paid_before))
        return min(lefts, default=None)


def _contradiction(number: int, recorded: str, proposed: str) -> RunError:
    return RunError(
        f"trial {number} is recorded with architecture {recorded}, but the study proposed {proposed}",
        hint="trials.jsonl and the study are of two searches: restore them, or choose another --run DIR",
    )
