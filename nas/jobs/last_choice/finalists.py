"""`finalists RUN`, and the end of `run`: candidates, and plain rivals, trained on; the best of them are the front."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import sqrt
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np

from nas.arch import cost
from nas.base import MACS, SCHEMA_VERSION, ConfigError, Metric, NoResultError, Reporter, RunError, plural
from nas.jobs.alone import StandAloneSetup, trained_network
from nas.jobs.alone_records import inherited_setup, trained_jobs
from nas.jobs.last_choice.candidates import (
    KEEP,
    Levels,
    candidates,
    epochs_within,
    least_beaten,
    rungs_of,
    trained_cost,
)
from nas.jobs.last_choice.in_turn import timed_in_turn
from nas.jobs.measures import search_identity
from nas.jobs.session import Budget, Session, reopen
from nas.jobs.stages import measure_points, training_schedule
from nas.model import Supernet
from nas.runs import (
    FINALIST,
    OWNER,
    FinalistsProgress,
    FrontPoint,
    ParetoFront,
    RunDirectory,
    config_of_run,
    points_of,
    searched_runs,
    space_of_run,
    trials_by_supernet,
    union_points,
)
from nas.space import SearchSpace, is_plain
from nas.training import load_trained

COUNT = 16  # candidates where nothing is asked
SHARE = 0.5  # of what the supernet's training took, where nothing is asked
LEAST_STEPS = 200  # of the last rung, where nothing is asked (docs/decisions.md)
DRAWS = 64  # for the mean MACs of a step of the supernet
TOLD_EVERY_S = 10.0  # how far it is, in the manifest
UNMEASURED = "finalists have weights of their own, on which neither agreement nor a metric of a program is measured"


@dataclass(frozen=True, slots=True, kw_only=True)
class Contest:
    """How many candidates are trained, and how.

    Attributes:
        epochs: Of the last rung; None: all trainings together cost half of the supernet's, in MACs.
        seeds: Of the last rung.
        workers: Ray tasks at a time; 0: in this process.
    """

    count: int = COUNT
    epochs: int | None = None
    seeds: int = 1
    workers: int = 0

    def __post_init__(self) -> None:
        if self.count < 2:
            raise ConfigError(
                f"--count {self.count}: nothing to choose from", hint="16 are eight levels of cost, two each"
            )
        if self.seeds < 1:
            raise ConfigError(f"--seeds {self.seeds}: must be at least 1")


def finalists(path: Path, reporter: Reporter, contest: Contest, *, data: str | None = None) -> dict[str, Any]:
    """Train candidates of a run on, each alone from its slice of its supernet, and make the front of the best.

    The range of costs of the front is cut into levels. Of each, a few networks that the search measured are trained for
    a third of the epochs (`candidates`), and half of them, those least beaten at no more cost on the search split, once
    more from the supernet's weights for all (`least_beaten`): successive halving (Hyperband, arXiv 1603.06560) that
    leaves a front. These are measured again, latency included, and those that no other dominates are the run's front
    from then on; whatever wins is exported with its own weights, even where it is plain. Finished trainings are kept,
    and the same command goes on. `data` says where the images are now (`nas.jobs.session.reopen`).

    Returns:
        The key `finalists` of `front.json`: JSON values, explained in results/README.md.

    Raises:
        ConfigError: No epochs are said of a supernet that was not trained here; or the run has metrics of a program.
        RunError: The search has not ended, or another process writes into the run.
        NoResultError: All trainings failed.
        KeyboardInterrupt: Ctrl-C; the same command goes on.
    """
    session = reopen(path, reporter, data)
    run = session.run
    if session.config.search.own_metrics:
        raise ConfigError(f"{path}: {UNMEASURED}")
    if run.manifest.supernet_trial is not None:
        raise RunError(
            f"{path}: a supernet of another run", hint="name that run: its finalists are of all its supernets"
        )
    with run.lock():
        if run.front() is None and run.manifest.stage != "finalists":
            raise RunError(f"{path}: the search has not ended, so there is no front", hint="run it to the end first")
        choose(session, contest)
    return {"schema_version": SCHEMA_VERSION, **(run.front() or {})["finalists"]}


def last_choice(session: Session, budget: Budget) -> ParetoFront | None:
    """The front of finalists that a whole run ends with; None, and a line why, where there are none.

    Unless the budget names a number there are `COUNT`, but none where the supernet was not trained here, or where what
    they may cost, `SHARE` of its training, is less than `LEAST_STEPS` steps for each of the last rung.

    Raises:
        ConfigError: A number is named, and the supernet was not trained here.
    """
    schedule, say = training_schedule(session.config, session.data.train), session.reporter.line
    if budget.finalists == 0 or (budget.finalists is None and not schedule.epochs):
        return None
    if session.config.search.own_metrics:
        say("finalists", f"none: {UNMEASURED}")
        return None
    contest = Contest(count=budget.finalists or COUNT, workers=budget.workers)
    if schedule.epochs:
        plan = session.run.manifest.plan
        share = SHARE * schedule.epochs if plan is None else plan.finalist_epochs
        epochs = _affordable(session, share, _candidates(session, contest.count)[1])
        if budget.finalists is None and (steps := epochs * schedule.steps_per_epoch) < LEAST_STEPS:
            why = f"the last would have {steps} steps each, and {LEAST_STEPS} are needed to tell them apart"
            say("finalists", f"none: {why}; --finalists {contest.count} trains them anyway")
            return None
        contest = replace(contest, epochs=max(1, epochs))
    try:
        return choose(session, contest)
    except NoResultError as error:
        say("warning", f"{error.message}; the front is of inherited weights")
        return None


def finalists_left(run: RunDirectory, budget: Budget) -> bool:
    """Whether a budget names a number of finalists, and the front is not of them."""
    return bool(budget.finalists) and (run.front() or {}).get("finalists", {}).get("count") != budget.finalists


def check_last_choice(session: Session, budget: Budget) -> None:
    """Find out before anything is trained that finalists are asked for and cannot be had: a ConfigError."""
    if budget.finalists and session.config.search.own_metrics:
        raise ConfigError(f"--finalists {budget.finalists}: {UNMEASURED}")
    if budget.finalists and not training_schedule(session.config, session.data.train).epochs:
        raise ConfigError(
            f"--finalists {budget.finalists}: they may cost half of the supernet's training, and there is none",
            hint="`finalists RUN --epochs N` afterwards, or --epochs N",
        )


def choose(session: Session, contest: Contest) -> ParetoFront:
    """Train, and write the front: `finalists`, within the lock of a run; it raises what that does.

    Raises:
        ConfigError: No epochs are said of a supernet that was not trained here.
        NoResultError: All trainings failed.
    """
    run, reporter = session.run, session.reporter
    owners = _owners(session)
    supernets = {name: load_trained(own.run, own.space, own.device) for name, own in owners.items()}
    largest = supernets.get("") or Supernet(session.space)
    identity = search_identity(session, largest)
    inherited, levels = _candidates(session, contest.count)
    epochs = contest.epochs
    if epochs is None:
        supernet_epochs = training_schedule(session.config, session.data.train).epochs
        if not supernet_epochs:
            raise ConfigError(f"{run.path}: its supernet had no epoch of training", hint="give --epochs N")
        epochs = max(1, _affordable(session, SHARE * supernet_epochs, levels, contest.seeds))
    run.update_manifest(stage="finalists")
    accuracy, costs = inherited.accuracy, [o.metric for o in inherited.objectives if o.metric != inherited.accuracy]
    going = [point for level in levels for point in level]
    progress = _Progress(run, trained_cost(epochs, [point.value(MACS) for point in going], contest.seeds))
    rungs = [_Rung(owners, rung, contest.seeds if rung == epochs else 1, rung == epochs) for rung in rungs_of(epochs)]
    for rung in rungs:
        rung.train(session, going, contest.workers, accuracy, progress)
        going = [point for point in going if point.digest in rung.records]
        if not rung.is_last:
            going = timed_in_turn(session, largest, going, costs)
            going = least_beaten(going, rung.accuracies, costs, round(KEEP * contest.count))
    if not going:
        raise NoResultError(
            f"{run.path}: every training failed", hint=f"see above; delete {run.finalists_dir} to retry"
        )
    trained = [rungs[-1].trained(point, accuracy) for point in going]
    subnets = [rungs[-1].network(point) for point in going]
    about = _described(contest.count, levels, inherited, rungs, {point.digest for point in trained})
    found = ParetoFront(inherited.objectives, tuple(trained), clocks=identity.reference_clocks)
    front = measure_points(session, largest, found, subnets, about={"finalists": about})
    run.update_manifest(finalists=None)
    plain = sum(is_plain(point.architecture) for point in front.points)
    reporter.line("finalists", f"front of {len(front.points)} trained on for {plural(epochs, 'epoch')}, {plain} plain")
    return front


class _Rung:
    """Trainings of so many epochs each.

    Attributes:
        records: Of the trainings that did not fail, by digest; the median one first.
        accuracies: Of the median one.
    """

    def __init__(self, owners: Mapping[str, Session], epochs: int, seeds: int, is_last: bool) -> None:
        self.epochs, self.seeds, self.is_last = epochs, seeds, is_last
        self.records: dict[str, list[dict[str, Any]]] = {}
        self.accuracies: dict[str, float] = {}
        self._setups = {
            name: replace(inherited_setup(own, epochs, own.run.finalists_dir), keeps_weights=is_last)
            for name, own in owners.items()
        }

    def train(
        self, session: Session, points: Sequence[FrontPoint], workers: int, accuracy: Metric, progress: "_Progress"
    ) -> None:
        """Fill `records` and `accuracies`; says what failed."""
        progress.begin(self.epochs * self.seeds * sum(point.value(MACS) for point in points))
        jobs = [(self._setup(point, seed), point.architecture) for seed in range(self.seeds) for point in points]
        for record in trained_jobs(jobs, session.data, workers, session.reporter, progress.tell) if jobs else []:
            if record["error"] is None:
                self.records.setdefault(record["digest"], []).append(record)
            else:
                session.reporter.line("failed", f"{record['digest']}, seed {record['seed']}: {record['error']}")
        for digest, found in self.records.items():
            ranked = sorted(found, key=lambda record: (record[accuracy.name], record["seed"]))
            median = ranked[(len(ranked) - 1) // 2]
            found.sort(key=lambda record: record is not median)
            self.accuracies[digest] = median[accuracy.name]

    def network(self, point: FrontPoint) -> Any:
        """What the median training left behind."""
        return trained_network(self._median_setup(point), point.architecture)

    def trained(self, point: FrontPoint, accuracy: Metric) -> FrontPoint:
        """A point with the accuracy of its median training, and what it had before among its details."""
        before, record = point.measurement, self.records[point.digest][0]
        weights = f"{before.conditions.supernet}, each trained on for {plural(self.epochs, 'epoch')}"
        measurement = replace(
            before,
            top1=record["top1"],
            top1_interval=tuple(record["top1_ci"]),
            conditions=replace(before.conditions, supernet=weights),
            correct=b"",
        )
        if before.balanced_top1 is not None:
            interval = record["balanced_top1_ci"]
            measurement = replace(
                measurement, balanced_top1=record["balanced_top1"], balanced_top1_interval=interval and tuple(interval)
            )
        about = {
            "inherited_top1": before.top1,
            "epochs": self.epochs,
            "weights": self._median_setup(point).path(point.architecture, ".safetensors").name,
            "plain": is_plain(point.architecture),
            **over_seeds([each[accuracy.name] for each in self.records[point.digest]]),
        }
        return replace(point, measurement=measurement, details={**point.details, FINALIST: about})

    def _setup(self, point: FrontPoint, seed: int = 0) -> StandAloneSetup:
        setup = self._setups[point.details.get(OWNER, "")]
        return replace(setup, seed=setup.seed + seed)

    def _median_setup(self, point: FrontPoint) -> StandAloneSetup:
        return replace(self._setup(point), seed=self.records[point.digest][0]["seed"])


def over_seeds(accuracies: Sequence[float]) -> dict[str, Any]:
    """Mean over seeds, and Student's 95 % interval of it, as details of a point; nothing of one seed."""
    if len(accuracies) < 2:
        return {}
    from scipy.stats import t  # type: ignore[import-untyped]

    mean, half = fmean(accuracies), float(t.ppf(0.975, len(accuracies) - 1)) * stdev(accuracies) / sqrt(len(accuracies))
    return {"by_seed": sorted(accuracies), "mean": mean, "mean_ci": [mean - half, mean + half]}


class _Progress:
    """How far the trainings are, for `status`; the last rung counts as it is expected until it begins."""

    def __init__(self, run: RunDirectory, planned: float) -> None:
        self._run, self._planned, self._before, self._rung = run, planned, 0.0, 0.0
        self._first: tuple[float, float] | None = None
        self._told = 0.0

    def begin(self, work: float) -> None:
        """A rung begins, with so much work (MACs times epochs)."""
        self._before, self._rung = self._before + self._rung, work
        self._planned = max(self._planned, self._before + work)

    def tell(self, share: float) -> None:
        """So much of the rung is done."""
        now, done = time.time(), min(1.0, (self._before + share * self._rung) / self._planned)
        self._first = self._first or (now, done)
        if share < 1 and now - self._told < TOLD_EVERY_S:
            return
        began, first = self._first
        left = (now - began) / (done - first) * (1 - done) / 60 if done > first else None
        self._told = now
        self._run.update_manifest(finalists=FinalistsProgress(share=done, minutes_left=left, told=now))


def _owners(session: Session) -> dict[str, Session]:
    """A session for each supernet of a run, by its folder below the run's; of a run of one under ""."""
    runs = searched_runs(session.run)
    owners = {n: replace(session, run=r, space=space_of_run(r), config=config_of_run(r)) for n, r in runs.items()}
    return owners or {"": session}


def _candidates(session: Session, count: int) -> tuple[ParetoFront, Levels]:
    """The front by inherited weights, and the candidates; of an architecture in several supernets the best one."""
    run, search = session.run, session.run.manifest.search
    if search is None:
        raise RunError(f"{run.path}: the search has not begun", hint="run it to the end first")
    by_supernet = {name: points_of(trials) for name, trials in trials_by_supernet(run).items()}
    measured = by_supernet[""] if "" in by_supernet else union_points(by_supernet)
    front = ParetoFront.from_points(measured, search.objectives, run.manifest.constraints)
    if not front.points:
        raise NoResultError(f"{run.path}: no trial was completed", hint=f"see the errors in {run.path}/trials.csv")
    return front, candidates(front, measured, count)


def _affordable(session: Session, supernet_epochs: float, levels: Levels, seeds: int = 1) -> int:
    """Epochs of the last rung with which all trainings cost as much as so many of the supernet, in MACs; 0: not one."""
    budget = supernet_epochs * step_macs(session.space)
    return epochs_within(budget, [point.value(MACS) for level in levels for point in level], seeds)


def step_macs(space: SearchSpace) -> float:
    """Mean MACs of the networks that a supernet's training draws."""
    rng = np.random.default_rng(0)
    return fmean(cost.macs(space.sample_by_gene(rng), space.backbone) for _ in range(DRAWS))


def _described(
    count: int, levels: Levels, inherited: ParetoFront, rungs: Sequence[_Rung], chosen: set[str]
) -> dict[str, Any]:
    """What `front.json` says of the trainings, and the front that there was before."""
    metric = inherited.accuracy
    on_front = {point.digest for point in inherited.points}
    return {
        "accuracy": metric.name,
        "count": count,
        "epochs": [rung.epochs for rung in rungs],
        "seeds": rungs[-1].seeds,
        "candidates": [
            {
                "digest": point.digest,
                "macs": point.value(MACS),
                "inherited": point.value(metric),
                "trained": [rung.accuracies.get(point.digest) for rung in rungs],
                **over_seeds([record[metric.name] for record in rungs[-1].records.get(point.digest, ())]),
                "chosen": point.digest in chosen,
                "plain": is_plain(point.architecture),
                "on_inherited_front": point.digest in on_front,
            }
            for level in levels
            for point in level
        ],
        "inherited_front": [
            {"digest": point.digest, "accuracy": point.value(metric), "macs": point.value(MACS)}
            for point in inherited.points
        ],
    }
