"""Latency on a device that this package does not run on: a folder goes there, a file of results comes back."""

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nas.base import (
    LATENCY,
    SCHEMA_VERSION,
    NasError,
    Reporter,
    RunError,
    atomic_write_bytes,
    check_schema,
    problem_words,
    read_json,
    replacing,
    writing,
)
from nas.latency.command import models_of, weights_of
from nas.latency.meter import Timing, rank_tau, repeat_tau
from nas.latency.onnx_file import trace, write_onnx
from nas.latency.runtimes import random_subnet
from nas.runs import ParetoFront

MODELS, RESULTS, SCRIPT = "models.json", "results.json", "measure.py"
SOURCE = Path(__file__).with_name("device_measure.py")
SHARED = ("device", "system", "runtime", "batch", "threads", "reference_ms", "load_average")  # by all networks


def pack_run(run: Path, folder: Path, batch: int | None, reporter: Reporter) -> dict[str, Any]:
    """Write the front's networks as ONNX, with random weights, and the script that times them; all or nothing.

    The front is that of a run, or the one network of a bundle; the batch is that of the run where none is given.

    Raises:
        RunError: The front is empty, or the folder is not.
        DiskError: It cannot be written.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RunError(f"{folder} is there already", hint="choose a new folder")
    models = models_of(run)
    size = models.backbone.image_size
    with writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
    with replacing(folder) as scratch:
        scratch.mkdir()
        wanted = {"reference.onnx": models.reference, **{f"{a.digest}.onnx": a for a in models.architectures}}
        with reporter.bar("pack") as bar:
            for i, (file, architecture) in enumerate(wanted.items()):
                bar(i, len(wanted), file)
                write_onnx(trace(random_subnet(models.backbone, architecture)), scratch / file)
        shutil.copy(SOURCE, scratch / SCRIPT)
        listed = {
            "schema_version": SCHEMA_VERSION,
            "run": run.resolve().name,
            "weights": sorted(models.weights),
            "batch": batch or (models.targets[0].batch if models.targets else None) or models.batch,
            "image_shape": [models.backbone.in_chans, size, size],
            "reference": {"digest": models.reference.digest, "file": "reference.onnx"},
            "models": [{"digest": a.digest, "file": f"{a.digest}.onnx"} for a in models.architectures],
        }
        atomic_write_bytes(scratch / MODELS, (json.dumps(listed, indent=1) + "\n").encode())
    return listed


def read_results(folder: Path, run: Path) -> dict[str, Any]:
    """Values of `latency read --format json`; a RunError: there are no results, or none of this front."""
    path = folder / RESULTS
    try:
        found = read_json(path)
        check_schema(found, str(path))
        shared = {key: found[key] for key in SHARED}
        noisy = {row["digest"]: bool(row["noisy"]) for row in found["points"]}
        there = {
            row["digest"]: Timing(
                float(row["latency_ms"]), _floats(row["latency_ci_ms"]), _floats(row["passes_ms"]), row["rounds"]
            )
            for row in found["points"]
        }
    except FileNotFoundError as error:
        raise RunError(f"{path}: not there", hint=f"run `python {SCRIPT}` in that folder on the device") from error
    except (OSError, ValueError, KeyError, TypeError, NasError) as error:
        raise RunError(f"{path} is damaged: {problem_words(error)}", hint="copy it from the device again") from error
    front = ParetoFront.from_run(run)
    notes = list(_doubts(path, found, front, run))
    points = [point for point in front.points if point.digest in there]
    if not points:
        raise RunError(f"{path} holds none of the architectures on the front of {run}", hint="`latency pack` again")
    table: list[dict[str, Any]] = []
    for point in points:
        timing, here = there[point.digest], point.measurement.values
        alone = point.measurement.latency.get(LATENCY.name)
        table.append(
            {
                "digest": point.digest,
                "top1": here.get("top1"),
                "macs": here.get("macs"),
                "latency_here_ms": here.get(LATENCY.name),
                "latency_here_ci_ms": list(alone.interval) if alone and alone.interval else None,
                "noisy_here": None if alone is None else alone.noisy,
                "latency_ms": timing.median_ms,
                "latency_ci_ms": list(timing.interval_ms),
                "noisy": noisy[point.digest],
                "ties": [p.digest for p in points if p is not point and timing.ties(there[p.digest])],
            }
        )
    here_ms, there_ms = ([row[key] for row in table] for key in ("latency_here_ms", "latency_ms"))
    return {
        "schema_version": SCHEMA_VERSION,
        "run": str(run),
        **shared,
        "here": _here(front),
        "notes": notes,
        "missing": len(front.points) - len(points),
        "repeat_tau": repeat_tau([there[p.digest] for p in points]),
        "tau_with_here": None if None in here_ms else rank_tau(here_ms, there_ms),
        "points": table,
    }


def _doubts(path: Path, found: Mapping[str, Any], front: ParetoFront, run: Path) -> Iterator[str]:
    """What is not sure of whose results these are; a RunError: they are another run's, by the weights of both."""
    packed, own, name = found.get("weights"), weights_of(front), found.get("run")
    if packed and own:
        if own.isdisjoint(packed):
            raise RunError(
                f"{path} is of the run {name}: its supernet is {', '.join(map(str, packed))}, that of {run} is "
                f"{', '.join(sorted(own))}",
                hint="name the run that was packed, or `latency pack` this one",
            )
    elif name != run.resolve().name:
        yield f"{path} is of a run named {name}: whether that is {run} is not known, the pack does not say its weights"


def _here(front: ParetoFront) -> dict[str, Any]:
    """Where the front's own latency was measured: device, runtime, batch, threads."""
    conditions, measured = front.points[0].measurement.conditions, front.targets.get(LATENCY.name, {})
    return {
        "device": conditions.device,
        "runtime": measured.get("runtime", conditions.target.partition("; ")[0]),
        "batch": conditions.latency_batch_size,
        "threads": conditions.latency_threads,
    }


def _floats(pair: Any) -> tuple[float, float]:
    first, second = pair
    return float(first), float(second)
