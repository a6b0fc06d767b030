"""What can be measured, in which unit, and which way is better."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeVar

from nas.base.errors import ConfigError

Direction = Literal["maximize", "minimize"]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Metric:
    """A quantity of an architecture. The name is the key in JSON, CSV and on the command line."""

    name: str
    unit: str
    direction: Direction
    label: str
    best: float | None = None  # the best value there can be; None: 100 where more is better, else 0

    def is_better(self, a: float, b: float) -> bool:
        """Whether value `a` is strictly better than `b`."""
        return a > b if self.direction == "maximize" else a < b


TOP1 = Metric("top1", "%", "maximize", "top-1")
BALANCED = Metric("balanced_top1", "%", "maximize", "balanced top-1")
"""Mean over the classes of the share of right answers: every class counts alike. Measured where it is an objective."""

AGREEMENT = Metric("agreement", "%", "maximize", "agreement")
"""How alike the features of a subnet and the whole network are, without labels. Measured where it is an objective."""

MACS = Metric("macs", "MACs/image", "minimize", "MACs")
PARAMS = Metric("params", "parameters", "minimize", "parameters")
LATENCY = Metric("latency_ms", "ms/batch", "minimize", "latency")

METRICS = {metric.name: metric for metric in (TOP1, MACS, PARAMS, LATENCY)}

LATENCIES = {LATENCY.name: LATENCY} | {
    f"latency_ms_{n}": Metric(f"latency_ms_{n}", "ms/batch", "minimize", f"latency on target {n}") for n in (2, 3, 4)
}
"""By name; on the targets of a run, in their order (`evaluate.targets`). Where none is named there is the first."""


AT_LEAST = ">="
"""Behind the name of a metric in bounds: its value is not above but below what is allowed."""


@dataclass(frozen=True, slots=True)
class Objective:
    """A metric that the search optimises; `reference` is the worst corner for the hypervolume, in its unit."""

    metric: Metric
    reference: float

    @property
    def ideal(self) -> float:
        """The best value there can be: 100 % for top-1, 0 for costs."""
        if self.metric.best is not None:
            return self.metric.best
        return 100.0 if self.metric.direction == "maximize" else 0.0


def by_target(values: Iterable[T]) -> dict[str, T]:
    """What there is of each target of a run (in their order) by the name of the latency on it."""
    return dict(zip(LATENCIES, values, strict=False))


def accuracy_of(names: Iterable[str]) -> Metric:
    """The accuracy that what is named first, among objectives, is ranked by; top-1 where there is none."""
    return next((metric for name in names for metric in (TOP1, BALANCED) if metric.name == name), TOP1)


def ranked_by(metrics: Iterable[Metric]) -> Metric:
    """What is drawn above costs: the accuracy among objectives, else the first metric of one's own, best where more is.

    Without either it is top-1.
    """
    known = {metric.name: metric for metric in metrics}
    if by := [metric for metric in (TOP1, BALANCED) if metric.name in known]:
        return accuracy_of(known) if len(by) > 1 else by[0]
    own = sorted((m for m in known.values() if is_own_metric(m)), key=lambda metric: metric.direction == "minimize")
    return own[0] if own else TOP1


def metric_named(name: str) -> Metric:
    """The metric called `name`; a ConfigError where there is none."""
    known = {TOP1.name: TOP1, BALANCED.name: BALANCED} | METRICS | LATENCIES
    if name not in known:
        raise ConfigError(f"unknown metric {name!r}", hint=f"one of: {', '.join(known)}")
    return known[name]


def is_own_metric(metric: Metric) -> bool:
    """Whether it is kept as the metrics of a Python program are."""
    return metric.name not in {BALANCED.name, *METRICS, *LATENCIES}
