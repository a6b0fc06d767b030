"""The search loop: propose, measure, record. The same trials whatever ends first and whenever it is killed.

Trial n is proposed once all trials up to n - window have ended, and from their results only (see `study`).
Which trial of an architecture is paid for is decided by number: the first one; later ones repeat its outcome.
A trial is on disk before it is told, so that a crash loses only what was in flight, and that is proposed again
where the study has lost it, and measured again under its old number. What is in flight is recorded as running, for
those who look; a search that resumes goes by its study and takes no notice of it.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import numpy as np

from nas.arch import Architecture
from nas.base import ConfigError, Objective, RunError, accuracy_of
from nas.runs import Measurement, RunDirectory, Trial, TrialState, hypervolume, non_dominated
from nas.space import SearchSpace
from nas.study.standing import Clock, Progress, VisibleFront
from nas.study.study import STORAGE_ERRORS, ArchitectureStudy
from nas.study.workers import Result, Task, Workers

PATIENCE = 20  # repeats in a row before an architecture that was not seen yet is proposed
TRIES = 200  # neighbours drawn in looking for one

Outcome = Literal["trials", "minutes", "space exhausted"]


class ReusedMeasurement(NamedTuple):
    """What another run measured under the same conditions, and where that is written down."""

    measurement: Measurement
    source: str


class Search:
    """Searches one space with one study and one set of workers, and writes every trial into a run.

    Hold `run.lock()` meanwhile. The caller closes study and workers. A measurement without one of the objectives is a
    failure; bounds of the space on latency, and `own_bounds`, hold for the front that is reported. With `racing` what
    is surely dominated is stopped early. `known` are measurements of other runs by digest; they are taken over and cost
    nothing, and count as trials with `counts_known` alone. `outcome` is why the last `run` ended.
    """

    outcome: Outcome

    def __init__(
        self,
        space: SearchSpace,
        objectives: Sequence[Objective],
        study: ArchitectureStudy,
        workers: Workers,
        run: RunDirectory,
        *,
        racing: bool = False,
        known: Mapping[str, ReusedMeasurement] | None = None,
        counts_known: bool = False,
        own_bounds: Mapping[str, float] | None = None,
    ) -> None:
        self.space = space
        self.objectives = tuple(objectives)
        self._accuracy = accuracy_of(objective.metric.name for objective in objectives)
        self._study = study
        self._workers = workers
        self._run = run
        self._racing = racing
        self._bounds = {**space.constraints.max_latency, **(own_bounds or {})}
        self._known, self._counts_known = known or {}, counts_known
        self._forget()

    def _forget(self) -> None:
        self._trials: dict[int, Trial] = {}
        self._told: set[int] = set()
        self._first: dict[str, int] = {}  # digest -> number of the trial that is paid for
        self._in_flight: dict[int, Trial] = {}
        self._repeats: dict[int, list[Trial]] = {}  # of a trial in flight
        self._counts = Counter[str]()  # of ended trials, by their field in `Progress`
        self._best_accuracy: float | None = None
        self._front = np.empty((0, len(self.objectives)))
        self._visible = VisibleFront(self.objectives, self._bounds)
        self._num_free = 0  # architectures that were taken over
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

        `trials` are architectures to pay for over the life of the run, whether they succeed or fail; after `minutes`
        nothing is proposed. `on_progress` is called after every paid trial.

        Raises:
            ConfigError: No limit was given.
            RunError: The recorded trials contradict the study, a file cannot be written, or the database is lost.
            KeyboardInterrupt: Ctrl-C, after what is finished was recorded and the workers were closed.
        """
        if trials is None and minutes is None:
            raise ConfigError("a search needs a limit", hint="--trials N or --minutes M")
        clock = Clock(trials, minutes)
        try:
            self._resume()
            clock.paid_before = self._num_paid
            while True:
                while not self._is_over(clock) and self._may_ask():
                    self._propose()
                if not self._in_flight:
                    break
                on_progress(self._progress(clock, self._end(self._workers.next_result())))
        except KeyboardInterrupt:
            for result in self._workers.finished():
                self._end(result)
            self._workers.close()
            raise
        except STORAGE_ERRORS as error:
            raise self._study.lost(error) from error
        return tuple(self._trials[number] for number in sorted(self._trials))

    # --- where an earlier process stopped ------------------------------------------------------------------

    def _resume(self) -> None:
        """Take over the recorded trials, finish the telling, and submit again what was in flight."""
        self._forget()
        self._recorded = {trial.number: trial for trial in self._run.trials() if not trial.is_running}
        proposed = self._study.proposed()
        self._told = {number for number, digest in proposed.items() if digest}
        for number, digest in proposed.items():
            if digest and number in self._recorded:
                architecture = self._recorded[number].architecture
                if digest != architecture.digest:
                    raise _contradiction(number, architecture.digest, digest)
            else:  # not told yet, or its damaged record was removed
                architecture = self._study.architecture(number)
            self._admit(number, architecture)

    # --- proposing -----------------------------------------------------------------------------------------

    def _is_over(self, clock: Clock) -> bool:
        if (
            clock.trials is not None
            and len(self._first) - (0 if self._counts_known else self._num_free) >= clock.trials
        ):
            self.outcome = "trials"
        elif clock.is_over:
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
        if self._streak >= PATIENCE and not self._study.num_waiting:  # a kill may come before `ask`
            unseen = self._unseen_neighbour()
            if unseen is None:
                self._is_exhausted = True
                return
            self._study.enqueue(unseen)
        number, architecture = self._study.ask()
        if number != self._next:
            raise RunError(
                f"trial {number} was proposed where {self._next} was due: another process uses this study",
                hint="one search per study",
            )
        self._admit(number, architecture)

    def _unseen_neighbour(self) -> Architecture | None:
        """Search around the front, then anywhere, for an architecture that was not proposed yet."""
        self._visible.advance(self._trials, self._next - self._study.window)
        parents = self._visible.architectures
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
        """Decide what becomes of a proposal: recorded already, a repeat, measured elsewhere, or to be measured."""
        self._next = number + 1
        first = self._first.setdefault(architecture.digest, number)
        self._streak = self._streak + 1 if first != number else 0
        record = self._recorded.get(number)
        trial = Trial(number=number, state=TrialState.RUNNING, architecture=architecture, started=time.time())
        if record is not None:
            if record.architecture != architecture:
                raise _contradiction(number, record.architecture.digest, architecture.digest)
            self._keep(record)
        elif first == number and architecture.digest in self._known:
            known = self._known[architecture.digest]
            self._record(_ended(trial, TrialState.REPEATED, measurement=known.measurement, source=known.source))
        elif first == number:
            self._in_flight[number] = trial
            self._run.append_trial(trial)
            self._visible.advance(self._trials, number - self._study.window)
            races = self._racing and architecture.digest not in self._study.raced_plain  # what a front is shown beside
            self._workers.submit(Task(number, architecture, self._visible.race_plan() if races else None))
        elif first in self._in_flight:
            self._repeats.setdefault(first, []).append(trial)
        else:
            self._repeat(trial, first)

    # --- ending --------------------------------------------------------------------------------------------

    def _end(self, result: Result) -> Trial:
        """Record a measured trial and the repeats that waited for it; returns the trial."""
        measurement, error = result.measurement, result.error
        state = TrialState.COMPLETE
        if measurement is not None and measurement.beaten_by is not None:
            state = TrialState.PRUNED
        elif measurement is not None:
            names = [objective.metric.name for objective in self.objectives]
            if missing := [name for name in names if name not in measurement.values]:
                measurement, error = None, f"not measured: {', '.join(missing)}"
        if measurement is None:
            state = TrialState.FAILED
        trial = _ended(self._in_flight.pop(result.number), state, measurement=measurement, error=error)
        self._record(trial)
        for repeat in self._repeats.pop(result.number, []):
            self._repeat(repeat, result.number)
        return trial

    def _repeat(self, trial: Trial, first: int) -> None:
        original = self._trials[first]
        if original.measurement is None:
            error = f"failed before as trial {first}: {original.error}"
            self._record(_ended(trial, TrialState.FAILED, error=error))
        else:
            found = original.measurement
            self._record(_ended(trial, TrialState.REPEATED, measurement=found, repeat_of=first))

    def _record(self, trial: Trial) -> None:
        self._run.append_trial(trial)
        self._keep(trial)

    def _keep(self, trial: Trial) -> None:
        self._trials[trial.number] = trial
        if trial.number not in self._told:
            self._told.add(trial.number)
            self._study.tell(trial)
        if self._first[trial.architecture.digest] != trial.number:
            self._counts["repeated"] += 1
        else:
            self._counts[trial.state.value] += 1
            self._num_free += trial.source is not None
            if (found := trial.whole) is not None:
                self._extend_front(found)

    # --- progress ------------------------------------------------------------------------------------------

    def _extend_front(self, measurement: Measurement) -> None:
        found = measurement.values.get(self._accuracy.name)
        if found is not None:
            self._best_accuracy = max(self._best_accuracy or 0.0, found)
        if not measurement.keeps(self._bounds):
            return
        row = [measurement.values[objective.metric.name] for objective in self.objectives]
        rows = np.vstack([self._front, row])
        directions = [objective.metric.direction for objective in self.objectives]
        self._front = rows[non_dominated(rows, directions)]

    @property
    def _num_paid(self) -> int:
        known = self._num_free if self._counts_known else 0
        return self._counts["complete"] + self._counts["failed"] + self._counts["pruned"] + known

    def _progress(self, clock: Clock, trial: Trial) -> Progress:
        return Progress(
            **{name: self._counts[name] for name in ("complete", "failed", "repeated", "pruned")},
            known=self._num_free if self._counts_known else 0,
            total=clock.trials,
            seconds=clock.seconds,
            eta_s=clock.left(self._num_paid),
            hypervolume=hypervolume(self._front, self.objectives),
            front_size=len(self._front),
            accuracy=self._accuracy,
            best_accuracy=self._best_accuracy,
            trial=trial,
        )


def _ended(running: Trial, state: TrialState, **found: Any) -> Trial:
    """What became of a trial, now."""
    return replace(running, state=state, finished=time.time(), **found)


def _contradiction(number: int, recorded: str, proposed: str) -> RunError:
    return RunError(
        f"trial {number} is recorded with architecture {recorded}, but the study proposed {proposed}",
        hint="trials.jsonl and the study are of two searches: restore them, or choose another --run DIR",
    )
