"""From a point of a run's front to a bundle: measured again, tested once, and written with where it came from."""

import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nas.base import DataError, ExportError, Reporter, RunError, shared_command
from nas.bundle import ExportReport, export_bundle
from nas.data import ImageSet, TestSplit
from nas.evaluation import top1_percent, wilson_interval
from nas.jobs.session import Session, reopen_with_test
from nas.jobs.stages import evaluator_setup
from nas.latency import torch_threads
from nas.model import Subnet
from nas.runs import FrontPoint, ParetoFront, RunDirectory, owner
from nas.training import load_trained, weights_digest


def export_pick(
    path: Path, pick: str, directory: Path, formats: Sequence[str], reporter: Reporter, data: str | None = None
) -> ExportReport:
    """Write one architecture of a run's front as a model bundle, verified against the table.

    `data` says where the images are now (`nas.jobs.session.reopen`).

    Opens the test split, which no stage before has read; its accuracy goes onto the model card.

    Raises:
        DataError: There is no test split, or its images changed or are unreadable.
        ExportError: Something written differs from what was searched; nothing is left behind.
    """
    lacking = "so its model card would have no final accuracy", "export from"
    run, point, session, test = open_pick(path, pick, reporter, lacking, data)
    subnet = load_trained(session.run, session.space, session.device).extract(point.architecture)
    origin = provenance(
        run,
        point.digest,
        shlex.join(["python", "search.py", "export", str(run.path), "--pick", pick, "--to", str(directory)]),
    )
    origin["supernet_digest"] = weights_digest(session.run)
    return export_measured(session, subnet, test.open(), front_row(run, point.digest), directory, formats, origin)


def open_pick(
    path: Path, pick: str, reporter: Reporter, lacking: tuple[str, str], data: str | None = None
) -> tuple[RunDirectory, FrontPoint, Session, TestSplit]:
    """The point of a run's final front that a user asks for, opened for work that ends with test images.

    `lacking` says what is missing where there is no test split, and what is to be done with another run. Between the
    point and the test split is the session of the run whose supernet it has: the same, or one of several.

    Raises:
        RunError: No point or more than one answers, or the search has not ended.
        DataError: There is no test split.
    """
    run = RunDirectory.open(path)
    point = ParetoFront.from_run(run.path).pick(pick)
    if run.front() is None:
        raise RunError(
            f"{run.path}: the search has not ended, so there is no final table", hint="run it to the end first"
        )
    session, test = reopen_with_test(owner(run, point).path, reporter, data)
    if test is None:
        what, better = lacking
        raise DataError(
            f"{path}: its images have no test split, {what}", hint=f"{better} a run with data.test_fraction above 0"
        )
    return run, point, session, test


def front_row(run: RunDirectory, digest: str) -> dict[str, Any]:
    """The row of the table, as in `front --format json`."""
    points: list[dict[str, Any]] = ParetoFront.from_run(run.path).to_dict(run.name)["points"]
    return next(row for row in points if row["digest"] == digest)


def export_measured(
    session: Session,
    subnet: Subnet,
    test: ImageSet,
    row: Mapping[str, Any],
    directory: Path,
    formats: Sequence[str],
    provenance: Mapping[str, Any],
) -> ExportReport:
    """Measure a network of a run again, test it, and write its bundle; an ExportError: it is not what its row says."""
    setup, conditions = evaluator_setup(session), row["conditions"]
    with torch_threads(1):
        ranked = setup.ranked(session.data.search)
        again = top1_percent(setup.count_correct(subnet, ranked, precision=conditions["precision"]))
        # The files compute in fp32, whatever the search was measured in.
        tested = setup.count_correct(subnet, test, precision="fp32")
    if not math.isclose(again, row["top1"], abs_tol=1e-9):
        raise ExportError(
            f"{row['digest']}: top-1 on the search split is {again:.4f} % now and {row['top1']:.4f} % in the table",
            hint=f"the table was measured on {conditions['device']} with torch {conditions['torch']}",
        )
    final = {
        "test_top1": top1_percent(tested),
        "test_top1_ci": list(wilson_interval(tested)),
        "test_images": len(tested),
    }
    return export_bundle(
        subnet.cpu(),
        directory,
        formats=formats,
        info=session.data.info,
        point={**row, **final},
        provenance=provenance,
        on_step=lambda text: session.reporter.line("export", text),
    )


def provenance(run: RunDirectory, digest: str, command: str) -> dict[str, Any]:
    """Where a network of a run comes from, and the commands that make it again."""
    manifest = run.manifest
    keys = ("versions", "device", "precision", "seed", "splits", "space_digest")
    found = {key: getattr(manifest, key) for key in keys}
    return {
        "run": run.name,
        "digest": digest,
        "commands": [shared_command(manifest.command), shared_command(command)],
        **found,
    }
