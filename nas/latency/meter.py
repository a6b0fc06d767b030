"""Latency of extracted subnets, always as a ratio to a reference model that is timed in turn with them.

On a shared machine raw times drift by tens of percent; the ratio of neighbours in time does not (1 to 4 %
against 18 to 26 %, measured). A ratio becomes milliseconds by the reference's own time: calibrated once before a
search, and over all timings of what is measured while nothing else of ours is running.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nas.base import EvaluationError, plural
from nas.latency.device_measure import TOLERANCE, interval, warm_timer
from nas.latency.runtimes import (
    Program,
    describe,
    device_of,
    machine_state,
    own_cores,
    own_timer,
    prepare,
    torch_threads,
)
from nas.model import Subnet
from nas.runs import Timed, kendall_tau
from nas.settings import Target, is_own

PATIENCE = 3  # times the rounds asked for are spent at most on a model that is not known within 2 %
REFERENCE_EVERY_S = 0.02  # unless a single model takes longer: the speed of a machine changes more slowly
PARTS, SLOW = 20, 0.95  # of the reference's timings; the quantile of the parts' medians that is called slow

EAGER = Target(runtime="torch-cpu")


@dataclass(frozen=True, slots=True)
class Timing:
    """Robust summary of one model's latency, milliseconds per batch.

    Attributes:
        interval_ms: 95 % confidence interval of the median (order statistics); of fewer than 6 samples,
            which hold none, their range.
        passes_ms: Medians of the first and of the second half of the rounds.
    """

    median_ms: float
    interval_ms: tuple[float, float]
    passes_ms: tuple[float, float]
    rounds: int

    @property
    def is_noisy(self) -> bool:
        """Whether the interval is still wider than 2 % of the median on a side: this machine was not quiet."""
        low, high = self.interval_ms
        return max(high - self.median_ms, self.median_ms - low) > TOLERANCE * self.median_ms

    def ties(self, other: "Timing") -> bool:
        """Whether the intervals overlap: which of the two is faster is not known."""
        return self.interval_ms[0] <= other.interval_ms[1] and other.interval_ms[0] <= self.interval_ms[1]


@dataclass(frozen=True, slots=True)
class Clock:
    """How long the reference takes, milliseconds per batch, from all its timings in turn with the models.

    `slow_ms` holds in the machine's slow moments: of 20 parts of the timings, one after the other in time, 95 % have a
    median of at most this. On a quiet machine it is the median.
    """

    median_ms: float
    slow_ms: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> "Clock":
        """From timings in the order in which they were taken."""
        parts = np.array_split(1e3 * np.array(seconds), min(PARTS, len(seconds)))
        slow = float(np.quantile([np.median(part) for part in parts], SLOW))
        median = _positive(1e3 * float(np.median(seconds)))
        return cls(median, max(slow, median))


class LatencyMeter:
    """Times models against a fixed reference, whose drift is divided out, on one target.

    The image shape is (C, S, S); the target's own batch is passed over for `batch_size`.
    """

    def __init__(
        self, reference: nn.Module, image_shape: tuple[int, int, int], batch_size: int, target: Target = EAGER
    ) -> None:
        self.target, self.device, self.reference = target, device_of(target), reference
        self.images: Tensor = torch.randn(batch_size, *image_shape, generator=torch.Generator().manual_seed(0))

    @cached_property
    def _reference(self) -> Callable[..., float]:
        """Times it; kept, because an export or a compilation takes seconds."""
        return self._runner(self.reference)

    def calibrate(self, rounds: int, at_least_s: float = 0.0) -> float:
        """Median time of the reference, milliseconds per batch; of more rounds where these are over too soon."""
        run, started = self._reference, time.perf_counter()
        seconds: list[float] = []
        while len(seconds) < rounds or time.perf_counter() - started < at_least_s:
            seconds.append(run())
        return 1e3 * float(np.median(seconds))

    def ratio(self, model: nn.Module, pairs: int) -> float:
        """Median time of `model` over the reference's, from `pairs` timings in the order ABBA."""
        reference, candidate = self._reference, self._runner(model)
        ratios = []
        for pair in range(pairs):
            first, second = (reference, candidate) if pair % 2 == 0 else (candidate, reference)
            a, b = first(is_next=pair > 0), second()
            ratios.append(b / a if pair % 2 == 0 else a / b)
        return _positive(float(np.median(ratios)))

    def interleaved(
        self,
        models: Sequence[nn.Module],
        rounds: int,
        on_round: Callable[[int], None] = lambda _: None,
        *,
        most_rounds: int | None = None,
    ) -> tuple[list[Timing], Clock]:
        """Time all models in turn, round by round, each between two timings of the reference.

        Small models may share these two, which are `REFERENCE_EVERY_S` apart then.

        Call it when nothing else is running. The interval is that of the median ratio; the reference's own
        time is common to all models and is not part of it.

        All are timed in so many rounds, and in up to `most_rounds` those whose interval is still wide by then.
        """
        reference = self._reference
        runners = [self._runner(model) for model in models]
        ratios: list[list[float]] = [[] for _ in models]
        references: list[float] = []
        for r in range(max(rounds, most_rounds or 0)):
            wide = [m for m in range(len(models)) if r < rounds or _summary(1.0, ratios[m]).is_noisy]
            if not wide:
                break
            references.append(reference())
            since, between = time.perf_counter(), list[tuple[int, float]]()
            # Nobody is always after the same one.
            for turn, i in enumerate(np.random.default_rng([r, 7]).permutation(wide), 1):
                between.append((i, runners[i]()))
                if turn < len(wide) and time.perf_counter() - since < REFERENCE_EVERY_S:
                    continue
                after = reference()
                for model, seconds in between:
                    ratios[model].append(seconds / math.sqrt(references[-1] * after))
                references.append(after)
                since, between = time.perf_counter(), []
            on_round(r + 1)
        clock = Clock.of(references)
        return [_summary(clock.median_ms, found) for found in ratios], clock

    def layer_shares(self, subnet: Subnet, rounds: int) -> list[float]:
        """Share of each layer in the time of all layers, from timing them one after the other; sums to 1.

        A share is that of a layer run alone, eagerly and in fp32, on the tokens and maps that reach it.
        """
        subnet = subnet.to(self.device)
        images = self.images.to(self.device)
        times: NDArray[np.float64] = np.empty((rounds, len(subnet.blocks)))
        with torch.inference_mode():
            first = subnet.embed(images)
            for r in range(rounds):
                x, maps = first, None
                for i, block in enumerate(subnet.blocks):
                    self._synchronise()
                    started = time.perf_counter()
                    x, maps = block(x, maps)
                    self._synchronise()
                    times[r, i] = time.perf_counter() - started
        medians = np.median(times, axis=0)
        return [float(share) for share in medians / medians.sum()]

    def _runner(self, model: nn.Module) -> Callable[..., float]:
        """Make ready, warm up, and return what `warm_timer` does."""
        if self.target.own is not None or is_own(self.target.runtime):
            return warm_timer(own_timer(self.target, model, self.images))
        run = prepare(self.target, model, self.images)

        def forward(times: int) -> float:
            with torch.inference_mode(), torch_threads(self.target.threads):
                return self._seconds(run, times) / times

        return warm_timer(forward)

    def _seconds(self, run: Program, times: int) -> float:
        """How long so many passes take: by the clock, or between two events on a GPU's stream."""
        self._synchronise()
        if self.device.type == "cuda":
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
            begin.record()
            for _ in range(times):
                run()
            end.record()
            end.synchronize()
            return float(begin.elapsed_time(end)) / 1e3
        started = time.perf_counter()
        for _ in range(times):
            run()
        return time.perf_counter() - started

    def _synchronise(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def repeat_tau(timings: Sequence[Timing]) -> float | None:
    """Of the order in the first and in the second half of the rounds (`rank_tau`): 1 where the order repeats."""
    return rank_tau([timing.passes_ms[0] for timing in timings], [timing.passes_ms[1] for timing in timings])


def rank_tau(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Kendall's rank correlation of two rows of values; None of fewer than two, or where one is constant."""
    (tau,) = kendall_tau(np.array(first), np.array(second), np.ones((1, len(first))))
    return None if math.isnan(tau) else float(tau)


def _summary(reference_ms: float, ratios: Sequence[float]) -> Timing:
    samples: NDArray[np.float64] = reference_ms * np.array(ratios)
    median = _positive(float(np.median(samples)))
    half = max(1, len(samples) // 2)
    passes = float(np.median(samples[:half])), float(np.median(samples[-half:]))
    return Timing(median, interval(samples.tolist()), passes, len(samples))


def _positive(value: float) -> float:
    if not (np.isfinite(value) and value > 0):
        raise EvaluationError(f"latency is {value}")
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Readings:
    """Models timed in turn on one target, a timing each in their order, and the reference model with them (`clock`).

    Attributes:
        cores: This process was pinned to; empty: to none.
        machine: Load and clock before and after: `nas.latency.runtimes.machine_state`.
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

    def summary(self) -> str:
        """In words: how many are known, whether the order repeats, and the load where there are fewer cores."""
        before = self.machine["before"]
        load, cores = before["load_average"][0], before["cores"]
        busy = f"; load average {load:.1f} on {plural(cores, 'core')}" if cores and load > cores else ""
        count, noisy = len(self.timings), sum(timing.is_noisy for timing in self.timings)
        known = f"{count - noisy} of {plural(count, 'latency', 'latencies')} known within 2 %"
        return (known if self.tau is None else f"{known}, order repeats with tau {self.tau:.2f}") + busy

    def to_dict(self) -> dict[str, Any]:
        """What holds for all models, JSON values."""
        return {
            "target": str(self.target),
            "runtime": describe(self.target),
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

    def timed(self, digests: Sequence[str]) -> list[Timed]:
        """What holds for each model, in their order, whose digests these are."""
        named = list(zip(digests, self.timings, strict=True))
        return [
            Timed(
                ms=timing.median_ms,
                interval=timing.interval_ms,
                noisy=timing.is_noisy,
                ties=tuple(digest for digest, other in named if other is not timing and timing.ties(other)),
                rounds=timing.rounds,
                target=str(self.target),
            )
            for timing in self.timings
        ]


def measure_alone(
    meter: LatencyMeter,
    models: Sequence[nn.Module],
    rounds: int,
    on_round: Callable[[int, int], None] = lambda _, __: None,
) -> Readings:
    """Time all models in turn with the reference, on cores of their own.

    All are timed in so many rounds, and in up to three times as many those that are not known within 2 % by then.
    `on_round` is told how many are done, of how many there may be.

    Raises:
        ConfigError: The target is not there.
        EvaluationError: A model cannot be made ready for it.
    """
    most = PATIENCE * rounds
    with own_cores(meter.target) as cores:
        before = machine_state()
        timings, clock = meter.interleaved(
            models, rounds, lambda done: on_round(done, rounds if done <= rounds else most), most_rounds=most
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
