"""Architectures trained alone: each training once, with a record, whatever is asked next and however often it dies."""

import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from nas.arch import Architecture
from nas.base import (
    BALANCED,
    ConfigError,
    Reporter,
    RunError,
    atomic_write_text,
    duration,
    plural,
    read_json,
    to_json_text,
)
from nas.cluster import run_tasks
from nas.data import ImageData
from nas.jobs.alone import StandAloneSetup, image_arrays, recipe_digest, train_alone
from nas.jobs.measures import evaluator_setup
from nas.jobs.session import Session
from nas.jobs.stages import training_schedule
from nas.runs import Measurement, RunDirectory, course_of
from nas.settings import located
from nas.study import Result
from nas.training import Schedule, Teacher, weights_digest

RECORD_VERSION = 1
LOOK_EVERY_S = 1.0  # at the checkpoints of trainings that go on

Job = tuple[StandAloneSetup, Architecture]


def stand_alone_setup(session: Session, epochs: int | None, folder: Path) -> StandAloneSetup:
    """How architectures of a run are trained alone; the seed is that of the first trainings.

    The session's configuration decides the trainings, whose records and checkpoints are in `folder`. They have as many
    epochs as the supernet where `epochs` is None.

    Raises:
        ConfigError: The supernet had no epoch, and none is given.
        TrainingError: A batch is too small for the subnets of a step.
    """
    planned, config = training_schedule(session.config, session.data.train), session.config
    epochs = planned.epochs if epochs is None else epochs
    if epochs < 1:
        raise ConfigError(
            f"{session.run.path}: its supernet had no epoch of training, so there is no recipe to train with",
            hint="give --epochs N, or name the run that its weights come from",
        )
    config = config.with_epochs(epochs)
    return StandAloneSetup(
        evaluation=evaluator_setup(session),
        config=located(config, session.folders),
        seed=config.seed,
        recipe=recipe_digest(config, session.data.info.hashes, session.precision),
        folder=folder.absolute(),
    )


def inherited_setup(session: Session, epochs: int | None, folder: Path) -> StandAloneSetup:
    """As `stand_alone_setup`, but each network starts from its slice of the run's trained supernet."""
    config = session.config.model_copy(update={"init": str(session.run.path.absolute()), "init_ordered": False})
    setup = stand_alone_setup(replace(session, config=config), epochs, folder)
    # A run that is moved elsewhere has the same weights.
    named = setup.config.model_copy(update={"init": weights_digest(session.run), "teacher": config.teacher})
    return replace(setup, recipe=recipe_digest(named, session.data.info.hashes, session.precision))


def trained_alone(
    setup: StandAloneSetup,
    seeds: int,
    architectures: Sequence[Architecture],
    data: ImageData,
    workers: int,
    reporter: Reporter,
) -> list[dict[str, Any]]:
    """A record of every training, by seed and then by architecture: read where there is one, else made.

    Each architecture is trained with so many seeds, of which `setup` has the first, in so many Ray tasks of one thread
    at a time; 0 workers: in this process.

    Raises:
        ConfigError: There is something to train, and the teacher cannot be had.
        RunError: A record is damaged, or the workers are gone.
    """
    return trained_jobs(jobs_of([(setup, a) for a in architectures], seeds), data, workers, reporter)


def jobs_of(firsts: Sequence[Job], seeds: int) -> list[Job]:
    """Trainings with so many seeds, by seed, of which each setup has the first."""
    return [(replace(setup, seed=setup.seed + i), architecture) for i in range(seeds) for setup, architecture in firsts]


def trained_jobs(
    jobs: Sequence[Job],
    data: ImageData,
    workers: int,
    reporter: Reporter,
    on_progress: Callable[[float], None] = lambda _: None,
) -> list[dict[str, Any]]:
    """As `trained_alone`, for trainings that differ in more than their seed but have as many epochs; in their order.

    `on_progress` is told the share of their steps that is done, about once a second.
    """
    recipe = jobs[0][0].config.train
    records = [_read(setup, architecture) for setup, architecture in jobs]
    total, known = len(jobs), sum(record is not None for record in records)
    seeds, networks = len({setup.seed for setup, _ in jobs}), len({setup.name(one) for setup, one in jobs})
    reporter.line(
        "alone",
        f"{plural(networks, 'architecture')} x {plural(seeds, 'seed')}, "
        f"{plural(recipe.epochs or 0, 'epoch')} each: {plural(total, 'training')}, {known} done already",
    )
    missing = {i: job for i, job in enumerate(jobs) if records[i] is None}
    for teacher in {setup.config.teacher for setup, _ in missing.values()} - {""}:
        Teacher(teacher, data.info)
    steps = Schedule(recipe, len(data.train)).steps
    started, looked = time.monotonic(), 0.0
    first = known + _under_way(list(missing.values()), steps)
    with reporter.bar("alone") as bar:

        def show() -> None:
            nonlocal looked
            now = time.monotonic()
            ended = [record for record in records if record is not None]
            if now - looked < LOOK_EVERY_S and len(ended) < total:
                return
            looked = now
            done = len(ended) + _under_way([job for i, job in missing.items() if records[i] is None], steps)
            left = duration((now - started) / (done - first) * (total - done)) if done > first else "unknown"
            failures = sum(record["error"] is not None for record in ended)
            text = f"left {left}  {len(ended)}/{total} trained, {done / total:.0%} of all steps  failed {failures}"
            bar(len(ended), total, text)
            on_progress(done / total)

        numbers = {setup.path(architecture): i for i, (setup, architecture) in missing.items()}
        for (setup, architecture), result in _train_all(list(missing.values()), data, workers, show):
            records[numbers[setup.path(architecture)]] = _write(setup, architecture, result)
            show()
    found = [record for record in records if record is not None]
    # records of before operators were looked at have none
    dead = [(record["digest"], line) for record in found for line in record.get("dead_operators", ())[:1]]
    if dead:
        digest, line = dead[0]
        reporter.line("warning", f"operators are dead in {len(dead)} of {total} trainings, as in {digest}: {line}")
    return found


def untrained(jobs: Sequence[Job]) -> bool:
    """Whether `trained_jobs` would have something to train; raises as it does."""
    return any(_read(setup, architecture) is None for setup, architecture in jobs)


def _under_way(jobs: Sequence[Job], steps: int) -> float:
    """How many trainings the checkpoints of those that have not ended amount to."""
    found = 0.0
    for setup, architecture in jobs:
        checkpoints = RunDirectory(setup.path(architecture)).supernet_dir.glob("step-*.json")
        found += max((int(path.stem.removeprefix("step-")) for path in checkpoints), default=0) / steps
    return found


def _train_all(
    jobs: Sequence[Job], data: ImageData, num_workers: int, on_wait: Callable[[], None]
) -> Iterator[tuple[Job, Result]]:
    arrays = image_arrays(data)
    if num_workers == 0:
        for job in jobs:
            yield job, train_alone(job, arrays, on_wait)
    elif jobs:
        gpus = 1 / num_workers if jobs[0][0].evaluation.device == "cuda" else 0
        for job, outcome in run_tasks(train_alone, deque(jobs), arrays, num_workers, num_gpus=gpus, on_wait=on_wait):
            yield job, outcome.value or Result(0, None, outcome.error)


def _read(setup: StandAloneSetup, architecture: Architecture) -> dict[str, Any] | None:
    """The record of a training that has ended; None where there is none, or its network is gone."""
    path = setup.path(architecture, ".json")
    try:
        record = dict(read_json(path))
        if not {"digest", "seed", "top1", "error"} <= set(record):
            raise ValueError("keys are missing")
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: not the record of a training: {error}", hint="delete it to train again") from error
    if setup.keeps_weights and record["error"] is None and not setup.path(architecture, ".safetensors").exists():
        return None
    shutil.rmtree(path.with_suffix(""), ignore_errors=True)  # where a kill came before the end of `_write`
    return record


def _balanced(measurement: Measurement | None) -> dict[str, Any]:
    """Balanced accuracy in a record, where the run is after it."""
    if measurement is None or measurement.balanced_top1 is None:
        return {}
    interval = measurement.balanced_top1_interval
    return {BALANCED.name: measurement.balanced_top1, "balanced_top1_ci": interval and list(interval)}


def _write(setup: StandAloneSetup, architecture: Architecture, result: Result) -> dict[str, Any]:
    """Record how a training ended; its checkpoints are not needed any more."""
    measurement, path = result.measurement, setup.path(architecture, ".json")
    course = course_of(RunDirectory(setup.path(architecture)))
    record = {
        "schema_version": RECORD_VERSION,
        "digest": setup.name(architecture),
        "seed": setup.seed,
        "recipe": setup.recipe,
        "epochs": setup.config.train.epochs,
        "top1": measurement and measurement.values["top1"],
        "top1_ci": measurement and list(measurement.intervals["top1"]),
        **_balanced(measurement),
        "conditions": measurement and measurement.conditions.to_dict(),
        "seconds": measurement and measurement.seconds,
        "error": result.error,
        "dead_operators": [] if course is None else course.dead,
        **({} if setup.guest else {"architecture": architecture.to_dict()}),
    }
    setup.folder.mkdir(parents=True, exist_ok=True)
    atomic_write_text(path, to_json_text(record))
    shutil.rmtree(path.with_suffix(""), ignore_errors=True)
    return record
