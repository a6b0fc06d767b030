"""`latency RUN`, `latency BUNDLE` and `latency profile`: measuring on this machine, outside a search.

Networks get random weights: what a forward pass costs does not depend on them, and no data is needed.
"""

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch

from nas.arch import Architecture, Backbone, cost
from nas.base import (
    SCHEMA_VERSION,
    ArchitectureError,
    ConfigError,
    Reporter,
    RunError,
    check_writable,
    problem_words,
    read_json,
)
from nas.latency.device import default_batch, device_name
from nas.latency.front import measure_networks
from nas.latency.meter import LatencyMeter, Readings
from nas.latency.profile import LatencyProfile, design, with_scores
from nas.latency.runtimes import check_available, describe, excess_threads, random_subnet
from nas.model import check_inside
from nas.runs import MANIFEST, ParetoFront, RunDirectory, config_of_run, space_of_run
from nas.settings import Target, parse_target, profile_path
from nas.space import SearchSpace

REPEATS = 0.9  # tau from which an order is taken to repeat
MOST_OF_A_SIZE, MOST_LAYERS = 65_536, 1_024  # of a bundle that is measured
BUNDLE_FILES = ("metrics.json", "architecture.json")
BATCH_STEPS = 2  # times the batch is made four times as large, for an order that repeats


@dataclass(frozen=True, slots=True)
class Models:
    """Networks to be measured, the one they are timed in turn with, and the run's targets.

    `batch` holds where nothing else says it. `weights` are the digests of the supernets that the networks are from, as
    far as that is known.
    """

    backbone: Backbone
    architectures: tuple[Architecture, ...]
    reference: Architecture
    batch: int
    targets: tuple[Target, ...]
    weights: frozenset[str] = frozenset()

    def measure(self, target: Target, batch: int, rounds: int, reporter: Reporter) -> Readings:
        """Time them on a target."""
        reference, *subnets = (random_subnet(self.backbone, a) for a in (self.reference, *self.architectures))
        size = self.backbone.image_size
        meter = LatencyMeter(reference, (self.backbone.in_chans, size, size), batch, target)
        return measure_networks(meter, subnets, rounds, reporter)


def models_of(source: Path) -> Models:
    """The front of a run, or the one network of a bundle; a RunError: it is neither, or the front is empty."""
    if source.is_file():
        raise RunError(f"{source} is a file", hint="give the folder of a run, or of a model that `export` wrote")
    try:
        check_inside(source, *(source / name for name in (*BUNDLE_FILES, "provenance.json")))
        table = read_json(source / "metrics.json")
        architecture = Architecture.from_json((source / "architecture.json").read_text(encoding="utf-8"))
        backbone = Backbone(**table["backbone"])
        _check_size(backbone, architecture)
        origin = read_json(source / "provenance.json") if (source / "provenance.json").is_file() else {}
        weights = frozenset({str(origin.get("supernet_digest", "")).partition(",")[0]} - {""})
    except FileNotFoundError as error:
        lacking = [name for name in BUNDLE_FILES if not (source / name).is_file()]
        if lacking == [*BUNDLE_FILES] or (source / MANIFEST).is_file():
            return _models_of_run(source)
        raise RunError(
            f"{source} is a damaged bundle: no {' and no '.join(lacking)}", hint="export it again"
        ) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, ArchitectureError) as error:
        reason = error.message if isinstance(error, ArchitectureError) else problem_words(error)
        raise RunError(f"{source} is a damaged bundle: {reason}", hint="export it again") from error
    return Models(backbone, (architecture,), architecture, default_batch(backbone.image_size), (), weights)


def _check_size(backbone: Backbone, architecture: Architecture) -> None:
    """Raise a ValueError where a bundle, which may be a stranger's, is of a network that would only fill the memory."""
    sizes = {name: getattr(backbone, name) for name in ("image_size", "in_chans", "num_classes", "head_dim")}
    sizes |= {"embed_dim": architecture.widths[-1], "number of layers": architecture.depth}
    for name, value in sizes.items():
        if type(value) is not int or not 0 <= value <= MOST_OF_A_SIZE:
            raise ValueError(f"{name} {value!r} is not between 0 and {MOST_OF_A_SIZE:,}")
    if architecture.depth > MOST_LAYERS:
        raise ValueError(f"{architecture.depth:,} layers are more than {MOST_LAYERS:,}")
    needed, free = 4 * cost.params(architecture, backbone), psutil.virtual_memory().available
    if not 2 * needed < free:
        raise ValueError(f"its weights take {needed:,.0f} bytes, {free:,} are free")


def _models_of_run(path: Path) -> Models:
    run = RunDirectory.open(path)
    space, config = space_of_run(run), config_of_run(run)
    front = ParetoFront.from_run(path)
    if not front.points:
        raise RunError(f"{path}: the front is empty", hint="let the search complete a trial")
    texts = [text for text in config.evaluate.targets if profile_path(text) is None]
    return Models(
        space.backbone,
        tuple(point.architecture for point in front.points),
        space.largest(),
        config.evaluate.latency_batch_size or default_batch(space.backbone.image_size),
        tuple(map(parse_target, texts)),
        weights_of(front),
    )


def weights_of(front: ParetoFront) -> frozenset[str]:
    """Digests of the supernets that the points of a front have their weights from."""
    return frozenset(point.measurement.conditions.weights_digest for point in front.points) - {""}


def measure_source(source: Path, targets: Sequence[Target], rounds: int, reporter: Reporter) -> dict[str, Any]:
    """Measure a run's front, or a bundle: JSON of `latency RUN --format json`; a ConfigError: a target is not there."""
    models = models_of(source)
    wanted = tuple(targets) or models.targets or (Target(runtime="torch-cpu"),)
    for target in wanted:
        _check_here(target)
    digests = [architecture.digest for architecture in models.architectures]
    tables = []
    for target in wanted:
        readings, note = _measure(models, target, rounds, reporter)
        points = [
            {
                "digest": digest,
                "latency_ms": timed.ms,
                "latency_ci_ms": list(timed.interval or ()),
                "rounds": timed.rounds,
                "noisy": timed.noisy,
                "ties": list(timed.ties),
            }
            for digest, timed in zip(digests, readings.timed(digests), strict=True)
        ]
        tables.append({**readings.to_dict(), "note": note, "points": points})
    return {
        "schema_version": SCHEMA_VERSION,
        "source": str(source),
        "device": device_name("cuda" if any(target.is_cuda for target in wanted) else "cpu"),
        "image_size": models.backbone.image_size,
        "targets": tables,
    }


def _check_here(target: Target) -> None:
    """Raise a ConfigError where a target cannot be measured on this machine, or has more threads than it has cores."""
    check_available(target)
    if problem := excess_threads(target):
        raise ConfigError(problem, hint="fewer threads=N, or a machine with as many cores")


def _measure(models: Models, target: Target, rounds: int, reporter: Reporter) -> tuple[Readings, str]:
    """Measure; where no batch is asked for, with one at which the order repeats, if there is one."""
    batch = target.batch or models.batch
    found: list[Readings] = []
    for step in range(1 if target.batch else 1 + BATCH_STEPS):
        found.append(models.measure(target, batch * 4**step, rounds, reporter))
        if (found[-1].tau or 0.0) >= REPEATS or len(models.architectures) < 3:
            break
    best = max(found, key=lambda readings: readings.tau or 0.0)
    if best is found[0]:
        return best, ""
    note = f"batch of {best.batch}: the order repeats with tau {best.tau:.2f}, with {found[0].tau:.2f} at {batch}"
    reporter.line("batch", note)
    return best, note


def profile_space(
    space: SearchSpace, target: Target, count: int, rounds: int, seed: int, file: Path, reporter: Reporter
) -> dict[str, Any]:
    """Measure architectures of a space on a target, fit, judge, write: JSON of `latency profile --format json`."""
    _check_here(target)
    check_writable(file)
    architectures = tuple(design(space, count, seed))
    batch = target.batch or default_batch(space.backbone.image_size)
    models = Models(space.backbone, architectures, space.largest(), batch, ())
    readings = models.measure(target, batch, rounds, reporter)
    medians = [timing.median_ms for timing in readings.timings]
    profile = with_scores(
        LatencyProfile(
            target=target,
            batch=batch,
            device=device_name("cuda" if target.is_cuda else "cpu"),
            cores=os.cpu_count() or 1,
            versions={"python": platform.python_version(), "torch": torch.__version__, "runtime": describe(target)},
            backbone=space.backbone,
            measured=dict(zip(architectures, medians, strict=True)),
        )
    )
    profile.write(file)
    return {
        "schema_version": SCHEMA_VERSION,
        "file": str(file),
        "target": str(target),
        "batch": batch,
        "image_size": space.backbone.image_size,
        "device": profile.device,
        "architectures": len(architectures),
        "noisy": sum(timing.is_noisy for timing in readings.timings),
        "repeat_tau": readings.tau,
        "predictors": [
            {"predictor": name, "mape_percent": score.mape, "tau": score.tau} for name, score in profile.scores.items()
        ],
        "usable": not profile.losses,
        "losses": profile.losses,
    }
