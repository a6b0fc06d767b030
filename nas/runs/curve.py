"""How the hypervolume of a search grew, and a random search beside it."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from nas.base import Objective, RunError, command_line
from nas.runs.directory import RunDirectory
from nas.runs.dominance import hypervolume
from nas.runs.front import ParetoFront
from nas.runs.manifest import SearchIdentity, clock_factors
from nas.runs.trial import Trial
from nas.settings import flat_config

CURVE_POINTS = 200


def hypervolume_curve(
    trials: Sequence[Trial], objectives: Sequence[Objective], bounds: Mapping[str, float] | None = None
) -> list[tuple[int, float]]:
    """(trials paid for, hypervolume of all measured until then), in the order in which trials ended.

    Trials that have not ended count nothing, nor do those that break one of the bounds (`Measurement.keeps`);
    repeats cost nothing.
    """
    rows: list[list[float]] = []
    ends: dict[int, int] = {}
    paid = 0
    for trial in _ended(trials):
        paid += trial.is_paid
        if (found := trial.whole) is not None and found.keeps(bounds or {}):
            values = found.values
            rows.append([values.get(o.metric.name, math.nan) for o in objectives])
        ends[paid] = len(rows)
    curve = list(ends.items())
    step = max(1, math.ceil(len(curve) / CURVE_POINTS))
    chosen = sorted({*range(0, len(curve), step), len(curve) - 1} - {-1})
    return [(curve[i][0], hypervolume(rows[: curve[i][1]], objectives)) for i in chosen]


def random_search(
    run: RunDirectory, trials: Sequence[Trial], search: SearchIdentity, bounds: Mapping[str, float]
) -> tuple[ParetoFront, dict[str, Any]]:
    """The front of a random search up to as many paid trials as `trials`, which it is compared with, has.

    Latencies are by the clock of the search that `trials` are of. Beside the front JSON values: `run`, `num_trials`,
    `hypervolume`, `curve`.

    Raises:
        RunError: It is no random search, or its trials were measured under other conditions, or by another reference.
    """
    sampler = flat_config(run.config()).get("search.sampler")
    if sampler != "random":
        hint = command_line("run", "SPACE", "--init", "RUN", "--epochs", 0, "--sampler", "random")
        raise RunError(f"{run.path}: its sampler is {sampler}, not random", hint=hint)
    budget = sum(trial.is_paid for trial in trials)
    kept, paid = [], 0
    for trial in _ended(run.trials()):
        paid += trial.is_paid
        if paid <= budget:
            kept.append(trial)
    ours, theirs = (next((t.whole.conditions for t in each if t.whole), None) for each in (trials, kept))
    if ours is None or theirs != ours:
        hint = "a random search on the same weights: run SPACE.yaml --init RUN --epochs 0 --sampler random"
        raise RunError(f"{run.path}: its trials were measured under other conditions", hint=hint)
    theirs_by = run.manifest.search
    if theirs_by is None or theirs_by.reference_digest != search.reference_digest:
        hint = "a random search in the same search space"
        raise RunError(f"{run.path}: its latencies are ratios to another reference model", hint=hint)
    factors, objectives = clock_factors(theirs_by.reference_clocks, search.reference_clocks), search.objectives
    kept = [trial.scaled(factors) for trial in kept]
    front = replace(ParetoFront.from_trials(kept, objectives, bounds), clocks=search.reference_clocks)
    values = {"run": run.name, "num_trials": min(paid, budget), "hypervolume": front.hypervolume()}
    return front, {**values, "curve": hypervolume_curve(kept, objectives, bounds)}


def _ended(trials: Iterable[Trial]) -> list[Trial]:
    return sorted((t for t in trials if t.finished is not None), key=lambda trial: trial.finished or 0.0)
