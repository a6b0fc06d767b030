"""`trust RUN`: the stand-alone trainings that are left, their records, and what they say of the supernet."""

import json
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from nas.architecture import Architecture
from nas.config import RunConfig
from nas.errors import ConfigError, RunError
from nas.evaluation.evaluator import SubnetEvaluator
from nas.model.supernet import Supernet
from nas.pipeline import evaluator_setup, supernet_trainer, trained_supernet
from nas.progress import Reporter, duration
from nas.run_directory import atomic_write_text, to_json_text
from nas.search.ray_tasks import run_tasks
from nas.search.workers import Result
from nas.session import Session, reopen, torch_threads
from nas.stand_alone import (
    StandAloneSetup,
    image_arrays,
    recipe_digest,
    train_alone,
)
from nas.training.data import ImageData, sealed_test_split
from nas.trust import architecture_row, check_counts, choose, rank_statistics
from nas.trust_figure import trust_figure

_RECORD_VERSION = 1


def trust(
    path: Path, reporter: Reporter, *, architectures: int, seeds: int, epochs: int | None, workers: int
) -> dict[str, Any]:
    """How well a run's supernet ranks: inherited against stand-alone top-1. Writes `trust.json` and its figure.

    Every finished training is a record in the run's folder and is never done again, whatever is asked next.

    Args:
        path: The run.
        reporter: Tells people.
        architectures: To train, MACs-stratified; a larger number goes on with those of a smaller one.
        seeds: Trainings of each.
        epochs: Of a training; None: as many as the supernet had.
        workers: Ray actors of one thread each; 0: in this process.

    Returns:
        What `trust.json` holds: JSON values, explained in results/README.md.

    Raises:
        RunError: The supernet is not trained, or another process writes into the run.
        NoResultError: Fewer than four architectures were trained to their end.
        KeyboardInterrupt: Ctrl-C; the same command goes on.
    """
    check_counts(architectures, seeds)
    session = reopen(path, reporter)
    with session.run.lock():
        supernet = trained_supernet(session)
        setup = _setup(session, epochs)
        chosen = choose(session.space, architectures, session.config.seed)
        if len(chosen) < architectures:
            reporter.line("space", f"{session.space.name} has no more than {len(chosen)} architectures")
        inherited = _inherited(session, setup.config, supernet, chosen, reporter)
        records = _stand_alone(session, setup, chosen, seeds, workers, reporter)
        failed = [record for record in records if record["error"] is not None]
        lost = {record["digest"] for record in failed}
        rows = []
        for architecture in chosen:
            if architecture.digest not in lost:
                alone = [r["top1"] for r in records if r["digest"] == architecture.digest]
                rows.append(
                    architecture_row(architecture, session.space, inherited[architecture.digest], alone)
                )
        conditions = evaluator_setup(session, {**session.run.manifest, "reference_ms": 1.0}).conditions(
            len(session.data.search), stage="search"
        )
        found = {
            "run": session.run.name,
            "num_architectures": len(rows),
            "num_seeds": seeds,
            "epochs": setup.config.train.epochs,
            "recipe": setup.recipe,
            "supernet": conditions.supernet,
            "split": conditions.split,
            "num_images": conditions.num_images,
            "precision": conditions.precision,
            "device": conditions.device,
            "torch": conditions.torch,
            **rank_statistics(rows, session.config.seed),
            "failed": [{key: record[key] for key in ("digest", "seed", "error")} for record in failed],
            "architectures": rows,
        }
        session.run.write_trust(found)
        trust_figure(found, session.run.figure_path("trust"))
    for record in failed:
        reporter.line("failed", f"{record['digest']}, seed {record['seed']}: {record['error']}")
    return {"schema_version": _RECORD_VERSION, **found}


def _setup(session: Session, epochs: int | None) -> StandAloneSetup:
    """Of a run; the seed is that of the first trainings."""
    epochs = supernet_trainer(session).epochs if epochs is None else epochs
    if epochs < 1:
        raise ConfigError(
            f"{session.run.path}: its supernet had no epoch of training, so there is no recipe to train with",
            hint="trust --epochs N, or trust of the run that its weights come from",
        )
    config = session.config.model_copy(
        update={
            "train": session.config.train.model_copy(update={"epochs": epochs}),
            "search": session.config.search.model_copy(update={"objectives": ("top1",)}),  # no latency
        }
    )
    data = session.data
    return StandAloneSetup(
        space=session.space,
        config=config,
        seed=config.seed,
        recipe=recipe_digest(config, data.hashes, session.precision),
        folder=session.run.trust_dir.absolute(),
        device=session.device.type,
        precision=session.precision,
        class_names=data.class_names,
        flip_safe=data.flip_safe,
        hashes=data.hashes,
        mean=data.mean,
        std=data.std,
    )


def _inherited(
    session: Session,
    config: RunConfig,
    supernet: Supernet,
    architectures: Sequence[Architecture],
    reporter: Reporter,
) -> dict[str, float]:
    """Top-1 with the supernet's weights by digest, measured as in the search."""
    setup = evaluator_setup(replace(session, config=config), {**session.run.manifest, "reference_ms": 1.0})
    evaluator = SubnetEvaluator(setup, supernet, session.data.search)
    found = {}
    with torch_threads(1), sealed_test_split(), reporter.bar("inherited") as bar:
        for i, architecture in enumerate(architectures, start=1):
            found[architecture.digest] = evaluator.evaluate(architecture).values["top1"]
            bar(i, len(architectures), f"{i}/{len(architectures)} architectures")
    return found


def _stand_alone(
    session: Session,
    first: StandAloneSetup,
    architectures: Sequence[Architecture],
    num_seeds: int,
    workers: int,
    reporter: Reporter,
) -> list[dict[str, Any]]:
    """A record of every training, by seed and then by architecture: read where there is one, else made."""
    total = num_seeds * len(architectures)
    setups = [replace(first, seed=first.seed + i) for i in range(num_seeds)]
    records = {(s.seed, a.digest): _read(s, a) for s in setups for a in architectures}
    known = sum(record is not None for record in records.values())
    reporter.line(
        "alone",
        f"{len(architectures)} architectures x {num_seeds} seed{'s' * (num_seeds != 1)}, "
        f"{first.config.train.epochs} epochs each: {total} trainings, {known} done already",
    )
    missing = [(s, a) for s in setups for a in architectures if records[s.seed, a.digest] is None]
    started, done, failures = time.monotonic(), known, 0
    with reporter.bar("alone") as bar:
        for (setup, architecture), result in _train_all(missing, session.data, workers):
            records[setup.seed, architecture.digest] = _write(setup, architecture, result)
            done, failures = done + 1, failures + (result.error is not None)
            left = (time.monotonic() - started) / (done - known) * (total - done)
            bar(done, total, f"{done}/{total} trained  failed {failures}  left {duration(left)}")
    return [record for record in records.values() if record is not None]


def _train_all(
    jobs: Sequence[tuple[StandAloneSetup, Architecture]], data: ImageData, num_workers: int
) -> Iterator[tuple[tuple[StandAloneSetup, Architecture], Result]]:
    """Train each; yields them as they end."""
    arrays = image_arrays(data)
    if num_workers == 0:
        for job in jobs:
            yield job, train_alone(job, arrays)
    elif jobs:
        gpus = 1 / num_workers if jobs[0][0].device == "cuda" else 0
        yield from run_tasks(train_alone, jobs, arrays, num_workers, num_gpus=gpus)


def _record_path(setup: StandAloneSetup, architecture: Architecture) -> Path:
    return setup.folder / f"{setup.name(architecture)}.json"


def _read(setup: StandAloneSetup, architecture: Architecture) -> dict[str, Any] | None:
    """The record of a training that has ended; None where there is none."""
    path = _record_path(setup, architecture)
    try:
        record = dict(json.loads(path.read_text()))
        if not {"digest", "seed", "top1", "error"} <= set(record):
            raise ValueError("keys are missing")
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise RunError(
            f"{path}: not the record of a training: {error}", hint="delete it to train again"
        ) from error
    shutil.rmtree(path.with_suffix(""), ignore_errors=True)  # where a kill came before the end of `_write`
    return record


def _write(setup: StandAloneSetup, architecture: Architecture, result: Result) -> dict[str, Any]:
    """Record how a training ended; its checkpoints are not needed any more."""
    measurement, path = result.measurement, _record_path(setup, architecture)
    record = {
        "schema_version": _RECORD_VERSION,
        "digest": architecture.digest,
        "seed": setup.seed,
        "recipe": setup.recipe,
        "epochs": setup.config.train.epochs,
        "top1": None if measurement is None else measurement.values["top1"],
        "conditions": None if measurement is None else measurement.conditions.to_dict(),
        "seconds": None if measurement is None else measurement.seconds,
        "error": result.error,
        "architecture": architecture.to_dict(),
    }
    setup.folder.mkdir(exist_ok=True)
    atomic_write_text(path, to_json_text(record))
    shutil.rmtree(path.with_suffix(""), ignore_errors=True)
    return record
