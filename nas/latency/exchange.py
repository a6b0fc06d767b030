"""Latency on a device that this package does not run on: a folder goes there, a file of results comes back."""

import json
import shutil
from pathlib import Path
from typing import Any

from scipy.stats import kendalltau  # type: ignore[import-untyped]

from nas.base import SCHEMA_VERSION, NasError, Reporter, RunError, atomic_write_bytes, check_schema
from nas.latency.command import models_of, random_subnet
from nas.latency.onnx_file import traced, write_onnx
from nas.runs import ParetoFront
from nas.settings import LATENCY

MODELS, RESULTS, SCRIPT = "models.json", "results.json", "measure.py"
SOURCE = Path(__file__).with_name("device_measure.py")


def pack_run(run: Path, folder: Path, batch: int | None, reporter: Reporter) -> dict[str, Any]:
    """Write the front's networks as ONNX, with random weights, and the script that times them.

    Args:
        run: The run's folder, or that of a bundle.
        folder: New, or empty.
        batch: Images per forward pass; None: that of the run.
        reporter: Tells people.

    Raises:
        RunError: The front is empty, or the folder is not.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RunError(f"{folder} is there already", hint="choose a new folder")
    models = models_of(run)
    size = models.backbone.image_size
    try:
        folder.mkdir(parents=True, exist_ok=True)
        wanted = {"reference.onnx": models.reference, **{f"{a.digest}.onnx": a for a in models.architectures}}
        with reporter.bar("pack") as bar:
            for i, (file, architecture) in enumerate(wanted.items()):
                bar(i, len(wanted), file)
                write_onnx(traced(random_subnet(models.backbone, architecture)), folder / file)
        shutil.copy(SOURCE, folder / SCRIPT)
        listed = {
            "schema_version": SCHEMA_VERSION,
            "run": run.resolve().name,
            "batch": batch or (models.targets[0].batch if models.targets else None) or models.batch,
            "image_shape": [models.backbone.in_chans, size, size],
            "reference": {"digest": models.reference.digest, "file": "reference.onnx"},
            "models": [{"digest": a.digest, "file": f"{a.digest}.onnx"} for a in models.architectures],
        }
        atomic_write_bytes(folder / MODELS, (json.dumps(listed, indent=1) + "\n").encode())
    except OSError as error:
        raise RunError(f"{folder}: {error}", hint="choose a folder that can be written") from error
    return listed


def read_results(folder: Path, run: Path) -> dict[str, Any]:
    """The front with the latency that the other device measured: JSON of `latency read --format json`.

    Raises:
        RunError: There are no results, or none of this front.
    """
    path = folder / RESULTS
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        check_schema(found, str(path))
        there = {row["digest"]: row for row in found["points"]}
        shared = {
            key: found[key]
            for key in ("device", "system", "runtime", "batch", "threads", "reference_ms", "load_average")
        }
        rows = {
            digest: {
                "latency_ms": float(row["latency_ms"]),
                "latency_ci_ms": [float(end) for end in row["latency_ci_ms"]],
                "noisy": bool(row["noisy"]),
                "passes_ms": [float(value) for value in row["passes_ms"]],
            }
            for digest, row in there.items()
        }
    except FileNotFoundError as error:
        raise RunError(
            f"{path}: not there", hint=f"run `python {SCRIPT}` in that folder on the device"
        ) from error
    except (OSError, ValueError, KeyError, TypeError, NasError) as error:
        raise RunError(f"{path} is damaged: {error!r}", hint="copy it from the device again") from error
    front = ParetoFront.from_run(run)
    points = [point for point in front.points if point.digest in rows]
    if not points:
        raise RunError(
            f"{path} holds none of the architectures on the front of {run}", hint="`latency pack` again"
        )
    table = []
    for point in points:
        row = rows[point.digest]
        here = point.measurement.values
        table.append(
            {
                "digest": point.digest,
                "top1": here.get("top1"),
                "macs": here.get("macs"),
                "latency_here_ms": here.get(LATENCY.name),
                "latency_ms": row["latency_ms"],
                "latency_ci_ms": row["latency_ci_ms"],
                "noisy": row["noisy"],
                "ties": [p.digest for p in points if p is not point and _overlap(row, rows[p.digest])],
            }
        )
    return {
        "schema_version": SCHEMA_VERSION,
        "run": str(run),
        **shared,
        "missing": len(front.points) - len(points),
        "repeat_tau": _tau(*zip(*(rows[p.digest]["passes_ms"] for p in points), strict=True)),
        "tau_with_here": _tau([r["latency_here_ms"] for r in table], [r["latency_ms"] for r in table]),
        "points": table,
    }


def _overlap(one: dict[str, Any], other: dict[str, Any]) -> bool:
    (a, b), (c, d) = one["latency_ci_ms"], other["latency_ci_ms"]
    return bool(a <= d and c <= b)


def _tau(first: Any, second: Any) -> float | None:
    if len(first) < 2 or None in first or None in second:
        return None
    tau = float(kendalltau(first, second).statistic)
    return tau if tau == tau else None
