"""Supernet trials: Ray Tune with Optuna's proposals and ASHA's early stopping, one objective.

Tune's own state is not kept. What is finished is told to a new study and a new scheduler at the start, which
takes no time, and what was being trained is proposed first: the folders of the trials are the truth, and
a kill loses no more than their last checkpoints do.
"""

import json
import logging
import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, TPESampler
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState, create_trial
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch

from nas.base import one_line
from nas.cluster import RayConnection
from nas.runs import SupernetTrial
from nas.search.samplers import seed_words
from nas.settings import TrainConfig, TuneConfig, is_whole

# Before Ray Tune is imported: no files and no words of its own, and Ctrl-C ends it.
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
os.environ["TUNE_PRINT_ALL_TRIAL_ERRORS"] = "0"
os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
os.environ["TUNE_DISABLE_STRICT_METRIC_CHECKING"] = "1"  # what failed has no score

SCORE, EPOCH, FAILED = "score", "epoch", "failed"
MAX_DEATHS = 2  # of a trial's process (out of memory, a lost node); it then goes on from its checkpoint

Report = Callable[[int, float], None]
"""Called with an epoch and the score after it; does not return where the trial is stopped."""

Train = Callable[[int, dict[str, Any], Report], str | None]
"""Trains a trial of a number and parameters, in a process of its own; returns why it failed, if it did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be tried, and where.

    Attributes:
        tune: Parameters, and when a trial may be stopped.
        epochs: Of a whole training.
        count: Trials in all, with the known ones.
        seed: Of every proposal.
        workers: Trials at a time, one CPU each, on a Ray of our own.
        address: Of a running Ray cluster; None: a Ray of our own.
        num_gpus: That Ray sets aside for each trial.
        folder: For Tune's files while it runs; on a cluster, all nodes see it.
    """

    tune: TuneConfig
    epochs: int
    count: int
    seed: int
    workers: int
    address: str | None
    num_gpus: float
    folder: Path


class Listener(Protocol):
    """What happens to trials, told to the process that proposes them."""

    def scored(self, number: int, epoch: int, score: float) -> None:
        """A trial has reached a rung."""

    def stopped(self, parameters: Mapping[str, Any]) -> None:
        """A trial was ended early, because others are better."""

    def failed(self, parameters: Mapping[str, Any], reason: str) -> None:
        """A trial has ended without a result, for a reason that its own process may not have lived to record."""


def run_trials(
    plan: Plan,
    train: Train,
    known: Sequence[SupernetTrial],
    first: Mapping[str, Any] | None,
    listener: Listener,
) -> None:
    """Train supernets until there are `plan.count` trials.

    Args:
        plan: What and where.
        train: Trains one.
        known: Trials of earlier processes. Those in state `training` go on.
        first: Parameters of the first trial of all; None: as the sampler likes.
        listener: Told what happens.

    Raises:
        RunError: Ray cannot be started or reached.
        KeyboardInterrupt: Ctrl-C.
    """
    ended = [trial for trial in known if trial.state != "training"]
    search = _Search(plan, known, first, listener)
    rungs = plan.tune.rungs(plan.epochs)
    asha = ASHAScheduler(
        time_attr=EPOCH,
        metric=SCORE,
        mode="max",
        max_t=plan.epochs,
        grace_period=rungs[0],
        reduction_factor=plan.tune.reduction,
    )
    for trial in ended:
        _remember(asha, trial)
    shutil.rmtree(plan.folder, ignore_errors=True)
    connection = RayConnection(plan.address, plan.workers, {})
    try:
        with _quiet():
            results = tune.Tuner(
                tune.with_resources(_trainable(train), {"cpu": 1, "gpu": plan.num_gpus}),
                tune_config=tune.TuneConfig(
                    search_alg=search,
                    scheduler=asha,
                    num_samples=search.num_left,
                    max_concurrent_trials=plan.workers,
                    trial_dirname_creator=lambda trial: str(trial.trial_id),
                ),
                run_config=tune.RunConfig(
                    name=plan.folder.name,
                    storage_path=str(plan.folder.parent.absolute()),
                    failure_config=tune.FailureConfig(max_failures=MAX_DEATHS),
                    verbose=0,
                ),
            ).fit()
        for result in results:
            if result.error is not None:
                listener.failed((result.config or {})["parameters"], one_line(str(result.error)))
    finally:
        connection.close()
        shutil.rmtree(plan.folder, ignore_errors=True)


def _trainable(train: Train) -> Callable[[dict[str, Any]], None]:
    directory = Path.cwd()

    def trainable(config: dict[str, Any]) -> None:
        os.chdir(directory)  # not Tune's: the data may be named by a relative path
        reason = train(
            config["number"],
            config["parameters"],
            lambda epoch, score: tune.report({EPOCH: epoch, SCORE: score}),
        )
        if reason is not None:
            tune.report({FAILED: reason})  # raised, it would be tried again, as the death of a process is

    return trainable


def _remember(asha: ASHAScheduler, trial: SupernetTrial) -> None:
    """Show the scheduler the scores of a trial that has ended."""
    stand_in = SimpleNamespace(trial_id=trial.key)
    asha.on_trial_add(None, stand_in)
    for epoch, score in sorted(trial.scores.items()):
        asha.on_trial_result(None, stand_in, {EPOCH: epoch, SCORE: score})


class _Sampler(BaseSampler):
    """Multivariate TPE, seeded anew for each trial: a proposal depends on the seed, the number and the results."""

    def __init__(self, seed: int) -> None:
        self.seed, self.number = seed, 0
        self._inner = self._of_number()

    def _of_number(self) -> TPESampler:
        words = seed_words(self.seed, self.number)[0].generate_state(1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            return TPESampler(multivariate=True, seed=int(words[0]))

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        self._inner = self._of_number()
        return self._inner.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._inner.sample_relative(study, trial, search_space)

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        return self._inner.sample_independent(study, trial, param_name, param_distribution)


class _Search(OptunaSearch):  # type: ignore[misc] # Ray has no types
    """Ray's link to Optuna, corrected where it tells a wrong state.

    As it is, trials that were stopped early are told as complete, and what ends without a result as pruned.
    It has no way, either, to go on with the numbers and trials of an earlier process.

    Attributes:
        num_left: Trials that are to be proposed: what was being trained, then the numbers that no known trial has.
            (One that repeats another's parameters has no folder, and is known under that one's number.)
    """

    def __init__(
        self,
        plan: Plan,
        known: Sequence[SupernetTrial],
        first: Mapping[str, Any] | None,
        listener: Listener,
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._numbered, self._listener, self._epochs = _Sampler(plan.seed), listener, plan.epochs
        distributions = _distributions(plan.tune)
        super().__init__(
            space=distributions, metric=SCORE, mode="max", sampler=self._numbered, storage=InMemoryStorage()
        )
        points = {0: first} if first is not None else {}
        points |= {trial.number: trial.parameters for trial in known if trial.state == "training"}
        self._points = {number: _encoded(point, distributions) for number, point in points.items()}
        ended = {trial.number for trial in known if trial.state != "training"}
        left = (number for number in range(plan.count) if number not in ended)
        self._left = sorted(left, key=lambda number: (number not in self._points, number))
        self.num_left = len(self._left)
        self._parameters: dict[str, dict[str, Any]] = {}
        self._numbers: dict[str, int] = {}
        self._scores: dict[str, dict[int, float]] = {}
        for trial in known:
            if trial.state != "training":
                self._ot_study.add_trial(_frozen(trial, distributions))

    def suggest(self, trial_id: str) -> dict[str, Any]:
        number = self._left.pop(0)
        if number in self._points:
            self._ot_study.enqueue_trial(self._points[number])
        self._numbered.number = number
        parameters = {name: _decoded(value) for name, value in super().suggest(trial_id).items()}
        self._parameters[trial_id], self._numbers[trial_id] = parameters, number
        self._scores[trial_id] = {}
        return {"number": number, "parameters": parameters}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        if SCORE not in result:
            return
        epoch, score = result[EPOCH], result[SCORE]
        scores = self._scores[trial_id]
        if epoch not in scores:  # a trial whose process died tells its scores again
            scores[epoch] = score
            self._ot_trials[trial_id].report(score, epoch)
            self._listener.scored(self._numbers[trial_id], epoch, score)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        result = result or {}
        self.on_trial_result(trial_id, result)
        scores = self._scores[trial_id]
        if FAILED in result:
            self._listener.failed(self._parameters[trial_id], result[FAILED])
        if error or FAILED in result or not scores:
            self._ot_study.tell(self._ot_trials[trial_id], state=TrialState.FAIL)
        elif self._epochs in scores:
            self._ot_study.tell(self._ot_trials[trial_id], scores[self._epochs])
        else:
            self._ot_study.tell(self._ot_trials[trial_id], state=TrialState.PRUNED)
            self._listener.stopped(self._parameters[trial_id])


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
        name: json.dumps(parameters[name])
        if isinstance(distribution, CategoricalDistribution)
        else parameters[name]
        for name, distribution in distributions.items()
    }


def _decoded(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) else value


def _frozen(trial: SupernetTrial, distributions: dict[str, BaseDistribution]) -> FrozenTrial:
    """A trial of an earlier process as Optuna would have it."""
    states = {"complete": TrialState.COMPLETE, "stopped": TrialState.PRUNED, "failed": TrialState.FAIL}
    return create_trial(
        state=states[trial.state],
        value=trial.score if trial.state == "complete" else None,
        params=_encoded(trial.parameters, distributions),
        distributions=distributions,
        intermediate_values=dict(trial.scores),
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what Tune logs: each failure is recorded with its reason."""
    logger = logging.getLogger("ray.tune")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
