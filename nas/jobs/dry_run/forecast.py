"""What a command will need in time, memory and disk: `--dry-run`. Arithmetic on what a rehearsal measured."""

import math
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from sqlalchemy import create_engine
from sqlalchemy.engine import make_url

from nas.arch import cost
from nas.base import duration
from nas.jobs.dry_run.rehearsal import (
    MemoryWatch,
    Searching,
    Training,
    rehearse_search,
    rehearse_training,
    scratch_copy,
    size_of,
)
from nas.jobs.session import LEAST_THREADED_MACS, Budget, Session, check_budget
from nas.latency import PATIENCE, SHARE_ROUNDS, SHORTEST_S, WARM_UP
from nas.space import SearchSpace
from nas.training import KEPT

DRAWS = 64
SLOW_PROPOSERS = ("tpe", "gp", "predictor")
NO_SEARCH = {
    "search_s": 0.0, "measure_s": 0.0, "trials": 0, "trials_done": 0, "workers": 0, "evaluation_s": 0.0,
    "evaluations_timed": 0, "parallelism": 0.0, "front_size": 0, "disk_trials_bytes": 0,
}  # fmt: skip


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
    interleaved = rounds * (reference + front * (reference + candidate))
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
        rng = np.random.default_rng(0)
        drawn = [cost.macs(space.sample(rng), space.backbone) for _ in range(DRAWS)]
        designs = 2 if sampler == "random" else population_size
        return cls(designs, sum(space.macs_range()) / 2, float(np.mean(drawn)))

    def mean_macs(self, done: int, trials: int) -> float:
        """Of `trials` proposals after the first `done`."""
        share = min(trials, max(0, self.designs - done)) / trials if trials else 0.0
        return share * self.design_macs + (1 - share) * self.later_macs


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
        values = {**_training_values(training, session), **NO_SEARCH}
        if budget is not None:
            values["trials_done"] = done = sum(trial.is_paid for trial in session.run.trials())
            total = min(budget.trials or session.space.size(), session.space.size())
            if session.run.manifest.stage != "finished" or budget.minutes is not None or total > done:
                session.reporter.line("rehearsal", "some trials of the search, with its workers")
                searching = rehearse_search(replace(session, run=copy), supernet, budget)
                values |= _searching_values(searching, session, budget, done, max(0, total - done))
    values |= {
        "start_s": start_s,
        "memory_driver_bytes": memory.own,
        "memory_workers_bytes": memory.others,
        "memory_bytes": memory.total,
        "forecast_s": time.perf_counter() - began,
    }
    values["total_s"] = sum(values[name] for name in ("start_s", "train_s", "search_s", "measure_s"))
    values["disk_bytes"] = values["disk_checkpoints_bytes"] + values["disk_trials_bytes"]
    return {"schema_version": 1, **values, "notes": list(_notes(session, budget, values, train_workers))}


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
    share = proposals.design_macs / cost.macs(space.largest(), space.backbone)  # as spread out as a front
    # Rounds go on until intervals are narrow; on shared machines they never were before the last one.
    rounds = PATIENCE * config.evaluate.final_rounds * max(1, len(config.evaluate.targets))
    final_s = final_stage_s(front, rounds, share * searching.reference_s, searching.reference_s)
    files = (done + trials) * searching.trial_bytes + front * searching.point_bytes + searching.fixed_bytes
    return {
        "search_s": min(longest_s, trials_s(trials, searching, macs)),
        "measure_s": final_s + searching.files_s,
        "trials": trials,
        "workers": budget.workers,
        "evaluation_s": searching.evaluation_s(macs),
        "evaluations_timed": searching.samples,
        "parallelism": searching.parallelism,
        "front_size": front,
        "disk_trials_bytes": round(files),
    }


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
        rounds = math.ceil(budget.supernet_trials / max(1, min(budget.workers, cores)))
        yield (
            f"for one supernet; training {budget.supernet_trials} takes at most "
            f"{duration(rounds * values['train_s'])} and as much disk each, less where they are stopped early"
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
