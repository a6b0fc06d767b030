"""Hard bounds of a search space: on costs that arithmetic knows, and on latency."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from nas.arch import Architecture, Backbone, cost, memory
from nas.settings import LATENCIES

Bound = Literal["max_macs", "max_params", "max_memory"]
FIRST_BOUNDS = ("max_macs", "max_params", "max_latency_ms")
UNITS: dict[Bound, str] = {"max_macs": "MACs", "max_params": "parameters", "max_memory": "bytes"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraints:
    """Hard bounds: on MACs, parameters and memory of every architecture, on latency where it is measured.

    Attributes:
        max_macs: Per image.
        max_params: Parameters.
        max_memory: Bytes to run the model on one image in fp32 (`memory.bytes_to_run`).
        max_latency_ms: Per batch, on the first target of a run; `max_latency_ms_2` is on the second.
    """

    max_macs: float | None = None
    max_params: float | None = None
    max_memory: float | None = None
    max_latency_ms: float | None = None
    max_latency_ms_2: float | None = None
    max_latency_ms_3: float | None = None
    max_latency_ms_4: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; later keys are left out where they are not set, so older spaces keep their digests."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {key: value for key, value in values.items() if value is not None or key in FIRST_BOUNDS}

    def latency_bounds(self) -> dict[str, float]:
        """Highest latency by the name of the metric, where there is a bound."""
        bounds = {metric.name: getattr(self, f"max_{metric.name}") for metric in LATENCIES}
        return {name: bound for name, bound in bounds.items() if bound is not None}

    def keeps_latency(self, values: Mapping[str, float]) -> bool:
        """Whether measured values are within the bounds on latency; what was not measured is."""
        return all(values.get(name, 0.0) <= bound for name, bound in self.latency_bounds().items())

    def bounds(self) -> Iterator[tuple[Bound, float]]:
        """The bounds that arithmetic can check."""
        for key in UNITS:
            if (bound := getattr(self, key)) is not None:
                yield key, bound

    def text(self) -> str:
        """These bounds in words."""
        return " and ".join(f"at most {bound:,.0f} {UNITS[key]}" for key, bound in self.bounds())

    def excess(self, architecture: Architecture, backbone: Backbone) -> float:
        """By what share the bounds are exceeded, together; 0 within them."""
        return sum(max(0.0, used(key, architecture, backbone) / bound - 1) for key, bound in self.bounds())


def used(key: Bound, architecture: Architecture, backbone: Backbone) -> int:
    """What an architecture has of what a bound is about."""
    match key:
        case "max_macs":
            return cost.macs(architecture, backbone)
        case "max_params":
            return cost.params(architecture, backbone)
        case "max_memory":
            return memory.bytes_to_run(architecture, backbone)
