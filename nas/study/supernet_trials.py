"""Supernet trials: Optuna proposes and stops, Ray trains, one rung of a trial at a time.

Nothing of the study is kept. What is finished is told to a new one at the start, which takes no time, and what was
being trained is proposed first: the folders of the trials are the truth, and a kill loses no more than their last
checkpoints do.
"""

import json
import os
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner
from optuna.samplers import TPESampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from nas.cluster import Arrays, run_tasks
from nas.runs import SupernetTrial
from nas.settings import TrainConfig, TuneConfig, is_whole
from nas.study.samplers import seed_words

STATES = {"complete": TrialState.COMPLETE, "stopped": TrialState.PRUNED, "failed": TrialState.FAIL}

Train = Callable[[int, Mapping[str, Any], int], SupernetTrial]
"""Trains the trial of a number and parameters up to an epoch, in another process; returns how it stands then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be tried, and where."""

    tune: TuneConfig  # parameters, and when a trial may be stopped
    epochs: int  # of a whole training
    count: int  # trials in all, with the known ones
    seed: int  # of every proposal
    workers: int  # trials at a time, one CPU each, on a Ray of our own
    address: str | None  # of a running Ray cluster; None: a Ray of our own
    num_gpus: float  # that Ray sets aside for each trial


def run_trials(
    plan: Plan, train: Train, known: Sequence[SupernetTrial], first: Mapping[str, Any] | None
) -> Iterator[tuple[int, SupernetTrial]]:
    """Train supernets, each by `train`, until there are `plan.count` trials.

    `known` are trials of earlier processes; those in state `training` go on. `first` are parameters of the first trial
    of all; None: as the sampler likes.

    Yields:
        The number of a trial that has reached a rung or ended, and how it stands now. That it is `stopped`, or
        `failed` where its process died, is decided here: the caller has to record it.

    Raises:
        RunError: Ray cannot be started or reached, or is gone.
    """
    study = SupernetStudy(plan, known, first)
    rungs = plan.tune.rungs(plan.epochs)
    jobs: deque[_Slice] = deque()
    running: set[int] = set()

    def go_on(number: int, trial: SupernetTrial) -> SupernetTrial:
        trial = study.judge(number, trial)
        if trial.state == "training":
            epoch = min(rung for rung in rungs if rung not in trial.scores)
            jobs.append(_Slice(Path.cwd(), train, number, trial, epoch))
        else:
            running.discard(number)
        return trial

    def propose() -> Iterator[tuple[int, SupernetTrial]]:
        while len(running) < plan.workers and (asked := study.ask()) is not None:
            running.add(asked.number)
            trial = go_on(asked.number, asked)
            if trial.state != "training":
                yield asked.number, trial

    yield from propose()
    tasks = run_tasks(_train_slice, jobs, {}, plan.workers, address=plan.address, num_gpus=plan.num_gpus)
    for job, outcome in tasks:
        found = outcome.value or replace(job.trial, state="failed", error=outcome.error)
        yield job.number, go_on(job.number, found)
        yield from propose()


@dataclass(frozen=True, slots=True)
class _Slice:
    """What a process does before the next decision: train a trial up to an epoch."""

    directory: Path  # to do it in: the data may be named by a relative path
    train: Train
    number: int
    trial: SupernetTrial
    epoch: int


def _train_slice(job: _Slice, arrays: Arrays) -> SupernetTrial:  # noqa: ARG001 - images are read there
    os.chdir(job.directory)
    return job.train(job.number, job.trial.parameters, job.epoch)


class SupernetStudy:
    """Proposes the trials that are left, from seed, number and results so far; says how those under way stand."""

    def __init__(self, plan: Plan, known: Sequence[SupernetTrial], first: Mapping[str, Any] | None) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._seed = plan.seed
        self._distributions = _distributions(plan.tune)
        self._study = optuna.create_study(direction="maximize", pruner=_Halving(plan.tune.reduction))
        self._asked: dict[int, optuna.Trial] = {}
        self._points = {} if first is None else {0: first}
        self._points |= {trial.number: trial.parameters for trial in known if trial.state == "training"}
        self._known = {trial.number: trial for trial in known}
        # One that repeats another's parameters has no folder, and is known under that one's number.
        ended = {trial.number for trial in known if trial.state != "training"}
        left = [number for number in range(plan.count) if number not in ended]
        self._left = deque(sorted(left, key=lambda number: (number not in self._points, number)))
        for trial in known:
            if trial.number in ended:
                self._study.add_trial(_frozen(trial, self._distributions))

    def ask(self) -> SupernetTrial | None:
        """The next trial: what was being trained first, then new ones; None where all have been proposed."""
        if not self._left:
            return None
        number = self._left.popleft()
        if number in self._points:
            self._study.enqueue_trial(_encoded(self._points[number], self._distributions))
        words = seed_words(self._seed, number)[0].generate_state(1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            self._study.sampler = TPESampler(multivariate=True, seed=int(words[0]))
        trial = self._asked[number] = self._study.ask(self._distributions)
        parameters = {k: json.loads(v) if isinstance(v, str) else v for k, v in trial.params.items()}
        return self._known.get(number) or SupernetTrial(number=number, parameters=parameters)

    def judge(self, number: int, found: SupernetTrial) -> SupernetTrial:
        """Take in how a trial stands; returns it, stopped where others were better after as many epochs."""
        trial = self._asked[number]
        heard = self._study.trials[trial.number].intermediate_values
        for epoch in sorted(set(found.scores) - set(heard)):
            trial.report(found.scores[epoch], epoch)
            if found.state == "training" and trial.should_prune():
                found = replace(found, state="stopped")
        if found.state in STATES:
            value = found.score if found.state == "complete" else None
            self._study.tell(trial, value, state=STATES[found.state])
        return found


class _Halving(BasePruner):
    """Asynchronous successive halving: a trial goes on if it is among the best of those that came as far before.

    Optuna's keeps rungs in attributes that trials of an earlier process lack, and stops more of the first ones
    (docs/decisions.md).
    """

    def __init__(self, reduction: int) -> None:
        self._percent = 100 * (1 - 1 / reduction)

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether the trial's last score is below the best 1 in `reduction` of the others'."""
        epoch, score = max(trial.intermediate_values.items())
        others = [
            other.intermediate_values[epoch]
            for other in study.get_trials(deepcopy=False)
            if other.number != trial.number and epoch in other.intermediate_values
        ]
        return bool(others) and score < float(np.percentile(others, self._percent))


def _distributions(tune_config: TuneConfig) -> dict[str, BaseDistribution]:
    """Of every parameter. Choices are JSON, as Optuna keeps no lists."""
    found: dict[str, BaseDistribution] = {}
    for key, domain in tune_config.parameters.items():
        if isinstance(domain, tuple):
            found[key] = CategoricalDistribution([json.dumps(choice) for choice in domain])
        elif is_whole(TrainConfig, key.partition(".")[2]):
            found[key] = IntDistribution(int(domain.low), int(domain.high), log=domain.log)
        else:
            found[key] = FloatDistribution(domain.low, domain.high, log=domain.log)
    return found


def _encoded(parameters: Mapping[str, Any], distributions: Mapping[str, BaseDistribution]) -> dict[str, Any]:
    return {
        name: json.dumps(parameters[name]) if isinstance(distribution, CategoricalDistribution) else parameters[name]
        for name, distribution in distributions.items()
    }


def _frozen(trial: SupernetTrial, distributions: dict[str, BaseDistribution]) -> FrozenTrial:
    """A trial of an earlier process as Optuna would have it."""
    return create_trial(
        state=STATES[trial.state],
        value=trial.score if trial.state == "complete" else None,
        params=_encoded(trial.parameters, distributions),
        distributions=distributions,
        intermediate_values=dict(trial.scores),
    )
