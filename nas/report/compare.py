"""Two runs side by side: how good their fronts are by one measure, and what was different."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nas.base import (
    BALANCED,
    LATENCIES,
    LATENCY,
    MACS,
    TOP1,
    Metric,
    Objective,
    RunError,
    command_line,
    metric_named,
    unit_of,
)
from nas.report.table import Column, Table, columns_of
from nas.report.terminal_plot import Series, scatter
from nas.runs import FrontPoint, ParetoFront, RunDirectory, config_of_run, front_of
from nas.settings import flat_config

if TYPE_CHECKING:
    from rich.console import Group

NUM_BUDGETS = 6
RATIO = "of the reference model's"
IDENTITY = ("space_digest", "splits", "seed", "device", "precision", "versions")


def compare_runs(first: Path, second: Path) -> dict[str, Any]:
    """What `compare --format json` prints; results/README.md explains the keys.

    The hypervolumes have one reference: of each shared objective, the worse one of both runs. Latencies are compared as
    ratios to the reference model, and left out where the runs timed different ones, or elsewhere.

    Raises:
        RunError: One is not a run, has measured nothing, or they share no objective that can be compared.
    """
    runs = [RunDirectory.open(path) for path in (first, second)]
    fronts = [front_of(run.path) for run in runs]
    for run, front in zip(runs, fronts, strict=True):
        if not front.points:
            raise RunError(f"{run.path}: nothing was measured yet", hint=f"see `{command_line('status', run.path)}`")
    left_out = latencies_apart(runs, fronts)
    fronts = [front.by_clocks(dict.fromkeys(front.clocks, 1.0)) for front in fronts]
    objectives, by = _common_objectives(fronts, left_out), shared_accuracy(fronts)
    names = [run.name for run in runs]
    if names[0] == names[1]:
        names = [str(run.path) for run in runs]
    conditions = [front.points[0].measurement.conditions.to_dict() for front in fronts]
    for values in conditions:
        del values["supernet"]  # the weights: what runs are compared for
    shared = {p.digest for p in fronts[0].points} & {p.digest for p in fronts[1].points}
    return {
        "schema_version": 1,
        "objectives": [
            {
                "name": o.metric.name,
                "unit": RATIO if o.metric.name in LATENCIES else o.metric.unit,
                "reference": o.reference,
            }
            for o in objectives
        ],
        "left_out": [{"name": name, "reason": reason} for name, reason in left_out.items()],
        "runs": [
            {
                "run": name,
                "front_size": len(front.points),
                "hypervolume": ParetoFront(tuple(objectives), front.points).hypervolume(),
                "best_top1": max(point.value(TOP1) for point in front.points),
                **_best_balanced(front),
                "knee": front.knee().digest,
                "points": [{metric.name: _finite(point, metric) for metric in (by, MACS)} for point in front.points],
            }
            for name, front in zip(names, fronts, strict=True)
        ],
        "shared_architectures": len(shared),
        "accuracy": by.name,
        "budgets": best_within_budgets(fronts),
        "other_conditions": differences(*conditions),
        "differences": differences(*(_identity(run) for run in runs)),
    }


def latencies_apart(runs: Sequence[RunDirectory], fronts: Sequence[ParetoFront]) -> dict[str, str]:
    """The latencies that both runs optimised and that cannot be compared, with the reason."""
    searches = [run.manifest.search for run in runs]
    conditions = [front.points[0].measurement.conditions.to_dict() for front in fronts]
    found = {}
    for name in LATENCIES:
        if not all(any(o.metric.name == name for o in front.objectives) for front in fronts):
            continue
        digests = [search.reference_digest if search else "unknown" for search in searches]
        reasons = [f"the reference model is {' against '.join(digests)}"] if digests[0] != digests[1] else []
        for key in ("device", "target", "latency_batch_size", "latency_threads"):
            places = [str(values[key]).split("; ")[0 if name == LATENCY.name else slice(None)] for values in conditions]
            if places[0] != places[1]:
                reasons.append(f"{key} is {' against '.join(map(str, places))}")
        if not all(name in front.clocks for front in fronts):
            reasons.append("the time of the reference model was not kept")
        if reasons:
            found[name] = "; ".join(reasons)
    return found


def shared_accuracy(fronts: Sequence[ParetoFront]) -> Metric:
    """The accuracy that both runs rank by, else top-1, which all have."""
    return BALANCED if all(front.accuracy is BALANCED for front in fronts) else TOP1


def best_within_budgets(fronts: Sequence[ParetoFront]) -> list[dict[str, Any]]:
    """Best accuracy of each front within some budgets of MACs, from the least that all can keep to the most of any."""
    by = shared_accuracy(fronts)
    costs = [[p.value(MACS) for p in front.points if math.isfinite(p.value(MACS))] for front in fronts]
    if not all(costs):
        return []
    low, high = max(min(values) for values in costs), max(max(values) for values in costs)
    if not 0 <= low <= high < math.inf:
        return []
    budgets = np.geomspace(low, high, NUM_BUDGETS) if low > 0 else np.linspace(low, high, NUM_BUDGETS)
    budgets = np.clip(budgets, low, high)  # which rounding may leave
    budgets[[0, -1]] = low, high
    return [
        {
            "max_macs": most,
            f"best_{by.name}": [max(p.value(by) for p in f.points if p.value(MACS) <= most) for f in fronts],
        }
        for most in dict.fromkeys(budgets.tolist())
    ]


def differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Keys, nested ones dotted, whose values differ: `key` and the two `values`, null where one has none."""
    one, other = flat_config(first), flat_config(second)
    pairs = {key: [one.get(key), other.get(key)] for key in [*one, *other]}
    return [{"key": key, "values": values} for key, values in pairs.items() if values[0] != values[1]]


def compare_tables(found: Mapping[str, Any]) -> "Group":
    """`compare_runs` for people: a table of runs, one of budgets, a plot, and what was different."""
    from rich.console import Group
    from rich.text import Text

    runs = found["runs"]
    names = [run["run"] for run in runs]
    reference = ", ".join(f"{o['name']} {o['reference']:.4g} {o['unit']}" for o in found["objectives"])
    headers = {"run": "", "front": "{}", "hypervolume": "{:.4f}", "best top-1 (%)": "{:.1f}", "knee": "{}"}
    balanced = [r.get("best_balanced_top1") for r in runs]
    if any(value is not None for value in balanced):
        headers["best balanced top-1 (%)"] = "{:.1f}"
    table = Table(
        title=f"{' and '.join(names)}: {found['shared_architectures']} architectures on both fronts",
        columns=columns_of(headers, wraps=True),
        rows=[
            (r["run"], r["front_size"], r["hypervolume"], r["best_top1"], r["knee"][:8], value)[: len(headers)]
            for r, value in zip(runs, balanced, strict=True)
        ],
        caption=[
            f"hypervolume with one reference: {reference}",
            *(f"{row['name']} is left out of it: {row['reason']}" for row in found["left_out"]),
        ],
    )
    parts: list[Any] = [table]
    by = metric_named(found["accuracy"])
    factor, prefix = unit_of(budget["max_macs"] for budget in found["budgets"])
    if found["budgets"]:
        forms = [(f"{prefix}MACs", "{:.3g}"), *((name, "{:.1f}") for name in names), ("difference", "{:+.1f}")]
        best = [(budget["max_macs"] / factor, *budget[f"best_{by.name}"]) for budget in found["budgets"]]
        rows = [(macs, one, other, other - one) for macs, one, other in best]
        title = f"best {by.label} (%) within a budget of MACs per image"
        parts.append(Table(title=title, columns=[Column(*form, wraps=True) for form in forms], rows=rows))
    series = [
        Series(sign, [(p["macs"] / factor, p[by.name]) for p in run["points"] if None not in p.values()])
        for sign, run in zip("●○", runs, strict=True)
    ]
    parts.append(Text(scatter(series, f"{prefix}MACs per image", f"{by.label} (%)")))
    parts.append(Text(f"● {names[0]}   ○ {names[1]}", "dim"))
    for key, title in (
        ("other_conditions", "measured under other conditions: their numbers must not be compared"),
        ("differences", "what was different"),
    ):
        if different := [(row["key"], *("-" if v is None else str(v) for v in row["values"])) for row in found[key]]:
            parts.append(
                Table(title=title, columns=[Column(header, wraps=True) for header in ("", *names)], rows=different)
            )
    return Group(*parts)


def compare_rows(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """`compare_runs` as rows of CSV, one a run; the budgets are columns."""
    best = f"best_{found['accuracy']}"
    return [
        {
            name: run[name]
            for name in ("run", "front_size", "hypervolume", "best_top1", "best_balanced_top1", "knee")
            if name in run
        }
        | {f"{best}_within_{b['max_macs']:.0f}_macs": b[best][i] for b in found["budgets"]}
        for i, run in enumerate(found["runs"])
    ]


def _common_objectives(fronts: Sequence[ParetoFront], left_out: Mapping[str, str]) -> list[Objective]:
    one, other = ({o.metric.name: o for o in front.objectives} for front in fronts)
    common = [
        other[name] if objective.metric.is_better(objective.reference, other[name].reference) else objective
        for name, objective in one.items()
        if name in other and name not in left_out
    ]
    if not common:
        text = f"the runs share no objective: {', '.join(one)} against {', '.join(other)}"
        text += "".join(f"; {name} cannot be compared: {reason}" for name, reason in left_out.items())
        raise RunError(text, hint="compare runs with the same search.objectives")
    return common


def _identity(run: RunDirectory) -> dict[str, Any]:
    manifest = run.manifest
    about = {name: getattr(manifest, name) for name in IDENTITY}  # `device` is resolved there
    about["trials"] = manifest.budget and manifest.budget.num_trials
    return {**config_of_run(run).model_dump(mode="json"), **about}


def _best_balanced(front: ParetoFront) -> dict[str, float]:
    """`best_balanced_top1` of a front that has measured it."""
    found = [value for p in front.points if (value := p.measurement.balanced_top1) is not None]
    return {"best_balanced_top1": max(found)} if found else {}


def _finite(point: FrontPoint, metric: Metric) -> float | None:
    return None if math.isnan(point.value(metric)) else point.value(metric)
