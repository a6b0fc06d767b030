"""What was measured, under which conditions, and how it ended."""

import base64
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from numbers import Real
from typing import Any

from nas.arch import Architecture
from nas.base import AT_LEAST, BALANCED, LATENCIES, LATENCY, MACS, PARAMS, TOP1, RunError


class TrialState(StrEnum):
    """How a trial stands."""

    RUNNING = "running"
    COMPLETE = "complete"
    FAILED = "failed"
    REPEATED = "repeated"
    """Measured before, in this run or in another on the same supernet and images; nothing was paid."""
    PRUNED = "pruned"
    """Surely dominated on some of the images, so it was not shown the others; never on a front."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """Under which circumstances values hold. Two measurements with different conditions never meet on one front.

    Attributes:
        device: Name of the processor, such as `cpu: Intel(R) Xeon(R)`.
        precision: Arithmetic of the accuracy evaluation, `fp32` or `bf16`.
        split: Images the accuracy was measured on; `search` during a search.
        num_images: How many of them.
        target: Where and how latency was measured, such as `torch-cpu`.
        latency_stage: `search` (beside other work, ratio to a reference model) or `exclusive` (nothing else running).
        supernet: Digest of the weights, and after a comma what was made of them (`nas.jobs.last_choice.finalists`).
    """

    device: str
    precision: str
    split: str
    num_images: int
    target: str
    latency_batch_size: int
    latency_threads: int
    latency_stage: str
    supernet: str
    torch: str

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {name: getattr(self, name) for name in self.__slots__}

    @property
    def weights_digest(self) -> str:
        """Digest of the supernet's weights, without what was made of them since."""
        return self.supernet.partition(",")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """Latency of one architecture on one target. A search knows `ms` alone, the final front everything.

    Attributes:
        ms: Milliseconds per batch.
        interval: 95 % confidence interval (low, high) of that; None where there is none.
        noisy: Whether it is not known within 2 %; None where it was not measured alone on the machine.
        ties: Digests of those measured with it of which it is not known whether they are faster.
        rounds: In which it was timed; None where that was not kept.
        target: Where it was measured alone, such as `onnxruntime-cpu:batch=1`; empty where the conditions say it.
        is_searched: Whether the search was after it; other targets are measured of the front alone.
    """

    ms: float
    interval: tuple[float, float] | None = None
    noisy: bool | None = None
    ties: tuple[str, ...] = ()
    rounds: int | None = None
    target: str = ""
    is_searched: bool = True

    def scaled(self, factor: float) -> "Timed":
        """The same ratio to the reference in milliseconds of another clock."""
        interval = self.interval and (self.interval[0] * factor, self.interval[1] * factor)
        return replace(self, ms=self.ms * factor, interval=interval)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What is known of one architecture; what was not measured is None.

    Attributes:
        top1: Percent.
        top1_interval: 95 % confidence interval (low, high) of that.
        balanced_top1: Percent, the mean over classes; `balanced_top1_interval` likewise.
        macs: Per image.
        own: What a Python program measured, by the name of its metric.
        latency: On each target where it was measured, in their order, by the name of the metric.
        conditions: Under which all of it holds.
        seconds: Wall time the measurement took.
        correct: Which images were classified right, a bit each (`numpy.packbits`), by number; empty where that
            was not kept.
        beaten_by: Number of the trial that surely dominates this architecture. There is no top-1 then, only an
            interval of what it would be on the split; `conditions.num_images` counts the images it was shown,
            and `correct` is in the order in which it was (`nas.evaluation.racing`).
    """

    top1: float | None = None
    top1_interval: tuple[float, float] | None = None
    balanced_top1: float | None = None
    balanced_top1_interval: tuple[float, float] | None = None
    macs: float | None = None
    params: float | None = None
    own: Mapping[str, float] = field(default_factory=dict)
    latency: Mapping[str, Timed] = field(default_factory=dict)
    conditions: Conditions
    seconds: float
    correct: bytes = b""
    beaten_by: int | None = None

    def __post_init__(self) -> None:
        pairs = {f"interval of {name}": pair for name, pair in self.intervals.items()}
        for name, found in {**self.values, **pairs, "seconds": self.seconds}.items():
            if not all(isinstance(value, Real) for value in (found if isinstance(found, tuple) else (found,))):
                raise TypeError(f"{name}: {found!r} is no number")

    @property
    def values(self) -> dict[str, float]:
        """All that was measured by the name of the metric, in its unit."""
        found = {name: getattr(self, name) for name in (TOP1.name, BALANCED.name, MACS.name, PARAMS.name)}
        found |= {name: timed.ms for name, timed in self.latency.items()} | dict(self.own)
        return {name: value for name, value in found.items() if value is not None}

    @property
    def intervals(self) -> dict[str, tuple[float, float]]:
        """95 % confidence interval (low, high) by the name of the metric, where there is one."""
        found = {TOP1.name: self.top1_interval, BALANCED.name: self.balanced_top1_interval}
        found |= {name: timed.interval for name, timed in self.latency.items()}
        return {name: interval for name, interval in found.items() if interval is not None}

    def highest(self, name: str) -> float:
        """The most that the value of a metric may be: the upper end of its interval, else itself; NaN: unknown."""
        value, interval = self.values.get(name, math.nan), self.intervals.get(name)
        return value if interval is None else max(value, interval[1])

    def keeps(self, bounds: Mapping[str, float]) -> bool:
        """Whether it keeps bounds (highest value by metric name): the one rule for search, curve and final front.

        `NAME>=` is a bound from below, on a metric of which more is better.

        A bound is kept by what was measured and is not above it, with the upper end of its interval where there is
        one: the front promises it. What was not measured, or is no number, promises nothing and keeps no bound.
        """
        return all(self.excess(name, bound) <= 0 for name, bound in bounds.items())

    def excess(self, name: str, bound: float) -> float:
        """By how much a bound is broken, in the metric's unit; NaN: it is not known."""
        if name.endswith(AT_LEAST):
            return bound - self.values.get(name.removesuffix(AT_LEAST), math.nan)
        return self.highest(name) - bound

    def scaled(self, factors: Mapping[str, float]) -> "Measurement":
        """The same with milliseconds of another clock: each latency times the factor by its name, if there is one."""
        latency = {name: timed.scaled(factors.get(name, 1.0)) for name, timed in self.latency.items()}
        return replace(self, latency=latency)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "values": self.values,
            "intervals": {name: list(pair) for name, pair in self.intervals.items()},
            "conditions": self.conditions.to_dict(),
            "seconds": self.seconds,
            "correct": base64.b64encode(self.correct).decode(),
            "beaten_by": self.beaten_by,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Measurement":
        """Inverse of `to_dict`."""
        found = values["values"]
        intervals = {name: (pair[0], pair[1]) for name, pair in values["intervals"].items()}
        latency = {name: Timed(ms=found[name], interval=intervals.get(name)) for name in LATENCIES if name in found}
        ours = {TOP1.name, BALANCED.name, MACS.name, PARAMS.name, *LATENCIES}
        return cls(
            own={name: value for name, value in found.items() if name not in ours},
            **{name: found.get(name) for name in ("top1", "balanced_top1", "macs", "params")},
            top1_interval=intervals.get(TOP1.name),
            balanced_top1_interval=intervals.get(BALANCED.name),
            latency=latency,
            conditions=Conditions(**values["conditions"]),
            seconds=values["seconds"],
            correct=base64.b64decode(values.get("correct", "")),
            beaten_by=values.get("beaten_by"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One architecture that was proposed, and what became of it.

    Attributes:
        number: Order of proposal, from 0; Optuna's trial number.
        measurement: Present for COMPLETE and PRUNED, and for REPEATED that of the earlier trial.
        error: Why it failed; present for FAILED.
        repeat_of: Number of the trial with the same architecture; present for REPEATED within a run.
        source: Run and trial that it was taken from, such as `results/digits-1#17`; present for REPEATED from
            another run.
        started: Unix time of the proposal, seconds; `finished`: that of the end.
    """

    number: int
    state: TrialState
    architecture: Architecture
    measurement: Measurement | None = None
    error: str | None = None
    repeat_of: int | None = None
    source: str | None = None
    started: float
    finished: float | None = None

    @property
    def is_running(self) -> bool:
        """Whether it was submitted and has not ended: it is in flight, or lost with a process that was killed."""
        return self.state is TrialState.RUNNING

    @property
    def is_paid(self) -> bool:
        """Whether it ended and counts against a budget of trials; repeats are free."""
        return self.state in (TrialState.COMPLETE, TrialState.FAILED, TrialState.PRUNED)

    @property
    def whole(self) -> Measurement | None:
        """What was measured on all images, now or earlier; None where that is not so: it may be on no front then."""
        ended = self.state in (TrialState.COMPLETE, TrialState.REPEATED)
        return self.measurement if ended and self.measurement and self.measurement.beaten_by is None else None

    def scaled(self, factors: Mapping[str, float]) -> "Trial":
        """The same with milliseconds of another clock (`Measurement.scaled`)."""
        return replace(self, measurement=self.measurement and self.measurement.scaled(factors))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values: one line of `trials.jsonl`."""
        return {
            **{name: getattr(self, name) for name in self.__slots__},
            "state": self.state.value,
            "digest": self.architecture.digest,
            "architecture": self.architecture.to_dict(),
            "measurement": self.measurement and self.measurement.to_dict(),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Trial":
        """Inverse of `to_dict`; raises a RunError where a field is missing or malformed."""
        try:
            known = {"source": None, **values}  # which the first runs do not have
            found = {name: known[name] for name in cls.__slots__}
            found["state"] = TrialState(found["state"])
            found["architecture"] = Architecture.from_dict(found["architecture"])
            found["measurement"] = found["measurement"] and Measurement.from_dict(found["measurement"])
            return cls(**found)
        except (KeyError, TypeError, ValueError) as error:
            raise RunError(f"trial record is malformed: {error!r}") from error


TRIAL_COLUMNS = (
    "number", "state", "digest", "top1", "top1_ci_low", "top1_ci_high", "macs", "flops", "params", "latency_ms",
    "latency_ci_low_ms", "latency_ci_high_ms", "error", "beaten_by", "repeat_of", "source", "seconds",
    "started", "finished",
    *(f"conditions.{name}" for name in Conditions.__slots__), "architecture",
)  # fmt: skip


def whole(value: float) -> float | int:
    """A number as an integer where it is one."""
    return int(value) if float(value).is_integer() else value


def trial_row(trial: Trial) -> dict[str, Any]:
    """A trial as a flat row of `trials.csv`, without what is not known; results/README.md explains the columns.

    It has latency on a target beside the first, and balanced accuracy, only where the search needed it: columns behind
    all others.
    """
    kept = ("number", "error", "repeat_of", "source", "started", "finished")
    row = {name: getattr(trial, name) for name in kept}
    row |= {"state": trial.state.value, "digest": trial.architecture.digest}
    row["architecture"] = trial.architecture.to_json()
    found = trial.measurement
    if found is None:
        return row
    row |= {**found.values, "seconds": found.seconds, "beaten_by": found.beaten_by}
    for name in {MACS.name, PARAMS.name} & row.keys():
        row[name] = whole(row[name])
    if MACS.name in row:
        row["flops"] = 2 * row[MACS.name]
    for metric, column in ((TOP1, "top1_ci_{}"), (LATENCY, "latency_ci_{}_ms"), (BALANCED, "balanced_top1_ci_{}")):
        if metric.name in found.intervals:
            low, high = found.intervals[metric.name]
            row |= {column.format("low"): low, column.format("high"): high}
    return row | {f"conditions.{name}": value for name, value in found.conditions.to_dict().items()}
