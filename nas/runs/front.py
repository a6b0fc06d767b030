"""The Pareto front: which architectures are worth looking at, how good they are together, which to take."""

import difflib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.arch import Architecture
from nas.base import (
    BALANCED,
    LATENCIES,
    LATENCY,
    MACS,
    METRICS,
    SCHEMA_VERSION,
    TOP1,
    ConfigError,
    Metric,
    Objective,
    RunError,
    accuracy_of,
    by_target,
    check_schema,
    command_line,
    metric_named,
    problem_words,
    ranked_by,
)
from nas.runs.directory import RunDirectory
from nas.runs.dominance import hypervolume, non_dominated
from nas.runs.manifest import REFERENCE_MARGIN, Clocks, clock_factors, objective_from_dict, objective_to_dict
from nas.runs.point import FrontPoint, points_of
from nas.runs.trial import Trial
from nas.settings import read_text, read_yaml

PICKS: Mapping[str, Metric | None] = {
    "knee": None, "top1": TOP1, "balanced": BALANCED, "fastest": LATENCY, "cheapest": MACS,
}  # fmt: skip
MIN_PREFIX = 6  # digits of a digest that are enough


def read_architecture(path: Path) -> Architecture:
    """One architecture, as JSON or YAML; an InputFileError or ArchitectureError where the file holds none."""
    text = read_text(path)
    try:
        return Architecture.from_dict(json.loads(text))
    except ValueError:
        return Architecture.from_dict(read_yaml(path).data)


@dataclass(frozen=True)
class ParetoFront:
    """Architectures of which none dominates another, measured under the same conditions (law 8).

    Attributes:
        objectives: What they were compared by.
        points: The members; `from_points` puts the cheapest first.
        targets: What holds for the latency of all points (a row of `latency` of `front.json`), by its name, in the
            order of the run's targets; empty until it was measured alone.
        clocks: On which all latencies and the worst corners of latencies stand, where that is known.

    Raises:
        RunError: Two points hold under different conditions.
    """

    objectives: tuple[Objective, ...]
    points: tuple[FrontPoint, ...]
    targets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    clocks: Clocks = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "objectives", tuple(self.objectives))
        object.__setattr__(self, "points", tuple(self.points))
        if self.targets and not self.clocks:
            object.__setattr__(self, "clocks", {name: row["reference_ms"] for name, row in self.targets.items()})
        if not self.objectives:
            raise ConfigError("a front needs at least one objective", hint=f"one of: {', '.join(METRICS)}")
        _require_same_conditions(self.points)

    @classmethod
    def from_points(
        cls, points: Iterable[FrontPoint], objectives: Sequence[Objective], bounds: Mapping[str, float] | None = None
    ) -> "ParetoFront":
        """The front of measured points, in an order that does not depend on theirs.

        Left out: points without a finite value for every objective, and those that do not keep the bounds
        (`Measurement.keeps`). Of several measurements of one architecture the first counts.

        Raises:
            RunError: Two candidates hold under different conditions, also where one would dominate the other.
        """
        candidates: dict[str, FrontPoint] = {}
        for point in points:
            complete = all(math.isfinite(point.value(objective.metric)) for objective in objectives)
            if complete and point.measurement.keeps(bounds or {}):
                candidates.setdefault(point.digest, point)
        found = list(candidates.values())
        _require_same_conditions(found)
        values = [[point.value(objective.metric) for objective in objectives] for point in found]
        mask = non_dominated(values, [objective.metric.direction for objective in objectives])
        members = [point for point, keep in zip(found, mask, strict=True) if keep]
        costs_first = sorted(objectives, key=lambda objective: objective.metric.direction == "maximize")
        members.sort(key=lambda point: (*(_loss(point, o.metric) for o in costs_first), point.digest))
        return cls(tuple(objectives), tuple(members))

    @classmethod
    def from_trials(
        cls, trials: Iterable[Trial], objectives: Sequence[Objective], bounds: Mapping[str, float] | None = None
    ) -> "ParetoFront":
        """The front of the complete trials; see `from_points`. Failed and pruned trials never enter."""
        in_order = sorted(trials, key=lambda trial: trial.number)
        return cls.from_points(points_of(in_order), objectives, bounds)

    @classmethod
    def from_run(cls, path: str | Path) -> "ParetoFront":
        """The final front of a run, or that of its trials so far; a RunError where there is none, or it is damaged."""
        run = RunDirectory.open(path)
        if (final := run.front()) is not None:
            return cls.from_dict(final)
        manifest = run.manifest
        if manifest.search is None:
            text = f"{path}: manifest.json does not say what is optimised: the search has not begun"
            raise RunError(text, hint=f"`{command_line('status', 'RUN')}` shows how far it is")
        front = cls.from_trials(run.trials(), manifest.search.objectives, manifest.constraints)
        return replace(front, clocks=manifest.search.reference_clocks)

    def by_clocks(self, clocks: Clocks) -> "ParetoFront":
        """The same front in milliseconds of other clocks; by clocks of 1 these are the ratios to the reference."""
        factors = clock_factors(self.clocks, clocks)
        objectives = tuple(replace(o, reference=o.reference * factors.get(o.metric.name, 1.0)) for o in self.objectives)
        points = tuple(point.scaled(factors) for point in self.points)
        shared = {name: ms for name, ms in clocks.items() if name in factors}
        return replace(self, objectives=objectives, points=points, clocks={**self.clocks, **shared})

    def ratio(self, point: FrontPoint, metric: Metric) -> float:
        """Latency of a point over that of the reference model; NaN where one of them is not known."""
        return point.value(metric) / self.clocks.get(metric.name, math.nan)

    @property
    def accuracy(self) -> Metric:
        """The accuracy that the points are ranked by; top-1 also where none is an objective."""
        return accuracy_of(objective.metric.name for objective in self.objectives)

    @property
    def ranked_by(self) -> Metric:
        """What is drawn above costs: `accuracy`, or a metric of a Python program where no accuracy is an objective."""
        return ranked_by(objective.metric for objective in self.objectives)

    def metric(self, name: str) -> Metric:
        """The metric called `name`, an objective or one of ours; a ConfigError where there is none."""
        return next((o.metric for o in self.objectives if o.metric.name == name), None) or metric_named(name)

    def hypervolume(self) -> float:
        """Share in [0, 1] of the box between ideal and reference that the front dominates."""
        return hypervolume(self._values(), self.objectives)

    def knee(self) -> FrontPoint:
        """The best trade: objectives scaled to [0, 1] over the front, smallest distance to the ideal corner.

        Euclidean; an objective without spread counts nothing; ties go to the lower digest; no point: a RunError.
        """
        self._require_points("the knee")
        signs = [-1.0 if o.metric.direction == "maximize" else 1.0 for o in self.objectives]
        losses = self._values() * signs
        spread = np.ptp(losses, axis=0)
        scaled = (losses - losses.min(axis=0)) / np.where(spread > 0, spread, 1.0)
        distances = np.linalg.norm(scaled, axis=1)
        ranked = zip(distances.tolist(), self.points, strict=True)
        return min(ranked, key=lambda pair: (pair[0], pair[1].digest))[1]

    def pick(self, text: str) -> FrontPoint:
        """The point a user asks for: knee, top1, balanced, fastest, cheapest, 6+ digits of a digest, a file.

        Equal bests are told apart by the other objectives in their order, then by the digest.

        Raises:
            RunError: Nothing or more than one point answers, or the metric was not measured.
        """
        self._require_points(text)
        if Path(text).is_file():
            text = read_architecture(Path(text)).digest
        wanted = text.strip().lower()
        metric = PICKS.get(wanted)
        if metric is not None:
            others = [objective.metric for objective in self.objectives]
            best = min(self.points, key=lambda p: (*(_loss(p, m) for m in (metric, *others)), p.digest))
            if math.isnan(best.value(metric)):
                raise RunError(f"{wanted}: {metric.label} was not measured in this run", hint="pick knee or a digest")
            return best
        if wanted in PICKS:
            return self.knee()
        names, close = ", ".join(PICKS), difflib.get_close_matches(wanted, PICKS, n=1)
        guess = f'did you mean "{close[0]}"? ' if close else ""
        if len(wanted) < MIN_PREFIX:
            rule = f"{text!r} is neither one of {names} nor a digest of {MIN_PREFIX} digits or more"
            raise RunError(rule, hint=f"{guess}digests are in the table of `{command_line('front', 'RUN')}`")
        found = {point.digest: point for point in self.points if point.digest.startswith(wanted)}
        if not found:
            digests = ", ".join(point.digest for point in self.points[:8]) + ", ..." * (len(self.points) > 8)
            raise RunError(f"no point of the front answers to {text!r}", hint=f"{guess}one of: {names}, {digests}")
        if len(found) > 1:
            raise RunError(f"{text!r} is ambiguous: {', '.join(found)}", hint="give more digits")
        return next(iter(found.values()))

    def within(self, metric_name: str, *, maximum: float | None = None, minimum: float | None = None) -> "ParetoFront":
        """The points inside a bound (inclusive; NaN is a ConfigError); a point without the value is outside."""
        metric = self.metric(metric_name)
        low, high = -math.inf if minimum is None else minimum, math.inf if maximum is None else maximum
        if math.isnan(low) or math.isnan(high):
            raise ConfigError(f"a bound on {metric_name} must be a number, got nan")
        return replace(self, points=tuple(point for point in self.points if low <= point.value(metric) <= high))

    def sorted_by(self, metric_name: str) -> "ParetoFront":
        """The same points, best in a metric first; points without the value last, ties by digest."""
        metric = self.metric(metric_name)
        return replace(self, points=tuple(sorted(self.points, key=lambda p: (_loss(p, metric), p.digest))))

    def to_dict(self, run: str) -> dict[str, Any]:
        """JSON of `front --format json` of the run of that name; results/README.md explains the keys."""
        rows = list(self.targets.values())
        return {
            "schema_version": SCHEMA_VERSION,
            "run": run,
            "objectives": [{**objective_to_dict(o), **self._ratio_of_corner(o)} for o in self.objectives],
            "hypervolume": self.hypervolume(),
            "points": [{**point.to_dict(), **self._ratios(point)} for point in self.points],
            **({"reference_ms": self.clocks[LATENCY.name]} if LATENCY.name in self.clocks else {}),
            **({"latency": rows} if rows else {}),
        }

    def _ratio_of_corner(self, objective: Objective) -> dict[str, float]:
        clock = self.clocks.get(objective.metric.name)
        return {} if clock is None else {"reference_ratio": float(f"{objective.reference / clock:.12g}")}

    def _ratios(self, point: FrontPoint) -> dict[str, float]:
        """As in `front.json`: `latency_ratio` is that on the first target."""
        found = {name: self.ratio(point, metric) for name, metric in LATENCIES.items() if name in self.clocks}
        return {
            name.replace("_ms", "_ratio"): ratio
            for name, ratio in found.items()
            if math.isfinite(ratio) and point.measurement.latency[name].is_searched
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ParetoFront":
        """Inverse of `to_dict`; unknown keys are passed over. A RunError: of a newer version, or damaged."""
        check_schema(values, "front")
        try:
            targets = by_target(values.get("latency", ()))
            clocks = {name: row["reference_ms"] for name, row in targets.items()}
            if not clocks and "reference_ms" in values:
                clocks[LATENCY.name] = float(values["reference_ms"])
            objectives = tuple(_objective(objective, clocks) for objective in values["objectives"])
            words = {name: row["target"] for name, row in targets.items()}
            points = tuple(FrontPoint.from_dict(point, words) for point in values["points"])
        except (KeyError, TypeError, ValueError) as error:
            raise RunError(f"front: a key is missing or malformed: {problem_words(error)}") from error
        return cls(objectives, points, targets, clocks)

    def _values(self) -> NDArray[np.float64]:
        rows = [[point.value(objective.metric) for objective in self.objectives] for point in self.points]
        return np.array(rows, dtype=float).reshape(-1, len(self.objectives))

    def _require_points(self, what: str) -> None:
        if not self.points:
            hint = f"loosen the bounds, or let the search complete a trial (`{command_line('status', 'RUN')}`)"
            raise RunError(f"{what}: the front is empty", hint=hint)


def _objective(values: Mapping[str, Any], clocks: Clocks) -> Objective:
    """An objective of a front; the first versions kept the worst latency by the clock of the search."""
    objective = objective_from_dict(values)
    if (clock := clocks.get(objective.metric.name)) is None:
        return objective
    return replace(objective, reference=clock * values.get("reference_ratio", REFERENCE_MARGIN))


def _loss(point: FrontPoint, metric: Metric) -> float:
    """Value to sort by, best first; infinite where the metric was not measured."""
    value = point.value(metric)
    return math.inf if math.isnan(value) else (-value if metric.direction == "maximize" else value)


def _require_same_conditions(points: Sequence[FrontPoint]) -> None:
    distinct = list(dict.fromkeys(point.measurement.conditions for point in points))
    if len(distinct) < 2:
        return
    rows = [conditions.to_dict() for conditions in distinct]
    found = {name: dict.fromkeys(row[name] for row in rows) for name in rows[0]}
    differing = [f"{name} ({', '.join(map(str, values))})" for name, values in found.items() if len(values) > 1]
    text = f"measurements under different conditions cannot be on one front: {'; '.join(differing)}"
    raise RunError(text, hint="measure them again under the same conditions, or start a new run")
