"""What a command will need in time, memory and disk: `--dry-run`. Arithmetic on what a rehearsal measured."""

import math
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import psutil
from sqlalchemy import create_engine
from sqlalchemy.engine import make_url

from nas.arch import Architecture, cost
from nas.base import duration
from nas.jobs.dry_run.plan import Pace, finalist_epochs, finalists_s, plan_line, planned, rounds_of
from nas.jobs.dry_run.rehearsal import (
    MemoryWatch,
    Searching,
    Training,
    rehearse_search,
    rehearse_training,
    scratch_copy,
    size_of,
)
from nas.jobs.last_choice.candidates import KEEP
from nas.jobs.last_choice.finalists import COUNT, LEAST_STEPS, SHARE
from nas.jobs.session import LEAST_THREADED_MACS, Budget, Session, check_budget
from nas.jobs.stages import training_schedule
from nas.latency import PATIENCE, REFERENCE_EVERY_S, SHARE_ROUNDS, SHORTEST_S, WARM_UP
from nas.runs import RunPlan, course_of
from nas.space import SearchSpace
from nas.training import KEPT

DRAWS = 64
SLOW_PROPOSERS = ("tpe", "gp", "predictor")
NO_SEARCH = {
    "search_s": 0.0, "measure_s": 0.0, "trials": 0, "trials_done": 0, "workers": 0, "evaluation_s": 0.0,
    "evaluations_timed": 0, "parallelism": 0.0, "front_size": 0, "disk_trials_bytes": 0,
}  # fmt: skip
NO_FINALISTS = {"finalists_s": 0.0, "finalists": 0, "finalist_epochs": 0, "disk_finalists_bytes": 0}
RECORD_BYTES = 2000  # of a training
LIKELY_TRIALS, LIKELY_FRONT = 100, 12  # before a plan says how many


def training_s(training: Training, minutes_between: float) -> float:
    """Seconds of a training, with its checkpoints."""
    steps_s = training.steps * training.step_s
    saves = num_saves(steps_s, minutes_between) if training.steps else 0
    return training.setup_s + steps_s + saves * training.save_s


def num_saves(steps_s: float, minutes_between: float) -> int:
    """Checkpoints that a training of so many seconds writes: one whenever so many minutes are over, and the last."""
    return 1 + math.floor(steps_s / (60 * minutes_between))


def trials_in(seconds: float, searching: Searching, macs: float) -> int:
    """Architectures of so many MACs that are measured within so many seconds."""
    return max(0, math.floor((seconds - searching.start_s) / searching.trial_s(macs)))


def trials_s(trials: int, searching: Searching, macs: float) -> float:
    """Seconds of a search that measures so many architectures of so many MACs."""
    return searching.start_s + trials * searching.trial_s(macs) + searching.close_s if trials else 0.0


def front_size(trials: int, objectives: int) -> int:
    """Architectures on the front of so many trials, roughly.

    Searches of cifar_small had 9 and 12 of 100 and 200 trials with two objectives, 12 and 16 with three
    (results/reference/cifar_small_trials.csv); three of digits 9, 10 and 14 of 60 with three.
    """
    return math.ceil(0.4 * (objectives * math.sqrt(trials)))


def timed_pass_s(forward_s: float) -> float:
    """Seconds to time one forward pass: an untimed one comes first, and a short one is repeated."""
    return forward_s * (1 + max(1, math.ceil(SHORTEST_S / forward_s)))


def final_stage_s(front: int, rounds: int, candidate_s: float, reference_s: float) -> float:
    """Seconds of the latency stage at the end: interleaved rounds, shares of the layers."""
    if not front:
        return 0.0
    reference, candidate = timed_pass_s(reference_s), timed_pass_s(candidate_s)
    warm_up = WARM_UP * (2 * reference_s + front * candidate_s)
    shared = math.ceil(front / math.ceil(REFERENCE_EVERY_S / candidate))
    interleaved = rounds * (reference + shared * reference + front * candidate)
    return warm_up + interleaved + front * SHARE_ROUNDS * candidate_s


@dataclass(frozen=True, slots=True)
class Proposals:
    """The mean MACs of what a search proposes: `designs` spread evenly over the range, then uniform draws."""

    designs: int
    design_macs: float
    later_macs: float

    @classmethod
    def of(cls, space: SearchSpace, sampler: str, population_size: int) -> "Proposals":
        """Those of a space, by drawing some."""
        drawn = [cost.macs(architecture, space.backbone) for architecture in _draws(space)]
        designs = 2 if sampler == "random" else population_size
        return cls(designs, sum(space.macs_range()) / 2, float(np.mean(drawn)))

    def mean_macs(self, done: int, trials: int) -> float:
        """Of `trials` proposals after the first `done`."""
        share = min(trials, max(0, self.designs - done)) / trials if trials else 0.0
        return share * self.design_macs + (1 - share) * self.later_macs


def _draws(space: SearchSpace) -> list[Architecture]:
    rng = np.random.default_rng(0)
    return [space.sample(rng) for _ in range(DRAWS)]


def check_budget_dry(budget: Budget) -> None:
    """Do what `check_budget` does, but make no tables in a database, nor the file of one."""
    check_budget(replace(budget, storage=None))
    if budget.storage is None:
        return
    try:
        url = make_url(budget.storage)
        is_file = url.get_backend_name() == "sqlite" and url.database not in (None, "", ":memory:")
        file = Path(url.database or "")
        if is_file and not file.exists() and file.parent.is_dir():
            return
        engine = create_engine(url)
        engine.connect().close()
        engine.dispose()
    except Exception:  # noqa: BLE001 - a path, or drivers raise what they like
        check_budget(budget)  # says why


def forecast(
    session: Session, budget: Budget | None, *, scratch: Path, start_s: float, train_workers: int = 0
) -> dict[str, Any]:
    """Rehearse a command for some seconds and say what it will need. The session's run is only read.

    A command without a budget only trains. It took `start_s` to open the session; `scratch` must not exist yet. A
    training in several processes is rehearsed in this one, which a note says.

    Returns:
        Seconds (`*_s`), bytes (`*_bytes`) and counts; what was measured; and in `notes` what is left out.

    Raises:
        NoResultError: Nothing could be measured; says why.
        NasError: A stage failed as it would in the command.
    """
    began = time.perf_counter()
    copy = scratch_copy(session.run, scratch)
    with copy.lock(), MemoryWatch() as memory:
        session.reporter.line("rehearsal", "some steps of the training")
        training, supernet = rehearse_training(session, copy)
        values = {**NO_SEARCH, **NO_FINALISTS}
        if budget is not None:
            values["trials_done"] = done = sum(trial.is_paid for trial in session.run.trials())
            total = min(budget.trials or session.space.size(), session.space.size())
            if session.run.manifest.stage != "finished" or budget.minutes is not None or total > done:
                session.reporter.line("rehearsal", "some trials of the search, with its workers")
                searching = rehearse_search(replace(session, run=copy), supernet, budget)
                values |= _searching_values(searching, session, budget, done, max(0, total - done))
                values |= _finalists_values(training, searching, session, budget)
        values |= _training_values(training, session)
    values |= {
        "start_s": start_s,
        "memory_driver_bytes": memory.own,
        "memory_workers_bytes": memory.others,
        "memory_bytes": memory.total,
        "forecast_s": time.perf_counter() - began,
    }
    values["total_s"] = sum(values[name] for name in ("start_s", "train_s", "search_s", "finalists_s", "measure_s"))
    on_disk = ("disk_checkpoints_bytes", "disk_trials_bytes", "disk_finalists_bytes")
    values["disk_bytes"] = sum(values[name] for name in on_disk)
    return {"schema_version": 1, **values, "notes": list(_notes(session, budget, values, train_workers))}


def plan_job(
    session: Session,
    budget: Budget,
    minutes: float,
    *,
    scratch: Path,
    start_s: float,
    trials: int | None,
    is_new: bool = True,
) -> RunPlan:
    """Rehearse a job for some seconds, and plan it for so many minutes (`planned`); says the plan in a line.

    It took `start_s` to open the session; `scratch` must not exist yet. Epochs stand where the configuration names
    them, `trials` where they are given, and the budget's finalists where it names a number.

    Raises:
        NoResultError: Nothing could be measured; says why.
        NasError: A stage failed as it would in the command.
    """
    say, began = session.reporter.line, time.perf_counter()
    copy = scratch_copy(session.run, scratch)
    with copy.lock():
        say("rehearsal", f"some steps and trials, to plan {minutes:g} minutes")
        training, supernet = rehearse_training(session, copy)
        searching = rehearse_search(replace(session, run=copy), supernet, budget)
    rehearsed_s = time.perf_counter() - began
    pace = _pace(training, searching, session, budget, start_s + rehearsed_s)
    epochs = session.config.train.epochs
    if not is_new:
        epochs = training_schedule(session.config, session.data.train).epochs
    plan = planned(session, budget, minutes, pace, epochs=epochs, trials=trials)
    say("plan", plan_line(plan, pace))
    return plan


def _pace(training: Training, searching: Searching, session: Session, budget: Budget, start_s: float) -> Pace:
    space, config = session.space, session.config
    proposals = Proposals.of(space, config.search.sampler, config.search.population_size)
    epoch_s = _epoch_s(training, session)
    return Pace(
        fixed_s=start_s + training.setup_s + training.save_s + _final_s(searching, session, LIKELY_FRONT, proposals),
        epoch_s=epoch_s * rounds_of(budget),
        trial_s=searching.trial_s(proposals.mean_macs(0, LIKELY_TRIALS)),
        workers_s=searching.start_s + searching.close_s,
        finalist_s=_finalist_s(epoch_s, searching, session),
    )


def _epoch_s(training: Training, session: Session) -> float:
    """Of the supernet's training; where none of it is left, by its log."""
    schedule = training_schedule(session.config, session.data.train)
    if not training.steps and (course := course_of(session.run)) is not None:
        return schedule.steps_per_epoch * schedule.config.batch_size / course.last["images_per_second"]
    return schedule.steps_per_epoch * training.step_s


def _finalist_s(epoch_s: float, searching: Searching, session: Session) -> float:
    """Of trainings alone that cost as much as an epoch of the supernet: one thread each, so many at a time."""
    return epoch_s * session.threads / max(1.0, searching.parallelism)


def _finalists_values(
    training: Training, searching: Searching, session: Session, budget: Budget
) -> dict[str, float | int]:
    """By the rule of `nas.jobs.last_choice.finalists.last_choice`, with candidates as they are expected."""
    schedule, plan = training_schedule(session.config, session.data.train), session.run.manifest.plan
    count = COUNT if budget.finalists is None else budget.finalists
    share = SHARE * schedule.epochs if plan is None else plan.finalist_epochs
    epochs = finalist_epochs(session, share, count) if count and schedule.epochs else 0
    if budget.finalists is None and epochs * schedule.steps_per_epoch < LEAST_STEPS:
        count = 0
    if not count:
        return dict(NO_FINALISTS)
    epochs, kept = max(1, epochs), round(KEEP * count)
    finalist_s = _finalist_s(_epoch_s(training, session), searching, session)
    weights = 4 * fmean(cost.params(drawn, session.space.backbone) for drawn in _draws(session.space))
    return {
        "finalists_s": finalists_s(session, epochs, count, finalist_s),
        "finalists": count,
        "finalist_epochs": epochs,
        "disk_finalists_bytes": round(kept * weights + (count + kept) * RECORD_BYTES),
    }


def _training_values(training: Training, session: Session) -> dict[str, Any]:
    minutes, size = session.config.train.checkpoint_minutes, training.checkpoint_bytes
    if training.steps:
        on_disk = min(KEPT, num_saves(training.steps * training.step_s, minutes)) * size
    else:
        on_disk = size_of(session.run.supernet_dir) or size
    return {
        "train_s": training_s(training, minutes),
        "steps": training.steps,
        "step_s": training.step_s,
        "steps_timed": training.samples,
        "memory_images_bytes": session.data.train.images.nbytes + session.data.search.images.nbytes,
        "memory_weights_bytes": size,
        "disk_checkpoints_bytes": on_disk,
    }


def _searching_values(searching: Searching, session: Session, budget: Budget, done: int, left: int) -> dict[str, Any]:
    space, config = session.space, session.config
    proposals = Proposals.of(space, config.search.sampler, config.search.population_size)
    trials, longest_s = left, math.inf
    if budget.minutes is not None:
        longest_s = 60 * budget.minutes + searching.close_s
        trials = trials_in(60 * budget.minutes, searching, proposals.later_macs)
        trials = min(left, trials_in(60 * budget.minutes, searching, proposals.mean_macs(done, trials)))
    macs = proposals.mean_macs(done, trials)
    front = front_size(done + trials, len(config.search.objectives))
    files = (done + trials) * searching.trial_bytes + front * searching.point_bytes + searching.fixed_bytes
    return {
        "search_s": min(longest_s, trials_s(trials, searching, macs)),
        "measure_s": _final_s(searching, session, front, proposals),
        "trials": trials,
        "workers": budget.workers,
        "evaluation_s": searching.evaluation_s(macs),
        "evaluations_timed": searching.samples,
        "parallelism": searching.parallelism,
        "front_size": front,
        "disk_trials_bytes": round(files),
    }


def _final_s(searching: Searching, session: Session, front: int, proposals: Proposals) -> float:
    """Seconds of the last measurement of a front of so many, and of its files."""
    space, evaluate = session.space, session.config.evaluate
    share = proposals.design_macs / cost.macs(space.largest(), space.backbone)  # as spread out as a front
    # Rounds go on until intervals are narrow; on shared machines they never were before the last one.
    rounds = PATIENCE * evaluate.final_rounds * max(1, len(evaluate.targets))
    return final_stage_s(front, rounds, share * searching.reference_s, searching.reference_s) + searching.files_s


def _notes(session: Session, budget: Budget | None, values: Mapping[str, Any], train_workers: int) -> Iterator[str]:
    """What the figures leave out, and what is short."""
    load, cores = os.getloadavg()[0], len(os.sched_getaffinity(0))
    if load > 1.5 * cores:
        yield f"load average {load:.1f} on {cores} cores: other programs slow this down"
    installed, free = psutil.virtual_memory().total, shutil.disk_usage(Path.cwd()).free
    if values["memory_bytes"] > installed:
        yield f"this machine has only {installed / 1e9:.1f} GB of memory"
    if values["disk_bytes"] > free:
        yield f"only {free / 1e9:.1f} GB of disk are free"
    if train_workers > 1 and session.space.macs_range()[1] >= LEAST_THREADED_MACS:
        yield f"training is that of one process; what {train_workers} make of it is not forecast"
    if budget is None:
        return
    if budget.supernet_trials > 1:
        longest = duration(rounds_of(budget) * values["train_s"])
        yield (
            f"for one supernet; training {budget.supernet_trials} takes at most {longest} "
            "and as much disk each, less where they are stopped early"
        )
    search = session.config.search
    if session.config.evaluate.racing:
        yield "without racing, which stops some measurements early"
    if search.sampler in SLOW_PROPOSERS and values["trials"] + values["trials_done"] > 1000:
        yield f"{search.sampler} proposes more slowly the more trials there are; not forecast"
    if budget.storage and "://" in budget.storage:
        yield "proposals were timed on a journal; a database is slower"
    if budget.ray_address:
        yield "memory is that of this machine, without the cluster's workers elsewhere"
