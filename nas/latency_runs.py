"""`latency RUN`, `latency BUNDLE` and `latency profile`: measuring on this machine, outside a search.

Networks get random weights: what a forward pass costs does not depend on them, and no data is needed.
"""

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from nas.architecture import Architecture, Backbone
from nas.config import RunConfig
from nas.errors import RunError
from nas.evaluation.evaluator import default_batch, device_name
from nas.evaluation.exclusive import Readings, measure_alone
from nas.evaluation.latency import LatencyMeter
from nas.evaluation.profile import OURS, design, make_profile
from nas.evaluation.targets import check_available, described
from nas.model.subnet import Subnet
from nas.pareto import ParetoFront
from nas.progress import Reporter
from nas.run_directory import SCHEMA_VERSION, RunDirectory
from nas.space import SearchSpace
from nas.space_file import space_of_run
from nas.target import Target, parse_target, profile_path

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

REPEATS = 0.9  # tau from which an order is taken to repeat
BATCH_STEPS = 2  # times the batch is made four times as large, for an order that repeats


@dataclass(frozen=True, slots=True)
class Models:
    """What is measured.

    Attributes:
        backbone: The fixed part.
        architectures: The networks.
        reference: What they are timed in turn with.
        batch: Where nothing else says it.
        targets: Of the run.
    """

    backbone: Backbone
    architectures: tuple[Architecture, ...]
    reference: Architecture
    batch: int
    targets: tuple[Target, ...]

    def meter(self, target: Target, batch: int) -> LatencyMeter:
        """The meter of a target."""
        size = self.backbone.image_size
        shape = (self.backbone.in_chans, size, size)
        return LatencyMeter(random_subnet(self.backbone, self.reference), shape, batch, target)


def models_of(source: Path) -> Models:
    """The front of a run, or the one network of a bundle.

    Raises:
        RunError: It is neither, or the front is empty.
    """
    try:
        table = json.loads((source / "metrics.json").read_text(encoding="utf-8"))
        architecture = Architecture.from_json((source / "architecture.json").read_text(encoding="utf-8"))
        backbone = Backbone(**table["backbone"])
    except FileNotFoundError:
        return _models_of_run(source)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{source} is a damaged bundle: {error!r}", hint="export it again") from error
    return Models(backbone, (architecture,), architecture, default_batch(backbone.image_size), ())


def _models_of_run(path: Path) -> Models:
    run = RunDirectory.open(path)
    space, config = space_of_run(run), RunConfig.model_validate(run.config())
    if space.num_classes_from_data:
        space = space.with_num_classes(len(run.manifest["class_names"]))
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
    )


def random_subnet(backbone: Backbone, architecture: Architecture) -> Subnet:
    """A network with initial weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        subnet = Subnet(backbone, architecture)
        subnet.init_weights()
    return subnet.eval().requires_grad_(False)


def measure_source(
    source: Path, targets: Sequence[Target], rounds: int, reporter: Reporter
) -> dict[str, Any]:
    """Measure a run's front, or a bundle, on every target: JSON of `latency RUN --format json`.

    Raises:
        RunError: There is nothing to measure.
        ConfigError: A target is not there.
    """
    models = models_of(source)
    wanted = tuple(targets) or models.targets or (Target(runtime="torch-cpu"),)
    for target in wanted:
        check_available(target)
    digests = [architecture.digest for architecture in models.architectures]
    tables = []
    for target in wanted:
        readings, note = _measure(models, target, rounds, reporter)
        tables.append({**readings.to_dict(), "note": note, "points": readings.points(digests)})
    return {
        "schema_version": SCHEMA_VERSION,
        "source": str(source),
        "device": device_name("cuda" if any(target.is_cuda for target in wanted) else "cpu"),
        "image_size": models.backbone.image_size,
        "targets": tables,
    }


def _measure(models: Models, target: Target, rounds: int, reporter: Reporter) -> tuple[Readings, str]:
    """Measure; where no batch is asked for, with one at which the order repeats, if there is one."""
    subnets = [random_subnet(models.backbone, architecture) for architecture in models.architectures]
    batch = target.batch or models.batch
    found: list[Readings] = []
    for step in range(1 if target.batch else 1 + BATCH_STEPS):
        size = batch * 4**step
        found.append(_alone(models.meter(target, size), subnets, rounds, reporter))
        if (found[-1].tau or 0.0) >= REPEATS or len(subnets) < 3:
            break
    best = max(found, key=lambda readings: readings.tau or 0.0)
    if best is found[0]:
        return best, ""
    note = f"batch of {best.batch}: the order repeats with tau {best.tau:.2f}, with {found[0].tau:.2f} at {batch}"
    reporter.line("batch", note)
    return best, note


def _alone(meter: LatencyMeter, subnets: Sequence[Subnet], rounds: int, reporter: Reporter) -> Readings:
    with reporter.bar("latency") as bar:

        def show(done: int, of: int) -> None:
            bar(done, of, f"{len(subnets)} architectures on {meter.target}, round {done}/{of}")

        return measure_alone(meter, subnets, rounds, show)


def profile_space(
    space: SearchSpace, target: Target, count: int, rounds: int, seed: int, file: Path, reporter: Reporter
) -> dict[str, Any]:
    """Measure architectures of a space on a target, fit, judge, write: JSON of `latency profile --format json`.

    Raises:
        ConfigError: The target is not there, or the space has too few architectures.
    """
    check_available(target)
    architectures = design(space, count, seed)
    batch = target.batch or default_batch(space.backbone.image_size)
    models = Models(space.backbone, tuple(architectures), space.largest(), batch, ())
    subnets = [random_subnet(space.backbone, architecture) for architecture in architectures]
    readings = _alone(models.meter(target, batch), subnets, rounds, reporter)
    medians = [timing.median_ms for timing in readings.timings]
    profile = make_profile(
        target,
        batch,
        device_name("cuda" if target.is_cuda else "cpu"),
        os.cpu_count() or 1,
        {"python": platform.python_version(), "torch": torch.__version__, "runtime": described(target)},
        space.backbone,
        dict(zip(architectures, medians, strict=True)),
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
            {"predictor": name, "mape_percent": score.mape, "tau": score.tau}
            for name, score in profile.scores.items()
        ],
        "usable": not profile.losses,
        "losses": profile.losses,
    }


def profile_table(values: dict[str, Any]) -> "Table":
    """`profile_space` as a table."""
    from rich import box
    from rich.table import Table

    verdict = "usable" if values["usable"] else "not used: " + "; ".join(values["losses"])
    table = Table(
        title=f"{values['file']}: {values['architectures']} architectures on {values['target']}, "
        f"batch of {values['batch']}, {values['image_size']} px",
        caption=f"errors on architectures left out in turn; {values['device']}; "
        f"{values['noisy']} not known within 2 %\n{verdict}",
        box=box.SIMPLE_HEAD,
        min_width=96,
        caption_justify="left",
    )
    table.add_column("predicted from")
    table.add_column("mean error", justify="right")
    table.add_column("tau", justify="right")
    for row in values["predictors"]:
        name = "all operations" if row["predictor"] == OURS else row["predictor"]
        table.add_row(name, f"{row['mape_percent']:.1f} %", f"{row['tau']:.3f}")
    return table


def measured_tables(values: dict[str, Any]) -> "Group":
    """`measure_source` as a table a target."""
    from rich import box
    from rich.console import Group
    from rich.table import Table

    tables = []
    for found in values["targets"]:
        threads = f"{found['threads']} thread{'s' if found['threads'] != 1 else ''}"
        load = found["machine"]["before"]["load_average"][0]
        cores = f", core {', '.join(map(str, found['cores']))}" if found["cores"] else ""
        order = "" if found["repeat_tau"] is None else f"   order repeats with tau {found['repeat_tau']:.2f}"
        table = Table(
            title=f"{found['runtime']}, batch of {found['batch']}, {values['image_size']} px, {threads}",
            caption=f"{values['device']}, torch {found['torch']}, load average {load:.1f}{cores}\n"
            f"reference {found['reference_ms']:.3g} ms, in slow moments {found['reference_slow_ms']:.3g} ms: "
            "all times may be off by as much\n"
            f"± 95 % interval of the median   ~ not known within 2 %   = intervals overlap{order}"
            + (f"\n{found['note']}" if found["note"] else ""),
            box=box.SIMPLE_HEAD,
            min_width=96,
            caption_justify="left",
        )
        table.add_column("digest", no_wrap=True)
        for header in ("latency (ms)", "images/s", "rounds"):
            table.add_column(header, justify="right", no_wrap=True)
        table.add_column("", no_wrap=True)
        table.add_column("ties with", max_width=60)
        for point in found["points"]:
            low, high = point["latency_ci_ms"]
            spread = max(high - point["latency_ms"], point["latency_ms"] - low)
            mark = ("~" if point["noisy"] else "") + ("=" if point["ties"] else "")
            ties = " ".join(digest[:6] for digest in point["ties"][:6]) + (
                " ..." if len(point["ties"]) > 6 else ""
            )
            rate = 1e3 * found["batch"] / point["latency_ms"]
            table.add_row(
                point["digest"],
                f"{point['latency_ms']:.3f} ± {spread:.3f}",
                f"{rate:,.0f}",
                str(point["rounds"]),
                mark,
                ties,
            )
        tables.append(table)
    return Group(*tables)


def measured_rows(values: dict[str, Any]) -> list[dict[str, Any]]:
    """`measure_source` flat: a row a target and model."""
    shared = ("target", "runtime", "batch", "threads", "precision", "repeat_tau")
    return [
        {**{key: found[key] for key in shared}, **point, "device": values["device"]}
        for found in values["targets"]
        for point in found["points"]
    ]
