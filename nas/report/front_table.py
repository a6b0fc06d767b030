"""A front as a table for the terminal and as CSV: what was measured, how far it can be believed."""

import csv
import io
import json
import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.arch import LEGEND, draw_layers
from nas.base import unit_column
from nas.report.conditions import conditions_lines
from nas.runs import OWNER, Conditions, FrontPoint, ParetoFront
from nas.settings import LATENCIES, LATENCY, MACS, PARAMS, TOP1, Metric

if TYPE_CHECKING:
    from rich.table import Table
from nas.runs import further_latencies

FRONT_COLUMNS = (
    "digest", "knee", "top1", "top1_ci_low", "top1_ci_high", "macs", "flops", "params",
    "latency_ms", "latency_ci_low_ms", "latency_ci_high_ms", "split",
    *(f"conditions.{name}" for name in Conditions.__slots__), "architecture", "export_command",
)  # fmt: skip
NOISY, TIES = "~", "="


def ties_within(ties: Sequence[str], points: Sequence[FrontPoint]) -> list[str]:
    """Those of the tied digests that are among the points: what was left off a front ties with nothing on it."""
    among = {point.digest for point in points}
    return [digest for digest in ties if digest in among]


def front_table(
    front: ParetoFront,
    baselines: Mapping[str, FrontPoint] | None = None,
    *,
    whole: ParetoFront | None = None,
    latency: Sequence[Mapping[str, Any]] = (),
) -> "Table":
    """The front as a table with units, one row a point in the front's order, then the baselines by name.

    Args:
        front: What to show.
        baselines: Name -> a known network, measured like the front.
        whole: The front that `front` is a part of; its knee is marked, so that it is what `pick knee` takes.
        latency: What holds for the latency of all points, a row a target: `latency` of `front.json`.
    """
    from rich import box
    from rich.table import Table

    whole, named = whole or front, dict(baselines or {})
    rows = [*front.points, *named.values()]
    knee = whole.knee().digest if whole.points else None
    digits = _digest_digits(whole.points)
    further = [further_latencies(point, latency) for point in rows]
    columns = [_metric_column(rows, metric) for metric in (TOP1, MACS, PARAMS)]
    header, cells = _metric_column(rows, LATENCY)
    if any(further) and latency:
        header += f"\n{_broken(latency[0]['target'])}"
    columns.append((header, _with_doubts(cells, [p.details.get("latency") for p in rows], whole)))
    for i, metric in enumerate(LATENCIES[1:], start=1):
        found = [row.get(metric.name) for row in further]
        if any(found):
            words = _broken(latency[i]["target"]) if i < len(latency) else f"target {i + 1}"
            columns.append(_target_column(found, words, whole))
    owners = [Path(point.details.get(OWNER, "")).name[:8] for point in rows]
    if any(owners):
        columns.append(("supernet", owners))
    part = f"{len(front.points)} of " if len(front.points) != len(whole.points) else ""
    title = f"Pareto front: {part}{len(whole.points)} architectures, hypervolume {whole.hypervolume():.4f}"
    table = Table(title=title, box=box.SIMPLE_HEAD, caption_justify="left")
    table.add_column("", no_wrap=True)
    table.add_column("digest", no_wrap=True)
    for header, _ in columns:
        table.add_column(header, justify="right", no_wrap=True)
    table.add_column("layers", no_wrap=True)
    conditions = rows[0].measurement.conditions if rows else None
    strange = {name for name, point in named.items() if point.measurement.conditions != conditions}
    names = [
        *(point.digest[:digits] for point in front.points),
        *(f"{name} †" if name in strange else name for name in named),
    ]
    for i, (name, point) in enumerate(zip(names, rows, strict=True)):
        if named and i == len(front.points):
            table.add_section()
        mark = "★" if point.digest == knee and i < len(front.points) else ""
        values = [cells[i] for _, cells in columns]
        table.add_row(mark, name, *values, draw_layers(point.architecture))
    lines = [LEGEND, "★ knee   1 MAC = 2 FLOPs", *_legend_of_doubts(columns)]
    lines += conditions_lines(conditions) if conditions else []
    lines += [latency_line(row) for row in latency]
    lines += ["† measured under other conditions"] if strange else []
    table.caption = "\n".join(lines)
    return table


def latency_line(row: Mapping[str, Any]) -> str:
    """What holds for all latencies of a target (a row of `latency` of `front.json`), in words."""
    tau = row["repeat_tau"]
    order = "too few to say whether their order repeats" if tau is None else f"order repeats, tau {tau:.2f}"
    threads = f"{row['threads']} thread{'s' * (row['threads'] != 1)}"
    version = "" if row["target"].startswith(row["runtime"]) else f", {row['runtime']}"
    return f"{row['target']}: {order}; batch of {row['batch']}, {threads}, {row['precision']}{version}"


def export_command(path: Path, digest: str) -> str:
    """What writes the files of an architecture of a run's front."""
    return f"python search.py export {shlex.quote(str(path))} --pick {digest} --to {digest}"


def front_csv(front: ParetoFront, path: Path, latency: Sequence[Mapping[str, Any]] = ()) -> str:
    """The front as CSV, one row a point; results/README.md explains the columns.

    Columns of what only some runs have come last: doubts about latency, further targets, the supernet.

    Args:
        front: Its rows.
        path: Of the run.
        latency: As for `front_table`.
    """
    knee = front.knee().digest if front.points else None
    rows = [_csv_row(point, front.points, latency) for point in front.points]
    text = io.StringIO()
    columns = dict.fromkeys([*FRONT_COLUMNS, *(name for row in rows for name in row)])
    writer = csv.DictWriter(text, list(columns), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        command = export_command(path, row["digest"])
        writer.writerow({**row, "knee": row["digest"] == knee, "export_command": command})
    return text.getvalue()


def _csv_row(
    point: FrontPoint,
    points: Sequence[FrontPoint],
    latency: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    values = point.to_dict()
    top1_low, top1_high = values["top1_ci"] or (None, None)
    row = {
        **{name: values[name] for name in FRONT_COLUMNS if name in values},
        **{f"conditions.{name}": value for name, value in values["conditions"].items()},
        "top1_ci_low": top1_low,
        "top1_ci_high": top1_high,
        "architecture": json.dumps(values["architecture"], sort_keys=True, separators=(",", ":")),
    }
    targets = {metric.name: row["target"] for metric, row in zip(LATENCIES, latency, strict=False)}
    first = {"latency_ci_ms": values["latency_ci_ms"], **point.details.get("latency", {})}
    for name, found in {LATENCY.name: first, **further_latencies(point, latency)}.items():
        suffix = name.removeprefix(LATENCY.name)
        low, high = found["latency_ci_ms"] or (None, None)
        if suffix:
            row |= {f"target{suffix}": targets.get(name), name: found["latency_ms"]}
        row |= {f"latency_ci_low_ms{suffix}": low, f"latency_ci_high_ms{suffix}": high}
        if "noisy" in found:
            ties = " ".join(ties_within(found["ties"], points))
            row |= {f"latency_noisy{suffix}": found["noisy"], f"latency_ties{suffix}": ties}
    return row | ({"supernet": point.details[OWNER]} if OWNER in point.details else {})


def _metric_column(points: Sequence[FrontPoint], metric: Metric) -> tuple[str, list[str]]:
    values = [point.value(metric) for point in points]
    if metric in (MACS, PARAMS):
        return unit_column("params" if metric is PARAMS else metric.label, values)
    decimals = 1 if metric is TOP1 else 2 + (min(values, default=1.0) < 0.5)
    intervals = [point.measurement.intervals.get(metric.name) for point in points]
    cells = _spread_cells(values, intervals, decimals)
    return f"{metric.label} ({'%' if metric is TOP1 else 'ms'})", cells


def _target_column(
    found: Sequence[Mapping[str, Any] | None], words: str, whole: ParetoFront
) -> tuple[str, list[str]]:
    values = [math.nan if row is None else row["latency_ms"] for row in found]
    decimals = 2 + (min((value for value in values if not math.isnan(value)), default=1.0) < 0.5)
    intervals = [None if row is None else row["latency_ci_ms"] for row in found]
    cells = _with_doubts(_spread_cells(values, intervals, decimals), found, whole)
    return f"{LATENCY.label} (ms)\n{words}", cells


def _spread_cells(
    values: Sequence[float], intervals: Sequence[Sequence[float] | None], decimals: int
) -> list[str]:
    cells = []
    for value, interval in zip(values, intervals, strict=True):
        spread = (
            "" if interval is None else f" ± {max(interval[1] - value, value - interval[0]):.{decimals}f}"
        )
        cells.append("-" if math.isnan(value) else f"{value:.{decimals}f}{spread}")
    return cells


def _with_doubts(
    cells: Sequence[str], doubts: Sequence[Mapping[str, Any] | None], whole: ParetoFront
) -> list[str]:
    """The cells with a mark where a latency is noisy, and the number of points it cannot be told from."""
    noisy = [NOISY if found and found.get("noisy") else "" for found in doubts]
    counts = [len(ties_within(found.get("ties", ()), whole.points)) if found else 0 for found in doubts]
    ties = [f" {TIES}{count}" if count else "" for count in counts]
    widths = [max(map(len, marks), default=0) for marks in (noisy, ties)]
    return [
        f"{cell}{mark:<{widths[0]}}{tie:>{widths[1]}}"
        for cell, mark, tie in zip(cells, noisy, ties, strict=True)
    ]


def _legend_of_doubts(columns: Sequence[tuple[str, Sequence[str]]]) -> list[str]:
    latencies = "".join(
        cell for header, cells in columns if header.startswith(LATENCY.label) for cell in cells
    )
    parts = [f"{NOISY} not known within 2 %"] if NOISY in latencies else []
    if TIES in latencies:
        parts.append(f"{TIES}n not told apart from n others of the front: the intervals overlap")
    return ["   ".join(parts)] if parts else []


def _broken(target: str) -> str:
    """A target on lines of its own: runtime, options."""
    return target.replace(":", ":\n", 1)


def _digest_digits(points: Sequence[FrontPoint]) -> int:
    """Digits that tell the points apart, at least 8."""
    return next((n for n in range(8, 12) if len({p.digest[:n] for p in points}) == len(points)), 12)
