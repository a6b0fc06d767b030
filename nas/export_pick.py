"""From a point of a run's front to a bundle: measured again, tested once, and written with where it came from."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nas.errors import ExportError, RunError
from nas.evaluation.accuracy import count_correct
from nas.evaluation.scores import top1_percent, wilson_interval
from nas.export import ExportReport, export_bundle
from nas.metrics import TOP1
from nas.pareto import ParetoFront
from nas.pipeline import trained_supernet
from nas.progress import Reporter
from nas.run_directory import RunDirectory
from nas.session import reopen, torch_threads
from nas.supernet_runs import owner


def export_pick(
    path: Path, pick: str, directory: Path, formats: Sequence[str], reporter: Reporter
) -> ExportReport:
    """Write one architecture of a run's front as a model bundle, verified against the table.

    Opens the test split, which no stage before has read; its accuracy goes onto the model card.

    Raises:
        ExportError: Something written differs from what was searched; nothing is left behind.
    """
    run = RunDirectory.open(path)
    point = ParetoFront.from_run(path).pick(pick)
    if run.front() is None:
        raise RunError(
            f"{path}: the search has not ended, so there is no final table", hint="run it to the end first"
        )
    owning = owner(run, point)
    session = reopen(owning.path, reporter)
    subnet = trained_supernet(session).extract(point.architecture)
    conditions = point.measurement.conditions
    common: dict[str, Any] = {
        "batch_size": session.config.evaluate.batch_size,
        "device": session.device,
        "precision": conditions.precision,
    }
    images = session.data.search
    ranked = images.part(0, session.config.evaluate.max_images or len(images))
    with torch_threads(1):
        again = top1_percent(count_correct(subnet.to(session.device), ranked, **common))
        tested = count_correct(subnet, session.data.open_test(), **common)
    table = point.value(TOP1)
    if not math.isclose(again, table, abs_tol=1e-9):
        raise ExportError(
            f"{point.digest}: top-1 on the search split is {again:.4f} % now and {table:.4f} % in the table",
            hint=f"the table was measured on {conditions.device} with torch {conditions.torch}",
        )
    test = {
        "test_top1": top1_percent(tested),
        "test_top1_ci": list(wilson_interval(tested)),
        "test_images": len(tested),
    }
    row = next(
        p for p in ParetoFront.from_run(path).to_dict(run.name)["points"] if p["digest"] == point.digest
    )
    return export_bundle(
        subnet.cpu(),
        directory,
        formats=formats,
        mean=session.data.mean,
        std=session.data.std,
        class_names=session.data.class_names,
        point={**row, **test},
        provenance={
            **_provenance(run, point.digest, pick, directory),
            "supernet_digest": owning.manifest["supernet_digest"],
        },
        on_step=lambda text: reporter.line("export", text),
    )


def _provenance(run: RunDirectory, digest: str, pick: str, directory: Path) -> dict[str, Any]:
    manifest = run.manifest
    return {
        "run": run.name,
        "digest": digest,
        "commands": [
            manifest["command"],
            f"python search.py export {run.path} --pick {pick} --to {directory}",
        ],
        **{
            key: manifest[key]
            for key in ("versions", "device", "precision", "seed", "splits", "space_digest")
        },
    }
