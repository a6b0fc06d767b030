"""How good the fronts of runs are by one measure, and what was different; seeds of one set-up together."""

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from nas.base import BALANCED, LATENCIES, LATENCY, MACS, TOP1, Metric, Objective, RunError, command_line
from nas.runs import FrontPoint, ParetoFront, RunDirectory, config_of_run, front_of, shared_beginning
from nas.settings import flat_config

NUM_BUDGETS = 6
RATIO = "of the reference model's"
IDENTITY = ("space_digest", "splits", "seed", "device", "precision", "versions")
RANKED = "splits.search"
"""The condition which images a run ranked its networks by; the data's own ones, or carved with the seed."""
BY_SEED = ("seed", "splits", "taken_over")
"""What may differ within a group: splits are carved with the seed."""


def compare_runs(*paths: Path) -> dict[str, Any]:
    """What `compare --format json` prints of two runs or more; results/README.md explains the keys.

    The hypervolumes have one reference: of each shared objective, the worst one of all runs. Latencies are compared as
    ratios to the reference model, and left out where the runs timed different ones, or elsewhere. Of more than two runs
    those that differ by the seed alone are a group.

    Raises:
        RunError: There is one run only, one is none, has measured nothing, or is there twice among several, or they
            share no objective that can be compared.
    """
    if len(paths) < 2:
        raise RunError("compare takes two runs or more", hint=f"such as `{command_line('compare', 'RUN1', 'RUN2')}`")
    runs = [RunDirectory.open(path) for path in paths]
    if len(runs) > 2 and len({run.path.resolve() for run in runs}) < len(runs):
        raise RunError("a run is there twice", hint="each run once: seeds of a group are counted")
    fronts = [front_of(run.path) for run in runs]
    for run, front in zip(runs, fronts, strict=True):
        if not front.points:
            raise RunError(f"{run.path}: nothing was measured yet", hint=f"see `{command_line('status', run.path)}`")
    left_out = latencies_apart(runs, fronts)
    fronts = [front.by_clocks(dict.fromkeys(front.clocks, 1.0)) for front in fronts]
    objectives, by = _common_objectives(fronts, left_out), shared_accuracy(fronts)
    names = [run.name for run in runs]
    if len(set(names)) < len(names):
        names = [str(run.path) for run in runs]
    conditions = [front.points[0].measurement.conditions.to_dict() for front in fronts]
    apart = not all(run.manifest.shares_data_with(runs[0].manifest) for run in runs)
    for values, run in zip(conditions, runs, strict=True):
        del values["supernet"]  # the weights: what runs are compared for
        values |= {"data": run.manifest.data_words} if apart else {RANKED: run.manifest.splits.get("search", "")[:8]}
    shared = set.intersection(*({point.digest for point in front.points} for front in fronts))
    identities = [_identity(run) for run in runs]
    found: dict[str, Any] = {
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
        "shared_first_trials": shared_beginning(runs),
        "accuracy": by.name,
        "budgets": best_within_budgets(fronts),
        "other_conditions": differences(*conditions),
        "differences": differences(*identities),
    }
    return found if len(runs) == 2 else {**found, **_groups(found["runs"], identities)}


def _groups(rows: Sequence[Mapping[str, Any]], identities: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Runs by what was the same but for the seed: `groups`, and `pairs` of those that have seeds in common."""
    keys = [
        json.dumps({key: v for key, v in values.items() if key not in BY_SEED}, sort_keys=True) for values in identities
    ]
    groups = []
    for number, key in enumerate(dict.fromkeys(keys)):
        members = [i for i, own in enumerate(keys) if own == key]
        volumes, seeds = [rows[i]["hypervolume"] for i in members], [identities[i]["seed"] for i in members]
        groups.append(
            {
                "group": _letter(number),
                "runs": [rows[i]["run"] for i in members],
                "seeds": seeds,
                "hypervolume_median": statistics.median(volumes),
                "hypervolume_range": [min(volumes), max(volumes)],
                "hypervolume_mean": statistics.fmean(volumes),
                "hypervolume_mean_ci": _mean_interval(volumes) if len(members) == len(set(seeds)) else None,
            }
        )
    pairs = []
    for one, other in combinations(groups, 2):
        first, second = (
            dict(zip(group["seeds"], (_volume(rows, name) for name in group["runs"]), strict=True))
            for group in (one, other)
        )
        seeds = sorted(first.keys() & second.keys())
        if not seeds or len(first) < len(one["seeds"]) or len(second) < len(other["seeds"]):
            continue  # a seed that is there twice has no one partner
        gains = [second[seed] - first[seed] for seed in seeds]
        pairs.append(
            {
                "groups": [one["group"], other["group"]],
                "seeds": seeds,
                "median_difference": statistics.median(gains),
                "mean_difference": statistics.fmean(gains),
                "mean_difference_ci": _mean_interval(gains),
                "second_is_better": sum(gain > 0 for gain in gains),
            }
        )
    return {"groups": groups, "pairs": pairs}


def _letter(number: int) -> str:
    """A, B, ... Z, A1, B1, ..."""
    return f"{chr(ord('A') + number % 26)}{number // 26 or ''}"


def _volume(rows: Sequence[Mapping[str, Any]], name: str) -> float:
    return next(float(row["hypervolume"]) for row in rows if row["run"] == name)


def _mean_interval(values: Sequence[float]) -> list[float] | None:
    """95 % interval of the mean by Student's t; None of a single value, which has none."""
    if len(values) < 2:
        return None
    from scipy.stats import t  # type: ignore[import-untyped]

    mean, error = statistics.fmean(values), statistics.stdev(values) / math.sqrt(len(values))
    half = float(t.ppf(0.975, len(values) - 1)) * error
    return [mean - half, mean + half]


def latencies_apart(runs: Sequence[RunDirectory], fronts: Sequence[ParetoFront]) -> dict[str, str]:
    """The latencies that all runs optimised and that cannot be compared, with the reason."""
    searches = [run.manifest.search for run in runs]
    conditions = [front.points[0].measurement.conditions.to_dict() for front in fronts]
    found = {}
    for name in LATENCIES:
        if not all(any(o.metric.name == name for o in front.objectives) for front in fronts):
            continue
        digests = [search.reference_digest if search else "unknown" for search in searches]
        known = dict.fromkeys(digests)
        reasons = [f"the reference model is {' against '.join(known)}"] if len(known) > 1 else []
        for key in ("device", "target", "latency_batch_size", "latency_threads"):
            places = [str(values[key]).split("; ")[0 if name == LATENCY.name else slice(None)] for values in conditions]
            if len(said := dict.fromkeys(map(str, places))) > 1:
                reasons.append(f"{key} is {' against '.join(said)}")
        if not all(name in front.clocks for front in fronts):
            reasons.append("the time of the reference model was not kept")
        if reasons:
            found[name] = "; ".join(reasons)
    return found


def shared_accuracy(fronts: Sequence[ParetoFront]) -> Metric:
    """The accuracy that all runs rank by, else top-1, which all have."""
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
            f"best_{by.name}": [point.value(by) for point in best],
            f"best_{by.name}_ci": [_ends(point, by) for point in best],
        }
        for most in dict.fromkeys(budgets.tolist())
        for best in [[max((p for p in f.points if p.value(MACS) <= most), key=lambda p: p.value(by)) for f in fronts]]
    ]


def _ends(point: FrontPoint, metric: Metric) -> list[float] | None:
    interval = point.measurement.intervals.get(metric.name)
    return None if interval is None else list(interval)


def differences(*given: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Keys, nested ones dotted, whose values differ: `key` and the `values`, one for each, null where it has none."""
    flat = [flat_config(values) for values in given]
    rows = {key: [values.get(key) for values in flat] for key in dict.fromkeys(key for one in flat for key in one)}
    return [{"key": k, "values": values} for k, values in rows.items() if any(v != values[0] for v in values)]


def compare_rows(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """`compare_runs` as rows of CSV, one a run; the budgets are columns, and of more than two runs the groups."""
    best = f"best_{found['accuracy']}"
    own: dict[str, dict[str, Any]] = {}
    for group in found.get("groups", ()):
        for run, seed in zip(group["runs"], group["seeds"], strict=True):
            own[run] = {"group": group["group"], "seed": seed}
    return [
        {
            name: run[name]
            for name in ("run", "front_size", "hypervolume", "best_top1", "best_balanced_top1", "knee")
            if name in run
        }
        | own.get(run["run"], {})
        | {f"{best}_within_{b['max_macs']:.0f}_macs": b[best][i] for b in found["budgets"]}
        for i, run in enumerate(found["runs"])
    ]


def _common_objectives(fronts: Sequence[ParetoFront], left_out: Mapping[str, str]) -> list[Objective]:
    own = [{o.metric.name: o for o in front.objectives} for front in fronts]
    common = []
    for name in own[0]:
        if name in left_out or any(name not in objectives for objectives in own):
            continue
        worst, *others = (objectives[name] for objectives in own)
        for other in others:
            worst = other if worst.metric.is_better(worst.reference, other.reference) else worst
        common.append(worst)
    if not common:
        text = f"the runs share no objective: {' against '.join(', '.join(names) for names in own)}"
        text += "".join(f"; {name} cannot be compared: {reason}" for name, reason in left_out.items())
        raise RunError(text, hint="compare runs with the same search.objectives")
    return common


def _identity(run: RunDirectory) -> dict[str, Any]:
    manifest = run.manifest
    about = {name: getattr(manifest, name) for name in IDENTITY}  # `device` is resolved there
    about["trials"] = manifest.budget and manifest.budget.num_trials
    about["taken_over"] = sum(trial.source is not None for trial in run.trials())  # measured by other runs
    return {**config_of_run(run).model_dump(mode="json"), **about}


def _best_balanced(front: ParetoFront) -> dict[str, float]:
    """`best_balanced_top1` of a front that has measured it."""
    found = [value for p in front.points if (value := p.measurement.balanced_top1) is not None]
    return {"best_balanced_top1": max(found)} if found else {}


def _finite(point: FrontPoint, metric: Metric) -> float | None:
    return None if math.isnan(point.value(metric)) else point.value(metric)
