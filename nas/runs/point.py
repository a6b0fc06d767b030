"""A point of a front: an architecture, what was measured of it, and both as JSON values."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from nas.arch import Architecture
from nas.base import BALANCED, LATENCIES, LATENCY, MACS, PARAMS, TOP1, Metric
from nas.runs.trial import Conditions, Measurement, Timed, Trial, whole

FINALIST = "finalist"
"""Among a point's details: what there is of its training alone, where the run's front is one of finalists."""
FOUND_BY = "found_by"
"""Among a point's details: by how many searches it was found, or a network as good, where a run was searched again."""


@dataclass(frozen=True, slots=True)
class FrontPoint:
    """An architecture and what was measured of it.

    `details` are further facts for reports, JSON values only, such as `layer_latency_share` (one a layer).
    """

    architecture: Architecture
    measurement: Measurement
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """Identity of the architecture."""
        return self.architecture.digest

    def value(self, metric: Metric) -> float:
        """Value in the metric's unit; NaN where it was not measured or is not finite."""
        value = self.measurement.values.get(metric.name, math.nan)
        return value if math.isfinite(value) else math.nan

    @property
    def accuracy(self) -> float:
        """Balanced accuracy where the search was after it, else top-1, percent; NaN where it was not measured."""
        return self.value(TOP1 if self.measurement.balanced_top1 is None else BALANCED)

    def scaled(self, factors: Mapping[str, float]) -> "FrontPoint":
        """The same with milliseconds of another clock (`Measurement.scaled`)."""
        return replace(self, measurement=self.measurement.scaled(factors))

    def to_dict(self) -> dict[str, Any]:
        """As in `front.json`, which results/README.md explains; null is what was not measured or is not finite.

        Latency on the first target is always among the values, that on others where the search was after it; how
        all of it was measured alone is in the details.
        """
        measurement = self.measurement
        macs = _whole(self.value(MACS))
        values = {
            "digest": self.digest,
            "top1": _finite(self.value(TOP1)),
            "top1_ci": _listed(measurement.top1_interval),
            "macs": macs,
            "flops": None if macs is None else 2 * macs,
            "params": _whole(self.value(PARAMS)),
            "latency_ms": _finite(self.value(LATENCY)),
            "latency_ci_ms": _listed(measurement.intervals.get(LATENCY.name)),
            "seconds": measurement.seconds,
            "split": measurement.conditions.split,
            "conditions": measurement.conditions.to_dict(),
            "architecture": self.architecture.to_dict(),
        }
        if measurement.balanced_top1 is not None:
            interval = _listed(measurement.balanced_top1_interval)
            values |= {BALANCED.name: measurement.balanced_top1, interval_key(BALANCED.name): interval}
        if measurement.own:
            values["own"] = dict(measurement.own)
        for name, timed in measurement.latency.items():
            if timed.is_searched and name != LATENCY.name:
                values |= {name: _finite(timed.ms), interval_key(name): _listed(timed.interval)}
        details = {**self.details, **_details(measurement.latency)}
        return {**values, "details": dict(sorted(details.items()))} if details else values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], targets: Mapping[str, str] | None = None) -> "FrontPoint":
        """Inverse of `to_dict`; unknown keys are passed over.

        `targets` says where each latency of the front was measured, by its name.
        """
        details = dict(values.get("details", {}))
        doubts, alone = details.pop("latency", {}), details.pop("latency_targets", {})
        latency = {}
        for name in LATENCIES:
            target = (targets or {}).get(name, "")
            found = doubts if name == LATENCY.name else alone.get(target, {})
            if (ms := values.get(name, found.get("latency_ms"))) is not None:
                latency[name] = Timed(
                    ms=ms,
                    interval=_pair(values.get(interval_key(name), found.get("latency_ci_ms"))),
                    noisy=found.get("noisy"),
                    ties=tuple(found.get("ties", ())),
                    rounds=found.get("rounds"),
                    target=target if found else "",
                    is_searched=name in values,
                )
        measurement = Measurement(
            **{metric.name: values[metric.name] for metric in (TOP1, MACS, PARAMS)},
            top1_interval=_pair(values.get(interval_key(TOP1.name))),
            balanced_top1=values.get(BALANCED.name),
            balanced_top1_interval=_pair(values.get(interval_key(BALANCED.name))),
            own=values.get("own", {}),
            latency=latency,
            conditions=Conditions(**values["conditions"]),
            seconds=values["seconds"],
        )
        return cls(Architecture.from_dict(values["architecture"]), measurement, details)


def points_of(trials: Iterable[Trial]) -> list[FrontPoint]:
    """What may be on a front: the trials that were measured on all images, in their order."""
    return [FrontPoint(trial.architecture, trial.whole) for trial in trials if trial.whole is not None]


def interval_key(name: str) -> str:
    """Key under which rows of a front have the interval of a metric."""
    return "latency_ci_ms" if name == LATENCY.name else f"{name}_ci"


def _details(latency: Mapping[str, Timed]) -> dict[str, Any]:
    """How the latencies were measured alone: of the first in how many rounds, of all how far they are known."""
    alone = {name: timed for name, timed in latency.items() if timed.noisy is not None}
    first = alone.pop(LATENCY.name, None)
    others = {
        timed.target: {
            "latency_ci_ms": _listed(timed.interval),
            "latency_ms": timed.ms,
            "noisy": timed.noisy,
            "ties": list(timed.ties),
        }
        for timed in sorted(alone.values(), key=lambda timed: timed.target)
    }
    doubts = first and {"noisy": first.noisy, "rounds": first.rounds, "ties": list(first.ties)}
    return ({"latency": doubts} if doubts else {}) | ({"latency_targets": others} if others else {})


def _listed(interval: tuple[float, float] | None) -> list[float] | None:
    return None if interval is None else list(interval)


def _pair(interval: list[float] | None) -> tuple[float, float] | None:
    return None if interval is None else (interval[0], interval[1])


def _finite(value: float) -> float | None:
    return None if math.isnan(value) else value


def _whole(value: float) -> float | int | None:
    return None if math.isnan(value) else whole(value)
