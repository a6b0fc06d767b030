"""The latency of some models on a target while nothing else of ours runs, and how far it can be believed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from nas.evaluation.latency import Clock, LatencyMeter, Timing, repeat_tau
from nas.evaluation.targets import described, machine_state, own_cores
from nas.target import Target

PATIENCE = 3  # times the rounds asked for are spent at most on a model that is not known within 2 %


@dataclass(frozen=True, slots=True, kw_only=True)
class Readings:
    """Models timed in turn on one target.

    Attributes:
        target: Where and how.
        batch: Images per forward pass.
        clock: How long the reference model took.
        timings: One a model, in their order.
        cores: This process was pinned to; empty: to none.
        machine: Load and clock before and after: `nas.evaluation.targets.machine_state`.
    """

    target: Target
    batch: int
    clock: Clock
    timings: tuple[Timing, ...]
    cores: tuple[int, ...]
    machine: Mapping[str, Any]

    @property
    def tau(self) -> float | None:
        """How well the order repeats; see `repeat_tau`."""
        return repeat_tau(self.timings)

    def ties(self, index: int) -> list[int]:
        """The other models of which it is not known whether they are faster: the intervals overlap."""
        mine = self.timings[index]
        return [i for i, other in enumerate(self.timings) if i != index and mine.ties(other)]

    def summary(self) -> str:
        """In words: how many are known, whether the order repeats."""
        count, noisy = len(self.timings), sum(timing.is_noisy for timing in self.timings)
        known = f"{count - noisy} of {count} known within 2 %"
        return known if self.tau is None else f"{known}, order repeats with tau {self.tau:.2f}"

    def to_dict(self) -> dict[str, Any]:
        """What holds for all models, JSON values."""
        return {
            "target": str(self.target),
            "runtime": described(self.target),
            "batch": self.batch,
            "threads": self.target.threads,
            "precision": self.target.precision,
            "torch": torch.__version__,
            "reference_ms": self.clock.median_ms,
            "reference_slow_ms": self.clock.slow_ms,
            "repeat_tau": self.tau,
            "cores": list(self.cores),
            "machine": dict(self.machine),
        }

    def points(self, digests: Sequence[str]) -> list[dict[str, Any]]:
        """What holds for each model, JSON values."""
        return [
            {
                "digest": digests[i],
                "latency_ms": timing.median_ms,
                "latency_ci_ms": list(timing.interval_ms),
                "rounds": timing.rounds,
                "noisy": timing.is_noisy,
                "ties": [digests[other] for other in self.ties(i)],
            }
            for i, timing in enumerate(self.timings)
        ]


def measure_alone(
    meter: LatencyMeter,
    models: Sequence[nn.Module],
    rounds: int,
    on_round: Callable[[int, int], None] = lambda _, __: None,
) -> Readings:
    """Time all models in turn with the reference, on cores of their own.

    Args:
        meter: Of the target.
        models: Extracted subnets.
        rounds: In which all are timed; up to three times as many for those not known within 2 %.
        on_round: Told how many rounds are done, of how many there may be.

    Raises:
        ConfigError: The target is not there.
        EvaluationError: A model cannot be made ready for it.
    """
    with own_cores(meter.target) as cores:
        before = machine_state()
        most = PATIENCE * rounds
        timings, clock = meter.interleaved(
            models,
            rounds,
            lambda done: on_round(done, rounds if done <= rounds else most),
            most_rounds=most,
        )
        after = machine_state()
    return Readings(
        target=meter.target,
        batch=len(meter.images),
        clock=clock,
        timings=tuple(timings),
        cores=cores,
        machine={"before": before, "after": after},
    )
