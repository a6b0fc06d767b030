"""A front as a table for the terminal and as CSV: what was measured, how far it can be believed."""

import json
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nas.arch import LEGEND, draw_layers
from nas.base import (
    BALANCED,
    LATENCIES,
    LATENCY,
    MACS,
    PARAMS,
    TOP1,
    Metric,
    command_line,
    is_own_metric,
    metric_named,
    plural,
    shared_command,
    unit_column,
    with_spread,
)
from nas.report.table import Column, Table, csv_text
from nas.report.verdict import shape_words
from nas.runs import FOUND_BY, OWNER, Conditions, FrontPoint, ParetoFront, PlainViTs, Timed

FRONT_COLUMNS = (
    "digest", "knee", "top1", "top1_ci_low", "top1_ci_high", "macs", "flops", "params",
    "latency_ms", "latency_ratio", "latency_ci_low_ms", "latency_ci_high_ms", "split",
    *(f"conditions.{name}" for name in Conditions.__slots__), "architecture", "export_command",
)  # fmt: skip
NOISY, TIES = "~", "="


def ties_within(ties: Sequence[str], points: Sequence[FrontPoint]) -> list[str]:
    """Those of the tied digests that are among the points: what was left off a front ties with nothing on it."""
    among = {point.digest for point in points}
    return [digest for digest in ties if digest in among]


def front_table(front: ParetoFront, *, whole: ParetoFront | None = None) -> Table:
    """The front as a table with units, one row a point in the front's order.

    Where `front` is a part of `whole`, the knee of that is marked, so that it is what `pick knee` takes.
    """
    whole, points = whole or front, front.points
    knee = whole.knee().digest if whole.points else None
    digits = _digest_digits(whole.points)
    signs = ["★" if point.digest == knee else "" for point in points]
    digests = [point.digest[:digits] for point in points]
    layers = [draw_layers(point.architecture) for point in points]
    shown = [TOP1, *[BALANCED][: any(p.measurement.balanced_top1 is not None for p in whole.points)], MACS, PARAMS]
    shown += [objective.metric for objective in whole.objectives if is_own_metric(objective.metric)]
    columns = [*(_metric_column(points, metric, whole) for metric in shown), *_latency_columns(points, whole)]
    if any(FOUND_BY in point.details for point in points):
        columns.append(("found by", [str(point.details.get(FOUND_BY, "")) for point in points]))
    owners = [Path(point.details.get(OWNER, "")).name[:8] for point in points]
    if any(owners):
        columns.append(("supernet", owners))
    conditions = conditions_lines(points[0].measurement.conditions) if points else []
    targets = [*_clock_line(whole), *map(latency_line, whole.targets.values())]
    part = f"{len(points)} of " if len(points) != len(whole.points) else ""
    return Table(
        title=f"Pareto front: {part}{plural(len(whole.points), 'architecture')}, hypervolume {whole.hypervolume():.4f}",
        columns=[Column(), Column("digest"), *(_column(header) for header, _ in columns), Column("layers", spare=2)],
        rows=list(zip(signs, digests, *(cells for _, cells in columns), layers, strict=True)),
        caption=[
            LEGEND,
            f"★ knee{_knee_words(whole)}   1 MAC = 2 FLOPs   ± or (to): 95 % interval",
            *_legend_of_doubts(columns),
            *conditions,
            *targets,
        ],
    )


def _column(header: str) -> Column:
    """A column of the front; what can be had elsewhere, or follows from others, goes first where there is no room."""
    spare = {"supernet": 4, "found by": 3}.get(header, 1 if header.startswith("params") else 0)
    return Column(header, "{}", spare=spare)


def plain_table(plain: PlainViTs, front: ParetoFront) -> Table:
    """The plain ViTs of a run as a line of their own beside its front, cheapest first, and what the front gains."""
    points, digests = plain.points, {point.digest for point in front.points}
    shown = [front.ranked_by, MACS, PARAMS, *[LATENCY][: any(LATENCY.name in p.measurement.latency for p in points)]]
    columns = [_metric_column(points, metric, front) for metric in shown]
    if LATENCY in shown:
        columns[-1] = f"{LATENCY.label} (ms\n/ {plural(batch_of(front) or 1, 'image')})", columns[-1][1]
    signs = ["●" if point.digest in digests else "" for point in points]
    shapes = [shape_words(point.architecture) for point in points]
    return Table(
        title=f"Plain ViTs of this space: {plain.num_measured} measured; those that no other one dominates",
        columns=[Column(), Column("digest"), *(Column(header, "{}") for header, _ in columns), Column("shape")],
        rows=list(zip(signs, (p.digest[:8] for p in points), *(cells for _, cells in columns), shapes, strict=True)),
        caption=["● on the front   shape: d width, L layers, h heads, m MLP ratio", *plain_lines(plain, front)],
    )


def nothing_fits(front: ParetoFront, names: Sequence[str]) -> str:
    """That no point of a front keeps bounds on these metrics, and the best that there is of each, in words."""
    ends = []
    for metric in map(metric_named, names):
        values = [value for point in front.points if math.isfinite(value := point.value(metric))]
        if not values:
            ends.append(f"{metric.label} was not measured")
        elif metric is TOP1:
            ends.append(f"the highest {metric.label} is {max(values):.1f} %")
        else:
            least = f"{min(values):.3g} ms" if metric is LATENCY else f"{min(values):,.0f}"
            ends.append(f"the least {metric.label} {'are' if metric.label.endswith('s') else 'is'} {least}")
    together = " together" if len(names) > 1 else ""
    return f"no network of the front keeps the bounds{together}: {', '.join(ends)}"


def plain_lines(plain: PlainViTs, front: ParetoFront) -> list[str]:
    """What a front gains over the plain ViTs of its space, in words; empty where none was measured."""
    lines, accuracy = [], front.accuracy.label
    of_front = plural(plain.num_front, "architecture")
    for name, gains in plain.gains.items():
        span = " to ".join(dict.fromkeys(f"{value:+.1f}" for value in (min(gains), max(gains))))
        beside = "above" if min(gains) >= 0 else "below" if max(gains) <= 0 else "from"
        lines.append(
            f"at equal {metric_named(name).label}, {len(gains)} of {of_front} of the front that are no plain ViTs are "
            f"{span} points of {accuracy} {beside} the best plain ViT, median {statistics.median(gains):+.1f}"
        )
    return [*lines, "by inherited weights: trained alone, networks may rank otherwise"] if lines else []


def batch_of(front: ParetoFront, latency: str = LATENCY.name) -> int | None:
    """Images per forward pass of a latency of a front, where that is known."""
    if latency in front.targets:
        return int(front.targets[latency]["batch"])
    return (
        front.points[0].measurement.conditions.latency_batch_size if latency == LATENCY.name and front.points else None
    )


def per_image_words(ms: float, batch: int) -> str:
    """A latency by the batch and by the image, such as `4.21 ms / 64 images, 0.0658 ms an image`."""
    return f"{ms:.3g} ms / {plural(batch, 'image')}" + (f", {ms / batch:.3g} ms an image" if batch > 1 else "")


def _knee_words(front: ParetoFront) -> str:
    """How long the knee takes, by the image as well."""
    if not front.points or not math.isfinite(ms := front.knee().value(LATENCY)):
        return ""
    return f": {per_image_words(ms, batch_of(front) or 1)}"


def _clock_line(front: ParetoFront) -> list[str]:
    """By what the milliseconds of a front are to be read."""
    clocks = [f"{ms:.3g} ms" for ms in front.clocks.values()]
    words = "latencies are ratios to the largest architecture, timed in turn with them, times its"
    return [f"{words} {' and '.join(clocks)}"] if clocks else []


def conditions_lines(conditions: Conditions) -> list[str]:
    """Under which circumstances a table or figure holds: accuracy, latency, software."""
    c = conditions
    return [
        f"top-1: {c.num_images} images of the {c.split} split, {c.precision}, weights {c.supernet}",
        f"latency: {c.target} on {c.device}, batch of {c.latency_batch_size}, "
        f"{plural(c.latency_threads, 'thread')}, {c.latency_stage} stage, torch {c.torch}",
    ]


def latency_line(row: Mapping[str, Any]) -> str:
    """What holds for all latencies of a target (a row of `latency` of `front.json`), in words."""
    tau = row["repeat_tau"]
    order = "too few to say whether their order repeats" if tau is None else f"order repeats, tau {tau:.2f}"
    version = "" if row["target"].startswith(row["runtime"]) else f", {row['runtime']}"
    threads = plural(row["threads"], "thread")
    return f"{row['target']}: {order}; batch of {row['batch']}, {threads}, {row['precision']}{version}"


def axis_words(metric: Metric) -> str:
    """Name and unit of what is drawn above costs, and which way is better where that is not plain."""
    return f"{metric.label} ({metric.unit}{', less is better' if metric.direction == 'minimize' else ''})"


def ratio_words(clock: float, unit: str) -> str:
    """What a ratio of latencies stands for: 1 is the largest architecture, which takes `clock` of the unit."""
    return f"1 = {clock:.3g} {unit}"


def export_command(path: Path, digest: str) -> str:
    """What writes the files of an architecture of a run's front."""
    return command_line("export", path, "--pick", digest, "--to", digest)


def front_csv(front: ParetoFront, path: Path) -> str:
    """The front of the run in `path` as CSV, one row a point; results/README.md explains the columns.

    Columns of what only some runs have come last: doubts about latency, other targets, the supernet.
    """
    return csv_text(front_rows(front, path), FRONT_COLUMNS)


def front_rows(front: ParetoFront, path: Path) -> list[dict[str, Any]]:
    """The rows of `front_csv`, in the front's order: values by column."""
    knee = front.knee().digest if front.points else None
    rows = []
    for point in front.points:
        row = {**_csv_row(point, front.points), "knee": point.digest == knee}
        row["latency_ratio"] = front.ratio(point, LATENCY) if LATENCY.name in front.clocks else None
        rows.append({**row, "export_command": shared_command(export_command(path, point.digest))})
    return rows


def _csv_row(point: FrontPoint, points: Sequence[FrontPoint]) -> dict[str, Any]:
    values = point.to_dict()
    row = {name: values[name] for name in FRONT_COLUMNS if name in values}
    row |= {f"conditions.{name}": value for name, value in values["conditions"].items()}
    row |= zip(("top1_ci_low", "top1_ci_high"), values["top1_ci"] or (None, None), strict=True)
    row["architecture"] = json.dumps(values["architecture"], sort_keys=True, separators=(",", ":"))
    row |= point.measurement.own
    for name, timed in point.measurement.latency.items():
        suffix = name.removeprefix(LATENCY.name)
        low, high = timed.interval or (None, None)
        if suffix:
            row |= {f"target{suffix}": timed.target, name: timed.ms}
        row |= {f"latency_ci_low_ms{suffix}": low, f"latency_ci_high_ms{suffix}": high}
        if timed.noisy is not None:
            ties = " ".join(ties_within(timed.ties, points))
            row |= {f"latency_noisy{suffix}": timed.noisy, f"latency_ties{suffix}": ties}
    if BALANCED.name in values:
        low, high = values["balanced_top1_ci"] or (None, None)
        row |= {BALANCED.name: values[BALANCED.name], "balanced_top1_ci_low": low, "balanced_top1_ci_high": high}
    columns = {"supernet": OWNER, FOUND_BY: FOUND_BY}
    return row | {column: point.details[key] for column, key in columns.items() if key in point.details}


def _metric_column(points: Sequence[FrontPoint], metric: Metric, whole: ParetoFront) -> tuple[str, list[str]]:
    """Header and cells; counts have the unit of the whole front, so that tables beside each other can be compared."""
    values = [point.value(metric) for point in points]
    if metric in (MACS, PARAMS):
        like = [point.value(metric) for point in whole.points]
        return unit_column("params" if metric is PARAMS else metric.label, values, like)
    is_share = metric in (TOP1, BALANCED)
    decimals = 1 if is_share else 2 + (min(filter(math.isfinite, values), default=1.0) < 0.5)
    intervals = [point.measurement.intervals.get(metric.name) for point in points]
    cells = [
        "-" if math.isnan(v) else with_spread(v, interval, f".{decimals}f")
        for v, interval in zip(values, intervals, strict=True)
    ]
    return f"{metric.label} ({'%' if is_share else metric.unit if is_own_metric(metric) else 'ms'})", cells


def _latency_columns(points: Sequence[FrontPoint], whole: ParetoFront) -> Iterator[tuple[str, list[str]]]:
    """Of the first target, and of others where there is something; then each is under its target's name."""
    measured = {name: [point.measurement.latency.get(name) for point in points] for name in LATENCIES}
    shown = [name for name, latencies in measured.items() if name == LATENCY.name or any(latencies)]
    for i, name in enumerate(LATENCIES):
        if name in shown:
            target = whole.targets.get(name, {}).get("target", f"target {i + 1}" if i else "")
            words = "\n" + target.replace(":", ":\n", 1) if target and len(shown) > 1 else ""
            batch = batch_of(whole, name)
            unit = "ms" if batch is None else f"ms\n/ {plural(batch, 'image')}"
            _, cells = _metric_column(points, LATENCIES[name], whole)
            yield f"{LATENCY.label} ({unit}){words}", _with_doubts(cells, measured[name], whole)


def _with_doubts(cells: Sequence[str], latencies: Sequence[Timed | None], whole: ParetoFront) -> list[str]:
    """The cells with a mark where a latency is noisy, and the number of points it cannot be told from."""
    noisy = [NOISY if timed and timed.noisy else "" for timed in latencies]
    counts = [len(ties_within(timed.ties, whole.points)) if timed else 0 for timed in latencies]
    ties = [f" {TIES}{count}" if count else "" for count in counts]
    widths = [max(map(len, marks), default=0) for marks in (noisy, ties)]
    return [f"{cell}{mark:<{widths[0]}}{tie:>{widths[1]}}" for cell, mark, tie in zip(cells, noisy, ties, strict=True)]


def _legend_of_doubts(columns: Sequence[tuple[str, Sequence[str]]]) -> list[str]:
    latencies = "".join(cell for header, cells in columns if header.startswith(LATENCY.label) for cell in cells)
    words = {
        NOISY: " latency not known within 2 %",
        TIES: "n latency not told apart from n others of the front: the intervals overlap",
    }
    parts = [mark + text for mark, text in words.items() if mark in latencies]
    return ["   ".join(parts)] if parts else []


def _digest_digits(points: Sequence[FrontPoint]) -> int:
    """Digits that tell the points apart, at least 8."""
    return next((n for n in range(8, 12) if len({p.digest[:n] for p in points}) == len(points)), 12)
