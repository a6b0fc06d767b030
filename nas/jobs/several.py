"""A run over several supernets: their trials, a search in each of the best, and the union of their fronts."""

import os
from dataclasses import replace
from functools import partial

from nas.base import NoResultError, RunError
from nas.jobs import stages
from nas.jobs.last_choice.finalists import check_last_choice, finalists_left, last_choice
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
from nas.settings import baseline
from nas.study import Plan, run_trials
from nas.training import Teacher, learning_rate, load_trained, weights_digest


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
    check_last_choice(session, budget)
    before = session.run.manifest.supernet_trials
    if before is None and budget.supernet_trials == 1:
        return stages.run(session, budget, last_choice, chooses=finalists_left(session.run, budget))
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
        if _is_finished(session.run, best, shares) and not finalists_left(session.run, budget):
            session.run.update_manifest(stage="finished")
            session.reporter.line("run", "nothing is left to do; more --trials or --supernet-trials extend it")
            return ParetoFront.from_run(session.run.path)
        digests = [weights_digest(RunDirectory.open(session.run.supernets_dir / t.key)) for t in best]
        session.run.update_manifest(supernet_digest=joint_digest(digests))
        identity = stages.begin_search(session, Supernet(session.space), budget)
        for rank, (trial, share) in enumerate(zip(best, shares, strict=True), start=1):
            parameters = ", ".join(
                f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}"
                for key, value in trial.parameters.items()
            )
            place = f"{trial.key}, {rank} of the best {len(best)}, score {trial.score:.4f}"
            session.reporter.line("supernet", f"{place}: {parameters}")
            try:
                folder = RunDirectory.open(session.run.supernets_dir / trial.key)
                if folder.manifest.search is None:
                    folder.update_manifest(search=identity)  # one reference for all
                own = replace(session, run=folder, space=space_of_run(folder), config=config_of_run(folder))
                stages.say_dead_operators(own)
                stages.run(own, share)
            except NoResultError as error:
                session.reporter.line("supernet", f"{trial.key} adds nothing: {error.message}")
        return last_choice(session, budget) or _measure(session)


def _train(session: Session, budget: Budget) -> None:
    """Train supernets until there are as many trials as asked for."""
    folder, tune = session.run, session.config.tune
    known = supernet_trials(folder)
    if (folder.manifest.supernet_trials_ended or 0) < budget.supernet_trials:
        folder.update_manifest(stage="training", supernet_trials=budget.supernet_trials)
        if session.config.teacher:
            Teacher(session.located.teacher, session.data.info)
        epochs = stages.training_schedule(session.config, session.data.train).epochs
        cores = budget.supernet_trials if budget.ray_address else len(os.sched_getaffinity(0))
        workers = min(budget.workers, budget.supernet_trials, cores)
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
        heard: set[tuple[int, int]] = set()

        def say(text: str) -> None:
            folder.log(f"supernet {text}")
            session.reporter.line("supernet", text)

        recipe = session.config.train
        recipe = recipe.model_copy(update={"lr": learning_rate(recipe, session.space)})
        for number, trial in run_trials(plan, train, known, baseline(tune, recipe)):
            for epoch, score in sorted(trial.scores.items()):
                if (number, epoch) not in heard:
                    heard.add((number, epoch))
                    say(f"trial {number}: score {score:.4f} after epoch {epoch} of {epochs}")
            # Without a folder, its process died before it began: the next call tries again.
            if trial.state in ("stopped", "failed") and (folder.supernets_dir / trial.key).exists():
                _record_end(RunDirectory.open(folder.supernets_dir / trial.key), trial)
                say(f"trial {number} {trial.state}{f': {trial.error}' if trial.error else ''}")
        folder.update_manifest(supernet_trials_ended=budget.supernet_trials)
    if not ranked(ended := supernet_trials(folder)):
        reasons = list(dict.fromkeys(trial.error for trial in ended if trial.error))
        raise NoResultError(
            f"{folder.path}: none of {len(ended)} supernets was trained to the end: {'; '.join(reasons)}",
            hint="other domains in tune.parameters and a new --run, or more --supernet-trials",
        )


def _record_end(run: RunDirectory, trial: SupernetTrial) -> None:
    """Record how a trial ended, where its own process did not."""
    known = supernet_trial(run)
    if known.state == "training":
        run.update_manifest(supernet_trial=replace(known, state=trial.state, error=trial.error))


def _shares(budget: Budget, count: int) -> list[Budget]:
    """What each of so many supernets gets of the budget of the search, best first."""
    return [
        replace(
            budget,
            trials=None if budget.trials is None else max(len(range(rank, budget.trials, count)), 1),
            minutes=None if budget.minutes is None else budget.minutes / count,
            train_workers=0,
            supernet_trials=1,
            finalists=0,
        )
        for rank in range(count)
    ]


def _is_finished(folder: RunDirectory, best: list[SupernetTrial], shares: list[Budget]) -> bool:
    searched = [RunDirectory.open(folder.supernets_dir / trial.key) for trial in best]
    return folder.front() is not None and all(
        run.manifest.stage == "finished" and not stages.trials_left(run, share)
        for run, share in zip(searched, shares, strict=True)
    )


def _measure(session: Session) -> ParetoFront:
    """Measure all that is on the front of a supernet together: each search had a clock of its own."""
    searched = {name: run for name, run in searched_runs(session.run).items() if run.front() is not None}
    fronts = {name: ParetoFront.from_run(run.path).points for name, run in searched.items()}
    found = ParetoFront(ParetoFront.from_run(session.run.path).objectives, tuple(union_points(fronts)))
    supernets = {name: load_trained(run, space_of_run(run), session.device) for name, run in searched.items()}
    subnets = [supernets[point.details[OWNER]].extract(point.architecture) for point in found.points]
    return stages.measure_points(session, Supernet(session.space), found, subnets)
