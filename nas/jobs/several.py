"""A run over several supernets: their trials, a search in each of the best, and the union of their fronts."""

import os
from dataclasses import replace
from functools import partial

from nas.base import NoResultError, Reporter, RunError
from nas.jobs import stages
from nas.jobs.session import Budget, Session
from nas.jobs.several_trial import train_trial
from nas.model import Supernet
from nas.runs import (
    OWNER,
    ParetoFront,
    RunDirectory,
    SupernetTrial,
    check_ray_is_used,
    config_of_run,
    joint_digest,
    ranked,
    searched_runs,
    space_of_run,
    supernet_trial,
    supernet_trials,
    union_points,
)
from nas.search import Plan, run_trials
from nas.settings import baseline
from nas.training import load_trained, weights_digest


def run(session: Session, budget: Budget) -> ParetoFront:
    """Everything: train supernets, search the best, measure; what an earlier process finished is not done again.

    A run that was started with supernet trials goes on with as many where `budget` names one. For a run of one
    supernet this is `stages.run`.

    Raises:
        RunError: The folder holds a run of one supernet, and several are asked for.
        NoResultError: No supernet was trained to the end, or nothing of what was found may be shown.
        NasError: Another stage failed; see there.
        KeyboardInterrupt: Ctrl-C; the same call resumes.
    """
    before = session.run.manifest.supernet_trials
    if before is None and budget.supernet_trials == 1:
        return stages.run(session, budget)
    budget = replace(budget, supernet_trials=max(budget.supernet_trials, before or 1))
    if before is None and session.run.manifest.stage != "created":
        raise RunError(
            f"{session.run.path} holds a run of one supernet, not of {budget.supernet_trials}",
            hint="choose another --run DIR, or leave --supernet-trials out",
        )
    check_ray_is_used(budget.workers)
    with session.run.lock():
        _train(session, budget)
        best = ranked(supernet_trials(session.run))[: session.config.tune.keep]
        shares = _shares(budget, len(best))
        if _is_finished(session.run, best, shares):
            session.run.update_manifest(stage="finished")
            session.reporter.line("run", "nothing is left to do; more --trials or --supernet-trials extend it")
            return ParetoFront.from_run(session.run.path)
        digests = [weights_digest(RunDirectory.open(session.run.supernets_dir / t.key)) for t in best]
        session.run.update_manifest(supernet_digest=joint_digest(digests))
        stages.begin_search(session, Supernet(session.space), budget)
        for rank, (trial, share) in enumerate(zip(best, shares, strict=True), start=1):
            session.reporter.line(
                "supernet", f"{trial.key}, {rank} of the best {len(best)}, score {trial.score:.4f}: {said(trial)}"
            )
            try:
                stages.run(_session(session, trial), share)
            except NoResultError as error:
                session.reporter.line("supernet", f"{trial.key} adds nothing: {error.message}")
        return _measure(session)


def said(trial: SupernetTrial) -> str:
    """The parameters of a trial in words."""
    return ", ".join(
        f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}"
        for key, value in trial.parameters.items()
    )


class _Listener:
    """Records how trials end that their own processes did not end, and tells people."""

    def __init__(self, run: RunDirectory, reporter: Reporter, epochs: int) -> None:
        self._run, self._reporter, self._epochs = run, reporter, epochs
        self._heard: set[tuple[int, int]] = set()

    def hear(self, number: int, trial: SupernetTrial) -> None:
        """A trial has reached a rung or ended."""
        for epoch, score in sorted(trial.scores.items()):
            if (number, epoch) not in self._heard:
                self._heard.add((number, epoch))
                self._say(f"trial {number}: score {score:.4f} after epoch {epoch} of {self._epochs}")
        path = self._run.supernets_dir / trial.key
        if trial.state not in ("stopped", "failed") or not path.exists():
            return  # without a folder, its process died before it began: the next call tries again
        folder = RunDirectory.open(path)
        known = supernet_trial(folder)
        if known.state == "training":
            folder.update_manifest(supernet_trial=replace(known, state=trial.state, error=trial.error))
        self._say(f"trial {number} {trial.state}{f': {trial.error}' if trial.error else ''}")

    def _say(self, text: str) -> None:
        self._run.log(f"supernet {text}")
        self._reporter.line("supernet", text)


def _train(session: Session, budget: Budget) -> None:
    """Train supernets until there are as many trials as asked for."""
    folder, tune = session.run, session.config.tune
    known = supernet_trials(folder)
    if (folder.manifest.supernet_trials_ended or 0) < budget.supernet_trials:
        folder.update_manifest(stage="training", supernet_trials=budget.supernet_trials)
        epochs = stages.training_schedule(session.config, session.data.train).epochs
        cores = budget.supernet_trials if budget.ray_address else len(os.sched_getaffinity(0))
        workers = min(budget.workers, budget.supernet_trials, cores)
        listener = _Listener(folder, session.reporter, epochs)
        session.reporter.line(
            "supernets",
            f"{budget.supernet_trials} trials, {len(known)} of them known, {workers} at a time; "
            f"scored after epochs {', '.join(map(str, tune.rungs(epochs)))}",
        )
        plan = Plan(
            tune=tune,
            epochs=epochs,
            count=budget.supernet_trials,
            seed=session.config.seed,
            workers=workers,
            address=budget.ray_address,
            num_gpus=1 / workers if session.device.type == "cuda" else 0,
        )
        train = partial(train_trial, folder.path.absolute(), epochs)
        for number, trial in run_trials(plan, train, known, baseline(tune, session.config.train)):
            listener.hear(number, trial)
        folder.update_manifest(supernet_trials_ended=budget.supernet_trials)
    if not ranked(ended := supernet_trials(folder)):
        reasons = list(dict.fromkeys(trial.error for trial in ended if trial.error))
        raise NoResultError(
            f"{folder.path}: none of {len(ended)} supernets was trained to the end: {'; '.join(reasons)}",
            hint="other domains in tune.parameters and a new --run, or more --supernet-trials",
        )


def _shares(budget: Budget, count: int) -> list[Budget]:
    """What each of so many supernets gets of the budget of the search, best first."""
    return [
        replace(
            budget,
            trials=None if budget.trials is None else max(len(range(rank, budget.trials, count)), 1),
            minutes=None if budget.minutes is None else budget.minutes / count,
            train_workers=0,
            supernet_trials=1,
        )
        for rank in range(count)
    ]


def _session(session: Session, trial: SupernetTrial) -> Session:
    """A supernet's folder, opened for a search of its own."""
    folder = RunDirectory.open(session.run.supernets_dir / trial.key)
    return replace(session, run=folder, space=space_of_run(folder), config=config_of_run(folder))


def _is_finished(folder: RunDirectory, best: list[SupernetTrial], shares: list[Budget]) -> bool:
    if folder.front() is None:
        return False
    for trial, share in zip(best, shares, strict=True):
        searched = RunDirectory.open(folder.supernets_dir / trial.key)
        if searched.manifest.stage != "finished" or stages.trials_left(searched, share):
            return False
    return True


def _measure(session: Session) -> ParetoFront:
    """Measure all that is on the front of a supernet together: each search had a clock of its own."""
    folder = session.run
    fronts = {
        name: ParetoFront.from_run(searched.path).points
        for name, searched in searched_runs(folder).items()
        if searched.front() is not None
    }
    found = ParetoFront(ParetoFront.from_run(folder.path).objectives, tuple(union_points(fronts)))
    supernets = {
        name: load_trained(searched, space_of_run(searched), session.device)
        for name, searched in searched_runs(folder).items()
        if name in fronts
    }
    subnets = [supernets[point.details[OWNER]].extract(point.architecture) for point in found.points]
    return stages.measure_points(session, Supernet(session.space), found, subnets)
