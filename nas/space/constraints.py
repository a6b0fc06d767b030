"""Hard bounds of a search space: on costs that arithmetic knows, and on latency."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from nas.arch import Architecture, Backbone, cost, memory
from nas.base import LATENCIES

Bound = Literal["max_macs", "max_params", "max_memory"]
FIRST_BOUNDS = ("max_macs", "max_params", "max_latency_ms")
UNITS: dict[Bound, str] = {"max_macs": "MACs", "max_params": "parameters", "max_memory": "bytes"}
USED: dict[Bound, Callable[[Architecture, Backbone], int]] = {
    "max_macs": cost.macs,
    "max_params": cost.params,
    "max_memory": memory.bytes_to_run,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraints:
    """Hard bounds: on MACs, parameters and memory of every architecture, on latency where it is measured."""

    max_macs: float | None = None  # per image
    max_params: float | None = None  # parameters
    max_memory: float | None = None  # bytes to run the model on one image in fp32 (`memory.bytes_to_run`)
    # Milliseconds per batch by the name of the latency, where there is a bound; `latency_ms` is that on the first
    # target of a run.
    max_latency: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def from_keys(cls, values: Mapping[str, float | None]) -> "Constraints":
        """Inverse of `by_key`."""
        latency = {name: bound for name in LATENCIES if (bound := values.get(f"max_{name}")) is not None}
        return cls(**{key: values.get(key) for key in UNITS}, max_latency=latency)

    def by_key(self) -> dict[str, float | None]:
        """All bounds by their keys in a file; None where there is none."""
        latencies = {f"max_{name}": self.max_latency.get(name) for name in LATENCIES}
        return {key: getattr(self, key) for key in UNITS} | latencies

    def to_dict(self) -> dict[str, float | None]:
        """Plain JSON values; later keys are left out where they are not set, so older spaces keep their digests."""
        return {key: bound for key, bound in self.by_key().items() if bound is not None or key in FIRST_BOUNDS}

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
        return sum(max(0.0, USED[key](architecture, backbone) / bound - 1) for key, bound in self.bounds())
