"""From a point of a run's front to a bundle: measured again, tested once, and written with where it came from."""

import math
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nas.arch import Architecture, cost
from nas.base import BALANCED, MACS, NAME, TOP1, DataError, ExportError, Reporter, RunError, shared_command, shared_word
from nas.bundle import (
    ARCHITECTURE,
    DEFAULT_FORMATS,
    INT8,
    MAX_INT8_LOSS,
    BundleOptions,
    ExportReport,
    Int8,
    check_options,
    check_place,
    export_bundle,
)
from nas.data import ImageSet, TestSplit
from nas.evaluation import (
    balanced_interval,
    balanced_percent,
    count_correct,
    paired_loss,
    top1_percent,
    wilson_interval,
)
from nas.jobs.alone import network_at
from nas.jobs.measures import evaluator_setup
from nas.jobs.session import Session, reopen_with_test
from nas.latency import CALIBRATION_IMAGES, torch_threads
from nas.model import Subnet
from nas.report import best_plain, chance_level, shape_words
from nas.runs import (
    FINALIST,
    FrontPoint,
    Measurement,
    ParetoFront,
    RunDirectory,
    owner,
    picked,
    results_of,
    searched_runs,
)
from nas.settings import NO_OWN, Own, flat_config
from nas.training import load_trained, weights_digest


def export_pick(
    path: Path,
    pick: str,
    directory: Path,
    options: BundleOptions,
    reporter: Reporter,
    data: str | None = None,
    own: Own = NO_OWN,
) -> ExportReport:
    """Write one architecture of a run's space as a model bundle, verified against the table.

    `pick` may be any architecture (`nas.runs.picked`); of one that is in no table the accuracy is measured now, and
    nothing else. `data` and `own` are as for `nas.jobs.session.reopen`.

    Opens the test split, which no stage before has read; its accuracy goes onto the model card.

    Raises:
        DataError: There is no test split, or its images changed or are unreadable.
        ExportError: Something written differs from what was searched; nothing is left behind.
    """
    check_options(options)
    check_place(directory, run_facts(RunDirectory.open(path)))
    lacking = "so its model card would have no final accuracy", "export from"
    run, point, session, test = open_pick(path, pick, reporter, lacking, data, own)
    if (finalist := point.details.get(FINALIST)) is not None:
        weights = session.run.finalists_dir / Path(finalist["weights"]).name
        subnet = network_at(weights, session.space.backbone, point.architecture).to(session.device)
    else:
        subnet = load_trained(session.run, session.space, session.device).extract(point.architecture)
    pick = ARCHITECTURE if Path(pick).is_file() else pick
    words = [NAME, "export", str(run.path), "--pick", pick, "--to", str(directory)]
    words += [] if tuple(options.formats) == DEFAULT_FORMATS else ["--formats", ",".join(options.formats)]
    words += [] if options.opset is None else ["--opset", str(options.opset)]
    words += [] if options.max_int8_loss is None else ["--max-int8-loss", f"{options.max_int8_loss:g}"]
    words += [] if options.license is None else ["--license", options.license]
    origin = provenance(run, point.digest, shlex.join(words))
    origin["supernet_digest"] = weights_digest(session.run)
    return export_measured(session, subnet, test.open(), table_row(run, point), directory, options, origin)


def open_pick(
    path: Path, pick: str, reporter: Reporter, lacking: tuple[str, str], data: str | None = None, own: Own = NO_OWN
) -> tuple[RunDirectory, FrontPoint, Session, TestSplit]:
    """The architecture that a user asks for, of a run that has ended, opened for work that ends with test images.

    `lacking` says what is missing where there is no test split, and what is to be done with another run. Between the
    point and the test split is the session of the run whose supernet it has: the same, or one of several.

    Raises:
        RunError: None or more than one answers, or the search has not ended.
        ArchitectureError: The architecture is not in the run's space.
        DataError: There is no test split.
    """
    run = RunDirectory.open(path)
    asked = picked(run, pick)
    if run.front() is None:
        raise RunError(
            f"{run.path}: the search has not ended, so there is no final table", hint="run it to the end first"
        )
    session, test = reopen_with_test(owning_run(run, asked).path, reporter, data, own)
    if test is None:
        what, better = lacking
        raise DataError(
            f"{path}: its images have no test split, {what}", hint=f"{better} a run with data.test_fraction above 0"
        )
    return run, _unmeasured(asked, session) if isinstance(asked, Architecture) else asked, session, test


def owning_run(run: RunDirectory, asked: FrontPoint | Architecture) -> RunDirectory:
    """The run whose supernet has the weights of an architecture, itself or one below; a RunError: it may be any."""
    if not isinstance(asked, Architecture):
        return owner(run, asked)
    if supernets := searched_runs(run):
        raise RunError(
            f"{run.path}: none of its {len(supernets)} supernets has measured {asked.digest}",
            hint=f"say whose weights it takes: export from {run.path / next(iter(supernets))}, or another of them",
        )
    return run


def _unmeasured(architecture: Architecture, session: Session) -> FrontPoint:
    """A point of which nothing is known but what can be calculated."""
    backbone = session.space.backbone
    setup = evaluator_setup(session, weights_digest(session.run))
    conditions = setup.conditions(len(session.data.search), stage="search")
    macs, params = cost.macs(architecture, backbone), cost.params(architecture, backbone)
    return FrontPoint(architecture, Measurement(macs=macs, params=params, conditions=conditions, seconds=0.0))


def table_row(run: RunDirectory, point: FrontPoint) -> dict[str, Any]:
    """The row of the table, as in `front --format json`; of a point that is not on the front what a row would say.

    With what it is to be seen beside: `chance`, percent, and the most accurate plain ViT, where one was measured. And
    `timing`: whether each latency is noisy, where it was measured alone, and the load average then.
    """
    front = ParetoFront.from_run(run.path)
    rows: list[dict[str, Any]] = front.to_dict(run.name)["points"]
    row = next((row for row in rows if row["digest"] == point.digest), point.to_dict())
    known = next((other for other in front.points if other.digest == point.digest), point)
    if timing := _timing(front, known):
        row["timing"] = timing
    found = results_of(run)
    accuracy, plain = found.front.accuracy, best_plain(found)
    row["chance"] = chance_level(run.manifest, TOP1)
    if plain is not None:
        row["plain"] = {
            "digest": plain.digest,
            "shape": shape_words(plain.architecture),
            "accuracy": accuracy.label,
            "value": plain.value(accuracy),
            "ci": plain.measurement.intervals.get(accuracy.name),
            "macs": int(plain.value(MACS)),
            "keeps_bounds": plain.measurement.keeps(bounds) if (bounds := run.manifest.constraints) else None,
            "weights": "trained alone" if (run.front() or {}).get("finalists") else "inherited weights",
        }
    return row


def _timing(front: ParetoFront, point: FrontPoint) -> dict[str, Any]:
    """How far latencies that were measured alone can be trusted, by name: JSON values."""
    found = {}
    for name, timed in point.measurement.latency.items():
        if timed.noisy is not None:
            before = front.targets.get(name, {}).get("machine", {}).get("before", {})
            load, cores = (before.get("load_average") or [None])[0], before.get("cores")
            found[name] = {"noisy": timed.noisy, "rounds": timed.rounds, "load_average": load, "cores": cores}
    return found


def export_measured(
    session: Session,
    subnet: Subnet,
    test: ImageSet,
    row: Mapping[str, Any],
    directory: Path,
    options: BundleOptions,
    provenance: Mapping[str, Any],
) -> ExportReport:
    """Measure a network of a run again, test it, and write its bundle; an ExportError: it is not what its row says."""
    setup, conditions = evaluator_setup(session), row["conditions"]
    with torch_threads(1):
        ranked = setup.ranked(session.data.search)
        right = setup.count_correct(subnet, ranked, precision=conditions["precision"])
        # The files compute in fp32, whatever the search was measured in.
        tested = setup.count_correct(subnet, test, precision="fp32")
    again = {TOP1: top1_percent(right), BALANCED: balanced_percent(right, ranked.labels)}
    if row["top1"] is None:
        row = {**row, "top1": again[TOP1], "top1_ci": list(wilson_interval(right))}
        if setup.with_balanced:
            interval = list(balanced_interval(right, ranked.labels))
            row = {**row, "balanced_top1": again[BALANCED], "balanced_top1_ci": interval}
    for metric, now in again.items():
        before = row.get(metric.name, now)
        if not math.isclose(now, before, abs_tol=1e-9):
            raise ExportError(
                f"{row['digest']}: {metric.label} on the search split is {now:.4f} % now, {before:.4f} % in the table",
                hint=f"the table was measured on {conditions['device']} with torch {conditions['torch']}",
            )
    final = {
        "test_top1": top1_percent(tested),
        "test_top1_ci": list(wilson_interval(tested)),
        "test_images": len(tested),
    }
    if BALANCED.name in row:
        final["test_balanced_top1"] = balanced_percent(tested, test.labels)
        final["test_balanced_top1_ci"] = list(balanced_interval(tested, test.labels))
    return export_bundle(
        subnet.cpu(),
        directory,
        options=options,
        info=session.data.info,
        point={**row, **final},
        provenance=provenance,
        int8=_int8(session, subnet, test, tested, options) if INT8 in options.formats else None,
        on_step=lambda text: session.reporter.line("export", text),
    )


def _int8(session: Session, subnet: Subnet, test: ImageSet, tested: NDArray[np.bool_], options: BundleOptions) -> Int8:
    """What a file in eight bits takes: training images, and a judge beside fp32, which got `tested` of the test right.

    The search split alone decides whether it lost too much; test images are only measured.
    """
    limit = MAX_INT8_LOSS if options.max_int8_loss is None else options.max_int8_loss
    setup, train = evaluator_setup(session), session.data.train
    ranked = setup.ranked(session.data.search)
    chosen = np.unique(np.linspace(0, len(train) - 1, CALIBRATION_IMAGES).astype(np.int64))

    def judge(run: Callable[[Tensor], Tensor]) -> dict[str, Any]:
        def right_of(images: ImageSet) -> NDArray[np.bool_]:
            on_cpu = torch.device("cpu")
            return count_correct(run, images, batch_size=setup.config.batch_size, device=on_cpu, precision="fp32")

        with torch_threads(1):
            before, after = setup.count_correct(subnet, ranked, precision="fp32"), right_of(ranked)
            tested_after = right_of(test)
        lost, interval = paired_loss(before, after)
        told = (
            f"top-1 on {len(after)} images of the search split is {top1_percent(after):.2f} %, as float "
            f"{top1_percent(before):.2f} %: {lost:.2f} points lost (95 % interval {interval[0]:.2f} to "
            f"{interval[1]:.2f})"
        )
        if interval[0] > limit:
            raise ExportError(
                f"eight bits cost {subnet.architecture.digest} too much: {told}, allowed are {limit:g}",
                hint="--max-int8-loss allows more; --formats onnx is the float file",
            )
        session.reporter.line("warning" if lost > limit else "export", f"{INT8}: {told}")
        return {
            "top1": top1_percent(after),
            "top1_ci": list(wilson_interval(after)),
            "float_top1": top1_percent(before),
            "lost_points": lost,
            "lost_points_ci": list(interval),
            "max_lost_points": limit,
            "calibration_images": len(chosen),
            "test_top1": top1_percent(tested_after),
            "test_top1_ci": list(wilson_interval(tested_after)),
            "test_lost_points": top1_percent(tested) - top1_percent(tested_after),
            "test_lost_points_ci": list(paired_loss(tested, tested_after)[1]),
        }

    return Int8(images=train.normalized(chosen).numpy(), judge=judge)


def provenance(run: RunDirectory, digest: str, command: str) -> dict[str, Any]:
    """Where a network of a run comes from, and the commands that make it again."""
    data = flat_config(run.config()).get("data.spec")
    facts = run_facts(run)
    return {
        "run": facts.pop("run"),
        "data": None if data is None else shared_word(str(data)),
        "digest": digest,
        "commands": [shared_command(run.manifest.command), shared_command(command)],
        **facts,
    }


def run_facts(run: RunDirectory) -> dict[str, Any]:
    """What of a bundle's provenance is the same for all of a run."""
    keys = ("versions", "device", "precision", "seed", "splits", "space_digest")
    splits = flat_config(run.config()).get("data.split_seed")
    facts = {"run": run.name, **{key: getattr(run.manifest, key) for key in keys}}
    return facts if splits is None else {**facts, "split_seed": splits}
