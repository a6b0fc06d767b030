"""Latency of extracted subnets, always as a ratio to a reference model that is timed in turn with them.

On a shared machine raw times drift by tens of percent; the ratio of neighbours in time does not (1 to 4 %
against 18 to 26 %, measured). A ratio becomes milliseconds by the reference's own time, calibrated once per
run while nothing else of ours is running.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import quantile_test  # type: ignore[import-untyped]
from torch import Tensor, nn

from nas.errors import EvaluationError
from nas.model.subnet import Subnet

WARM_UP = 3
SHORTEST_S = 0.005  # a timing shorter than this is repeated within one sample


@dataclass(frozen=True, slots=True)
class Timing:
    """Robust summary of one model's latency.

    Attributes:
        median_ms: Milliseconds per batch.
        interval_ms: 95 % confidence interval of the median (order statistics); of fewer than 6 samples,
            which hold none, their range.
    """

    median_ms: float
    interval_ms: tuple[float, float]


class LatencyMeter:
    """Times models against a fixed reference on one device.

    Args:
        reference: The model whose drift is divided out.
        image_shape: (C, S, S) of one image.
        batch_size: Images per forward pass.
        device: Where the models are.
    """

    def __init__(
        self, reference: nn.Module, image_shape: tuple[int, int, int], batch_size: int, device: torch.device
    ) -> None:
        self.reference, self.device = reference, device
        generator = torch.Generator().manual_seed(0)
        self.images: Tensor = torch.randn(batch_size, *image_shape, generator=generator).to(device)

    def calibrate(self, rounds: int) -> float:
        """Median time of the reference, milliseconds per batch."""
        run = self._runner(self.reference)
        return 1e3 * float(np.median([run() for _ in range(rounds)]))

    def ratio(self, model: nn.Module, pairs: int) -> float:
        """Median time of `model` over the reference's, from `pairs` timings in the order ABBA."""
        reference, candidate = self._runner(self.reference), self._runner(model)
        ratios = []
        for pair in range(pairs):
            first, second = (reference, candidate) if pair % 2 == 0 else (candidate, reference)
            a, b = first(), second()
            ratios.append(b / a if pair % 2 == 0 else a / b)
        return _positive(float(np.median(ratios)))

    def interleaved(
        self,
        models: Sequence[nn.Module],
        rounds: int,
        reference_ms: float,
        on_round: Callable[[int], None] = lambda _: None,
    ) -> list[Timing]:
        """Time all models in turn, round by round, each between two timings of the reference.

        Call it when nothing else is running. The interval is that of the median ratio; the reference's own
        calibration is common to all models and is not part of it.
        """
        reference = self._runner(self.reference)
        runners = [self._runner(model) for model in models]
        ratios: NDArray[np.float64] = np.empty((rounds, len(models)))
        for r in range(rounds):
            before = reference()
            order = np.random.default_rng([r, 7]).permutation(
                len(models)
            )  # nobody is always after the same one
            for m in order:
                seconds, after = runners[m](), reference()
                ratios[r, m] = seconds / np.sqrt(before * after)
                before = after
            on_round(r + 1)
        return [_summary(reference_ms * ratios[:, m]) for m in range(len(models))]

    def layer_shares(self, subnet: Subnet, rounds: int) -> list[float]:
        """Share of each layer in the time of all layers, from timing them one after the other; sums to 1.

        A share is that of a layer run alone on the tokens and maps that reach it.
        """
        times: NDArray[np.float64] = np.empty((rounds, len(subnet.blocks)))
        with torch.inference_mode():
            first = subnet.patch_embed(self.images)
            if subnet.cls_token is not None:
                first = torch.cat([subnet.cls_token.expand(len(first), -1, -1), first], dim=1)
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

    def _runner(self, model: nn.Module) -> Callable[[], float]:
        """Warm up, and return a function that times one forward pass, seconds.

        Every timing comes right after an untimed pass of the same model: straight after another, larger model
        a small one was measured up to 1.6 times slower than in steady use (results/LOG.md).
        """

        def forward(times: int) -> float:
            with torch.inference_mode():
                self._synchronise()
                started = time.perf_counter()
                for _ in range(times):
                    model(self.images)
                self._synchronise()
                return (time.perf_counter() - started) / times

        for _ in range(WARM_UP):
            once = forward(1)
        repeats = max(1, int(np.ceil(SHORTEST_S / max(once, 1e-6))))

        def timed() -> float:
            forward(1)
            return forward(repeats)

        return timed

    def _synchronise(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def _summary(samples_ms: NDArray[np.float64]) -> Timing:
    median = _positive(float(np.median(samples_ms)))
    interval = quantile_test(samples_ms, q=median, p=0.5).confidence_interval(0.95)
    low = interval.low if np.isfinite(interval.low) else samples_ms.min()
    high = interval.high if np.isfinite(interval.high) else samples_ms.max()
    return Timing(median, (float(low), float(high)))


def _positive(value: float) -> float:
    if not (np.isfinite(value) and value > 0):
        raise EvaluationError(f"latency is {value}")
    return value
