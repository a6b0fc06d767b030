"""A point of a front: an architecture, what was measured of it, and both as JSON values."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nas.arch import Architecture
from nas.runs.trial import Conditions, Measurement
from nas.settings import LATENCIES, LATENCY, MACS, METRICS, PARAMS, TOP1, Metric


@dataclass(frozen=True, slots=True)
class FrontPoint:
    """An architecture and what was measured of it.

    Attributes:
        architecture: The network.
        measurement: Its values and their conditions.
        details: Further facts about the point for reports, JSON values only, such as `layer_latency_share`
            (one share per layer).
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

    def to_dict(self) -> dict[str, Any]:
        """As in `front.json`; latency on the first target is always there, on further ones where it was measured."""
        measurement = self.measurement
        macs = _whole(self.value(MACS))
        intervals = {name: list(pair) for name, pair in measurement.intervals.items()}
        values = {
            "digest": self.digest,
            "top1": _finite(self.value(TOP1)),
            "top1_ci": intervals.get(TOP1.name),
            "macs": macs,
            "flops": None if macs is None else 2 * macs,
            "params": _whole(self.value(PARAMS)),
            "latency_ms": _finite(self.value(LATENCY)),
            "latency_ci_ms": intervals.get(LATENCY.name),
            "seconds": measurement.seconds,
            "split": measurement.conditions.split,
            "conditions": measurement.conditions.to_dict(),
            "architecture": self.architecture.to_dict(),
        }
        for metric in LATENCIES[1:]:
            if metric.name in measurement.values:
                values[metric.name] = _finite(self.value(metric))
                values[f"{metric.name}_ci"] = intervals.get(metric.name)
        return {**values, "details": dict(self.details)} if self.details else values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "FrontPoint":
        """Inverse of `to_dict`. Keys it does not know are passed over.

        Raises:
            KeyError: One is missing.
        """
        further = [metric.name for metric in LATENCIES[1:] if metric.name in values]
        intervals = {TOP1.name: values.get("top1_ci"), LATENCY.name: values["latency_ci_ms"]}
        intervals |= {name: values[f"{name}_ci"] for name in further}
        measurement = Measurement(
            values={name: values[name] for name in (*METRICS, *further) if values[name] is not None},
            intervals={name: (pair[0], pair[1]) for name, pair in intervals.items() if pair is not None},
            conditions=Conditions(**values["conditions"]),
            seconds=values["seconds"],
        )
        return cls(Architecture.from_dict(values["architecture"]), measurement, values.get("details", {}))


def _finite(value: float) -> float | None:
    return None if math.isnan(value) else value


def _whole(value: float) -> int | float | None:
    return None if math.isnan(value) else int(value) if value == int(value) else value


def further_latencies(point: FrontPoint, latency: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Latency on the targets beside the first, by metric: `latency_ms`, `latency_ci_ms`; once final `noisy`, `ties`.

    Args:
        point: Of a front, or a trial's.
        latency: What holds for all points, a row a target: `latency` of `front.json`, whose order is the metrics'.
    """
    measured = point.details.get("latency_targets", {})
    targets = [row["target"] for row in latency[1:]]
    found = {}
    for metric, target in itertools.zip_longest(LATENCIES[1:], targets):
        if target in measured:
            found[metric.name] = dict(measured[target])
        elif not math.isnan(value := point.value(metric)):
            interval = point.measurement.intervals.get(metric.name)
            found[metric.name] = {"latency_ms": value, "latency_ci_ms": interval and list(interval)}
    return found
